//! Writable layers: kept in the store, put on top of an image, committed.
//!
//! ```text
//! ROOT/uppers/<name>/upper.json   which image it belongs to
//!                   /upper/       its changes (crates/union, writable)
//!                   /work/        what is being made
//! ```
//!
//! Invariants: a directory of `uppers/` is complete as soon as it has its name; an upper is locked
//! (flock on its directory) while a mount writes to it, and from its making on until the mount that
//! it is made for has it; a temporary upper goes with the [`UpperLease`] that was mounted.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{CWD, FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use strata_content::FileTree;
use strata_tree::{ImageId, NAME_MAX, Name, remove_tree, space_used};
use strata_union::writable::{Ownership, Union, UnionOptions, UpperView};

use crate::error::{Error, ErrorContext, Result, bail};
use crate::mounts::MountRecords;

mod check;
mod commit;
mod lease;

pub use check::UpperProblem;
pub use commit::{CommitOptions, Committed};
pub(crate) use commit::{diff_pipe, write_diff};
pub use lease::{HeldUpper, UpperLease};

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
    /// What is wrong with its `upper.json`. Such an upper can be listed and removed, and no more.
    #[serde(skip)]
    pub damage: Option<String>,
}

impl NamedUpper {
    /// How its marks and owners are kept: fixed when it was made.
    pub fn options(&self) -> UnionOptions {
        let ownership = if self.apart { Ownership::Override } else { Ownership::Inode };
        let user_marks = self.apart || self.user_marks;
        UnionOptions { ownership, user_marks, ..UnionOptions::default() }
    }

    /// When it was made; `None` if that is no time, or not known.
    pub fn created_at(&self) -> Option<Timestamp> {
        if self.damage.is_some() {
            return None;
        }
        Timestamp::from_second(i64::try_from(self.created).ok()?).ok()
    }

    /// Refuses an image that is not the one below, which is `shown` to people.
    pub(crate) fn require(&self, image: &ImageId, shown: &str) -> Result<()> {
        let own = self.image_id()?;
        if own != *image {
            let (name, reference, short) = (&self.name, &self.reference, own.short());
            bail!(
                "upper {name} belongs to {reference} ({short}), not to {shown}; choose another \
                   name"
            )
        }
        Ok(())
    }

    /// The image below.
    ///
    /// # Errors
    /// `Refused`: its description is damaged and does not tell.
    pub fn image_id(&self) -> Result<ImageId> {
        self.image.parse().map_err(|why| self.unusable(&format!("{why}")))
    }

    /// Refuses one whose description is damaged.
    ///
    /// # Errors
    /// `Refused`: what is wrong with it, and the way out.
    pub fn whole(self) -> Result<Self> {
        match &self.damage {
            Some(why) => Err(self.unusable(why)),
            None => Ok(self),
        }
    }

    /// What is wrong with it, and the way out.
    fn unusable(&self, why: &str) -> Error {
        let (name, why) = (&self.name, self.damage.as_deref().unwrap_or(why));
        Error::Refused(format!(
            "the upper.json of upper {name} is damaged: {why}; `strata rm {name}` removes the \
             upper with what was written into it"
        ))
    }

    /// One from the text of its description.
    fn parse(name: &str, text: &[u8]) -> Self {
        let read = serde_json::from_slice::<Self>(text).map_err(|error| error.to_string());
        let read = read.and_then(|upper| match upper.image.parse::<ImageId>() {
            Ok(_) => Ok(upper),
            Err(why) => Err(format!("it names the image {:?}: {why}", upper.image)),
        });
        match read {
            Ok(upper) => Self { name: name.to_owned(), ..upper },
            Err(why) => {
                // Images that it is certainly not on can go.
                let value = serde_json::from_slice::<serde_json::Value>(text).unwrap_or_default();
                Self::damaged(name, value["image"].as_str().unwrap_or_default(), why)
            }
        }
    }

    /// One of which no more is known than the image, if that.
    fn damaged(name: &str, image: &str, why: String) -> Self {
        Self {
            name: name.to_owned(),
            image: image.to_owned(),
            reference: "(damaged)".to_owned(),
            created: 0,
            temporary: false,
            apart: false,
            user_marks: false,
            damage: Some(why),
        }
    }
}

/// All uppers of a store.
pub struct Uppers {
    dir: PathBuf,
    records: MountRecords,
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
    /// `Doing`, `Io`, naming the upper; `Refused` for what cannot be its name, or is damaged.
    pub fn find(&self, name: &str) -> Result<Option<NamedUpper>> {
        self.known(name)?.map(NamedUpper::whole).transpose()
    }

