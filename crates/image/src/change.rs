//! `--change`: one line of a Dockerfile, applied to an image's config.
//!
//! The instructions are those that `docker commit --change` takes, in docker's grammar: lists as
//! JSON or as words, `KEY=VALUE` pairs with quotes, a command in shell form as `/bin/sh -c`.
//!
//! Invariant: a line is read whole before anything is changed; what a config says beside the one
//! field stays as it is.

use std::str::FromStr;

use serde_json::{Map, Value, json};

use crate::json::Json;

/// One line of a Dockerfile, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigChange(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// A field, as it is from now on.
    Set(&'static str, Value),
    Cmd(Value),
    Entrypoint(Value),
    /// The variables, by name.
    Env(Vec<(String, String)>),
    /// Keys of a map with a value each.
    Keys(&'static str, Vec<(String, Value)>),
    OnBuild(String),
    /// A directory, below the one that there is unless it begins with `/`.
    WorkDir(String),
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// No instruction that changes a config.
    #[error(
        "{0:?} is no instruction that changes a config; they are CMD, ENTRYPOINT, ENV, EXPOSE, \
         HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR"
    )]
    Unknown(String),
    /// An instruction without what it needs.
    #[error("{instruction} needs {what}")]
    Needs {
        /// The instruction.
        instruction: String,
        /// What is missing or wrong.
        what: &'static str,
    },
}

impl FromStr for ConfigChange {
    type Err = ChangeError;

    fn from_str(text: &str) -> Result<Self, ChangeError> {
        let text = text.trim();
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let (instruction, rest) = (word.to_ascii_uppercase(), rest.trim());
        let needs = |what| ChangeError::Needs { instruction: instruction.clone(), what };
        let one = |what| if rest.is_empty() { Err(needs(what)) } else { Ok(rest.to_owned()) };
        Ok(Self(match instruction.as_str() {
            "CMD" => Kind::Cmd(command(rest)),
            "ENTRYPOINT" => Kind::Entrypoint(command(rest)),
            "ENV" => Kind::Env(pairs(rest).ok_or_else(|| needs("NAME=VALUE"))?),
            "LABEL" => {
                let all = pairs(rest).ok_or_else(|| needs("NAME=VALUE"))?.into_iter();
                Kind::Keys("Labels", all.map(|(key, value)| (key, value.into())).collect())
            }
            "EXPOSE" => {
                let what = "ports such as 80, 53/udp or 8000-8010";
                let ports: Option<Vec<Vec<String>>> =
                    one(what)?.split_whitespace().map(ports).collect();
                let ports = ports.ok_or_else(|| needs(what))?.into_iter().flatten();
                Kind::Keys("ExposedPorts", ports.map(|port| (port, json!({}))).collect())
            }
            "VOLUME" => {
                let all = list(&one("a directory")?);
                if all.iter().any(String::is_empty) {
                    return Err(needs("a directory"));
                }
                Kind::Keys("Volumes", all.into_iter().map(|dir| (dir, json!({}))).collect())
            }
            "USER" => Kind::Set("User", one("a name or a number")?.into()),
            "STOPSIGNAL" => Kind::Set("StopSignal", one("a signal")?.into()),
            "WORKDIR" => Kind::WorkDir(one("a directory")?),
            "ONBUILD" => Kind::OnBuild(one("an instruction")?),
            "HEALTHCHECK" => {
                let what = "NONE, or [--interval=30s ...] CMD COMMAND";
                Kind::Set("Healthcheck", health(rest).ok_or_else(|| needs(what))?)
            }
            _ => return Err(ChangeError::Unknown(word.to_owned())),
        }))
    }
}

/// Applies changes, one after the other, to what a config says of a container. `None` if that is
/// no object.
pub(crate) fn apply(config: &mut Json, changes: &[ConfigChange]) -> Option<()> {
    if changes.is_empty() {
        return Some(());
    }
    let mut run = match config.get_mut("config") {
        Some(run) if run.is_object() => run.to_value(),
        Some(run) if !run.is_null() => return None,
        _ => json!({}),
    };
    let fields = run.as_object_mut()?;
    let mut has_cmd = false;
    for ConfigChange(kind) in changes {
        has_cmd |= matches!(kind, Kind::Cmd(_));
        kind.apply(fields, has_cmd);
    }
    let changed: Vec<&str> =
        changes.iter().flat_map(|ConfigChange(kind)| kind.fields().iter().copied()).collect();
    if config.get_mut("config").is_none_or(|run| run.is_null()) {
        config.set("config", json!({}).into());
    }
    let kept = config.get_mut("config")?;
    for field in changed {
        if let Some(value) = run.get(field) {
            kept.set(field, value.clone().into());
        }
    }
    Some(())
}

