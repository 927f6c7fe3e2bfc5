//! The rules of unions as a whole, and the program on unions that somebody else would write: the
//! kernel's, and three wrong ones of a line each.
//!
//! Invariant: the unions here know nothing of this project.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use serde_json::Value;
use strata_conform::Error;
use strata_conform::catalogue::Class;
use strata_conform::judge::Verdict;
use strata_conform::union::play::{UnionPlace, play_rule};
use strata_conform::union::{mounts, rules};
use strata_testkit::needs;

/// A copy of the lower in the upper, which is the mount then: it passes most rules, and what was
/// removed comes back at the next mount.
const COPY: &str = "sh -c 'cp -a %lower/. %upper && mount --bind %upper %mnt'";
/// The lower itself.
const BIND: &str = "sh -c 'mount --bind %lower %mnt; : %upper'";

fn conform(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_strata-conform"))
        .arg("union")
        .args(arguments)
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"))
}

/// The result of each rule, and the exit status.
fn results(mount: &str, rules: &[&str]) -> (Vec<(String, String)>, Option<i32>) {
    let first = ["--format", "json", "--mount", mount, "--rule"];
    let output = conform(&[&first[..], rules].concat());
    let found = json(&output);
    let text = |rule: &Value, key: &str| rule[key].as_str().unwrap().to_owned();
    let rules = found["rules"].as_array().unwrap().iter();
    (rules.map(|rule| (text(rule, "id"), text(rule, "result"))).collect(), output.status.code())
}

#[test]
fn every_rule_is_well_formed() {
    let rules = rules::all().unwrap();
    assert!(rules.len() >= 60, "{} rules", rules.len());
    for class in Class::ALL {
        assert!(rules.iter().any(|rule| rule.class == class), "{class}");
    }
    for rule in &rules {
        assert!(rule.why.len() >= 10 && rule.spec.1.len() >= 10, "{}: it does not argue", rule.id);
        for tree in rule.trees.iter().chain(&rule.lowers) {
            let paths: BTreeSet<&[u8]> = tree.iter().map(|entry| entry.path.as_slice()).collect();
            for path in &paths {
                let parent = path.iter().rposition(|byte| *byte == b'/').map(|at| &path[..at]);
                assert!(parent.is_none_or(|parent| paths.contains(parent)), "{}", rule.id);
            }
        }
    }
}

#[test]
fn a_rule_that_is_not_written_right_is_an_error_with_its_line() {
    let wrong = |text: &str| match rules::parse("f", text) {
        Err(Error::Catalogue { line, why, .. }) => (line, why),
        other => panic!("{text}: {other:?}"),
    };
    let with = |lines: &str| format!("rule x\nclass cosmetic\nspec a(2) | b\nwhy so\n{lines}");
    assert_eq!(wrong("class cosmetic\n"), (1, "before any rule".to_owned()));
    assert_eq!(wrong(&with("  file a\n")), (5, "belongs to no part".to_owned()));
    assert_eq!(wrong(&with("lower\ndo\n  fly a\n")), (7, "fly is no operation".to_owned()));
    assert_eq!(wrong(&with("do\n  rmdir a fails=EODD\n")), (6, "EODD is no error".to_owned()));
    let odd = with("do\n  rmdir a may=EPERM,EODD\n");
    assert_eq!(wrong(&odd), (6, "EODD is no error".to_owned()));
    let refused = with("lower\ndo\n  rmdir a\ntree\nrefused\n");
    assert_eq!(wrong(&refused).1, "x: nothing may be refused");
    assert_eq!(wrong(&with("or\n")).1, "or cannot be here");
    assert_eq!(wrong(&with("lower\n")).1, "x lacks its trees, lowers or argument");
    assert!(rules::parse("f", &with("lower\ndo\ntree\nor\n  dir d\n")).is_ok());
    assert!(matches!(rules::select(&["absent".to_owned()]), Err(Error::NoRule(_))));
}

#[test]
fn the_kernel_passes_and_wrong_unions_do_not() {
    if !needs::root() {
        return;
    }
    let plain = ["unlink-hides-lower-file", "opaque-in-lower", "rename-over-lower-file"];
    let kernel = "mount -t overlay -o lowerdir=%lower,upperdir=%upper,workdir=%work o %mnt";
    let (found, status) = results(kernel, &plain);
    assert!(found.iter().all(|(_, result)| result == "pass"), "{found:?}");
    assert_eq!((found.len(), status), (3, Some(0)));
    let (found, status) = results(COPY, &plain[..1]);
    assert_eq!((found[0].1.as_str(), status), ("wrong", Some(1)));
    // The tree is right, and the lower has changed.
    let (found, status) = results(BIND, &plain[..1]);
    assert_eq!((found[0].1.as_str(), status), ("wrong", Some(1)));
}