    /// The same, damaged as it may be.
    ///
    /// # Errors
    /// `Doing`, `Io`, naming the upper; `Refused` for what cannot be its name.
    pub fn known(&self, name: &str) -> Result<Option<NamedUpper>> {
        let dir = self.path(name)?;
        let path = dir.join("upper.json");
        let doing = || format!("cannot read {}", path.display());
        match fs::read(&path) {
            Ok(text) => Ok(Some(NamedUpper::parse(name, &text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // The root of a disk has other directories than uppers, such as lost+found.
                let changes = dir.join("upper").try_exists().with_context(doing)?;
                Ok(changes.then(|| NamedUpper::damaged(name, "", "it is not there".to_owned())))
            }
            Err(error) => Err(error).with_context(doing),
        }
    }

    /// All of them, by name, for a caller that asks which images they are on: damaged ones too, as
    /// far as their image can be told.
    ///
    /// # Errors
    /// `Doing`, `Io`, naming the upper; `Refused` for a damaged one that may be on any image.
    pub fn all(&self) -> Result<Vec<NamedUpper>> {
        let all = self.listed()?;
        all.iter().try_for_each(|upper| upper.image_id().map(drop))?;
        Ok(all)
    }

    /// All of them, by name, damaged as they may be.
    ///
    /// # Errors
    /// `Doing`, `Io`, naming the upper.
    pub fn listed(&self) -> Result<Vec<NamedUpper>> {
        let mut all = Vec::new();
        for entry in self.entries()? {
            if let Some(name) = entry.file_name().to_str().filter(|name| !name.starts_with('.')) {
                all.extend(self.known(name)?);
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// What is in the directory of all uppers, which need not be there.
    fn entries(&self) -> Result<Vec<fs::DirEntry>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            opened => opened.and_then(Iterator::collect),
        };
        entries.with_context(|| format!("cannot list {}", self.dir.display()))
    }

    /// One that is on the image, if there is any now.
    ///
    /// # Errors
    /// As [`Uppers::all`].
    pub fn on_image(&self, image: &ImageId) -> Result<Option<NamedUpper>> {
        let image = image.to_string();
        Ok(self.all()?.into_iter().find(|upper| upper.image == image))
    }

    /// Whether the image may be under one now: also where that cannot be told, as for a removal.
    pub fn may_be_on(&self, image: &ImageId) -> bool {
        !matches!(self.on_image(image), Ok(None))
    }

    /// Makes an upper; its root looks like the image's. Nobody else writes to it as long as what
    /// this gives lives.
    ///
    /// # Errors
    /// `Doing`, `Io`, naming the upper; `Refused` for what cannot be its name.
    pub fn create(&self, upper: &NamedUpper, tree: FileTree) -> Result<HeldUpper> {
        let target = self.path(&upper.name)?;
        let doing = || format!("cannot make the upper {}", upper.name);
        let staged = self.dir.join(format!(".{}-{}", upper.name, std::process::id()));
        let made = (|| -> Result<HeldUpper> {
            for part in ["upper", "work"] {
                fs::create_dir_all(staged.join(part)).with_context(doing)?;
            }
            let text = serde_json::to_vec_pretty(upper).with_context(doing)?;
            fs::write(staged.join("upper.json"), text).with_context(doing)?;
            let [changes, work] = ["upper", "work"].map(|part| staged.join(part));
            let union = Union::open(tree, &changes, &work, upper.options()).with_context(doing)?;
            union.adopt_root().with_context(doing)?;
            union.sync().with_context(doing)?;
            let held = HeldUpper::new(upper, &staged).with_context(doing)?;
            match strata_tree::rename_new((CWD, &staged), (CWD, &target)) {
                Err(Errno::EXIST) => bail!("there is an upper {} already", upper.name),
                placed => placed.with_context(doing)?,
            }
            Ok(held)
        })();
        if made.is_err() {
            // The failure itself is the better message.
            let _ = remove_tree(CWD, &staged);
        }
        made
    }

    /// Whether a mount writes to it now.
    ///
    /// # Errors
    /// `Doing`, `Io`, naming the upper; `Refused` for what cannot be its name.
    pub fn is_mounted(&self, upper: &NamedUpper) -> Result<bool> {
        let path = self.path(&upper.name)?;
        let doing = || format!("cannot open {}", path.display());
        let lock = File::open(&path).with_context(doing)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => self.has_kernel_mount(upper),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(errno) => Err(errno).with_context(doing),
        }
    }

    /// Puts an upper on top of its image, for writing.
    ///
    /// # Errors
    /// `Doing`, `Io`, naming the upper; `Refused` for what cannot be its name.
    pub fn open(&self, upper: &NamedUpper, tree: FileTree) -> Result<Union> {
        let path = self.path(&upper.name)?;
        let opened = Union::open(tree, &path.join("upper"), &path.join("work"), upper.options());
        opened.with_context(|| format!("cannot open the upper {}", upper.name))
    }

    /// The same for reading, also while it is mounted.
    ///
    /// # Errors
    /// `Doing`, `Io`, naming the upper; `Refused` for what cannot be its name.
    pub fn view(&self, upper: &NamedUpper, tree: FileTree) -> Result<UpperView> {
        let opened = UpperView::open(tree, &self.path(&upper.name)?.join("upper"), upper.options());
        opened.with_context(|| format!("cannot read the upper {}", upper.name))
    }

    /// Removes an upper that nobody has mounted.
    ///
    /// # Errors
    /// `Doing`, `Io`, naming the upper; `Refused` for what cannot be its name.
    pub fn remove(&self, upper: &NamedUpper) -> Result<()> {
        let _lease = self.lease(&HeldUpper::from(upper.clone()).kept())?;
        self.take_away(&upper.name)
    }

    /// Removes an upper that the caller has leased.
    fn take_away(&self, name: &str) -> Result<()> {
        let path = self.path(name)?;
        let gone = self.dir.join(format!(".removed-{name}-{}", std::process::id()));
        let doing = || format!("cannot remove the upper {name}");
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
        for upper in self.listed()? {
            if upper.damage.is_some() {
                // Whether it is to go, nobody knows.
                tracing::warn!("{}", upper.unusable(""));
            } else if upper.temporary && !self.is_mounted(&upper)? {
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
        let mut halves = Vec::new();
        for entry in self.entries()? {
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
    use crate::Engine;

    #[test]
    fn an_upper_is_held_from_its_making_on_and_stays_on_its_image() {
        let place = tempfile::tempdir().unwrap();
        let engine = Engine::new(place.path().join("store"));
        for fixture in ["busybox-gzip.oci.tar", "cases.oci"] {
            engine.load(strata_testkit::fixture(fixture), &crate::Quiet).unwrap();
        }
        let [own, other] = ["stratafs.test/busybox:1", "cases.oci:1"];
        let [image, another] = [own, other].map(|name| engine.image(name).unwrap());
        let uppers = engine.uppers();
        let (held, made) = engine.upper_for(&image, own, None, false).unwrap();
        assert!(made && held.upper.temporary);
        // Its mount is only starting: that is no crash.
        assert_eq!(uppers.clean().unwrap(), Vec::<String>::new());
        assert!(uppers.is_mounted(&held.upper).unwrap());
        // As a daemon inherits it.
        let inherited = held.lock().unwrap().try_clone_to_owned().unwrap();
        let upper = held.upper.clone();
        drop(held);
        let adopted = uppers.adopt(upper.clone(), inherited).unwrap();
        assert_eq!(uppers.clean().unwrap(), Vec::<String>::new());
        let foreign = File::open(uppers.dir_of(&upper).unwrap()).unwrap();
        assert!(uppers.adopt(upper.clone(), foreign.into()).unwrap().lock().is_none());

        let settings = crate::MountSettings::on(place.path());
        let Err(refused) = engine.mount_writable(another, adopted.clone(), &settings) else {
            panic!("an upper is on another image")
        };
        assert!(refused.to_string().contains("belongs to stratafs.test/busybox:1"), "{refused}");

        // Of clones one is mounted, and then another once that has ended.
        let kept = adopted.clone().kept();
        let lease = uppers.lease(&kept).unwrap();
        let refused = uppers.lease(&kept.clone()).err().unwrap().to_string();
        assert!(refused.contains("is in use"), "{refused}");
        drop(lease);
        drop(uppers.lease(&kept).unwrap());

        // A daemon that lives has the lock, and no record yet.
        let refused = uppers.discard(adopted).unwrap_err().to_string();
        assert!(refused.contains("is in use"), "{refused}");
        uppers.discard(kept).unwrap();
        assert!(uppers.find(&upper.name).unwrap().is_none());
        uppers.discard(upper.into()).unwrap();
        let (held, _) = engine.upper_for(&image, own, None, false).unwrap();
        let name = held.upper.name.clone();
        drop(held);
        assert_eq!(uppers.clean().unwrap(), [name]);
    }

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
