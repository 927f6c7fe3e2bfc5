//! The numbers by which the kernel names what it has open.
//!
//! Invariants: a number is given out once; the lock is held for one step in the table.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

/// What is open, by handle.
pub(super) struct Handles<T> {
    last: AtomicU64,
    open: RwLock<HashMap<u64, T>>,
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self { last: AtomicU64::new(0), open: RwLock::default() }
    }
}

impl<T: Clone> Handles<T> {
    /// A handle for it.
    pub(super) fn insert(&self, what: T) -> u64 {
        let handle = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.open.write().unwrap_or_else(PoisonError::into_inner).insert(handle, what);
        handle
    }

    pub(super) fn get(&self, handle: u64) -> Option<T> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).get(&handle).cloned()
    }

    /// Forgets the handle.
    pub(super) fn remove(&self, handle: u64) -> Option<T> {
        self.open.write().unwrap_or_else(PoisonError::into_inner).remove(&handle)
    }
}
