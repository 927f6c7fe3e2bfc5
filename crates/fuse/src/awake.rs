//! Staying awake between the requests of a caller that asks one after another.
//!
//! A request is a hand-over: the caller sleeps until it is answered, then thinks for a few
//! microseconds and asks again. Going to sleep in between, and being woken by way of an idle
//! processor, costs several times what the request does, most of all on virtual machines. So the
//! thread that has answered looks for the next request for a moment ([`STAY`]), giving way to
//! whoever wants its processor.
//!
//! ```text
//! all threads wait in the kernel          a request wakes one of them, which answers and ...
//!   ... becomes the keeper                 it looks for the next request, again and again
//!   ... steps aside, if there is one       the kernel would wake it for nothing
//! all threads wait in the kernel          no request came in time, or several callers ask
//! ```
//!
//! On two processors a keeper and its caller are brought [together](crate::together); it does not
//! look for the next request then, it waits for it in the kernel.
//!
//! Invariants: nothing but speed depends on this; threads are aside only while a keeper answers: if
//! it has not for [`ASIDE`], they go back; so they do when requests of several callers come mixed,
//! and when a thread ends, for then the mount has ended.

use std::cell::OnceCell;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::together::Together;

/// How long the next request is waited for. A wake-up costs about half as much.
const STAY: Duration = Duration::from_micros(50);
/// So long a keeper may be held up by one request before the others go back.
const ASIDE: Duration = Duration::from_millis(2);
/// What a stay without a request, or a request of another caller than the last, counts; one of the
/// same caller in time takes one off. With [`VAIN`] nobody stays for the next [`REST`] requests.
const AMISS: u32 = 2;
const VAIN: u32 = 8;
const REST: u32 = 64;

/// So many bytes are copied in less time than a wake-up takes.
const LIGHT: u32 = 128 << 10;

/// The threads of one mount.
#[derive(Debug)]
pub(crate) struct Awake {
    device: OnceLock<OwnedFd>,
    threads: usize,
    floor: Arc<Floor>,
    /// Requests that were answered while nobody rested.
    turns: AtomicU32,
    /// The thread that asked last, as the kernel calls it; 0: none that we can see.
    caller: AtomicU32,
    vain: AtomicU32,
    /// Requests for which nobody stays.
    rest: AtomicU32,
    together: Option<Together>,
}

/// Where threads are aside.
#[derive(Debug, Default)]
struct Floor {
    roles: Mutex<Roles>,
    back: Condvar,
}

impl Floor {
    fn roles(&self) -> MutexGuard<'_, Roles> {
        self.roles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends with the thread that it is of.
struct Leaving(Arc<Floor>);

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
    keeper: Option<ThreadId>,
    /// How many threads are aside.
    aside: usize,
    /// How many do what takes long.
    held: usize,
    /// How often all were sent back.
    calls: u64,
}

/// A thread does what takes long, as long as this lives.
pub(crate) struct Held<'a>(&'a Awake);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.roles().held -= 1;
    }
}

impl Awake {
    /// For so many threads.
    pub(crate) fn new(threads: usize) -> Self {
        Self::with(threads, Together::here())
    }

    fn with(threads: usize, together: Option<Together>) -> Self {
        Self {
            device: OnceLock::new(),
            threads,
            floor: Arc::default(),
            turns: AtomicU32::new(0),
            caller: AtomicU32::new(0),
            vain: AtomicU32::new(0),
            rest: AtomicU32::new(0),
            together,
        }
    }

    /// Requests come from there.
    pub(crate) fn watch(&self, device: OwnedFd) {
        let _ = self.device.set(device);
    }

    /// A request of the thread `caller` was answered on this thread, quickly.
    pub(crate) fn answered(&self, caller: u32) {
        let Some(device) = self.device.get() else { return };
        LEAVING.with(|leaving| {
            leaving.get_or_init(|| Leaving(Arc::clone(&self.floor)));
        });
        let same = self.caller.swap(caller, Ordering::Relaxed) == caller;
        let together = self.together.as_ref().is_some_and(|two| two.answered(caller, same));
        let rest = self.rest.load(Ordering::Relaxed);
        if rest > 0 && !together {
            self.rest.store(rest - 1, Ordering::Relaxed);
            return;
        }
        self.turns.fetch_add(1, Ordering::Relaxed);
        // One caller has one request at a time, but callers of another name space look the same:
        // then, whether the next request came before the caller can have had its answer.
        let out_of_turn = if caller == 0 { self.is_asked(device) } else { !same };
        if out_of_turn {
            self.amiss(false);
        } else if self.keeps() {
            if !together {
                self.stay(device);
            }
        } else {
            self.step_aside();
        }
    }

    /// A request was answered that nobody waits for: the last caller may have asked on already.
    pub(crate) fn answered_nobody(&self) {
        self.answered(self.caller.load(Ordering::Relaxed));
    }

    /// So many bytes are about to be read or written: many take time, and may be read ahead.
    pub(crate) fn asked_for(&self, bytes: u32) {
        if bytes > LIGHT {
            self.all_back();
        }
    }

    /// What is done now may take long, or others may ask meanwhile: everybody is needed.
    pub(crate) fn all_back(&self) {
        self.call(&mut self.roles());
    }

