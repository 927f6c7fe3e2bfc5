//! [`LayerBlobs`]: which blobs are which layers, as far as somebody has looked.
//!
//! An image's manifest says which blob each of its layers is, and nobody has to believe it: of a
//! layer that the store has, the blob is never read. Who goes from a blob to a layer (a push that
//! leaves out what a registry has, a layer store that podman asks) uses these pairs and no other:
//! the blob was read, and its tar had that diff id; or it was packed here.
//!
//! ```text
//! ROOT/layer-blobs    lines of  HEX OF THE BLOB  SIZE IN BYTES  HEX OF THE DIFF ID     newest last
//! ```
//!
//! Invariants: a pair that was true stays true, so lines are added and never changed; who adds
//! one has the file locked (`flock`), and a line that a crash cut is no line; it is knowledge that
//! saves a transfer and nothing else, so where the file is absent or cannot be read there are no
//! pairs; beyond [`MOST`] bytes the older half goes, and what is of no layer of the store.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;

use strata_tree::{BlobDigest, DiffId};

use super::dir::StoreDir;
use crate::error::{IoContext, Result};
use crate::index::{self, shared::SharedIndex};
use crate::lock::{Lock, flock, still_there};

/// Bytes of the file: some thirty thousand pairs.
const MOST: usize = 4 << 20;

/// Blobs of layers. See the module.
#[derive(Clone, Copy)]
pub struct LayerBlobs<'s> {
    dir: &'s StoreDir,
    index: &'s SharedIndex,
}

/// A blob, its size in bytes, and the layer that it is.
type Pair = (BlobDigest, u64, DiffId);

impl<'s> LayerBlobs<'s> {
    pub(super) fn new(dir: &'s StoreDir, index: &'s SharedIndex) -> Self {
        Self { dir, index }
    }

    fn path(&self) -> PathBuf {
        self.dir.root().join("layer-blobs")
    }

    /// All pairs, the newest last; every layer's own tar among them, as it is without compression.
    ///
    /// # Errors
    /// `Sqlite`.
    pub fn all(&self) -> Result<Vec<Pair>> {
        let layers = index::layers(&self.index.lock().db)?;
        let plain = layers.iter().map(|layer| {
            let digest = BlobDigest::from_bytes(*layer.diff_id.as_bytes());
            (digest, layer.diff_size, layer.diff_id)
        });
        let text = match std::fs::read(self.path()) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                tracing::warn!("{}: {error}: no blob is known", self.path().display());
                Vec::new()
            }
        };
        Ok(plain.chain(text.split(|byte| *byte == b'\n').filter_map(pair)).collect())
    }

    /// Remembers that `layer` is the tar of that blob: somebody has read the whole of it.
    ///
    /// # Errors
    /// `Io`, `Sqlite`.
    pub fn remember(&self, layer: &DiffId, blob: &BlobDigest, size: u64) -> Result<()> {
        let path = self.path();
        let doing = || format!("cannot write {}", path.display());
        let mut file = self.locked()?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).doing(doing)?;
        let line = line(&(*blob, size, *layer));
        if text.split(|byte| *byte == b'\n').any(|known| known == line.as_bytes()) {
            return Ok(());
        }
        if text.len() + line.len() > MOST {
            return self.dir.write_aside(&path, &self.newer(&text, line)?);
        }
        // What a crash has cut ends here.
        let start = if text.last().is_none_or(|byte| *byte == b'\n') { "" } else { "\n" };
        file.write_all(format!("{start}{line}\n").as_bytes()).doing(doing)
    }

    /// The file, locked until it is closed.
    fn locked(&self) -> Result<File> {
        let path = self.path();
        loop {
            let file = File::options().create(true).append(true).read(true).open(&path);
            let file = file.doing(|| format!("cannot open {}", path.display()))?;
            flock(&file, Lock::Exclusive).doing(|| format!("cannot lock {}", path.display()))?;
            if still_there(&file, &path)? {
                return Ok(file);
            }
        }
    }

    /// The newer lines of layers that are there, and one more.
    fn newer(&self, text: &[u8], line: String) -> Result<Vec<u8>> {
        let there: HashSet<DiffId> = {
            let layers = index::layers(&self.index.lock().db)?;
            layers.iter().map(|record| record.diff_id).collect()
        };
        let pairs = text.split(|byte| *byte == b'\n').filter_map(pair);
        let kept =
            pairs.filter(|(.., layer)| there.contains(layer)).map(|known| self::line(&known));
        let kept: Vec<String> = kept.chain([line]).collect();
        let mut room = MOST / 2;
        let fits = kept.iter().rev().take_while(|line| {
            room = room.saturating_sub(line.len() + 1);
            room > 0
        });
        let old = kept.len() - fits.count();
        Ok((kept[old..].join("\n") + "\n").into_bytes())
    }
}

