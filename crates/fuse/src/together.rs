//! A caller and the thread that answers it, on one processor of a machine that has two.
//!
//! On one processor a request costs two switches between threads. Across two it costs a wake-up of
//! the other processor as well, which takes several times as long, most of all on virtual
//! machines. But whoever is woken while another processor is idle is moved there. So while one
//! caller asks briskly, the thread that answers is bound to the caller's processor, and the other
//! one is kept from being idle by a thread that does nothing: the ballast.
//!
//! ```text
//! processor A   caller | keeper | caller | keeper | ...   it sleeps in between, and costs nothing
//! processor B   ballast, at nice 19: whoever else wants to run there does
//! ```
//!
//! With more processors it would take more of them to be kept busy, so there nothing of this is
//! done; nor where less than the time of two may be used.
//!
//! Invariants: nothing but speed depends on this; the ballast ends by itself, at the latest
//! [`BRISK`] after the last brisk batch, and takes no lock: no thread ever waits for it.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_setaffinity};

/// So many requests of one caller are a batch; it is brisk if it takes less than [`BRISK`].
const BATCH: u32 = 16;
const BRISK: Duration = Duration::from_millis(5);
/// After this many batches the thread looks again where the caller runs: reading `/proc` costs
/// about as much as a request.
const LOOK: u32 = 8;
/// What the ballast gives way to others with.
const NICE: i32 = 19;

/// Two processors, and the threads of one mount.
#[derive(Debug)]
pub(crate) struct Together {
    shared: Arc<Shared>,
    pace: Mutex<Pace>,
    ballast: OnceLock<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    processors: [usize; 2],
    /// What the threads may run on while they are not bound.
    all: CpuSet,
    start: Instant,
    on: AtomicBool,
    /// The ballast is not wanted any more, or cannot be had.
    over: AtomicBool,
    /// Nanoseconds after `start`.
    until: AtomicU64,
    /// Who is bound: see [`Bound`]; 0: nobody.
    bound: AtomicU64,
}

/// How fast the last caller asks.
#[derive(Debug)]
struct Pace {
    turns: u32,
    batches: u32,
    since: Instant,
}

/// A thread, and which of the two processors it is bound to.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bound(Pid, usize);

impl Bound {
    fn pack(self) -> u64 {
        (u64::from(self.0.as_raw_nonzero().get().unsigned_abs()) << 1) | self.1 as u64
    }

    fn unpack(packed: u64) -> Option<Self> {
        let thread = Pid::from_raw(i32::try_from(packed >> 1).ok()?)?;
        Some(Self(thread, usize::from(packed & 1 == 1)))
    }
}

impl Together {
    /// For this machine, if it has two processors and both may be used to the full.
    pub(crate) fn here() -> Option<Self> {
        let online = std::fs::read_to_string("/sys/devices/system/cpu/online").ok()?;
        let processors: [usize; 2] = listed(&online)?.try_into().ok()?;
        // It counts those that this process may run on, and what its control group grants.
        let ours = thread::available_parallelism().map_or(1, NonZero::get);
        (ours == 2).then(|| Self::on(processors)).flatten()
    }

    fn on(processors: [usize; 2]) -> Option<Self> {
        let start = Instant::now();
        let shared = Shared {
            processors,
            all: sched_getaffinity(None).ok()?,
            start,
            on: AtomicBool::new(false),
            over: AtomicBool::new(false),
            until: AtomicU64::new(0),
            bound: AtomicU64::new(0),
        };
        let pace = Mutex::new(Pace::new(0));
        Some(Self { shared: Arc::new(shared), pace, ballast: OnceLock::new() })
    }

    /// A request of the thread `caller` was answered on this one; `same` as the last. Whether
    /// they are together: then this thread is woken soon enough if it sleeps.
    pub(crate) fn answered(&self, caller: u32, same: bool) -> bool {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = pace.turn(same && caller != 0);
        drop(pace);
        match batch {
            Some(batches) if batches > 0 => self.bring(caller, batches),
            Some(_) => self.shared.unbind(),
            None => {}
        }
        self.shared.on.load(Ordering::Relaxed)
    }

