//! The bytes of a document to a tree, in one pass and with a stack of its own.
//!
//! Invariants: every byte that is taken belongs to the document; nothing deeper than [`DEPTH`]
//! is kept.

use std::fmt;

use super::{Json, Node};

/// As deep as Go reads.
const DEPTH: usize = 10_000;

/// What is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonFault {
    /// The byte at which it is met, if it is the syntax.
    at: Option<usize>,
    what: String,
}

impl JsonFault {
    pub(super) fn at(at: usize, what: impl Into<String>) -> Self {
        Self { at: Some(at), what: what.into() }
    }

    pub(super) fn of_type(what: &impl ToString) -> Self {
        Self { at: None, what: what.to_string() }
    }
}

impl fmt::Display for JsonFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(at) => write!(f, "{} at byte {at}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

impl std::error::Error for JsonFault {}

pub(super) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// A list or object that is being read.
enum Open {
    List(Vec<Json>),
    Object(Vec<(String, Json)>, String),
}

/// The first document, and where it ends.
pub(super) fn first(bytes: &[u8]) -> Result<(Json, usize), JsonFault> {
    let mut reader = Reader { bytes, at: 0 };
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(JsonFault::at(0, "a byte order mark, which JSON does not have,"));
    }
    let mut open: Vec<Open> = Vec::new();
    loop {
        let mut value = match reader.next()? {
            b'[' => {
                reader.check_depth(open.len() + 1)?;
                reader.at += 1;
                match reader.next()? {
                    b']' => reader.take(Json(Node::List(Vec::new()))),
                    _ => {
                        open.push(Open::List(Vec::new()));
                        continue;
                    }
                }
            }
            b'{' => {
                reader.check_depth(open.len() + 1)?;
                reader.at += 1;
                match reader.next()? {
                    b'}' => reader.take(Json(Node::Object(Vec::new()))),
                    _ => {
                        let key = reader.key()?;
                        open.push(Open::Object(Vec::new(), key));
                        continue;
                    }
                }
            }
            _ => reader.scalar()?,
        };
        // The value ends each list or object whose last element it is.
        loop {
            let Some(top) = open.pop() else { return Ok((value, reader.at)) };
            let next = reader.next()?;
            match (top, next) {
                (Open::List(mut list), b',' | b']') => {
                    list.push(value);
                    reader.at += 1;
                    if next == b',' {
                        open.push(Open::List(list));
                        break;
                    }
                    value = Json(Node::List(list));
                }
                (Open::Object(mut fields, key), b',' | b'}') => {
                    fields.push((key, value));
                    reader.at += 1;
                    if next == b',' {
                        let key = reader.key()?;
                        open.push(Open::Object(fields, key));
                        break;
                    }
                    value = Json(Node::Object(fields));
                }
                _ => return Err(reader.expected("a comma or the end of a list or object")),
            }
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    /// The next byte that is no blank, not taken.
    fn next(&mut self) -> Result<u8, JsonFault> {
        while self.bytes.get(self.at).is_some_and(|byte| is_blank(*byte)) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied().ok_or_else(|| self.early())
    }

    /// Takes one byte, which ended `value`.
    fn take(&mut self, value: Json) -> Json {
        self.at += 1;
        value
    }

    fn early(&self) -> JsonFault {
        JsonFault::at(self.bytes.len(), "it ends too early,")
    }

    fn expected(&self, what: &str) -> JsonFault {
        JsonFault::at(self.at, format!("no JSON: expected {what}"))
    }

    fn check_depth(&self, depth: usize) -> Result<(), JsonFault> {
        match depth > DEPTH {
            true => Err(JsonFault::at(self.at, format!("more than {DEPTH} levels"))),
            false => Ok(()),
        }
    }

    /// A key and its colon.
    fn key(&mut self) -> Result<String, JsonFault> {
        if self.next()? != b'"' {
            return Err(self.expected("a key in double quotes"));
        }
        let key = self.string()?;
        if self.next()? != b':' {
            return Err(self.expected("a colon"));
        }
        self.at += 1;
        Ok(key)
    }

    fn scalar(&mut self) -> Result<Json, JsonFault> {
        let rest = &self.bytes[self.at..];
        for (word, node) in
            [(&b"null"[..], Node::Null), (b"true", Node::Bool(true)), (b"false", Node::Bool(false))]
        {
            if rest.starts_with(word) {
                self.at += word.len();
                return Ok(Json(node));
            }
        }
        match rest[0] {
            b'"' => self.string().map(|text| Json(Node::Text(text))),
            b'-' | b'0'..=b'9' => self.number(),
            _ => Err(self.expected("a value")),
        }
    }

    fn number(&mut self) -> Result<Json, JsonFault> {
        let from = self.at;
        self.skip(|byte| byte == b'-', Some(1));
        if self.bytes.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.skip(|byte| byte == b'.', Some(1)) > 0 {
            self.digits()?;
        }
        if self.skip(|byte| matches!(byte, b'e' | b'E'), Some(1)) > 0 {
            self.skip(|byte| matches!(byte, b'+' | b'-'), Some(1));
            self.digits()?;
        }
        let text = String::from_utf8_lossy(&self.bytes[from..self.at]).into_owned();
        Ok(Json(Node::Number(text)))
    }

    fn digits(&mut self) -> Result<(), JsonFault> {
        match self.skip(|byte| byte.is_ascii_digit(), None) {
            0 => Err(self.expected("a digit")),
            _ => Ok(()),
        }
    }

    fn skip(&mut self, is: impl Fn(u8) -> bool, most: Option<usize>) -> usize {
        let rest = self.bytes[self.at..].iter().take(most.unwrap_or(usize::MAX));
        let count = rest.take_while(|byte| is(**byte)).count();
        self.at += count;
        count
    }

    /// A string, from its opening quote.
    fn string(&mut self) -> Result<String, JsonFault> {
        self.at += 1;
        let mut text = String::new();
        loop {
            let from = self.at;
            self.skip(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20), None);
            for chunk in self.bytes[from..self.at].utf8_chunks() {
                text.push_str(chunk.valid());
                text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
            }
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => text.push(self.escape()?),
                Some(_) => return Err(self.expected("no control character in a string")),
                None => return Err(self.early()),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonFault> {
        let escaped = *self.bytes.get(self.at + 1).ok_or_else(|| self.early())?;
        let plain = match escaped {
            b'"' | b'\\' | b'/' => char::from(escaped),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.unit().ok_or_else(|| self.expected("four digits after \\u"))?;
                self.at += 6;
                if !(0xd800..0xdc00).contains(&unit) {
                    return Ok(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                // Half a pair without its other half stands for nothing, and the next counts.
                let Some(low) = self.unit().filter(|low| (0xdc00..0xe000).contains(low)) else {
                    return Ok(char::REPLACEMENT_CHARACTER);
                };
                self.at += 6;
                let whole = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                return Ok(char::from_u32(whole).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            _ => return Err(self.expected("an escape that JSON knows")),
        };
        self.at += 2;
        Ok(plain)
    }

    /// The number of `\uXXXX`, not taken.
    fn unit(&self) -> Option<u32> {
        let digits = self.bytes.get(self.at..self.at + 6)?.strip_prefix(b"\\u")?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }
}
