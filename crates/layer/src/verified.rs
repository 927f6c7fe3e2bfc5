//! [`VerifiedContents`]: contents that are compared with their digests when they are first opened.
//!
//! The digest of a file stands in the row of its layer, where the unpack that wrote the file has
//! put it. The rows of all layers are kept in memory, about 200 bytes an entry.
//!
//! Invariants: no byte of a content is given out before all of them were compared; what differed is
//! compared again at the next open, for it may have been mended; one content is read by one thread
//! at a time until it has been found good.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};
use strata_content::{Content, Contents, Files, Reader};
use strata_tree::{ContentDigest, ContentRef, Entry, Error, Lower, NodeId, Result};

use crate::store::{LeasedLayer, Store};
use crate::stored_layer::StoredLayer;

/// How many bytes are read at once.
const AT_ONCE: usize = 256 << 10;

/// Whether a content was found good.
type Good = Arc<Mutex<bool>>;

/// Contents of layers of the store. See the module.
pub struct VerifiedContents {
    contents: Files,
    layers: Vec<StoredLayer>,
    seen: Mutex<HashMap<(u32, NodeId), Good>>,
}

impl Store {
    /// The contents of leased layers, base first, as [`LeasedLayer::files`] has them, each compared
    /// with its digest: one that differs cannot be opened (`Io`, `EIO` through a mount).
    ///
    /// # Errors
    /// As [`Store::lower`] and [`LeasedLayer::files`].
    pub fn verified_files(&self, leased: &[LeasedLayer]) -> crate::Result<VerifiedContents> {
        let layers = leased.iter().map(|layer| self.lower(layer)).collect::<crate::Result<_>>()?;
        let contents = LeasedLayer::files(leased)?;
        Ok(VerifiedContents { contents, layers, seen: Mutex::default() })
    }
}

impl VerifiedContents {
    /// The file that a reference names, and what it should hold.
    fn recorded(&self, which: &ContentRef) -> Result<(NodeId, ContentDigest)> {
        let layer = usize::try_from(which.layer).ok().and_then(|at| self.layers.get(at));
        let layer = layer.ok_or_else(|| which.no_layer(self.layers.len()))?;
        let mut node = layer.root();
        for name in which.path.names() {
            node = match layer.lookup(node, name)? {
                Some(Entry::Node(found)) => found.id,
                _ => {
                    return Err(Error::Corrupt {
                        tree: format!("above layer {}", layer.diff_id()),
                        what: format!("the layer has no file {}", which.path),
                    });
                }
            };
        }
        Ok((node, layer.digest(node)?))
    }

    fn compare(&self, which: &ContentRef, content: &dyn Content) -> Result<()> {
        let (node, wanted) = self.recorded(which)?;
        let good = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(seen.entry((which.layer, node)).or_default())
        };
        let mut good = good.lock().unwrap_or_else(PoisonError::into_inner);
        if !*good {
            let found = digest_of(content);
            let found = found.map_err(|error| self.failed("reading", which, error))?;
            if found != wanted {
                let what = format!(
                    "its digest is {found}, not {wanted}: the bytes were changed after the layer \
                     was unpacked; see strata fsck"
                );
                return Err(self.failed("verifying", which, io::Error::other(what)));
            }
            *good = true;
        }
        Ok(())
    }

    fn failed(&self, doing: &str, which: &ContentRef, error: io::Error) -> Error {
        let layer = self.layers.get(which.layer as usize).map(StoredLayer::diff_id);
        let layer = layer.map(ToString::to_string).unwrap_or_default();
        Error::io(format!("{doing} {} of layer {layer}", which.path), error)
    }
}

fn digest_of(content: &dyn Content) -> io::Result<ContentDigest> {
    let mut hash = Sha256::new();
    let length = usize::try_from(content.len()).unwrap_or(AT_ONCE);
    let mut buffer = vec![0; length.clamp(1, AT_ONCE)];
    let mut reader = Reader::new(content);
    loop {
        match io::Read::read(&mut reader, &mut buffer)? {
            0 => return Ok(ContentDigest::from_bytes(hash.finalize().into())),
            count => hash.update(buffer.get(..count).unwrap_or_default()),
        }
    }
}

impl Contents for VerifiedContents {
    fn open(&self, which: &ContentRef) -> Result<Box<dyn Content>> {
        let content = self.contents.open(which)?;
        self.compare(which, &*content)?;
        Ok(content)
    }

    fn prefetch(&self, which: &[ContentRef]) {
        self.contents.prefetch(which);
    }
}
