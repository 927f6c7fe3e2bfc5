//! The directory of a store: what lies where in it, and who is told of its changes.
//!
//! What is below the root can be read by whoever may enter it, so its mode decides who reads the
//! files of all images. It is 0700 if strata makes it; the owner may let others in.
//!
//! Invariants: a directory that becomes a store keeps others out, if it is ours, but not those
//! with whom it is shared ([`is_shared`]); who has the directory locked exclusively is alone in the
//! store.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, RawMode};
use rustix::io::Errno;
use strata_diff::spill::SpillSpace;
use strata_tree::{BlobDigest, ChainId, DiffId};

use super::kernel_leases::KernelLeases;
use super::steps::{Step, StepHook};
use crate::error::{IoContext, Result};
use crate::layout::layer_path;
use crate::lock::{Lock, flock};
use crate::scratch::BooksMemory;

/// What the names of images of names end with.
pub(super) const NAMES_ENDING: &str = ".erofs";

const DIRS: [&str; 7] = ["layers", "trees", "blobs", "blobs/sha256", "mounts", "staging", "trash"];

/// The directory, open.
pub(crate) struct StoreDir {
    root: PathBuf,
    fd: OwnedFd,
    on_step: Option<StepHook>,
    memory: BooksMemory,
}

/// Whether somebody has shared a directory on purpose: with a group, whose files it then makes
/// (set-group-id), or by an ACL, whose mask the bits of the group are. The group of a plain one is
/// that of its user, which may be everybody's.
fn is_shared(dir: &OwnedFd, mode: RawMode) -> bool {
    // More than fits: there is one.
    let acl = rustix::fs::fgetxattr(dir, c"system.posix_acl_access", &mut [0_u8; 1][..]);
    mode & 0o2000 != 0 || matches!(acl, Ok(_) | Err(Errno::RANGE))
}

impl StoreDir {
    /// Opens the store's directory, and makes it and what is missing in it.
    pub(super) fn make(root: &Path, on_step: Option<StepHook>) -> Result<Self> {
        let doing = || format!("cannot make the store at {}", root.display());
        if !root.is_dir() {
            if let Some(parent) = root.parent() {
                std::fs::create_dir_all(parent).doing(doing)?;
            }
            match rustix::fs::mkdir(root, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error).doing(doing),
            }
        }
        let fd = open(root).doing(doing)?;
        let mode = rustix::fs::fstat(&fd).doing(doing)?.st_mode & 0o7777;
        let kept = if is_shared(&fd, mode) { mode & 0o7770 } else { mode & 0o7700 };
        if kept != mode && is_empty(root).doing(doing)? {
            match rustix::fs::fchmod(&fd, Mode::from_raw_mode(kept)) {
                // Another user's: whose it is says who comes in.
                Ok(()) | Err(Errno::PERM) => {}
                Err(error) => return Err(error).doing(doing),
            }
        }
        for dir in DIRS {
            let path = root.join(dir);
            match rustix::fs::mkdir(&path, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => {
                    return Err(error).doing(|| format!("cannot make {}", path.display()));
                }
            }
        }
        Ok(Self { root: root.to_owned(), fd, on_step, memory: BooksMemory::default() })
    }

    /// Opens the store's directory as it is.
    pub(super) fn open(root: &Path, on_step: Option<StepHook>) -> Result<Self> {
        let fd = open(root).doing(|| format!("cannot open the store at {}", root.display()))?;
        Ok(Self { root: root.to_owned(), fd, on_step, memory: BooksMemory::default() })
    }

    /// Where the books of a layer are kept while it is unpacked.
    pub(super) fn scratch(&self) -> Arc<SpillSpace> {
        self.memory.scratch(&self.staging())
    }

    /// Where is kept what a check notes of a layer, or of all.
    pub(super) fn scratch_for_check(&self) -> Arc<SpillSpace> {
        self.memory.scratch_for_check(&self.staging())
    }

    /// Sets the memory for that, before a layer is unpacked.
    pub(super) fn set_memory(&mut self, memory: BooksMemory) {
        self.memory = memory;
    }

    /// Locks it, for as long as this lives.
    pub(super) fn lock(&self, how: Lock) -> rustix::io::Result<()> {
        flock(&self.fd, how)
    }

    /// Its path.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The same, open.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// `index.db`.
    pub(super) fn index(&self) -> PathBuf {
        self.root.join("index.db")
    }

    /// `images.json`.
    pub(super) fn listing(&self) -> PathBuf {
        self.root.join("images.json")
    }

    /// Where things are made before they get their place.
    pub(super) fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    /// Where things are moved before they are removed.
    pub(super) fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    /// The directory of a layer.
    pub(super) fn layer(&self, layer: &DiffId) -> PathBuf {
        self.root.join(layer_path(layer))
    }

    /// The compiled tree of a chain.
    pub(super) fn tree(&self, chain: &ChainId) -> PathBuf {
        self.root.join("trees").join(chain.hex())
    }

    /// The image of names of a chain, for the kernel.
    pub(super) fn names_image(&self, chain: &ChainId) -> PathBuf {
        self.root.join("trees").join(format!("{}{}", chain.hex(), NAMES_ENDING))
    }

    /// The leases of mounts that the kernel serves.
    pub(super) fn kernel_leases(&self) -> KernelLeases {
        KernelLeases::new(self.root.join("mounts"))
    }

    /// A manifest or config.
    pub(super) fn blob_path(&self, digest: &BlobDigest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// What lies in a directory below the root, sorted by name.
    pub(super) fn list(&self, dir: &str) -> Result<Vec<(String, PathBuf)>> {
        let path = self.root.join(dir);
        let doing = || format!("cannot list {}", path.display());
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&path).doing(doing)? {
            let entry = entry.doing(doing)?;
            found.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
        }
        found.sort();
        Ok(found)
    }

    /// Syncs the directory `layers/`.
    pub(super) fn sync_layers(&self) -> std::io::Result<()> {
        File::open(self.root.join("layers")).and_then(|layers| layers.sync_all())
    }

    /// Tells that a step is done.
    pub(super) fn step(&self, step: Step) {
        if let Some(hook) = &self.on_step {
            hook(step);
        }
    }
}

