//! What every command prints, word for word, on the checked-in images.
//!
//! The model: a test is a session, a few commands in one store; its transcript is compared with
//! `tests/snapshots`. `$` is a command, `!` a line on standard error, `= N` an exit code that is
//! not 0. After a wanted change: `INSTA_UPDATE=always cargo nextest run --test golden`, and read
//! the diff.
//!
//! Invariant: no command is without a transcript.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

use std::fmt::Write as _;
use std::fs;
use std::process::Stdio;

use strata_testkit::sandbox::Sandbox;
use strata_testkit::talk::Talk;
use strata_testkit::{fixture, top};

/// The columns of `strata df -v` but the last two, which the compressor and the file system decide.
fn without_headers(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let cells = line.split("   ").map(str::trim).filter(|cell| !cell.is_empty());
        let cells: Vec<&str> = cells.collect();
        match cells.len() {
            11 => writeln!(out, "{}   [SIZES]", cells[..9].join("   ")).unwrap(),
            _ => writeln!(out, "{line}").unwrap(),
        }
    }
    out
}

#[test]
fn help() {
    let mut talk = Talk::new();
    talk.say("--help").say("-h");
    for command in [
        "pull",
        "push",
        "copy",
        "login",
        "logout",
        "search",
        "manifest",
        "verify",
        "trust",
        "trust show",
        "trust check",
        "serve",
        "layer-store",
        "containerd",
        "containerd import",
        "load",
        "import",
        "save",
        "images",
        "tag",
        "rmi",
        "inspect",
        "history",
        "image",
        "image prune",
        "container",
        "container prune",
        "system",
        "system df",
        "system prune",
        "mount",
        "umount",
        "mounts",
        "uppers",
        "ps",
        "diff",
        "why",
        "duplicates",
        "commit",
        "rm",
        "ls",
        "cat",
        "cp",
        "stat",
        "layers",
        "explore",
        "unpack",
        "export",
        "df",
        "report",
        "facts",
        "lint",
        "reuse",
        "fsck",
        "gc",
        "info",
        "version",
        "help",
        "completions",
        "man",
    ] {
        talk.say(&format!("{command} --help"));
    }
    insta::assert_snapshot!(talk.transcript());
}

#[test]
fn every_command_shows_its_help() {
    let sandbox = Sandbox::new();
    // The test itself, because the snapshot may just be rewritten.
    let shown = fs::read_to_string(top().join("tests/golden.rs")).unwrap();
    for line in sandbox.ok(&["-h"]).lines().skip_while(|line| *line != "Commands:").skip(1) {
        let Some(command) = line.split_whitespace().next() else { break };
        assert!(shown.contains(&format!("\"{command}\"")), "{command}");
    }
}

#[test]
fn load() {
    let mut talk = Talk::new();
    talk.say("load --jobs 1 -i FIX/cases-docker25.docker.tar")
        .say("load --jobs 1 -i FIX/cases-podman-multi.docker.tar")
        .say("load --jobs 1 -i FIX/cases.oci")
        .say("load --jobs 1 -i oci:FIX/cases.oci:1 --tag again:v1")
        .say("load --jobs 1 -i docker-archive:FIX/cases-docker24.docker.tar.gz")
        .say("--quiet load -i oci-archive:FIX/busybox-gzip.oci.tar")
        .say("load --jobs 1 -i FIX/gnusparse.oci.tar --platform linux/amd64")
        .say("images");
    insta::assert_snapshot!(talk.transcript());
}

#[test]
fn load_from_a_pipe() {
    let mut talk = Talk::new();
    for name in ["cases-skopeo.docker.tar", "cases-zstd.oci.tar", "cases-docker24.docker.tar.gz"] {
        let line = "load --jobs 1";
        let mut command = talk.sandbox.command(&["load", "--jobs", "1"]);
        command.stdin(Stdio::from(fs::File::open(fixture(name)).unwrap()));
        let output = command.output().unwrap();
        talk.note(&format!("{line} < FIX/{name}"), &output);
    }
    insta::assert_snapshot!(talk.transcript());
}

