//! The forms in which a registry takes the bytes of a blob, and which it has refused.
//!
//! Invariant: what was refused once stays refused, for all uploads of a client.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

/// In which request the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UploadForm {
    Put,
    Patch,
}

impl UploadForm {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Put => Self::Patch,
            Self::Patch => Self::Put,
        }
    }
}

/// Which forms a registry has refused.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    put: AtomicBool,
    patch: AtomicBool,
    /// Going on where an exchange broke off.
    pub(crate) rest: AtomicBool,
}

impl Refused {
    pub(crate) fn of(&self, form: UploadForm) -> &AtomicBool {
        match form {
            UploadForm::Put => &self.put,
            UploadForm::Patch => &self.patch,
        }
    }

    pub(crate) fn first(&self) -> UploadForm {
        if self.put.load(Relaxed) { UploadForm::Patch } else { UploadForm::Put }
    }
}
