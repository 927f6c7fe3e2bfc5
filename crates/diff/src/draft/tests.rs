//! The layer rules, line by line: docs/SEMANTICS.md has the same table in words.

use std::sync::Arc;

use strata_tree::{ContentDigest, Presence, Timestamp};

use super::{Draft, Effects, FileId, FileKind, MemberFacts};
use crate::error::Result;
use crate::limits::Limits;
use crate::rows::{EntryRow, RowKind};
use crate::spill::{Room, SpillSpace};

fn facts() -> MemberFacts {
    MemberFacts { perm: 0o644, uid: 0, gid: 0, mtime: Timestamp::default(), xattrs: Vec::new() }
}

/// One member: `d path`, `f path`, `s path -> target`, `c path` (device 0:0), `h path => target`.
fn member(draft: &mut Draft, text: &str, position: u64) -> Result<()> {
    let (kind, rest) = text.split_once(' ').unwrap();
    let mut effects = Effects::default();
    match kind {
        "d" => draft.directory(rest.as_bytes(), facts(), position, &mut effects),
        "f" => {
            let kind = FileKind::Regular { size: position };
            draft.file(rest.as_bytes(), kind, facts(), position, &mut effects).map(|_| ())
        }
        "s" => {
            let (path, target) = rest.split_once(" -> ").unwrap();
            let kind = FileKind::Symlink(target.into());
            draft.file(path.as_bytes(), kind, facts(), position, &mut effects).map(|_| ())
        }
        "c" => {
            let kind = FileKind::CharDevice(strata_tree::Device { major: 0, minor: 0 });
            draft.file(rest.as_bytes(), kind, facts(), position, &mut effects).map(|_| ())
        }
        "h" => {
            let (path, target) = rest.split_once(" => ").unwrap();
            draft.link(path.as_bytes(), target.as_bytes(), position, &mut effects).map(|_| ())
        }
        other => panic!("unknown member {other}"),
    }
}

fn new() -> Draft {
    Draft::new("test", Limits::default(), &SpillSpace::unbounded()).unwrap()
}

fn show(rows: &[EntryRow]) -> Vec<String> {
    let mut paths = vec![String::new()];
    let mut lines = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let parent = paths[row.parent.0 as usize - 1].clone();
        let name = String::from_utf8_lossy(&row.name);
        let path = if at == 0 { String::new() } else { format!("{parent}/{name}") };
        paths.push(path.clone());
        if at == 0 {
            paths.pop();
        }
        let line = match &row.kind {
            RowKind::Regular(_) => format!("{path} {}", row.meta.as_ref().unwrap().size),
            RowKind::Directory { marks, .. } => {
                let presence = match marks.presence {
                    Presence::Explicit => "",
                    Presence::Implied => "?",
                    Presence::Phantom => "??",
                };
                format!("{path}/{presence}{}", if marks.opaque { " opaque" } else { "" })
            }
            RowKind::Symlink(to) => format!("{path} -> {}", String::from_utf8_lossy(to)),
            RowKind::HardLink(node) => format!("{path} = {}", paths[node.0 as usize - 1]),
            RowKind::Whiteout => format!("{path} gone"),
            RowKind::LowerLink(below) => format!("{path} = lower {below}"),
            RowKind::CharDevice(_) | RowKind::BlockDevice(_) => format!("{path} device"),
            RowKind::Fifo => format!("{path} fifo"),
        };
        lines.push(line);
    }
    lines
}

fn draft_with(members: &[&str], limits: Limits) -> Result<Vec<String>> {
    let in_memory = show(&rows_of(members, limits, &SpillSpace::unbounded())?);
    // Where there is no memory to speak of, names go to the file and come back.
    let spilt =
        rows_of(members, limits, &SpillSpace::new(&Room::new(1), 1, "tmp", tempfile::tempfile))?;
    assert_eq!(show(&spilt), in_memory);
    Ok(in_memory)
}

fn rows_of(members: &[&str], limits: Limits, scratch: &Arc<SpillSpace>) -> Result<Vec<EntryRow>> {
    let mut draft = Draft::new("test", limits, scratch)?;
    for (position, text) in members.iter().enumerate() {
        member(&mut draft, text, position as u64)?;
    }
    let rows = draft.settle()?.finish()?;
    (0..rows.count()).map(|at| rows.row(at, no_content)).collect()
}

fn no_content(_: FileId) -> Result<ContentDigest> {
    Ok(ContentDigest::from_bytes([0; 32]))
}

