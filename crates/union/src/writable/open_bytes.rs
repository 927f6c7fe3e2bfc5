//! The bytes that all openers of a node share.
//!
//! Invariants: a lower's content is only read, and its file, if it has one, is never handed out;
//! the way goes from the lower to the upper and never back.

use std::fs::File;
use std::sync::{Arc, PoisonError, RwLock};

use strata_content::Content;

/// Where the bytes of an open node are.
pub(super) struct OpenBytes {
    now: RwLock<Now>,
}

/// That at one moment.
#[derive(Clone)]
pub(super) struct Now {
    pub(super) read: ReadFrom,
    /// The upper's file, open for writing.
    pub(super) write: Option<Arc<File>>,
}

/// What is read.
#[derive(Clone)]
pub(super) enum ReadFrom {
    Lower(Arc<dyn Content>),
    Upper(Arc<File>),
}

impl ReadFrom {
    /// The bytes as a file, where they are one.
    pub(super) fn file(&self) -> Option<&File> {
        match self {
            Self::Lower(content) => content.as_file(),
            Self::Upper(file) => Some(file),
        }
    }
}

impl OpenBytes {
    /// The lower's bytes.
    pub(super) fn lower(content: Arc<dyn Content>) -> Self {
        Self { now: RwLock::new(Now { read: ReadFrom::Lower(content), write: None }) }
    }

    /// The upper's bytes.
    pub(super) fn upper(file: Arc<File>, writable: bool) -> Self {
        let write = writable.then(|| Arc::clone(&file));
        Self { now: RwLock::new(Now { read: ReadFrom::Upper(file), write }) }
    }

    pub(super) fn now(&self) -> Now {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the bytes are the upper's.
    pub(super) fn is_upper(&self) -> bool {
        matches!(self.now().read, ReadFrom::Upper(_))
    }

    /// Whether it can be written.
    pub(super) fn is_writable(&self) -> bool {
        self.now().write.is_some()
    }

    /// From now on the bytes are the upper's.
    pub(super) fn rise(&self, file: Arc<File>, writable: bool) {
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(now.read, ReadFrom::Lower(_)) {
            now.read = ReadFrom::Upper(Arc::clone(&file));
        }
        if writable && now.write.is_none() {
            now.write = Some(file);
        }
    }

    /// Some descriptor of the upper's file.
    pub(super) fn upper_file(&self) -> Option<Arc<File>> {
        let now = self.now();
        now.write.or(match now.read {
            ReadFrom::Upper(file) => Some(file),
            ReadFrom::Lower(_) => None,
        })
    }
}
