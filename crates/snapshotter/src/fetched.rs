//! [`FetchedImages`]: images that were fetched for containerd, and go when containerd has removed
//! them, also if another image has some of their layers. Their layers stay for a while, as those
//! of all snapshots do.
//!
//! ```text
//! begin_fetch   which images the store has      durable before the fetch begins
//! strata pull   a program of its own            goes on if this one is killed
//! end_fetch     the image is new: it is ours    once a snapshot has its layers
//! ```
//!
//! Invariants: an image that was there before is never removed, nor one that somebody has put an
//! upper on or given a name since; one that a killed fetch brought is found at the next start, or
//! at a cleanup after the fetch has ended.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stratafs::{DiffId, Engine, Holds, ImageId, ImageRecord, Reference, Store, chain_id};

use crate::error::Result;
use crate::labels;
use crate::remote::Fetcher;
use crate::state::{SnapshotKind, State};
use crate::taking::let_go;

/// The images. See the module.
pub(crate) struct FetchedImages<'s> {
    pub(crate) store: &'s Store,
    pub(crate) state: &'s Mutex<State>,
    pub(crate) fetcher: &'s Fetcher,
    pub(crate) holds: &'s Holds,
}

impl FetchedImages<'_> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches an image, which containerd asks for as `name`, notes it, and gives what `found` then
    /// says of it. Where `is_there` says that it came meanwhile, or it could not be had lately, it
    /// is not fetched; nor where too many are waited for.
    pub(crate) fn fetch(
        &self,
        image: &str,
        name: Option<&str>,
        is_there: impl Fn() -> bool,
        found: impl FnOnce() -> Result<bool>,
    ) -> Result<bool> {
        let Some(_place) = self.fetcher.place() else {
            tracing::info!("{image} is left to containerd: others are being fetched");
            return Ok(false);
        };
        let _turn = self.fetcher.turn(image);
        if !is_there() && !self.fetcher.failed_lately(image) {
            let before: Vec<ImageId> =
                self.store.images().all()?.into_iter().map(|image| image.id).collect();
            self.state().begin_fetch(image, &before)?;
            self.fetcher.fetch(image);
        }
        let found = found()?;
        // Once a snapshot has its layer: until then a cleanup would remove it. The snapshot is
        // there whatever becomes of this, so it fails no call; a cleanup ends the fetch.
        let named = self.settle(image).and_then(|new| match (new, name) {
            (Some(new), Some(name)) => self.name(&new, name),
            (None, _) | (_, None) => Ok(()),
        });
        if let Err(error) = named {
            tracing::warn!("{image} is there, and may lack its name: {error}");
        }
        Ok(found)
    }

    /// Gives a new image the name that it was asked for by, unless that is one of another image
    /// which was not fetched for containerd.
    fn name(&self, image: &ImageId, name: &str) -> Result<()> {
        let Some(name) = name.parse::<Reference>().ok().and_then(|name| name.store_tag()) else {
            return Ok(());
        };
        let mut tags = self.store.images().tags()?.into_iter();
        let taken = tags.find_map(|(tag, id)| (tag == name).then_some(id));
        if taken.is_none_or(|id| self.state().noted_images().is_ok_and(|all| all.contains(&id))) {
            self.state().note_name(image, &name)?;
            self.store.images().tag(&name, image)?;
        }
        Ok(())
    }

    /// Ends fetches that nobody is at any more.
    pub(crate) fn settle_all(&self) -> Result<()> {
        let begun = self.state().fetches()?;
        for (image, _) in begun {
            if let Some(_turn) = self.fetcher.free(&image)
                && !Fetcher::is_running(&image)?
            {
                self.settle(&image)?;
            }
        }
        Ok(())
    }

    /// Ends a fetch; gives the image that it has brought, if that is new.
    fn settle(&self, image: &str) -> Result<Option<ImageId>> {
        let begun = self.state().fetches()?;
        let Some((_, before)) = begun.into_iter().find(|(name, _)| name == image) else {
            return Ok(None);
        };
        // A name that cannot be read was not fetched either.
        let name = image.parse::<Reference>().ok();
        let name = name.and_then(|name| match name.digest() {
            Some(_) => name.store_pin(),
            None => name.store_tag(),
        });
        let mut tags = self.store.images().tags()?.into_iter();
        let found = tags.find(|(tag, _)| Some(tag) == name.as_ref());
        let new = found.as_ref().map(|(_, id)| *id).filter(|id| !before.contains(id));
        let mut state = self.state();
        if let Some((name, id)) = &found
            && (new.is_some() || state.noted_images()?.contains(id))
        {
            state.note_name(id, name)?;
        }
        state.end_fetch(image, new.as_ref())?;
        Ok(new)
    }

    /// Removes those that containerd has removed. One that somebody else uses is theirs from now
    /// on. Layers that no snapshot has had for as long as `kept` go with the last image.
    pub(crate) fn remove_unused(&self, kept: Duration) -> Result<()> {
        self.settle_all()?;
        let noted = self.state().noted_images()?;
        let old: HashSet<DiffId> = self.state().unneeded(kept)?.into_iter().collect();
        for image in noted {
            if let Some(record) = self.store.images().get(&image)? {
                if !self.is_removed(&record, &old)? {
                    continue;
                }
                // Asked for each image: the one before it may have taken long to go. While it is
                // not known what uppers are on, one may be on this.
                let Some(under_upper) = self.is_under_upper(&image) else { continue };
                if !under_upper
                    && let Some(names) = self.only_names(&image)?
                    && !self.remove(&record, &names, &old)?
                {
                    continue;
                }
            }
            self.state().forget_image(&image)?;
        }
        Ok(())
    }

    /// Whether containerd has removed an image: it keeps the whole chain of one that it has. So it
    /// does if no snapshot has any of its layers. Of one that has some in common with another, and
    /// of one that is just being prepared, some have snapshots and some have none: it is removed
    /// if those have had none for a while, which is when they are `old`.
    fn is_removed(&self, image: &ImageRecord, old: &HashSet<DiffId>) -> Result<bool> {
        let mut state = self.state();
        let mut unused = Vec::new();
        for layer in &image.layers {
            if !state.uses(layer)? {
                unused.push(*layer);
            }
        }
        if unused.len() == image.layers.len() {
            return Ok(true);
        }
        // Above what containerd has unpacked by itself an image has snapshots of some layers only.
        if unused.is_empty() || has_chain(&state, &image.layers)? {
            return Ok(false);
        }
        for layer in &unused {
            // Containerd may never ask for it.
            state.note_unneeded_once(layer)?;
        }
        Ok(unused.iter().any(|layer| old.contains(layer)))
    }

    /// Whether somebody has put an upper on the image; `None` if that cannot be told, which stops
    /// no cleanup: layers that nobody needs go all the same.
    fn is_under_upper(&self, image: &ImageId) -> Option<bool> {
        match Engine::new(self.store.root()).uppers().on_image(image) {
            Ok(upper) => Some(upper.is_some()),
            Err(error) => {
                let short = image.short();
                tracing::warn!("image {short}, fetched for containerd, stays for now: {error}");
                None
            }
        }
    }

    /// The names of an image that nobody has given another one; `None` for one that is somebody's.
    fn only_names(&self, image: &ImageId) -> Result<Option<Vec<String>>> {
        let ours = self.state().noted_names(image)?;
        let tags = self.store.images().tags()?.into_iter();
        let names: Vec<String> = tags.filter(|(_, of)| of == image).map(|(name, _)| name).collect();
        Ok(names.iter().all(|name| ours.contains(name)).then_some(names))
    }

    /// Removes an image of those names; says whether it is gone. Its layers stay that are not
    /// `old`.
    fn remove(&self, image: &ImageRecord, names: &[String], old: &HashSet<DiffId>) -> Result<bool> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let staying = image.layers.iter().filter(|layer| !old.contains(layer));
        let staying: Vec<DiffId> = staying.copied().collect();
        // The removal of an image leaves what is held.
        self.holds.add(&staying)?;
        let removed = self.store.images().remove_known(&image.id, &names, &|| {
            Engine::new(self.store.root()).uppers().may_be_on(&image.id)
        });
        let_go(&mut self.state(), self.holds, &staying)?;
        match removed {
            Ok(_) | Err(strata_layer::Error::NoImage(_)) => Ok(true),
            // It was named just now: the next cleanup finds whose it is.
            Err(strata_layer::Error::Renamed(_)) => Ok(false),
            // It is mounted: the next cleanup may find that it is not.
            Err(error) if error.is_in_use() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether a snapshot is what an image of those layers becomes.
fn has_chain(state: &State, layers: &[DiffId]) -> Result<bool> {
    let Some(chain) = chain_id(layers).map(|chain| chain.to_string()) else { return Ok(false) };
    let mut all = state.all()?.into_iter().filter(|one| one.kind == SnapshotKind::Committed);
    Ok(all.any(|one| labels::chain_of(&one.name, &one.labels) == Some(&*chain)))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use strata_layer::LayerInput;
    use strata_testkit::needs;
    use strata_testkit::tars::Tar;
    use stratafs::Quiet;

    use super::*;
    use crate::args::LowerBackend;
    use crate::snapshots::Snapshots;
    use crate::state::{Labels, NewSnapshot, SnapshotUsage};
    use crate::taking::hold_for;

    const NAME: &str = "registry.example/app:1";

    /// An image that a fetch for containerd has brought.
    fn fetch(images: &FetchedImages<'_>) -> ImageId {
        fetch_of(images, b"config", &[b"1"]).id
    }

    /// The same, with a layer for each of these texts.
    fn fetch_of(images: &FetchedImages<'_>, config: &[u8], texts: &[&[u8]]) -> ImageRecord {
        let before: Vec<ImageId> =
            images.store.images().all().unwrap().into_iter().map(|image| image.id).collect();
        images.state().begin_fetch(NAME, &before).unwrap();
        let unpack = |text: &&[u8]| {
            let input = LayerInput {
                label: "a layer".to_owned(),
                diff_id: None,
                blob: None,
                reader: Box::new(std::io::Cursor::new(Tar::default().file(b"f", text).end())),
            };
            images.store.unpack(input, &Quiet).unwrap().layer
        };
        let leased: Vec<_> = texts.iter().map(unpack).collect();
        let config = images.store.put_blob(config).unwrap();
        let layers = leased.iter().map(|layer| *layer.diff_id()).collect();
        let record = ImageRecord { id: config.into(), manifest: None, layers };
        images.store.images().commit(&record, &[NAME.to_owned()], None, &leased).unwrap();
        assert_eq!(images.settle(NAME).unwrap(), Some(record.id));
        images.name(&record.id, "registry.example/app:latest").unwrap();
        record
    }

    fn put_upper(root: &Path, image: &ImageId) {
        let upper = root.join("uppers/mine");
        std::fs::create_dir_all(&upper).unwrap();
        let text = format!(
            r#"{{"image": "{image}", "reference": "app", "created": 0, "temporary": false,
                "apart": false}}"#
        );
        std::fs::write(upper.join("upper.json"), text).unwrap();
    }

    #[test]
    fn an_image_that_somebody_uses_too_stays() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("store");
        let store = Store::open(&root).unwrap();
        let record = place.path().join("snapshots.db");
        let open = || State::open(&record, || Ok(store.images().tags()?)).unwrap();
        let state = Mutex::new(open());
        let fetcher = Fetcher::new(PathBuf::from("/nonexistent"), root.clone());
        let holds = Holds::of(&root, "containerd").unwrap();
        let images =
            FetchedImages { store: &store, state: &state, fetcher: &fetcher, holds: &holds };
        let is_there = |image: &ImageId| store.images().get(image).unwrap().is_some();

        let image = fetch(&images);
        images.remove_unused(Duration::ZERO).unwrap();
        assert!(!is_there(&image), "containerd alone had it");

        let image = fetch(&images);
        let db = rusqlite::Connection::open(&record).unwrap();
        db.execute_batch("DROP TABLE image_names").unwrap();
        *images.state() = open();
        images.remove_unused(Duration::ZERO).unwrap();
        assert!(!is_there(&image), "an earlier version has fetched it, and noted no names");

        let image = fetch(&images);
        store.images().tag("mine:1", &image).unwrap();
        images.remove_unused(Duration::ZERO).unwrap();
        assert_eq!(images.state().noted_images().unwrap(), []);
        store.images().untag("mine:1").unwrap();
        images.remove_unused(Duration::ZERO).unwrap();
        assert!(is_there(&image), "somebody has given it a name");
        store.images().remove(&image).unwrap();

        let image = fetch(&images);
        put_upper(&root, &image);
        let description = root.join("uppers/mine/upper.json");
        let text = std::fs::read(&description).unwrap();
        std::fs::write(&description, "{").unwrap();
        images.remove_unused(Duration::ZERO).unwrap();
        assert!(is_there(&image), "it is not known what the upper is on");
        assert_eq!(images.state().noted_images().unwrap(), [image]);
        std::fs::write(&description, text).unwrap();
        images.remove_unused(Duration::ZERO).unwrap();
        assert!(is_there(&image), "somebody has an upper on it");
        assert_eq!(images.state().noted_images().unwrap(), []);
    }

    #[test]
    fn an_image_goes_that_shares_its_base_with_another() {
        const KEPT: Duration = Duration::from_secs(600);
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("store");
        let store = Store::open(&root).unwrap();
        let record = place.path().join("snapshots.db");
        let state = Mutex::new(State::open(&record, || Ok(Vec::new())).unwrap());
        let fetcher = Fetcher::new(PathBuf::from("/nonexistent"), root.clone());
        let holds = Holds::of(&root, "containerd").unwrap();
        let images =
            FetchedImages { store: &store, state: &state, fetcher: &fetcher, holds: &holds };
        let first = fetch_of(&images, b"first", &[b"base", b"1"]);
        let second = fetch_of(&images, b"second", &[b"base", b"2"]);
        let third = fetch_of(&images, b"third", &[b"base", b"3"]);
        let chain = |layers: &[DiffId]| chain_id(layers).unwrap().to_string();
        let base = chain(&first.layers[..1]);
        let commit = |name: &str, parent: &str, layer: &DiffId| {
            let new = NewSnapshot {
                name,
                parent,
                kind: SnapshotKind::Committed,
                labels: &Labels::new(),
                layers: &[*layer],
                usage: SnapshotUsage::default(),
            };
            hold_for(&state, &holds, &[*layer], |state| state.insert(&new, |_| Ok(()))).unwrap();
        };
        let remove = |image: &ImageRecord| {
            let removed = images.state().remove(&chain(&image.layers)).unwrap();
            let_go(&mut images.state(), &holds, &removed.layers).unwrap();
        };
        let there = || -> Vec<ImageId> {
            let all = [&first, &second, &third].into_iter();
            all.map(|image| image.id)
                .filter(|id| store.images().get(id).unwrap().is_some())
                .collect()
        };
        commit(&base, "", &first.layers[0]);
        commit(&chain(&first.layers), &base, &first.layers[1]);
        commit(&chain(&second.layers), &base, &second.layers[1]);

        images.remove_unused(Duration::ZERO).unwrap();
        assert_eq!(there().len(), 3, "containerd is about to ask for the top of the third");
        commit(&chain(&third.layers), &base, &third.layers[1]);
        remove(&first);
        images.remove_unused(KEPT).unwrap();
        assert_eq!(there().len(), 3);
        images.remove_unused(Duration::ZERO).unwrap();
        assert_eq!(there(), [second.id, third.id]);
        assert!(store.layer(&first.layers[1]).unwrap().is_none());
        assert!(store.layer(&first.layers[0]).unwrap().is_some());
        remove(&second);
        remove(&third);
        images.remove_unused(Duration::ZERO).unwrap();
        assert_eq!(there(), []);

        let unpacked = fetch_of(&images, b"unpacked", &[b"as it came", b"4"]);
        commit(&chain(&unpacked.layers), &base, &unpacked.layers[1]);
        for _ in 0..2 {
            images.remove_unused(Duration::ZERO).unwrap();
        }
        let is_there = store.images().get(&unpacked.id).unwrap().is_some();
        assert!(is_there, "its base has another layer: containerd has unpacked that by itself");
    }

    #[test]
    fn an_image_goes_whose_top_is_never_asked_for() {
        if !needs::root() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(&place.path().join("store")).unwrap();
        let (run, none) = (place.path().join("run"), PathBuf::from("/nonexistent"));
        let run = (run.as_path(), LowerBackend::Auto);
        let snapshots = Snapshots::of_store(store, run, &none, Duration::ZERO, None).unwrap();
        let image = fetch_of(&snapshots.fetched(), b"config", &[b"base", b"1"]);
        let base = snapshots.store.lease(&image.layers[0]).unwrap().unwrap();
        snapshots.commit_layers("base", "", &Labels::new(), &[base]).unwrap();
        let is_there = || snapshots.store.images().get(&image.id).unwrap().is_some();
        snapshots.cleanup().unwrap();
        assert!(is_there(), "it may be asked for yet");
        snapshots.cleanup().unwrap();
        assert!(!is_there());
    }

    #[test]
    fn what_follows_a_fetch_fails_no_snapshot() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("store");
        let store = Store::open(&root).unwrap();
        let record = place.path().join("snapshots.db");
        let state = Mutex::new(State::open(&record, || Ok(Vec::new())).unwrap());
        let fetcher = Fetcher::new(PathBuf::from("/nonexistent"), root.clone());
        let holds = Holds::of(&root, "containerd").unwrap();
        let images =
            FetchedImages { store: &store, state: &state, fetcher: &fetcher, holds: &holds };
        let found = || {
            let db = rusqlite::Connection::open(&record).unwrap();
            db.execute_batch("DROP TABLE fetches").unwrap();
            Ok(true)
        };
        assert!(images.fetch(NAME, Some(NAME), || false, found).unwrap());
    }
}
