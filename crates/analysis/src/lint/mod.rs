//! Which entries of an image programs disagree on, and what some of them cannot keep.
//!
//! The model: the members of each layer are read once, base first, beside the names that the
//! layers below have. A [`LintFinding`] is a check that a member meets. Nothing is unpacked, and no
//! body is kept; [`ImageLint::headers`] does not even read those of a plain layer in a file.
//!
//! Invariants: a layer is judged alone and above those below it, as programs unpack it; a layer
//! whose bytes are not those that the image names is an error of [`ImageLint::layer`], never a
//! finding, and [`ImageLint::headers`] does not see it; memory is a few dozen
//! bytes and the path for each name, and a number for each directory above it; no path passes
//! the bounds that unpacking has.

mod begun;
mod checks;
mod layer;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use strata_diff::stream::{self, Compression};
pub use strata_diff::stream::{ReadThrough, SkipRead};
use strata_diff::tar::{DiffError, DiffReader, RawSink};
use strata_layer::{Event, LayerInput, Limits, Progress};

pub use checks::{CHECKS, Check, LintClass};
use layer::{DirectoryAttributes, LayerChanges, LayerLint, NameFacts};

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
    /// Bytes that it is about, of [`LintClass::Space`]; those of a file count at its last name.
    pub bytes: u64,
}

