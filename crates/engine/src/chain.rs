//! [`OpenChain`]: layers on top of each other without an image, for an engine that names them by
//! itself.
//!
//! Invariants: its layers cannot be removed as long as it lives; an upper becomes a layer only as a
//! whole; it is read and never changed, unless its files are to be the layer's.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;
use strata_content::FileTree;
use strata_content::threads::beside;
use strata_fuse::{MountOptions, Profile, Session, TreeFacts};
use strata_image::{LayerPacking, PackedDiff, pack_diff};
use strata_kernel::{MarkedTree, attach, detached_erofs};
use strata_layer::{GivenFiles, Giving, LayerInput, LeasedLayer, Progress, Store, Unpacked};
use strata_tree::DiffId;
use strata_tree::dialect::XattrClass;
use strata_union::writable::{UnionOptions, UpperView};

use crate::error::{Error, ErrorContext, Result, bail};
use crate::mounts::kernel::{caller_hindrance, hindrance};
use crate::mounts::table::MountLine;
use crate::trees::{confined_to_layers, open_names, open_tree};
use crate::uppers::{diff_pipe, write_diff};

/// Told of a layer that files of an upper are to be of, before it is published.
pub type BeforeTaking<'a> = dyn FnMut(&DiffId) -> std::io::Result<()> + Send + 'a;

/// Layers, leased, and their merged tree. See the module.
pub struct OpenChain {
    /// The store's directory.
    root: PathBuf,
    layers: Vec<DiffId>,
    files: FileTree,
    facts: TreeFacts,
    leased: Vec<LeasedLayer>,
}

/// A chain that this process serves through FUSE. When this is dropped, the mount is detached.
pub struct ServedChain {
    session: Session,
    _leased: Vec<LeasedLayer>,
}

impl ServedChain {
    /// Serves until the mount is gone, whoever ends it.
    ///
    /// # Errors
    /// `Mount` if it ended by a fault.
    pub fn wait(self) -> Result<()> {
        Ok(self.session.wait()?)
    }
}

impl OpenChain {
    /// Opens layers of a store, base first; none are an empty tree.
    ///
    /// # Errors
    /// `Store` with `NoLayer` for one that the store has not; `Tree` if they do not merge.
    pub fn open(store: &Store, layers: &[DiffId]) -> Result<Self> {
        let mut leased = Vec::with_capacity(layers.len());
        for layer in layers {
            let lease = store.lease(layer)?;
            leased.push(lease.ok_or(strata_layer::Error::NoLayer(*layer))?);
        }
        let tree = open_tree(store, &leased)?;
        let contents = LeasedLayer::files(&leased)?;
        let facts = (&tree).into();
        let files = FileTree::new(Arc::new(tree), Arc::new(contents));
        let root = store.root().to_owned();
        Ok(Self { root, layers: layers.to_vec(), files, facts, leased })
    }

    /// The merged tree.
    pub fn files(&self) -> &FileTree {
        &self.files
    }

    /// Mounts the names of the merged tree on a directory: with the store's `layers/` as its
    /// data-only lower they are one lower of overlayfs. The mount outlives this process.
    ///
    /// # Errors
    /// `KernelCannot` where only a daemon can show the tree; `Store`, `Erofs`.
    pub fn mount_names(&self, store: &Store, directory: &Path) -> Result<()> {
        let names = self.names(store)?;
        let cannot = |error: strata_kernel::Error| Error::KernelCannot(error.to_string());
        let mount = detached_erofs(&names).map_err(cannot)?;
        Ok(attach(&mount, &File::from(open_dir(directory)?))?)
    }

    /// Writes what [`OpenChain::mount_names`] would write first, so that it need not wait for it.
    ///
    /// # Errors
    /// `KernelCannot` where only a daemon can show the tree; `Store`, `Erofs`.
    pub fn write_names(&self, store: &Store) -> Result<()> {
        self.names(store).map(drop)
    }

