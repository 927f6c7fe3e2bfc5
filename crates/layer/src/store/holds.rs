//! Holds: layers that something outside of the store needs, whether or not it runs.
//!
//! ```text
//! ROOT/holds/<holder>/<diff id>              a hold of that one layer
//! ROOT/holds/<holder>/<sha256 of key>.hold   one that its holder has given a key
//!   {"key", "by", "count", "layers", "images", "refuses", "note"} as JSON
//! ```
//!
//! An image keeps its layers by rows of the index, a mount by a lock that dies with it. An engine
//! that has layers of the store among its own has neither: it goes on to have them after a restart,
//! of itself, of the daemon that serves it, or of the machine. So what it has is written down. A
//! hold needs no index, so a rebuild of the index does not lose it.
//!
//! An older strata wrote an empty file for a layer of containerd's, and those with a key into
//! `mounts/`: the first is read as it is, the others are moved when the store is opened to be
//! changed, and read where they are until then.
//!
//! Invariants: a hold that was made survives a power cut (one of a single layer perhaps without the
//! names of its images), and is replaced as a whole; those who write one take turns
//! (`flock` on the directory); whoever makes a hold has its layers leased meanwhile, and whoever
//! removes layers asks for holds once it has them locked, so no layer is held and removed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use strata_tree::{BlobDigest, DiffId, Name};

use super::dir::StoreDir;
use super::sweep::remove_file_if_there;
use crate::error::{Error, IoContext, Result};
use crate::lock::{Lock, flock};

/// The directory of all holders, below the root.
const HOLDS: &str = "holds";
/// What the names of holds with a key end with.
const ENDING: &str = "hold";
/// Who had those of an older strata in `mounts/`.
const OLDER: (&str, &str) = ("mounts", "layer-store");

/// The holds of one holder.
#[derive(Debug, Clone)]
pub struct Holds {
    dir: PathBuf,
    holder: String,
}

/// Layers that somebody has, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// What names it among the holds of its holder.
    pub key: String,
    /// Who has it, for people.
    pub by: String,
    /// How often it was taken and not given back; never 0 on disk.
    pub count: u64,
    /// The layers, base first.
    pub layers: Vec<DiffId>,
    /// What the images are called that the layers came with, as far as that is known.
    pub images: Vec<String>,
    /// An image that has one of the layers is not removed either. Otherwise it can be, and the
    /// layers stay.
    pub refuses: bool,
    /// What the holder wants to read again.
    pub note: String,
}

