//! A sequence as a shell script that shows the difference anywhere: it needs the union, `sh`,
//! `python3` for renames (mv(1) copies where rename(2) fails), and nothing of this project.
//!
//! Invariant: every operation and every fact of a lower has its line; bytes that are not plain text
//! are quoted for `printf`.

use std::fmt::Write;

use rustix::fs::RenameFlags;

use super::ground::OPAQUE;
use super::mounts::UnionMount;
use super::operation::{Operation, WriteKind};
use super::random::Sequence;
use crate::TreeEntry;

/// The script, with the differences as comments.
#[must_use]
pub fn script(union: &UnionMount, sequence: &Sequence, found: &[String]) -> String {
    let mut text = "#!/bin/sh\n".to_owned();
    for difference in found {
        add(&mut text, &format!("# {difference}"));
    }
    add(&mut text, "cd \"$(mktemp -d)\" || exit");
    let lowers: Vec<String> = (0..sequence.lowers.len()).map(|n| format!("lower{n}")).collect();
    add(&mut text, &format!("mkdir {} upper work mnt merged", lowers.join(" ")));
    for (lower, tree) in lowers.iter().zip(&sequence.lowers) {
        for entry in tree {
            lay(&mut text, lower, entry);
        }
    }
    let above: Vec<String> = lowers.iter().rev().map(|lower| format!("$PWD/{lower}")).collect();
    add(&mut text, &format!("export LOWER={} UPPER=$PWD/upper", above.join(":")));
    add(&mut text, "export WORK=$PWD/work MNT=$PWD/mnt MERGED=$PWD/merged");
    if union.mount.contains("MERGED") {
        let merged = super::ground::merge(&sequence.lowers);
        merged.iter().for_each(|entry| lay(&mut text, "merged", entry));
    }
    add(&mut text, &format!("on() {{ {}; }}", union.mount.trim()));
    add(&mut text, &format!("off() {{ {}; }}", union.unmount.trim()));
    if sequence.operations.iter().any(|one| matches!(one, Operation::Rename { .. })) {
        add(&mut text, RENAME);
    }
    add(&mut text, "on && cd mnt");
    for operation in &sequence.operations {
        add(&mut text, &format!("{} || echo failed", line(operation)));
    }
    add(&mut text, "find . -printf '%p %y %m %s %l\\n' | sort; getfattr -Rhd . 2> /dev/null");
    add(&mut text, "cd .. && off");
    text
}

const RENAME: &str = r#"rename() { # FROM TO FLAGS: renameat2(2); 1 does not replace, 2 exchanges
  python3 -c 'import ctypes, os, sys
call = ctypes.CDLL(None, use_errno=True).renameat2
if call(-100, os.fsencode(sys.argv[1]), -100, os.fsencode(sys.argv[2]), int(sys.argv[3])):
  sys.exit(os.strerror(ctypes.get_errno()))' "$@"
}"#;

fn add(text: &mut String, line: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "{line}");
}

fn lay(text: &mut String, lower: &str, entry: &TreeEntry) {
    let path = format!("{lower}/{}", quoted(&entry.path));
    let body = quoted(&entry.body);
    match entry.kind.as_str() {
        "dir" => add(text, &format!("mkdir -p {path}")),
        "symlink" => add(text, &format!("ln -s {body} {path}")),
        "fifo" => add(text, &format!("mkfifo {path}")),
        "char" => {
            let numbers = String::from_utf8_lossy(&entry.body).replace(':', " ");
            add(text, &format!("mknod {path} c {numbers}"));
        }
        _ => add(text, &format!("printf %s {body} > {path}")),
    }
    let plain = if entry.kind == "dir" { 0o755 } else { 0o644 };
    if let Some(mode) = entry.mode
        && mode != plain
        && ["dir", "file"].contains(&entry.kind.as_str())
    {
        add(text, &format!("chmod {mode:04o} {path}"));
    }
    for (name, value) in entry.xattrs.iter().flatten() {
        let (name, value) = (quoted(name), quoted(value));
        add(text, &format!("setfattr -h -n {name} -v {value} {path}"));
    }
    if entry.xattrs.as_ref().is_some_and(|all| all.contains_key(OPAQUE)) {
        return;
    }
    if let Some((seconds, _)) = entry.mtime
        && entry.kind == "file"
    {
        add(text, &format!("touch -d @{seconds} {path}"));
    }
}

