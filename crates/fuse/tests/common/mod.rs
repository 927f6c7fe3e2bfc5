//! Mounts for the tests: a spec becomes a tree, the tree a mount in a temporary directory.
//!
//! Invariant: a mount goes away with its value, also when a test fails.

// Each test binary uses a part of it.
#![allow(dead_code, unreachable_pub)]

pub mod mapping;
pub mod union;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use strata_content::FileTree;
use strata_content::conformance::{in_memory, lay_out};
use strata_fuse::{MountOptions, Session, TreeFacts, serve};
use strata_testkit::needs;
use strata_tree::{FlatTree, Spec, compile};
use tempfile::TempDir;

/// A mount for one test.
pub struct Mount {
    // Dropped in this order: the mount before its directory.
    pub session: Option<Session>,
    pub root: PathBuf,
    dir: TempDir,
}

impl Mount {
    pub fn of(tree: FileTree, options: &MountOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("mountpoint");
        std::fs::create_dir(&root).unwrap();
        let session = serve(tree, &root, options).unwrap();
        Self { session: Some(session), root, dir }
    }

    /// A mount of the strictest tree.
    pub fn mem(spec: &Spec) -> Self {
        Self::of(in_memory(spec).unwrap(), &MountOptions::for_caller())
    }

    /// A mount of a compiled tree, as real mounts are.
    pub fn flat(spec: &Spec, options: &MountOptions) -> Self {
        let (tree, files, contents) = flat_tree(spec);
        let facts = TreeFacts::from(&*tree);
        let mut mount = Self::of(files, &MountOptions { facts, ..options.clone() });
        std::fs::rename(contents.path(), mount.dir.path().join("contents")).unwrap();
        // Its contents are beside the mountpoint now, and go with it.
        let _ = contents.keep();
        mount.root = mount.root.canonicalize().unwrap();
        mount
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    pub fn session(&self) -> &Session {
        self.session.as_ref().unwrap()
    }

    /// The directory beside the mountpoint that holds the layers' contents.
    pub fn contents(&self) -> PathBuf {
        self.dir.path().join("contents")
    }
}

/// Runs a test against both kinds of tree.
pub fn with_each(spec: &Spec, test: impl Fn(&Mount)) {
    if needs::fuse() {
        test(&Mount::mem(spec));
        test(&Mount::flat(spec, &MountOptions::for_caller()));
    }
}

/// Compiles a spec; its contents are laid out in the directory.
pub fn flat_tree(spec: &Spec) -> (Arc<FlatTree>, FileTree, TempDir) {
    let source = in_memory(spec).unwrap();
    let contents = tempfile::tempdir().unwrap();
    let layers = lay_out(&source, contents.path()).unwrap();
    let file = tempfile::tempfile().unwrap();
    compile(&*source, &file).unwrap();
    let tree = Arc::new(FlatTree::open(file, "test".to_owned()).unwrap());
    let files = FileTree::new(Arc::clone(&tree) as _, Arc::new(layers));
    (tree, files, contents)
}

/// Bytes that differ everywhere, so that a shifted read is seen.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(next).collect()
}
