//! [`Joined`]: several contents, one above the other.
//!
//! The model: each part has a number of layers; the layers of the first part keep their numbers,
//! those of the next follow. This is how a merged stack of trees, some of them merged themselves,
//! refers to its contents.
//!
//! Invariant: a part is asked with the numbers of its own.

use std::sync::Arc;

use strata_tree::{ContentRef, Result};

use crate::contents::{Content, Contents};

/// Contents one above the other. See the module.
#[derive(Default)]
pub struct Joined {
    parts: Vec<(u32, Arc<dyn Contents>)>,
}

impl Joined {
    /// The parts, base first, each with the number of its layers.
    pub fn new(parts: Vec<(u32, Arc<dyn Contents>)>) -> Self {
        Self { parts }
    }

    /// The part that a content is in, and what the part calls it.
    fn part(&self, which: &ContentRef) -> Option<(&dyn Contents, ContentRef)> {
        let mut layer = which.layer;
        for (layers, contents) in &self.parts {
            if layer < *layers {
                return Some((&**contents, ContentRef { layer, ..which.clone() }));
            }
            layer -= layers;
        }
        None
    }
}

impl Contents for Joined {
    fn open(&self, which: &ContentRef) -> Result<Box<dyn Content>> {
        match self.part(which) {
            Some((contents, own)) => contents.open(&own),
            None => {
                let layers = self.parts.iter().map(|(layers, _)| *layers as usize).sum();
                Err(which.no_layer(layers))
            }
        }
    }

    fn prefetch(&self, which: &[ContentRef]) {
        for one in which {
            if let Some((contents, own)) = self.part(one) {
                contents.prefetch(&[own]);
            }
        }
    }
}
