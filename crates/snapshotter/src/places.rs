//! Where snapshots are on disk, and the mounts below them.
//!
//! ```text
//! ROOT/layers/                          contents of all layers: the data-only lower
//! ROOT/containerd/snapshots/<n>/fs      the upper of snapshot n
//!                              /work    its work directory
//! RUN/<chain id>                        mounted: the names of that chain's merged tree, or where
//!                                       the kernel cannot show them, the tree, through FUSE
//! ```
//!
//! The names of a chain are one lower, however many layers it has. They are mounted before
//! containerd is told of a mount that needs them, once for all snapshots above them, and taken out
//! of sight with their image, or when no snapshot has needed them for a while; an overlayfs that
//! uses them keeps them.
//!
//! Invariants: a directory below RUN is mounted or not there, so a mount that would lack its lower
//! fails instead of showing an empty one; paths are short and have none of `,`, `:` and `\`, so
//! options fit into what mount(2) takes and need no escape.

use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::CWD;
use rustix::io::Errno;
use strata_tree::{DiffId, UsedSpace, remove_tree, space_used};
use stratafs::{Error as EngineError, OpenChain, Store, chain_id, unmount_names};

use crate::args::LowerBackend;
use crate::daemon;
use crate::error::{Error, IoDoing, Result};
use crate::keys::Keys;
use crate::labels;
use crate::state::{SnapshotId, SnapshotKind, SnapshotRow, SnapshotUsage};

/// Hexadecimal digits of a chain id in the name of its mount: 96 bits.
const DIGITS: usize = 24;

/// Percent of a disk that are free when a kubelet begins to remove images: then it is of no use to
/// keep any layer for later.
const NEARLY_FULL: u64 = 15;

/// A mount as containerd wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotMount {
    pub(crate) kind: String,
    pub(crate) source: String,
    pub(crate) options: Vec<String>,
}

/// Names that are mounted.
struct ShownNames {
    /// The snapshots that need them.
    users: HashSet<SnapshotId>,
    /// Since when nobody does.
    idle: Instant,
}

impl Default for ShownNames {
    fn default() -> Self {
        Self { users: HashSet::new(), idle: Instant::now() }
    }
}

/// The directories, and which names are mounted.
pub(crate) struct SnapshotPlaces {
    root: PathBuf,
    snapshots: PathBuf,
    layers: PathBuf,
    run: PathBuf,
    backend: LowerBackend,
    /// Chains whose names are being written.
    writing: Keys,
    shown: Mutex<HashMap<PathBuf, ShownNames>>,
}

impl SnapshotPlaces {
    /// Makes what is missing.
    pub(crate) fn make(root: &Path, run: &Path, backend: LowerBackend) -> Result<Self> {
        let snapshots = root.join("containerd/snapshots");
        for dir in [&snapshots, run] {
            if dir.to_string_lossy().contains([',', ':', '\\', '\n']) {
                let why =
                    format!("{} has a character that overlayfs gives a meaning", dir.display());
                return Err(Error::InvalidArgument(why));
            }
            let mut builder = DirBuilder::new();
            let made = builder.recursive(true).mode(0o711).create(dir);
            made.doing(|| format!("cannot make {}", dir.display()))?;
        }
        let run = run.canonicalize().doing(|| format!("cannot find {}", run.display()))?;
        let layers = root.join("layers");
        let (writing, shown) = (Keys::default(), Mutex::default());
        Ok(Self { root: root.to_owned(), snapshots, layers, run, backend, writing, shown })
    }

    /// Where names are mounted.
    pub(crate) fn run(&self) -> &Path {
        &self.run
    }

    /// The upper of a snapshot.
    pub(crate) fn upper(&self, id: SnapshotId) -> PathBuf {
        self.dir(id).join("fs")
    }

    fn dir(&self, id: SnapshotId) -> PathBuf {
        self.snapshots.join(id.0.to_string())
    }

