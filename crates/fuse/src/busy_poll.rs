//! Busy polling between the requests of a caller that asks one after another.
//!
//! A request is a hand-over: the caller sleeps until it is answered, then thinks for a few
//! microseconds and asks again. A daemon that sleeps in between must be woken on an idle
//! processor, which costs several times what the request does, most of all on virtual machines. So
//! the thread that has answered polls for the next request for at most [`SPIN`], and yields its
//! processor to every other thread that wants to run there.
//!
//! ```text
//! all threads wait in the kernel      a request wakes one of them, which answers and ...
//!   ... becomes the poller              it polls for the next request, again and again
//!   ... parks, if there is a poller     so that the kernel does not wake it for nothing
//! all threads wait in the kernel      no request came in time, or several callers ask
//! ```
//!
//! The spinning is adaptive: spins that found nothing, and requests of several callers in turns,
//! count as misses; after [`MISSES`] of them nobody spins for [`BACKOFF`] requests.
//!
//! Invariants: nothing but speed depends on this; threads are parked only while a poller answers:
//! if it has not for [`PARK`], they go back to the kernel; so they do when requests of several
//! callers come mixed, and when a thread ends, for then the mount has ended. Without a device to
//! poll ([`BusyPoll::watch`]) no thread spins or parks.

use std::cell::OnceCell;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long a thread polls for the next request. A wake-up costs about half as much.
const SPIN: Duration = Duration::from_micros(50);
/// How long one request may hold up the poller before the parked threads go back to the kernel.
const PARK: Duration = Duration::from_millis(2);
/// How many misses a spin that found nothing counts, and a request of another caller than the
/// last; a request of the same caller in time takes one miss off.
const MISS: u32 = 2;
/// With this many misses nobody spins for the next [`BACKOFF`] requests.
const MISSES: u32 = 8;
const BACKOFF: u32 = 64;

/// Copying this many bytes takes less time than a wake-up does.
const LIGHT: u32 = 128 << 10;

/// The threads of one mount.
#[derive(Debug)]
pub(crate) struct BusyPoll {
    device: OnceLock<OwnedFd>,
    threads: usize,
    lot: Arc<Lot>,
    /// Requests that were answered outside of a backoff.
    turns: AtomicU32,
    /// The thread that asked last, as the kernel calls it; 0: none that we can see.
    caller: AtomicU32,
    misses: AtomicU32,
    /// Requests for which nobody spins.
    backoff: AtomicU32,
}

/// Where threads park.
#[derive(Debug, Default)]
struct Lot {
    roles: Mutex<Roles>,
    back: Condvar,
}

impl Lot {
    fn roles(&self) -> MutexGuard<'_, Roles> {
        self.roles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Is dropped when the thread that it belongs to ends.
struct Leaving(Arc<Lot>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.roles().over = true;
        self.0.back.notify_all();
    }
}

thread_local! {
    static LEAVING: OnceCell<Leaving> = const { OnceCell::new() };
}

#[derive(Debug, Default)]
struct Roles {
    /// A thread has ended: the kernel asks nothing any more.
    over: bool,
    poller: Option<ThreadId>,
    /// How many threads are parked.
    parked: usize,
    /// How many threads do slow work.
    slow: usize,
    /// How often all parked threads were sent back.
    calls: u64,
}

/// This thread does slow work as long as this lives.
pub(crate) struct SlowWork<'a>(&'a BusyPoll);

impl Drop for SlowWork<'_> {
    fn drop(&mut self) {
        self.0.roles().slow -= 1;
    }
}

