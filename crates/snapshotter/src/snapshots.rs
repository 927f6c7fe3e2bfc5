//! The snapshots API without its transport: what each call does.
//!
//! ```text
//! Prepare   row + upper, names of the parent's chain mounted     -> overlay mount
//! (Apply)   a blob becomes a layer of the store, above the parent's
//! Commit    the upper, if anything was written, becomes a layer; the row gets its name
//! Remove    row away, holds away, upper away; see the module `going`
//! ```
//!
//! The layers of a row are held in the store ([`Holds`]) before the row is written, and let go
//! after it is gone. So at any moment what a row names is in the store; a hold too many, an upper
//! without a row, and names that nobody needs are taken away at the next start.
//!
//! Invariants: calls for one name wait for each other; the record is locked for short times, never
//! while a layer is read or written; one program at a time has the record of a store, and one has a
//! directory of names.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use strata_tree::{ChainId, DiffId};
use stratafs::{Engine, Holds, LeasedLayer, Store, chain_above, chain_id, mount_hindrance};

use crate::args::LowerBackend;
use crate::error::{Error, IoDoing, Result};
use crate::fetched::FetchedImages;
use crate::filter::SnapshotFilters;
use crate::keys::{KeyLock, Keys};
use crate::labels;
use crate::naming;
use crate::places::{SnapshotMount, SnapshotPlaces};
use crate::remote::Fetcher;
use crate::state::{Labels, NewSnapshot, SnapshotKind, SnapshotRow, SnapshotUsage, State};
use crate::taking::{CommitHook, CommitStep, UpperTaking, hold_for};

mod going;

/// The name under which the store's holds are kept.
const HOLDER: &str = "containerd";

/// All snapshots of a store.
pub(crate) struct Snapshots {
    pub(crate) store: Store,
    pub(crate) places: SnapshotPlaces,
    state: Mutex<State>,
    holds: Holds,
    keys: Keys,
    fetcher: Fetcher,
    /// Diffs that were applied and made since the start.
    diffs: [AtomicU64; 2],
    /// How long layers stay that no snapshot has any more.
    kept: Duration,
    /// Told of every step of a commit, by tests.
    on_step: Option<CommitHook>,
    /// The locks of the record, and of the directory of names.
    _alone: [File; 2],
}

/// What there is, in numbers; bytes are those of contents.
pub(crate) struct Facts {
    /// One for each snapshot.
    pub(crate) kinds: Vec<SnapshotKind>,
    /// Images that were fetched, and that could not be, since the start.
    pub(crate) pulls: u64,
    pub(crate) failures: u64,
    /// Diffs that were applied and made since the start.
    pub(crate) diffs: (u64, u64),
    pub(crate) layers: u64,
    pub(crate) stored: u64,
    pub(crate) shared: u64,
    pub(crate) apparent: u64,
}

/// A change of labels: of all, or of those that are named.
pub(crate) enum LabelMask {
    All,
    Named(Vec<String>),
}

impl Snapshots {
    /// Opens what is there, and mends what a crash left.
    pub(crate) fn open(
        engine: &Engine,
        run: (&Path, LowerBackend),
        program: &Path,
        kept: Duration,
    ) -> Result<Self> {
        let of = |store| Self::of_store(store, run, program, kept, None);
        match engine.made_store().map_err(Error::from).and_then(of) {
            // What is removed is written down first, and so is what a start mends.
            Err(error) if error.is_full() => match Store::shed(engine.root()) {
                Ok(1..) => of(Store::open_with(engine.root(), engine.store_options())?),
                Ok(0) | Err(_) => Err(error),
            },
            opened => opened,
        }
    }

