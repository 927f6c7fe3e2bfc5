//! Writes what was chosen to the disk: as files, by the rules of `strata cp`, or as a tar.
//!
//! Invariants: nothing that exists is replaced unless that was agreed to; nothing is followed
//! below the destination; an existing directory keeps its own mode, owner and times, unless it is
//! itself what is replaced.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;
use strata_analysis::image_tree::{ImageTree, PathId, TreeAt};
use strata_content::FileTree;
use strata_layer::checkout::{Dest, Options, checkout};
use strata_tree::{Name, list};

use super::model::{Extract, ModelEvent};
use crate::home::home;
use crate::look::render::escaped;
use crate::look::subtree::{Subtree, WithoutRoot};
use crate::look::{self, CpArgs, RefPath, Screen, to_file, warn, write_to};

/// Does it; tells how it went.
pub(super) fn run(tree: &Arc<ImageTree>, image: &str, extract: Extract) -> ModelEvent {
    let mut warnings = Vec::new();
    match write(tree, image, &extract, &mut warnings) {
        Ok(Done::Exists(path)) => ModelEvent::Exists(extract, shown(&path)),
        Ok(Done::Written(path)) if warnings.is_empty() => {
            ModelEvent::Told(format!("extracted to {}", shown(&path)))
        }
        Ok(Done::Written(path)) => {
            let warnings = String::from_utf8_lossy(&warnings);
            let lines: Vec<&str> = warnings.lines().map(str::trim).collect();
            match lines[..] {
                // The heading and one line: no reason to cover the tree.
                [_, only] => {
                    ModelEvent::Told(format!("extracted, but for {only}, to {}", shown(&path)))
                }
                _ => {
                    let lines = lines.into_iter().map(str::to_owned).collect();
                    ModelEvent::Reported(format!("Extracted to {}", shown(&path)), lines)
                }
            }
        }
        Err(error) => ModelEvent::Told(escaped(crate::told::told(&error).as_bytes()).into_owned()),
    }
}

fn shown(path: &Path) -> String {
    escaped(path.as_os_str().as_bytes()).into_owned()
}

enum Done {
    Written(PathBuf),
    /// That is there; nothing was done.
    Exists(PathBuf),
}

fn write(
    tree: &Arc<ImageTree>,
    image: &str,
    extract: &Extract,
    warnings: &mut Vec<u8>,
) -> Result<Done> {
    let dest = destination(&extract.dest);
    let only = extract.paths.first().filter(|_| !extract.marked);
    let is_tar = extract.dest.ends_with(".tar");
    let chosen = || TreeAt::selected(Arc::clone(tree), extract.layers, &extract.paths);
    match only {
        Some(path) => {
            let name = tree.name(*path);
            let part = Arc::new(chosen());
            let files = FileTree::new(Arc::clone(&part) as _, tree.contents());
            // A file that is a tar is copied as it is.
            if is_tar && !name.ends_with(b".tar") {
                let node = part.node_at(*path).context("it is not there with these layers")?;
                let named = Subtree::named(files.names(), node.id, Name::new(name)?);
                return tar(&files.with_names(Arc::new(named)), dest, extract.replace, warnings);
            }
            let target = match dest.is_dir() {
                true => dest.join(std::ffi::OsStr::from_bytes(name)),
                false => dest.clone(),
            };
            if std::fs::symlink_metadata(&target).is_ok() && !extract.replace {
                return Ok(Done::Exists(target));
            }
            copy(&files, image, *path, tree, &dest, warnings)?;
            Ok(Done::Written(target))
        }
        None => {
            let files = FileTree::new(Arc::new(chosen()), tree.contents());
            match is_tar {
                true => tar(&files, dest, extract.replace, warnings),
                false => below(&files, dest, extract.replace, warnings),
            }
        }
    }
}

/// What was typed as a path; `~/` is the home directory, as in a shell. The screen has standard
/// output, so `-`, which `strata cp` writes to that, is a file here.
fn destination(text: &str) -> PathBuf {
    match (text.strip_prefix("~/"), home()) {
        _ if text == "-" => PathBuf::from("./-"),
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(text),
    }
}

fn tar(part: &FileTree, dest: PathBuf, replace: bool, warnings: &mut Vec<u8>) -> Result<Done> {
    if std::fs::symlink_metadata(&dest).is_ok() && !replace {
        return Ok(Done::Exists(dest));
    }
    to_file(&dest, "extract", &mut |out| write_to(part, &mut WithoutRoot::new(out), warnings))?;
    Ok(Done::Written(dest))
}

/// One path, as `strata cp` does it.
fn copy(
    part: &FileTree,
    image: &str,
    path: PathId,
    tree: &ImageTree,
    dest: &Path,
    warnings: &mut Vec<u8>,
) -> Result<()> {
    let mut source = format!("{image}:/").into_bytes();
    source.extend_from_slice(tree.path(path).as_bytes());
    let source = RefPath::parse_with_path(&OsString::from_vec(source))?;
    let args = CpArgs { follow_link: false, source, dest: dest.as_os_str().to_owned() };
    let mut out = std::io::sink();
    let mut screen = Screen { out: &mut out, err: warnings, terminal: false, json: false };
    look::cp(part, &args, &mut screen)
}

/// Several paths, each below `dest` as it is in the image.
fn below(part: &FileTree, dest: PathBuf, replace: bool, warnings: &mut Vec<u8>) -> Result<Done> {
    let context = || format!("cannot extract to {}", dest.display());
    let there = std::fs::read_dir(&dest).ok().is_some_and(|mut dir| dir.next().is_some());
    if there && !replace {
        return Ok(Done::Exists(dest));
    }
    match mkdirat(CWD, &dest, Mode::from_raw_mode(0o777)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(std::io::Error::from(error)).with_context(context),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = openat(CWD, &dest, flags, Mode::empty()).map_err(std::io::Error::from);
    let dir = dir.with_context(context)?;
    for (name, entry) in list(&**part, part.root())? {
        let Some(node) = entry.node() else { continue };
        let label = dest.join(name.as_name().as_os_str()).display().to_string();
        let options = Options { label: label.clone(), merge: replace, watch: None };
        let dest = Dest::As(dir.as_fd(), name.as_name());
        let report = checkout(part, node.id, dest, options).with_context(context)?;
        let mut out = std::io::sink();
        let mut screen = Screen { out: &mut out, err: warnings, terminal: false, json: false };
        warn(&report, &label, &mut screen)?;
    }
    Ok(Done::Written(dest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dash_is_a_file() {
        assert_eq!(destination("-").as_os_str(), "./-");
        assert_eq!(destination("a/-").as_os_str(), "a/-");
    }
}
