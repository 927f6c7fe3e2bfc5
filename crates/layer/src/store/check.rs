//! `fsck`: index against directories against digests, both ways.
//!
//! 1. SQLite's own integrity and foreign key checks.
//! 2. Every layer: its diff, rebuilt from its directory, has its diff id; its rows, derived from
//!    that diff, equal those of the index; every name lies in `diff/` with the right bytes, and
//!    nothing else does; names of one content are one inode.
//! 3. Images and tags equal `images.json`, blobs their names, compiled trees their checksums.
//!
//! Invariants: without `repair` nothing is changed; garbage that a crash may leave is a note, not
//! a problem.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sha2::{Digest, Sha256};
use strata_tree::{BlobDigest, ContentDigest, DiffId, FlatTree, NodeId, TreePath};

use super::images::listing;
use super::{HeldLayer, Store, StoreOptions, rebuild};
use crate::error::{Error, IoContext, Result};
use crate::index::rows::{EntryRow, RowKind};
use crate::index::{LayerRecord, rows};
use crate::progress::{Event, Progress};

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The index contradicts the directories, or itself. A rebuild mends it.
    Index(String),
    /// A layer's directory is damaged. Only loading it again mends it.
    Layer {
        /// Which layer.
        diff_id: DiffId,
        /// The file and what is wrong with it.
        what: String,
    },
    /// Another file of the store is damaged.
    Other(String),
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Index(what) => write!(f, "index.db: {what}"),
            Self::Layer { diff_id, what } => write!(f, "layer {diff_id}: {what}"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

/// What a check found and did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct FsckReport {
    /// Layers looked at.
    pub layers: u64,
    /// Names of regular files looked at.
    pub files: u64,
    /// Bytes hashed.
    pub bytes: u64,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// What is not wrong, but worth a line.
    pub notes: Vec<String>,
    /// What was mended.
    pub repaired: Vec<String>,
}

impl FsckReport {
    pub(super) fn problem(&mut self, what: String) {
        self.problems.push(Problem::Other(what));
    }

    pub(super) fn layer_problem(&mut self, diff_id: &DiffId, what: String) {
        self.problems.push(Problem::Layer { diff_id: *diff_id, what });
    }
}

/// What one check remembers from layer to layer.
#[derive(Default)]
struct Memory {
    digests: HashMap<(u64, u64), ContentDigest>,
    inodes: HashMap<i64, (u64, u64)>,
}

impl Store {
    /// Checks the store at `root`; with `repair`, mends what can be mended: a damaged or missing
    /// index is rebuilt, a damaged layer is taken out with the images that need it, so that they
    /// can be loaded again.
    ///
    /// # Errors
    /// `Io`, `Sqlite`: the check itself could not be done.
    pub fn fsck(
        root: &Path,
        repair: bool,
        options: StoreOptions,
        progress: &dyn Progress,
    ) -> Result<FsckReport> {
        let missing = !root.join("index.db").exists();
        if missing || rebuild::readable(root).is_err() {
            let what = if missing { "is gone" } else { "cannot be read" };
            if repair {
                let mut report = Self::rebuild(root, options, progress)?;
                report.repaired.insert(0, format!("index.db {what}: rebuilt"));
                return Ok(report);
            }
            let problem = Problem::Index(format!("{what}; --repair rebuilds it"));
            return Ok(FsckReport { problems: vec![problem], ..FsckReport::default() });
        }
        let store = Self::open_with(root, options.clone())?;
        let mut report = store.check(progress)?;
        if !repair {
            return Ok(report);
        }
        let damaged: Vec<DiffId> = report.damaged_layers();
        store.drop_layers(&damaged, &mut report)?;
        if report.problems.iter().any(|problem| matches!(problem, Problem::Index(_))) {
            drop(store);
            let rebuilt = Self::rebuild(root, options, progress)?;
            report.repaired.push("index.db: rebuilt".to_owned());
            report.repaired.extend(rebuilt.repaired);
            report.problems.retain(|problem| !matches!(problem, Problem::Index(_)));
            report.problems.extend(rebuilt.problems);
        }
        Ok(report)
    }

