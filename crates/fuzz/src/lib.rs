//! What strata reads from strangers, each reader as a function of bytes.
//!
//! The model: a [`FuzzTarget`] takes any bytes and must return: no panic, no memory or time
//! without bound, and what it says of its bytes must be consistent (what is parsed is written and
//! parsed again, what is read twice is the same). `scripts/fuzz` gives them to libFuzzer, built
//! with stable Rust. `tests/replay.rs` runs every input that is kept in `corpus/` and `found/`, so
//! each input that once failed is a test of every run.
//!
//! Invariant: a target writes nothing outside of a temporary directory in memory.

mod archives;
mod headers;
mod kit;
mod layers;
mod names;
mod registries;
mod requests;
mod rows;
mod signed;
mod stores;
mod trusts;
mod uppers;

pub use layers::tar_in;

/// One reader.
#[derive(Debug)]
pub struct FuzzTarget {
    /// What `scripts/fuzz` calls it.
    pub name: &'static str,
    /// The largest input that is tried, in bytes.
    pub most: usize,
    /// The reader.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [FuzzTarget; 19] = [
    FuzzTarget { name: "layer", most: 16 << 10, run: layers::layer },
    FuzzTarget { name: "members", most: 4 << 10, run: layers::members },
    FuzzTarget { name: "gzip", most: 4 << 10, run: layers::gzip },
    FuzzTarget { name: "headers", most: 16 << 10, run: headers::headers },
    FuzzTarget { name: "archive", most: 16 << 10, run: archives::archive },
    FuzzTarget { name: "manifest", most: 4 << 10, run: archives::manifest },
    FuzzTarget { name: "config", most: 4 << 10, run: archives::config },
    FuzzTarget { name: "reference", most: 512, run: names::reference },
    FuzzTarget { name: "settings", most: 2 << 10, run: registries::settings },
    FuzzTarget { name: "answer", most: 4 << 10, run: registries::answer },
    FuzzTarget { name: "request", most: 2 << 10, run: requests::request },
    FuzzTarget { name: "policy", most: 4 << 10, run: trusts::policy },
    FuzzTarget { name: "signature", most: 8 << 10, run: trusts::signature },
    FuzzTarget { name: "marks", most: 1 << 10, run: uppers::marks },
    FuzzTarget { name: "options", most: 512, run: names::options },
    FuzzTarget { name: "tree", most: 64 << 10, run: stores::tree },
    FuzzTarget { name: "sealed", most: 1 << 10, run: stores::sealed },
    FuzzTarget { name: "index", most: 256 << 10, run: stores::index },
    FuzzTarget { name: "rows", most: 128, run: rows::rows },
];

/// The target of a name.
pub fn target(name: &str) -> Option<&'static FuzzTarget> {
    TARGETS.iter().find(|target| target.name == name)
}
