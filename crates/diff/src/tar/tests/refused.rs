//! What must not be read, each case a line: name, tar, a part of the message.

use crate::limits::Limits;
use crate::tar::testkit::{Head, Tar, read_all, read_with};
use crate::tar::{DiffError, DiffReader};

fn refuse(name: &str, tar: &[u8], part: &str) -> DiffError {
    let error = match read_all(tar) {
        Ok(members) => panic!("{name}: {} members", members.len()),
        Err(error) => error,
    };
    let text = error.to_string();
    assert!(text.starts_with("layer sha256:test: offset "), "{name}: {text}");
    assert!(text.contains(part), "{name}: {text}");
    error
}

fn head(flag: u8) -> Head {
    Head::new(flag, b"f")
}

#[test]
fn where_readers_disagree() {
    let t = Tar::default;
    for (name, tar, part) in [
        (
            "PAX path, other L",
            t().pax(&[("path", b"a")]).long(b'L', b"b").file(b"f", b""),
            "a PAX path",
        ),
        (
            "L, other PAX path",
            t().long(b'L', b"b").pax(&[("path", b"a")]).file(b"f", b""),
            "a PAX path",
        ),
        (
            "PAX linkpath, other K",
            t().pax(&[("linkpath", b"a")]).long(b'K', b"b").raw(head(b'2'), b""),
            "a PAX link target",
        ),
        ("global path", t().extended(b'g', &[("path", b"a")]).file(b"f", b""), "global header"),
        ("global linkpath", t().extended(b'g', &[("linkpath", b"a")]).file(b"f", b""), "global"),
        ("global size", t().extended(b'g', &[("size", b"512")]).file(b"f", b""), "global header"),
        (
            "global after x",
            t().pax(&[("path", b"a")]).extended(b'g', &[("comment", b"c")]).file(b"f", b""),
            "between",
        ),
        (
            "global after L",
            t().long(b'L', b"a").extended(b'g', &[("comment", b"c")]).file(b"f", b""),
            "between",
        ),
        ("file with a slash", t().file(b"f/", b""), "slash"),
        ("contiguous with a slash", t().add(Head::new(b'7', b"f/"), b""), "slash"),
        ("v7 directory with a size", t().add(Head::new(0, b"d/"), b"abc"), "no body"),
        ("symlink with a size", t().add(head(b'2').link(b"t"), b"abc"), "no body"),
        ("device with a size", t().add(head(b'3'), b"abc"), "no body"),
        ("fifo with a size", t().add(head(b'6'), b"abc"), "no body"),
        (
            "PAX size on a hard link",
            t().pax(&[("size", b"1")]).raw(head(b'1'), b"a"),
            "with a body",
        ),
        ("lone zero block", t().file(b"f", b"").data(&[0; 512]).file(b"g", b""), "lone zero"),
        ("prefix in a GNU header", t().add(head(b'0').gnu().put(345, b"pre"), b""), "ustar prefix"),
        (
            "long star prefix",
            t().add(head(b'0').put(345, &[b'p'; 140]).put(508, b"tar\0"), b""),
            "star header",
        ),
        ("empty long name", t().long(b'L', b"").file(b"f", b""), "empty GNU long name"),
        ("GNU sparse in ustar", t().add(head(b'S'), b""), "sparse"),
    ] {
        let error = refuse(name, &tar.end(), part);
        let known = matches!(error, DiffError::Ambiguous { .. } | DiffError::Malformed { .. });
        assert!(known, "{name}: {error:?}");
    }
}

#[test]
fn broken_headers() {
    let t = Tar::default;
    let mut flipped = t().file(b"f", b"").end();
    flipped[3] ^= 1;
    refuse("one bit", &flipped, "offset 0: this is no tar header: its checksum is");
    refuse("text", &[b'x'; 2048], "checksum is not a number");
    for (name, tar, part) in [
        ("negative size", t().raw(head(b'0').put(124, &[0xff; 12]), b""), "size is negative"),
        ("size of junk", t().raw(head(b'0').put(124, b"12x"), b""), "size field is not a number"),
        ("size of 2^64", t().raw(head(b'0').put(124, b"\x80\0\0\x01"), b""), "size field"),
        ("uid -1", t().raw(head(b'0').put(108, &[0xff; 8]), b""), "uid -1"),
        ("gid 2^32", t().raw(head(b'0').put(116, b"\x80\0\0\x01\0\0\0\0"), b""), "gid"),
        ("PAX uid 2^32", t().pax(&[("uid", b"4294967296")]).file(b"f", b""), "uid 4294967296"),
        ("PAX size -1", t().pax(&[("size", b"-1")]).file(b"f", b""), "PAX record size"),
        ("PAX empty path", t().pax(&[("path", b"")]).file(b"f", b""), "PAX record path"),
        ("PAX path with a NUL", t().pax(&[("path", b"a\0b")]).file(b"f", b""), "PAX record path"),
        ("PAX mtime of junk", t().pax(&[("mtime", b"now")]).file(b"f", b""), "PAX record mtime"),
        ("PAX junk", t().add(head(b'x'), b"junk").file(b"f", b""), "PAX record is malformed"),
        ("PAX record too long", t().add(head(b'x'), b"99 a=b\n").file(b"f", b""), "malformed"),
        ("major 4096", t().add(head(b'3').put(329, b"0010000\0"), b""), "device major"),
        ("minor 2^20", t().add(head(b'4').put(337, b"4000000\0"), b""), "device minor"),
        ("negative minor", t().add(head(b'4').put(337, &[0xff; 8]), b""), "device minor"),
        ("symlink to nothing", t().add(head(b'2'), b""), "without a target"),
        ("x without a member", t().pax(&[("path", b"a")]), "has no member"),
        ("L without a member", t().long(b'L', b"a"), "has no member"),
        ("type A", t().add(head(b'A'), b""), "type 'A' is not supported"),
        ("type M", t().add(head(b'M'), b""), "type 'M'"),
        ("type V with a body", t().add(head(b'V'), b"x"), "type 'V'"),
        ("type V for a long name", t().long(b'L', b"a").add(head(b'V'), b""), "type 'V'"),
        ("type X", t().add(head(b'X'), b"9 path=a\n").file(b"f", b""), "type 'X'"),
    ] {
        refuse(name, &tar.end(), part);
    }
}

