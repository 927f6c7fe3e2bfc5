//! A second reader of EROFS images, written from the kernel's header and not from the writer.
//!
//! It reads what the writer uses of the format, and asserts whatever has to hold of it: sorted
//! directories, tails within their blocks, no block beyond the end.
//!
//! Invariant: nothing here is shared with the writer, so that a mistake of one is seen.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::ops::ControlFlow;

use strata_content::{Content, Contents, FileContent};
use strata_tree::{
    ContentRef, Device, DirEntry, DirMarks, Entry, Error, Kind, Lower, Name, Node, NodeId, Result,
    Stat, Timestamp, TreePath, Xattr,
};

const BLOCK: usize = 4096;

/// An image in memory.
pub(crate) struct Image {
    bytes: Vec<u8>,
    root: u64,
    shared: usize,
    built: Timestamp,
    /// The directory that holds each directory.
    parents: HashMap<u64, u64>,
    /// The numbers of all inodes that have a name.
    known: HashSet<u64>,
    /// Of an image of names: the contents elsewhere, by their paths.
    elsewhere: Option<HashMap<Vec<u8>, Vec<u8>>>,
}

struct ErofsInode {
    number: u64,
    mode: u32,
    links: u32,
    size: usize,
    place: u32,
    uid: u32,
    gid: u32,
    mtime: Timestamp,
    attributes: usize,
    attribute_bytes: usize,
    inline: bool,
    hole: bool,
}

