//! The command line, as mount(8), mount.fuse3 and container engines write it.
//!
//! Invariants: `-o` may come anywhere, several times, with its value attached or not; the last
//! operand is the mountpoint, one before it is the source that the mount table shows. Under the
//! name that mount(8) looks for, its flags come first and are gone before the rest is read.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::USAGE;
use crate::options::{OverlaySettings, read};

/// What the daemon is started with, before the arguments of the command.
pub(crate) const DAEMON: &str = "--daemon";

/// The name under which mount(8) runs the program for a type of file systems.
const HELPER: &str = "mount.fuse.strata-overlay";

/// The arguments after the program's name; `None` if mount(8) wants nothing done (`mount -f`).
///
/// To a helper mount(8) gives `-s`, `-f`, `-n` and `-v` of its own, of which `-f` and `-s` mean
/// something else here. Unknown options are ignored anyway (`-s`), no mtab is written (`-n`), and
/// what there is to say is said (`-v`).
pub(crate) fn words(mut all: impl Iterator<Item = OsString>) -> Option<Vec<OsString>> {
    let program = all.next().unwrap_or_default();
    if Path::new(&program).file_name() != Some(OsStr::new(HELPER)) {
        return Some(all.collect());
    }
    let mut words = Vec::new();
    while let Some(word) = all.next() {
        match word.as_bytes() {
            b"--" => {
                words.push(word);
                words.extend(all.by_ref());
            }
            b"-o" => {
                words.push(word);
                words.extend(all.next());
            }
            [b'-', flags @ ..]
                if !flags.is_empty() && flags.iter().all(|flag| b"sfnv".contains(flag)) =>
            {
                if flags.contains(&b'f') {
                    return None;
                }
            }
            _ => words.push(word),
        }
    }
    Some(words)
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Invocation {
    /// Print this and end.
    Print(String),
    /// Mount.
    Mount(Box<Request>),
}

/// A mount that is wanted.
#[derive(Debug)]
pub(crate) struct Request {
    /// What `-o` asks for.
    pub(crate) settings: OverlaySettings,
    /// The directory to mount on.
    pub(crate) mountpoint: PathBuf,
    /// Serve in this process.
    pub(crate) foreground: bool,
    /// Tell every request.
    pub(crate) debug: bool,
    /// Be the daemon that the command has started.
    pub(crate) daemon: bool,
}

/// Reads the arguments after the program's name.
pub(crate) fn parse(args: &[OsString]) -> Result<Invocation> {
    let mut settings = OverlaySettings::default();
    let mut operands: Vec<&OsStr> = Vec::new();
    let (mut foreground, mut debug, mut daemon) = (false, false, false);
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_bytes() {
            b"-h" | b"--help" => return Ok(Invocation::Print(USAGE.to_owned())),
            b"-V" | b"--version" => {
                return Ok(Invocation::Print(format!(
                    "strata-overlay {}",
                    env!("CARGO_PKG_VERSION")
                )));
            }
            b"-f" => foreground = true,
            b"-d" | b"--debug" => (foreground, debug) = (true, true),
            b"-s" => read(b"threaded=0", &mut settings)?,
            b"-o" => match rest.next() {
                Some(options) => read(options.as_bytes(), &mut settings)?,
                None => bail!("-o needs options after it\n{USAGE}"),
            },
            b"--" => operands.extend(rest.by_ref().map(OsString::as_os_str)),
            bytes if bytes == DAEMON.as_bytes() => daemon = true,
            bytes => match bytes.strip_prefix(b"-o") {
                Some(options) => read(options, &mut settings)?,
                None if bytes.starts_with(b"-") && bytes.len() > 1 => {
                    bail!("unknown option {}\n{USAGE}", arg.display());
                }
                None => operands.push(arg),
            },
        }
    }
    let (source, mountpoint) = match operands[..] {
        [mountpoint] => (None, mountpoint),
        [source, mountpoint] => (Some(source), mountpoint),
        _ => bail!("a source and a mountpoint are expected\n{USAGE}"),
    };
    if settings.fsname.is_none() {
        settings.fsname = source.map(|source| source.to_string_lossy().into_owned());
    }
    settings.check()?;
    let mountpoint = PathBuf::from(mountpoint);
    Ok(Invocation::Mount(Box::new(Request { settings, mountpoint, foreground, debug, daemon })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(args: &[&str]) -> Result<Request> {
        let args: Vec<OsString> = args.iter().map(Into::into).collect();
        match parse(&args)? {
            Invocation::Mount(request) => Ok(*request),
            Invocation::Print(text) => bail!("{text}"),
        }
    }

    #[test]
    fn engines_and_mount_write_it_their_ways() {
        for args in [
            &["-o", "lowerdir=/a:/b,upperdir=u,workdir=w", "/m"][..],
            &["-olowerdir=/a:/b,upperdir=u,workdir=w", "/m"],
            &["none", "/m", "-o", "rw,lowerdir=/a:/b", "-o", "upperdir=u,workdir=w"],
            &["-o", "lowerdir=/a:/b", "-oupperdir=u", "-o", "workdir=w", "--", "none", "/m"],
        ] {
            let request = request(args).unwrap();
            assert_eq!(request.settings.lower, [PathBuf::from("/a"), PathBuf::from("/b")]);
            assert_eq!(request.settings.upper, Some("u".into()));
            assert_eq!(request.settings.work, Some("w".into()));
            assert_eq!(request.mountpoint, PathBuf::from("/m"));
            assert!(!request.foreground && !request.daemon);
        }
        let shown = |args: &[&str]| request(args).unwrap().settings.fsname;
        assert_eq!(shown(&["src", "/m", "-olowerdir=/a"]).as_deref(), Some("src"));
        assert_eq!(shown(&["src", "/m", "-olowerdir=/a,fsname=x"]).as_deref(), Some("x"));
        assert!(request(&["-d", "-olowerdir=/a", "/m"]).unwrap().foreground);
    }

    #[test]
    fn the_flags_of_mount_8_are_for_its_helper_alone() {
        let all = |line: &str| words(line.split(' ').map(OsString::from));
        let left = |line: &str| all(line).map(|words| words.join(OsStr::new(" ")));
        let line = "none /m -s -n -v -o rw,lowerdir=/a";
        let helper = "/sbin/mount.fuse.strata-overlay ";
        assert_eq!(left(&format!("{helper}{line}")).unwrap(), "none /m -o rw,lowerdir=/a");
        assert_eq!(left(&format!("{helper}-d -o -n -- -v")).unwrap(), "-d -o -n -- -v");
        for flags in ["-f", "-sf", "-f -v", "-v -f"] {
            assert_eq!(left(&format!("{helper}none /m {flags} -o rw")), None, "{flags}");
        }
        for program in ["strata-overlay", "/usr/bin/fuse-overlayfs"] {
            assert_eq!(left(&format!("{program} -f {line}")).unwrap(), *format!("-f {line}"));
        }
        assert_eq!(words(std::iter::empty()), Some(Vec::new()));
    }

    #[test]
    fn the_manual_shows_command_lines_that_are_taken() {
        let lines = crate::EXAMPLES.lines();
        let own: Vec<_> = lines.filter_map(|line| line.strip_prefix("strata-overlay ")).collect();
        assert!(own.len() > 2);
        for line in own {
            let words: Vec<&str> = line.split(' ').collect();
            assert!(request(&words).is_ok(), "{line}");
        }
    }

    #[test]
    fn what_is_missing_or_too_much_is_said() {
        for (args, said) in [
            (&["-olowerdir=/a"][..], "mountpoint"),
            (&["-olowerdir=/a", "a", "b", "c"], "mountpoint"),
            (&["/m"], "lowerdir"),
            (&["-o"], "-o needs"),
            (&["-x", "/m"], "unknown option -x"),
            (&["-olowerdir=/a,upperdir=/u", "/m"], "workdir"),
            (&["-olowerdir=/a,workdir=/u", "/m"], "upperdir"),
        ] {
            let error = request(args).unwrap_err().to_string();
            assert!(error.contains(said), "{args:?}: {error}");
        }
        let version = [OsString::from("--version")];
        let Invocation::Print(text) = parse(&version).unwrap() else { panic!("not printed") };
        assert!(text.starts_with("strata-overlay 0."));
    }
}
