//! [`DataSet`]: the directory of a data set, which appears in one step.
//!
//! ```text
//! DIR/.partial-NAME+KERNEL-RANDOM/TABLE.parquet     written here, under a lock
//!  │ rename, or exchange with an older one
//!  ▼
//! DIR/store=NAME/day=DAY/TABLE.parquet
//! ```
//!
//! A reader looks for `*/*/TABLE.parquet`, so it never finds a partial one. A lock tells a
//! partial one that is being written from one that a crash left: the next writer of the store
//! removes those. Many machines may write to one directory, and a lock on a directory is often
//! (NFS) known to one of them alone. So what others write goes only when nobody has written to it
//! for a day.
//!
//! Invariants: what is at the data set's path is whole and durable; a file system that cannot
//! exchange two directories (NFS) has a moment without the older one, and none with half of one.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use strata_tree::{BlobDigest, rename_new};

use crate::error::{Result, WhileDoing};
use crate::place::{Place, StoreName};

const PARTIAL: &str = ".partial-";

/// After this time without a change nobody writes to what another machine has begun.
const LEFT: Duration = Duration::from_hours(24);

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
        let own = own_partials(&place.store);
        sweep(dir, &own)?;
        let partial = loop {
            let random = RandomState::new().hash_one(0);
            let partial = dir.join(format!("{own}{random:016x}"));
            match fs::create_dir(&partial) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                made => {
                    made.doing("make", &partial)?;
                    break partial;
                }
            }
        };
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
                    let mut old = self.partial.clone().into_os_string();
                    old.push(".old");
                    let old = PathBuf::from(old);
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

/// How the names begin of the partial data sets of a store that this kernel knows the locks of.
fn own_partials(store: &StoreName) -> String {
    // Also what is in other containers of this machine.
    let kernel = fs::read("/proc/sys/kernel/random/boot_id")
        .unwrap_or_else(|_| rustix::system::uname().nodename().to_bytes().to_vec());
    let kernel = BlobDigest::from_bytes(Sha256::digest(kernel).into()).hex();
    format!("{PARTIAL}{store}+{}-", &kernel[..16])
}

/// Removes partial data sets that nobody is writing; `own` is how those begin whose locks tell.
fn sweep(dir: &Path, own: &str) -> Result<()> {
    for entry in fs::read_dir(dir).doing("list", dir)? {
        let entry = entry.doing("list", dir)?;
        let (name, path) = (entry.file_name(), entry.path());
        let is_own = name.as_encoded_bytes().starts_with(own.as_bytes());
        let is_partial = name.as_encoded_bytes().starts_with(PARTIAL.as_bytes());
        if !is_partial || !is_own && is_recent(&path) {
            continue;
        }
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

/// Whether somebody may still be writing to a partial data set: it has changed not long ago, or
/// that cannot be said.
fn is_recent(partial: &Path) -> bool {
    let look = || -> std::io::Result<bool> {
        let mut changed = fs::symlink_metadata(partial)?.modified()?;
        for file in fs::read_dir(partial)? {
            changed = changed.max(file?.metadata()?.modified()?);
        }
        Ok(changed + LEFT > SystemTime::now())
    };
    look().unwrap_or(true)
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
        let left = dir.path().join(format!("{}0", own_partials(&place().store)));
        fs::create_dir(&left).unwrap();
        fs::write(left.join("images.parquet"), "half").unwrap();
        let own = begun(dir.path(), "own");
        assert_eq!(below(dir.path()).len(), 2);
        own.publish().unwrap();
        assert!(other.partial.join("images.parquet").exists());
        assert!(other.publish().unwrap().1);
        assert_eq!(below(dir.path()), ["store=one"]);
    }

    #[test]
    fn what_another_machine_writes_goes_only_when_it_is_old() {
        let dir = tempfile::tempdir().unwrap();
        let theirs = |name: &str| dir.path().join(format!("{PARTIAL}{name}+0123456789abcdef-0"));
        for name in ["one", "two"] {
            fs::create_dir(theirs(name)).unwrap();
            fs::write(theirs(name).join("images.parquet"), "half").unwrap();
        }
        let age = |path: &Path| {
            let time = SystemTime::now() - LEFT - Duration::from_secs(1);
            File::open(path).unwrap().set_modified(time).unwrap();
        };
        age(&theirs("one"));
        drop(begun(dir.path(), "own"));
        assert_eq!(below(dir.path()).len(), 2, "a file in it was written just now");
        age(&theirs("one").join("images.parquet"));
        drop(begun(dir.path(), "own"));
        assert!(!theirs("one").exists() && theirs("two").exists());
    }
}
