//! JSON that is read without any leniency, because it says who is trusted.
//!
//! A policy with a misspelt key must not be taken for one without that key, and of two equal keys
//! nobody knows which one counts. So a document becomes a [`StrictValue`], which refuses a key that
//! comes twice at any depth, and then its [`Fields`] are taken one by one: what is left over is an
//! error (github.com/containers/image, `ParanoidUnmarshalJSONObject`, does the same).
//!
//! Invariants: nothing is converted from one type to another; `null` is no text, list or object.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

/// What is wrong with a document, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) String);

/// A JSON value whose objects have each key once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum StrictValue {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<StrictValue>),
    Object(Vec<(String, StrictValue)>),
}

impl StrictValue {
    /// Reads a whole document.
    ///
    /// # Errors
    /// What is no JSON, has a key twice, or goes on behind its end.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        serde_json::from_slice(bytes).map_err(|error| Malformed(error.to_string()))
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }

    fn is_no(&self, wanted: &str, what: &str) -> Malformed {
        Malformed(format!("{what} must be {wanted}, and is {}", self.kind()))
    }

    pub(crate) fn text(self, what: &str) -> Result<String, Malformed> {
        match self {
            Self::Text(text) => Ok(text),
            other => Err(other.is_no("a string", what)),
        }
    }

    pub(crate) fn list(self, what: &str) -> Result<Vec<Self>, Malformed> {
        match self {
            Self::List(list) => Ok(list),
            other => Err(other.is_no("a list", what)),
        }
    }

    pub(crate) fn object(self, what: &str) -> Result<Vec<(String, Self)>, Malformed> {
        match self {
            Self::Object(fields) => Ok(fields),
            other => Err(other.is_no("an object", what)),
        }
    }

    pub(crate) fn integer(self, what: &str) -> Result<i64, Malformed> {
        match self {
            Self::Number(number) => {
                number.as_i64().ok_or_else(|| Malformed(format!("{what} must be an integer")))
            }
            other => Err(other.is_no("an integer", what)),
        }
    }

    /// Bytes in base64, as Go writes them; line breaks in it do not count.
    pub(crate) fn bytes(self, what: &str) -> Result<Vec<u8>, Malformed> {
        let text = self.text(what)?;
        decoded(&text).ok_or_else(|| Malformed(format!("{what} must be base64")))
    }
}

/// Standard base64 without regard to line breaks.
pub(crate) fn decoded(text: &str) -> Option<Vec<u8>> {
    let plain: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    STANDARD.decode(plain).ok()
}

