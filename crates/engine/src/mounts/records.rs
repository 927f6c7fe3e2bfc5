//! The records of mounts: `ROOT/mounts/NAME.json` and `NAME.log`, one pair for each daemon. If the
//! store cannot be written, they are in the cache directory.
//!
//! A mount that the kernel serves has `NAME.json` and `NAME.lease` (see `kernel`); its json file is
//! locked while its names are made ahead.
//!
//! A daemon holds an exclusive lock on its json file as long as it lives, and its log is locked
//! from before it starts. The kernel drops both however the daemon ends, so a file that can be
//! locked belongs to a dead one.
//!
//! Invariants: a file counts as locked once its path leads to it after that; a json file is
//! complete and locked before it has its name; only [`clean`] and the daemon itself remove one;
//! cleaning never touches what a living daemon holds.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{Access, FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use strata_fuse::Manner;
use strata_layer::KernelLeases;

use super::point;
use crate::error::{ErrorContext, Result};

/// How often a draft is made that others take for one of the dead.
const TRIES: u32 = 1000;

/// What a record calls a mount that the kernel serves.
pub(crate) const KERNEL: &str = "kernel";
/// What it calls one whose daemon has the names alone.
pub(crate) const USERNS: &str = "userns";

/// What the registry says of one mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRecord {
    /// Absolute, without links; its bytes, because it need not be UTF-8.
    #[serde(with = "path_bytes")]
    pub mountpoint: PathBuf,
    /// The image's id.
    pub image: String,
    /// The image as the user named it.
    pub reference: String,
    /// The daemon.
    pub pid: u32,
    /// When the mount was ready, in seconds since 1970.
    pub started: u64,
    /// How files are read.
    pub profile: String,
    /// `suid`, `dev`, `noexec`, `verify`.
    pub options: Vec<String>,
    /// The writable layer on top.
    #[serde(default)]
    pub upper: Option<String>,
    /// The file system's device, such as `0:50`.
    #[serde(default)]
    pub device: Option<String>,
    /// `kernel` for a mount without a daemon, whose `pid` is 0; `userns` where the daemon has the
    /// names alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
}

impl MountRecord {
    /// Whether no process serves it: the kernel does, or did.
    pub fn is_of_kernel(&self) -> bool {
        self.backend.as_deref() == Some(KERNEL)
    }
}

mod path_bytes {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    pub(super) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        path.as_os_str().as_bytes().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        Vec::<u8>::deserialize(from).map(|bytes| OsString::from_vec(bytes).into())
    }
}

/// A record of the registry, and whether its daemon lives.
#[derive(Debug)]
pub(crate) struct KnownMount {
    pub(crate) record: MountRecord,
    pub(crate) alive: bool,
    json: PathBuf,
}

/// The directory of records.
#[derive(Debug)]
pub struct MountRecords {
    dir: PathBuf,
}

/// A daemon's entry in the registry: while this value lives, other processes see the daemon alive.
#[derive(Debug)]
pub struct MountRegistration {
    json: PathBuf,
    log: PathBuf,
    _lock: File,
}

/// The seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn try_lock(file: &File, operation: FlockOperation) -> io::Result<bool> {
    match flock(file, operation) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// `ROOT/mounts`; for a store that cannot be written, a directory elsewhere, one for each store.
fn directory(root: &Path, cache: Option<&Path>) -> PathBuf {
    let own = root.join("mounts");
    if !root.is_dir() {
        return own;
    }
    let at = if own.is_dir() { &own } else { root };
    match rustix::fs::access(at, Access::WRITE_OK | Access::EXEC_OK) {
        Err(Errno::ROFS | Errno::ACCESS) => {
            let name = Sha256::digest(root.as_os_str().as_bytes());
            let name: String = name.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            cache.map_or(own, |cache| cache.join("mounts").join(name))
        }
        Ok(()) | Err(_) => own,
    }
}

