//! Scripts: each can be run, says what it is for, and is parsed by its shell.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::project::{files, none, top};

#[test]
fn scripts_can_be_run_and_parsed() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    let mut all = files();
    all.push("tests/fixtures/make".into());
    all.push("tests/fixtures/make-store".into());
    for path in all {
        let Ok(text) = fs::read_to_string(top().join(&path)) else { continue };
        let Some(first) = text.lines().next().and_then(|line| line.strip_prefix("#!")) else {
            continue;
        };
        let name = path.display();
        seen += 1;
        if fs::metadata(top().join(&path)).unwrap().permissions().mode() & 0o111 != 0o111 {
            wrong.push(format!("{name}: cannot be run"));
        }
        if text.lines().nth(1).is_none_or(|line| !line.starts_with(['#', '"'])) {
            wrong.push(format!("{name}: its second line does not say what it is for"));
        }
        if first.ends_with("bash") {
            let parsed = Command::new("bash").arg("-n").arg(top().join(&path)).output().unwrap();
            if !parsed.status.success() {
                wrong.push(format!("{name}: {}", String::from_utf8_lossy(&parsed.stderr)));
            }
        }
    }
    assert!(seen >= 8, "only {seen} scripts were found");
    none(wrong);
}
