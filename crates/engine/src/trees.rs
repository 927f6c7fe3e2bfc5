//! The merged tree of an image's layers, compiled once for each chain of layers.
//!
//! Invariants: a compiled tree is kept in the store's `trees/`, or where that cannot be written in
//! the cache directory, or where there is none in memory; one that is unusable is compiled again.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use strata_confine::Confinement;
use strata_content::FileTree;
use strata_image::{BoxError, CheckedStore};
use strata_kernel::{NamesForm, VerityOf};
use strata_layer::{LeasedLayer, NamesKind, Store, Verity, chain_id};
use strata_tree::{ChainId, ContentRef, DiffId, FlatTree, Lower};
use strata_union::Stack;

use crate::error::{Error, ErrorContext, Result};

/// Contents of up to this many bytes stand in an image of names.
const INSIDE: u64 = 1024;

/// The merged tree of leased layers, base first.
///
/// # Errors
/// `Tree` for layers that do not merge; `Store`, `Io`.
pub fn open_tree(store: &Store, leased: &[LeasedLayer]) -> Result<FlatTree> {
    let layers: Vec<DiffId> = leased.iter().map(|layer| *layer.diff_id()).collect();
    let Some(chain) = chain_id(&layers) else {
        return tree_in_memory(&Stack::new(Vec::new()), leased);
    };
    let path = store.tree_path(&chain);
    if let Ok(tree) = open_compiled(&path, leased) {
        return Ok(tree);
    }
    let kept = store.tree_path_elsewhere(&chain);
    if let Some(Ok(tree)) = kept.as_ref().map(|path| open_compiled(path, leased)) {
        return Ok(tree);
    }
    let stack = stack(store, leased)?;
    if store.read_only().is_none() {
        match store.put_tree(&chain, |file| strata_tree::compile(&stack, file)) {
            Ok(()) => match open_compiled(&path, leased) {
                // A collection, or who makes room on a full disk, was quicker than this.
                Err(Error::Io(error)) if error.kind() == ErrorKind::NotFound => {}
                opened => return opened,
            },
            Err(error) if error.is_full() => {}
            Err(error) => return Err(error.into()),
        }
    }
    tree_elsewhere(&stack, kept.as_deref(), leased)
}

/// Compiles a tree that the store cannot keep: into the cache, or where there is none into memory.
fn tree_elsewhere(stack: &Stack, kept: Option<&Path>, leased: &[LeasedLayer]) -> Result<FlatTree> {
    if let Some(kept) = kept
        && keep_tree(stack, kept).is_ok()
        && let Ok(tree) = open_compiled(kept, leased)
    {
        return Ok(tree);
    }
    tree_in_memory(stack, leased)
}

/// Compiles a tree that is kept nowhere.
fn tree_in_memory(stack: &Stack, leased: &[LeasedLayer]) -> Result<FlatTree> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let made = rustix::fs::memfd_create("tree", flags);
    let file = File::from(made.context("cannot make a tree in memory")?);
    strata_tree::compile(stack, &file)?;
    open_file(file, "compiled in memory".to_owned(), leased)
}