impl Kind {
    fn fields(&self) -> &'static [&'static str] {
        match self {
            Self::Set("User", _) => &["User"],
            Self::Set("StopSignal", _) => &["StopSignal"],
            Self::Set(..) => &["Healthcheck"],
            Self::Cmd(_) => &["Cmd"],
            Self::Entrypoint(_) => &["Entrypoint", "Cmd"],
            Self::Env(_) => &["Env"],
            Self::Keys("Labels", _) => &["Labels"],
            Self::Keys("Volumes", _) => &["Volumes"],
            Self::Keys(..) => &["ExposedPorts"],
            Self::OnBuild(_) => &["OnBuild"],
            Self::WorkDir(_) => &["WorkingDir"],
        }
    }

    fn apply(&self, fields: &mut Map<String, Value>, has_cmd: bool) {
        match self {
            Self::Set(field, value) => {
                fields.insert((*field).to_owned(), value.clone());
            }
            Self::Cmd(value) => {
                fields.insert("Cmd".to_owned(), value.clone());
            }
            Self::Entrypoint(value) => {
                fields.insert("Entrypoint".to_owned(), value.clone());
                // A command that was meant for the old one, as docker has it.
                if !has_cmd {
                    fields.insert("Cmd".to_owned(), Value::Null);
                }
            }
            Self::Env(pairs) => add_to(fields, "Env", |list| {
                for (name, value) in pairs {
                    let line = Value::from(format!("{name}={value}"));
                    let name_of = |one: &Value| {
                        Some(one.as_str()?.split('=').next().unwrap_or_default().to_owned())
                    };
                    match list.iter_mut().find(|one| name_of(one).as_ref() == Some(name)) {
                        Some(known) => *known = line,
                        None => list.push(line),
                    }
                }
            }),
            Self::Keys(field, all) => {
                let known = fields.entry(*field).or_insert_with(|| json!({}));
                if !known.is_object() {
                    *known = json!({});
                }
                if let Some(known) = known.as_object_mut() {
                    known.extend(all.iter().cloned());
                }
            }
            Self::OnBuild(line) => {
                add_to(fields, "OnBuild", |list| list.push(line.as_str().into()));
            }
            Self::WorkDir(dir) => {
                let before = fields.get("WorkingDir").and_then(Value::as_str).unwrap_or_default();
                let dir = match dir.starts_with('/') {
                    true => dir.clone(),
                    false => format!("{}/{dir}", before.trim_end_matches('/')),
                };
                let dir = if dir.starts_with('/') { dir } else { format!("/{dir}") };
                fields.insert("WorkingDir".to_owned(), dir.into());
            }
        }
    }
}

/// Adds to a list, and makes one where there is none.
fn add_to(fields: &mut Map<String, Value>, field: &str, change: impl FnOnce(&mut Vec<Value>)) {
    let mut list = match fields.remove(field) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    change(&mut list);
    fields.insert(field.to_owned(), list.into());
}

/// As JSON, or by the shell.
fn command(text: &str) -> Value {
    match serde_json::from_str::<Vec<String>>(text) {
        Ok(list) => json!(list),
        Err(_) if text.is_empty() => Value::Null,
        Err(_) => json!(["/bin/sh", "-c", text]),
    }
}

/// As JSON, or words.
fn list(text: &str) -> Vec<String> {
    serde_json::from_str::<Vec<String>>(text)
        .unwrap_or_else(|_| text.split_whitespace().map(str::to_owned).collect())
}

