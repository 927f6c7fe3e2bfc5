//! Every case of `strata-conform`, given to strata: `unpack`, and mounts by FUSE and the kernel;
//! every rule of unions, on `strata-overlay` and writable mounts; and `strata lint` on images made
//! with the cases.
//!
//! Invariant: the suite sees the real binary, and judges it as it judges any other program.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use strata_conform::judge::Verdict;
use strata_conform::union::play::{UnionPlace, play_pair};
use strata_conform::union::random::draw;
use strata_conform::union::script::script;
use strata_conform::union::{mounts, rules, search};
use strata_conform::{adapters, catalogue, image, run};
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

#[test]
fn every_mutant_still_applies() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut mutants = 0;
    for entry in std::fs::read_dir(root.join("crates/conform/mutants")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("rule: ") && text.contains("\nsuite: "), "{}", path.display());
        let mut git = Command::new("git");
        let checked =
            git.current_dir(&root).args(["apply", "--check"]).arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "write it again, see scripts/mutants: {said}");
        mutants += 1;
    }
    assert!(mutants >= 20, "{mutants} mutants");
}

/// Cases that programs disagree on, and the check of `strata lint` that each one meets.
const LINTED: [(&str, &str); 36] = [
    ("whiteout-after-file-of-same-layer", "whiteout-beside-name"),
    ("whiteout-then-directory-of-same-name", "whiteout-beside-name"),
    ("directory-then-whiteout-of-same-name", "whiteout-beside-name"),
    ("whiteout-only-of-own-layer", "whiteout-beside-name"),
    ("whiteout-then-implied-directory", "whiteout-beside-name"),
    ("whiteout-in-absent-directory", "whiteout-nowhere"),
    ("whiteout-below-file", "whiteout-nowhere"),
    ("whiteout-with-content", "whiteout-not-a-file"),
    ("whiteout-as-directory", "whiteout-not-a-file"),
    ("whiteout-aufs-links", "whiteout-of-aufs"),
    ("whiteout-of-dot-dot-at-root", "path-escapes"),
    ("whiteout-through-symlink", "whiteout-below-symlink"),
    ("whiteout-through-relative-symlink", "whiteout-below-symlink"),
    ("opaque-last", "opaque-after-entries"),
    ("opaque-last-implied", "opaque-after-entries"),
    ("opaque-root", "opaque-root"),
    ("opaque-and-explicit", "opaque-and-whiteout"),
    ("link-across-layers", "link-across-layers"),
    ("link-to-deleted-file", "link-to-nothing"),
    ("link-to-directory", "link-to-directory"),
    ("escape-dot-dot", "path-escapes"),
    ("escape-symlink-absolute", "below-symlink"),
    ("escape-symlink-chain", "below-symlink"),
    ("device-like-overlay-whiteout", "device-like-whiteout"),
    ("xattr-overlay-opaque", "mark-of-overlayfs"),
    ("owner-minus-one", "refused"),
    ("directory-attributes-kept", "directory-not-described"),
    ("opaque-keeps-attributes", "directory-not-described"),
    ("root-attributes", "root-described"),
    ("tar-global-owner", "global-header"),
    ("tar-pax-record-of-global-header", "global-header"),
    ("pack-zstd", "compression"),
    ("pack-zstd-frames", "compression"),
    ("pack-zstd-skippable", "compression"),
    ("time-negative", "time-before-1970"),
    ("time-negative-base-256", "time-before-1970"),
];

fn lint(arguments: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_strata"));
    command.arg("-q").arg("--root").arg(dir.path()).arg("lint").args(arguments).output().unwrap()
}

#[test]
fn lint_finds_the_cases_that_programs_disagree_on() {
    let dir = tempfile::tempdir().unwrap();
    for (id, check) in LINTED {
        let case = catalogue::select(&[id.to_owned()]).unwrap().remove(0);
        image::write(dir.path(), &case).unwrap();
        let source = format!("oci:{}/layout:case", dir.path().join(id).display());
        let output = lint(&["--format", "json", "--fail-on", "never", &source]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let found: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{id}: {said}"));
        let findings = found[0]["findings"].as_array().unwrap();
        assert!(findings.iter().any(|one| one["check"] == check), "{id}: {found:#}");
    }
}

#[test]
fn lint_exits_by_the_class_and_leaves_out_what_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let case = catalogue::select(&["opaque-root".to_owned()]).unwrap().remove(0);
    image::write(dir.path(), &case).unwrap();
    let source = format!("oci:{}/layout:case", dir.path().join("opaque-root").display());
    let status = |arguments: &[&str]| lint(&[&[source.as_str()], arguments].concat()).status.code();
    assert_eq!(status(&[]), Some(1));
    assert_eq!(status(&["--fail-on", "security"]), Some(0));
    assert_eq!(status(&["--allow", "opaque-root"]), Some(0));
    assert_eq!(status(&["--allow", "opaque-root=.wh.*"]), Some(0));
    assert_eq!(status(&["--allow", "opaque-root=etc/*"]), Some(1));
    assert_eq!(status(&["--allow", "no-such-check"]), Some(2));
    let list = dir.path().join("allowed");
    std::fs::write(&list, "# known\nopaque-root # since 2020\n").unwrap();
    assert_eq!(status(&["--allow-file", list.to_str().unwrap()]), Some(0));
    let sarif = lint(&["--format", "sarif", &source]).stdout;
    let sarif: Value = serde_json::from_slice(&sarif).unwrap();
    assert_eq!(sarif["runs"][0]["results"][0]["ruleId"], "opaque-root");
    assert_eq!(sarif["runs"][0]["results"][0]["level"], "error");
}

#[test]
fn lint_of_the_store_is_lint_of_the_archive() {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/cases.oci");
    let store = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strata"));
        command.arg("-q").arg("--root").arg(store.path()).args(arguments).output().unwrap()
    };
    assert!(run(&["load", "-i", fixture]).status.success());
    let findings = |what: &str| {
        let found = run(&["lint", "--format", "json", "--fail-on", "never", what]).stdout;
        let found: Value = serde_json::from_slice(&found).unwrap();
        found[0]["findings"].clone()
    };
    let of_store = findings("cases.oci:1");
    assert!(of_store.as_array().unwrap().len() > 10);
    assert_eq!(of_store, findings(fixture));
}