fn line((blob, size, layer): &Pair) -> String {
    format!("{} {size} {}", blob.hex(), layer.hex())
}

fn pair(line: &[u8]) -> Option<Pair> {
    let mut parts = std::str::from_utf8(line).ok()?.split(' ');
    let (blob, size, layer) = (parts.next()?, parts.next()?, parts.next()?);
    let pair =
        (BlobDigest::from_hex(blob).ok()?, size.parse().ok()?, DiffId::from_hex(layer).ok()?);
    parts.next().is_none().then_some(pair)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    struct Silent;

    impl crate::progress::Progress for Silent {
        fn event(&self, _: &str, _: crate::progress::Event) {}
        fn warning(&self, _: &str, _: &str) {}
    }

    fn blob(number: u32) -> BlobDigest {
        let mut bytes = [7; 32];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        BlobDigest::from_bytes(bytes)
    }

    #[test]
    fn a_line_that_a_crash_has_cut_is_no_line() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let (blobs, layer) = (store.layer_blobs(), DiffId::from_bytes([1; 32]));
        assert_eq!(blobs.all().unwrap(), []);
        blobs.remember(&layer, &blob(0), 10).unwrap();
        blobs.remember(&layer, &blob(0), 10).unwrap();
        assert_eq!(blobs.all().unwrap(), [(blob(0), 10, layer)]);
        let whole = std::fs::read(blobs.path()).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(blobs.path(), [&whole[..], &whole[..cut]].concat()).unwrap();
            blobs.remember(&layer, &blob(1), 11).unwrap();
            let all = blobs.all().unwrap();
            assert!(all.contains(&(blob(0), 10, layer)) && all.contains(&(blob(1), 11, layer)));
            assert!(all.iter().all(|(of, ..)| [blob(0), blob(1)].contains(of)), "cut at {cut}");
        }
        std::fs::write(blobs.path(), b"\xff\n\0\n  \nsha256:1 2 3\n").unwrap();
        assert_eq!(blobs.all().unwrap(), []);
    }

    #[test]
    fn the_file_is_bounded_and_the_newest_stay() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let blobs = store.layer_blobs();
        let tar = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(tar.path(), [0; 1024]).unwrap();
        let input = crate::store::LayerInput {
            label: "empty".to_owned(),
            diff_id: None,
            blob: None,
            reader: Box::new(File::open(tar.path()).unwrap()),
        };
        let there = *store.unpack(input, &Silent).unwrap().layer.diff_id();
        let gone = DiffId::from_bytes([2; 32]);
        // A layer that is there and one that is not, in turns, until it is full.
        let mut text = String::new();
        let mut number = 0;
        while text.len() + 200 < MOST {
            let layer = if number % 2 == 0 { there } else { gone };
            text += &(line(&(blob(number), 1, layer)) + "\n");
            number += 1;
        }
        std::fs::write(blobs.path(), text).unwrap();
        for more in 0..3 {
            blobs.remember(&there, &blob(number + more), 1).unwrap();
        }
        assert!(std::fs::metadata(blobs.path()).unwrap().len() < MOST as u64 * 3 / 5);
        let all = blobs.all().unwrap();
        assert!(all.len() > 1000 && all.iter().all(|(.., layer)| *layer == there));
        assert_eq!(all.last().unwrap().0, blob(number + 2));
    }
}
