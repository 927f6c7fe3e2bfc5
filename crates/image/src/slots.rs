//! How many may do something at once.
//!
//! Invariant: never are there more [`Slot`]s than the [`Slots`] were made for.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Rights to do it.
#[derive(Debug)]
pub(crate) struct Slots {
    free: Mutex<usize>,
    back: Condvar,
}

/// One right; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot<'a>(&'a Slots);

impl Slots {
    /// For so many at once.
    pub(crate) fn new(many: usize) -> Self {
        Self { free: Mutex::new(many), back: Condvar::new() }
    }

    /// Waits for one.
    pub(crate) fn take(&self) -> Slot<'_> {
        let free = self.back.wait_while(self.free(), |free| *free == 0);
        *free.unwrap_or_else(PoisonError::into_inner) -= 1;
        Slot(self)
    }

    fn free(&self) -> MutexGuard<'_, usize> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot<'_> {
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
        let (slots, now, most, done) =
            (Slots::new(2), AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let _slot = slots.take();
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
        assert_eq!(*slots.free(), 2);
    }
}