    /// Makes the directories of a snapshot.
    pub(crate) fn make_upper(&self, id: SnapshotId, kind: SnapshotKind) -> Result<()> {
        // What a crash left before its row was there.
        self.remove_upper(id)?;
        self.make_missing(id, kind).map(|_| ())
    }

    /// Has a snapshot's names mounted after a start, and its directories made if they are not
    /// there: after a power cut the record may know of a snapshot whose directories had not
    /// reached the disk. Nothing had been written there then.
    pub(crate) fn show_again(
        &self,
        store: &Store,
        snapshot: &SnapshotRow,
        chain: &[DiffId],
    ) -> Result<()> {
        self.show_names(store, snapshot.id, chain)?;
        match self.make_missing(snapshot.id, snapshot.kind)? {
            true => self.adopt_root(snapshot.id, chain),
            false => Ok(()),
        }
    }

    /// Says whether the upper was one of them.
    fn make_missing(&self, id: SnapshotId, kind: SnapshotKind) -> Result<bool> {
        let dir = self.dir(id);
        let upper = make_dir(&dir, 0o700).and_then(|_| make_dir(&self.upper(id), 0o755));
        let upper = upper.doing(|| format!("cannot make {}", dir.display()))?;
        if kind == SnapshotKind::Active {
            let work = make_dir(&dir.join("work"), 0o711);
            work.doing(|| format!("cannot make the work directory in {}", dir.display()))?;
        }
        Ok(upper)
    }