    /// The same of a store that is open.
    pub(crate) fn of_store(
        store: Store,
        (run, backend): (&Path, LowerBackend),
        program: &Path,
        kept: Duration,
        on_step: Option<CommitHook>,
    ) -> Result<Self> {
        if let Some(why) = mount_hindrance() {
            let why = format!("layers cannot be mounted for containerd: {why}");
            return Err(Error::FailedPrecondition(why));
        }
        let root = store.root().canonicalize();
        let root = root.doing(|| format!("cannot find {}", store.root().display()))?;
        let places = SnapshotPlaces::make(&root, run, backend)?;
        let alone = [lock_store(&root)?, lock_names(places.run())?];
        let tags = || Ok(store.images().tags()?);
        let state = State::open(&root.join("containerd/snapshots.db"), tags)?;
        if !state.lengthen_log()? {
            tracing::warn!("the disk of {} is full", root.display());
            Store::shed(&root)?;
            state.lengthen_log()?;
        }
        let snapshots = Self {
            holds: Holds::of(&root, HOLDER)?,
            store,
            places,
            state: Mutex::new(state),
            keys: Keys::default(),
            fetcher: Fetcher::new(program.to_owned(), root.clone()),
            diffs: Default::default(),
            kept,
            on_step,
            _alone: alone,
        };
        snapshots.mend()?;
        Ok(snapshots)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a snapshot to be written or read.
    ///
    /// # Errors
    /// `AlreadyExists` also where the layer that is to be unpacked into it is in the store: there
    /// is a committed snapshot with that label then.
    pub(crate) fn prepare(
        &self,
        kind: SnapshotKind,
        key: &str,
        parent: &str,
        labels: &Labels,
    ) -> Result<Vec<SnapshotMount>> {
        let _alone = self.keys.lock(key);
        self.state().parent(parent)?;
        if kind == SnapshotKind::Active
            && let Some(chain) = labels.get(labels::REF)
            && self.has_layer(chain, parent, labels)?
        {
            return Err(Error::AlreadyExists(chain.clone()));
        }
        let new = NewSnapshot {
            name: key,
            parent,
            kind,
            labels,
            layers: &[],
            usage: SnapshotUsage::default(),
        };
        let (made, chain) = {
            let mut state = self.state();
            let made = state.insert(&new, |id| self.places.make_upper(id, kind))?;
            let chain = state.chain(parent)?;
            (made, chain)
        };
        // Also where a layer is to be unpacked: nobody knows yet which differ will be asked, and
        // one that writes into the upper looks for directories in the names.
        let ready = self
            .places
            .show_names(&self.store, made.id, &chain)
            .and_then(|()| self.places.adopt_root(made.id, &chain));
        if let Err(error) = ready {
            self.forget(key)?;
            return Err(error);
        }
        Ok(self.places.mounts(&made, &chain))
    }

    /// Sees whether the store has the layer, or can have it fetched.
    fn has_layer(&self, chain: &str, parent: &str, labels: &Labels) -> Result<bool> {
        if self.find_layer(chain, parent, labels)? {
            return Ok(true);
        }
        let Some(image) = Fetcher::image_of(labels) else { return Ok(false) };
        let name = labels.get(labels::CRI_IMAGE).map(String::as_str);
        let is_there = || self.layer_above(parent, chain).is_ok_and(|layer| layer.is_some());
        self.fetched().fetch(&image, name, is_there, || self.find_layer(chain, parent, labels))
    }

    /// Images that were fetched for containerd.
    pub(crate) fn fetched(&self) -> FetchedImages<'_> {
        let Self { store, state, fetcher, holds, .. } = self;
        FetchedImages { store, state, fetcher, holds }
    }

    /// Sees whether the store has the layer that makes `chain` of the parent, and commits it.
    fn find_layer(&self, chain: &str, parent: &str, labels: &Labels) -> Result<bool> {
        let below = {
            let state = self.state();
            let mut children = state.children(parent)?.into_iter();
            if children
                .any(|one| one.kind == SnapshotKind::Committed && labels::names(&one.labels, chain))
            {
                return Ok(true);
            }
            state.chain(parent)?
        };
        let layers = match self.layer_above(parent, chain)? {
            Some(layer) => vec![layer],
            None => match self.unpacked_before(&below, chain)? {
                Some(layers) => layers,
                None => return Ok(false),
            },
        };
        self.commit_layers(chain, parent, labels, &layers)?;
        Ok(true)
    }

