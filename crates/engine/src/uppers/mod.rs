//! Writable layers: kept in the store, put on top of an image, committed.
//!
//! ```text
//! ROOT/uppers/<name>/upper.json   which image it belongs to
//!                   /upper/       its changes (crates/union, writable)
//!                   /work/        what is being made
//! ```
//!
//! Invariants: a directory of `uppers/` is complete as soon as it has its name; an upper is locked
//! (flock on its directory) while a mount writes to it; a temporary upper goes with the
//! [`UpperLease`] that was mounted.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{CWD, FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use strata_content::FileTree;
use strata_layer::KernelLeases;
use strata_tree::{ImageId, NAME_MAX, Name, remove_tree, space_used};
use strata_union::UseLock;
use strata_union::writable::{Ownership, Union, UnionOptions, UpperView};

use crate::error::{Error, ErrorContext, Result, bail};
use crate::mounts::{MountInfo, MountRecords, list};

mod commit;

pub use commit::{CommitOptions, Committed};
pub(crate) use commit::{diff_pipe, write_diff};

/// `upper.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedUpper {
    /// Its name.
    #[serde(skip)]
    pub name: String,
    /// The id of the image below.
    pub image: String,
    /// The image as the user named it.
    pub reference: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// It goes when it is unmounted.
    pub temporary: bool,
    /// Owners and modes are kept in `user.containers.override_stat`.
    pub apart: bool,
    /// Marks are `user.overlay.*` all the same if not: root of a user namespace may set no others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub user_marks: bool,
}

impl NamedUpper {
    /// How its marks and owners are kept: fixed when it was made.
    pub fn options(&self) -> UnionOptions {
        let ownership = if self.apart { Ownership::Override } else { Ownership::Inode };
        let user_marks = self.apart || self.user_marks;
        UnionOptions { ownership, user_marks, ..UnionOptions::default() }
    }

    /// When it was made; `None` if that is no time.
    pub fn created_at(&self) -> Option<Timestamp> {
        Timestamp::from_second(i64::try_from(self.created).ok()?).ok()
    }

    /// The image below.
    ///
    /// # Errors
    /// `Doing`, `Io`, naming the upper; `Refused` for what cannot be its name.
    pub fn image_id(&self) -> Result<ImageId> {
        let text = &self.image;
        text.parse().map_err(|why: strata_tree::DigestError| {
            Error::Refused(format!("upper {} names the image {text:?}: {why}", self.name))
        })
    }
}

/// All uppers of a store.
pub struct Uppers {
    dir: PathBuf,
    records: MountRecords,
}

/// An upper that is being written. When this is dropped, the upper is released, and removed if it
/// is temporary.
pub struct UpperLease {
    path: PathBuf,
    temporary: bool,
    _lock: UseLock,
}

impl Drop for UpperLease {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = remove_tree(CWD, &self.path)
        {
            tracing::error!("cannot remove the upper {}: {error}", self.path.display());
        }
    }
}

impl Uppers {
    pub(crate) fn new(root: &Path, records: MountRecords) -> Self {
        Self { dir: root.join("uppers"), records }
    }

    /// A name that can be: one component that does not begin with a dot.
    fn path(&self, name: &str) -> Result<PathBuf> {
        let fits = Name::new(name.as_bytes()).is_ok() && name.len() < NAME_MAX - 16;
        if !fits || name.starts_with('.') {
            bail!("{name:?} cannot be the name of an upper; use letters, digits, - and _");
        }
        Ok(self.dir.join(name))
    }

    /// The directory of an upper.
    ///
    /// # Errors
    /// `Doing`, `Io`, naming the upper; `Refused` for what cannot be its name.
    pub fn dir_of(&self, upper: &NamedUpper) -> Result<PathBuf> {
        self.path(&upper.name)
    }

