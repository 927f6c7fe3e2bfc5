//! `fsck`: what is written down of layers that engines have.
//!
//! Invariant: a hold of a layer that is not there is a note, for one is written before its layer
//! is; a file that says nothing is a problem, since nobody can tell what it holds.

use super::checker::Checker;
use super::fsck_report::Problem;
use crate::error::{Error, Result};
use crate::index;

impl Checker<'_> {
    /// Reads every hold.
    pub(super) fn check_holds(&mut self) -> Result<()> {
        for holds in self.dir.holders()? {
            for path in holds.paths()? {
                let hold = match holds.read(&path) {
                    Ok(Some(hold)) => hold,
                    // It has gone meanwhile.
                    Ok(None) => continue,
                    Err(Error::Damaged { why: what, .. }) => {
                        self.report.problems.push(Problem::Hold { path, what });
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                for layer in &hold.layers {
                    if index::find_layer(&self.index.lock().db, layer)?.is_none() {
                        let note = format!("{} holds layer {layer}, which is not there", hold.by);
                        self.report.notes.push(note);
                    }
                }
            }
        }
        Ok(())
    }
}
