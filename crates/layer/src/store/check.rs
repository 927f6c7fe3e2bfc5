//! `fsck`: index against directories against digests, both ways.
//!
//! 1. The header of `index.db`, SQLite's own checks, the schema (`check_index`).
//! 2. Every layer: its diff, rebuilt from its directory, has its diff id; its rows, derived from
//!    that diff, equal those of the index, column by column; every name lies in `diff/` with the
//!    right bytes, and nothing else does (`check_files`); names of one content are one inode.
//! 3. Holder sets, blocks and directories are as the index says (`check_accounts`).
//! 4. Images and tags equal `images.json`, blobs their names, compiled trees their checksums; what
//!    engines hold can be read.
//!
//! Invariants: without `repair` nothing is changed; garbage that a crash may leave is a note, not
//! a problem, and neither is what other processes do meanwhile. With it, what stays among the
//! problems is what could not be mended.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use strata_tree::TreePath;

use super::check_accounts::wrong_numbers;
use super::checker::Checker;
use super::fsck_report::{FsckReport, Problem};
use super::leases::LeasedLayer;
use super::mend::Mender;
use super::rebuild::{Derived, derive, rebuild};
use super::{Store, StoreOptions, check_index, verity};
use crate::error::{Error, IoContext, Result};
use crate::index::rows::{EntryRow, with_paths};
use crate::index::{self, LayerRecord, rows};
use crate::progress::{Event, Progress};

impl Store {
    /// Checks the store at `root`; with `repair`, mends what can be mended: a damaged or missing
    /// index is rebuilt, a damaged layer is taken out with the images that need it, so that they
    /// can be loaded again.
    ///
    /// # Errors
    /// `NewerStore`; `InUse` if the index must be rebuilt and somebody has the store open; `Io`,
    /// `Sqlite`: the check itself could not be done.
    pub fn fsck(
        root: &Path,
        repair: bool,
        options: StoreOptions,
        progress: &dyn Progress,
    ) -> Result<FsckReport> {
        let mut repaired = Vec::new();
        let unreadable = check_index::unreadable(root)?;
        let mut report = match &unreadable {
            Some(what) => {
                let problems = vec![Problem::Index(what.clone())];
                FsckReport { problems, ..FsckReport::default() }
            }
            None => check(&Self::open_existing(root, options.clone())?, progress)?,
        };
        if !repair {
            return Ok(report);
        }
        let (index, others): (Vec<_>, Vec<_>) = std::mem::take(&mut report.problems)
            .into_iter()
            .partition(|problem| matches!(problem, Problem::Index(_)));
        report.problems = others;
        if !index.is_empty() {
            let mut rebuilt = FsckReport::default();
            rebuild(root, options.on_step.clone(), progress, &mut rebuilt)?;
            repaired.extend(index.iter().map(|problem| format!("{problem}: rebuilt")));
            repaired.extend(rebuilt.repaired);
            report = check(&Self::open_with(root, options.clone())?, progress)?;
        }
        let store = Self::open_with(root, options)?;
        report = Mender::new(&store.dir, &store.index, report).mend()?;
        repaired.append(&mut report.repaired);
        Ok(FsckReport { repaired, ..report })
    }
}

/// Looks a second time at what is wrong in a store that others have changed meanwhile: what a
/// change of theirs explains is gone then.
fn check(store: &Store, progress: &dyn Progress) -> Result<FsckReport> {
    let before = store.index.lock().changes_of_others()?;
    let check = || Checker::new(&store.dir, &store.index).check(progress);
    let first = check()?;
    if first.problems.is_empty() || store.index.lock().changes_of_others()? == before {
        return Ok(first);
    }
    let mut report = check()?;
    report.problems.retain(|problem| first.problems.contains(problem));
    Ok(report)
}

