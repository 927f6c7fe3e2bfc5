//! One EROFS image out of a tree: [`write`].
//!
//! The tree is walked once (`plan`), then every inode gets its place (`space`), then everything
//! is written in the order of the plan: blocks where they are found or made (`blocks`), inodes
//! through a window of open blocks, the first block last, so that a file that was not finished
//! is no image.
//!
//! Invariants: equal trees give equal files, byte for byte; memory grows with the number of names,
//! not with contents.

mod attributes;
mod blocks;
mod directory;
mod format;
mod names;
mod plan;
mod small;
mod space;
mod window;

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;

use sha2::{Digest, Sha256};
use strata_content::FileTree;
use strata_tree::{Timestamp, TreePath};

use self::attributes::Attributes;
use self::blocks::Blocks;
use self::directory::DirName;
use self::format::{
    BLOCK, CHUNK_FORMAT, Core, DataLayout, HOLE, INODES, SLOT, SUPER, Superblock, entry_type,
};
pub use self::names::{NamesForm, VerityOf};
use self::plan::{NodeBody, Plan, Planned};
use self::space::InodeSpace;
use self::window::Window;
use crate::error::{Error, Result};

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WrittenImage {
    /// Inodes.
    pub inodes: u64,
    /// Bytes of the image.
    pub bytes: u64,
    /// What the format cannot hold.
    pub dropped: Vec<Dropped>,
}

/// Something that is in the tree and not in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Where it is.
    pub path: TreePath,
    /// What, and why.
    pub what: String,
}

fn tell(dropped: &mut Vec<Dropped>, path: &TreePath, what: String, why: &str) {
    dropped.push(Dropped { path: path.clone(), what: format!("{what}: {why}") });
}

/// Where one inode lies, and how its bytes are kept.
#[derive(Debug, Clone, Copy)]
struct Placed {
    number: u64,
    layout: DataLayout,
    /// All bytes; a directory's too.
    size: u64,
    extended: bool,
}

impl Placed {
    /// The bytes that stand behind the inode.
    fn tail(&self) -> u64 {
        match self.layout {
            DataLayout::Plain => 0,
            DataLayout::Inline => self.size % BLOCK,
            DataLayout::Hole => HOLE.len() as u64,
        }
    }
}

/// Writes all of `tree`, a merged one, to `out`, replacing what `out` holds. `out` is a regular
/// file; the caller syncs it.
///
/// # Errors
/// Whatever the tree answers; `NotMerged`; `Short` if a content ends early; `TooLarge` beyond
/// 2^32 - 1 blocks or inodes; `Io` if writing fails.
pub fn write(tree: &FileTree, out: &File) -> Result<WrittenImage> {
    write_plan(tree, Plan::new(&**tree, None)?, None, out)
}

/// Writes the names of `tree`, a merged one, to `out`, replacing what `out` holds, for an
/// overlayfs that has the image as its lower layer and finds contents below a data-only one
/// (overlayfs.rst, "Data-only lower layers"): a regular file is a hole of its size, with
/// `trusted.overlay.metacopy` and `trusted.overlay.redirect`. What the image of the tree itself
/// calls `trusted.overlay.*` is escaped, as overlayfs does it (Linux 6.7).
///
/// A character device 0:0 is left out and told: overlayfs takes it for a whiteout.
///
/// # Errors
/// As [`write_erofs`](crate::write_erofs); `TooLarge` for a file of more than 2^43 bytes.
pub fn write_names(tree: &FileTree, form: &NamesForm<'_>, out: &File) -> Result<WrittenImage> {
    write_plan(tree, Plan::new(&**tree, Some(form))?, Some(form.identity), out)
}

