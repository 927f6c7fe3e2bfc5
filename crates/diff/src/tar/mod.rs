//! Diffs: the tar of one layer, read and written.
//!
//! [`DiffReader`] yields [`Member`]s and hands every byte that is not a body to a [`RawSink`],
//! from which `headers.zst` is made. It reads version 7, ustar, star's ustar, GNU and PAX, and
//! knows nothing of whiteouts: what members mean for a layer is the draft's business.
//!
//! Invariant: GNU tar and Go (which most image tools are made of) would read the same members.
//! Where the two differ the diff is refused ([`DiffError::Ambiguous`]):
//!
//! | bytes | GNU tar | Go |
//! |---|---|---|
//! | PAX path and GNU `L` that differ (linkpath and `K` too) | PAX | GNU |
//! | `g` with path, linkpath, size or sparse map | applied | ignored |
//! | `g` between `x`, `L` or `K` and their member | both applied | `x`, `L`, `K` lost |
//! | `0`, `7` or `S` with a path ending in `/` | directory | file |
//! | a size on a symlink, device, fifo, version 7 directory | skipped in listings | ignored |
//! | PAX size on a hard link | skipped in listings | ignored |
//! | a lone zero block | end, with a warning | error |
//! | a prefix in a GNU header | ignored | used, if atime and ctime are bad |
//! | star header with a prefix of 131 bytes | 155 bytes | 131 bytes |
//! | base-256 behind another byte than 0x80, 0xff | error | number |
//! | number, blank, junk in one field | number | error |
//! | an empty PAX path, linkpath, size, uid, gid, mtime | empty or error | the header's |
//! | GNU `L` or `K` without a name | empty | the header's |
//! | `GNU.sparse` without a map or of unknown version | sparse | plain |
//! | two sparse maps or two sparse sizes of one file | the last | one of them |
//! | half an entry in a GNU `S` map, or a map that goes on behind its end | differ | differ |
//! | GNU `S` in a header that is not GNU's; with a PAX size | sparse | error, differ |
//! | other types (`A`-`Z`, `D`, `M`, ...) | file, or its own | handed on |
//!
//! Decided besides: a label (`V`) without a size is passed over (GNU does so, and no tool unpacks
//! anything else of it); of two `x` headers or two `L` before one member the last counts (both do
//! so); `g` gives owners, mtime and xattrs to the members after it (POSIX; Go applies nothing); a
//! hard link's header size and a directory's size are ignored (both); missing end blocks, and
//! missing padding before them, are accepted, as is anything after them, which counts in the diff
//! id; an mtime's digits beyond nanoseconds are cut off.

mod error;
mod header;
mod member;
mod pax;
mod reader;
mod sparse;
pub(crate) mod writer;

pub use error::{DiffError, Result};
pub use member::{Member, MemberKind};
pub use reader::{BodyReader, DiffReader, RawSink};

#[cfg(test)]
pub(crate) mod testkit;
#[cfg(test)]
mod tests;
