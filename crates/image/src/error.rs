//! Everything that can go wrong between a file or directory and an image in the store.
//!
//! Invariant: each error names the source and the document, layer or reference in it, the cause,
//! and where there is one the way out. An error from loading means that nothing of the image that
//! it names was kept. It is one line, whatever the image has in its texts.

use std::borrow::Cow;
use std::path::PathBuf;

use strata_registry::{ReferenceError, RegistryError};
use strata_tree::{BlobDigest, ImageId};

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

pub use strata_trust::BoxError;

/// Why an image was not found, read, loaded or imported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name breaks the grammar.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The source is neither of the formats that hold images.
    #[error(
        "{label} holds no image: it has neither an index.json (OCI) nor a manifest.json \
         (docker save) list; a root file system as a plain tar is read by `strata import`{}",
        .hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default()
    )]
    NoFormat {
        /// The source.
        label: String,
        /// What it looks like instead.
        hint: Option<String>,
    },
    /// A directory was to be read as an archive, or the other way round.
    #[error("{}: not a file or directory that images are read from", .0.display())]
    WrongKind(PathBuf),
    /// The outer archive cannot be decompressed.
    #[error("{label} cannot be decompressed: {source}")]
    Compressed {
        /// The source.
        label: String,
        /// What is wrong, and where.
        source: strata_diff::stream::StreamError,
    },
    /// The two lists of images that an archive has are at odds.
    #[error(
        "{label}: its index.json and its manifest.json give the name {name} to different \
             images; docker-archive:{label} is what the latter says, oci-archive:{label} (for a \
             directory oci:) the former"
    )]
    TwoLists {
        /// The source.
        label: String,
        /// The name.
        name: String,
    },
    /// The outer tar is damaged.
    #[error("{label}: damaged archive at byte {offset}: {what}")]
    Archive {
        /// The archive.
        label: String,
        /// Where the header begins, in bytes of the uncompressed archive.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// A bound was passed.
    #[error("{label}: {what} is more than {limit}; raise it with {option} if you trust the source")]
    Limit {
        /// The source.
        label: String,
        /// What is too large, with its size and unit.
        what: String,
        /// The bound, in the same unit.
        limit: u64,
        /// The command-line option that sets it.
        option: &'static str,
    },
    /// A document or blob that another document names is absent.
    #[error("{label}: {wanted_by} names {path}, which is not there; the source is incomplete")]
    Missing {
        /// The source.
        label: String,
        /// The document that names it.
        wanted_by: String,
        /// Its path in the source.
        path: String,
    },
    /// A document that is not what the format says.
    #[error("{label}: {}: {}", plain(.document), plain(.why))]
    Document {
        /// The source.
        label: String,
        /// Which document.
        document: String,
        /// What is wrong.
        why: String,
    },
    /// A document of something else than an image.
    #[error(
        "{label}: {document}: it is an artifact (a signature, an attestation, a chart), not a \
         container image"
    )]
    Artifact {
        /// The source.
        label: String,
        /// Which document.
        document: String,
    },
    /// A document whose bytes are not those that its digest names.
    #[error("{label}: {document}: its digest is {actual}, expected {expected}; nothing was kept")]
    WrongDigest {
        /// The source.
        label: String,
        /// Which document.
        document: String,
        /// What the descriptor or the name says.
        expected: BlobDigest,
        /// What the bytes are.
        actual: BlobDigest,
    },
    /// A blob that is not as large as its descriptor says.
    #[error(
        "{label}: {document}: it has {actual} bytes, its descriptor says {expected}; \
         nothing was kept"
    )]
    WrongSize {
        /// The source.
        label: String,
        /// Which document or layer.
        document: String,
        /// What the descriptor says, in bytes; lies may be negative.
        expected: i64,
        /// What is there, in bytes.
        actual: u64,
    },
    /// Manifest and config disagree on the number of layers.
    #[error(
        "image {image}: the manifest has {layers} layers, the config's rootfs has {diff_ids} \
         diff ids; nothing was kept"
    )]
    LayerCount {
        /// The image as the user knows it.
        image: String,
        /// Layers in the manifest.
        layers: usize,
        /// Diff ids in the config.
        diff_ids: usize,
    },
    /// A layer that the image only points to.
    #[error(
        "image {image}: {layer} is foreign: its bytes are not in the source but at {}; save \
         the image with them (docker: allow-nondistributable-artifacts) and load that",
        plain(.urls)
    )]
    Foreign {
        /// The image as the user knows it.
        image: String,
        /// The layer's position and digest.
        layer: String,
        /// Where it says that the layer is.
        urls: String,
    },
    /// A layer that cannot be one.
    #[error("image {image}: {layer}: {}", plain(.why))]
    NotALayer {
        /// The image as the user knows it.
        image: String,
        /// The layer's position and digest.
        layer: String,
        /// What is wrong.
        why: String,
    },
    /// A layer that the store refused.
    #[error("image {image}: {layer}: {source}")]
    Layer {
        /// The image as the user knows it.
        image: String,
        /// The layer's position and digest.
        layer: String,
        /// The cause.
        source: Box<strata_layer::Error>,
    },
    /// A stack that does not merge.
    #[error("image {image}: its layers do not fit together: {source}; nothing was kept")]
    Stack {
        /// The image as the user knows it.
        image: String,
        /// The cause.
        source: BoxError,
    },
    /// No manifest for the platform.
    #[error(
        "{label}: no image for {wanted}; there is {}: choose with --platform", plain(.available)
    )]
    Platform {
        /// The source, with the index in it.
        label: String,
        /// What was asked for.
        wanted: String,
        /// What there is.
        available: String,
    },
    /// Text that is not a platform.
    #[error("{0:?} is not a platform: expected os/architecture or os/architecture/variant")]
    PlatformText(String),
    /// No image of the source has the wanted name.
    #[error("{label} has no image {wanted}; it has {}", plain(.available))]
    NoSuchName {
        /// The source.
        label: String,
        /// What was asked for.
        wanted: String,
        /// What there is.
        available: String,
    },
    /// One new name for several images.
    #[error("{label} holds {count} images; {name} can name only one: choose one with its tag")]
    OneName {
        /// The source.
        label: String,
        /// How many there are.
        count: usize,
        /// The new name.
        name: String,
    },
    /// One image is wanted, and the source does not say which.
    #[error(
        "{label} holds several images: choose one of {} by writing :NAME after it",
        plain(.available)
    )]
    Several {
        /// The source.
        label: String,
        /// What there is.
        available: String,
    },
    /// A new name cannot have a digest.
    #[error("{0} has a digest; a new name is a repository and a tag")]
    NameWithDigest(String),
    /// No image by that name or id.
    #[error(
        "no image {text:?} in the store; {}",
        if similar.is_empty() {
            "`strata images` lists what there is".to_owned()
        } else {
            format!("of that repository it has {}", similar.join(", "))
        }
    )]
    NoImage {
        /// What was given.
        text: String,
        /// Names of the same repository that there are.
        similar: Vec<String>,
    },
    /// An id prefix that several images share.
    #[error("{text:?} is the beginning of several image ids: {}", list(.candidates))]
    Ambiguous {
        /// What was given.
        text: String,
        /// The images that it could be.
        candidates: Vec<ImageId>,
    },
    /// Signatures are to go along, and would be of no use.
    #[error("the signatures of {image} cannot go along: {why}; say --signatures none")]
    Signatures {
        /// The image.
        image: String,
        /// Why not.
        why: String,
    },
    /// Registries did not do what they were asked, or cannot be asked as they are configured.
    #[error(transparent)]
    Registry(#[from] strata_registry::Error),
    /// The policy does not let the image in.
    #[error(transparent)]
    Trust(#[from] strata_trust::Error),
    /// The policy does not let in one of the images of an index.
    #[error("image {manifest} of the index: {source}")]
    TrustOfOne {
        /// The image's manifest.
        manifest: BlobDigest,
        /// The cause.
        source: Box<strata_trust::Error>,
    },
    /// The store did not do what it was asked.
    #[error(transparent)]
    Store(#[from] strata_layer::Error),
}

impl Error {
    /// Wraps an operating system error with what was being done.
    pub(crate) fn io(what: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        Self::Io { what: what.into(), source: source.into() }
    }

    /// Whether there is no image of ours: an artifact, or images for other platforms alone.
    pub fn is_no_image(&self) -> bool {
        matches!(self, Self::Artifact { .. } | Self::Platform { .. })
    }

    pub(crate) fn document(label: &str, document: &str, why: impl Into<String>) -> Self {
        Self::Document { label: label.to_owned(), document: document.to_owned(), why: why.into() }
    }
}

impl From<Box<RegistryError>> for Error {
    fn from(error: Box<RegistryError>) -> Self {
        Self::Registry(error.into())
    }
}

impl From<RegistryError> for Error {
    fn from(error: RegistryError) -> Self {
        Box::new(error).into()
    }
}

fn list(ids: &[ImageId]) -> String {
    ids.iter().map(ImageId::short).collect::<Vec<_>>().join(", ")
}

/// What an image says, on one line and with nothing that a terminal obeys.
fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::new();
    for c in text.chars() {
        match c.is_control() {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    Cow::Owned(shown)
}
