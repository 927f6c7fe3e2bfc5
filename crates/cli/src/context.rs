//! What every command needs: the store's root, the output format, and an image opened as a tree.
//!
//! Invariants: an opened image is held (its layers cannot be removed) as long as the value lives;
//! its tree is compiled once a chain and kept in `trees/`, or where that cannot be written in a
//! cache directory, and compiled anew if the kept one is unusable. Only what adds to a store makes
//! one.

use std::any::Any;
use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use rustix::fs::{Mode, OFlags};
use strata_content::FileTree;
use strata_image::resolve_image;
use strata_layer::{HeldLayer, ImageRecord, Limits, Store, StoreOptions, chain_id};
use strata_tree::{DiffId, FlatTree, Lower};
use strata_union::Stack;

use crate::progress::ShowProgress;

/// How listings are printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Format {
    /// Columns for people.
    Table,
    /// One JSON document.
    Json,
    /// By a Go template, as docker's `--format`.
    Template(String),
}

/// What `--format` says; what that is depends on the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    Table,
    /// docker's JSON where docker has the command, else as [`Asked::JsonFull`].
    Json,
    /// One JSON document with all that is known.
    JsonFull,
    Template(String),
}

impl FromStr for Asked {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            "json-full" => Ok(Self::JsonFull),
            _ if text.contains("{{") => Ok(Self::Template(text.to_owned())),
            _ => Err("it is table, json, json-full, or a template such as '{{.ID}}'".to_owned()),
        }
    }
}

/// The options that all commands share.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) root: PathBuf,
    pub(crate) format: Format,
    pub(crate) quiet: bool,
    /// How progress is shown; nothing where it is quiet.
    pub(crate) shown: ShowProgress,
    pub(crate) log_level: Option<String>,
}

/// An image, held and readable.
pub(crate) struct OpenImage {
    pub(crate) record: ImageRecord,
    pub(crate) tree: Arc<FlatTree>,
    /// The same tree with the bytes of its files.
    pub(crate) files: FileTree,
    /// Keeps the layers from being removed.
    pub(crate) guard: Box<dyn Any + Send>,
}

impl Context {
    /// Where the store is: as given, else as the environment has it, else where the system keeps
    /// such things.
    pub(crate) fn root_or_default(given: Option<PathBuf>) -> Result<PathBuf> {
        let said = || std::env::var_os("STRATA_ROOT").filter(|root| !root.is_empty());
        if let Some(root) = given.or_else(|| said().map(PathBuf::from)) {
            return std::path::absolute(&root)
                .with_context(|| format!("{} is no usable path", root.display()));
        }
        if rustix::process::geteuid().is_root() {
            return Ok(PathBuf::from("/var/lib/stratafs"));
        }
        let absolute = |name: &str| {
            std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
        };
        if let Some(data) = absolute("XDG_DATA_HOME") {
            return Ok(data.join("stratafs"));
        }
        match absolute("HOME") {
            Some(home) => Ok(home.join(".local/share/stratafs")),
            None => bail!("neither XDG_DATA_HOME nor HOME is set; say --root DIR"),
        }
    }

    /// Opens the store that is there, read-only if it cannot be written.
    ///
    /// # Errors
    /// There is none; it cannot be read, and whose it is.
    pub(crate) fn store(&self) -> Result<Store> {
        let opened = Store::open_existing(&self.root, self.options(Limits::default()));
        self.opened(opened)
    }

    /// The same, to change or remove something: on a full disk what is derived goes first, for a
    /// removal is written down before anything is free.
    ///
    /// # Errors
    /// As [`Context::store`]; it cannot be written, and why.
    pub(crate) fn store_to_change(&self) -> Result<Store> {
        let mut store = self.store()?;
        if store.read_only().is_some() && Store::shed(&self.root).is_ok_and(|freed| freed > 0) {
            drop(store);
            store = self.store()?;
        }
        match store.read_only() {
            None => Ok(store),
            Some(_) if self.is_on_read_only() => bail!(
                "cannot change the store at {}: its file system is read-only here",
                self.root.display()
            ),
            Some(why) => bail!("cannot change the store at {}: {why}", self.root.display()),
        }
    }

