//! Every case of `strata-conform`, given to strata: `unpack`, and mounts by FUSE and the kernel;
//! and every rule of unions, on `strata-overlay` and writable mounts.
//!
//! Invariant: the suite sees the real binary, and judges it as it judges any other program.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

use std::path::Path;
use std::time::Duration;

use strata_conform::judge::Verdict;
use strata_conform::union::play::{UnionPlace, play_pair};
use strata_conform::union::random::draw;
use strata_conform::union::script::script;
use strata_conform::union::{mounts, rules, search};
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

/// Every rule of unions on the union `name`, and drawn sequences; each has to be as expected.
fn keeps_the_rules(name: &str, sequences: u64) {
    let programs = Path::new(env!("CARGO_BIN_EXE_strata")).parent().unwrap();
    let union = mounts::find(name, None, Some(programs)).unwrap();
    let place = UnionPlace::new(None).unwrap();
    let results = search::play_rules(&union, rules::all().unwrap(), &place, |_| ()).unwrap();
    let wrong: Vec<String> = results
        .iter()
        .filter_map(|(rule, judged)| judged.as_ref().map(|judged| (rule, judged)))
        .filter(|(_, judged)| judged.verdict == Verdict::Wrong)
        .map(|(rule, judged)| format!("{}: {:?}", rule.id, judged.reasons))
        .collect();
    assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
    assert!(results.iter().filter(|(_, judged)| judged.is_some()).count() > 80);
    for seed in 0..sequences {
        let one = draw(seed, 12, place.can_make_marks(), true);
        let found = play_pair(&union, &one.lowers, &one.operations, &place, &[]).unwrap();
        assert_eq!(found, [""; 0], "{name}, seed {seed}:\n{}", script(&union, &one, &found));
    }
}

#[test]
fn a_union_by_fuse_keeps_the_rules_of_unions() {
    if needs::root_and_fuse() {
        keeps_the_rules("strata-overlay", 100);
    }
}

#[test]
fn a_writable_mount_keeps_the_rules_of_unions() {
    if needs::root_and_fuse() {
        keeps_the_rules("strata-fuse", 0);
        keeps_the_rules("strata-kernel", 0);
    }
}
