//! `REF:PATH`: an image and a path in it.
//!
//! A reference may itself hold colons (`host:5000/name:tag`, `name@sha256:...`), but never a colon
//! before a slash; a path begins with a slash. So the text splits at its first `:/`.
//!
//! Invariants: the reference is not empty; the path, if there is one, begins with a slash.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use strata_tree::TreePath;

/// An image and a path in it. The path need not be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RefPath {
    reference: String,
    path: Option<Vec<u8>>,
}

/// Why a text is not `REF:PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RefPathError {
    /// Nothing stands before the path.
    NoReference,
    /// The reference holds bytes that no reference holds.
    NotText,
    /// A path is needed.
    NoPath(String),
}

impl fmt::Display for RefPathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoReference => f.write_str("no image is named; write REF:/PATH"),
            Self::NotText => f.write_str("the part before :/ is not the name of an image"),
            Self::NoPath(text) => write!(
                f,
                "{text:?} names no path in the image; write REF:/PATH, the path beginning with a \
                 slash"
            ),
        }
    }
}

impl std::error::Error for RefPathError {}

impl RefPath {
    /// Splits `REF` or `REF:/PATH`.
    ///
    /// # Errors
    /// `NoReference`, `NotText`.
    pub(crate) fn parse(text: &OsStr) -> Result<Self, RefPathError> {
        let bytes = text.as_bytes();
        let (reference, path) = match bytes.windows(2).position(|pair| pair == b":/") {
            Some(colon) => (&bytes[..colon], Some(bytes[colon + 1..].to_vec())),
            None => (bytes, None),
        };
        let reference = std::str::from_utf8(reference).map_err(|_| RefPathError::NotText)?;
        if reference.is_empty() {
            return Err(RefPathError::NoReference);
        }
        Ok(Self { reference: reference.to_owned(), path })
    }

    /// Splits `REF:/PATH`.
    ///
    /// # Errors
    /// `NoPath` besides those of [`RefPath::parse`].
    pub(crate) fn parse_with_path(text: &OsStr) -> Result<Self, RefPathError> {
        let parsed = Self::parse(text)?;
        match parsed.path {
            Some(_) => Ok(parsed),
            None => Err(RefPathError::NoPath(parsed.reference)),
        }
    }

    /// The image.
    pub(crate) fn reference(&self) -> &str {
        &self.reference
    }

    /// Whether a path was written.
    pub(crate) fn has_path(&self) -> bool {
        self.path.is_some()
    }

    /// The path as it was written; `/` if none was.
    pub(crate) fn path(&self) -> &[u8] {
        self.path.as_deref().unwrap_or(b"/")
    }

    /// Whether the path asks for what a directory holds: `/`, `x/.`, but not `x` or `x/`.
    pub(crate) fn is_contents(&self) -> bool {
        self.path().ends_with(b"/.") || self.clean().is_root()
    }

    /// Whether the path can only be meant as a directory.
    pub(crate) fn asks_for_directory(&self) -> bool {
        self.path().ends_with(b"/") || self.path().ends_with(b"/.")
    }

    /// The path without `.`, `..` and doubled slashes, by its text alone; the root where a
    /// component could not be a name.
    pub(crate) fn clean(&self) -> TreePath {
        TreePath::clamped(self.path()).unwrap_or_default()
    }

    /// The reference with the directory around the path, to look at next.
    pub(super) fn parent(&self) -> String {
        let mut path = self.clean();
        path.pop();
        format!("{}:{path}", self.reference)
    }
}

/// As it was written, bytes that cannot be printed escaped.
impl fmt::Display for RefPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.reference, super::render::escaped(self.path()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<RefPath, RefPathError> {
        RefPath::parse(OsStr::from_bytes(bytes))
    }

    #[test]
    fn the_first_colon_before_a_slash_splits() {
        let hex = "0f".repeat(32);
        let digest = format!("name@sha256:{hex}");
        for (text, reference, path) in [
            ("alpine", "alpine", None),
            ("alpine:3.20", "alpine:3.20", None),
            ("alpine:/", "alpine", Some("/")),
            ("alpine:/etc/os-release", "alpine", Some("/etc/os-release")),
            ("alpine:3.20:/etc", "alpine:3.20", Some("/etc")),
            ("localhost:5000/a/b", "localhost:5000/a/b", None),
            ("localhost:5000/a/b:t", "localhost:5000/a/b:t", None),
            ("localhost:5000/a/b:t:/x", "localhost:5000/a/b:t", Some("/x")),
            ("localhost:5000/a:/x/y:z", "localhost:5000/a", Some("/x/y:z")),
            ("a:/x:/y", "a", Some("/x:/y")),
            ("a://x", "a", Some("//x")),
            ("a:etc/passwd", "a:etc/passwd", None),
            (&format!("{digest}:/x"), &digest, Some("/x")),
            (&digest, &digest, None),
            (&format!("{hex}:/x"), &hex, Some("/x")),
        ] {
            let parsed = parse(text.as_bytes()).unwrap();
            assert_eq!(parsed.reference(), reference, "{text}");
            assert_eq!(parsed.path.as_deref(), path.map(str::as_bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_reference_or_no_path_is_refused() {
        assert_eq!(parse(b""), Err(RefPathError::NoReference));
        assert_eq!(parse(b":/etc"), Err(RefPathError::NoReference));
        assert_eq!(parse(b"a\xff:/etc"), Err(RefPathError::NotText));
        assert_eq!(parse(b"a:/\xff").unwrap().path(), b"/\xff");
        let error = RefPath::parse_with_path(OsStr::new("a:etc/passwd")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"a:etc/passwd\" names no path in the image; write REF:/PATH, the path beginning \
             with a slash"
        );
    }

    #[test]
    fn contents_are_asked_for_with_a_dot() {
        for (text, contents, directory) in [
            ("a:/", true, true),
            ("a:/.", true, true),
            ("a:/x/..", true, false),
            ("a:/x/.", true, true),
            ("a:/x/", false, true),
            ("a:/x", false, false),
            ("a:/x.", false, false),
        ] {
            let parsed = parse(text.as_bytes()).unwrap();
            assert_eq!(parsed.is_contents(), contents, "{text}");
            assert_eq!(parsed.asks_for_directory(), directory, "{text}");
        }
        assert_eq!(parse(b"a:/x/y/").unwrap().parent(), "a:/x");
        assert_eq!(parse(b"a:/x\n").unwrap().to_string(), "a:/x\\n");
    }
}