impl MountRecords {
    /// The records of the store at `root`; their directory is made. `cache` is where those of a
    /// store that cannot be written are.
    ///
    /// # Errors
    /// `Doing`: the directory cannot be made.
    pub fn open(root: &Path, cache: Option<&Path>) -> Result<Self> {
        let dir = directory(root, cache);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Self { dir })
    }

    /// The same for readers: a missing directory counts as an empty one.
    pub fn existing(root: &Path, cache: Option<&Path>) -> Self {
        Self { dir: directory(root, cache) }
    }

    /// Waits until no one else mounts from this store; others wait while the file is open.
    ///
    /// # Errors
    /// `Doing`: it cannot be locked.
    pub fn exclusively(&self) -> Result<File> {
        let path = self.dir.join(".lock");
        let open = || -> io::Result<File> {
            let file = options().truncate(false).open(&path)?;
            flock(&file, FlockOperation::LockExclusive)?;
            Ok(file)
        };
        open().with_context(|| format!("cannot lock {}", path.display()))
    }

    /// A name that no other mount has.
    pub(crate) fn new_name() -> String {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        format!("{:x}-{:x}", since.as_nanos(), std::process::id())
    }

    /// The directory of the records.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A new name and its log, locked for the process that inherits the file.
    ///
    /// # Errors
    /// `Doing`: it cannot be made.
    pub fn create_log(&self) -> Result<(String, PathBuf, File)> {
        loop {
            let name = Self::new_name();
            let path = self.log(&name);
            let created = create_locked(&path, options().append(true));
            let created = created.with_context(|| format!("cannot create {}", path.display()))?;
            if let Some(file) = created {
                return Ok((name, path, file));
            }
        }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    /// Writes a record and holds its lock.
    ///
    /// # Errors
    /// `Doing`: it cannot be written.
    pub fn register(&self, name: &str, record: &MountRecord) -> Result<MountRegistration> {
        let (json, lock) = self.write_locked(name, record)?;
        Ok(MountRegistration { json, log: self.log(name), _lock: lock })
    }

    /// Writes the record of a mount that no process serves. As long as the file is open, who
    /// unmounts waits.
    ///
    /// # Errors
    /// `Doing`: it cannot be written.
    pub(crate) fn write(&self, name: &str, record: &MountRecord) -> Result<File> {
        self.write_locked(name, record).map(|(_, file)| file)
    }

    /// Removes the record and the lease of a mount that did not come to be.
    pub(crate) fn forget(&self, name: &str) {
        remove(&self.dir.join(format!("{name}.json")));
        remove(&KernelLeases::new(&self.dir).path(name));
    }

    fn write_locked(&self, name: &str, record: &MountRecord) -> Result<(PathBuf, File)> {
        let (draft, json) =
            (self.dir.join(format!("{name}.new")), self.dir.join(format!("{name}.json")));
        let write = || -> io::Result<File> {
            let mut tries = 0..TRIES;
            let mut file = loop {
                match (create_locked(&draft, &mut options())?, tries.next()) {
                    (Some(file), _) => break file,
                    (None, Some(_)) => std::thread::sleep(Duration::from_millis(1)),
                    (None, None) => return Err(io::ErrorKind::AlreadyExists.into()),
                }
            };
            file.write_all(&serde_json::to_vec(record)?)?;
            fs::rename(&draft, &json)?;
            Ok(file)
        };
        let lock = write().with_context(|| format!("cannot write {}", json.display()))?;
        Ok((json, lock))
    }

    /// All records, the oldest first.
    pub(crate) fn all(&self) -> Result<Vec<KnownMount>> {
        let mut all: Vec<KnownMount> = Vec::new();
        for path in self.files()? {
            if path.extension().is_some_and(|extension| extension == "json") {
                all.extend(KnownMount::read(path));
            }
        }
        all.sort_by_key(|one| (one.record.started, one.record.pid));
        Ok(all)
    }

    fn files(&self) -> Result<Vec<PathBuf>> {
        let read = || -> io::Result<Vec<PathBuf>> {
            match fs::read_dir(&self.dir) {
                Ok(names) => names.map(|entry| entry.map(|entry| entry.path())).collect(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
                Err(error) => Err(error),
            }
        };
        read().with_context(|| format!("cannot read {}", self.dir.display()))
    }

    /// Takes away what dead daemons left: their mounts that answer nobody, their files.
    ///
    /// # Errors
    /// `Doing`: the directory cannot be read.
    pub fn clean(&self) -> Result<()> {
        for dead in self.all()?.iter().filter(|one| !one.alive) {
            let at = &dead.record.mountpoint;
            if dead.is_left()
                && let Err(error) = strata_fuse::unmount(at, Manner::Lazy)
            {
                tracing::warn!("{error}");
                continue;
            }
            tracing::info!("removing the record of {}: its daemon is dead", at.display());
            remove(&dead.json);
            if dead.is_of_kernel() {
                remove(&dead.lease());
            }
        }
        // Drafts and logs of daemons that died before they were registered, or just now.
        for path in self.files()? {
            let kind = path.extension().and_then(|extension| extension.to_str());
            if path.with_extension("json").exists() {
                continue;
            }
            match kind {
                Some("log" | "new") => {}
                // Of a mount that was never attached.
                Some("lease") => {
                    if !KernelLeases::is_kept(&path)? {
                        remove(&path);
                    }
                    continue;
                }
                Some(_) | None => continue,
            }
            let Ok(file) = File::open(&path) else { continue };
            let free = try_lock(&file, FlockOperation::NonBlockingLockExclusive);
            if free.unwrap_or(false) && leads_to(&path, &file) {
                remove(&path);
            }
        }
        Ok(())
    }
}

fn options() -> fs::OpenOptions {
    let mut options = File::options();
    options.read(true).write(true).create(true).mode(0o600);
    options
}

/// Makes a file that [`MountRecords::clean`] leaves alone; `None` if a cleaning process has taken
/// it for one of the dead before it was locked.
fn create_locked(path: &Path, options: &mut fs::OpenOptions) -> io::Result<Option<File>> {
    let file = match options.create_new(true).open(path) {
        Ok(file) => file,
        // It is about to be removed: no two processes have one name.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
        Err(error) => return Err(error),
    };
    let locked = try_lock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok((locked && leads_to(path, &file)).then_some(file))
}

/// Whether the path still leads to that file.
fn leads_to(path: &Path, file: &File) -> bool {
    let of = |meta: fs::Metadata| (meta.dev(), meta.ino());
    match (fs::symlink_metadata(path), file.metadata()) {
        (Ok(there), Ok(own)) => of(there) == of(own),
        _ => false,
    }
}

/// Removes a file; one that is gone already is no error.
fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("cannot remove {}: {error}", path.display());
        }
        _ => {}
    }
}

