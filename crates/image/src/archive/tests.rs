//! Archives by hand: links, repeats, labels, sparse files, damage.

use super::*;
use std::io::Write;
use std::process::Command;

fn index(bytes: &[u8]) -> Result<ArchiveIndex> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    ArchiveIndex::index(file, "test.tar", &SourceLimits { members: 8, ..SourceLimits::default() })
}

fn body(archive: &ArchiveIndex, path: &str) -> Option<Vec<u8>> {
    let extent = archive.find(&TreePath::clamped(path.as_bytes()).unwrap())?;
    let mut bytes = vec![0; extent.size as usize];
    extent.file.read_exact_at(&mut bytes, extent.offset).unwrap();
    Some(bytes)
}

fn add(tar: &mut tar::Builder<Vec<u8>>, path: &str, kind: EntryType, data: &str) {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    if matches!(kind, EntryType::Symlink | EntryType::Link) {
        header.set_size(0);
        tar.append_link(&mut header, path, data).unwrap();
    } else {
        header.set_size(data.len() as u64);
        tar.append_data(&mut header, path, data.as_bytes()).unwrap();
    }
}

#[test]
fn members_are_found_by_path_and_through_links() {
    let mut tar = tar::Builder::new(Vec::new());
    let long = format!("{}/layer.tar", "d".repeat(150));
    add(&mut tar, "./a/layer.tar", EntryType::Regular, "first");
    add(&mut tar, "b/layer.tar", EntryType::Symlink, "../a/layer.tar");
    add(&mut tar, "c/layer.tar", EntryType::Symlink, "../../../../b/layer.tar");
    add(&mut tar, "h", EntryType::Link, "a/layer.tar");
    add(&mut tar, &long, EntryType::Regular, "long");
    add(&mut tar, "loop", EntryType::Symlink, "loop");
    add(&mut tar, "out", EntryType::Symlink, "/etc/hostname");
    let archive = index(&tar.into_inner().unwrap()).unwrap();
    for (path, data) in [
        ("a/layer.tar", Some("first")),
        ("b/layer.tar", Some("first")),
        ("c/layer.tar", Some("first")),
        ("h", Some("first")),
        (&long, Some("long")),
        ("loop", None),
        ("out", None),
        ("absent", None),
    ] {
        assert_eq!(body(&archive, path).as_deref(), data.map(str::as_bytes), "{path}");
    }
}

#[test]
fn pax_records_give_path_and_size() {
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_pax_extensions([("path", &b"real"[..]), ("comment", b"a\nb")]).unwrap();
    add(&mut tar, "nominal", EntryType::Regular, "bytes");
    let archive = index(&tar.into_inner().unwrap()).unwrap();
    assert_eq!(body(&archive, "real").as_deref(), Some(&b"bytes"[..]));
    assert_eq!(body(&archive, "nominal"), None);
}

#[test]
fn a_member_that_is_there_with_other_bytes_is_marked() {
    let long = "x".repeat(COMPARED + 100);
    let other = format!("{}y", &long[1..]);
    for (members, repeated) in [
        (["one", "one", "one"], false),
        ([&long, &long, &long], false),
        (["one", "two", "two"], true),
        (["one", "two", "one"], true),
        (["one", "one", "on"], true),
        ([&long, &long, &other], true),
    ] {
        let mut tar = tar::Builder::new(Vec::new());
        add(&mut tar, "x", EntryType::Regular, members[0]);
        add(&mut tar, "d/", EntryType::Directory, "");
        add(&mut tar, "./x", EntryType::Regular, members[1]);
        add(&mut tar, "d/", EntryType::Directory, "");
        add(&mut tar, "x", EntryType::Regular, members[2]);
        let archive = index(&tar.into_inner().unwrap()).unwrap();
        let found = archive.find(&TreePath::clamped(b"x").unwrap()).unwrap();
        assert_eq!(found.repeated, repeated, "{}", members[2].len());
    }
    for (kinds, repeated) in [
        ([EntryType::Symlink, EntryType::Symlink], false),
        ([EntryType::Symlink, EntryType::Link], true),
        ([EntryType::Regular, EntryType::Symlink], true),
    ] {
        let mut tar = tar::Builder::new(Vec::new());
        add(&mut tar, "a", EntryType::Regular, "bytes");
        for kind in kinds {
            add(&mut tar, "d/x", kind, "../a");
        }
        let archive = index(&tar.into_inner().unwrap()).unwrap();
        let found = archive.find(&TreePath::clamped(b"d/x").unwrap()).unwrap();
        assert_eq!(found.repeated, repeated, "{kinds:?}");
    }
}

