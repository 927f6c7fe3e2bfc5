//! The vocabulary of stratafs, and the seam between what holds trees and what shows them.
//!
//! A layer is a tree of [`Node`]s in which a name may also be a whiteout; an image is a stack of
//! layers merged into one tree. What holds a tree implements [`Lower`]; what shows one (the FUSE
//! daemon, the tar writer, `strata ls`) asks a [`Lower`] and nothing else. [`FlatTree`] is a whole
//! merged tree in one memory-mapped file, which is what a mount serves from.
//!
//! Invariants: this crate knows neither tar, nor images, nor SQLite, nor FUSE; nothing in it
//! follows a symbolic link of the host, and only [`resolve()`] follows those of a tree, inside it.

mod beneath;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod deep;
pub mod dialect;
mod digest;
mod file_handle;
mod file_lease;
mod flat;
mod fs_verity;
mod inode_flags;
mod lower;
mod mem_tree;
mod mmap;
mod name;
mod node;
mod overlay_dir;
mod remove;
mod rename;
mod resolve;
mod spec;
mod used;
pub mod xattrs;

pub use beneath::open_beneath;
pub use digest::{BlobDigest, ChainId, ContentDigest, DiffId, DigestError, ImageId, VerityDigest};
pub use file_handle::{ByHandle, FileHandle};
pub use file_lease::is_open_elsewhere;
pub use flat::{FlatTree, compile};
pub use fs_verity::{VERITY_BLOCK, seal_with_verity};
pub use inode_flags::{FlagsForm, InodeFlags, Protection, inode_version};
pub use lower::{ContentRef, Continues, DirEntry, Error, Lower, Redirect, Result, Xattr, list};
pub use mem_tree::{MemTree, SpecError};
pub use name::{NAME_MAX, Name, NameBuf, NameError, TreePath};
pub use node::{Device, DirMarks, Entry, Kind, Node, NodeId, Presence, Stat, Timestamp};
#[cfg(any(test, feature = "conformance"))]
pub use overlay_dir::lay_overlay;
pub use overlay_dir::{Dialect, DirOptions, Numbers, OverlayDir, OverrideStat, Trust};
pub use remove::remove_tree;
pub use rename::rename_new;
pub use resolve::{Follow, LINKS_MAX, resolve};
pub use spec::{InodeSpec, Item, Spec};
pub use used::{UsedSpace, space_used};
