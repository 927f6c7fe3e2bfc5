//! The options after `-o`: overlayfs' own (overlayfs.rst), fuse-overlayfs' and those of every
//! FUSE mount.
//!
//! An option is text up to the next comma. A backslash takes the meaning off the byte after it;
//! between double quotes a comma has none (labels have commas). [`OPTIONS`] says what each does.
//!
//! Invariants: an option that is not in the table is remembered, to be named on stderr, and
//! changes nothing; one that is there and cannot be done is an error.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::mount::MountFlags;
use strata_confine::Confinement;
use strata_fuse::{IdMap, Ids, MountOptions, WritableOptions};
use strata_tree::OverrideStat;
use strata_union::writable::{AccessTimes, Ownership, UnionOptions};

/// What the options ask for. `None`: the default, which depends on the caller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OverlaySettings {
    /// Top-most first, as overlayfs wants them.
    pub(crate) lower: Vec<PathBuf>,
    /// Below them, for contents alone (overlayfs.rst, "Data-only lower layers").
    pub(crate) data: Vec<PathBuf>,
    pub(crate) upper: Option<PathBuf>,
    pub(crate) work: Option<PathBuf>,
    pub(crate) fsname: Option<String>,
    /// Options that are not known.
    pub(crate) unknown: Vec<String>,
    subtype: Option<String>,
    user_marks: bool,
    volatile: bool,
    no_metacopy: bool,
    no_redirect: bool,
    shared: bool,
    override_owners: bool,
    users: IdMap,
    groups: IdMap,
    squash_to_root: bool,
    squash_to_uid: Option<u32>,
    squash_to_gid: Option<u32>,
    static_nlink: bool,
    no_acl: bool,
    no_xattrs: bool,
    no_sync: bool,
    single: bool,
    no_busy_poll: bool,
    timeout: Option<Duration>,
    labels: Vec<(&'static str, String)>,
    default_permissions: bool,
    allow_other: bool,
    allow_root: bool,
    read_only: Option<bool>,
    /// Change a mount that is there.
    pub(crate) remount: bool,
    suid: Option<bool>,
    dev: Option<bool>,
    exec: Option<bool>,
    times: Option<AccessTimes>,
}

/// What an option does.
enum Effect {
    /// It stands alone, or is followed by a yes or a no.
    Switch(fn(&mut OverlaySettings, bool)),
    /// It needs a value.
    Value(fn(&mut OverlaySettings, &[u8]) -> Result<()>),
    /// One of these values, for which nothing is to be done.
    Accepts(&'static [&'static str]),
    /// Nothing is to be done, whatever its value.
    Nothing,
    /// It cannot be done.
    Impossible(&'static str),
}

use Effect::{Accepts, Impossible, Nothing, Switch, Value};

