//! Pieces against the whole file in memory, and against plain blocks.

use std::collections::{BTreeSet, HashMap};

use fastcdc::v2020::FastCDC;
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use strata_tree::ContentDigest;

use super::{BLOCK, ChunkOptions, Cut, MeanSize, Measured, measure};

fn means() -> Vec<MeanSize> {
    [256, 1000 * 8, 64 << 10].map(|bytes| MeanSize::new(bytes).unwrap()).into()
}

fn run(files: &[Vec<u8>], options: &ChunkOptions) -> Measured {
    let bytes = files.iter().map(|file| file.len() as u64).sum();
    let all = std::sync::atomic::AtomicU64::new(0);
    let progress = |n| {
        all.fetch_add(n, std::sync::atomic::Ordering::Relaxed);
    };
    let measured =
        measure(files, (files.len() as u64, bytes), options, &progress, &|file, cutter| {
            let digest = ContentDigest::from_bytes(Sha256::digest(file).into());
            cutter.content(&digest, file.len() as u64, &mut file.as_slice()).unwrap();
            Ok(())
        })
        .unwrap();
    assert_eq!(measured.read, bytes * measured.passes);
    assert_eq!(measured.read, all.into_inner());
    measured
}

/// What a cut must give, from the whole files.
fn pieces(files: &[Vec<u8>], cut: Cut) -> Vec<&[u8]> {
    let files = files.iter().filter(|file| !file.is_empty());
    match cut {
        Cut::Files => files.map(Vec::as_slice).collect(),
        Cut::Blocks => files.flat_map(|file| file.chunks(BLOCK as usize)).collect(),
        Cut::Chunks(mean) => {
            let size = mean.bytes() as usize;
            let mut all = Vec::new();
            for file in files {
                let mut end = 0;
                for chunk in FastCDC::new(file, mean.least(), size, mean.most()) {
                    assert_eq!(chunk.offset, end);
                    end += chunk.length;
                    assert!(chunk.length <= mean.most());
                    assert!(chunk.length >= mean.least() || end == file.len());
                    all.push(&file[chunk.offset..end]);
                }
                assert_eq!(end, file.len());
            }
            all
        }
    }
}

fn check(files: &[Vec<u8>], options: &ChunkOptions) {
    let measured = run(files, options);
    for found in &measured.cuts {
        let all = pieces(files, found.cut);
        let distinct: BTreeSet<&[u8]> = all.iter().copied().collect();
        assert_eq!(found.pieces, all.len() as u64, "{:?}", found.cut);
        assert_eq!(found.distinct, distinct.len() as u64, "{:?}", found.cut);
        assert_eq!(found.bytes, distinct.iter().map(|piece| piece.len() as u64).sum::<u64>());
        let packed: HashMap<&[u8], u64> = distinct
            .iter()
            .filter(|piece| piece.len() < 4 << 20)
            .map(|piece| {
                let packed = zstd::bulk::compress(piece, 3).unwrap();
                (*piece, packed.len().min(piece.len()) as u64)
            })
            .collect();
        match options.compress {
            true if packed.len() == distinct.len() => {
                assert_eq!(found.compressed, packed.values().sum::<u64>(), "{:?}", found.cut);
            }
            true => assert!(found.compressed <= found.bytes),
            false => assert_eq!(found.compressed, 0),
        }
    }
}

/// Bytes that neither repeat nor compress.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(next).collect()
}

/// Files made of a few long strings, so that they have chunks in common at shifted places.
fn files() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let part = (0..4_u64, 0..60_000_usize, any::<bool>());
    let file = prop::collection::vec(part, 0..4).prop_map(|parts| {
        let part = |(seed, len, zeros)| if zeros { vec![0; len] } else { noise(seed, len) };
        parts.into_iter().flat_map(part).collect::<Vec<u8>>()
    });
    prop::collection::vec(file, 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn pieces_are_those_of_the_files(files in files(), compress in any::<bool>()) {
        check(&files, &ChunkOptions { means: means(), compress, memory: 1 << 30 });
    }

    #[test]
    fn several_passes_give_the_same(files in files()) {
        let once = ChunkOptions { means: means(), compress: true, memory: 1 << 30 };
        let often = ChunkOptions { memory: 3000, ..once.clone() };
        let (once, often) = (run(&files, &once), run(&files, &often));
        prop_assert_eq!(once.cuts, often.cuts);
    }
}

/// Longer than the buffer: chunks go across its end, and the file is compressed as a stream.
#[test]
fn a_file_larger_than_the_buffer() {
    let mut file = noise(7, 9 << 20);
    file.extend_from_slice(&[0; 3 << 20]);
    file.extend_from_slice(&noise(7, 1 << 20));
    let mean = MeanSize::new(1 << 20).unwrap();
    let options = ChunkOptions { means: vec![mean], ..ChunkOptions::default() };
    check(&[file.clone(), noise(7, 5 << 20), file.clone()], &options);
    check(&[file], &ChunkOptions { memory: 2 << 20, means: means(), compress: true });
}

#[test]
fn chunks_survive_a_shift_and_blocks_do_not() {
    let text = noise(3, 1 << 20);
    let shifted = [b"x", text.as_slice()].concat();
    let measured = run(&[text, shifted], &ChunkOptions::default());
    let of = |cut| measured.cuts.iter().find(|one| one.cut == cut).unwrap().bytes;
    assert!(of(Cut::Chunks(MeanSize::new(8 << 10).unwrap())) < 1_200_000);
    assert!(of(Cut::Blocks) > 2_000_000);
}

#[test]
fn means_are_those_that_fastcdc_takes() {
    for (bytes, fits) in
        [(256, true), (255, false), (257, false), (4 << 20, true), (5 << 20, false)]
    {
        assert_eq!(MeanSize::new(bytes).is_some(), fits, "{bytes}");
    }
}
