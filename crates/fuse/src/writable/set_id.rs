//! Set-user-id and set-group-id bits, which go when a file's content, owner or ACL changes.
//!
//! Without `FUSE_HANDLE_KILLPRIV_V2` the kernel sees to it, and asks for `security.capability`
//! before every single write. With it the kernel remembers that a file has none, still takes
//! capabilities away by itself, and leaves the bits to us:
//!
//! ```text
//! another owner          the upper's file system takes them from every caller; here where it
//!                        does not: set-group-id without execution, if the caller is not in the
//!                        file's group, and all of them where they are kept apart from the inode
//! write, truncate, ...   taken here, before it, if the caller is not privileged
//! an access ACL          set-group-id is taken here, if the caller is not in the file's group;
//!                        also when the ACL goes, as the kernel's overlayfs does
//! write in passthrough   a file with such bits is not handed to the kernel; one that gets them
//!                        while it is open loses them to the upper's file system, by anybody's
//!                        next write: the kernel writes there without CAP_FSETID. Where the bits
//!                        are kept apart from the inode no file is handed to the kernel
//! ```
//!
//! Invariant: the kernel does not rely on what it knows of a file with such bits, because it is not
//! told when they go.

use std::fs::File;
use std::io;
use std::time::Duration;

use fuser::{FileAttr, FileType, Request};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use strata_tree::{Kind, NodeId};
use strata_union::writable::{Changes, Ownership};

use super::{Mount, Result};

const SET_UID: u16 = 0o4000;
const SET_GID: u16 = 0o2000;
const GROUP_EXECUTE: u16 = 0o0010;

/// The bits that stay when an ordinary user changes the content; `None` if all do. Set-group-id
/// without execution stays for members of the file's group alone (Linux 6.0 on,
/// `setattr_should_drop_sgid`).
fn without_set_id(perm: u16, member: impl FnOnce() -> bool) -> Option<u16> {
    let taken = perm & SET_GID != 0 && (perm & GROUP_EXECUTE != 0 || !member());
    let kept = perm & !SET_UID & !(if taken { SET_GID } else { 0 });
    (kept != perm).then_some(kept)
}

/// Whether the kernel may write this file by itself: it cannot tell there who writes.
pub(super) fn may_pass_through(file: &File) -> io::Result<bool> {
    let mode = rustix::fs::fstat(file)?.st_mode;
    Ok(super::flags::perm(mode) & (SET_UID | SET_GID) == 0)
}

/// Who changes something, as far as the bits go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Changer {
    /// Bits stay.
    pub(super) privileged: bool,
    gid: u32,
    pid: u32,
}

impl Changer {
    /// The sender of a request.
    pub(super) fn of(request: &Request) -> Self {
        Self::with(request, request.uid() == 0)
    }

    /// The same where the kernel has said whether the bits are to go.
    pub(super) fn with(request: &Request, privileged: bool) -> Self {
        Self { privileged, gid: request.gid(), pid: request.pid() }
    }

    /// Whether the caller is in the group. One whose groups cannot be read is not.
    fn is_in(self, gid: u32) -> bool {
        self.gid == gid || groups(self.pid).is_some_and(|groups| groups.contains(&gid))
    }
}

/// The supplementary groups of a thread (proc(5), /proc/pid/status).
fn groups(pid: u32) -> Option<Vec<u32>> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:"))?;
    line.split_whitespace().map(|group| group.parse().ok()).collect()
}

/// Does something on this thread without CAP_FSETID, which lets a writer keep a file's bits.
pub(super) fn without_fsetid<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let all = capabilities(None)?;
    if !all.effective.contains(CapabilitySet::FSETID) {
        return work();
    }
    let effective = all.effective.difference(CapabilitySet::FSETID);
    set_capabilities(None, CapabilitySets { effective, ..all })?;
    let done = work();
    set_capabilities(None, all)?;
    done
}