#[test]
fn import_gives_one_image_however_the_tar_is_compressed() {
    let mut talk = Talk::new();
    for (name, tag) in [("rootfs.tar", "a"), ("rootfs.tar.gz", "b"), ("rootfs.tar.zst", "c")] {
        talk.say(&format!(
            "import --created 2001-02-03T04:05:06Z --platform linux/amd64 FIX/{name} root:{tag}"
        ));
    }
    talk.say("images --no-trunc").say("layers root:a");
    let ids = talk.sandbox.ok(&["images", "-q"]);
    assert_eq!(ids.lines().count(), 1, "{ids}");
    insta::assert_snapshot!(talk.transcript());
}

#[test]
fn names() {
    let mut talk = Talk::new();
    talk.say("images")
        .say("--format json-full images")
        .say("load -q -i FIX/cases-podman-multi.docker.tar")
        .say("tag stratafs.test/cases:1 mine")
        .say("tag mine localhost:5000/team/mine:v2")
        .say("images")
        .say("images stratafs.test/cases2")
        .say("images stratafs.test/cases2:also")
        .say("images mine:latest")
        .say("images nothing")
        .say("images -q")
        .say("-q images --no-trunc")
        .say("--format json-full images mine")
        .say("rmi stratafs.test/cases2:also")
        .say("rmi 11be1e1c5819")
        .say("rmi stratafs.test/cases2:1 mine nothing")
        .say("rmi --force 11be1e1c5819")
        .say("images");
    insta::assert_snapshot!(talk.transcript());
}

#[test]
fn looking() {
    let mut talk = Talk::new();
    talk.say("-q load -i FIX/cases.oci")
        .say("ls cases.oci:1")
        .say("ls -l cases.oci:1:/kinds")
        .say("ls -l cases.oci:1:/names")
        .say("ls -ld cases.oci:1:/private")
        .say("ls -R cases.oci:1:/lower")
        .say("--format json ls cases.oci:1:/links")
        .say("ls 11be:/times")
        .say("cat cases.oci:1:/same/third cases.oci:1:/private/child")
        .say("stat cases.oci:1")
        .say("stat cases.oci:1:/xattrs/capability")
        .say("stat cases.oci:1:/kinds/relative")
        .say("stat -L cases.oci:1:/kinds/relative")
        .say("--format json stat cases.oci:1:/xattrs/user")
        .say("layers cases.oci:1")
        .say("--format json layers cases.oci:1");
    insta::assert_snapshot!(talk.transcript());
}

#[test]
fn taking_out() {
    use sha2::Digest;
    let mut talk = Talk::new();
    talk.say("-q load -i FIX/cases.oci")
        .say("export cases.oci:1 -o all.tar")
        .say("export cases.oci:1 -o /dev/null");
    let tar = fs::read(talk.sandbox.path().join("all.tar")).unwrap();
    // What it says depends on who runs it: an ordinary user gives away no files.
    talk.sandbox.ok(&["cp", "cases.oci:1:/same/third", "copy"]);
    let copied = fs::read(talk.sandbox.path().join("copy")).unwrap();
    assert_eq!(copied, talk.sandbox.run(&["cat", "cases.oci:1:/same/third"]).stdout);
    let digest: [u8; 32] = sha2::Sha256::digest(&tar).into();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    writeln!(talk.said, "all.tar: {} bytes, sha256 {hex}\n", tar.len()).unwrap();
    // In the store's own directory nothing is written.
    talk.say("unpack cases.oci:1 store/tree");
    insta::assert_snapshot!(talk.transcript());
}

