//! Reading the directories of stored layers before they are needed.
//!
//! Linking to a stored file asks the index where it is, and looks it up by its path. If nothing of
//! that is cached, that is one wait for the disk after the other, on the thread that reads the tar.
//! Once contents here and there in a layer were found again, the index is read as far as it is
//! small, and other threads go through all directories of the layer.
//!
//! Invariants: nothing relies on it, so a layer that is removed meanwhile, or any other error, is
//! passed over without a word; the threads end with their [`ReadAhead`].

use std::collections::HashMap;
use std::ffi::OsStr;
use std::num::NonZero;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::fs::{Advice, Dir, FileType, OFlags, fadvise};
use strata_tree::DiffId;

use crate::layout::layer_path;
use crate::stage::open_beneath;

/// A layer is read ahead once this many of its contents were found in another directory than the
/// content before: every layer holds the empty file, or a licence.
const MOVES: u32 = 8;

/// Bytes of the index that are read ahead.
const INDEX: NonZero<u64> = NonZero::new(16 << 20).unwrap();

/// Directories that are read at a time: each is one wait for the disk, which serves several.
const READERS: usize = 4;

/// The threads, once there is something to do.
pub(crate) struct ReadAhead {
    found: HashMap<DiffId, u32>,
    left: Arc<Left>,
    readers: Vec<JoinHandle<()>>,
}

/// The directories that are left to read, the next one last.
#[derive(Default)]
struct Left {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    paths: Vec<PathBuf>,
    /// Directories that were read.
    done: u64,
    over: bool,
}

impl Left {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next one, once there is one; `None` in the end.
    fn next(&self) -> Option<PathBuf> {
        let waiting = |state: &mut State| state.paths.is_empty() && !state.over;
        let state = self.changed.wait_while(self.state(), waiting);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        if state.over { None } else { state.paths.pop() }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }
}

impl ReadAhead {
    pub(crate) fn new() -> Self {
        Self { found: HashMap::new(), left: Arc::default(), readers: Vec::new() }
    }

    /// Takes note that a content was found in another directory of that layer than the one before.
    pub(crate) fn found_in(&mut self, store: BorrowedFd<'_>, layer: DiffId) {
        let found = self.found.entry(layer).or_default();
        *found += 1;
        if *found != MOVES {
            return;
        }
        self.left.change(|left| left.paths.push(layer_path(&layer).join("diff")));
        if self.readers.is_empty() {
            // One of them has the index read first: not this thread, which others wait for.
            let readers = (0..READERS).filter_map(|number| start(store, &self.left, number == 0));
            self.readers.extend(readers);
        }
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.left.change(|left| left.over = true);
        for reader in self.readers.drain(..) {
            // One that panicked has nothing to tell.
            let _ = reader.join();
        }
        tracing::debug!("read {} directories ahead", self.left.state().done);
    }
}

fn start(store: BorrowedFd<'_>, left: &Arc<Left>, index: bool) -> Option<JoinHandle<()>> {
    let (store, left) = (store.try_clone_to_owned().ok()?, Arc::clone(left));
    let thread = std::thread::Builder::new().name("strata-ahead".into());
    let work = move || {
        if index {
            read_index(store.as_fd());
        }
        read(store.as_fd(), &left);
    };
    thread.spawn(work).ok()
}

/// Has the kernel begin to read the index.
fn read_index(store: BorrowedFd<'_>) {
    // What cannot be read is left to whoever needs it, here and below.
    let _ = open_beneath(store, Path::new("index.db"), OFlags::RDONLY)
        .and_then(|index| fadvise(index, 0, Some(INDEX), Advice::WillNeed));
}

fn read(store: BorrowedFd<'_>, left: &Left) {
    while let Some(dir) = left.next() {
        if let Ok(inner) = subdirectories(store, &dir) {
            let mut state = left.state();
            state.done += 1;
            // Most directories have none, and nobody is woken for them.
            if !inner.is_empty() {
                state.paths.extend(inner);
                left.changed.notify_all();
            }
        }
    }
}

/// Reads one directory and gives those in it, the first by name last: so go most tars.
fn subdirectories(store: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<Vec<PathBuf>> {
    let dir = open_beneath(store, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut inner = Vec::new();
    for entry in Dir::new(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if entry.file_type() == FileType::Directory && name != b"." && name != b".." {
            inner.push(path.join(OsStr::from_bytes(name)));
        }
    }
    inner.sort_unstable_by(|one, other| other.cmp(one));
    Ok(inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::fd::OwnedFd;

    const LAYER: [u8; 32] = [7; 32];

    #[test]
    fn directories_come_in_the_order_of_their_names() {
        let store = tempfile::tempdir().unwrap();
        for dir in ["d/b/x", "d/a", "d/c"] {
            fs::create_dir_all(store.path().join(dir)).unwrap();
        }
        fs::write(store.path().join("d/file"), "").unwrap();
        let root: OwnedFd = fs::File::open(store.path()).unwrap().into();
        let inner = subdirectories(root.as_fd(), Path::new("d")).unwrap();
        assert_eq!(inner, ["d/c", "d/b", "d/a"].map(PathBuf::from));
    }

    #[test]
    fn a_layer_is_read_once_enough_of_it_was_found() {
        let store = tempfile::tempdir().unwrap();
        let layer = DiffId::from_bytes(LAYER);
        fs::create_dir_all(store.path().join(layer_path(&layer)).join("diff/a/b")).unwrap();
        let root: OwnedFd = fs::File::open(store.path()).unwrap().into();
        let mut ahead = ReadAhead::new();
        for _ in 1..MOVES {
            ahead.found_in(root.as_fd(), layer);
        }
        assert!(ahead.readers.is_empty());
        ahead.found_in(root.as_fd(), layer);
        assert_eq!(ahead.readers.len(), READERS);
        // `diff`, `a`, `b`, each by one of them.
        while ahead.left.state().done < 3 {
            std::thread::yield_now();
        }
        let left = Arc::clone(&ahead.left);
        drop(ahead);
        assert_eq!(left.state().done, 3);
    }
}
