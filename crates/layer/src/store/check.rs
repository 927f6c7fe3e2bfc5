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

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use strata_tree::{DiffId, TreePath};

use super::check_accounts::wrong_numbers;
use super::checker::{Checker, MetContent};
use super::fsck_report::{FsckReport, Problem};
use super::layer_rows::LayerRows;
use super::leases::LeasedLayer;
use super::mend::Mender;
use super::rebuild::{Derived, derive, rebuild};
use super::{Store, StoreOptions, check_index, verity};
use crate::build::Built;
use crate::error::{Error, IoContext, Result, second_look};
use crate::index::rows::with_paths;
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
            rebuild(root, &options, progress, &mut rebuilt)?;
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
        let layers = index::layer_ids(&self.index.lock().db)?;
        for diff_id in layers {
            let label = diff_id.short();
            progress.event(&label, Event::Started { total: None });
            let record = index::find_layer(&self.index.lock().db, &diff_id);
            match record {
                Ok(Some(record)) => self.look_at(&record)?,
                // It has gone meanwhile.
                Ok(None) => continue,
                Err(error) => self.index_problems(&diff_id, [check_index::damage(error)?]),
            }
            self.report.layers += 1;
            progress.event(&label, Event::Done);
        }
        // Each by itself: what one cannot read hides nothing from the others.
        for step in
            [Self::check_accounts, Self::check_images, Self::check_holds, Self::check_leftovers]
        {
            if let Err(error) = step(self) {
                self.report.index_problem(check_index::damage(error)?);
            }
        }
        Ok(())
    }

    /// Checks a layer, a second time where the operating system refused something.
    ///
    /// # Errors
    /// What says nothing of the layer: the check could not be done.
    fn look_at(&mut self, record: &LayerRecord) -> Result<()> {
        let before = (self.report.problems.len(), self.report.files);
        let looked = second_look(|| {
            self.report.problems.truncate(before.0);
            self.report.files = before.1;
            self.check_layer(record)
        });
        match looked {
            Err(error) if error.may_be_damage() => {
                self.report.layer_problem(&record.diff_id, error.to_string());
                Ok(())
            }
            Err(error @ Error::Sqlite(_)) => {
                self.index_problems(&record.diff_id, [check_index::damage(error)?]);
                Ok(())
            }
            looked => looked,
        }
    }

    fn check_layer(&mut self, record: &LayerRecord) -> Result<()> {
        let Some(leased) = LeasedLayer::take(self.dir, self.index, &record.diff_id)? else {
            return Err(Error::NoLayer(record.diff_id));
        };
        let wrong = match derive(&leased, &self.dir.scratch_for_check()) {
            Ok(derived) => self.check_derived(&leased, record, &derived)?,
            Err(error) => {
                self.check_stored(&leased, record)?;
                return Err(error);
            }
        };
        self.index_problems(&record.diff_id, wrong);
        Ok(())
    }

    fn index_problems(&mut self, diff_id: &DiffId, wrong: impl IntoIterator<Item = String>) {
        for what in wrong {
            self.report.index_problem(format!("layer {diff_id}: {what}"));
        }
    }

    /// What is wrong with the rows of a layer whose directory says what they should be.
    fn check_derived(
        &mut self,
        leased: &LeasedLayer,
        record: &LayerRecord,
        derived: &Derived,
    ) -> Result<Vec<String>> {
        let built = &derived.built;
        self.check_files(leased, &LayerRows::Derived(built))?;
        let mut wrong = match self.differences(leased, record.id, built) {
            Ok(wrong) => wrong,
            Err(Fault::Stored(error)) => return Ok(vec![error.to_string()]),
            Err(Fault::Derived(error)) => return Err(error),
        };
        if wrong.is_empty() {
            let (db, row) = (&self.index.lock().db, |at| built.row(at));
            let unlike = rows::unlike(db, record.id, built.rows.count(), &row, MOST)?;
            wrong = unlike.iter().map(|at| wrong_row(built, *at)).collect::<Result<_>>()?;
        }
        wrong.extend(wrong_numbers(record, &derived.record));
        wrong.extend(verity::faults(self.index, leased, &mut self.sealed)?);
        Ok(wrong)
    }

    /// The rows of the index against those of the directory: the first few that differ. What is
    /// the same is compared with the files: names of one content must be one inode.
    fn differences(
        &mut self,
        leased: &LeasedLayer,
        layer: i64,
        built: &Built,
    ) -> std::result::Result<Vec<String>, Fault> {
        let (mut stored, count, mut wrong) = (0, built.rows.count(), Vec::new());
        let index = self.index;
        rows::each(&index.lock().db, layer, &mut |row, content| {
            let at = stored;
            stored += 1;
            if at >= count {
                return Ok(());
            }
            if row != built.row(at).map_err(Fault::Derived)? {
                if wrong.len() < MOST {
                    wrong.push(wrong_row(built, at).map_err(Fault::Derived)?);
                }
                return Ok(());
            }
            let Some(content) = content else { return Ok(()) };
            let path = built.rows.path(at).map_err(|error| Fault::Derived(error.into()))?;
            self.check_inode(leased, &path, content).map_err(Fault::Derived)
        })?;
        if stored != count {
            return Ok(vec![format!("{stored} rows, should be {count}")]);
        }
        Ok(wrong)
    }

    /// A layer whose directory does not say what it should be: what the index says stands in.
    fn check_stored(&mut self, leased: &LeasedLayer, record: &LayerRecord) -> Result<()> {
        let stored = rows::select(&self.index.lock().db, record.id);
        let none = Vec::new();
        let rows = stored.as_ref().map_or(&none, |(rows, _)| rows);
        self.check_files(leased, &LayerRows::Stored(rows))?;
        let wrong = match &stored {
            Err(error) => vec![error.to_string()],
            Ok((rows, contents)) => {
                for (path, at, _) in with_paths(rows) {
                    if let Some(content) = contents.get(at).copied().flatten() {
                        self.check_inode(leased, &path, content)?;
                    }
                }
                verity::faults(self.index, leased, &mut self.sealed)?
            }
        };
        self.index_problems(&record.diff_id, wrong);
        Ok(())
    }

    /// Names of one content must be one inode.
    fn check_inode(&mut self, leased: &LeasedLayer, path: &TreePath, id: i64) -> Result<()> {
        let Ok(meta) = leased.open(path).and_then(|f| f.metadata().doing(|| path.to_string()))
        else {
            return Ok(()); // Told already.
        };
        let (device, inode, blocks) = (meta.dev(), meta.ino(), meta.blocks());
        let now = MetContent { id, device, inode, blocks };
        let met = self.met.find_or_put(id, |met| met.id == id, now)?;
        if (met.device, met.inode) != (device, inode) {
            let what = format!("{path} is not the inode of its content {id}");
            self.index_problems(leased.diff_id(), [what]);
        }
        Ok(())
    }
}

/// Where a comparison failed.
enum Fault {
    /// In the index.
    Stored(Error),
    /// In what was derived.
    Derived(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Stored(error)
    }
}

/// Wrong rows of a layer that are named.
const MOST: usize = 8;

fn wrong_row(built: &Built, at: u64) -> Result<String> {
    Ok(format!("the row of {} is wrong", built.rows.path(at)?))
}
