//! containerd's filters: which snapshots a listing is of.
//!
//! ```text
//! filter    := selector ("," selector)*            all of them
//! selector  := path (("==" | "!=" | "~=") value)?  without an operator: the field is there
//! path      := field ("." field)*
//! field     := quoted | [A-Za-z][A-Za-z0-9_]+
//! value     := quoted | [^\s,]+                     "~=" is a regular expression
//! quoted    := a string of Go; after "~=" also |...| and /.../
//! ```
//!
//! The grammar is that of containerd's package `filters`. Of several filters, one has to match.
//!
//! Invariant: a filter that cannot be read is an error, never one that matches nothing.

use std::str::CharIndices;

use regex_lite::Regex;

use crate::error::{Error, Result};
use crate::state::SnapshotRow;

/// Several filters, read.
pub(crate) struct SnapshotFilters(Vec<Vec<Selector>>);

struct Selector {
    path: Vec<String>,
    test: Test,
}

enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

impl SnapshotFilters {
    /// Reads filters.
    pub(crate) fn parse(texts: &[String]) -> Result<Self> {
        let mut filters = Vec::new();
        for text in texts {
            let wrong = |(at, why): (usize, String)| {
                Error::InvalidArgument(format!("filter {text:?}: at byte {at}: {why}"))
            };
            filters.push(match text.as_str() {
                "" => Vec::new(),
                _ => Parser { text, at: 0 }.selectors().map_err(wrong)?,
            });
        }
        Ok(Self(filters))
    }

    /// Whether one of them is true of the snapshot; no filter is true of all.
    pub(crate) fn matches(&self, snapshot: &SnapshotRow) -> bool {
        let all = |filter: &Vec<Selector>| filter.iter().all(|one| one.matches(snapshot));
        self.0.is_empty() || self.0.iter().any(all)
    }
}

impl Selector {
    fn matches(&self, snapshot: &SnapshotRow) -> bool {
        let value = field(snapshot, &self.path);
        match &self.test {
            Test::Present => value.is_some(),
            Test::Equal(wanted) => value.as_deref() == Some(wanted),
            Test::NotEqual(wanted) => value.unwrap_or_default() != *wanted,
            Test::Matches(wanted) => wanted.is_match(&value.unwrap_or_default()),
        }
    }
}

/// A field of a snapshot, by its path.
fn field(snapshot: &SnapshotRow, path: &[String]) -> Option<String> {
    let (first, rest) = path.split_first()?;
    match first.as_str() {
        "kind" => Some(snapshot.kind.name().to_owned()),
        "name" => Some(snapshot.name.clone()),
        "parent" => Some(snapshot.parent.clone()),
        "labels" => snapshot.labels.get(&rest.join(".")).cloned(),
        _ => None,
    }
}

type Parsed<T> = std::result::Result<T, (usize, String)>;

struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn wrong<T>(&self, why: &str) -> Parsed<T> {
        Err((self.at, why.to_owned()))
    }

    fn eat(&mut self, what: &str) -> bool {
        let there = self.rest().starts_with(what);
        if there {
            self.at += what.len();
        }
        there
    }

    fn selectors(mut self) -> Parsed<Vec<Selector>> {
        let mut all = vec![self.selector()?];
        while self.eat(",") {
            all.push(self.selector()?);
        }
        match self.rest() {
            "" => Ok(all),
            _ => self.wrong("a comma or the end was expected"),
        }
    }

    fn selector(&mut self) -> Parsed<Selector> {
        let mut path = vec![self.field()?];
        while self.eat(".") {
            path.push(self.field()?);
        }
        let test = if self.eat("==") {
            Test::Equal(self.value(false)?)
        } else if self.eat("!=") {
            Test::NotEqual(self.value(false)?)
        } else if self.eat("~=") {
            let at = self.at;
            let value = self.value(true)?;
            Test::Matches(Regex::new(&value).map_err(|error| (at, error.to_string()))?)
        } else {
            Test::Present
        };
        Ok(Selector { path, test })
    }

    fn field(&mut self) -> Parsed<String> {
        if self.rest().starts_with(['"', '\'']) {
            return self.quoted();
        }
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let rest = self.rest();
        let end = rest.find(|c| !inner(c)).unwrap_or(rest.len());
        let word = rest.get(..end).unwrap_or_default().to_owned();
        if !word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            return self.wrong("a field was expected");
        }
        self.at += end;
        Ok(word)
    }

    fn value(&mut self, expression: bool) -> Parsed<String> {
        let rest = self.rest();
        if rest.starts_with(['"', '\'']) || expression && rest.starts_with(['|', '/']) {
            return self.quoted();
        }
        let end = rest.find(|c: char| c == ',' || c.is_whitespace()).unwrap_or(rest.len());
        let word = rest.get(..end).unwrap_or_default().to_owned();
        if word.is_empty() {
            return self.wrong("a value was expected");
        }
        self.at += end;
        Ok(word)
    }

    /// A string as Go writes it, with its quotes.
    fn quoted(&mut self) -> Parsed<String> {
        let mut chars = self.rest().char_indices();
        let Some((_, quote)) = chars.next() else { return self.wrong("a quote was expected") };
        let mut bytes = Vec::new();
        let mut buffer = [0; 4];
        while let Some((at, c)) = chars.next() {
            if c == quote {
                let text = String::from_utf8(bytes);
                let Ok(text) = text else { return self.wrong("the string is not UTF-8") };
                self.at += at + quote.len_utf8();
                return Ok(text);
            }
            if c != '\\' {
                bytes.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
                continue;
            }
            let Some((_, escaped)) = chars.next() else { break };
            let done = match escaped {
                'a' => Some(vec![7]),
                'b' => Some(vec![8]),
                'f' => Some(vec![12]),
                'n' => Some(vec![b'\n']),
                'r' => Some(vec![b'\r']),
                't' => Some(vec![b'\t']),
                'v' => Some(vec![11]),
                '\\' => Some(vec![b'\\']),
                'x' => byte(digits(&mut chars, 2, 16, "")),
                '0'..='7' => byte(digits(&mut chars, 2, 8, escaped.encode_utf8(&mut buffer))),
                'u' => letter(digits(&mut chars, 4, 16, "")),
                'U' => letter(digits(&mut chars, 8, 16, "")),
                c if c == quote => letter(Some(u32::from(c))),
                _ => None,
            };
            let Some(done) = done else {
                return self.wrong("the string has an escape that Go does not know");
            };
            bytes.extend(done);
        }
        self.wrong("the string has no end")
    }
}

/// A number of `count` further digits, behind `first`.
fn digits(chars: &mut CharIndices<'_>, count: usize, base: u32, first: &str) -> Option<u32> {
    let further: String = chars.by_ref().take(count).map(|(_, c)| c).collect();
    let all = format!("{first}{further}");
    (further.chars().count() == count).then(|| u32::from_str_radix(&all, base).ok())?
}

fn byte(code: Option<u32>) -> Option<Vec<u8>> {
    Some(vec![u8::try_from(code?).ok()?])
}

fn letter(code: Option<u32>) -> Option<Vec<u8>> {
    Some(char::from_u32(code?)?.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{SnapshotId, SnapshotKind, SnapshotUsage};

    fn snapshot() -> SnapshotRow {
        let labels = [("l", "1"), ("containerd.io/snapshot.ref", "sha256:ab")];
        SnapshotRow {
            id: SnapshotId(1),
            name: "default/7/a b".to_owned(),
            parent: "p".to_owned(),
            kind: SnapshotKind::Active,
            created: 0,
            updated: 0,
            labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            layers: Vec::new(),
            usage: SnapshotUsage::default(),
        }
    }

    fn matches(filters: &[&str]) -> Result<bool> {
        let filters: Vec<String> = filters.iter().map(|filter| (*filter).to_owned()).collect();
        Ok(SnapshotFilters::parse(&filters)?.matches(&snapshot()))
    }

    #[test]
    fn fields_are_compared() {
        for (filters, wanted) in [
            (&[][..], true),
            (&[""], true),
            (&["kind==active"], true),
            (&["kind==view", "name==\"default/7/a b\""], true),
            (&["kind==active,parent==q"], false),
            (&["parent!=\"\""], true),
            (&["labels.l"], true),
            (&["labels.m"], false),
            (&["labels.m!=1"], true),
            (&["labels.\"containerd.io/snapshot.ref\"==sha256:ab,parent==\"p\""], true),
            (&["labels.\"containerd.io/snapshot.ref\"~=/^sha256:a.$/"], true),
            (&["name==\"default/7/a\\x20b\""], true),
            (&["name==\"default/7/a\\u0020b\""], true),
            (&["name==\"default/7/a\\040b\""], true),
            (&["unknown==1"], false),
        ] {
            assert_eq!(matches(filters).unwrap(), wanted, "{filters:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for filter in ["==1", "name==", "name=1", "name==\"a", "name~=[", "a,", "name==\"\\q\""] {
            let error = matches(&[filter]).unwrap_err();
            assert!(matches!(error, Error::InvalidArgument(_)), "{filter}: {error}");
        }
    }
}
