//! The names of the extended attributes with which an overlay directory says what a tree cannot.
//!
//! ```text
//! P = trusted.overlay.   or, without privilege,   user.overlay.     (overlayfs.rst, "userxattr")
//! P opaque      "y": nothing of the layers below shows in this directory
//!               "x": it may hold whiteouts that are files, which listings must look for
//! P whiteout    present: this zero-size regular file is a whiteout
//! P redirect    "/a/b" or "name": where the layers below have this directory or metacopy file
//! P metacopy    present: the content of this regular file is in a layer below
//! P overlay.X   the image's own attribute P X                (overlayfs.rst, "Nested mounts")
//! ```
//!
//! Invariants: no attribute of the image begins with P on disk unless escaped, and none of the
//! marks reaches the image; the other class's prefix is ordinary to a class.

use std::borrow::Cow;

use crate::node::{Device, Kind};

/// What fuse-overlayfs writes for itself: private wherever its dialect is understood.
pub const FUSE_PREFIX: &[u8] = b"user.fuseoverlayfs.";
/// fuse-overlayfs' mark of an opaque directory: `y`.
pub const FUSE_OPAQUE: &str = "user.fuseoverlayfs.opaque";
/// Owner, mode and type of an inode whose owner may not set them, as containers/storage and
/// fuse-overlayfs (`xattr_permissions`) keep them: see [`Override`].
pub const OVERRIDE_STAT: &str = "user.containers.override_stat";

/// The prefix of the names that aufs and the OCI layer format give whiteouts.
pub const AUFS_WHITEOUT: &[u8] = b".wh.";
/// The name that makes its directory opaque there.
pub const AUFS_OPAQUE: &[u8] = b".wh..wh..opq";

/// Who may set the marks, which decides their prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum XattrClass {
    /// `trusted.overlay.`: `CAP_SYS_ADMIN` in the initial user namespace.
    Trusted,
    /// `user.overlay.`: every user who may write the file (overlayfs.rst, "userxattr").
    User,
}

/// What one attribute says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mark {
    /// `y`: the directory is opaque; `x`: it may hold [`Mark::Whiteout`]s, and the kernel's
    /// listings leave those out only if it says so.
    Opaque,
    /// Where the layers below have the node.
    Redirect,
    /// The content is in a layer below.
    Metacopy,
    /// The kernel's file handle of what was copied up.
    Origin,
    /// `y`: names in this directory may have been copied up.
    Impure,
    /// How the link count of an indexed inode differs from its index entry's.
    Nlink,
    /// On an index entry: the file handle of its upper.
    Upper,
    /// On an upper's root: the mount's identity.
    Uuid,
    /// The immutable and append-only flags.
    Protattr,
    /// On a zero-size regular file: a whiteout.
    Whiteout,
    /// Ours: the number of the lower node that was copied up, in decimal; then " unsynced", as long
    /// as that is not on disk.
    StrataOrigin,
    /// Ours: on an empty regular file, the device that it stands for, as [`format_kind`] writes
    /// it: a character device 0:0 that is not a whiteout.
    StrataDevice,
}

impl XattrClass {
    /// What the names of all marks begin with.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.",
            Self::User => "user.overlay.",
        }
    }

    /// The full name of a mark.
    pub const fn name(self, mark: Mark) -> &'static str {
        macro_rules! names {
            ($($mark:ident $text:literal)*) => {
                match (self, mark) {
                    $((Self::Trusted, Mark::$mark) => concat!("trusted.overlay.", $text),
                      (Self::User, Mark::$mark) => concat!("user.overlay.", $text),)*
                }
            };
        }
        names! {
            Opaque "opaque"
            Redirect "redirect"
            Metacopy "metacopy"
            Origin "origin"
            Impure "impure"
            Nlink "nlink"
            Upper "upper"
            Uuid "uuid"
            Protattr "protattr"
            Whiteout "whiteout"
            StrataOrigin "strata.origin"
            StrataDevice "strata.device"
        }
    }

    /// What follows the prefix, for names that have it.
    fn rest(self, name: &[u8]) -> Option<&[u8]> {
        name.strip_prefix(self.prefix().as_bytes())
    }

    /// Whether a name on disk is a mark, which the image does not see.
    pub fn is_private(self, name: &[u8]) -> bool {
        self.rest(name).is_some_and(|rest| !rest.starts_with(ESCAPE))
    }

    /// What the image's attribute `name` is called on disk.
    pub fn escape(self, name: &[u8]) -> Cow<'_, [u8]> {
        match self.rest(name) {
            Some(rest) => Cow::Owned([self.prefix().as_bytes(), ESCAPE, rest].concat()),
            None => Cow::Borrowed(name),
        }
    }

    /// What the attribute `name` on disk is called in the image; `None` for a mark.
    pub fn unescape(self, name: &[u8]) -> Option<Cow<'_, [u8]>> {
        match self.rest(name) {
            Some(rest) => {
                let rest = rest.strip_prefix(ESCAPE)?;
                Some(Cow::Owned([self.prefix().as_bytes(), rest].concat()))
            }
            None => Some(Cow::Borrowed(name)),
        }
    }
}

const ESCAPE: &[u8] = b"overlay.";

/// Owner, permission bits and type, as [`OVERRIDE_STAT`] keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Override {
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The 12 permission bits.
    pub perm: u16,
    /// `None`: the type is not stated, the inode's own counts.
    pub kind: Option<Kind>,
}

