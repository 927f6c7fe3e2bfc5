//! Files on the screen: windows, searches, long and many lines, bytes.

use std::io::Write;
use strata_content::FileContent;

use crate::explore::model::pager::{Line, Pager, PagerMode};

fn pager(bytes: &[u8], height: usize) -> Pager {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    let mut pager =
        Pager::new("/file".to_owned(), Box::new(FileContent::new(file).unwrap())).unwrap();
    pager.height = height;
    pager
}

fn window(pager: &Pager) -> Vec<String> {
    let text = |line: Line| String::from_utf8(line.bytes).unwrap();
    pager.window(20).unwrap().into_iter().map(text).collect()
}

#[test]
fn lines_are_counted_and_windowed() {
    for (text, lines) in [("", 0), ("a", 1), ("a\n", 1), ("a\nb", 2), ("\n\n", 2)] {
        assert_eq!(pager(text.as_bytes(), 5).lines(), lines, "{text:?}");
    }
    let text: String = (0..10_000).map(|n| format!("line {n}\n")).collect();
    let mut pager = pager(text.as_bytes(), 3);
    assert_eq!(pager.lines(), 10_000);
    assert_eq!(window(&pager), ["line 0", "line 1", "line 2"]);
    for at in [255, 256, 257, 511, 512, 4321, 9997] {
        pager.go(at);
        assert_eq!(window(&pager)[0], format!("line {at}"));
    }
    pager.go(u64::MAX);
    assert_eq!(window(&pager), ["line 9997", "line 9998", "line 9999"]);
    pager.up(10_000);
    assert_eq!(pager.top(), 0);
}

#[test]
fn a_long_line_is_cut_and_the_next_found() {
    let text = [vec![b'x'; 300_000], b"\nnext\n".to_vec()].concat();
    let mut pager = pager(&text, 2);
    assert_eq!(window(&pager), ["x".repeat(20), "next".to_owned()]);
    "next".clone_into(&mut pager.wanted);
    assert!(pager.find_next().unwrap());
    assert_eq!(pager.hit, Some(300_001));
}

#[test]
fn searches_go_around_both_ends() {
    let text: String = (0..50_000).map(|n| format!("row {n}\n")).collect();
    let mut pager = pager(text.as_bytes(), 10);
    "ROW 4999".to_lowercase().clone_into(&mut pager.wanted);
    let mut hits = Vec::new();
    for _ in 0..12 {
        assert!(pager.find_next().unwrap());
        let offset = pager.hit.unwrap() as usize;
        hits.push(text[offset..].lines().next().unwrap().to_owned());
    }
    // 4999, 49990 to 49999, and the first again.
    assert_eq!((hits[0].as_str(), hits[1].as_str()), ("row 4999", "row 49990"));
    assert_eq!(hits[11], "row 4999");
    assert!(pager.find_previous().unwrap());
    assert_eq!(text[pager.hit.unwrap() as usize..].lines().next(), Some("row 49999"));
    assert!(window(&pager).contains(&"row 49999".to_owned()));
    // Capitals are meant.
    "Row".clone_into(&mut pager.wanted);
    assert!(!pager.find_next().unwrap());
    assert_eq!(pager.hit, None);
}

#[test]
fn bytes_are_in_hex_and_text_can_be() {
    let mut bytes: Vec<u8> = (0..=255).collect();
    bytes.extend_from_slice(b"tail");
    let mut pager = pager(&bytes, 4);
    assert_eq!((pager.mode(), pager.lines(), pager.size()), (PagerMode::Hex, 17, 260));
    pager.go(u64::MAX);
    let lines = pager.window(80).unwrap();
    assert_eq!(lines[3], Line { offset: 256, bytes: b"tail".to_vec() });
    "tail".clone_into(&mut pager.wanted);
    pager.go(0);
    assert!(pager.find_next().unwrap());
    assert_eq!((pager.hit, pager.top()), (Some(256), 13));
    // To text and back, about where it was.
    pager.toggle().unwrap();
    assert_eq!((pager.mode(), pager.lines()), (PagerMode::Text, 2));
    pager.toggle().unwrap();
    assert_eq!(pager.mode(), PagerMode::Hex);
}
