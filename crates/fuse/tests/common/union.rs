//! Mounts of writable unions for the tests: real lowers, an upper in a temporary directory.
//!
//! Invariant: a mount goes away with its value, also when a test fails.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use strata_content::FileTree;
use strata_fuse::{Session, WritableOptions, serve_union};
use strata_testkit::needs;
use strata_tree::Spec;
use strata_union::writable::{Union, UnionOptions};
use tempfile::TempDir;

use super::flat_tree;

/// Whether writable mounts are possible here: only root keeps owners and devices in inodes.
pub fn can_write() -> bool {
    needs::root_and_fuse()
}

/// A writable mount for one test.
pub struct Rw {
    // Dropped in this order: the mount before its directories.
    pub session: Option<Session>,
    pub union: Arc<Union>,
    pub root: PathBuf,
    pub dir: TempDir,
    /// The lower's files, if they are on disk.
    contents: Option<(TempDir, Vec<LowerFile>)>,
}

/// Path, bytes and time of change of one file of the lower.
type LowerFile = (PathBuf, Vec<u8>, (i64, i64));

impl Rw {
    /// A mount over a compiled tree, whose contents are real files that must stay as they are.
    pub fn new(spec: &Spec, options: &WritableOptions) -> Self {
        let (_, tree, contents) = flat_tree(spec);
        let before = all_files(contents.path());
        let mut rw = Self::over(tree, options, UnionOptions::default());
        rw.contents = Some((contents, before));
        rw
    }

    pub fn over(lower: FileTree, options: &WritableOptions, kept: UnionOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Others than root must get through to the mountpoint.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let [upper, work, root] = ["upper", "work", "merged"].map(|name| dir.path().join(name));
        for part in [&upper, &work, &root] {
            fs::create_dir(part).unwrap();
        }
        let union = Arc::new(Union::open(lower, &upper, &work, kept).unwrap());
        let session = serve_union(Arc::clone(&union), &root, options).unwrap();
        Self { session: Some(session), union, root, dir, contents: None }
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    pub fn upper(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join("upper").join(name)
    }
}

/// No test may end with a changed lower.
impl Drop for Rw {
    fn drop(&mut self) {
        drop(self.session.take());
        if let Some((contents, before)) = &self.contents
            && !std::thread::panicking()
        {
            assert!(all_files(contents.path()) == *before, "a file of the lower has changed");
        }
    }
}

fn all_files(dir: &Path) -> Vec<LowerFile> {
    let mut all = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                dirs.push(entry.path());
            } else {
                let stat = entry.metadata().unwrap();
                let bytes = fs::read(entry.path()).unwrap();
                all.push((entry.path(), bytes, (stat.ctime(), stat.ctime_nsec())));
            }
        }
    }
    all.sort();
    all
}

/// Without and with passthrough.
pub fn each_mode() -> [WritableOptions; 2] {
    [false, true].map(|passthrough| WritableOptions { passthrough, ..WritableOptions::default() })
}
