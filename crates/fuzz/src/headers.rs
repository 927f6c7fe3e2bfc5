//! `headers.zst`, the diff without its bodies: what a damaged store has, and what a tar becomes.
//!
//! Invariant: the two readers of the file give the same bytes, and fail on the same files; a file
//! that was made of a tar gives that tar.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use strata_diff::Limits;
use strata_diff::headers::{
    BodySink, DiffAtOffsets, DiffStream, Keeper, StoredBody, StreamWriter, verify,
};
use strata_diff::tar::DiffReader;
use strata_tree::TreePath;

use crate::kit::in_memory;

/// Paths of files that bodies are in, and what is no path of a layer.
const PATHS: [&str; 8] = ["a", "b/c", "a", "", "../a", "/b", "a\0b", "d/"];
/// Bytes of each of those files.
const FILE: u64 = 300;
/// Bodies of one file.
const BODIES: usize = 200;

/// Any bytes as a file of headers, and as what is packed in one: the bodies and the stream.
#[allow(clippy::unwrap_used)]
pub(crate) fn headers(data: &[u8]) {
    let raw = in_memory(data);
    // Refused or not, it returns.
    let _ = verify(&raw);
    let _ = DiffStream::new(&raw, &open_any);
    let Some(file) = packed(data) else { return };
    verify(&file).unwrap();
    compare(&file, Box::new(open_any));
}

#[allow(clippy::unnecessary_wraps)]
fn open_any(path: &TreePath) -> io::Result<File> {
    let begin = path.as_bytes().len();
    let bytes: Vec<u8> = (begin..begin + FILE as usize).map(|byte| byte as u8).collect();
    Ok(in_memory(&bytes))
}

/// A file whose frames and checksum are right. Of the input: how long the stream and the bytes of
/// inline bodies are, how many bytes of the table and of the stream are missing, then what is in
/// them: six bytes for a body, one for a stretch of the stream.
#[allow(clippy::unwrap_used)]
fn packed(data: &[u8]) -> Option<File> {
    let ([stream, inline, less_table, less_stream], rest) = data.split_first_chunk::<4>()?;
    let (stream, rest) = rest.split_at(usize::from(*stream).min(rest.len()));
    let (inline, bodies) = rest.split_at(usize::from(*inline).min(rest.len()));
    let bodies: Vec<_> = bodies.chunks_exact(6).take(BODIES).collect();
    let mut table = (bodies.len() as u64).to_le_bytes().to_vec();
    bodies.iter().for_each(|body| add_body(body, &mut table));
    let mut stretches = Vec::new();
    for byte in stream {
        match byte {
            0x80.. => stretches.extend_from_slice(&u32::MAX.to_le_bytes()),
            _ => {
                stretches.extend_from_slice(&u32::from(*byte).to_le_bytes());
                stretches.resize(stretches.len() + usize::from(*byte), *byte);
            }
        }
    }
    table.truncate(table.len() - usize::from(*less_table).min(table.len()));
    stretches.truncate(stretches.len() - usize::from(*less_stream).min(stretches.len()));
    let pack = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let (table, stream) = (pack(&table), pack(&stretches));
    let mut fields = [&0x184D_2A50_u32.to_le_bytes()[..], &56_u32.to_le_bytes(), b"STRH"].concat();
    fields.extend_from_slice(&2_u32.to_le_bytes());
    fields.extend_from_slice(&(table.len() as u64).to_le_bytes());
    fields.extend_from_slice(&(stream.len() as u64).to_le_bytes());
    let mut frames = [table, stream].concat();
    if !inline.is_empty() {
        frames.extend(pack(inline));
    }
    let checksum = Sha256::new().chain_update(&fields).chain_update(&frames).finalize();
    Some(in_memory(&[&fields[..], &checksum, &frames].concat()))
}

