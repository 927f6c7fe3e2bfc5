//! [`Memory`]: contents that are bytes of this process.
//!
//! Invariant: there is never a file behind them, so a caller that works with these works with any
//! contents.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::io::Errno;
use strata_tree::{ContentRef, Error, Item, Kind, Result, Spec, TreePath};

use crate::contents::{Content, Contents};

/// Contents in memory. See the module.
#[derive(Debug, Default)]
pub struct Memory {
    layers: Vec<HashMap<TreePath, Arc<[u8]>>>,
}

impl Memory {
    /// The contents of written-down trees, one a layer, base first.
    ///
    /// # Errors
    /// `Corrupt` for a path that no tree has.
    pub fn of(specs: &[Spec]) -> Result<Self> {
        let mut memory = Self::default();
        for (layer, spec) in specs.iter().enumerate() {
            memory.layers.push(HashMap::new());
            for (raw, item) in spec.items() {
                let Item::Inode(inode) = item else { continue };
                if inode.kind != Kind::Regular {
                    continue;
                }
                let path = TreePath::clamped(raw).map_err(|why| Error::Corrupt {
                    tree: "in memory".to_owned(),
                    what: why.to_string(),
                })?;
                memory.layers[layer].insert(path, inode.body.as_slice().into());
            }
        }
        Ok(memory)
    }
}

impl Contents for Memory {
    fn open(&self, which: &ContentRef) -> Result<Box<dyn Content>> {
        let layer = usize::try_from(which.layer).ok().and_then(|at| self.layers.get(at));
        let layer = layer.ok_or_else(|| which.no_layer(self.layers.len()))?;
        match layer.get(&which.path) {
            Some(bytes) => Ok(Box::new(Bytes(Arc::clone(bytes)))),
            None => Err(Error::io(format!("opening {} in memory", which.path), Errno::NOENT)),
        }
    }

    fn prefetch(&self, _which: &[ContentRef]) {}
}

/// Bytes in memory.
#[derive(Debug)]
struct Bytes(Arc<[u8]>);

impl Content for Bytes {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let from = usize::try_from(offset).map_or(self.0.len(), |at| at.min(self.0.len()));
        let rest = &self.0[from..];
        let done = rest.len().min(buffer.len());
        buffer[..done].copy_from_slice(&rest[..done]);
        Ok(done)
    }

    fn as_file(&self) -> Option<&File> {
        None
    }
}
