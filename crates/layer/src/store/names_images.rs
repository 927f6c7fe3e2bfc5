//! Images of names for the kernel, kept beside the compiled trees.
//!
//! ```text
//! trees/<chain id>.erofs    what the writer made, whole blocks of 4,096 bytes
//!                           seal, the last block: "strata names 1\n", the chain id, "\n",
//!                           the sha256 of all before the seal, "\n", "fs-verity\n" if it has
//!                           the fs-verity digest of each content, zeros
//! ```
//!
//! The seal lies behind the end that the image itself names, so the kernel does not see it.
//!
//! Invariants: a file has its name once it is whole and on disk; it is derived, and made again
//! where its seal is not what it should be; a file that is mounted is replaced, never changed.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use strata_tree::ChainId;

use super::dir::StoreDir;
use crate::error::{Error, IoContext, Result};

/// Bytes of the seal.
const SEAL: usize = 4096;
/// The form of what is written; another number is another file.
const VERSION: &str = "strata names 1";

/// Which image of names is wanted, or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamesKind {
    /// One that need not have fs-verity digests.
    Any,
    /// One that has the fs-verity digest of each content.
    Sealed,
}

impl NamesKind {
    /// The seal's line.
    const fn line(self) -> &'static str {
        match self {
            Self::Any => "",
            Self::Sealed => "fs-verity\n",
        }
    }
}

/// The images of names of a store.
pub struct NamesImages<'s>(pub(super) &'s StoreDir);

impl NamesImages<'_> {
    /// Where the image of that chain is, or would be.
    pub fn path(&self, chain: &ChainId) -> PathBuf {
        self.0.names_image(chain)
    }

    /// The image of that chain; `None` if there is none, or one of another form.
    ///
    /// # Errors
    /// `Io`.
    pub fn open(&self, chain: &ChainId, kind: NamesKind) -> Result<Option<File>> {
        let path = self.path(chain);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).doing(|| format!("cannot open {}", path.display())),
        };
        let sealed = seal_of(&file).doing(|| format!("cannot read {}", path.display()))?;
        let right = sealed
            .is_some_and(|(_, text)| text.starts_with(&head(chain)) && text.ends_with(kind.line()));
        Ok(right.then_some(file))
    }

    /// Makes the image of that chain with `write`, which gets an empty file, and opens it.
    ///
    /// # Errors
    /// `Io`, and what `write` says.
    pub fn put<E: From<Error>>(
        &self,
        chain: &ChainId,
        kind: NamesKind,
        write: impl FnOnce(&File) -> std::result::Result<(), E>,
    ) -> std::result::Result<File, E> {
        let target = self.path(chain);
        let doing = || format!("cannot write {}", target.display());
        let mut opened = None;
        self.0.put_derived::<E>(&target, |file| {
            write(file)?;
            let end = file.metadata().doing(doing)?.len().next_multiple_of(SEAL as u64);
            let digest = digest(file, end).doing(doing)?;
            let mut seal = format!("{}{digest}\n{}", head(chain), kind.line()).into_bytes();
            seal.resize(SEAL, 0);
            file.write_all_at(&seal, end).doing(doing)?;
            // The one that was written is open for writing, and locked. By its name it cannot be
            // relied on: a collection takes what no image has.
            opened = File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).ok();
            Ok(())
        })?;
        match opened {
            Some(opened) => Ok(opened),
            None => Ok(File::open(&target).doing(doing)?),
        }
    }
}

/// What is wrong with an image of names; `None` if nothing is.
pub(super) fn fault(path: &Path) -> Option<String> {
    let looked = File::open(path).and_then(|file| {
        let Some((end, text)) = seal_of(&file)? else { return Ok(Some("it has no seal".into())) };
        let said = text.lines().nth(2).unwrap_or_default().to_owned();
        let digest = digest(&file, end)?;
        Ok((said != digest).then(|| format!("its sha256 is {digest}, not {said}")))
    });
    looked.unwrap_or_else(|error| Some(error.to_string()))
}

fn head(chain: &ChainId) -> String {
    format!("{VERSION}\n{chain}\n")
}

/// The end of what the seal is of, and the seal's text; `None` where there is no seal.
fn seal_of(file: &File) -> std::io::Result<Option<(u64, String)>> {
    let Some(end) = file.metadata()?.len().checked_sub(SEAL as u64) else { return Ok(None) };
    let mut seal = vec![0; SEAL];
    file.read_exact_at(&mut seal, end)?;
    let text: Vec<u8> = seal.into_iter().take_while(|byte| *byte != 0).collect();
    Ok(String::from_utf8(text).ok().filter(|_| end % SEAL as u64 == 0).map(|text| (end, text)))
}

fn digest(file: &File, end: u64) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    let mut at = 0;
    while at < end {
        let wanted = piece.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
        let part = &mut piece[..wanted];
        let read = file.read_at(part, at)?;
        // Beyond the end of what was written are zeros, up to the seal's block.
        part[read..].fill(0);
        let step = if read == 0 { wanted } else { read };
        hash.update(&part[..step]);
        at += step as u64;
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn what_was_written_is_open_also_where_a_collection_takes_it_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let (names, chain) = (store.names_images(), ChainId::from_bytes([1; 32]));
        let path = names.path(&chain);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for _ in 0..200 {
                    let write = |file: &File| file.write_all_at(b"names", 0).doing(String::new);
                    let file = names.put(&chain, NamesKind::Any, write).unwrap();
                    let (end, text) = seal_of(&file).unwrap().unwrap();
                    assert!(end == SEAL as u64 && text.starts_with(&head(&chain)));
                }
            });
            while !writer.is_finished() {
                let _ = std::fs::remove_file(&path);
            }
        });
    }
}
