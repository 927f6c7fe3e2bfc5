//! Deriving a layer's rows from its directory alone, and `index.db` from all of them.
//!
//! The diff is put together again from `headers.zst` and `diff/` and read by the same code that
//! unpacked it, and by the rules of an earlier version where it was accepted by those, so a rebuilt
//! index equals the lost one.
//!
//! Invariants: only layers whose rebuilt diff has their diff id enter the index; the new one is
//! complete and durable before it replaces the old; nobody has the store open meanwhile.

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Transaction};
use rustix::fs::fstat;
use rustix::io::Errno;
use strata_diff::Limits;
use strata_diff::headers::{self, DiffStream, Keeper};
use strata_diff::spill::SpillSpace;
use strata_diff::stream::Hashed;
use strata_diff::tar::DiffReader;
use strata_tree::{BlobDigest, DiffId, ImageId, TreePath};

use super::StoreOptions;
use super::dir::StoreDir;
use super::fsck_report::FsckReport;
use super::leases::LeasedLayer;
use super::listing::{Found, ImageList, ListedImage, Listing};
use super::new_index::NewIndex;
use super::steps::Step;
use crate::body_target::Discarded;
use crate::build::{Build, Built, LocalContent};
use crate::error::{Error, IoContext, Result, second_look};
use crate::index::holders::NewHolder;
use crate::index::{self, ImageRecord, LayerRecord, contents, images, rows};
use crate::lock::{Lock, Locked, lock_path};
use crate::measure::frame;
use crate::progress::{Event, Progress};
use crate::scratch::BooksMemory;

/// A layer as its directory has it.
pub(super) struct Derived {
    pub built: Built,
    pub record: LayerRecord,
}

/// The inodes of contents that were met: there may be millions. A savepoint has it, too.
const INODES: &str = "
CREATE TEMP TABLE inodes (
    inode   INTEGER NOT NULL,
    digest  BLOB NOT NULL,
    content INTEGER NOT NULL,  -- contents.id
    PRIMARY KEY (inode, digest)
) WITHOUT ROWID;
";

/// Reads a layer back from its directory; what is noted meanwhile is in `scratch`.
pub(super) fn derive(leased: &LeasedLayer, scratch: &Arc<SpillSpace>) -> Result<Derived> {
    let headers = leased.headers()?;
    headers::verify(&headers)?;
    let headers_size = headers.metadata().doing(|| "cannot stat headers.zst".into())?.len();
    let open = |path: &TreePath| leased.open(path).map_err(std::io::Error::other);
    let mut tar = Hashed::new(DiffStream::new(&headers, &open)?);
    let label = leased.diff_id().to_string();
    let mut build = Build::new(&label, Limits::NONE, Discarded, scratch)?.accepted_before();
    let mut reader = DiffReader::new(&mut tar, label, Limits::NONE, Keeper(None));
    build.read(&mut reader)?;
    reader.finish()?;
    let (diff_size, actual) = (tar.size(), DiffId::from_bytes(tar.finish().1));
    if actual != *leased.diff_id() {
        return Err(Error::damaged(
            format!("layer {}", leased.diff_id()),
            format!("the diff rebuilt from its directory is {actual}"),
        ));
    }
    let (built, _) = build.finish()?;
    let frame = frame(leased.dir(), built.directories())?;
    let record = LayerRecord {
        id: 0,
        diff_id: *leased.diff_id(),
        diff_size,
        headers_size,
        entries: built.rows.count() - 1,
        apparent: built.rows.apparent()?,
        headers_blocks: frame.headers.blocks,
        directories: frame.directories,
    };
    Ok(Derived { built, record })
}

/// Makes a new `index.db` from the layer directories, `images.json` and `blobs/`; what it did and
/// what it could not take over goes into the report.
///
/// # Errors
/// `InUse` if somebody has the store open; `Io`, `Sqlite`.
pub(super) fn rebuild(
    root: &Path,
    options: &StoreOptions,
    progress: &dyn Progress,
    report: &mut FsckReport,
) -> Result<()> {
    let mut dir = StoreDir::make(root, options.on_step.clone())?;
    if let Some(memory) = options.memory {
        dir.set_memory(BooksMemory::of(memory));
    }
    match dir.lock(Lock::TryExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            return Err(Error::InUse { what: format!("the store at {}", root.display()) });
        }
        Err(error) => return Err(error).doing(|| format!("cannot lock {}", root.display())),
    }
    let new = NewIndex::make(root)?;
    let mut index = new.open()?;
    let mut tx = index.write()?;
    insert_layers(&dir, &mut tx, progress, report)?;
    restore_images(&dir, &tx, report)?;
    tx.commit()?;
    let images = ImageList::of(&index.db)?;
    index.close_whole()?;
    dir.step(Step::IndexRebuilt);
    new.replace(&dir.index())?;
    dir.step(Step::IndexReplaced);
    report.repaired.push("index.db: rebuilt from the layers".to_owned());
    let state = images.state();
    dir.write_aside(&dir.listing(), &Listing::new(images, state).text())
}

