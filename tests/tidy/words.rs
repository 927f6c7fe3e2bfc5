//! Words that code may not have, or only where it is audited.

use std::fs;

use crate::code::{code, without_tests};
use crate::project::{files, is_rust, is_test, none, read, top};

/// Where `unsafe` is allowed: one small module for each need.
const UNSAFE: [&str; 10] = [
    "crates/diff/src/sha256/twin.rs",
    "crates/tree/src/file_handle.rs",
    "crates/tree/src/file_lease.rs",
    "crates/tree/src/fs_verity.rs",
    "crates/tree/src/inode_flags.rs",
    "crates/tree/src/mmap.rs",
    "crates/union/src/writable/access_times.rs",
    "crates/fuse/src/inherited.rs",
    "crates/fuse/tests/common/mapping.rs",
    "crates/snapshotter/src/memory.rs",
];

#[test]
fn unsafe_is_where_it_is_audited() {
    let mut wrong = Vec::new();
    for path in files().iter().filter(|path| is_rust(path)) {
        let name = path.to_str().unwrap();
        let text = read(path);
        let code = code(&text);
        let uses = code.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|w| w == "unsafe");
        match (uses, UNSAFE.contains(&name)) {
            (true, false) => wrong.push(format!("{name}: unsafe, and not in the list")),
            (false, true) => wrong.push(format!("{name}: in the list, and without unsafe")),
            (true, true) if !text.contains("// SAFETY:") => {
                wrong.push(format!("{name}: unsafe without a SAFETY line"));
            }
            _ => {}
        }
    }
    none(wrong);
}

#[test]
fn libraries_do_not_print_panic_or_read_the_environment() {
    let banned = [
        "println!",
        "print!(",
        "eprintln!",
        "eprint!(",
        "panic!(",
        "process::exit",
        "env::var",
        "env::args",
        "unimplemented!",
        "todo!",
    ];
    let mut wrong = Vec::new();
    for path in files().iter().filter(|path| is_rust(path) && !is_test(path)) {
        let name = path.to_str().unwrap();
        let library = name.starts_with("crates/")
            && !name.starts_with("crates/cli/")
            // Programs: one of them as a library.
            && !name.starts_with("crates/overlay/")
            && !name.starts_with("crates/snapshotter/")
            && name != "crates/fuzz/src/main.rs"
            && !name.contains("/examples/");
        let text = read(path);
        for (number, line) in code(without_tests(&text)).lines().enumerate() {
            for word in banned.iter().filter(|_| library) {
                if line.contains(word) {
                    wrong.push(format!("{name}:{}: {word}", number + 1));
                }
            }
        }
    }
    none(wrong);
}

#[test]
fn nothing_is_left_to_do_or_to_debug() {
    // Written in halves, for this file is read too.
    let banned =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("dbg", "!("), concat!("HA", "CK")];
    let mut wrong = Vec::new();
    for path in files() {
        let name = path.to_str().unwrap();
        let Ok(text) = fs::read_to_string(top().join(&path)) else { continue };
        for (number, line) in text.lines().enumerate() {
            for word in banned.iter().filter(|word| line.contains(**word)) {
                wrong.push(format!("{name}:{}: {word}", number + 1));
            }
        }
    }
    none(wrong);
}