    /// Removes the directories of a snapshot that is no more.
    pub(crate) fn remove_upper(&self, id: SnapshotId) -> Result<()> {
        let dir = self.dir(id);
        match remove_tree(CWD, &dir) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error).doing(|| format!("cannot remove {}", dir.display())),
        }
    }

    /// Removes what is in the upper of a snapshot.
    pub(crate) fn empty_upper(&self, id: SnapshotId) -> Result<()> {
        let upper = self.upper(id);
        let doing = || format!("cannot empty {}", upper.display());
        for entry in fs::read_dir(&upper).doing(doing)? {
            remove_tree(CWD, &entry.doing(doing)?.path()).doing(doing)?;
        }
        Ok(())
    }

    /// Whether the disk is nearly full, as df(1) counts.
    pub(crate) fn is_nearly_full(&self) -> Result<bool> {
        let doing = || format!("cannot ask for the space of {}", self.layers.display());
        let space = rustix::fs::statvfs(&self.layers).doing(doing)?;
        let all = space.f_blocks.saturating_sub(space.f_bfree) + space.f_bavail;
        Ok(space.f_bavail.saturating_mul(100) < all.saturating_mul(NEARLY_FULL))
    }

    /// Whether nothing was written into an upper.
    pub(crate) fn is_untouched(&self, id: SnapshotId) -> Result<bool> {
        let upper = self.upper(id);
        let doing = || format!("cannot read {}", upper.display());
        Ok(fs::read_dir(&upper).doing(doing)?.next().is_none())
    }

    /// Numbers of all directories that are there.
    pub(crate) fn numbers(&self) -> Result<Vec<SnapshotId>> {
        let doing = || format!("cannot list {}", self.snapshots.display());
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.snapshots).doing(doing)? {
            let name = entry.doing(doing)?.file_name();
            let number = name.to_str().and_then(|name| name.parse().ok());
            numbers.extend(number.map(SnapshotId));
        }
        Ok(numbers)
    }

    /// The snapshot whose upper is at that path.
    pub(crate) fn of_upper(&self, upper: &Path) -> Option<SnapshotId> {
        let below = upper.strip_prefix(&self.snapshots).ok()?;
        let number = below.parent()?.to_str()?.parse().ok()?;
        (below.file_name()? == "fs").then_some(SnapshotId(number))
    }

    /// What an upper takes: names and blocks, hard links once.
    pub(crate) fn usage(&self, id: SnapshotId) -> Result<SnapshotUsage> {
        let upper = self.upper(id);
        let used = space_used(CWD, &upper).map_err(io::Error::from);
        let UsedSpace { bytes, inodes } =
            used.doing(|| format!("cannot measure {}", upper.display()))?;
        Ok(SnapshotUsage { bytes, inodes })
    }

    /// The mounts of a snapshot above `chain`, whose names are mounted.
    pub(crate) fn mounts(&self, snapshot: &SnapshotRow, chain: &[DiffId]) -> Vec<SnapshotMount> {
        let id = snapshot.id;
        let writable = snapshot.kind == SnapshotKind::Active;
        let Some(names) = self.names(chain) else {
            let access = if writable { "rw" } else { "ro" };
            let options = vec![access.to_owned(), "rbind".to_owned()];
            let source = self.upper(id).display().to_string();
            return vec![SnapshotMount { kind: "bind".to_owned(), source, options }];
        };
        // Nobody mounts what a layer is unpacked into: containerd's own differ writes into the
        // upper, and copies directories that a layer only implies from the parts of the lower. An
        // empty part is the root of the host to it.
        let lower = match labels::is_unpack(&snapshot.name) || is_served(&names) {
            true => format!("lowerdir={}", names.display()),
            false => format!("lowerdir={}::{}", names.display(), self.layers.display()),
        };
        let mut options = match writable {
            true => vec![
                format!("workdir={}", self.dir(id).join("work").display()),
                format!("upperdir={}", self.upper(id).display()),
            ],
            false => vec!["ro".to_owned()],
        };
        options.push(lower);
        // Contents are found through these; an index would refuse a lower that was mounted again.
        options.extend(["metacopy=on", "redirect_dir=on", "index=off"].map(str::to_owned));
        vec![SnapshotMount { kind: "overlay".to_owned(), source: "overlay".to_owned(), options }]
    }

    /// Where the names of a chain are mounted; `None` for no layers.
    fn names(&self, chain: &[DiffId]) -> Option<PathBuf> {
        let hex = chain_id(chain)?.hex();
        Some(self.run.join(hex.get(..DIGITS).unwrap_or(&hex)))
    }

    /// Mounts the names of a chain unless they are, for the snapshot `id`. All other snapshots wait
    /// for the mount, and only for that: what it needs is written before.
    pub(crate) fn show_names(&self, store: &Store, id: SnapshotId, chain: &[DiffId]) -> Result<()> {
        let Some(place) = self.names(chain) else { return Ok(()) };
        let known = self.shown().contains_key(&place);
        let open = if known { None } else { self.open_written(store, chain)? };
        let mut shown = self.shown();
        if !is_mounted(&place)? {
            let doing = || format!("cannot make {}", place.display());
            match fs::create_dir(&place) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).doing(doing),
            }
            if let Err(error) = self.mount_names(store, &place, chain, open) {
                // The failure itself is the better message.
                let _ = fs::remove_dir(&place);
                return Err(error);
            }
        }
        shown.entry(place).or_default().users.insert(id);
        Ok(())
    }

    fn shown(&self) -> MutexGuard<'_, HashMap<PathBuf, ShownNames>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what mounting the names of a chain needs.
    pub(crate) fn write_names(&self, store: &Store, chain: &[DiffId]) -> Result<()> {
        self.open_written(store, chain).map(drop)
    }

    /// The chain, once that is written; `None` where no kernel is to mount it.
    fn open_written(&self, store: &Store, chain: &[DiffId]) -> Result<Option<OpenChain>> {
        let (LowerBackend::Auto, Some(id)) = (self.backend, chain_id(chain)) else {
            return Ok(None);
        };
        let _turn = self.writing.lock(&id.hex());
        let chain = OpenChain::open(store, chain)?;
        match chain.write_names(store) {
            Ok(()) | Err(EngineError::KernelCannot(_)) => Ok(Some(chain)),
            Err(error) => Err(error.into()),
        }
    }

    fn mount_names(
        &self,
        store: &Store,
        place: &Path,
        chain: &[DiffId],
        open: Option<OpenChain>,
    ) -> Result<()> {
        let _turn = chain_id(chain).map(|id| self.writing.lock(&id.hex()));
        let mounted = match (self.backend, open) {
            (LowerBackend::Auto, Some(open)) => open.mount_names(store, place),
            (LowerBackend::Auto, None) => OpenChain::open(store, chain)?.mount_names(store, place),
            (LowerBackend::Fuse, _) => {
                Err(EngineError::KernelCannot("it is not asked to".to_owned()))
            }
        };
        match mounted {
            Err(EngineError::KernelCannot(why)) => {
                tracing::info!("{} is served through FUSE: {why}", place.display());
                daemon::start(&self.root, place, chain)
            }
            mounted => Ok(mounted?),
        }
    }

    /// Makes the root of an upper look like that of the chain, whose names are mounted.
    pub(crate) fn adopt_root(&self, id: SnapshotId, chain: &[DiffId]) -> Result<()> {
        let Some(names) = self.names(chain) else { return Ok(()) };
        let upper = self.upper(id);
        let doing = || format!("cannot make {} look like its lower", upper.display());
        let meta = names.metadata().doing(doing)?;
        std::os::unix::fs::chown(&upper, Some(meta.uid()), Some(meta.gid())).doing(doing)?;
        fs::set_permissions(&upper, meta.permissions()).doing(doing)?;
        copy_xattrs(&names, &upper).doing(doing)?;
        let times = fs::FileTimes::new().set_modified(meta.modified().doing(doing)?);
        fs::File::open(&upper).and_then(|upper| upper.set_times(times)).doing(doing)
    }

    /// The snapshot needs its names no more. Those that no other needs are taken away, or with
    /// `keep` stay for the next one. Says whether it had any.
    pub(crate) fn release(&self, id: SnapshotId, keep: bool) -> Result<bool> {
        let mut shown = self.shown();
        let mut its = HashSet::new();
        for (place, names) in shown.iter_mut() {
            if names.users.remove(&id) {
                names.idle = Instant::now();
                its.insert(place.clone());
            }
        }
        if !keep {
            hide_some(&mut shown, |place, names| its.contains(place) && names.users.is_empty())?;
        }
        Ok(!its.is_empty())
    }

    /// Takes away names that nobody has needed for that long.
    pub(crate) fn hide_idle(&self, after: Duration) -> Result<()> {
        let unused =
            |_: &Path, names: &ShownNames| names.users.is_empty() && names.idle.elapsed() >= after;
        hide_some(&mut self.shown(), unused)
    }

    /// Takes away the names of a chain, unless somebody needs them.
    pub(crate) fn hide_names(&self, chain: &[DiffId]) -> Result<()> {
        let Some(its) = self.names(chain) else { return Ok(()) };
        hide_some(&mut self.shown(), |place, names| place == its && names.users.is_empty())
    }

    /// A snapshot above the names that a lower of overlayfs, as given out here, begins with.
    pub(crate) fn above(&self, lower: &str) -> Option<SnapshotId> {
        let (names, _) = lower.split_once("::").unwrap_or((lower, ""));
        self.shown().get(Path::new(names))?.users.iter().next().copied()
    }

    /// Whether the names of a chain are mounted for a snapshot.
    pub(crate) fn are_shown(&self, chain: &[DiffId]) -> bool {
        let (shown, place) = (self.shown(), self.names(chain));
        place.and_then(|place| shown.get(&place)).is_some_and(|names| !names.users.is_empty())
    }

    /// Takes away all names that no snapshot uses: what an earlier run left.
    pub(crate) fn hide_unused(&self) -> Result<()> {
        let shown = self.shown();
        let doing = || format!("cannot list {}", self.run.display());
        for entry in fs::read_dir(&self.run).doing(doing)? {
            let path = entry.doing(doing)?.path();
            let names = path.file_name().is_some_and(|name| name.len() == DIGITS);
            if names && !shown.contains_key(&path) {
                hide(&path)?;
            }
        }
        Ok(())
    }
}

