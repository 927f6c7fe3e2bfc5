//! Reading the directories of stored layers before they are needed.
//!
//! Linking to a stored file asks the index where it is, and looks it up by its path. If nothing of
//! that is cached, that is one wait for the disk after the other, on the thread that reads the tar.
//! Once contents here and there in a layer were found again, another thread has the index read as
//! far as it is small, and goes through all directories of the layer.
//!
//! Invariants: nothing relies on it, so a layer that is removed meanwhile, or any other error,
//! ends it without a word; at most one thread, which ends with its [`ReadAhead`].

use std::collections::HashMap;
use std::ffi::OsStr;
use std::num::NonZero;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use rustix::fs::{Advice, Dir, FileType, OFlags, fadvise};
use strata_tree::DiffId;

use crate::stage::open_beneath;
use crate::store::layer_path;

/// So many times must a content of a layer have been found in another directory than the content
/// before it, until that layer is read ahead: every layer holds the empty file, or a licence.
const MOVES: u32 = 8;

/// Bytes of the index that are read ahead.
const INDEX: NonZero<u64> = NonZero::new(16 << 20).unwrap();

/// The thread, once there is something to do.
pub(crate) struct ReadAhead {
    found: HashMap<DiffId, u32>,
    over: Arc<AtomicBool>,
    running: Option<(Sender<PathBuf>, JoinHandle<u64>)>,
}

impl ReadAhead {
    pub(crate) fn new() -> Self {
        Self { found: HashMap::new(), over: Arc::default(), running: None }
    }

    /// Takes note that a content was found in another directory of that layer than the one before.
    pub(crate) fn found_in(&mut self, store: &OwnedFd, layer: DiffId) {
        let found = self.found.entry(layer).or_default();
        *found += 1;
        if *found != MOVES {
            return;
        }
        if self.running.is_none() {
            self.running = start(store, &self.over);
        }
        if let Some((layers, _)) = &self.running {
            // A thread that has ended has nothing to read.
            let _ = layers.send(layer_path(&layer).join("diff"));
        }
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some((layers, thread)) = self.running.take() {
            drop(layers);
            if let Ok(directories) = thread.join() {
                tracing::debug!("read {directories} directories ahead");
            }
        }
    }
}

fn start(store: &OwnedFd, over: &Arc<AtomicBool>) -> Option<(Sender<PathBuf>, JoinHandle<u64>)> {
    let (send, layers) = channel();
    let (store, over) = (store.try_clone().ok()?, Arc::clone(over));
    let thread = std::thread::Builder::new().name("strata-ahead".into());
    let thread = thread.spawn(move || read(store.as_fd(), &layers, &over)).ok()?;
    Some((send, thread))
}

/// Gives the number of directories that it read.
fn read(store: BorrowedFd<'_>, layers: &Receiver<PathBuf>, over: &AtomicBool) -> u64 {
    // What cannot be read is left to whoever needs it, here and below.
    let _ = open_beneath(store, Path::new("index.db"), OFlags::RDONLY)
        .and_then(|index| fadvise(index, 0, Some(INDEX), Advice::WillNeed));
    let mut done = 0;
    for layer in layers {
        let mut left = vec![layer];
        while let Some(dir) = left.pop() {
            if over.load(Ordering::Relaxed) {
                return done;
            }
            done += u64::from(subdirectories(store, &dir, &mut left).is_ok());
        }
    }
    done
}

/// Reads one directory and appends those in it, the first by name last: so go most tars.
fn subdirectories(
    store: BorrowedFd<'_>,
    path: &Path,
    left: &mut Vec<PathBuf>,
) -> rustix::io::Result<()> {
    let dir = open_beneath(store, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let before = left.len();
    for entry in Dir::new(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if entry.file_type() == FileType::Directory && name != b"." && name != b".." {
            left.push(path.join(OsStr::from_bytes(name)));
        }
    }
    left[before..].sort_unstable_by(|one, other| other.cmp(one));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const LAYER: [u8; 32] = [7; 32];

    #[test]
    fn directories_come_in_the_order_of_their_names() {
        let store = tempfile::tempdir().unwrap();
        for dir in ["d/b/x", "d/a", "d/c"] {
            fs::create_dir_all(store.path().join(dir)).unwrap();
        }
        fs::write(store.path().join("d/file"), "").unwrap();
        let root: OwnedFd = fs::File::open(store.path()).unwrap().into();
        let mut left = vec![PathBuf::from("after")];
        subdirectories(root.as_fd(), Path::new("d"), &mut left).unwrap();
        assert_eq!(left, ["after", "d/c", "d/b", "d/a"].map(PathBuf::from));
    }

    #[test]
    fn a_layer_is_read_once_enough_of_it_was_found() {
        let store = tempfile::tempdir().unwrap();
        let layer = DiffId::from_bytes(LAYER);
        fs::create_dir_all(store.path().join(layer_path(&layer)).join("diff/a/b")).unwrap();
        let root: OwnedFd = fs::File::open(store.path()).unwrap().into();
        let mut ahead = ReadAhead::new();
        for _ in 1..MOVES {
            ahead.found_in(&root, layer);
        }
        assert!(ahead.running.is_none());
        ahead.found_in(&root, layer);
        let (layers, thread) = ahead.running.take().unwrap();
        drop(layers);
        assert_eq!(thread.join().unwrap(), 3, "diff, a, b");
    }
}