    fn is_on_read_only(&self) -> bool {
        let access = rustix::fs::access(&self.root, rustix::fs::Access::WRITE_OK);
        access == Err(rustix::io::Errno::ROFS)
    }

    /// Removes something; once more where the disk was full and room could be made.
    ///
    /// # Errors
    /// Those of `remove`.
    pub(crate) fn freeing<T>(&self, mut remove: impl FnMut() -> Result<T>) -> Result<T> {
        let full = |error: &anyhow::Error| {
            let mut causes = error.chain().filter_map(|cause| cause.downcast_ref());
            causes.any(strata_layer::Error::is_full)
        };
        match remove() {
            Err(error) if full(&error) => match Store::shed(&self.root) {
                Ok(1..) => remove(),
                Ok(0) | Err(_) => Err(error),
            },
            done => done,
        }
    }

    /// Opens the store, making it if there is none.
    ///
    /// # Errors
    /// As [`Context::store`].
    pub(crate) fn made_store(&self) -> Result<Store> {
        self.store_within(Limits::default())
    }

    /// The same, for reading layers within `limits`.
    ///
    /// # Errors
    /// As [`Context::store`].
    pub(crate) fn store_within(&self, limits: Limits) -> Result<Store> {
        let store = self.opened(Store::open_with(&self.root, self.options(limits)))?;
        store.set_aside();
        Ok(store)
    }

    /// How every store is opened.
    pub(crate) fn options(&self, limits: Limits) -> StoreOptions {
        StoreOptions { limits, on_step: None, elsewhere: Some(elsewhere()) }
    }

    fn opened(&self, opened: strata_layer::Result<Store>) -> Result<Store> {
        let error = match opened {
            Err(error @ strata_layer::Error::NoStore(_)) => return Err(error.into()),
            Err(error) => error,
            opened => return Ok(opened?),
        };
        let shown = self.root.display();
        let refused = matches!(
            &error,
            strata_layer::Error::Io { source, .. }
                if source.kind() == std::io::ErrorKind::PermissionDenied
        );
        let owner = std::fs::metadata(&self.root).map(|meta| meta.uid());
        let me = rustix::process::geteuid().as_raw();
        let context = match owner {
            Ok(owner) if refused && owner != me => format!(
                "cannot open the store at {shown}: it belongs to another user (uid {owner})"
            ),
            _ if self.is_on_read_only() => {
                format!("cannot write to the store at {shown}: its file system is read-only here")
            }
            _ => format!("cannot open the store at {shown}"),
        };
        Err(anyhow::Error::new(error).context(context))
    }

    /// A file without a name for an archive that cannot be read where it is: in the store, where
    /// there is one that can be written, else in the directory for temporary files.
    ///
    /// # Errors
    /// There is no room for it, or no such directory.
    pub(crate) fn scratch(&self) -> strata_image::Result<File> {
        if let Some(store) = self.store().ok().filter(|store| store.read_only().is_none()) {
            return Ok(store.scratch_file()?);
        }
        let dir = std::env::temp_dir();
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&dir, flags, Mode::from_raw_mode(0o600));
        let what = || format!("cannot make a file in {}", dir.display());
        Ok(opened.map(File::from).map_err(|error| strata_layer::Error::io(what(), error))?)
    }

    /// Opens an image by name or id.
    pub(crate) fn open_image(&self, text: &str) -> Result<OpenImage> {
        let store = self.store()?;
        let record = resolve_image(&store, text)?;
        let (config, held) = store.hold_image(&record.id)?;
        let tree = open_tree(&store, &held)
            .with_context(|| format!("cannot open the tree of image {text}"))?;
        let (tree, contents) = (Arc::new(tree), HeldLayer::files(&held)?);
        let files = FileTree::new(Arc::clone(&tree) as _, Arc::new(contents));
        Ok(OpenImage { record, tree, files, guard: Box::new((config, held)) })
    }
}

