//! [`IndexReader`]: what other crates may ask of the index, without its tables and statements.
//!
//! Contents and holder sets have numbers in the index, which mean something only to the store
//! that gave them: [`ContentId`], [`HolderSetId`]. A digest is stored under one number, or under
//! several where the file system's limit of links forced further copies.
//!
//! Invariants: nothing is written; on the store's own connection each question waits for those of
//! others, so that no method of the store may be called from within [`IndexReader::each_row`].

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::ops::Deref;
use std::sync::MutexGuard;

use rusqlite::{Connection as Connected, OptionalExtension};
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use strata_tree::{ContentDigest, DiffId, ImageId, TreePath};

use crate::error::{Error, IoContext, Result};
use crate::index::rows::EntryRow;
use crate::index::shared::SharedIndex;
use crate::index::{
    self, ImageRecord, Index, LayerRecord, containing, holders, images, named, rows,
};
use crate::layout::{diff_path, layer_path};
use crate::stage::open_beneath;
use crate::store::{Store, StoreDir};

/// The number of a stored content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentId(pub(crate) i64);

/// The number of a holder set: of the layers that contain the same contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HolderSetId(i64);

/// A content under one of its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedContent {
    /// Its bytes.
    pub size: u64,
    layer: i64,
    node: i64,
    content: i64,
}

/// A content with more than one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepeatedContent {
    /// The content.
    pub content: ContentDigest,
    /// Its bytes.
    pub size: u64,
    /// How many names it has in the layers of the store.
    pub names: u64,
    /// Names that are not further hard links of one file.
    pub files: u64,
    /// The first of the names.
    pub paths: Vec<TreePath>,
}

/// The contents with more than one name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RepeatedContents {
    /// The first of them, by the bytes that sharing saves.
    pub contents: Vec<RepeatedContent>,
    /// How many there are; no bytes at all are none, for sharing them saves nothing.
    pub count: u64,
    /// Bytes of all files of all layers less those of all contents.
    pub saved: u64,
}

/// One question's hold on a connection.
enum Connection<'a> {
    Shared(MutexGuard<'a, Index>),
    Own(&'a Index),
}

impl Deref for Connection<'_> {
    type Target = Connected;

    fn deref(&self) -> &Connected {
        match self {
            Self::Shared(index) => &index.db,
            Self::Own(index) => &index.db,
        }
    }
}

/// The index of a store, to be read.
///
/// Each method fails with `Sqlite` where SQLite refuses, and with `Damaged` where the index
/// contradicts itself; what else a method may say is named there.
pub struct IndexReader<'s> {
    dir: &'s StoreDir,
    index: &'s SharedIndex,
    /// Of its own; else the store's.
    own: Option<Index>,
}

impl Store {
    /// Reads on the store's own connection.
    pub fn reader(&self) -> IndexReader<'_> {
        IndexReader { dir: self.dir(), index: self.index(), own: None }
    }

    /// Reads on a connection of its own, for another thread.
    ///
    /// # Errors
    /// `Sqlite`.
    pub fn another_reader(&self) -> Result<IndexReader<'_>> {
        Ok(IndexReader { own: Some(self.index().another()?), ..self.reader() })
    }
}

