//! Container images without a container engine: a library.
//!
//! An [`Engine`] is a store, given by its directory. It loads images from archives and registries,
//! opens one as a tree ([`OpenImage`]), mounts it, with a writable layer ([`NamedUpper`]) or
//! without, makes an image of what a writable layer changed, and says what the images take and
//! share on disk. None of it needs root but for what the kernel keeps for root.
//!
//! ```text
//! Engine  --load, import, pull-->  store  --image-->  OpenImage  --walk, read, copy_out, write_tar
//!    |                                                    |
//!    +-- usage, would_free                                +--mount, mount_writable-->  ServedMount
//! ```
//!
//! # Find setuid files without a mount
//!
//! ```
//! use std::ops::ControlFlow;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let place = tempfile::tempdir()?;
//! # let archive = strata_testkit::fixture("cases-docker24.docker.tar");
//! let engine = stratafs::Engine::new(place.path().join("store"));
//! let loaded = engine.load(&archive, &stratafs::Quiet)?;
//! let image = engine.image(&loaded[0].id.to_string())?;
//! let mut setuid = Vec::new();
//! image.walk(&mut |path, node| {
//!     if node.stat.kind == stratafs::Kind::Regular && node.stat.perm & 0o4000 != 0 {
//!         setuid.push(path.to_string());
//!     }
//!     ControlFlow::Continue(())
//! })?;
//! println!("{}", setuid.join("\n"));
//! # Ok(())
//! # }
//! ```
//!
//! # Read one file out of an archive
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let place = tempfile::tempdir()?;
//! # let archive = strata_testkit::fixture("cases-docker24.docker.tar");
//! let engine = stratafs::Engine::new(place.path().join("store"));
//! let loaded = engine.load(&archive, &stratafs::Quiet)?;
//! let image = engine.image(&loaded[0].id.to_string())?;
//! let mut first = None;
//! image.walk(&mut |path, node| match node.stat.kind {
//!     stratafs::Kind::Regular => {
//!         first = Some(path.clone());
//!         std::ops::ControlFlow::Break(())
//!     }
//!     _ => std::ops::ControlFlow::Continue(()),
//! })?;
//! let path = first.ok_or("the image holds no file")?;
//! let bytes = image.read(path.as_bytes())?;
//! println!("{path}: {} bytes", bytes.len());
//! # Ok(())
//! # }
//! ```
//!
//! # What would removing this image free
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let place = tempfile::tempdir()?;
//! # let archive = strata_testkit::fixture("cases-docker24.docker.tar");
//! let engine = stratafs::Engine::new(place.path().join("store"));
//! let id = engine.load(&archive, &stratafs::Quiet)?[0].id.to_string();
//! let removal = engine.would_free(&[&id])?;
//! println!("{} layers, {} bytes on disk", removal.layers.len(), removal.total().bytes);
//! # assert!(removal.total().bytes > 0);
//! # Ok(())
//! # }
//! ```
//!
//! # Mount, read, unmount
//!
//! ```
//! use stratafs::{Engine, MountSettings, Quiet};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # if !strata_testkit::needs::fuse() { return Ok(()); }
//! # let place = tempfile::tempdir()?;
//! # let archive = strata_testkit::fixture("cases-docker24.docker.tar");
//! # let directory = place.path().join("mnt");
//! # std::fs::create_dir(&directory)?;
//! let engine = Engine::new(place.path().join("store"));
//! let id = engine.load(&archive, &Quiet)?[0].id.to_string();
//! let mount = engine.mount(engine.image(&id)?, &MountSettings::on(&directory))?;
//! for name in std::fs::read_dir(&directory)? {
//!     println!("{}", name?.path().display());
//! }
//! mount.unmount()?;
//! # Ok(())
//! # }
//! ```
//!
//! Invariants: nothing here prints, reads the environment or ends the process; bad input costs
//! nothing that is stored already.

mod chain;
mod engine;
mod error;
mod image;
mod mounts;
mod quiet;
mod trees;
mod uppers;

pub use chain::{
    BeforeTaking, OpenChain, ServedChain, is_shown_upper, mount_hindrance, unmount_names,
};
pub use engine::{Engine, copy, import, load, pull, refuse_inside};
pub use error::{Error, Result};
pub use image::{OpenImage, write_tar};
pub use mounts::{
    Ender, KernelMount, MountInfo, MountRecord, MountRecords, MountRegistration, MountSettings,
    MountStatus, NamesAhead, ServedMount, UnmountHow, Unmounted, holds_names, shown,
};
pub use quiet::Quiet;
pub use trees::open_tree;
pub use uppers::{
    CommitOptions, Committed, HeldUpper, NamedUpper, UpperLease, UpperProblem, Uppers,
};

// What the calls above take and give, so that a program needs this crate alone.
pub use strata_content::{Content, Contents, FileTree};
pub use strata_diff::export::{Exported, LeftOut};
pub use strata_fuse::{InheritedFds, MountOptions, Profile};
pub use strata_image::{
    ImportOptions, LayerPacking, LoadOptions, Loaded, PackedDiff, PullOptions, Pulled, pack_layer,
};
pub use strata_layer::{
    DiskUsage, Holds, ImageRecord, LayerInput, LayerRecord, LeasedLayer, Progress, Removal, Space,
    Store, Unpacked, chain_above, chain_id,
};
pub use strata_registry::{Reference, Registries};
pub use strata_tree::{
    BlobDigest, ChainId, ContentRef, DiffId, Entry, ImageId, Kind, Lower, Name, Node, NodeId, Stat,
    TreePath,
};