/// The operation as a shell has it, with paths below the mount.
#[must_use]
pub fn line(operation: &Operation) -> String {
    let q = quoted;
    match operation {
        Operation::Write { path, body, kind } => {
            let (path, body) = (q(path), q(body));
            match kind {
                WriteKind::Whole => format!("printf %s {body} > {path}"),
                WriteKind::New => format!("(set -C; printf %s {body} > {path})"),
                WriteKind::Append => {
                    let how = "oflag=append conv=nocreat,notrunc status=none";
                    format!("printf %s {body} | dd of={path} {how}")
                }
                WriteKind::At(at) => {
                    let how = "conv=nocreat,notrunc status=none";
                    format!("printf %s {body} | dd of={path} bs=1 seek={at} {how}")
                }
            }
        }
        Operation::Truncate { path, size } => format!("truncate -c -s {size} {}", q(path)),
        Operation::Mkdir { path, mode } => format!("mkdir -m {mode:o} {}", q(path)),
        Operation::Rmdir { path } => format!("rmdir {}", q(path)),
        Operation::Unlink { path } => format!("unlink {}", q(path)),
        Operation::Rename { from, to, flags } => {
            let flags = match *flags {
                RenameFlags::NOREPLACE => 1,
                RenameFlags::EXCHANGE => 2,
                _ => 0,
            };
            format!("rename {} {} {flags}", q(from), q(to))
        }
        Operation::Link { from, to } => format!("ln -PT {} {}", q(from), q(to)),
        Operation::Symlink { path, target } => format!("ln -sT {} {}", q(target), q(path)),
        Operation::Node { path, kind, device: (major, minor) } => match kind {
            rustix::fs::FileType::Fifo => format!("mkfifo {}", q(path)),
            _ => format!("mknod {} c {major} {minor}", q(path)),
        },
        Operation::Chmod { path, mode } => format!("chmod {mode:o} {}", q(path)),
        Operation::Chown { path, uid, gid } => format!("chown -h {uid}:{gid} {}", q(path)),
        Operation::Times { path, seconds } => format!("touch -c -h -d @{seconds} {}", q(path)),
        Operation::SetXattr { path, name, value } => {
            format!("setfattr -h -n {} -v {} {}", q(name), q(value), q(path))
        }
        Operation::RemoveXattr { path, name } => {
            format!("setfattr -h -x {} {}", q(name), q(path))
        }
        Operation::Remount | Operation::Kill => remount(operation),
        _ => question(operation),
    }
}

fn remount(operation: &Operation) -> String {
    let end = match operation {
        Operation::Kill => "pkill -9 -f \"$MNT\"; umount -l \"$MNT\"",
        _ => "off",
    };
    format!("{{ cd ..; {end}; on && cd mnt; }}")
}

/// What has no command: said in words.
fn question(operation: &Operation) -> String {
    let q = quoted;
    match operation {
        Operation::Open { handle, path, is_writable } => {
            format!("exec {handle}{} {}", if *is_writable { "<>" } else { "<" }, q(path))
        }
        Operation::WriteTo { handle, body } => format!("printf %s {} >&{handle}", q(body)),
        Operation::Sync { handle } => format!("sync {handle}"),
        Operation::Close { handle } => format!("exec {handle}>&-"),
        Operation::Holds { handle, .. } => format!("the open file {handle}"),
        Operation::Content { path, .. } => format!("cat {}", q(path)),
        Operation::Lists { path, .. } => format!("ls -A {}", q(path)),
        Operation::Same { one, other } => format!("[ {} -ef {} ]", q(one), q(other)),
        Operation::Links { path, .. } => format!("stat -c %h {}", q(path)),
        Operation::Mark { path, .. } | Operation::Still { path, .. } => {
            format!("stat -c %i {}", q(path))
        }
        Operation::Numbered { path } => format!("ls -i {}", q(path)),
        _ => String::new(),
    }
}

/// A word of `sh`.
fn quoted(bytes: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-/".contains(byte);
    match std::str::from_utf8(bytes) {
        Ok(text) if !bytes.is_empty() && bytes.iter().all(plain) => text.to_owned(),
        Ok(text) if !text.contains(['\'', '\0']) => format!("'{text}'"),
        _ => {
            let octal: String = bytes.iter().map(|byte| format!("\\{byte:03o}")).collect();
            format!("\"$(printf '{octal}')\"")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted() {
        let words = [&b"a/.wh.b"[..], b"", b"two words", b"it's", b"\xff"];
        let quoted: Vec<String> = words.into_iter().map(quoted).collect();
        let octal = "\"$(printf '\\151\\164\\047\\163')\"";
        assert_eq!(quoted, ["a/.wh.b", "''", "'two words'", octal, "\"$(printf '\\377')\""]);
    }
}
