//! Sums over an image's tree: what each directory holds after some layers, what they changed in
//! it, and how much of the image is wasted.
//!
//! Invariants: an inode is counted at the first of its names that is there, whatever the number
//! of its names; a directory's total is the sum of its children's and its own.

use strata_tree::Kind;

use super::{ImageTree, PathId, Span, Version, is_file};

/// What one path holds, with all that is below it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Total {
    /// Bytes of regular files, each inode once, after the span.
    pub size: u64,
    /// The part of them that other images or other layers hold too.
    pub shared: u64,
    /// Names there after the span, the path itself included.
    pub entries: u32,
    /// Paths that the span added, changed, removed or stored again.
    pub changes: u32,
    /// Bytes of regular files that the span brought.
    pub brought: u64,
    /// Bytes of regular files that were there before and are hidden by the span.
    pub hidden: u64,
}

impl Total {
    fn add(&mut self, other: Self) {
        self.size += other.size;
        self.shared += other.shared;
        self.entries += other.entries;
        self.changes += other.changes;
        self.brought += other.brought;
        self.hidden += other.hidden;
    }

    /// The part of `size` that only this image's one layer holds.
    pub fn unique(&self) -> u64 {
        self.size - self.shared
    }
}

/// [`Total`]s of all paths.
#[derive(Debug)]
pub struct Totals(Vec<Total>);

impl Totals {
    /// The total of one path.
    pub fn of(&self, path: PathId) -> &Total {
        &self.0[path.index()]
    }
}

/// How much of what the layers hold is still there at the top.
#[derive(Debug, Clone, PartialEq)]
pub struct Efficiency {
    /// dive's score, path by path, without sharing: bytes of the smallest version of each path,
    /// over bytes of all versions; 1 for no bytes.
    pub score: f64,
    /// Bytes of the files of layers that no name shows any more: `files` added up.
    pub wasted: u64,
    /// Those files with their bytes, the largest first; once for each layer that has one.
    pub files: Vec<(PathId, u64)>,
}

impl ImageTree {
    /// Adds up everything, in one pass over the paths.
    pub fn totals(&self, span: Span) -> Totals {
        let mut all = vec![Total::default(); self.paths.len()];
        let (mut before, mut after) = (self.unseen(), self.unseen());
        for path in self.paths() {
            let Some(new) = self.at(path, span.to) else { continue };
            let total = &mut all[path.index()];
            total.entries = 1;
            if after.first(new) {
                total.size = new.size;
                total.shared = if self.is_shared(new) { new.size } else { 0 };
            }
        }
        for path in self.paths() {
            if self.change(path, span).is_none() {
                continue;
            }
            let total = &mut all[path.index()];
            total.changes = 1;
            total.brought = total.size;
            // What has another name left is not hidden.
            let old = self.at(path, span.below).filter(|old| !after.has(old));
            total.hidden = old.filter(|old| before.first(old)).map_or(0, |old| old.size);
        }
        for path in self.paths().skip(1).collect::<Vec<_>>().into_iter().rev() {
            let own = all[path.index()];
            all[self.parent(path).index()].add(own);
        }
        Totals(all)
    }

    fn unseen(&self) -> Seen {
        Seen(vec![false; self.versions.len()])
    }

    /// Counts what is wasted, and dive's score: over all paths that are a leaf of some layer's own
    /// tree. There a whiteout has the size of the directory that it hides, and of a file or of
    /// nothing 0; a hard link has none; what an opaque mark hides is not counted.
    pub fn efficiency(&self) -> Efficiency {
        let (mut least, mut all) = (0, 0);
        let mut shown = self.unseen();
        let mut sizes = Vec::new();
        for path in self.paths() {
            if let Some(version) = self.at(path, self.layers.len()) {
                shown.first(version);
            }
            sizes.clear();
            sizes.extend(self.bare.contains(&path).then_some(0));
            let mut number = self.paths[path.index()].last;
            while let Some(event) = self.events.get(number as usize) {
                match self.versions.get(event.version as usize) {
                    Some(version) if version.kind == Kind::Directory => {}
                    // The layer's own file, or its link to what a lower layer has.
                    Some(version) if version.layer == event.layer => {
                        sizes.push(own_size(version, path));
                    }
                    Some(_) => sizes.push(0),
                    None => {}
                }
                // A directory may come where another was hidden.
                if event.named {
                    sizes.push(self.size_below(path, event.layer as usize));
                }
                number = event.before;
            }
            least += sizes.iter().min().copied().unwrap_or(0);
            all += sizes.iter().sum::<u64>();
        }
        let lost = self.versions.iter().filter(|version| is_file(version) && !shown.has(version));
        let mut files: Vec<(PathId, u64)> = lost.map(|lost| (lost.path, lost.size)).collect();
        files.sort_by_key(|(path, bytes)| (std::cmp::Reverse(*bytes), *path));
        let score = if all == 0 { 1.0 } else { least as f64 / all as f64 };
        Efficiency { score, wasted: files.iter().map(|(_, bytes)| bytes).sum(), files }
    }

    /// Bytes of the files below a directory with the first `layers` layers merged.
    fn size_below(&self, dir: PathId, layers: usize) -> u64 {
        let (mut size, mut open) = (0, vec![dir]);
        while let Some(dir) = open.pop() {
            for kid in self.children(dir) {
                match self.at(*kid, layers) {
                    Some(version) if version.kind.is_dir() => open.push(*kid),
                    Some(version) => size += own_size(version, *kid),
                    None => {}
                }
            }
        }
        size
    }
}

/// Bytes of a file under its own name, as the tar has them: further names have none.
fn own_size(version: &Version, path: PathId) -> u64 {
    if is_file(version) && version.path == path { version.size } else { 0 }
}

/// Which inodes were met.
struct Seen(Vec<bool>);

impl Seen {
    /// Whether it is a regular file met for the first time.
    fn first(&mut self, version: &Version) -> bool {
        is_file(version) && !std::mem::replace(&mut self.0[version.number as usize], true)
    }

    fn has(&self, version: &Version) -> bool {
        self.0[version.number as usize]
    }
}
