//! Set-user-id and set-group-id bits, which go when a file's content or owner changes.
//!
//! Without `FUSE_HANDLE_KILLPRIV_V2` the kernel sees to it, and asks for `security.capability`
//! before every single write. With it the kernel remembers that a file has none, still takes
//! capabilities away by itself, and leaves the bits to us:
//!
//! ```text
//! another owner          the upper's file system takes them, whoever asks
//! write, truncate, ...   taken here, before it, if the caller is not privileged
//! write in passthrough   a file with such bits is not handed to the kernel; one that gets them
//!                        while it is open loses them to the upper's file system, by anybody's
//!                        next write: the kernel writes there without CAP_FSETID
//! ```
//!
//! Invariant: the kernel does not rely on what it knows of a file with such bits, for it is not
//! told when they go.

use std::fs::File;
use std::io;
use std::time::Duration;

use fuser::{FileAttr, FileType};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use strata_tree::NodeId;
use strata_union::writable::Changes;

use super::{Mount, Result};

const SET_UID: u16 = 0o4000;
const SET_GID: u16 = 0o2000;
const GROUP_EXECUTE: u16 = 0o0010;

/// The bits that stay when an ordinary user changes the content (inode(7), S_ISUID, S_ISGID);
/// `None` if all do.
fn without_set_id(perm: u16) -> Option<u16> {
    let executable = perm & GROUP_EXECUTE != 0;
    let kept = perm & !SET_UID & !(if executable { SET_GID } else { 0 });
    (kept != perm).then_some(kept)
}

/// Whether the kernel may write this file by itself.
pub(super) fn may_pass_through(file: &File) -> io::Result<bool> {
    let mode = rustix::fs::fstat(file)?.st_mode;
    Ok(without_set_id(super::flags::perm(mode)).is_none())
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
        let set_id = attr.kind == FileType::RegularFile && without_set_id(attr.perm).is_some();
        if set_id { Duration::ZERO } else { self.timeout }
    }

    /// Takes a file's bits away, if it has any: its content is about to be changed by who is not
    /// privileged.
    pub(super) fn take_set_id(&self, node: NodeId) -> Result<()> {
        if let Some(perm) = without_set_id(self.union.attr(node)?.stat.perm) {
            self.union.set_attr(node, &Changes { perm: Some(perm), ..Changes::default() })?;
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
    fn set_group_id_without_execution_is_no_privilege() {
        assert_eq!(without_set_id(0o4755), Some(0o755));
        assert_eq!(without_set_id(0o6755), Some(0o755));
        assert_eq!(without_set_id(0o2745), None);
        assert_eq!(without_set_id(0o0755), None);
    }

    #[test]
    fn only_files_without_the_bits_may_pass_through() {
        let file = tempfile::tempfile().unwrap();
        for (mode, wanted) in [(0o644, true), (0o4755, false), (0o2711, false), (0o2644, true)] {
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
