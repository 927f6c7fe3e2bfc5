//! One header block: its checksum, its dialect and its numbers.
//!
//! The `tar` crate gives the layout of the block; the numbers are read here, because the crate's
//! readers take an empty field for an error, cut base-256 numbers to their last eight bytes and
//! know no negative ones.
//!
//! Invariants: a [`Block`] exists only with a right checksum; a number has one reading only, that
//! of GNU tar and of Go alike.

use strata_tree::Device;
use tar::{GnuHeader, Header, OldHeader};

use super::error::HeaderFault;

/// Bytes of every tar block.
pub(super) const BLOCK: usize = 512;

type Result<T> = std::result::Result<T, HeaderFault>;

/// Which fields the block has beyond those of version 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    V7,
    Ustar,
    Gnu,
}

/// A header block whose checksum is right.
pub(super) struct Block {
    header: Header,
    dialect: Dialect,
}

impl Block {
    /// Checks the sum, over unsigned bytes or (as old tars did) signed ones, and the magic.
    pub(super) fn new(bytes: &[u8; BLOCK]) -> Result<Self> {
        let header = Header::from_byte_slice(bytes).clone();
        let stated = number(&header.as_old().cksum)
            .ok_or_else(|| HeaderFault::malformed("the header's checksum is not a number"))?;
        let (mut unsigned, mut signed) = (0_i64, 0_i64);
        for (i, byte) in bytes.iter().enumerate() {
            let byte = if (148..156).contains(&i) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        if stated != unsigned && stated != signed {
            return Err(HeaderFault::malformed(format!(
                "this is no tar header: its checksum is {unsigned:o}, it says {stated:o}"
            )));
        }
        let dialect = match &bytes[257..265] {
            b"ustar  \0" => Dialect::Gnu,
            magic if magic.starts_with(b"ustar\0") => Dialect::Ustar,
            _ => Dialect::V7,
        };
        Ok(Self { header, dialect })
    }

    fn old(&self) -> &OldHeader {
        self.header.as_old()
    }

    /// The GNU layout, whose sparse map lies where ustar has its prefix.
    pub(super) fn gnu(&self) -> Option<&GnuHeader> {
        if self.dialect == Dialect::Gnu { self.header.as_gnu() } else { None }
    }

    /// The type flag.
    pub(super) fn flag(&self) -> u8 {
        self.old().linkflag[0]
    }

    /// The name, ustar's prefix included.
    pub(super) fn name(&self) -> Result<Vec<u8>> {
        let name = text(&self.old().name);
        let bytes = self.header.as_bytes();
        let prefix = text(&bytes[345..500]);
        match self.dialect {
            // star has times in the prefix' last 24 bytes. Where the two layouts give different
            // names, readers do too.
            Dialect::Ustar if &bytes[508..512] == b"tar\0" && prefix.len() > 130 => {
                Err(HeaderFault::ambiguous("a star header with a prefix of 131 bytes"))
            }
            Dialect::Ustar if !prefix.is_empty() => Ok([prefix, b"/", name].concat()),
            // Go before 1.8 wrote prefixes into GNU headers, where they stand on atime and ctime;
            // Go still reads them, GNU tar does not.
            Dialect::Gnu if self.gnu_prefix(prefix) => {
                Err(HeaderFault::ambiguous("a GNU header with a ustar prefix"))
            }
            Dialect::V7 | Dialect::Ustar | Dialect::Gnu => Ok(name.to_vec()),
        }
    }

    fn gnu_prefix(&self, prefix: &[u8]) -> bool {
        let bytes = self.header.as_bytes();
        let (atime, ctime) = (&bytes[345..357], &bytes[357..369]);
        let bad = |field: &[u8]| field[0] != 0 && number(field).is_none();
        !prefix.is_empty() && prefix.is_ascii() && (bad(atime) || bad(ctime))
    }

    /// The target of a link.
    pub(super) fn link_name(&self) -> Vec<u8> {
        text(&self.old().linkname).to_vec()
    }

    /// The size in bytes.
    pub(super) fn size(&self) -> Result<u64> {
        let size = field("size", &self.old().size)?;
        u64::try_from(size)
            .map_err(|_| HeaderFault::malformed(format!("the size is negative: {size}")))
    }

    /// The 12 permission bits.
    pub(super) fn perm(&self) -> Result<u16> {
        Ok((field("mode", &self.old().mode)? & 0o7777) as u16)
    }

    /// The owner's number, unchecked.
    pub(super) fn uid(&self) -> Result<i64> {
        field("uid", &self.old().uid)
    }

    /// The group's number, unchecked.
    pub(super) fn gid(&self) -> Result<i64> {
        field("gid", &self.old().gid)
    }

    /// Seconds since 1970.
    pub(super) fn mtime(&self) -> Result<i64> {
        field("mtime", &self.old().mtime)
    }

    /// The device number: 12 bits and 20, as Linux has them. Version 7 has none: 0:0.
    pub(super) fn device(&self) -> Result<Device> {
        if self.dialect == Dialect::V7 {
            return Ok(Device { major: 0, minor: 0 });
        }
        let bytes = self.header.as_bytes();
        let half = |what: &str, at: usize, bits: u32| {
            let value = field(what, &bytes[at..at + 8])?;
            u32::try_from(value).ok().filter(|value| value >> bits == 0).ok_or_else(|| {
                HeaderFault::malformed(format!(
                    "the {what} number {value} is not within {bits} bits"
                ))
            })
        };
        Ok(Device { major: half("device major", 329, 12)?, minor: half("device minor", 337, 20)? })
    }
}

/// The bytes up to the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Checks an owner or group: -1 means "none" to the kernel and is no owner.
pub(super) fn owner(what: &str, id: i64) -> Result<u32> {
    u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or_else(|| {
        HeaderFault::malformed(format!("the {what} {id} is not between 0 and {}", u32::MAX - 1))
    })
}

fn field(what: &str, bytes: &[u8]) -> Result<i64> {
    number(bytes).ok_or_else(|| {
        HeaderFault::malformed(format!(
            "the {what} field is not a number: \"{}\"",
            bytes.escape_ascii()
        ))
    })
}

/// Octal digits between spaces and NULs, or base-256 (two's complement, big-endian, marked by
/// 0x80 or 0xff in front). A field without any digit is 0.
///
/// GNU tar knows base-256 only behind 0x80 and 0xff, Go stops a number at the first NUL and
/// refuses spaces inside it, GNU skips one NUL in front: what not all of them read is `None`.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    match field.first()? {
        0x80 => base256(&field[1..], 0),
        0xff => base256(&field[1..], -1),
        first => {
            let body = if *first == 0 { &field[1..] } else { field };
            let start = body.iter().take_while(|byte| **byte == b' ').count();
            let body = &body[start..];
            let digits = body.iter().take_while(|byte| matches!(byte, b'0'..=b'7')).count();
            let rest = &body[digits..];
            let blank = rest.iter().all(|byte| matches!(byte, b' ' | 0));
            if !blank && (digits == 0 || rest[0] != 0) {
                return None;
            }
            // 21 digits are 63 bits; no field is longer than 12.
            (digits <= 21)
                .then(|| body[..digits].iter().fold(0, |n, digit| n << 3 | i64::from(digit - b'0')))
        }
    }
}