impl Hold {
    /// A hold of one layer, which is its key.
    fn of_layer(by: &str, layer: &DiffId, images: &[String]) -> Self {
        Self {
            key: layer.to_string(),
            by: by.to_owned(),
            count: 1,
            layers: vec![*layer],
            images: images.to_vec(),
            refuses: false,
            note: String::new(),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Written {
    key: String,
    by: String,
    count: u64,
    layers: Vec<String>,
    #[serde(default)]
    images: Vec<String>,
    #[serde(default = "refused")]
    refuses: bool,
    #[serde(default)]
    note: String,
}

/// What those of an older strata did.
fn refused() -> bool {
    true
}

impl Holds {
    /// The holds of `holder`, one path component, in the store at `root`.
    ///
    /// # Errors
    /// `Damaged` for what cannot be the name of a holder.
    pub fn of(root: &Path, holder: &str) -> Result<Self> {
        if Name::new(holder.as_bytes()).is_err() || holder.starts_with('.') {
            return Err(Error::damaged("a holder of layers", format!("is called {holder:?}")));
        }
        Ok(Self { dir: root.join(HOLDS).join(holder), holder: holder.to_owned() })
    }

    /// Holds layers, durably, unless they are held. The caller leases them until this returns.
    ///
    /// # Errors
    /// `Io`.
    pub fn add<'l>(&self, layers: impl IntoIterator<Item = &'l DiffId>) -> Result<()> {
        let is_missing = |layer: &&DiffId| !self.dir.join(layer.hex()).exists();
        let mut missing = layers.into_iter().filter(is_missing).peekable();
        if missing.peek().is_none() {
            return Ok(());
        }
        let _turn = self.turn()?;
        // Asked again: what another has written meanwhile may know its images.
        for layer in missing.filter(is_missing) {
            self.write(&Hold::of_layer(&self.holder, layer, &[]))?;
        }
        self.sync()
    }

    /// The layer, which is held, came with the images of these names, and with no others.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn name(&self, layer: &DiffId, images: &[String]) -> Result<()> {
        let path = self.dir.join(layer.hex());
        match read(&path, &self.holder)? {
            Some(hold) if hold.images != images => {
                let _turn = self.turn()?;
                self.write(&Hold::of_layer(&self.holder, layer, images))?;
                self.sync()
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Lets layers go. After a power cut some may be held still.
    ///
    /// # Errors
    /// `Io`.
    pub fn remove<'l>(&self, layers: impl IntoIterator<Item = &'l DiffId>) -> Result<()> {
        layers.into_iter().try_for_each(|layer| remove_file_if_there(&self.dir.join(layer.hex())))
    }

    /// The layers that are held by themselves.
    ///
    /// # Errors
    /// `Io`.
    pub fn layers(&self) -> Result<BTreeSet<DiffId>> {
        let names = names(&self.dir)?;
        Ok(names.iter().filter_map(|name| DiffId::from_hex(name).ok()).collect())
    }

    /// All holds, sorted by key.
    ///
    /// # Errors
    /// `Damaged` for a file that says nothing; `Io`.
    pub fn all(&self) -> Result<Vec<Hold>> {
        let mut all = Vec::new();
        for path in self.paths()? {
            all.extend(self.read(&path)?);
        }
        all.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(all)
    }

    /// The files of all holds.
    pub(super) fn paths(&self) -> Result<Vec<PathBuf>> {
        let own = names(&self.dir)?.into_iter().filter(|name| is_hold(name));
        let mut paths: Vec<PathBuf> = own.map(|name| self.dir.join(name)).collect();
        if let Some(older) = self.older() {
            let names = names(&older)?.into_iter().filter(|name| has_ending(name));
            paths.extend(names.map(|name| older.join(name)));
        }
        Ok(paths)
    }

    /// The hold in one of them; `None` if it has gone.
    pub(super) fn read(&self, path: &Path) -> Result<Option<Hold>> {
        read(path, &self.holder)
    }

    /// Writes the hold of one layer again, of which nothing but its name is known.
    pub(super) fn mend(path: &Path) -> Result<bool> {
        let holder = path.parent().and_then(|dir| Some((dir, dir.file_name()?.to_str()?)));
        let layer = path.file_name().and_then(|name| DiffId::from_hex(name.to_str()?).ok());
        let (Some((dir, holder)), Some(layer)) = (holder, layer) else { return Ok(false) };
        let holds = Self { dir: dir.to_owned(), holder: holder.to_owned() };
        let _turn = holds.turn()?;
        holds.write(&Hold::of_layer(holder, &layer, &[]))?;
        holds.sync()?;
        Ok(true)
    }

    /// The hold of that key.
    ///
    /// # Errors
    /// As [`Holds::all`].
    pub fn get(&self, key: &str) -> Result<Option<Hold>> {
        let name = file_name(key);
        match (read(&self.dir.join(&name), &self.holder)?, self.older()) {
            (None, Some(older)) => read(&older.join(name), &self.holder),
            (found, _) => Ok(found),
        }
    }

    /// Takes layers once; `hold.count` means nothing. The caller has them leased. Gives the count.
    ///
    /// # Errors
    /// As [`Holds::all`]; `Io` if it cannot be written down.
    pub fn take(&self, hold: &Hold) -> Result<u64> {
        let _turn = self.turn()?;
        let known = self.get(&hold.key)?.map_or(0, |known| known.count);
        let count = known.saturating_add(1);
        self.write(&Hold { count, ..hold.clone() })?;
        self.sync()?;
        Ok(count)
    }

    /// Gives back what was taken once; the count that is left, `None` if there was no such hold.
    ///
    /// # Errors
    /// As [`Holds::take`].
    pub fn give_back(&self, key: &str) -> Result<Option<u64>> {
        let _turn = self.turn()?;
        let Some(hold) = self.get(key)? else { return Ok(None) };
        let count = hold.count.saturating_sub(1);
        match count {
            0 => remove_file_if_there(&self.dir.join(file_name(key)))?,
            count => self.write(&Hold { count, ..hold })?,
        }
        self.sync()?;
        Ok(Some(count))
    }

    /// Ends a hold, however often it was taken; says whether there was one.
    ///
    /// # Errors
    /// As [`Holds::take`].
    pub fn end(&self, key: &str) -> Result<bool> {
        let _turn = self.turn()?;
        let known = self.get(key)?.is_some();
        if known {
            remove_file_if_there(&self.dir.join(file_name(key)))?;
            self.sync()?;
        }
        Ok(known)
    }

    /// Where an older strata kept some of them.
    fn older(&self) -> Option<PathBuf> {
        let (dir, holder) = OLDER;
        let root = self.dir.parent().and_then(Path::parent)?;
        (self.holder == holder).then(|| root.join(dir))
    }

    /// Makes the directory, and locks it.
    fn turn(&self) -> Result<File> {
        let doing = || format!("cannot lock {}", self.dir.display());
        self.make()?;
        let turn = File::open(&self.dir).doing(doing)?;
        flock(&turn, Lock::Exclusive).doing(doing)?;
        Ok(turn)
    }

    fn make(&self) -> Result<()> {
        let doing = || format!("cannot make {}", self.dir.display());
        if self.dir.is_dir() {
            return Ok(());
        }
        std::fs::create_dir_all(&self.dir).doing(doing)?;
        for dir in self.dir.ancestors().skip(1).take(2) {
            File::open(dir).and_then(|dir| dir.sync_all()).doing(doing)?;
        }
        Ok(())
    }

    fn write(&self, hold: &Hold) -> Result<()> {
        self.make()?;
        let name = file_name(&hold.key);
        let path = self.dir.join(&name);
        let doing = || format!("cannot write {}", path.display());
        let written = Written {
            key: hold.key.clone(),
            by: hold.by.clone(),
            count: hold.count,
            layers: hold.layers.iter().map(DiffId::to_string).collect(),
            images: hold.images.clone(),
            refuses: hold.refuses,
            note: hold.note.clone(),
        };
        let text = serde_json::to_vec(&written).map_err(std::io::Error::from).doing(doing)?;
        let draft = self.dir.join(format!(".{name}"));
        let mut file = File::create(&draft).doing(doing)?;
        file.write_all(&text).doing(doing)?;
        // Of a hold of one layer the name says all that matters.
        if has_ending(&name) {
            file.sync_all().doing(doing)?;
        }
        std::fs::rename(&draft, &path).doing(doing)
    }

    fn sync(&self) -> Result<()> {
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        synced.doing(|| format!("cannot sync {}", self.dir.display()))
    }
}

impl StoreDir {
    /// Moves what an older strata kept elsewhere.
    pub(super) fn move_older_holds(&self) -> Result<()> {
        let (dir, holder) = OLDER;
        let older = self.root().join(dir);
        let names = names(&older)?;
        let mut names = names.iter().filter(|name| has_ending(name)).peekable();
        if names.peek().is_none() {
            return Ok(());
        }
        let holds = Holds::of(self.root(), holder)?;
        let _turn = holds.turn()?;
        for name in names {
            let (from, to) = (older.join(name), holds.dir.join(name));
            match std::fs::rename(&from, &to) {
                Ok(()) => {}
                // Another process has moved it.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error).doing(|| format!("cannot move {}", from.display()));
                }
            }
        }
        holds.sync()
    }

    /// The holds of each holder that there is.
    pub(super) fn holders(&self) -> Result<Vec<Holds>> {
        let mut holders = names(&self.root().join(HOLDS))?;
        let (older, holder) = OLDER;
        if !holders.iter().any(|one| one == holder)
            && names(&self.root().join(older))?.iter().any(|name| has_ending(name))
        {
            holders.push(holder.to_owned());
        }
        holders.iter().map(|holder| Holds::of(self.root(), holder)).collect()
    }

    /// Whether anybody holds a layer in a way that lets its images go.
    pub(super) fn is_held(&self, layer: &DiffId) -> Result<bool> {
        let held = |holds: &Holds| holds.dir.join(layer.hex()).exists();
        Ok(self.holders()?.iter().any(held))
    }

    /// Who holds one of `layers` in a way that does not.
    pub(super) fn refuses(&self, layers: &[DiffId]) -> Result<Option<(DiffId, String)>> {
        for holds in self.holders()? {
            let keyed = names(&holds.dir)?.iter().any(|name| has_ending(name));
            if !keyed && holds.older().is_none() {
                continue;
            }
            for hold in holds.all()? {
                let held = hold.layers.iter().find(|layer| layers.contains(layer));
                if let Some(layer) = held.filter(|_| hold.refuses) {
                    let by = match &hold.images[..] {
                        [] => hold.by,
                        images => format!("{} (for {})", hold.by, images.join(", ")),
                    };
                    return Ok(Some((*layer, by)));
                }
            }
        }
        Ok(None)
    }
}

/// The name of the file of a hold.
fn file_name(key: &str) -> String {
    match key.parse::<DiffId>() {
        Ok(layer) => layer.hex(),
        Err(_) => {
            let digest = BlobDigest::from_bytes(Sha256::digest(key).into());
            format!("{}.{ENDING}", digest.hex())
        }
    }
}

fn has_ending(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|ending| ending == ENDING) && !name.starts_with('.')
}

fn is_hold(name: &str) -> bool {
    has_ending(name) || DiffId::from_hex(name).is_ok()
}

/// The hold in a file, which need not be there.
fn read(path: &Path, holder: &str) -> Result<Option<Hold>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).doing(|| format!("cannot read {}", path.display())),
    };
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if let (true, Ok(layer)) = (text.is_empty(), DiffId::from_hex(name)) {
        return Ok(Some(Hold::of_layer(holder, &layer, &[])));
    }
    let damaged = |why: String| Error::damaged(path.display().to_string(), why);
    let written: Written =
        serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    let layers = written.layers.iter().map(|layer| layer.parse());
    let layers = layers.collect::<std::result::Result<Vec<DiffId>, _>>();
    if file_name(&written.key) != name || written.count == 0 {
        return Err(damaged("it is not the hold that its name says".to_owned()));
    }
    Ok(Some(Hold {
        key: written.key,
        by: written.by,
        count: written.count,
        layers: layers.map_err(|error| damaged(error.to_string()))?,
        images: written.images,
        refuses: written.refuses,
        note: written.note,
    }))
}

