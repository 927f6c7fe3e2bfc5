//! How fast one host is asked: a number of requests a second at most, none while it wants a pause.
//!
//! All threads of a run share it. Each takes the next free moment and sleeps until then, so
//! requests are spread evenly and come in no bursts.
//!
//! Invariants: two requests to one host are no closer than `every`; a pause that a host asks for
//! holds for all threads, for those that have a moment already not.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The moments at which hosts may be asked.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// The least time between two requests to one host.
    every: Duration,
    /// When a host may be asked next, by name and port.
    next: Mutex<HashMap<String, Instant>>,
}

impl Pace {
    /// At most `a_second` requests a second to one host; without it as many as come.
    pub(crate) fn new(a_second: Option<NonZeroU32>) -> Self {
        let every = a_second.map_or(Duration::ZERO, |n| Duration::from_secs(1) / n.get());
        Self { every, next: Mutex::default() }
    }

    /// Waits until this host may be asked.
    pub(crate) fn wait(&self, host: &str) {
        std::thread::sleep(self.take(host, Instant::now()));
    }

    /// Takes the next free moment; gives how long that is from now.
    fn take(&self, host: &str, now: Instant) -> Duration {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        match next.get_mut(host) {
            Some(free) => {
                let at = (*free).max(now);
                *free = at + self.every;
                at - now
            }
            None if self.every.is_zero() => Duration::ZERO,
            None => {
                next.insert(host.to_owned(), now + self.every);
                Duration::ZERO
            }
        }
    }

    /// Nobody asks this host for that long.
    pub(crate) fn pause(&self, host: &str, pause: Duration) {
        let until = Instant::now() + pause;
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let free = next.entry(host.to_owned()).or_insert(until);
        *free = (*free).max(until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_to_one_host_are_spread() {
        let pace = Pace::new(NonZeroU32::new(10));
        let now = Instant::now();
        let waits: Vec<u128> = (0..4).map(|_| pace.take("a", now).as_millis()).collect();
        assert_eq!(waits, [0, 100, 200, 300]);
        assert_eq!(pace.take("b", now), Duration::ZERO);
        assert_eq!(pace.take("a", now + Duration::from_secs(9)), Duration::ZERO);
    }

    #[test]
    fn a_pause_holds_for_everyone() {
        let pace = Pace::new(None);
        assert_eq!(pace.take("a", Instant::now()), Duration::ZERO);
        pace.pause("a", Duration::from_secs(60));
        pace.pause("a", Duration::from_secs(1));
        for _ in 0..2 {
            assert!(pace.take("a", Instant::now()) > Duration::from_secs(50));
        }
        assert_eq!(pace.take("b", Instant::now()), Duration::ZERO);
    }
}
