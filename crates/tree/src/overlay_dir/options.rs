//! What an overlay directory's attributes and names mean, as the caller decides.
//!
//! Invariants: everything here is plain data; the defaults are those of the kernel as root.

use std::borrow::Cow;

use crate::dialect::{FUSE_OPAQUE, FUSE_PREFIX, Mark, OVERRIDE_STAT, XattrClass};

/// Which ways of writing whiteouts and opaque directories count, all at once. A character device
/// 0:0 is a whiteout in every dialect.
///
/// What fuse-overlayfs 1.10 was seen to do: it honours all four at once, for the roots of layers,
/// too, but not whiteouts that are regular files; and `.wh.NAME` hides NAME in its own layer, too.
/// Here roots can be opaque as well, where the kernel ignores it, because an image may say so; and
/// NAME stays, as in the OCI layer rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// `trusted.overlay.*` are marks, not the image's.
    pub trusted: bool,
    /// `user.overlay.*` are (overlayfs.rst, "userxattr").
    pub user: bool,
    /// `user.fuseoverlayfs.*` are.
    pub fuse: bool,
    /// `.wh.NAME` and `.wh..wh..opq` are whiteouts and opacity, as the OCI layer rules read them.
    pub aufs: bool,
}

impl Dialect {
    /// What the kernel reads, without or with `userxattr`.
    pub const fn kernel(class: XattrClass) -> Self {
        Self {
            trusted: matches!(class, XattrClass::Trusted),
            user: matches!(class, XattrClass::User),
            fuse: false,
            aufs: false,
        }
    }

    /// What fuse-overlayfs reads: everything.
    pub const FUSE_OVERLAYFS: Self = Self { trusted: true, user: true, fuse: true, aufs: true };

    /// Nothing: names and attributes are what they are, but for the device 0:0.
    pub const NONE: Self = Self { trusted: false, user: false, fuse: false, aufs: false };

    /// The classes whose marks count.
    pub(super) fn classes(self) -> impl Iterator<Item = XattrClass> {
        let trusted = self.trusted.then_some(XattrClass::Trusted);
        trusted.into_iter().chain(self.user.then_some(XattrClass::User))
    }

    /// The names under which a directory may be called opaque.
    pub(super) fn opaque_names(self) -> impl Iterator<Item = &'static str> {
        let own = self.classes().map(|class| class.name(Mark::Opaque));
        own.chain(self.fuse.then_some(FUSE_OPAQUE))
    }

    /// What the image calls the attribute that is `name` on disk; `None` for marks.
    pub(super) fn shown(self, name: &[u8]) -> Option<Cow<'_, [u8]>> {
        if self.fuse && name.starts_with(FUSE_PREFIX) {
            return None;
        }
        for class in self.classes() {
            match class.unescape(name) {
                // A mark of the other class, or an ordinary attribute.
                Some(Cow::Borrowed(_)) => {}
                decided => return decided,
            }
        }
        Some(Cow::Borrowed(name))
    }
}

/// Whose redirects, or whose metacopy marks, are followed: they make a name show a file of
/// another, which its mode may have hidden (overlayfs.rst, "redirect_dir").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Nobody's. To ask for one is an error (`EPERM`), as in the kernel: what it leads to must
    /// not be guessed.
    Nobody,
    /// Those in `trusted.overlay.*`; others are as if they were not there.
    Privileged,
    /// Those of every class that the dialect reads.
    Anyone,
}

impl Trust {
    /// Whether marks of this class are seen at all.
    pub(super) fn sees(self, class: XattrClass) -> bool {
        match self {
            Self::Nobody | Self::Anyone => true,
            Self::Privileged => class == XattrClass::Trusted,
        }
    }
}

/// Whether owner, mode and type may be stated in an attribute ([`OverrideStat::NAMES`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverrideStat {
    /// They are the inode's.
    Ignored,
    /// The attribute counts, where there is one.
    Read,
    /// It counts if the root directory has one, as fuse-overlayfs decides for each layer.
    IfRootHas,
}

impl OverrideStat {
    /// The names of that attribute, the first found counts: containers/storage', fuse-overlayfs'.
    pub const NAMES: [&str; 3] =
        [OVERRIDE_STAT, "user.fuseoverlayfs.override_stat", "security.fuseoverlayfs.override_stat"];

    /// Whether this is one of them.
    pub fn is_name(name: &[u8]) -> bool {
        Self::NAMES.iter().any(|own| own.as_bytes() == name)
    }
}

/// How an [`OverlayDir`](super::OverlayDir) is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirOptions {
    /// How whiteouts are written.
    pub dialect: Dialect,
    /// Redirected directories (`redirect_dir=follow`).
    pub redirects: Trust,
    /// Files without content of their own (`metacopy=on`).
    pub metacopy: Trust,
    /// Stated owners (`xattr_permissions`).
    pub override_stat: OverrideStat,
}

impl Default for DirOptions {
    fn default() -> Self {
        Self {
            dialect: Dialect::kernel(XattrClass::Trusted),
            redirects: Trust::Privileged,
            metacopy: Trust::Privileged,
            override_stat: OverrideStat::Ignored,
        }
    }
}
