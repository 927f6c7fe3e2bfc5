//! The verdict on what an unpacker did.
//!
//! Invariants: the surroundings of the root file system count first, whatever the unpacker says and
//! shows; a tree is right only if it has every path that is expected and no other; what the user
//! cannot make is not compared.

use std::collections::BTreeMap;
use std::fmt;

use crate::catalogue::Case;
use crate::powers::Powers;
use crate::tree::TreeEntry;

/// What an unpacker did with a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conduct {
    /// It exited with 0, and left this tree.
    Unpacked(Vec<TreeEntry>),
    /// It exited with another status, and said this last.
    Refused(String),
    /// It changed what is around the root file system.
    Escaped(Vec<String>),
    /// It crashed, or did not end.
    Broke(String),
}

/// How that compares with the case's expectation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As expected.
    Pass,
    /// Not the right tree, but one that is allowed.
    Allowed,
    /// Refused where a tree is expected.
    Refused,
    /// Anything else.
    Wrong,
    /// It was found on the way that this cannot be asked here.
    NotRun,
}

impl Verdict {
    /// The verdict as reports write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Allowed => "allowed",
            Self::Refused => "refused",
            Self::Wrong => "wrong",
            Self::NotRun => "not run",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A verdict with its reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// The differences, or what the unpacker said.
    pub reasons: Vec<String>,
}

/// Compares what was done with what is expected.
#[must_use]
pub fn judge(case: &Case, conduct: &Conduct, powers: Powers) -> Judgement {
    let (verdict, reasons) = match conduct {
        Conduct::Escaped(changes) => (Verdict::Wrong, changes.clone()),
        Conduct::Broke(how) => (Verdict::Wrong, vec![how.clone()]),
        Conduct::Refused(said) => {
            let verdict = match (case.may_refuse, case.trees.is_empty()) {
                (true, true) => Verdict::Pass,
                (true, false) => Verdict::Allowed,
                (false, _) => Verdict::Refused,
            };
            (verdict, vec![said.clone()])
        }
        Conduct::Unpacked(seen) => {
            let each: Vec<Vec<String>> =
                case.trees.iter().map(|tree| differences(tree, seen, powers)).collect();
            match each.iter().position(Vec::is_empty) {
                Some(0) => (Verdict::Pass, Vec::new()),
                Some(_) => (Verdict::Allowed, each.into_iter().next().unwrap_or_default()),
                None if each.is_empty() => {
                    let paths = seen.iter().filter(|entry| entry.path != b".");
                    let paths: Vec<String> = paths.map(|entry| shown(&entry.path)).collect();
                    (Verdict::Wrong, vec![format!("was not refused: [{}]", paths.join(" "))])
                }
                None => {
                    let nearest = each.into_iter().min_by_key(Vec::len).unwrap_or_default();
                    (Verdict::Wrong, nearest)
                }
            }
        }
    };
    Judgement { verdict, reasons }
}

fn shown(path: &[u8]) -> String {
    match path.len() {
        0..=80 => path.escape_ascii().to_string(),
        length => format!("{}... ({length} bytes)", path[..40].escape_ascii()),
    }
}

/// Where a tree that was seen is not the expected one. The root counts if it is expected.
#[must_use]
pub fn differences(expected: &[TreeEntry], seen: &[TreeEntry], powers: Powers) -> Vec<String> {
    let by_path = |all: &[TreeEntry]| -> BTreeMap<Vec<u8>, TreeEntry> {
        all.iter().map(|entry| (entry.path.clone(), entry.clone())).collect()
    };
    let (expected, mut seen) = (by_path(expected), by_path(seen));
    if !expected.contains_key(b".".as_slice()) {
        seen.remove(b".".as_slice());
    }
    // What is in a directory that the user may not look into is unknown.
    let closed: Vec<Vec<u8>> =
        seen.values().filter(|one| one.closed).map(|one| [&one.path[..], b"/"].concat()).collect();
    let unknown = |path: &[u8]| closed.iter().any(|dir| path.starts_with(dir));
    let mut wrong = Vec::new();
    for path in expected.keys().chain(seen.keys().filter(|path| !expected.contains_key(*path))) {
        match (expected.get(path), seen.get(path)) {
            (Some(expected), None) => {
                let device = matches!(expected.kind.as_str(), "char" | "block");
                if (!device || powers.devices) && !unknown(path) {
                    wrong.push(format!("{}: is missing", shown(path)));
                }
            }
            (None, Some(seen)) => {
                wrong.push(format!("{}: a {} that should not be there", shown(path), seen.kind));
            }
            (Some(expected), Some(seen)) => {
                for fact in facts(expected, seen, powers) {
                    wrong.push(format!("{}: {fact}", shown(path)));
                }
            }
            (None, None) => {}
        }
    }
    wrong
}