impl KnownMount {
    /// `None` for a file that is gone meanwhile, or that holds no record.
    fn read(json: PathBuf) -> Option<Self> {
        let mut file = File::open(&json).ok()?;
        let mut text = String::new();
        file.read_to_string(&mut text).ok()?;
        match serde_json::from_str(&text) {
            Ok(record) => {
                let mut known = Self { record, alive: true, json };
                known.alive = !known.is_over(&file);
                Some(known)
            }
            Err(error) => {
                tracing::warn!("{}: {error}", json.display());
                None
            }
        }
    }

    /// Whether no process serves it: the kernel does, or did.
    pub(crate) fn is_of_kernel(&self) -> bool {
        self.record.is_of_kernel()
    }

    /// Whether a dead daemon's mount still stands at its place: it answers nobody, or it has the
    /// names below an overlayfs, which does not always ask.
    fn is_left(&self) -> bool {
        let at = &self.record.mountpoint;
        let covered = self.record.backend.as_deref() == Some(USERNS);
        let same = || self.record.device == point::device_mounted_at(at);
        point::is_stale(at) || covered && point::is_ours(at) && same()
    }

    fn lease(&self) -> PathBuf {
        self.json.with_extension("lease")
    }

    /// Whether its daemon is dead, or the kernel has ended it and nobody makes its names ahead.
    /// `file` is the record.
    fn is_over(&self, file: &File) -> bool {
        let ended = || match self.is_of_kernel() {
            true => KernelLeases::is_kept(&self.lease()).is_ok_and(|kept| !kept),
            false => true,
        };
        ended() && try_lock(file, FlockOperation::NonBlockingLockShared).unwrap_or(false)
    }

