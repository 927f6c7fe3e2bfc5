//! Every case of `strata-conform`, given to strata: `unpack`, and mounts by FUSE and the kernel.
//!
//! Invariant: the suite sees the real binary, and judges it as it judges any other program.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

use std::path::Path;
use std::time::Duration;

use strata_conform::judge::Verdict;
use strata_conform::{adapters, catalogue, run};
use strata_testkit::needs;

fn all_pass(name: &str) {
    let programs = Path::new(env!("CARGO_BIN_EXE_strata")).parent().unwrap();
    let unpacker = adapters::find(name, Some(programs)).unwrap();
    let cases = catalogue::all().unwrap();
    let results = run::run_all(cases, &unpacker, Duration::from_secs(60)).unwrap();
    let wrong: Vec<String> = results
        .iter()
        .filter(|(_, judged)| !matches!(judged.verdict, Verdict::Pass | Verdict::Allowed))
        .map(|(case, judged)| format!("{}: {} {:?}", case.id, judged.verdict, judged.reasons))
        .collect();
    assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
    let passed = results.iter().filter(|(_, judged)| judged.verdict == Verdict::Pass).count();
    assert!(passed * 10 > results.len() * 8, "{name}: only {passed} as expected");
}

#[test]
fn what_is_unpacked_is_what_the_cases_expect() {
    all_pass("strata");
}

#[test]
fn what_a_mount_by_fuse_shows_is_what_the_cases_expect() {
    if needs::root_and_fuse() {
        all_pass("strata-fuse");
    }
}

#[test]
fn what_a_mount_by_the_kernel_shows_is_what_the_cases_expect() {
    if needs::root_and_fuse() {
        all_pass("strata-kernel");
    }
}