impl Override {
    /// Reads `UID:GID:MODE[:TYPE]`, MODE in octal; `None` if the text is something else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(text).ok()?.splitn(4, ':');
        let uid = parts.next()?.parse().ok()?;
        let gid = parts.next()?.parse().ok()?;
        let mode = u32::from_str_radix(parts.next()?, 8).ok()?;
        let perm = u16::try_from(mode & 0o7777).ok()?;
        let kind = parts.next().map(|kind| parse_kind(kind).ok_or(())).transpose().ok()?;
        Some(Self { uid, gid, perm, kind })
    }

    /// The other way round.
    pub fn format(self) -> String {
        let kind = self.kind.map(|kind| format!(":{}", format_kind(kind))).unwrap_or_default();
        format!("{}:{}:{:04o}{kind}", self.uid, self.gid, self.perm)
    }
}

/// A type: `file`, `dir`, `symlink`, `pipe`, `socket`, `block-MAJOR-MINOR`, `char-MAJOR-MINOR`.
pub fn parse_kind(text: &str) -> Option<Kind> {
    let device = |numbers: &str| {
        let (major, minor) = numbers.split_once('-')?;
        Some(Device { major: major.parse().ok()?, minor: minor.parse().ok()? })
    };
    Some(match text {
        "file" => Kind::Regular,
        "dir" => Kind::Directory,
        "symlink" => Kind::Symlink,
        "pipe" => Kind::Fifo,
        "socket" => Kind::Socket,
        _ => match text.split_once('-')? {
            ("block", numbers) => Kind::BlockDevice(device(numbers)?),
            ("char", numbers) => Kind::CharDevice(device(numbers)?),
            _ => return None,
        },
    })
}

/// The other way round.
pub fn format_kind(kind: Kind) -> String {
    match kind {
        Kind::Regular => "file".to_owned(),
        Kind::Directory => "dir".to_owned(),
        Kind::Symlink => "symlink".to_owned(),
        Kind::Fifo => "pipe".to_owned(),
        Kind::Socket => "socket".to_owned(),
        Kind::BlockDevice(Device { major, minor }) => format!("block-{major}-{minor}"),
        Kind::CharDevice(Device { major, minor }) => format!("char-{major}-{minor}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_private_and_escapes_are_not() {
        for (class, name, shown) in [
            (XattrClass::Trusted, "trusted.overlay.opaque", None),
            (XattrClass::Trusted, "trusted.overlay.", None),
            (XattrClass::Trusted, "trusted.overlay.overlay", None),
            (XattrClass::Trusted, "trusted.overlay.overlay.opaque", Some("trusted.overlay.opaque")),
            (XattrClass::Trusted, "trusted.overlay.overlay.overlay.x", {
                Some("trusted.overlay.overlay.x")
            }),
            (XattrClass::Trusted, "trusted.overlayx", Some("trusted.overlayx")),
            (XattrClass::Trusted, "user.overlay.opaque", Some("user.overlay.opaque")),
            (XattrClass::User, "user.overlay.opaque", None),
            (XattrClass::User, "user.overlay.overlay.opaque", Some("user.overlay.opaque")),
            (XattrClass::User, "trusted.overlay.opaque", Some("trusted.overlay.opaque")),
            (XattrClass::User, "user.x", Some("user.x")),
        ] {
            let got = class.unescape(name.as_bytes());
            assert_eq!(got.as_deref(), shown.map(str::as_bytes), "{name}");
            assert_eq!(class.is_private(name.as_bytes()), shown.is_none(), "{name}");
            if let Some(shown) = shown {
                assert_eq!(*class.escape(shown.as_bytes()), *name.as_bytes());
            }
        }
    }

    #[test]
    fn names_begin_with_the_prefix() {
        for class in [XattrClass::Trusted, XattrClass::User] {
            for mark in [Mark::Opaque, Mark::Redirect, Mark::Whiteout, Mark::StrataOrigin] {
                assert!(class.name(mark).starts_with(class.prefix()));
                assert!(class.is_private(class.name(mark).as_bytes()));
            }
        }
        assert_eq!(XattrClass::User.name(Mark::Metacopy), "user.overlay.metacopy");
    }

    #[test]
    fn override_stat_is_read_and_written() {
        let full = |uid, gid, perm, kind| Some(Override { uid, gid, perm, kind });
        let device = Some(Kind::CharDevice(Device { major: 1, minor: 3 }));
        for (text, want) in [
            ("0:0:0755", full(0, 0, 0o755, None)),
            ("1000:5:4711:file", full(1000, 5, 0o4711, Some(Kind::Regular))),
            ("1:2:0666:char-1-3", full(1, 2, 0o666, device)),
            ("1:2:0755:dir", full(1, 2, 0o755, Some(Kind::Directory))),
        ] {
            let got = Override::parse(text.as_bytes());
            assert_eq!(got, want, "{text}");
            assert_eq!(got.unwrap().format(), text);
        }
        assert_eq!(Override::parse(b"0:0:100644"), full(0, 0, 0o644, None));
        for bad in ["", "0:0", "-1:0:0755", "0:0:0899", "0:0:0755:char", "0:0:0755:char-1", "x"] {
            assert_eq!(Override::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
