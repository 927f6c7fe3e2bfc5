//! Documents as docker prints them: JSON with the keys in their order, and what a template sees.
//!
//! docker's documents are Go's structs. A struct has all its fields in a template, also those that
//! JSON leaves out when they are empty; its keys keep their order in JSON; and a list or map that
//! is not set is `[]` or `map[]` in a template and `null` in JSON.
//!
//! ```text
//! Record [ Field Labels: NilMap, Field Shell: NilList, left out ]
//!   in JSON        {"Labels":null}
//!   in a template  {{.Labels}} map[]   {{.Shell}} []   {{json .Shell}} null
//! ```
//!
//! [`Values`] makes what the template engine works on, whose maps are sorted and know no order: it
//! remembers for each what JSON is made of it.
//!
//! Invariants: `{{json .X}}` prints the same bytes as the part X of the printed document; no JSON
//! has a character by which what an image says could steer a terminal.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use gotmpl::{ToSerdeValue, Value};
use jiff::Timestamp;
use serde::Serialize;
use serde::ser::{Error as _, SerializeMap, SerializeSeq, Serializer};

/// A value of a document.
#[derive(Debug, Clone)]
pub(crate) enum Document {
    /// What is the same in both; maps in it are sorted.
    Plain(serde_json::Value),
    /// `None` is Go's zero time.
    Time(Option<Timestamp>),
    /// Nanoseconds; Go prints them as `1m30s`.
    Duration(i64),
    /// Go's map of any keys: one that it lacks is no error in a template.
    Map(serde_json::Map<String, serde_json::Value>),
    /// Go's map of empty structs.
    Set(BTreeSet<String>),
    /// An empty struct.
    Unit,
    List(Vec<Document>),
    NilList,
    NilMap,
    NilPointer,
    Record(Vec<Field>),
}

/// A field of a record.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    name: Cow<'static, str>,
    /// What Go calls it, where JSON calls it differently.
    also: Option<&'static str>,
    value: Document,
    in_json: bool,
}

impl Field {
    pub(crate) fn new(name: impl Into<Cow<'static, str>>, value: impl Into<Document>) -> Self {
        Self { name: name.into(), also: None, value: value.into(), in_json: true }
    }

    /// Left out of JSON where `is_empty`.
    pub(crate) fn unless(mut self, is_empty: bool) -> Self {
        self.in_json = !is_empty;
        self
    }

    /// With a second name for templates.
    pub(crate) fn also(mut self, name: &'static str) -> Self {
        self.also = Some(name);
        self
    }
}

impl<T: Into<serde_json::Value>> From<T> for Document {
    fn from(value: T) -> Self {
        Self::Plain(value.into())
    }
}

/// As Go prints it, to the second.
fn go_time(time: Option<Timestamp>) -> String {
    match time {
        None => "0001-01-01 00:00:00 +0000 UTC".to_owned(),
        Some(time) => time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string(),
    }
}

/// As Go prints a duration: `1h2m3.5s`, `250ms`.
fn go_duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let all = nanoseconds.unsigned_abs();
    let decimal = |value: u64, unit: u64| {
        let fraction = format!("{:0width$}", value % unit, width = unit.ilog10() as usize);
        match fraction.trim_end_matches('0') {
            "" => (value / unit).to_string(),
            fraction => format!("{}.{fraction}", value / unit),
        }
    };
    match all {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{all}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", decimal(all, 1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", decimal(all, 1_000_000)),
        _ => {
            let minutes = all / 60_000_000_000;
            let seconds = decimal(all % 60_000_000_000, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Plain(value) => value.serialize(serializer),
            Self::Map(map) => map.serialize(serializer),
            Self::Time(None) => serializer.serialize_str("0001-01-01T00:00:00Z"),
            Self::Time(Some(time)) => serializer.collect_str(time),
            Self::Duration(nanoseconds) => serializer.serialize_i64(*nanoseconds),
            Self::Set(names) => serializer.collect_map(names.iter().map(|one| (one, Self::Unit))),
            Self::Unit => serializer.serialize_map(Some(0))?.end(),
            Self::List(list) => {
                let mut all = serializer.serialize_seq(Some(list.len()))?;
                list.iter().try_for_each(|one| all.serialize_element(one))?;
                all.end()
            }
            Self::NilList | Self::NilMap | Self::NilPointer => serializer.serialize_unit(),
            Self::Record(fields) => {
                let mut all = serializer.serialize_map(None)?;
                for field in fields.iter().filter(|field| field.in_json) {
                    all.serialize_entry(&*field.name, &field.value)?;
                }
                all.end()
            }
        }
    }
}

