//! Which entries of an image programs disagree on, and what some of them cannot keep.
//!
//! The model: the members of each layer are read once, base first, beside the names that the
//! layers below have. A [`LintFinding`] is a check that a member meets. Nothing is unpacked, and no
//! body is kept.
//!
//! Invariants: a layer is judged alone and above those below it, as programs unpack it; a layer
//! whose bytes are not those that the image names is an error, not a finding; memory is a few dozen
//! bytes and the path for each name.

mod checks;
mod layer;

use std::collections::BTreeMap;

use strata_diff::stream::{self, Compression};
use strata_diff::tar::{DiffError, DiffReader, RawSink};
use strata_layer::{Event, LayerInput, Limits, Progress};

pub use checks::{CHECKS, Check, LintClass};
use layer::{LayerLint, NameFacts};

/// A check that a member meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LintFinding {
    /// Which check.
    pub check: &'static Check,
    /// The layer's label.
    pub layer: String,
    /// The path as the archive has it; empty where the finding is about the layer.
    pub path: Vec<u8>,
    /// What is special here: a target, an attribute, a number.
    pub detail: String,
    /// Bytes that it is about, of [`LintClass::Space`].
    pub bytes: u64,
}

/// The names of the layers so far, and what was found in them.
#[derive(Debug, Default)]
pub struct ImageLint {
    names: BTreeMap<Vec<u8>, NameFacts>,
    layers: Vec<String>,
    found: Vec<LintFinding>,
}

impl ImageLint {
    /// Nothing read.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the next layer, base first.
    ///
    /// # Errors
    /// If it cannot be read, passes a bound, or its bytes are not what the input says.
    pub fn layer(
        &mut self,
        input: LayerInput<'_>,
        limits: &Limits,
        progress: &dyn Progress,
    ) -> strata_layer::Result<()> {
        let LayerInput { label, diff_id, blob, reader } = input;
        progress.event(&label, Event::Started { total: blob.map(|(_, size)| size) });
        let report = |bytes| progress.event(&label, Event::Read { bytes });
        let (read, facts) = stream::decompress(reader, &label, limits, &report, |tar| {
            let mut lint = LayerLint::new(&label, &self.names);
            let refused = read_members(tar, &label, limits, &mut lint)?;
            Ok::<_, DiffError>((lint.finish(), refused))
        })
        .map_err(strata_diff::Error::from)?;
        let (changes, refused) = read;
        if let Some(wrong) = wrong_bytes(&label, diff_id, blob, &facts) {
            return Err(wrong);
        }
        progress.event(&label, Event::Done);
        self.layers.push(label.clone());
        let number = self.layers.len() - 1;
        self.found.extend(changes.found);
        self.found.extend(unusual(facts.compression).map(|form| LintFinding {
            check: &checks::COMPRESSION,
            layer: label.clone(),
            path: Vec::new(),
            detail: form.to_owned(),
            bytes: 0,
        }));
        self.found.extend(refused.map(|detail| LintFinding {
            check: &checks::REFUSED,
            layer: label,
            path: Vec::new(),
            detail,
            bytes: 0,
        }));
        for path in changes.gone {
            self.remove(&path, false);
        }
        for path in changes.emptied {
            self.remove(&path, true);
        }
        for (path, mut facts) in changes.names {
            facts.layer = number;
            let keeps = facts.is_dir() && self.names.get(&path).is_some_and(NameFacts::is_dir);
            if !keeps {
                self.remove(&path, false);
            }
            self.names.insert(path, facts);
        }
        Ok(())
    }

    /// All that was found, the gravest first.
    #[must_use]
    pub fn finish(mut self) -> Vec<LintFinding> {
        self.found
            .sort_by(|a, b| a.check.class.cmp(&b.check.class).then(a.check.id.cmp(b.check.id)));
        self.found
    }

    /// Takes away a name and all below it, or only what is below.
    fn remove(&mut self, path: &[u8], is_opaque: bool) {
        let mut below: Vec<Vec<u8>> = Vec::new();
        let prefix = if path.is_empty() { Vec::new() } else { [path, b"/"].concat() };
        for (name, _) in self.names.range(prefix.clone()..) {
            if !name.starts_with(&prefix) {
                break;
            }
            below.push(name.clone());
        }
        if !is_opaque {
            below.push(path.to_vec());
        }
        for name in below {
            if let Some(facts) = self.names.remove(&name)
                && facts.size > 0
            {
                self.found.push(LintFinding {
                    check: &checks::HIDDEN_LATER,
                    layer: self.layers[facts.layer].clone(),
                    path: name,
                    detail: format!("{} bytes", facts.size),
                    bytes: facts.size,
                });
            }
        }
    }
}

/// Keeps no header, and counts the global ones.
#[derive(Default)]
struct GlobalHeaders {
    seen: u64,
}

impl RawSink for GlobalHeaders {
    fn raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        // pax(1), "ustar Header Block": the type, and the magic.
        let is_global =
            bytes.len() == 512 && bytes[156] == b'g' && bytes[257..].starts_with(b"ustar");
        self.seen += u64::from(is_global);
        Ok(())
    }
}

/// Reads all members, and says why the rest cannot be read.
fn read_members(
    tar: &mut stream::TarStream,
    label: &str,
    limits: &Limits,
    lint: &mut LayerLint<'_>,
) -> Result<Option<String>, DiffError> {
    let mut reader = DiffReader::new(tar, label.to_owned(), *limits, GlobalHeaders::default());
    let mut body = vec![0; 1 << 16];
    let mut read = || -> Result<(), DiffError> {
        while let Some(member) = reader.next()? {
            lint.member(&member);
            while reader.read_body(&mut body)? > 0 {}
        }
        Ok(())
    };
    match read() {
        Ok(()) => {
            let (_, globals) = reader.finish()?;
            lint.global_headers(globals.seen);
            Ok(None)
        }
        Err(
            error @ (DiffError::Malformed { .. }
            | DiffError::Ambiguous { .. }
            | DiffError::Unsupported { .. }),
        ) => Ok(Some(error.to_string())),
        Err(error) => Err(error),
    }
}

/// The name of a form of compression that some programs do not read.
fn unusual(compression: Compression) -> Option<&'static str> {
    match compression {
        Compression::None | Compression::Gzip => None,
        Compression::Zstd => Some("zstd"),
        Compression::Xz => Some("xz"),
        Compression::Bzip2 => Some("bzip2"),
    }
}

/// The error of a layer that is not the one that the image names.
fn wrong_bytes(
    label: &str,
    diff_id: Option<strata_tree::DiffId>,
    blob: Option<(strata_tree::BlobDigest, u64)>,
    facts: &stream::StreamFacts,
) -> Option<strata_layer::Error> {
    let wrong = diff_id.is_some_and(|wanted| wanted != facts.diff_id)
        || blob.is_some_and(|(digest, size)| (digest, size) != (facts.blob, facts.blob_size));
    wrong.then(|| {
        strata_layer::Error::io(
            format!("layer {label}: cannot be judged"),
            std::io::Error::other("its bytes are not those that the image names"),
        )
    })
}
