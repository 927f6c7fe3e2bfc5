//! Tars made of an example's lines, byte by byte, so that they can also be wrong.
//!
//! Invariant: a header is ustar with what it cannot hold (long names, fractions of seconds,
//! large owners, attributes) in a PAX header before it, as GNU tar and Go write it.

use crate::example::{Item, time};

const BLOCK: usize = 512;
/// The largest owner that seven octal digits hold.
const OWNER_MAX: u32 = 0o7_777_777;

/// The tar with these members, in order.
pub fn build(members: &[Item]) -> Vec<u8> {
    let mut out = Vec::new();
    for item in members {
        match item.word.as_str() {
            "global" => extended(&mut out, b'g', &own_records(item)),
            "longname" => raw(&mut out, b'L', b"././@LongLink", &[item.arg(0), b"\0"].concat()),
            "zeros" => out.resize(out.len() + BLOCK, 0),
            _ => member(&mut out, item),
        }
    }
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

/// The records that the line gives as `pax:KEY=VALUE`.
fn own_records(item: &Item) -> Vec<(Vec<u8>, Vec<u8>)> {
    let own = item.options.iter().filter_map(|(key, value)| {
        key.strip_prefix("pax:").map(|key| (key.as_bytes().to_vec(), value.clone()))
    });
    own.collect()
}

fn member(out: &mut Vec<u8>, item: &Item) {
    let (flag, link, body): (u8, &[u8], &[u8]) = match item.word.as_str() {
        "file" => (b'0', b"", item.arg(1)),
        "link" => (b'1', item.arg(1), b""),
        "symlink" => (b'2', item.arg(1), b""),
        "char" => (b'3', b"", b""),
        "block" => (b'4', b"", b""),
        "dir" => (b'5', b"", b""),
        "fifo" => (b'6', b"", b""),
        "other" => (item.arg(1)[0], b"", b""),
        word => panic!("{word} is no member"),
    };
    let path = item.arg(0);
    let mut records = own_records(item);
    if path.len() > 100 {
        records.push((b"path".to_vec(), path.to_vec()));
    }
    if link.len() > 100 {
        records.push((b"linkpath".to_vec(), link.to_vec()));
    }
    let mtime = item.option("mtime").unwrap_or(b"0");
    let (seconds, nanos) = time(std::str::from_utf8(mtime).unwrap());
    if nanos != 0 || seconds < 0 {
        records.push((b"mtime".to_vec(), mtime.to_vec()));
    }
    for key in ["uid", "gid"] {
        if item.number(key, 10, 0) > OWNER_MAX {
            records.push((key.into(), item.number(key, 10, 0).to_string().into()));
        }
    }
    for (name, value) in item.xattrs() {
        records.push(([b"SCHILY.xattr.", name].concat(), value.to_vec()));
    }
    if !records.is_empty() {
        extended(out, b'x', &records);
    }
    let mut header = header(flag, path, body.len() as u64);
    octal(&mut header[100..108], u64::from(item.mode()));
    octal(&mut header[108..116], owner("uid", item));
    octal(&mut header[116..124], owner("gid", item));
    octal(&mut header[136..148], u64::try_from(seconds).unwrap_or(0));
    if let Some(size) = item.option("size") {
        octal(&mut header[124..136], std::str::from_utf8(size).unwrap().parse().unwrap());
    }
    let link = &link[..link.len().min(100)];
    header[157..157 + link.len()].copy_from_slice(link);
    if matches!(item.word.as_str(), "char" | "block") {
        let device = std::str::from_utf8(item.arg(1)).unwrap();
        let (major, minor) = device.split_once(':').unwrap();
        octal(&mut header[329..337], major.parse().unwrap());
        octal(&mut header[337..345], minor.parse().unwrap());
    }
    push(out, header, body);
}

fn extended(out: &mut Vec<u8>, flag: u8, records: &[(Vec<u8>, Vec<u8>)]) {
    let mut data = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        // The length counts its own digits.
        let length = (rest + 1..).find(|n| n.to_string().len() + rest == *n).unwrap();
        data.extend_from_slice(format!("{length} ").as_bytes());
        data.extend_from_slice(&[key, b"=".as_slice(), value, b"\n"].concat());
    }
    raw(out, flag, b"././@PaxHeader", &data);
}

fn raw(out: &mut Vec<u8>, flag: u8, name: &[u8], data: &[u8]) {
    push(out, header(flag, name, data.len() as u64), data);
}

fn header(flag: u8, name: &[u8], size: u64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let name = &name[..name.len().min(100)];
    header[..name.len()].copy_from_slice(name);
    octal(&mut header[124..136], size);
    header[156] = flag;
    header[257..265].copy_from_slice(b"ustar\x0000");
    header
}

/// The header's value: 0 where a PAX record has the true one.
fn owner(key: &str, item: &Item) -> u64 {
    let value = item.number(key, 10, 0);
    if value > OWNER_MAX { 0 } else { u64::from(value) }
}

fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    field[..digits].copy_from_slice(format!("{value:0digits$o}").as_bytes());
}

fn push(out: &mut Vec<u8>, mut header: [u8; BLOCK], body: &[u8]) {
    header[148..156].fill(b' ');
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    octal(&mut header[148..155], sum);
    out.extend_from_slice(&header);
    out.extend_from_slice(body);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}
