//! Every compression, whole, damaged, cut, bombed and left early.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use super::{Compression, StreamError, StreamFacts, TarStream, decompress};
use crate::limits::Limits;
use crate::tar::DiffError;

/// Bytes that compress, but not to nothing.
fn sample(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    (0..len)
        .map(|i| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if i % 3 == 0 { (state >> 24) as u8 } else { b'x' }
        })
        .collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    liblzma::read::XzEncoder::new(bytes, 1).read_to_end(&mut all).unwrap();
    all
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    let level = bzip2::Compression::fast();
    bzip2::read::BzEncoder::new(bytes, level).read_to_end(&mut all).unwrap();
    all
}

fn skippable(bytes: &[u8]) -> Vec<u8> {
    [&[0x53, 0x2a, 0x4d, 0x18], (bytes.len() as u32).to_le_bytes().as_slice(), bytes].concat()
}

fn run(blob: &[u8], limits: Limits) -> Result<(Vec<u8>, StreamFacts), DiffError> {
    let read = |stream: &mut TarStream| {
        let mut all = Vec::new();
        let result = stream.read_to_end(&mut all);
        // A failed stream must not look like one that ended.
        if result.is_err() {
            assert!(stream.read(&mut [0; 8]).is_err());
        }
        result.map_err(|source| DiffError::Read { layer: "l".into(), offset: 0, source })?;
        Ok(all)
    };
    decompress(Box::new(blob), "l", &limits, &|_| {}, read)
}

fn stream_error(error: &DiffError) -> &StreamError {
    let DiffError::Read { source, .. } = error else { panic!("{error:?}") };
    source.get_ref().and_then(|inner| inner.downcast_ref()).unwrap()
}

