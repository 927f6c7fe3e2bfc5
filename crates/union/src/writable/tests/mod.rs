//! Tests of the writable union: `model` runs random operations against a tree in memory,
//! `cases`, `copies` and `access_times` are named ones, `forms` are for file systems that cannot do
//! everything, `kernel` shows the upper to overlayfs, `typeless` has one on a file system that
//! lists names only.
//!
//! Invariant: every failure that `model` found is a named test in `cases`.

mod access_times;
mod beside;
mod cases;
mod conformance;
mod copies;
mod forms;
mod identity;
mod kernel;
mod lowers;
mod model;
mod operations;
mod rights;
mod typeless;
mod unsynced;
mod uses;
mod views;
mod world;

use rustix::io::Errno;

use super::{Error, Result};

/// How many random sequences each test runs: STRATA_SEQUENCES, or a few.
fn cases() -> u32 {
    std::env::var("STRATA_SEQUENCES").ok().and_then(|text| text.parse().ok()).unwrap_or(60)
}

/// The errno of a refusal.
fn refused<T>(result: Result<T>) -> Option<Errno> {
    match result {
        Ok(_) => None,
        Err(
            Error::Refused(errno) | Error::Upper { errno, .. } | Error::Attribute { errno, .. },
        ) => Some(errno),
        Err(error) => panic!("{error}"),
    }
}