fn draft(members: &[&str]) -> Result<Vec<String>> {
    draft_with(members, Limits::default())
}

macro_rules! accepted {
    ($($name:ident: [$($member:expr),*] => [$($line:expr),*];)*) => {$(
        #[test]
        fn $name() {
            let expected: Vec<String> = vec![$($line.to_string()),*];
            assert_eq!(draft(&[$($member),*]).unwrap(), expected);
        }
    )*};
}

macro_rules! refused {
    ($($name:ident: [$($member:expr),*] => $rule:expr;)*) => {$(
        #[test]
        fn $name() {
            let error = draft(&[$($member),*]).unwrap_err().to_string();
            assert!(error.contains($rule), "{error}");
        }
    )*};
}

accepted! {
    a_new_file_survives_a_later_whiteout_of_it: ["f foo", "f .wh.foo"] => ["/?", "/foo 0"];
    a_new_file_survives_an_earlier_whiteout_of_it: ["f .wh.foo", "f foo"] => ["/?", "/foo 1"];
    an_opaque_mark_spares_what_the_layer_has: ["f a/b/c", "f a/.wh..wh..opq"]
        => ["/?", "/a/? opaque", "/a/b/?", "/a/b/c 0"];
    a_whiteout_of_an_own_directory_makes_it_opaque: ["f .wh.a", "f a/b/c"]
        => ["/?", "/a/ opaque", "/a/b/?", "/a/b/c 1"];
    an_opaque_root: ["f .wh..wh..opq"] => ["/? opaque"];
    opaque_and_explicit_whiteouts_together: ["d a", "f a/.wh.x", "f a/.wh..wh..opq"]
        => ["/?", "/a/ opaque", "/a/x gone"];
    a_whiteout_alone_makes_no_directory: ["f absent/dir/.wh.x"]
        => ["/?", "/absent/??", "/absent/dir/??", "/absent/dir/x gone"];
    a_phantom_directory_becomes_real: ["f a/.wh.x", "f a/y"]
        => ["/?", "/a/?", "/a/x gone", "/a/y 1"];
    a_whiteout_below_an_own_file_does_nothing: ["f a", "f a/.wh.x"] => ["/?", "/a 0"];
    a_hard_link_to_an_earlier_member: ["f a", "h b => a"] => ["/?", "/a 0", "/b = /a"];
    a_hard_link_before_its_target: ["h b => a", "f a"] => ["/?", "/a 1", "/b = /a"];
    a_chain_of_links_before_the_target: ["h c => b", "h b => a", "f a"]
        => ["/?", "/a 2", "/b = /a", "/c = /a"];
    a_hard_link_to_a_symlink: ["s a -> t", "h b => a"] => ["/?", "/a -> t", "/b = /a"];
    a_hard_link_to_a_lower_file: ["h b => usr/low"] => ["/?", "/b = lower /usr/low"];
    a_chain_of_links_to_a_lower_file: ["h c => b", "h b => low"]
        => ["/?", "/b = lower /low", "/c = lower /low"];
    a_hard_link_to_a_lower_file_below_which_a_whiteout_stands: ["f low/.wh.x", "h b => low"]
        => ["/?", "/b = lower /low", "/low/??", "/low/x gone"];
    a_link_to_a_link_to_itself: ["h b => a", "h a => a"]
        => ["/?", "/a = lower /a", "/b = lower /a"];
    a_link_to_what_is_hidden_and_made_again: ["f .wh.a", "f a/x", "h b => a/x"]
        => ["/?", "/a/ opaque", "/b 1", "/a/x = /b"];
    a_hidden_name_that_is_a_link_into_a_lower_layer: ["f .wh.a", "h a => low", "h b => a"]
        => ["/?", "/a = lower /low", "/b = lower /low"];
    a_hard_link_to_itself: ["f a", "h a => a"] => ["/?", "/a 0"];
    a_link_outlives_its_replaced_target: ["f a", "h b => a", "f a"] => ["/?", "/a 2", "/b 0"];
    a_hard_link_through_dots_and_slashes: ["f x/a", "h b => ../../x//./a"]
        => ["/?", "/b 0", "/x/?", "/x/a = /b"];
    the_last_of_two_members_wins: ["f a", "s a -> b"] => ["/?", "/a -> b"];
    a_file_replaces_a_directory: ["f a/b/c", "f a"] => ["/?", "/a 1"];
    a_directory_replaces_a_file: ["f a", "d a"] => ["/?", "/a/ opaque"];
    a_whiteout_below_what_was_a_file_counts: ["f a", "f a/.wh.old", "f a/y"]
        => ["/?", "/a/ opaque", "/a/y 2"];
    a_whiteout_survives_a_file_in_its_directory_place: ["f a/.wh.old", "f a", "f a/y"]
        => ["/?", "/a/ opaque", "/a/y 2"];
    an_opaque_mark_survives_a_file_in_its_place: ["f a/.wh..wh..opq", "f a", "d a"]
        => ["/?", "/a/ opaque"];
    a_child_of_a_file_makes_it_a_directory: ["f foo", "f foo/child"]
        => ["/?", "/foo/ opaque", "/foo/child 1"];
    a_child_of_a_symlink_makes_it_a_directory: ["s a -> t", "f a/n"]
        => ["/?", "/a/ opaque", "/a/n 1"];
    absolute_and_climbing_paths_are_clamped: ["f ../../esc", "f /abs//f", "d ./"]
        => ["/", "/abs/?", "/esc 0", "/abs/f 1"];
    a_device_zero_is_a_device: ["c foo"] => ["/?", "/foo device"];
    aufs_link_store_is_hidden_and_resolved:
        ["d .wh..wh.plnk", "f .wh..wh.plnk/1.2", "h a => .wh..wh.plnk/1.2", "f .wh..wh.aufs"]
        => ["/?", "/a 1"];
    a_whiteout_with_bytes_or_of_another_type: ["s .wh.a -> b", "h .wh.c => d"]
        => ["/?", "/a gone", "/c gone"];
    a_name_of_255_bytes_can_be_whited_out: [&format!("f .wh.{}", "n".repeat(255))]
        => ["/?", format!("/{} gone", "n".repeat(255))];
    a_directory_described_later_keeps_its_children: ["f a/b", "d a"] => ["/?", "/a/", "/a/b 0"];
    children_are_sorted_by_bytes: ["f b", "f a", "f B", "f a-", "d a.d"]
        => ["/?", "/B 2", "/a 1", "/a- 3", "/a.d/", "/b 0"];
}