fn write_plan(
    tree: &FileTree,
    plan: Plan,
    identity: Option<[u8; 32]>,
    out: &File,
) -> Result<WrittenImage> {
    let failed = |source| Error::io("writing the image", source);
    let built = plan.usual_time();
    let mut space = InodeSpace::new(INODES);
    let mut placed = Vec::with_capacity(plan.inodes.len());
    let mut directory_blocks = 0;
    for inode in &plan.inodes {
        let at = place(&plan.attributes, inode, built, &mut space);
        if !matches!(inode.body, NodeBody::Regular(..) | NodeBody::Elsewhere) {
            directory_blocks += (at.size - at.tail()).div_ceil(BLOCK);
        }
        placed.push(at);
    }
    out.set_len(0).map_err(failed)?;
    let shared = space.blocks();
    let area = plan.attributes.area();
    blocks::write_blocks(out, shared * BLOCK, area)?;
    let directories = shared + (area.len() as u64).div_ceil(BLOCK);
    let mut writer = Writer {
        tree,
        plan: &plan,
        placed: &placed,
        directories: Blocks::new(out, directories),
        contents: Blocks::new(out, directories + directory_blocks),
        window: Window::new(out),
        names: identity.is_none().then(Sha256::new),
        small: HashMap::new(),
    };
    let threads = small::threads();
    for from in (0..plan.inodes.len()).step_by(small::BATCH) {
        let batch = from..plan.inodes.len().min(from + small::BATCH);
        writer.small = small::read(tree, &writer.small_ones(batch.clone()), threads)?;
        batch.into_iter().try_for_each(|index| writer.inode(index))?;
    }
    let uuid = match writer.names.take() {
        Some(names) => uuid(&names.finalize().into()),
        None => uuid(&identity.unwrap_or_default()),
    };
    // fsck.erofs 1.5 reads 12 bytes behind any inode, also where none are said to be.
    let blocks = writer.contents.end().max(space.blocks_and_after(12));
    let mut first = writer.window.finish()?;
    out.set_len(blocks * BLOCK).map_err(failed)?;
    let too_far = |_| Error::TooLarge { what: "blocks", limit: u64::from(u32::MAX) };
    let superblock = Superblock {
        root: placed.first().map_or(0, |root| root.number as u16),
        inodes: plan.inodes.len() as u64,
        built,
        blocks: u32::try_from(blocks).map_err(too_far)?,
        shared: u32::try_from(shared).map_err(too_far)?,
        uuid,
        holes: plan.inodes.iter().any(|inode| matches!(inode.body, NodeBody::Elsewhere)),
    };
    let encoded = superblock.encode();
    first[SUPER as usize..INODES as usize].copy_from_slice(&encoded);
    format::sign(&mut first);
    blocks::write_blocks(out, 0, &first)?;
    let (inodes, bytes) = (plan.inodes.len() as u64, blocks * BLOCK);
    Ok(WrittenImage { inodes, bytes, dropped: plan.dropped })
}

/// Finds an inode's place and how its bytes are kept.
fn place(
    attributes: &Attributes,
    inode: &Planned,
    built: Timestamp,
    space: &mut InodeSpace,
) -> Placed {
    let stat = &inode.stat;
    let size = match &inode.body {
        NodeBody::Empty | NodeBody::Device(_) => 0,
        NodeBody::Symlink(_) | NodeBody::Regular(..) | NodeBody::Elsewhere => stat.size,
        NodeBody::Directory { names, .. } => {
            let mut all: Vec<&[u8]> = names.iter().map(|(name, _)| name.as_bytes()).collect();
            all.extend([b".".as_slice(), b".."]);
            all.sort_unstable();
            directory::length(&all)
        }
    };
    let narrow = u32::from(u16::MAX);
    let extended = stat.mtime != built
        || stat.uid > narrow
        || stat.gid > narrow
        || stat.nlink > narrow
        || size > u64::from(u32::MAX);
    let head = Core::length(extended) + attributes.length(inode.attributes);
    let rest = size % BLOCK;
    let layout = match &inode.body {
        NodeBody::Elsewhere => DataLayout::Hole,
        _ if rest > 0 && head + rest <= BLOCK => DataLayout::Inline,
        _ => DataLayout::Plain,
    };
    let mut placed = Placed { number: 0, layout, size, extended };
    placed.number = space.place(head + placed.tail());
    placed
}

/// A UUID out of a digest (RFC 9562, version 8).
fn uuid(digest: &[u8; 32]) -> [u8; 16] {
    let mut uuid = [0; 16];
    uuid.iter_mut().zip(*digest).for_each(|(to, from)| *to = from);
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

struct Writer<'a> {
    tree: &'a FileTree,
    plan: &'a Plan,
    placed: &'a [Placed],
    directories: Blocks<'a>,
    contents: Blocks<'a>,
    window: Window<'a>,
    /// The digest of all inodes and directories, which distinguishes images; none where the caller
    /// says what does.
    names: Option<Sha256>,
    /// Contents that stand behind their inodes, of those that are next.
    small: HashMap<usize, Vec<u8>>,
}

