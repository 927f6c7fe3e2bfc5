//! Trees written, read back by the reader, and shown to other programs where they are installed.

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use strata_content::conformance::in_memory;
use strata_testkit::needs;
use strata_tree::{Spec, Timestamp, TreePath};

use super::{Exported, write_tree};
use crate::tar::MemberKind;
use crate::tar::testkit::read_all;

fn path(text: &str) -> TreePath {
    TreePath::clamped(text.as_bytes()).unwrap()
}

fn export(spec: &Spec) -> (Vec<u8>, Exported) {
    let mut tar = Vec::new();
    let exported = write_tree(&in_memory(spec).unwrap(), &mut tar).unwrap();
    assert_eq!(exported.bytes, tar.len() as u64);
    (tar, exported)
}

fn everything() -> Spec {
    let long = "n".repeat(200);
    Spec::new()
        .perm(0o751)
        .mtime(7, 0)
        .dir("z")
        .file("z/hard", "shared")
        .owner(5, 6)
        .xattr("user.a", b"\0\n=\xff")
        .xattr("security.capability", b"\x01\0\0\x02")
        .link("b", &path("z/hard"))
        .file("a-setuid", "x")
        .perm(0o4755)
        .owner(4_294_967_294, 3_000_000)
        .file(format!("z/{long}"), "long")
        .mtime(-2, 750_000_000)
        .symlink("z/link", "t".repeat(150))
        .mtime(1_700_000_000, 123_456_789)
        .symlink("z/short", "hard")
        .file(b"z/\xff\xfe\n", "bytes")
        .file([&b"z/\xff"[..], &[b'q'; 150]].concat(), "more bytes")
        .char_device("z/char", 5, 1)
        .block_device("z/block", 4095, 1_048_575)
        .fifo("z/fifo")
        .socket("z/socket")
        .file("z/empty", "")
        .mtime(1 << 33, 0)
        .file("z/block-size", vec![1; 512])
        .file("z/large", vec![2; 600_000])
}

#[test]
fn the_reader_gives_the_tree_back() {
    let (tar, exported) = export(&everything());
    let members = read_all(&tar).unwrap();
    assert_eq!(exported.members, members.len() as u64);
    let [left_out] = exported.left_out.as_slice() else { panic!("{:?}", exported.left_out) };
    assert_eq!((left_out.path.as_bytes(), left_out.what.as_str()), (&b"z/socket"[..], "a socket"));
    let paths: Vec<&[u8]> = members.iter().map(|(member, _)| member.path.as_slice()).collect();
    let long = format!("z/{}", "n".repeat(200));
    let bytes = [&b"z/\xff"[..], &[b'q'; 150]].concat();
    assert_eq!(
        paths,
        [
            &b"./"[..],
            b"a-setuid",
            b"b",
            b"z/",
            b"z/block",
            b"z/block-size",
            b"z/char",
            b"z/empty",
            b"z/fifo",
            b"z/hard",
            b"z/large",
            b"z/link",
            long.as_bytes(),
            b"z/short",
            &bytes,
            b"z/\xff\xfe\n",
        ]
    );
    let get = |path: &[u8]| members.iter().find(|(member, _)| member.path == path).unwrap();
    let root = &get(b"./").0;
    assert_eq!((root.perm, root.mtime.seconds), (0o751, 7));
    let setuid = &get(b"a-setuid").0;
    assert_eq!((setuid.perm, setuid.uid, setuid.gid), (0o4755, 4_294_967_294, 3_000_000));
    let (first, body) = get(b"b");
    assert_eq!((first.kind.clone(), body.as_slice()), (MemberKind::Regular, &b"shared"[..]));
    assert_eq!(first.xattrs[0], (b"security.capability".to_vec(), b"\x01\0\0\x02".to_vec()));
    assert_eq!(first.xattrs[1], (b"user.a".to_vec(), b"\0\n=\xff".to_vec()));
    assert_eq!(get(b"z/hard").0.kind, MemberKind::HardLink { target: b"b".to_vec() });
    let before_1970 = Timestamp { seconds: -2, nanos: 750_000_000 };
    assert_eq!(get(long.as_bytes()).0.mtime, before_1970);
    let link = &get(b"z/link").0;
    assert_eq!(link.kind, MemberKind::Symlink { target: vec![b't'; 150] });
    assert_eq!(link.mtime, Timestamp { seconds: 1_700_000_000, nanos: 123_456_789 });
    assert_eq!(get(b"z/empty").0.mtime.seconds, 1 << 33);
    assert_eq!(get(b"z/large").1, vec![2; 600_000]);
    assert_eq!(get(&bytes).1, b"more bytes");
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    let one = Spec::new().dir("d").file("d/a", "1").file("b", "2");
    let other = Spec::new().file("b", "2").dir("d").file("d/a", "1");
    assert!(export(&one).0 == export(&other).0);
    assert!(export(&everything()).0 == export(&everything()).0);
}

