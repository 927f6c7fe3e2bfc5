//! A vector that spills beside one that does not.

use std::sync::Arc;

use proptest::prelude::*;

use super::{Room, Spill, SpillSpace, SpillTexts, Table};

/// Memory for next to nothing, so that every page leaves it soon.
fn tight() -> Arc<SpillSpace> {
    SpillSpace::new(&Room::new(1), 1, "tmp", tempfile::tempfile)
}

crate::record! {
    struct Pair {
        number: u64,
        digest: [u8; 32],
        small: u8,
    }
}

#[test]
fn records_come_back_from_the_file() {
    for scratch in [tight(), SpillSpace::unbounded()] {
        let mut all = Spill::new(&scratch, 10);
        let pair = |n: u64| Pair { number: n << 40 | n, digest: [n as u8; 32], small: 7 };
        for n in 0..10_000 {
            assert_eq!(all.push(pair(n)).unwrap(), n);
        }
        for n in (0..10_000).rev().step_by(7) {
            assert_eq!(all.get(n).unwrap(), pair(n));
        }
        assert!(all.get(10_000).is_err());
    }
}

#[test]
fn no_file_is_made_as_long_as_memory_lasts() {
    let never = || -> std::io::Result<std::fs::File> { panic!("a file was asked for") };
    let scratch = SpillSpace::new(&Room::new(8 << 20), 8 << 20, "tmp", never);
    let mut all = Spill::new(&scratch, 50);
    for n in 0..500_000u64 {
        all.push(n).unwrap();
    }
    assert_eq!(all.get(123_456).unwrap(), 123_456);
}

#[test]
fn room_is_shared_and_given_back() {
    let room = Room::new(1 << 20);
    let scratch = || SpillSpace::new(&room, 1 << 20, "tmp", tempfile::tempfile);
    let filled = |scratch: &Arc<SpillSpace>| {
        let mut all = Spill::new(scratch, 100);
        for n in 0..1_000_000u64 {
            all.push(n).unwrap();
        }
        all
    };
    let (one, other) = (filled(&scratch()), filled(&scratch()));
    let left = room.0.load(std::sync::atomic::Ordering::Relaxed);
    assert!(left < 8192, "{left}");
    assert_eq!((one.get(77).unwrap(), other.get(999_999).unwrap()), (77, 999_999));
    drop((one, other));
    assert_eq!(room.0.load(std::sync::atomic::Ordering::Relaxed), 1 << 20);
}

#[test]
fn a_full_disk_is_an_error_and_no_more() {
    let full = || Err(std::io::Error::from_raw_os_error(28));
    let mut all = Spill::new(&SpillSpace::new(&Room::new(1), 1, "tmp", full), 10);
    let failed = (0..100_000u64).find_map(|n| all.push(n).err());
    let told = failed.expect("an error").to_string();
    assert!(told.contains("in a file in tmp") && told.contains("No space left"), "{told}");
    assert_eq!(all.get(0).unwrap(), 0);
}

#[test]
fn what_a_full_disk_does_not_take_stays_in_memory_where_that_is_allowed() {
    let full = || Err(std::io::Error::from_raw_os_error(28));
    let room = Room::new(1 << 16);
    let mut all = Spill::new(&SpillSpace::or_memory(&room, 1 << 16, "tmp", full), 50);
    for n in 0..100_000u64 {
        all.push(n).unwrap();
    }
    all.set(7, 70).unwrap();
    assert!((0..100_000).all(|n| all.get(n).unwrap() == if n == 7 { 70 } else { n }));
    drop(all);
    assert_eq!(room.0.load(std::sync::atomic::Ordering::Relaxed), 1 << 16);
}

#[test]
fn a_table_finds_what_it_has_though_hashes_meet() {
    let mut table = Table::new(&tight(), 10);
    let words: Vec<u64> = (0..5000).map(|n| n * 7).collect();
    // Sixteen words to a hash.
    let hash = |word: u64| (word / 112) as u32;
    for (number, word) in words.iter().enumerate() {
        let place = table.find(hash(*word), |at| Ok(words[at as usize] == *word)).unwrap();
        assert_eq!(place.number, None);
        table.put(place, number as u32).unwrap();
    }
    for (number, word) in words.iter().enumerate() {
        let place = table.find(hash(*word), |at| Ok(words[at as usize] == *word)).unwrap();
        assert_eq!(place.number, Some(number as u32));
    }
    let place = table.find(hash(7), |at| Ok(at == 1)).unwrap();
    table.put(place, 4999).unwrap();
    let place = table.find(hash(7), |at| Ok(at == 4999)).unwrap();
    assert_eq!(place.number, Some(4999));
}

proptest! {
    #[test]
    fn it_is_a_vector(
        length in 0..3000u64,
        steps in proptest::collection::vec((any::<prop::sample::Index>(), any::<u32>()), 0..600),
    ) {
        let mut model = vec![9u32; length as usize];
        let mut all = Spill::filled(&tight(), 10, length, 9u32);
        for (index, value) in steps {
            if value % 3 == 0 || model.is_empty() {
                let many = vec![value; value as usize % 2000];
                prop_assert_eq!(all.extend(&many).unwrap(), model.len() as u64);
                model.extend_from_slice(&many);
                continue;
            }
            let at = index.index(model.len());
            if value % 3 == 1 {
                all.set(at as u64, value).unwrap();
                model[at] = value;
            }
            prop_assert_eq!(all.get(at as u64).unwrap(), model[at]);
        }
        let mut found = Vec::new();
        all.each(0, all.len(), |part| found.extend_from_slice(part)).unwrap();
        prop_assert_eq!(found, model);
    }

    #[test]
    fn texts_come_back(
        texts in proptest::collection::vec(
            prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..300),
                proptest::collection::vec(any::<u8>(), 5000..9000),
            ],
            0..60,
        ),
    ) {
        let mut all = SpillTexts::new(&tight(), 10);
        let places: Vec<u64> = texts.iter().map(|text| all.put(text).unwrap()).collect();
        for (at, text) in places.iter().zip(&texts) {
            prop_assert!(all.is(*at, text).unwrap());
            prop_assert!(!all.is(*at, &[text.as_slice(), b"x"].concat()).unwrap());
            prop_assert_eq!(&all.get(*at).unwrap(), text);
        }
        for pair in places.windows(2) {
            prop_assert_eq!(all.following(pair[0]).unwrap().1, pair[1]);
        }
    }
}
