//! Names and paths inside an image: bytes, parsed once at the boundary.
//!
//! A [`Name`] is one component, a [`TreePath`] is zero or more of them from the root.
//!
//! Invariants: a name is 1 to 255 bytes, is not `.` or `..`, and holds neither `/` nor NUL; a
//! path has no empty component, so joining it below a directory descriptor never climbs out.
//! Neither need be UTF-8.

use std::borrow::Borrow;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

/// The longest name that Linux file systems hold, in bytes (`NAME_MAX`).
pub const NAME_MAX: usize = 255;

/// Why bytes are not a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The component is empty.
    #[error("the name is empty")]
    Empty,
    /// The component is `.` or `..`.
    #[error("the name is . or ..")]
    Dots,
    /// The component holds a slash or a NUL byte.
    #[error("the name holds a slash or a NUL byte")]
    Forbidden,
    /// The component is longer than [`NAME_MAX`] bytes.
    #[error("the name is {0} bytes long; the limit is {NAME_MAX}")]
    TooLong(usize),
}

/// One path component, borrowed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name<'a>(&'a [u8]);

impl<'a> Name<'a> {
    /// Checks that `bytes` are a valid component.
    ///
    /// # Errors
    /// The rule that the bytes break.
    pub fn new(bytes: &'a [u8]) -> Result<Self, NameError> {
        match bytes {
            b"" => Err(NameError::Empty),
            b"." | b".." => Err(NameError::Dots),
            _ if bytes.iter().any(|b| matches!(b, b'/' | 0)) => Err(NameError::Forbidden),
            _ if bytes.len() > NAME_MAX => Err(NameError::TooLong(bytes.len())),
            _ => Ok(Self(bytes)),
        }
    }

    /// The bytes.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// For the `std::fs` and rustix calls.
    pub fn as_os_str(self) -> &'a OsStr {
        OsStr::from_bytes(self.0)
    }

    /// An owned copy.
    pub fn to_owned(self) -> NameBuf {
        NameBuf(self.0.into())
    }
}

impl fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// One path component, owned.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameBuf(Box<[u8]>);

impl NameBuf {
    /// Checks and copies `bytes`.
    ///
    /// # Errors
    /// The rule that the bytes break.
    pub fn new(bytes: &[u8]) -> Result<Self, NameError> {
        Name::new(bytes).map(Name::to_owned)
    }

    /// The same name, borrowed.
    pub fn as_name(&self) -> Name<'_> {
        Name(&self.0)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Lets maps keyed by `NameBuf` be asked with plain bytes.
impl Borrow<[u8]> for NameBuf {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for NameBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_name().fmt(f)
    }
}

/// A path from the root of a tree: names joined by `/`, the root being the empty path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TreePath(Vec<u8>);

impl TreePath {
    /// The root.
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// The path of those names, from the root down.
    pub fn of_names<'a>(names: impl Iterator<Item = Name<'a>> + Clone) -> Self {
        let length: usize = names.clone().map(|name| name.as_bytes().len() + 1).sum();
        let mut path = Self(Vec::with_capacity(length));
        names.for_each(|name| path.push(name));
        path
    }

    /// Clamps arbitrary bytes to the root: `/`, `./` and `//` vanish, `..` goes up but never
    /// above the root, as `chroot` would resolve it without following links.
    ///
    /// # Errors
    /// The first component that is not a name, with the rule that it breaks.
    pub fn clamped(bytes: &[u8]) -> Result<Self, NameError> {
        let mut path = Self::root();
        for component in bytes.split(|b| *b == b'/') {
            match component {
                b"" | b"." => {}
                b".." => {
                    path.pop();
                }
                name => path.push(Name::new(name)?),
            }
        }
        Ok(path)
    }

    /// Appends one component.
    pub fn push(&mut self, name: Name<'_>) {
        if !self.0.is_empty() {
            self.0.push(b'/');
        }
        self.0.extend_from_slice(name.as_bytes());
    }

    /// Removes the last component; `false` at the root.
    pub fn pop(&mut self) -> bool {
        let had = !self.0.is_empty();
        let cut = self.0.iter().rposition(|b| *b == b'/').unwrap_or(0);
        self.0.truncate(cut);
        had
    }

    /// This path with one more component.
    #[must_use]
    pub fn join(&self, name: Name<'_>) -> Self {
        let mut path = self.clone();
        path.push(name);
        path
    }

    /// The path without its last component, and that component; `None` at the root.
    pub fn split_last(&self) -> Option<(Self, Name<'_>)> {
        if self.0.is_empty() {
            return None;
        }
        Some(match self.0.iter().rposition(|b| *b == b'/') {
            Some(slash) => (Self(self.0[..slash].to_vec()), Name(&self.0[slash + 1..])),
            None => (Self::root(), Name(&self.0)),
        })
    }

    /// The components from the root down.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = Name<'_>> {
        self.0.split(|b| *b == b'/').filter(|name| !name.is_empty()).map(Name)
    }

    /// The number of components.
    pub fn depth(&self) -> usize {
        self.names().count()
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes, without a leading or trailing slash; empty for the root.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// For the `std::fs` and rustix calls relative to a directory: `.` for the root.
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(if self.0.is_empty() { b"." } else { &self.0 })
    }
}

/// Shows the path with a leading slash, bytes that are not printable ASCII escaped.
impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) if !text.chars().any(char::is_control) => write!(f, "/{text}"),
            _ => write!(f, "/{}", self.0.escape_ascii()),
        }
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"/{}\"", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_rules() {
        assert_eq!(Name::new(b""), Err(NameError::Empty));
        assert_eq!(Name::new(b"."), Err(NameError::Dots));
        assert_eq!(Name::new(b".."), Err(NameError::Dots));
        assert_eq!(Name::new(b"a/b"), Err(NameError::Forbidden));
        assert_eq!(Name::new(b"a\0"), Err(NameError::Forbidden));
        assert_eq!(Name::new(&[b'x'; 256]), Err(NameError::TooLong(256)));
        assert!(Name::new(&[0xff; 255]).is_ok());
        assert!(Name::new(b"...").is_ok());
    }

    #[test]
    fn paths_are_clamped_to_the_root() {
        for (raw, clean) in [
            (&b""[..], ""),
            (b"/", ""),
            (b"./", ""),
            (b"../../x", "x"),
            (b"/abs//b/./c/", "abs/b/c"),
            (b"a/b/../../../c", "c"),
        ] {
            assert_eq!(TreePath::clamped(raw).unwrap().as_bytes(), clean.as_bytes());
        }
    }

    #[test]
    fn splitting_undoes_joining() {
        let path = TreePath::clamped(b"a/b/c").unwrap();
        let (parent, last) = path.split_last().unwrap();
        assert_eq!(parent.as_bytes(), b"a/b");
        assert_eq!(parent.join(last), path);
        assert_eq!(path.depth(), 3);
        assert!(TreePath::root().split_last().is_none());
        assert_eq!(TreePath::root().names().count(), 0);
    }
}
