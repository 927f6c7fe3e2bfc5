//! An image as `docker inspect` prints it: docker's fields of 20 to 28, in its order.
//!
//! Invariants: a field that the config does not set has Go's zero value, so that no template that
//! docker takes fails here; what a config has beyond docker's fields comes after them.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Map, Value, json};
use strata_image::ImageConfig;
use strata_layer::Store;
use strata_tree::DiffId;

use super::KnownImage;
use crate::document::{Document, Field};
use stratafs::MountInfo;

/// Go's type of a field, and whether JSON leaves it out when it is empty.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Flag,
    List,
    Map,
    /// A map of empty structs.
    Set,
    Pointer,
    Health,
}

/// The fields of what a container begins with, in docker's order.
const RUN: [(&str, Kind, bool); 25] = [
    ("Hostname", Kind::Text, true),
    ("Domainname", Kind::Text, true),
    ("User", Kind::Text, true),
    ("AttachStdin", Kind::Flag, true),
    ("AttachStdout", Kind::Flag, true),
    ("AttachStderr", Kind::Flag, true),
    ("ExposedPorts", Kind::Set, false),
    ("Tty", Kind::Flag, true),
    ("OpenStdin", Kind::Flag, true),
    ("StdinOnce", Kind::Flag, true),
    ("Env", Kind::List, true),
    ("Cmd", Kind::List, true),
    ("Healthcheck", Kind::Health, false),
    ("ArgsEscaped", Kind::Flag, false),
    ("Image", Kind::Text, true),
    ("Volumes", Kind::Set, true),
    ("WorkingDir", Kind::Text, true),
    ("Entrypoint", Kind::List, true),
    ("NetworkDisabled", Kind::Flag, false),
    ("MacAddress", Kind::Text, false),
    ("OnBuild", Kind::List, true),
    ("Labels", Kind::Map, true),
    ("StopSignal", Kind::Text, false),
    ("StopTimeout", Kind::Pointer, false),
    ("Shell", Kind::List, false),
];

/// What docker says of an image.
pub(super) fn of_image(
    store: &Store,
    mounts: &[MountInfo],
    image: &KnownImage,
) -> Result<Document> {
    let raw = ImageConfig::document(store, &image.record.id)?;
    let text = |key: &str| raw.get(key).and_then(Value::as_str).unwrap_or_default();
    let history = image.config.history();
    let remark = history.last().and_then(|step| step.comment).unwrap_or_default();
    let comment = raw.get("comment").and_then(Value::as_str).unwrap_or(remark);
    let id = image.record.id.to_string();
    let mount = mounts.iter().find(|m| m.record.image == id && m.record.upper.is_none());
    let layers: Vec<PathBuf> = image.record.layers.iter().map(|id| store.layer_files(id)).collect();
    let (top, below) = match layers.split_last() {
        Some((top, below)) => (shown(top), below),
        None => (String::new(), &[][..]),
    };
    let size = image.size(store)?;
    let root = vec![
        Field::new("Type", "layers"),
        Field::new("Layers", image.record.layers.iter().map(DiffId::to_string).collect::<Value>())
            .unless(image.record.layers.is_empty()),
    ];
    let manifest = image.record.manifest.map(|one| one.to_string());
    // By name: why the image was let in under it.
    let mut verdicts = Map::new();
    for (name, text) in store.images().verdicts(&image.record.id)? {
        verdicts.insert(name, serde_json::from_str(&text).unwrap_or(Value::String(text)));
    }
    let metadata = vec![
        // The store does not write down when a name was given.
        Field::new("LastTagTime", Document::Time(None)),
        Field::new("Manifest", manifest),
    ];
    Ok(Document::Record(vec![
        Field::new("Id", id).also("ID"),
        Field::new("RepoTags", image.familiar_names()),
        Field::new("RepoDigests", image.digests()),
        Field::new("Parent", ""),
        Field::new("Comment", comment),
        Field::new("Created", created(text("created"))),
        Field::new("Container", text("container")),
        Field::new("ContainerConfig", run(raw.get("container_config"))),
        Field::new("DockerVersion", text("docker_version")),
        Field::new("Author", text("author")),
        Field::new("Config", run(raw.get("config"))),
        Field::new("Architecture", text("architecture")),
        Field::new("Variant", text("variant")).unless(text("variant").is_empty()),
        Field::new("Os", text("os")),
        Field::new("OsVersion", text("os.version")).unless(text("os.version").is_empty()),
        Field::new("Size", size),
        Field::new("VirtualSize", size),
        Field::new("GraphDriver", driver(below, &top, mount.map(|m| &m.record.mountpoint), None)),
        Field::new("RootFS", Document::Record(root)),
        Field::new("Metadata", Document::Record(metadata)),
        Field::new("Trust", Value::Object(verdicts.clone())).unless(verdicts.is_empty()),
    ]))
}