/// The names in a directory, which need not be there.
fn names(dir: &Path) -> Result<Vec<String>> {
    let doing = || format!("cannot list {}", dir.display());
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).doing(doing),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.doing(doing)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(digit: &str) -> DiffId {
        format!("sha256:{}", digit.repeat(64)).parse().unwrap()
    }

    fn hold(key: &str, digit: &str) -> Hold {
        Hold {
            key: key.into(),
            by: "someone".into(),
            count: 1,
            layers: vec![layer(digit)],
            images: vec!["app:1".into()],
            refuses: true,
            note: "n".into(),
        }
    }

    fn store() -> (tempfile::TempDir, StoreDir) {
        let dir = tempfile::tempdir().unwrap();
        let store = StoreDir::make(dir.path(), None).unwrap();
        (dir, store)
    }

    #[test]
    fn a_hold_lasts_until_it_was_given_back_as_often_as_it_was_taken() {
        let (dir, store) = store();
        let holds = Holds::of(dir.path(), "layer-store").unwrap();
        let (a, b) = (hold("a", "1"), hold("b", "2"));
        assert_eq!((holds.take(&a).unwrap(), holds.take(&a).unwrap()), (1, 2));
        assert_eq!(holds.take(&b).unwrap(), 1);
        // Another process, or this one after a restart.
        let again = Holds::of(dir.path(), "layer-store").unwrap();
        assert_eq!(again.all().unwrap(), [Hold { count: 2, ..a.clone() }, b.clone()]);
        let refused = store.refuses(&b.layers).unwrap();
        assert_eq!(refused, Some((b.layers[0], "someone (for app:1)".into())));
        assert!(!store.is_held(&b.layers[0]).unwrap());
        assert_eq!(again.give_back("a").unwrap(), Some(1));
        assert_eq!(again.give_back("a").unwrap(), Some(0));
        assert_eq!(again.give_back("a").unwrap(), None);
        assert_eq!(store.refuses(&a.layers).unwrap(), None);
        assert!(holds.end("b").unwrap());
        assert!(!holds.end("b").unwrap());
        assert_eq!(holds.all().unwrap(), []);
    }

    #[test]
    fn those_who_take_at_once_are_all_counted() {
        let dir = tempfile::tempdir().unwrap();
        let holds = Holds::of(dir.path(), "x").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..10).for_each(|_| assert!(holds.take(&hold("a", "1")).unwrap() > 0))
                });
            }
        });
        assert_eq!(holds.get("a").unwrap().unwrap().count, 40);
    }

    #[test]
    fn those_who_hold_one_layer_at_once_all_do() {
        let dir = tempfile::tempdir().unwrap();
        let holds = Holds::of(dir.path(), "x").unwrap();
        for digit in ["1", "2", "3", "4", "5", "6", "7", "8"] {
            let (layer, start) = (layer(digit), std::sync::Barrier::new(4));
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        start.wait();
                        holds.add([&layer]).unwrap();
                    });
                }
            });
        }
        assert_eq!(holds.layers().unwrap().len(), 8);
    }

    #[test]
    fn layers_are_held_by_themselves_and_know_their_images() {
        let (dir, store) = store();
        let holds = Holds::of(dir.path(), "engine").unwrap();
        holds.add([&layer("1"), &layer("2")]).unwrap();
        holds.name(&layer("1"), &["app:1".to_owned()]).unwrap();
        holds.name(&layer("3"), &["nothing".to_owned()]).unwrap();
        holds.add([&layer("1")]).unwrap();
        assert_eq!(holds.layers().unwrap(), [layer("1"), layer("2")].into());
        assert_eq!(holds.all().unwrap()[0].images, ["app:1"]);
        assert!(store.is_held(&layer("2")).unwrap());
        assert_eq!(store.refuses(&[layer("1")]).unwrap(), None);
        holds.remove([&layer("1"), &layer("2")]).unwrap();
        assert!(!store.is_held(&layer("2")).unwrap());
    }

    #[test]
    fn those_of_an_older_strata_are_found_and_moved() {
        let (dir, store) = store();
        let text = format!(
            r#"{{"key":"a","by":"someone","count":3,"layers":["{}"],"note":"n"}}"#,
            layer("1")
        );
        let older = dir.path().join("mounts").join(file_name("a"));
        std::fs::write(&older, text).unwrap();
        std::fs::create_dir_all(dir.path().join("holds/containerd")).unwrap();
        std::fs::write(dir.path().join("holds/containerd").join(layer("2").hex()), "").unwrap();
        let holds = Holds::of(dir.path(), "layer-store").unwrap();
        let wanted = Hold { count: 3, images: vec![], ..hold("a", "1") };
        assert_eq!(holds.get("a").unwrap().as_ref(), Some(&wanted));
        assert!(store.refuses(&[layer("1")]).unwrap().is_some());
        assert!(store.is_held(&layer("2")).unwrap());
        store.move_older_holds().unwrap();
        assert!(!older.exists());
        assert_eq!(holds.all().unwrap(), [wanted]);
        assert!(store.refuses(&[layer("1")]).unwrap().is_some());
        let containerd = Holds::of(dir.path(), "containerd").unwrap().all().unwrap();
        assert_eq!(
            (containerd[0].by.as_str(), &containerd[0].layers),
            ("containerd", &vec![layer("2")])
        );
    }

    #[test]
    fn a_file_that_says_nothing_is_told_and_never_taken_for_no_hold() {
        let (dir, store) = store();
        let holds = Holds::of(dir.path(), "x").unwrap();
        holds.take(&hold("a", "1")).unwrap();
        std::fs::write(holds.dir.join(file_name("a")), "{").unwrap();
        assert!(matches!(holds.all(), Err(Error::Damaged { .. })));
        assert!(store.refuses(&[layer("1")]).is_err());
        std::fs::write(holds.dir.join(layer("2").hex()), "{").unwrap();
        assert!(store.is_held(&layer("2")).unwrap());
    }
}
