//! An image's config: what it runs on, how it came to be, and which diffs make it up.
//!
//! The bytes are kept as they came, since their digest is the image's id; this reads the few
//! fields that strata uses (OCI config.md; docker's config has the same shape).
//!
//! Invariants: keys are Go's (see [`crate::json`]); unknown fields are ignored, and so is what
//! strata only shows where it is of another type; every diff id is a whole digest; the history
//! never has more layers than the image.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use strata_layer::Store;
use strata_registry::or_default;
use strata_tree::{BlobDigest, DiffId, ImageId};

use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::json::{self, Json};
use crate::limits;
use crate::platform::Platform;

/// A config, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    id: ImageId,
    raw: RawConfig,
    diff_ids: Vec<DiffId>,
}

/// The keys of a config, and of what it says of a container: OCI's, and docker's beside them.
const KEYS: [&str; 16] = [
    "created",
    "author",
    "architecture",
    "variant",
    "os",
    "os.version",
    "os.features",
    "config",
    "rootfs",
    "history",
    "comment",
    "container",
    "container_config",
    "docker_version",
    "id",
    "parent",
];
const RUN_KEYS: [&str; 25] = [
    "Hostname",
    "Domainname",
    "User",
    "AttachStdin",
    "AttachStdout",
    "AttachStderr",
    "ExposedPorts",
    "Tty",
    "OpenStdin",
    "StdinOnce",
    "Env",
    "Cmd",
    "Healthcheck",
    "ArgsEscaped",
    "Image",
    "Volumes",
    "WorkingDir",
    "Entrypoint",
    "NetworkDisabled",
    "MacAddress",
    "OnBuild",
    "Labels",
    "StopSignal",
    "StopTimeout",
    "Shell",
];
/// One step of an image's history, with the layer that it made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryStep<'a> {
    /// When; `None` if unsaid or unreadable.
    pub created: Option<Timestamp>,
    /// The command; `None` if unsaid.
    pub created_by: Option<&'a str>,
    /// A remark; `None` if there is none.
    pub comment: Option<&'a str>,
    /// The layer's position from the base and its diff id; `None` if the step made none.
    pub layer: Option<(usize, DiffId)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct RawConfig {
    #[serde(default)]
    created: Text,
    #[serde(default, deserialize_with = "or_default")]
    architecture: String,
    #[serde(default, deserialize_with = "or_default")]
    os: String,
    #[serde(default)]
    variant: Option<String>,
    #[serde(rename = "os.version", default)]
    os_version: Text,
    #[serde(default, deserialize_with = "or_default")]
    config: RawRun,
    rootfs: Option<RawRootfs>,
    #[serde(default, deserialize_with = "all_or_default")]
    history: Vec<RawStep>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct RawRun {
    #[serde(rename = "Labels", default, deserialize_with = "or_default")]
    labels: BTreeMap<String, Text>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct RawRootfs {
    #[serde(rename = "type", default, deserialize_with = "or_default")]
    kind: String,
    #[serde(default, deserialize_with = "or_default")]
    diff_ids: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct RawStep {
    #[serde(default)]
    created: Text,
    #[serde(default)]
    created_by: Text,
    #[serde(default)]
    comment: Text,
    #[serde(default, deserialize_with = "or_default")]
    empty_layer: bool,
}

/// A string that is only shown: `None` where something else stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Text(Option<String>);

impl Text {
    fn said(&self) -> Option<&str> {
        self.0.as_deref().filter(|text| !text.is_empty())
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor).map(Self)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E>(self, text: &str) -> std::result::Result<Self::Value, E> {
        Ok(Some(text.to_owned()))
    }

    fn visit_unit<E>(self) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(
        self,
        mut list: A,
    ) -> std::result::Result<Self::Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(
        self,
        mut map: A,
    ) -> std::result::Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

/// [`or_default`], also for the elements of a list.
fn all_or_default<'de, D, T>(deserializer: D) -> std::result::Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    let all: Option<Vec<Option<T>>> = Option::deserialize(deserializer)?;
    Ok(all.unwrap_or_default().into_iter().map(Option::unwrap_or_default).collect())
}

impl ImageConfig {
    /// The keys of a health check, in docker's order.
    pub const HEALTH_KEYS: [&str; 6] =
        ["Test", "Interval", "Timeout", "StartPeriod", "StartInterval", "Retries"];

    /// Reads a config.
    ///
    /// # Errors
    /// `Document` with what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        Self::parse_named(bytes, "the image", "its config")
    }

    /// Reads a config that is called `what` in the source `label`.
    ///
    /// # Errors
    /// `Document` with what is wrong.
    pub(crate) fn parse_named(bytes: &[u8], label: &str, what: &str) -> Result<Self> {
        let bad = |why: String| Error::document(label, what, format!("not an image config: {why}"));
        let raw: RawConfig = json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
        let missing = || bad("it has no rootfs, and so no layer's diff id".to_owned());
        let rootfs = raw.rootfs.as_ref().ok_or_else(missing)?;
        if !matches!(rootfs.kind.as_str(), "" | "layers") {
            let why = format!("its rootfs has the type {:?}, not \"layers\"", rootfs.kind);
            return Err(Error::document(label, what, why));
        }
        if rootfs.diff_ids.len() > limits::LAYERS {
            let why = format!("it has more than {} layers", limits::LAYERS);
            return Err(Error::document(label, what, why));
        }
        let diff_ids = rootfs
            .diff_ids
            .iter()
            .map(|text| text.parse())
            .collect::<std::result::Result<Vec<DiffId>, _>>()
            .map_err(|e| Error::document(label, what, format!("rootfs.diff_ids: {e}")))?;
        Ok(Self { id: sha256(bytes).into(), raw, diff_ids })
    }

    /// Reads the config of an image in the store.
    ///
    /// # Errors
    /// `Store` if the blob is missing or damaged.
    pub fn of(store: &Store, id: &ImageId) -> Result<Self> {
        let bytes = store.blob(&BlobDigest::from(*id))?;
        Self::parse_named(&bytes, "the store", &format!("config {id}"))
    }

    /// The same, for an image of a list of all: `None` if another process has removed it since.
    ///
    /// # Errors
    /// As [`ImageConfig::of`].
    pub fn of_listed(store: &Store, id: &ImageId) -> Result<Option<Self>> {
        match Self::of(store, id) {
            Err(Error::Store(strata_layer::Error::NoBlob(_)))
                if store.images().get(id)?.is_none() =>
            {
                Ok(None)
            }
            // It may have been removed and have come back.
            Err(Error::Store(strata_layer::Error::NoBlob(_))) => Self::of(store, id).map(Some),
            config => config.map(Some),
        }
    }

    /// The whole config of an image in the store, to be shown: keys have the specification's
    /// letters, and what Go takes, or no type holds, is there all the same.
    ///
    /// # Errors
    /// `Store` if the blob is missing or damaged, `Document`.
    pub fn document(store: &Store, id: &ImageId) -> Result<serde_json::Value> {
        let bytes = store.blob(&BlobDigest::from(*id))?;
        let mut document = Json::parse(&bytes)
            .map_err(|e| Error::document("the store", &format!("config {id}"), e.to_string()))?;
        document.named(&KEYS);
        for key in ["config", "container_config"] {
            if let Some(config) = document.get_mut(key) {
                config.named(&RUN_KEYS);
                if let Some(health) = config.get_mut("Healthcheck") {
                    health.named(&ImageConfig::HEALTH_KEYS);
                }
            }
        }
        Ok(document.to_value())
    }

    /// Bytes of memory that it takes, about: lists of next to nothing take many times the bytes
    /// that they are written in.
    pub(crate) fn weight(&self) -> usize {
        const LABEL: usize = size_of::<String>() + size_of::<Text>() + 48;
        let diff_ids = self.diff_ids.len() * (size_of::<DiffId>() + size_of::<String>() + 71);
        let steps = self.raw.history.len() * size_of::<RawStep>();
        diff_ids + steps + self.raw.config.labels.len() * LABEL
    }

    /// The image's id: the digest of the config's bytes.
    pub fn id(&self) -> ImageId {
        self.id
    }

    /// When the image was made; `None` if unsaid or unreadable.
    pub fn created(&self) -> Option<Timestamp> {
        said_time(self.raw.created.said()?.parse().ok())
    }

    /// Such as `amd64`; empty if unsaid.
    pub fn architecture(&self) -> &str {
        &self.raw.architecture
    }

    /// Such as `linux`; empty if unsaid.
    pub fn os(&self) -> &str {
        &self.raw.os
    }

    /// What the image runs on.
    pub fn platform(&self) -> Platform {
        Platform {
            os: self.raw.os.clone(),
            architecture: self.raw.architecture.clone(),
            variant: self.raw.variant.clone(),
            os_version: self.raw.os_version.said().map(str::to_owned),
        }
    }

    /// What a label says, if the image has it.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.raw.config.labels.get(name)?.0.as_deref()
    }

    /// The diffs, base first.
    pub fn diff_ids(&self) -> &[DiffId] {
        &self.diff_ids
    }

    /// How many steps the config itself has, and how many of them made a layer.
    pub(crate) fn history_steps(&self) -> (usize, usize) {
        let steps = &self.raw.history;
        (steps.len(), steps.iter().filter(|step| !step.empty_layer).count())
    }

    /// The steps, oldest first, each with its layer. Layers that the history does not tell of
    /// (it is optional) follow as steps that say nothing.
    pub fn history(&self) -> Vec<HistoryStep<'_>> {
        let mut layers = self.diff_ids.iter().copied().enumerate();
        let mut steps: Vec<_> = self
            .raw
            .history
            .iter()
            .map(|step| HistoryStep {
                created: said_time(step.created.said().and_then(|text| text.parse().ok())),
                created_by: step.created_by.said(),
                comment: step.comment.said(),
                layer: if step.empty_layer { None } else { layers.next() },
            })
            .collect();
        steps.extend(layers.map(|layer| HistoryStep {
            created: None,
            created_by: None,
            comment: None,
            layer: Some(layer),
        }));
        steps
    }
}

