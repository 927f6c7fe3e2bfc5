//! Mounts that the kernel serves by itself, for root: no daemon, no memory.
//!
//! ```text
//! trees/<chain id>.erofs     names       lower
//! layers/                    contents    data-only lower
//! mounts/NAME.lease          tells whether the mount lives: data-only lower, never reached
//! uppers/UPPER/{upper,work}  changes     upper, if there is one
//! ```
//!
//! Steps: lease -> image of names -> detached mounts -> record -> attached. What a kill leaves
//! before the last step is a file or two that the next command removes, and no mount.
//!
//! Invariants: the record is complete before the mount is seen; a mount shows everything that the
//! image has, or there is none ([`Error::KernelCannot`]).

use std::fs::File;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::Advice;
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use strata_fuse::in_first_user_namespace;
use strata_kernel::{
    OverlayParts, attach, detached_erofs, detached_overlay, empty_image, names_ahead,
};
use strata_layer::{KernelLease, KernelLeases, LEASE_BLOCK, Store};
use strata_tree::dialect::XattrClass;

use super::point;
use super::records::{KERNEL, MountRecords};
use super::serving::MountSettings;
use crate::error::{Error, Result};
use crate::image::OpenImage;
use crate::trees::{open_names, open_sealed_names};
use crate::uppers::{NamedUpper, UpperLease};

/// How much of an image of names is read ahead, in bytes: all of it but for very large ones.
const READ_AHEAD: u64 = 32 << 20;

/// How many names are made ahead, at most: a second of the kernel's work.
const NAMES_AHEAD: u64 = 200_000;

/// A writable layer for such a mount: its names in the store, and the right to write it.
pub(crate) struct KernelTop {
    pub(crate) upper: NamedUpper,
    pub(crate) directory: PathBuf,
    pub(crate) _lease: UpperLease,
}

/// Why this process cannot have the kernel mount anything; `None` if it may try.
pub(crate) fn hindrance(store: &Store) -> Option<String> {
    if let Some(why) = caller_hindrance() {
        return Some(why);
    }
    if let Some(why) = store.read_only() {
        return Some(format!("the store cannot be written ({why})"));
    }
    // The kernel trusts an image of names as it trusts a disk.
    match std::fs::metadata(store.root()) {
        Ok(root) if root.uid() != 0 => Some("the store belongs to another user".to_owned()),
        Ok(_) => None,
        Err(error) => Some(format!("the store cannot be looked at: {error}")),
    }
}

/// The same, as far as it is the caller who may not.
pub(crate) fn caller_hindrance() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("that is for root alone".to_owned());
    }
    match in_first_user_namespace() {
        Ok(true) => None,
        Ok(false) => Some("that is for root of the initial user namespace alone".to_owned()),
        Err(error) => Some(format!("/proc/self/uid_map cannot be read: {error}")),
    }
}

/// A mount that the kernel serves.
#[derive(Debug)]
pub struct KernelMount {
    /// Where it is: absolute, without links.
    pub directory: PathBuf,
    /// Its names, to be made before somebody asks for them.
    pub names: NamesAhead,
}

/// The names of a mount that the kernel serves. A first walk of the mount waits for the kernel to
/// make them one by one; with [`NamesAhead::make`] another thread or process does that meanwhile.
#[derive(Debug)]
pub struct NamesAhead {
    /// The root of the names.
    pub names: OwnedFd,
    /// The record of the mount, locked: who unmounts waits until it is closed, so that nothing of
    /// the store is open then.
    pub record: OwnedFd,
    /// The lease of the mount.
    pub lease: PathBuf,
}

impl NamesAhead {
    /// Has the kernel make the names, 200,000 at most, as long as the mount lives; gives
    /// their number.
    pub fn make(self) -> u64 {
        let mut lives = || KernelLeases::is_kept(&self.lease).unwrap_or(false);
        match lives() {
            true => names_ahead(self.names.as_fd(), NAMES_AHEAD, &mut lives),
            false => 0,
        }
    }
}