#[test]
fn housekeeping() {
    let mut talk = Talk::new();
    talk.say("df")
        .say("fsck")
        .say("gc")
        .say("mounts")
        .say("-q load --jobs 1 -i FIX/cases-docker25.docker.tar")
        .say("df --bytes")
        .say("df -v")
        .say("df -v cases:1 cases:1")
        .say("df -b cases:1 stratafs.test/cases:2")
        .say("df nothing:1")
        .say("-q fsck")
        .say("-q --format json fsck")
        .say("gc")
        .say("--format json gc")
        .say("--format json mounts")
        .say("rmi --dry-run cases:1")
        .say("rmi --dry-run stratafs.test/cases:2 stratafs.test/cases:2 nothing:1")
        .say("rmi --dry-run cases:1 stratafs.test/cases:2 stratafs.test/cases:latest cases:1")
        .say("rmi --dry-run -f nothing:1")
        .say("rmi cases:1 stratafs.test/cases:2 stratafs.test/cases:latest")
        .say("df");
    insta::assert_snapshot!(without_headers(&talk.transcript()));
}

#[test]
fn reuse() {
    let mut talk = Talk::new();
    talk.say("reuse")
        .say("--format json reuse")
        .say("-q reuse --dry-run oci:FIX/cases.oci FIX/busybox-gzip.oci.tar")
        .say("-q load --jobs 1 -i FIX/cases-docker25.docker.tar")
        .say("-q load --jobs 1 -i FIX/busybox-gzip.oci.tar")
        .say("reuse")
        .say("reuse -b cases:1 stratafs.test/cases:2")
        .say("reuse cases:1 --nearest 1")
        .say("reuse stratafs.test/busybox:1")
        .say("-q reuse --chunks=4KiB,1KiB --no-compression")
        .say(
            "--format json -q reuse --chunks=4KiB --no-compression cases:1 stratafs.test/busybox:1",
        )
        .say("--format json reuse cases:1")
        .say("-q reuse --dry-run FIX/cases.oci")
        .say("-q reuse --dry-run FIX/sparse.oci.tar")
        .say("-q --format json reuse --dry-run FIX/sparse.oci.tar")
        .say("reuse --chunks=3KB")
        .say("reuse --dry-run")
        .say("reuse --dry-run FIX/rootfs.tar")
        .say("reuse nothing");
    insta::assert_snapshot!(talk.transcript());
}

#[test]
fn explore_without_a_terminal() {
    let mut talk = Talk::new();
    talk.say("load -q -i FIX/busybox-gzip.oci.tar")
        .say("explore --layer 1 --changes stratafs.test/busybox:1")
        .say("explore --layer 2 --changes stratafs.test/busybox:1")
        .say("explore --layer 3 --filter *sr* stratafs.test/busybox:1")
        .say("--format json explore --changes stratafs.test/busybox:1")
        .say("explore stratafs.test/busybox:1")
        .say("explore --layer 4 stratafs.test/busybox:1")
        .say("explore absent:1");
    insta::assert_snapshot!(talk.transcript());
}

#[test]
fn facts() {
    let mut talk = Talk::new();
    talk.say("-q load --jobs 1 -i FIX/cases-docker25.docker.tar")
        .say("-q facts -o all --store one --day 2026-01-31")
        .say("-q facts -o all --store one --day 2026-01-31 --no-paths")
        .say("facts -o all --store one/two")
        .say("facts -o all --store one --day tomorrow")
        .say("facts -o all --store one --hash-paths @absent")
        .say("facts -o all --store one --hash-paths @")
        .say("facts -o all --no-paths --hash-paths key")
        .say("-q facts -o from --store one --day 2026-01-31 --from FIX/busybox-gzip.oci.tar")
        .say("facts -o from --from registry")
        .say("facts -o from --from registry://team")
        .say("facts -o from --from strata:x")
        .say("facts -o from --jobs 2")
        .say("facts");
    insta::assert_snapshot!(talk.transcript());
}

#[test]
fn report() {
    let mut talk = Talk::new();
    talk.say("-q load --jobs 1 -i FIX/cases-docker25.docker.tar")
        .say("-q report")
        .say("report -o two.html cases:1 nothing:1")
        .say("report -o no/where.html");
    let page = fs::read_to_string(talk.sandbox.path().join("report.html")).unwrap();
    assert_eq!(talk.sandbox.ok(&["report", "-o", "-"]).len(), page.len());
    let (_, data) = page.split_once("<script type=\"application/json\" id=\"data\">").unwrap();
    let (data, _) = data.split_once("</script>").unwrap();
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    let df = talk.sandbox.ok(&["df", "--format", "json"]);
    let df: serde_json::Value = serde_json::from_str(&df).unwrap();
    assert_eq!(data["totals"]["stored"], df["stored"]);
    assert_eq!(data["images"].as_array().unwrap().len(), df["images"].as_array().unwrap().len());
    insta::assert_snapshot!(talk.transcript());
}