    fn check(&self, progress: &dyn Progress) -> Result<FsckReport> {
        let mut report = FsckReport::default();
        self.check_sqlite(&mut report)?;
        let mut memory = Memory::default();
        for record in self.layers()? {
            let label = record.diff_id.short();
            progress.event(&label, Event::Started { total: None });
            if let Err(error) = self.check_layer(&record, &mut memory, &mut report) {
                report.layer_problem(&record.diff_id, error.to_string());
            }
            report.layers += 1;
            progress.event(&label, Event::Done);
        }
        self.check_images(&mut report)?;
        self.check_leftovers(&mut report)?;
        Ok(report)
    }

    fn check_sqlite(&self, report: &mut FsckReport) -> Result<()> {
        let index = self.index();
        let mut statement = index.db.prepare("PRAGMA integrity_check")?;
        let lines = statement.query_map([], |row| row.get::<_, String>(0));
        match lines.and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>) {
            Ok(lines) => {
                let wrong = lines.into_iter().filter(|line| line != "ok");
                report.problems.extend(wrong.map(Problem::Index));
            }
            Err(error) => report.problems.push(Problem::Index(error.to_string())),
        }
        let mut statement = index.db.prepare("PRAGMA foreign_key_check")?;
        let broken = statement.query_map([], |row| row.get::<_, String>(0))?.count();
        if broken > 0 {
            report.problems.push(Problem::Index(format!("{broken} rows refer to none")));
        }
        let loose: i64 = index.db.query_row(
            "SELECT count(*) FROM contents
             WHERE NOT EXISTS (SELECT 1 FROM entries WHERE content = contents.id)",
            [],
            |row| row.get(0),
        )?;
        if loose > 0 {
            report.problems.push(Problem::Index(format!("{loose} contents have no entry")));
        }
        Ok(())
    }

    fn check_layer(
        &self,
        record: &LayerRecord,
        memory: &mut Memory,
        report: &mut FsckReport,
    ) -> Result<()> {
        let Some(held) = self.hold(&record.diff_id)? else {
            return Err(Error::NoLayer(record.diff_id));
        };
        let index_problem = |report: &mut FsckReport, what: String| {
            report.problems.push(Problem::Index(format!("layer {}: {what}", record.diff_id)));
        };
        let stored = rows::select(&self.index().db, record.id);
        let derived = self.derive(&held);
        let rows = match (&stored, &derived) {
            (_, Ok(derived)) => &derived.built.finished.rows,
            (Ok((rows, _)), Err(_)) => rows,
            (Err(_), Err(_)) => &Vec::new(),
        };
        self.check_files(&held, rows, memory, report)?;
        match &stored {
            Err(error) => index_problem(report, error.to_string()),
            Ok((stored, content_ids)) => {
                if let Ok(derived) = &derived {
                    for what in differences(stored, &derived.built.finished.rows) {
                        index_problem(report, what);
                    }
                    let LayerRecord { id, .. } = *record;
                    if (LayerRecord { id, ..derived.record }) != *record {
                        index_problem(report, "its sizes are not those of its directory".into());
                    }
                }
                check_inodes(&held, stored, content_ids, memory, report);
            }
        }
        derived.map(|_| ())
    }

    /// Compares `diff/` with the rows, both ways, and hashes what was not hashed yet.
    fn check_files(
        &self,
        held: &HeldLayer,
        rows: &[EntryRow],
        memory: &mut Memory,
        report: &mut FsckReport,
    ) -> Result<()> {
        let diff_id = held.diff_id;
        let mut expected: HashMap<TreePath, Option<(ContentDigest, u64)>> = HashMap::new();
        for (path, _, row) in with_paths(rows) {
            let content = |row: &EntryRow| match &row.kind {
                RowKind::Regular(digest) => {
                    Some((*digest, row.meta.as_ref().map_or(0, |meta| meta.size)))
                }
                _ => None,
            };
            match &row.kind {
                RowKind::Directory { marks, .. }
                    if marks.presence != strata_tree::Presence::Phantom =>
                {
                    expected.insert(path, None);
                }
                RowKind::Regular(_) => {
                    expected.insert(path, content(row));
                }
                RowKind::HardLink(target) => {
                    let target = rows.get((target.0 as usize).wrapping_sub(1));
                    if let Some(content) = target.and_then(content) {
                        expected.insert(path, Some(content));
                    }
                }
                _ => {}
            }
        }
        let diff = self.root.join(super::layer_path(&diff_id)).join("diff");
        let mut todo = vec![TreePath::root()];
        let mut found = HashSet::from([TreePath::root()]);
        while let Some(dir) = todo.pop() {
            let at = diff.join(dir.as_os_str());
            for entry in std::fs::read_dir(&at).doing(|| format!("cannot list {dir}"))? {
                let entry = entry.doing(|| format!("cannot list {dir}"))?;
                let name = std::os::unix::ffi::OsStrExt::as_bytes(&*entry.file_name()).to_vec();
                let Ok(path) = strata_tree::Name::new(&name).map(|name| dir.join(name)) else {
                    continue;
                };
                let meta = entry.metadata().doing(|| format!("cannot stat {path}"))?;
                found.insert(path.clone());
                match expected.get(&path) {
                    None => report.layer_problem(&diff_id, format!("{path} belongs to no entry")),
                    Some(None) if meta.is_dir() => todo.push(path),
                    Some(Some((digest, size))) if meta.is_file() => {
                        report.files += 1;
                        if meta.mode() & 0o7777 != 0o444 {
                            let what = format!("{path} has mode {:o}", meta.mode() & 0o7777);
                            report.layer_problem(&diff_id, what);
                        }
                        let actual = hash(held, &path, &meta, memory, report)?;
                        if actual != *digest || meta.len() != *size {
                            let what = format!("{path} is {actual}, should be {digest}");
                            report.layer_problem(&diff_id, what);
                        }
                    }
                    Some(_) => {
                        report.layer_problem(&diff_id, format!("{path} is of the wrong type"));
                    }
                }
            }
        }
        for path in expected.keys().filter(|path| !found.contains(*path)) {
            report.layer_problem(&diff_id, format!("{path} is missing"));
        }
        Ok(())
    }

    fn check_images(&self, report: &mut FsckReport) -> Result<()> {
        let index = self.index();
        let expected = listing(&index.db)?;
        drop(index);
        let path = self.root.join("images.json");
        let listed = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| error.to_string()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(super::images::Listing { images: Vec::new() })
            }
            Err(error) => Err(error.to_string()),
        };
        match listed {
            Ok(listed) if listed == expected => {}
            // A crash between the two leaves an image listed and not yet in the index.
            Ok(listed) if expected.images.iter().all(|image| listed.images.contains(image)) => {
                report.notes.push("images.json lists an image that a crash kept out".to_owned());
            }
            Ok(_) => {
                let what = "images and tags are not those of images.json";
                report.problems.push(Problem::Index(what.to_owned()));
            }
            Err(error) => report.problem(format!("images.json: {error}")),
        }
        for image in self.images()? {
            let blobs = [Some(BlobDigest::from(image.id)), image.manifest];
            for digest in blobs.into_iter().flatten() {
                if let Err(error) = self.blob(&digest) {
                    report.problem(format!("image {}: {error}", image.id));
                }
            }
        }
        Ok(())
    }

    fn check_leftovers(&self, report: &mut FsckReport) -> Result<()> {
        for (name, path) in self.list("layers")? {
            let known = match DiffId::from_hex(&name) {
                Ok(diff_id) => self.layer(&diff_id)?.is_some(),
                Err(_) => false,
            };
            if !known {
                let what = "is in no image and not in the index; `strata gc` removes it";
                report.notes.push(format!("{} {what}", path.display()));
            }
        }
        for (_, path) in self.list("trees")? {
            let file = File::open(&path).doing(|| format!("cannot open {}", path.display()))?;
            let tree = FlatTree::open(file, path.display().to_string(), Vec::new());
            if let Err(error) = tree.and_then(|tree| tree.verify()) {
                report.problem(format!("{error}"));
            }
        }
        Ok(())
    }

    fn drop_layers(&self, damaged: &[DiffId], report: &mut FsckReport) -> Result<()> {
        for image in self.images()? {
            if image.layers.iter().any(|layer| damaged.contains(layer)) {
                self.remove_image(&image.id)?;
                let what = "removed, since a layer of it is damaged; load it again";
                report.repaired.push(format!("image {}: {what}", image.id));
            }
        }
        if !damaged.is_empty() {
            self.gc()?;
        }
        Ok(())
    }
}