    /// Waits until the daemon is dead; `false` if it still lives after `limit`.
    pub(crate) fn wait_for_end(&self, limit: Duration) -> bool {
        let since = Instant::now();
        loop {
            // A daemon that ends removes its file; the lock says it for one that was killed.
            let Ok(file) = File::open(&self.json) else { return true };
            if self.is_over(&file) {
                return true;
            }
            if since.elapsed() > limit {
                return false;
            }
            drop(file);
            std::thread::sleep(Duration::from_millis(3));
        }
    }
}

impl MountRegistration {
    /// Leaves the registry in order: the record goes, and the log, for there is nothing to say.
    pub fn leave(self) {
        remove(&self.log);
        remove(&self.json);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(mountpoint: &str) -> MountRecord {
        MountRecord {
            mountpoint: mountpoint.into(),
            image: "sha256:0".into(),
            reference: "app:1".into(),
            pid: 1,
            started: 5,
            profile: "no-open".into(),
            options: vec![],
            upper: None,
            device: None,
            backend: None,
        }
    }

    fn names(registry: &MountRecords) -> usize {
        registry.files().unwrap().len()
    }

    #[test]
    fn a_record_lives_as_long_as_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let registry = MountRecords::open(dir.path(), None).unwrap();
        let (name, _, log) = registry.create_log().unwrap();
        let held = registry.register(&name, &record("/no/such/place")).unwrap();
        let all = registry.all().unwrap();
        assert_eq!(all[0].record, record("/no/such/place"));
        assert!(all[0].alive);
        registry.clean().unwrap();
        assert_eq!(names(&registry), 2);
        assert!(!all[0].wait_for_end(Duration::from_millis(20)));

        // It dies without leaving.
        drop((held, log));
        assert!(all[0].wait_for_end(Duration::ZERO));
        assert!(!registry.all().unwrap()[0].alive);
        registry.clean().unwrap();
        assert_eq!(names(&registry), 0);
    }

    #[test]
    fn leaving_takes_the_files_along() {
        let dir = tempfile::tempdir().unwrap();
        let registry = MountRecords::open(dir.path(), None).unwrap();
        let (name, _, _log) = registry.create_log().unwrap();
        registry.register(&name, &record("/x")).unwrap().leave();
        assert_eq!(names(&registry), 0);
    }

    #[test]
    fn a_log_whose_daemon_never_came_up_is_cleaned_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let registry = MountRecords::open(dir.path(), None).unwrap();
        let (_, _, log) = registry.create_log().unwrap();
        registry.clean().unwrap();
        assert_eq!(names(&registry), 1);
        drop(log);
        registry.clean().unwrap();
        assert_eq!(names(&registry), 0);
    }

    #[test]
    fn cleaning_leaves_alone_what_is_being_made() {
        let dir = tempfile::tempdir().unwrap();
        let registry = MountRecords::open(dir.path(), None).unwrap();
        std::thread::scope(|scope| {
            let maker = scope.spawn(|| {
                for _ in 0..500 {
                    let (name, log, _file) = registry.create_log().unwrap();
                    let held = registry.register(&name, &record("/x")).unwrap();
                    assert!(log.exists() && held.json.exists());
                    held.leave();
                }
            });
            while !maker.is_finished() {
                registry.clean().unwrap();
            }
            maker.join().unwrap();
        });
        assert_eq!(names(&registry), 0);
    }

    #[test]
    fn no_registry_is_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        assert!(MountRecords::existing(dir.path(), None).all().unwrap().is_empty());
        MountRecords::existing(dir.path(), None).clean().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
