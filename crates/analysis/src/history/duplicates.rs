//! Contents under many names: in one image ([`Chain::duplicates`]), in the store
//! ([`duplicates`]), and where else one is ([`occurrences`]).
//!
//! A content costs what its files cost: names that are hard links of one file in one layer would
//! be one file also without a store, so `files` counts those once. What sharing saves is the
//! content's size for each file but the first.
//!
//! Invariants: lists are sorted by what is saved, the most first; two stores with the same layers
//! give the same lists; sums are over all contents, not only over those that are listed.

use std::collections::HashMap;

use strata_layer::{RepeatedContent, RepeatedContents, Result, Store};
use strata_tree::{ContentDigest, DiffId, ImageId, TreePath};

use super::chain::{Chain, Shown};

/// A content with more than one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Duplicate {
    /// The content.
    pub content: ContentDigest,
    /// Its bytes.
    pub size: u64,
    /// How many names show it.
    pub names: u64,
    /// How many files there would be without sharing: names less the hard links of one layer.
    pub files: u64,
    /// Some of the names, sorted: of an image its paths, of the store paths in layers.
    pub paths: Vec<TreePath>,
}

impl Duplicate {
    /// Bytes of one copy for each file.
    pub const fn apart(&self) -> u64 {
        self.size * self.files
    }

    /// Bytes that sharing saves.
    pub const fn saved(&self) -> u64 {
        self.size * self.files.saturating_sub(1)
    }
}

/// Contents with more than one file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Duplicates {
    /// The first of them, by what is saved.
    pub contents: Vec<Duplicate>,
    /// How many there are.
    pub count: u64,
    /// What sharing all of them saves, in bytes.
    pub saved: u64,
}

/// Where a content occurs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Occurrences {
    /// How many names it has in the store's layers.
    pub names: u64,
    /// Every layer with such a name.
    pub layers: Vec<DiffId>,
    /// Every image with such a layer.
    pub images: Vec<ImageId>,
    /// The first names: layer and path.
    pub paths: Vec<(DiffId, TreePath)>,
}

/// How many paths of a content are listed.
const PATHS: usize = 4;

impl Chain<'_> {
    /// Contents that the merged image shows as more than one file, the first `limit`.
    ///
    /// # Errors
    /// As [`Chain::layer`].
    pub fn duplicates(&self, limit: usize) -> Result<Duplicates> {
        let merged = self.replay(&mut |_| {})?;
        let mut leaves = HashMap::new();
        let mut failed = None;
        let mut contents: HashMap<ContentDigest, Duplicate> = HashMap::new();
        let mut seen = std::collections::HashSet::new();
        merged.walk(&TreePath::root(), &mut |path, shown| {
            let Shown::Leaf(leaf) = shown else { return };
            let content = *leaves.entry(leaf).or_insert_with(|| {
                self.content(leaf).unwrap_or_else(|error| {
                    failed = Some(error);
                    None
                })
            });
            let Some((content, size)) = content else { return };
            let one = contents.entry(content).or_insert_with(|| Duplicate {
                content,
                size,
                names: 0,
                files: 0,
                paths: Vec::new(),
            });
            one.names += 1;
            one.files += u64::from(seen.insert(leaf));
            if one.paths.len() < PATHS {
                one.paths.extend(TreePath::clamped(path));
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        let mut all: Vec<_> = contents.into_values().filter(|one| one.files > 1).collect();
        let (count, saved) = (all.len() as u64, all.iter().map(Duplicate::saved).sum());
        sort(&mut all);
        all.truncate(limit);
        Ok(Duplicates { contents: all, count, saved })
    }
}

/// By what is saved, then by names.
fn sort(all: &mut [Duplicate]) {
    all.sort_by(|a, b| {
        (b.saved(), b.names).cmp(&(a.saved(), a.names)).then_with(|| a.content.cmp(&b.content))
    });
}

/// The contents of the store that have more than one file, the first `limit`.
///
/// ```no_run
/// # fn main() -> strata_layer::Result<()> {
/// # let store = strata_layer::Store::open("/var/lib/stratafs".as_ref())?;
/// let found = strata_analysis::history::duplicates(&store, 10)?;
/// for one in &found.contents {
///     println!("{} files, {} bytes saved: {}", one.files, one.saved(), one.paths[0]);
/// }
/// println!("{} contents, {} bytes saved", found.count, found.saved);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// `Damaged`, `Sqlite`.
pub fn duplicates(store: &Store, limit: usize) -> Result<Duplicates> {
    let RepeatedContents { contents, count, saved } = store.reader().repeated(limit, PATHS)?;
    let mut contents: Vec<Duplicate> = contents
        .into_iter()
        .map(|RepeatedContent { content, size, names, files, paths }| Duplicate {
            content,
            size,
            names,
            files,
            paths,
        })
        .collect();
    sort(&mut contents);
    Ok(Duplicates { contents, count, saved })
}

/// Where a content occurs, with the first `limit` of its names.
///
/// ```no_run
/// # fn main() -> strata_layer::Result<()> {
/// # let store = strata_layer::Store::open("/var/lib/stratafs".as_ref())?;
/// # let content = strata_tree::ContentDigest::from_bytes([0; 32]);
/// let found = strata_analysis::history::occurrences(&store, &content, 5)?;
/// println!("{} images, {} names", found.images.len(), found.names);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// `Damaged`, `Sqlite`.
pub fn occurrences(store: &Store, content: &ContentDigest, limit: usize) -> Result<Occurrences> {
    let reader = store.reader();
    let (layers, images) = reader.containing(content)?;
    let (names, paths) = reader.names(content, limit)?;
    Ok(Occurrences { names, layers, images, paths })
}
