//! `strata export`: the whole tree of an image as one tar, or as one EROFS image.
//!
//! Invariants: a file appears under its name only when it is whole; what is not a regular file
//! (a pipe, a device) is written to and never replaced; no tar goes to a terminal. An EROFS image
//! is written at random offsets, so it goes to a regular file alone.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use strata_content::FileTree;

use super::args::ExportType;
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
    match std::fs::metadata(&args.output) {
        Ok(meta) if meta.is_dir() => bail!("{shown} is a directory; name the image to write"),
        Ok(meta) if !meta.is_file() => {
            bail!("{shown} is not a regular file: an EROFS image is written at random offsets")
        }
        _ => {}
    }
    let mut dropped = Vec::new();
    let written = replace(&args.output, &mut |file| {
        dropped = strata_kernel::write_erofs(tree, file)?.dropped;
        Ok(())
    });
    written.with_context(|| format!("cannot export {} to {shown}", args.reference))?;
    for left_out in dropped {
        writeln!(err, "warning: {}: left out {}", left_out.path, left_out.what)?;
    }
    Ok(())
}

/// What writes an archive.
pub(crate) type WriteArchive<'a> = &'a mut dyn FnMut(&mut dyn Write) -> Result<()>;

/// Writes an archive to a file, which appears under its name only when it is whole.
///
/// # Errors
/// `cannot WHAT to OUTPUT`, with the cause.
pub(crate) fn to_file(output: &Path, what: &str, write: WriteArchive<'_>) -> Result<()> {
    let shown = output.display();
    let context = || format!("cannot {what} to {shown}");
    match std::fs::metadata(output) {
        Ok(meta) if meta.is_dir() => bail!("{shown} is a directory; name the tar to write"),
        Ok(meta) if !meta.is_file() => {
            let file = OpenOptions::new().write(true).open(output);
            let mut file = file.with_context(context)?;
            write(&mut file).with_context(context)
        }
        _ => replace(output, &mut |file| write(file)).with_context(context),
    }
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

/// Writes beside `path` and renames when all is there.
fn replace(path: &Path, write: &mut dyn FnMut(&mut File) -> Result<()>) -> Result<()> {
    let beside = beside(path)?;
    let file = OpenOptions::new().write(true).create_new(true).open(&beside);
    let mut file = file.context("cannot create a file there")?;
    let done = write(&mut file);
    let done = done.and_then(|()| Ok(std::fs::rename(&beside, path)?));
    if done.is_err() {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&beside);
    }
    done
}

fn beside(path: &Path) -> Result<PathBuf> {
    let Some(name) = path.file_name().filter(|_| !ends_in_slash(path.as_os_str())) else {
        bail!("{} does not name a file", path.display());
    };
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".strata-{}", std::process::id()));
    Ok(path.with_file_name(hidden))
}

fn ends_in_slash(text: &OsStr) -> bool {
    text.as_encoded_bytes().ends_with(b"/")
}
