//! Lists what the reader of tars finds in files, for `scripts/differential`.
//!
//! The model: each file gives a line for each member, in the order of the archive, and one for its
//! end:
//!
//! ```text
//! member  KIND PERM UID GID SECONDS.NANOSECONDS SIZE DEVICE NAME LINK DIGEST    names in hex
//! end     FILE ok|error MESSAGE
//! ```

#![allow(clippy::expect_used)]

use std::fs::File;
use std::io::{BufReader, Write};

use strata_diff::Limits;
use strata_diff::sha256::Sha256;
use strata_diff::tar::{DiffReader, Member, MemberKind, RawSink};

struct Nowhere;

impl RawSink for Nowhere {
    fn raw(&mut self, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }
}

fn main() {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for path in std::env::args().skip(1) {
        let end = match list(&path, &mut out) {
            Ok(()) => "ok".to_owned(),
            Err(error) => format!("error {error}"),
        };
        writeln!(out, "end {path} {end}").expect("written");
    }
}

fn list(path: &str, out: &mut dyn Write) -> Result<(), Box<dyn std::error::Error>> {
    let input = BufReader::new(File::open(path)?);
    let mut reader = DiffReader::new(input, path.to_owned(), Limits::default(), Nowhere);
    while let Some(member) = reader.next()? {
        let digest = digest(&mut reader, &member)?;
        let (kind, device, link) = match &member.kind {
            MemberKind::Regular => ("file", None, &[][..]),
            MemberKind::HardLink { target } => ("link", None, &target[..]),
            MemberKind::Symlink { target } => ("symlink", None, &target[..]),
            MemberKind::Directory => ("dir", None, &[][..]),
            MemberKind::CharDevice(device) => ("char", Some(device), &[][..]),
            MemberKind::BlockDevice(device) => ("block", Some(device), &[][..]),
            MemberKind::Fifo => ("fifo", None, &[][..]),
        };
        let device = device.map_or("-".to_owned(), |at| format!("{},{}", at.major, at.minor));
        let Member { perm, uid, gid, mtime, size, path, .. } = &member;
        let (name, link) = (hex(path), hex(link));
        let time = format!("{}.{:09}", mtime.seconds, mtime.nanos);
        writeln!(
            out,
            "member {kind} {perm:o} {uid} {gid} {time} {size} {device} {name} {link} {digest}"
        )?;
    }
    Ok(())
}

/// The sha256 of the file, with its holes.
fn digest(
    reader: &mut DiffReader<BufReader<File>, Nowhere>,
    member: &Member,
) -> Result<String, Box<dyn std::error::Error>> {
    let (mut hash, mut done, mut part) = (Sha256::new(), 0, vec![0; 1 << 16]);
    let whole = [(0, member.size)];
    for (at, len) in member.sparse.as_deref().unwrap_or(&whole) {
        hash.update_zeros(at - done);
        let mut left = *len;
        while left > 0 {
            let wanted = part.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match reader.read_body(&mut part[..wanted])? {
                0 => return Err("the body ends early".into()),
                read => {
                    hash.update(&part[..read]);
                    left -= read as u64;
                }
            }
        }
        done = at + len;
    }
    hash.update_zeros(member.size - done);
    Ok(hex(&hash.finish()))
}

fn hex(bytes: &[u8]) -> String {
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    if text.is_empty() { "-".to_owned() } else { text }
}
