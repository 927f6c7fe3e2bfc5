//! [`Verity`]: fs-verity digests of what the store has, and files that are sealed with fs-verity.
//!
//! Invariants: a digest in the index is that of the bytes that the content's own digest names, for
//! it is made of a file that this was compared with; a file that cannot be sealed is as it was.

use std::collections::{HashMap, HashSet};
use std::io::Read;

use rustix::fs::OFlags;
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use strata_tree::{ContentDigest, VerityDigest, seal_with_verity};

use super::Store;
use super::leases::LeasedLayer;
use crate::error::{Error, IoContext, Result};
use crate::index::shared::SharedIndex;
use crate::index::verity::{self, ContentFile};
use crate::layout::diff_path;
use crate::stage::open_beneath;
use crate::verity::verity_digest;

/// How many digests are written at once: others wait for the index so long.
const AT_ONCE: usize = 1000;

/// fs-verity digests of a store. See the module.
pub struct Verity<'s>(&'s SharedIndex);

impl<'s> Verity<'s> {
    /// Those of that store.
    pub fn of(store: &'s Store) -> Self {
        Self(store.index())
    }

    /// Finds out the digests of a layer's contents that are not known, and seals the files where
    /// kernel and file system can.
    ///
    /// # Errors
    /// `Io`, `Sqlite`; `Damaged` for a file that has not the bytes that it should have.
    pub fn fill(&self, layer: &LeasedLayer) -> Result<()> {
        let mut unknown = verity::contents_of(&self.0.lock().db, layer.diff_id(), false)?;
        unknown.retain(|one| one.verity.is_none());
        self.seal(layer, &unknown, false).map(|_| ())
    }

    /// The digests of all contents of these layers, whose files are all sealed then: the kernel can
    /// be asked to require it.
    ///
    /// # Errors
    /// As [`Verity::fill`]; `NoFsVerity` where the kernel or the file system has none.
    pub fn require(&self, layers: &[LeasedLayer]) -> Result<HashMap<ContentDigest, VerityDigest>> {
        let mut digests = HashMap::new();
        for layer in layers {
            let all = verity::contents_of(&self.0.lock().db, layer.diff_id(), false)?;
            let known = self.seal(layer, &all, true)?;
            digests.extend(all.iter().map(|one| one.digest).zip(known));
        }
        Ok(digests)
    }

    /// Seals contents of a layer, and gives the digest of each; those that were not known are
    /// noted. What cannot be sealed is an error where that is `required`, before anything is read.
    fn seal(
        &self,
        layer: &LeasedLayer,
        all: &[ContentFile],
        required: bool,
    ) -> Result<Vec<VerityDigest>> {
        let mut digests = Vec::with_capacity(all.len());
        for some in all.chunks(AT_ONCE) {
            let mut new = Vec::new();
            for one in some {
                let file = open(layer, one)?;
                match seal_with_verity(&file) {
                    Ok(()) => {}
                    Err(Errno::OPNOTSUPP | Errno::NOTTY) if !required => {}
                    Err(Errno::OPNOTSUPP | Errno::NOTTY) => {
                        return Err(Error::NoFsVerity(sealing(layer, one)));
                    }
                    Err(errno) => return Err(errno).doing(|| sealing(layer, one)),
                }
                digests.push(match one.verity {
                    Some(known) => known,
                    None => {
                        let found = checked_digest(layer, one, &file)?;
                        new.push((one.id, found));
                        found
                    }
                });
            }
            if new.is_empty() {
                continue;
            }
            let mut index = self.0.lock();
            let tx = index.write()?;
            for (id, digest) in new {
                verity::put(&tx, id, &digest)?;
            }
            tx.commit()?;
        }
        Ok(digests)
    }
}

/// What is wrong with the digests in the index that a layer's contents have, `known` ones left out.
/// A file that has not its bytes is another fault.
pub(super) fn faults(
    index: &SharedIndex,
    layer: &LeasedLayer,
    known: &mut HashSet<i64>,
) -> Result<Vec<String>> {
    let all = verity::contents_of(&index.lock().db, layer.diff_id(), true)?;
    let mut faults = Vec::new();
    for one in all {
        let Some(said) = one.verity.filter(|_| known.insert(one.id)) else { continue };
        let actual = open(layer, &one).and_then(|file| checked_digest(layer, &one, &file));
        if let Ok(actual) = actual
            && actual != said
        {
            let ContentFile { id, path, .. } = &one;
            faults.push(format!("content {id} ({path}): fs-verity {said}, should be {actual}"));
        }
    }
    Ok(faults)
}

fn sealing(layer: &LeasedLayer, one: &ContentFile) -> String {
    format!("cannot seal {} of layer {} with fs-verity", one.path, layer.diff_id())
}

fn open(layer: &LeasedLayer, one: &ContentFile) -> Result<std::fs::File> {
    let file = open_beneath(layer.dir(), &diff_path(&one.path), OFlags::RDONLY);
    let file = file.doing(|| format!("cannot open {} of layer {}", one.path, layer.diff_id()))?;
    Ok(file.into())
}

