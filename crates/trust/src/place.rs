//! Where an image comes from, as policies name it: a transport and a scope in it.
//!
//! ```text
//! docker       HOST/PATH:TAG or HOST/PATH@DIGEST, then HOST/PATH and each parent, then
//!              *.DOMAIN for each parent domain of the host
//! oci,         the absolute path without symbolic links, then each parent directory
//! oci-archive
//! docker-archive  no scopes
//! ```
//! (containers-policy.json(5), "Supported transports and their scopes".)
//!
//! Invariant: the scopes come from the narrowest to the widest; `""`, which stands for the whole
//! transport, is not among them.

use std::fmt;
use std::path::Path;

use strata_registry::Reference;

/// How files hold images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileTransport {
    /// A directory with an OCI layout.
    Oci,
    /// A tar with an OCI layout.
    OciArchive,
    /// What `docker save` writes.
    DockerArchive,
}

impl FileTransport {
    fn name(self) -> &'static str {
        match self {
            Self::Oci => "oci",
            Self::OciArchive => "oci-archive",
            Self::DockerArchive => "docker-archive",
        }
    }
}

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePlace {
    transport: &'static str,
    scopes: Vec<String>,
    name: Option<Reference>,
}

impl ImagePlace {
    /// An image of a registry. With a digest the tag does not count.
    pub fn registry(reference: &Reference) -> Self {
        let name = match reference.digest() {
            Some(digest) => reference.with_digest(digest),
            None => reference.clone(),
        };
        let mut scopes = vec![name.to_string()];
        scopes.extend(repository_scopes(&name));
        Self { transport: "docker", scopes, name: Some(name) }
    }

    /// An image of a file or directory. `path` is absolute and without symbolic links; `None` for
    /// what has no path.
    pub fn files(transport: FileTransport, path: Option<&Path>) -> Self {
        let mut scopes = Vec::new();
        if transport != FileTransport::DockerArchive {
            let mut next = path;
            while let Some(path) = next.filter(|path| path.parent().is_some()) {
                scopes.push(path.to_string_lossy().into_owned());
                next = path.parent();
            }
        }
        Self { transport: transport.name(), scopes, name: None }
    }

    /// What policies call the kind of place.
    pub fn transport(&self) -> &'static str {
        self.transport
    }

    /// The scopes that it is in, narrowest first.
    pub fn scopes(&self) -> &[String] {
        &self.scopes
    }

    /// The image's name, if the place gives it one.
    pub fn name(&self) -> Option<&Reference> {
        self.name.as_ref()
    }
}

impl fmt::Display for ImagePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scope = self.scopes.first().map(String::as_str).unwrap_or_default();
        match self.transport {
            "docker" => write!(f, "docker://{scope}"),
            other => write!(f, "{other}:{scope}"),
        }
    }
}

/// The repository, its parents, and the parent domains of its host.
pub(crate) fn repository_scopes(reference: &Reference) -> Vec<String> {
    let (domain, path) = (reference.domain().as_str(), reference.repository().as_str());
    let whole = format!("{domain}/{path}");
    let mut scopes = vec![whole.clone()];
    let mut rest = whole.as_str();
    while let Some((parent, _)) = rest.rsplit_once('/') {
        scopes.push(parent.to_owned());
        rest = parent;
    }
    // A port belongs to no domain.
    let mut host = domain.split(':').next().unwrap_or_default();
    while let Some((_, parent)) = host.split_once('.') {
        scopes.push(format!("*.{parent}"));
        host = parent;
    }
    scopes
}

/// Whether a policy may have the scope `scope` below the transport (the rules of the transports of
/// github.com/containers/image, `ValidatePolicyConfigurationScope`).
pub(crate) fn check_scope(transport: &str, scope: &str) -> Result<(), String> {
    let refused = |why: &str| Err(format!("the scope {scope:?} of {transport}: {why}"));
    match transport {
        _ if scope.is_empty() => Ok(()),
        "docker-archive" | "tarball" => refused("this transport has no scope but \"\""),
        "oci" | "oci-archive" | "dir" => {
            let (path, image) = match scope.split_once(':') {
                Some((path, image)) if transport != "dir" => (path, Some(image)),
                _ => (scope, None),
            };
            if image.is_some_and(|image| !is_image_name(image)) {
                return refused("it names no image");
            }
            match path {
                _ if !path.starts_with('/') => refused("it must be an absolute path"),
                "/" if image.is_none() => refused("the whole transport is \"\""),
                "/" => Ok(()),
                _ if path[1..].split('/').any(|part| matches!(part, "" | "." | "..")) => {
                    refused("the path is not in its shortest form")
                }
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// What may name an image in a layout: words joined by one of `-._:@+` or by two dashes.
fn is_image_name(text: &str) -> bool {
    text.split('/').all(|part| {
        let mut wordless = 0;
        let ends = [part.chars().next(), part.chars().last()];
        ends.iter().all(|end| end.is_some_and(|c| c.is_ascii_alphanumeric()))
            && part.replace("--", "-").chars().all(|c| {
                wordless = if c.is_ascii_alphanumeric() { 0 } else { wordless + 1 };
                wordless < 2 && (wordless == 0 || "-._:@+".contains(c))
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_widen() {
        let scopes = |text: &str| ImagePlace::registry(&text.parse().unwrap()).scopes;
        assert_eq!(
            scopes("busybox"),
            [
                "docker.io/library/busybox:latest",
                "docker.io/library/busybox",
                "docker.io/library",
                "docker.io",
                "*.io"
            ]
        );
        assert_eq!(
            scopes("a.b.example.com:5000/x:1")[2..],
            ["a.b.example.com:5000", "*.b.example.com", "*.example.com", "*.com"]
        );
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(scopes(&format!("h.io/x:1@{digest}"))[0], format!("h.io/x@{digest}"));
        let files = ImagePlace::files(FileTransport::Oci, Some(Path::new("/a/b")));
        assert_eq!(files.scopes(), ["/a/b", "/a"]);
        let archive = ImagePlace::files(FileTransport::DockerArchive, Some(Path::new("/a")));
        assert!(archive.scopes().is_empty());
    }

    #[test]
    fn paths_of_policies_are_canonical() {
        for (transport, scope, good) in [
            ("oci", "/a/b", true),
            ("oci", "/a:b/c", true),
            ("oci", "/a:", false),
            ("oci", "/", false),
            ("oci", "/:x", true),
            ("oci", "a", false),
            ("oci", "/a/", false),
            ("oci-archive", "/a/../b", false),
            ("dir", "/a:b", true),
            ("docker-archive", "/a", false),
            ("docker-archive", "", true),
            ("docker", "anything", true),
            ("unheard-of", "/a/", true),
        ] {
            assert_eq!(check_scope(transport, scope).is_ok(), good, "{transport} {scope}");
        }
    }
}