#[test]
fn what_a_union_may_refuse_is_allowed_if_it_refuses_all_of_it() {
    if !needs::root() {
        return;
    }
    let union = mounts::find(COPY, None, None).unwrap();
    let place = UnionPlace::new(None).unwrap();
    let verdict = |steps: &str| {
        let head = "rule x\nclass security\nspec a(2) | b\nwhy so\nlower\n  file a \"a\"\ndo\n";
        let trees = "tree\n  file a \"a\"\n  file b \"b\"\nrefused\n  file a \"a\"\n";
        let rule = rules::parse("f", &format!("{head}{steps}{trees}")).unwrap().remove(0);
        play_rule(&union, &rule, &place).unwrap().verdict
    };
    let (refused, done) = ("  write no/b \"b\" may=EPERM,ENOENT\n", "  write b \"b\" may=EPERM\n");
    assert_eq!(verdict(refused), Verdict::Allowed);
    assert_eq!(verdict(done), Verdict::Pass);
    assert_eq!(verdict("  write no/b \"b\" may=EPERM\n"), Verdict::Wrong);
    // Without a refusal the name is lost.
    assert_eq!(verdict(&format!("{done}  unlink b\n")), Verdict::Wrong);
    assert_eq!(verdict(&format!("{refused}{done}  unlink b\n")), Verdict::Wrong);
}

#[test]
fn a_drawn_difference_is_small_and_has_its_script() {
    if !needs::root() {
        return;
    }
    let output = conform(&["--format", "json", "--random", "50", "--mount", COPY]);
    assert_eq!(output.status.code(), Some(1));
    let found = json(&output);
    let one = &found["differ"][0];
    assert!(one["operations"].as_u64().unwrap() <= 3, "{one:#}");
    let script = one["script"].as_str().unwrap();
    assert!(script.starts_with("#!/bin/sh\n") && script.contains("mount --bind"), "{script}");
    let checked = Command::new("sh").args(["-n", "-c", script]).status().unwrap();
    assert!(checked.success(), "{script}");
}

#[test]
fn a_file_system_without_attributes_is_asked_for_none() {
    if !needs::root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let on_ramfs = |arguments: &[&str]| {
        let script = "mount -t ramfs x \"$1\" && exec \"$0\" union --dir \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, env!("CARGO_BIN_EXE_strata-conform")]);
        command.arg(dir.path()).args(["--format", "json"]).args(arguments).output().unwrap()
    };
    let rules = ["xattr-of-directory-hides-lower", "symlink-over-lower"];
    let found = json(&on_ramfs(&[&["--mount", COPY, "--rule"], &rules[..]].concat()));
    for rule in found["rules"].as_array().unwrap() {
        let expected = if rule["id"] == rules[0] { "not run" } else { "pass" };
        assert_eq!(rule["result"], expected, "{found:#}");
    }
    let passed_over = ["--ignore", "times,refusals", "--random", "30"];
    let found = json(&on_ramfs(&[&["--mount", COPY], &passed_over[..]].concat()));
    assert!(found["sequences"].as_u64().unwrap() > 0, "{found:#}");
    assert!(!found.to_string().contains("user."), "{found:#}");
}

#[test]
fn what_a_union_cannot_mount_is_wrong_if_it_mounts_other_things() {
    if !needs::root() {
        return;
    }
    let one_lower = "case %lower in *:*) exit 1 ;; esac; mount -t overlay -o \
                     lowerdir=%lower,upperdir=%upper,workdir=%work o %mnt";
    let rules = ["opaque-in-lower", "unlink-hides-lower-file"];
    let (found, status) = results(one_lower, &rules);
    let result = |id: &str| found.iter().find(|(one, _)| one == id).map(|(_, result)| &**result);
    assert_eq!(result("opaque-in-lower"), Some("wrong"));
    assert_eq!((result("unlink-hides-lower-file"), status), (Some("pass"), Some(1)));
    let output = conform(&["--format", "json", "--random", "50", "--mount", one_lower]);
    assert_eq!(output.status.code(), Some(1));
    let found = json(&output);
    assert_eq!(found["differ"][0]["differences"][0], "cannot be mounted: no message");
}

#[test]
fn a_union_that_cannot_run_is_an_error() {
    if !needs::root() {
        return;
    }
    for (mount, word) in [
        ("true %lower %upper %mnt", "nothing is mounted"),
        ("false %lower %upper %mnt", "no message"),
        ("mount somewhere", "is neither a union known by name"),
    ] {
        let output = conform(&["--mount", mount, "--rule", "unlink-hides-lower-file"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(word), "{mount}: {said}");
    }
}

#[test]
fn what_a_union_stands_on_is_unmounted_and_keeps_its_files() {
    if !needs::root() {
        return;
    }
    let source = tempfile::tempdir().unwrap();
    let kept = source.path().join("keep");
    std::fs::write(&kept, "").unwrap();
    let mount = format!(
        "mount --bind '{}' %mnt && {}",
        source.path().display(),
        "mount -t overlay -o lowerdir=%lower,upperdir=%upper,workdir=%work o %mnt"
    );
    let output = conform(&["--mount", &mount, "--rule", "unlink-hides-lower-file"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(kept.exists(), "{said}");
    assert!(said.contains("its unmount command ended, and something is still mounted"), "{said}");
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!table.contains(source.path().to_str().unwrap()), "{table}");
}

#[test]
fn what_asks_nothing_is_an_error() {
    let output = conform(&["--random", "5"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("--mount"), "{said}");
    if !needs::root() {
        return;
    }
    // Where an ordinary user finds it, wherever this is built.
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("strata-conform");
    std::fs::copy(env!("CARGO_BIN_EXE_strata-conform"), &program).unwrap();
    let mut command = Command::new(program);
    command.uid(65534).gid(65534).env("TMPDIR", "/tmp").current_dir("/");
    command.args(["union", "--rule", "opaque-in-lower", "--mount", BIND]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("root can"), "{said}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 not run"));
}
