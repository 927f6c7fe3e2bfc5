//! The tables and columns of a data set, in the order in which files have them.
//!
//! Columns are of the types that every reader of Parquet has: digests are 32 bytes
//! (`FIXED_LEN_BYTE_ARRAY`), numbers are signed, times are microseconds of UTC. Paths and
//! targets of links, which need not be UTF-8, have a column of bytes and one of text.
//!
//! Invariants: a change that a query could notice raises [`VERSION`], which is in each file under
//! the key [`VERSION_KEY`]; the partition's columns `store` and `day` are in no file; a test holds
//! `docs/FACTS.md` against this.

/// The version of the tables.
pub const VERSION: u32 = 2;
/// The key of the version in a file's metadata.
pub const VERSION_KEY: &str = "strata.facts.version";
/// The key of what became of paths: `plain`, `none` or `hmac-sha256`.
pub const PATHS_KEY: &str = "strata.facts.paths";

/// The table of images.
pub const IMAGES: &str = "images";
/// The table of their names.
pub const NAMES: &str = "names";
/// The table of their layers.
pub const IMAGE_LAYERS: &str = "image_layers";
/// The table of their histories.
pub const HISTORY: &str = "history";
/// The table of layers.
pub const LAYERS: &str = "layers";
/// The table of names in layers.
pub const ENTRIES: &str = "entries";
/// The table of stored contents.
pub const CONTENTS: &str = "contents";

/// A table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FactTable {
    /// Its name; the file is `NAME.parquet`.
    pub name: &'static str,
    /// Its columns.
    pub columns: &'static [FactColumn],
}

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FactColumn {
    /// Its name.
    pub name: &'static str,
    /// What is in it.
    pub kind: ColumnKind,
    /// Whether it can be NULL.
    pub optional: bool,
    /// How its values are stored.
    pub storage: Storage,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// A SHA-256: 32 bytes.
    Digest,
    /// Bytes.
    Bytes,
    /// Text in UTF-8.
    Text,
    /// A number of 64 bits.
    Long,
    /// A number of 32 bits.
    Int,
    /// Yes or no.
    Flag,
    /// Microseconds since 1970 in UTC.
    Time,
}

/// How the values of a column are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// Each value once in a dictionary: few values, many times.
    Repeated,
    /// One after the other: hardly a value comes twice.
    Distinct,
    /// Each as its difference from the one before: they begin alike.
    Neighbours,
}

use ColumnKind::{Bytes, Digest, Flag, Int, Long, Text, Time};

const fn column(name: &'static str, kind: ColumnKind) -> FactColumn {
    FactColumn { name, kind, optional: false, storage: Storage::Repeated }
}

impl FactColumn {
    const fn or_null(self) -> Self {
        Self { optional: true, ..self }
    }

    const fn distinct(self) -> Self {
        Self { storage: Storage::Distinct, ..self }
    }

    const fn neighbours(self) -> Self {
        Self { storage: Storage::Neighbours, ..self }
    }
}

/// All tables.
pub const TABLES: [FactTable; 7] = [
    FactTable {
        name: IMAGES,
        columns: &[
            column("image", Digest).distinct(),
            column("manifest", Digest).or_null().distinct(),
            column("created", Time).or_null(),
            column("os", Text),
            column("architecture", Text),
            column("variant", Text).or_null(),
        ],
    },
    FactTable {
        name: NAMES,
        columns: &[column("name", Text).neighbours(), column("image", Digest)],
    },
    FactTable {
        name: IMAGE_LAYERS,
        columns: &[
            column("image", Digest),
            column("position", Int),
            column("diff_id", Digest),
            column("chain_id", Digest),
        ],
    },
    FactTable {
        name: HISTORY,
        columns: &[
            column("image", Digest),
            column("step", Int),
            column("created", Time).or_null(),
            column("created_by", Text).or_null(),
            column("comment", Text).or_null(),
            column("position", Int).or_null(),
            column("diff_id", Digest).or_null(),
        ],
    },
    FactTable {
        name: LAYERS,
        columns: &[
            column("diff_id", Digest).distinct(),
            column("entries", Long),
            column("apparent", Long),
            column("diff_size", Long),
            column("headers_size", Long).or_null(),
            column("headers_blocks", Long).or_null(),
            column("dirs_size", Long).or_null(),
            column("dirs_blocks", Long).or_null(),
        ],
    },
    FactTable {
        name: ENTRIES,
        columns: &[
            column("diff_id", Digest),
            column("node", Long).neighbours(),
            column("parent", Long).neighbours(),
            column("path", Bytes).or_null().neighbours(),
            column("path_text", Text).or_null().neighbours(),
            column("kind", Text),
            column("mode", Int).or_null(),
            column("uid", Long).or_null(),
            column("gid", Long).or_null(),
            column("size", Long).or_null(),
            column("mtime", Long).or_null(),
            column("mtime_nanos", Int).or_null(),
            column("digest", Digest).or_null().distinct(),
            column("copy", Int).or_null(),
            column("target", Long).or_null(),
            column("link", Bytes).or_null(),
            column("link_text", Text).or_null(),
            column("major", Long).or_null(),
            column("minor", Long).or_null(),
            column("opaque", Flag).or_null(),
            column("presence", Text).or_null(),
        ],
    },
    FactTable {
        name: CONTENTS,
        columns: &[
            column("digest", Digest).distinct(),
            column("copy", Int),
            column("size", Long),
            column("blocks", Long).or_null(),
        ],
    },
];