/// Prints documents as one JSON list, to read; docker indents by four.
///
/// # Errors
/// `out` refuses.
pub(crate) fn print(documents: &[Document], out: &mut dyn Write) -> Result<()> {
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let to = TameJson::new(&mut *out);
    documents.serialize(&mut serde_json::Serializer::with_formatter(to, indent))?;
    Ok(writeln!(out)?)
}

/// Whether JSON may have a character in a text as it is, and a terminal does something with it:
/// DEL, the controls of 8 bits, and what turns the direction of writing.
fn steers(c: char) -> bool {
    matches!(c, '\u{7f}'..='\u{9f}' | '\u{61c}' | '\u{200e}' | '\u{200f}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// JSON with those characters as `\u009b`, which is the same to who reads it.
fn tame(json: &str) -> Cow<'_, str> {
    if !json.contains(steers) {
        return Cow::Borrowed(json);
    }
    let mut tame = String::with_capacity(json.len() + 8);
    for c in json.chars() {
        match steers(c) {
            // Writing to a String cannot fail.
            true => write!(tame, "\\u{:04x}", u32::from(c)).unwrap_or_default(),
            false => tame.push(c),
        }
    }
    Cow::Owned(tame)
}

/// Writes JSON on, tame. Such characters are in texts alone, so it need not know where it is.
pub(crate) struct TameJson<W> {
    to: W,
    /// The beginning of a character.
    begun: Vec<u8>,
}

impl<W> TameJson<W> {
    pub(crate) fn new(to: W) -> Self {
        Self { to, begun: Vec::new() }
    }
}

impl<W: Write> Write for TameJson<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let all = [&std::mem::take(&mut self.begun), bytes].concat();
        for chunk in all.utf8_chunks() {
            self.to.write_all(tame(chunk.valid()).as_bytes())?;
            // What is no text is none of ours.
            match std::str::from_utf8(chunk.invalid()) {
                Err(error) if error.error_len().is_none() => self.begun = chunk.invalid().to_vec(),
                Ok(_) | Err(_) => self.to.write_all(chunk.invalid())?,
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// What a template works on, and the JSON of it.
#[derive(Debug)]
pub(crate) struct Values {
    /// What a map or text was made of, by its place; it is held, so that no other comes to be
    /// there.
    origins: HashMap<usize, (Value, Document)>,
    nil: Arc<[Value]>,
    /// Keys that maps are given.
    keys: BTreeSet<String>,
}

impl Values {
    pub(crate) fn new() -> Self {
        Self { origins: HashMap::new(), nil: Arc::from(Vec::new()), keys: BTreeSet::new() }
    }

    /// The value of a document where each of Go's maps, which may have any key, has those too; a
    /// record has its own alone.
    ///
    /// # Errors
    /// As [`Values::of`].
    pub(crate) fn with_keys(
        &mut self,
        document: &Document,
        keys: &BTreeSet<String>,
    ) -> Result<Value> {
        self.keys.clone_from(keys);
        let value = self.of(document);
        self.keys.clear();
        value
    }

    /// The value of a document.
    ///
    /// # Errors
    /// A number is too large for a template.
    pub(crate) fn of(&mut self, document: &Document) -> Result<Value> {
        let unfit = "cannot give a value to --format";
        Ok(match document {
            Document::Plain(value) => value.to_serde_value().context(unfit)?,
            Document::Time(time) => self.text(go_time(*time), document),
            Document::Duration(nanoseconds) => self.text(go_duration(*nanoseconds), document),
            Document::Unit => self.text("{}".to_owned(), document),
            Document::Map(map) => {
                let value = |one: &serde_json::Value| one.to_serde_value().context(unfit);
                let map = map.iter().map(|(name, one)| Ok((Arc::from(&**name), value(one)?)));
                self.go_map(map.collect::<Result<_>>()?, document)
            }
            Document::Set(names) => {
                let one = self.of(&Document::Unit)?;
                let names = names.iter().map(|name| (Arc::from(&**name), one.clone()));
                self.go_map(names.collect(), document)
            }
            Document::List(list) => {
                Value::List(list.iter().map(|one| self.of(one)).collect::<Result<_>>()?)
            }
            Document::NilList => Value::List(self.nil.clone()),
            Document::NilPointer => Value::Nil,
            Document::NilMap => self.go_map(BTreeMap::new(), document),
            Document::Record(fields) => {
                let mut map = BTreeMap::new();
                for field in fields {
                    let value = self.of(&field.value)?;
                    for name in field.also.into_iter().chain([&*field.name]) {
                        map.insert(Arc::from(name), value.clone());
                    }
                }
                self.map(map, document)
            }
        })
    }

    fn text(&mut self, text: String, document: &Document) -> Value {
        let text: Arc<str> = text.into();
        let origin = (Value::String(text.clone()), document.clone());
        self.origins.insert(Arc::as_ptr(&text).addr(), origin);
        Value::String(text)
    }

    fn go_map(&mut self, mut map: BTreeMap<Arc<str>, Value>, document: &Document) -> Value {
        for key in &self.keys {
            map.entry(Arc::from(&**key)).or_insert(Value::Nil);
        }
        self.map(map, document)
    }

    fn map(&mut self, map: BTreeMap<Arc<str>, Value>, document: &Document) -> Value {
        let map = Arc::new(map);
        let origin = (Value::Map(map.clone()), document.clone());
        self.origins.insert(Arc::as_ptr(&map).addr(), origin);
        Value::Map(map)
    }

    /// The JSON of a value, and of any that is in none of the documents.
    ///
    /// # Errors
    /// It is no data, such as a function.
    pub(crate) fn json(&self, value: &Value) -> std::result::Result<String, serde_json::Error> {
        let json = serde_json::to_string(&Shown { value, values: self })?;
        Ok(match tame(&json) {
            Cow::Borrowed(_) => json,
            Cow::Owned(tame) => tame,
        })
    }
}

/// A value on its way to JSON.
struct Shown<'a> {
    value: &'a Value,
    values: &'a Values,
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let shown = |value| Shown { value, values: self.values };
        match self.value {
            Value::Nil => serializer.serialize_unit(),
            Value::Bool(one) => serializer.serialize_bool(*one),
            Value::Int(one) => serializer.serialize_i64(*one),
            Value::Uint(one) => serializer.serialize_u64(*one),
            Value::Float(one) => serializer.serialize_f64(*one),
            Value::String(one) => match self.values.origins.get(&Arc::as_ptr(one).addr()) {
                Some((_, document)) => document.serialize(serializer),
                None => serializer.serialize_str(one),
            },
            Value::List(list) if Arc::ptr_eq(list, &self.values.nil) => serializer.serialize_unit(),
            Value::List(list) => serializer.collect_seq(list.iter().map(shown)),
            Value::Map(map) => match self.values.origins.get(&Arc::as_ptr(map).addr()) {
                Some((_, document)) => document.serialize(serializer),
                None => serializer.collect_map(map.iter().map(|(key, one)| (&**key, shown(one)))),
            },
            _ => Err(S::Error::custom("json takes data")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn durations_are_gos() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (7, "7ns"),
            (1_500, "1.5µs"),
            (250_000_000, "250ms"),
            (30_000_000_000, "30s"),
            (-90_500_000_000, "-1m30.5s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(nanoseconds), text);
        }
    }

    #[test]
    fn no_json_steers_a_terminal() {
        let label = "a\u{9b}2J\u{7f}\u{202e}é\u{1f980}\n";
        let document = Document::from(json!({ "Label": label }));
        let tame = "a\\u009b2J\\u007f\\u202eé\u{1f980}\\n";
        let mut printed = Vec::new();
        print(std::slice::from_ref(&document), &mut printed).unwrap();
        let printed = String::from_utf8(printed).unwrap();
        assert!(printed.contains(tame), "{printed}");
        let read: serde_json::Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(read[0]["Label"], label);
        let mut values = Values::new();
        let root = values.of(&document).unwrap();
        assert_eq!(values.json(&root).unwrap(), format!(r#"{{"Label":"{tame}"}}"#));
        // A character may come in pieces.
        let mut pieces = TameJson::new(Vec::new());
        label.as_bytes().chunks(1).for_each(|byte| pieces.write_all(byte).unwrap());
        assert_eq!(String::from_utf8(pieces.to).unwrap(), tame.replace("\\n", "\n"));
    }

    #[test]
    fn a_map_may_be_asked_for_any_key() {
        let document = Document::Record(vec![
            Field::new("Labels", Document::Map(json!({ "a": "b" }).as_object().unwrap().clone())),
            Field::new("Volumes", Document::NilMap),
        ]);
        let print = |text: &str| -> Result<String> {
            let mut out = Vec::new();
            let template = crate::template::Template::parse(text)?;
            template.print_documents(std::slice::from_ref(&document), &mut out)?;
            Ok(String::from_utf8(out)?)
        };
        for (text, wanted) in [
            ("{{.Labels.a}} {{.Labels.x}} {{.Volumes.y}}", "b <no value> <no value>\n"),
            ("{{if .Labels.x}}yes{{else}}no{{end}} {{.Labels}}", "no map[a:b]\n"),
            ("{{with .Labels}}{{.x}}{{range .}}[{{.}}]{{end}}{{end}}", "<no value>[b]\n"),
            ("{{json .Labels}}{{.Labels.x}}", "{\"a\":\"b\"}<no value>\n"),
            ("{{.Labels.x}}{{range .Labels}}{{upper .}}{{end}}", "<no value>B\n"),
        ] {
            assert_eq!(print(text).unwrap(), wanted, "{text}");
        }
        for text in ["{{.Nothing}}", "{{.Labels.x}}{{.x}}"] {
            assert!(print(text).unwrap_err().to_string().contains("no entry for key"), "{text}");
        }
    }

    #[test]
    fn json_has_the_order_and_a_template_all_fields() {
        let inner = Document::Record(vec![
            Field::new("Zero", Document::NilList),
            Field::new("Labels", Document::NilMap),
            Field::new("Shell", Document::NilList).unless(true),
        ]);
        let document = Document::Record(vec![
            Field::new("Id", "x").also("ID"),
            Field::new("Config", inner),
            Field::new("At", Document::Time(None)),
            Field::new("Ports", Document::Set(["80/tcp".to_owned()].into())),
            Field::new("Every", Document::Duration(1_000_000_000)),
            Field::new("Free", json!({ "b": 1, "a": [] })),
        ]);
        let text = r#"{"Id":"x","Config":{"Zero":null,"Labels":null},"At":"0001-01-01T00:00:00Z",
            "Ports":{"80/tcp":{}},"Every":1000000000,"Free":{"a":[],"b":1}}"#
            .replace(['\n', ' '], "");
        assert_eq!(serde_json::to_string(&document).unwrap(), text);
        let mut values = Values::new();
        let root = values.of(&document).unwrap();
        let Value::Map(map) = &root else { panic!("{root:?}") };
        assert_eq!(values.json(&root).unwrap(), text);
        assert_eq!(map["ID"], map["Id"]);
        for (name, printed, text) in [
            ("Ports", "map[80/tcp:{}]", r#"{"80/tcp":{}}"#),
            ("Every", "1s", "1000000000"),
            ("At", "0001-01-01 00:00:00 +0000 UTC", "\"0001-01-01T00:00:00Z\""),
        ] {
            assert_eq!(map[name].to_string(), printed);
            assert_eq!(values.json(&map[name]).unwrap(), text);
        }
        let Value::Map(config) = &map["Config"] else { panic!("{map:?}") };
        assert_eq!(values.json(&map["Config"]).unwrap(), r#"{"Zero":null,"Labels":null}"#);
        for (name, printed, text) in
            [("Zero", "[]", "null"), ("Labels", "map[]", "null"), ("Shell", "[]", "null")]
        {
            assert_eq!(config[name].to_string(), printed, "{name}");
            assert_eq!(values.json(&config[name]).unwrap(), text, "{name}");
        }
        let empty = Value::List(Arc::from(Vec::new()));
        assert_eq!(values.json(&empty).unwrap(), "[]");
    }
}
