//! `mount -o remount,...`: mount(8) leaves it to the mount program of the type.
//!
//! The kernel keeps what can change: whether a mount can be written, and the other attributes of
//! the mount. All else stays as the daemon was started with.
//!
//! Invariant: what is not said stays as it is.

use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::StatVfsMountFlags;
use rustix::mount::{MountFlags, mount_remount};

use crate::options::OverlaySettings;

/// What both of these say in words of their own.
const SAME: [(StatVfsMountFlags, MountFlags); 6] = [
    (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
    (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
    (StatVfsMountFlags::NODEV, MountFlags::NODEV),
    (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
    (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
    (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
];

/// Changes the mount at `point` as `settings` say.
///
/// # Errors
/// Nothing is mounted there, or the caller is not root.
pub(crate) fn remount(point: &Path, settings: &OverlaySettings) -> Result<()> {
    let doing = || format!("cannot remount {}", point.display());
    let now = rustix::fs::statvfs(point).with_context(doing)?.f_flag;
    let mut flags = MountFlags::empty();
    SAME.iter().for_each(|(has, flag)| flags.set(*flag, now.contains(*has)));
    for (flag, said) in settings.said() {
        if let Some(on) = said {
            flags.set(flag, on);
        }
    }
    mount_remount(point, flags, "").with_context(doing)
}
