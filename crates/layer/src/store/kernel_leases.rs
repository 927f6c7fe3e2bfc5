//! Leases that mounts of the kernel have: a mount without a daemon has no process that could hold
//! a lock.
//!
//! ```text
//! mounts/NAME.lease    a block of 4,096 bytes that the caller makes: a file system that the mount
//!                      has among its layers, so that the kernel has the file open as long as
//!                      the mount lives
//!                      "image <id>\n", "layer <diff id>\n" for each layer, "upper <name>\n" for
//!                      a writable one
//! ```
//!
//! Whether the mount lives is asked of the kernel ([`strata_tree::is_open_elsewhere`]): in
//! whatever mount namespace, also once it is detached, and not after a reboot.
//!
//! Invariants: a lease counts as kept as long as the process that makes the mount has it open;
//! processes that ask take turns (`flock` on the directory), for a file that another one has open
//! at that moment would look kept; what cannot be asked counts as kept, so nothing is removed below
//! a mount.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use strata_tree::{DiffId, ImageId};

use crate::error::{IoContext, Result};
use crate::lock::{Lock, flock};

/// Bytes of the file system at the beginning.
pub const LEASE_BLOCK: usize = 4096;
/// What the names of the files end with.
const ENDING: &str = "lease";

/// The leases in a directory of mounts' records.
#[derive(Debug, Clone)]
pub struct KernelLeases {
    dir: PathBuf,
}

/// A lease that a mount keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelLease {
    /// The image that is mounted.
    pub image: ImageId,
    /// Its layers.
    pub layers: Vec<DiffId>,
    /// The writable layer on top, by its name.
    pub upper: Option<String>,
}

impl KernelLeases {
    /// Those in the directory of records `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Where the lease of the mount `name` is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.{ENDING}"))
    }

    /// Makes the lease of a mount that is to be. It is kept from now on, until the file is closed
    /// and no mount has it.
    ///
    /// # Errors
    /// `Io`.
    pub fn make(&self, name: &str, of: &KernelLease, block: &[u8; LEASE_BLOCK]) -> Result<File> {
        let path = self.path(name);
        let doing = || format!("cannot write {}", path.display());
        let mut options = File::options();
        options.read(true).write(true).create_new(true).mode(0o600);
        let mut file = options.open(&path).doing(doing)?;
        // The store's owner asks for it too, and the kernel answers the file's owner alone.
        let owner = self.dir.metadata().doing(doing)?;
        std::os::unix::fs::fchown(&file, Some(owner.uid()), Some(owner.gid())).doing(doing)?;
        let mut bytes = block.to_vec();
        let mut line = |what: &str, which: &dyn std::fmt::Display| {
            bytes.extend_from_slice(format!("{what} {which}\n").as_bytes());
        };
        line("image", &of.image);
        of.layers.iter().for_each(|layer| line("layer", layer));
        of.upper.iter().for_each(|upper| line("upper", upper));
        file.write_all(&bytes).doing(doing)?;
        Ok(file)
    }

    /// All leases that are kept.
    ///
    /// # Errors
    /// `Io`.
    pub fn kept(&self) -> Result<Vec<KernelLease>> {
        let doing = || format!("cannot list {}", self.dir.display());
        let names = match std::fs::read_dir(&self.dir) {
            Ok(names) => names,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).doing(doing),
        };
        let mut kept = Vec::new();
        for entry in names {
            let path = entry.doing(doing)?.path();
            if path.extension().is_some_and(|ending| ending == ENDING)
                && let Some(lease) = open_kept(&path)?
            {
                kept.extend(read(lease, &path)?);
            }
        }
        Ok(kept)
    }

    /// Whether the lease at `path` is kept: by a mount, or by a process that is making one.
    ///
    /// # Errors
    /// `Io`: the file is there and cannot be opened.
    pub fn is_kept(path: &Path) -> Result<bool> {
        Ok(open_kept(path)?.is_some())
    }
}

/// A lease that is open to be read. Its fields are dropped in this order, so nobody else asks
/// while the file is open.
struct OpenLease {
    file: File,
    _turn: File,
}

/// Opens the lease at `path` if it is kept.
fn open_kept(path: &Path) -> Result<Option<OpenLease>> {
    let doing = || format!("cannot open {}", path.display());
    let turn = File::open(path.parent().unwrap_or(path)).doing(doing)?;
    flock(&turn, Lock::Exclusive).doing(doing)?;
    match File::open(path) {
        Ok(file) if strata_tree::is_open_elsewhere(&file).unwrap_or(true) => {
            Ok(Some(OpenLease { file, _turn: turn }))
        }
        Ok(_) => Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).doing(doing),
    }
}

/// What a lease is of; `None` for a file that was not finished.
fn read(mut lease: OpenLease, path: &Path) -> Result<Option<KernelLease>> {
    let doing = || format!("cannot read {}", path.display());
    let mut text = String::new();
    lease.file.seek(SeekFrom::Start(LEASE_BLOCK as u64)).doing(doing)?;
    lease.file.read_to_string(&mut text).doing(doing)?;
    let lines = |what: &'static str| text.lines().filter_map(move |line| line.strip_prefix(what));
    let image = lines("image ").next().and_then(|id| id.parse().ok());
    let layers = lines("layer ").filter_map(|id| id.parse().ok()).collect();
    let upper = lines("upper ").next().map(str::to_owned);
    Ok(image.map(|image| KernelLease { image, layers, upper }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease() -> KernelLease {
        let image = format!("sha256:{}", "1".repeat(64)).parse().unwrap();
        let layers = ["2", "3"].map(|n| format!("sha256:{}", n.repeat(64)).parse().unwrap());
        KernelLease { image, layers: layers.to_vec(), upper: Some("work".to_owned()) }
    }

    #[test]
    fn it_is_kept_as_long_as_somebody_has_it_open() {
        let dir = tempfile::tempdir().unwrap();
        let leases = KernelLeases::new(dir.path());
        assert_eq!(leases.kept().unwrap(), []);
        let maker = leases.make("n", &lease(), &[7; LEASE_BLOCK]).unwrap();
        assert_eq!(leases.kept().unwrap(), [lease()]);
        let mount = File::open(leases.path("n")).unwrap();
        drop(maker);
        assert_eq!(leases.kept().unwrap(), [lease()]);
        drop(mount);
        assert_eq!(leases.kept().unwrap(), []);
        assert!(!KernelLeases::is_kept(&dir.path().join("none.lease")).unwrap());
        assert_eq!(std::fs::read(leases.path("n")).unwrap()[..LEASE_BLOCK], [7; LEASE_BLOCK]);
    }

    #[test]
    fn those_who_ask_at_once_do_not_see_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let leases = KernelLeases::new(dir.path());
        drop(leases.make("n", &lease(), &[0; LEASE_BLOCK]).unwrap());
        std::thread::scope(|scope| {
            let ask = || (0..50).filter(|_| !leases.kept().unwrap().is_empty()).count();
            let asked: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            assert!(asked.into_iter().all(|one| one.join().unwrap() == 0));
        });
    }
}