/// Every option that is known.
const OPTIONS: &[(&str, Effect)] = &[
    ("lowerdir", Value(lowers)),
    ("lowerdir+", Value(one_lower)),
    ("upperdir", Value(|s, v| put(&mut s.upper, Some(path(v))))),
    ("workdir", Value(|s, v| put(&mut s.work, Some(path(v))))),
    ("datadir+", Value(one_data)),
    // Links survive copy-up always: what is left of the choice is how a second mount is met.
    ("index", Value(index)),
    ("xino", Accepts(&["on", "off", "auto"])),
    ("nfs_export", Accepts(&["off"])),
    ("verity", Accepts(&["off"])),
    ("uuid", Accepts(&["on", "off", "auto", "null"])),
    ("redirect_dir", Value(redirect_dir)),
    ("metacopy", Switch(|s, yes| s.no_metacopy = !yes)),
    ("userxattr", Switch(|s, yes| s.user_marks = yes)),
    ("volatile", Switch(|s, yes| s.volatile = yes)),
    ("uidmapping", Value(|s, v| put(&mut s.users, text(v)?.parse()?))),
    ("gidmapping", Value(|s, v| put(&mut s.groups, text(v)?.parse()?))),
    ("squash_to_root", Switch(|s, yes| s.squash_to_root = yes)),
    ("squash_to_uid", Value(|s, v| put(&mut s.squash_to_uid, Some(number(v)?)))),
    ("squash_to_gid", Value(|s, v| put(&mut s.squash_to_gid, Some(number(v)?)))),
    ("xattr_permissions", Value(xattr_permissions)),
    ("static_nlink", Switch(|s, yes| s.static_nlink = yes)),
    ("noacl", Switch(|s, yes| s.no_acl = yes)),
    ("noxattrs", Switch(|s, yes| s.no_xattrs = yes)),
    ("timeout", Value(timeout)),
    ("fsync", Switch(|s, yes| s.no_sync = !yes)),
    ("busy_poll", Value(busy_poll)),
    ("threaded", Switch(|s, yes| s.single = !yes)),
    ("fast_ino", Nothing),
    ("plugins", Impossible("there are no plugins")),
    ("context", Value(|s, v| label(s, "context", v))),
    ("fscontext", Value(|s, v| label(s, "fscontext", v))),
    ("defcontext", Value(|s, v| label(s, "defcontext", v))),
    ("rootcontext", Value(|s, v| label(s, "rootcontext", v))),
    ("fsname", Value(|s, v| put(&mut s.fsname, Some(text(&plain(v))?.to_owned())))),
    ("subtype", Value(|s, v| put(&mut s.subtype, Some(text(&plain(v))?.to_owned())))),
    ("default_permissions", Switch(|s, yes| s.default_permissions = yes)),
    ("allow_other", Switch(|s, yes| s.allow_other = yes)),
    ("allow_root", Switch(|s, yes| s.allow_root = yes)),
    ("auto_unmount", Impossible("a daemon that is killed leaves its mount; use umount")),
    ("ro", Switch(|s, yes| s.read_only = Some(yes))),
    ("rw", Switch(|s, yes| s.read_only = Some(!yes))),
    ("remount", Switch(|s, yes| s.remount = yes)),
    ("suid", Switch(|s, yes| s.suid = Some(yes))),
    ("nosuid", Switch(|s, yes| s.suid = Some(!yes))),
    ("dev", Switch(|s, yes| s.dev = Some(yes))),
    ("nodev", Switch(|s, yes| s.dev = Some(!yes))),
    ("exec", Switch(|s, yes| s.exec = Some(yes))),
    ("noexec", Switch(|s, yes| s.exec = Some(!yes))),
    ("atime", Switch(|s, yes| s.times = Some(some_or_never(yes)))),
    ("noatime", Switch(|s, yes| s.times = Some(some_or_never(!yes)))),
    ("relatime", Switch(|s, yes| s.times = Some(some_or_never(yes)))),
    ("norelatime", Nothing),
    ("strictatime", Switch(|s, yes| s.times = yes.then_some(AccessTimes::Always))),
    ("nostrictatime", Nothing),
    ("lazytime", Nothing),
    ("nolazytime", Nothing),
    ("diratime", Nothing),
    ("nodiratime", Nothing),
    ("async", Nothing),
    ("sync", Impossible("a program that needs its writes on disk calls fsync")),
    ("dirsync", Impossible("a program that needs its writes on disk calls fsync")),
    // For mount(8) alone.
    ("defaults", Nothing),
    ("auto", Nothing),
    ("noauto", Nothing),
    ("nofail", Nothing),
    ("user", Nothing),
    ("users", Nothing),
    ("nouser", Nothing),
    ("owner", Nothing),
    ("group", Nothing),
    ("_netdev", Nothing),
];

/// Reads what stands after one `-o`.
pub(crate) fn read(options: &[u8], settings: &mut OverlaySettings) -> Result<()> {
    for option in split(options, b',').into_iter().filter(|option| !option.is_empty()) {
        let at = option.iter().position(|byte| *byte == b'=');
        let (name, value) = match at {
            Some(at) => (&option[..at], Some(&option[at + 1..])),
            None => (option, None),
        };
        let shown = String::from_utf8_lossy(option);
        match OPTIONS.iter().find(|(known, _)| known.as_bytes() == name) {
            Some((_, effect)) => {
                apply(effect, settings, value).with_context(|| format!("option {shown}"))?;
            }
            None if name.starts_with(b"x-") || name.starts_with(b"X-") => {}
            None => settings.unknown.push(shown.into_owned()),
        }
    }
    Ok(())
}