#[test]
fn what_a_tar_cannot_hold_is_reported() {
    let spec = Spec::new().file("f", "").xattr("user.a=b", "1").xattr("user.c", "2");
    let (tar, exported) = export(&spec.char_device("d", 1 << 21, 0));
    let left_out: Vec<_> = exported.left_out.iter().map(|one| one.what.as_str()).collect();
    assert_eq!(left_out, ["a device number that does not fit a tar", "the xattr \"user.a=b\""]);
    let members = read_all(&tar).unwrap();
    assert_eq!(members[1].0.xattrs, [(b"user.c".to_vec(), b"2".to_vec())]);
}

#[test]
fn names_at_the_edge_of_the_field() {
    for len in [98, 99, 100, 101, 255] {
        let name = "e".repeat(len);
        let spec = Spec::new().dir(&name).symlink("l", "t".repeat(len));
        let members = read_all(&export(&spec).0).unwrap();
        assert_eq!(members[1].0.path, format!("{name}/").as_bytes());
        assert_eq!(members[2].0.kind, MemberKind::Symlink { target: vec![b't'; len] });
    }
}

#[test]
fn python_reads_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.tar");
    let (tar, _) = export(&everything());
    std::fs::write(&file, &tar).unwrap();
    let script = "
import sys, tarfile
for m in tarfile.open(sys.argv[1], errors='surrogateescape'):
    x = [k for k in m.pax_headers if k.startswith('SCHILY')]
    n = m.name.encode('utf-8', 'surrogateescape')
    print(n, m.type, oct(m.mode), m.uid, m.gid, m.size, float(m.mtime), len(m.linkname), len(x))
";
    if !needs::program("python3") {
        return;
    }
    let out = Command::new("python3").args(["-c", script]).arg(&file).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    for line in [
        "b'.' b'5' 0o751 0 0 0 7.0 0 0",
        "b'a-setuid' b'0' 0o4755 4294967294 3000000 1 0.0 0 0",
        "b'b' b'0' 0o644 5 6 6 0.0 0 2",
        "b'z/hard' b'1' 0o644 5 6 0 0.0 1 0",
        "b'z/block' b'4' 0o600 0 0 0 0.0 0 0",
        &format!("b'z/{}' b'0' 0o644 0 0 4 -1.25 0 0", "n".repeat(200)),
        "b'z/\\xff\\xfe\\n' b'0' 0o644 0 0 5 0.0 0 0",
        &format!("b'z/\\xff{}' b'0' 0o644 0 0 10 0.0 0 0", "q".repeat(150)),
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert_eq!(text.lines().count(), read_all(&tar).unwrap().len());
}

#[test]
fn gnu_tar_reads_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.tar");
    let (tar, exported) = export(&everything());
    std::fs::write(&file, &tar).unwrap();
    let run = |args: &[&str]| {
        Command::new("tar").args(args).env("TZ", "UTC0").env("LC_ALL", "C").output()
    };
    if !needs::gnu_tar() {
        return;
    }
    let name = file.to_str().unwrap();
    let listing = ["--numeric-owner", "--full-time", "--quoting-style=escape", "-tvf", name];
    let out = run(&listing).unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    let lines: Vec<String> =
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(lines.len() as u64, exported.members);
    for line in [
        "drwxr-x--x 0/0 0 1970-01-01 00:00:07 ./",
        "-rwsr-xr-x 4294967294/3000000 1 1970-01-01 00:00:00 a-setuid",
        "hrw-r--r-- 5/6 0 1970-01-01 00:00:00 z/hard link to b",
        "brw------- 0/0 4095,1048575 1970-01-01 00:00:00 z/block",
        "prw------- 0/0 0 1970-01-01 00:00:00 z/fifo",
        "-rw-r--r-- 0/0 5 1970-01-01 00:00:00 z/\\377\\376\\n",
    ] {
        assert!(lines.iter().any(|found| found == line), "{line}\n{lines:#?}");
    }
    // Its listing adds the fraction of a negative time the wrong way round; extraction is right.
    let long = format!("z/{}", "n".repeat(200));
    let to = dir.path().to_str().unwrap();
    assert!(run(&["-C", to, "-xf", name, &long]).unwrap().status.success());
    let meta = std::fs::metadata(dir.path().join(&long)).unwrap();
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (-2, 750_000_000));
}
