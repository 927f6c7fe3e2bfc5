//! [`ServedLayers`]: what a mount shows, as a tree that grows.
//!
//! ```text
//! /                                     node 1
//! /<base64 of the reference>/           node 2, 3, ...     in the order of asking
//! /<base64 ...>/<digest>/               (p << 32) + TOP        p: the number of the place, from 1
//! /<base64 ...>/<digest>/info, blob     (p << 32) + TOP + 1, + 2
//! /<base64 ...>/<digest>/diff/...       (p << 32) + the node of the layer's form
//! ```
//!
//! Every reference has a directory, for podman asks by whatever name it pulls; a digest is found
//! there if the store has that layer, or can fetch it. Listings show what the store has under a
//! name, and what is held.
//!
//! Invariants: a number is never given to anything else; a place is that of one reference, so no
//! directory has two names; what is held is found as it was taken, also when the name has moved on
//! or the process is another one.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use strata_layer::{Hold, Store};
use strata_registry::Reference;
use strata_tree::dialect::XattrClass;
use strata_tree::{BlobDigest, Error as TreeError, NodeId};

use crate::catalogue::{Catalogue, InChain};
use crate::error::Result;
use crate::held::{HOLDER, HeldLayer, hold_of};
use crate::place::{LayerPlace, OpenForm, chain_of};

/// The first node of a place that is no node of its layer.
pub(crate) const TOP: u64 = 1 << 31;
/// `info` and `blob`, from there.
pub(crate) const INFO: u64 = TOP + 1;
pub(crate) const BLOB: u64 = TOP + 2;
/// The node of the first reference's directory.
const REFERENCES: u64 = 2;

/// How much later than its change a file is distinguished from the next change.
const SETTLED: Duration = Duration::from_secs(2);

/// What changes with the images of a store. Their listing is replaced just before the index is
/// committed, which may take any time: so the index and its log count too.
const OF_IMAGES: [&str; 4] = ["images.json", "index.db", "index.db-wal", "layer-blobs"];

/// Fetches the image of a reference into the store; `false` if that cannot be.
pub(crate) type Fetch = dyn Fn(&Store, &Reference) -> bool + Send + Sync;

/// What a number stands for.
pub(crate) enum Numbered {
    /// The root.
    Root,
    /// The directory of a reference.
    Reference(Reference),
    /// The directory of a layer.
    Place(Arc<LayerPlace>),
    /// Its `info`.
    Info(Arc<LayerPlace>),
    /// Its `blob`.
    Blob(Arc<LayerPlace>),
    /// A node of its form.
    Form(Arc<LayerPlace>, NodeId),
}

/// The layers that are served. See the module.
pub(crate) struct ServedLayers {
    pub(crate) store: Store,
    pub(crate) class: XattrClass,
    fetch: Option<Box<Fetch>>,
    /// One at a time fetches, and those that could not be fetched lately.
    fetching: Mutex<HashMap<Reference, SystemTime>>,
    known: Mutex<Option<KnownImages>>,
    numbers: RwLock<Numbers>,
}

/// References and places by their numbers, less the first number.
#[derive(Default)]
struct Numbers {
    references: Vec<Reference>,
    reference_of: HashMap<Reference, u32>,
    places: Vec<Arc<LayerPlace>>,
    place_of: HashMap<(u32, BlobDigest), usize>,
}

struct KnownImages {
    catalogue: Arc<Catalogue>,
    /// Of the files, and when they were looked at.
    stamp: Stamp,
    read: SystemTime,
}