impl IndexReader<'_> {
    fn db(&self) -> Connection<'_> {
        match &self.own {
            Some(index) => Connection::Own(index),
            None => Connection::Shared(self.index.lock()),
        }
    }

    /// One layer; `None` if the store does not have it.
    pub fn layer(&self, diff_id: &DiffId) -> Result<Option<LayerRecord>> {
        index::find_layer(&self.db(), diff_id)
    }

    /// All layers, in the order in which they came.
    pub fn layers(&self) -> Result<Vec<LayerRecord>> {
        index::layers(&self.db())
    }

    /// All images.
    pub fn images(&self) -> Result<Vec<ImageRecord>> {
        images::all(&self.db())
    }

    /// Hands over all rows of a layer in node order, each with the number of its content.
    ///
    /// # Errors
    /// `NoLayer`, and what `take` says.
    pub fn each_row(
        &self,
        layer: &DiffId,
        take: &mut dyn FnMut(EntryRow, Option<ContentId>) -> Result<()>,
    ) -> Result<()> {
        let db = self.db();
        let record = index::find_layer(&db, layer)?.ok_or(Error::NoLayer(*layer))?;
        rows::each(&db, record.id, &mut |row, content| take(row, content.map(ContentId)))
    }

    /// Whether a name of a layer is a link into lower layers, which only a whole stack can resolve.
    ///
    /// # Errors
    /// `NoLayer`.
    pub fn needs_lower(&self, layer: &DiffId) -> Result<bool> {
        let db = self.db();
        let record = index::find_layer(&db, layer)?.ok_or(Error::NoLayer(*layer))?;
        rows::has_lower_links(&db, record.id)
    }

    /// Whether a layer contains those bytes.
    pub fn has(&self, content: &ContentDigest) -> Result<bool> {
        let db = self.db();
        let mut statement = db.prepare_cached("SELECT 1 FROM contents WHERE digest = ?1")?;
        Ok(statement.exists([content.as_bytes()])?)
    }

    /// The layers that contain those bytes, in the order in which they came, and every image
    /// that has one of these.
    pub fn containing(&self, content: &ContentDigest) -> Result<(Vec<DiffId>, Vec<ImageId>)> {
        let db = self.db();
        let layers = containing::layers(&db, &containing::copies(&db, content)?)?;
        let images = containing::images(&db, &layers)?;
        let layers = layers.into_iter().map(|(_, diff_id)| diff_id);
        Ok((layers.collect(), images.into_iter().collect()))
    }

    /// How many names those bytes have, and the first `limit` of them: layer and path.
    pub fn names(
        &self,
        content: &ContentDigest,
        limit: usize,
    ) -> Result<(u64, Vec<(DiffId, TreePath)>)> {
        let db = self.db();
        let ids = containing::copies(&db, content)?;
        Ok((containing::names(&db, &ids)?, containing::paths(&db, &ids, limit)?))
    }

    /// Which of `contents` a layer of an image other than `image` contains.
    pub fn in_other_images(
        &self,
        image: &ImageId,
        contents: &HashSet<ContentDigest>,
    ) -> Result<HashSet<ContentDigest>> {
        containing::in_other_images(&self.db(), image, contents)
    }

    /// The `limit` contents with the most bytes in more than one file, each with at most `paths`
    /// of its names, sorted. Reads on up to four connections at a time.
    pub fn repeated(&self, limit: usize, paths: usize) -> Result<RepeatedContents> {
        let found = named::most(&|| self.index.another(), limit)?;
        let mut contents = Vec::with_capacity(found.contents.len());
        for one in found.contents {
            let paths = containing::paths(&self.db(), &one.ids, paths)?;
            let mut paths: Vec<TreePath> = paths.into_iter().map(|(_, path)| path).collect();
            paths.sort_unstable();
            contents.push(RepeatedContent {
                content: one.content,
                size: one.size,
                names: one.names,
                files: one.files,
                paths,
            });
        }
        let nothing = ContentDigest::from_bytes(Sha256::digest([]).into());
        let (empty, _) = self.names(&nothing, 0)?;
        let count = found.count - u64::from(empty > 1).min(found.count);
        Ok(RepeatedContents { contents, count, saved: found.saved })
    }

    /// All holder sets: the layers of each, in the order in which they came.
    pub fn holder_sets(&self) -> Result<HashMap<HolderSetId, Vec<DiffId>>> {
        let layers = index::layers(&self.db())?;
        let layers: HashMap<i64, DiffId> =
            layers.into_iter().map(|record| (record.id, record.diff_id)).collect();
        let mut sets = HashMap::new();
        for (id, set, _) in holders::all(&self.db())? {
            let set = set.iter().filter_map(|layer| layers.get(layer).copied());
            sets.insert(HolderSetId(id), set.collect());
        }
        Ok(sets)
    }

    /// The holder sets of all copies of each content that is stored more than once.
    pub fn copied(&self) -> Result<HashMap<ContentDigest, Vec<HolderSetId>>> {
        let mut copied: HashMap<ContentDigest, Vec<HolderSetId>> = HashMap::new();
        let db = self.db();
        let mut statement = db.prepare(
            "SELECT digest, holders FROM contents
             WHERE digest IN (SELECT digest FROM contents WHERE copy > 0)",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let digest = ContentDigest::from_bytes(row.get(0)?);
            copied.entry(digest).or_default().push(HolderSetId(row.get(1)?));
        }
        Ok(copied)
    }

    /// The holder set of a content.
    pub fn holder_set(&self, content: ContentId) -> Result<HolderSetId> {
        let db = self.db();
        let mut statement = db.prepare_cached("SELECT holders FROM contents WHERE id = ?1")?;
        Ok(HolderSetId(statement.query_row([content.0], |row| row.get(0))?))
    }

    /// One name of every content of those layers, in the order in which they were unpacked.
    ///
    /// # Errors
    /// `NoLayer`.
    pub fn contents_of(&self, layers: &[DiffId]) -> Result<Vec<NamedContent>> {
        let db = self.db();
        let mut statement = db.prepare(
            "SELECT node, content, contents.size FROM entries
             JOIN contents ON contents.id = entries.content
             WHERE layer = ?1 AND content IS NOT NULL ORDER BY node",
        )?;
        let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
        for layer in layers {
            let layer = index::find_layer(&db, layer)?.ok_or(Error::NoLayer(*layer))?.id;
            let mut rows = statement.query([layer])?;
            while let Some(row) = rows.next()? {
                let (node, content) = (row.get(0)?, row.get(1)?);
                if seen.insert(content) {
                    let size: u64 = row.get(2)?;
                    found.push(NamedContent { size, layer, node, content });
                }
            }
        }
        Ok(found)
    }

    /// Opens a content; gives its digest, and what it is called in messages.
    ///
    /// # Errors
    /// `Damaged` also where its layer was removed meanwhile, `Io`.
    pub fn open(&self, named: &NamedContent) -> Result<(ContentDigest, String, File)> {
        let gone = || Error::damaged("a layer", "it was removed while it was read; try again");
        let db = self.db();
        let found = db
            .prepare_cached(
                "SELECT layers.diff_id, contents.digest, parent, name FROM entries
                 JOIN layers ON layers.id = entries.layer
                 JOIN contents ON contents.id = entries.content
                 WHERE entries.layer = ?1 AND node = ?2 AND content = ?3",
            )?
            .query_row((named.layer, named.node, named.content), |row| {
                let digest = ContentDigest::from_bytes(row.get(1)?);
                let name: Vec<u8> = row.get(3)?;
                Ok((DiffId::from_bytes(row.get(0)?), digest, row.get::<_, i64>(2)?, name))
            })
            .optional()?;
        let (diff_id, digest, parent, name) = found.ok_or_else(gone)?;
        let path = index::contents::path_of(&db, named.layer, parent, &name)?;
        let below = layer_path(&diff_id).join(diff_path(&path));
        let what = format!("{path} of layer {diff_id}");
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let file =
            open_beneath(self.dir.fd(), &below, flags).doing(|| format!("cannot read {what}"))?;
        Ok((digest, what, file.into()))
    }
}