/// Mounts an image; returns where. The mount outlives this process.
///
/// # Errors
/// `KernelCannot`: this kernel, this store's file system, this image or this upper do not allow
/// it, and nothing was changed; `Refused` and `Doing` as for any other mount.
pub(crate) fn mount(
    store: &Store,
    records: &MountRecords,
    image: &OpenImage,
    top: Option<KernelTop>,
    settings: &MountSettings,
) -> Result<KernelMount> {
    if let Some(why) = hindrance(store) {
        return Err(Error::KernelCannot(why));
    }
    if let Some(top) = top.as_ref().filter(|top| top.upper.apart) {
        let why =
            format!("upper {} keeps owners and modes apart, for it is a user's", top.upper.name);
        return Err(Error::KernelCannot(why));
    }
    if let Some(top) = top.as_ref().filter(|top| top.upper.user_marks) {
        let why = format!("upper {} was made in a user namespace", top.upper.name);
        return Err(Error::KernelCannot(why));
    }
    let layers = &image.record.layers;
    let names = match settings.verity {
        true => open_sealed_names(store, layers, &image.files, image.layers())?,
        false => open_names(store, layers, &image.files)?,
    };
    // On a cold disk one long read is faster than many short ones. It is a hint, and may fail.
    let _ = rustix::fs::fadvise(&names, 0, NonZeroU64::new(READ_AHEAD), Advice::WillNeed);
    // Two mounts at one place: the second one waits here, and then sees the first.
    let alone = records.exclusively()?;
    let directory = point::prepare(&settings.directory, store.root())?;
    let name = settings.name.clone().unwrap_or_else(MountRecords::new_name);
    let leases = KernelLeases::new(records.dir());
    let digest: [u8; 32] = Sha256::digest(name.as_bytes()).into();
    let identity = digest.first_chunk().copied().unwrap_or_default();
    let block = empty_image(identity);
    let block: &[u8; LEASE_BLOCK] = block.first_chunk().ok_or(Errno::INVAL)?;
    let upper = top.as_ref().map(|top| top.upper.name.clone());
    let (record, layers) = (&image.record, image.record.layers.clone());
    let of = KernelLease { image: record.id, layers, upper };
    let lease = leases.make(&name, &of, block)?;
    let made = assemble(store, &lease, &names, top.as_ref(), settings).and_then(|made| {
        let (overlay, names) = made;
        let shown = show(records, &name, image, top.as_ref(), settings, &directory, overlay);
        shown.map(|record| (names, record.into()))
    });
    if made.is_err() {
        records.forget(&name);
    }
    let (names, record) = made?;
    let names = NamesAhead { names, record, lease: leases.path(&name) };
    // The mount has the upper from now on.
    drop((alone, lease, top));
    Ok(KernelMount { directory, names })
}

/// Makes the mount, attached nowhere; gives it, and that of its names.
fn assemble(
    store: &Store,
    lease: &File,
    names: &File,
    top: Option<&KernelTop>,
    settings: &MountSettings,
) -> Result<(OwnedFd, OwnedFd)> {
    let cannot = |error: strata_kernel::Error| Error::KernelCannot(error.to_string());
    // A file system without leases could not say later whether the mount lives.
    if let Err(errno) = strata_tree::is_open_elsewhere(lease) {
        let why = format!("the file system of the store has no file leases ({errno})");
        return Err(Error::KernelCannot(why));
    }
    let contents = point::open_dir(&store.root().join("layers"))?;
    let lease = detached_erofs(lease).map_err(cannot)?;
    let names = detached_erofs(names).map_err(cannot)?;
    let upper = match top {
        Some(top) => Some((
            point::open_dir(&top.directory.join("upper"))?,
            point::open_dir(&top.directory.join("work"))?,
        )),
        None => None,
    };
    let options = &settings.options;
    let parts = OverlayParts {
        class: XattrClass::Trusted,
        names: names.as_fd(),
        data: &[contents.as_fd(), lease.as_fd()],
        upper: upper.as_ref().map(|(upper, work)| (upper.as_fd(), work.as_fd())),
        verity: settings.verity,
        source: &options.fsname,
        suid: options.suid,
        dev: options.dev,
        exec: options.exec,
    };
    let overlay = detached_overlay(&parts).map_err(cannot)?;
    Ok((overlay, names))
}

/// Records the mount and attaches it; gives the record, locked.
fn show(
    records: &MountRecords,
    name: &str,
    image: &OpenImage,
    top: Option<&KernelTop>,
    settings: &MountSettings,
    directory: &Path,
    overlay: OwnedFd,
) -> Result<File> {
    let device = rustix::fs::fstat(&overlay)?.st_dev;
    let upper = top.map(|top| top.upper.name.as_str());
    let mut record = settings.record(image, upper, directory);
    record.backend = Some(KERNEL.to_owned());
    record.pid = 0;
    record.device = Some(format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device)));
    let record = records.write(name, &record)?;
    let place = point::open_dir(directory)?;
    attach(&overlay, &place.into())?;
    Ok(record)
}