impl Image {
    /// An image of names, as overlayfs reads it, with the contents that lie elsewhere.
    pub(crate) fn of_names(bytes: Vec<u8>, elsewhere: HashMap<Vec<u8>, Vec<u8>>) -> Self {
        Self::read(bytes, Some(elsewhere))
    }

    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self::read(bytes, None)
    }

    fn read(bytes: Vec<u8>, elsewhere: Option<HashMap<Vec<u8>, Vec<u8>>>) -> Self {
        let mut image = Self {
            root: 0,
            shared: 0,
            built: Timestamp::default(),
            parents: HashMap::new(),
            known: HashSet::new(),
            bytes,
            elsewhere,
        };
        assert_eq!(image.u32(1024), 0xE0F5_E1E2);
        assert_eq!(image.bytes[1024 + 12], 12);
        let features = image.u32(1024 + 80);
        let may_have = if image.elsewhere.is_some() { 4 } else { 0 };
        assert_eq!(features & !may_have, 0, "features that old kernels do not know");
        assert_eq!(image.u32(1024 + 36) as usize * BLOCK, image.bytes.len());
        image.root = u64::from(image.u16(1024 + 14));
        image.shared = image.u32(1024 + 44) as usize * BLOCK;
        image.built =
            Timestamp { seconds: image.u64(1024 + 24) as i64, nanos: image.u32(1024 + 32) };
        let mut open = vec![(image.root, image.root)];
        while let Some((dir, parent)) = open.pop() {
            assert_eq!(image.parents.insert(dir, parent), None, "a directory of two names");
            for (name, child, kind) in image.names(dir) {
                image.known.insert(child);
                match name.as_slice() {
                    b"." => assert_eq!(child, dir),
                    b".." => assert_eq!(child, parent),
                    _ if kind == 2 => open.push((child, dir)),
                    _ => {}
                }
            }
        }
        image
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes[at..at + 2].try_into().unwrap())
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().unwrap())
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().unwrap())
    }

    fn inode(&self, number: u64) -> ErofsInode {
        let at = number as usize * 32;
        let format = self.u16(at);
        let extended = format & 1 == 1;
        let layout = format >> 1;
        let holes = self.elsewhere.is_some();
        assert!(layout == 0 || layout == 2 || layout == 4 && holes, "layout {layout}");
        let count = usize::from(self.u16(at + 2));
        let attribute_bytes = if count == 0 { 0 } else { 12 + 4 * (count - 1) };
        let (links, size, uid, gid, mtime) = match extended {
            true => (
                self.u32(at + 44),
                self.u64(at + 8) as usize,
                self.u32(at + 24),
                self.u32(at + 28),
                Timestamp { seconds: self.u64(at + 32) as i64, nanos: self.u32(at + 40) },
            ),
            false => (
                u32::from(self.u16(at + 6)),
                self.u32(at + 8) as usize,
                u32::from(self.u16(at + 24)),
                u32::from(self.u16(at + 26)),
                self.built,
            ),
        };
        ErofsInode {
            number,
            mode: u32::from(self.u16(at + 4)),
            links,
            size,
            place: self.u32(at + 16),
            uid,
            gid,
            mtime,
            attributes: at + if extended { 64 } else { 32 },
            attribute_bytes,
            inline: layout == 2,
            hole: layout == 4,
        }
    }

    fn content(&self, inode: &ErofsInode) -> Vec<u8> {
        if inode.size == 0 {
            return Vec::new();
        }
        if inode.hole {
            assert_eq!(inode.place, 31, "one chunk of any size");
            let chunk = inode.attributes + inode.attribute_bytes;
            assert_eq!(self.u32(chunk), u32::MAX, "a hole");
            let marks = self.attributes_of(inode);
            let mark = |name: &[u8]| marks.iter().find(|(here, _)| here == name).unwrap();
            assert!(mark(b"trusted.overlay.metacopy").1.is_empty());
            let content = &self.elsewhere.as_ref().unwrap()[&mark(b"trusted.overlay.redirect").1];
            assert_eq!(content.len(), inode.size);
            return content.clone();
        }
        let tail = if inode.inline { inode.size % BLOCK } else { 0 };
        let first = inode.place as usize * BLOCK;
        let mut content = match inode.size - tail {
            0 => Vec::new(),
            length => self.bytes[first..first + length].to_vec(),
        };
        let at = inode.attributes + inode.attribute_bytes;
        assert!(tail == 0 || at / BLOCK == (at + tail - 1) / BLOCK, "{}: tail", inode.number);
        content.extend_from_slice(&self.bytes[at..at + tail]);
        content
    }

    /// All names of a directory, in their order, with the number and the type they say.
    fn names(&self, dir: u64) -> Vec<(Vec<u8>, u64, u8)> {
        let content = self.content(&self.inode(dir));
        let mut all: Vec<(Vec<u8>, u64, u8)> = Vec::new();
        for block in content.chunks(BLOCK) {
            let at = |from: usize| u16::from_le_bytes(block[from..from + 2].try_into().unwrap());
            let count = usize::from(at(8)) / 12;
            for n in 0..count {
                let start = usize::from(at(12 * n + 8));
                let end = if n + 1 < count { usize::from(at(12 * n + 20)) } else { block.len() };
                let name = &block[start..end];
                let name = name.split(|byte| *byte == 0).next().unwrap();
                let number = u64::from_le_bytes(block[12 * n..12 * n + 8].try_into().unwrap());
                assert!(all.last().is_none_or(|(last, ..)| last.as_slice() < name), "order");
                all.push((name.to_vec(), number, block[12 * n + 10]));
            }
        }
        all
    }

    fn node_of(&self, number: u64) -> Node {
        let inode = self.inode(number);
        let bits = inode.place;
        let device = Device { major: (bits >> 8) & 0xfff, minor: bits & 0xff | bits >> 12 & !0xff };
        let kind = Kind::of_mode(inode.mode, device).unwrap();
        let sized = matches!(kind, Kind::Regular | Kind::Symlink);
        let stat = Stat {
            kind,
            perm: (inode.mode & 0o7777) as u16,
            uid: inode.uid,
            gid: inode.gid,
            size: if sized { inode.size as u64 } else { 0 },
            nlink: inode.links,
            mtime: inode.mtime,
        };
        Node { id: self.id(number), stat, marks: DirMarks::default() }
    }

    /// The suite calls the root 1, as FUSE does.
    fn id(&self, number: u64) -> NodeId {
        if number == self.root { NodeId::ROOT } else { NodeId(number) }
    }

    fn number(&self, node: NodeId) -> Result<u64> {
        match node {
            NodeId::ROOT => Ok(self.root),
            NodeId(number) if self.known.contains(&number) => Ok(number),
            _ => Err(Error::NoNode(node)),
        }
    }

    fn dir(&self, node: NodeId) -> Result<u64> {
        let number = match node {
            NodeId::ROOT => self.root,
            NodeId(number) if self.parents.contains_key(&number) => number,
            _ => self.number(node)?,
        };
        match self.parents.contains_key(&number) {
            true => Ok(number),
            false => Err(Error::NotDirectory(node)),
        }
    }

    /// All attributes as the image has them.
    fn attributes_of(&self, inode: &ErofsInode) -> Vec<Xattr> {
        let mut all = Vec::new();
        if inode.attribute_bytes > 0 {
            let shared = usize::from(self.bytes[inode.attributes + 4]);
            let mut at = inode.attributes + 12;
            for n in 0..shared {
                let id = self.u32(at + 4 * n) as usize;
                all.push(self.attribute(self.shared + 4 * id).0);
            }
            at += 4 * shared;
            while at < inode.attributes + inode.attribute_bytes {
                let (one, next) = self.attribute(at);
                all.push(one);
                at = next;
            }
            assert_eq!(at, inode.attributes + inode.attribute_bytes);
        }
        all.sort();
        all
    }

    fn attribute(&self, at: usize) -> (Xattr, usize) {
        let (length, value) = (usize::from(self.bytes[at]), usize::from(self.u16(at + 2)));
        let prefix: &[u8] = match self.bytes[at + 1] {
            1 => b"user.",
            2 => b"system.posix_acl_access",
            3 => b"system.posix_acl_default",
            4 => b"trusted.",
            6 => b"security.",
            other => panic!("prefix {other}"),
        };
        let name = [prefix, &self.bytes[at + 4..at + 4 + length]].concat();
        let from = at + 4 + length;
        ((name, self.bytes[from..from + value].to_vec()), (from + value).next_multiple_of(4))
    }
}

