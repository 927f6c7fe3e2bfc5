//! What happened to a path, what differs between images, what is held twice or for nothing:
//! `why`, `diff` of two images, `duplicates`.
//!
//! The model: the libraries answer (`strata_analysis::history`, `strata_image::LayerSteps`), these
//! commands put it into words, one table or one JSON document.
//!
//! Invariants: what an image says reaches no terminal unescaped; a listing is complete or says
//! what it leaves out.

mod args;
mod diff;
mod duplicates;
mod stat;
mod text;
mod why;
mod words;

pub(crate) use args::{DiffOptions, DuplicatesArgs, WhyArgs};
pub(crate) use diff::run as run_diff;
pub(crate) use duplicates::run as run_duplicates;
pub(crate) use why::run as run_why;
pub(crate) use words::path_json;

/// There are differences, and `--exit-code` was given.
#[derive(Debug)]
pub(crate) struct Differs;

impl std::fmt::Display for Differs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("there are differences")
    }
}

impl std::error::Error for Differs {}
