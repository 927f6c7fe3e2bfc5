//! The bytes that a view of an upper refers to, and what is told when they are gone.
//!
//! Invariant: a file gives as many bytes as the view says, or an error that says why not.

use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::io::Errno;
use strata_content::{Content, Contents, FileContent};
use strata_tree::{ContentRef, Error as TreeError};

use super::base::Base;
use super::error::Error;

/// The bytes of an upper and, above its layer, those of the lower.
pub(super) struct UpperContents(Arc<Base>);

impl UpperContents {
    pub(super) fn of(parts: &Arc<Base>) -> Self {
        Self(Arc::clone(parts))
    }
}

impl Contents for UpperContents {
    fn open(&self, which: &ContentRef) -> strata_tree::Result<Box<dyn Content>> {
        if let Some(layer) = which.layer.checked_sub(1) {
            return self.0.lower.contents().open(&ContentRef { layer, ..which.clone() });
        }
        let file = self.0.upper.content(&which.path, OFlags::RDONLY).map_err(|error| {
            let what = || format!("{} in the upper was removed while it was read", which.path);
            match is_gone(&error) {
                true => TreeError::io(what(), io::Error::other(AGAIN)),
                false => told(error),
            }
        })?;
        let failed = |error| TreeError::io(format!("opening {} in the upper", which.path), error);
        let file = FileContent::new(file).map_err(failed)?;
        Ok(Box::new(UpperContent { file, size: which.size }))
    }

    fn prefetch(&self, which: &[ContentRef]) {
        for one in which {
            if let Some(layer) = one.layer.checked_sub(1) {
                self.0.lower.contents().prefetch(&[ContentRef { layer, ..one.clone() }]);
            }
        }
    }
}

/// What can be done about an upper that changes while it is read.
pub(super) const AGAIN: &str = "try again, or unmount the upper first";

/// The bytes of one file, as many as the layer says. More may have come.
#[derive(Debug)]
struct UpperContent {
    file: FileContent,
    size: u64,
}

impl Content for UpperContent {
    fn len(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let done = self.file.read_at(&mut buffer[..wanted], offset)?;
        match done < wanted {
            true => Err(io::Error::other(format!("it became shorter while it was read; {AGAIN}"))),
            false => Ok(done),
        }
    }

    fn as_file(&self) -> Option<&File> {
        self.file.as_file()
    }
}

/// Whether an inode of the upper is not there any more: nothing is, or another kind of inode, such
/// as a whiteout.
pub(super) fn is_gone(error: &Error) -> bool {
    match error {
        Error::Refused(errno) | Error::Upper { errno, .. } | Error::Attribute { errno, .. } => {
            matches!(*errno, Errno::NOENT | Errno::NOTDIR | Errno::NXIO | Errno::LOOP)
        }
        Error::Lower(_) | Error::InUse { .. } | Error::Unusable { .. } => false,
    }
}

pub(super) fn told(error: Error) -> TreeError {
    match error {
        Error::Lower(error) => error,
        Error::Refused(errno) => TreeError::io("read the upper", errno),
        Error::Upper { what, errno } => TreeError::io(what, errno),
        Error::Attribute { errno, .. } => TreeError::io(error.to_string(), errno),
        Error::InUse { .. } => TreeError::io(error.to_string(), Errno::BUSY),
        Error::Unusable { path, why } => TreeError::io(format!("{path}: {why}"), Errno::INVAL),
    }
}
