//! `--format` with a Go template, as docker takes it.
//!
//! ```text
//! '{{.Repository}}:{{.Tag}}'          one line a row
//! 'table {{.ID}}\t{{.Size}}'          columns with a heading; \t parts them
//! '{{json .}}'                        one JSON object a row
//! ```
//!
//! Beyond Go's own functions there are docker's: `json`, `join`, `split`, `lower`, `upper`,
//! `title`, `truncate`, `pad`.
//!
//! Invariant: a field that a row does not have is an error, not an empty string; a key that a map
//! such as the labels does not have is `<no value>`, as Go prints it.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, anyhow, bail};
use gotmpl::{MissingKey, TemplateError, ToSerdeValue, Value};
use serde::Serialize;

use crate::document::{Document, Values};

/// A template, read.
pub(crate) struct Template {
    text: String,
    inner: gotmpl::Template,
    table: bool,
    /// Those of the documents that it is given, for `json`.
    values: Arc<Mutex<Values>>,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let (table, body) = match text.strip_prefix("table ") {
            Some(rest) => (true, rest.trim_start()),
            None => (false, text),
        };
        // A shell's quotes keep these two as they are written.
        let body = body.replace("\\t", "\t").replace("\\n", "\n");
        let values = Arc::new(Mutex::new(Values::new()));
        let empty = gotmpl::Template::new("").missing_key(MissingKey::Error);
        let inner = functions(empty, values.clone())
            .parse(&body)
            .map_err(|error| anyhow!("--format {text:?} is no template: {error}"))?;
        Ok(Self { text: text.to_owned(), inner, table, values })
    }

    /// Writes every row; `heads` are the fields with their headings, for a table.
    ///
    /// # Errors
    /// The template asks for what the rows do not have, or `out` refuses.
    pub(crate) fn print(
        &self,
        heads: &[(&str, &str)],
        rows: &[impl Serialize],
        out: &mut dyn Write,
    ) -> Result<()> {
        let known = || heads.iter().map(|(field, _)| *field).collect::<Vec<_>>().join(", ");
        let mut lines = Vec::new();
        if self.table {
            let heads = heads.iter().map(|(field, head)| (Arc::from(*field), head.to_value()));
            lines.push(self.row(&Value::Map(Arc::new(heads.collect())), &known)?);
        }
        for row in rows {
            let value = row.to_serde_value().context("cannot give a row to --format")?;
            lines.push(self.row(&value, &known)?);
        }
        if !self.table {
            return lines.iter().try_for_each(|line| Ok(writeln!(out, "{line}")?));
        }
        crate::table::print_columns(&lines, out)
    }

    /// Writes a line for each document.
    ///
    /// # Errors
    /// As of [`Template::print`].
    pub(crate) fn print_documents(
        &self,
        documents: &[Document],
        out: &mut dyn Write,
    ) -> Result<()> {
        for document in documents {
            writeln!(out, "{}", self.document(document)?)?;
        }
        Ok(())
    }

    fn document(&self, document: &Document) -> Result<String> {
        // The engine does not tell a record from a map: it is asked again with the key in all maps,
        // and what lacks it then is a record.
        let mut lacking = BTreeSet::new();
        let text = loop {
            let value = lock(&self.values).with_keys(document, &lacking)?;
            match self.inner.execute_to_string(&value) {
                Err(TemplateError::MissingKey { key }) if lacking.insert(key.clone()) => {}
                text => break text,
            }
        };
        let is_record = matches!(text, Err(TemplateError::MissingKey { .. }));
        if !lacking.is_empty() && !is_record {
            let value = lock(&self.values).of(document)?;
            let lenient = self.inner.clone().missing_key(MissingKey::Invalid);
            return self.told(lenient.execute_to_string(&value), &String::new);
        }
        let text = self.told(text, &String::new)?;
        // The engine knows no pointers, whose `nil` Go prints otherwise than a value that nothing
        // has.
        let is_said = || serde_json::to_string(document).is_ok_and(|all| all.contains(NO_VALUE));
        match text.contains(NO_VALUE) && !is_said() {
            true => Ok(text.replace(NO_VALUE, "<nil>")),
            false => Ok(text),
        }
    }

    fn row(&self, value: &Value, known: &dyn Fn() -> String) -> Result<String> {
        self.told(self.inner.execute_to_string(value), known)
    }

    fn told(
        &self,
        text: std::result::Result<String, TemplateError>,
        known: &dyn Fn() -> String,
    ) -> Result<String> {
        text.map_err(|error| match (known().as_str(), error) {
            ("", error) => anyhow!("--format {:?}: {error}", self.text),
            (known, error) => anyhow!("--format {:?}: {error}; fields are {known}", self.text),
        })
    }
}

fn lock(values: &Mutex<Values>) -> std::sync::MutexGuard<'_, Values> {
    values.lock().unwrap_or_else(PoisonError::into_inner)
}

trait ToValue {
    fn to_value(&self) -> Value;
}

impl ToValue for &str {
    fn to_value(&self) -> Value {
        Value::String(Arc::from(*self))
    }
}

/// What the engine prints of what is not set.
const NO_VALUE: &str = "<no value>";

type Called = std::result::Result<Value, TemplateError>;

