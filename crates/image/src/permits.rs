//! A counting semaphore: how many may do something at once.
//!
//! Invariant: there are never more [`Permit`]s than the [`Permits`] were made for.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Rights to do it.
#[derive(Debug)]
pub(crate) struct Permits {
    free: Mutex<usize>,
    back: Condvar,
}

/// One right; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit<'a>(&'a Permits);

impl Permits {
    /// `many` of them.
    pub(crate) fn new(many: usize) -> Self {
        Self { free: Mutex::new(many), back: Condvar::new() }
    }

    /// Waits for one.
    pub(crate) fn take(&self) -> Permit<'_> {
        let free = self.back.wait_while(self.free(), |free| *free == 0);
        *free.unwrap_or_else(PoisonError::into_inner) -= 1;
        Permit(self)
    }

    /// One, if there is one by then.
    pub(crate) fn take_within(&self, limit: Duration) -> Option<Permit<'_>> {
        let free = self.back.wait_timeout_while(self.free(), limit, |free| *free == 0);
        let (mut free, _) = free.unwrap_or_else(PoisonError::into_inner);
        *free = free.checked_sub(1)?;
        Some(Permit(self))
    }

    /// One, if there is one now.
    pub(crate) fn try_take(&self) -> Option<Permit<'_>> {
        let mut free = self.free();
        *free = free.checked_sub(1)?;
        Some(Permit(self))
    }

    fn free(&self) -> MutexGuard<'_, usize> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.free() += 1;
        self.0.back.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn never_more_at_once_and_all_in_the_end() {
        let (permits, now, most, done) =
            (Permits::new(2), AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let _permit = permits.take();
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        now.fetch_sub(1, Ordering::SeqCst);
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(most.into_inner() <= 2);
        assert_eq!(done.into_inner(), 800);
        assert_eq!(*permits.free(), 2);
    }
}
