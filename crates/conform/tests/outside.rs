//! The program from outside: an unpacker in Python, a wrong expectation, unpackers that escape,
//! crash, hang or cannot run.
//!
//! Invariant: the unpackers here know nothing of this project.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use strata_conform::judge::{Judgement, Verdict};
use strata_conform::page::{self, Page, VerdictMatrix};
use strata_conform::powers::Powers;
use strata_conform::{adapters, catalogue, html, run};
use strata_testkit::needs;

const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/unpack.py");

fn conform(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_strata-conform")).args(arguments).output().unwrap()
}

fn python(naive: &str) -> String {
    format!("python3 '{PYTHON}' {naive} %layout %out")
}

/// The result of each case, and the exit status.
fn results(unpacker: &str, cases: &[&str]) -> (BTreeMap<String, String>, Option<i32>) {
    let first = ["layers", "--format", "json", "--timeout", "5", "--unpacker", unpacker, "--case"];
    let output = conform(&[&first[..], cases].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
    let text = |case: &Value, key: &str| case[key].as_str().unwrap().to_owned();
    let cases = found["cases"].as_array().unwrap().iter();
    let cases = cases.map(|case| (text(case, "id"), text(case, "result")));
    (cases.collect(), output.status.code())
}

#[test]
fn an_unpacker_of_somebody_else_runs() {
    if !needs::program("python3") {
        return;
    }
    let plain = [
        "whiteout-file",
        "whiteout-directory",
        "opaque-directory",
        "directories-merge",
        "file-replaces-directory",
        "link-in-one-layer",
        "name-255-bytes",
        "layer-twice",
        "pack-plain",
        "pack-gzip-members",
        "tar-pax-path",
    ];
    let (found, status) = results(&python(""), &plain);
    assert!(found.values().all(|result| result == "pass"), "{found:?}");
    assert_eq!((found.len(), status), (plain.len(), Some(0)));
    let (found, status) = results(&python(""), &["escape-symlink-absolute", "pack-zstd"]);
    assert_eq!(found["escape-symlink-absolute"], "allowed");
    assert_eq!((found["pack-zstd"].as_str(), status), ("refused", Some(0)));
}

#[test]
fn a_naive_unpacker_is_caught_by_the_canary() {
    if !needs::program("python3") {
        return;
    }
    let cases = ["escape-symlink-absolute", "escape-dot-dot", "opaque-through-symlink"];
    let (found, status) = results(&python("--naive"), &cases);
    assert!(found.values().all(|result| result == "wrong"), "{found:?}");
    assert_eq!(status, Some(1));
}

#[test]
fn an_escape_from_a_root_that_the_unpacker_keeps_elsewhere_is_caught() {
    if !needs::program("python3") {
        return;
    }
    let mut storage = format!(
        "mkdir -p storage/layer1/diff; python3 '{PYTHON}' --naive %layout storage/layer1/diff || \
         exit 1; : %out"
    );
    if needs::is_root() {
        storage.push_str("; mount --bind storage/layer1/diff %out");
    }
    let cases = ["escape-dot-dot", "escape-dot-dot-two-levels", "escape-dot-dot-inside"];
    let (found, status) = results(&storage, &cases);
    assert!(found.values().all(|result| result == "wrong"), "{found:?}");
    assert_eq!(status, Some(1));
    // The root itself is no escape, whether the layer is refused after all or not.
    let kept = "mkdir -p s/1/fs/canary; printf escaped > s/1/fs/canary/keep; : %layout;
        if [ $(id -u) = 0 ]; then mount --bind s/1/fs %out; else cp -r s/1/fs/canary %out; fi";
    for script in [kept.to_owned(), format!("{kept}; exit 1")] {
        let case = catalogue::select(&["escape-dot-dot".to_owned()]).unwrap().remove(0);
        let unpacker = adapters::find(&script, None).unwrap();
        let judged = run::run(&case, &unpacker, Duration::from_secs(10)).unwrap();
        let escaped = judged.reasons.iter().any(|why| why.starts_with("outside of the root"));
        assert!(!escaped, "{judged:?}");
    }
}

#[test]
fn every_change_around_the_root_is_caught() {
    for deed in [
        "echo x > /tmp/strata-conform-canary/keep",
        "rm /tmp/strata-conform-canary/keep",
        "chmod 777 /tmp/strata-conform-canary",
        "rm -r /tmp/strata-conform-canary",
        "rm -r /tmp/strata-conform-canary; touch /tmp/strata-conform-canary",
        "rm -r /tmp/strata-conform-canary; ln -s / /tmp/strata-conform-canary",
        "rm -r $(dirname $(dirname %out))",
        "rm -r $(dirname $(dirname $(dirname %out)))",
        "ln /tmp/strata-conform-canary/keep %out/stolen; chmod 777 %out/stolen",
        "echo x > %out/../canary/keep",
        "mkdir %out/../../canary/new",
        "touch -d @5 %out/../../canary/keep",
    ] {
        // Whether it says that it was right or not.
        for end in ["", "; exit 1"] {
            let unpacker = format!("echo a > %out/a; : %layout; {deed}{end}");
            let unpacker = adapters::find(&unpacker, None).unwrap();
            let case = catalogue::select(&["pack-plain".to_owned()]).unwrap().remove(0);
            let judged = run::run(&case, &unpacker, Duration::from_secs(10)).unwrap();
            assert_eq!(judged.verdict, Verdict::Wrong, "{deed}");
            assert!(judged.reasons[0].starts_with("outside of the root: "), "{judged:?}");
        }
    }
}

#[test]
fn a_wrong_expectation_is_noticed() {
    let unpacker = "printf a > %out/a; ln %out/a %out/b; mkdir -m 755 %out/d; touch -d @7 %out/a
        : %layout";
    let unpacker = adapters::find(unpacker, None).unwrap();
    let is = |tree: &str| {
        let owner = format!("uid={0} gid=*", rustix::process::geteuid().as_raw());
        let tree = tree.replace("OWN", &owner);
        let head = "case x\nclass cosmetic\nspec unspecified\nwhy so\nlayer\ntree\n";
        let case = catalogue::parse("f", &format!("{head}{tree}")).unwrap().remove(0);
        run::run(&case, &unpacker, Duration::from_secs(10)).unwrap()
    };
    let right = "  file a \"a\" OWN mtime=7\n  link b a\n  dir d OWN\n";
    assert_eq!(is(right).reasons, [""; 0]);
    for (from, to) in [
        ("\"a\"", "\"b\""),
        ("mtime=7", "mtime=8"),
        ("  link b a", "  file b \"a\" OWN mtime=7"),
        ("  dir d OWN\n", ""),
        ("dir d", "dir e"),
        ("dir d OWN", "fifo d OWN"),
        ("dir d OWN", "dir d OWN mode=0700"),
        ("dir d OWN", "dir d OWN\n  dir d/e OWN"),
        ("mtime=7", "mtime=7 user.a=b"),
    ] {
        let judged = is(&right.replace(from, to));
        assert_eq!(judged.verdict, Verdict::Wrong, "{from} -> {to}");
        assert!(!judged.reasons.is_empty(), "{from} -> {to}");
    }
    let also = format!("or\n{right}");
    assert_eq!(is(&also).verdict, Verdict::Allowed);
}

#[test]
fn what_breaks_is_wrong_and_what_cannot_run_is_an_error() {
    let case = || catalogue::select(&["link-to-directory".to_owned()]).unwrap().remove(0);
    let judged = |script: &str| {
        let unpacker = adapters::find(&format!("{script}; : %layout %out"), None).unwrap();
        run::run(&case(), &unpacker, Duration::from_millis(400))
    };
    for refusal in ["exit 3", "exit 193", "exit 255"] {
        assert_eq!(judged(refusal).unwrap().verdict, Verdict::Pass, "{refusal}");
    }
    assert_eq!(judged("exit 192").unwrap().reasons, ["ended by signal 64"]);
    assert_eq!(judged("sleep 60").unwrap().reasons, ["did not end"]);
    assert_eq!(judged("kill -9 $$").unwrap().reasons, ["ended by signal 9"]);
    assert_eq!(judged("sh -c 'kill -11 $$'; exit $?").unwrap().reasons, ["ended by signal 11"]);
    for deed in ["rmdir %out", "rmdir %out; ln -s / %out", "rmdir %out; touch %out"] {
        assert_eq!(judged(deed).unwrap().reasons, ["the root is no directory any more"]);
    }
    assert!(judged("exit 0").unwrap().reasons[0].starts_with("was not refused"));
    assert!(judged("no-such-program; exit $?").is_err());
    // A program that refuses everything proves nothing.
    let output = conform(&["layers", "--unpacker", "echo no >&2; exit 1; %layout %out"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("refuses an image of one file: no"), "{said}");
    assert_eq!(conform(&["layers", "--unpacker", "nobody"]).status.code(), Some(2));
    assert_eq!(conform(&["layers", "--case", "absent"]).status.code(), Some(2));
}

#[test]
fn a_hard_link_that_cannot_be_made_here_is_not_run() {
    if !needs::root() {
        return;
    }
    let case = ["escape-hard-link-absolute", "escape-hard-link-through-symlink", "pack-plain"];
    let nothing = ": %layout %out";
    let script = "mount -t tmpfs x \"$2\" && TMPDIR=$2 exec \"$0\" layers --format json \
                  --unpacker \"$1\" --case \"$3\" \"$4\" \"$5\"";
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, env!("CARGO_BIN_EXE_strata-conform"), nothing]);
    let output = command.arg(dir.path()).args(case).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
    let of = |id: &str| {
        let all = found["cases"].as_array().unwrap();
        all.iter().find(|case| case["id"] == id).unwrap().clone()
    };
    for id in &case[..2] {
        assert_eq!(of(id)["result"], "not run", "{found:#}");
        assert!(of(id)["reasons"][0].as_str().unwrap().contains("set TMPDIR"), "{found:#}");
    }
    assert_eq!(of(case[2])["result"], "wrong", "{found:#}");
}