impl Checker<'_> {
    /// Checks all of the store.
    ///
    /// # Errors
    /// `Io`, `Sqlite`: the check itself could not be done.
    fn check(mut self, progress: &dyn Progress) -> Result<FsckReport> {
        if let Err(error) = self.check_all(progress) {
            self.report.index_problem(check_index::damage(error)?);
        }
        Ok(self.report)
    }

    fn check_all(&mut self, progress: &dyn Progress) -> Result<()> {
        self.check_sqlite()?;
        let records = index::layers(&self.index.lock().db)?;
        for record in records {
            let label = record.diff_id.short();
            progress.event(&label, Event::Started { total: None });
            match self.check_layer(&record) {
                Ok(()) => {}
                Err(error @ Error::Sqlite(_)) => return Err(error),
                Err(error) => self.report.layer_problem(&record.diff_id, error.to_string()),
            }
            self.report.layers += 1;
            progress.event(&label, Event::Done);
        }
        self.check_accounts()?;
        self.check_images()?;
        self.check_holds()?;
        self.check_leftovers()
    }

    fn check_layer(&mut self, record: &LayerRecord) -> Result<()> {
        let Some(leased) = LeasedLayer::take(self.dir, self.index, &record.diff_id)? else {
            return Err(Error::NoLayer(record.diff_id));
        };
        let index_problem = |report: &mut FsckReport, what: &str| {
            report.index_problem(format!("layer {}: {what}", record.diff_id));
        };
        let stored = rows::select(&self.index.lock().db, record.id);
        let derived =
            derive(&leased).and_then(|Derived { built, record }| Ok((built.all_rows()?, record)));
        let rows = match (&stored, &derived) {
            (_, Ok((rows, _))) => rows,
            (Ok((rows, _)), Err(_)) => rows,
            (Err(_), Err(_)) => &Vec::new(),
        };
        self.check_files(&leased, rows)?;
        match &stored {
            Err(error) => index_problem(&mut self.report, &error.to_string()),
            Ok((stored, content_ids)) => {
                if let Ok((derived_rows, derived)) = &derived {
                    let mut wrong = differences(stored, derived_rows);
                    if wrong.is_empty() {
                        let unlike = rows::unlike(&self.index.lock().db, record.id, derived_rows)?;
                        wrong = named(&unlike, derived_rows);
                    }
                    wrong.iter().for_each(|what| index_problem(&mut self.report, what));
                    let wrong = wrong_numbers(record, derived);
                    wrong.iter().for_each(|what| index_problem(&mut self.report, what));
                }
                self.check_inodes(&leased, stored, content_ids);
                for what in verity::faults(self.index, &leased, &mut self.sealed)? {
                    index_problem(&mut self.report, &what);
                }
            }
        }
        derived.map(|_| ())
    }

    /// Names of one content must be one inode.
    fn check_inodes(&mut self, leased: &LeasedLayer, rows: &[EntryRow], contents: &[Option<i64>]) {
        for (path, at, _) in with_paths(rows) {
            let Some(id) = contents.get(at).copied().flatten() else { continue };
            let Ok(meta) = leased.open(&path).and_then(|f| f.metadata().doing(|| path.to_string()))
            else {
                continue; // Told already.
            };
            let inode = (meta.dev(), meta.ino());
            if self.inodes.entry(id).or_insert((inode, meta.blocks())).0 != inode {
                let what = format!("{path} is not the inode of its content {id}");
                self.report.index_problem(format!("layer {}: {what}", leased.diff_id()));
            }
        }
    }
}

/// What differs between the index' rows and those derived from the directory, the first few.
fn differences(stored: &[EntryRow], derived: &[EntryRow]) -> Vec<String> {
    if stored.len() != derived.len() {
        return vec![format!("{} rows, should be {}", stored.len(), derived.len())];
    }
    let rows = stored.iter().zip(derived).enumerate().filter(|(_, (a, b))| a != b);
    named(&rows.map(|(at, _)| at).collect::<Vec<_>>(), derived)
}

/// Says of which paths the rows are wrong, the first few.
fn named(wrong: &[usize], rows: &[EntryRow]) -> Vec<String> {
    const MOST: usize = 8;
    let paths: HashMap<usize, TreePath> = match wrong {
        [] => HashMap::new(),
        _ => with_paths(rows).map(|(path, at, _)| (at, path)).collect(),
    };
    let path = |at| paths.get(at).map_or("/".to_owned(), ToString::to_string);
    wrong.iter().take(MOST).map(|at| format!("the row of {} is wrong", path(at))).collect()
}
