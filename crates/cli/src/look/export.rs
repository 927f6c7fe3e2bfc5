//! `strata export`: the whole tree of an image as one tar, or as one EROFS image.
//!
//! Invariants: no tar goes to a terminal; an EROFS image is written at random offsets, so it goes
//! to a regular file alone.

use std::io::{BufWriter, Write};

use anyhow::{Context, Result, bail};
use strata_content::FileTree;

use super::args::ExportType;
use super::output::{OutputPlace, WriteArchive, replace, to_file};
use super::{ExportArgs, Screen, quiet};

/// Writes `tree` to `args.output`.
///
/// # Errors
/// The output cannot be written or is a terminal; the tree does not answer.
pub(crate) fn run(tree: &FileTree, args: &ExportArgs, screen: &mut Screen<'_>) -> Result<()> {
    if args.form == ExportType::Erofs {
        return erofs(tree, args, &mut *screen.err);
    }
    if args.output.as_os_str() == "-" {
        return to_screen(tree, screen);
    }
    let what = format!("export {}", args.reference);
    let err = &mut *screen.err;
    to_file(&args.output, &what, &mut |out| write_to(tree, out, err))
}

fn erofs(tree: &FileTree, args: &ExportArgs, err: &mut dyn Write) -> Result<()> {
    let shown = args.output.display();
    if args.output.as_os_str() == "-" {
        bail!("an EROFS image is written at random offsets; name a file with -o");
    }
    let context = || format!("cannot export {} to {shown}", args.reference);
    let (path, old) = match OutputPlace::of(&args.output).with_context(context)? {
        OutputPlace::Directory => bail!("{shown} is a directory; name the image to write"),
        OutputPlace::Stream { .. } => {
            bail!("{shown} is not a regular file: an EROFS image is written at random offsets")
        }
        OutputPlace::File(path, old) => (path, old),
    };
    let mut dropped = Vec::new();
    let written = replace(&path, old.as_ref(), &mut |file| {
        dropped = strata_kernel::write_erofs(tree, file)?.dropped;
        Ok(())
    });
    written.with_context(context)?;
    for left_out in dropped {
        writeln!(err, "warning: {}: left out {}", left_out.path, left_out.what)?;
    }
    Ok(())
}

/// Writes an archive to standard output, unless that is a terminal.
///
/// # Errors
/// The output cannot be written or is a terminal.
pub(crate) fn to_stdout(screen: &mut Screen<'_>, write: WriteArchive<'_>) -> Result<()> {
    if screen.terminal {
        bail!("a tar is not for a terminal; send it to a file or a pipe");
    }
    quiet(write(&mut *screen.out).context("cannot write the tar"))
}

/// Writes `tree` as a tar to `out`.
pub(super) fn to_screen(tree: &FileTree, screen: &mut Screen<'_>) -> Result<()> {
    let Screen { out, err, terminal, json } = screen;
    let mut screen =
        Screen { out: &mut **out, err: &mut std::io::sink(), terminal: *terminal, json: *json };
    to_stdout(&mut screen, &mut |out| write_to(tree, out, &mut **err))
}

/// Writes the tar to `out` and what it cannot hold to `err`.
pub(crate) fn write_to(tree: &FileTree, out: &mut dyn Write, err: &mut dyn Write) -> Result<()> {
    let mut out = BufWriter::with_capacity(256 << 10, out);
    let exported = stratafs::write_tar(tree, &mut out)?;
    out.flush()?;
    for left_out in &exported.left_out {
        writeln!(err, "warning: {}: left out {}", left_out.path, left_out.what)?;
    }
    Ok(())
}
