//! [`CountedHolds`]: leases of a program that is not always running, kept in files.
//!
//! A lock dies with its process. An engine that has a layer of the store among its own goes on to
//! have it after a restart, of itself, of the daemon that serves it, or of the machine; so what it
//! has is written down.
//!
//! ```text
//! mounts/<sha256 of the key>.hold    {"key", "by", "count", "layers", "note"} as JSON
//! ```
//!
//! Invariants: a hold is replaced as a whole and durably, so a crash leaves it as it was or as it
//! is to be; processes that change holds take turns (`flock` on the directory); whoever makes one
//! has its layers leased meanwhile, and whoever removes layers asks for holds once it has them
//! locked, so no layer is held and removed.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use strata_tree::{BlobDigest, DiffId};

use crate::error::{Error, IoContext, Result};
use crate::lock::{Lock, flock};

/// What the names of the files end with.
const ENDING: &str = "hold";

/// The holds in a directory of mounts' records.
#[derive(Debug, Clone)]
pub struct CountedHolds {
    dir: PathBuf,
}

/// Layers that somebody has, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountedHold {
    /// What names it among all holds.
    pub key: String,
    /// Who has it, for people.
    pub by: String,
    /// How often it was taken and not given back; never 0 on disk.
    pub count: u64,
    /// The layers, base first.
    pub layers: Vec<DiffId>,
    /// What the holder wants to read again.
    pub note: String,
}

#[derive(Serialize, Deserialize)]
struct Written {
    key: String,
    by: String,
    count: u64,
    layers: Vec<String>,
    note: String,
}

impl CountedHolds {
    /// Those in the directory of records `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// All holds, sorted by key.
    ///
    /// # Errors
    /// `Damaged` for a file that says nothing; `Io`.
    pub fn all(&self) -> Result<Vec<CountedHold>> {
        let doing = || format!("cannot list {}", self.dir.display());
        let names = match std::fs::read_dir(&self.dir) {
            Ok(names) => names,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).doing(doing),
        };
        let mut all = Vec::new();
        for entry in names {
            let path = entry.doing(doing)?.path();
            if path.extension().is_some_and(|ending| ending == ENDING) {
                all.extend(read(&path)?);
            }
        }
        all.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(all)
    }

    /// The hold of that key.
    ///
    /// # Errors
    /// As [`CountedHolds::all`].
    pub fn get(&self, key: &str) -> Result<Option<CountedHold>> {
        read(&self.path(key))
    }

    /// Takes layers once; `hold.count` means nothing. The caller has them leased. Gives the count.
    ///
    /// # Errors
    /// As [`CountedHolds::all`]; `Io` if it cannot be written down.
    pub fn take(&self, hold: &CountedHold) -> Result<u64> {
        let _turn = self.turn()?;
        let known = self.get(&hold.key)?.map_or(0, |known| known.count);
        let count = known.saturating_add(1);
        self.write(&CountedHold { count, ..hold.clone() })?;
        Ok(count)
    }

    /// Gives back what was taken once; the count that is left, `None` if there was no such hold.
    ///
    /// # Errors
    /// As [`CountedHolds::take`].
    pub fn give_back(&self, key: &str) -> Result<Option<u64>> {
        let _turn = self.turn()?;
        let Some(hold) = self.get(key)? else { return Ok(None) };
        let count = hold.count.saturating_sub(1);
        match count {
            0 => self.remove(key)?,
            count => self.write(&CountedHold { count, ..hold })?,
        }
        Ok(Some(count))
    }

    /// Ends a hold, however often it was taken; says whether there was one.
    ///
    /// # Errors
    /// As [`CountedHolds::take`].
    pub fn end(&self, key: &str) -> Result<bool> {
        let _turn = self.turn()?;
        let known = self.get(key)?.is_some();
        if known {
            self.remove(key)?;
        }
        Ok(known)
    }

    /// Who holds one of `layers`.
    ///
    /// # Errors
    /// As [`CountedHolds::all`].
    pub(super) fn holder_of(&self, layers: &[DiffId]) -> Result<Option<(DiffId, String)>> {
        for hold in self.all()? {
            if let Some(layer) = hold.layers.iter().find(|layer| layers.contains(layer)) {
                return Ok(Some((*layer, hold.by)));
            }
        }
        Ok(None)
    }

    fn path(&self, key: &str) -> PathBuf {
        let name = BlobDigest::from_bytes(Sha256::digest(key).into()).hex();
        self.dir.join(format!("{name}.{ENDING}"))
    }

    fn turn(&self) -> Result<File> {
        let doing = || format!("cannot lock {}", self.dir.display());
        let turn = File::open(&self.dir).doing(doing)?;
        flock(&turn, Lock::Exclusive).doing(doing)?;
        Ok(turn)
    }

    fn write(&self, hold: &CountedHold) -> Result<()> {
        let path = self.path(&hold.key);
        let doing = || format!("cannot write {}", path.display());
        let written = Written {
            key: hold.key.clone(),
            by: hold.by.clone(),
            count: hold.count,
            layers: hold.layers.iter().map(DiffId::to_string).collect(),
            note: hold.note.clone(),
        };
        let text = serde_json::to_vec(&written).map_err(std::io::Error::from).doing(doing)?;
        // Its turn is this process's alone, so the name is free but for what a crash left.
        let draft = self.dir.join(".hold.new");
        let mut file = File::create(&draft).doing(doing)?;
        file.write_all(&text).and_then(|()| file.sync_all()).doing(doing)?;
        std::fs::rename(&draft, &path).doing(doing)?;
        self.sync()
    }

    fn remove(&self, key: &str) -> Result<()> {
        let path = self.path(key);
        std::fs::remove_file(&path).doing(|| format!("cannot remove {}", path.display()))?;
        self.sync()
    }

    fn sync(&self) -> Result<()> {
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        synced.doing(|| format!("cannot sync {}", self.dir.display()))
    }
}

