//! The commands on a small tree, their output compared to the letter.

use std::io::{self, Write};

use clap::{Args, Parser};
use strata_content::FileTree;
use strata_content::conformance::{check_part, in_memory};
use strata_tree::{DiffId, Spec, TreePath};

use super::*;

mod copying;

/// One command's arguments, parsed as the program would.
pub(super) fn parse<A: Args>(words: &[&str]) -> A {
    #[derive(Parser)]
    struct Alone<A: Args> {
        #[command(flatten)]
        args: A,
    }
    let words = std::iter::once("strata").chain(words.iter().copied());
    Alone::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).args
}

/// What a command wrote.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) out: Vec<u8>,
    pub(super) err: Vec<u8>,
}

impl Seen {
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }
}

#[derive(Clone, Copy)]
pub(super) enum To {
    Pipe,
    Terminal,
    Json,
}

/// Runs a command and collects what it writes.
pub(super) fn seen(to: To, run: impl FnOnce(&mut Screen<'_>) -> Result<()>) -> Result<Seen> {
    let mut seen = Seen::default();
    run(&mut Screen {
        out: &mut seen.out,
        err: &mut seen.err,
        terminal: matches!(to, To::Terminal),
        json: matches!(to, To::Json),
    })?;
    Ok(seen)
}

fn layers_of_test() -> Vec<DiffId> {
    vec![DiffId::from_bytes([0xab; 32])]
}

pub(super) fn image() -> FileTree {
    let acl = [
        &[2, 0, 0, 0][..],
        &[1, 0, 6, 0, 0xff, 0xff, 0xff, 0xff],
        &[4, 0, 4, 0, 0xff, 0xff, 0xff, 0xff],
        &[32, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
    ]
    .concat();
    let spec = Spec::new()
        .mtime(1_700_000_000, 5)
        .dir("usr")
        .dir("usr/bin")
        .mtime(1_700_000_000, 0)
        .file("usr/bin/ping", "ping\n")
        .perm(0o755)
        .owner(0, 1000)
        .mtime(1_709_208_000, 123_456_789)
        .xattr(
            "security.capability",
            [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        )
        .xattr("system.posix_acl_access", acl)
        .xattr("user.note", "kept")
        .xattr("user.raw", b"\xff\x00")
        .link("usr/bin/ping4", &TreePath::clamped(b"usr/bin/ping").unwrap())
        .symlink("bin", "usr/bin")
        .mtime(-1, 0)
        .symlink("dangling", "/nowhere")
        .dir("dev")
        .perm(0o1777)
        .char_device("dev/null", 1, 3)
        .perm(0o666)
        .block_device("dev/disk", 259, 12)
        .fifo("dev/pipe")
        .dir("etc")
        .file("etc/.hidden", "h")
        .file(b"etc/bad\xff\n", "odd")
        .symlink("etc/evil", "\x1b[2J")
        .file("etc/Zulu", vec![b'z'; 1_234_567])
        .owner(70_000, 5);
    in_memory(&spec).unwrap()
}

fn listed(to: To, words: &[&str]) -> Result<Seen> {
    seen(to, |screen| ls(&*image(), &parse(words), screen))
}

#[test]
fn ls_names_are_sorted_by_bytes_and_complete() {
    assert_eq!(listed(To::Pipe, &["i"]).unwrap().text(), "bin\ndangling\ndev\netc\nusr\n");
    let raw = b".hidden\nZulu\nbad\xff\n\nevil\n";
    assert_eq!(listed(To::Pipe, &["i:/etc"]).unwrap().out, raw);
    assert_eq!(
        listed(To::Terminal, &["-a", "i:/etc"]).unwrap().text(),
        ".hidden\nZulu\nbad\\377\\n\nevil\n"
    );
}

#[test]
fn ls_long_shows_every_kind() {
    assert_eq!(
        listed(To::Pipe, &["-l", "i:/"]).unwrap().text(),
        "\
lrwxrwxrwx 1 0 0 7 1969-12-31T23:59:59Z bin -> usr/bin
lrwxrwxrwx 1 0 0 8 1970-01-01T00:00:00Z dangling -> /nowhere
drwxrwxrwt 2 0 0 0 1970-01-01T00:00:00Z dev
drwxr-xr-x 2 0 0 0 1970-01-01T00:00:00Z etc
drwxr-xr-x 3 0 0 0 1970-01-01T00:00:00Z usr
"
    );
    assert_eq!(
        listed(To::Pipe, &["-l", "i:/dev"]).unwrap().text(),
        "\
brw------- 1 0 0 259, 12 1970-01-01T00:00:00Z disk
crw-rw-rw- 1 0 0    1, 3 1970-01-01T00:00:00Z null
prw------- 1 0 0       0 1970-01-01T00:00:00Z pipe
"
    );
    assert_eq!(
        listed(To::Terminal, &["-l", "i:/etc"]).unwrap().text(),
        "\
-rw-r--r-- 1     0 0       1 1970-01-01T00:00:00Z .hidden
-rw-r--r-- 1 70000 5 1234567 1970-01-01T00:00:00Z Zulu
-rw-r--r-- 1     0 0       3 1970-01-01T00:00:00Z bad\\377\\n
lrwxrwxrwx 1     0 0       4 1970-01-01T00:00:00Z evil -> \\033[2J
"
    );
}

#[test]
fn ls_recursive_goes_down_before_on() {
    assert_eq!(
        listed(To::Terminal, &["-R", "i"]).unwrap().text(),
        "\
/:
bin
dangling
dev
etc
usr

/dev:
disk
null
pipe

/etc:
.hidden
Zulu
bad\\377\\n
evil

/usr:
bin

/usr/bin:
ping
ping4
"
    );
}

#[test]
fn ls_of_one_thing_and_through_links() {
    for (words, text) in [
        (&["i:/bin"][..], "ping\nping4\n"),
        (&["-l", "i:/bin"], "lrwxrwxrwx 1 0 0 7 1969-12-31T23:59:59Z /bin -> usr/bin\n"),
        (&["-d", "i:/bin"], "/bin\n"),
        (&["-d", "i:/etc/"], "/etc/\n"),
        (&["i:/dangling"], "/dangling\n"),
        (&["i:/bin/../bin/ping"], "/bin/../bin/ping\n"),
        (&["-ld", "i"], "drwxr-xr-x 5 0 0 0 2023-11-14T22:13:20Z /\n"),
    ] {
        assert_eq!(listed(To::Pipe, words).unwrap().text(), text, "{words:?}");
    }
    let slash = listed(To::Pipe, &["-l", "i:/bin/"]).unwrap();
    assert_eq!(slash.text().lines().count(), 2, "{}", slash.text());
}

#[test]
fn ls_json_holds_all_facts() {
    let all = listed(To::Json, &["-R", "i:/"]).unwrap();
    let all: serde_json::Value = serde_json::from_slice(&all.out).unwrap();
    let all = all.as_array().unwrap();
    assert_eq!(all.len(), 15);
    let find = |path: &str| all.iter().find(|e| e["path"] == path).unwrap();
    let ping = find("/usr/bin/ping4");
    assert_eq!(ping["type"], "regular");
    assert_eq!(ping["mode"], "0755");
    assert_eq!((&ping["uid"], &ping["gid"], &ping["size"]), (&0.into(), &1000.into(), &5.into()));
    assert_eq!(ping["nlink"], 2);
    assert_eq!(ping["inode"], find("/usr/bin/ping")["inode"]);
    assert_eq!(ping["mtime"], "2024-02-29T12:00:00.123456789Z");
    assert_eq!(
        ping["xattrs"],
        serde_json::json!([
            "security.capability",
            "system.posix_acl_access",
            "user.note",
            "user.raw"
        ])
    );
    assert_eq!(find("/dev/disk")["device"], serde_json::json!({"major": 259, "minor": 12}));
    assert_eq!(find("/bin")["target"], "usr/bin");
    assert_eq!(find("/etc/bad\u{fffd}\n")["path_hex"], "2f6574632f626164ff0a");
    assert_eq!(listed(To::Json, &["i:/usr/bin"]).unwrap().text().lines().count(), 2);
    let empty = in_memory(&Spec::new()).unwrap();
    let none = seen(To::Json, |screen| ls(&*empty, &parse(&["i"]), screen)).unwrap();
    assert_eq!(none.text(), "[]\n");
}

#[test]
fn ls_is_quiet_when_the_reader_goes_away() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for json in [false, true] {
        let run = |out: &mut dyn Write| {
            let mut screen = Screen { out, err: &mut Vec::new(), terminal: false, json };
            ls(&*image(), &parse(&["-R", "i"]), &mut screen)
        };
        run(&mut Gone).unwrap();
        assert!(run(&mut Full).is_err());
    }
}

fn stated(to: To, words: &[&str]) -> Result<Seen> {
    seen(to, |screen| stat(&image(), &layers_of_test(), &parse(words), screen))
}

#[test]
fn stat_tells_everything() {
    assert_eq!(
        stated(To::Pipe, &["i:/bin/ping"]).unwrap().text(),
        "  File: /bin/ping
  Size: 5              Type: regular file
  Mode: 0755 (-rwxr-xr-x)  Uid: 0      Gid: 1000
 Inode: 3000010        Links: 2
Modify: 2024-02-29T12:00:00.123456789Z
 Layer: 0 (sha256:abababababababababababababababababababababababababababababababab)
Sha256: 1146a4c81194d9a9eecfad4477d2c12dfc8e74d770ae855c7b840d9463930c9e
 Xattr: security.capability=cap_net_raw=ep
 Xattr: system.posix_acl_access=user::rw-,group::r--,other::---
 Xattr: user.note=\"kept\"
 Xattr: user.raw=0xff00
"
    );
    let null = stated(To::Pipe, &["i:/dev/null"]).unwrap();
    assert!(null.text().contains("Type: character device\n"), "{}", null.text());
    assert!(null.text().contains("\nDevice: 1, 3\n"), "{}", null.text());
    let link = stated(To::Terminal, &["i:/etc/evil"]).unwrap();
    assert!(link.text().starts_with("  File: /etc/evil -> \\033[2J\n"), "{}", link.text());
    let followed = stated(To::Pipe, &["-L", "i:/bin"]).unwrap();
    assert!(followed.text().contains("Type: directory"), "{}", followed.text());
    assert!(!followed.text().contains("Layer:"), "{}", followed.text());
}

#[test]
fn stat_json_has_exact_values() {
    let seen = stated(To::Json, &["i:/usr/bin/ping"]).unwrap();
    let all: serde_json::Value = serde_json::from_slice(&seen.out).unwrap();
    assert_eq!(all["path"], "/usr/bin/ping");
    assert_eq!(all["content"]["layer"], 0);
    assert_eq!(all["content"]["diff_id"], format!("sha256:{}", "ab".repeat(32)));
    assert_eq!(
        all["xattrs"][3],
        serde_json::json!({"name": "user.raw", "hex": "ff00", "text": "0xff00"})
    );
    assert_eq!(all["xattrs"][0]["text"], "cap_net_raw=ep");
}

fn catted(words: &[&str]) -> Result<(Seen, Vec<String>)> {
    let mut opened = Vec::new();
    let seen = seen(To::Pipe, |screen| {
        let mut open = |reference: &str| {
            opened.push(reference.to_owned());
            Ok(image())
        };
        cat(&mut open, &parse(words), screen)
    })?;
    Ok((seen, opened))
}

#[test]
fn cat_follows_links_and_opens_each_image_once_in_a_row() {
    let (seen, opened) =
        catted(&["a:/bin/ping", "a:/etc/.hidden", "b:1:/etc/Zulu", "a:/etc/.hidden"]).unwrap();
    assert_eq!(opened, ["a", "b:1", "a"]);
    let expected = [&b"ping\nh"[..], &[b'z'; 1_234_567], b"h"].concat();
    assert!(seen.out == expected, "{} bytes", seen.out.len());
}

#[test]
fn errors_name_the_path_the_cause_and_the_way_out() {
    for (path, message) in [
        ("i:/bin", "i:/bin is a directory; `strata ls i:/bin` lists it"),
        ("i:/dev/null", "i:/dev/null is a character device: it has no content"),
        (
            "i:/etc/nope",
            "i:/etc/nope: no such file or directory in the image; `strata ls i:/etc` shows what \
             there is",
        ),
        ("i:/bin/ping/x", "i:/bin/ping/x: a part of the path before the last is not a directory"),
    ] {
        assert_eq!(catted(&[path]).err().unwrap().to_string(), message);
    }
}

#[test]
fn layers_are_a_table_with_the_base_first() {
    let rows = [
        LayerRow {
            diff_id: DiffId::from_bytes([1; 32]),
            entries: 6789,
            bytes: 77_812_345,
            stored_bytes: 70_000_000,
            created_by: Some("/bin/sh -c #(nop) ADD file:0\tin / ".to_owned()),
        },
        LayerRow {
            diff_id: DiffId::from_bytes([2; 32]),
            entries: 3,
            bytes: 12,
            stored_bytes: 0,
            created_by: Some(format!("RUN \x1b[31m {}", "x".repeat(80))),
        },
        LayerRow {
            diff_id: DiffId::from_bytes([3; 32]),
            entries: 0,
            bytes: 0,
            stored_bytes: 0,
            created_by: None,
        },
    ];
    let show = |to| seen(to, |screen| layers(&rows, screen)).unwrap();
    assert_eq!(
        show(To::Terminal).text(),
        "\
INDEX   LAYER          ENTRIES   SIZE     CREATED BY
0       010101010101   6789      77.8MB   /bin/sh -c #(nop) ADD file:0 in /
1       020202020202   3         12B      RUN \\033[31m xxxxxx\
    xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\u{2026}
2       030303030303   0         0B       -
"
    );
    assert!(show(To::Pipe).text().contains(&"x".repeat(80)));
    let all: serde_json::Value = serde_json::from_slice(&show(To::Json).out).unwrap();
    assert_eq!(all[0]["stored_bytes"], 70_000_000);
    assert_eq!(all[1]["index"], 1);
    assert_eq!(all[2]["created_by"], serde_json::Value::Null);
}