    /// One upper, if there is one of that name.
    ///
    /// # Errors
    /// `Doing`, `Io`, naming the upper; `Refused` for what cannot be its name.
    pub fn find(&self, name: &str) -> Result<Option<NamedUpper>> {
        let path = self.path(name)?.join("upper.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let upper: NamedUpper = serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged", path.display()))?;
        Ok(Some(NamedUpper { name: name.to_owned(), ..upper }))
    }

    /// All of them, by name.
    ///
    /// # Errors
    /// `Doing`, `Io`, naming the upper; `Refused` for what cannot be its name.
    pub fn all(&self) -> Result<Vec<NamedUpper>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot list {}", self.dir.display()));
            }
        };
        let mut all = Vec::new();
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot list {}", self.dir.display()))?;
            if let Some(name) = entry.file_name().to_str().filter(|name| !name.starts_with('.')) {
                all.extend(self.find(name)?);
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Makes an upper; its root looks like the image's.
    ///
    /// # Errors
    /// `Doing`, `Io`, naming the upper; `Refused` for what cannot be its name.
    pub fn create(&self, upper: &NamedUpper, tree: FileTree) -> Result<()> {
        let target = self.path(&upper.name)?;
        let doing = || format!("cannot make the upper {}", upper.name);
        let staged = self.dir.join(format!(".{}-{}", upper.name, std::process::id()));
        let made = (|| -> Result<()> {
            for part in ["upper", "work"] {
                fs::create_dir_all(staged.join(part)).with_context(doing)?;
            }
            let text = serde_json::to_vec_pretty(upper).with_context(doing)?;
            fs::write(staged.join("upper.json"), text).with_context(doing)?;
            let union =
                Union::open(tree, &staged.join("upper"), &staged.join("work"), upper.options())?;
            union.adopt_root().with_context(doing)?;
            union.sync().with_context(doing)?;
            match strata_tree::rename_new((CWD, &staged), (CWD, &target)) {
                Err(Errno::EXIST) => bail!("there is an upper {} already", upper.name),
                placed => placed.with_context(doing),
            }
        })();
        if made.is_err() {
            // The failure itself is the better message.
            let _ = remove_tree(CWD, &staged);
        }
        made
    }

    /// Takes an upper for writing.
    ///
    /// # Errors
    /// `Doing`, `Io`, naming the upper; `Refused` for what cannot be its name.
    pub fn lease(&self, upper: &NamedUpper) -> Result<UpperLease> {
        let path = self.path(&upper.name)?;
        let dir = File::open(&path).with_context(|| format!("no upper {}", upper.name))?;
        let lock =
            UseLock::take(&dir).with_context(|| format!("cannot lock {}", path.display()))?;
        let Some(lock) = lock else {
            bail!("upper {} is in use: {}", upper.name, self.user(upper))
        };
        if self.has_kernel_mount(upper)? {
            bail!("upper {} is in use: {}", upper.name, self.user(upper))
        }
        Ok(UpperLease { path, temporary: upper.temporary, _lock: lock })
    }

    /// Whether a mount that the kernel serves writes to it.
    fn has_kernel_mount(&self, upper: &NamedUpper) -> Result<bool> {
        let kept = KernelLeases::new(self.records.dir()).kept()?;
        Ok(kept.iter().any(|lease| lease.upper.as_ref() == Some(&upper.name)))
    }

    fn user(&self, upper: &NamedUpper) -> String {
        let mounts = list::list(&self.records).unwrap_or_default();
        match MountInfo::of_upper(&mounts, &upper.name) {
            Some(mount) => format!("it is {}", mount.and_its_end()),
            None => "a running command writes to it, and an upper has one writer".to_owned(),
        }
    }

    /// Whether a mount writes to it now.
    ///
    /// # Errors
    /// `Doing`, `Io`, naming the upper; `Refused` for what cannot be its name.
    pub fn is_mounted(&self, upper: &NamedUpper) -> Result<bool> {
        let lock = File::open(self.path(&upper.name)?)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => self.has_kernel_mount(upper),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Puts an upper on top of its image, for writing.
    ///
    /// # Errors
    /// `Doing`, `Io`, naming the upper; `Refused` for what cannot be its name.
    pub fn open(&self, upper: &NamedUpper, tree: FileTree) -> Result<Union> {
        let path = self.path(&upper.name)?;
        Ok(Union::open(tree, &path.join("upper"), &path.join("work"), upper.options())?)
    }

    /// The same for reading, also while it is mounted.
    ///
    /// # Errors
    /// `Doing`, `Io`, naming the upper; `Refused` for what cannot be its name.
    pub fn view(&self, upper: &NamedUpper, tree: FileTree) -> Result<UpperView> {
        Ok(UpperView::open(tree, &self.path(&upper.name)?.join("upper"), upper.options())?)
    }

    /// Removes an upper that nobody has mounted.
    ///
    /// # Errors
    /// `Doing`, `Io`, naming the upper; `Refused` for what cannot be its name.
    pub fn remove(&self, upper: &NamedUpper) -> Result<()> {
        let _lease = self.lease(&NamedUpper { temporary: false, ..upper.clone() })?;
        let path = self.path(&upper.name)?;
        let gone = self.dir.join(format!(".removed-{}-{}", upper.name, std::process::id()));
        let doing = || format!("cannot remove the upper {}", upper.name);
        // Renamed out of sight first: half an upper is never seen.
        fs::rename(&path, &gone).with_context(doing)?;
        // It stays removed, whatever happens to the power.
        fs::File::open(&self.dir).and_then(|dir| dir.sync_all()).with_context(doing)?;
        remove_tree(CWD, &gone).with_context(doing)
    }

    /// Bytes that its files take on disk, one with several names once.
    ///
    /// # Errors
    /// `Doing`, `Io`, naming the upper; `Refused` for what cannot be its name.
    pub fn bytes(&self, upper: &NamedUpper) -> Result<u64> {
        let used = space_used(CWD, &self.path(&upper.name)?.join("upper"));
        Ok(used.with_context(|| format!("cannot measure the upper {}", upper.name))?.bytes)
    }

    /// Removes what a crash left: temporary uppers that nobody has mounted, and halves of others.
    /// One that cannot be removed keeps no other from it: the log has it.
    ///
    /// # Errors
    /// `Doing`, `Io`, naming the upper; `Refused` for what cannot be its name.
    pub fn clean(&self) -> Result<Vec<String>> {
        let mut gone = Vec::new();
        for half in self.halves()? {
            match remove_tree(CWD, &half) {
                // Another process has removed it.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => tracing::warn!("cannot remove {}: {error}", half.display()),
            }
        }
        for upper in self.all()? {
            if upper.temporary && !self.is_mounted(&upper)? {
                match self.remove(&upper) {
                    Ok(()) => gone.push(upper.name),
                    Err(error) => tracing::warn!("{error}"),
                }
            }
        }
        Ok(gone)
    }

    /// Half-made and half-removed uppers whose process is gone.
    fn halves(&self) -> Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut halves = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| name.starts_with('.')) else { continue };
            let pid = name.rsplit_once('-').and_then(|(_, pid)| pid.parse::<i32>().ok());
            let alive = pid
                .and_then(rustix::process::Pid::from_raw)
                .is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(Errno::SRCH));
            if !alive {
                halves.push(entry.path());
            }
        }
        Ok(halves)
    }
}

#[cfg(test)]
mod tests {
    use strata_testkit::hard::{Immutable, nest, quick_dir};

    use super::*;

    #[test]
    fn what_is_deep_or_cannot_go_does_not_stop_a_cleaning() {
        let root = quick_dir();
        let records = MountRecords::open(root.path(), None).unwrap();
        let uppers = Uppers::new(root.path(), records);
        // Of a process that is no more: numbers end before that.
        let [stuck, deep] = ["stuck", "deep"]
            .map(|name| root.path().join(format!("uppers/.removed-{name}-{}", i32::MAX)));
        fs::create_dir_all(&deep).unwrap();
        nest(&deep, 15_000);
        fs::create_dir_all(&stuck).unwrap();
        let kept = Immutable::make(&stuck.join("kept"));
        assert_eq!(uppers.clean().unwrap(), Vec::<String>::new());
        assert_eq!((stuck.exists(), deep.exists()), (kept.is_some(), false));
        drop(kept);
        uppers.clean().unwrap();
        assert!(!stuck.exists());
    }
}