fn functions(template: gotmpl::Template, values: Arc<Mutex<Values>>) -> gotmpl::Template {
    let text = |name: &'static str, change: fn(&str) -> String| {
        move |args: &[Value]| -> Called {
            match args {
                [Value::String(one)] => Ok(Value::String(change(one).into())),
                _ => Err(TemplateError::Exec(format!("{name} takes one string"))),
            }
        }
    };
    template
        .func("json", move |args| match args {
            [one] => lock(&values)
                .json(one)
                .map(|text| Value::String(text.into()))
                .map_err(|error| TemplateError::Exec(error.to_string())),
            _ => Err(TemplateError::Exec("json takes one value".to_owned())),
        })
        // As of Go's map of texts, whose zero value is empty; other maps are seldom asked so.
        .func("index", |args| {
            let Some((first, keys)) = args.split_first() else {
                return Err(TemplateError::Exec("index takes a value and keys".to_owned()));
            };
            let mut value = first.clone();
            for key in keys {
                value = match (&value, key) {
                    (Value::Map(map), Value::String(key)) if !map.contains_key(key) => {
                        "".to_value()
                    }
                    _ => value.index(key)?,
                };
            }
            Ok(value)
        })
        .func("join", |args| match args {
            [Value::Nil, Value::String(_)] => Ok("".to_value()),
            [Value::List(list), Value::String(between)] => {
                let all: Vec<String> = list.iter().map(ToString::to_string).collect();
                Ok(Value::String(all.join(between).into()))
            }
            _ => Err(TemplateError::Exec("join takes a list and a separator".to_owned())),
        })
        .func("split", |args| match args {
            [Value::String(text), Value::String(at)] => {
                Ok(Value::List(text.split(&**at).map(|part| part.to_value()).collect()))
            }
            _ => Err(TemplateError::Exec("split takes a string and a separator".to_owned())),
        })
        .func("truncate", |args| match args {
            [Value::String(text), Value::Int(length)] => {
                let length = usize::try_from(*length).unwrap_or(0);
                Ok(Value::String(text.chars().take(length).collect::<String>().into()))
            }
            _ => Err(TemplateError::Exec("truncate takes a string and a length".to_owned())),
        })
        .func("pad", |args| match args {
            [Value::String(text), Value::Int(before), Value::Int(after)] => {
                let spaces = |count: &i64| " ".repeat(usize::try_from(*count).unwrap_or(0));
                Ok(Value::String(format!("{}{text}{}", spaces(before), spaces(after)).into()))
            }
            _ => Err(TemplateError::Exec("pad takes a string and two widths".to_owned())),
        })
        .func("lower", text("lower", |one| one.to_lowercase()))
        .func("upper", text("upper", |one| one.to_uppercase()))
        .func(
            "title",
            text("title", |one| {
                let mut rest = one.chars();
                rest.next()
                    .map_or_else(String::new, |first| first.to_uppercase().chain(rest).collect())
            }),
        )
}

/// Refuses a template where only `table` and `json` exist.
///
/// # Errors
/// Always.
pub(crate) fn refuse<T>(text: &str) -> Result<T> {
    bail!(
        "--format takes table or json here, not {text:?}; templates are for images, inspect, \
           history, ps, search, system df, info and version"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn print(text: &str) -> Result<String> {
        let rows = [
            json!({ "ID": "one", "Size": 5, "Names": ["a", "b"], "In": { "x.y": true } }),
            json!({ "ID": "seventeen", "Size": 6, "Names": [], "In": null }),
        ];
        let mut out = Vec::new();
        let heads = [("ID", "IMAGE ID"), ("Size", "SIZE"), ("Names", "NAMES"), ("In", "IN")];
        Template::parse(text)?.print(&heads, &rows, &mut out)?;
        Ok(String::from_utf8(out)?)
    }

    #[test]
    fn rows_are_as_docker_prints_them() {
        for (text, wanted) in [
            ("{{.ID}}:{{.Size}}", "one:5\nseventeen:6\n"),
            (r"{{.ID}}\t{{.Size}}", "one\t5\nseventeen\t6\n"),
            ("{{json .Names}}", "[\"a\",\"b\"]\n[]\n"),
            ("{{join .Names \"+\"}}", "a+b\n\n"),
            ("{{if .In}}{{index .In \"x.y\"}}{{else}}-{{end}}", "true\n-\n"),
            ("{{range .Names}}<{{.}}>{{end}}", "<a><b>\n\n"),
            ("{{upper .ID | printf \"%s!\"}}", "ONE!\nSEVENTEEN!\n"),
            (
                "{{truncate .ID 3}}{{pad .ID 1 0}}{{title .ID}}",
                "one oneOne\nsev seventeenSeventeen\n",
            ),
            (r"table {{.ID}}\t{{.Size}}", "IMAGE ID    SIZE\none         5\nseventeen   6\n"),
        ] {
            assert_eq!(print(text).unwrap(), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let error = print("{{.Nothing}}").unwrap_err().to_string();
        assert!(error.contains("Nothing") && error.contains("ID, Size"), "{error}");
        assert!(print("{{.ID").unwrap_err().to_string().contains("is no template"));
    }
}
