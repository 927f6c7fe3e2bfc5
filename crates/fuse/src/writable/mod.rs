//! A writable union as a mounted file system.
//!
//! [`Writable`] takes fuser's requests and hands each, translated, to the
//! [`Union`](strata_union::writable::Union); [`Mount`] is what the requests share:
//!
//! ```text
//! adapter   one method for each request: translate, ask the union, answer
//! answers   how each kind of answer is sent
//! flags     modes, flags and times of the kernel's calls, taken apart
//! handles   the numbers by which the kernel names what it has open
//! io_modes  whether the kernel reads and writes a file by itself
//! listing   snapshots of directories, so that positions in them stay valid
//! set_id    who takes set-id bits away
//! slow      threads for what would hold up everybody else
//! ```
//!
//! Invariants: every request gets exactly one answer, also when a handler panics; no lock of
//! this module is held while the union works; a file whose content is a lower's is never handed
//! to the kernel.

mod adapter;
mod answers;
mod flags;
mod handles;
mod io_modes;
mod listing;
mod set_id;
mod slow;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fuser::{INodeNo, Notifier, Request};
use strata_tree::{FlagsForm, InodeFlags, NodeId};
use strata_union::writable::{Attr, Caller, Changes, OpenFile, OpenHow, SetMode, Union};

pub(crate) use adapter::Writable;

use crate::attr::AttrView;
use crate::connection::LARGEST_REQUEST;
use crate::errno::RequestError;
use crate::ioctls::HasFlags;
use crate::options::WritableOptions;
use crate::readonly::{XattrAnswer, fit};
use handles::Handles;
use io_modes::IoModes;
use listing::DirSnapshot;
use set_id::Changer;

type Result<T> = std::result::Result<T, RequestError>;

/// The attribute that is an inode's access ACL (acl(5)).
const ACCESS_ACL: &[u8] = b"system.posix_acl_access";

/// Up to this many bytes are copied, in a copy-up or between two files, while other requests wait.
const QUICK: u64 = 1024 * 1024;

/// What all requests of one mount share.
struct Mount {
    union: Arc<Union>,
    view: AttrView,
    timeout: Duration,
    acl: bool,
    xattrs: bool,
    no_sync: bool,
    files: Handles<Arc<OpenFile>>,
    dirs: Handles<Arc<DirSnapshot>>,
    modes: IoModes,
    /// There once the session has begun.
    notifier: Arc<OnceLock<Notifier>>,
}

impl Mount {
    fn new(union: Arc<Union>, options: &WritableOptions) -> Self {
        Self {
            union,
            view: AttrView::of(&options.mount),
            timeout: options.timeout,
            acl: options.mount.acl && options.xattrs,
            xattrs: options.xattrs,
            no_sync: options.no_sync,
            files: Handles::default(),
            dirs: Handles::default(),
            modes: IoModes::new(options.passthrough),
            notifier: Arc::default(),
        }
    }

    /// Who makes something.
    fn caller(&self, request: &Request, umask: u32) -> Result<Caller> {
        let ids = &self.view.ids;
        Ok(Caller {
            uid: ids.users.written(request.uid()).ok_or(RequestError::UnmappedCaller)?,
            gid: ids.groups.written(request.gid()).ok_or(RequestError::UnmappedCaller)?,
            umask: flags::perm(umask),
        })
    }

    /// Owners to be set, as they are on disk.
    fn owned(&self, changes: Changes) -> Result<Changes> {
        let ids = &self.view.ids;
        let mapped = |id: Option<u32>, written: &dyn Fn(u32) -> Option<u32>| {
            id.map(|id| written(id).ok_or(RequestError::UnmappedOwner)).transpose()
        };
        Ok(Changes {
            uid: mapped(changes.uid, &|id| ids.users.written(id))?,
            gid: mapped(changes.gid, &|id| ids.groups.written(id))?,
            ..changes
        })
    }

    /// A file is open for writing, and the kernel writes it by itself: by a mapping also without
    /// taking note of its times. What it knows of them does not count from now on, and what it is
    /// told meanwhile only at once (`lasting`).
    fn written_behind(&self, node: NodeId) {
        if self.modes.begin_writing(node) {
            self.ask_again(node);
        }
    }

    /// What the kernel knows of a node's attributes does not count any more.
    fn ask_again(&self, node: NodeId) {
        if let Some(notifier) = self.notifier.get()
            && let Err(error) = notifier.inval_inode(INodeNo(node.0), -1, 0)
        {
            // ENOENT: the kernel knows nothing of it.
            tracing::debug!("attributes of {node:?}: {error}");
        }
    }

    /// Whether a change of this node has so much to copy, or to wait for, that it must not hold up
    /// the others.
    fn is_slow(&self, node: NodeId) -> bool {
        self.union.copy_up_bytes(node) > QUICK || self.union.waits_for_copy(node)
    }

    /// The same for a change of its metadata alone.
    fn is_slow_to_mark(&self, node: NodeId) -> bool {
        self.union.mark_up_bytes(node) > QUICK || self.union.waits_for_copy(node)
    }

