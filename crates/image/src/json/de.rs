//! A tree as the types of this crate, by Go's rules for keys.
//!
//! Invariant: a field is the last value of its key in any case, objects merged; only what a type
//! asks for is looked at, so that depth and numbers elsewhere do not matter.

use serde::de::value::{Error, MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::{Json, Node, folds};

impl<'de> IntoDeserializer<'de, Error> for &'de Json {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for &'de Json {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.0 {
            Node::Null => visitor.visit_unit(),
            Node::Bool(value) => visitor.visit_bool(*value),
            Node::Number(text) => {
                if let Ok(number) = text.parse() {
                    visitor.visit_u64(number)
                } else if let Ok(number) = text.parse() {
                    visitor.visit_i64(number)
                } else {
                    // Infinite if it is beyond all types, and then none that a field takes.
                    visitor.visit_f64(text.parse().unwrap_or(f64::INFINITY))
                }
            }
            Node::Text(text) => visitor.visit_borrowed_str(text),
            Node::List(list) => visitor.visit_seq(SeqDeserializer::new(list.iter())),
            Node::Object(fields) => {
                let pairs = fields.iter().map(|(key, value)| (key.as_str(), value));
                visitor.visit_map(MapDeserializer::new(pairs))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Node::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.0 {
            Node::Object(fields) => visit_fields(fields.iter(), names, visitor),
            // A derived type would take a list for its fields in order.
            Node::List(_) => Err(Error::custom("a list where an object should be")),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map enum identifier
    }
}

fn visit_fields<'de, V: Visitor<'de>>(
    fields: impl Iterator<Item = &'de (String, Json)>,
    names: &'static [&'static str],
    visitor: V,
) -> Result<V::Value, Error> {
    let mut known: Vec<Field<'de>> = Vec::new();
    for (key, value) in fields {
        let exact = names.iter().find(|name| *name == key);
        let Some(name) = exact.or_else(|| names.iter().find(|name| folds(name, key))) else {
            continue;
        };
        match known.iter_mut().find(|field| field.name == *name) {
            Some(field) => field.again(value)?,
            None => known.push(Field { name, values: vec![value] }),
        }
    }
    visitor.visit_map(MapDeserializer::new(known.into_iter().map(|field| (field.name, field))))
}

/// A field of a struct; several values only if all are objects, which count as one.
struct Field<'de> {
    name: &'static str,
    values: Vec<&'de Json>,
}

impl<'de> Field<'de> {
    /// What Go has after it read one value after the other into the same field.
    fn again(&mut self, value: &'de Json) -> Result<(), Error> {
        // The first tells for all.
        let Some(first) = self.values.first() else { return Ok(()) };
        if value.is_null() && !first.is_null() {
            // A pointer or list is emptied, a string or struct stays as it is.
            return Err(Error::custom(format!("{} stands there twice, then as null", self.name)));
        }
        match first.is_object() && value.is_object() {
            true => self.values.push(value),
            false => self.values = vec![value],
        }
        Ok(())
    }

    fn fields(&self) -> impl Iterator<Item = &'de (String, Json)> + use<'de> {
        self.values.clone().into_iter().flat_map(|value| match &value.0 {
            Node::Object(fields) => fields.as_slice(),
            _ => &[],
        })
    }

    fn one(&self) -> Option<&'de Json> {
        match self.values.as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }
}

impl<'de> IntoDeserializer<'de, Error> for Field<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

fn named(name: &'static str) -> impl Fn(Error) -> Error {
    move |error| Error::custom(format!("{name}: {error}"))
}

impl<'de> Deserializer<'de> for Field<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let read = match self.one() {
            Some(one) => one.deserialize_any(visitor),
            None => visitor.visit_map(MapDeserializer::new(
                self.fields().map(|(key, value)| (key.as_str(), value)),
            )),
        };
        read.map_err(named(self.name))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.one() {
            Some(one) => one.deserialize_option(visitor).map_err(named(self.name)),
            None => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let read = match self.one() {
            Some(one) => one.deserialize_struct(name, names, visitor),
            None => visit_fields(self.fields(), names, visitor),
        };
        read.map_err(named(self.name))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map enum identifier
    }
}