    /// Brings this thread and `caller` together, after so many brisk batches.
    fn bring(&self, caller: u32, batches: u32) {
        let shared = &self.shared;
        if shared.over.load(Ordering::Relaxed) {
            return;
        }
        shared.until.store(shared.now() + BRISK.as_nanos() as u64, Ordering::Relaxed);
        let bound = Bound::unpack(shared.bound.load(Ordering::Relaxed));
        let is_mine = bound.is_some_and(|Bound(thread, _)| thread == gettid());
        if (!is_mine || batches.is_multiple_of(LOOK)) && !shared.bind_beside(caller) {
            return;
        }
        if !shared.on.swap(true, Ordering::Relaxed)
            && let Some(ballast) = self.ballast.get_or_init(|| Shared::start(shared))
        {
            ballast.thread().unpark();
        }
    }
}

impl Pace {
    fn new(batches: u32) -> Self {
        Self { turns: 0, batches, since: Instant::now() }
    }

    /// Counts a request. At the end of a batch: how many were brisk without a break.
    fn turn(&mut self, same: bool) -> Option<u32> {
        if !same {
            *self = Self::new(0);
        }
        self.turns += 1;
        if self.turns < BATCH {
            return None;
        }
        let brisk = self.since.elapsed() < BRISK;
        *self = Self::new(if brisk { self.batches + 1 } else { 0 });
        Some(self.batches)
    }
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Binds this thread to the processor of `caller`. False if that cannot be told or done.
    fn bind_beside(&self, caller: u32) -> bool {
        let at = processor_of(caller);
        let Some(which) = self.processors.iter().position(|&p| Some(p) == at) else { return false };
        let bound = Bound(gettid(), which);
        let before = Bound::unpack(self.bound.swap(bound.pack(), Ordering::Relaxed));
        if before == Some(bound) {
            return true;
        }
        if let Some(Bound(thread, _)) = before
            && thread != bound.0
        {
            let _ = sched_setaffinity(Some(thread), &self.all);
        }
        sched_setaffinity(None, &only(self.processors[which])).is_ok()
    }

    fn unbind(&self) {
        if let Some(Bound(thread, _)) = Bound::unpack(self.bound.swap(0, Ordering::Relaxed)) {
            // The thread may have ended with the mount.
            let _ = sched_setaffinity(Some(thread), &self.all);
        }
    }

    fn start(shared: &Arc<Self>) -> Option<JoinHandle<()>> {
        let ours = Arc::clone(shared);
        let started = thread::Builder::new().name("ballast".to_owned()).spawn(move || ours.lie());
        if started.is_err() {
            shared.give_up();
        }
        started.ok()
    }

    /// The life of the ballast.
    fn lie(&self) {
        // In Linux this is the niceness of the thread alone.
        if rustix::process::setpriority_process(None, NICE).is_err() {
            return self.give_up();
        }
        while !self.over.load(Ordering::Relaxed) {
            if self.on.load(Ordering::Relaxed) {
                self.spin();
            } else {
                thread::park();
            }
        }
    }

    /// Keeps the processor busy that the bound thread does not run on.
    fn spin(&self) {
        let mut at = None;
        while self.now() < self.until.load(Ordering::Relaxed) && !self.over.load(Ordering::Relaxed)
        {
            let bound = Bound::unpack(self.bound.load(Ordering::Relaxed));
            if bound != at
                && let Some(Bound(_, which)) = bound
            {
                at = bound;
                if sched_setaffinity(None, &only(self.processors[1 - which])).is_err() {
                    return self.give_up();
                }
            }
            for _ in 0..50 {
                std::hint::spin_loop();
            }
            rustix::thread::sched_yield();
        }
        // A batch that ends now may find itself apart: the next brings it together again.
        self.on.store(false, Ordering::Relaxed);
        self.unbind();
    }

    fn give_up(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.on.store(false, Ordering::Relaxed);
        self.unbind();
    }
}

impl Drop for Together {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        if let Some(Some(ballast)) = self.ballast.take() {
            // It runs when nothing else does: whoever unmounts does not wait for that.
            ballast.thread().unpark();
        }
    }
}

fn only(processor: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(processor);
    set
}