fn apply(effect: &Effect, settings: &mut OverlaySettings, value: Option<&[u8]>) -> Result<()> {
    match (effect, value) {
        (Switch(set), value) => {
            let yes = match value {
                None | Some(b"1" | b"on" | b"yes" | b"true") => true,
                Some(b"0" | b"off" | b"no" | b"false") => false,
                Some(_) => bail!("the value must be on or off"),
            };
            set(settings, yes);
            Ok(())
        }
        (Value(set), Some(value)) if !value.is_empty() => set(settings, value),
        (Value(_), _) => bail!("a value is missing"),
        (Accepts(values), Some(value)) if values.iter().any(|v| v.as_bytes() == value) => Ok(()),
        (Accepts(values), _) => bail!("possible here: {}", values.join(", ")),
        (Nothing, _) => Ok(()),
        (Impossible(why), _) => bail!("not possible: {why}"),
    }
}

/// The parts between separators that a backslash or double quotes do not protect, as written.
fn split(text: &[u8], separator: u8) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let (mut start, mut at, mut quoted) = (0, 0, false);
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' => at += 1,
            b'"' => quoted = !quoted,
            byte if *byte == separator && !quoted => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    parts.push(&text[start..]);
    parts
}

/// The options of a text, as the module says, without the backslashes that protect commas; for all
/// that mount(8) runs.
pub fn separate(text: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    split(text, b',').into_iter().filter(|one| !one.is_empty()).map(plain)
}

/// Without the protecting backslashes.
fn plain(text: &[u8]) -> Vec<u8> {
    let mut bytes = text.iter().copied();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(if byte == b'\\' { bytes.next().unwrap_or(byte) } else { byte });
    }
    out
}

fn path(text: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(plain(text)))
}

#[allow(clippy::unnecessary_wraps)]
fn put<T>(place: &mut T, value: T) -> Result<()> {
    *place = value;
    Ok(())
}

fn text(value: &[u8]) -> Result<&str> {
    std::str::from_utf8(value).context("the value is not UTF-8")
}

fn number(value: &[u8]) -> Result<u32> {
    text(value)?.parse().context("the value must be a number")
}

fn label(settings: &mut OverlaySettings, kind: &'static str, value: &[u8]) -> Result<()> {
    let label = text(value)?.trim_matches('"').to_owned();
    settings.labels.push((kind, label));
    Ok(())
}

/// `A:B::D1::D2`: what follows a double colon has data alone.
fn lowers(settings: &mut OverlaySettings, value: &[u8]) -> Result<()> {
    let parts = split(value, b':');
    (settings.lower, settings.data) = (Vec::new(), Vec::new());
    let mut double = false;
    for (at, part) in parts.iter().enumerate() {
        let inner = at > 0 && at + 1 < parts.len();
        if part.is_empty() && inner && !double {
            double = true;
            continue;
        }
        match (std::mem::take(&mut double), settings.data.is_empty()) {
            (true, _) => settings.data.push(path(part)),
            (false, true) => settings.lower.push(path(part)),
            (false, false) => bail!(AFTER_DATA),
        }
    }
    Ok(())
}

/// The kernel refuses it, too: data are below all else.
const AFTER_DATA: &str = "layers of data come last, each after \"::\" or by datadir+";

fn one_lower(settings: &mut OverlaySettings, value: &[u8]) -> Result<()> {
    if !settings.data.is_empty() {
        bail!(AFTER_DATA);
    }
    settings.lower.push(path(value));
    Ok(())
}

#[allow(clippy::unnecessary_wraps)]
fn one_data(settings: &mut OverlaySettings, value: &[u8]) -> Result<()> {
    settings.data.push(path(value));
    Ok(())
}

/// `atime` stands for what the kernel does without an option.
fn some_or_never(yes: bool) -> AccessTimes {
    if yes { AccessTimes::Relative } else { AccessTimes::Never }
}

fn index(settings: &mut OverlaySettings, value: &[u8]) -> Result<()> {
    settings.shared = match value {
        b"on" => false,
        b"off" => true,
        _ => bail!("the value must be on or off"),
    };
    Ok(())
}

