//! Every example of docs/SEMANTICS.md, run: its layers become an image, the program loads it, and
//! what `strata ls` and (as root) a mount by FUSE and one by the kernel show must be what the
//! document says.
//!
//! `strata_testkit::example` reads the document, `layout` makes the image, `seen` asks the program
//! and the mount. The examples of docs/SEMANTICS-WRITABLE.md are shell commands: `console`.
//!
//! Invariants: the real binary does all the work, each example in a store of its own; every fact
//! that is compared is one that the example states, or a default that the document states; an
//! example whose expectation is changed fails (`a_changed_expectation_is_noticed`).

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

mod console;
mod layout;
mod seen;

use seen::Store;
use strata_testkit::example::{self, Example, Expected, PathFacts};
use strata_testkit::example_tar;
use strata_testkit::needs;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/SEMANTICS.md");
const WRITABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/SEMANTICS-WRITABLE.md");

fn examples() -> Vec<Example> {
    let text = std::fs::read_to_string(DOCUMENT).unwrap();
    example::parse(&text).unwrap_or_else(|error| panic!("docs/SEMANTICS.md: {error}"))
}

/// What became of an example.
enum Outcome {
    /// It was loaded; each way of looking at it, and what it showed.
    Trees(Vec<(&'static str, Vec<PathFacts>)>),
    /// It was refused with this message, and whether the store was empty afterwards.
    Refused(String, bool),
}

fn run(example: &Example) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let layers: Vec<Vec<u8>> =
        example.layers.iter().map(|members| example_tar::build(members)).collect();
    layout::write(&dir.path().join("image"), &layers);
    let store = Store::new(dir.path());
    if let Err(message) = store.load() {
        return Outcome::Refused(message, store.is_empty());
    }
    let mut trees = vec![("strata ls", store.listed())];
    trees.extend(store.mounted("fuse").map(|tree| ("the mount by FUSE", tree)));
    trees.extend(store.mounted("kernel").map(|tree| ("the mount by the kernel", tree)));
    Outcome::Trees(trees)
}

/// Where the outcome is not what the document says.
fn differences(expected: &Expected, outcome: &Outcome) -> Vec<String> {
    match (expected, outcome) {
        (Expected::Tree(expected), Outcome::Trees(trees)) => {
            let found = trees.iter().flat_map(|(what, tree)| {
                let lines = example::compare(expected, tree).into_iter();
                lines.map(move |line| format!("{what}: {line}"))
            });
            found.collect()
        }
        (Expected::Error(part), Outcome::Refused(message, empty)) => {
            let mut wrong = Vec::new();
            if !message.contains(part) {
                wrong.push(format!("the error is {message:?}, expected {part:?} in it"));
            }
            if !empty {
                wrong.push("something of the refused image was kept".to_owned());
            }
            wrong
        }
        (Expected::Tree(_), Outcome::Refused(message, _)) => vec![format!("refused: {message}")],
        (Expected::Error(part), Outcome::Trees(_)) => {
            vec![format!("loaded, expected an error with {part:?}")]
        }
    }
}

#[test]
fn the_document_tells_the_truth() {
    let examples = examples();
    assert!(examples.len() >= 40, "only {} examples found", examples.len());
    // Without, only what `strata ls` shows is compared.
    let _ = needs::root_and_fuse();
    let mut wrong = Vec::new();
    for example in &examples {
        for line in differences(&example.expected, &run(example)) {
            wrong.push(format!("docs/SEMANTICS.md:{}: {line}", example.line));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_changed_expectation_is_noticed() {
    let changed = |text: &str| {
        let example = example::parse(text).unwrap().remove(0);
        !differences(&example.expected, &run(&example)).is_empty()
    };
    let good = r#"
```layers
layer
  file a/f "text" mode=0640 uid=7 mtime=1.5 user.x="y"
  link a/h a/f
  symlink s t
tree
  dir a
  file a/f "text" mode=0640 uid=7 mtime=1.5 user.x="y"
  link a/h a/f
  symlink s t
```
"#;
    assert!(!changed(good));
    let expectation = good.split_once("tree").unwrap().1;
    for (from, to) in [
        ("dir a", "dir b"),
        ("dir a", "dir a mode=0700"),
        ("\"text\"", "\"texT\""),
        ("mode=0640", "mode=0600"),
        ("uid=7", "uid=8"),
        ("mtime=1.5", "mtime=1.6"),
        ("user.x=\"y\"", "user.x=\"z\""),
        (" user.x=\"y\"", ""),
        ("link a/h a/f", "file a/h \"text\" mode=0640 uid=7 mtime=1.5 user.x=\"y\""),
        ("  link a/h a/f\n", ""),
        ("symlink s t", "symlink s u"),
        ("symlink s t", "fifo s"),
        ("symlink s t", "symlink s t\n  dir more"),
    ] {
        let other = expectation.replacen(from, to, 1);
        assert_ne!(other, expectation, "{from}");
        let text = good.replace(expectation, &other);
        assert!(changed(&text), "{from} changed to {to} went unnoticed");
    }
    let refused = "```layers\nlayer\n  file .wh. \"\"\nerror \"the name is empty\"\n```\n";
    assert!(!changed(refused));
    assert!(changed(&refused.replace("is empty", "is full")));
    assert!(changed(&refused.replace(".wh.", "fine")));
}

#[test]
fn the_document_of_writable_layers_tells_the_truth() {
    let text = std::fs::read_to_string(WRITABLE).unwrap();
    let document = console::parse(&text).unwrap();
    assert!(document.examples.len() >= 20, "only {} examples found", document.examples.len());
    let programs = console::Programs::new();
    let mut wrong = Vec::new();
    for example in &document.examples {
        let what = format!("what SEMANTICS-WRITABLE.md:{} asks for", example.line);
        if !needs::that(console::can_run(example), &what) {
            continue;
        }
        for line in console::differences(&document, example, &programs) {
            wrong.push(format!("docs/SEMANTICS-WRITABLE.md:{line}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_changed_output_is_noticed() {
    let wrong = |text: &str| {
        let document = console::parse(text).unwrap();
        console::differences(&document, &document.examples[0], &console::Programs::new()).len()
    };
    let good = "```bash\nsay() { echo \"$1\"; }\n```\n```console root\n$ say a\na\n$ true\n\
                $ for i in 1 2\n> do say $i; done\n1\n2\n$ [ -e no ] || say none\nnone\n```\n";
    assert_eq!(wrong(good), 0);
    for (from, to) in [
        ("\na\n", "\nb\n"),
        ("\na\n", "\na\na\n"),
        ("\na\n", "\n"),
        ("$ true", "$ false"),
        ("$ true", "$ true\n"),
        ("1 2", "1 3"),
        ("$ true", "$ exit"),
        ("\nnone\n", "\n"),
    ] {
        assert_eq!(wrong(&good.replacen(from, to, 1)), 1, "{from:?} changed to {to:?}");
    }
}