/// The names of the layers so far, and what was found in them.
#[derive(Debug, Default)]
pub struct ImageLint {
    names: BTreeMap<Vec<u8>, NameFacts>,
    /// How many names each file has that was linked: [`NameFacts::file`] counts from one.
    linked: Vec<u64>,
    attributes: DirectoryAttributes,
    layers: Vec<String>,
    /// The label and the compression of the last layer.
    last: Option<(String, Compression)>,
    /// Whether a layer has an entry for the root.
    has_root: bool,
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
            let mut lint = LayerLint::new(&label, limits, &self.names, &self.attributes);
            let refused = read_members(ReadThrough(tar), &label, limits, &mut lint)?;
            Ok::<_, DiffError>((lint.finish(), refused))
        })
        .map_err(strata_diff::Error::from)?;
        if let Some(wrong) = wrong_bytes(&label, diff_id, blob, &facts) {
            return Err(wrong);
        }
        progress.event(&label, Event::Done);
        self.judged(label, read, facts.compression);
        Ok(())
    }

    /// Reads the headers of the next layer, base first: of `size` transported bytes, if that is
    /// known. Nothing says whether these are the bytes that the image names.
    ///
    /// # Errors
    /// If it cannot be read or passes a bound.
    pub fn headers(
        &mut self,
        label: String,
        reader: Box<dyn SkipRead + Send + '_>,
        size: Option<u64>,
        limits: &Limits,
        progress: &dyn Progress,
    ) -> strata_layer::Result<()> {
        progress.event(&label, Event::Started { total: size });
        let report = |bytes| progress.event(&label, Event::Read { bytes });
        let (read, compression) = stream::skim(reader, &label, limits, &report, |tar| {
            let mut lint = LayerLint::new(&label, limits, &self.names, &self.attributes);
            let refused = read_members(tar, &label, limits, &mut lint)?;
            Ok::<_, DiffError>((lint.finish(), refused))
        })
        .map_err(strata_diff::Error::from)?;
        progress.event(&label, Event::Done);
        self.judged(label, read, compression);
        Ok(())
    }

    /// Keeps what was found in a layer, and applies it to the names.
    fn judged(
        &mut self,
        label: String,
        (changes, refused): (LayerChanges, Option<String>),
        compression: Compression,
    ) {
        self.layers.push(label.clone());
        self.last = Some((label.clone(), compression));
        let number = self.layers.len() - 1;
        self.found.extend(changes.found);
        self.found.extend(unusual(compression).map(|form| LintFinding {
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
        self.has_root |= changes.names.contains_key(b"".as_slice());
        let mut names = changes.names;
        names.values_mut().for_each(|facts| facts.layer = number);
        if self.names.is_empty() {
            self.names = std::mem::take(&mut names);
        }
        for (path, facts) in names {
            // A directory leaves what is in it, also where it had no entry before.
            if !facts.is_dir() && self.is_inside(&path) {
                self.remove(&path, true);
            }
            if let Some(old) = self.names.insert(path.clone(), facts)
                && !old.is_dir()
            {
                self.hidden(path, old);
            }
        }
        for (path, target) in changes.links {
            self.link(&path, &target);
        }
        self.attributes.extend(changes.attributes);
    }

    /// Notes that a hard link is a further name of its target's bytes.
    fn link(&mut self, path: &[u8], target: &[u8]) {
        let Some(shared) = self.names.get(target).copied().filter(NameFacts::has_bytes) else {
            return;
        };
        // Another member of this name may have come after the link.
        if !self.names.get(path).is_some_and(NameFacts::is_bare_link) {
            return;
        }
        let file = shared.file.or_else(|| {
            self.linked.push(1);
            NonZeroU32::new(u32::try_from(self.linked.len()).ok()?)
        });
        let Some(count) = file.and_then(|file| self.linked.get_mut(file.get() as usize - 1)) else {
            return;
        };
        *count += 1;
        let (size, layer) = (shared.size, shared.layer);
        for name in [path, target] {
            if let Some(facts) = self.names.get_mut(name) {
                (facts.file, facts.size, facts.layer) = (file, size, layer);
            }
        }
    }

    /// Told the media type of the layer that was read last, as its image has it.
    pub fn media_type(&mut self, media_type: &str) {
        let Some((layer, compression)) = self.last.clone() else { return };
        let mut add = |check, detail: String| {
            let layer = layer.clone();
            self.found.push(LintFinding { check, layer, path: Vec::new(), detail, bytes: 0 });
        };
        if claimed(media_type).is_some_and(|claimed| claimed != compression) {
            add(
                &checks::MEDIA_TYPE,
                format!("{media_type}, and the bytes are {}", name(compression)),
            );
        }
        if media_type.starts_with("application/vnd.docker.") {
            add(&checks::MEDIA_TYPE_OF_DOCKER, media_type.to_owned());
        }
    }

    /// All that was found, the gravest first.
    #[must_use]
    pub fn finish(mut self) -> Vec<LintFinding> {
        if let Some(base) = self.layers.first()
            && !self.has_root
        {
            self.found.push(LintFinding {
                check: &checks::ROOT_NOT_DESCRIBED,
                layer: base.clone(),
                path: Vec::new(),
                detail: String::new(),
                bytes: 0,
            });
        }
        self.found
            .sort_by(|a, b| a.check.class.cmp(&b.check.class).then(a.check.id.cmp(b.check.id)));
        self.found
    }

    /// Whether a name lies below the path.
    fn is_inside(&self, path: &[u8]) -> bool {
        let prefix = [path, b"/"].concat();
        let next = self.names.range(prefix.clone()..).next();
        next.is_some_and(|(name, _)| name.starts_with(&prefix))
    }

    /// Notes that a name is seen no more: the last one of its bytes takes them along.
    fn hidden(&mut self, path: Vec<u8>, facts: NameFacts) {
        let file = facts.file.map(|file| file.get() as usize - 1);
        let left = file.and_then(|file| self.linked.get_mut(file)).map_or(0, |names| {
            *names = names.saturating_sub(1);
            *names
        });
        if facts.size > 0 && left == 0 {
            self.found.push(LintFinding {
                check: &checks::HIDDEN_LATER,
                layer: self.layers[facts.layer].clone(),
                path,
                detail: format!("{} bytes", facts.size),
                bytes: facts.size,
            });
        }
    }

    /// Takes away a name and all below it, or only what is below.
    fn remove(&mut self, path: &[u8], is_opaque: bool) {
        if self.names.is_empty() {
            return;
        }
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
            if let Some(facts) = self.names.remove(&name) {
                self.hidden(name, facts);
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
    tar: impl SkipRead,
    label: &str,
    limits: &Limits,
    lint: &mut LayerLint<'_>,
) -> Result<Option<String>, DiffError> {
    let mut reader = DiffReader::new(tar, label.to_owned(), *limits, GlobalHeaders::default());
    let mut read = || -> Result<(), DiffError> {
        while let Some(member) = reader.next()? {
            lint.member(&member)?;
            reader.skip_body()?;
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

fn name(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "a plain tar",
        Compression::Gzip => "gzip",
        Compression::Zstd => "zstd",
        Compression::Xz => "xz",
        Compression::Bzip2 => "bzip2",
    }
}

/// The name of a form of compression that some programs do not read.
fn unusual(compression: Compression) -> Option<&'static str> {
    let is_usual = matches!(compression, Compression::None | Compression::Gzip);
    (!is_usual).then(|| name(compression))
}

/// The compression that a media type claims; none if it claims none that is known.
fn claimed(media_type: &str) -> Option<Compression> {
    match media_type.rsplit_once(['+', '.'])?.1 {
        "tar" => Some(Compression::None),
        "gzip" => Some(Compression::Gzip),
        "zstd" => Some(Compression::Zstd),
        _ => None,
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