fn redirect_dir(settings: &mut OverlaySettings, value: &[u8]) -> Result<()> {
    settings.no_redirect = match value {
        b"on" => false,
        // Redirects that are there are always followed.
        b"off" | b"follow" => true,
        b"nofollow" => bail!("not possible: redirects are always followed"),
        _ => bail!("the value must be on, off or follow"),
    };
    Ok(())
}

fn busy_poll(settings: &mut OverlaySettings, value: &[u8]) -> Result<()> {
    settings.no_busy_poll = match value {
        b"auto" => false,
        b"off" => true,
        _ => bail!("the value must be auto or off"),
    };
    Ok(())
}

fn xattr_permissions(settings: &mut OverlaySettings, value: &[u8]) -> Result<()> {
    settings.override_owners = match value {
        b"0" => false,
        b"1" | b"2" => true,
        _ => bail!("the value must be 0, 1 or 2"),
    };
    Ok(())
}

fn timeout(settings: &mut OverlaySettings, value: &[u8]) -> Result<()> {
    // More than 68 years is for ever.
    const MOST: f64 = i32::MAX as f64;
    let seconds: f64 = text(value)?.parse().context("the value must be a number of seconds")?;
    if seconds.is_nan() || seconds < 0.0 {
        bail!("the value must not be negative");
    }
    settings.timeout = Some(Duration::from_secs_f64(seconds.min(MOST)));
    Ok(())
}

impl OverlaySettings {
    /// What does not go together.
    pub(crate) fn check(&self) -> Result<()> {
        if self.remount {
            return Ok(()); // The directories stay as they are.
        }
        if self.lower.is_empty() {
            bail!("lowerdir is missing: -o lowerdir=DIR[:DIR...]");
        }
        if self.lower.iter().chain(&self.data).any(|path| path.as_os_str().is_empty()) {
            bail!("lowerdir has an empty name; a \":\" in a name is written \"\\:\"");
        }
        match (&self.upper, &self.work) {
            (Some(_), None) => bail!("upperdir needs a workdir on the same file system"),
            (None, Some(_)) => bail!("workdir is of no use without an upperdir"),
            _ => Ok(()),
        }
    }

    /// How the union keeps things. `root`: of the whole machine, not of a namespace.
    pub(crate) fn union(&self, root: bool) -> UnionOptions {
        UnionOptions {
            ownership: if self.override_owners { Ownership::Override } else { Ownership::Inode },
            user_marks: self.user_marks || !root,
            volatile: self.volatile,
            no_metacopy: self.no_metacopy,
            no_redirect: self.no_redirect,
            shared: self.shared,
            access_times: AccessTimes::default(),
        }
    }

    /// Whether lowers may state owners, modes and devices. Every user may set the attribute: in a
    /// mount of root, which has devices and set-id bits, it is believed if the options ask for it.
    /// `root`: as above.
    pub(crate) fn stated_owners(&self, root: bool) -> OverrideStat {
        match root && !self.override_owners {
            true => OverrideStat::Ignored,
            false => OverrideStat::IfRootHas,
        }
    }

    /// What reading does. Root's mounts move no access times unless asked to, as ever; others are
    /// what the upper's own mount is.
    pub(crate) fn access_times(&self, root: bool) -> AccessTimes {
        self.times.unwrap_or(if root { AccessTimes::Never } else { AccessTimes::Mount })
    }

    /// What is said of the mount itself.
    pub(crate) fn said(&self) -> [(MountFlags, Option<bool>); 5] {
        let never = self.times.map(|times| times == AccessTimes::Never);
        [
            (MountFlags::RDONLY, self.read_only),
            (MountFlags::NOSUID, self.suid.map(|yes| !yes)),
            (MountFlags::NODEV, self.dev.map(|yes| !yes)),
            (MountFlags::NOEXEC, self.exec.map(|yes| !yes)),
            (MountFlags::NOATIME, never),
        ]
    }