impl FsckReport {
    fn damaged_layers(&self) -> Vec<DiffId> {
        let mut damaged = Vec::new();
        for problem in &self.problems {
            if let Problem::Layer { diff_id, .. } = problem
                && !damaged.contains(diff_id)
            {
                damaged.push(*diff_id);
            }
        }
        damaged
    }
}

/// Every row but the root with its path; rows whose parents make no sense are left out.
fn with_paths(rows: &[EntryRow]) -> impl Iterator<Item = (TreePath, usize, &EntryRow)> {
    let mut dirs: HashMap<NodeId, TreePath> = HashMap::from([(NodeId::ROOT, TreePath::root())]);
    rows.iter().enumerate().skip(1).filter_map(move |(at, row)| {
        let name = strata_tree::Name::new(&row.name).ok()?;
        let path = dirs.get(&row.parent)?.join(name);
        if matches!(row.kind, RowKind::Directory { .. }) {
            dirs.insert(NodeId(at as u64 + 1), path.clone());
        }
        Some((path, at, row))
    })
}

/// What differs between the index' rows and those derived from the directory, the first few.
fn differences(stored: &[EntryRow], derived: &[EntryRow]) -> Vec<String> {
    const MOST: usize = 8;
    if stored.len() != derived.len() {
        return vec![format!("{} rows, should be {}", stored.len(), derived.len())];
    }
    let paths: Vec<_> = with_paths(derived).map(|(path, ..)| path).collect();
    let rows = stored.iter().zip(derived).enumerate().filter(|(_, (a, b))| a != b);
    rows.take(MOST)
        .map(|(at, _)| {
            let path = at.checked_sub(1).and_then(|at| paths.get(at));
            format!("the row of {} is wrong", path.map_or("/".to_owned(), ToString::to_string))
        })
        .collect()
}