fn read(path: &Path) -> Result<Option<CountedHold>> {
    let damaged = || Error::damaged(path.display().to_string(), "it is not as strata writes it");
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).doing(|| format!("cannot read {}", path.display())),
    };
    let Written { key, by, count, layers, note } =
        serde_json::from_slice(&text).map_err(|_| damaged())?;
    let layers = layers.iter().map(|layer| layer.parse()).collect::<std::result::Result<_, _>>();
    Ok(Some(CountedHold { key, by, count, layers: layers.map_err(|_| damaged())?, note }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(key: &str, layer: &str) -> CountedHold {
        let layers = vec![format!("sha256:{}", layer.repeat(64)).parse().unwrap()];
        CountedHold { key: key.into(), by: "someone".into(), count: 1, layers, note: "n".into() }
    }

    #[test]
    fn a_hold_lasts_until_it_was_given_back_as_often_as_it_was_taken() {
        let dir = tempfile::tempdir().unwrap();
        let holds = CountedHolds::new(dir.path());
        let (a, b) = (hold("a", "1"), hold("b", "2"));
        assert_eq!((holds.take(&a).unwrap(), holds.take(&a).unwrap()), (1, 2));
        assert_eq!(holds.take(&b).unwrap(), 1);
        // Another process, or this one after a restart.
        let again = CountedHolds::new(dir.path());
        assert_eq!(again.all().unwrap(), [CountedHold { count: 2, ..a.clone() }, b.clone()]);
        assert_eq!(again.holder_of(&b.layers).unwrap(), Some((b.layers[0], "someone".into())));
        assert_eq!(again.give_back("a").unwrap(), Some(1));
        assert_eq!(again.give_back("a").unwrap(), Some(0));
        assert_eq!(again.give_back("a").unwrap(), None);
        assert_eq!(holds.holder_of(&a.layers).unwrap(), None);
        assert!(holds.end("b").unwrap());
        assert!(!holds.end("b").unwrap());
        assert_eq!(holds.all().unwrap(), []);
    }

    #[test]
    fn those_who_take_at_once_are_all_counted() {
        let dir = tempfile::tempdir().unwrap();
        let holds = CountedHolds::new(dir.path());
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
    fn a_file_that_says_nothing_is_told_and_never_taken_for_no_hold() {
        let dir = tempfile::tempdir().unwrap();
        let holds = CountedHolds::new(dir.path());
        std::fs::write(holds.path("a"), "{").unwrap();
        assert!(matches!(holds.all(), Err(Error::Damaged { .. })));
    }
}
