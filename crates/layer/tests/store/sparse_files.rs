//! Sparse files: GNU S with and without more blocks, PAX 0.0, 0.1 and 1.0.

use strata_testkit::tars::{Head, Tar};

use crate::members::{expand, read_all, stored_exactly};

/// `0 x 8, "ab", 0 x 90, "cd" ... ` as the map below says.
const MAP: [(u64, u64); 3] = [(8, 2), (100, 3), (110, 0)];
const STORED: &[u8] = b"abcde";
const SIZE: u64 = 110;

fn octal(value: u64) -> Vec<u8> {
    format!("{value:011o}\0").into_bytes()
}

fn gnu_entries(map: &[(u64, u64)]) -> Vec<u8> {
    map.iter().flat_map(|(offset, length)| [octal(*offset), octal(*length)].concat()).collect()
}

fn gnu(map: &[(u64, u64)], size: u64) -> Head {
    let head = Head::new(b'S', b"f").gnu().put(386, &gnu_entries(&map[..map.len().min(4)]));
    head.put(483, &octal(size)).put(482, &[u8::from(map.len() > 4)])
}

fn check(name: &str, tar: Tar) {
    let tar = tar.file(b"after", b"x").end();
    stored_exactly([(name, tar.as_slice())]);
    let members = read_all(&tar).unwrap_or_else(|error| panic!("{name}: {error}"));
    let (member, stored) = &members[0];
    assert_eq!(member.path, b"f", "{name}");
    assert_eq!(member.size, SIZE, "{name}");
    assert_eq!(member.stored, 5, "{name}");
    assert_eq!(member.sparse.as_deref(), Some(&MAP[..2]), "{name}");
    assert_eq!(stored, STORED, "{name}");
    let file = expand(member, stored);
    assert_eq!((&file[8..10], &file[100..103]), (&b"ab"[..], &b"cde"[..]), "{name}");
    assert_eq!(file.iter().filter(|byte| **byte != 0).count(), 5, "{name}");
    assert_eq!((members[1].0.path.as_slice(), members[1].1.as_slice()), (&b"after"[..], &b"x"[..]));
}

fn text_map() -> Vec<u8> {
    let mut body = b"3\n8\n2\n100\n3\n110\n0\n".to_vec();
    body.resize(512, 0);
    body.extend_from_slice(STORED);
    body
}

const V1: [(&str, &[u8]); 4] = [
    ("GNU.sparse.major", b"1"),
    ("GNU.sparse.minor", b"0"),
    ("GNU.sparse.name", b"f"),
    ("GNU.sparse.realsize", b"110"),
];

#[test]
fn every_format_gives_the_same_file() {
    let t = Tar::default;
    let odd = || Head::new(b'0', b"GNUSparseFile.0/f");
    check("GNU S", t().add(gnu(&MAP, SIZE), STORED));
    let pairs: [(&str, &[u8]); 9] = [
        ("path", b"f"),
        ("GNU.sparse.size", b"110"),
        ("GNU.sparse.numblocks", b"3"),
        ("GNU.sparse.offset", b"8"),
        ("GNU.sparse.numbytes", b"2"),
        ("GNU.sparse.offset", b"100"),
        ("GNU.sparse.numbytes", b"3"),
        ("GNU.sparse.offset", b"110"),
        ("GNU.sparse.numbytes", b"0"),
    ];
    check("PAX 0.0", t().pax(&pairs).add(odd(), STORED));
    let map: [(&str, &[u8]); 4] = [
        ("GNU.sparse.name", b"f"),
        ("GNU.sparse.size", b"110"),
        ("GNU.sparse.numblocks", b"3"),
        ("GNU.sparse.map", b"8,2,100,3,110,0"),
    ];
    check("PAX 0.1", t().pax(&map).add(odd(), STORED));
    check("PAX 1.0", t().pax(&V1).add(odd(), &text_map()));
    let sized: Vec<_> = [("size", &b"517"[..]), ("path", b"no")].into_iter().chain(V1).collect();
    check("PAX 1.0 with a PAX size", t().pax(&sized).raw(odd(), &text_map()));
}

#[test]
fn a_gnu_map_goes_on_in_blocks_of_21() {
    let map: Vec<(u64, u64)> = (0..4 + 21 + 2).map(|i| (i * 10, 1)).collect();
    let stored: Vec<u8> = (1..=27).collect();
    let more = |part: &[(u64, u64)], last: bool| {
        let mut block = gnu_entries(part);
        block.resize(512, 0);
        block[504] = u8::from(!last);
        block
    };
    let tar = Tar::default()
        .raw(gnu(&map, 1000).size(27), b"")
        .data(&more(&map[4..25], false))
        .data(&more(&map[25..], true))
        .data(&stored)
        .end();
    let members = read_all(&tar).unwrap();
    assert_eq!(members[0].0.sparse.as_ref().unwrap(), &map);
    assert_eq!(members[0].0.size, 1000);
    assert_eq!(members[0].1, stored);
}

