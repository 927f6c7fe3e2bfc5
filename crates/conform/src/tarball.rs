//! The tar of a layer, made of a case's lines byte by byte, so that it can also be wrong.
//!
//! A header is ustar; what it cannot hold (long names, fractions of seconds, large owners,
//! attributes) is in a PAX header before it, as GNU tar and Go write it. `form=gnu` and `form=v7`
//! give other headers, `at:N=BYTES` puts bytes into the header, `size=N` changes its size.
//!
//! Invariant: the checksum is of the header as it is written, so that no reader stops there.

use crate::text::CaseLine;

const BLOCK: usize = 512;
/// The largest number that seven octal digits hold.
const OWNER_MAX: u64 = 0o7_777_777;

/// The tar with these members, in order.
pub(crate) fn build(members: &[CaseLine]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let (mut blocks, mut tail): (u64, &[u8]) = (2, b"");
    for line in members {
        match line.word.as_str() {
            "global" => extended(&mut out, b'g', &records(line)),
            "pax" => extended(&mut out, b'x', &records(line)),
            "longname" => long(&mut out, b'L', line.arg(0)?),
            "longlink" => long(&mut out, b'K', line.arg(0)?),
            "zeros" => out.resize(out.len() + BLOCK, 0),
            "end" => {
                blocks = line.number("blocks", 10, 2)?;
                tail = line.option("tail").unwrap_or_default();
            }
            _ => member(&mut out, line)?,
        }
    }
    let blocks = usize::try_from(blocks).map_err(|_| "too many blocks".to_owned())?;
    out.resize(out.len() + blocks * BLOCK, 0);
    out.extend_from_slice(tail);
    Ok(out)
}

/// A tar of plain files: an archive of an image.
pub(crate) fn of_files<'a>(files: impl Iterator<Item = (&'a String, &'a Vec<u8>)>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, body) in files {
        let mut header = header(b'0', name.as_bytes(), body.len() as u64);
        octal(&mut header[100..108], 0o644);
        push(&mut out, header, body);
    }
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

/// The records that the line gives as `pax:KEY=VALUE`.
fn records(line: &CaseLine) -> Vec<(Vec<u8>, Vec<u8>)> {
    let own = line.options.iter().filter_map(|(key, value)| {
        key.strip_prefix("pax:").map(|key| (key.as_bytes().to_vec(), value.clone()))
    });
    own.collect()
}

/// The type, the name as it is written, the link's target and the body.
type Parts<'a> = (u8, Vec<u8>, &'a [u8], &'a [u8]);

fn parts(line: &CaseLine) -> Result<Parts<'_>, String> {
    let name = line.arg(0)?.to_vec();
    Ok(match line.word.as_str() {
        "file" => (b'0', name, b"", line.arg(1)?),
        "link" => (b'1', name, line.arg(1)?, b""),
        "symlink" => (b'2', name, line.arg(1)?, b""),
        "char" => (b'3', name, b"", b""),
        "block" => (b'4', name, b"", b""),
        "dir" if name.ends_with(b"/") => (b'5', name, b"", b""),
        "dir" => (b'5', [name.as_slice(), b"/"].concat(), b"", b""),
        "fifo" => (b'6', name, b"", b""),
        "other" => {
            let flag = line.arg(1)?.first().copied().ok_or("no type")?;
            let body = line.args.get(2).map(Vec::as_slice).unwrap_or_default();
            (flag, name, line.option("target").unwrap_or_default(), body)
        }
        word => return Err(format!("{word} is no member")),
    })
}

fn member(out: &mut Vec<u8>, line: &CaseLine) -> Result<(), String> {
    let (flag, name, link, body) = parts(line)?;
    let form = line.text("form")?.unwrap_or("ustar");
    let (seconds, nanos) = line.time()?;
    let owner = [line.number("uid", 10, 0)?, line.number("gid", 10, 0)?];
    let mut records = records(line);
    if form == "ustar" {
        if name.len() > 100 && !records.iter().any(|(key, _)| key == b"path") {
            records.push((b"path".to_vec(), name.clone()));
        }
        if link.len() > 100 {
            records.push((b"linkpath".to_vec(), link.to_vec()));
        }
        if nanos != 0 || seconds < 0 {
            records.push((b"mtime".to_vec(), line.option("mtime").unwrap_or_default().to_vec()));
        }
        for (key, value) in ["uid", "gid"].into_iter().zip(owner) {
            if value > OWNER_MAX {
                records.push((key.into(), value.to_string().into()));
            }
        }
    }
    for (name, value) in line.xattrs() {
        records.push(([b"SCHILY.xattr.", name].concat(), value.to_vec()));
    }
    if !records.is_empty() {
        extended(out, b'x', &records);
    }
    let mut header = header(flag, &name, body.len() as u64);
    let mode = if flag == b'5' {
        0o755
    } else if flag == b'2' {
        0o777
    } else {
        0o644
    };
    octal(&mut header[100..108], line.number("mode", 8, mode)?);
    for (at, value) in [108, 116].into_iter().zip(owner) {
        number(&mut header[at..at + 8], i64::try_from(value).unwrap_or(0), form == "gnu");
    }
    number(&mut header[136..148], seconds, form == "gnu");
    if line.option("size").is_some() {
        octal(&mut header[124..136], line.number("size", 10, 0)?);
    }
    let link = &link[..link.len().min(100)];
    header[157..157 + link.len()].copy_from_slice(link);
    if matches!(line.word.as_str(), "char" | "block") {
        let device = std::str::from_utf8(line.arg(1)?).unwrap_or_default();
        let (major, minor) = device.split_once(':').ok_or("a device is MAJOR:MINOR")?;
        octal(&mut header[329..337], major.parse().map_err(|_| "no major number")?);
        octal(&mut header[337..345], minor.parse().map_err(|_| "no minor number")?);
    }
    match form {
        "gnu" => header[257..265].copy_from_slice(b"ustar  \0"),
        "v7" => header[257..].fill(0),
        _ => {}
    }
    patch(&mut header, line)?;
    push(out, header, body);
    Ok(())
}