impl Mount {
    /// How long the kernel may rely on these.
    pub(super) fn lasting(&self, attr: &FileAttr) -> Duration {
        let moment = attr.kind == FileType::RegularFile
            && (attr.perm & (SET_UID | SET_GID) != 0 || self.modes.is_written(NodeId(attr.ino.0)));
        if moment { Duration::ZERO } else { self.timeout }
    }

    /// Takes a file's bits away, if it has any: a caller that is not privileged is about to change
    /// its content.
    pub(super) fn take_set_id(&self, node: NodeId, who: Changer) -> Result<()> {
        if who.privileged {
            return Ok(());
        }
        let stat = self.union.attr(node)?.stat;
        let member = || who.is_in(self.view.ids.groups.shown(stat.gid));
        if let Some(perm) = without_set_id(stat.perm, member) {
            self.union.set_attr(
                node,
                &Changes { perm: Some(perm), forced: true, ..Changes::default() },
            )?;
        }
        Ok(())
    }

    /// The bits that a change of owner or group leaves, where the upper's file system would leave
    /// more: it sees a privileged caller, or does not have them. `None`: it decides.
    pub(super) fn left_by_chown(&self, node: NodeId, who: Changer) -> Result<Option<u16>> {
        let apart = self.union.ownership() == Ownership::Override;
        if who.privileged && !apart {
            return Ok(None);
        }
        let stat = self.union.attr(node)?.stat;
        let member = || who.privileged || who.is_in(self.view.ids.groups.shown(stat.gid));
        let file = !matches!(stat.kind, Kind::Directory | Kind::Symlink);
        Ok(if file { without_set_id(stat.perm, member) } else { None })
    }

    /// Takes set-group-id away from a file that got or lost an access ACL, if the caller is not
    /// privileged and not in its group (Linux' `posix_acl_update_mode`).
    pub(super) fn take_set_group_id(&self, node: NodeId, who: Changer) -> Result<()> {
        let stat = self.union.attr(node)?.stat;
        let stays = who.privileged
            || stat.perm & SET_GID == 0
            || who.is_in(self.view.ids.groups.shown(stat.gid));
        if !stays {
            let perm = Some(stat.perm & !SET_GID);
            self.union.set_attr(node, &Changes { perm, forced: true, ..Changes::default() })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn set_group_id_without_execution_stays_for_members() {
        for member in [true, false] {
            assert_eq!(without_set_id(0o4755, || member), Some(0o755));
            assert_eq!(without_set_id(0o6755, || member), Some(0o755));
            assert_eq!(without_set_id(0o0755, || member), None);
            assert_eq!(without_set_id(0o2666, || member), (!member).then_some(0o666));
            let kept = if member { 0o2666 } else { 0o666 };
            assert_eq!(without_set_id(0o6666, || member), Some(kept));
        }
    }

    #[test]
    fn supplementary_groups_are_those_of_the_thread() {
        let mine: Vec<u32> =
            rustix::process::getgroups().unwrap().iter().map(|group| group.as_raw()).collect();
        assert_eq!(groups(std::process::id()), Some(mine));
        assert_eq!(groups(0), None);
    }

    #[test]
    fn only_files_without_the_bits_may_pass_through() {
        let file = tempfile::tempfile().unwrap();
        for (mode, wanted) in [(0o644, true), (0o4755, false), (0o2711, false), (0o2644, false)] {
            file.set_permissions(Permissions::from_mode(mode)).unwrap();
            assert_eq!(may_pass_through(&file).unwrap(), wanted, "{mode:o}");
        }
    }

    #[test]
    fn the_capability_is_back_afterwards() {
        let before = capabilities(None).unwrap();
        let without = without_fsetid(|| Ok(capabilities(None)?)).unwrap();
        assert!(!without.effective.contains(CapabilitySet::FSETID));
        assert_eq!(capabilities(None).unwrap(), before);
    }
}
