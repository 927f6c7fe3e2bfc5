//! What one inode on disk stands for.
//!
//! Invariants: a whiteout is never a node; marks are read where they can be, and cost no call
//! elsewhere: opacity and redirects on directories, whiteouts and devices on empty regular files,
//! metacopy when it is asked for.

use rustix::io::{Errno, Result};

use super::OverlayDir;
use super::disk::{Spot, device_of, stat_of};
use super::known::DirFacts;
use super::options::{OverrideStat, Trust};
use crate::dialect::{Mark, Override, XattrClass, format_kind};
use crate::lower::{Continues, Redirect};
use crate::name::{Name, TreePath};
use crate::node::{Device, Kind, NodeId, Stat};
use crate::xattrs::XattrNames;

/// Bytes of the longest target of a symbolic link (PATH_MAX less its end).
const TARGET_MAX: u64 = 4095;

/// What a whiteout is on disk. An image's own is an empty file with a mark, and no other device is:
/// whoever may mark a file may not make devices.
const NO_DEVICE: Kind = Kind::CharDevice(Device { major: 0, minor: 0 });

/// An inode that is no whiteout.
pub(super) struct OverlayInode {
    /// Its number, unless it is the root.
    pub(super) id: NodeId,
    pub(super) stat: Stat,
    /// For directories.
    pub(super) facts: Option<DirFacts>,
}

/// What reading `continues` came to.
pub(super) enum Answer {
    Goes(Continues),
    /// There is such a mark and the options forbid to follow it.
    Refused(Mark),
    /// The redirect is no path.
    Invalid(Vec<u8>),
}

impl OverlayDir {
    /// Reads an inode; `None` for a whiteout. `facts` are those of a known directory.
    ///
    /// An empty regular file with the mark is a whiteout whatever its directory says: the `x` in
    /// `overlay.opaque` only lets the kernel list such names without looking at each file, and
    /// its lookups hide them without (seen on Linux 6.18).
    pub(super) fn inode(
        &self,
        spot: Spot<'_>,
        facts: Option<DirFacts>,
    ) -> Result<Option<OverlayInode>> {
        let raw = spot.stat()?;
        let mut stat = stat_of(&raw)?;
        if stat.kind == NO_DEVICE {
            return Ok(None);
        }
        let mut inode = OverlayInode {
            id: self.numbers.number(device_of(&raw), raw.stx_ino),
            stat,
            facts: facts.filter(|_| stat.kind.is_dir()),
        };
        let is_dir = stat.kind.is_dir();
        let empty = stat.kind == Kind::Regular && stat.size == 0;
        if !(is_dir && inode.facts.is_none() || empty || self.overrides) {
            return Ok(Some(inode));
        }
        let names = spot.xattr_names()?;
        if is_dir && inode.facts.is_none() {
            inode.facts = Some(self.facts(spot, &names)?);
        }
        for class in self.options.dialect.classes().filter(|_| empty) {
            if names.has(class.name(Mark::Whiteout)) {
                return Ok(None);
            }
            if let Some(text) = read(spot, &names, class.name(Mark::StrataDevice))?
                && text == format_kind(NO_DEVICE).as_bytes()
            {
                stat.kind = NO_DEVICE;
            }
        }
        if self.overrides {
            self.state(spot, &names, &mut stat)?;
        }
        inode.stat = stat;
        Ok(Some(inode))
    }

    /// Applies the stated owner, mode and type.
    fn state(&self, spot: Spot<'_>, names: &XattrNames, stat: &mut Stat) -> Result<()> {
        let Some(name) = OverrideStat::NAMES.into_iter().find(|name| names.has(name)) else {
            return Ok(());
        };
        let text = read(spot, names, name)?.unwrap_or_default();
        let stated = Override::parse(&text).ok_or(Errno::INVAL)?;
        (stat.uid, stat.gid, stat.perm) = (stated.uid, stated.gid, stated.perm);
        match stated.kind {
            // What an ordinary user makes an empty file for. The rest is what it is.
            Some(
                kind @ (Kind::CharDevice(_) | Kind::BlockDevice(_) | Kind::Fifo | Kind::Socket),
            ) if stat.kind == Kind::Regular && stat.size == 0 => stat.kind = kind,
            // It holds the target, for a symbolic link cannot say whose it is (xattr(7)).
            Some(Kind::Symlink)
                if stat.kind == Kind::Regular && (1..=TARGET_MAX).contains(&stat.size) =>
            {
                stat.kind = Kind::Symlink;
            }
            _ => {}
        }
        Ok(())
    }

