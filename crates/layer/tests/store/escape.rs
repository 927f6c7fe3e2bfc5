//! Nothing outside of the stage is touched, whatever a tar says; each case also says what becomes
//! of it (the rules are in `draft`).

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::common::{TempStore, assert_clean, members, stored_files, unpack, walk};
use strata_testkit::tars::{Head, Tar};

/// Everything that a write would change: content, mode, owner, links, times.
type Sentinel = BTreeMap<PathBuf, (Vec<u8>, [u64; 4], [i64; 4])>;

fn sentinel(dir: &Path) -> Sentinel {
    let mut found = BTreeMap::new();
    for path in walk(dir).into_keys().chain([PathBuf::new()]) {
        let full = dir.join(&path);
        let meta = full.symlink_metadata().unwrap();
        let bytes = if meta.is_file() { std::fs::read(&full).unwrap() } else { Vec::new() };
        let facts = [meta.mode().into(), meta.uid().into(), meta.nlink(), meta.ino()];
        let times = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
        found.insert(path, (bytes, facts, times));
    }
    found
}

/// Runs one tar beside a sentinel tree; gives what is stored, or the error.
fn run(lines: &[String]) -> Result<Vec<String>, String> {
    let place = TempStore::new();
    let outside = place.beside("outside");
    std::fs::create_dir_all(outside.join("dir")).unwrap();
    std::fs::write(outside.join("victim"), "untouched").unwrap();
    std::fs::write(outside.join("dir/victim"), "untouched").unwrap();
    let store = place.open();
    let before = sentinel(&outside);
    let around = std::fs::read_dir(outside.parent().unwrap()).unwrap().count();
    let target = outside.display().to_string();
    let lines: Vec<String> = lines.iter().map(|line| line.replace("OUTSIDE", &target)).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let unpacked = unpack(&store, &members(&lines));
    assert_eq!(sentinel(&outside), before);
    assert_eq!(std::fs::read_dir(outside.parent().unwrap()).unwrap().count(), around);
    // No link, no device: nothing in the store can be followed.
    for (path, (mode, ..)) in walk(&place.root().join("layers")) {
        assert!([0o040_755, 0o100_444].contains(&mode), "{}: {mode:o}", path.display());
    }
    let failed = unpacked.map(|_| ()).map_err(|error| error.to_string());
    if failed.is_err() {
        assert_eq!(walk(&place.root().join("layers")).len(), 0);
        assert_eq!(walk(&place.root().join("staging")).len(), 0);
    }
    let files = stored_files(&place.root()).into_iter().map(|(path, (bytes, _))| {
        let below: PathBuf = path.components().skip(2).collect();
        format!("{} {}", below.display(), String::from_utf8_lossy(&bytes))
            .replace(&target[1..], "OUT")
    });
    let files = files.collect();
    drop(store);
    assert_clean(&place.root());
    failed.map(|()| files)
}

macro_rules! stored {
    ($($name:ident: [$($member:expr),*] => [$($file:expr),*];)*) => {$(
        #[test]
        fn $name() {
            let expected: Vec<String> = vec![$($file.to_string()),*];
            assert_eq!(run(&[$($member.to_string()),*]).unwrap(), expected);
        }
    )*};
}

macro_rules! refused {
    ($($name:ident: [$($member:expr),*] => $why:expr;)*) => {$(
        #[test]
        fn $name() {
            let error = run(&[$($member.to_string()),*]).unwrap_err();
            assert!(error.contains($why), "{error}");
        }
    )*};
}