/// The facts of one path that differ.
fn facts(expected: &TreeEntry, seen: &TreeEntry, powers: Powers) -> Vec<String> {
    let device = matches!(expected.kind.as_str(), "char" | "block");
    if device && !powers.devices {
        return Vec::new();
    }
    if expected.kind != seen.kind {
        return vec![format!("a {}, expected a {}", seen.kind, expected.kind)];
    }
    let mut wrong = Vec::new();
    let mut differs = |what: &str, seen: String, expected: String| {
        if seen != expected {
            wrong.push(format!("{what} {seen}, expected {expected}"));
        }
    };
    let what = match expected.kind.as_str() {
        "file" => "content",
        "symlink" => "target",
        _ => "device",
    };
    let quoted = |bytes: &[u8]| format!("\"{}\"", shown(bytes));
    if seen.body != expected.body && !seen.closed {
        differs(what, quoted(&seen.body), quoted(&expected.body));
    }
    differs("is the inode of", shown(&seen.inode), shown(&expected.inode));
    // Bits that act with an owner are kept only with the owner.
    let bits = if powers.owners { 0o7777 } else { 0o1777 };
    let mode =
        |mode: Option<u32>| mode.map_or(String::new(), |mode| format!("{:04o}", mode & bits));
    if expected.mode.is_some() {
        differs("mode", mode(seen.mode), mode(expected.mode));
    }
    let number = |number: Option<u32>| number.map_or(String::new(), |number| number.to_string());
    let owners = [("uid", seen.uid, expected.uid), ("gid", seen.gid, expected.gid)];
    for (what, seen, expected) in owners {
        if expected.is_some() && powers.owners {
            differs(what, number(seen), number(expected));
        }
    }
    let time = |time: Option<(i64, u32)>| {
        time.map_or(String::new(), |(seconds, nanos)| format!("{seconds}s+{nanos}ns"))
    };
    if expected.mtime.is_some() {
        differs("mtime", time(seen.mtime), time(expected.mtime));
    }
    if !seen.closed {
        wrong.extend(xattrs(expected, seen, powers));
    }
    wrong
}

/// Whether an attribute is the unpacker's, the union's or the machine's own: nobody has asked for
/// it.
pub(crate) fn is_own(name: &[u8]) -> bool {
    let spaces: [&[u8]; 4] = [
        b"trusted.overlay.",
        b"user.overlay.",
        b"security.selinux",
        // Owners that an ordinary user could not give (umoci).
        b"user.rootlesscontainers",
    ];
    spaces.iter().any(|space| name.starts_with(space))
}

/// The attributes that differ. Those of overlayfs are compared only where they are expected: an
/// unpacker may keep its own books in them; the same holds for labels of SELinux.
fn xattrs(expected: &TreeEntry, seen: &TreeEntry, powers: Powers) -> Vec<String> {
    let (Some(expected), Some(seen)) = (&expected.xattrs, &seen.xattrs) else { return Vec::new() };
    let comparable = |name: &[u8]| match name.starts_with(b"user.") {
        true => powers.user_xattrs,
        false => powers.privileged_xattrs,
    };
    let mut wrong = Vec::new();
    let names = expected.keys().chain(seen.keys().filter(|name| !expected.contains_key(*name)));
    for name in names.filter(|name| comparable(name)) {
        match (expected.get(name), seen.get(name)) {
            (Some(_), None) => wrong.push(format!("{} is missing", shown(name))),
            (None, Some(_)) if !is_own(name) => {
                wrong.push(format!("{} should not be there", shown(name)));
            }
            (Some(expected), Some(seen)) if expected != seen => wrong.push(format!(
                "{} is \"{}\", expected \"{}\"",
                shown(name),
                shown(seen),
                shown(expected)
            )),
            _ => {}
        }
    }
    wrong
}
