//! The house rules, checked: which crate may use which, how long files and lines are, what every
//! file opens with, that every file is compiled, where `unsafe` and printing are allowed, the
//! shape of the code (types, functions, names, circles) and the words of the prose.
//!
//! Invariant: a rule with exceptions lists them by name beside the rule, each with its reason.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.
#![allow(clippy::print_stdout)] // The figures are printed.

mod arrows;
mod circles;
mod code;
mod compiled;
mod counts;
mod files;
mod phrases;
mod project;
mod scripts;
mod shape;
mod source;
mod words;
