//! PAX extended headers: records of `LENGTH KEY=VALUE\n`, values being any bytes.
//!
//! The records are cut by their lengths (the `tar` crate cuts at newlines, which binary xattrs
//! hold). Read are path, linkpath, size, uid, gid, mtime, `SCHILY.xattr.*` and `GNU.sparse.*`;
//! everything else is left to `headers.zst`: names of owners, atime and ctime, comments, and the
//! forms of xattrs and ACLs that neither GNU tar by default nor Go restores (`LIBARCHIVE.xattr.*`,
//! which bsdtar writes besides SCHILY's; `SCHILY.acl.*`; `RHT.security.selinux`).
//!
//! Invariants: within one header the last record of a key counts; an empty value is an error
//! where GNU tar and Go disagree on it, and an empty xattr else.

use std::collections::BTreeMap;

use strata_tree::Timestamp;

use super::error::HeaderFault;
use super::header::owner;
use crate::limits::Limits;

type Result<T> = std::result::Result<T, HeaderFault>;

/// The records of `GNU.sparse.*`, unchecked.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct SparseRecords {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) real_size: Option<u64>,
    pub(super) blocks: Option<u64>,
    /// Version 0.1: `offset,length,...`.
    pub(super) map: Option<Vec<u64>>,
    /// Version 0.0: the same, one record a number.
    pub(super) pairs: Vec<u64>,
}

/// What extended headers say of a member.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link_path: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) sparse: Option<SparseRecords>,
}

impl Records {
    /// Parses the data of one `x` or `g` header.
    pub(super) fn parse(mut data: &[u8], limits: &Limits) -> Result<Self> {
        let mut records = Self::default();
        while !data.is_empty() {
            let (key, value, rest) = split_record(data)
                .ok_or_else(|| HeaderFault::malformed("a PAX record is malformed"))?;
            records.take(key, value)?;
            data = rest;
        }
        check_xattrs(&records.xattrs, limits)?;
        Ok(records)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match key {
            b"path" => self.path = Some(name(key, value)?),
            b"linkpath" => self.link_path = Some(name(key, value)?),
            b"size" => self.size = Some(decimal(key, value)?),
            b"uid" => self.uid = Some(owner("uid", decimal(key, value)?.cast_signed())?),
            b"gid" => self.gid = Some(owner("gid", decimal(key, value)?.cast_signed())?),
            b"mtime" => {
                self.mtime = Some(time(value).ok_or_else(|| bad(key, value))?);
            }
            _ => {
                if let Some(xattr) = key.strip_prefix(b"SCHILY.xattr.") {
                    if xattr.is_empty() {
                        return Err(HeaderFault::malformed("an xattr has no name"));
                    }
                    self.xattrs.insert(xattr.to_vec(), value.to_vec());
                } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.get_or_insert_default().take(key, value)?;
                }
            }
        }
        Ok(())
    }

    /// Merges a `g` header into those before it: POSIX applies it to all members that follow.
    ///
    /// Owners, times and xattrs only: Go applies no global record at all, so a global path, size
    /// or sparse map would give two different trees.
    ///
    /// Bounded as those of one member are: there may be no member for long.
    pub(super) fn merge_global(&mut self, newer: Self, limits: &Limits) -> Result<()> {
        if newer.path.is_some()
            || newer.link_path.is_some()
            || newer.size.is_some()
            || newer.sparse.is_some()
        {
            return Err(HeaderFault::ambiguous(
                "a global header with a path, a size or a sparse map",
            ));
        }
        self.uid = newer.uid.or(self.uid);
        self.gid = newer.gid.or(self.gid);
        self.mtime = newer.mtime.or(self.mtime);
        self.xattrs.extend(newer.xattrs);
        check_xattrs(&self.xattrs, limits)
    }

    /// The xattrs of a member, with the global ones that it does not override.
    pub(super) fn xattrs_over(
        self,
        globals: &Self,
        limits: &Limits,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut all = self.xattrs;
        if !globals.xattrs.is_empty() {
            for (name, value) in &globals.xattrs {
                all.entry(name.clone()).or_insert_with(|| value.clone());
            }
            check_xattrs(&all, limits)?;
        }
        Ok(all.into_iter().collect())
    }
}

impl SparseRecords {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match key {
            b"major" => self.major = Some(decimal(key, value)?),
            b"minor" => self.minor = Some(decimal(key, value)?),
            b"name" => self.name = Some(name(key, value)?),
            b"size" => self.size = Some(decimal(key, value)?),
            b"realsize" => self.real_size = Some(decimal(key, value)?),
            b"numblocks" => self.blocks = Some(decimal(key, value)?),
            b"map" => {
                let numbers = value.split(|byte| *byte == b',');
                let map = if value.is_empty() {
                    Vec::new()
                } else {
                    numbers.map(|number| decimal(key, number)).collect::<Result<_>>()?
                };
                self.map = Some(map);
            }
            b"offset" | b"numbytes" => {
                if self.pairs.len().is_multiple_of(2) != (key == b"offset") {
                    return Err(HeaderFault::malformed(
                        "the sparse map's records are out of order",
                    ));
                }
                self.pairs.push(decimal(key, value)?);
            }
            _ => {
                let key = key.escape_ascii();
                return Err(HeaderFault::Unsupported(format!("the PAX record GNU.sparse.{key}")));
            }
        }
        Ok(())
    }
}

