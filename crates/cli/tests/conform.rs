//! Every case of `strata-conform`, given to strata: `unpack`, and mounts by FUSE and the kernel;
//! every rule of unions, on `strata-overlay` and writable mounts; and `strata lint` on images made
//! with the cases.
//!
//! Invariant: the suite sees the real binary, and judges it as it judges any other program.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

use std::collections::BTreeMap;
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

/// The rows of a page's tables: their cells.
fn rows(page: &str) -> Vec<Vec<String>> {
    let lines = page.lines().filter(|line| line.starts_with("| "));
    let cells = |line: &str| {
        let inside = line.trim_start_matches('|').trim_end_matches('|');
        inside.split(" | ").map(|cell| cell.trim().to_owned()).collect()
    };
    lines.map(|line| cells(line.trim_end())).collect()
}

#[test]
fn known_faults_are_those_that_the_page_of_results_shows() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let read = |name: &str| std::fs::read_to_string(docs.join(name)).unwrap();
    // What each program did with each case or rule, if it did not pass.
    let (mut found, mut programs) = (BTreeMap::new(), Vec::new());
    for row in rows(&read("CONFORMANCE.md")) {
        if row[0].is_empty() {
            programs = row;
        } else if row.len() == programs.len() {
            let verdicts = programs[1..].iter().cloned().zip(row[1..].iter().cloned());
            let others =
                verdicts.filter(|(name, got)| !name.starts_with("strata") && got != "pass");
            found.insert(row[0].clone(), others.collect::<BTreeMap<_, _>>());
        }
    }
    let known = read("CONFORMANCE-KNOWN.md");
    let (seen, others) = known.split_once("\n## In no version").unwrap();
    let mut count = 0;
    for row in rows(seen).into_iter().filter(|row| row[0] != "what happens") {
        let said = row[1].split("; ").flat_map(|part| {
            let (names, verdict) = part.split_once(": ").unwrap();
            names.split(", ").map(|name| (name.to_owned(), verdict.to_owned()))
        });
        assert_eq!(said.collect::<BTreeMap<_, _>>(), found[row[2].trim_matches('`')], "{row:?}");
        count += 1;
    }
    assert!(count > 20, "{count} rows");
    for row in rows(others).into_iter().filter(|row| row[0] != "advisory") {
        for id in row[1].split(", ") {
            assert!(found.contains_key(id.trim_matches('`')), "{id}");
        }
    }
}

/// Cases that programs disagree on, and the check of `strata lint` that each one meets.
const LINTED: [(&str, &str); 51] = [
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
    ("time-usual", "directory-times"),
    ("time-of-directory-with-children", "directory-times"),
    ("directory-xattrs-replaced", "attribute-dropped"),
    ("link-to-symlink", "link-to-special"),
    ("link-to-fifo", "link-to-special"),
    ("parent-is-lower-file", "below-file"),
    ("parent-is-file-of-same-layer", "below-file"),
    ("duplicate-directory", "directory-twice"),
    ("link-with-other-attributes", "link-attributes"),
    ("xattr-empty-value", "empty-attribute"),
    ("root-without-entry", "root-not-described"),
    ("pack-gzip-as-plain", "media-type"),
    ("pack-plain-as-gzip", "media-type"),
    ("pack-zstd-as-gzip", "media-type"),
    ("pack-docker-media-type", "media-type-of-docker"),
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
        let found = |more: &[&str]| -> Value {
            let arguments = [&["--format", "json", "--fail-on", "never", &source], more].concat();
            let output = lint(&arguments);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{id}: {said}"))
        };
        let (quick, verified) = (found(&[]), found(&["--verify"]));
        let findings = quick[0]["findings"].as_array().unwrap();
        assert!(findings.iter().any(|one| one["check"] == check), "{id}: {quick:#}");
        // Reading more finds no more.
        assert_eq!(quick[0]["findings"], verified[0]["findings"], "{id}");
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
fn only_verifying_lint_sees_other_bytes_than_the_image_names() {
    let dir = tempfile::tempdir().unwrap();
    let case = catalogue::select(&["pack-plain".to_owned()]).unwrap().remove(0);
    image::write(dir.path(), &case).unwrap();
    let archive = dir.path().join("pack-plain/docker.tar");
    let mut bytes = std::fs::read(&archive).unwrap();
    // A body of a layer: no header and no document has it.
    let at = bytes.chunks(512).position(|block| block[0] == b'a' && block[1..] == [0; 511]);
    bytes[at.unwrap() * 512] = b'A';
    std::fs::write(&archive, bytes).unwrap();
    let archive = archive.to_str().unwrap();
    let quick = lint(&["--fail-on", "never", archive]);
    assert_eq!(quick.status.code(), Some(0), "{}", String::from_utf8_lossy(&quick.stderr));
    assert!(String::from_utf8_lossy(&quick.stdout).contains("digests not compared"));
    let verified = lint(&["--fail-on", "never", "--verify", archive]);
    assert_eq!(verified.status.code(), Some(1));
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(said.contains("not those that the image names"), "{said}");
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