/// Where to put what a store has no room for: a cache directory, or else a temporary one.
pub(crate) fn elsewhere() -> PathBuf {
    let named = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let absolute = |name: &str| named(name).filter(|path| path.is_absolute());
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/cache/stratafs");
    }
    let home = || absolute("HOME").map(|home| home.join(".cache"));
    match absolute("XDG_CACHE_HOME").or_else(home) {
        Some(cache) => cache.join("stratafs"),
        None => {
            let user = rustix::process::geteuid().as_raw();
            std::env::temp_dir().join(format!("stratafs-{user}"))
        }
    }
}

/// The merged tree of held layers, base first.
pub(crate) fn open_tree(store: &Store, held: &[HeldLayer]) -> Result<FlatTree> {
    let layers: Vec<DiffId> = held.iter().map(|layer| *layer.diff_id()).collect();
    let Some(chain) = chain_id(&layers) else {
        return tree_in_memory(&Stack::new(Vec::new()), held);
    };
    let path = store.tree_path(&chain);
    if let Ok(tree) = open_compiled(&path, held) {
        return Ok(tree);
    }
    let kept = store.tree_path_elsewhere(&chain);
    if let Some(Ok(tree)) = kept.as_ref().map(|path| open_compiled(path, held)) {
        return Ok(tree);
    }
    let stack = stack(store, held)?;
    if store.read_only().is_none() {
        match store.put_tree(&chain, |file| strata_tree::compile(&stack, file)) {
            Ok(()) => return open_compiled(&path, held),
            Err(error) if error.is_full() => {}
            Err(error) => return Err(error.into()),
        }
    }
    tree_elsewhere(&stack, kept.as_deref(), held)
}

/// Compiles a tree that the store cannot keep: into the cache, or where there is none into memory.
fn tree_elsewhere(stack: &Stack, kept: Option<&Path>, held: &[HeldLayer]) -> Result<FlatTree> {
    if let Some(kept) = kept
        && keep_tree(stack, kept).is_ok()
        && let Ok(tree) = open_compiled(kept, held)
    {
        return Ok(tree);
    }
    tree_in_memory(stack, held)
}

/// Compiles a tree that is kept nowhere.
fn tree_in_memory(stack: &Stack, held: &[HeldLayer]) -> Result<FlatTree> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let file = File::from(rustix::fs::memfd_create("tree", flags)?);
    strata_tree::compile(stack, &file)?;
    open_file(file, "compiled in memory".to_owned(), held)
}

/// Compiles a tree into a file of the cache, which has its name when it is whole.
fn keep_tree(stack: &Stack, kept: &Path) -> Result<()> {
    let dir = kept.parent().context("a tree without a directory")?;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let made = kept.with_extension(std::process::id().to_string());
    let file = File::options().read(true).write(true).create_new(true).open(&made)?;
    let done = strata_tree::compile(stack, &file).map_err(anyhow::Error::from).and_then(|()| {
        file.sync_data()?;
        Ok(std::fs::rename(&made, kept)?)
    });
    if done.is_err() {
        std::fs::remove_file(&made)?;
    }
    done
}

fn open_compiled(path: &Path, held: &[HeldLayer]) -> Result<FlatTree> {
    open_file(File::open(path)?, path.display().to_string(), held)
}

fn open_file(file: File, label: String, held: &[HeldLayer]) -> Result<FlatTree> {
    let tree = FlatTree::open(file, label)?;
    tree.check_layers(held.len())?;
    Ok(tree)
}

fn stack(store: &Store, held: &[HeldLayer]) -> Result<Stack> {
    let mut lowers: Vec<Arc<dyn Lower>> = Vec::new();
    for layer in held {
        lowers.push(Arc::new(store.lower(layer)?));
    }
    Ok(Stack::new(lowers))
}

/// Refuses a stack of layers that does not merge: a hard link into a lower layer that has no
/// such file. Only layers with such links need the merge.
pub(crate) fn check_chain(
    store: &Store,
    held: &[HeldLayer],
) -> std::result::Result<(), strata_image::BoxError> {
    for layer in held {
        if store.needs_lower(layer)? {
            open_tree(store, held)?;
            break;
        }
    }
    Ok(())
}