/// As Go prints a time, without zeros at the end of the fraction; its zero time if none is said.
fn created(said: &str) -> String {
    if said.is_empty() {
        return "0001-01-01T00:00:00Z".to_owned();
    }
    let Some((seconds, rest)) = said.split_once('.') else { return said.to_owned() };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    match rest[..end].trim_end_matches('0') {
        "" => format!("{seconds}{}", &rest[end..]),
        fraction => format!("{seconds}.{fraction}{}", &rest[end..]),
    }
}

/// What a container begins with. A value of another type than docker's is shown as it is.
fn run(said: Option<&Value>) -> Document {
    let empty = Map::new();
    let said = said.and_then(Value::as_object).unwrap_or(&empty);
    let mut fields: Vec<Field> = RUN
        .iter()
        .map(|(name, kind, always)| {
            let value = said.get(*name).filter(|value| !value.is_null());
            let is_empty = value.is_none_or(|value| match value {
                Value::String(text) => text.is_empty(),
                Value::Array(list) => list.is_empty(),
                Value::Object(map) => map.is_empty(),
                other => *other == Value::Bool(false),
            });
            // A pointer is empty only if it is not set.
            let is_empty = match kind {
                Kind::Pointer | Kind::Health => value.is_none(),
                Kind::Text | Kind::Flag | Kind::List | Kind::Map | Kind::Set => is_empty,
            };
            Field::new(*name, set(*kind, value)).unless(is_empty && !always)
        })
        .collect();
    let known = |key: &str| RUN.iter().any(|(name, ..)| *name == key);
    for (key, value) in said.iter().filter(|(key, _)| !known(key)) {
        fields.push(Field::new(key.clone(), value.clone()));
    }
    Document::Record(fields)
}

fn set(kind: Kind, value: Option<&Value>) -> Document {
    match (kind, value) {
        (Kind::Health, Some(Value::Object(health))) => {
            Document::Record(ImageConfig::HEALTH_KEYS.map(|name| of_health(name, health)).into())
        }
        (Kind::Set, Some(Value::Object(set))) => Document::Set(set.keys().cloned().collect()),
        (Kind::Map, Some(Value::Object(map))) => Document::Map(map.clone()),
        (_, Some(value)) => value.clone().into(),
        (Kind::Text, None) => "".into(),
        (Kind::Flag, None) => false.into(),
        (Kind::List, None) => Document::NilList,
        (Kind::Map | Kind::Set, None) => Document::NilMap,
        (Kind::Pointer | Kind::Health, None) => Document::NilPointer,
    }
}