    /// The image of names.
    fn names(&self, store: &Store) -> Result<File> {
        match hindrance(store) {
            Some(why) => Err(Error::KernelCannot(why)),
            None => open_names(store, &self.layers, &self.files),
        }
    }

    /// Serves the merged tree on a directory, for as long as this process runs: with all contents
    /// it is one lower of overlayfs by itself. For where [`OpenChain::mount_names`] cannot.
    ///
    /// # Errors
    /// `Mount`.
    pub fn serve(self, directory: &Path) -> Result<ServedChain> {
        let options = MountOptions {
            profile: Profile::Passthrough,
            confinement: Some(confined_to_layers(&self.root)),
            suid: true,
            dev: true,
            fsname: "strata:layers".to_owned(),
            facts: self.facts,
            ..MountOptions::for_caller()
        };
        // What an image has of overlayfs' attributes says nothing to the one above it.
        let names = MarkedTree::escaped(Arc::clone(self.files.names()), XattrClass::Trusted);
        let files = self.files.with_names(Arc::new(names));
        let session = strata_fuse::serve(files, directory, &options)?;
        Ok(ServedChain { session, _leased: self.leased })
    }

    /// Takes what an upper above these layers changes into the store, as a layer; `None` if it
    /// changes nothing. The marks in the upper are those of the kernel's overlayfs.
    ///
    /// With `before`, which is told of the layer before it is published, its files become the
    /// layer's, where they are new: the upper is of no use from then on. No mount may show it.
    ///
    /// # Errors
    /// `Union` for a damaged upper; `Store`; `Refused` for what no layer can hold.
    pub fn take_upper(
        &self,
        store: &Store,
        upper: &Path,
        before: Option<&mut BeforeTaking<'_>>,
        progress: &dyn Progress,
    ) -> Result<Option<Unpacked>> {
        let doing = || format!("cannot take {} in", upper.display());
        let view = UpperView::open(self.files.clone(), upper, UnionOptions::default());
        let changes = view.and_then(|view| view.changes()).with_context(doing)?;
        if changes.list().next().is_none() && !changes.changes_root().with_context(doing)? {
            return Ok(None);
        }
        let given = match &before {
            Some(_) => Some(GivenFiles::of(upper, changes.own_files().with_context(doing)?)?),
            None => None,
        };
        let (reader, writer) = diff_pipe()?;
        let input = LayerInput {
            label: upper.display().to_string(),
            diff_id: None,
            blob: None,
            reader: Box::new(reader),
        };
        let unpack = || match (&given, before) {
            (Some(files), Some(before)) => store.take_in(input, Giving { files, before }, progress),
            _ => store.unpack(input, progress),
        };
        let (written, unpacked) =
            beside(|| write_diff(changes, writer), unpack).context("cannot start a thread")?;
        // The writer's error comes first, as in a commit.
        let left_out = written.with_context(doing)?;
        let unpacked = unpacked.with_context(doing)?;
        let Some(left_out) = left_out else {
            bail!("cannot take {} in: it was not read to the end", upper.display())
        };
        for one in left_out {
            progress.warning(&upper.display().to_string(), &one);
        }
        if given.is_some() {
            unpacked.layer.settle().with_context(doing)?;
        }
        Ok(Some(unpacked))
    }

    /// Packs what an upper above these layers changes, as a diff; the upper may be in use.
    ///
    /// # Errors
    /// `Union` for a damaged upper; `Image`.
    pub fn pack_upper(
        &self,
        store: &Store,
        upper: &Path,
        packing: LayerPacking,
    ) -> Result<PackedDiff> {
        let what = format!("cannot pack {}", upper.display());
        let view = UpperView::open(self.files.clone(), upper, UnionOptions::default());
        let changes = view.and_then(|view| view.changes()).with_context(|| what.clone())?;
        let contents = changes.contents();
        let layer = FileTree::new(Arc::new(changes), contents);
        Ok(pack_diff(store, packing, &what, &mut |out| {
            let written = strata_diff::export::write_changes(&layer, out);
            written.map_err(strata_layer::Error::from)?;
            Ok(())
        })?)
    }
}

