//! `strata cat`: contents of files, one after the other.
//!
//! Invariant: what is written before an error is whole files and a part of the one that failed.

use std::io::{Read, Write};

use anyhow::{Context, Result, bail};
use strata_content::{FileTree, Reader};
use strata_tree::{Follow, Kind};

use super::render::kind_name;
use super::{CatArgs, RefPath, Screen, find, quiet};

/// Writes every target to `out`; `open` gives the tree of a reference.
///
/// # Errors
/// A path leads nowhere or to something without content; reading or `out` fails.
pub(crate) fn run(
    open: &mut dyn FnMut(&str) -> Result<FileTree>,
    args: &CatArgs,
    screen: &mut Screen<'_>,
) -> Result<()> {
    quiet(write_all(open, args, screen))
}

fn write_all(
    open: &mut dyn FnMut(&str) -> Result<FileTree>,
    args: &CatArgs,
    screen: &mut Screen<'_>,
) -> Result<()> {
    let mut last: Option<(&str, FileTree)> = None;
    for target in &args.targets {
        let tree = match &last {
            Some((reference, tree)) if *reference == target.reference() => tree.clone(),
            _ => open(target.reference())?,
        };
        write_one(&tree, target, screen.out)?;
        last = Some((target.reference(), tree));
    }
    Ok(screen.out.flush()?)
}

fn write_one(tree: &FileTree, target: &RefPath, out: &mut dyn Write) -> Result<()> {
    let node = find(&**tree, target, Follow::All)?;
    match node.stat.kind {
        Kind::Regular => {}
        Kind::Directory => bail!("{target} is a directory; `strata ls {target}` lists it"),
        kind => bail!("{target} is a {}: it has no content", kind_name(kind)),
    }
    let reading = || format!("cannot read {target}");
    let content = tree.open(node.id).with_context(reading)?;
    let mut file = Reader::new(&*content);
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
