//! The reader against what Go's encoding/json does (each right value was seen with Go 1.19).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use super::*;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Sample {
    text: String,
    list: Option<Vec<i64>>,
    inner: Inner,
    map: BTreeMap<String, String>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Inner {
    a: i64,
    b: Option<String>,
}

fn sample(text: &str) -> Result<Sample, String> {
    from_slice(text.as_bytes()).map_err(|fault| fault.to_string())
}

fn shown(bytes: &[u8]) -> Result<Value, String> {
    Json::parse(bytes).map(|json| json.to_value()).map_err(|fault| fault.to_string())
}

#[test]
fn strings_are_read_as_go_reads_them() {
    for (bytes, text) in [
        (
            &br#""caf\u00e9 \ud83d\ude00 \"\\\/\b\f\n\r\t""#[..],
            "caf\u{e9} \u{1f600} \"\\/\u{8}\u{c}\n\r\t",
        ),
        (br#""cut \ud83d""#, "cut \u{fffd}"),
        (br#""\ud83dx""#, "\u{fffd}x"),
        (br#""\ude00""#, "\u{fffd}"),
        (br#""\ud83d\ud83d\ude00""#, "\u{fffd}\u{1f600}"),
        (br#""\ud83d\u0041""#, "\u{fffd}A"),
        (b"\"caf\xe9\"", "caf\u{fffd}"),
        (b"\"\xf0\x9f\x98\"", "\u{fffd}\u{fffd}\u{fffd}"),
        (br#""a\u0000b""#, "a\0b"),
    ] {
        assert_eq!(shown(bytes), Ok(json!(text)), "{}", bytes.escape_ascii());
    }
}

#[test]
fn keys_are_matched_as_go_matches_them() {
    let text = |text: &str| Sample { text: text.to_owned(), ..Sample::default() };
    for (document, right) in [
        (r#"{"text":"a"}"#, text("a")),
        (r#"{"TEXT":"a","unknown":[{}]}"#, text("a")),
        (r#"{"Text":"a","Text":"b"}"#, text("b")),
        (r#"{"Text":"a","tExt":"b"}"#, text("b")),
        (r#"{"Li\u017ft":[1]}"#, Sample { list: Some(vec![1]), ..Sample::default() }),
        (r#"{"Text":null,"Text":"a"}"#, text("a")),
        (
            r#"{"Inner":{"a":1},"inner":{"b":"x"}}"#,
            Sample { inner: Inner { a: 1, b: Some("x".into()) }, ..Sample::default() },
        ),
        (
            r#"{"Inner":{"a":1,"b":"x"},"INNER":{"A":2}}"#,
            Sample { inner: Inner { a: 2, b: Some("x".into()) }, ..Sample::default() },
        ),
        (
            r#"{"Map":{"k":"1","K":"2","k":"3"}}"#,
            Sample {
                map: [("K".into(), "2".into()), ("k".into(), "3".into())].into(),
                ..Sample::default()
            },
        ),
    ] {
        assert_eq!(sample(document), Ok(right), "{document}");
    }
    for (document, why) in [
        (r#"{"Inner":{"a":1},"inner":null}"#, "Inner stands there twice, then as null"),
        (r#"{"Text":"a","Text":null}"#, "Text stands there twice, then as null"),
        (r#"{"Inner":{"a":"x"}}"#, "Inner: a: invalid type: string \"x\", expected i64"),
        (r#"{"List":[1.5]}"#, "List: invalid type: floating point `1.5`, expected i64"),
        (r#"{"List":[1e999]}"#, "List: invalid type: floating point `inf`, expected i64"),
        (r#"[]"#, "a list where an object should be"),
        (r#"{"Inner":[1]}"#, "Inner: a list where an object should be"),
    ] {
        let fault = sample(document).unwrap_err();
        assert!(fault.contains(why), "{document}: {fault}");
    }
}

#[test]
fn what_is_no_json_says_where() {
    for (bytes, why) in [
        (&b""[..], "it ends too early, at byte 0"),
        (b"  ", "it ends too early, at byte 2"),
        (b"[1,", "it ends too early, at byte 3"),
        (b"\"x", "it ends too early, at byte 2"),
        (b"{\"a\":1", "it ends too early, at byte 6"),
        (b"[1 2]", "expected a comma or the end of a list or object at byte 3"),
        (b"[1,]", "expected a value at byte 3"),
        (b"{\"a\":1,}", "expected a key in double quotes at byte 7"),
        (b"{a:1}", "expected a key in double quotes at byte 1"),
        (b"{\"a\" 1}", "expected a colon at byte 5"),
        (b"NaN", "expected a value at byte 0"),
        (b"-", "expected a digit at byte 1"),
        (b"01", "something follows the document at byte 1"),
        (b"1.", "expected a digit at byte 2"),
        (b"{} x", "something follows the document at byte 3"),
        (b"\"a\nb\"", "no control character in a string at byte 2"),
        (b"\"\\x\"", "an escape that JSON knows at byte 1"),
        (b"\"\\u12\"", "four digits after \\u at byte 1"),
        (b"\xef\xbb\xbf{}", "a byte order mark, which JSON does not have, at byte 0"),
    ] {
        let fault = shown(bytes).unwrap_err();
        assert!(fault.contains(why), "{}: {fault}", bytes.escape_ascii());
    }
    assert!(Json::first(b"{} x").is_ok());
}

#[test]
fn depth_and_numbers_are_kept_and_shown() {
    let deep = |levels: usize| [vec![b'['; levels], vec![b']'; levels]].concat();
    let fault = Json::parse(&deep(10_001)).map(|_| ()).unwrap_err().to_string();
    assert!(fault.contains("more than 10000 levels at byte 10000"), "{fault}");
    let json = Json::parse(&deep(10_000)).unwrap();
    assert!(json.to_bytes() == deep(10_000));
    let mut value = json.to_value();
    for _ in 0..SHOWN {
        value = value.get_mut(0).unwrap().take();
    }
    assert!(value == json!(String::from_utf8(deep(10_000 - SHOWN)).unwrap()));
    let numbers = b"[1,-1,18446744073709551615,0.5,1e999,-0]";
    let huge = "1".repeat(400);
    assert_eq!(Json::parse(numbers).unwrap().to_bytes(), numbers);
    assert_eq!(
        shown(numbers),
        Ok(json!([1, -1, 18_446_744_073_709_551_615_u64, 0.5, "1e999", -0.0]))
    );
    assert_eq!(shown(huge.as_bytes()), Ok(json!(huge)));
}

#[test]
fn a_change_keeps_the_rest() {
    let mut json = Json::parse(br#"{"b":1e999,"A":{"x":[ ]},"c":"\u00e9\u0000","a":2}"#).unwrap();
    json.set("a", Json::from(json!({"y": null})));
    json.set("d", Json::number(7));
    let text = String::from_utf8(json.to_bytes()).unwrap();
    assert_eq!(text, "{\"b\":1e999,\"a\":{\"y\":null},\"c\":\"\u{e9}\\u0000\",\"d\":7}");
    let mut json = Json::parse(br#"{"CONFIG":{"a":1},"x":1,"config":{"b":2}}"#).unwrap();
    json.named(&["config"]);
    assert_eq!(json.to_value(), json!({"config": {"a": 1, "b": 2}, "x": 1}));
}

/// By comparing each key with all before it this takes so long that the runner ends the test.
#[test]
fn the_keys_of_a_document_are_gone_through_once() {
    let fields: Vec<String> = (0..400_000).map(|at| format!("\"k{at}\":0")).collect();
    let text = format!("{{{},\"k7\":1,\"OS\":\"a\"}}", fields.join(","));
    let mut json = Json::parse(text.as_bytes()).unwrap();
    json.named(&["os"]);
    let value = json.to_value();
    assert_eq!((&value["k7"], &value["os"]), (&json!(1), &json!("a")));
    assert_eq!(value.as_object().unwrap().len(), 400_001);
    let text = format!("{{{}\"Inner\":{{\"a\":5}}}}", "\"inner\":{},".repeat(400_000));
    assert_eq!(sample(&text).unwrap().inner.a, 5);
}
