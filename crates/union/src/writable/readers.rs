//! The parts of a union that find and read, and change nothing.
//!
//! Invariant: as in `base`, these are handles to hand on while a union is put together.

use std::sync::Arc;

use super::base::Base;
use super::inodes::UpperInodes;
use super::listing::DirReader;
use super::names::NameResolver;
use super::origin::Origins;
use super::protected::ProtectedNodes;
use super::whiteouts::Whiteouts;

/// The handles.
pub(super) struct Readers {
    pub(super) whiteouts: Arc<Whiteouts>,
    pub(super) dirs: Arc<DirReader>,
    pub(super) inodes: Arc<UpperInodes>,
    pub(super) origins: Arc<Origins>,
    pub(super) names: Arc<NameResolver>,
    pub(super) protected: Arc<ProtectedNodes>,
}

impl Readers {
    pub(super) fn new(base: &Base) -> Self {
        let whiteouts = Arc::new(Whiteouts::new(base));
        let dirs = Arc::new(DirReader::new(base, &whiteouts));
        let inodes = Arc::new(UpperInodes::new(base, &dirs));
        let origins = Arc::new(Origins::new(base, &dirs));
        let names = Arc::new(NameResolver::new(base, &dirs, &inodes, &origins));
        let protected = Arc::new(ProtectedNodes::new(base, &inodes));
        Self { whiteouts, dirs, inodes, origins, names, protected }
    }
}