/// `K=V K2="V 2"`, or the old `K all the rest`.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let words = words(text)?;
    let first = words.first()?;
    if !first.contains('=') {
        let (name, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let pairs = words.iter().map(|word| {
        let (name, value) = word.split_once('=')?;
        (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
    });
    pairs.collect()
}

/// Words as a shell parts them; `None` where a quote does not end.
fn words(text: &str) -> Option<Vec<String>> {
    let (mut all, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = text.chars();
    while let Some(next) = chars.next() {
        match (quote, next) {
            (Some(open), close) if open == close => quote = None,
            (None, '"' | '\'') => {
                quote = Some(next);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(chars.next()),
            (None, blank) if blank.is_whitespace() => all.extend(word.take()),
            (_, letter) => word.get_or_insert_default().push(letter),
        }
    }
    all.extend(word);
    quote.is_none().then_some(all)
}

/// `80`, `80/udp`, `8000-8010/tcp`.
fn ports(text: &str) -> Option<Vec<String>> {
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
    let known = ["tcp", "udp", "sctp"].contains(&protocol);
    (known && first <= last)
        .then(|| (first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// `NONE`, or options and `CMD`.
fn health(text: &str) -> Option<Value> {
    let mut check = Map::new();
    let mut rest = text;
    loop {
        let (word, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        match (word, word.strip_prefix("--").and_then(|word| word.split_once('='))) {
            ("NONE", _) if after.trim().is_empty() => {
                check.insert("Test".to_owned(), json!(["NONE"]));
                return Some(check.into());
            }
            ("CMD", _) => {
                let after = after.trim();
                let test = match serde_json::from_str::<Vec<String>>(after) {
                    Ok(list) => [vec!["CMD".to_owned()], list].concat(),
                    Err(_) => vec!["CMD-SHELL".to_owned(), after.to_owned()],
                };
                check.insert("Test".to_owned(), json!(test));
                return (!after.is_empty()).then(|| check.into());
            }
            (_, Some(("retries", value))) => {
                check.insert("Retries".to_owned(), value.parse::<u32>().ok()?.into());
            }
            (_, Some((name, value))) => {
                let field = match name {
                    "interval" => "Interval",
                    "timeout" => "Timeout",
                    "start-period" => "StartPeriod",
                    "start-interval" => "StartInterval",
                    _ => return None,
                };
                let span: jiff::SignedDuration = value.parse().ok()?;
                check.insert(field.to_owned(), u64::try_from(span.as_nanos()).ok()?.into());
            }
            _ => return None,
        }
        rest = after.trim_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(config: &Value, lines: &[&str]) -> Value {
        let mut config = Json::parse(config.to_string().as_bytes()).unwrap();
        let changes: Vec<ConfigChange> = lines.iter().map(|line| line.parse().unwrap()).collect();
        apply(&mut config, &changes).unwrap();
        config.to_value()["config"].clone()
    }

    #[test]
    fn each_instruction_changes_its_field() {
        let none = json!({});
        for (line, field, wanted) in [
            ("CMD [\"a\", \"b c\"]", "Cmd", json!(["a", "b c"])),
            ("cmd a b", "Cmd", json!(["/bin/sh", "-c", "a b"])),
            ("ENTRYPOINT [\"/x\"]", "Entrypoint", json!(["/x"])),
            ("ENV A=1 B=\"2 3\"", "Env", json!(["A=1", "B=2 3"])),
            ("ENV A 1 2", "Env", json!(["A=1 2"])),
            ("ENV A=x\\ y", "Env", json!(["A=x y"])),
            ("LABEL \"k v\"=w", "Labels", json!({"k v": "w"})),
            ("EXPOSE 80 53/udp", "ExposedPorts", json!({"80/tcp": {}, "53/udp": {}})),
            ("EXPOSE 1-2", "ExposedPorts", json!({"1/tcp": {}, "2/tcp": {}})),
            ("VOLUME /a /b", "Volumes", json!({"/a": {}, "/b": {}})),
            ("VOLUME [\"/a b\"]", "Volumes", json!({"/a b": {}})),
            ("USER 1:2", "User", json!("1:2")),
            ("STOPSIGNAL SIGINT", "StopSignal", json!("SIGINT")),
            ("WORKDIR a", "WorkingDir", json!("/a")),
            ("ONBUILD RUN x", "OnBuild", json!(["RUN x"])),
            ("HEALTHCHECK NONE", "Healthcheck", json!({"Test": ["NONE"]})),
            (
                "HEALTHCHECK --interval=2s --retries=3 CMD x y",
                "Healthcheck",
                json!({"Test": ["CMD-SHELL", "x y"], "Interval": 2_000_000_000u64, "Retries": 3}),
            ),
        ] {
            assert_eq!(changed(&none, &[line])[field], wanted, "{line}");
        }
    }

    #[test]
    fn what_was_there_is_continued() {
        let config = json!({ "config": {
            "Env": ["A=0", "P=1"], "Cmd": ["old"], "WorkingDir": "/w", "Labels": {"x": "1"},
            "Own": 5,
        }});
        let run = changed(&config, &["ENV A=1", "WORKDIR sub", "LABEL y=2", "ENTRYPOINT [\"e\"]"]);
        assert_eq!(
            run,
            json!({
                "Env": ["A=1", "P=1"], "Cmd": null, "WorkingDir": "/w/sub", "Own": 5,
                "Labels": {"x": "1", "y": "2"}, "Entrypoint": ["e"],
            })
        );
        let run = changed(&config, &["CMD [\"n\"]", "ENTRYPOINT [\"e\"]"]);
        assert_eq!(run["Cmd"], json!(["n"]));
        assert_eq!(changed(&json!({ "config": null }), &["USER x"]), json!({ "User": "x" }));
    }

    #[test]
    fn what_is_no_change_is_said() {
        for (line, said) in [
            ("RUN x", "\"RUN\" is no instruction"),
            ("", "is no instruction"),
            ("ENV", "ENV needs NAME=VALUE"),
            ("ENV A='1", "ENV needs"),
            ("EXPOSE http", "EXPOSE needs ports"),
            ("EXPOSE 2-1", "EXPOSE needs ports"),
            ("USER", "USER needs"),
            ("HEALTHCHECK x", "HEALTHCHECK needs"),
            ("HEALTHCHECK CMD", "HEALTHCHECK needs"),
        ] {
            let error = line.parse::<ConfigChange>().unwrap_err().to_string();
            assert!(error.contains(said), "{line}: {error}");
        }
    }
}
