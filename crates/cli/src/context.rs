//! What every command needs: the store's root, the output format, and an image opened as a tree.
//!
//! Invariants: an opened image is held (its layers cannot be removed) as long as the value lives;
//! its tree is compiled once a chain and kept in `trees/`, and compiled anew if the kept one is
//! unusable.

use std::any::Any;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use strata_image::resolve_image;
use strata_layer::{HeldLayer, ImageRecord, Limits, Store, StoreOptions, chain_id};
use strata_tree::{DiffId, FlatTree, Lower};
use strata_union::Stack;

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

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            _ if text.contains("{{") => Ok(Self::Template(text.to_owned())),
            _ => Err("it is table, json, or a template such as '{{.ID}}'".to_owned()),
        }
    }
}

/// The options that all commands share.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) root: PathBuf,
    pub(crate) format: Format,
    pub(crate) quiet: bool,
    pub(crate) log_level: Option<String>,
}

/// An image, held and readable.
pub(crate) struct OpenImage {
    pub(crate) record: ImageRecord,
    pub(crate) tree: Arc<FlatTree>,
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

    /// Opens the store, making it if there is none.
    pub(crate) fn store(&self) -> Result<Store> {
        self.store_within(Limits::default())
    }

    /// The same, for reading layers within `limits`.
    pub(crate) fn store_within(&self, limits: Limits) -> Result<Store> {
        Store::open_with(&self.root, StoreOptions { limits, on_step: None })
            .with_context(|| format!("cannot open the store at {}", self.root.display()))
    }

    /// Opens an image by name or id.
    pub(crate) fn open_image(&self, text: &str) -> Result<OpenImage> {
        let store = self.store()?;
        let record = resolve_image(&store, text)?;
        let (config, held) = store.hold_image(&record.id)?;
        let tree = open_tree(&store, &held)
            .with_context(|| format!("cannot open the tree of image {text}"))?;
        Ok(OpenImage { record, tree: Arc::new(tree), guard: Box::new((config, held)) })
    }
}

/// The merged tree of held layers, base first.
pub(crate) fn open_tree(store: &Store, held: &[HeldLayer]) -> Result<FlatTree> {
    let layers: Vec<DiffId> = held.iter().map(|layer| *layer.diff_id()).collect();
    let Some(chain) = chain_id(&layers) else {
        let scratch = store.scratch_file()?;
        strata_tree::compile(&Stack::new(Vec::new()), &scratch)?;
        return Ok(FlatTree::open(scratch, "without layers".to_owned(), Vec::new())?);
    };
    let path = store.tree_path(&chain);
    if let Ok(tree) = open_compiled(&path, held) {
        return Ok(tree);
    }
    let stack = stack(store, held)?;
    store.put_tree(&chain, |file| strata_tree::compile(&stack, file))?;
    open_compiled(&path, held)
}

fn open_compiled(path: &Path, held: &[HeldLayer]) -> Result<FlatTree> {
    let file = File::open(path)?;
    let contents = held.iter().map(HeldLayer::contents);
    let contents = contents.collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(FlatTree::open(file, path.display().to_string(), contents)?)
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
