//! Copies that have their names and are not on disk yet.
//!
//! A crash of the machine must not leave half a copy where the lower's file was. So the kernel's
//! overlayfs syncs a copy before it gives it its name. Here it gets its name at once; some threads
//! sync what has come up, and its mark of origin says until then that this is still to be done:
//!
//! ```text
//! strata.origin = "... unsynced"   copied; some of it is on disk
//!      | fsync
//! strata.origin = "... unsynced"   all of it is on disk
//!      | setxattr
//! strata.origin = "..."            see `origin`
//! ```
//!
//! `WORK/work/unsynced-<pid>` says that there may be such copies. It is on disk before the first of
//! them has its name, and goes at the end of the upper's use. A later use of the upper that finds
//! it (`UpperUse::mend`), after this process was killed or the machine has crashed, looks for them
//! all. One of which nothing is missing ([`is_whole`]) is what it was: in the page cache it is
//! whole, and of what was not written out before a crash the file systems that [`serves`] allows
//! make a hole. Any other gets the lower's content again: what was written to it is lost, as ever
//! without a sync.
//!
//! A sync of the file waits for the last state ([`Unsynced::settle`]); so does whatever leaves
//! holes or an earlier end.
//!
//! Invariants: an inode in the table is kept open, so its number is not used again; every sync of
//! the file reports a failure.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use strata_content::Content;

use rustix::fs::{AtFlags, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use rustix::process::Resource;

use super::copying::next_data;
use super::error::{Doing, Error, Result};
use super::marks::{Mark, Marks};
use super::origin_mark::Origin;

/// How many copies may wait, more wait for their places; and the part of this process' open files
/// that they may be, for each has a descriptor.
const MOST: u64 = 1024;
const PART: u64 = 4;

/// How long copies gather before they are synced: what is written to them next is synced with them,
/// and a program that makes many copies has the processors meanwhile.
const GATHER: Duration = Duration::from_millis(50);

/// How many more threads sync what has gathered, one for each [`FEW`]: the file system's journal is
/// written once for all that wait for it.
const HELPERS: usize = 3;
const FEW: usize = 8;

/// `f_type` of the file systems (statfs(2)) that keep the order of changes of names and inodes and
/// make a hole of what was not written out: ext4, XFS, btrfs, tmpfs.
const SERVED: [u32; 4] = [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994];

/// What names of a work directory begin with that say that there may be such copies.
pub(super) const ANNOUNCED: &str = "unsynced-";

/// Whether a crash of the file system of `dir` leaves what [`is_whole`] can tell.
pub(super) fn serves(dir: impl AsFd) -> bool {
    // The type has 32 bits, and is signed on some machines.
    let kind = |stat: rustix::fs::StatFs| (stat.f_type as u64 & 0xFFFF_FFFF) as u32;
    rustix::fs::fstatfs(dir).is_ok_and(|stat| SERVED.contains(&kind(stat)))
}

/// Whether a copy has data wherever the original has, and is not shorter.
pub(super) fn is_whole(copy: &File, original: &dyn Content) -> Result<bool> {
    let doing = || "compare a copy with its original".to_owned();
    let size = original.len();
    if copy.metadata().doing(doing)?.len() < size {
        return Ok(false);
    }
    let mut at = 0;
    while let Some((start, end)) = next_data(original, at, size)? {
        match rustix::fs::seek(copy, SeekFrom::Hole(start)) {
            Ok(hole) if hole >= end => at = end,
            Ok(_) => return Ok(false),
            Err(errno) => return Err(errno).doing(doing),
        }
    }
    Ok(true)
}

/// A copy that has all its bytes.
struct Copied {
    file: File,
    origin: Origin,
}

/// How far one copy is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SyncState {
    Waiting,
    /// Somebody syncs it.
    UnderWay,
    /// It could not be synced.
    Failed(Errno),
}

#[derive(Default)]
struct Copies {
    /// By inode number.
    all: HashMap<u64, (Arc<Copied>, SyncState)>,
    /// Those that may wait, in their order.
    queue: VecDeque<u64>,
    /// A thread lets more of them come.
    gathering: bool,
    /// How many wait for the end of one; waking nobody is a system call, too.
    waiting: usize,
}