/// A row of the table: its kind, which path, two lengths, which are small or near 2^63 or 2^64.
fn add_body(body: &[u8], table: &mut Vec<u8>) {
    let number = |at: usize| u64::from(u16::from_le_bytes([body[at], body[at + 1]]));
    let far = |small: u64| match body[0] / 16 {
        14 => (1 << 63) - 32 + small,
        15 => u64::MAX - small,
        _ => small,
    };
    let path = PATHS[usize::from(body[1]) % PATHS.len()];
    let named = [&(path.len() as u32).to_le_bytes()[..], path.as_bytes()].concat();
    let (tag, before, numbers) = match body[0] % 8 {
        0 => (0, named, vec![far(number(2) % (FILE + 8))]),
        1 => {
            let pieces =
                vec![far(number(2) % FILE), 7, number(4) % (2 * FILE), far(number(2) % 64)];
            (1, [&named[..], &2_u32.to_le_bytes()].concat(), pieces)
        }
        2 => (3, named, Vec::new()),
        _ => (2, Vec::new(), vec![far(number(2) % 64)]),
    };
    table.push(tag);
    table.extend(before);
    numbers.iter().for_each(|number| table.extend_from_slice(&number.to_le_bytes()));
}

type Opener = Box<dyn Fn(&TreePath) -> io::Result<File> + Send + Sync>;

/// Reads a file of headers in both ways; gives the bytes, if there is no error before their end.
#[allow(clippy::unwrap_used)]
fn compare(headers: &File, open: Opener) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    let streamed = DiffStream::new(headers, &open).is_ok_and(|mut stream| {
        let read = stream.read_to_end(&mut all);
        read.is_ok()
    });
    let diff = match DiffAtOffsets::new(headers, in_memory(b""), open) {
        Ok(diff) => diff,
        Err(error) => {
            assert!(!streamed, "only at offsets it is damaged: {error:?}");
            return None;
        }
    };
    let whole = usize::try_from(diff.len()).unwrap();
    assert!(!streamed || all.len() == whole, "{} bytes, and {whole} at offsets", all.len());
    let mut at = 0;
    let mut chunk = [0; 777];
    let sound = loop {
        match diff.read_at(&mut chunk, at as u64) {
            Ok(0) => break true,
            Ok(n) => {
                let same = all.get(at..at + n).is_some_and(|same| same == &chunk[..n]);
                assert!(same, "other bytes at offset {at}");
                at += n;
            }
            // One of the files is shorter than the table says.
            Err(_) => break false,
        }
    };
    assert_eq!((streamed, streamed), (sound, at == whole), "one of the two ends early");
    streamed.then_some(all)
}

/// What is written of a tar while it is read gives the tar.
#[allow(clippy::unwrap_used)]
pub(crate) fn round_trip(tar: &[u8], limits: Limits) {
    let Some((headers, files)) = kept(tar, limits) else { return };
    verify(&headers).unwrap();
    let open: Opener = Box::new(move |path| {
        let name = std::str::from_utf8(path.as_bytes()).map_err(io::Error::other)?;
        let at: usize = name.parse().map_err(io::Error::other)?;
        files.get(at).map(|file| in_memory(file)).ok_or_else(|| io::ErrorKind::NotFound.into())
    });
    assert!(compare(&headers, open).as_deref() == Some(tar), "another tar comes back");
}

type Kept = (File, Arc<Vec<Vec<u8>>>);

/// The headers of a tar that is read without an error, and its bodies: one after the other they
/// are inline, a file, and two pieces of one.
#[allow(clippy::unwrap_used)]
fn kept(tar: &[u8], limits: Limits) -> Option<Kept> {
    let keeper = Keeper(Some(StreamWriter::new(in_memory(b"")).unwrap()));
    let mut reader = DiffReader::new(tar, "fuzz".to_owned(), limits, keeper);
    let mut files = Vec::new();
    while reader.next().ok()?.is_some() {
        if reader.body_left() > 0 {
            reader.sink().body().unwrap();
            let mut body = Vec::new();
            reader.body().read_to_end(&mut body).ok()?;
            files.push(body);
        }
    }
    let (_, Keeper(stream)) = reader.finish().ok()?;
    let bodies = files.iter().enumerate().map(|(at, body)| {
        let path = TreePath::clamped(at.to_string().as_bytes()).unwrap();
        let (len, half) = (body.len() as u64, body.len() as u64 / 2);
        Ok(match at % 3 {
            0 => StoredBody::Inline(len),
            1 => StoredBody::File(path, len),
            _ => StoredBody::Sparse(path, vec![(0, half), (half, len - half)]),
        })
    });
    let mut inline = |out: &mut dyn Write| {
        files.iter().step_by(3).try_for_each(|body| out.write_all(body))?;
        Ok::<_, Box<dyn std::error::Error>>(())
    };
    let mut out = in_memory(b"");
    stream.unwrap().finish(files.len() as u64, bodies, &mut out, &mut inline).unwrap();
    Some((out, Arc::new(files)))
}