fn base256(bytes: &[u8], sign: i64) -> Option<i64> {
    bytes.iter().try_fold(sign, |n, byte| {
        // Only bits that repeat the sign may be shifted out.
        (n << 8 >> 8 == n).then_some(n << 8 | i64::from(*byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_gnu_tar_and_go_both_do() {
        for (bytes, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\x00000644\0", Some(0o644)),
            (b"777777777777", Some((1 << 36) - 1)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"644\0junk", Some(0o644)),
            (b"644 junk", None),
            (b"644 \0jnk", None),
            (b"\0\x00064\0\0\0", None),
            (b"0000648\0", None),
            (b"-0000644", None),
            (b"+AAAAAAA", None),
            (b"\x80\0\0\0\0\0\x01\x02", Some(258)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\x80\x01\0\0\0\0\0\0\0\0\0\0", None),
            (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", Some(i64::MIN)),
            (b"\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff", None),
            (b"\x81\0\0\0\0\0\x01\x02", None),
            (b"\xfe\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(number(bytes), value, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn owners_fit_the_kernel() {
        assert_eq!(owner("uid", 0), Ok(0));
        assert_eq!(owner("uid", 4_294_967_294), Ok(4_294_967_294));
        assert!(owner("uid", 4_294_967_295).is_err());
        assert!(owner("uid", -1).is_err());
    }
}