/// Adds every layer that lies in `layers/` and is whole.
fn insert_layers(
    dir: &StoreDir,
    tx: &mut Transaction<'_>,
    progress: &dyn Progress,
    report: &mut FsckReport,
) -> Result<()> {
    tx.execute_batch(INODES)?;
    for (name, path) in dir.list("layers")? {
        let Ok(diff_id) = DiffId::from_hex(&name) else { continue };
        let label = diff_id.short();
        progress.event(&label, Event::Started { total: None });
        let Locked::Held(lock) = lock_path(&path, Lock::Shared)? else { continue };
        let leased = LeasedLayer::new(diff_id, lock);
        let inserted = second_look(|| {
            let derived = derive(&leased, &dir.scratch_for_check())?;
            let part = tx.savepoint()?;
            insert_derived(&part, &leased, &derived)?;
            Ok(part.commit()?)
        });
        let what = match inserted {
            Ok(()) => format!("layer {diff_id}: in the index again"),
            Err(error) if error.may_be_damage() => {
                format!("layer {diff_id}: {error}: taken out; load it again")
            }
            Err(error) => return Err(error),
        };
        report.repaired.push(what);
        progress.event(&label, Event::Done);
    }
    Ok(())
}

/// Lists the images of `images.json` again, as far as their layers and blobs are there.
fn restore_images(dir: &StoreDir, db: &Connection, report: &mut FsckReport) -> Result<()> {
    let images = match Listing::read(&dir.listing())? {
        Found::Listing(listing) => listing.images,
        Found::Absent => {
            report.repaired.push("images.json: is gone too; load the images again".to_owned());
            return Ok(());
        }
        Found::Damaged(why, None) => {
            report.repaired.push(format!("images.json: {why}; load the images again"));
            return Ok(());
        }
        Found::Damaged(why, Some(images)) => {
            report.repaired.push(format!("images.json: {why}; compare the tags with yours"));
            images
        }
    };
    for listed in images.0 {
        let what = match second_look(|| restore_image(dir, db, &listed)) {
            Ok(()) => format!("image {}: listed again", listed.id),
            Err(error) if error.may_be_damage() => {
                format!("image {}: taken out: {error}; load it again", listed.id)
            }
            Err(error) => return Err(error),
        };
        report.repaired.push(what);
    }
    Ok(())
}

fn restore_image(dir: &StoreDir, db: &Connection, listed: &ListedImage) -> Result<()> {
    let digest = |error: strata_tree::DigestError| {
        Error::damaged("images.json", format!("image {}: {error}", listed.id))
    };
    let id: ImageId = listed.id.parse().map_err(digest)?;
    dir.blob(&id.into())?;
    let manifest = match &listed.manifest {
        Some(manifest) => Some(manifest.parse::<BlobDigest>().map_err(digest)?),
        None => None,
    };
    if let Some(manifest) = &manifest {
        dir.blob(manifest)?;
    }
    let layers = listed.layers.iter().map(|layer| layer.parse());
    let layers = layers.collect::<std::result::Result<Vec<DiffId>, _>>().map_err(digest)?;
    for layer in &layers {
        if index::find_layer(db, layer)?.is_none() {
            return Err(Error::NoLayer(*layer));
        }
    }
    images::put(db, &ImageRecord { id, manifest, layers })?;
    for reference in &listed.tags {
        let verdict = listed.verdicts.get(reference).map(String::as_str);
        images::tag(db, reference, &id, verdict)?;
    }
    Ok(())
}

/// Adds a derived layer whose files already lie in `layers/`.
fn insert_derived(db: &Connection, leased: &LeasedLayer, derived: &Derived) -> Result<()> {
    let layer = index::insert_layer(db, &derived.record)?;
    let mut added = NewHolder::new(db, layer)?;
    let built = &derived.built;
    rows::insert(db, layer, built.rows.count(), |row| {
        Ok((built.row(row)?, content_of(db, leased, built, row, &mut added)?))
    })?;
    added.settle(db)
}

/// The `contents.id` of a row, if it is a name of a regular file.
fn content_of(
    db: &Connection,
    leased: &LeasedLayer,
    built: &Built,
    row: u64,
    added: &mut NewHolder,
) -> Result<Option<i64>> {
    let Some(local) = built.local_of(row)? else { return Ok(None) };
    let LocalContent { digest, size, .. } = built.books.locals.get(local)?;
    let path = built.rows.path(row)?;
    let stat = fstat(&leased.open(&path)?).doing(|| format!("cannot stat {path}"))?;
    let (inode, blocks) = (stat.st_ino.cast_signed(), stat.st_blocks as u64);
    let known: Option<(i64, Option<i64>)> = db
        .prepare_cached(
            "SELECT content, holders FROM temp.inodes JOIN contents ON contents.id = content
             WHERE inode = ?1 AND inodes.digest = ?2",
        )?
        .query_row((inode, digest.as_bytes()), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some((id, holders)) = known {
        // Of another layer, or a further name within this one.
        if holders != Some(added.own) {
            added.note_known(db, id)?;
        }
        return Ok(Some(id));
    }
    let copy = db
        .prepare_cached("SELECT coalesce(max(copy), -1) + 1 FROM contents WHERE digest = ?1")?
        .query_row([digest.as_bytes()], |row| row.get(0))?;
    let id = contents::insert(db, &digest, copy, size, blocks, added.own)?;
    added.note_new(size, blocks);
    db.prepare_cached("INSERT INTO temp.inodes VALUES (?1, ?2, ?3)")?.execute((
        inode,
        digest.as_bytes(),
        id,
    ))?;
    Ok(Some(id))
}
