//! What leaves the store of its paths, and of all text that can contain them.
//!
//! Paths are those of entries, as `strata why` prints them: `/` and the names, `/` for the root.
//! Targets of links are paths too. The commands and remarks of a history often name paths, so
//! they are treated alike.
//!
//! Invariant: under `Nothing` and `Hashed` no byte of a path, a target, a command or a remark is in
//! the data set.

use std::borrow::Cow;

use crate::hmac::{HashKey, hex};
use crate::table::FactCell;

/// What becomes of paths.
#[derive(Debug, Clone)]
pub enum PathPolicy {
    /// They are written as they are.
    Plain,
    /// They are left out.
    Nothing,
    /// Each is replaced by its HMAC-SHA256.
    Hashed(HashKey),
}

/// A path as it may be written: its bytes and a text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SharedPath<'a> {
    bytes: Option<Cow<'a, [u8]>>,
    text: Option<Cow<'a, str>>,
}

impl PathPolicy {
    /// How the files of a data set call it.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Nothing => "none",
            Self::Hashed(_) => "hmac-sha256",
        }
    }

    /// What may be written of a path.
    pub(crate) fn path<'a>(&self, path: &'a [u8]) -> SharedPath<'a> {
        match self {
            Self::Plain => SharedPath {
                bytes: Some(Cow::Borrowed(path)),
                text: Some(String::from_utf8_lossy(path)),
            },
            Self::Nothing => SharedPath::default(),
            Self::Hashed(key) => {
                let hash = key.hash(path);
                SharedPath {
                    bytes: Some(Cow::Owned(hash.to_vec())),
                    text: Some(Cow::Owned(hex(&hash))),
                }
            }
        }
    }

    /// What may be written of a text that can contain paths.
    pub(crate) fn text<'a>(&self, text: Option<&'a str>) -> Option<Cow<'a, str>> {
        match self {
            Self::Plain => text.map(Cow::Borrowed),
            Self::Nothing => None,
            Self::Hashed(key) => text.map(|text| Cow::Owned(hex(&key.hash(text.as_bytes())))),
        }
    }
}

impl SharedPath<'_> {
    /// The cell of its bytes.
    pub(crate) fn bytes(&self) -> FactCell<'_> {
        self.bytes.as_deref().map_or(FactCell::Null, FactCell::Bytes)
    }

    /// The cell of its text.
    pub(crate) fn text(&self) -> FactCell<'_> {
        FactCell::text(self.text.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_written_as_the_policy_says() {
        let path = b"/a\xff";
        let plain = PathPolicy::Plain.path(path);
        assert_eq!(plain.bytes.as_deref(), Some(&path[..]));
        assert_eq!(plain.text.as_deref(), Some("/a\u{fffd}"));
        assert_eq!(PathPolicy::Nothing.path(path), SharedPath::default());
        let key = HashKey::new(b"Jefe").unwrap();
        let hash = key.hash(path);
        let hashed = PathPolicy::Hashed(key).path(path);
        assert_eq!(hashed.bytes.as_deref(), Some(&hash[..]));
        assert_eq!(hashed.text.as_deref(), Some(&*hex(&hash)));
    }
}
