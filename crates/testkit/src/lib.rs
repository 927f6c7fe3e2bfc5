//! What the tests of all crates share. No program contains any of it.
//!
//! ```text
//! needs        what a test needs of the machine; whether it may be skipped
//! tars         tars built block by block, valid or not
//! layout       small image layouts and archives
//! example      the examples of docs/SEMANTICS.md, and example_tar: their layers as tars
//! hard         trees that are hard to remove
//! registry     a registry on loopback that behaves as a test tells it
//! sandbox      the built program with a store of its own; talk: what it said, as a transcript
//! ```
//!
//! Invariants: it depends on no crate of the project, so that the unit tests of each can use it;
//! what fails in it panics, for a test called it.

#![allow(missing_docs, reason = "the names of helpers say enough")]
#![allow(clippy::new_without_default, reason = "a new sandbox is a directory on disk")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

pub mod example;
pub mod example_tar;
pub mod hard;
pub mod layout;
pub mod namespace;
pub mod needs;
pub mod registry;
pub mod sandbox;
pub mod talk;
pub mod tars;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// `sha256:HEX` of bytes.
pub fn digest(bytes: &[u8]) -> String {
    let hex = Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    });
    format!("sha256:{hex}")
}

/// The top of the checkout.
pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// A checked-in image.
pub fn fixture(name: &str) -> PathBuf {
    top().join("tests/fixtures").join(name)
}