impl BusyPoll {
    /// For a mount that this many threads answer.
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            device: OnceLock::new(),
            threads,
            lot: Arc::default(),
            turns: AtomicU32::new(0),
            caller: AtomicU32::new(0),
            misses: AtomicU32::new(0),
            backoff: AtomicU32::new(0),
        }
    }

    /// Polls `device` for requests from now on.
    pub(crate) fn watch(&self, device: OwnedFd) {
        let _ = self.device.set(device);
    }

    /// A request of the thread `caller` was answered on this thread, quickly.
    pub(crate) fn answered(&self, caller: u32) {
        let Some(device) = self.device.get() else { return };
        LEAVING.with(|leaving| {
            leaving.get_or_init(|| Leaving(Arc::clone(&self.lot)));
        });
        let same = self.caller.swap(caller, Ordering::Relaxed) == caller;
        let backoff = self.backoff.load(Ordering::Relaxed);
        if backoff > 0 {
            self.backoff.store(backoff - 1, Ordering::Relaxed);
            return;
        }
        self.turns.fetch_add(1, Ordering::Relaxed);
        // One caller has one request at a time. A caller of another name space has no number here:
        // then it counts whether the next request came before the caller can have had its answer.
        let out_of_turn = if caller == 0 { self.is_asked(device) } else { !same };
        if out_of_turn {
            self.miss(false);
        } else if self.is_poller() {
            self.spin(device);
        } else {
            self.park();
        }
    }

    /// A request was answered that nobody waits for: the last caller may have asked on already.
    pub(crate) fn answered_nobody(&self) {
        self.answered(self.caller.load(Ordering::Relaxed));
    }

    /// `bytes` are about to be read or written: many take time, and may be read ahead.
    pub(crate) fn asked_for(&self, bytes: u32) {
        if bytes > LIGHT {
            self.all_back();
        }
    }

    /// What is done now may take long, or others may ask meanwhile: all threads are needed.
    pub(crate) fn all_back(&self) {
        self.call(&mut self.roles());
    }

    /// Lets this thread do slow work by itself; `None` if fewer than two others would be left.
    pub(crate) fn slow_work(&self) -> Option<SlowWork<'_>> {
        let mut roles = self.roles();
        self.call(&mut roles);
        if roles.slow + 2 >= self.threads {
            return None;
        }
        roles.slow += 1;
        Some(SlowWork(self))
    }

    fn roles(&self) -> MutexGuard<'_, Roles> {
        self.lot.roles()
    }

    fn call(&self, roles: &mut Roles) {
        roles.poller = None;
        if roles.parked > 0 {
            roles.calls += 1;
            self.lot.back.notify_all();
        }
    }

    /// Whether this thread is the poller; if there is none, it is from now on.
    fn is_poller(&self) -> bool {
        let me = std::thread::current().id();
        *self.roles().poller.get_or_insert(me) == me
    }

    /// Waits until all threads are sent back, or the poller is held up.
    fn park(&self) {
        let mut roles = self.roles();
        if roles.poller.is_none() {
            return;
        }
        roles.parked += 1;
        let call = roles.calls;
        let parked = |roles: &mut Roles| roles.calls == call && !roles.over;
        while parked(&mut roles) {
            let turns = self.turns.load(Ordering::Relaxed);
            let waited = self.lot.back.wait_timeout_while(roles, PARK, parked);
            roles = waited.unwrap_or_else(PoisonError::into_inner).0;
            if parked(&mut roles) && self.turns.load(Ordering::Relaxed) == turns {
                self.call(&mut roles);
            }
        }
        roles.parked -= 1;
    }

    fn spin(&self, device: &OwnedFd) {
        let until = Instant::now() + SPIN;
        loop {
            if self.is_asked(device) {
                let misses = self.misses.load(Ordering::Relaxed);
                self.misses.store(misses.saturating_sub(1), Ordering::Relaxed);
                return;
            }
            if Instant::now() >= until {
                return self.miss(true);
            }
            rustix::thread::sched_yield();
        }
    }

    fn miss(&self, idle: bool) {
        let misses = self.misses.load(Ordering::Relaxed) + MISS;
        let enough = misses >= MISSES;
        self.misses.store(if enough { 0 } else { misses }, Ordering::Relaxed);
        if enough {
            self.backoff.store(BACKOFF, Ordering::Relaxed);
        }
        if idle || enough {
            self.all_back();
        }
    }

    /// Whether a request waits, or there will be none any more.
    fn is_asked(&self, device: &OwnedFd) -> bool {
        let mut one = [PollFd::new(device, PollFlags::IN)];
        poll(&mut one, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    fn watched(threads: usize) -> (Arc<BusyPoll>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let polling = Arc::new(BusyPoll::new(threads));
        polling.answered(1); // No device yet: nothing to poll.
        polling.watch(ours.into());
        (polling, theirs)
    }

    fn backoff(polling: &BusyPoll) -> u32 {
        polling.backoff.load(Ordering::Relaxed)
    }

    #[test]
    fn one_polls_and_the_others_are_parked_until_they_are_called() {
        let (polling, _requests) = watched(2);
        assert!(polling.is_poller() && polling.is_poller());
        let other = Arc::clone(&polling);
        let waiting = std::thread::spawn(move || {
            assert!(!other.is_poller());
            other.park();
        });
        while !waiting.is_finished() && polling.roles().parked == 0 {
            polling.turns.fetch_add(1, Ordering::Relaxed);
            std::thread::yield_now();
        }
        polling.all_back();
        waiting.join().unwrap();
        assert_eq!(polling.roles().parked, 0);
        assert_eq!(polling.roles().poller, None);
        polling.park(); // Returns, for there is no poller.
    }

    #[test]
    fn a_poller_that_is_held_up_is_one_no_longer() {
        let (polling, _requests) = watched(2);
        assert!(polling.is_poller());
        let other = Arc::clone(&polling);
        std::thread::spawn(move || other.park()).join().unwrap();
        assert_eq!(polling.roles().poller, None);
    }

    #[test]
    fn the_end_of_a_thread_sends_the_others_back() {
        let (polling, mut requests) = watched(2);
        requests.write_all(b"x").unwrap();
        polling.caller.store(7, Ordering::Relaxed);
        let poller = Arc::clone(&polling);
        std::thread::spawn(move || poller.answered(7)).join().unwrap();
        assert!(polling.roles().poller.is_some());
        let other = Arc::clone(&polling);
        let turning = std::thread::spawn(move || other.park());
        turning.join().unwrap();
        assert!(polling.roles().over && polling.roles().poller.is_some());
    }

    #[test]
    fn two_threads_never_do_slow_work() {
        let (polling, _requests) = watched(4);
        let (one, two) = (polling.slow_work(), polling.slow_work());
        assert!(one.is_some() && two.is_some() && polling.slow_work().is_none());
        drop(one);
        assert!(polling.slow_work().is_some());
        assert!(BusyPoll::new(2).slow_work().is_none());
    }

    #[test]
    fn spins_that_find_nothing_end_in_a_backoff() {
        let (polling, _requests) = watched(1);
        polling.caller.store(7, Ordering::Relaxed);
        for _ in 0..MISSES / MISS {
            assert_eq!(backoff(&polling), 0);
            polling.answered(7);
        }
        assert_eq!(backoff(&polling), BACKOFF);
        for _ in 0..BACKOFF {
            polling.answered(7);
        }
        assert_eq!(backoff(&polling), 0);
    }

    #[test]
    fn one_caller_is_polled_for_and_several_send_all_threads_back() {
        let (polling, mut requests) = watched(2);
        requests.write_all(b"x").unwrap();
        for _ in 0..100 {
            polling.answered(7);
        }
        assert_eq!((backoff(&polling), polling.misses.load(Ordering::Relaxed)), (0, 0));
        for caller in 0..MISSES / MISS {
            assert_eq!(backoff(&polling), 0);
            polling.answered(8 + caller);
        }
        assert_eq!((backoff(&polling), polling.roles().poller), (BACKOFF, None));
    }

    #[test]
    fn callers_that_cannot_be_told_apart_are_several_if_they_ask_early() {
        let (polling, mut requests) = watched(2);
        requests.write_all(b"x").unwrap();
        for _ in 0..MISSES / MISS {
            assert_eq!(backoff(&polling), 0);
            polling.answered(0);
        }
        assert_eq!(backoff(&polling), BACKOFF);
    }

    #[test]
    fn without_a_device_nobody_spins_and_slow_work_is_counted() {
        let polling = BusyPoll::new(3);
        for _ in 0..100 {
            polling.answered(7);
        }
        assert_eq!((polling.turns.load(Ordering::Relaxed), backoff(&polling)), (0, 0));
        assert_eq!(polling.roles().poller, None);
        let slow = polling.slow_work();
        assert!(slow.is_some() && polling.slow_work().is_none());
    }

    #[test]
    fn an_end_of_requests_is_no_wait() {
        let (polling, requests) = watched(1);
        drop(requests);
        assert!(polling.is_asked(polling.device.get().unwrap()));
    }
}