/// The bytes that the line gives as `at:OFFSET=BYTES`.
fn patch(header: &mut [u8; BLOCK], line: &CaseLine) -> Result<(), String> {
    for (key, bytes) in &line.options {
        let Some(at) = key.strip_prefix("at:") else { continue };
        let at: usize = at.parse().map_err(|_| format!("{key} is no place"))?;
        let place = header.get_mut(at..at + bytes.len()).ok_or("beyond the header")?;
        place.copy_from_slice(bytes);
    }
    Ok(())
}

fn extended(out: &mut Vec<u8>, flag: u8, records: &[(Vec<u8>, Vec<u8>)]) {
    let mut data = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        // The length counts its own digits.
        let mut length = rest + 1;
        while length.to_string().len() + rest != length {
            length += 1;
        }
        data.extend_from_slice(format!("{length} ").as_bytes());
        data.extend_from_slice(&[key, b"=".as_slice(), value, b"\n"].concat());
    }
    let mut header = header(flag, b"PaxHeaders/0", data.len() as u64);
    octal(&mut header[100..108], 0o644);
    push(out, header, &data);
}

fn long(out: &mut Vec<u8>, flag: u8, name: &[u8]) {
    let data = [name, b"\0"].concat();
    let mut header = header(flag, b"././@LongLink", data.len() as u64);
    header[257..265].copy_from_slice(b"ustar  \0");
    push(out, header, &data);
}

fn header(flag: u8, name: &[u8], size: u64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let name = &name[..name.len().min(100)];
    header[..name.len()].copy_from_slice(name);
    for at in [100, 108, 116, 329, 337] {
        octal(&mut header[at..at + 8], 0);
    }
    octal(&mut header[124..136], size);
    octal(&mut header[136..148], 0);
    header[156] = flag;
    header[257..265].copy_from_slice(b"ustar\x0000");
    header
}

/// A number in octal, or in base 256 where it does not fit and the form is GNU's. A ustar header
/// has 0 where a PAX record has the true value.
fn number(field: &mut [u8], value: i64, gnu: bool) {
    let fits = value >= 0 && value < 1 << (3 * (field.len() - 1));
    if fits || !gnu {
        octal(field, if fits { value.unsigned_abs() } else { 0 });
        return;
    }
    let bytes = value.to_be_bytes();
    field.fill(if value < 0 { 0xff } else { 0 });
    let start = field.len() - bytes.len();
    field[start..].copy_from_slice(&bytes);
    field[0] |= 0x80;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tar_reader_reads_what_is_written() {
        let lines = [
            "dir d mode=0700 mtime=5",
            "file \"\\{n*150}\" hello uid=3000000000 mtime=-1.5 user.a=b",
            "file g x form=gnu uid=3000000000 mtime=-2",
            "char c 1:3",
        ];
        let lines: Vec<_> = lines.iter().map(|line| crate::text::parse(1, line).unwrap()).collect();
        let tar = build(&lines).unwrap();
        assert_eq!(tar.len() % BLOCK, 0);
        let mut archive = tar::Archive::new(tar.as_slice());
        let names: Vec<Vec<u8>> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let path = entry.path_bytes().into_owned();
                assert!(path.len() == 2 || entry.header().uid().unwrap() < u64::MAX);
                path
            })
            .collect();
        assert_eq!(names, [b"d/".to_vec(), vec![b'n'; 150], b"g".to_vec(), b"c".to_vec()]);
    }

    #[test]
    fn the_end_can_be_left_out_and_followed() {
        let end = |text| build(&[crate::text::parse(1, text).unwrap()]).unwrap();
        assert_eq!(end("end blocks=0"), b"");
        assert_eq!(end("end tail=x").len(), 1025);
        assert!(build(&[crate::text::parse(1, "door d").unwrap()]).is_err());
        assert!(build(&[crate::text::parse(1, "file d x at:511=xx").unwrap()]).is_err());
    }
}