    /// The layers that containerd's own unpack of `chain` came to, if they are there still.
    fn unpacked_before(&self, below: &[DiffId], chain: &str) -> Result<Option<Vec<LeasedLayer>>> {
        let Some(layers) = self.state().layers_of_chain(chain, below)? else { return Ok(None) };
        let mut leased = Vec::new();
        for layer in &layers {
            let Some(lease) = self.store.lease(layer)? else { return Ok(None) };
            leased.push(lease);
        }
        Ok(Some(leased))
    }

    /// The layer of the store that makes `chain` of a parent: of its layers, or of the chain that
    /// it is to its image. Where containerd unpacked the parent those differ.
    fn layer_above(&self, parent: &str, chain: &str) -> Result<Option<LeasedLayer>> {
        let Ok(chain) = chain.parse::<ChainId>() else { return Ok(None) };
        let mut parents = Vec::new();
        {
            let state = self.state();
            parents.push(chain_id(&state.chain(parent)?));
            if let Some(row) = state.find(parent)? {
                let said = labels::chain_of(&row.name, &row.labels);
                parents.extend(said.and_then(|said| said.parse().ok()).map(Some));
            }
        }
        for record in self.store.layers()? {
            let makes = |parent: &Option<ChainId>| chain_above(parent.as_ref(), &record.diff_id);
            if parents.iter().any(|parent| makes(parent) == chain) {
                return Ok(self.store.lease(&record.diff_id)?);
            }
        }
        Ok(None)
    }

    /// Makes a committed snapshot of layers that are leased; its name is the chain, or where
    /// another has that, the chain with a number.
    pub(crate) fn commit_layers(
        &self,
        chain: &str,
        parent: &str,
        labels: &Labels,
        leased: &[LeasedLayer],
    ) -> Result<()> {
        let layers: Vec<DiffId> = leased.iter().map(|lease| *lease.diff_id()).collect();
        let usage = self.usage_of(&layers)?;
        let mut labels = labels.clone();
        labels.insert(labels::REMOTE.to_owned(), "remote snapshot".to_owned());
        self.hold(&layers, |state| {
            let mut name = chain.to_owned();
            for number in 2.. {
                if state.find(&name)?.is_none() {
                    break;
                }
                name = format!("{chain}/{number}");
            }
            let new = NewSnapshot {
                name: &name,
                parent,
                kind: SnapshotKind::Committed,
                labels: &labels,
                layers: &layers,
                usage,
            };
            state.insert(&new, |_| Ok(()))?;
            naming::name_snapshot(state, &self.holds, &name, &labels);
            Ok(())
        })
    }

    /// Holds layers for what `write` puts into the record.
    fn hold<T>(&self, layers: &[DiffId], write: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        hold_for(&self.state, &self.holds, layers, write)
    }

    /// The mounts of a snapshot that is to be written or read.
    pub(crate) fn mounts(&self, key: &str) -> Result<Vec<SnapshotMount>> {
        let _alone = self.keys.lock(key);
        let snapshot = self.state().get(key)?;
        self.mounts_of(&snapshot)
    }

    fn mounts_of(&self, snapshot: &SnapshotRow) -> Result<Vec<SnapshotMount>> {
        if snapshot.kind == SnapshotKind::Committed {
            let why = format!("snapshot {} is committed, and has no mounts", snapshot.name);
            return Err(Error::FailedPrecondition(why));
        }
        let chain = self.show(snapshot)?;
        Ok(self.places.mounts(snapshot, &chain))
    }

    /// Has the names of a snapshot mounted; gives its layers.
    pub(crate) fn show(&self, snapshot: &SnapshotRow) -> Result<Vec<DiffId>> {
        self.taking().mend(snapshot.id)?;
        let chain = self.state().chain(&snapshot.name)?;
        self.places.show_names(&self.store, snapshot.id, &chain)?;
        let unpacks = labels::is_unpack(&snapshot.name) || !snapshot.layers.is_empty();
        if unpacks && self.places.is_untouched(snapshot.id)? {
            self.places.adopt_root(snapshot.id, &chain)?;
        }
        Ok(chain)
    }

