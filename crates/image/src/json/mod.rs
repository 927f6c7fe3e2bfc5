//! JSON as Go reads it, since Go wrote nearly every image there is and reads nearly all of them.
//!
//! | in the document | Go, and so strata |
//! |---|---|
//! | bytes that are no UTF-8, half a surrogate pair | U+FFFD |
//! | a key in other letters (`RootFS`) | the field of that name |
//! | a key twice | the last counts; two objects are merged |
//! | a key twice, then with `null` | refused: what Go has then depends on the field |
//! | a number that nothing can hold | a number, where no field asks for it |
//! | depth | 10,000 |
//! | a byte order mark, a control character in a string | refused |
//!
//! The tree keeps numbers as they are written and keys in their order, so that a document which
//! is changed in one place keeps the rest.
//!
//! Invariant: nothing here recurses by the depth of the document, which is its author's choice:
//! it is read, written and dropped within the stack of a small thread. So nothing is derived that
//! would.

mod de;
mod read;

use std::collections::HashMap;

use serde::de::DeserializeOwned;
use serde_json::Value;

pub use read::JsonFault;

/// Levels that [`Json::to_value`] keeps apart: more than any document has that means something.
const SHOWN: usize = 100;

/// A document.
#[derive(Default)]
pub struct Json(Node);

#[derive(Default)]
enum Node {
    #[default]
    Null,
    Bool(bool),
    /// As it is written.
    Number(String),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// Reads a document into a type, as Go's `json.Unmarshal` would.
///
/// # Errors
/// What is no JSON, and where; or which field is not as the type has it.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonFault> {
    Json::parse(bytes)?.read()
}

