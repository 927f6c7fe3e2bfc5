//! `mount.strata`: what mount(8) runs for `mount -t strata IMAGE DIRECTORY` and for lines of
//! /etc/fstab whose type is strata.
//!
//! ```text
//! mount.strata IMAGE DIRECTORY [-sfnv] [-N NAMESPACE] [-o OPTION,...] [-t TYPE]     mount(8)
//!              |
//!              v
//! strata [--root STORE] mount [--upper NAME] [--backend WHICH] ... -- IMAGE DIRECTORY
//! ```
//!
//! The program is the same under another name, so both take the same way from here on. Only a mount
//! that is there already is left alone: mount(8) compares the source of a line in /etc/fstab with
//! the mount table, where it is `strata:IMAGE`, so `mount -a` runs the helper for each line again.
//!
//! Invariants: an option that would change the mount and is not known is an error, unless mount(8)
//! says to be sloppy; what is for mount(8), systemd or fsck alone is passed over. `rw` is what
//! mount(8) says of each line without `ro`, so it asks for nothing: a writable layer has a name.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use stratafs::{MountInfo, MountStatus};

use crate::context::{Context, Format};
use crate::progress::ShowProgress;

/// The name under which the program is the helper.
const NAME: &str = "mount.strata";

/// Options of `strata mount` that the record of a mount has, in its order.
const RECORDED: [&str; 5] = ["suid", "dev", "noexec", "verify", "verity"];

/// Options that change nothing here: mount(8) and systemd read some of them, others ask
/// for what is so anyway; times of access are not kept.
const PASSED_OVER: [&str; 25] = [
    "defaults",
    "auto",
    "noauto",
    "nofail",
    "_netdev",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "rw",
    "nosuid",
    "nodev",
    "exec",
    "atime",
    "noatime",
    "relatime",
    "norelatime",
    "nodiratime",
    "diratime",
    "strictatime",
    "lazytime",
    "nolazytime",
    "async",
    "silent",
];

/// What mount(8) wants.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Helper {
    /// The command line of `strata` for it.
    Mount(Vec<OsString>),
    /// `-f`, or it is mounted as it is wanted: nothing is to be done.
    Nothing,
    /// The arguments cannot be understood: why.
    Refused(String),
}

/// What mount(8) wants, if the program runs under the helper's name.
pub(crate) fn helper(mut args: impl Iterator<Item = OsString>) -> Option<Helper> {
    let program = args.next()?;
    (Path::new(&program).file_name() == Some(OsStr::new(NAME))).then(|| {
        match Arguments::read(args) {
            Ok(arguments) if arguments.fake => Helper::Nothing,
            Ok(arguments) => match arguments.command() {
                Ok(_) if arguments.is_mounted() => Helper::Nothing,
                Ok(command) => Helper::Mount(command),
                Err(why) => Helper::Refused(why),
            },
            Err(why) => Helper::Refused(why),
        }
    })
}

/// The helper's arguments, as mount(8) gives them.
#[derive(Debug, Default)]
struct Arguments {
    named: Vec<OsString>,
    options: Vec<OsString>,
    sloppy: bool,
    fake: bool,
    verbose: bool,
}

impl Arguments {
    fn read(mut args: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut found = Self::default();
        while let Some(arg) = args.next() {
            let Some(flags) = arg.as_bytes().strip_prefix(b"-").filter(|rest| !rest.is_empty())
            else {
                found.named.push(arg);
                continue;
            };
            // As getopt reads it: flags together, the value behind its flag or the next argument.
            for (at, flag) in flags.iter().enumerate() {
                match flag {
                    b's' => found.sloppy = true,
                    b'f' => found.fake = true,
                    b'v' => found.verbose = true,
                    b'n' | b'w' => {}
                    b'r' => found.options.push("ro".into()),
                    b'o' | b't' | b'N' => {
                        let rest = &flags[at + 1..];
                        let value = match rest.is_empty() {
                            true => args
                                .next()
                                .ok_or_else(|| format!("-{} needs a value", char::from(*flag)))?,
                            false => OsString::from_vec(rest.to_vec()),
                        };
                        match flag {
                            b'o' => {
                                let all = strata_overlay::separate(value.as_bytes());
                                found.options.extend(all.map(OsString::from_vec));
                            }
                            b'N' => return Err("-N is not known: use nsenter(1)".to_owned()),
                            _ => {}
                        }
                        break;
                    }
                    other => {
                        return Err(format!("there is no option -{}", char::from(*other)));
                    }
                }
            }
        }
        Ok(found)
    }

    /// Whether the same image is mounted on the directory with the same writable layer and the same
    /// rights. Where that cannot be found out the answer is no: mounting says why.
    fn is_mounted(&self) -> bool {
        let [image, directory] = &self.named[..] else { return false };
        let Some(image) = image.to_str() else { return false };
        let Ok(root) = Context::root_or_default(self.value("store").map(Into::into)) else {
            return false;
        };
        let context = Context {
            root,
            format: Format::Table,
            quiet: true,
            shown: ShowProgress::Nothing,
            log_level: None,
        };
        let engine = context.engine();
        let has = |flag: &str| self.options.iter().any(|option| option == flag);
        let is_temporary = |name: &String| {
            engine.uppers().find(name).is_ok_and(|upper| upper.is_some_and(|one| one.temporary))
        };
        let is_it = |mount: MountInfo| {
            let record = &mount.record;
            let same_upper = match (self.value("upper"), has("writable"), &record.upper) {
                (Some(wanted), _, Some(upper)) => wanted == upper.as_str(),
                (None, true, Some(upper)) => is_temporary(upper),
                (None, false, None) => true,
                (Some(_), _, None) | (None, true, None) | (None, false, Some(_)) => false,
            };
            let rights = RECORDED.into_iter().filter(|flag| has(flag));
            mount.status == MountStatus::Alive
                && record.reference == image
                && record.options.iter().map(String::as_str).eq(rights)
                && same_upper
        };
        engine.mount_at(Path::new(directory)).is_ok_and(|mount| mount.is_some_and(is_it))
    }

