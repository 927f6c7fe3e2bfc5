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
//!   ... the others step aside               one by one, for the kernel would wake them in vain
//!   ... the last one stays awake            request by request, until none comes in time
//! all threads wait in the kernel
//! ```
//!
//! Invariants: nothing but speed depends on this; at least one thread is never aside; nobody is
//! aside for longer than [`ASIDE`]; requests that come before the last is answered (callers in
//! parallel, reading ahead) send everybody back.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long the next request is waited for. A wake-up costs about half as much.
const STAY: Duration = Duration::from_micros(50);
/// After so long a thread looks for itself whether it is needed.
const ASIDE: Duration = Duration::from_millis(20);
/// So often in vain, or out of turn, and nobody stays for the next [`REST`] requests.
const VAIN: u32 = 4;
const REST: u32 = 64;

/// So many bytes are copied in less time than a wake-up takes.
const LIGHT: u32 = 128 << 10;

/// The threads of one mount.
#[derive(Debug)]
pub(crate) struct Awake {
    device: OnceLock<OwnedFd>,
    threads: usize,
    aside: Mutex<Aside>,
    back: Condvar,
    /// How often somebody stayed in vain, or was asked out of turn, less how often not.
    vain: AtomicU32,
    /// Requests for which nobody stays.
    rest: AtomicU32,
}

#[derive(Debug, Default)]
struct Aside {
    threads: usize,
    /// How often all were sent back.
    calls: u64,
}

impl Awake {
    /// For so many threads.
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            device: OnceLock::new(),
            threads,
            aside: Mutex::default(),
            back: Condvar::new(),
            vain: AtomicU32::new(0),
            rest: AtomicU32::new(0),
        }
    }

    /// Requests come from there.
    pub(crate) fn watch(&self, device: OwnedFd) {
        let _ = self.device.set(device);
    }

    /// A request was answered on this thread, quickly.
    pub(crate) fn answered(&self) {
        let Some(device) = self.device.get() else { return };
        let rest = self.rest.load(Ordering::Relaxed);
        if rest > 0 {
            self.rest.store(rest - 1, Ordering::Relaxed);
            return;
        }
        if self.is_asked(device) {
            // Before the caller can have had the answer: somebody else.
            self.in_vain(true);
        } else if !self.step_aside() {
            self.stay(device);
        }
    }

    /// So many bytes are about to be read or written: many take time, and may be read ahead.
    pub(crate) fn asked_for(&self, bytes: u32) {
        if bytes > LIGHT {
            self.all_back();
        }
    }

    /// What is done now may take long, or others may ask meanwhile: everybody is needed.
    pub(crate) fn all_back(&self) {
        let mut aside = self.aside.lock().unwrap_or_else(PoisonError::into_inner);
        if aside.threads > 0 {
            aside.calls += 1;
            self.back.notify_all();
        }
    }

    /// Waits until everybody is called back. `false`: this thread is the last that is not aside.
    fn step_aside(&self) -> bool {
        let mut aside = self.aside.lock().unwrap_or_else(PoisonError::into_inner);
        if aside.threads + 1 >= self.threads {
            return false;
        }
        aside.threads += 1;
        let call = aside.calls;
        let waited = self.back.wait_timeout_while(aside, ASIDE, |aside| aside.calls == call);
        waited.unwrap_or_else(PoisonError::into_inner).0.threads -= 1;
        true
    }

    fn stay(&self, device: &OwnedFd) {
        let until = Instant::now() + STAY;
        while Instant::now() < until {
            if self.is_asked(device) {
                let vain = self.vain.load(Ordering::Relaxed);
                self.vain.store(vain.saturating_sub(1), Ordering::Relaxed);
                return;
            }
            rustix::thread::sched_yield();
        }
        self.in_vain(false);
    }

    fn in_vain(&self, crowded: bool) {
        let vain = self.vain.load(Ordering::Relaxed) + 1;
        self.vain.store(vain % VAIN, Ordering::Relaxed);
        if vain >= VAIN {
            self.rest.store(REST, Ordering::Relaxed);
        }
        if !crowded || vain >= VAIN {
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

    fn watched(threads: usize) -> (Awake, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let awake = Awake::new(threads);
        awake.answered(); // No device yet: nothing to stay for.
        awake.watch(ours.into());
        (awake, theirs)
    }

    fn aside(awake: &Awake) -> usize {
        awake.aside.lock().unwrap().threads
    }

    #[test]
    fn the_last_thread_is_never_aside() {
        let (awake, _requests) = watched(2);
        let awake = Arc::new(awake);
        let other = Arc::clone(&awake);
        let waiting = std::thread::spawn(move || other.step_aside());
        while aside(&awake) == 0 && !waiting.is_finished() {
            std::thread::yield_now();
        }
        if aside(&awake) == 1 {
            assert!(!awake.step_aside());
        }
        awake.all_back();
        assert!(waiting.join().unwrap());
        assert_eq!(aside(&awake), 0);
    }

    #[test]
    fn whoever_stays_in_vain_rests() {
        let (awake, _requests) = watched(1);
        for _ in 0..VAIN {
            assert_eq!(awake.rest.load(Ordering::Relaxed), 0);
            awake.answered();
        }
        assert_eq!(awake.rest.load(Ordering::Relaxed), REST);
        for _ in 0..REST {
            awake.answered();
        }
        assert_eq!(awake.rest.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn requests_out_of_turn_send_everybody_back() {
        let (awake, mut requests) = watched(2);
        requests.write_all(b"x").unwrap();
        for _ in 0..VAIN {
            awake.answered();
        }
        assert_eq!((awake.rest.load(Ordering::Relaxed), aside(&awake)), (REST, 0));
    }

    #[test]
    fn an_end_of_requests_is_no_wait() {
        let (awake, requests) = watched(1);
        drop(requests);
        assert!(awake.is_asked(awake.device.get().unwrap()));
    }
}