    /// Reads the marks of a directory.
    pub(super) fn facts(&self, spot: Spot<'_>, names: &XattrNames) -> Result<DirFacts> {
        let mut facts = DirFacts::default();
        for name in self.options.dialect.opaque_names() {
            facts.opaque |= read(spot, names, name)?.is_some_and(|value| value == b"y");
        }
        facts.redirected = self.seen(self.options.redirects, names, Mark::Redirect).is_some();
        Ok(facts)
    }

    /// The class in which a mark counts, if it is there.
    fn seen(&self, trust: Trust, names: &XattrNames, mark: Mark) -> Option<XattrClass> {
        let mut classes = self.options.dialect.classes();
        classes.find(|class| trust.sees(*class) && names.has(class.name(mark)))
    }

    /// How a directory or a regular file goes on in the layers below.
    pub(super) fn goes_on(&self, spot: Spot<'_>, is_dir: bool) -> Result<Answer> {
        let names = spot.xattr_names()?;
        let mut goes = Continues::default();
        if !is_dir {
            if self.seen(self.options.metacopy, &names, Mark::Metacopy).is_none() {
                return Ok(Answer::Goes(goes));
            }
            // The mark means nothing on other kinds.
            if stat_of(&spot.stat()?)?.kind != Kind::Regular {
                return Ok(Answer::Goes(goes));
            }
            if self.options.metacopy == Trust::Nobody {
                return Ok(Answer::Refused(Mark::Metacopy));
            }
            goes.metacopy = true;
        }
        let Some(class) = self.seen(self.options.redirects, &names, Mark::Redirect) else {
            return Ok(Answer::Goes(goes));
        };
        if self.options.redirects == Trust::Nobody {
            return Ok(Answer::Refused(Mark::Redirect));
        }
        let text = read(spot, &names, class.name(Mark::Redirect))?.unwrap_or_default();
        goes.redirect = parse_redirect(&text);
        let parsed = goes.redirect.is_some();
        Ok(if parsed { Answer::Goes(goes) } else { Answer::Invalid(text) })
    }
}

/// An attribute, if it is among the names.
fn read(spot: Spot<'_>, names: &XattrNames, name: &str) -> Result<Option<Vec<u8>>> {
    if names.has(name) { spot.xattr(name.as_bytes()) } else { Ok(None) }
}

/// An absolute path without empty or climbing components, or one name.
fn parse_redirect(text: &[u8]) -> Option<Redirect> {
    let Some(absolute) = text.strip_prefix(b"/") else {
        return Name::new(text).ok().map(|name| Redirect::Sibling(name.to_owned()));
    };
    let mut path = TreePath::root();
    for name in absolute.split(|byte| *byte == b'/') {
        path.push(Name::new(name).ok()?);
    }
    Some(Redirect::Path(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_paths_or_names() {
        let path = |text: &[u8]| Some(Redirect::Path(TreePath::clamped(text).unwrap()));
        assert_eq!(parse_redirect(b"/a/b"), path(b"a/b"));
        assert_eq!(
            parse_redirect(b"name"),
            Some(Redirect::Sibling(Name::new(b"name").unwrap().to_owned()))
        );
        for bad in [&b""[..], b"/", b"//a", b"/a//b", b"/a/", b"/a/../b", b"a/b", b"..", b"."] {
            assert_eq!(parse_redirect(bad), None, "{bad:?}");
        }
    }
}