    /// The value of an option; the last one, if it comes more than once.
    fn value(&self, key: &str) -> Option<&OsStr> {
        let mut pairs = self.options.iter().rev().map(|option| key_and_value(option));
        pairs.find(|(name, _)| *name == key.as_bytes())?.1
    }

    fn command(&self) -> Result<Vec<OsString>, String> {
        let [image, directory] = &self.named[..] else {
            return Err("an image and a directory are needed, and nothing else".to_owned());
        };
        let (mut globals, mut own): (Vec<OsString>, Vec<OsString>) = Default::default();
        let (mut read_only, mut writable) = (false, false);
        for option in &self.options {
            let (key, value) = key_and_value(option);
            let key = String::from_utf8_lossy(key);
            match (&*key, value) {
                ("ro", None) => read_only = true,
                ("store", Some(path)) => globals.extend(["--root".into(), path.to_owned()]),
                ("writable", None) => {
                    writable = true;
                    own.push("--rw".into());
                }
                ("upper", Some(name)) => {
                    writable = true;
                    own.extend(["--upper".into(), name.to_owned()]);
                }
                ("suid" | "dev" | "noexec" | "verify" | "verity", None) => {
                    own.push(format!("--{key}").into());
                }
                ("backend" | "profile" | "threads" | "busy-poll", Some(value)) => {
                    own.extend([format!("--{key}").into(), value.to_owned()]);
                }
                (word, None) if PASSED_OVER.contains(&word) => {}
                (word, _) if word.starts_with("x-") || word.starts_with("X-") => {}
                ("comment", _) => {}
                _ if self.sloppy => {}
                _ => return Err(format!("there is no option {}", option.display())),
            }
        }
        if read_only && writable {
            return Err("ro contradicts a writable layer: leave one of them out".to_owned());
        }
        if self.verbose {
            own.push("--verbose".into());
        }
        let mut command: Vec<OsString> = vec!["strata".into()];
        command.append(&mut globals);
        command.push("mount".into());
        command.append(&mut own);
        command.extend(["--".into(), image.clone(), directory.clone()]);
        Ok(command)
    }
}

/// The key of an option and, behind the first `=`, its value.
fn key_and_value(option: &OsStr) -> (&[u8], Option<&OsStr>) {
    let bytes = option.as_bytes();
    match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => (&bytes[..at], Some(OsStr::from_bytes(&bytes[at + 1..]))),
        None => (bytes, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Helper {
        let args = line.split(' ').map(OsString::from);
        helper(["/sbin/mount.strata".into()].into_iter().chain(args)).unwrap()
    }

    fn mounts(line: &str) -> String {
        match of(line) {
            Helper::Mount(command) => {
                let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
                words.join(" ")
            }
            other => panic!("{line}: {other:?}"),
        }
    }

    fn refusal(line: &str) -> String {
        match of(line) {
            Helper::Refused(why) => why,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn only_under_its_name() {
        assert_eq!(helper(["strata", "mount", "a", "b"].into_iter().map(OsString::from)), None);
        assert_eq!(helper(std::iter::empty()), None);
    }

    #[test]
    fn a_line_of_fstab() {
        assert_eq!(mounts("debian:12 /mnt -o rw"), "strata mount -- debian:12 /mnt");
        assert_eq!(
            mounts("debian:12 /mnt -o ro,noauto,x-systemd.automount,nofail,store=/srv/s,noexec"),
            "strata --root /srv/s mount --noexec -- debian:12 /mnt"
        );
        assert_eq!(
            mounts("-o rw,upper=work,suid,backend=fuse a:1 /mnt -v"),
            "strata mount --upper work --suid --backend fuse --verbose -- a:1 /mnt"
        );
    }

    #[test]
    fn flags_as_getopt_reads_them() {
        assert_eq!(mounts("a /m -sno store=/s,what"), "strata --root /s mount -- a /m");
        assert_eq!(mounts("a /m -ostore=/s -t strata"), "strata --root /s mount -- a /m");
        assert_eq!(of("a /m -f"), Helper::Nothing);
        assert_eq!(refusal("a /m -q"), "there is no option -q");
        assert_eq!(refusal("a /m -o"), "-o needs a value");
    }

    #[test]
    fn a_comma_in_a_path() {
        assert_eq!(mounts(r"a /m -o store=/s\,t,suid"), "strata --root /s,t mount --suid -- a /m");
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert_eq!(refusal("a /m -o remount"), "there is no option remount");
        assert_eq!(refusal("a /m -o store"), "there is no option store");
        assert_eq!(
            refusal("a /m -o ro,upper=x"),
            "ro contradicts a writable layer: leave one of them out"
        );
        assert_eq!(refusal("a"), "an image and a directory are needed, and nothing else");
    }
}
