//! [`LayerPlace`]: one `<reference>/<digest>/` of the mount.
//!
//! What it shows is made when it is first asked for and given up when nobody has it: the compiled
//! form of the layer, and the table by which `blob` is read.
//!
//! ```text
//! diff/   the form of the layer, compiled into a file without a name
//! info    what containers-storage keeps of a layer, as JSON
//! blob    the diff, uncompressed, byte for byte as it was built
//! use     never there: whoever makes it takes the layer, and is told ENOENT
//! ```
//!
//! Invariants: as long as the form is open, the layers of its chain are leased; a form that is
//! given up and opened again has the same node numbers, for it is compiled from the same rows.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use serde::Serialize;
use strata_diff::headers::DiffAtOffsets;
use strata_layer::{LeasedLayer, Store, StoredLayer};
use strata_registry::Reference;
use strata_tree::dialect::XattrClass;
use strata_tree::{BlobDigest, FlatTree, Node, NodeId};

use crate::catalogue::InChain;
use crate::error::{Error, Result};
use crate::form::LowerForm;

/// How long a form that nobody took stays open after it was last asked for.
const IDLE: Duration = Duration::from_secs(60);

/// A layer under the name and the digest by which it is asked for. See the module.
pub(crate) struct LayerPlace {
    /// The image that was asked for.
    pub(crate) reference: Reference,
    /// The digest that was asked for.
    pub(crate) blob: BlobDigest,
    /// Which layer it is.
    pub(crate) found: InChain,
    open: RwLock<Option<Arc<OpenForm>>>,
    diff: Mutex<Option<Arc<DiffAtOffsets>>>,
    /// One at a time compiles.
    compiling: Mutex<()>,
    touched: Mutex<Instant>,
}

/// The compiled form of a layer, with what keeps it.
pub(crate) struct OpenForm {
    pub(crate) tree: FlatTree,
    pub(crate) info: Vec<u8>,
    pub(crate) diff_size: u64,
    layer: LeasedLayer,
    _leased: Vec<LeasedLayer>,
}

/// What containers-storage reads from `info` (`Layer` in its layers.go): the fields that it does
/// not set by itself.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Info {
    compressed_diff_digest: String,
    compressed_size: u64,
    diff_digest: String,
    diff_size: u64,
    /// 0: `blob` is not compressed, whatever the registry's blob is.
    compression: u8,
    #[serde(rename = "uidset")]
    users: BTreeSet<u32>,
    #[serde(rename = "gidset")]
    groups: BTreeSet<u32>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LayerPlace {
    pub(crate) fn new(reference: Reference, blob: BlobDigest, found: InChain) -> Self {
        Self {
            reference,
            blob,
            found,
            open: RwLock::default(),
            diff: Mutex::default(),
            compiling: Mutex::default(),
            touched: Mutex::new(Instant::now()),
        }
    }

    /// Whether its form is open.
    pub(crate) fn is_open(&self) -> bool {
        self.opened().is_some()
    }

    fn opened(&self) -> Option<Arc<OpenForm>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its form; compiled if it is not open.
    pub(crate) fn form(&self, store: &Store, class: XattrClass) -> Result<Arc<OpenForm>> {
        if let Some(open) = self.opened() {
            return Ok(open);
        }
        let _alone = lock(&self.compiling);
        *lock(&self.touched) = Instant::now();
        if let Some(open) = self.opened() {
            return Ok(open);
        }
        let open = Arc::new(self.compile(store, class)?);
        let mut place = self.open.write().unwrap_or_else(PoisonError::into_inner);
        *place = Some(Arc::clone(&open));
        Ok(open)
    }

    fn compile(&self, store: &Store, class: XattrClass) -> Result<OpenForm> {
        let (leased, chain) = chain_of(store, &self.found)?;
        let (Some(layer), Some(rows)) = (leased.last().cloned(), chain.last()) else {
            return Err(Error::Refused(format!("{} has no layers", self.reference)));
        };
        let file = scratch(store)?;
        strata_tree::compile(&LowerForm::new(&chain, class)?, &file)?;
        let tree = FlatTree::open(file, format!("of layer {}", layer.diff_id()))?;
        let record = store.layer(layer.diff_id())?;
        let diff_size = record.map_or(0, |record| record.diff_size);
        let owners = || rows.rows().iter().filter_map(|row| row.meta.as_ref());
        let info = Info {
            compressed_diff_digest: self.blob.to_string(),
            compressed_size: self.found.size,
            diff_digest: layer.diff_id().to_string(),
            diff_size,
            compression: 0,
            users: owners().map(|meta| meta.uid).collect(),
            groups: owners().map(|meta| meta.gid).collect(),
        };
        let info = serde_json::to_vec(&info)
            .map_err(|error| Error::Io { what: "cannot write info", source: error.into() })?;
        Ok(OpenForm { tree, info, diff_size, layer, _leased: leased })
    }

    /// The diff, to be read at offsets.
    pub(crate) fn diff(&self, store: &Store, class: XattrClass) -> Result<Arc<DiffAtOffsets>> {
        let form = self.form(store, class)?;
        let mut diff = lock(&self.diff);
        *lock(&self.touched) = Instant::now();
        if let Some(diff) = &*diff {
            return Ok(Arc::clone(diff));
        }
        let made = Arc::new(form.layer.diff_at_offsets(scratch(store)?)?);
        *diff = Some(Arc::clone(&made));
        Ok(made)
    }

    /// It was asked for just now.
    pub(crate) fn touch(&self) {
        *lock(&self.touched) = Instant::now();
    }

    /// Gives up what was not asked for lately: the diff, and where nobody has the layer its form.
    pub(crate) fn rest(&self, held: bool) {
        if lock(&self.touched).elapsed() < IDLE {
            return;
        }
        *lock(&self.diff) = None;
        if !held {
            *self.open.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

impl OpenForm {
    /// A node of the form.
    pub(crate) fn node(&self, node: NodeId) -> Result<Node> {
        Ok(strata_tree::Lower::node(&self.tree, node)?)
    }
}

/// The layers of a chain: leased, and read.
pub(crate) fn chain_of(
    store: &Store,
    chain: &InChain,
) -> Result<(Vec<LeasedLayer>, Vec<Arc<StoredLayer>>)> {
    let mut leased = Vec::new();
    for layer in &chain.layers {
        leased.push(store.lease(layer)?.ok_or(strata_layer::Error::NoLayer(*layer))?);
    }
    // The layers below are read only where this one needs them.
    let Some(last) = leased.last() else { return Ok((leased, Vec::new())) };
    let own = Arc::new(store.lower(last)?);
    let needs_root = own.rows().first().is_none_or(crate::form::is_told_below);
    if !needs_root && !crate::form::needs_lower(&own) {
        return Ok((leased, vec![own]));
    }
    let below = leased.len() - 1;
    let mut all: Vec<Arc<StoredLayer>> = Vec::new();
    for layer in &leased[..below] {
        all.push(Arc::new(store.lower(layer)?));
    }
    all.push(own);
    Ok((leased, all))
}

/// A file without a name, on the store's disk; in memory where that cannot be written.
fn scratch(store: &Store) -> Result<File> {
    if store.read_only().is_none() {
        return Ok(store.scratch_file()?);
    }
    let made = rustix::fs::memfd_create("layer", rustix::fs::MemfdFlags::CLOEXEC);
    made.map(File::from)
        .map_err(|errno| Error::Io { what: "cannot make a file in memory", source: errno.into() })
}
