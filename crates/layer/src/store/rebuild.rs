//! Deriving a layer's rows from its directory alone, and `index.db` from all of them.
//!
//! The diff is put together again from `headers.zst` and `diff/` and read by the same code that
//! unpacked it, so a rebuilt index equals the lost one.
//!
//! Invariants: only layers whose rebuilt diff has their diff id enter the index; the old file is
//! kept aside until the new one is complete.

use std::collections::HashMap;
use std::io::Read;
use std::path::PathBuf;

use rusqlite::Connection;
use rustix::fs::fstat;
use sha2::{Digest, Sha256};
use strata_tree::{BlobDigest, ContentDigest, DiffId, ImageId, TreePath};

use super::images::Listing;
use super::{FsckReport, HeldLayer, Store, StoreOptions, make_root};
use crate::build::{Build, Built, Keeper};
use crate::diff::DiffReader;
use crate::error::{Error, IoContext, Result};
use crate::headers::DiffStream;
use crate::index::{self, ImageRecord, Index, LayerRecord, contents, images, rows};
use crate::lock::{Lock, Locked, lock_path};
use crate::progress::{Event, Progress};

/// A layer as its directory has it.
pub(super) struct Derived {
    pub built: Built,
    pub record: LayerRecord,
}

/// The inodes of contents seen so far: digest and inode number to `contents.id`, and the number
/// of copies of each digest.
#[derive(Default)]
struct Seen {
    ids: HashMap<(ContentDigest, u64), i64>,
    copies: HashMap<ContentDigest, i64>,
}

impl Store {
    /// Reads a layer back from its directory.
    pub(super) fn derive(&self, held: &HeldLayer) -> Result<Derived> {
        let headers = held.headers()?;
        let headers_size = headers.metadata().doing(|| "cannot stat headers.zst".into())?.len();
        let open = |path: &TreePath| held.open(path);
        let stream = Hashing { inner: DiffStream::new(&headers, &open)?, sha: Sha256::new(), n: 0 };
        let label = held.diff_id.to_string();
        let mut build = Build::new(&label, self.options.limits, None);
        let mut reader = DiffReader::new(stream, label, self.options.limits, Keeper(None));
        build.read(&mut reader)?;
        let (stream, _) = reader.finish()?;
        let (diff_size, actual) = (stream.n, DiffId::from_bytes(stream.sha.finalize().into()));
        if actual != held.diff_id {
            return Err(Error::damaged(
                format!("layer {}", held.diff_id),
                format!("the diff rebuilt from its directory is {actual}"),
            ));
        }
        let (built, _) = build.finish()?;
        let record = LayerRecord {
            id: 0,
            diff_id: held.diff_id,
            diff_size,
            headers_size,
            entries: built.finished.rows.len() as u64 - 1,
            apparent: built.apparent(),
        };
        Ok(Derived { built, record })
    }

