//! Images and tags in the index.
//!
//! Invariant: an image's layers are in the index as long as the image is (foreign keys), so an
//! image that is listed can be mounted.

use rusqlite::{Connection, OptionalExtension};
use strata_tree::{BlobDigest, DiffId, ImageId};

use super::layer_records::find_layer;
use crate::error::{Error, Result};

/// What the index keeps of an image; the rest is in its config blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecord {
    /// The digest of its config.
    pub id: ImageId,
    /// The manifest that it came with, if it came with one.
    pub manifest: Option<BlobDigest>,
    /// Its layers, base first (OCI config.md, `rootfs.diff_ids`); one may stand there twice.
    pub layers: Vec<DiffId>,
}

pub(crate) fn put(db: &Connection, image: &ImageRecord) -> Result<()> {
    let known = find(db, &image.id)?;
    let manifest = image.manifest.or(known.as_ref().and_then(|known| known.manifest));
    db.execute(
        "INSERT INTO images (id, manifest) VALUES (?1, ?2)
         ON CONFLICT (id) DO UPDATE SET manifest = excluded.manifest",
        (image.id.as_bytes(), manifest.as_ref().map(BlobDigest::as_bytes)),
    )?;
    if known.is_some() {
        return Ok(()); // The config names the layers, so they are the same.
    }
    for (position, diff_id) in image.layers.iter().enumerate() {
        let layer = find_layer(db, diff_id)?.ok_or(Error::NoLayer(*diff_id))?;
        db.execute(
            "INSERT INTO image_layers (image, position, layer) VALUES (?1, ?2, ?3)",
            (image.id.as_bytes(), position as i64, layer.id),
        )?;
    }
    Ok(())
}

pub(crate) fn find(db: &Connection, id: &ImageId) -> Result<Option<ImageRecord>> {
    let manifest = db
        .prepare_cached("SELECT manifest FROM images WHERE id = ?1")?
        .query_row([id.as_bytes()], |row| row.get::<_, Option<[u8; 32]>>(0))
        .optional()?;
    let Some(manifest) = manifest else { return Ok(None) };
    let mut statement = db.prepare_cached(
        "SELECT diff_id FROM image_layers JOIN layers ON layers.id = image_layers.layer
         WHERE image = ?1 ORDER BY position",
    )?;
    let layers = statement
        .query_map([id.as_bytes()], |row| row.get(0).map(DiffId::from_bytes))?
        .collect::<std::result::Result<_, _>>()?;
    Ok(Some(ImageRecord { id: *id, manifest: manifest.map(BlobDigest::from_bytes), layers }))
}

pub(crate) fn all(db: &Connection) -> Result<Vec<ImageRecord>> {
    let ids: Vec<ImageId> = db
        .prepare_cached("SELECT id FROM images ORDER BY id")?
        .query_map([], |row| row.get(0).map(ImageId::from_bytes))?
        .collect::<std::result::Result<_, _>>()?;
    let mut images = Vec::new();
    for id in ids {
        images.extend(find(db, &id)?);
    }
    Ok(images)
}

pub(crate) fn tags(db: &Connection) -> Result<Vec<(String, ImageId)>> {
    let mut statement =
        db.prepare_cached("SELECT reference, image FROM tags ORDER BY reference")?;
    let rows =
        statement.query_map([], |row| Ok((row.get(0)?, ImageId::from_bytes(row.get(1)?))))?;
    Ok(rows.collect::<std::result::Result<_, _>>()?)
}

/// Gives an image a name; `verdict` says why it was let in under it.
pub(crate) fn tag(
    db: &Connection,
    reference: &str,
    image: &ImageId,
    verdict: Option<&str>,
) -> Result<()> {
    if find(db, image)?.is_none() {
        return Err(Error::NoImage(*image));
    }
    db.execute(
        "INSERT INTO tags (reference, image, verdict) VALUES (?1, ?2, ?3)
         ON CONFLICT (reference) DO UPDATE SET image = excluded.image, verdict = excluded.verdict",
        (reference, image.as_bytes(), verdict),
    )?;
    Ok(())
}

/// The names that have a verdict, with it, sorted by name.
pub(crate) fn verdicts(db: &Connection) -> Result<Vec<(String, ImageId, String)>> {
    let mut statement = db.prepare_cached(
        "SELECT reference, image, verdict FROM tags WHERE verdict IS NOT NULL ORDER BY reference",
    )?;
    let rows = statement
        .query_map([], |row| Ok((row.get(0)?, ImageId::from_bytes(row.get(1)?), row.get(2)?)))?;
    Ok(rows.collect::<std::result::Result<_, _>>()?)
}

pub(crate) fn untag(db: &Connection, reference: &str) -> Result<Option<ImageId>> {
    Ok(db
        .prepare_cached("DELETE FROM tags WHERE reference = ?1 RETURNING image")?
        .query_row([reference], |row| row.get(0).map(ImageId::from_bytes))
        .optional()?)
}

/// Removes an image with its tags; returns the layers that no image has any more.
pub(crate) fn remove(db: &Connection, id: &ImageId) -> Result<Vec<DiffId>> {
    let Some(image) = find(db, id)? else { return Err(Error::NoImage(*id)) };
    db.execute("DELETE FROM tags WHERE image = ?1", [id.as_bytes()])?;
    db.execute("DELETE FROM image_layers WHERE image = ?1", [id.as_bytes()])?;
    db.execute("DELETE FROM images WHERE id = ?1", [id.as_bytes()])?;
    let mut freed: Vec<DiffId> = Vec::new();
    for layer in &image.layers {
        if !freed.contains(layer) && !referenced(db, layer)? {
            freed.push(*layer);
        }
    }
    Ok(freed)
}

/// Whether an image has that layer.
pub(crate) fn referenced(db: &Connection, layer: &DiffId) -> Result<bool> {
    Ok(db
        .prepare_cached(
            "SELECT 1 FROM image_layers JOIN layers ON layers.id = image_layers.layer
             WHERE diff_id = ?1",
        )?
        .exists([layer.as_bytes()])?)
}