/// Where the thread runs, or ran last (proc(5), field 39 of `stat`). As a thread, for the figures
/// of a whole process are added up when they are read.
fn processor_of(thread: u32) -> Option<usize> {
    let stat = std::fs::read_to_string(format!("/proc/{thread}/task/{thread}/stat")).ok()?;
    // A name may have blanks and brackets in it; the third field comes after the last one.
    stat.rsplit_once(") ")?.1.split(' ').nth(39 - 3)?.parse().ok()
}

/// The numbers of a list such as `0-1,4`.
fn listed(list: &str) -> Option<Vec<usize>> {
    let mut found = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        found.extend(first..=last);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> u32 {
        gettid().as_raw_nonzero().get().unsigned_abs()
    }

    fn affinity() -> CpuSet {
        sched_getaffinity(None).unwrap()
    }

    /// On two of the processors that this thread may run on, if it has so many.
    fn two() -> Option<Together> {
        let ours = affinity();
        let mut ours = (0..CpuSet::MAX_CPU).filter(|&p| ours.is_set(p));
        Together::on([ours.next()?, ours.next()?])
    }

    fn bound(two: &Together) -> Option<Bound> {
        Bound::unpack(two.shared.bound.load(Ordering::Relaxed))
    }

    fn batch(two: &Together, caller: u32) -> bool {
        (0..BATCH).map(|_| two.answered(caller, true)).last().unwrap()
    }

    /// This thread calls and answers; to stay on `which` of the two, for there may be more.
    fn together(two: &Together, which: usize) {
        sched_setaffinity(None, &only(two.shared.processors[which])).unwrap();
        // On a busy machine no batch may be brisk for a while.
        while !batch(two, me()) {}
    }

    #[test]
    fn brisk_batches_bring_together_and_their_end_sets_free() {
        let Some(two) = two() else { return };
        for which in [1, 0] {
            together(&two, which);
            while two.shared.on.load(Ordering::Relaxed) || affinity() != two.shared.all {
                thread::yield_now();
            }
        }
    }

    #[test]
    fn several_callers_and_those_that_cannot_be_seen_are_left_alone() {
        let Some(two) = two() else { return };
        for n in 0..10 * BATCH {
            assert!(!two.answered(me(), n % BATCH != 0));
            assert!(!two.answered(0, true));
        }
        assert!(two.ballast.get().is_none());
        assert_eq!(affinity(), two.shared.all);
    }

    #[test]
    fn a_slow_batch_sets_free() {
        let Some(two) = two() else { return };
        together(&two, 0);
        two.shared.until.store(u64::MAX, Ordering::Relaxed);
        two.pace.lock().unwrap().since = Instant::now().checked_sub(BRISK).unwrap();
        batch(&two, me());
        assert_eq!((bound(&two), affinity()), (None, two.shared.all));
    }

    #[test]
    fn another_thread_that_answers_takes_the_place_of_the_first() {
        let Some(two) = two() else { return };
        together(&two, 0);
        two.shared.until.store(u64::MAX, Ordering::Relaxed);
        let caller = me();
        thread::scope(|scope| {
            scope.spawn(|| {
                assert!(two.shared.bind_beside(caller));
                assert_eq!(bound(&two), Some(Bound(gettid(), 0)));
                assert_eq!(affinity(), only(two.shared.processors[0]));
            });
        });
        assert_eq!(affinity(), two.shared.all, "the first is free");
    }

    #[test]
    fn the_ballast_ends_with_the_mount_even_while_it_is_wanted() {
        let Some(two) = two() else { return };
        together(&two, 0);
        two.shared.until.store(u64::MAX, Ordering::Relaxed);
        drop(two); // Joins it.
    }

    #[test]
    fn lists_of_processors() {
        assert_eq!(listed("0-1\n"), Some(vec![0, 1]));
        assert_eq!(listed("0,2-4"), Some(vec![0, 2, 3, 4]));
        assert_eq!(listed("7"), Some(vec![7]));
        assert_eq!(listed(""), None);
    }

    #[test]
    fn where_a_thread_runs_is_told_whatever_its_name() {
        let at = only(0);
        let name = ") 1 2 (x".to_owned();
        let found = thread::Builder::new()
            .name(name)
            .spawn(move || sched_setaffinity(None, &at).is_ok().then(|| processor_of(me())));
        assert!(matches!(found.unwrap().join().unwrap(), None | Some(Some(0))));
        assert_eq!(processor_of(u32::MAX), None);
    }
}
