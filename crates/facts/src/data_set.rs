//! [`DataSet`]: the directory of a data set, which appears in one step.
//!
//! ```text
//! DIR/.partial-PID-N/TABLE.parquet     written here, under a lock
//!  │ rename, or exchange with an older one
//!  ▼
//! DIR/store=NAME/day=DAY/TABLE.parquet
//! ```
//!
//! A reader looks for `*/*/TABLE.parquet`, so it never finds a partial one. A lock tells a
//! partial one that is being written from one that a crash left: the next writer removes those.
//!
//! Invariants: what is at the data set's path is whole and durable; a file system that cannot
//! exchange two directories (NFS) has a moment without the older one, and none with half of one.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use strata_tree::rename_new;

use crate::error::{Result, WhileDoing};
use crate::place::Place;

const PARTIAL: &str = ".partial-";

/// How many data sets this process has begun.
static BEGUN: AtomicU64 = AtomicU64::new(0);

/// A data set that is being written.
pub(crate) struct DataSet {
    dir: PathBuf,
    place: Place,
    partial: PathBuf,
    /// Locked as long as it is being written.
    _lock: File,
}

impl DataSet {
    /// Makes the directory aside, and removes those that crashes left.
    pub(crate) fn begin(dir: &Path, place: &Place) -> Result<Self> {
        fs::create_dir_all(dir).doing("make", dir)?;
        // Whoever looks for leftovers finds none that has no lock yet.
        let all = File::open(dir).doing("open", dir)?;
        flock(&all, FlockOperation::LockExclusive).doing("lock", dir)?;
        sweep(dir)?;
        let number = BEGUN.fetch_add(1, Ordering::Relaxed);
        let partial = dir.join(format!("{PARTIAL}{}-{number}", std::process::id()));
        fs::create_dir(&partial).doing("make", &partial)?;
        let lock = File::open(&partial).doing("open", &partial)?;
        flock(&lock, FlockOperation::LockExclusive).doing("lock", &partial)?;
        Ok(Self { dir: dir.to_owned(), place: place.clone(), partial, _lock: lock })
    }

    /// A file for a table.
    pub(crate) fn file(&self, table: &str) -> Result<File> {
        let path = self.partial.join(format!("{table}.parquet"));
        OpenOptions::new().write(true).create_new(true).open(&path).doing("make", &path)
    }

    /// Moves it to its place, durably; gives its path and whether it replaced one.
    pub(crate) fn publish(self) -> Result<(PathBuf, bool)> {
        sync(&self.partial)?;
        let store = self.dir.join(self.place.of_store());
        fs::create_dir_all(&store).doing("make", &store)?;
        let path = self.dir.join(self.place.path());
        let replaced = loop {
            match rename_new((CWD, &self.partial), (CWD, &path)) {
                Err(Errno::EXIST) => {}
                moved => {
                    moved.doing("make", &path)?;
                    break false;
                }
            }
            match renameat_with(CWD, &self.partial, CWD, &path, RenameFlags::EXCHANGE) {
                Ok(()) => break true,
                // Someone removed the older one just now.
                Err(Errno::NOENT) => {}
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    let old = self.partial.with_extension("old");
                    fs::rename(&path, &old).doing("move away", &path)?;
                    fs::rename(&self.partial, &path).doing("make", &path)?;
                    fs::remove_dir_all(&old).doing("remove", &old)?;
                    break true;
                }
                Err(error) => return Err(error).doing("replace", &path),
            }
        };
        sync(&store)?;
        sync(&self.dir)?;
        Ok((path, replaced))
    }
}

impl Drop for DataSet {
    /// Removes what was not published, or was replaced. If that fails, the next one removes it.
    fn drop(&mut self) {
        fs::remove_dir_all(&self.partial).unwrap_or_default();
    }
}

fn sync(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|file| file.sync_all()).doing("sync", dir)
}

/// Removes partial data sets that nobody is writing.
fn sweep(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).doing("list", dir)? {
        let entry = entry.doing("list", dir)?;
        if !entry.file_name().as_encoded_bytes().starts_with(PARTIAL.as_bytes()) {
            continue;
        }
        let path = entry.path();
        let opened = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            opened => opened.doing("open", &path)?,
        };
        match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => continue,
            locked => locked.doing("lock", &path)?,
        }
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.doing("remove", &path)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn place() -> Place {
        Place { store: "one".parse().unwrap(), day: "2026-01-31".parse().unwrap() }
    }

    fn below(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn begun(dir: &Path, text: &str) -> DataSet {
        let set = DataSet::begin(dir, &place()).unwrap();
        set.file("images").unwrap().write_all(text.as_bytes()).unwrap();
        set
    }

    #[test]
    fn it_appears_whole_and_replaces_an_older_one() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("made");
        let file = dir.join("store=one/day=2026-01-31/images.parquet");
        let first = begun(&dir, "first");
        assert!(!file.exists());
        assert!(!first.publish().unwrap().1);
        assert_eq!(fs::read_to_string(&file).unwrap(), "first");
        let second = begun(&dir, "second");
        second.file("layers").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "first");
        assert!(second.publish().unwrap().1);
        assert_eq!(fs::read_to_string(&file).unwrap(), "second");
        // What the second one does not have is gone with the first.
        begun(&dir, "third").publish().unwrap();
        assert_eq!(below(file.parent().unwrap()), ["images.parquet"]);
        assert_eq!(below(&dir), ["store=one"]);
    }

    #[test]
    fn one_that_is_given_up_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        drop(begun(dir.path(), "given up"));
        assert_eq!(below(dir.path()), Vec::<String>::new());
    }

    #[test]
    fn what_a_crash_left_goes_and_what_is_being_written_stays() {
        let dir = tempfile::tempdir().unwrap();
        let other = begun(dir.path(), "being written");
        fs::create_dir(dir.path().join(".partial-1-0")).unwrap();
        fs::write(dir.path().join(".partial-1-0/images.parquet"), "half").unwrap();
        let own = begun(dir.path(), "own");
        assert_eq!(below(dir.path()).len(), 2);
        own.publish().unwrap();
        assert!(other.partial.join("images.parquet").exists());
        assert!(other.publish().unwrap().1);
        assert_eq!(below(dir.path()), ["store=one"]);
    }
}
