//! `strata cat`: contents of files, one after the other.
//!
//! Invariant: what is written before an error is whole files and a part of the one that failed.

use std::io::{Read, Write};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use strata_tree::{Follow, Kind, Lower};

use super::render::kind_name;
use super::{CatArgs, RefPath, Screen, find, quiet};

/// Writes every target to `out`; `open` gives the tree of a reference.
///
/// # Errors
/// A path leads nowhere or to something without content; reading or `out` fails.
pub(crate) fn run(
    open: &mut dyn FnMut(&str) -> Result<Arc<dyn Lower>>,
    args: &CatArgs,
    screen: &mut Screen<'_>,
) -> Result<()> {
    quiet(write_all(open, args, screen))
}

fn write_all(
    open: &mut dyn FnMut(&str) -> Result<Arc<dyn Lower>>,
    args: &CatArgs,
    screen: &mut Screen<'_>,
) -> Result<()> {
    let mut last: Option<(&str, Arc<dyn Lower>)> = None;
    for target in &args.targets {
        let tree = match &last {
            Some((reference, tree)) if *reference == target.reference() => Arc::clone(tree),
            _ => open(target.reference())?,
        };
        write_one(&*tree, target, screen.out)?;
        last = Some((target.reference(), tree));
    }
    Ok(screen.out.flush()?)
}

fn write_one(tree: &dyn Lower, target: &RefPath, out: &mut dyn Write) -> Result<()> {
    let node = find(tree, target, Follow::All)?;
    match node.stat.kind {
        Kind::Regular => {}
        Kind::Directory => bail!("{target} is a directory; `strata ls {target}` lists it"),
        kind => bail!("{target} is a {}: it has no content", kind_name(kind)),
    }
    let reading = || format!("cannot read {target}");
    let mut file = tree.open(node.id).with_context(reading)?;
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => out.write_all(&buffer[..read])?,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).with_context(reading),
        }
    }
}