/// A field of a health check; JSON leaves out what is Go's zero value.
fn of_health(name: &'static str, said: &Map<String, Value>) -> Field {
    let is_time = !matches!(name, "Test" | "Retries");
    let value: Document = match said.get(name).filter(|value| !value.is_null()) {
        Some(value) => match value.as_i64().filter(|_| is_time) {
            Some(nanoseconds) => Document::Duration(nanoseconds),
            None => value.clone().into(),
        },
        None if name == "Test" => Document::NilList,
        None if is_time => Document::Duration(0),
        None => 0.into(),
    };
    let is_zero = match &value {
        Document::Plain(value) => [json!(0), json!([])].contains(value),
        other => matches!(other, Document::NilList | Document::Duration(0)),
    };
    Field::new(name, value).unless(is_zero)
}

/// Where things are, as docker says it of overlay2. Layers of the store are contents and
/// metadata apart: their directories are to look into, not for the kernel to mount.
pub(super) fn driver(
    lowers: &[PathBuf],
    upper: &str,
    merged: Option<&PathBuf>,
    work: Option<&PathBuf>,
) -> Document {
    let lowers: Vec<String> = lowers.iter().rev().map(|path| shown(path)).collect();
    let mut data = json!({
        "UpperDir": upper,
        "MergedDir": merged.map(|path| shown(path)).unwrap_or_default(),
        "WorkDir": work.map(|path| shown(path)).unwrap_or_default(),
    });
    if let (Some(data), false) = (data.as_object_mut(), lowers.is_empty()) {
        data.insert("LowerDir".to_owned(), lowers.join(":").into());
    }
    Document::Record(vec![Field::new("Data", data), Field::new("Name", "strata")])
}

pub(super) fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_go_prints_them() {
        for (said, wanted) in [
            ("", "0001-01-01T00:00:00Z"),
            ("2020-01-02T03:04:05Z", "2020-01-02T03:04:05Z"),
            ("2020-01-02T03:04:05.120000000Z", "2020-01-02T03:04:05.12Z"),
            ("2020-01-02T03:04:05.000+01:00", "2020-01-02T03:04:05+01:00"),
            ("yesterday", "yesterday"),
        ] {
            assert_eq!(created(said), wanted);
        }
    }

    #[test]
    fn what_is_not_set_has_gos_zero_value() {
        let text = |said: Value| serde_json::to_string(&run(Some(&said))).unwrap();
        let zero = r#"{"Hostname":"","Domainname":"","User":"","AttachStdin":false,
            "AttachStdout":false,"AttachStderr":false,"Tty":false,"OpenStdin":false,
            "StdinOnce":false,"Env":null,"Cmd":null,"Image":"","Volumes":null,"WorkingDir":"",
            "Entrypoint":null,"OnBuild":null,"Labels":null}"#
            .replace(['\n', ' '], "");
        assert_eq!(text(json!({})), zero);
        assert_eq!(text(json!({ "ExposedPorts": {}, "Shell": [], "Env": null })), zero);
        // A check that is there has all fields in a template, and in JSON those that say something.
        let health = json!({ "Test": ["CMD", "x"], "Interval": 5_000_000_000_i64, "Retries": 0 });
        let Document::Record(fields) = set(Kind::Health, Some(&health)) else {
            panic!("no record")
        };
        let shown = Document::Record(fields);
        assert_eq!(
            serde_json::to_string(&shown).unwrap(),
            r#"{"Test":["CMD","x"],"Interval":5000000000}"#
        );
        let template =
            "{{.Interval}} {{.Timeout}} {{.StartPeriod}} {{.StartInterval}} {{.Retries}}";
        let mut out = Vec::new();
        let template = crate::template::Template::parse(template).unwrap();
        template.print_documents(&[shown], &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "5s 0s 0s 0s 0\n");
        let set = text(json!({ "Cmd": [], "Healthcheck": { "Retries": 1, "Test": ["NONE"] },
                               "StopTimeout": 0, "Own": 1 }));
        for part in [
            r#""Cmd":[],"Healthcheck":{"Test":["NONE"],"Retries":1},"Image":"""#,
            r#""Labels":null,"StopTimeout":0,"Own":1}"#,
        ] {
            assert!(set.contains(part), "{set}");
        }
    }
}
