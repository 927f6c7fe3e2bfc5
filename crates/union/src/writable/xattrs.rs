//! Extended attributes of nodes.
//!
//! Invariants: our marks are never listed, read, set or removed by name (`marks` escapes the
//! image's own names of that form); a symbolic link's are its own, never its target's.

use rustix::io::Errno;
use strata_tree::{NodeId, Xattr};

use super::Union;
use super::acl::{ACCESS, DEFAULT, bits_of};
use super::error::{Error, Result};
use super::marks::{Override, state};
use super::names::{Inode, inode, stat};
use super::table::{Seen, Stage};
use super::types::SetMode;

/// The longest name (`XATTR_NAME_MAX`), in bytes.
const NAME_MAX: usize = 255;

impl Union {
    /// All attributes of a node, sorted by name.
    ///
    /// # Errors
    /// `ESTALE`, `ENOENT`; `Upper`, `Lower`.
    pub fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        let _steady = self.steady();
        let seen = self.table.see(node)?;
        match (seen.found.stage, seen.found.lower) {
            (Stage::Lower, Some(lower)) => Ok(self.lower.xattrs(lower)?),
            _ => self.marks.all(inode(self, &seen)?),
        }
    }

    /// The value of one attribute; `None` if the node does not have it.
    ///
    /// # Errors
    /// As [`Union::xattrs`].
    pub fn xattr(&self, node: NodeId, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let _steady = self.steady();
        let seen = self.table.see(node)?;
        match (seen.found.stage, seen.found.lower) {
            (Stage::Lower, Some(lower)) => {
                let all = self.lower.xattrs(lower)?;
                Ok(all.into_iter().find(|(known, _)| known == name).map(|(_, value)| value))
            }
            _ => self.marks.value(inode(self, &seen)?, name),
        }
    }

    /// Sets one attribute.
    ///
    /// # Errors
    /// `EEXIST`, `ENODATA` as `mode` says; `ERANGE` for a name that is too long; what the upper's
    /// file system says: `ENOSPC`, `E2BIG`, `EOPNOTSUPP`, `EPERM`.
    pub fn set_xattr(&self, node: NodeId, name: &[u8], value: &[u8], mode: SetMode) -> Result<()> {
        if name.len() > NAME_MAX || self.marks.escape(name).len() > NAME_MAX {
            return Err(Error::Refused(Errno::RANGE));
        }
        self.may_change(node)?;
        self.copy_up(node, Stage::Meta, None)?;
        let _claim = self.claims.claim(&[node]);
        let _steady = self.steady();
        let seen = self.table.see(node)?;
        let fd = inode(self, &seen)?;
        if self.apart() && name == ACCESS {
            return self.set_access(&seen, &fd, value, mode);
        }
        self.marks.put(fd, name, value, mode)
    }

    /// Sets an access ACL where no file system sees to it that the bits follow.
    fn set_access(&self, seen: &Seen, fd: &Inode, value: &[u8], mode: SetMode) -> Result<()> {
        let (bits, more) = bits_of(value).ok_or(Error::Refused(Errno::INVAL))?;
        match (mode, self.marks.value(fd, ACCESS)?.is_some()) {
            (SetMode::Create, true) => return Err(Error::Refused(Errno::EXIST)),
            (SetMode::Replace, false) => return Err(Error::Refused(Errno::NODATA)),
            (_, true) if !more => self.marks.remove(fd, ACCESS)?,
            (_, false) if !more => {}
            _ => self.marks.put(fd, ACCESS, value, SetMode::Either)?,
        }
        let now = self.upper_attr(&seen.found, fd, &stat(fd)?)?.stat;
        let perm = now.perm & !0o777 | bits;
        state(fd, Override { uid: now.uid, gid: now.gid, perm, kind: Some(seen.found.kind) })
    }

    /// Removes one attribute. An ACL may be absent: without one a node has its bits, which is what
    /// is asked for.
    ///
    /// # Errors
    /// `ENODATA`.
    pub fn remove_xattr(&self, node: NodeId, name: &[u8]) -> Result<()> {
        self.may_change(node)?;
        if self.xattr(node, name)?.is_none() {
            let acl = name == ACCESS || name == DEFAULT;
            return if acl { Ok(()) } else { Err(Error::Refused(Errno::NODATA)) };
        }
        self.copy_up(node, Stage::Meta, None)?;
        let _claim = self.claims.claim(&[node]);
        let _steady = self.steady();
        let seen = self.table.see(node)?;
        self.marks.remove(inode(self, &seen)?, name)
    }
}
