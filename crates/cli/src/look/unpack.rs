//! `strata unpack`: the whole tree of an image as real files.

use std::os::fd::AsFd;

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use strata_content::FileTree;
use strata_layer::checkout::{Dest, Options, Report, checkout, open_empty};
use strata_tree::TreePath;

use super::{Screen, UnpackArgs};

/// Unpacks `tree` into `args.dir`; `progress` counts the bytes of contents and is cleared
/// before what could not be set is written to `err`.
///
/// # Errors
/// The directory is not empty, the disk is full, the tree does not answer.
pub(crate) fn run(
    tree: &FileTree,
    args: &UnpackArgs,
    progress: &ProgressBar,
    screen: &mut Screen<'_>,
) -> Result<()> {
    let label = args.dir.display().to_string();
    let dir = open_empty(&args.dir)?;
    let mut watch = |_: &TreePath, bytes| progress.inc(bytes);
    let options = Options { label: label.clone(), merge: false, watch: Some(&mut watch) };
    let done = checkout(tree, tree.root(), Dest::Into(dir.as_fd()), options);
    progress.finish_and_clear();
    let report = done.with_context(|| {
        format!("cannot unpack {}; what is in {label} until now is incomplete", args.reference)
    })?;
    warn(&report, &label, screen)
}

/// Tells what is not as the image says.
pub(crate) fn warn(report: &Report, label: &str, screen: &mut Screen<'_>) -> Result<()> {
    if report.is_exact() {
        return Ok(());
    }
    writeln!(screen.err, "warning: {label} is not exactly what the image holds; left out:")?;
    for group in report.skipped() {
        writeln!(screen.err, "  {group}")?;
    }
    Ok(screen.err.flush()?)
}
