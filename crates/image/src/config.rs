//! An image's config: what it runs on, how it came to be, and which diffs make it up.
//!
//! The bytes are kept as they came, since their digest is the image's id; this reads the few
//! fields that strata uses (OCI config.md; docker's config has the same shape).
//!
//! Invariants: unknown fields are ignored, repeated ones refused (readers would disagree); every
//! diff id is a whole digest; the history never has more layers than the image.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use strata_layer::Store;
use strata_tree::{BlobDigest, DiffId, ImageId};

use crate::error::{Error, Result};
use crate::limits;
use crate::platform::Platform;
use crate::source::sha256;

/// A config, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    id: ImageId,
    raw: RawConfig,
    diff_ids: Vec<DiffId>,
}

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
    #[serde(default, deserialize_with = "or_default")]
    created: String,
    #[serde(default, deserialize_with = "or_default")]
    architecture: String,
    #[serde(default, deserialize_with = "or_default")]
    os: String,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    config: RawRun,
    rootfs: RawRootfs,
    #[serde(default, deserialize_with = "or_default")]
    history: Vec<RawStep>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct RawRun {
    #[serde(rename = "Labels", default, deserialize_with = "or_default")]
    labels: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct RawRootfs {
    #[serde(rename = "type", default, deserialize_with = "or_default")]
    kind: String,
    #[serde(default, deserialize_with = "or_default")]
    diff_ids: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct RawStep {
    #[serde(default, deserialize_with = "or_default")]
    created: String,
    #[serde(default, deserialize_with = "or_default")]
    created_by: String,
    #[serde(default, deserialize_with = "or_default")]
    comment: String,
    #[serde(default, deserialize_with = "or_default")]
    empty_layer: bool,
}

/// Go writes `null` for what is empty.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl ImageConfig {
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
        let raw: RawConfig = serde_json::from_slice(bytes)
            .map_err(|e| Error::document(label, what, format!("not an image config: {e}")))?;
        if !matches!(raw.rootfs.kind.as_str(), "" | "layers") {
            let why = format!("its rootfs has the type {:?}, not \"layers\"", raw.rootfs.kind);
            return Err(Error::document(label, what, why));
        }
        if raw.rootfs.diff_ids.len() > limits::LAYERS {
            let why = format!("it has more than {} layers", limits::LAYERS);
            return Err(Error::document(label, what, why));
        }
        let diff_ids = raw
            .rootfs
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

    /// The image's id: the digest of the config's bytes.
    pub fn id(&self) -> ImageId {
        self.id
    }

    /// When the image was made; `None` if unsaid or unreadable.
    pub fn created(&self) -> Option<Timestamp> {
        self.raw.created.parse().ok()
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
        }
    }

    /// What a label says, if the image has it.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.raw.config.labels.get(name)?.as_str()
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
                created: step.created.parse().ok(),
                created_by: said(&step.created_by),
                comment: said(&step.comment),
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

fn said(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
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
    fn what_is_no_config_is_refused() {
        for (json, why) in [
            ("", "EOF"),
            ("{}", "missing field `rootfs`"),
            (r#"{"rootfs":{"type":"zfs"}}"#, "has the type \"zfs\""),
            (r#"{"rootfs":{"diff_ids":["sha256:../../x"]}}"#, "is not a digest"),
            (r#"{"rootfs":{"diff_ids":[]},"rootfs":{}}"#, "duplicate field `rootfs`"),
        ] {
            let error = parse(json).unwrap_err().to_string();
            assert!(error.contains(why), "{json}: {error}");
        }
        let many = format!(r#"{{"rootfs":{{"diff_ids":[{}""]}}}}"#, "\"\",".repeat(5000));
        assert!(parse(&many).unwrap_err().to_string().contains("more than 4096 layers"));
    }
}
