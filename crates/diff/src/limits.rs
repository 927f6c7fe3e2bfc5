//! Bounds on what one layer may ask for: a diff is untrusted input.
//!
//! Invariant: every bound is checked before the memory, the disk or the time that it bounds is
//! spent, and its error names the option that raises it.

/// The bounds; `Default` is generous for real images and far below what hurts a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Members of one tar (`--max-entries`), and half of the names that they make. About 250 bytes
    /// each while unpacking: of memory as long as there is enough, then of the scratch file.
    pub entries: u64,
    /// Components of one path (`--max-depth`).
    pub depth: u64,
    /// Bytes of one path (`--max-path`). Linux calls take at most 4095, and a path in the store
    /// is `layers/<64 digits>/diff/` longer. The target of a symbolic link, which is stored as it
    /// is, may have as many, and always [`Limits::TARGET_FREE`].
    pub path_bytes: u64,
    /// Bytes of all extended attributes of one member (`--max-xattr-bytes`). All members of a layer
    /// have at most [`Limits::XATTRS_FREE`] times as many beyond the bytes of its tar: those of a
    /// global header, which the tar has once, are kept for each member.
    pub xattr_bytes: u64,
    /// Uncompressed bytes for each compressed one (`--max-expansion`), beyond
    /// [`Limits::EXPANSION_FREE`], where blocks of zeros do not count; also logical bytes of sparse
    /// files for each byte of the tar.
    pub expansion: u64,
    /// Bytes of one uncompressed tar, and of all its files together (`--max-layer-bytes`).
    pub layer_bytes: u64,
}

impl Limits {
    /// Bytes that a layer may expand to whatever its ratio.
    pub const EXPANSION_FREE: u64 = 64 << 20;

    /// Members whose attributes may be as many as those of one, where the tar has them once.
    pub const XATTRS_FREE: u64 = 64;

    /// Bytes that the target of a symbolic link may have whatever the bound on paths: as many as
    /// Linux takes (`PATH_MAX` less its end; symlink(2), `ENAMETOOLONG`).
    pub const TARGET_FREE: u64 = 4095;

    /// No bounds: for layers that were accepted before, whatever the bounds were then.
    pub const NONE: Self = Self {
        entries: u64::MAX,
        depth: u64::MAX,
        path_bytes: u64::MAX,
        xattr_bytes: u64::MAX,
        expansion: u64::MAX,
        layer_bytes: u64::MAX,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 4_000_000,
            depth: 1024,
            path_bytes: 4000,
            xattr_bytes: 1 << 20,
            expansion: 2000,
            layer_bytes: 1 << 40,
        }
    }
}