impl<'de> Deserialize<'de> for StrictValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = StrictValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }

            fn visit_unit<E>(self) -> Result<StrictValue, E> {
                Ok(StrictValue::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<StrictValue, E> {
                Ok(StrictValue::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<StrictValue, E> {
                Ok(StrictValue::Number(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<StrictValue, E> {
                Ok(StrictValue::Number(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<StrictValue, E> {
                Ok(Number::from_f64(value).map_or(StrictValue::Null, StrictValue::Number))
            }

            fn visit_str<E>(self, value: &str) -> Result<StrictValue, E> {
                Ok(StrictValue::Text(value.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<StrictValue, A::Error> {
                let mut list = Vec::new();
                while let Some(value) = all.next_element()? {
                    list.push(value);
                }
                Ok(StrictValue::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<StrictValue, A::Error> {
                let mut fields: Vec<(String, StrictValue)> = Vec::new();
                let mut seen = std::collections::HashSet::new();
                while let Some((key, value)) = all.next_entry::<String, StrictValue>()? {
                    if !seen.insert(key.clone()) {
                        return Err(A::Error::custom(format!("the key {key:?} comes twice")));
                    }
                    fields.push((key, value));
                }
                Ok(StrictValue::Object(fields))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// The fields of an object, to be taken until none is left.
pub(crate) struct Fields {
    what: String,
    left: Vec<(String, StrictValue)>,
}

impl Fields {
    /// Those of an object, which messages call `what`.
    ///
    /// # Errors
    /// If it is none.
    pub(crate) fn of(value: StrictValue, what: &str) -> Result<Self, Malformed> {
        Ok(Self { what: what.to_owned(), left: value.object(what)? })
    }

    fn name(&self, key: &str) -> String {
        format!("{key:?} of {}", self.what)
    }

    pub(crate) fn take(&mut self, key: &str) -> Option<StrictValue> {
        let at = self.left.iter().position(|(known, _)| known == key)?;
        Some(self.left.swap_remove(at).1)
    }

    /// # Errors
    /// If it is not there.
    pub(crate) fn need(&mut self, key: &str) -> Result<StrictValue, Malformed> {
        let missing = format!("{} is missing", self.name(key));
        self.take(key).ok_or(Malformed(missing))
    }

    /// # Errors
    /// If it is not there, or no string.
    pub(crate) fn text(&mut self, key: &str) -> Result<String, Malformed> {
        let name = self.name(key);
        self.need(key)?.text(&name)
    }

    /// # Errors
    /// If it is there and no string.
    pub(crate) fn text_if_any(&mut self, key: &str) -> Result<Option<String>, Malformed> {
        let name = self.name(key);
        self.take(key).map(|value| value.text(&name)).transpose()
    }

    /// # Errors
    /// If it is there and no list of strings.
    pub(crate) fn texts_if_any(&mut self, key: &str) -> Result<Option<Vec<String>>, Malformed> {
        let name = self.name(key);
        let Some(value) = self.take(key) else { return Ok(None) };
        let texts = value.list(&name)?.into_iter().map(|one| one.text(&name));
        texts.collect::<Result<_, _>>().map(Some)
    }

    /// # Errors
    /// If it is there and no base64.
    pub(crate) fn bytes_if_any(&mut self, key: &str) -> Result<Option<Vec<u8>>, Malformed> {
        let name = self.name(key);
        self.take(key).map(|value| value.bytes(&name)).transpose()
    }

    /// # Errors
    /// If it is there and no list of base64.
    pub(crate) fn byte_lists_if_any(
        &mut self,
        key: &str,
    ) -> Result<Option<Vec<Vec<u8>>>, Malformed> {
        let name = self.name(key);
        let Some(value) = self.take(key) else { return Ok(None) };
        let all = value.list(&name)?.into_iter().map(|one| one.bytes(&name));
        all.collect::<Result<_, _>>().map(Some)
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// What has not been taken: a key that nobody knows.
    pub(crate) fn end(self) -> Result<(), Malformed> {
        match self.left.first() {
            None => Ok(()),
            Some((key, _)) => Err(Malformed(format!("{} has the unknown key {key:?}", self.what))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_exactly_so_is_refused() {
        for bad in ["", "{", "{}x", "[1,]", r#"{"a":1,"a":1}"#, r#"[{"a":{"b":1,"b":2}}]"#] {
            assert!(StrictValue::read(bad.as_bytes()).is_err(), "{bad}");
        }
        let read = |text: &str| StrictValue::read(text.as_bytes()).unwrap();
        let mut fields = Fields::of(read(r#"{"a":"x","b":["y"],"c":"eA==","d":1}"#), "it").unwrap();
        assert_eq!(fields.text("a").unwrap(), "x");
        assert_eq!(fields.texts_if_any("b").unwrap().unwrap(), ["y"]);
        assert_eq!(fields.bytes_if_any("c").unwrap().unwrap(), b"x");
        assert!(fields.text("z").unwrap_err().0.contains(r#""z" of it is missing"#));
        assert!(fields.end().unwrap_err().0.contains(r#"unknown key "d""#));
        for (text, key) in [(r#"{"a":null}"#, "a"), (r#"{"a":1}"#, "a"), (r#"{"a":[]}"#, "a")] {
            assert!(Fields::of(read(text), "it").unwrap().text(key).is_err(), "{text}");
        }
        assert!(Fields::of(read("[]"), "it").is_err());
    }
}
