//! A tree as a tar: a merged one whole, or a layer as a diff.
//!
//! Ustar with PAX headers where ustar is too small (long names, large numbers, sub-second and
//! negative times, xattrs as `SCHILY.xattr.*`): what GNU tar, Go, libarchive and Python all read.
//!
//! Invariants: the same tree gives the same bytes: directories before what is in them, names
//! sorted by their bytes, the first name of an inode in that order being the file and the others
//! hard links to it, no names of owners, no times but mtime; what a tar cannot hold is left out
//! and reported, never changed.

use std::collections::HashMap;
use std::io::{Read, Write};

use strata_content::{FileTree, Reader};
use strata_tree::{Entry, Kind, NameBuf, Node, NodeId, Stat, TreePath, list};

use crate::error::{DiffContext, Error, Result};
use crate::tar::{Member, MemberKind, writer};

const BUFFER: usize = 256 << 10;
/// OCI layer.md, "Whiteouts".
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..opq";

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exported {
    /// Members of the tar.
    pub members: u64,
    /// Bytes of the tar.
    pub bytes: u64,
    /// What a tar cannot hold.
    pub left_out: Vec<LeftOut>,
}

/// Something that is in the tree and not in the tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Where it is.
    pub path: TreePath,
    /// What: `a socket`, `the xattr "a=b"`, ...
    pub what: String,
}

/// Writes all of `tree`, a merged one, to `out`: the root as `./`, everything else by its path.
/// Holes are written as zeros. `out` gets small writes (it should be buffered) and is not flushed.
///
/// # Errors
/// The tree does not answer or is not merged, a file is shorter than its size, or `out` refuses.
pub fn write_tree(tree: &FileTree, out: &mut dyn Write) -> Result<Exported> {
    write(tree, false, out)
}

/// Writes a layer, with its whiteouts and opaque marks, as a diff (OCI layer.md, "Whiteouts");
/// else as [`write_tree`]. A name that begins with `.wh.` has no form in a diff: it is left out.
///
/// # Errors
/// As [`write_tree`].
pub fn write_changes(layer: &FileTree, out: &mut dyn Write) -> Result<Exported> {
    write(layer, true, out)
}

fn write(tree: &FileTree, diff: bool, out: &mut dyn Write) -> Result<Exported> {
    let mut export = Export {
        tree,
        diff,
        out: Counting { inner: out, bytes: 0 },
        first_names: HashMap::new(),
        buffer: vec![0; BUFFER],
        exported: Exported::default(),
    };
    let root = tree.node(tree.root())?;
    export.node(&TreePath::root(), &root)?;
    let mut open = vec![(TreePath::root(), export.children(&TreePath::root(), root.id)?)];
    while let Some((dir, children)) = open.last_mut() {
        let Some((name, node)) = children.next() else {
            open.pop();
            continue;
        };
        let path = dir.join(name.as_name());
        let Some(node) = node else {
            export.whiteout(&hiding(dir, name.as_name().as_bytes()))?;
            continue;
        };
        if diff && name.as_name().as_bytes().starts_with(WHITEOUT) {
            export.leave_out(&path, "a name that means a whiteout in a diff".into());
            continue;
        }
        export.node(&path, &node)?;
        if diff && node.marks.opaque {
            export.whiteout(&hiding(&path, OPAQUE))?;
        }
        if node.stat.kind.is_dir() {
            let children = export.children(&path, node.id)?;
            open.push((path, children));
        }
    }
    writer::write_end(&mut export.out).doing(|| "cannot write the tar".into())?;
    export.exported.bytes = export.out.bytes;
    Ok(export.exported)
}

struct Export<'a> {
    tree: &'a FileTree,
    diff: bool,
    out: Counting<'a>,
    first_names: HashMap<NodeId, TreePath>,
    buffer: Vec<u8>,
    exported: Exported,
}