#[test]
fn errors_name_the_offset_of_the_header_at_fault() {
    let tar = Tar::default().file(b"a", b"body").pax(&[("size", b"x")]).file(b"f", b"").end();
    refuse("the x header", &tar, "layer sha256:test: offset 1024: the PAX record size");
    let tar = Tar::default().file(b"a", b"body").file(b"b", b"").add(head(b'D'), b"").end();
    refuse("the member", &tar, "offset 1536: a member of type 'D'");
}

#[test]
fn truncated_anywhere() {
    let tar = Tar::default()
        .file(b"a", b"")
        .pax(&[("path", b"long")])
        .file(b"b", &[1; 600])
        .long(b'L', b"c")
        .file(b"c", &[2; 512])
        .end();
    // Where a header may begin, in the padding after a body, after the first zero block.
    let fine = |cut| matches!(cut, 0 | 512 | 2648..=3072 | 5120 | 5632 | 6144);
    assert_eq!(tar.len(), 6144);
    for cut in 0..=tar.len() {
        match read_all(&tar[..cut]) {
            Ok(_) => assert!(fine(cut), "cut at {cut} went unnoticed"),
            Err(error) if fine(cut) => panic!("cut at {cut}: {error}"),
            Err(DiffError::Truncated { offset, .. }) => assert_eq!(offset, cut as u64),
            Err(DiffError::Malformed { what, .. }) => {
                assert!(what.contains("has no member"), "cut at {cut}: {what}");
            }
            Err(error) => panic!("cut at {cut}: {error}"),
        }
    }
}

#[test]
fn lying_sizes_end_in_truncation_without_the_memory() {
    let huge = head(b'0').put(124, b"777777777777");
    refuse("a body", &Tar::default().raw(huge, b"few").0, "in the middle of a body");
    let huge = head(b'x').put(124, b"777777777777");
    refuse("records", &Tar::default().raw(huge, b"few").0, "at most 1048576");
    let huge = Tar::default().pax(&[("size", b"9223372036854775807")]).file(b"f", b"").0;
    refuse("PAX", &huge, "in the middle of a body");
}

#[test]
fn limits_are_named() {
    let tar = Tar::default().pax(&[("SCHILY.xattr.user.a", b"1234")]).file(b"f", b"").end();
    let fits = Limits { xattr_bytes: 10, entries: 2, ..Limits::default() };
    assert!(read_with(&tar, fits).is_ok());
    for (limits, wanted) in [
        (Limits { xattr_bytes: 9, ..fits }, "--max-xattr-bytes"),
        (Limits { entries: 1, ..fits }, "--max-entries"),
    ] {
        match read_with(&tar, limits) {
            Err(DiffError::Limit { option, .. }) => assert_eq!(option, wanted),
            other => panic!("{other:?}"),
        }
    }
    let global = Tar::default()
        .extended(b'g', &[("SCHILY.xattr.user.b", b"1234")])
        .pax(&[("SCHILY.xattr.user.a", b"1234")])
        .file(b"f", b"")
        .end();
    assert!(matches!(read_with(&global, fits), Err(DiffError::Limit { .. })));
    // Headers that no member follows have to be held, too.
    let globals = ["SCHILY.xattr.user.a", "SCHILY.xattr.user.b"];
    let globals = globals.iter().fold(Tar::default(), |tar, key| tar.extended(b'g', &[(key, b"")]));
    assert!(matches!(read_with(&globals.end(), fits), Err(DiffError::Limit { offset: 1024, .. })));
    let path = vec![b'p'; (1 << 16) + 1];
    refuse(
        "path",
        &Tar::default().pax(&[("path", &path)]).file(b"f", b"").end(),
        "a path of 65537",
    );
}

#[test]
fn a_body_must_be_read_before_the_next_member() {
    let tar = Tar::default().file(b"a", b"body").end();
    let new = || DiffReader::new(&tar[..], "l".to_owned(), Limits::default(), Vec::new());
    let mut reader = new();
    reader.next().unwrap().unwrap();
    assert!(matches!(reader.next(), Err(DiffError::Unread { left: 4, .. })));
    assert!(matches!(new().finish(), Err(DiffError::Unread { left: 0, .. })));
}
