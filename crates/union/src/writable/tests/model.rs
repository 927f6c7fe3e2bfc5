//! What a union should be: a tree in memory with the rules of POSIX and nothing else.
//!
//! Invariants: nodes are never reused; an errno is decided in the order in which Linux decides.

use std::collections::BTreeMap;

use rustix::io::Errno;
use strata_tree::{Item, Kind, Spec};

use super::rights::inherit;

/// An inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ModelInode {
    pub(super) kind: Kind,
    pub(super) perm: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) body: Vec<u8>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) names: BTreeMap<String, usize>,
    /// Seconds, while nothing but `set_attr` has set it.
    pub(super) mtime: Option<i64>,
}

impl ModelInode {
    pub(super) fn new(kind: Kind, perm: u16) -> Self {
        Self {
            kind,
            perm,
            uid: 0,
            gid: 0,
            body: Vec::new(),
            xattrs: BTreeMap::new(),
            names: BTreeMap::new(),
            mtime: None,
        }
    }
}

pub(super) type Answer<T> = Result<T, Errno>;

/// All inodes; 0 is the root.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) inodes: Vec<ModelInode>,
}

impl Model {
    /// The tree of a spec.
    pub(super) fn new(spec: &Spec) -> Self {
        let mut model = Self { inodes: Vec::new() };
        for (path, item) in spec.items() {
            let path = String::from_utf8(path.to_vec()).unwrap();
            let node = match item {
                Item::Inode(inode) => {
                    let mut made = ModelInode::new(inode.kind, inode.perm);
                    (made.uid, made.gid) = (inode.uid, inode.gid);
                    made.body = inode.body.clone();
                    made.xattrs = inode.xattrs.clone();
                    made.mtime = Some(inode.mtime.seconds);
                    model.inodes.push(made);
                    model.inodes.len() - 1
                }
                Item::Link(target) => {
                    model.walk(std::str::from_utf8(target.as_bytes()).unwrap()).unwrap()
                }
                Item::Whiteout | Item::LowerLink(_) => panic!("a merged tree has none"),
            };
            if let Some((dir, name)) = path.rsplit_once('/') {
                let dir = model.walk(dir).unwrap();
                model.inodes[dir].names.insert(name.to_owned(), node);
            } else if !path.is_empty() {
                model.inodes[0].names.insert(path, node);
            }
        }
        model
    }

    /// The inode of a path.
    pub(super) fn walk(&self, path: &str) -> Option<usize> {
        let mut here = 0;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            here = *self.inodes[here].names.get(name)?;
        }
        Some(here)
    }

    /// Every path, directories before what is in them.
    pub(super) fn paths(&self) -> Vec<(String, usize)> {
        let mut all = vec![(String::new(), 0)];
        let mut at = 0;
        while let Some((path, node)) = all.get(at).cloned() {
            at += 1;
            for (name, child) in &self.inodes[node].names {
                let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                all.push((path, *child));
            }
        }
        all
    }

    /// `st_nlink`.
    pub(super) fn links(&self, node: usize) -> u32 {
        if self.inodes[node].kind.is_dir() {
            let names = self.inodes[node].names.values();
            return 2 + names.filter(|child| self.inodes[**child].kind.is_dir()).count() as u32;
        }
        let all = self.inodes.iter().enumerate().filter(|(index, _)| self.is_there(*index));
        all.flat_map(|(_, inode)| inode.names.values()).filter(|child| **child == node).count()
            as u32
    }

    fn is_there(&self, node: usize) -> bool {
        node == 0 || self.paths().iter().any(|(_, there)| *there == node)
    }

    fn is_below(&self, node: usize, above: usize) -> bool {
        node == above
            || self.inodes[above]
                .names
                .values()
                .any(|child| self.inodes[*child].kind.is_dir() && self.is_below(node, *child))
    }

    pub(super) fn make(&mut self, dir: usize, name: &str, inode: ModelInode) -> Answer<usize> {
        if self.inodes[dir].names.contains_key(name) {
            return Err(Errno::EXIST);
        }
        let mut inode = inode;
        if self.inodes[dir].perm & 0o2000 != 0 {
            // inode(7), "The set-group-ID bit".
            inode.gid = self.inodes[dir].gid;
            inode.perm |= if inode.kind.is_dir() { 0o2000 } else { 0 };
        }
        inherit(&self.inodes[dir], &mut inode);
        self.inodes.push(inode);
        let node = self.inodes.len() - 1;
        self.inodes[dir].names.insert(name.to_owned(), node);
        self.inodes[dir].mtime = None;
        Ok(node)
    }

    pub(super) fn link(&mut self, node: usize, dir: usize, name: &str) -> Answer<()> {
        if self.inodes[dir].names.contains_key(name) {
            return Err(Errno::EXIST);
        }
        if self.inodes[node].kind.is_dir() {
            return Err(Errno::PERM);
        }
        self.inodes[dir].names.insert(name.to_owned(), node);
        self.inodes[dir].mtime = None;
        Ok(())
    }

    pub(super) fn remove(&mut self, dir: usize, name: &str, directory: bool) -> Answer<()> {
        let node = *self.inodes[dir].names.get(name).ok_or(Errno::NOENT)?;
        match (self.inodes[node].kind.is_dir(), directory) {
            (true, false) => return Err(Errno::ISDIR),
            (false, true) => return Err(Errno::NOTDIR),
            (true, true) if !self.inodes[node].names.is_empty() => return Err(Errno::NOTEMPTY),
            _ => {}
        }
        self.inodes[dir].names.remove(name);
        self.inodes[dir].mtime = None;
        Ok(())
    }

    /// `None`: the kernel refuses it before any file system is asked.
    pub(super) fn rename(
        &mut self,
        from: (usize, &str),
        to: (usize, &str),
        replace: bool,
        exchange: bool,
    ) -> Option<Answer<()>> {
        let source = self.inodes[from.0].names.get(from.1).copied();
        let target = self.inodes[to.0].names.get(to.1).copied();
        let (Some(source), is_dir) = (source, |node: usize| self.inodes[node].kind.is_dir()) else {
            return Some(Err(Errno::NOENT));
        };
        if is_dir(source) && self.is_below(to.0, source)
            || target.is_some_and(|target| is_dir(target) && self.is_below(from.0, target))
        {
            return None;
        }
        let Some(target) = target else {
            if exchange {
                return Some(Err(Errno::NOENT));
            }
            self.put(from, to, source);
            return Some(Ok(()));
        };
        if exchange {
            self.inodes[from.0].names.insert(from.1.to_owned(), target);
            self.inodes[to.0].names.insert(to.1.to_owned(), source);
            (self.inodes[from.0].mtime, self.inodes[to.0].mtime) = (None, None);
            return Some(Ok(()));
        }
        if !replace {
            return Some(Err(Errno::EXIST));
        }
        Some(match (is_dir(source), is_dir(target)) {
            _ if source == target => Ok(()),
            (true, false) => Err(Errno::NOTDIR),
            (false, true) => Err(Errno::ISDIR),
            (true, true) if !self.inodes[target].names.is_empty() => Err(Errno::NOTEMPTY),
            _ => {
                self.put(from, to, source);
                Ok(())
            }
        })
    }

    fn put(&mut self, from: (usize, &str), to: (usize, &str), node: usize) {
        self.inodes[from.0].names.remove(from.1);
        self.inodes[to.0].names.insert(to.1.to_owned(), node);
        (self.inodes[from.0].mtime, self.inodes[to.0].mtime) = (None, None);
    }
}