/// Compiles a tree into a file of the cache, which has its name when it is whole.
fn keep_tree(stack: &Stack, kept: &Path) -> Result<()> {
    let Some(dir) = kept.parent() else {
        return Err(Error::Refused(format!("{} has no directory", kept.display())));
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let made = kept.with_extension(std::process::id().to_string());
    let file = File::options().read(true).write(true).create_new(true).open(&made)?;
    let done = strata_tree::compile(stack, &file).map_err(Error::from).and_then(|()| {
        file.sync_data()?;
        Ok(std::fs::rename(&made, kept)?)
    });
    if done.is_err() {
        std::fs::remove_file(&made)?;
    }
    done
}

fn open_compiled(path: &Path, leased: &[LeasedLayer]) -> Result<FlatTree> {
    let file = match File::open(path) {
        // Who asks compiles it then.
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(error.into()),
        opened => opened.with_context(|| format!("cannot open {}", path.display()))?,
    };
    open_file(file, path.display().to_string(), leased)
}

fn open_file(file: File, label: String, leased: &[LeasedLayer]) -> Result<FlatTree> {
    let tree = FlatTree::open(file, label)?;
    tree.check_layers(leased.len())?;
    Ok(tree)
}

/// The image of names of an image, for the kernel; compiled if there is none yet.
///
/// # Errors
/// `KernelCannot` for what overlayfs or EROFS cannot show; `Store`, `Erofs`.
pub(crate) fn open_names(store: &Store, layers: &[DiffId], tree: &FileTree) -> Result<File> {
    let Some(chain) = chain_id(layers) else {
        return Err(Error::KernelCannot("the image has no layers".to_owned()));
    };
    if let Some(file) = store.names_images().open(&chain, NamesKind::Any)? {
        return Ok(file);
    }
    put_names(store, (layers, &chain), tree, None)
}

/// The same with the fs-verity digest of each content: all files of the image are sealed with
/// fs-verity then, the image of names too.
///
/// # Errors
/// As [`open_names`]; `Store` with `NoFsVerity`.
pub(crate) fn open_sealed_names(
    store: &Store,
    layers: &[DiffId],
    tree: &FileTree,
    leased: &[LeasedLayer],
) -> Result<File> {
    let Some(chain) = chain_id(layers) else { return open_names(store, layers, tree) };
    let digests = Verity::of(store).require(leased)?;
    let verity = |content: &ContentRef| digests.get(content.digest.as_ref()?).copied();
    let names = match store.names_images().open(&chain, NamesKind::Sealed)? {
        Some(file) => file,
        None => put_names(store, (layers, &chain), tree, Some(&verity))?,
    };
    let sealed = strata_tree::seal_with_verity(&names);
    sealed.with_context(|| "cannot seal the image of names with fs-verity".to_owned())?;
    Ok(names)
}

fn put_names(
    store: &Store,
    (layers, chain): (&[DiffId], &ChainId),
    tree: &FileTree,
    verity: Option<&VerityOf<'_>>,
) -> Result<File> {
    let kind = verity.map_or(NamesKind::Any, |_| NamesKind::Sealed);
    let place = content_place(layers);
    let form = NamesForm { place: &place, inside: INSIDE, verity, identity: *chain.as_bytes() };
    let images = store.names_images();
    let doing = || format!("cannot write {}", images.path(chain).display());
    let put = images.put(chain, kind, |file| {
        let written = strata_kernel::write_names(tree, &form, file).with_context(doing)?;
        match written.dropped.first() {
            Some(one) => {
                Err(Error::KernelCannot(format!("it cannot show {}: {}", one.path, one.what)))
            }
            None => Ok(()),
        }
    });
    // A daemon reads the tree, which may be in memory.
    put.map_err(|error| match error.is_full() {
        true => Error::KernelCannot(format!("there is no room for its image of names: {error}")),
        false => error,
    })
}

/// What the threads of a mount keep that shows layers of the store at `root`, and is only read.
pub(crate) fn confined_to_layers(root: &Path) -> Confinement {
    Confinement::reader(vec![root.join("layers")])
}

/// Where the contents of an image are below the store's `layers/`, as absolute paths.
pub(crate) fn content_place(
    layers: &[DiffId],
) -> impl Fn(&ContentRef) -> Vec<u8> + Send + Sync + use<> {
    let layers: Vec<String> = layers.iter().map(|layer| layer.hex()).collect();
    move |content| {
        let layer = layers.get(content.layer as usize).map_or("", String::as_str);
        [b"/", layer.as_bytes(), b"/diff/", content.path.as_bytes()].concat()
    }
}

fn stack(store: &Store, leased: &[LeasedLayer]) -> Result<Stack> {
    let mut lowers: Vec<Arc<dyn Lower>> = Vec::new();
    for layer in leased {
        lowers.push(Arc::new(store.lower(layer)?));
    }
    Ok(Stack::new(lowers))
}

/// The store for images that come in: those whose layers do not merge are refused.
pub(crate) fn checked(store: &Store) -> CheckedStore<'_> {
    CheckedStore::new(store, &merges)
}

/// Refuses a stack of layers that does not merge: a hard link into a lower layer that has no
/// such file. Only layers with such links need the merge.
fn merges(store: &Store, leased: &[LeasedLayer]) -> std::result::Result<(), BoxError> {
    for layer in leased {
        if store.reader().needs_lower(layer.diff_id())? {
            open_tree(store, leased)?;
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::{Engine, Quiet};

    #[test]
    fn a_tree_that_a_collection_takes_at_once_is_open_all_the_same() {
        let place = tempfile::tempdir().unwrap();
        let engine = Engine::new(place.path().join("store"));
        engine.load(strata_testkit::fixture("cases.oci"), &Quiet).unwrap();
        let trees = place.path().join("store/trees");
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                for _ in 0..100 {
                    engine.image("cases.oci:1").unwrap();
                }
            });
            while !reader.is_finished() {
                for tree in std::fs::read_dir(&trees).unwrap() {
                    let _ = std::fs::remove_file(tree.unwrap().path());
                }
            }
        });
    }
}