    /// This thread may do what takes long by itself, for two others at least are there.
    pub(crate) fn hold(&self) -> Option<Held<'_>> {
        let mut roles = self.roles();
        self.call(&mut roles);
        if roles.held + 2 >= self.threads {
            return None;
        }
        roles.held += 1;
        Some(Held(self))
    }

    fn roles(&self) -> MutexGuard<'_, Roles> {
        self.floor.roles()
    }

    fn call(&self, roles: &mut Roles) {
        roles.keeper = None;
        if roles.aside > 0 {
            roles.calls += 1;
            self.floor.back.notify_all();
        }
    }

    /// Whether this thread is the keeper; if there is none, it is from now on.
    fn keeps(&self) -> bool {
        let me = std::thread::current().id();
        *self.roles().keeper.get_or_insert(me) == me
    }

    /// Waits until everybody is sent back, or the keeper is held up.
    fn step_aside(&self) {
        let mut roles = self.roles();
        if roles.keeper.is_none() {
            return;
        }
        roles.aside += 1;
        let call = roles.calls;
        let aside = |roles: &mut Roles| roles.calls == call && !roles.over;
        while aside(&mut roles) {
            let turns = self.turns.load(Ordering::Relaxed);
            let waited = self.floor.back.wait_timeout_while(roles, ASIDE, aside);
            roles = waited.unwrap_or_else(PoisonError::into_inner).0;
            if aside(&mut roles) && self.turns.load(Ordering::Relaxed) == turns {
                self.call(&mut roles);
            }
        }
        roles.aside -= 1;
    }

    fn stay(&self, device: &OwnedFd) {
        let until = Instant::now() + STAY;
        loop {
            if self.is_asked(device) {
                let vain = self.vain.load(Ordering::Relaxed);
                self.vain.store(vain.saturating_sub(1), Ordering::Relaxed);
                return;
            }
            if Instant::now() >= until {
                return self.amiss(true);
            }
            rustix::thread::sched_yield();
        }
    }

    fn amiss(&self, idle: bool) {
        let vain = self.vain.load(Ordering::Relaxed) + AMISS;
        let tired = vain >= VAIN;
        self.vain.store(if tired { 0 } else { vain }, Ordering::Relaxed);
        if tired {
            self.rest.store(REST, Ordering::Relaxed);
        }
        if idle || tired {
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

    fn watched(threads: usize) -> (Arc<Awake>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let awake = Arc::new(Awake::with(threads, None));
        awake.answered(1); // No device yet: nothing to stay for.
        awake.watch(ours.into());
        (awake, theirs)
    }

    fn rest(awake: &Awake) -> u32 {
        awake.rest.load(Ordering::Relaxed)
    }

    #[test]
    fn one_keeps_and_the_others_are_aside_until_they_are_called() {
        let (awake, _requests) = watched(2);
        assert!(awake.keeps() && awake.keeps());
        let other = Arc::clone(&awake);
        let waiting = std::thread::spawn(move || {
            assert!(!other.keeps());
            other.step_aside();
        });
        while !waiting.is_finished() && awake.roles().aside == 0 {
            awake.turns.fetch_add(1, Ordering::Relaxed);
            std::thread::yield_now();
        }
        awake.all_back();
        waiting.join().unwrap();
        assert_eq!(awake.roles().aside, 0);
        assert_eq!(awake.roles().keeper, None);
        awake.step_aside(); // Returns, for there is no keeper.
    }

    #[test]
    fn a_keeper_that_is_held_up_is_one_no_longer() {
        let (awake, _requests) = watched(2);
        assert!(awake.keeps());
        let other = Arc::clone(&awake);
        std::thread::spawn(move || other.step_aside()).join().unwrap();
        assert_eq!(awake.roles().keeper, None);
    }

    #[test]
    fn the_end_of_a_thread_sends_the_others_back() {
        let (awake, mut requests) = watched(2);
        requests.write_all(b"x").unwrap();
        awake.caller.store(7, Ordering::Relaxed);
        let keeper = Arc::clone(&awake);
        std::thread::spawn(move || keeper.answered(7)).join().unwrap();
        assert!(awake.roles().keeper.is_some());
        let other = Arc::clone(&awake);
        let turning = std::thread::spawn(move || other.step_aside());
        turning.join().unwrap();
        assert!(awake.roles().over && awake.roles().keeper.is_some());
    }

    #[test]
    fn two_threads_are_never_held() {
        let (awake, _requests) = watched(4);
        let (one, two) = (awake.hold(), awake.hold());
        assert!(one.is_some() && two.is_some() && awake.hold().is_none());
        drop(one);
        assert!(awake.hold().is_some());
        assert!(Awake::with(2, None).hold().is_none());
    }

    #[test]
    fn whoever_stays_in_vain_rests() {
        let (awake, _requests) = watched(1);
        awake.caller.store(7, Ordering::Relaxed);
        for _ in 0..VAIN / AMISS {
            assert_eq!(rest(&awake), 0);
            awake.answered(7);
        }
        assert_eq!(rest(&awake), REST);
        for _ in 0..REST {
            awake.answered(7);
        }
        assert_eq!(rest(&awake), 0);
    }

    #[test]
    fn one_caller_is_stayed_for_and_several_send_everybody_back() {
        let (awake, mut requests) = watched(2);
        requests.write_all(b"x").unwrap();
        for _ in 0..100 {
            awake.answered(7);
        }
        assert_eq!((rest(&awake), awake.vain.load(Ordering::Relaxed)), (0, 0));
        for caller in 0..VAIN / AMISS {
            assert_eq!(rest(&awake), 0);
            awake.answered(8 + caller);
        }
        assert_eq!((rest(&awake), awake.roles().keeper), (REST, None));
    }

    #[test]
    fn callers_that_cannot_be_told_apart_are_several_if_they_ask_early() {
        let (awake, mut requests) = watched(2);
        requests.write_all(b"x").unwrap();
        for _ in 0..VAIN / AMISS {
            assert_eq!(rest(&awake), 0);
            awake.answered(0);
        }
        assert_eq!(rest(&awake), REST);
    }

    #[test]
    fn an_end_of_requests_is_no_wait() {
        let (awake, requests) = watched(1);
        drop(requests);
        assert!(awake.is_asked(awake.device.get().unwrap()));
    }
}