/// Takes the names at `directory` out of sight; an overlayfs that uses them keeps them.
///
/// # Errors
/// `Io`: nothing is mounted there, or the caller may not.
pub fn unmount_names(directory: &Path) -> Result<()> {
    Ok(rustix::mount::unmount(directory, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?)
}

/// Whether a mount of this process's namespace shows a directory: as the upper of an overlayfs, or
/// by itself. It is known by the last three parts of its path.
///
/// # Errors
/// `Io`.
pub fn is_shown_upper(upper: &Path) -> Result<bool> {
    let path = "/proc/self/mountinfo";
    let table = std::fs::read(path).with_context(|| format!("cannot read {path}"))?;
    // A bind mount names it below the root of its file system, which may be mounted anywhere.
    let parts: Vec<_> = upper.components().collect();
    let last = parts.get(parts.len().saturating_sub(3)..).unwrap_or_default();
    let has_it = |path: Vec<u8>| {
        let path: Vec<_> = Path::new(OsStr::from_bytes(&path)).components().collect();
        path.windows(last.len().max(1)).any(|some| some == last)
    };
    Ok(MountLine::all(&table)
        .any(|line| line.root().is_some_and(has_it) || line.upper().is_some_and(has_it)))
}

/// Why this process cannot mount layers so that overlayfs can use them; `None` if it may.
pub fn mount_hindrance() -> Option<String> {
    caller_hindrance()
}

fn open_dir(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .with_context(|| format!("cannot open {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use strata_testkit::needs;
    use strata_testkit::tars::{Head, Tar};

    use super::*;
    use crate::Quiet;

    const MARK: &str = "SCHILY.xattr.trusted.overlay.";

    #[test]
    fn attributes_of_an_image_mean_nothing_to_the_overlayfs_above() {
        if !needs::root_and_fuse() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(&place.path().join("store")).unwrap();
        let mark = |tar: Tar, marks: &[(&str, &[u8])]| {
            let names: Vec<String> =
                marks.iter().map(|(name, _)| format!("{MARK}{name}")).collect();
            let records = names.iter().zip(marks).map(|(name, (_, value))| (name.as_str(), *value));
            tar.pax(&records.collect::<Vec<_>>())
        };
        let dir = |tar: Tar, name| {
            mark(tar, &[("opaque", b"x")]).add(Head::new(b'5', name).put(100, b"0000755\0"), b"")
        };
        let tar = dir(dir(Tar::default(), b"./"), b"d/");
        let tar = mark(tar, &[("whiteout", b"y")]).file(b"d/empty", b"");
        let tar = mark(tar, &[("metacopy", &[0, 4, 0, 0]), ("redirect", b"/nowhere")]);
        let tar = tar.file(b"file", b"text").end();
        let input = LayerInput {
            label: "the layer".to_owned(),
            diff_id: None,
            blob: None,
            reader: Box::new(Cursor::new(tar)),
        };
        let layer = store.unpack(input, &Quiet).unwrap().layer;
        let [lower, other, shown] = ["lower", "other", "shown"].map(|name| place.path().join(name));
        for dir in [&lower, &other, &shown] {
            std::fs::create_dir(dir).unwrap();
        }
        let chain = OpenChain::open(&store, &[*layer.diff_id()]).unwrap();
        let served = chain.serve(&lower).unwrap();
        let lowers = format!("lowerdir={}:{}", lower.display(), other.display());
        let options = format!("{lowers},metacopy=on,redirect_dir=on");
        let options = std::ffi::CString::new(options).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("overlay", &shown, "overlay", flags, Some(&*options)).unwrap();
        let read = std::fs::read_to_string(shown.join("file"));
        let there = shown.join("d/empty").exists();
        rustix::mount::unmount(&shown, UnmountFlags::DETACH).unwrap();
        drop(served);
        assert_eq!((read.unwrap().as_str(), there), ("text", true));
    }
}
