//! What a user may write for a source: `FILE`, `DIR`, `-`, and skopeo's spellings.
//!
//! ```text
//! -                          an archive from standard input
//! PATH                       an archive or a layout directory, whatever stands there
//! oci:DIR[:REF]              a layout directory
//! oci-archive:FILE[:REF]     the same as a tar
//! docker-archive:FILE[:REF]  what `docker save` writes
//! ```
//!
//! Without a prefix what is there decides, and where there are both lists of images, both count.
//! `docker-archive:` means `manifest.json`, the other two mean `index.json`.
//!
//! Invariant: a path that exists is taken as it stands, so names with colons can be given.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where images are read from, and which of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSpec {
    place: SourcePlace,
    only: Option<String>,
    list: Option<List>,
}

/// Which list of images counts, of the two that may be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum List {
    /// `index.json`.
    Oci,
    /// `manifest.json`.
    Docker,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SourcePlace {
    Stdin,
    Path(PathBuf),
}

impl SourcePlace {
    pub(crate) fn label(&self) -> String {
        match self {
            Self::Stdin => "standard input".to_owned(),
            Self::Path(path) => path.display().to_string(),
        }
    }
}

const PREFIXES: [(&str, List); 3] =
    [("oci:", List::Oci), ("oci-archive:", List::Oci), ("docker-archive:", List::Docker)];

impl SourceSpec {
    /// Reads what the user wrote. Looks at the file system to tell a colon in a name from the
    /// one before a reference.
    pub fn parse(text: &OsStr) -> Self {
        if text == "-" {
            return Self { place: SourcePlace::Stdin, only: None, list: None };
        }
        let bytes = text.as_bytes();
        let prefixed = PREFIXES
            .iter()
            .find_map(|(prefix, list)| Some((bytes.strip_prefix(prefix.as_bytes())?, *list)))
            .filter(|_| !Path::new(text).exists());
        let Some((rest, list)) = prefixed else { return Self::path(Path::new(text)) };
        let path = |bytes| PathBuf::from(OsStr::from_bytes(bytes));
        if !path(rest).exists()
            && let Some(colon) = rest.iter().position(|byte| *byte == b':')
            && let Ok(only) = std::str::from_utf8(&rest[colon + 1..])
            && !only.is_empty()
        {
            return Self::path(&path(&rest[..colon])).only(only).with_list(list);
        }
        if rest == b"-" {
            return Self { place: SourcePlace::Stdin, only: None, list: Some(list) };
        }
        Self::path(&path(rest)).with_list(list)
    }

    /// A file or directory as it stands.
    pub fn path(path: &Path) -> Self {
        Self { place: SourcePlace::Path(path.to_owned()), only: None, list: None }
    }

    /// The same source, of which one list counts.
    #[must_use]
    pub(crate) fn with_list(mut self, list: List) -> Self {
        self.list = Some(list);
        self
    }

    /// The list that counts, if one was asked for.
    pub(crate) fn list(&self) -> Option<List> {
        self.list
    }

    /// The same source, of which only the image of this tag or reference is wanted.
    #[must_use]
    pub fn only(mut self, name: impl Into<String>) -> Self {
        self.only = Some(name.into());
        self
    }

    pub(crate) fn place(&self) -> &SourcePlace {
        &self.place
    }

    /// The tag or reference that alone is wanted.
    pub fn wanted(&self) -> Option<&str> {
        self.only.as_deref()
    }

    /// The file or directory that it is in; `None` for the standard input.
    pub fn file(&self) -> Option<&Path> {
        match &self.place {
            SourcePlace::Stdin => None,
            SourcePlace::Path(path) => Some(path),
        }
    }

    /// What the source is called in messages.
    pub fn label(&self) -> String {
        self.place.label()
    }

    /// The repository that a bare tag in this source belongs to: the base name without its
    /// extensions, with everything a repository cannot hold turned into single dashes.
    pub(crate) fn repository(&self) -> Option<String> {
        let SourcePlace::Path(path) = &self.place else { return None };
        // The canonical name, so that `.` and `dir/..` have one.
        let path = path.canonicalize().ok()?;
        let name = path.file_name()?.to_string_lossy().into_owned();
        let stem = if path.is_dir() { name.as_str() } else { without_extensions(&name) };
        let mut clean = String::new();
        for c in stem.to_lowercase().chars() {
            match c {
                'a'..='z' | '0'..='9' => clean.push(c),
                '.' | '_' if !clean.is_empty() && !clean.ends_with(['.', '_', '-']) => {
                    clean.push(c);
                }
                _ if clean.is_empty() || clean.ends_with(['.', '_', '-']) => {}
                _ => clean.push('-'),
            }
        }
        let clean = clean.trim_end_matches(['.', '_', '-']);
        (!clean.is_empty()).then(|| clean.to_owned())
    }
}

/// As [`SourceSpec::parse`]; every text names some source.
impl FromStr for SourceSpec {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self::parse(OsStr::new(text)))
    }
}

fn without_extensions(name: &str) -> &str {
    const EXTENSIONS: [&str; 11] =
        [".gz", ".tgz", ".zst", ".zstd", ".xz", ".txz", ".bz2", ".tbz2", ".tar", ".oci", ".docker"];
    let mut stem = name;
    while let Some(shorter) = EXTENSIONS.iter().find_map(|ext| stem.strip_suffix(ext)) {
        stem = shorter;
    }
    stem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spellings_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().to_str().unwrap();
        for name in ["layout", "with:colon", "oci:odd"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        for (text, path, only) in [
            (format!("{base}/layout"), "layout", None),
            (format!("oci:{base}/layout"), "layout", None),
            (format!("oci:{base}/layout:3.12"), "layout", Some("3.12")),
            (format!("oci:{base}/layout:localhost:5000/x:1"), "layout", Some("localhost:5000/x:1")),
            (format!("oci:{base}/with:colon"), "with:colon", None),
            (format!("{base}/with:colon"), "with:colon", None),
            (format!("docker-archive:{base}/x.tar:busybox:1"), "x.tar", Some("busybox:1")),
            (format!("oci-archive:{base}/x.tar"), "x.tar", None),
        ] {
            let spec = SourceSpec::parse(OsStr::new(&text));
            assert_eq!(spec.place(), &SourcePlace::Path(dir.path().join(path)), "{text}");
            assert_eq!(spec.wanted(), only, "{text}");
            let list = match text.split_once(':') {
                Some(("docker-archive", _)) => Some(List::Docker),
                Some(("oci" | "oci-archive", _)) => Some(List::Oci),
                _ => None,
            };
            assert_eq!(spec.list(), list, "{text}");
        }
        assert_eq!(SourceSpec::parse(OsStr::new("-")).place(), &SourcePlace::Stdin);
    }

    #[test]
    fn a_bare_tag_takes_its_repository_from_the_name() {
        let dir = tempfile::tempdir().unwrap();
        for (name, repository) in [
            ("python", Some("python")),
            ("My Image.tar.gz", Some("my-image")),
            ("app_v1.2.tar", Some("app_v1.2")),
            ("app.tar.xz", Some("app")),
            ("app.tar.bz2", Some("app")),
            ("--x..y--.oci.tar", Some("x.y")),
            ("\u{e9}t\u{e9}.tar", Some("t")),
            ("---.tar", None),
        ] {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            let repo = SourceSpec::path(&path).repository();
            assert_eq!(repo.as_deref(), repository, "{name}");
            if let Some(repo) = repo {
                assert!(repo.parse::<strata_registry::Reference>().is_ok(), "{name}");
            }
        }
    }
}