/// The program as an ordinary user runs it, in a place where that user finds it.
fn conform_as_user(arguments: &[&str]) -> Output {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("strata-conform");
    std::fs::copy(env!("CARGO_BIN_EXE_strata-conform"), &program).unwrap();
    // A canary of another user is in the way.
    let script = "mount -t tmpfs -o mode=1777 x /tmp && \
                  exec setpriv --reuid 65534 --regid 65534 --clear-groups -- \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script]).arg(&program).args(arguments);
    command.env("TMPDIR", "/tmp").current_dir("/").output().unwrap()
}

#[test]
fn an_owner_that_the_user_cannot_give_is_no_fault_of_the_unpacker() {
    if !needs::root() {
        return;
    }
    let case = ["owner-minus-one", "pack-plain"];
    let first = ["layers", "--format", "json", "--unpacker", ": %layout %out", "--case"];
    let output = conform_as_user(&[&first[..], &case[..]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
    let result = |at: usize| found["cases"][at]["result"].as_str().unwrap();
    let all = [0, 1].map(|at| (found["cases"][at]["id"].as_str().unwrap(), result(at)));
    assert!(all.contains(&("owner-minus-one", "not run")), "{found:#}");
    assert!(all.contains(&("pack-plain", "wrong")), "{found:#}");
}

#[test]
fn a_tree_that_cannot_be_read_is_wrong() {
    if !needs::root_and_fuse() {
        return;
    }
    // Its daemon is gone with the shell.
    let deed = "mkdir %out/d; exec 3<>/dev/fuse; : %layout
        mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 x %out/d";
    let (found, status) = results(deed, &["whiteout-file", "pack-plain"]);
    assert!(found.values().all(|result| result == "wrong"), "{found:?}");
    assert_eq!((found.len(), status), (2, Some(1)));
}

#[test]
fn a_mount_that_never_answers_does_not_hang_the_suite() {
    if !needs::root_and_fuse() {
        return;
    }
    let deed = "exec 3<>/dev/fuse; : %layout; sleep 30 &
        mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 x %out";
    let case = catalogue::select(&["pack-plain".to_owned()]).unwrap().remove(0);
    let unpacker = adapters::find(deed, None).unwrap();
    let judged = run::run(&case, &unpacker, Duration::from_secs(3)).unwrap();
    assert_eq!(judged.verdict, Verdict::Wrong);
    assert_eq!(judged.reasons, ["the tree was not read in time"]);
}

#[test]
fn what_is_left_mounted_is_detached_and_keeps_its_files() {
    if !needs::root() {
        return;
    }
    let source = tempfile::tempdir().unwrap();
    let kept = source.path().join("keep");
    std::fs::write(&kept, "").unwrap();
    for deed in [
        "mount --bind SOURCE %out",
        "mkdir %out/dev; mount --bind SOURCE %out/dev",
        "mkdir d; mount --bind SOURCE d; mount -t tmpfs x d",
        "mount --bind SOURCE /tmp/strata-conform-canary",
    ] {
        let deed = deed.replace("SOURCE", &source.path().display().to_string());
        let unpacker = adapters::find(&format!("{deed}; : %layout %out"), None).unwrap();
        let case = catalogue::select(&["pack-plain".to_owned()]).unwrap().remove(0);
        run::run(&case, &unpacker, Duration::from_secs(10)).unwrap();
        assert!(kept.exists(), "{deed}");
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let own = format!("/conform.{}-", std::process::id());
        assert!(!table.contains(&own), "{deed}: {table}");
    }
}

#[test]
fn a_page_says_who_ran_it_and_what_was_compared_in_part() {
    let case = catalogue::select(&["owner-large".to_owned()]).unwrap().remove(0);
    let unpacker = adapters::find(": %layout %out", None).unwrap();
    let judged = |verdict| {
        let judgement = Judgement { verdict, reasons: Vec::new() };
        (unpacker.clone(), vec![(case.clone(), judgement)])
    };
    let results = [judged(Verdict::Pass), judged(Verdict::Wrong)];
    let written = |can: bool| {
        let powers = Powers { owners: can, devices: can, user_xattrs: can, privileged_xattrs: can };
        let matrices = vec![VerdictMatrix::of_cases(&results, &[], powers)];
        let page = Page { matrices, drawn: Vec::new(), is_root: can };
        let (mut markdown, mut html) = (Vec::new(), Vec::new());
        page::markdown(&mut markdown, &page).unwrap();
        html::html(&mut html, &page).unwrap();
        (String::from_utf8(markdown).unwrap(), String::from_utf8(html).unwrap())
    };
    let (markdown, html) = written(false);
    assert!(markdown.contains("| owner-large | pass (in part) | wrong |"), "{markdown}");
    assert!(markdown.contains("ran as\nan ordinary user,"), "{markdown}");
    assert!(markdown.contains("* not compared: owners\n"), "{markdown}");
    assert!(html.contains(">pass (in part)") && html.contains("as an ordinary user"), "{html}");
    let (markdown, html) = written(true);
    assert!(markdown.contains("| owner-large | pass | wrong |"), "{markdown}");
    assert!(markdown.contains("ran as\nroot,") && !markdown.contains("in part"), "{markdown}");
    assert!(html.contains("ran as root.") && !html.contains("in part"), "{html}");
}

#[test]
fn the_umask_of_the_caller_does_not_matter() {
    let script = "umask 077; exec \"$0\" layers --unpacker \"$1\"";
    let unpacker = "echo the umask is $(umask) >&2; exit 1; %layout %out";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_strata-conform"), unpacker]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("the umask is 0022"), "{said}");
}

#[test]
fn the_list_has_all_that_others_need() {
    let output = conform(&["layers", "--list", "--format", "json"]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found.as_array().unwrap().len(), catalogue::all().unwrap().len());
    let case = found.as_array().unwrap().iter().find(|case| case["id"] == "opaque-root").unwrap();
    assert_eq!(case["class"], "data-loss");
    assert_eq!(case["spec"]["section"], "Opaque Whiteout");
    assert_eq!(case["trees"][0][0]["path"], "c");
    assert_eq!(case["may_refuse"], false);
}
