//! Who keeps a mount busy: the processes with something open below it, as far as /proc tells.
//!
//! Invariant: only links are read, never what they lead to, so nothing here waits for a daemon.

use std::fs;
use std::path::Path;

/// More would not help the reader of the message.
const ENOUGH: usize = 8;

/// Up to eight lines `PID COMMAND (WHAT)` for processes that use something at or below `path`.
pub(crate) fn users_of(path: &Path) -> Vec<String> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .filter_map(|entry| {
            let process = entry.ok()?.path();
            let pid: u32 = process.file_name()?.to_str()?.parse().ok()?;
            let what = use_of(&process, path)?;
            let command = fs::read_to_string(process.join("comm")).unwrap_or_default();
            Some(format!("{pid} {} ({what})", command.trim_end()))
        })
        .take(ENOUGH)
        .collect()
}

fn use_of(process: &Path, path: &Path) -> Option<&'static str> {
    let leads_below = |link: &Path| fs::read_link(link).is_ok_and(|to| to.starts_with(path));
    let named =
        [("cwd", "working directory"), ("root", "root directory"), ("exe", "running program")];
    for (link, what) in named {
        if leads_below(&process.join(link)) {
            return Some(what);
        }
    }
    let mut open = fs::read_dir(process.join("fd")).ok()?;
    if open.any(|fd| fd.is_ok_and(|fd| leads_below(&fd.path()))) {
        return Some("open file");
    }
    let maps = fs::read_to_string(process.join("maps")).ok()?;
    let mapped = maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..]));
    mapped.map(Path::new).any(|file| file.starts_with(path)).then_some("mapped file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let me = format!("{} ", std::process::id());
        assert!(!users_of(&path).iter().any(|line| line.starts_with(&me)));
        let _open = fs::File::create(path.join("f")).unwrap();
        let users = users_of(&path);
        assert!(
            users.iter().any(|u| u.starts_with(&me) && u.ends_with("(open file)")),
            "{users:?}"
        );
    }
}
