//! `strata stat`: everything that an image says of one file, with the values of its attributes, the
//! digest of its content and the layer that the content comes from.

use std::fmt::Write as _;
use std::io::Read;

use anyhow::{Context, Result};
use serde::Serialize;
use sha2::{Digest, Sha256};
use strata_content::{FileTree, Reader};
use strata_tree::{ContentDigest, DiffId, Follow, Kind, Lower, Node, Xattr};

use super::facts::NodeJson;
use super::render::{escaped, full_time, hex, kind_name, mode_string, name};
use super::{Screen, StatArgs, find, quiet, xattr_text};

/// Shows `args.target`; `layers` are the image's diff ids, the base first.
///
/// # Errors
/// The path leads nowhere; the content cannot be read; `out` fails.
pub(crate) fn run(
    tree: &FileTree,
    layers: &[DiffId],
    args: &StatArgs,
    screen: &mut Screen<'_>,
) -> Result<()> {
    let follow = if args.dereference { Follow::All } else { Follow::NotLast };
    let node = find(&**tree, &args.target, follow)?;
    let context = || format!("cannot read {}", args.target);
    let content = content(tree, layers, &node).with_context(context)?;
    let xattrs = tree.xattrs(node.id).with_context(context)?;
    quiet(if screen.json {
        json(&**tree, args, &node, content, &xattrs, screen)
    } else {
        text(&**tree, args, &node, content, &xattrs, screen)
    })
}

/// Which layer a content comes from.
#[derive(Serialize)]
struct ContentFacts {
    sha256: String,
    /// Counted from the base, 0.
    layer: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    diff_id: Option<String>,
}

fn content(tree: &FileTree, layers: &[DiffId], node: &Node) -> Result<Option<ContentFacts>> {
    if node.stat.kind != Kind::Regular {
        return Ok(None);
    }
    let which = tree.content(node.id)?;
    let content = tree.contents().open(&which)?;
    let mut file = Reader::new(&*content);
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let digest = ContentDigest::from_bytes(hasher.finalize().into());
    let layer = which.layer;
    let diff_id = usize::try_from(layer).ok().and_then(|layer| layers.get(layer));
    Ok(Some(ContentFacts {
        sha256: digest.hex(),
        layer,
        diff_id: diff_id.map(ToString::to_string),
    }))
}

#[derive(Serialize)]
struct ShownXattr {
    name: String,
    /// The value, exactly.
    hex: String,
    /// The value, decoded.
    text: String,
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    facts: NodeJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<ContentFacts>,
    xattrs: Vec<ShownXattr>,
}

fn json(
    tree: &dyn Lower,
    args: &StatArgs,
    node: &Node,
    content: Option<ContentFacts>,
    xattrs: &[Xattr],
    screen: &mut Screen<'_>,
) -> Result<()> {
    let facts = NodeJson::of(tree, node, args.target.path())?;
    let shown = |(name, value): &Xattr| ShownXattr {
        name: String::from_utf8_lossy(name).into_owned(),
        hex: hex(value),
        text: xattr_text::value(name, value),
    };
    let all = Shown { facts, content, xattrs: xattrs.iter().map(shown).collect() };
    serde_json::to_writer_pretty(&mut *screen.out, &all).map_err(std::io::Error::from)?;
    writeln!(screen.out)?;
    Ok(screen.out.flush()?)
}

fn text(
    tree: &dyn Lower,
    args: &StatArgs,
    node: &Node,
    content: Option<ContentFacts>,
    xattrs: &[Xattr],
    screen: &mut Screen<'_>,
) -> Result<()> {
    let (stat, out) = (node.stat, &mut *screen.out);
    out.write_all(b"  File: ")?;
    out.write_all(&name(args.target.path(), screen.terminal))?;
    if stat.kind == Kind::Symlink {
        out.write_all(b" -> ")?;
        out.write_all(&name(&tree.read_link(node.id)?, screen.terminal))?;
    }
    let mut rest = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(rest, "\n  Size: {:<14} Type: {}", stat.size, kind_name(stat.kind));
    let _ = writeln!(
        rest,
        "  Mode: {:04o} ({})  Uid: {:<6} Gid: {}",
        stat.perm,
        mode_string(&stat),
        stat.uid,
        stat.gid
    );
    let _ = writeln!(rest, " Inode: {:<14} Links: {}", node.id.0, stat.nlink);
    if let Some(device) = stat.kind.device() {
        let _ = writeln!(rest, "Device: {}, {}", device.major, device.minor);
    }
    let _ = writeln!(rest, "Modify: {}", full_time(stat.mtime));
    if let Some(content) = content {
        let _ = write!(rest, " Layer: {}", content.layer);
        if let Some(diff_id) = content.diff_id {
            let _ = write!(rest, " ({diff_id})");
        }
        let _ = writeln!(rest, "\nSha256: {}", content.sha256);
    }
    for (name, value) in xattrs {
        let _ = writeln!(rest, " Xattr: {}={}", escaped(name), xattr_text::value(name, value));
    }
    out.write_all(rest.as_bytes())?;
    Ok(out.flush()?)
}
