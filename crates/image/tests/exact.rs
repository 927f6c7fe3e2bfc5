//! What tools made comes back byte for byte: every diff of every image in tests/fixtures.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use strata_image::{CheckedStore, ImportOptions, LoadOptions, SourceSpec, import, load};
use strata_layer::{Event, Progress, Store, StoreOptions};
use strata_tree::DiffId;

struct Silent;

impl Progress for Silent {
    fn event(&self, _: &str, _: Event) {}
    fn warning(&self, _: &str, _: &str) {}
}

#[derive(Default)]
struct Hasher(Sha256, u64);

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        self.1 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn fixtures() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: &PathBuf, part: &str| {
        path.file_name().is_some_and(|name| name.to_string_lossy().contains(part))
    };
    let mut found: Vec<_> = entries
        .filter(|path| [".oci", ".docker.tar", "rootfs.tar"].iter().any(|p| named(path, p)))
        .collect();
    found.sort();
    found
}

/// Takes a fixture in; gives how many images that were.
fn take(store: &Store, path: &Path) -> usize {
    let name = path.file_name().unwrap().to_string_lossy();
    if name.starts_with("rootfs") {
        let reference = format!("{name}:1").parse().unwrap();
        import(
            CheckedStore::unchecked(store),
            path,
            Some(&reference),
            &ImportOptions::default(),
            &Silent,
        )
        .unwrap();
        return 1;
    }
    let loaded = load(
        CheckedStore::unchecked(store),
        &SourceSpec::path(path),
        &LoadOptions::default(),
        &Silent,
    );
    loaded.unwrap_or_else(|error| panic!("{name}: {error}")).len()
}

/// Every diff of the store has its diff id and its size again; gives which there are.
fn assert_exact(store: &Store, what: &str) -> BTreeSet<DiffId> {
    let mut ids = BTreeSet::new();
    for record in store.layers().unwrap() {
        let leased = store.lease(&record.diff_id).unwrap().unwrap();
        let mut hasher = Hasher::default();
        leased.write_diff(&mut hasher).unwrap();
        let actual = DiffId::from_bytes(hasher.0.finalize().into());
        assert_eq!((actual, hasher.1), (record.diff_id, record.diff_size), "{what}");
        ids.insert(record.diff_id);
    }
    ids
}

#[test]
fn every_diff_of_every_fixture_comes_back_byte_for_byte() {
    let together_dir = tempfile::tempdir().unwrap();
    let together = Store::open(together_dir.path()).unwrap();
    let (mut all, mut images) = (BTreeSet::new(), 0);
    let fixtures = fixtures();
    for path in &fixtures {
        let dir = tempfile::tempdir().unwrap();
        let alone = Store::open(dir.path()).unwrap();
        images += take(&alone, path);
        all.extend(assert_exact(&alone, &path.display().to_string()));
        take(&together, path);
    }
    // Shared between all of them it is the same.
    assert_eq!(assert_exact(&together, "all together"), all);
    assert!(fixtures.len() >= 16, "{fixtures:?}");
    assert!(images > fixtures.len() && all.len() > 10, "{images} images, {} diffs", all.len());
    println!("{} fixtures, {images} images, {} distinct diffs", fixtures.len(), all.len());
    drop(together);
    let options = StoreOptions::default();
    let report = Store::fsck(together_dir.path(), false, options, &Silent).unwrap();
    assert_eq!((report.problems, report.notes), (vec![], vec![]));
}
