//! Every format that must be read, each case a line: name, tar, the one member expected.

use strata_diff::tar::{Member, MemberKind};
use strata_testkit::tars::{Head, Tar};
use strata_tree::{Device, Timestamp};

use crate::members::{plain, read_all, stored_exactly};

type Case = (&'static str, Tar, Member);

fn check(cases: Vec<Case>) {
    let tars: Vec<_> = cases.iter().map(|(name, tar, _)| (*name, tar.clone().end())).collect();
    stored_exactly(tars.iter().map(|(name, tar)| (*name, tar.as_slice())));
    for (name, tar, expected) in cases {
        let members = read_all(&tar.end()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let [(member, _)] = members.as_slice() else {
            panic!("{name}: {} members", members.len());
        };
        let member = Member { offset: 0, ..member.clone() };
        assert_eq!(member, expected, "{name}");
    }
}

fn time(seconds: i64, nanos: u32) -> Timestamp {
    Timestamp { seconds, nanos }
}

#[test]
fn names_of_every_form() {
    let long = [b"d/".as_slice(), &[b'x'; 300]].concat();
    let f = || Head::new(b'0', b"short");
    check(vec![
        ("100 bytes without a NUL", Tar::default().file(&[b'n'; 100], b""), plain(&[b'n'; 100])),
        (
            "ustar prefix",
            Tar::default().add(f().put(345, b"pre/fix"), b""),
            plain(b"pre/fix/short"),
        ),
        (
            "ustar prefix of 155 bytes",
            Tar::default().add(f().put(345, &[b'p'; 155]), b""),
            plain(&[&[b'p'; 155], b"/short".as_slice()].concat()),
        ),
        (
            "ustar of another version",
            Tar::default().add(f().put(263, b"  ").put(345, b"pre"), b""),
            plain(b"pre/short"),
        ),
        (
            "star prefix",
            Tar::default().add(f().put(345, b"pre").put(508, b"tar\0"), b""),
            plain(b"pre/short"),
        ),
        (
            "gnu header: no prefix, but times",
            Tar::default().add(f().gnu().put(345, b"00000000001\0"), b""),
            plain(b"short"),
        ),
        (
            "v7",
            Tar::default().add(f().v7().put(156, b"\0").put(345, b"junk"), b""),
            plain(b"short"),
        ),
        ("GNU L", Tar::default().long(b'L', &long).add(f().gnu(), b""), plain(&long)),
        (
            "two GNU L: the last",
            Tar::default().long(b'L', b"no").long(b'L', &long).add(f().gnu(), b""),
            plain(&long),
        ),
        ("PAX path over 255", Tar::default().pax(&[("path", &long)]).add(f(), b""), plain(&long)),
        (
            "two PAX headers: the last",
            Tar::default().pax(&[("path", b"no")]).pax(&[("path", &long)]).add(f(), b""),
            plain(&long),
        ),
        (
            "two PAX paths: the last",
            Tar::default().pax(&[("path", b"no"), ("path", &long)]).add(f(), b""),
            plain(&long),
        ),
        (
            "PAX x before L, of one mind",
            Tar::default().pax(&[("path", &long)]).long(b'L', &long).add(f(), b""),
            plain(&long),
        ),
        (
            "L before PAX x, of one mind",
            Tar::default().long(b'L', &long).pax(&[("path", &long)]).add(f(), b""),
            plain(&long),
        ),
        (
            "PAX x without a path before L",
            Tar::default().pax(&[("comment", b"c")]).long(b'L', &long).add(f(), b""),
            plain(&long),
        ),
        (
            "L before PAX x with another key",
            Tar::default().long(b'L', &long).pax(&[("mtime", b"1.5")]).add(f(), b""),
            Member { mtime: time(1, 500_000_000), ..plain(&long) },
        ),
        ("not UTF-8", Tar::default().file(b"\xff\xfe\x80", b""), plain(b"\xff\xfe\x80")),
        ("newline in a name", Tar::default().file(b"a\nb", b""), plain(b"a\nb")),
        (
            "newline in a PAX path",
            Tar::default().pax(&[("path", b"a\n9 path=b")]).add(f(), b""),
            plain(b"a\n9 path=b"),
        ),
        ("as it stands", Tar::default().file(b"/..//./x", b""), plain(b"/..//./x")),
        ("no name", Tar::default().file(b"", b""), plain(b"")),
    ]);
}

#[test]
fn links_of_every_form() {
    let long = vec![b't'; 300];
    let hard = |target: &[u8]| Member {
        kind: MemberKind::HardLink { target: target.to_vec() },
        ..plain(b"l")
    };
    let soft = |target: &[u8]| Member {
        kind: MemberKind::Symlink { target: target.to_vec() },
        ..plain(b"l")
    };
    let head = |flag: u8| Head::new(flag, b"l").link(b"short");
    check(vec![
        ("hard link", Tar::default().raw(head(b'1'), b""), hard(b"short")),
        (
            "hard link that repeats the size",
            Tar::default().raw(head(b'1').size(9), b""),
            hard(b"short"),
        ),
        (
            "hard link with a PAX size of 0",
            Tar::default().pax(&[("size", b"0")]).raw(head(b'1').size(9), b""),
            hard(b"short"),
        ),
        ("symlink", Tar::default().raw(head(b'2'), b""), soft(b"short")),
        (
            "target of 100 bytes",
            Tar::default().raw(Head::new(b'2', b"l").link(&[b't'; 100]), b""),
            soft(&[b't'; 100]),
        ),
        ("GNU K", Tar::default().long(b'K', &long).raw(head(b'2').gnu(), b""), soft(&long)),
        (
            "GNU K and L",
            Tar::default().long(b'K', &long).long(b'L', b"l").raw(head(b'1').gnu(), b""),
            hard(&long),
        ),
        (
            "PAX linkpath",
            Tar::default().pax(&[("linkpath", &long)]).raw(head(b'2'), b""),
            soft(&long),
        ),
        (
            "PAX linkpath, not UTF-8",
            Tar::default().pax(&[("linkpath", b"\xff\n")]).raw(head(b'1'), b""),
            hard(b"\xff\n"),
        ),
    ]);
}

#[test]
fn types() {
    let of = |kind: MemberKind, name: &[u8]| Member { kind, ..plain(name) };
    let device = Device { major: 0xfff, minor: 0xf_ffff };
    let numbers = |flag| Head::new(flag, b"d").put(329, b"0007777\0").put(337, b"3777777\0");
    check(vec![
        ("0", Tar::default().file(b"f", b""), plain(b"f")),
        ("7 is contiguous", Tar::default().add(Head::new(b'7', b"f"), b""), plain(b"f")),
        ("NUL", Tar::default().add(Head::new(0, b"f"), b""), plain(b"f")),
        (
            "v7 directory",
            Tar::default().add(Head::new(0, b"d/").v7(), b""),
            of(MemberKind::Directory, b"d/"),
        ),
        (
            "directory",
            Tar::default().add(Head::new(b'5', b"d"), b""),
            of(MemberKind::Directory, b"d"),
        ),
        (
            "directory with a size and no body",
            Tar::default().raw(Head::new(b'5', b"d").size(512), b""),
            of(MemberKind::Directory, b"d"),
        ),
        (
            "directory with a PAX size and no body",
            Tar::default().pax(&[("size", b"512")]).raw(Head::new(b'5', b"d"), b""),
            of(MemberKind::Directory, b"d"),
        ),
        ("char", Tar::default().add(numbers(b'3'), b""), of(MemberKind::CharDevice(device), b"d")),
        (
            "block",
            Tar::default().add(numbers(b'4'), b""),
            of(MemberKind::BlockDevice(device), b"d"),
        ),
        (
            "device 0:0 stays a device",
            Tar::default().add(Head::new(b'3', b"d"), b""),
            of(MemberKind::CharDevice(Device { major: 0, minor: 0 }), b"d"),
        ),
        (
            "base-256 device",
            Tar::default().add(numbers(b'4').put(337, b"\x80\0\0\0\0\x0f\xff\xff"), b""),
            of(MemberKind::BlockDevice(device), b"d"),
        ),
        ("fifo", Tar::default().add(Head::new(b'6', b"p"), b""), of(MemberKind::Fifo, b"p")),
    ]);
}

#[test]
fn numbers_of_every_form() {
    let f = || Head::new(b'0', b"f");
    check(vec![
        (
            "base-256 owners",
            Tar::default().add(
                f().put(108, b"\x80\0\0\0\xff\xff\xff\xfe").put(116, b"\x80\0\0\0\0\x20\0\0"),
                b"",
            ),
            Member { uid: u32::MAX - 1, gid: 0x20_0000, ..plain(b"f") },
        ),
        (
            "PAX owners",
            Tar::default().pax(&[("uid", b"4294967294"), ("gid", b"5")]).add(f(), b""),
            Member { uid: u32::MAX - 1, gid: 5, ..plain(b"f") },
        ),
        (
            "base-256 size",
            Tar::default().raw(f().put(124, b"\x80\0\0\0\0\0\0\0\0\0\0\x02"), b"ab"),
            Member { size: 2, stored: 2, ..plain(b"f") },
        ),
        (
            "PAX size over the header's",
            Tar::default().pax(&[("size", b"700")]).raw(f().size(3), &[7; 700]),
            Member { size: 700, stored: 700, ..plain(b"f") },
        ),
        (
            "PAX size over none",
            Tar::default().pax(&[("size", b"700")]).raw(f(), &[7; 700]),
            Member { size: 700, stored: 700, ..plain(b"f") },
        ),
        (
            "PAX size 0 over the header's",
            Tar::default().pax(&[("size", b"0")]).raw(f().size(512), b""),
            plain(b"f"),
        ),
        (
            "setuid and all",
            Tar::default().add(f().put(100, b"0107755\0"), b""),
            Member { perm: 0o7755, ..plain(b"f") },
        ),
        (
            "blank fields",
            Tar::default().add(f().put(100, b"        ").put(108, &[0; 16]), b""),
            Member { perm: 0, ..plain(b"f") },
        ),
        (
            "fields with spaces",
            Tar::default().add(f().put(100, b"   755 \0").put(108, b"    12  "), b""),
            Member { perm: 0o755, uid: 0o12, ..plain(b"f") },
        ),
    ]);
}

#[test]
fn times_of_every_form() {
    let f = || Head::new(b'0', b"f");
    let at = |mtime| Member { mtime, ..plain(b"f") };
    let pax = |value: &[u8]| {
        Tar::default().pax(&[("mtime", value)]).add(f().put(136, b"00000000007\0"), b"")
    };
    check(vec![
        ("zero", Tar::default().add(f(), b""), at(time(0, 0))),
        (
            "octal",
            Tar::default().add(f().put(136, b"77777777777\0"), b""),
            at(time((1 << 33) - 1, 0)),
        ),
        (
            "base-256 negative",
            Tar::default()
                .add(f().put(136, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"), b""),
            at(time(-2, 0)),
        ),
        ("PAX", pax(b"1700000000.123456789"), at(time(1_700_000_000, 123_456_789))),
        ("PAX zero", pax(b"0"), at(time(0, 0))),
        ("PAX negative", pax(b"-1.25"), at(time(-2, 750_000_000))),
        ("PAX with more digits", pax(b"1.1234567891234"), at(time(1, 123_456_789))),
        ("PAX with few digits", pax(b"1.5"), at(time(1, 500_000_000))),
    ]);
}

#[test]
fn xattrs_with_any_bytes() {
    let value = b"\x01\0\0\x02\0\x04\n=\n7 a=b\n\xff";
    let tar = Tar::default()
        .pax(&[
            ("SCHILY.xattr.user.z", b""),
            ("SCHILY.xattr.security.capability", value),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("LIBARCHIVE.xattr.user.z", b"bm8="),
            ("SCHILY.acl.access", b"user::rwx"),
        ])
        .file(b"f", b"");
    let xattrs = vec![
        (b"security.capability".to_vec(), value.to_vec()),
        (b"trusted.overlay.opaque".to_vec(), b"y".to_vec()),
        (b"user.z".to_vec(), Vec::new()),
    ];
    check(vec![("binary", tar, Member { xattrs, ..plain(b"f") })]);
}

#[test]
fn global_headers_hold_until_overridden() {
    let tar = Tar::default()
        .extended(b'g', &[("comment", b"c"), ("mtime", b"5"), ("SCHILY.xattr.user.a", b"1")])
        .file(b"f", b"")
        .extended(b'g', &[("uid", b"3"), ("SCHILY.xattr.user.b", b"2")])
        .pax(&[("mtime", b"6"), ("SCHILY.xattr.user.a", b"7")])
        .file(b"h", b"")
        .end();
    let members = read_all(&tar).unwrap();
    let a = |value: &[u8]| (b"user.a".to_vec(), value.to_vec());
    assert_eq!(members[0].0.mtime, time(5, 0));
    assert_eq!(members[0].0.uid, 0);
    assert_eq!(members[0].0.xattrs, [a(b"1")]);
    assert_eq!(members[1].0.mtime, time(6, 0));
    assert_eq!(members[1].0.uid, 3);
    assert_eq!(members[1].0.xattrs, [a(b"7"), (b"user.b".to_vec(), b"2".to_vec())]);
}

#[test]
fn ends_of_every_form() {
    let tar = || Tar::default().file(b"f", b"abc").file(b"g", b"");
    let whole = tar().end();
    let one_block = [tar().0, vec![0; 512]].concat();
    let trailing = [whole.clone(), vec![0; 10240], b"junk after the end".to_vec()].concat();
    let label = Head::new(b'V', b"Volume 1").gnu().put(124, &[0; 12]);
    let labelled = Tar::default().file(b"f", b"abc").add(label, b"").0;
    let hidden = [whole.clone(), Tar::default().file(b"hidden", b"").end()].concat();
    for (name, bytes) in [
        ("two blocks", whole),
        ("one block", one_block),
        ("none", tar().0),
        ("trailing bytes", trailing),
        ("another archive behind", hidden),
        ("a label in between", [labelled.clone(), Tar::default().file(b"g", b"").end()].concat()),
    ] {
        let members = read_all(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        let paths: Vec<_> = members.iter().map(|(member, _)| member.path.as_slice()).collect();
        assert_eq!(paths, [b"f", b"g"], "{name}");
        assert_eq!(members[0].1, b"abc", "{name}");
        let at = if name.contains("label") { 1536 } else { 1024 };
        assert_eq!(members[1].0.offset, at, "{name}");
    }
    assert!(read_all(&[]).unwrap().is_empty());
    assert!(read_all(&[0; 1024]).unwrap().is_empty());
}

#[test]
fn checksums_of_signed_bytes() {
    let mut block = Head::new(b'0', b"\xff\xfe").sealed();
    let unsigned = u32::from_str_radix(std::str::from_utf8(&block[148..154]).unwrap(), 8).unwrap();
    block[148..154].copy_from_slice(format!("{:06o}", unsigned - 512).as_bytes());
    assert_eq!(read_all(&block).unwrap()[0].0.path, b"\xff\xfe");
}

#[test]
fn the_last_padding_may_be_missing_as_umoci_insert_writes_it() {
    let tar = Tar::default().file(b"f", b"abc").file(b"g", b"defg").0;
    for cut in [0, 1, 300] {
        let members = read_all(&tar[..1024 + 512 + 4 + cut]).unwrap();
        assert_eq!(members[1].1, b"defg");
    }
}