impl Writer<'_> {
    fn inode(&mut self, index: usize) -> Result<()> {
        let plan = self.plan;
        let (Some(inode), Some(placed)) = (plan.inodes.get(index), self.placed.get(index)) else {
            return Ok(());
        };
        let mut tail = Vec::new();
        let place = match &inode.body {
            NodeBody::Empty => 0,
            NodeBody::Device(bits) => *bits,
            NodeBody::Elsewhere => {
                tail.extend_from_slice(&HOLE);
                CHUNK_FORMAT
            }
            NodeBody::Symlink(target) => self.bytes(placed, target, &mut tail)?,
            NodeBody::Directory { names, parent } => {
                let listed = names.iter().map(|(name, child)| (name.as_bytes(), *child));
                let dots = [(b".".as_slice(), index as u32), (b"..".as_slice(), *parent)];
                let mut entries: Vec<DirName<'_>> = listed
                    .chain(dots)
                    .filter_map(|(name, child)| self.entry(name, child))
                    .collect();
                directory::sort(&mut entries);
                self.bytes(placed, &directory::encode(&entries), &mut tail)?
            }
            NodeBody::Regular(..) if self.small.contains_key(&index) => {
                tail = self.small.remove(&index).unwrap_or_default();
                0
            }
            NodeBody::Regular(node, path) => {
                let parts = (placed.size - placed.tail(), placed.tail());
                let alone = plan.sizes.get(&placed.size).is_none_or(|count| *count == 1);
                let which = (*node, &**path);
                match placed.size {
                    0 => 0,
                    _ => self.contents.content(self.tree, which, parts, alone, &mut tail)?,
                }
            }
        };
        let mut bytes = Vec::with_capacity(128 + tail.len());
        let stat = &inode.stat;
        let core = Core {
            layout: placed.layout,
            attributes: Attributes::count(plan.attributes.length(inode.attributes)),
            mode: stat.mode() as u16,
            nlink: stat.nlink,
            size: placed.size,
            place,
            serial: index as u32 + 1,
            uid: stat.uid,
            gid: stat.gid,
            mtime: placed.extended.then_some(stat.mtime),
        };
        core.encode(&mut bytes);
        plan.attributes.encode(inode.attributes, &mut bytes);
        bytes.extend_from_slice(&tail);
        if let Some(names) = &mut self.names {
            names.update(&bytes);
        }
        self.window.write(placed.number * SLOT, &bytes)
    }

    /// The contents of a part of the plan that stand behind their inodes as a whole.
    fn small_ones(&self, batch: Range<usize>) -> Vec<small::SmallContent<'_>> {
        let parts = batch.filter_map(|index| {
            let (NodeBody::Regular(node, path), placed) =
                (&self.plan.inodes.get(index)?.body, self.placed.get(index)?)
            else {
                return None;
            };
            let whole = placed.size > 0 && placed.tail() == placed.size;
            whole.then_some((index, *node, &**path, placed.size as usize))
        });
        parts.collect()
    }

    fn entry<'n>(&self, name: &'n [u8], child: u32) -> Option<DirName<'n>> {
        let number = self.placed.get(child as usize)?.number;
        let kind = entry_type(self.plan.inodes.get(child as usize)?.stat.kind);
        Some(DirName { name, number, kind })
    }

    /// Puts whole blocks among those of directories, and the rest into `tail`.
    fn bytes(&mut self, placed: &Placed, bytes: &[u8], tail: &mut Vec<u8>) -> Result<u32> {
        let (blocks, rest) = bytes.split_at(bytes.len() - placed.tail() as usize);
        tail.extend_from_slice(rest);
        if let Some(names) = &mut self.names {
            names.update(blocks);
        }
        if blocks.is_empty() { Ok(0) } else { self.directories.put(blocks) }
    }
}

/// An image of an empty root in one block, as unlike others as `identity` is: overlayfs tells file
/// systems apart by their UUID.
pub fn empty_image(identity: [u8; 16]) -> Vec<u8> {
    let number = INODES.div_ceil(SLOT);
    let dots = [b".".as_slice(), b".."].map(|name| DirName {
        name,
        number,
        kind: entry_type(strata_tree::Kind::Directory),
    });
    let names = directory::encode(&dots);
    let core = Core {
        layout: DataLayout::Inline,
        attributes: 0,
        mode: strata_tree::Kind::Directory.mode_bits() as u16 | 0o555,
        nlink: 2,
        size: names.len() as u64,
        place: 0,
        serial: 1,
        uid: 0,
        gid: 0,
        mtime: None,
    };
    let mut block = vec![0; (number * SLOT) as usize];
    core.encode(&mut block);
    block.extend_from_slice(&names);
    block.resize(BLOCK as usize, 0);
    let superblock = Superblock {
        root: number as u16,
        inodes: 1,
        built: Timestamp::default(),
        blocks: 1,
        shared: 0,
        uuid: uuid(&Sha256::digest(identity).into()),
        holes: false,
    };
    block[SUPER as usize..INODES as usize].copy_from_slice(&superblock.encode());
    format::sign(&mut block);
    block
}
