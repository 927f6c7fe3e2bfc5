//! Reading extended attributes, whose lengths are not known beforehand.
//!
//! Invariants: what is not there, on a file system without attributes as well, is an empty answer
//! and no error; names are as on disk, whatever dialect they belong to.

use rustix::io::{Errno, Result};

/// The largest list of names or value that Linux returns (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`), in
/// bytes.
const MAX: usize = 65536;

/// A value, by a call such as getxattr(2) that fills a buffer.
///
/// # Errors
/// What the call says, but for `ENODATA` and `EOPNOTSUPP`: then there is none.
pub fn value(ask: impl Fn(&mut [u8]) -> Result<usize>) -> Result<Option<Vec<u8>>> {
    growing(256, ask)
}

/// Asks with a small buffer, and if that is too small with the largest.
fn growing(room: usize, ask: impl Fn(&mut [u8]) -> Result<usize>) -> Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; room];
    let answer = match ask(&mut bytes) {
        Err(Errno::RANGE) => {
            bytes.resize(MAX, 0);
            ask(&mut bytes)
        }
        first => first,
    };
    match answer {
        Ok(len) => {
            bytes.truncate(len);
            Ok(Some(bytes))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The names of an inode's attributes: each ends with a zero byte (listxattr(2)).
pub struct XattrNames(Vec<u8>);

impl XattrNames {
    /// Asks for them by a call such as listxattr(2) that fills a buffer.
    ///
    /// # Errors
    /// What the call says, but for `EOPNOTSUPP`: then there are none.
    pub fn read(ask: impl Fn(&mut [u8]) -> Result<usize>) -> Result<Self> {
        growing(1024, ask).map(|names| Self(names.unwrap_or_default()))
    }

    /// One after the other, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == 0).filter(|name| !name.is_empty())
    }

    /// Whether this is one of them.
    pub fn has(&self, name: &str) -> bool {
        self.iter().any(|other| other == name.as_bytes())
    }
}
