//! Images that came for containerd, their names, and fetches that are going on.
//!
//! Invariant: an image that is noted has its names noted, those that it was given for containerd.

use rusqlite::{Connection, Row, TransactionBehavior, params};
use strata_tree::ImageId;

use super::State;
use crate::error::Result;

/// Whether the record is of a version that notes names.
pub(super) fn notes_names(db: &Connection) -> Result<bool> {
    let count = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'image_names'";
    Ok(db.query_row(count, [], |row| row.get(0))?)
}

/// Notes all names that the noted images have. Which of them were given for containerd nobody has
/// written down; without any, none of these images would ever go.
pub(super) fn note_names_of_before(
    db: &Connection,
    tags: impl FnOnce() -> Result<Vec<(String, ImageId)>>,
) -> Result<()> {
    let any: bool = db.query_row("SELECT EXISTS (SELECT 1 FROM images)", [], |row| row.get(0))?;
    if !any {
        return Ok(());
    }
    let mut note = db.prepare(
        "INSERT OR REPLACE INTO image_names (name, id) SELECT ?1, id FROM images WHERE id = ?2",
    )?;
    for (name, image) in tags()? {
        note.execute(params![name, &image.as_bytes()[..]])?;
    }
    Ok(())
}

impl State {
    /// Images that came for containerd.
    pub(crate) fn noted_images(&self) -> Result<Vec<ImageId>> {
        let mut statement = self.db.prepare_cached("SELECT id FROM images")?;
        let read = |row: &Row<'_>| Ok(ImageId::from_bytes(row.get(0)?));
        Ok(statement.query_map([], read)?.collect::<std::result::Result<_, _>>()?)
    }

    /// The image is gone, or no longer containerd's alone.
    pub(crate) fn forget_image(&mut self, image: &ImageId) -> Result<()> {
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for table in ["images", "image_names"] {
            tx.execute(&format!("DELETE FROM {table} WHERE id = ?1"), [&image.as_bytes()[..]])?;
        }
        Ok(tx.commit()?)
    }

    /// Notes a name that an image is given for containerd.
    pub(crate) fn note_name(&mut self, image: &ImageId, name: &str) -> Result<()> {
        self.db
            .prepare_cached("INSERT OR REPLACE INTO image_names (name, id) VALUES (?1, ?2)")?
            .execute(params![name, &image.as_bytes()[..]])?;
        Ok(())
    }

    /// Those names.
    pub(crate) fn noted_names(&self, image: &ImageId) -> Result<Vec<String>> {
        let mut statement = self.db.prepare_cached("SELECT name FROM image_names WHERE id = ?1")?;
        let names = statement.query_map([&image.as_bytes()[..]], |row| row.get(0))?;
        Ok(names.collect::<std::result::Result<_, _>>()?)
    }

    /// Notes that an image is about to be fetched, and which images there are before that.
    pub(crate) fn begin_fetch(&mut self, reference: &str, before: &[ImageId]) -> Result<()> {
        let before: Vec<u8> = before.iter().flat_map(|image| *image.as_bytes()).collect();
        self.db
            .prepare_cached("INSERT OR REPLACE INTO fetches (reference, before) VALUES (?1, ?2)")?
            .execute(params![reference, before])?;
        Ok(())
    }

    /// Images whose fetch was begun, with those that were there before.
    pub(crate) fn fetches(&self) -> Result<Vec<(String, Vec<ImageId>)>> {
        let mut statement = self.db.prepare_cached("SELECT reference, before FROM fetches")?;
        let mut all = Vec::new();
        for row in statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?)))? {
            let (reference, before) = row?;
            let (before, _) = before.as_chunks::<32>();
            all.push((reference, before.iter().map(|id| ImageId::from_bytes(*id)).collect()));
        }
        Ok(all)
    }

    /// The end of a fetch: of `image`, if it brought that one.
    pub(crate) fn end_fetch(&mut self, reference: &str, image: Option<&ImageId>) -> Result<()> {
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if let Some(image) = image {
            tx.prepare_cached("INSERT OR REPLACE INTO images (id) VALUES (?1)")?
                .execute([&image.as_bytes()[..]])?;
        }
        tx.prepare_cached("DELETE FROM fetches WHERE reference = ?1")?.execute([reference])?;
        Ok(tx.commit()?)
    }
}