impl Copies {
    /// That of `number`, if it waits; it is under way now.
    fn take(&mut self, number: u64) -> Option<Arc<Copied>> {
        let (copied, step) = self.all.get_mut(&number)?;
        if *step != SyncState::Waiting {
            return None;
        }
        *step = SyncState::UnderWay;
        Some(Arc::clone(copied))
    }

    /// The first that waits; it is under way now.
    fn next(&mut self) -> Option<(u64, Arc<Copied>)> {
        while let Some(number) = self.queue.pop_front() {
            // Somebody may have been faster.
            if let Some(copied) = self.take(number) {
                return Some((number, copied));
            }
        }
        None
    }
}

/// The copies of one upper.
pub(super) struct Unsynced {
    marks: Marks,
    /// How many copies may wait.
    most: usize,
    /// The work directory, once it says that there may be copies.
    announced: Mutex<Option<OwnedFd>>,
    copies: Mutex<Copies>,
    /// Notified when one has ended.
    ended: Condvar,
    /// Notified when enough have gathered.
    enough: Condvar,
    /// How many there are: whether there are any is asked without the lock.
    count: AtomicUsize,
}

impl Unsynced {
    pub(super) fn new(marks: Marks) -> Self {
        let files = rustix::process::getrlimit(Resource::Nofile).current;
        let most = files.map_or(MOST, |files| (files / PART).clamp(1, MOST));
        Self {
            marks,
            most: usize::try_from(most).unwrap_or(1),
            announced: Mutex::default(),
            copies: Mutex::default(),
            ended: Condvar::new(),
            enough: Condvar::new(),
            count: AtomicUsize::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Copies> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, mut copies: MutexGuard<'a, Copies>) -> MutexGuard<'a, Copies> {
        copies.waiting += 1;
        copies = self.ended.wait(copies).unwrap_or_else(PoisonError::into_inner);
        copies.waiting -= 1;
        copies
    }

    /// Once this many have gathered, the wait for more ends.
    fn enough(&self) -> usize {
        self.most.div_ceil(2)
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Makes it known, durably, that there may be copies from now on.
    pub(super) fn announce(&self, work: BorrowedFd<'_>) -> Result<()> {
        let doing = || "take note that copies are to be synced".to_owned();
        let mut announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        if announced.is_some() {
            return Ok(());
        }
        let kept = work.try_clone_to_owned().doing(doing)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        rustix::fs::openat(work, name(), flags, Mode::from_raw_mode(0o600)).doing(doing)?;
        rustix::fs::fsync(work).doing(doing)?;
        *announced = Some(kept);
        Ok(())
    }

    /// Takes over a copy of a lower's file that has all its bytes.
    ///
    /// # Errors
    /// `EIO`, `ENOSPC`: it could not be put on disk, where that is done at once, for want of a
    /// thread or a descriptor.
    pub(super) fn add(self: &Arc<Self>, file: &File, origin: Origin) -> Result<()> {
        let number = stat(file)?.st_ino;
        let Ok(file) = file.try_clone() else { return self.put_on_disk(file, &origin) };
        let mut copies = self.lock();
        while copies.all.len() >= self.most && copies.gathering {
            copies = self.wait(copies);
        }
        copies.all.insert(number, (Arc::new(Copied { file, origin }), SyncState::Waiting));
        copies.queue.push_back(number);
        self.count.store(copies.all.len(), Ordering::Release);
        if copies.queue.len() == self.enough() {
            self.enough.notify_one();
        }
        if copies.gathering || self.start(Self::gather) {
            copies.gathering = true;
            return Ok(());
        }
        drop(copies);
        self.settle_number(number)
    }

    /// Starts a thread, if the system allows one.
    fn start(self: &Arc<Self>, run: fn(&Arc<Self>)) -> bool {
        let this = Arc::clone(self);
        std::thread::Builder::new().name("sync".to_owned()).spawn(move || run(&this)).is_ok()
    }

    /// Syncs what comes until nothing has for a while.
    fn gather(self: &Arc<Self>) {
        let mut copies = self.lock();
        while !copies.queue.is_empty() {
            if copies.queue.len() < self.enough() {
                let waited = self.enough.wait_timeout(copies, GATHER);
                copies = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            let helpers = (copies.queue.len() / FEW).min(HELPERS);
            drop(copies);
            for _ in 0..helpers {
                self.start(|this| this.drain());
            }
            self.drain();
            copies = self.lock();
        }
        copies.gathering = false;
        // Failed ones may have taken all the places that somebody waits for.
        self.ended.notify_all();
    }

    /// Syncs whatever waits.
    fn drain(&self) {
        let mut copies = self.lock();
        while let Some((number, copied)) = copies.next() {
            drop(copies);
            copies = self.finish(number, &copied);
        }
    }

    /// Takes a copy that is under way to the last state.
    fn finish(&self, number: u64, copied: &Arc<Copied>) -> MutexGuard<'_, Copies> {
        let end = self.put_on_disk(&copied.file, &copied.origin);
        let mut copies = self.lock();
        let failed = match end {
            Ok(()) => None,
            Err(
                Error::Refused(errno) | Error::Upper { errno, .. } | Error::Attribute { errno, .. },
            ) => Some(errno),
            Err(Error::Lower(_) | Error::InUse { .. } | Error::Unusable { .. }) => Some(Errno::IO),
        };
        match failed {
            None => copies.all.remove(&number),
            Some(errno) => {
                copies.all.insert(number, (Arc::clone(copied), SyncState::Failed(errno)))
            }
        };
        self.count.store(copies.all.len(), Ordering::Release);
        if copies.waiting > 0 {
            self.ended.notify_all();
        }
        copies
    }

    fn put_on_disk(&self, file: &File, origin: &Origin) -> Result<()> {
        if stat(file)?.st_nlink == 0 {
            return Ok(()); // Nobody will find it.
        }
        rustix::fs::fsync(file).doing(failed)?;
        let synced = Origin { unsynced: false, ..origin.clone() };
        self.marks.set(file, Mark::StrataOrigin, &synced.format())
    }

    /// Waits until a file of the upper is in the last state, if it is one of the copies.
    ///
    /// # Errors
    /// `EIO`, `ENOSPC`: its content could not be put on disk.
    pub(super) fn settle(&self, file: impl AsFd) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        self.settle_number(stat(file)?.st_ino)
    }

    fn settle_number(&self, number: u64) -> Result<()> {
        let mut copies = self.lock();
        loop {
            match copies.all.get(&number) {
                None => return Ok(()),
                Some((_, SyncState::Failed(errno))) => return Err(*errno).doing(failed),
                Some((_, SyncState::UnderWay)) => copies = self.wait(copies),
                Some((_, SyncState::Waiting)) => {
                    if let Some(copied) = copies.take(number) {
                        drop(copies);
                        copies = self.finish(number, &copied);
                    }
                }
            }
        }
    }

    /// Waits for all, and takes back that there are any.
    ///
    /// # Errors
    /// As [`Unsynced::settle`], for one that failed.
    pub(super) fn end(&self) -> Result<()> {
        self.drain();
        let mut copies = self.lock();
        let open = |step: &SyncState| matches!(step, SyncState::Waiting | SyncState::UnderWay);
        while copies.all.values().any(|(_, step)| open(step)) {
            copies = self.wait(copies);
        }
        if let Some((_, SyncState::Failed(errno))) = copies.all.values().next() {
            return Err(*errno).doing(failed);
        }
        drop(copies);
        let mut announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(work) = announced.take() else { return Ok(()) };
        match rustix::fs::unlinkat(work, name(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno).doing(|| "clean the work directory".to_owned()),
        }
    }
}

fn name() -> String {
    format!("{ANNOUNCED}{}", std::process::id())
}

fn failed() -> String {
    "sync a file that was copied up".to_owned()
}

fn stat(file: impl AsFd) -> Result<rustix::fs::Stat> {
    rustix::fs::fstat(file).doing(|| "stat a copy".to_owned())
}