#[test]
fn a_list_gives_each_image_of_an_archive_its_name() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["-q", "load", "-i", fixture("cases-docker25.docker.tar").to_str().unwrap()]);
    let list = |second: &str| {
        let first = "strata:cases:1 oci-archive:x.tar:one:1";
        let list = format!("{first}\nstrata:stratafs.test/cases:2 {second}\n");
        fs::write(sandbox.path().join("list"), list).unwrap();
        ["-q", "copy", "--list", "list"]
    };
    sandbox.ok(&list("oci-archive:x.tar:two:1"));
    sandbox.ok(&["-q", "load", "-i", "x.tar"]);
    for (from, to) in [("cases:1", "one:1"), ("stratafs.test/cases:2", "two:1")] {
        assert_eq!(
            sandbox.json(&["images", from])[0]["id"],
            sandbox.json(&["images", to])[0]["id"]
        );
    }
    let error = sandbox.fails(&list("oci-archive:x.tar:one:1"));
    assert!(error.contains("two images cannot be one:1 in x.tar"), "{error}");
    let error = sandbox.fails(&list("docker-archive:x.tar:two:1"));
    assert!(error.contains("x.tar cannot be an archive of both kinds"), "{error}");
}

#[test]
fn a_report_has_what_only_engines_have() {
    let sandbox = Sandbox::with_cases();
    let store = strata_layer::Store::open(&sandbox.path().join("store")).unwrap();
    let layers: Vec<_> = store.layers().unwrap().iter().map(|layer| layer.diff_id).collect();
    assert!(layers.len() > 1);
    store.holds("engine").unwrap().add(&layers).unwrap();
    drop(store);
    sandbox.ok(&["rmi", "cases.oci:1"]);
    let page = sandbox.ok(&["report", "-o", "-"]);
    let (_, data) = page.split_once("<script type=\"application/json\" id=\"data\">").unwrap();
    let (data, _) = data.split_once("</script>").unwrap();
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(data["images"][0]["names"], serde_json::json!(["engine"]));
    assert_eq!(data["layers"].as_array().unwrap().len(), layers.len());
}

#[test]
fn shells_and_manuals() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = sandbox.ok(&["completions", shell]);
        assert!(text.contains("STRATA_COMPLETE"), "{shell}");
    }
    // The program itself is what the scripts ask (tests/completion: at the prompts).
    let offered = |line: &str| {
        let mut command = sandbox.command(&[]);
        let words: Vec<&str> = line.split(' ').collect();
        command.env("STRATA_COMPLETE", "fish").arg("--").args(words);
        let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let words = said.lines().map(|line| line.split('\t').next().unwrap().to_owned());
        words.collect::<Vec<_>>()
    };
    let root = sandbox.path().join("store");
    let root = root.to_str().unwrap();
    assert_eq!(offered("strata umo"), ["umount"]);
    assert_eq!(offered("strata load --max-man"), ["--max-manifest-bytes"]);
    // Without a store nothing is offered and none is made.
    let none = format!("strata --root {root}-none cat x");
    assert_eq!(offered(&none), [""; 0]);
    assert!(!sandbox.path().join("store-none").exists());
    let overview = sandbox.ok(&["man"]);
    sandbox.ok(&["man", "pages"]);
    let pages = sandbox.path().join("pages");
    let page = |name: &str| fs::read_to_string(pages.join(name)).unwrap();
    assert_eq!(page("strata.1"), overview);
    assert!(overview.contains(".TH \"STRATA\" \"1\""), "{overview}");
    assert!(page("strata-load.1").contains("docker save alpine | strata load"));
    assert!(page("strata-image-load.1").contains("docker save alpine | strata image load"));
    assert!(page("strata-overlay.1").contains("lowerdir="));
}