#[test]
fn a_link_may_be_named_from_the_root() {
    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, "l/layer.tar", EntryType::Symlink, "a.tar");
    add(&mut tar, "m/layer.tar", EntryType::Symlink, "b.tar");
    add(&mut tar, "a.tar", EntryType::Regular, "root");
    add(&mut tar, "b.tar", EntryType::Regular, "root");
    add(&mut tar, "m/b.tar", EntryType::Regular, "near");
    let archive = index(&tar.into_inner().unwrap()).unwrap();
    assert_eq!(body(&archive, "l/layer.tar").as_deref(), Some(&b"root"[..]));
    assert_eq!(body(&archive, "m/layer.tar").as_deref(), Some(&b"near"[..]));
}

#[test]
fn gnu_tars_own_members_are_known() {
    let other = |tar: &mut tar::Builder<Vec<u8>>, kind: u8, size: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::new(kind));
        header.as_mut_bytes()[124..124 + size.len()].copy_from_slice(size);
        header.set_cksum();
        tar.get_mut().extend_from_slice(header.as_bytes());
    };
    let mut tar = tar::Builder::new(Vec::new());
    other(&mut tar, b'V', &[0; 12]);
    add(&mut tar, "dump/", EntryType::new(b'D'), "Ya\0\0");
    add(&mut tar, "a", EntryType::Regular, "bytes");
    let archive = index(&tar.into_inner().unwrap()).unwrap();
    assert_eq!(body(&archive, "a").as_deref(), Some(&b"bytes"[..]));
    let mut tar = tar::Builder::new(Vec::new());
    other(&mut tar, b'M', b"00000000777\0");
    let error = index(&tar.into_inner().unwrap()).unwrap_err().to_string();
    assert!(error.contains("it goes on from another volume"), "{error}");
}

#[test]
fn damage_is_named_with_its_offset() {
    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, "a", EntryType::Regular, &"x".repeat(1000));
    let whole = tar.into_inner().unwrap();
    let mut broken = whole.clone();
    broken[0] ^= 1;
    let mut long = tar::Builder::new(Vec::new());
    add(&mut long, "big", EntryType::GNULongName, &"x".repeat((1 << 20) + 1));
    for (bytes, text) in [
        (whole[..1000].to_vec(), "at byte 0: a member of 1000 bytes passes the end"),
        (whole[..300].to_vec(), "at byte 0: it ends inside a header"),
        (broken, "at byte 0: no tar header"),
        (long.into_inner().unwrap(), "an extension header of 1048577 bytes"),
    ] {
        let error = index(&bytes).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn too_many_members_are_refused() {
    let mut tar = tar::Builder::new(Vec::new());
    for n in 0..9 {
        add(&mut tar, &n.to_string(), EntryType::Regular, "");
    }
    let error = index(&tar.into_inner().unwrap()).unwrap_err().to_string();
    assert!(error.contains("--max-members"), "{error}");
}

#[test]
fn sparse_members_are_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut content = vec![0; 3 << 20];
    content[70_000..70_010].copy_from_slice(b"in between");
    // Enough pieces that GNU's map does not fit its header.
    for piece in 0..40 {
        content[(1 << 20) + piece * 8192] = 1;
    }
    let blob = File::create(dir.path().join("blob")).unwrap();
    blob.set_len(content.len() as u64).unwrap();
    for (at, block) in content.chunks(4096).enumerate().filter(|(_, block)| block != &[0; 4096]) {
        blob.write_all_at(block, at as u64 * 4096).unwrap();
    }
    std::fs::write(dir.path().join("small"), "small").unwrap();
    for options in [
        &["--format=gnu"][..],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ] {
        let out = Command::new("tar")
            .args(options)
            .args(["--sparse", "--hole-detection=raw", "-cf", "-", "blob", "small"])
            .current_dir(dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success() && out.stdout.len() < 1 << 20, "{options:?}: {said}");
        let read = |limits: &SourceLimits| {
            let scratch = || -> Result<File> { Ok(tempfile::tempfile().unwrap()) };
            index(&out.stdout)?.expand(&scratch, "test.tar", limits)
        };
        let archive = read(&SourceLimits::default()).unwrap();
        assert!(body(&archive, "blob").unwrap() == content, "{options:?}");
        assert_eq!(body(&archive, "small").as_deref(), Some(&b"small"[..]), "{options:?}");
        assert!(!archive.find(&TreePath::clamped(b"blob").unwrap()).unwrap().repeated);
        let error = read(&SourceLimits { archive_bytes: 1 << 20, ..SourceLimits::default() });
        assert!(error.unwrap_err().to_string().contains("--max-archive-bytes"));
    }
}
