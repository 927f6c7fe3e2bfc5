//! Chance: whatever the bytes, the reader ends without a panic, and if it accepts them, headers
//! and bodies make up the input (which `read_all` checks).

use proptest::prelude::*;

use crate::tar::testkit::{Head, Tar, expand, read_all};

/// A tar with everything in it.
fn seed() -> Vec<u8> {
    let map = b"2\n8\n2\n100\n3\n".to_vec();
    let sparse = [map.as_slice(), &[0; 500], b"abcde"].concat();
    Tar::default()
        .extended(b'g', &[("comment", b"c"), ("mtime", b"5")])
        .pax(&[("path", b"long/name"), ("SCHILY.xattr.user.a", b"\0\n="), ("mtime", b"-1.5")])
        .file(b"f", b"some body")
        .long(b'L', b"another/name")
        .long(b'K', b"target")
        .add(Head::new(b'2', b"l").gnu(), b"")
        .add(Head::new(b'5', b"d/").gnu(), b"")
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"s"),
            ("GNU.sparse.realsize", b"110"),
        ])
        .add(Head::new(b'0', b"GNUSparseFile.0/s"), &sparse)
        .add(
            Head::new(b'S', b"g")
                .gnu()
                .put(386, b"00000000010\x0000000000003\0")
                .put(483, b"00000000100\0"),
            b"xyz",
        )
        .add(Head::new(b'3', b"dev").gnu(), b"")
        .end()
}

/// Makes the checksums right again, so that mutations reach the fields behind them.
fn reseal(tar: &mut [u8]) {
    for block in tar.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            let head: [u8; 512] = std::array::from_fn(|i| block[i]);
            block.copy_from_slice(&Head(head).sealed());
        }
    }
}

fn must_not_panic(tar: &[u8]) {
    if let Ok(members) = read_all(tar) {
        for (member, stored) in &members {
            if member.size < 1 << 20 {
                assert_eq!(expand(member, stored).len() as u64, member.size);
            }
        }
    }
}

#[test]
fn the_seed_is_read() {
    assert_eq!(read_all(&seed()).unwrap().len(), 6);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn bytes_changed(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut tar = seed();
        for (at, byte) in changes {
            let at = at.index(tar.len());
            tar[at] = byte;
        }
        must_not_panic(&tar);
        reseal(&mut tar);
        must_not_panic(&tar);
    }

    #[test]
    fn blocks_moved(
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
        how in 0..3,
    ) {
        let tar = seed();
        let mut blocks: Vec<&[u8]> = tar.chunks(512).collect();
        let (from, to) = (from.index(blocks.len()), to.index(blocks.len()));
        match how {
            0 => blocks.swap(from, to),
            1 => blocks.insert(to, blocks[from]),
            _ => { blocks.remove(from); }
        }
        must_not_panic(&blocks.concat());
    }

    #[test]
    fn fields_replaced(
        block in any::<prop::sample::Index>(),
        field in prop::sample::select(vec![
            (0, 100), (100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (156, 1), (157, 100),
            (257, 8), (329, 8), (337, 8), (345, 12), (386, 12), (398, 12), (482, 1), (483, 12),
        ]),
        value in prop::collection::vec(
            prop::sample::select(b"01234567 \0\x80\xffSxgLK52/".to_vec()), 12,
        ),
    ) {
        let mut tar = seed();
        let start = block.index(tar.len() / 512) * 512 + field.0;
        let len = field.1.min(value.len());
        tar[start..start + len].copy_from_slice(&value[..len]);
        reseal(&mut tar);
        must_not_panic(&tar);
    }

    #[test]
    fn cut_and_noise(
        bytes in prop::collection::vec(any::<u8>(), 0..3000),
        cut in any::<prop::sample::Index>(),
    ) {
        let tar = seed();
        must_not_panic(&bytes);
        must_not_panic(&[&tar[..cut.index(tar.len())], &bytes].concat());
    }
}