refused! {
    a_whiteout_of_nothing: ["f a/.wh."] => "the name is empty";
    a_whiteout_of_dot: ["f .wh.."] => "the name is . or ..";
    a_whiteout_of_dot_dot: ["f .wh..."] => "the name is . or ..";
    a_whiteout_directory: ["d .wh.foo"] => "a whiteout may not be a directory";
    a_file_below_a_whiteout: ["f .wh.foo/x"] => "a whiteout may not be a directory";
    a_link_to_a_file_that_this_layer_hides: ["f .wh.foo", "h hl => foo"] => "this layer hides";
    a_link_below_an_opaque_directory: ["d a", "f a/.wh..wh..opq", "h hl => a/x"]
        => "this layer hides";
    a_link_below_a_directory_that_an_own_one_hides: ["f .wh.a", "d a", "h hl => a/x"]
        => "this layer hides";
    a_link_below_a_directory_of_an_opaque_one:
        ["d a", "f a/.wh..wh..opq", "d a/b", "h hl => a/b/x"] => "this layer hides";
    a_link_below_a_directory_that_replaces_a_file: ["f a", "d a", "h hl => a/x"]
        => "this layer hides";
    a_link_two_below_a_hidden_directory: ["f a/.wh.b", "d a/b", "d a/b/c", "h hl => a/b/x"]
        => "this layer hides";
    a_link_below_a_hidden_directory_of_whiteouts: ["f .wh.a", "f a/.wh.b", "h hl => a/x"]
        => "this layer hides";
    a_link_to_itself_that_the_layer_hides: ["f .wh.f", "h f => f"] => "this layer hides";
    a_link_to_itself_below_what_the_layer_hides: ["h a/f => a/f", "f .wh.a"]
        => "this layer hides";
    a_link_to_a_hidden_link_to_itself: ["h b => f", "h f => f", "f .wh.f"]
        => "this layer hides";
    a_link_below_an_own_file: ["f a", "h hl => a/x"] => "this layer hides";
    a_hard_link_to_a_directory: ["d a", "h b => a"] => "which is a directory";
    a_hard_link_to_a_later_directory: ["h b => a", "d a"] => "which is a directory";
    a_hard_link_to_the_root: ["h b => ."] => "which is a directory";
    a_circle_of_links: ["h a => b", "h b => a"] => "circle";
    a_link_into_a_circle: ["h a => b", "h b => c", "h c => d", "h d => b"] => "circle";
    the_root_as_a_symlink: ["s . -> etc"] => "the root must be a directory";
    the_root_as_a_file: ["f ./"] => "the root must be a directory";
    the_root_as_a_hard_link: ["f a", "h / => a"] => "the root must be a directory";
    a_name_of_256_bytes: [&format!("f {}", "n".repeat(256))] => "the limit is 255";
    a_name_with_a_nul: ["f a\0b"] => "NUL";
}