fn open(root: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(root, flags, Mode::empty())
}

/// Whether nothing is in a directory, but for what a file system of its own begins with.
fn is_empty(dir: &Path) -> std::io::Result<bool> {
    for entry in std::fs::read_dir(dir)? {
        if entry?.file_name() != "lost+found" {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether there is anything in `layers/` of the store at `root`.
pub(crate) fn has_layers(root: &Path) -> Result<bool> {
    let layers = root.join("layers");
    match std::fs::read_dir(&layers) {
        Ok(mut found) => Ok(found.next().is_some()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).doing(|| format!("cannot list {}", layers.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, create_dir, set_permissions, write};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_that_becomes_a_store_keeps_others_out() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |root: &Path| root.metadata().unwrap().permissions().mode() & 0o7777;
        let made = |name: &str, mode| {
            let root = dir.path().join(name);
            create_dir(&root).unwrap();
            set_permissions(&root, Permissions::from_mode(mode)).unwrap();
            root
        };
        let (new, disk, used) = (made("new", 0o755), made("disk", 0o755), made("used", 0o755));
        let (shared, private) = (made("shared", 0o2775), made("private", 0o700));
        create_dir(disk.join("lost+found")).unwrap();
        write(used.join("something"), "").unwrap();
        let absent = dir.path().join("absent");
        for (root, expected) in [
            (&absent, 0o700),
            (&new, 0o700),
            (&disk, 0o700),
            (&shared, 0o2770),
            (&private, 0o700),
            (&used, 0o755),
        ] {
            StoreDir::make(root, None).unwrap();
            assert_eq!(mode(root), expected, "{}", root.display());
        }
        // By an ACL: rwx for the user, r-x for user 1000, --- for the group, r-x at most, --- else.
        let listed = made("listed", 0o755);
        let mut acl = 2_u32.to_le_bytes().to_vec();
        for (tag, bits, id) in
            [(1_u16, 7_u16, u32::MAX), (2, 5, 1000), (4, 0, u32::MAX), (16, 5, u32::MAX)]
                .into_iter()
                .chain([(32, 0, u32::MAX)])
        {
            acl.extend([&tag.to_le_bytes()[..], &bits.to_le_bytes()].concat());
            acl.extend(id.to_le_bytes());
        }
        let flags = rustix::fs::XattrFlags::empty();
        match rustix::fs::setxattr(&listed, "system.posix_acl_access", &acl, flags) {
            Ok(()) => {
                StoreDir::make(&listed, None).unwrap();
                assert_eq!(mode(&listed), 0o750, "the mask of the ACL");
            }
            // No ACLs on this file system.
            Err(error) => assert_eq!(error, Errno::OPNOTSUPP),
        }
        // The owner lets others in, and they stay in.
        set_permissions(&new, Permissions::from_mode(0o755)).unwrap();
        StoreDir::make(&new, None).unwrap();
        assert_eq!(mode(&new), 0o755);
    }
}
