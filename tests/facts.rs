//! `strata facts` as a program: what it prints, and what a kill leaves.

#![allow(clippy::unwrap_used)] // Helpers are not #[test] functions.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use strata_testkit::sandbox::Sandbox;

const FACTS: [&str; 7] = ["facts", "-o", "all", "--store", "one", "--day", "2026-01-31"];

fn names(dir: &Path) -> Vec<String> {
    let Ok(found) = fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<String> =
        found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn json_says_what_is_on_disk() {
    let sandbox = Sandbox::with_cases();
    let said = sandbox.json(&FACTS);
    let tables = said["tables"].as_object().unwrap();
    assert_eq!(said["path"], "all/store=one/day=2026-01-31");
    assert_eq!((&said["replaced"], &said["version"]), (&false.into(), &2.into()));
    let dir = sandbox.path().join("all/store=one/day=2026-01-31");
    assert_eq!(names(&dir).len(), tables.len());
    for (table, sizes) in tables {
        let file = fs::metadata(dir.join(format!("{table}.parquet"))).unwrap();
        assert_eq!(sizes["bytes"], file.len(), "{table}");
    }
    let df = sandbox.json(&["df"]);
    assert_eq!(tables["images"]["rows"], df["images"].as_array().unwrap().len());
    assert_eq!(tables["layers"]["rows"], df["layers"].as_array().unwrap().len());
    assert_eq!(tables["contents"]["rows"], df["files"]);
}

#[test]
fn the_table_ends_with_the_path() {
    let sandbox = Sandbox::with_cases();
    assert!(sandbox.ok(&FACTS).ends_with("\nall/store=one/day=2026-01-31\n"));
    assert!(sandbox.ok(&FACTS).ends_with("\nall/store=one/day=2026-01-31 (replaced)\n"));
}

#[test]
fn a_kill_leaves_a_whole_data_set_or_none() {
    let sandbox = Sandbox::with_cases();
    let (all, mut cut_short) = (sandbox.path().join("all"), 0);
    for round in 0..40 {
        let mut child = sandbox.spawn(&FACTS);
        std::thread::sleep(Duration::from_micros(500 * round));
        child.kill().unwrap();
        cut_short += usize::from(!child.wait().unwrap().success());
        // Directories of which each is whole or absent.
        for store in names(&all).iter().filter(|name| !name.starts_with('.')) {
            for day in names(&all.join(store)) {
                assert_eq!(names(&all.join(store).join(&day)).len(), 7, "{round}: {store}/{day}");
            }
        }
    }
    assert!(cut_short > 0, "no run was killed before it ended");
    // The next one removes what the killed ones left.
    sandbox.ok(&FACTS);
    assert_eq!(names(&all), ["store=one"]);
    assert_eq!(names(&all.join("store=one")), ["day=2026-01-31"]);
}

#[test]
fn a_run_that_was_killed_goes_on_where_it_was() {
    let sandbox = Sandbox::new();
    let busybox = strata_testkit::fixture("busybox-gzip.oci.tar");
    let cases = strata_testkit::fixture("cases-docker25.docker.tar");
    let from = ["--from", busybox.to_str().unwrap(), cases.to_str().unwrap(), "--jobs", "1"];
    let run = [&FACTS[..], &from].concat();
    let all = sandbox.path().join("all");
    let (mut cut_short, mut went_on) = (0, 0);
    let begun = Instant::now();
    sandbox.json(&run);
    // On a busy machine it takes long, and is killed late.
    let whole = begun.elapsed();
    fs::remove_dir_all(&all).unwrap();
    for round in 0..60 {
        let mut child = sandbox.spawn(&run);
        std::thread::sleep(whole * round / 60);
        child.kill().unwrap();
        cut_short += usize::from(!child.wait().unwrap().success());
        // Also one that was killed before it had read anything leaves its directory.
        if names(&all).iter().any(|name| name.starts_with(".from-one-")) {
            let said = sandbox.json(&run);
            went_on += usize::from(said["gathered"]["layers_known"].as_u64().unwrap() > 0);
            let read = said["gathered"]["layers_read"].as_u64().unwrap();
            let known = said["gathered"]["layers_known"].as_u64().unwrap();
            assert_eq!(Some(read + known), said["tables"]["layers"]["rows"].as_u64());
        }
        assert_eq!(names(&all).iter().filter(|name| name.starts_with(".from")).count(), 0);
        fs::remove_dir_all(&all).unwrap_or_default();
    }
    assert!(cut_short > 0 && went_on > 0, "{cut_short} killed, {went_on} went on");
}
