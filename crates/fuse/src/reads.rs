//! File contents: how a READ becomes bytes.
//!
//! A small file is opened, read and closed for every READ: the kernel asks once and keeps the
//! pages. A large file is read in many pieces, so its descriptor is kept among the last
//! [`KEPT`]. On a cold disk the first READ that had to wait makes the small neighbours of that
//! file worth fetching: their pages are asked for after the answer is out.
//!
//! Invariants: at most [`KEPT`] descriptors are held; a content shorter than the tree says is an
//! error, never silent zeros or a short file; each stretch of neighbours is fetched at most once.

use std::cell::RefCell;
use std::io::IoSliceMut;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::{Errno, ReadWriteFlags, preadv2};
use strata_content::{Content, FileTree};
use strata_tree::{Error as TreeError, Kind, NodeId};

use crate::errno::RequestError;
use crate::options::TreeFacts;

/// Up to this size, in bytes, a file is opened again for each READ.
const SMALL: u64 = 128 * 1024;
/// How many descriptors of larger files are kept.
const KEPT: usize = 32;
/// How many neighbouring node numbers are one stretch of read-ahead.
const STRETCH: u64 = 64;

thread_local! {
    /// One buffer for each thread, as large as the largest READ so far.
    pub(crate) static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The reader of contents.
pub(crate) struct Reads {
    /// Recently read large files, the latest last.
    kept: Mutex<Vec<(NodeId, Arc<dyn Content>)>>,
    ahead: Option<Ahead>,
}

impl Reads {
    /// A reader for a tree of which `facts` are known.
    pub(crate) fn new(facts: &TreeFacts) -> Self {
        Self { kept: Mutex::new(Vec::new()), ahead: facts.dense.then(|| Ahead::new(facts.nodes)) }
    }

    /// Calls `answer` with the bytes at `offset`, then reads ahead.
    pub(crate) fn read(
        &self,
        tree: &FileTree,
        node: NodeId,
        offset: u64,
        size: u32,
        answer: impl FnOnce(Result<&[u8], RequestError>),
    ) {
        let waited =
            BUFFER.with_borrow_mut(|buffer| match self.fetch(tree, node, offset, size, buffer) {
                Ok((length, waited)) => {
                    answer(Ok(&buffer[..length]));
                    waited
                }
                Err(refusal) => {
                    answer(Err(refusal));
                    false
                }
            });
        if let Some(ahead) = self.ahead.as_ref().filter(|_| waited) {
            ahead.fetch_around(tree, node);
        }
    }

    /// Reads into the buffer; says how many bytes, and whether the disk had to be waited for.
    fn fetch(
        &self,
        tree: &FileTree,
        node: NodeId,
        offset: u64,
        size: u32,
        buffer: &mut Vec<u8>,
    ) -> Result<(usize, bool), RequestError> {
        let stat = tree.node(node)?.stat;
        if stat.kind != Kind::Regular {
            return Err(TreeError::NotRegular { node, kind: stat.kind }.into());
        }
        let left = stat.size.saturating_sub(offset);
        let length = usize::try_from(left.min(u64::from(size))).unwrap_or(0);
        if length == 0 {
            return Ok((0, false));
        }
        if buffer.len() < length {
            buffer.resize(length, 0);
        }
        let bytes = &mut buffer[..length];
        let failed = |error: std::io::Error| TreeError::io(format!("read node {}", node.0), error);
        let (filled, waited) = if stat.size > SMALL {
            let file = self.kept(tree, node)?;
            (file.read_at(bytes, offset).map_err(failed)?, false)
        } else {
            let file = tree.open(node)?;
            let at_once =
                if self.ahead.is_some() { cached(&*file, bytes, offset) } else { Some(0) };
            let done = at_once.unwrap_or(0);
            let more = match done < length {
                true => file.read_at(&mut bytes[done..], offset + done as u64).map_err(failed)?,
                false => 0,
            };
            (done + more, at_once.is_none())
        };
        if filled < length {
            return Err(RequestError::Short { node: node.0, at: offset + filled as u64 });
        }
        Ok((length, waited))
    }

    /// The descriptor of a large file.
    fn kept(&self, tree: &FileTree, node: NodeId) -> Result<Arc<dyn Content>, RequestError> {
        {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(at) = kept.iter().rposition(|(id, _)| *id == node) {
                kept[at..].rotate_left(1);
                if let Some((_, file)) = kept.last() {
                    return Ok(Arc::clone(file));
                }
            }
        }
        // Opened without the lock: another thread may do the same, and one of the two is dropped.
        let file: Arc<dyn Content> = tree.open(node)?.into();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !kept.iter().any(|(id, _)| *id == node) {
            if kept.len() >= KEPT {
                kept.remove(0);
            }
            kept.push((node, Arc::clone(&file)));
        }
        Ok(file)
    }
}

/// The part of the bytes that is in memory already; `None` if the disk would have to be waited for.
fn cached(content: &dyn Content, bytes: &mut [u8], offset: u64) -> Option<usize> {
    // Bytes without a file cannot say: an ordinary read.
    let Some(file) = content.as_file() else { return Some(0) };
    match preadv2(file, &mut [IoSliceMut::new(bytes)], offset, ReadWriteFlags::NOWAIT) {
        Ok(0) | Err(Errno::AGAIN) => None,
        Ok(done) => Some(done),
        // A file system that cannot say: an ordinary read, and no reading ahead.
        Err(_) => Some(0),
    }
}

/// Which stretches of neighbours were fetched.
struct Ahead {
    fetched: Box<[AtomicU64]>,
    nodes: u64,
}

impl Ahead {
    fn new(nodes: u64) -> Self {
        let words = usize::try_from(nodes / (STRETCH * 64) + 1).unwrap_or(0);
        Self { fetched: (0..words).map(|_| AtomicU64::new(0)).collect(), nodes }
    }

    /// Whether this stretch is still to be fetched; only the first asker hears yes.
    fn claim(&self, stretch: u64) -> bool {
        let bit = 1 << (stretch % 64);
        usize::try_from(stretch / 64)
            .ok()
            .and_then(|word| self.fetched.get(word))
            .is_some_and(|word| word.fetch_or(bit, Ordering::Relaxed) & bit == 0)
    }

    /// Asks for the pages of the small files numbered near `node`. All of it is advice: what
    /// fails here will be reported when it is read.
    fn fetch_around(&self, tree: &FileTree, node: NodeId) {
        let stretch = node.0 / STRETCH;
        if !self.claim(stretch) {
            return;
        }
        let mut wanted = Vec::new();
        for id in stretch * STRETCH..(stretch + 1) * STRETCH {
            if id == 0 || id > self.nodes || id == node.0 {
                continue;
            }
            let id = NodeId(id);
            let small = tree.node(id).is_ok_and(|near| {
                near.stat.kind == Kind::Regular && (1..=SMALL).contains(&near.stat.size)
            });
            wanted.extend(small.then(|| tree.content(id).ok()).flatten());
        }
        tree.contents().prefetch(&wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stretch_is_claimed_once() {
        let ahead = Ahead::new(10_000);
        assert!(ahead.claim(0));
        assert!(!ahead.claim(0));
        assert!(ahead.claim(10_000 / STRETCH));
        assert!(!ahead.claim(u64::MAX / STRETCH));
    }
}