/// Names of one content must be one inode.
fn check_inodes(
    held: &HeldLayer,
    rows: &[EntryRow],
    contents: &[Option<i64>],
    memory: &mut Memory,
    report: &mut FsckReport,
) {
    for (path, at, _) in with_paths(rows) {
        let Some(id) = contents.get(at).copied().flatten() else { continue };
        let Ok(meta) = held.open(&path).and_then(|f| f.metadata().doing(|| path.to_string()))
        else {
            continue; // Told already.
        };
        let inode = (meta.dev(), meta.ino());
        if *memory.inodes.entry(id).or_insert(inode) != inode {
            let what = format!("{path} is not the inode of its content {id}");
            report.problems.push(Problem::Index(format!("layer {}: {what}", held.diff_id)));
        }
    }
}

fn hash(
    held: &HeldLayer,
    path: &TreePath,
    meta: &std::fs::Metadata,
    memory: &mut Memory,
    report: &mut FsckReport,
) -> Result<ContentDigest> {
    let inode = (meta.dev(), meta.ino());
    if let Some(known) = memory.digests.get(&inode) {
        return Ok(*known);
    }
    let mut file = held.open(path)?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; 256 << 10];
    loop {
        match file.read(&mut chunk).doing(|| format!("cannot read {path}"))? {
            0 => break,
            n => {
                hasher.update(&chunk[..n]);
                report.bytes += n as u64;
            }
        }
    }
    let digest = ContentDigest::from_bytes(hasher.finalize().into());
    memory.digests.insert(inode, digest);
    Ok(digest)
}
