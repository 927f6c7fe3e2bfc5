//! [`FileTree`]: a tree with its contents, for callers that read both.
//!
//! Invariant: the contents are those that the tree refers to.

use std::ops::Deref;
use std::sync::Arc;

use strata_tree::{ContentRef, Lower, NodeId, Result};

use crate::contents::{Content, Contents, Reader};

/// Names and bytes. See the module; it dereferences to its [`Lower`].
#[derive(Clone)]
pub struct FileTree {
    names: Arc<dyn Lower>,
    contents: Arc<dyn Contents>,
}

impl FileTree {
    /// A tree and the contents that it refers to.
    pub fn new(names: Arc<dyn Lower>, contents: Arc<dyn Contents>) -> Self {
        Self { names, contents }
    }

    /// The names.
    pub fn names(&self) -> &Arc<dyn Lower> {
        &self.names
    }

    /// The bytes.
    pub fn contents(&self) -> &Arc<dyn Contents> {
        &self.contents
    }

    /// Other names for the same bytes: a part of the tree, or another form of it.
    #[must_use]
    pub fn with_names(&self, names: Arc<dyn Lower>) -> Self {
        Self { names, contents: Arc::clone(&self.contents) }
    }

    /// Opens the content of a regular file.
    ///
    /// # Errors
    /// `NotRegular`, `NoNode`, and as [`Contents::open`].
    pub fn open(&self, node: NodeId) -> Result<Box<dyn Content>> {
        self.contents.open(&self.names.content(node)?)
    }

    /// The whole content of a regular file.
    ///
    /// # Errors
    /// As [`FileTree::open`]; `Io`.
    pub fn read(&self, node: NodeId) -> Result<Vec<u8>> {
        let which = self.names.content(node)?;
        let content = self.contents.open(&which)?;
        let mut bytes = Vec::with_capacity(usize::try_from(content.len()).unwrap_or(0));
        std::io::Read::read_to_end(&mut Reader::new(&*content), &mut bytes)
            .map_err(|error| failed(&which, error))?;
        Ok(bytes)
    }
}

fn failed(which: &ContentRef, error: std::io::Error) -> strata_tree::Error {
    strata_tree::Error::io(format!("reading {}", which.path), error)
}

impl Deref for FileTree {
    type Target = dyn Lower;

    fn deref(&self) -> &Self::Target {
        &*self.names
    }
}