    /// Opens a file. Emptying one takes its set-id bits as writing does.
    fn open(&self, node: NodeId, how: OpenHow, who: Changer) -> Result<Arc<OpenFile>> {
        let file = self.union.open_file(node, how)?;
        if how.truncate {
            self.take_set_id(node, who)?;
        }
        if file.moved_access_time() {
            self.ask_again(node);
        }
        Ok(file)
    }

    /// Changes metadata, and the length.
    fn set_attr(&self, node: NodeId, changes: Changes, who: Changer) -> Result<Attr> {
        let mut changes = self.owned(changes)?;
        if changes.perm.is_none() && (changes.uid.is_some() || changes.gid.is_some()) {
            changes.perm = self.left_by_chown(node, who)?;
        }
        if changes.size.is_some() {
            self.take_set_id(node, who)?;
        }
        Ok(self.union.set_attr(node, &changes)?)
    }

    /// The value of one attribute, for a buffer of `size` bytes; 0 asks for the length.
    fn xattr(&self, node: NodeId, name: &[u8], size: u32) -> Result<XattrAnswer> {
        self.check_kind(name)?;
        let value = self.union.xattr(node, name)?.ok_or(RequestError::NoXattr)?;
        fit(self.view.ids.shown_xattr(name, value), size)
    }

    /// The names of all attributes, each ended by NUL. `trusted.*` is for root (xattr(7)).
    fn xattr_names(&self, node: NodeId, size: u32, privileged: bool) -> Result<XattrAnswer> {
        let mut names = Vec::new();
        let all = if self.xattrs { self.union.xattrs(node)? } else { Vec::new() };
        for (name, _) in all {
            let hidden = !privileged && name.starts_with(b"trusted.");
            if !hidden && self.check_kind(&name).is_ok() {
                names.extend_from_slice(&name);
                names.push(0);
            }
        }
        fit(names, size)
    }

    fn set_xattr(
        &self,
        node: NodeId,
        (name, value): (&[u8], &[u8]),
        mode: SetMode,
        who: Changer,
    ) -> Result<()> {
        self.check_kind(name)?;
        let written =
            self.view.ids.written_xattr(name, value).ok_or(RequestError::UnmappedOwner)?;
        self.union.set_xattr(node, name, &written, mode)?;
        if name == ACCESS_ACL { self.take_set_group_id(node, who) } else { Ok(()) }
    }

    fn remove_xattr(&self, node: NodeId, name: &[u8], who: Changer) -> Result<()> {
        self.check_kind(name)?;
        self.union.remove_xattr(node, name)?;
        if name == ACCESS_ACL { self.take_set_group_id(node, who) } else { Ok(()) }
    }

    fn check_kind(&self, name: &[u8]) -> Result<()> {
        let refused = !self.acl && name.starts_with(b"system.posix_acl_");
        if refused { Err(RequestError::NotSupported) } else { Ok(()) }
    }

    fn file(&self, handle: u64) -> Result<Arc<OpenFile>> {
        self.files.get(handle).ok_or(RequestError::NoHandle)
    }

    /// A file whose content is about to change.
    fn changing(&self, handle: u64, who: Changer) -> Result<Arc<OpenFile>> {
        let file = self.file(handle)?;
        self.take_set_id(file.node(), who)?;
        Ok(file)
    }

    fn listing(&self, handle: u64) -> Result<Arc<DirSnapshot>> {
        self.dirs.get(handle).ok_or(RequestError::NoHandle)
    }

    /// Reads into the buffer: fewer bytes than `size` only at the end.
    fn read<'b>(
        &self,
        handle: u64,
        offset: u64,
        size: u32,
        buffer: &'b mut Vec<u8>,
    ) -> Result<&'b [u8]> {
        let size = size.min(LARGEST_REQUEST) as usize;
        if buffer.len() < size {
            buffer.resize(size, 0);
        }
        let length = self.file(handle)?.read(offset, &mut buffer[..size])?;
        Ok(&buffer[..length])
    }

    /// Writes all of it, or as much as there is room for. `mapped`: the kernel writes pages back.
    fn write(
        &self,
        handle: u64,
        (offset, bytes): (u64, &[u8]),
        who: Changer,
        mapped: bool,
    ) -> Result<usize> {
        let file = self.changing(handle, who)?;
        Ok(if mapped { file.write_back(offset, bytes)? } else { file.write(offset, bytes)? })
    }
}

impl HasFlags for Mount {
    fn inode_flags(&self, node: NodeId, form: FlagsForm) -> Result<InodeFlags> {
        Ok(self.union.inode_flags(node, form)?)
    }

    fn inode_version(&self, node: NodeId) -> Result<u32> {
        Ok(self.union.inode_version(node)?)
    }

    fn set_inode_flags(&self, node: NodeId, flags: InodeFlags) -> Result<()> {
        Ok(self.union.set_inode_flags(node, flags)?)
    }
}
