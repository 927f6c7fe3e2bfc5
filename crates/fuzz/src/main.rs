//! The program that libFuzzer runs: the target that `STRATA_FUZZ` names, on inputs of its making.
//!
//! Invariant: all targets are in one program, so that one instrumented build serves them all.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use strata_fuzz::{FuzzTarget, target};

static TARGET: OnceLock<&'static FuzzTarget> = OnceLock::new();

fuzz_target!(
    init: {
        let name = std::env::var("STRATA_FUZZ").unwrap_or_default();
        match target(&name) {
            Some(found) => drop(TARGET.set(found)),
            None => std::process::exit(2),
        }
    },
    |data: &[u8]| {
        if let Some(target) = TARGET.get() {
            (target.run)(data);
        }
    }
);