    /// Makes a committed snapshot of an active one.
    pub(crate) fn commit(&self, name: &str, key: &str, labels: &Labels) -> Result<()> {
        let _alone = self.keys.lock(key);
        let active = {
            let state = self.state();
            let active = state.get(key)?;
            if name.is_empty() {
                return Err(Error::InvalidArgument("a snapshot needs a name".to_owned()));
            }
            if state.find(name)?.is_some() {
                return Err(Error::AlreadyExists(name.to_owned()));
            }
            active
        };
        if active.kind != SnapshotKind::Active {
            let why = format!("snapshot {key} is {}, and not to be written", active.kind.name());
            return Err(Error::FailedPrecondition(why));
        }
        self.taking().mend(active.id)?;
        let active = self.state().get(key)?;
        let done = self.commit_active(&active, name, labels);
        if done.is_err() {
            // Whatever has become of the upper, the snapshot is as it was.
            self.taking().mend(active.id)?;
        }
        done
    }

    fn commit_active(&self, active: &SnapshotRow, name: &str, labels: &Labels) -> Result<()> {
        let (id, key) = (active.id, &active.name);
        let mut layers = active.layers.clone();
        let mut lease = None;
        if layers.is_empty() || !self.places.is_untouched(id)? {
            let chain = self.state().chain(key)?;
            if let Some(layer) = self.taking().take(id, &chain)? {
                layers.push(*layer.diff_id());
                lease = Some(layer);
            }
        }
        let usage = self.usage_of(&layers)?;
        let new = NewSnapshot {
            name,
            parent: &active.parent,
            kind: SnapshotKind::Committed,
            labels,
            layers: &layers,
            usage,
        };
        let below = self.state().chain(&active.parent)?;
        self.hold(&layers, |state| {
            state.commit(id, &new)?;
            naming::name_snapshot(state, &self.holds, name, labels);
            Ok(())
        })?;
        self.step(CommitStep::Recorded);
        drop(lease);
        self.leave(active, (name, &below, &layers));
        Ok(())
    }