impl Json {
    /// Reads a whole document.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonFault> {
        let (document, end) = read::first(bytes)?;
        match bytes[end..].iter().position(|byte| !read::is_blank(*byte)) {
            Some(at) => Err(JsonFault::at(end + at, "something follows the document")),
            None => Ok(document),
        }
    }

    /// Reads the first document of `bytes` and leaves what follows, as Go's `json.Decoder` does.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn first(bytes: &[u8]) -> Result<Self, JsonFault> {
        read::first(bytes).map(|(document, _)| document)
    }

    /// A string.
    pub fn text(text: impl Into<String>) -> Self {
        Self(Node::Text(text.into()))
    }

    /// A number.
    pub fn number(number: u64) -> Self {
        Self(Node::Number(number.to_string()))
    }

    /// The document as a type.
    ///
    /// # Errors
    /// Which field is not as the type has it.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, JsonFault> {
        T::deserialize(self).map_err(|error| JsonFault::of_type(&error))
    }

    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        matches!(self.0, Node::Null)
    }

    /// Whether it is an object.
    pub fn is_object(&self) -> bool {
        matches!(self.0, Node::Object(_))
    }

    /// The last value of a key of an object, whatever its letters' case.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        let Node::Object(fields) = &mut self.0 else { return None };
        fields.iter_mut().rev().find(|(known, _)| folds(known, key)).map(|(_, value)| value)
    }

    /// The elements of a list; none if it is no list.
    pub fn list_mut(&mut self) -> Option<&mut Vec<Self>> {
        match &mut self.0 {
            Node::List(list) => Some(list),
            _ => None,
        }
    }

    /// Sets a key of an object, in its place if it is there, else at the end; nothing happens to
    /// what is no object.
    pub fn set(&mut self, key: &str, value: Self) {
        let Node::Object(fields) = &mut self.0 else { return };
        let first = fields.iter().position(|(known, _)| folds(known, key));
        let mut at = 0;
        fields.retain(|(known, _)| {
            at += 1;
            Some(at - 1) == first || !folds(known, key)
        });
        match first {
            Some(first) => fields[first] = (key.to_owned(), value),
            None => fields.push((key.to_owned(), value)),
        }
    }

    /// Leaves of an object only the fields whose keys `keep` takes; nothing happens to what is no
    /// object.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        let Node::Object(fields) = &mut self.0 else { return };
        fields.retain(|(key, _)| keep(key));
    }

    /// Writes it without blanks.
    pub fn to_bytes(&self) -> Vec<u8> {
        enum JsonPart<'a> {
            Value(&'a Json),
            Mark(&'static str),
            Key(&'a str),
        }
        let mut out = String::new();
        let mut left = vec![JsonPart::Value(self)];
        while let Some(step) = left.pop() {
            let value = match step {
                JsonPart::Mark(mark) => {
                    out.push_str(mark);
                    continue;
                }
                JsonPart::Key(key) => {
                    out.push_str(&quoted(key));
                    out.push(':');
                    continue;
                }
                JsonPart::Value(value) => value,
            };
            match &value.0 {
                Node::Null => out.push_str("null"),
                Node::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
                Node::Number(text) => out.push_str(text),
                Node::Text(text) => out.push_str(&quoted(text)),
                Node::List(list) => {
                    out.push('[');
                    left.push(JsonPart::Mark("]"));
                    for (at, one) in list.iter().enumerate().rev() {
                        left.push(JsonPart::Value(one));
                        left.extend((at > 0).then_some(JsonPart::Mark(",")));
                    }
                }
                Node::Object(fields) => {
                    out.push('{');
                    left.push(JsonPart::Mark("}"));
                    for (at, (key, one)) in fields.iter().enumerate().rev() {
                        left.push(JsonPart::Value(one));
                        left.push(JsonPart::Key(key));
                        left.extend((at > 0).then_some(JsonPart::Mark(",")));
                    }
                }
            }
        }
        out.into_bytes()
    }

    /// The document to show: numbers that no type holds, and what lies deeper than anybody
    /// reads, as the text that stands there.
    pub fn to_value(&self) -> Value {
        self.value_within(SHOWN)
    }

    fn value_within(&self, levels: usize) -> Value {
        match &self.0 {
            Node::Null => Value::Null,
            Node::Bool(value) => Value::Bool(*value),
            Node::Number(text) => {
                serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()))
            }
            Node::Text(text) => Value::String(text.clone()),
            Node::List(_) | Node::Object(_) if levels == 0 => {
                Value::String(String::from_utf8_lossy(&self.to_bytes()).into_owned())
            }
            Node::List(list) => list.iter().map(|one| one.value_within(levels - 1)).collect(),
            Node::Object(fields) => fields
                .iter()
                .map(|(key, one)| (key.clone(), one.value_within(levels - 1)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }

    /// Gives fields of an object the letters of `names`, as a Go type with those fields does;
    /// several for one name become one.
    pub fn named(&mut self, names: &[&str]) {
        let Node::Object(fields) = &mut self.0 else { return };
        let mut known: Vec<(String, Self)> = Vec::new();
        // A document may have as many keys as it has room for.
        let mut places = HashMap::new();
        for (key, mut value) in std::mem::take(fields) {
            let exact = names.iter().find(|name| **name == key);
            let name = exact.or_else(|| names.iter().find(|name| folds(name, &key)));
            let key = name.map_or(key, |name| (*name).to_owned());
            let at = *places.entry(key.clone()).or_insert(known.len());
            match known.get_mut(at) {
                Some((_, before)) => match (&mut before.0, &mut value.0) {
                    (Node::Object(first), Node::Object(second)) => first.append(second),
                    _ => *before = value,
                },
                None => known.push((key, value)),
            }
        }
        *fields = known;
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        Self(match value {
            Value::Null => Node::Null,
            Value::Bool(value) => Node::Bool(value),
            Value::Number(number) => Node::Number(number.to_string()),
            Value::String(text) => Node::Text(text),
            Value::Array(list) => Node::List(list.into_iter().map(Self::from).collect()),
            Value::Object(fields) => Node::Object(
                fields.into_iter().map(|(key, value)| (key, Self::from(value))).collect(),
            ),
        })
    }
}

impl Drop for Json {
    fn drop(&mut self) {
        let mut left = Vec::new();
        take_children(&mut self.0, &mut left);
        while let Some(mut one) = left.pop() {
            take_children(&mut one.0, &mut left);
        }
    }
}

fn take_children(node: &mut Node, left: &mut Vec<Json>) {
    match node {
        Node::List(list) => left.append(list),
        Node::Object(fields) => left.extend(fields.drain(..).map(|(_, value)| value)),
        Node::Null | Node::Bool(_) | Node::Number(_) | Node::Text(_) => {}
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Whether Go takes the two for one key: letters in any case, with the two beyond ASCII that fold
/// to one of it.
fn folds(a: &str, b: &str) -> bool {
    let fold = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    a.chars().map(fold).eq(b.chars().map(fold))
}

#[cfg(test)]
mod tests;