fn hide_some(
    shown: &mut HashMap<PathBuf, ShownNames>,
    which: impl Fn(&Path, &ShownNames) -> bool,
) -> Result<()> {
    let mut gone = Vec::new();
    shown.retain(|place, names| {
        let stays = !which(place, names);
        if !stays {
            gone.push(place.clone());
        }
        stays
    });
    gone.iter().try_for_each(|place| hide(place))
}

/// Makes a directory with that mode, whatever the umask says, unless it is there; says whether it
/// was not.
fn make_dir(dir: &Path, mode: u32) -> std::io::Result<bool> {
    match fs::create_dir(dir) {
        Ok(()) => fs::set_permissions(dir, Permissions::from_mode(mode)).map(|()| true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

fn hide(place: &Path) -> Result<()> {
    while is_mounted(place)? {
        unmount_names(place)?;
    }
    match fs::remove_dir(place) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).doing(|| format!("cannot remove {}", place.display())),
    }
}

/// Copies the attributes that are the image's, not overlayfs' own.
fn copy_xattrs(from: &Path, to: &Path) -> rustix::io::Result<()> {
    use rustix::fs::{XattrFlags, getxattr, listxattr, setxattr};
    let mut names = vec![0; 64 << 10];
    let length = listxattr(from, &mut names)?;
    let names = names.get(..length).unwrap_or_default();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.") {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        let length = getxattr(from, name, &mut value)?;
        setxattr(to, name, value.get(..length).unwrap_or_default(), XattrFlags::empty())?;
    }
    Ok(())
}

