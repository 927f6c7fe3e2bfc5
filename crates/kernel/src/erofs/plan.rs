//! What an image will hold: every inode of a tree once, breadth first.
//!
//! Invariants: one inode of the source is one of the plan, however many names it has; link counts
//! are counted again; equal trees give equal plans, whatever order the source lists names in.

use std::collections::{BTreeMap, HashMap, VecDeque};

use strata_tree::{
    Device, Entry, Kind, Lower, NameBuf, Node, NodeId, Stat, Timestamp, TreePath, Xattr, list,
};

use super::attributes::{Attributes, SetNumber};
use super::format::{CHUNK, device_bits};
use super::{Dropped, NamesForm, tell};
use crate::error::{Error, Result};

/// An inode of the plan, counted from 0, the root.
pub(super) type PlanIndex = u32;

/// What a node is made of beside its metadata.
#[derive(Debug)]
pub(super) enum NodeBody {
    /// Nothing: pipes, sockets.
    Empty,
    /// A device, as the kernel's 32 bits.
    Device(u32),
    /// Names, sorted, and the directory above.
    Directory { names: Vec<(NameBuf, PlanIndex)>, parent: PlanIndex },
    /// The target.
    Symlink(Vec<u8>),
    /// A file, and what it is called in messages.
    Regular(NodeId, Box<TreePath>),
    /// A file whose bytes are not in the image.
    Elsewhere,
}

/// One inode.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) stat: Stat,
    pub(super) attributes: SetNumber,
    pub(super) body: NodeBody,
}

/// All inodes of a tree.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) inodes: Vec<Planned>,
    pub(super) attributes: Attributes,
    pub(super) dropped: Vec<Dropped>,
    /// How many files have this size: contents of a size of its own have no equal.
    pub(super) sizes: HashMap<u64, u32>,
    times: BTreeMap<Timestamp, u64>,
    known: HashMap<NodeId, PlanIndex>,
}

/// What a plan is made of.
#[derive(Clone, Copy)]
struct Source<'a> {
    tree: &'a dyn Lower,
    /// The form of an image of names; `None`: all contents stand in the image.
    form: Option<&'a NamesForm<'a>>,
}

impl Source<'_> {
    /// What refers to the content of a regular file; `None` if the content stands in the image.
    fn marks(self, node: &Node) -> Result<Option<[Xattr; 2]>> {
        let Some(form) = self.form.filter(|_| node.stat.size > 0) else { return Ok(None) };
        if node.stat.size > CHUNK {
            return Err(Error::TooLarge { what: "bytes of a file", limit: CHUNK });
        }
        Ok(form.marks(&self.tree.content(node.id)?))
    }
}

impl Plan {
    /// Walks all of `tree`, a merged one. No content is opened.
    ///
    /// # Errors
    /// Whatever the tree answers; `NotMerged`; `TooLarge` from 2^32 inodes on.
    pub(super) fn new(tree: &dyn Lower, form: Option<&NamesForm<'_>>) -> Result<Self> {
        let mut plan = Self::default();
        let root = tree.node(tree.root())?;
        let tree = Source { tree, form };
        plan.add(tree, &root, 0, TreePath::root())?;
        let mut queue = VecDeque::from([(0, root.id, TreePath::root())]);
        while let Some((dir, source, path)) = queue.pop_front() {
            plan.add_names(tree, (dir, source, path), &mut queue)?;
        }
        plan.attributes.settle();
        plan.known = HashMap::new();
        Ok(plan)
    }