#[test]
fn every_compression_gives_the_tar_and_both_digests() {
    let tar = sample(3_000_000);
    let (a, b) = tar.split_at(1_234_567);
    let named = {
        let mut encoder = flate2::GzBuilder::new()
            .filename("layer.tar")
            .comment("c")
            .extra(&b"extra"[..])
            .write(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&tar).unwrap();
        encoder.finish().unwrap()
    };
    let members: Vec<u8> = tar.chunks(1000).flat_map(gzip).collect();
    let gz = gzip(&tar);
    for (name, blob, compression) in [
        ("plain", tar.clone(), Compression::None),
        ("gzip", gz.clone(), Compression::Gzip),
        ("gzip with name, comment, extra", named, Compression::Gzip),
        ("two members", [gzip(a), gzip(b)].concat(), Compression::Gzip),
        ("an empty member", [gzip(b""), gz.clone(), gzip(b"")].concat(), Compression::Gzip),
        ("3000 members", members, Compression::Gzip),
        ("zeros behind", [gz, vec![0; 200_000]].concat(), Compression::Gzip),
        ("xz", xz(&tar), Compression::Xz),
        ("two xz streams", [xz(a), xz(b)].concat(), Compression::Xz),
        ("padding", [xz(a), vec![0; 8], xz(b), vec![0; 4096]].concat(), Compression::Xz),
        ("zeros behind xz", [xz(&tar), vec![0; 200_001]].concat(), Compression::Xz),
        ("an empty xz stream", [xz(b""), xz(&tar), xz(b"")].concat(), Compression::Xz),
        ("bzip2", bzip2(&tar), Compression::Bzip2),
        ("two bzip2 streams", [bzip2(a), bzip2(b)].concat(), Compression::Bzip2),
        ("zeros behind bzip2", [bzip2(&tar), vec![0; 999]].concat(), Compression::Bzip2),
        ("an empty bzip2", [bzip2(b""), bzip2(&tar), bzip2(b"")].concat(), Compression::Bzip2),
        ("zstd", zstd(&tar), Compression::Zstd),
        ("two frames", [zstd(a), zstd(b)].concat(), Compression::Zstd),
        ("zeros behind zstd", [zstd(&tar), vec![0; 1000]].concat(), Compression::Zstd),
        ("an empty frame", [zstd(b""), zstd(&tar), zstd(b"")].concat(), Compression::Zstd),
        ("3000 frames", tar.chunks(1000).flat_map(zstd).collect(), Compression::Zstd),
        (
            "skippable frames everywhere",
            [skippable(b"x"), zstd(a), skippable(&[7; 9000]), zstd(b), skippable(b"")].concat(),
            Compression::Zstd,
        ),
    ] {
        let (bytes, facts) =
            run(&blob, Limits::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(bytes == tar, "{name}");
        assert_eq!(facts.compression, compression, "{name}");
        assert_eq!(facts.blob_size, blob.len() as u64, "{name}");
        assert_eq!(facts.diff_size, tar.len() as u64, "{name}");
        assert_eq!(facts.diff_id.as_bytes(), Sha256::digest(&tar).as_slice(), "{name}");
        assert_eq!(facts.blob.as_bytes(), Sha256::digest(&blob).as_slice(), "{name}");
    }
}

#[test]
fn nothing_at_all_is_an_empty_plain_tar() {
    let (bytes, facts) = run(b"", Limits::default()).unwrap();
    assert!(bytes.is_empty());
    assert_eq!((facts.blob_size, facts.diff_size), (0, 0));
    assert_eq!(facts.blob.as_bytes(), Sha256::digest(b"").as_slice());
}

#[test]
fn what_the_caller_leaves_unread_counts_too() {
    let tar = sample(5_000_000);
    for blob in [tar.clone(), gzip(&tar), zstd(&tar)] {
        let (first, facts) =
            decompress(Box::new(&blob[..]), "l", &Limits::default(), &|_| {}, |stream| {
                let mut first = [0; 10];
                stream.read_exact(&mut first).unwrap();
                Ok::<_, DiffError>(first)
            })
            .unwrap();
        assert_eq!(first, tar[..10]);
        assert_eq!(facts.blob.as_bytes(), Sha256::digest(&blob).as_slice());
        assert_eq!(facts.diff_id.as_bytes(), Sha256::digest(&tar).as_slice());
    }
}

#[test]
fn other_compressions_are_named() {
    let text = run(b"\x04\x22\x4d\x18dp\xb9", Limits::default()).unwrap_err().to_string();
    assert!(text.contains("compression lz4 is not supported"), "{text}");
}

#[test]
fn an_xz_stream_may_not_ask_for_any_memory() {
    // `xz --lzma2=dict=` of that many bytes, in the block header of an empty file's stream.
    let wants = |dictionary: u32| {
        let mut filters = liblzma::stream::Filters::new();
        let mut options = liblzma::stream::LzmaOptions::new_preset(0).unwrap();
        filters.lzma2(options.dict_size(dictionary));
        let check = liblzma::stream::Check::Crc32;
        let stream = liblzma::stream::Stream::new_stream_encoder(&filters, check).unwrap();
        let mut all = Vec::new();
        liblzma::read::XzEncoder::new_stream(&b"x"[..], stream).read_to_end(&mut all).unwrap();
        all
    };
    assert_eq!(run(&wants(128 << 20), Limits::default()).unwrap().0, b"x");
    let error = run(&wants(192 << 20), Limits::default()).unwrap_err();
    assert!(error.to_string().contains("more than 129 MiB of memory"), "{error}");
}

#[test]
fn every_cut_is_noticed() {
    let tar = sample(10_000);
    for blob in [
        gzip(&tar),
        zstd(&tar),
        xz(&tar),
        bzip2(&tar),
        [gzip(&tar[..10]), gzip(&tar[10..])].concat(),
    ] {
        let first_member = gzip(&tar[..10]).len();
        for cut in (10..blob.len()).step_by(7).chain(blob.len() - 9..blob.len()) {
            if cut == first_member {
                continue;
            }
            let error = run(&blob[..cut], Limits::default()).unwrap_err();
            match stream_error(&error) {
                StreamError::Truncated { offset, .. } => assert_eq!(*offset, cut as u64),
                other => panic!("cut at {cut} of {}: {other:?}", blob.len()),
            }
        }
    }
}

#[test]
fn damage_is_noticed() {
    let tar = sample(10_000);
    let gz = gzip(&tar);
    let checked_zstd = {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(&tar).unwrap();
        encoder.finish().unwrap()
    };
    for blob in [gz.clone(), checked_zstd, xz(&tar), bzip2(&tar)] {
        // Behind the header, whose time, name and the like no checksum covers.
        for at in (14..blob.len()).step_by(11).chain(blob.len() - 4..blob.len()) {
            let mut bad = blob.clone();
            bad[at] ^= 0x10;
            let error = run(&bad, Limits::default()).map(|_| ()).unwrap_err();
            let known = stream_error(&error);
            assert!(
                matches!(known, StreamError::Corrupt { .. } | StreamError::Truncated { .. }),
                "{at}: {known:?}"
            );
        }
    }
    for behind in [&b"junk"[..], b"\0\0junk", b"\x1f\x8b\x08\xff12345678"] {
        let error = run(&[&gz, behind].concat(), Limits::default()).unwrap_err();
        assert!(matches!(stream_error(&error), StreamError::Corrupt { .. }), "{error}");
    }
    for blob in [zstd(&tar), xz(&tar), bzip2(&tar), [xz(&tar), vec![0; 4]].concat()] {
        let error = run(&[blob, b"junk".to_vec()].concat(), Limits::default()).unwrap_err();
        assert!(matches!(stream_error(&error), StreamError::Corrupt { .. }), "{error}");
    }
}

#[test]
fn bombs_stop_at_the_bound_that_they_pass() {
    let ones = vec![1; (Limits::EXPANSION_FREE + (8 << 20)) as usize];
    let tight = Limits { expansion: 1, ..Limits::default() };
    for blob in [gzip(&ones), zstd(&ones), xz(&ones), bzip2(&ones)] {
        let error = run(&blob, tight).map(|_| ()).unwrap_err();
        match stream_error(&error) {
            StreamError::Limit { option, limit, .. } => {
                assert_eq!((*option, *limit), ("--max-expansion", 1));
            }
            other => panic!("{other:?}"),
        }
    }
    // Zeros take no disk.
    for blob in [gzip(&vec![0; ones.len()]), zstd(&vec![0; ones.len()])] {
        assert_eq!(run(&blob, tight).unwrap().0.len(), ones.len());
    }
    let short = Limits { layer_bytes: 1000, ..Limits::default() };
    for blob in [vec![1; 1001], gzip(&[1; 1001])] {
        let error = run(&blob, short).unwrap_err();
        assert!(error.to_string().contains("--max-layer-bytes"), "{error}");
    }
    assert!(run(&gzip(&[1; 1000]), short).is_ok());
}

/// Gives bytes, then an error.
struct Failing(usize);

impl Read for Failing {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        match self.0 {
            0 => Err(std::io::Error::new(std::io::ErrorKind::ConnectionReset, "gone")),
            left => {
                let n = left.min(buf.len()).min(1000);
                buf[..n].fill(b'x');
                self.0 -= n;
                Ok(n)
            }
        }
    }
}