    /// How it is mounted. `root`: the caller is root, if only of a namespace.
    pub(crate) fn mount(&self, root: bool) -> MountOptions {
        let mut options = MountOptions {
            suid: self.suid.unwrap_or(root),
            dev: self.dev.unwrap_or(root),
            exec: self.exec.unwrap_or(true),
            atime: self.access_times(root) != AccessTimes::Never,
            read_only: self.read_only.unwrap_or(false) || self.upper.is_none(),
            allow_other: self.allow_other || root && !self.allow_root,
            allow_root: self.allow_root,
            default_permissions: self.default_permissions || root,
            acl: !self.no_acl && !self.no_xattrs,
            fsname: self.fsname.clone().unwrap_or_else(|| "strata-overlay".to_owned()),
            subtype: self.subtype.clone().unwrap_or_else(|| "strata-overlay".to_owned()),
            labels: self.labels.clone(),
            ids: self.ids(),
            static_nlink: self.static_nlink,
            threads: if self.single { 1 } else { 4 },
            busy_poll: !self.no_busy_poll,
            confinement: Some(Confinement::writer()),
            ..MountOptions::default()
        };
        options.facts.has_xattrs = !self.no_xattrs;
        options
    }

    /// How a union is served.
    pub(crate) fn writable(&self, root: bool) -> WritableOptions {
        let default = WritableOptions::default();
        WritableOptions {
            mount: self.mount(root),
            timeout: self.timeout.unwrap_or(default.timeout),
            xattrs: !self.no_xattrs,
            no_sync: self.no_sync || self.volatile,
            ..default
        }
    }

