//! All manifests of a document that a reader with other rules than ours may choose.
//!
//! Invariants: no mark of an entry leaves it out, but a platform that no machine has; what cannot
//! be followed to its end is an error, and so is a document that leads to no manifest.

use std::collections::HashSet;

use strata_tree::BlobDigest;

use super::{Descriptor, Parsed, Top, missing, parse};
use crate::error::{Error, Result};
use crate::limits;
use crate::media::MediaKind;
use crate::platform::Platform;
use crate::source::Blobs;

/// Manifests and indexes that one document may lead to.
const MOST: usize = 128;

/// The digests of the manifests that a document leads to, of every platform and each once. A
/// manifest leads to itself.
///
/// # Errors
/// `Document` if there is none or there are too many; everything that indexes are refused for.
pub(crate) fn choices(source: &dyn Blobs, top: Top) -> Result<Vec<BlobDigest>> {
    let name = format!("index {}", top.digest);
    let mut choices = Choices { source, seen: HashSet::new(), found: Vec::new() };
    choices.follow(top, limits::INDEX_DEPTH)?;
    match choices.found.is_empty() {
        true => Err(Error::document(source.label(), &name, "it lists no image")),
        false => Ok(choices.found),
    }
}

struct Choices<'a> {
    source: &'a dyn Blobs,
    /// What entries name, and whether as something that may be an index.
    seen: HashSet<(BlobDigest, bool)>,
    found: Vec<BlobDigest>,
}

impl Choices<'_> {
    fn follow(&mut self, document: Top, depth: usize) -> Result<()> {
        let Top { digest, kind, bytes } = document;
        let (source, name) = (self.source, format!("manifest {digest}"));
        let bad = |why: String| Err(Error::document(source.label(), &name, why));
        let entries = match parse(source.label(), &name, &bytes, kind)? {
            Parsed::Manifest { .. } => {
                self.add(digest);
                return Ok(());
            }
            Parsed::Index(_) if depth == 0 => {
                return bad("indexes are nested too deeply".to_owned());
            }
            Parsed::Index(entries) => entries,
        };
        drop(bytes);
        for entry in entries.iter().filter(|entry| !is_for_no_machine(entry)) {
            let digest = entry.check(source.label(), &name)?;
            let kind = MediaKind::of(&entry.media_type);
            let may_be_index = matches!(kind, MediaKind::Index | MediaKind::Unsaid);
            if !self.seen.insert((digest, may_be_index)) {
                continue;
            }
            if self.seen.len() > MOST {
                return bad(format!("it leads to more than {MOST} manifests and indexes"));
            }
            if !may_be_index {
                // Its digest is all that is needed, whatever it turns out to be.
                self.add(digest);
                continue;
            }
            let bytes = source.manifest(&format!("manifest {digest}"), digest, entry.size)?;
            let bytes = bytes.ok_or_else(|| missing(source, &name, digest))?;
            self.follow(Top { digest, kind, bytes }, depth - 1)?;
        }
        Ok(())
    }

    fn add(&mut self, digest: BlobDigest) {
        if !self.found.contains(&digest) {
            self.found.push(digest);
        }
    }
}

/// BuildKit marks attestations so.
fn is_for_no_machine(entry: &Descriptor) -> bool {
    entry.platform().is_some_and(Platform::is_unknown)
}
