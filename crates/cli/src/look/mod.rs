//! Looking into an image without mounting it: `ls`, `cat`, `cp`, `stat`, `layers`, `unpack`,
//! `export`.
//!
//! The model: the caller opens the reference and hands over the merged tree; each command is a
//! function of tree, arguments and [`Screen`]. None needs FUSE or privilege.
//!
//! Invariants: paths are resolved inside the image and nothing of it is run or followed outside;
//! what an image says never reaches a terminal unescaped; a reader that went away (`| head`) is
//! not an error.

mod args;
mod cat;
mod cp;
mod export;
mod facts;
mod layers;
mod ls;
mod output;
mod refpath;
pub(crate) mod render;
mod stat;
pub(crate) mod subtree;
#[cfg(test)]
mod tests;
mod unpack;
pub(crate) mod xattr_text;

use std::io::Write;

use anyhow::{Result, anyhow};
use strata_tree::{Error as TreeError, Follow, Lower, Node, resolve};

pub(crate) use args::{CatArgs, CpArgs, ExportArgs, LayersArgs, LsArgs, StatArgs, UnpackArgs};
pub(crate) use cat::run as cat;
pub(crate) use cp::run as cp;
pub(crate) use export::run as export;
pub(crate) use export::{to_stdout, write_to};
pub(crate) use layers::{LayerRow, run as layers};
pub(crate) use ls::run as ls;
pub(crate) use output::to_file;
pub(crate) use refpath::RefPath;
pub(crate) use render::{escaped, full_time, kind_name, mode_string, short_time};
pub(crate) use stat::run as stat;
pub(crate) use unpack::{run as unpack, warn};

/// Where a command writes, and how.
pub(crate) struct Screen<'a> {
    /// Standard output, best buffered.
    pub(crate) out: &'a mut dyn Write,
    /// Standard error, for warnings.
    pub(crate) err: &'a mut dyn Write,
    /// `out` is a terminal: names are escaped, long lines cut, no tar is written to it.
    pub(crate) terminal: bool,
    /// `--format json`.
    pub(crate) json: bool,
}

/// Treats a reader that went away as the end of the work.
fn quiet(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if gone(&error) => Ok(()),
        other => other,
    }
}

fn gone(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

/// The node that a path of the image leads to, following links inside the image.
///
/// # Errors
/// Naming reference, path and cause, where nothing is there.
fn find(tree: &dyn Lower, target: &RefPath, follow: Follow) -> Result<Node> {
    match resolve(tree, target.path(), follow) {
        Ok(Some(node)) => Ok(node),
        Ok(None) => Err(anyhow!(
            "{target}: no such file or directory in the image; `strata ls {}` shows what there is",
            target.parent()
        )),
        Err(TreeError::NotDirectory(_)) => {
            Err(anyhow!("{target}: a part of the path before the last is not a directory"))
        }
        Err(TreeError::TooManyLinks { .. }) => Err(anyhow!(
            "{target}: too many levels of symbolic links in the image; \
             `strata ls -l` shows where they lead"
        )),
        Err(error) => Err(anyhow::Error::new(error).context(format!("cannot look up {target}"))),
    }
}
