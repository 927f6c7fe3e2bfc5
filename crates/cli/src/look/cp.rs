//! `strata cp`: a file or directory of an image to the disk, by docker cp's rules of destination.
//!
//! Invariants: only regular files (and links to them) are ever replaced; nothing is followed
//! below the destination; `-` is a tar.

use std::fs::Metadata;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{CWD, Mode, OFlags, openat};
use strata_content::FileTree;
use strata_layer::checkout::{Dest, Options, checkout};
use strata_tree::{Follow, Name, NameBuf, Node};

use super::subtree::{Subtree, WithoutRoot};
use super::unpack::warn;
use super::{CpArgs, Screen, export, find};

/// Copies `args.source` to `args.dest`; what could not be set is written to `err`.
///
/// # Errors
/// The source is not in the image; the destination is in the way or has no parent directory.
pub(crate) fn run(tree: &FileTree, args: &CpArgs, screen: &mut Screen<'_>) -> Result<()> {
    let source = &args.source;
    let follow = match args.follow_link || source.asks_for_directory() {
        true => Follow::All,
        false => Follow::NotLast,
    };
    let node = find(&**tree, source, follow)?;
    if source.asks_for_directory() && !node.stat.kind.is_dir() {
        bail!("{source} is not a directory");
    }
    let own_name = source.clean().split_last().map(|(_, name)| name.to_owned());
    if args.dest == "-" {
        return match own_name.filter(|_| !source.is_contents()) {
            Some(name) => {
                let part = Subtree::named(tree.names(), node.id, name.as_name());
                let part = tree.with_names(Arc::new(part));
                let mut out = WithoutRoot::new(screen.out);
                export::to_screen(&part, &mut Screen { out: &mut out, err: screen.err, ..*screen })
            }
            None => {
                let part = Subtree::contents(tree.names(), node.id);
                export::to_screen(&tree.with_names(Arc::new(part)), screen)
            }
        };
    }
    let place = CopyTarget::choose(args, &node, own_name)?;
    let dest = match &place.name {
        Some(name) => Dest::As(place.dir.as_fd(), name.as_name()),
        None => Dest::Into(place.dir.as_fd()),
    };
    let label = place.label.display().to_string();
    let options = Options { label: label.clone(), merge: place.merge, watch: None };
    let report = checkout(tree, node.id, dest, options)
        .with_context(|| format!("cannot copy {source} to {label}"))?;
    warn(&report, &label, screen)
}

/// Where the copy goes.
struct CopyTarget {
    dir: OwnedFd,
    /// The name to make in `dir`; `None`: `dir` itself becomes the copy.
    name: Option<NameBuf>,
    /// Something is there that is to be replaced or merged with.
    merge: bool,
    label: PathBuf,
}

impl CopyTarget {
    fn choose(args: &CpArgs, node: &Node, own_name: Option<NameBuf>) -> Result<Self> {
        let dest = Path::new(&args.dest);
        let shown = dest.display();
        let bytes = args.dest.as_bytes();
        let must_be_dir = bytes.ends_with(b"/") || bytes.ends_with(b"/.");
        let existing = std::fs::metadata(dest).ok();
        if existing.as_ref().is_some_and(Metadata::is_dir) {
            let dir = open_dir(dest)?;
            return Ok(match own_name.filter(|_| !args.source.is_contents()) {
                Some(name) => {
                    let label = dest.join(name.as_name().as_os_str());
                    replaceable(&label, node)?;
                    Self { dir, label, name: Some(name), merge: true }
                }
                None => Self { dir, label: dest.to_owned(), name: None, merge: true },
            });
        }
        if must_be_dir {
            bail!("{shown} is not an existing directory; make it first or leave out the slash");
        }
        let (parent, name) = match (dest.parent(), dest.file_name()) {
            (Some(parent), Some(name)) => (parent, name),
            _ => bail!("{shown} is not a name for a copy"),
        };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        if existing.is_some() {
            replaceable(dest, node)?;
        }
        let name = Name::new(name.as_bytes()).with_context(|| format!("{shown}"))?.to_owned();
        let (dir, merge) = (open_dir(parent)?, existing.is_some());
        Ok(Self { dir, name: Some(name), merge, label: dest.to_owned() })
    }
}

/// Refuses to put `node` in the place of what must not be removed.
fn replaceable(path: &Path, node: &Node) -> Result<()> {
    let shown = path.display();
    let Ok(itself) = std::fs::symlink_metadata(path) else { return Ok(()) };
    match (itself.is_dir(), node.stat.kind.is_dir()) {
        (true, true) => return Ok(()),
        (true, false) => bail!("{shown} is a directory, the source is not"),
        (false, true) => bail!("{shown} is not a directory, the source is one"),
        (false, false) => {}
    }
    let file = std::fs::metadata(path).map_err(|_| {
        anyhow!("{shown} is a link that leads nowhere; remove it or choose another name")
    })?;
    if !file.is_file() {
        bail!("{shown} is not a regular file; `strata cat` writes contents to devices and pipes");
    }
    Ok(())
}

fn open_dir(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty())
        .map_err(std::io::Error::from)
        .with_context(|| format!("cannot open the directory {}", path.display()))
}