/// A store has such layers: it must not lose them, nor may they become others.
#[test]
fn links_of_layers_that_were_accepted_before_lead_where_they_led() {
    let rows = |members: &[&str]| {
        let mut draft = new();
        draft.take_earlier_links();
        for (position, text) in members.iter().enumerate() {
            member(&mut draft, text, position as u64)?;
        }
        let rows = draft.settle()?.finish()?;
        (0..rows.count()).map(|at| rows.row(at, no_content)).collect::<Result<Vec<_>>>()
    };
    for (members, link) in [
        (&["f .wh.a", "f a/new", "h hl => a/x"][..], "/hl = lower /a/x"),
        (&["d a", "f a/.wh..wh..opq", "d a/b", "h hl => a/b/x"], "/hl = lower /a/b/x"),
        (&["f a", "d a", "h hl => a/x"], "/hl = lower /a/x"),
        (&["f .wh.f", "h f => f"], "/f = lower /f"),
        (&["h a/f => a/f", "f .wh.a"], "/a/f = lower /a/f"),
        (&["h b => f", "h f => f", "f .wh.f"], "/b = lower /f"),
    ] {
        assert!(draft(members).is_err(), "{members:?}");
        let found = show(&rows(members).unwrap());
        assert!(found.iter().any(|line| line == link), "{members:?}: {found:?}");
    }
    let never = ["f .wh.foo", "h hl => foo"];
    let error: crate::error::Error = rows(&never).unwrap_err();
    assert!(error.to_string().contains("this layer hides"), "{error}");
}

#[test]
fn depth_and_path_length_are_bounded_and_say_so() {
    let limits = Limits { depth: 3, path_bytes: 10, ..Limits::default() };
    assert!(draft_with(&["f a/b/c"], limits).is_ok());
    let error = draft_with(&["f a/b/c/d"], limits).unwrap_err().to_string();
    assert!(error.contains("--max-depth"), "{error}");
    let error = draft_with(&["f aaaaaaaaaaaaaaaa"], limits).unwrap_err().to_string();
    assert!(error.contains("--max-path"), "{error}");
}

/// Targets of 64 KiB fill memory faster than anything else in a layer, and lead nowhere on Linux.
#[test]
fn a_target_is_as_long_as_linux_takes_it() {
    let link = |length: usize| format!("s a/b -> {}", "x".repeat(length));
    assert!(draft(&[&link(4095)]).is_ok());
    let error = draft(&[&link(4096)]).unwrap_err().to_string();
    for part in ["a/b: a symbolic link to 4096 bytes", "more than 4095", "--max-path"] {
        assert!(error.contains(part), "{error}");
    }
    // A store's own layers open, whatever they have.
    assert!(draft_with(&[&link(65_536)], Limits::NONE).is_ok());
    let more = Limits { path_bytes: 5000, ..Limits::default() };
    assert!(draft_with(&[&link(5000)], more).is_ok() && draft_with(&[&link(5001)], more).is_err());
}

/// One member can make a thousand directories, and a whiteout not one on the disk.
#[test]
fn implied_directories_are_bounded_and_say_so() {
    let limits = Limits { entries: 10, ..Limits::default() };
    let deep = |n: u32| format!("f {n}/{}.wh.x", "a/".repeat(500));
    let lines: Vec<String> = (0..10).map(deep).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert!(draft_with(&lines[..4], limits).is_ok());
    let error = draft_with(&lines, limits).unwrap_err().to_string();
    assert!(error.contains("more than 2068 names") && error.contains("--max-entries"), "{error}");
}

