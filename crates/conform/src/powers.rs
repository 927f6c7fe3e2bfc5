//! What the running user can make, tried out in a directory.
//!
//! Invariant: what cannot be made is not compared.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, makedev, mknodat};

use crate::{Result, TreeEntry, at};

/// What can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Powers {
    /// Any owner.
    pub owners: bool,
    /// Device nodes.
    pub devices: bool,
    /// Attributes in `user.`.
    pub user_xattrs: bool,
    /// Attributes in `trusted.` and `security.`.
    pub privileged_xattrs: bool,
}

impl Powers {
    /// What of these trees the running user cannot make: it is not compared.
    #[must_use]
    pub fn beyond(self, trees: &[Vec<TreeEntry>]) -> Vec<&'static str> {
        let any = |what: &dyn Fn(&TreeEntry) -> bool| trees.iter().flatten().any(what);
        let named = |entry: &TreeEntry, user: bool| {
            let mut names = entry.xattrs.iter().flat_map(|all| all.keys());
            names.any(|name| name.starts_with(b"user.") == user)
        };
        let owned = |entry: &TreeEntry| entry.uid.unwrap_or(0) != 0 || entry.gid.unwrap_or(0) != 0;
        let device = |entry: &TreeEntry| matches!(entry.kind.as_str(), "char" | "block");
        let lacking = [
            (!self.owners && any(&owned), "owners"),
            (!self.devices && any(&device), "devices"),
            (!self.user_xattrs && any(&|entry| named(entry, true)), "user attributes"),
            (!self.privileged_xattrs && any(&|entry| named(entry, false)), "root's attributes"),
        ];
        lacking.iter().filter(|(lacks, _)| *lacks).map(|(_, what)| *what).collect()
    }

    /// Tries everything where temporary files go.
    ///
    /// # Errors
    /// If nothing can be made there.
    pub fn here() -> Result<Self> {
        let dir = at("a directory for temporary files", tempfile::tempdir())?;
        Self::tried(dir.path())
    }

    /// Tries everything in `dir`, and leaves nothing there.
    ///
    /// # Errors
    /// If not even a file can be made.
    pub fn tried(dir: &Path) -> Result<Self> {
        let (file, node) = (dir.join("tried"), dir.join("tried-device"));
        at(file.display(), fs::write(&file, ""))?;
        let xattr = |name| lsetxattr(&file, name, b"x", XattrFlags::empty()).is_ok();
        let user_xattrs = xattr("user.tried");
        let privileged_xattrs = xattr("trusted.tried");
        let owners = chown(&file, Some(4_294_967_294), Some(4_294_967_294)).is_ok()
            && fs::metadata(&file).is_ok_and(|facts| facts.uid() == 4_294_967_294);
        let mode = Mode::from_raw_mode(0o600);
        let made = mknodat(CWD, &node, FileType::CharacterDevice, mode, makedev(1, 3));
        let devices = made.is_ok();
        if devices {
            at(node.display(), fs::remove_file(&node))?;
        }
        at(file.display(), fs::remove_file(&file))?;
        Ok(Self { owners, devices, user_xattrs, privileged_xattrs })
    }
}