#[test]
fn a_text_map_may_be_longer_than_a_block() {
    let map: Vec<(u64, u64)> = (0..200).map(|i| (1_000_000 + i * 10, 1)).collect();
    let text = map.iter().map(|(offset, length)| format!("{offset}\n{length}\n"));
    let mut body = format!("200\n{}", text.collect::<String>()).into_bytes();
    body.resize(body.len().next_multiple_of(512), 0);
    assert!(body.len() > 1024);
    body.extend_from_slice(&[7; 200]);
    let tar = Tar::default()
        .pax(&[V1[0], V1[1], ("GNU.sparse.realsize", b"2000000")])
        .add(Head::new(b'0', b"f"), &body)
        .end();
    let members = read_all(&tar).unwrap();
    assert_eq!(members[0].0.sparse.as_ref().unwrap(), &map);
    assert_eq!(members[0].1, [7; 200]);
}

#[test]
fn a_file_of_one_hole() {
    let tar = Tar::default().add(gnu(&[(110, 0)], SIZE), b"").end();
    let members = read_all(&tar).unwrap();
    assert_eq!(members[0].0.sparse.as_deref(), Some(&[][..]));
    assert_eq!((members[0].0.size, members[0].0.stored), (SIZE, 0));
}

#[test]
fn bad_maps_are_refused() {
    let t = Tar::default;
    let f = || Head::new(b'0', b"f");
    let v0 = |map: &'static [u8], blocks: &'static [u8]| {
        let records = [
            ("GNU.sparse.size", &b"110"[..]),
            ("GNU.sparse.numblocks", blocks),
            ("GNU.sparse.map", map),
        ];
        t().pax(&records).add(f(), STORED)
    };
    let text = |text: &[u8]| t().pax(&V1).add(f(), &[text, &[0; 600]].concat());
    for (name, tar) in [
        ("beyond the end", t().add(gnu(&[(108, 5)], SIZE), STORED)),
        ("out of order", t().add(gnu(&[(100, 3), (8, 2)], SIZE), STORED)),
        ("overlapping", t().add(gnu(&[(8, 3), (10, 2)], SIZE), STORED)),
        ("more than stored", t().add(gnu(&[(8, 6)], SIZE), STORED)),
        ("less than stored", t().add(gnu(&[(8, 4)], SIZE), STORED)),
        ("half an entry", t().add(gnu(&[(8, 5)], SIZE).put(398, &[0; 12]), STORED)),
        ("ends and goes on", t().add(gnu(&[(8, 5)], SIZE).put(482, &[1]), STORED)),
        ("PAX size on S", t().pax(&[("size", b"4")]).add(gnu(&[(8, 4)], SIZE), STORED)),
        ("S with PAX records", t().pax(&V1).add(gnu(&[(8, 5)], SIZE), STORED)),
        ("wrong count", v0(b"8,5", b"2")),
        ("odd count", v0(b"8", b"1")),
        ("junk", v0(b"8,x", b"1")),
        ("overflow", v0(b"9223372036854775807,9223372036854775807", b"1")),
        ("no map", t().pax(&[("GNU.sparse.size", b"5")]).add(f(), STORED)),
        ("only a name", t().pax(&[("GNU.sparse.name", b"g")]).add(f(), STORED)),
        ("no size", t().pax(&V1[..3]).add(f(), &text_map())),
        ("version 2", t().pax(&[("GNU.sparse.major", b"2"), V1[1], V1[3]]).add(f(), &text_map())),
        (
            "two sizes",
            t().pax(&[V1[0], V1[1], V1[3], ("GNU.sparse.size", b"9")]).add(f(), &text_map()),
        ),
        (
            "two maps",
            t().pax(&[V1[0], V1[1], V1[3], ("GNU.sparse.map", b"8,5")]).add(f(), &text_map()),
        ),
        ("a sparse directory", t().pax(&V1).add(Head::new(b'5', b"f"), b"")),
        ("a text map beyond the body", t().pax(&V1).add(f(), b"3\n8\n2\n")),
        ("a text map without an end", text(&[b'1'; 600])),
        ("a text map of junk", text(b"one\n")),
        ("a text map of too many", text(b"9999999999\n1\n")),
    ] {
        if let Ok(members) = read_all(&tar.end()) {
            panic!("{name}: {:?}", members[0].0);
        }
    }
}
