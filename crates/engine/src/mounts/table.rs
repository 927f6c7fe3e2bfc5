//! The kernel's table of mounts, `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).
//!
//! ```text
//! 40 21 0:50 / /mnt/a\040b rw,nosuid shared:1 - fuse.strata strata:app rw,user_id=0
//!       device  path        options             type        source     super options
//! ```
//!
//! Invariant: paths come without the table's octal escapes, as bytes.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// A line of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MountLine<'a>(&'a [u8]);

impl<'a> MountLine<'a> {
    /// The lines of a table; a later one at the same path is on top.
    pub(crate) fn all(table: &'a [u8]) -> impl DoubleEndedIterator<Item = Self> {
        table.split(|byte| *byte == b'\n').map(Self)
    }

    fn field(self, at: usize) -> Option<&'a [u8]> {
        self.0.split(|byte| *byte == b' ').nth(at)
    }

    /// Major and minor number of the file system, such as `0:50`.
    pub(crate) fn device(self) -> Option<&'a [u8]> {
        self.field(2)
    }

    /// Which directory of its file system is shown.
    pub(crate) fn root(self) -> Option<Vec<u8>> {
        self.field(3).map(unescaped)
    }

    /// The upper of an overlayfs.
    pub(crate) fn upper(self) -> Option<Vec<u8>> {
        let mut options = self.0.rsplit(|byte| *byte == b' ').next()?.split(|byte| *byte == b',');
        options.find_map(|option| option.strip_prefix(b"upperdir=")).map(unescaped)
    }

    /// Where it is mounted.
    pub(crate) fn path(self) -> Option<Vec<u8>> {
        self.field(4).map(unescaped)
    }

    /// Its type, such as `fuse.strata`.
    pub(crate) fn kind(self) -> Option<OsString> {
        let mut fields = self.0.split(|byte| *byte == b' ').skip_while(|field| *field != b"-");
        fields.nth(1).map(|name| OsString::from_vec(name.to_vec()))
    }

    /// What it is mounted from.
    pub(crate) fn source(self) -> Option<Vec<u8>> {
        let mut fields = self.0.split(|byte| *byte == b' ').skip_while(|field| *field != b"-");
        fields.nth(2).map(unescaped)
    }

    /// The user who mounted it, of a FUSE file system.
    pub(crate) fn owner(self) -> Option<u32> {
        let mut options = self.0.rsplit(|byte| *byte == b' ').next()?.split(|byte| *byte == b',');
        let user = options.find_map(|option| option.strip_prefix(b"user_id="))?;
        std::str::from_utf8(user).ok()?.parse().ok()
    }
}

/// Undoes the table's octal escapes: `\040` is a blank.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *first == b'\\');
        let digits = digits.filter(|three| three.iter().all(|one| (b'0'..=b'7').contains(one)));
        let digits = digits.and_then(|three| std::str::from_utf8(three).ok());
        match digits.and_then(|three| u8::from_str_radix(three, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &after[3..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read() {
        let table = b"21 1 8:1 / / rw - ext4 /dev/sda rw\n\
            40 21 0:50 / /a\\040b\\9 rw,nosuid shared:1 - tmpfs none rw\n\
            41 40 0:51 / /c ro master:3 - fuse.strata x ro,user_id=7,group_id=8\n";
        let lines: Vec<_> = MountLine::all(table).collect();
        assert_eq!(lines[1].path().unwrap(), b"/a b\\9");
        assert_eq!(lines[1].kind().unwrap(), "tmpfs");
        assert_eq!(lines[1].owner(), None);
        assert_eq!(lines[2].source().unwrap(), b"x");
        assert_eq!(lines[2].device(), Some(&b"0:51"[..]));
        assert_eq!((lines[2].kind().unwrap(), lines[2].owner()), ("fuse.strata".into(), Some(7)));
        assert!(lines[3].path().is_none());
        let table =
            b"50 1 0:60 /a/fs /x rw - overlay overlay rw,lowerdir=a::b,upperdir=/c\\040d,workdir=w";
        let line = MountLine::all(table).next().unwrap();
        assert_eq!(line.root().unwrap(), b"/a/fs");
        assert_eq!(line.upper().unwrap(), b"/c d");
    }
}