fn check_xattrs(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>, limits: &Limits) -> Result<()> {
    let bytes: u64 = xattrs.iter().map(|(name, value)| (name.len() + value.len()) as u64).sum();
    if bytes > limits.xattr_bytes {
        return Err(HeaderFault::Limit {
            bound: "bytes of extended attributes of one member",
            option: "--max-xattr-bytes",
            limit: limits.xattr_bytes,
        });
    }
    Ok(())
}

/// Cuts one record off: its key, its value and what follows it.
fn split_record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = data.iter().take(20).position(|byte| *byte == b' ')?;
    let len = usize::try_from(digits(&data[..space])?).ok()?;
    if len > data.len() || len < space + 3 {
        return None;
    }
    let (record, rest) = data.split_at(len);
    let body = record[space + 1..].strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&body[..equals], &body[equals + 1..]);
    (!key.is_empty() && !key.contains(&0)).then_some((key, value, rest))
}

fn bad(key: &[u8], value: &[u8]) -> HeaderFault {
    let value = &value[..value.len().min(40)];
    let (key, value) = (key.escape_ascii(), value.escape_ascii());
    HeaderFault::malformed(format!("the PAX record {key} has a bad value: \"{value}\""))
}

fn name(key: &[u8], value: &[u8]) -> Result<Vec<u8>> {
    if value.is_empty() || value.contains(&0) { Err(bad(key, value)) } else { Ok(value.to_vec()) }
}

fn decimal(key: &[u8], value: &[u8]) -> Result<u64> {
    digits(value).ok_or_else(|| bad(key, value))
}

/// Decimal digits alone, within 63 bits.
pub(super) fn digits(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    let number = value.iter().try_fold(0_u64, |n, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        n.checked_mul(10)?.checked_add(digit)
    })?;
    (number <= i64::MAX.cast_unsigned()).then_some(number)
}

/// `[-]SECONDS[.FRACTION]`; digits beyond nanoseconds are cut off, as Go does.
fn time(value: &[u8]) -> Option<Timestamp> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let dot = value.iter().position(|byte| *byte == b'.').unwrap_or(value.len());
    let seconds = digits(&value[..dot])?.cast_signed();
    let fraction = value.get(dot + 1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanos =
        (0..9).fold(0, |n, i| n * 10 + fraction.get(i).map_or(0, |digit| u32::from(digit - b'0')));
    Some(match (negative, nanos) {
        (false, nanos) => Timestamp { seconds, nanos },
        (true, 0) => Timestamp { seconds: -seconds, nanos: 0 },
        (true, nanos) => Timestamp { seconds: -seconds - 1, nanos: 1_000_000_000 - nanos },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(data: &[u8]) -> Result<Records> {
        Records::parse(data, &Limits::default())
    }

    #[test]
    fn records_are_cut_by_length_not_by_newline() {
        let records = parse(b"30 SCHILY.xattr.user.a=\n=\0 7\n\n12 path=a\nb\n").unwrap();
        assert_eq!(records.xattrs[&b"user.a"[..]], b"\n=\0 7\n");
        assert_eq!(records.path.unwrap(), b"a\nb");
    }

    #[test]
    fn malformed_records_are_refused() {
        for data in [
            &b"8 path=a\n"[..],
            b"11 path=a\n",
            b"99 path=a\n",
            b"path=a\n",
            b"9 path=a",
            b"9 path.a\n",
            b"3 \n",
            b"5 =a\n",
            b"-9 path=a\n",
            b"+9 path=a\n",
            b"99999999999999999999 a=b\n",
            b"9 path=a\n\0\0",
            b"8 path=\n",
            b"11 path=a\0\n",
            b"11 size=-1\n",
            b"11 size=+1\n",
            b"7 uid=\n",
            b"18 uid=4294967295\n",
            b"29 size=18446744073709551615\n",
            b"16 SCHILY.xattr.\n",
            b"18 SCHILY.xattr.=\n",
            b"25 GNU.sparse.numbytes=1\n",
            b"20 GNU.sparse.x=abc\n",
        ] {
            assert!(parse(data).is_err(), "{}", data.escape_ascii());
        }
    }

    #[test]
    fn times_are_exact() {
        for (text, seconds, nanos) in [
            ("0", 0, 0),
            ("1.", 1, 0),
            ("1.5", 1, 500_000_000),
            ("1.000000001", 1, 1),
            ("1.0000000019", 1, 1),
            ("-1", -1, 0),
            ("-1.5", -2, 500_000_000),
            ("-0.000000001", -1, 999_999_999),
            ("-0", 0, 0),
            ("253402300800.25", 253_402_300_800, 250_000_000),
        ] {
            assert_eq!(time(text.as_bytes()), Some(Timestamp { seconds, nanos }), "{text}");
        }
        for text in ["", "-", ".5", "-.5", "+1", "1.-5", "1,5", "1e3", "99999999999999999999"] {
            assert_eq!(time(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn xattrs_are_bounded() {
        let limits = Limits { xattr_bytes: 9, ..Limits::default() };
        assert!(Records::parse(b"28 SCHILY.xattr.user.a=1234\n", &limits).is_err());
        assert!(Records::parse(b"27 SCHILY.xattr.user.a=123\n", &limits).is_ok());
    }
}