    fn taking(&self) -> UpperTaking<'_> {
        let Self { store, places, state, holds, on_step, .. } = self;
        UpperTaking { store, places, state, holds, on_step: on_step.as_ref() }
    }

    /// Whether anything stays for later that no snapshot needs any more.
    fn keeps(&self) -> bool {
        !self.kept.is_zero()
    }

    fn step(&self, step: CommitStep) {
        if let Some(hook) = &self.on_step {
            hook(step);
        }
    }

    /// Writes the names that the first container above a committed snapshot needs. If there is
    /// something above it, it is not the `top` of an image, unless that is known.
    pub(crate) fn write_names(&self, name: &str, top: bool) -> Result<()> {
        let _alone = self.keys.lock(name);
        let chain = {
            let state = self.state();
            let committed =
                state.find(name)?.is_some_and(|one| one.kind == SnapshotKind::Committed);
            if !committed || !top && !state.children(name)?.is_empty() {
                return Ok(());
            }
            state.chain(name)?
        };
        self.places.write_names(&self.store, &chain)
    }

    /// What there is, in numbers.
    pub(crate) fn facts(&self) -> Result<Facts> {
        let kinds = self.state().kinds()?;
        let sharing = self.store.accounts().sharing()?;
        let shared = sharing.groups.iter().filter(|group| group.layers.len() > 1);
        let (pulls, failures) = self.fetcher.counts();
        let [applied, made] = &self.diffs;
        Ok(Facts {
            kinds,
            pulls,
            failures,
            diffs: (applied.load(Ordering::Relaxed), made.load(Ordering::Relaxed)),
            layers: sharing.layers.len() as u64,
            stored: sharing.groups.iter().map(|group| group.bytes).sum(),
            shared: shared.map(|group| group.bytes).sum(),
            apparent: sharing.apparent.iter().sum(),
        })
    }

    /// One snapshot.
    pub(crate) fn stat(&self, key: &str) -> Result<SnapshotRow> {
        self.state().get(key)
    }

    /// Those that a filter matches.
    pub(crate) fn list(&self, filters: &SnapshotFilters) -> Result<Vec<SnapshotRow>> {
        let mut all = self.state().all()?;
        all.retain(|one| filters.matches(one));
        Ok(all)
    }

    /// Changes labels.
    pub(crate) fn update(
        &self,
        key: &str,
        labels: &Labels,
        mask: &LabelMask,
    ) -> Result<SnapshotRow> {
        let mut state = self.state();
        let found = state.get(key)?;
        let labels = match mask {
            LabelMask::All => labels.clone(),
            LabelMask::Named(names) => {
                let mut changed = found.labels;
                for name in names {
                    match labels.get(name) {
                        Some(value) => changed.insert(name.clone(), value.clone()),
                        None => changed.remove(name),
                    };
                }
                changed
            }
        };
        state.set_labels(found.id, &labels)?;
        state.get(key)
    }

    /// What a snapshot takes beside its parent.
    pub(crate) fn usage(&self, key: &str) -> Result<SnapshotUsage> {
        let snapshot = self.state().get(key)?;
        match snapshot.kind {
            SnapshotKind::Committed => Ok(snapshot.usage),
            SnapshotKind::View | SnapshotKind::Active => {
                let own = self.usage_of(&snapshot.layers)?;
                let upper = self.places.usage(snapshot.id)?;
                let bytes = own.bytes + upper.bytes;
                Ok(SnapshotUsage { bytes, inodes: own.inodes + upper.inodes })
            }
        }
    }

    fn usage_of(&self, layers: &[DiffId]) -> Result<SnapshotUsage> {
        let mut usage = SnapshotUsage::default();
        for layer in layers {
            if let Some(record) = self.store.layer(layer)? {
                usage.bytes += record.apparent;
                usage.inodes += record.entries;
            }
        }
        Ok(usage)
    }

    /// An applied diff is a layer of the snapshot from now on.
    pub(crate) fn applied(&self, snapshot: &SnapshotRow, layer: &LeasedLayer) -> Result<()> {
        let mut layers = snapshot.layers.clone();
        layers.push(*layer.diff_id());
        self.hold(&layers, |state| state.set_layers(snapshot.id, &layers))?;
        let [applied, _] = &self.diffs;
        applied.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// A diff was made.
    pub(crate) fn made_diff(&self) {
        let [_, made] = &self.diffs;
        made.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until no other call is about that snapshot.
    pub(crate) fn alone(&self, key: &str) -> KeyLock<'_> {
        self.keys.lock(key)
    }
}

/// Locks the record of the store at `root`, for as long as the file lives: what another program is
/// just making is not what a crash left.
fn lock_store(root: &Path) -> Result<File> {
    lock_alone(&root.join("containerd"), || {
        format!(
            "another strata-snapshotter serves the store at {}: end that one, or give this one \
             another store with --root, and with --run another directory for names",
            root.display()
        )
    })
}

/// Locks the directory that names are mounted in: those of another program's snapshots are not
/// what an earlier run left.
fn lock_names(run: &Path) -> Result<File> {
    lock_alone(run, || {
        format!(
            "another strata-snapshotter mounts names of layers in {}: end that one, or give this \
             one another directory with --run",
            run.display()
        )
    })
}

fn lock_alone(dir: &Path, taken: impl FnOnce() -> String) -> Result<File> {
    let doing = || format!("cannot lock {}", dir.display());
    let alone = File::open(dir).doing(doing)?;
    match flock(&alone, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(alone),
        Err(Errno::WOULDBLOCK) => Err(Error::FailedPrecondition(taken())),
        Err(errno) => Err(errno).doing(doing),
    }
}