    fn add(
        &mut self,
        source: Source<'_>,
        node: &Node,
        parent: PlanIndex,
        path: TreePath,
    ) -> Result<Option<PlanIndex>> {
        let Source { tree, form } = source;
        let mut all = tree.xattrs(node.id)?;
        if form.is_some() {
            all = NamesForm::escaped(all);
        }
        let body = match node.stat.kind {
            Kind::CharDevice(Device { major: 0, minor: 0 }) if form.is_some() => {
                let what = "a character device 0:0".to_owned();
                tell(&mut self.dropped, &path, what, "overlayfs takes it for a whiteout");
                return Ok(None);
            }
            Kind::Fifo | Kind::Socket => NodeBody::Empty,
            Kind::CharDevice(device) | Kind::BlockDevice(device) => match device_bits(device) {
                Some(bits) => NodeBody::Device(bits),
                None => {
                    let what = format!("a device {}:{}", device.major, device.minor);
                    tell(&mut self.dropped, &path, what, "Linux has no such number");
                    return Ok(None);
                }
            },
            Kind::Directory => NodeBody::Directory { names: Vec::new(), parent },
            Kind::Symlink => NodeBody::Symlink(tree.read_link(node.id)?),
            Kind::Regular => match source.marks(node)? {
                Some(marks) => {
                    all.splice(0..0, marks);
                    NodeBody::Elsewhere
                }
                None => NodeBody::Regular(node.id, Box::new(path.clone())),
            },
        };
        let dropped = &mut self.dropped;
        let attributes = self.attributes.add(&all, &mut |name, why| {
            tell(dropped, &path, format!("the xattr {:?}", name.escape_ascii().to_string()), why);
        });
        let mut stat = node.stat;
        stat.size = match &body {
            NodeBody::Regular(..) | NodeBody::Elsewhere => stat.size,
            NodeBody::Symlink(target) => target.len() as u64,
            NodeBody::Empty | NodeBody::Device(_) | NodeBody::Directory { .. } => 0,
        };
        stat.nlink = 1;
        if matches!(body, NodeBody::Regular(..)) {
            *self.sizes.entry(stat.size).or_default() += 1;
        }
        *self.times.entry(stat.mtime).or_default() += 1;
        let index = PlanIndex::try_from(self.inodes.len())
            .map_err(|_| Error::TooLarge { what: "inodes", limit: u64::from(PlanIndex::MAX) })?;
        self.inodes.push(Planned { stat, attributes, body });
        self.known.insert(node.id, index);
        Ok(Some(index))
    }

    fn add_names(
        &mut self,
        tree: Source<'_>,
        (dir, source, path): (PlanIndex, NodeId, TreePath),
        queue: &mut VecDeque<(PlanIndex, NodeId, TreePath)>,
    ) -> Result<()> {
        let mut listed = list(tree.tree, source)?;
        listed.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let wrong = |name: &NameBuf, what: &str| {
            let path = path.join(name.as_name());
            Err(Error::NotMerged(format!("{path} {what}")))
        };
        let mut names = Vec::with_capacity(listed.len());
        let mut subdirs = 0_u32;
        for (name, entry) in listed {
            let Entry::Node(node) = entry else {
                return wrong(&name, "is a mark of one layer");
            };
            if names.last().is_some_and(|(last, _)| *last == name) {
                return wrong(&name, "is listed twice");
            }
            let below = path.join(name.as_name());
            let index = match self.known.get(&node.id).copied() {
                Some(_) if node.stat.kind.is_dir() => {
                    return wrong(&name, "is a directory of two names");
                }
                Some(index) => {
                    if let Some(planned) = self.inodes.get_mut(index as usize) {
                        planned.stat.nlink = planned.stat.nlink.saturating_add(1);
                    }
                    index
                }
                None => match self.add(tree, &node, dir, below.clone())? {
                    Some(index) => index,
                    None => continue,
                },
            };
            if node.stat.kind.is_dir() {
                subdirs = subdirs.saturating_add(1);
                queue.push_back((index, node.id, below));
            }
            names.push((name, index));
        }
        if let Some(planned) = self.inodes.get_mut(dir as usize) {
            planned.stat.nlink = subdirs.saturating_add(2);
            if let NodeBody::Directory { names: kept, .. } = &mut planned.body {
                *kept = names;
            }
        }
        Ok(())
    }

    /// The time that most inodes have, which the superblock keeps for them: the earliest of
    /// several. Times before 1970 do not count, for not every reader takes them there.
    pub(super) fn usual_time(&self) -> Timestamp {
        let after = self.times.iter().filter(|(time, _)| time.seconds >= 0).rev();
        after.max_by_key(|(_, count)| **count).map(|(time, _)| *time).unwrap_or_default()
    }
}
