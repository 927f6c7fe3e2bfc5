//! Layers: a compressed or plain tar, up to the tree that it makes.
//!
//! Invariants: what is accepted is accepted again with the same result, in any form of compression,
//! and where there is no memory to note anything; a reader of headers alone sees the same members,
//! and the tar comes back from what is kept of it.

use std::io::{Cursor, Read, Write};
use std::sync::Arc;

use strata_diff::spill::{Room, SpillSpace};
use strata_diff::tar::{DiffError, DiffReader, Member};
use strata_diff::{Limits, stream};
use strata_layer::{InspectedLayer, LayerInput, inspect};

use crate::headers::round_trip;
use crate::kit::{Nobody, in_memory};

/// Bounds that an input of some kilobytes can reach.
fn bounds() -> Limits {
    Limits { entries: 1000, layer_bytes: 4 << 20, ..Limits::default() }
}

fn read(bytes: &[u8], scratch: &Arc<SpillSpace>) -> Option<InspectedLayer> {
    let reader = Box::new(Cursor::new(bytes.to_vec()));
    let input = LayerInput { label: "fuzz".to_owned(), diff_id: None, blob: None, reader };
    inspect(input, &bounds(), scratch, &Nobody).ok()
}

/// All that is noted goes to a file.
fn no_memory() -> Arc<SpillSpace> {
    SpillSpace::new(&Room::new(0), 0, "memory", || Ok(in_memory(&[])))
}

/// The members, where bodies are read, and all bytes hashed.
fn members_of(blob: &[u8]) -> Option<Vec<Member>> {
    let input = Box::new(Cursor::new(blob.to_vec()));
    let read = |tar: &mut stream::TarStream| {
        let mut reader = DiffReader::new(tar, "fuzz".to_owned(), bounds(), Vec::new());
        let mut found = Vec::new();
        while let Some(member) = reader.next()? {
            while reader.read_body(&mut [0; 512])? > 0 {}
            found.push(member);
        }
        Ok::<_, DiffError>(found)
    };
    stream::decompress(input, "fuzz", &bounds(), &|_| {}, read).ok().map(|(found, _)| found)
}

/// The members, where bodies are passed over.
fn members_alone(blob: &[u8]) -> Option<Vec<Member>> {
    let input = Box::new(stream::ReadThrough(Cursor::new(blob.to_vec())));
    let skim = |tar: &mut stream::SkimStream<'_>| {
        let mut reader = DiffReader::new(tar, "fuzz".to_owned(), bounds(), Vec::new());
        let mut found = Vec::new();
        while let Some(member) = reader.next()? {
            reader.skip_body()?;
            found.push(member);
        }
        Ok::<_, DiffError>(found)
    };
    stream::skim(input, "fuzz", &bounds(), &|_| {}, skim).ok().map(|(found, _)| found)
}

/// Any bytes as a layer.
pub(crate) fn layer(data: &[u8]) {
    assert_eq!(members_alone(data), members_of(data), "read and skimmed");
    if let Some(found) = read(data, &SpillSpace::unbounded()) {
        assert_eq!(read(data, &no_memory()), Some(found), "read twice");
    }
}

/// The body of a deflate stream, with a right head; what is behind it as it comes.
pub(crate) fn gzip(data: &[u8]) {
    let mut stream = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    stream.extend_from_slice(data);
    layer(&stream);
}

/// Names that meet the rules for layers: whiteouts, ways out, links to each other.
const NAMES: [&str; 16] = [
    "a",
    "b",
    "a/b",
    "a/b/c",
    "./a",
    "/a",
    "../a",
    "a/../b",
    ".wh.a",
    "a/.wh.b",
    "a/.wh..wh..opq",
    ".wh..wh.plnk/1",
    ".wh.",
    "a//b/",
    "",
    ".",
];

/// The tar that an input of the target `layer` or `members` means; `None` if it is none that can
/// be had.
pub fn tar_in(target: &str, data: &[u8]) -> Option<Vec<u8>> {
    if target == "members" {
        return Some(tar_of_members(data));
    }
    let input = Box::new(Cursor::new(data.to_vec()));
    let read = |tar: &mut stream::TarStream| {
        let mut bytes = Vec::new();
        tar.read_to_end(&mut bytes)
            .map(|_| bytes)
            .map_err(|error| strata_layer::Error::io("cannot read", error))
    };
    stream::decompress(input, "fuzz", &bounds(), &|_| {}, read).ok().map(|(tar, _)| tar)
}

/// Members with right checksums out of few names, so that they meet: four bytes say which.
fn tar_of_members(data: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    for one in data.chunks_exact(4) {
        let (kind, name, link, size) = (one[0], one[1], one[2], usize::from(one[3]));
        let kind = b"0125346xgLKS7"[usize::from(kind) % 13];
        let name = NAMES[usize::from(name) % NAMES.len()];
        let link = NAMES[usize::from(link) % NAMES.len()];
        let (name, body) = match kind {
            b'x' | b'g' => (name, record(link, name)),
            b'L' | b'K' => ("././@LongLink", [link.as_bytes(), b"\0"].concat()),
            b'0' | b'7' => (name, vec![b'x'; size]),
            _ => (name, Vec::new()),
        };
        header(&mut tar, (kind, name, link), body.len());
        tar.extend_from_slice(&body);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// Such members, plain and packed.
pub(crate) fn members(data: &[u8]) {
    let tar = tar_of_members(data);
    let plain = read(&tar, &SpillSpace::unbounded());
    let found = plain.as_ref().map(|found| (found.entries, found.apparent));
    let mut stored = gzip_stored(&tar);
    let packed = read(&stored, &no_memory());
    assert_eq!(packed.map(|found| (found.entries, found.apparent)), found, "plain and packed");
    assert_eq!(members_alone(&stored), members_of(&tar), "read and skimmed");
    round_trip(&tar, bounds());
    // An end that is missing is never taken for an end.
    stored.truncate(stored.len() - 9);
    assert_eq!(read(&stored, &SpillSpace::unbounded()), None, "cut off");
}

/// A pax record of a path or a link's target, or of an attribute.
fn record(value: &str, name: &str) -> Vec<u8> {
    let key = match name.len() % 4 {
        0 => "path",
        1 => "linkpath",
        2 => "SCHILY.xattr.user.fuzz",
        _ => "size",
    };
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    format!("{length}{rest}").into_bytes()
}

fn header(tar: &mut Vec<u8>, (kind, name, link): (u8, &str, &str), size: usize) {
    let at = tar.len();
    tar.resize(at + 512, 0);
    let block = &mut tar[at..];
    let mut put = |offset: usize, text: &[u8]| {
        block[offset..offset + text.len()].copy_from_slice(text);
    };
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A gzip member whose blocks are stored.
fn gzip_stored(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    let mut blocks = bytes.chunks(0xffff).peekable();
    while let Some(block) = blocks.next() {
        let length = block.len() as u16;
        out.push(u8::from(blocks.peek().is_none()));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        // Writing to memory.
        let _ = out.write(block);
    }
    out.extend_from_slice(&crc32(bytes).to_le_bytes());
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out
}

/// The checksum of RFC 1952, section 8.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
        })
    })
}
