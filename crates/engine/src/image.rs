//! [`OpenImage`]: an image that can be looked into.
//!
//! Invariants: its layers cannot be removed as long as it lives; nothing of it is run, and no link
//! of it is followed outside of it.

use std::fs::File;
use std::io::Write;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use strata_content::FileTree;
use strata_diff::export::Exported;
use strata_image::resolve_image;
use strata_kernel::WrittenImage;
use strata_layer::checkout::{self, Dest, Options, Report};
use strata_layer::{ImageRecord, LeasedImage, LeasedLayer, Store};
use strata_tree::{Entry, FlatTree, Follow, Kind, Lower, Node, TreePath, list, resolve};

use crate::error::{ErrorContext, Result, bail};
use crate::trees::open_tree;

/// Writes a tree as one tar, as `docker export` does. What a tar cannot hold is in the report.
///
/// # Errors
/// `Tree`; `Store` with `Io` if `out` refuses.
pub fn write_tar(tree: &FileTree, out: &mut dyn Write) -> Result<Exported> {
    Ok(strata_diff::export::write_tree(tree, out)?)
}

/// An image, leased and readable. See the module.
pub struct OpenImage {
    /// What the store says of it: its id and its layers, base first.
    pub record: ImageRecord,
    /// The merged tree: names and metadata.
    pub tree: Arc<FlatTree>,
    /// The same tree with the bytes of its files.
    pub files: FileTree,
    /// Whether contents are compared with their digests.
    pub(crate) verifies: bool,
    _leased: LeasedImage,
    layers: Vec<LeasedLayer>,
}

impl OpenImage {
    /// Opens an image of a store by name, id, or the beginning of its id.
    ///
    /// # Errors
    /// `Image` with `NoImage` or `Ambiguous`; `Store`; `Doing` if its layers do not merge.
    pub fn open(store: &Store, text: &str) -> Result<Self> {
        let record = resolve_image(store, text)?;
        let (config, leased) = store.lease_image(&record.id)?;
        let tree = open_tree(store, &leased)
            .with_context(|| format!("cannot open the tree of image {text}"))?;
        let (tree, contents) = (Arc::new(tree), LeasedLayer::files(&leased)?);
        let files = FileTree::new(Arc::clone(&tree) as _, Arc::new(contents));
        Ok(Self { record, tree, files, verifies: false, _leased: config, layers: leased })
    }

    /// The same image, each content compared with its digest when it is first opened: one that
    /// differs cannot be opened (`EIO` through a mount). `store` is the one that it was opened in.
    ///
    /// # Errors
    /// `Store` for layers whose rows cannot be read.
    pub fn verified(self, store: &Store) -> Result<Self> {
        let contents = store.verified_files(&self.layers)?;
        let files = FileTree::new(Arc::clone(self.files.names()), Arc::new(contents));
        Ok(Self { files, verifies: true, ..self })
    }

    /// Its layers, base first.
    pub(crate) fn layers(&self) -> &[LeasedLayer] {
        &self.layers
    }

    /// The node at a path of the image, links followed inside of it; `None` if nothing is there.
    ///
    /// # Errors
    /// `Tree` with `NotDirectory` or `TooManyLinks` on the way.
    pub fn find(&self, path: impl AsRef<[u8]>) -> Result<Option<Node>> {
        Ok(resolve(&*self.files, path.as_ref(), Follow::All)?)
    }

    /// The bytes of a regular file.
    ///
    /// # Errors
    /// `Refused` if nothing is at the path; `Tree` with `NotRegular` for what has no content.
    pub fn read(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        let shown = path.as_ref().escape_ascii();
        let Some(node) = self.find(path.as_ref())? else {
            bail!("{shown}: no such file or directory in the image");
        };
        Ok(self.files.read(node.id)?)
    }

    /// Calls `each` for every name of the image, directories before what is in them and names
    /// sorted, until it breaks. The root is the first; a hard-linked file comes under each name.
    ///
    /// # Errors
    /// `Tree` if the compiled tree is damaged.
    pub fn walk(&self, each: &mut dyn FnMut(&TreePath, &Node) -> ControlFlow<()>) -> Result<()> {
        let root = self.tree.node(self.tree.root())?;
        let mut open = vec![(TreePath::root(), root)];
        while let Some((path, node)) = open.pop() {
            if each(&path, &node).is_break() {
                break;
            }
            if node.stat.kind != Kind::Directory {
                continue;
            }
            let mut names = list(&*self.tree, node.id)?;
            names.sort_by(|(a, _), (b, _)| b.cmp(a));
            for (name, entry) in names {
                if let Entry::Node(child) = entry {
                    open.push((path.join(name.as_name()), child));
                }
            }
        }
        Ok(())
    }

    /// Copies what is at `path`, with all below it, to the new name `dest`: contents (by reflink
    /// where the file system can), links, devices, owners, modes, attributes, times, as far as
    /// the caller may make them. The report says what could not be.
    ///
    /// # Errors
    /// `Refused` if nothing is there; `Doing`: `dest` exists, or the disk is full.
    pub fn copy_out(&self, path: impl AsRef<[u8]>, dest: &Path) -> Result<Report> {
        let shown = path.as_ref().escape_ascii();
        let Some(node) = self.find(path.as_ref())? else {
            bail!("{shown}: no such file or directory in the image");
        };
        let label = dest.display().to_string();
        let (Some(parent), Some(name)) = (dest.parent(), dest.file_name()) else {
            bail!("{label} does not name a file or a directory to make");
        };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let parent = File::open(parent)
            .with_context(|| format!("cannot open the directory {}", parent.display()))?;
        let name = strata_tree::Name::new(name.as_encoded_bytes())
            .map_err(|why| crate::Error::Refused(format!("{label}: {why}")))?;
        let options = Options { label: label.clone(), merge: false, watch: None };
        let dest = Dest::As(parent.as_fd(), name);
        checkout::checkout(&self.files, node.id, dest, options)
            .with_context(|| format!("cannot copy {shown} to {label}"))
    }

    /// Makes the whole image as files in `directory`, which is made, or is there and empty.
    ///
    /// # Errors
    /// `Doing`: it is not empty, or the disk is full; what was made until then stays.
    pub fn check_out(&self, directory: &Path) -> Result<Report> {
        let label = directory.display().to_string();
        let dir: OwnedFd = checkout::open_empty(directory)?;
        let options = Options { label: label.clone(), merge: false, watch: None };
        let done =
            checkout::checkout(&self.files, self.tree.root(), Dest::Into(dir.as_fd()), options);
        done.with_context(|| format!("cannot unpack into {label}"))
    }

    /// Writes the whole image as one tar, as `docker export` does. What a tar cannot hold is in
    /// the report.
    ///
    /// # Errors
    /// `Tree`; `Store` with `Io` if `out` refuses.
    pub fn write_tar(&self, out: &mut dyn Write) -> Result<Exported> {
        write_tar(&self.files, out)
    }

    /// Writes the whole image as one EROFS image into a regular file, replacing what it holds.
    ///
    /// # Errors
    /// `Erofs`.
    pub fn write_erofs(&self, out: &File) -> Result<WrittenImage> {
        Ok(strata_kernel::write_erofs(&self.files, out)?)
    }
}
