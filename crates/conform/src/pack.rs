//! The compressed forms of a layer, written block by block.
//!
//! Bytes are stored, not squeezed: what is tested is how an unpacker walks through members and
//! frames. A compressor's next version would give other bytes, and the case another digest.
//!
//! Invariants: the same bytes in every version of this crate; every form but `garbage` is valid
//! (RFC 1952, RFC 8878).

/// The forms, as a case names them, each with the media type that goes with it.
const FORMS: [(&str, &str); 9] = [
    ("plain", "tar"),
    ("gzip", "gzip"),
    ("gzip-members", "gzip"),
    ("gzip-fields", "gzip"),
    ("gzip-zeros", "gzip"),
    ("gzip-garbage", "gzip"),
    ("zstd", "zstd"),
    ("zstd-frames", "zstd"),
    ("zstd-skippable", "zstd"),
];

/// The media type that goes with a form.
pub(crate) fn media_of(form: &str) -> Result<&'static str, String> {
    let found = FORMS.iter().find(|(name, _)| *name == form);
    found.map(|(_, media)| *media).ok_or_else(|| format!("{form} is no form of compression"))
}

/// The media type that a case calls `name`.
pub(crate) fn media_type(name: &str) -> Result<&'static str, String> {
    Ok(match name {
        "tar" => "application/vnd.oci.image.layer.v1.tar",
        "gzip" => "application/vnd.oci.image.layer.v1.tar+gzip",
        "zstd" => "application/vnd.oci.image.layer.v1.tar+zstd",
        "nondistributable" => "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "docker" => "application/vnd.docker.image.rootfs.diff.tar.gzip",
        _ => return Err(format!("{name} is no media type")),
    })
}

/// A tar in one of the forms.
pub(crate) fn pack(form: &str, tar: &[u8]) -> Result<Vec<u8>, String> {
    let (first, rest) = tar.split_at(tar.len().min(512));
    Ok(match form {
        "plain" => tar.to_vec(),
        "gzip" => gzip(tar, false),
        "gzip-members" => [gzip(first, false), gzip(b"", false), gzip(rest, false)].concat(),
        "gzip-fields" => gzip(tar, true),
        "gzip-zeros" => [gzip(tar, false), vec![0; 512]].concat(),
        "gzip-garbage" => [gzip(tar, false), b"no gzip member".to_vec()].concat(),
        "zstd" => zstd(tar),
        "zstd-frames" => [zstd(first), zstd(b""), zstd(rest)].concat(),
        "zstd-skippable" => [skippable(b"before"), zstd(tar), skippable(b"after")].concat(),
        _ => return Err(format!("{form} is no form of compression")),
    })
}

fn gzip(bytes: &[u8], fields: bool) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, if fields { 4 | 8 | 16 } else { 0 }, 0, 0, 0, 0, 0, 255];
    if fields {
        out.extend_from_slice(b"\x06\0XX\x02\0hiname.tar\0a comment\0");
    }
    let mut chunks = bytes.chunks(0xffff).peekable();
    if chunks.peek().is_none() {
        out.extend_from_slice(&[1, 0, 0, 0xff, 0xff]);
    }
    while let Some(chunk) = chunks.next() {
        let length = u16::try_from(chunk.len()).unwrap_or(u16::MAX);
        out.push(u8::from(chunks.peek().is_none()));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(chunk);
    }
    out.extend_from_slice(&crc32fast::hash(bytes).to_le_bytes());
    out.extend_from_slice(&length_of(bytes).to_le_bytes());
    out
}

/// The length as the formats keep it: of cases, which are small.
fn length_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    // One segment, with the content's size in four bytes.
    let mut out = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0];
    out.extend_from_slice(&length_of(bytes).to_le_bytes());
    let mut chunks = bytes.chunks(0x2_0000).peekable();
    if chunks.peek().is_none() {
        out.extend_from_slice(&[1, 0, 0]);
    }
    while let Some(chunk) = chunks.next() {
        let header = u32::from(chunks.peek().is_none()) | length_of(chunk) << 3;
        out.extend_from_slice(&header.to_le_bytes()[..3]);
        out.extend_from_slice(chunk);
    }
    out
}

fn skippable(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x50, 0x2a, 0x4d, 0x18];
    out.extend_from_slice(&length_of(bytes).to_le_bytes());
    out.extend_from_slice(bytes);
    out
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn every_form_gives_the_tar_back() {
        let tars = [Vec::new(), vec![7; 512], (0..200_000u32).map(|n| n as u8).collect::<Vec<_>>()];
        for tar in &tars {
            for (form, media) in FORMS {
                let packed = pack(form, tar).unwrap();
                let mut back = Vec::new();
                match media {
                    "tar" => back = packed,
                    "zstd" => back = zstd::decode_all(packed.as_slice()).unwrap(),
                    _ => {
                        let read = flate2::read::MultiGzDecoder::new(packed.as_slice())
                            .read_to_end(&mut back);
                        let broken = ["gzip-garbage", "gzip-zeros"].contains(&form);
                        assert!(read.is_ok() || broken, "{form}");
                    }
                }
                assert_eq!(&back, tar, "{form}");
            }
        }
        assert!(pack("lzma", b"").is_err() && media_of("lzma").is_err());
    }
}