impl Lower for Image {
    fn root(&self) -> NodeId {
        NodeId::ROOT
    }

    fn lookup(&self, dir: NodeId, name: Name<'_>) -> Result<Option<Entry>> {
        let names = self.names(self.dir(dir)?);
        let found = names.iter().find(|(here, ..)| here == name.as_bytes());
        Ok(found.map(|(_, child, _)| Entry::Node(self.node_of(*child))))
    }

    fn read_dir(
        &self,
        dir: NodeId,
        from: u64,
        each: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let names = self.names(self.dir(dir)?);
        for (index, (name, child, _)) in names.iter().enumerate().skip(from as usize) {
            let Ok(name) = Name::new(name) else { continue };
            let entry = Entry::Node(self.node_of(*child));
            if each(DirEntry { name, entry, next: index as u64 + 1 }).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn node(&self, node: NodeId) -> Result<Node> {
        Ok(self.node_of(self.number(node)?))
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        let inode = self.inode(self.number(node)?);
        match self.node_of(inode.number).stat.kind {
            Kind::Symlink => Ok(self.content(&inode)),
            _ => Err(Error::NotSymlink(node)),
        }
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        let mut all = self.attributes_of(&self.inode(self.number(node)?));
        if self.elsewhere.is_some() {
            let prefix: &[u8] = b"trusted.overlay.";
            all.retain(|(name, _)| {
                !name.starts_with(prefix) || name[prefix.len()..].starts_with(b"overlay.")
            });
            for (name, _) in &mut all {
                if name.starts_with(prefix) {
                    name.drain(prefix.len()..prefix.len() + b"overlay.".len());
                }
            }
            all.sort();
        }
        Ok(all)
    }

    /// The path names the inode: an image knows no layers.
    fn content(&self, node: NodeId) -> Result<ContentRef> {
        let stat = self.node_of(self.number(node)?).stat;
        let path = TreePath::clamped(node.0.to_string().as_bytes()).unwrap();
        match stat.kind {
            Kind::Regular => Ok(ContentRef { layer: 0, path, digest: None, size: stat.size }),
            kind => Err(Error::NotRegular { node, kind }),
        }
    }

    fn parent(&self, dir: NodeId) -> Result<Option<NodeId>> {
        Ok(self.parents.get(&self.dir(dir)?).map(|parent| self.id(*parent)))
    }
}

impl Contents for Image {
    fn open(&self, which: &ContentRef) -> Result<Box<dyn Content>> {
        let number = which.path.to_string().trim_start_matches('/').parse();
        let absent = || Error::io("opening a content", rustix::io::Errno::NOENT);
        if which.layer != 0 {
            return Err(which.no_layer(1));
        }
        let number = self.number(NodeId(number.map_err(|_| absent())?))?;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&Image::content(self, &self.inode(number))).unwrap();
        Ok(Box::new(FileContent::new(File::open(file.path()).unwrap()).unwrap()))
    }

    fn prefetch(&self, _which: &[ContentRef]) {}
}