/// A time that somebody set: Go's zero time (`0001-01-01T00:00:00Z`), and what is before it, says
/// that nobody did.
pub(crate) fn said_time(time: Option<Timestamp>) -> Option<Timestamp> {
    const ZERO: i64 = -62_135_596_800;
    time.filter(|time| time.as_second() > ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diff(n: u8) -> DiffId {
        DiffId::from_bytes([n; 32])
    }

    fn parse(json: &str) -> Result<ImageConfig> {
        ImageConfig::parse(json.as_bytes())
    }

    #[test]
    fn fields_are_read_and_history_is_paired_with_layers() {
        let json = format!(
            r#"{{"created":"2024-05-06T07:08:09.123456789Z","architecture":"arm","os":"linux",
               "variant":"v7","rootfs":{{"type":"layers","diff_ids":["{}","{}"]}},
               "history":[{{"created_by":"ADD","created":"2024-05-06T07:08:09+02:00"}},
                          {{"created_by":"ENV","empty_layer":true}},
                          {{"created_by":"RUN","comment":"x","empty_layer":null}}]}}"#,
            diff(1),
            diff(2)
        );
        let config = parse(&json).unwrap();
        assert_eq!(config.id(), sha256(json.as_bytes()).into());
        assert_eq!(config.created().unwrap().to_string(), "2024-05-06T07:08:09.123456789Z");
        assert_eq!(config.platform().to_string(), "linux/arm/v7");
        let steps = config.history();
        let made: Vec<_> = steps.iter().map(|step| (step.created_by, step.layer)).collect();
        assert_eq!(
            made,
            [
                (Some("ADD"), Some((0, diff(1)))),
                (Some("ENV"), None),
                (Some("RUN"), Some((1, diff(2)))),
            ]
        );
        assert_eq!(steps[0].created.unwrap().to_string(), "2024-05-06T05:08:09Z");
    }

    #[test]
    fn a_time_that_nobody_set_is_none() {
        for (text, said) in [
            ("0001-01-01T00:00:00Z", false),
            ("0001-01-01T00:00:00.000000000Z", false),
            ("1970-01-01T00:00:00Z", true),
            ("0001-01-02T00:00:00Z", true),
        ] {
            let time = text.parse().ok();
            assert_eq!(said_time(time).is_some(), said, "{text}");
        }
    }

    #[test]
    fn a_history_may_be_short_long_or_absent() {
        let config = |history: &str| {
            let id = diff(1);
            parse(&format!(r#"{{"rootfs":{{"diff_ids":["{id}","{id}"]}},"history":{history}}}"#))
                .unwrap()
        };
        assert_eq!(config("null").history().len(), 2);
        assert_eq!(config("[{}]").history()[1].layer, Some((1, diff(1))));
        assert_eq!(config("[{},{},{}]").history()[2].layer, None);
        assert_eq!(config("[]").created(), None);
    }

    #[test]
    fn an_image_may_have_no_layers() {
        assert!(
            parse(r#"{"rootfs":{"type":"layers","diff_ids":null}}"#).unwrap().diff_ids().is_empty()
        );
    }

    #[test]
    fn what_go_reads_is_read() {
        let id = diff(1);
        let json = format!(
            r#"{{"created":1577934245,"RootFS":{{"type":"layers"}},"os":"li","OS":"linux",
               "config":{{"Labels":{{"a":"caf\u00e9 \ud83d","b":null,"c":["x"]}}}},"config":{{}},
               "rootfs":{{"diff_ids":["{id}"]}},"history":[{{"created_by":null,"author":5}},null],
               "x":1e999,"y":{}{}}}"#,
            "[".repeat(500),
            "]".repeat(500)
        );
        let config = parse(&json).unwrap();
        assert_eq!((config.created(), config.os()), (None, "linux"));
        assert_eq!(config.diff_ids(), [id]);
        assert_eq!(config.label("a"), Some("caf\u{e9} \u{fffd}"));
        assert_eq!((config.label("b"), config.label("c")), (None, None));
        assert_eq!(config.history()[0].created_by, None);
        assert_eq!(config.id(), sha256(json.as_bytes()).into());
    }

    #[test]
    fn what_is_no_config_is_refused() {
        for (json, why) in [
            ("", "it ends too early, at byte 0"),
            ("{}", "it has no rootfs"),
            (r#"{"rootfs":null}"#, "it has no rootfs"),
            (r#"{"rootfs":{"type":"zfs"}}"#, "has the type \"zfs\""),
            (r#"{"rootfs":{"diff_ids":["sha256:../../x"]}}"#, "is not a digest"),
            (r#"{"rootfs":{"diff_ids":[]},"rootfs":null}"#, "rootfs stands there twice"),
        ] {
            let error = parse(json).unwrap_err().to_string();
            assert!(error.contains(why), "{json}: {error}");
        }
        let many = format!(r#"{{"rootfs":{{"diff_ids":[{}""]}}}}"#, "\"\",".repeat(5000));
        assert!(parse(&many).unwrap_err().to_string().contains("more than 4096 layers"));
    }
}