impl Export<'_> {
    /// The nodes of a directory, sorted by name; `None`: a whiteout.
    fn children(
        &self,
        path: &TreePath,
        dir: NodeId,
    ) -> Result<std::vec::IntoIter<(NameBuf, Option<Node>)>> {
        let mut nodes = Vec::new();
        for (name, entry) in list(&**self.tree, dir)? {
            match entry {
                Entry::Node(node) => nodes.push((name, Some(node))),
                Entry::Whiteout if self.diff => nodes.push((name, None)),
                Entry::Whiteout => {}
                Entry::LowerLink(target) => {
                    let path = path.join(name.as_name());
                    return Err(strata_tree::Error::DanglingLink { path, target }.into());
                }
            }
        }
        nodes.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(nodes.into_iter())
    }

    /// An empty file of a name that hides another.
    fn whiteout(&mut self, path: &[u8]) -> Result<()> {
        let stat = Stat::unstated_dir();
        let member = Member {
            path: path.to_vec(),
            kind: MemberKind::Regular,
            perm: 0,
            uid: 0,
            gid: 0,
            mtime: stat.mtime,
            xattrs: Vec::new(),
            offset: 0,
            size: 0,
            stored: 0,
            sparse: None,
        };
        let written = writer::write_headers(&member, &mut self.out);
        let shown = String::from_utf8_lossy(path).into_owned();
        match written.doing(|| format!("cannot write {shown} to the tar"))? {
            Ok(_) => self.exported.members += 1,
            Err(_) => self.leave_out(&TreePath::root(), format!("the whiteout {shown}")),
        }
        Ok(())
    }

    fn node(&mut self, path: &TreePath, node: &Node) -> Result<()> {
        let kind = match self.first_names.get(&node.id) {
            Some(first) => MemberKind::HardLink { target: first.as_bytes().to_vec() },
            None => match node.stat.kind {
                Kind::Regular => MemberKind::Regular,
                Kind::Directory => MemberKind::Directory,
                Kind::Symlink => MemberKind::Symlink { target: self.tree.read_link(node.id)? },
                Kind::CharDevice(device) => MemberKind::CharDevice(device),
                Kind::BlockDevice(device) => MemberKind::BlockDevice(device),
                Kind::Fifo => MemberKind::Fifo,
                Kind::Socket => {
                    self.leave_out(path, "a socket".into());
                    return Ok(());
                }
            },
        };
        let linked = matches!(kind, MemberKind::HardLink { .. });
        let size = if kind == MemberKind::Regular { node.stat.size } else { 0 };
        let member = Member {
            path: tar_path(path, &node.stat.kind),
            kind,
            perm: node.stat.perm,
            uid: node.stat.uid,
            gid: node.stat.gid,
            mtime: node.stat.mtime,
            // Those of a hard link are its first name's.
            xattrs: if linked { Vec::new() } else { self.tree.xattrs(node.id)? },
            offset: 0,
            size,
            stored: size,
            sparse: None,
        };
        let written = writer::write_headers(&member, &mut self.out);
        match written.doing(|| format!("cannot write {path} to the tar"))? {
            Err(writer::Unwritable::Device) => {
                self.leave_out(path, "a device number that does not fit a tar".into());
                return Ok(());
            }
            Ok(xattrs) => {
                for name in xattrs {
                    self.leave_out(path, format!("the xattr \"{}\"", name.escape_ascii()));
                }
            }
        }
        self.exported.members += 1;
        if !linked && node.stat.nlink > 1 && !node.stat.kind.is_dir() {
            self.first_names.insert(node.id, path.clone());
        }
        if size > 0 { self.content(path, node.id, size) } else { Ok(()) }
    }

    fn content(&mut self, path: &TreePath, node: NodeId, size: u64) -> Result<()> {
        let content = self.tree.open(node)?;
        let mut file = Reader::new(&*content);
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
            let n = match file.read(&mut self.buffer[..want]) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                read => read.doing(|| format!("cannot read the content of {path}"))?,
            };
            if n == 0 {
                let why = format!("its content is {left} bytes shorter than its size");
                return Err(Error::damaged(path.to_string(), why));
            }
            let written = self.out.write_all(&self.buffer[..n]);
            written.doing(|| format!("cannot write {path} to the tar"))?;
            left -= n as u64;
        }
        writer::write_padding(size, &mut self.out)
            .doing(|| format!("cannot write {path} to the tar"))
    }

    fn leave_out(&mut self, path: &TreePath, what: String) {
        self.exported.left_out.push(LeftOut { path: path.clone(), what });
    }
}

/// The path of `.wh.NAME` in a directory.
fn hiding(dir: &TreePath, name: &[u8]) -> Vec<u8> {
    let mut path = dir.as_bytes().to_vec();
    if !dir.is_root() {
        path.push(b'/');
    }
    path.extend_from_slice(WHITEOUT);
    path.extend_from_slice(name);
    path
}

/// `./` for the root, a slash behind directories, as tars have it.
fn tar_path(path: &TreePath, kind: &Kind) -> Vec<u8> {
    let mut bytes = if path.is_root() { b".".to_vec() } else { path.as_bytes().to_vec() };
    if kind.is_dir() {
        bytes.push(b'/');
    }
    bytes
}

/// Counts what goes through.
struct Counting<'a> {
    inner: &'a mut dyn Write,
    bytes: u64,
}

impl Write for Counting<'_> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests;