/// The inode, the size and the time of the last change of each of [`OF_IMAGES`].
type Stamp = [Option<(u64, u64, SystemTime)>; 4];

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ServedLayers {
    pub(crate) fn new(store: Store, class: XattrClass, fetch: Option<Box<Fetch>>) -> Self {
        Self {
            store,
            class,
            fetch,
            fetching: Mutex::default(),
            known: Mutex::default(),
            numbers: RwLock::default(),
        }
    }

    /// The number of a reference's directory.
    pub(crate) fn reference_node(&self, reference: &Reference) -> NodeId {
        NodeId(REFERENCES + u64::from(self.number_of(reference)))
    }

    fn number_of(&self, reference: &Reference) -> u32 {
        let read = self.numbers.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = read.reference_of.get(reference) {
            return *number;
        }
        drop(read);
        let mut numbers = self.numbers.write().unwrap_or_else(PoisonError::into_inner);
        let next = u32::try_from(numbers.references.len()).unwrap_or(u32::MAX);
        let number = *numbers.reference_of.entry(reference.clone()).or_insert(next);
        if number == next {
            numbers.references.push(reference.clone());
        }
        number
    }

    /// What a number stands for.
    ///
    /// # Errors
    /// `NoNode`.
    pub(crate) fn numbered(&self, node: NodeId) -> strata_tree::Result<Numbered> {
        let numbers = self.numbers.read().unwrap_or_else(PoisonError::into_inner);
        let at = |number: u64| usize::try_from(number).ok();
        let none = || TreeError::NoNode(node);
        let Some(place) = (node.0 >> 32).checked_sub(1) else {
            if node == NodeId::ROOT {
                return Ok(Numbered::Root);
            }
            let found = node.0.checked_sub(REFERENCES).and_then(at);
            let found = found.and_then(|at| numbers.references.get(at));
            return Ok(Numbered::Reference(found.ok_or_else(none)?.clone()));
        };
        let place = at(place).and_then(|at| numbers.places.get(at)).ok_or_else(none)?;
        let place = Arc::clone(place);
        Ok(match node.0 & u64::from(u32::MAX) {
            TOP => Numbered::Place(place),
            INFO => Numbered::Info(place),
            BLOB => Numbered::Blob(place),
            low => Numbered::Form(place, NodeId(low)),
        })
    }

    /// The place of that number, as a content names it.
    pub(crate) fn place_numbered(&self, number: usize) -> Option<Arc<LayerPlace>> {
        let numbers = self.numbers.read().unwrap_or_else(PoisonError::into_inner);
        numbers.places.get(number).cloned()
    }

    /// The form of a place, which was just asked for.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) fn form(&self, place: &LayerPlace) -> Result<Arc<OpenForm>> {
        place.form(&self.store, self.class)
    }

    /// The place of a blob under a reference if it has been found before.
    pub(crate) fn known_place(
        &self,
        reference: &Reference,
        blob: &BlobDigest,
    ) -> Option<(u64, Arc<LayerPlace>)> {
        let numbers = self.numbers.read().unwrap_or_else(PoisonError::into_inner);
        let parent = *numbers.reference_of.get(reference)?;
        let at = *numbers.place_of.get(&(parent, *blob))?;
        Some((at as u64 + 1, Arc::clone(numbers.places.get(at)?)))
    }

    /// The place of a blob under a reference, with its number; fetched if that is wanted.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) fn find(
        &self,
        reference: &Reference,
        blob: &BlobDigest,
    ) -> Result<Option<(u64, Arc<LayerPlace>)>> {
        // A place that is not open may have gone meanwhile, so the store is asked again.
        if let Some((number, place)) = self.known_place(reference, blob)
            && place.is_open()
        {
            return Ok(Some((number, place)));
        }
        let mut found = self.in_store(reference, blob)?;
        if found.is_none() && self.fetched(reference) {
            found = self.in_store(reference, blob)?;
        }
        Ok(found.map(|found| self.placed(reference, blob, found)))
    }

    /// The chain of a blob: as it is held, in the image of the name, or in any image.
    fn in_store(&self, reference: &Reference, blob: &BlobDigest) -> Result<Option<InChain>> {
        if let Some(hold) = self.store.holds(HOLDER)?.get(&HeldLayer::key(reference, blob))?
            && let Some(held) = HeldLayer::of(&hold)
        {
            return Ok(Some(held.found));
        }
        let catalogue = self.catalogue()?;
        if let Some(found) = catalogue.in_image(reference, blob) {
            return Ok(Some(found));
        }
        let mut all = catalogue.anywhere(blob);
        if all.len() > 1 {
            let (_leased, chain) = chain_of(&self.store, &all[0])?;
            if chain.last().is_none_or(|layer| crate::form::needs_lower(layer)) {
                return Ok(None);
            }
        }
        Ok(all.drain(..).next())
    }

    /// Gives a place its number.
    pub(crate) fn placed(
        &self,
        reference: &Reference,
        blob: &BlobDigest,
        found: InChain,
    ) -> (u64, Arc<LayerPlace>) {
        let parent = self.number_of(reference);
        let mut numbers = self.numbers.write().unwrap_or_else(PoisonError::into_inner);
        let key = (parent, *blob);
        if let Some(at) = numbers.place_of.get(&key).copied()
            && let Some(place) = numbers.places.get(at)
            && place.found == found
        {
            return (at as u64 + 1, Arc::clone(place));
        }
        let place = Arc::new(LayerPlace::new(reference.clone(), *blob, found));
        numbers.places.push(Arc::clone(&place));
        let at = numbers.places.len() - 1;
        numbers.place_of.insert(key, at);
        (at as u64 + 1, place)
    }

    /// Whether the image of the reference was fetched just now, by whatever thread.
    fn fetched(&self, reference: &Reference) -> bool {
        const AGAIN: Duration = Duration::from_secs(30);
        let Some(fetch) = &self.fetch else { return false };
        let mut failed = lock(&self.fetching);
        let lately = |at: &SystemTime| at.elapsed().is_ok_and(|age| age < AGAIN);
        if failed.get(reference).is_some_and(lately) {
            return false;
        }
        // Those who waited here find what the first has fetched.
        failed.retain(|_, at| lately(at));
        let done = fetch(&self.store, reference);
        failed.insert(reference.clone(), SystemTime::now());
        done
    }

    /// The blobs of all images, as the store has them now.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) fn catalogue(&self) -> Result<Arc<Catalogue>> {
        let mut known = lock(&self.known);
        let stamp = OF_IMAGES.map(|name| {
            let meta = std::fs::metadata(self.store.root().join(name)).ok()?;
            Some((meta.ino(), meta.len(), meta.modified().ok()?))
        });
        let settled = |at: &SystemTime| {
            let changed = stamp.iter().flatten().map(|(.., changed)| *changed);
            changed.max().is_none_or(|changed| *at > changed + SETTLED)
        };
        if let Some(known) = &*known
            && known.stamp == stamp
            && settled(&known.read)
        {
            return Ok(Arc::clone(&known.catalogue));
        }
        let read = SystemTime::now();
        let catalogue = Arc::new(Catalogue::read(&self.store)?);
        *known = Some(KnownImages { catalogue: Arc::clone(&catalogue), stamp, read });
        Ok(catalogue)
    }

    /// All references with something to show, each with its number as a position.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) fn references(&self) -> Result<Vec<(u64, Reference)>> {
        let mut all: Vec<Reference> = self.catalogue()?.names().collect();
        all.extend(self.held()?.into_iter().map(|(held, _)| held.reference));
        let number = |reference: Reference| (u64::from(self.number_of(&reference)), reference);
        let mut all: Vec<(u64, Reference)> = all.into_iter().map(number).collect();
        all.sort_by_key(|(number, _)| *number);
        all.dedup_by_key(|(number, _)| *number);
        Ok(all)
    }

    /// The places of a reference, each with its number.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) fn places(&self, reference: &Reference) -> Result<Vec<(u64, Arc<LayerPlace>)>> {
        let mut blobs = self.catalogue()?.blobs(reference);
        let held = self.held()?.into_iter().filter(|(held, _)| held.reference == *reference);
        blobs.extend(held.map(|(held, _)| held.blob));
        let mut all = Vec::new();
        for blob in blobs {
            if let Some(found) = self.in_store(reference, &blob)? {
                all.push(self.placed(reference, &blob, found));
            }
        }
        all.sort_by_key(|(number, _)| *number);
        all.dedup_by_key(|(number, _)| *number);
        Ok(all)
    }

    /// What is held by way of a layer store.
    fn held(&self) -> Result<Vec<(HeldLayer, Hold)>> {
        let all = self.store.holds(HOLDER)?.all()?.into_iter();
        Ok(all.filter_map(|hold| Some((HeldLayer::of(&hold)?, hold))).collect())
    }

    /// Takes a layer once. Its form is open meanwhile, so it is leased.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) fn take(&self, place: &LayerPlace) -> Result<()> {
        let _form = self.form(place)?;
        place.touch();
        self.store.holds(HOLDER)?.take(&hold_of(&place.reference, &place.blob, &place.found))?;
        Ok(())
    }

    /// Gives a layer back once.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) fn give_back(&self, reference: &Reference, blob: &BlobDigest) -> Result<()> {
        self.store.holds(HOLDER)?.give_back(&HeldLayer::key(reference, blob))?;
        Ok(())
    }

    /// Gives up what was not asked for lately and nobody has.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) fn rest(&self) -> Result<()> {
        let numbers = self.numbers.read().unwrap_or_else(PoisonError::into_inner);
        let places = numbers.places.clone();
        drop(numbers);
        for place in places.iter().filter(|place| place.is_open()) {
            let key = HeldLayer::key(&place.reference, &place.blob);
            place.rest(self.store.holds(HOLDER)?.get(&key)?.is_some());
        }
        Ok(())
    }
}

