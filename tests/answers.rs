//! What `why`, `diff` of two images and `duplicates` answer, word for word, on the checked-in
//! images.
//!
//! The model is that of `golden`: a test is a session whose transcript is in `tests/snapshots`.
//!
//! Invariants: every way in which a layer touches a path is asked for once; what a command says
//! in a table it says in JSON too.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

use std::os::unix::ffi::OsStrExt;

use serde_json::Value;
use strata_testkit::talk::Talk;

/// A store with images that share layers, and one that shares none.
fn loaded() -> Talk {
    let talk = Talk::new();
    for name in
        ["cases-docker25.docker.tar", "cases-podman-multi.docker.tar", "busybox-gzip.oci.tar"]
    {
        let fixture = strata_testkit::fixture(name);
        talk.sandbox.ok(&["-q", "load", "--jobs", "1", "-i", fixture.to_str().unwrap()]);
    }
    talk
}

fn json(talk: &Talk, line: &str) -> Value {
    let args: Vec<&str> = ["--format", "json-full"].into_iter().chain(line.split(' ')).collect();
    serde_json::from_str(&talk.sandbox.ok(&args)).unwrap()
}

const TWO: &str = "stratafs.test/cases:2";

#[test]
fn why_a_path_is_as_it_is() {
    let mut talk = loaded();
    for path in [
        "/lower/kept",
        "/lower/changed",
        "/lower/gone",
        "/lower/goneDir/sub/low",
        "/lower/opaque/low",
        "/lower/becomesdir",
        "/lower/becomesfile",
        "/lower/becomesfile/low",
        "/lower/recreated/low",
        "/same/third",
        "/perms/owned",
        "/xattrs/user",
        "/kinds/null",
        "/kinds/relative",
        "/links/b1",
        "/doomed",
        "/",
        "lower//../lower/kept",
    ] {
        talk.say(&format!("why {TWO} {path}"));
    }
    talk.say(&format!("why {TWO}:/same/first --names 2 --no-trunc"))
        .say(&format!("why -L {TWO} /kinds/relative"))
        .say("why stratafs.test/busybox:1 /usr/bin/ls")
        .say(&format!("--format json why {TWO} /lower/gone"));
    insta::assert_snapshot!(talk.transcript());
}

#[test]
fn why_not() {
    let mut talk = loaded();
    talk.say(&format!("why {TWO} /lower/kep"))
        .say(&format!("why {TWO} /elsewhere/kept"))
        .say(&format!("why {TWO} /qqqqqqqqqq"))
        .say(&format!("why {TWO} /kinds/loop/x"))
        .say(&format!("why {TWO}"))
        .say(&format!("why {TWO}:/a /b"))
        .say("why nothing /x");
    insta::assert_snapshot!(talk.transcript());
}

#[test]
fn what_differs() {
    let mut talk = loaded();
    for args in [
        "",
        " --time",
        " --name-only",
        " --stat",
        " --stat --depth 1",
        " --layers",
        " /lower --stat",
        " /kinds",
        " /kinds/empty",
        " /made/suid",
        " /perms/owned",
        " /lower/kept",
        " /nothing",
    ] {
        talk.say(&format!("diff cases:1 {TWO}{args}"));
    }
    talk.say("diff cases:1 cases:1")
        .say("diff cases:1 cases:1 --exit-code")
        .say(&format!("diff {TWO} cases:1 --exit-code /made"))
        .say("diff cases:1 nothing --exit-code")
        .say("diff cases:1 stratafs.test/busybox:1 --stat --depth 1")
        .say(&format!("--format json diff cases:1 {TWO} /kinds"))
        .say(&format!("--format json diff cases:1 {TWO} /kinds --stat"))
        .say(&format!("--format json diff cases:1 {TWO} /kinds --layers"))
        .say("diff cases:1")
        .say("diff nothing --stat")
        .say(&format!("diff cases:1 {TWO} --stat --layers"));
    insta::assert_snapshot!(talk.transcript());
}

