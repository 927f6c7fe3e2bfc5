//! [`FailingAfter`]: contents whose source breaks, for tests.
//!
//! Invariants: the first `n` calls (an open or a read each) are those of the contents within; each
//! later one fails with `EIO`, and there is never a file by which they could be read past it.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;
use strata_tree::{ContentRef, Error, Result};

use crate::contents::{Content, Contents};

/// Contents that fail after some calls. See the module.
pub struct FailingAfter {
    within: Arc<dyn Contents>,
    left: Arc<AtomicU64>,
}

impl FailingAfter {
    /// `calls` of them work.
    pub fn new(within: Arc<dyn Contents>, calls: u64) -> Self {
        Self { within, left: Arc::new(AtomicU64::new(calls)) }
    }
}

fn spend(left: &AtomicU64) -> rustix::io::Result<()> {
    let spent = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
    spent.map(drop).map_err(|_| Errno::IO)
}

impl Contents for FailingAfter {
    fn open(&self, which: &ContentRef) -> Result<Box<dyn Content>> {
        let failed = |errno| Error::io(format!("opening {}", which.path), errno);
        spend(&self.left).map_err(failed)?;
        let content = self.within.open(which)?;
        Ok(Box::new(Limited { content, left: Arc::clone(&self.left) }))
    }

    fn prefetch(&self, which: &[ContentRef]) {
        self.within.prefetch(which);
    }
}

#[derive(Debug)]
struct Limited {
    content: Box<dyn Content>,
    left: Arc<AtomicU64>,
}

impl Content for Limited {
    fn len(&self) -> u64 {
        self.content.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        spend(&self.left)?;
        self.content.read_at(buffer, offset)
    }

    fn as_file(&self) -> Option<&File> {
        None
    }
}