/// The name of a reference's directory.
pub(crate) fn reference_name(reference: &Reference) -> String {
    STANDARD.encode(reference.to_string())
}

/// The reference of a directory's name.
pub(crate) fn reference_named(name: &[u8]) -> Option<Reference> {
    String::from_utf8(STANDARD.decode(name).ok()?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::{Barrier, OnceLock};

    use strata_layer::{Step, StoreOptions};
    use stratafs::{Engine, Quiet};

    use super::*;

    #[test]
    fn a_name_that_is_committed_long_after_its_listing_is_seen() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("store");
        let loaded = Engine::new(&root).load(strata_testkit::fixture("cases.oci"), &Quiet).unwrap();
        // As where the last change, and a commit's beginning, were long ago.
        let age = |root: &std::path::Path| {
            for name in OF_IMAGES {
                if let Ok(file) = File::options().write(true).open(root.join(name)) {
                    file.set_modified(SystemTime::now() - 10 * SETTLED).unwrap();
                }
            }
        };
        let class = XattrClass::Trusted;
        let served = Arc::new(ServedLayers::new(Store::open(&root).unwrap(), class, None));
        let (listed, looked) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
        let on_step = {
            let (root, listed, looked) = (root.clone(), Arc::clone(&listed), Arc::clone(&looked));
            let once = OnceLock::new();
            move |step| {
                if step == Step::ImageListed && once.set(()).is_ok() {
                    age(&root);
                    listed.wait();
                    looked.wait();
                }
            }
        };
        let options = StoreOptions { on_step: Some(Arc::new(on_step)), ..StoreOptions::default() };
        let store = Store::open_with(&root, options).unwrap();
        let names = || served.catalogue().unwrap().names().count();
        std::thread::scope(|scope| {
            let tagging = scope.spawn(|| {
                store.images().tag("stratafs.test/late:1", &loaded[0].id).unwrap();
            });
            listed.wait();
            assert_eq!(names(), 1);
            looked.wait();
            tagging.join().unwrap();
        });
        assert_eq!(names(), 2);
    }
}