stored! {
    a_file_through_a_symlink_to_an_absolute_directory:
        ["s d -> OUTSIDE", "f d/victim evil"] => ["d/victim evil"];
    a_file_through_a_symlink_that_climbs:
        ["s d -> ../../../../../../outside", "f d/victim evil"] => ["d/victim evil"];
    a_file_over_a_symlink_to_a_file:
        ["s v -> OUTSIDE/victim", "f v evil"] => ["v evil"];
    a_chain_of_symlinks:
        ["s a -> b", "s b -> c", "s c -> OUTSIDE", "f a/victim evil", "f b/victim evil"]
        => ["a/victim evil", "b/victim evil"];
    a_directory_swapped_for_a_symlink:
        ["d d", "f d/x one", "s d -> OUTSIDE/dir", "f d/victim evil"] => ["d/victim evil"];
    a_symlink_swapped_for_a_directory_and_back:
        ["s d -> OUTSIDE", "d d", "f d/x one", "s d -> OUTSIDE", "f d/victim evil"]
        => ["d/victim evil"];
    a_deep_directory_swapped_for_a_symlink:
        ["f a/b/c/x one", "s a/b -> OUTSIDE", "f a/b/dir/victim evil"]
        => ["a/b/dir/victim evil"];
    a_directory_member_over_a_symlink:
        ["s d -> OUTSIDE/dir", "d d", "f d/victim evil"] => ["d/victim evil"];
    a_directory_member_through_a_symlink: ["s d -> OUTSIDE", "d d/new"] => [];
    climbing_paths: ["f ../../../outside/victim evil", "f a/../../b evil"]
        => ["b evil", "outside/victim evil"];
    absolute_paths: ["f OUTSIDE/victim evil"] => ["OUT/victim evil"];
    dots_through_a_symlink: ["s d -> OUTSIDE/dir", "f d/../victim evil"] => ["victim evil"];
    a_hard_link_through_a_symlink_reads_nothing:
        ["s d -> OUTSIDE", "f d/victim own", "h got => d/victim"] => ["d/victim own", "got own"];
    a_hard_link_to_a_symlink_that_leads_out:
        ["s l -> OUTSIDE/victim", "h m => l", "f m evil"] => ["m evil"];
    a_hard_link_to_the_outside_is_one_into_lower_layers:
        ["h got => OUTSIDE/victim", "h too => ../../../../outside/victim"] => [];
    a_whiteout_through_a_symlink: ["s d -> OUTSIDE", "f d/.wh.victim"] => [];
    an_opaque_mark_through_a_symlink: ["s d -> OUTSIDE", "f d/.wh..wh..opq"] => [];
    a_whiteout_of_what_is_outside: ["f ../outside/.wh.victim"] => [];
    devices_and_pipes_through_a_symlink: ["s d -> OUTSIDE", "c d/null", "p d/pipe"] => [];
    the_names_of_the_stage_itself:
        ["f ../headers.zst evil", "f shadow/0 evil", "f ../shadow/1 evil", "f ../relink evil"]
        => ["headers.zst evil", "relink evil", "shadow/0 evil", "shadow/1 evil"];
    the_names_of_other_layers:
        ["f ../../layers/x/diff/y evil"] => ["layers/x/diff/y evil"];
}

refused! {
    the_root_as_a_symlink: ["s . -> OUTSIDE", "f victim evil"] => "the root must be a directory";
    the_root_as_a_symlink_by_dots: ["s a/.. -> OUTSIDE"] => "the root must be a directory";
    the_root_as_a_symlink_by_slash: ["s / -> OUTSIDE"] => "the root must be a directory";
    the_root_as_a_file: ["f ./ evil"] => "";
    the_root_as_a_device: ["c ."] => "the root must be a directory";
    a_hard_link_to_the_root: ["h a => ../.."] => "which is a directory";
    a_whiteout_of_dot_dot: ["f .wh..."] => "the name is . or ..";
    a_whiteout_of_dot: ["f a/.wh.."] => "the name is . or ..";
}

/// Every PAX and GNU way to give a name is clamped alike.
#[test]
fn names_from_extended_headers_are_clamped_too() {
    let evil: &[u8] = b"../../../../../../../../etc/strata-test-evil";
    let cases = [
        Tar::default().pax(&[("path", evil)]).file(b"x", b"evil"),
        Tar::default().long(b'L', evil).file(b"x", b"evil"),
        Tar::default().add(Head::new(b'0', b"strata-test-evil").put(345, b"/../../etc"), b""),
    ];
    for tar in cases {
        let place = TempStore::new();
        let store = place.open();
        unpack(&store, &tar.end()).unwrap();
        let files = stored_files(&place.root());
        assert!(files.keys().next().unwrap().ends_with("diff/etc/strata-test-evil"));
        assert!(!Path::new("/etc/strata-test-evil").exists());
    }
}
