//! [`Keys`]: calls about one thing wait for each other.
//!
//! Invariant: a key is free as soon as its [`KeyLock`] is gone, whatever became of the call.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, PoisonError};

/// What calls are about just now.
#[derive(Default)]
pub(crate) struct Keys {
    busy: Mutex<HashSet<String>>,
    freed: Condvar,
}

/// The right to work on one thing.
pub(crate) struct KeyLock<'k> {
    keys: &'k Keys,
    key: String,
}

impl Keys {
    /// Waits until no other call is about `key`.
    pub(crate) fn lock(&self, key: &str) -> KeyLock<'_> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        while !busy.insert(key.to_owned()) {
            busy = self.freed.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
        KeyLock { keys: self, key: key.to_owned() }
    }

    /// The same, unless another call is about `key` just now.
    pub(crate) fn try_lock(&self, key: &str) -> Option<KeyLock<'_>> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.insert(key.to_owned()).then(|| KeyLock { keys: self, key: key.to_owned() })
    }
}

impl Drop for KeyLock<'_> {
    fn drop(&mut self) {
        self.keys.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        self.keys.freed.notify_all();
    }
}
