//! Which crate may use which.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::project::{none, read, top};

/// What each crate may depend on: the arrows of the design.
const ARROWS: [(&str, &[&str]); 21] = [
    // Tests alone may use it.
    ("testkit", &[]),
    // It knows threads, and nothing of what they do.
    ("confine", &[]),
    // It judges strata as it judges other programs.
    ("conform", &[]),
    ("tree", &[]),
    ("content", &["tree"]),
    ("diff", &["content", "tree"]),
    ("union", &["content", "tree"]),
    ("layer", &["content", "diff", "tree"]),
    ("registry", &["tree"]),
    ("trust", &["registry", "tree"]),
    ("analysis", &["content", "diff", "image", "layer", "registry", "tree"]),
    ("facts", &["content", "diff", "image", "layer", "registry", "tree"]),
    ("image", &["content", "diff", "layer", "registry", "tree", "trust"]),
    ("fuse", &["confine", "content", "tree", "union"]),
    ("kernel", &["content", "tree"]),
    (
        "engine",
        &[
            "confine", "content", "diff", "fuse", "image", "kernel", "layer", "registry", "tree",
            "union",
        ],
    ),
    ("overlay", &["confine", "content", "fuse", "tree", "union"]),
    // No program of strata contains it.
    (
        "fuzz",
        &[
            "content", "diff", "engine", "image", "layer", "overlay", "registry", "tree", "trust",
            "union",
        ],
    ),
    ("snapshotter", &["confine", "engine", "layer", "tree"]),
    (
        "layer-store",
        &[
            "confine", "content", "diff", "engine", "fuse", "image", "layer", "registry", "tree",
            "trust", "union",
        ],
    ),
    (
        "cli",
        &[
            "analysis",
            "confine",
            "content",
            "engine",
            "facts",
            "fuse",
            "image",
            "kernel",
            "layer",
            "layer-store",
            "overlay",
            "registry",
            "tree",
            "trust",
            "union",
        ],
    ),
];

#[test]
fn crates_depend_one_way() {
    let mut wrong = Vec::new();
    let found: BTreeSet<String> = fs::read_dir(top().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let known: BTreeSet<String> = ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(found, known, "each crate has its arrows");
    for (name, allowed) in ARROWS {
        let manifest = read(&Path::new("crates").join(name).join("Cargo.toml"));
        let mut section = "";
        for line in manifest.lines() {
            if line.starts_with('[') {
                section = line;
            }
            let dependency = line.split(['.', ' ', '=']).next().unwrap_or_default();
            let other = match dependency {
                // The one that is published for others has the project's name.
                "stratafs" => "engine",
                _ => match dependency.strip_prefix("strata-") {
                    Some(other) => other,
                    None => continue,
                },
            };
            if section == "[dependencies]" && !allowed.contains(&other) {
                wrong.push(format!("crates/{name} must not depend on {other}"));
            }
            if line.contains("path") {
                wrong.push(format!("crates/{name}: {line}: by path, not by the workspace"));
            }
        }
    }
    none(wrong);
}
