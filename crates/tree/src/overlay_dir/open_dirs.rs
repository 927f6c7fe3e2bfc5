//! Directories that stay open for a while, because nearly every call is about a name in one.
//!
//! Invariants: all lowers that share numbers share one bound, however many they are; a directory's
//! number is that of its inode, so no other is ever found under it.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use crate::node::NodeId;

/// How many stay open.
pub(super) const MOST: usize = 64;

/// By number.
#[derive(Debug, Default)]
pub(super) struct OpenDirs(Mutex<HashMap<NodeId, Arc<OwnedFd>>>);

impl OpenDirs {
    /// The descriptor of `dir`, from `open` if it is not open yet.
    pub(super) fn get<E>(
        &self,
        dir: NodeId,
        open: impl FnOnce() -> Result<OwnedFd, E>,
    ) -> Result<Arc<OwnedFd>, E> {
        let known = |dirs: &HashMap<_, Arc<_>>| dirs.get(&dir).map(Arc::clone);
        if let Some(fd) = known(&self.0.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(fd);
        }
        let fd = Arc::new(open()?);
        let mut dirs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if dirs.len() >= MOST {
            dirs.clear();
        }
        dirs.insert(dir, Arc::clone(&fd));
        Ok(fd)
    }

    /// Closes all.
    #[cfg(test)]
    pub(super) fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_stay_open_and_each_is_opened_once() {
        let (dirs, mut opened) = (OpenDirs::default(), 0);
        for number in 0..3 * MOST as u64 {
            for _ in 0..2 {
                let open = || {
                    opened += 1;
                    std::fs::File::open("/").map(OwnedFd::from)
                };
                dirs.get(NodeId(number), open).unwrap();
            }
            assert!(dirs.0.lock().unwrap().len() <= MOST);
        }
        assert_eq!(opened, 3 * MOST);
    }

    #[test]
    fn what_cannot_be_opened_is_asked_for_again() {
        let dirs = OpenDirs::default();
        assert_eq!(dirs.get(NodeId(2), || Err(1)).unwrap_err(), 1);
        assert!(dirs.get(NodeId(2), || std::fs::File::open("/").map(OwnedFd::from)).is_ok());
    }
}
