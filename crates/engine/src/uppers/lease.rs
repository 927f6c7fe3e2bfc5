//! The right to write an upper: a lock (flock) on its directory.
//!
//! An upper is made with it. So there is no moment at which a collection takes a temporary one for
//! what a crash left, or another mount gets in before the one that it was made for. The daemon of
//! that mount inherits the open file that has the lock.
//!
//! Invariants: who has a [`HeldUpper`] or [`UpperLease`] of an upper is its only writer, as far as
//! the file system has locks; a temporary upper goes with the lease that was mounted.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, FlockOperation, flock, fstat, stat};
use strata_layer::KernelLeases;
use strata_tree::remove_tree;
use strata_union::UseLock;

use super::{NamedUpper, Uppers};
use crate::error::{ErrorContext, Result, bail};
use crate::mounts::{MountInfo, list};

/// An upper that is to be mounted, with the right to write it if this process has that already.
#[derive(Debug, Clone)]
pub struct HeldUpper {
    /// The upper.
    pub upper: NamedUpper,
    lock: Option<Arc<HeldLock>>,
}

/// The lock of a [`HeldUpper`] and of its clones, which have one lease at a time between them.
#[derive(Debug)]
struct HeldLock {
    dir: OwnedFd,
    leased: AtomicBool,
}

impl HeldLock {
    fn new(dir: OwnedFd) -> Arc<Self> {
        Arc::new(Self { dir, leased: AtomicBool::new(false) })
    }

    /// For a lease, if there is none.
    fn take(self: &Arc<Self>) -> Option<TakenLock> {
        let free = !self.leased.swap(true, Ordering::AcqRel);
        free.then(|| TakenLock(Arc::clone(self)))
    }
}

/// A [`HeldLock`] with a lease; when this is dropped, there can be another.
struct TakenLock(Arc<HeldLock>);

impl Drop for TakenLock {
    fn drop(&mut self) {
        self.0.leased.store(false, Ordering::Release);
    }
}

impl From<NamedUpper> for HeldUpper {
    fn from(upper: NamedUpper) -> Self {
        Self { upper, lock: None }
    }
}

impl HeldUpper {
    /// The open file that has the lock: for [`Uppers::adopt`] in a process that inherits it.
    pub fn lock(&self) -> Option<BorrowedFd<'_>> {
        self.lock.as_ref().map(|lock| lock.dir.as_fd())
    }

    /// A new upper, which nobody else can know yet.
    pub(super) fn new(upper: &NamedUpper, staged: &Path) -> std::io::Result<Self> {
        let dir = File::open(staged)?;
        // Where there are no locks, everybody has them.
        let _ = flock(&dir, FlockOperation::NonBlockingLockExclusive);
        Ok(Self { upper: upper.clone(), lock: Some(HeldLock::new(dir.into())) })
    }

    /// The same, kept when its mount ends.
    pub(crate) fn kept(self) -> Self {
        Self { upper: NamedUpper { temporary: false, ..self.upper }, ..self }
    }
}

/// An upper that is being written. When this is dropped, the upper is released, and removed if it
/// is temporary.
pub struct UpperLease {
    path: PathBuf,
    temporary: bool,
    _taken: Option<UseLock>,
    _held: Option<TakenLock>,
}

impl Drop for UpperLease {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = remove_tree(CWD, &self.path)
        {
            tracing::error!("cannot remove the upper {}: {error}", self.path.display());
        }
    }
}

impl Uppers {
    /// Takes an upper for writing.
    ///
    /// # Errors
    /// `Doing`, `Io`, naming the upper; `Refused` for what cannot be its name, and if it is in use.
    pub fn lease(&self, held: &HeldUpper) -> Result<UpperLease> {
        let upper = &held.upper;
        let path = self.path(&upper.name)?;
        let (taken, held) = match &held.lock {
            Some(lock) => match lock.take() {
                Some(taken) => (None, Some(taken)),
                None => bail!("upper {} is in use: {}", upper.name, self.user(upper)),
            },
            None => {
                let dir = File::open(&path).with_context(|| format!("no upper {}", upper.name))?;
                let lock = UseLock::take(&dir)
                    .with_context(|| format!("cannot lock {}", path.display()))?;
                if lock.is_none() {
                    bail!("upper {} is in use: {}", upper.name, self.user(upper))
                }
                // Whoever had it may have removed it, and another one may have its name now.
                if !is_at(&dir, &path) {
                    bail!("upper {} has just been removed; try again", upper.name)
                }
                (lock, None)
            }
        };
        if self.has_kernel_mount(upper)? {
            bail!("upper {} is in use: {}", upper.name, self.user(upper))
        }
        Ok(UpperLease { path, temporary: upper.temporary, _taken: taken, _held: held })
    }

    /// The upper with the lock that the process has which started this one, if `inherited` is the
    /// open file that has it.
    ///
    /// # Errors
    /// `Refused` for what cannot be its name.
    pub fn adopt(&self, upper: NamedUpper, inherited: OwnedFd) -> Result<HeldUpper> {
        let path = self.path(&upper.name)?;
        // Granted at once to the open file that has the lock, and to no other.
        let lock = || flock(&inherited, FlockOperation::NonBlockingLockExclusive);
        let lock = (is_at(&inherited, &path) && lock().is_ok()).then(|| HeldLock::new(inherited));
        Ok(HeldUpper { upper, lock })
    }

    /// Removes an upper that was made for a mount which has not come to be. No clone of it may be
    /// held any more.
    ///
    /// # Errors
    /// `Doing`, `Io`, naming the upper; `Refused` for what cannot be its name, and if it is in use.
    pub fn discard(&self, made: HeldUpper) -> Result<()> {
        let HeldUpper { upper, lock } = made;
        // A daemon that lives has the same lock, and is in no record before it has mounted: if
        // the lock is given back and can be taken again, there is no such daemon.
        drop(lock);
        let made = HeldUpper::from(upper).kept();
        // A daemon that has failed has removed its temporary one.
        if !self.path(&made.upper.name)?.exists() {
            return Ok(());
        }
        let mounts = list::list(&self.records)?;
        if let Some(mount) = MountInfo::of_upper(&mounts, &made.upper.name) {
            bail!("upper {} stays: it is {}", made.upper.name, mount.and_its_end())
        }
        let _lease = self.lease(&made)?;
        self.take_away(&made.upper.name)
    }

    /// Whether a mount that the kernel serves writes to it.
    pub(super) fn has_kernel_mount(&self, upper: &NamedUpper) -> Result<bool> {
        let kept = KernelLeases::new(self.records.dir()).kept()?;
        Ok(kept.iter().any(|lease| lease.upper.as_ref() == Some(&upper.name)))
    }

    fn user(&self, upper: &NamedUpper) -> String {
        let mounts = list::list(&self.records).unwrap_or_default();
        match MountInfo::of_upper(&mounts, &upper.name) {
            Some(mount) => format!("it is {}", mount.and_its_end()),
            None => "a running command writes to it, and an upper has one writer".to_owned(),
        }
    }
}

/// Whether the path leads to the directory that is open.
fn is_at(dir: impl AsFd, path: &Path) -> bool {
    match (fstat(dir), stat(path)) {
        (Ok(own), Ok(there)) => (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino),
        _ => false,
    }
}