    fn ids(&self) -> Ids {
        let root = self.squash_to_root.then_some(0);
        let squash = |map: &IdMap, to: Option<u32>| match to.or(root) {
            Some(to) => map.clone().squashed(to),
            None => map.clone(),
        };
        Ids {
            users: squash(&self.users, self.squash_to_uid),
            groups: squash(&self.groups, self.squash_to_gid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(options: &str) -> OverlaySettings {
        let mut settings = OverlaySettings::default();
        read(options.as_bytes(), &mut settings).unwrap();
        settings
    }

    fn refused(options: &str) -> String {
        format!("{:#}", read(options.as_bytes(), &mut OverlaySettings::default()).unwrap_err())
    }

    #[test]
    fn separators_can_be_escaped() {
        let read = settings(r"lowerdir=/a\:b:/c\,d:/e\\:/f,upperdir=/u\,v,workdir=/w\\,ro");
        let lower = ["/a:b", "/c,d", r"/e\", "/f"].map(PathBuf::from);
        assert_eq!(read.lower, lower);
        assert_eq!(read.upper, Some("/u,v".into()));
        assert_eq!(read.work, Some(r"/w\".into()));
        assert_eq!(read.read_only, Some(true));
        let lower = settings("lowerdir+=/a:b,lowerdir+=/c").lower;
        assert_eq!(lower, ["/a:b", "/c"].map(PathBuf::from));
        let label = settings(r#"context="a:b:s0:c1,c2",ro"#);
        assert_eq!(label.labels, [("context", "a:b:s0:c1,c2".to_owned())]);
        assert_eq!(label.read_only, Some(true));
    }

    #[test]
    fn layers_of_data_come_last() {
        let both = settings(r"lowerdir=/a:/b::/c::/d\:,datadir+=/e:f");
        assert_eq!(both.lower, ["/a", "/b"].map(PathBuf::from));
        assert_eq!(both.data, ["/c", "/d:", "/e:f"].map(PathBuf::from));
        assert_eq!(settings("lowerdir=/a::/b,lowerdir=/c").data, Vec::<PathBuf>::new());
        for (options, why) in [
            ("lowerdir=/a::/b:/c", "come last"),
            ("lowerdir+=/a,datadir+=/b,lowerdir+=/c", "come last"),
        ] {
            assert!(refused(options).contains(why), "{options}: {}", refused(options));
        }
        for empty in ["::/a", "/a:::/b", "/a::", "/a::/b::", "/a:", ":/a", "/a::/b:::/c", ":", "::"]
        {
            let mut some = OverlaySettings::default();
            let known = read(format!("lowerdir={empty}").as_bytes(), &mut some);
            assert!(known.and_then(|()| some.check()).is_err(), "{empty}: {some:?}");
        }
        assert!(settings("datadir+=/a").check().is_err());
    }

    #[test]
    fn what_is_not_known_is_remembered_and_changes_nothing() {
        let read = settings("lowerdir=/a,bogus,extra=1,,x-systemd.automount,defaults");
        assert_eq!(read.unknown, ["bogus", "extra=1"]);
        let with_unknown = OverlaySettings { unknown: Vec::new(), ..read };
        assert_eq!(with_unknown, settings("lowerdir=/a"));
    }

    #[test]
    fn what_is_known_and_cannot_be_done_is_refused() {
        for (options, why) in [
            ("nfs_export=on", "option nfs_export=on: possible here: off"),
            ("plugins=x", "no plugins"),
            ("redirect_dir=nofollow", "always followed"),
            ("metacopy=perhaps", "on or off"),
            ("squash_to_uid=root", "a number"),
            ("uidmapping=0:1", "INSIDE:OUTSIDE:COUNT"),
            ("timeout=-1", "negative"),
            ("busy_poll=on", "auto or off"),
            ("timeout=soon", "seconds"),
            ("upperdir", "missing"),
            ("xattr_permissions=3", "0, 1 or 2"),
            ("auto_unmount", "not possible"),
        ] {
            assert!(refused(options).contains(why), "{options}: {}", refused(options));
        }
    }

    #[test]
    fn roots_mounts_are_for_everybody() {
        let options = settings("lowerdir=/a,upperdir=/u,workdir=/w");
        let root = options.mount(true);
        assert!(root.allow_other && root.default_permissions && root.suid && root.dev);
        assert!(!root.atime && !root.read_only && root.acl);
        let user = options.mount(false);
        assert!(!user.allow_other && !user.default_permissions && !user.suid && !user.dev);
        assert!(settings("lowerdir=/a").mount(true).read_only);
        let less = settings("lowerdir=/a,nosuid,nodev,noexec,atime,ro,threaded=0").mount(true);
        assert!(!less.suid && !less.dev && !less.exec && less.atime && less.read_only);
        assert_eq!(less.threads, 1);
        assert!(root.busy_poll && settings("busy_poll=auto").mount(true).busy_poll);
        assert!(!settings("busy_poll=off").mount(true).busy_poll);
    }

    #[test]
    fn unions_are_kept_as_the_options_say() {
        let plain = settings("index=on,xino=auto,metacopy=on,redirect_dir=on").union(true);
        assert_eq!(plain, UnionOptions::default());
        assert!(OverlaySettings::default().union(false).user_marks);
        let other = settings(
            "volatile,userxattr,metacopy=off,redirect_dir=off,xattr_permissions=2,noxattrs",
        );
        let union = other.union(true);
        assert!(union.volatile && union.user_marks && union.no_metacopy && union.no_redirect);
        assert_eq!(union.ownership, Ownership::Override);
        let served = other.writable(true);
        assert!(!served.xattrs && !served.mount.acl && served.no_sync);
        assert_eq!(settings("timeout=1.5").writable(true).timeout, Duration::from_millis(1500));
        let for_ever = settings("timeout=1000000000000").writable(true).timeout;
        assert_eq!(for_ever, WritableOptions::default().timeout);
    }

    #[test]
    fn root_believes_owners_that_users_state_if_asked_to() {
        let stated = |options: &str, root| settings(options).stated_owners(root);
        for options in ["lowerdir=/a", "userxattr", "xattr_permissions=0"] {
            assert_eq!(stated(options, true), OverrideStat::Ignored, "{options}");
            assert_eq!(stated(options, false), OverrideStat::IfRootHas, "{options}");
        }
        for options in ["xattr_permissions=1", "xattr_permissions=2"] {
            assert_eq!(stated(options, true), OverrideStat::IfRootHas, "{options}");
        }
    }

    #[test]
    fn a_squash_to_someone_beats_one_to_root() {
        let ids = settings("squash_to_root,squash_to_uid=5,uidmapping=0:1000:1").ids();
        assert_eq!(ids.users.shown(0), 5);
        assert_eq!(ids.groups.shown(7), 0);
        let mapped = settings("uidmapping=0:1000:1,gidmapping=0:2000:1:1:3000:9").ids();
        assert_eq!((mapped.users.shown(0), mapped.groups.shown(2)), (1000, 3001));
    }
}