/// Counts steps, not seconds: the work for n whiteouts must not be n times n.
#[test]
fn many_whiteouts_and_opaque_marks_are_near_linear() {
    let time = |n: u64| {
        let mut draft = new();
        let mut effects = Effects::default();
        for i in 0..n {
            let path = format!("d{}/.wh.f{i}", i % 100);
            let kind = FileKind::Regular { size: 0 };
            draft.file(path.as_bytes(), kind, facts(), i, &mut effects).unwrap();
            let path = format!("o{i}/.wh..wh..opq");
            let kind = FileKind::Regular { size: 0 };
            draft.file(path.as_bytes(), kind, facts(), i, &mut effects).unwrap();
        }
        draft.settle().unwrap().finish().unwrap().count()
    };
    // 100,000 of each finish within the test runner's patience only if each is cheap.
    assert_eq!(time(100_000), 1 + 100 + 100_000 + 100_000);
}

/// Each link of a chain into a lower layer once took as many steps as the chain has links.
#[test]
fn a_long_chain_of_links_is_near_linear() {
    let n = 50_000;
    let mut lines: Vec<String> = (0..n).map(|i| format!("f f{i}")).collect();
    lines.extend((0..n).map(|i| format!("h l{i:05} => l{:05}", i + 1)));
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let rows = rows_of(&lines, Limits::default(), &SpillSpace::unbounded()).unwrap();
    assert_eq!(rows.len(), 1 + 2 * n);
    let end = RowKind::LowerLink(strata_tree::TreePath::clamped(b"l50000").unwrap());
    assert_eq!(rows.iter().filter(|row| row.kind == end).count(), n);
}

#[test]
fn effects_follow_what_happened() {
    let mut draft = new();
    let place = |draft: &mut Draft, text: &str, position| {
        let mut effects = Effects::default();
        let (kind, path) = text.split_once(' ').unwrap();
        assert_eq!(kind, "f");
        let kind = FileKind::Regular { size: 1 };
        draft.file(path.as_bytes(), kind, facts(), position, &mut effects).unwrap();
        effects
    };
    let first = place(&mut draft, "f a/b/c", 0);
    let made: Vec<_> = first.made_dirs.iter().map(ToString::to_string).collect();
    assert_eq!(made, ["/a", "/a/b"]);
    let second = place(&mut draft, "f a", 1);
    let gone = second.removed_dirs.iter().map(|name| draft.path(*name).unwrap().to_string());
    assert_eq!(gone.collect::<Vec<_>>(), ["/a/b", "/a"]);
    assert_eq!(second.removed.len(), 1);
    assert_eq!(draft.path(second.removed[0].name).unwrap().to_string(), "/a/b/c");
    assert!(second.removed[0].last, "the inode had no other name");
}

/// Members that meet each other: few names, three levels, every kind.
fn any_member() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    let name = prop::sample::select(vec!["a", "b", "c", ".wh.a", ".wh.b", ".wh..wh..opq"]);
    let plain = prop::sample::select(vec!["a", "b", "c"]);
    let path = move || {
        (prop::collection::vec(plain.clone(), 0..3), name.clone()).prop_map(|(dirs, name)| {
            dirs.iter().map(|dir| format!("{dir}/")).collect::<String>() + name
        })
    };
    (prop::sample::select(vec!["d", "f", "s", "h"]), path(), path()).prop_map(
        |(kind, path, target)| match kind {
            "s" => format!("s {path} -> {target}"),
            "h" => format!("h {path} => {target}"),
            kind => format!("{kind} {path}"),
        },
    )
}

proptest::proptest! {
    #[test]
    fn a_draft_is_the_same_without_memory(
        members in proptest::collection::vec(any_member(), 0..40),
        many in 0..300u32,
    ) {
        let mut lines: Vec<String> = (0..many).map(|n| format!("f a/n{}", n * 77 % 301)).collect();
        lines.extend(members);
        // What a rule forbids is left out, for the rest to be seen.
        let kept = |lines: &[String]| -> Vec<String> {
            let mut draft = new();
            let fits = |(at, line): &(usize, &String)| member(&mut draft, line, *at as u64).is_ok();
            lines.iter().enumerate().filter(fits).map(|(_, line)| line.clone()).collect()
        };
        let lines = kept(&lines);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let limits = Limits::default();
        let tight = SpillSpace::new(&Room::new(1), 1, "tmp", tempfile::tempfile);
        let (with, without) =
            (rows_of(&lines, limits, &SpillSpace::unbounded()), rows_of(&lines, limits, &tight));
        match (with, without) {
            (Ok(with), Ok(without)) => proptest::prop_assert_eq!(with, without),
            (Err(with), Err(without)) => {
                proptest::prop_assert_eq!(with.to_string(), without.to_string());
            }
            (with, without) => panic!("{with:?} {without:?}"),
        }
    }
}