#[test]
fn errors_of_the_input_name_its_offset() {
    let read = |stream: &mut TarStream| {
        std::io::copy(stream, &mut std::io::sink()).map_err(|source| DiffError::Read {
            layer: "l".into(),
            offset: 0,
            source,
        })
    };
    let input = Box::new(Failing(700_000));
    let error = decompress(input, "l", &Limits::default(), &|_| {}, read).unwrap_err();
    match stream_error(&error) {
        StreamError::Read { offset, source } => {
            assert_eq!(*offset, 700_000);
            assert_eq!(source.kind(), std::io::ErrorKind::ConnectionReset);
        }
        other => panic!("{other:?}"),
    }
    // Nobody reads it, yet the facts would be wrong.
    let input = Box::new(Failing(700_000));
    let ignore = |_: &mut TarStream| Ok::<_, DiffError>(());
    assert!(decompress(input, "l", &Limits::default(), &|_| {}, ignore).is_err());
}

#[test]
fn whoever_leaves_early_stops_the_threads() {
    struct Endless<'a>(&'a AtomicU64);
    impl Read for Endless<'_> {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            buf.fill(7);
            self.0.fetch_add(buf.len() as u64, Ordering::Relaxed);
            Ok(buf.len())
        }
    }
    let given = AtomicU64::new(0);
    let result: Result<((), StreamFacts), DiffError> =
        decompress(Box::new(Endless(&given)), "l", &Limits::default(), &|_| {}, |stream| {
            stream.read_exact(&mut [0; 100]).unwrap();
            Err(DiffError::Unread { layer: "l".into(), offset: 100, left: 0 })
        });
    assert!(matches!(result, Err(DiffError::Unread { .. })));
    // It came back at all, and no more was read than the queues hold.
    assert!(given.load(Ordering::Relaxed) < 8 << 20);
}

#[test]
fn progress_counts_transported_bytes() {
    let seen = AtomicU64::new(0);
    let blob = gzip(&sample(2_000_000));
    let progress = |bytes| {
        assert!(seen.swap(bytes, Ordering::Relaxed) < bytes);
    };
    let ignore = |_: &mut TarStream| Ok::<_, DiffError>(());
    decompress(Box::new(&blob[..]), "l", &Limits::default(), &progress, ignore).unwrap();
    assert_eq!(seen.load(Ordering::Relaxed), blob.len() as u64);
}
