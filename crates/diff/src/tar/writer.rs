//! One member as tar blocks: a ustar header, and a PAX header before it for what ustar cannot
//! hold.
//!
//! Invariants: the same member gives the same bytes; every value stands in PAX or, exactly, in
//! the ustar field, so that GNU tar, Go, libarchive and Python read the same; the fields of
//! values that PAX holds are 0 or cut, never wrong numbers that fit.

use std::io::{self, Write};

use strata_tree::{Device, Timestamp};

use super::header::BLOCK;
use super::member::{Member, MemberKind};

/// Why a member cannot be written, in words that follow "it was left out:".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unwritable {
    /// A device number beyond ustar's seven octal digits.
    Device,
}

/// Writes the headers of `member` (`offset`, `stored` and `sparse` do not count; its body of
/// `size` bytes must follow). Xattrs whose names hold `=` cannot be written: they are returned.
pub(crate) fn write_headers(
    member: &Member,
    out: &mut dyn Write,
) -> io::Result<Result<Vec<Vec<u8>>, Unwritable>> {
    let mut pax = Pax::default();
    let mut block = [0; BLOCK];
    pax.text(&mut block[..100], b"path", &member.path);
    let (flag, target, device) = match &member.kind {
        MemberKind::Regular => (b'0', None, None),
        MemberKind::HardLink { target } => (b'1', Some(target), None),
        MemberKind::Symlink { target } => (b'2', Some(target), None),
        MemberKind::CharDevice(device) => (b'3', None, Some(*device)),
        MemberKind::BlockDevice(device) => (b'4', None, Some(*device)),
        MemberKind::Directory => (b'5', None, None),
        MemberKind::Fifo => (b'6', None, None),
    };
    if let Some(target) = target {
        pax.text(&mut block[157..257], b"linkpath", target);
    }
    octal(&mut block[100..108], u64::from(member.perm));
    pax.number(&mut block[108..116], b"uid", u64::from(member.uid));
    pax.number(&mut block[116..124], b"gid", u64::from(member.gid));
    pax.number(&mut block[124..136], b"size", member.size);
    pax.time(&mut block[136..148], member.mtime);
    block[156] = flag;
    block[257..265].copy_from_slice(b"ustar\x0000");
    let Device { major, minor } = device.unwrap_or(Device { major: 0, minor: 0 });
    if major.max(minor) > 0o777_7777 {
        return Ok(Err(Unwritable::Device));
    }
    octal(&mut block[329..337], u64::from(major));
    octal(&mut block[337..345], u64::from(minor));
    let mut left_out = Vec::new();
    for (name, value) in &member.xattrs {
        if name.contains(&b'=') {
            left_out.push(name.clone());
        } else {
            pax.record(&[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
    }
    pax.write(out)?;
    seal(&mut block);
    out.write_all(&block)?;
    Ok(Ok(left_out))
}

/// Writes the padding after a body of `size` bytes.
pub(crate) fn write_padding(size: u64, out: &mut dyn Write) -> io::Result<()> {
    let padding = (size.wrapping_neg() % BLOCK as u64) as usize;
    out.write_all(&[0; BLOCK][..padding])
}

/// Writes the end of the archive.
pub(crate) fn write_end(out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK])
}

/// The records of a PAX header to be.
#[derive(Default)]
struct Pax {
    records: Vec<u8>,
    binary: bool,
}

impl Pax {
    fn record(&mut self, key: &[u8], value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        // The length counts its own digits.
        let mut len = rest + 1;
        while rest + digits(len) != len {
            len = rest + digits(len);
        }
        self.records.extend_from_slice(format!("{len} ").as_bytes());
        self.records.extend_from_slice(key);
        self.records.push(b'=');
        self.records.extend_from_slice(value);
        self.records.push(b'\n');
    }

    fn text(&mut self, field: &mut [u8], key: &[u8], value: &[u8]) {
        let fits = value.len().min(field.len());
        field[..fits].copy_from_slice(&value[..fits]);
        if fits < value.len() {
            self.record(key, value);
            self.binary |= std::str::from_utf8(value).is_err();
        }
    }

    fn number(&mut self, field: &mut [u8], key: &[u8], value: u64) {
        let most = (1 << (3 * (field.len() - 1))) - 1;
        if value <= most {
            octal(field, value);
        } else {
            octal(field, 0);
            self.record(key, value.to_string().as_bytes());
        }
    }

    fn time(&mut self, field: &mut [u8], time: Timestamp) {
        let Timestamp { seconds, nanos } = time;
        match u64::try_from(seconds) {
            Ok(seconds) if seconds < 1 << 33 => octal(field, seconds),
            Ok(_) | Err(_) => octal(field, 0),
        }
        if nanos != 0 || !(0..1 << 33).contains(&seconds) {
            self.record(b"mtime", decimal(time).as_bytes());
        }
    }

    fn write(mut self, out: &mut dyn Write) -> io::Result<()> {
        if self.records.is_empty() {
            return Ok(());
        }
        if self.binary {
            // POSIX: else names are UTF-8, and strict readers refuse or recode others.
            let names = std::mem::take(&mut self.records);
            self.record(b"hdrcharset", b"BINARY");
            self.records.extend_from_slice(&names);
        }
        let size = self.records.len() as u64;
        let mut block = [0; BLOCK];
        block[..12].copy_from_slice(b"PaxHeaders/x");
        octal(&mut block[100..108], 0o644);
        for at in [108, 116, 329, 337] {
            octal(&mut block[at..at + 8], 0);
        }
        octal(&mut block[124..136], size);
        octal(&mut block[136..148], 0);
        block[156] = b'x';
        block[257..265].copy_from_slice(b"ustar\x0000");
        seal(&mut block);
        out.write_all(&block)?;
        out.write_all(&self.records)?;
        write_padding(size, out)
    }
}

fn digits(mut n: usize) -> usize {
    let mut digits = 1;
    while n >= 10 {
        n /= 10;
        digits += 1;
    }
    digits
}

/// Leading zeros and a NUL, as all readers want it.
fn octal(field: &mut [u8], mut value: u64) {
    let last = field.len() - 1;
    field[last] = 0;
    for digit in field[..last].iter_mut().rev() {
        *digit = b'0' + (value & 7) as u8;
        value >>= 3;
    }
}

fn decimal(time: Timestamp) -> String {
    let Timestamp { seconds, nanos } = time;
    let (sign, whole, nanos) = match (seconds < 0, nanos) {
        (true, 0) => ("-", seconds.unsigned_abs(), 0),
        (true, nanos) => ("-", seconds.unsigned_abs() - 1, 1_000_000_000 - nanos),
        (false, nanos) => ("", seconds.unsigned_abs(), nanos),
    };
    if nanos == 0 {
        return format!("{sign}{whole}");
    }
    format!("{sign}{whole}.{nanos:09}").trim_end_matches('0').to_owned()
}

fn seal(block: &mut [u8; BLOCK]) {
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    octal(&mut block[148..155], sum);
}