/// Whether a process serves what is mounted there.
fn is_served(place: &Path) -> bool {
    /// `FUSE_SUPER_MAGIC` (statfs(2)).
    const FUSE: u64 = 0x6573_5546;
    rustix::fs::statfs(place).is_ok_and(|found| u64::try_from(found.f_type) == Ok(FUSE))
}

/// Whether something is mounted on a directory, which need not be there. What a process served that
/// is no more is taken away.
fn is_mounted(place: &Path) -> Result<bool> {
    use rustix::fs::{AtFlags, StatxAttributes, StatxFlags};
    // Who serves it is asked, whatever the kernel remembers.
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_FORCE_SYNC;
    match rustix::fs::statx(CWD, place, flags, StatxFlags::BASIC_STATS) {
        Err(Errno::NOTCONN) => {
            unmount_names(place)?;
            is_mounted(place)
        }
        Ok(found) => Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno).doing(|| format!("cannot stat {}", place.display())),
    }
}

#[cfg(test)]
mod tests {
    use strata_testkit::needs;
    use strata_testkit::tars::Tar;
    use stratafs::{LayerInput, Quiet};

    use super::*;

    #[test]
    fn nobody_waits_for_names_that_are_being_written() {
        if !needs::root() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let (root, run) = (place.path().join("store"), place.path().join("run"));
        let store = Store::open(&root).unwrap();
        let input = LayerInput {
            label: "a layer".to_owned(),
            diff_id: None,
            blob: None,
            reader: Box::new(io::Cursor::new(Tar::default().file(b"file", b"text").end())),
        };
        let layer = store.unpack(input, &Quiet).unwrap().layer;
        let chain = [*layer.diff_id()];
        let places = SnapshotPlaces::make(&root, &run, LowerBackend::Auto).unwrap();
        let writing = places.writing.lock(&chain_id(&chain).unwrap().hex());
        std::thread::scope(|scope| {
            let showing = scope.spawn(|| places.show_names(&store, SnapshotId(1), &chain));
            // Long enough that it waits for its turn to write.
            std::thread::sleep(Duration::from_millis(300));
            let since = Instant::now();
            let free = loop {
                let free = places.shown.try_lock().is_ok();
                if free || since.elapsed() > Duration::from_secs(10) {
                    break free;
                }
                std::thread::sleep(Duration::from_millis(10));
            };
            let waits = !showing.is_finished();
            drop(writing);
            showing.join().unwrap().unwrap();
            assert!(free && waits);
        });
        assert!(places.release(SnapshotId(1), false).unwrap());
    }
}