    /// The exact tar of a layer, as it was unpacked.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn write_diff(&self, held: &HeldLayer, out: &mut dyn std::io::Write) -> Result<u64> {
        let headers = held.headers()?;
        let open = |path: &TreePath| held.open(path);
        let mut stream = DiffStream::new(&headers, &open)?;
        std::io::copy(&mut stream, out)
            .doing(|| format!("cannot rebuild the diff of layer {}", held.diff_id))
    }

    /// Makes `index.db` anew from the layer directories, `images.json` and `blobs/`.
    ///
    /// # Errors
    /// `Io`, `Sqlite`. What cannot be taken over is a problem of the report, not an error.
    pub fn rebuild(
        root: &std::path::Path,
        options: StoreOptions,
        progress: &dyn Progress,
    ) -> Result<FsckReport> {
        let root_fd = make_root(root)?;
        let db = root.join("index.db");
        for suffix in ["", "-wal", "-shm"] {
            let old = PathBuf::from(format!("{}{suffix}", db.display()));
            if old.exists() {
                let aside = PathBuf::from(format!("{}.damaged{suffix}", db.display()));
                std::fs::rename(&old, &aside)
                    .doing(|| format!("cannot move {} aside", old.display()))?;
            }
        }
        let store = Self::assemble(root, root_fd, options)?;
        let mut report = FsckReport::default();
        let mut index = store.index();
        let tx = index.write()?;
        let mut seen = Seen::default();
        for (name, path) in store.list("layers")? {
            let Ok(diff_id) = DiffId::from_hex(&name) else { continue };
            let label = diff_id.short();
            progress.event(&label, Event::Started { total: None });
            let Locked::Held(dir) = lock_path(&path, Lock::Shared)? else { continue };
            let held = HeldLayer { diff_id, dir: std::sync::Arc::new(dir) };
            match store.derive(&held) {
                Ok(derived) => {
                    insert_derived(&tx, &held, &derived, &mut seen)?;
                    report.layers += 1;
                    report.repaired.push(format!("layer {label} is in the index again"));
                }
                Err(error) => report.layer_problem(&diff_id, error.to_string()),
            }
            progress.event(&label, Event::Done);
        }
        store.restore_images(&tx, &mut report)?;
        tx.commit()?;
        Ok(report)
    }

    fn restore_images(&self, db: &Connection, report: &mut FsckReport) -> Result<()> {
        let path = self.root.join("images.json");
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).doing(|| format!("cannot read {}", path.display())),
        };
        let listing: Listing = match serde_json::from_slice(&text) {
            Ok(listing) => listing,
            Err(error) => {
                report.problem(format!("images.json cannot be read ({error}): load images again"));
                return Ok(());
            }
        };
        for listed in listing.images {
            let restored = (|| -> std::result::Result<(), String> {
                let text = |error: Error| error.to_string();
                let digest = |error: strata_tree::DigestError| error.to_string();
                let id: ImageId = listed.id.parse().map_err(digest)?;
                self.blob(&id.into()).map_err(text)?;
                let manifest = match &listed.manifest {
                    Some(manifest) => Some(manifest.parse::<BlobDigest>().map_err(digest)?),
                    None => None,
                };
                let layers = listed.layers.iter().map(|layer| layer.parse());
                let layers = layers.collect::<std::result::Result<Vec<DiffId>, _>>();
                let layers = layers.map_err(digest)?;
                for layer in &layers {
                    if index::find_layer(db, layer).map_err(text)?.is_none() {
                        return Err(Error::NoLayer(*layer).to_string());
                    }
                }
                images::put(db, &ImageRecord { id, manifest, layers }).map_err(text)?;
                for reference in &listed.tags {
                    images::tag(db, reference, &id).map_err(text)?;
                }
                Ok(())
            })();
            match restored {
                Ok(()) => report.repaired.push(format!("image {} is listed again", listed.id)),
                Err(why) => {
                    report.problem(format!("image {} cannot be restored: {why}", listed.id));
                }
            }
        }
        Ok(())
    }
}

/// Adds a derived layer whose files already lie in `layers/`.
fn insert_derived(
    db: &Connection,
    held: &HeldLayer,
    derived: &Derived,
    seen: &mut Seen,
) -> Result<()> {
    let layer = index::insert_layer(db, &derived.record)?;
    let built = &derived.built;
    let locals = built.locals_by_row();
    let mut ids = HashMap::new();
    for (row, path, _) in &built.finished.regular {
        let Some(local) = locals.get(row).map(|local| &built.locals[*local]) else { continue };
        let file = held.open(path)?;
        let inode = fstat(&file).doing(|| format!("cannot stat {path}"))?.st_ino;
        let id = match seen.ids.get(&(local.digest, inode)) {
            Some(id) => *id,
            None => {
                let copy = seen.copies.entry(local.digest).or_insert(-1);
                *copy += 1;
                let id = contents::insert(db, &local.digest, *copy, local.size)?;
                seen.ids.insert((local.digest, inode), id);
                id
            }
        };
        ids.insert(*row, id);
    }
    rows::insert(db, layer, &built.finished.rows, |row| ids.get(&row).copied())
}

/// Counts and hashes what is read through it.
struct Hashing<R> {
    inner: R,
    sha: Sha256,
    n: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.sha.update(&buf[..n]);
        self.n += n as u64;
        Ok(n)
    }
}

/// Opens the index of a store only to look whether it can be read at all.
pub(super) fn readable(root: &std::path::Path) -> Result<()> {
    let index = Index::open(&root.join("index.db"))?;
    index.db.query_row("SELECT count(*) FROM layers", [], |row| row.get::<_, i64>(0))?;
    Ok(())
}