/// The fs-verity digest of a file that has the bytes that it should have.
fn checked_digest(
    layer: &LeasedLayer,
    one: &ContentFile,
    file: &std::fs::File,
) -> Result<VerityDigest> {
    let what = || format!("{} of layer {}", one.path, layer.diff_id());
    let mut hash = Hashing { from: file, hash: Sha256::new() };
    let digest = verity_digest(std::io::BufReader::with_capacity(1 << 18, &mut hash), one.size)
        .doing(|| format!("cannot read {}", what()))?;
    let actual = ContentDigest::from_bytes(hash.hash.finalize().into());
    match actual == one.digest {
        true => Ok(digest),
        false => Err(Error::damaged(what(), format!("it is {actual}, should be {}", one.digest))),
    }
}

/// Hashes what is read.
struct Hashing<'f> {
    from: &'f std::fs::File,
    hash: Sha256,
}

impl Read for Hashing<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.from.read(into)?;
        self.hash.update(&into[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use strata_testkit::tars::Tar;

    use super::*;
    use crate::{LayerInput, StoreOptions};

    struct Silent;

    impl crate::Progress for Silent {
        fn event(&self, _: &str, _: crate::Event) {}
        fn warning(&self, _: &str, _: &str) {}
    }

    fn unpack(store: &Store, files: &[(&str, &str)]) -> LeasedLayer {
        let mut tar = Tar::default();
        for (name, body) in files {
            tar = tar.file(name.as_bytes(), body.as_bytes());
        }
        let input = LayerInput {
            label: "layer".to_owned(),
            diff_id: None,
            blob: None,
            reader: Box::new(std::io::Cursor::new(tar.end())),
        };
        store.unpack(input, &Silent).unwrap().layer
    }

    fn known(store: &Store, layer: &LeasedLayer) -> Vec<(ContentDigest, VerityDigest)> {
        let all = verity::contents_of(&store.index().lock().db, layer.diff_id(), false).unwrap();
        let mut found: Vec<_> =
            all.iter().filter_map(|one| Some((one.digest, one.verity?))).collect();
        found.sort();
        found
    }

    fn of(bodies: &[&str]) -> Vec<(ContentDigest, VerityDigest)> {
        let of = |body: &&str| {
            let digest = ContentDigest::from_bytes(Sha256::digest(body).into());
            (digest, verity_digest(body.as_bytes(), body.len() as u64).unwrap())
        };
        let mut all: Vec<_> = bodies.iter().map(of).collect();
        all.sort();
        all
    }

    #[test]
    fn digests_are_found_out_when_they_are_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let long = "text".repeat(100_000);
        let first = unpack(&store, &[("a", "one"), ("d/b", &long), ("again", "one")]);
        assert_eq!(known(&store, &first), []);
        Verity::of(&store).fill(&first).unwrap();
        assert_eq!(known(&store, &first), of(&["one", &long]));
        // What they have in common is known, and the rest is not.
        let second = unpack(&store, &[("x", "one"), ("y", "")]);
        assert_eq!(known(&store, &second), of(&["one"]));
        Verity::of(&store).fill(&second).unwrap();
        assert_eq!(known(&store, &second), of(&["one", ""]));
    }

    #[test]
    fn layers_come_with_their_digests_where_the_store_is_opened_so() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions { verity: true, ..StoreOptions::default() };
        let store = Store::open_with(dir.path(), options).unwrap();
        let layer = unpack(&store, &[("a", "one"), ("b", "two")]);
        assert_eq!(known(&store, &layer), of(&["one", "two"]));
    }

    #[test]
    fn a_wrong_digest_is_found_and_mended() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions { verity: true, ..StoreOptions::default() };
        let store = Store::open_with(dir.path(), options).unwrap();
        let layer = *unpack(&store, &[("a", "one"), ("b", "two")]).diff_id();
        let check = |repair| Store::fsck(dir.path(), repair, StoreOptions::default(), &Silent);
        assert_eq!(check(false).unwrap().problems, []);
        let wrong = "UPDATE contents SET verity = zeroblob(32) WHERE size = 3 AND id = 1";
        assert_eq!(store.index().lock().db.execute(wrong, []).unwrap(), 1);
        let [problem] = &check(false).unwrap().problems[..] else { panic!("one is wrong") };
        assert!(problem.to_string().contains("fs-verity sha256:0000"), "{problem}");
        drop(store);
        assert_eq!(check(true).unwrap().problems, []);
        let store = Store::open(dir.path()).unwrap();
        let layer = store.lease(&layer).unwrap().unwrap();
        Verity::of(&store).fill(&layer).unwrap();
        assert_eq!(known(&store, &layer), of(&["one", "two"]));
    }

    #[test]
    fn a_file_that_was_changed_gets_no_digest() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let layer = unpack(&store, &[("a", "one"), ("b", "two")]);
        let path = store.layer_files(layer.diff_id()).join("b");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "2wo").unwrap();
        let error = Verity::of(&store).fill(&layer).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("b of layer sha256:"), "{error}");
        assert_eq!(known(&store, &layer), []);
        // With another length too.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "longer").unwrap();
        Verity::of(&store).fill(&layer).unwrap_err();
    }
}
