//! Where an image is, as skopeo and podman write it.
//!
//! ```text
//! docker://REF                a registry
//! oci:DIR[:REF]               an OCI layout directory
//! oci-archive:FILE[:REF]      the same as a tar
//! docker-archive:FILE[:REF]   what `docker save` writes
//! strata:IMAGE                the store
//! ```
//!
//! Invariant: the prefix decides; the caller decides what a text without one means.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::spec::{List, SourceSpec};
use strata_registry::{Reference, ReferenceError};
use strata_trust::{FileTransport, ImagePlace};

/// How images lie in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFormat {
    /// A directory with an OCI layout.
    OciDirectory,
    /// A tar with an OCI layout.
    OciArchive,
    /// What `docker save` writes.
    DockerArchive,
}

impl ImageFormat {
    fn prefix(self) -> &'static str {
        match self {
            Self::OciDirectory => "oci:",
            Self::OciArchive => "oci-archive:",
            Self::DockerArchive => "docker-archive:",
        }
    }
}

/// Where an image is, or is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// In a registry.
    Registry(Reference),
    /// In the store, by name or id.
    Stored(String),
    /// In a file or directory.
    Files {
        /// How it lies there.
        format: ImageFormat,
        /// The file or directory.
        path: PathBuf,
        /// The tag or reference of the image there.
        name: Option<String>,
    },
}

/// Text that is not a location.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// A prefix of another tool.
    #[error(
        "{0:?}: {1}: is not a place that images are copied from or to; use docker://REF, \
         oci:DIR[:REF], oci-archive:FILE[:REF], docker-archive:FILE[:REF] or strata:IMAGE"
    )]
    Transport(String, String),
    /// Nothing after the prefix.
    #[error("{0:?} names no file or image")]
    Empty(String),
    /// A registry without a usable name.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
}

/// What other tools understand and strata does not.
const FOREIGN: [&str; 7] =
    ["containers-storage", "docker-daemon", "dir", "ostree", "sif", "tarball", "atomic"];

impl Location {
    /// Reads a location; `None` if the text has no prefix.
    ///
    /// # Errors
    /// `LocationError`.
    pub fn parse(text: &str) -> Result<Option<Self>, LocationError> {
        if let Some(name) = text.strip_prefix("docker://") {
            return Ok(Some(Self::Registry(name.parse()?)));
        }
        let empty = || LocationError::Empty(text.to_owned());
        if let Some(name) = text.strip_prefix("strata:") {
            let named = (!name.is_empty()).then(|| Self::Stored(name.to_owned()));
            return named.map(Some).ok_or_else(empty);
        }
        for format in
            [ImageFormat::OciDirectory, ImageFormat::OciArchive, ImageFormat::DockerArchive]
        {
            let Some(rest) = text.strip_prefix(format.prefix()) else { continue };
            // A path with a colon can be given if it is there.
            let (path, name) = match rest.split_once(':') {
                Some((path, name)) if !name.is_empty() && !Path::new(rest).exists() => {
                    (path, Some(name.to_owned()))
                }
                _ => (rest, None),
            };
            if path.is_empty() {
                return Err(empty());
            }
            return Ok(Some(Self::Files { format, path: path.into(), name }));
        }
        match text.split_once(':') {
            Some((prefix, _)) if FOREIGN.contains(&prefix) => {
                Err(LocationError::Transport(text.to_owned(), prefix.to_owned()))
            }
            _ => Ok(None),
        }
    }

    /// What policies call the place; `None` for the store, which they do not know.
    pub fn place(&self) -> Option<ImagePlace> {
        let Self::Files { format, path, .. } = self else {
            let Self::Registry(reference) = self else { return None };
            return Some(ImagePlace::registry(reference));
        };
        let transport = match format {
            ImageFormat::OciDirectory => FileTransport::Oci,
            ImageFormat::OciArchive => FileTransport::OciArchive,
            ImageFormat::DockerArchive => FileTransport::DockerArchive,
        };
        Some(ImagePlace::files(transport, Some(&real_path(path))))
    }

    /// What to read if this is a file or directory.
    pub(crate) fn source(format: ImageFormat, path: &Path, name: Option<&str>) -> SourceSpec {
        let spec = SourceSpec::path(path).with_list(match format {
            ImageFormat::OciDirectory | ImageFormat::OciArchive => List::Oci,
            ImageFormat::DockerArchive => List::Docker,
        });
        match name {
            Some(name) => spec.only(name),
            None => spec,
        }
    }
}

/// The path without symbolic links; what cannot be resolved stays as it is.
pub(crate) fn real_path(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => write!(f, "docker://{}", reference.familiar()),
            Self::Stored(name) => write!(f, "strata:{name}"),
            Self::Files { format, path, name } => {
                write!(f, "{}{}", format.prefix(), path.display())?;
                name.as_ref().map_or(Ok(()), |name| write!(f, ":{name}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_decide() {
        let files = |format, path: &str, name: Option<&str>| {
            Some(Location::Files { format, path: path.into(), name: name.map(Into::into) })
        };
        for (text, expected) in [
            ("docker://x", Some(Location::Registry("x:latest".parse().unwrap()))),
            ("oci:d", files(ImageFormat::OciDirectory, "d", None)),
            ("oci:d:1", files(ImageFormat::OciDirectory, "d", Some("1"))),
            (
                "oci-archive:a/b.tar:h:5/x:1",
                files(ImageFormat::OciArchive, "a/b.tar", Some("h:5/x:1")),
            ),
            ("docker-archive:x.tar:", files(ImageFormat::DockerArchive, "x.tar:", None)),
            ("strata:x:1", Some(Location::Stored("x:1".into()))),
            ("ubuntu:24.04", None),
            ("localhost:5000/x", None),
        ] {
            assert_eq!(Location::parse(text).unwrap(), expected, "{text}");
        }
        for bad in ["docker://", "docker://A", "oci:", "strata:", "oci::x", "dir:x"] {
            assert!(Location::parse(bad).is_err(), "{bad}");
        }
        let shown = Location::parse("oci:d:1").unwrap().unwrap();
        assert_eq!(shown.to_string(), "oci:d:1");
    }
}
