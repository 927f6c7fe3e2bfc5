//! What the running user can make, tried out in a directory.
//!
//! Invariant: what cannot be made is not compared.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, makedev, mknodat};

use crate::{Result, at};

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
