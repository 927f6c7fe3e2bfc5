//! `strata ls`: names of a directory, or all facts of them.
//!
//! Invariants: names come sorted by their bytes, whatever order the tree keeps; memory is that of
//! one directory and the names of those still to be listed.

use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use strata_tree::{Entry, Follow, Kind, Lower, NameBuf, Node, list};

use super::facts::NodeJson;
use super::render::{mode_string, name, short_time};
use super::{LsArgs, RefPath, Screen, find, quiet};

/// Lists `args.target`.
///
/// # Errors
/// The path leads nowhere; the tree or `out` fails.
pub(crate) fn run(tree: &dyn Lower, args: &LsArgs, screen: &mut Screen<'_>) -> Result<()> {
    quiet(listing(tree, args, screen))
}

/// A line of the listing: what is shown as its name, and its path in the image.
struct Line {
    shown: Vec<u8>,
    path: Vec<u8>,
    node: Node,
}

fn listing(tree: &dyn Lower, args: &LsArgs, screen: &mut Screen<'_>) -> Result<()> {
    let node = start(tree, args)?;
    let top = args.target.path().to_vec();
    let mut lines = Lines { tree, args, screen, any: false };
    if args.directory || !node.stat.kind.is_dir() {
        let line = Line { shown: top.clone(), path: top, node };
        lines.print(&[line])?;
        return lines.end();
    }
    // The last is the next; what a directory holds comes before its siblings.
    let mut todo = vec![(top, node)];
    let mut first = true;
    while let Some((path, dir)) = todo.pop() {
        if args.recursive && !lines.screen.json {
            lines.heading(&path, first)?;
        }
        first = false;
        let found = children(tree, &args.target, &path, &dir)?;
        lines.print(&found)?;
        if args.recursive {
            let dirs = found.into_iter().rev().filter(|line| line.node.stat.kind.is_dir());
            todo.extend(dirs.map(|line| (line.path, line.node)));
        }
    }
    lines.end()
}

/// A link on the command line is followed as `ls` does: to a directory that is to be listed.
fn start(tree: &dyn Lower, args: &LsArgs) -> Result<Node> {
    let itself = find(tree, &args.target, Follow::NotLast)?;
    if itself.stat.kind == Kind::Symlink && !args.long && !args.directory {
        return Ok(find(tree, &args.target, Follow::All).unwrap_or(itself));
    }
    Ok(itself)
}

fn children(tree: &dyn Lower, target: &RefPath, path: &[u8], dir: &Node) -> Result<Vec<Line>> {
    let mut names: Vec<(NameBuf, Entry)> = list(tree, dir.id).with_context(|| {
        format!("cannot list {} in {}", path.escape_ascii(), target.reference())
    })?;
    names.sort_by(|a, b| a.0.cmp(&b.0));
    let mut lines = Vec::with_capacity(names.len());
    for (name, entry) in names {
        let node = *entry.node().ok_or_else(|| anyhow!("{target}: the tree is not merged"))?;
        let mut below = path.to_vec();
        if !below.ends_with(b"/") {
            below.push(b'/');
        }
        below.extend_from_slice(name.as_bytes());
        lines.push(Line { shown: name.as_bytes().to_vec(), path: below, node });
    }
    Ok(lines)
}

#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    facts: NodeJson,
    /// Names only; `stat` has the values.
    xattrs: Vec<String>,
}

struct Lines<'a, 's> {
    tree: &'a dyn Lower,
    args: &'a LsArgs,
    screen: &'a mut Screen<'s>,
    /// Whether the JSON array has an element.
    any: bool,
}

impl Lines<'_, '_> {
    fn heading(&mut self, path: &[u8], first: bool) -> Result<()> {
        if !first {
            self.screen.out.write_all(b"\n")?;
        }
        self.screen.out.write_all(&name(path, self.screen.terminal))?;
        self.screen.out.write_all(b":\n")?;
        Ok(())
    }

    fn print(&mut self, lines: &[Line]) -> Result<()> {
        match (self.screen.json, self.args.long) {
            (true, _) => self.json(lines),
            (false, true) => self.long(lines),
            (false, false) => {
                for line in lines {
                    self.screen.out.write_all(&name(&line.shown, self.screen.terminal))?;
                    self.screen.out.write_all(b"\n")?;
                }
                Ok(())
            }
        }
    }

    fn json(&mut self, lines: &[Line]) -> Result<()> {
        for line in lines {
            self.screen.out.write_all(if self.any { b",\n " } else { b"[" })?;
            self.any = true;
            let facts = NodeJson::of(self.tree, &line.node, &line.path)?;
            let xattrs = self.tree.xattrs(line.node.id)?;
            let xattrs =
                xattrs.iter().map(|x| String::from_utf8_lossy(&x.0).into_owned()).collect();
            serde_json::to_writer(&mut *self.screen.out, &Listed { facts, xattrs })
                .map_err(std::io::Error::from)?;
        }
        Ok(())
    }

    fn long(&mut self, lines: &[Line]) -> Result<()> {
        let cells: Vec<[String; 4]> = lines
            .iter()
            .map(|line| {
                let stat = line.node.stat;
                let size = match stat.kind.device() {
                    Some(device) => format!("{}, {}", device.major, device.minor),
                    None => stat.size.to_string(),
                };
                [stat.nlink.to_string(), stat.uid.to_string(), stat.gid.to_string(), size]
            })
            .collect();
        let width =
            |column: usize| cells.iter().map(|cells| cells[column].len()).max().unwrap_or(0);
        let widths = [width(0), width(1), width(2), width(3)];
        for (line, cells) in lines.iter().zip(&cells) {
            let out = &mut *self.screen.out;
            out.write_all(mode_string(&line.node.stat).as_bytes())?;
            for (cell, width) in cells.iter().zip(widths) {
                write!(out, " {cell:>width$}")?;
            }
            write!(out, " {} ", short_time(line.node.stat.mtime))?;
            out.write_all(&name(&line.shown, self.screen.terminal))?;
            if line.node.stat.kind == Kind::Symlink {
                out.write_all(b" -> ")?;
                let target = self.tree.read_link(line.node.id)?;
                out.write_all(&name(&target, self.screen.terminal))?;
            }
            out.write_all(b"\n")?;
        }
        Ok(())
    }

    fn end(self) -> Result<()> {
        if self.screen.json {
            self.screen.out.write_all(if self.any { b"]\n" } else { b"[]\n" })?;
        }
        Ok(self.screen.out.flush()?)
    }
}
