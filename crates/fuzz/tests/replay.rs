//! Every kept input is run: what fuzzing begins from, and what it has found.
//!
//! Invariant: a file below `found/TARGET` is named for what it showed.

#![allow(clippy::unwrap_used)] // Helpers are not #[test] functions.
#![allow(clippy::print_stdout)] // A failure names its input.

use std::fs;
use std::path::Path;

use strata_fuzz::TARGETS;

fn replay(kind: &str) -> usize {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join(kind);
    let mut ran = 0;
    for target in &TARGETS {
        let Ok(inputs) = fs::read_dir(top.join(target.name)) else { continue };
        for input in inputs {
            let path = input.unwrap().path();
            println!("{}: {}", target.name, path.display());
            (target.run)(&fs::read(path).unwrap());
            ran += 1;
        }
    }
    ran
}

#[test]
fn what_fuzzing_begins_from() {
    assert!(replay("corpus") >= TARGETS.len());
}

#[test]
fn what_was_found() {
    replay("found");
}

#[test]
fn every_target_takes_nothing_and_anything() {
    let mut state = 1_u32;
    for target in &TARGETS {
        (target.run)(&[]);
        for length in [1, 4, 64, 1000] {
            let bytes: Vec<u8> = (0..length)
                .map(|_| {
                    // xorshift32, the same in every run.
                    state ^= state << 13;
                    state ^= state >> 17;
                    state ^= state << 5;
                    state as u8
                })
                .collect();
            (target.run)(&bytes);
        }
    }
}