#[test]
fn the_exit_status_does_not_depend_on_who_reads() {
    let talk = loaded();
    let status = |args: &[&str]| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = talk.sandbox.command(args).stdout(writer).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let quiet = |code: i32| (Some(code), String::new());
    assert_eq!(status(&["diff", "cases:1", TWO]), quiet(0));
    assert_eq!(status(&["diff", "--exit-code", "cases:1", TWO]), quiet(1));
    assert_eq!(status(&["diff", "--exit-code", "cases:1", "cases:1"]), quiet(0));
    let (code, error) = status(&["lint", "--fail-on", "space", TWO]);
    assert_eq!(code, Some(1));
    assert!(error.contains("of the class of --fail-on"), "{error}");
}

#[test]
fn an_upper_is_no_image() {
    let mut talk = loaded();
    let upper = talk.sandbox.path().join("store/uppers/work");
    std::fs::create_dir_all(upper.join("upper")).unwrap();
    std::fs::create_dir_all(upper.join("work")).unwrap();
    let id = &json(&talk, "images cases:1")[0]["id"];
    let record = serde_json::json!({
        "name": "work", "image": id, "reference": "cases:1", "created": 0, "temporary": false,
        "apart": false,
    });
    std::fs::write(upper.join("upper.json"), record.to_string()).unwrap();
    talk.say("diff work").say("diff work --stat").say(&format!("diff work {TWO}"));
    insta::assert_snapshot!(talk.transcript());
    // JSON has the name itself.
    for (name, path) in [
        (&b"a\n"[..], serde_json::json!("/a\n")),
        (b"a\xff", serde_json::json!({"hex": "61ff", "lossy": "/a\u{fffd}"})),
    ] {
        let file = upper.join("upper").join(std::ffi::OsStr::from_bytes(name));
        std::fs::write(&file, "").unwrap();
        let said = json(&talk, "diff work");
        assert_eq!(said.as_array().unwrap().last().unwrap()["path"], path);
        std::fs::remove_file(file).unwrap();
    }
}

#[test]
fn what_is_held_twice_or_for_nothing() {
    let mut talk = loaded();
    talk.say("duplicates")
        .say("duplicates -n 1 --no-trunc")
        .say(&format!("duplicates {TWO}"))
        .say("duplicates --waste -n 2 stratafs.test/busybox:1")
        .say(&format!("duplicates cases:1 {TWO}"))
        .say("duplicates cases:1 cases:1")
        .say("duplicates --waste")
        .say("--format json duplicates -n 1")
        .say(&format!("--format json duplicates -n 1 {TWO}"))
        .say(&format!("--format json duplicates cases:1 {TWO}"));
    insta::assert_snapshot!(talk.transcript());
}

#[test]
fn the_sums_are_those_of_df() {
    let talk = loaded();
    let df = json(&talk, "df");
    let duplicates = json(&talk, "duplicates");
    let sum = |key: &str| -> u64 {
        let layers = df["layers"].as_array().unwrap().iter();
        layers.map(|layer| layer[key].as_u64().unwrap()).sum()
    };
    let stored = df["stored"].as_u64().unwrap();
    assert_eq!(duplicates["saved"].as_u64().unwrap(), sum("apparent") - stored);
    // All that is listed, and it is all there is.
    let listed = duplicates["contents"].as_array().unwrap().iter();
    assert_eq!(listed.map(|one| one["saved"].as_u64().unwrap()).sum::<u64>(), duplicates["saved"]);
    let waste = &json(&talk, &format!("duplicates -n 1000 {TWO}"))["waste"];
    let files = waste["files"].as_array().unwrap();
    let wasted: u64 = files.iter().map(|file| file["bytes"].as_u64().unwrap()).sum();
    assert_eq!(
        (wasted, files.len() as u64),
        (waste["wasted"].as_u64().unwrap(), waste["count"].as_u64().unwrap(),)
    );
    for parts in ["how", "kept"] {
        let parts = waste[parts].as_object().unwrap().values();
        assert_eq!(parts.map(|sum| sum["bytes"].as_u64().unwrap()).sum::<u64>(), wasted);
    }
}
