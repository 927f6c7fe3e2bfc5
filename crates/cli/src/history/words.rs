//! Words that the commands of this module share: nodes, changes, steps.
//!
//! Invariant: all text is escaped; what an image says stays on its line.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};
use strata_analysis::history::{ChangedFacts, HiddenBy, NodeFacts};
use strata_image::{ImageConfig, LayerStep, LayerSteps};
use strata_layer::{ImageRecord, Store};
use strata_registry::Reference;
use strata_tree::{ImageId, Kind, TreePath};

use crate::look::{escaped, full_time, kind_name, short_time};
use crate::units;

/// How many characters of a command a row shows.
const COMMAND: usize = 60;

/// The steps that made the layers of an image.
pub(super) fn steps(store: &Store, image: &ImageRecord) -> Result<LayerSteps> {
    Ok(LayerSteps::of(&ImageConfig::of(store, &image.id)?))
}

/// The warning about a history that does not fit.
pub(super) const GUESSED: &str = "the history does not have as many steps as there are layers: a \
                                  step may be named beside another layer than its own";

/// `RUN make`, cut unless whole.
pub(super) fn command(step: &LayerStep, whole: bool) -> String {
    let text = step.instruction().or_else(|| step.comment.clone());
    let text = text.unwrap_or_else(|| "-".to_owned());
    cut(&escaped(text.as_bytes()), whole)
}

pub(super) fn cut(text: &str, whole: bool) -> String {
    if whole || text.chars().count() <= COMMAND {
        return text.to_owned();
    }
    text.chars().take(COMMAND - 1).chain(['\u{2026}']).collect()
}

pub(super) fn step_json(step: &LayerStep) -> Value {
    json!({
        "layer": step.position,
        "diff_id": step.diff_id.to_string(),
        "step": step.number,
        "created": step.created.map(|time| time.to_string()),
        "created_by": step.created_by,
        "instruction": step.instruction(),
    })
}

/// A path with its leading slash.
pub(super) fn shown(path: &TreePath) -> String {
    format!("/{}", escaped(path.as_bytes()))
}

/// A path for JSON: text, and in hex where it is no text.
pub(crate) fn path_json(path: &TreePath) -> Value {
    match std::str::from_utf8(path.as_bytes()) {
        Ok(text) => json!(format!("/{text}")),
        Err(_) => json!({
            "lossy": format!("/{}", String::from_utf8_lossy(path.as_bytes())),
            "hex": path.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        }),
    }
}

/// `regular file, 12kB`, `symbolic link to dash`.
pub(super) fn node(facts: &NodeFacts) -> String {
    match (facts.stat.kind, &facts.target) {
        (Kind::Regular, _) => format!("regular file, {}", units::size(facts.stat.size)),
        (Kind::Symlink, Some(target)) => format!("symbolic link to {}", escaped(target)),
        (kind, _) => match kind.device() {
            Some(device) => format!("{} {}:{}", kind_name(kind), device.major, device.minor),
            None => kind_name(kind).to_owned(),
        },
    }
}

pub(super) fn node_json(facts: &NodeFacts) -> Value {
    let xattrs: BTreeMap<_, _> = facts
        .xattrs
        .iter()
        .map(|(name, value)| {
            let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
            (String::from_utf8_lossy(name).into_owned(), hex)
        })
        .collect();
    json!({
        "type": kind_name(facts.stat.kind),
        "mode": format!("{:04o}", facts.stat.perm),
        "uid": facts.stat.uid,
        "gid": facts.stat.gid,
        "size": facts.stat.size,
        "mtime": full_time(facts.stat.mtime),
        "device": facts.stat.kind.device().map(|d| format!("{}:{}", d.major, d.minor)),
        "target": facts.target.as_ref().map(|target| String::from_utf8_lossy(target)),
        "content": facts.content.map(|content| content.to_string()),
        "xattrs": xattrs,
    })
}

/// `content (3B to 5B), mode (0644 to 0755)`: each difference with what it was and is.
pub(super) fn changes(facts: ChangedFacts, was: &NodeFacts, now: &NodeFacts) -> String {
    let words = facts.words().map(|word| {
        let (old, new) = (&was.stat, &now.stat);
        let both = match word {
            "type" => (kind_name(old.kind).to_owned(), node(now)),
            "content" if old.size == new.size => return "content (same size)".to_owned(),
            "content" => (units::size(old.size), units::size(new.size)),
            "target" => {
                let target = |facts: &NodeFacts| {
                    escaped(facts.target.as_deref().unwrap_or_default()).into_owned()
                };
                (target(was), target(now))
            }
            "mode" => (format!("{:04o}", old.perm), format!("{:04o}", new.perm)),
            "owner" => (format!("{}:{}", old.uid, old.gid), format!("{}:{}", new.uid, new.gid)),
            "time" => times(was, now),
            _ => return word.to_owned(),
        };
        format!("{word} ({} to {})", both.0, both.1)
    });
    words.collect::<Vec<_>>().join(", ")
}

/// To the second, where that shows the difference.
fn times(was: &NodeFacts, now: &NodeFacts) -> (String, String) {
    let (old, new) = (was.stat.mtime, now.stat.mtime);
    match old.seconds == new.seconds {
        true => (full_time(old), full_time(new)),
        false => (short_time(old), short_time(new)),
    }
}

/// Why `path` is gone; `word` is `removed` or `deleted`.
pub(super) fn removal(word: &str, path: &TreePath, by: HiddenBy, at: &TreePath) -> String {
    match by {
        HiddenBy::Whiteout if at == path => format!("{word} by a whiteout"),
        HiddenBy::Whiteout => format!("{word} by a whiteout of {}", shown(at)),
        HiddenBy::Opaque => format!("{word}: {} was made opaque", shown(at)),
        HiddenBy::Replaced if at == path => format!("{word} by a link that leads nowhere"),
        HiddenBy::Replaced => format!("{word}: {} is no directory any more", shown(at)),
    }
}

/// The same in one word.
pub(super) const fn reason(by: HiddenBy) -> &'static str {
    match by {
        HiddenBy::Whiteout => "whiteout",
        HiddenBy::Opaque => "opaque",
        HiddenBy::Replaced => "replaced",
    }
}

/// The names of images, by id; the short id of one without a name.
pub(super) struct Names(Vec<(String, ImageId)>);

impl Names {
    pub(super) fn of(store: &Store) -> Result<Self> {
        let tags = store.images().tags()?.into_iter().filter(|(name, _)| !name.contains('@'));
        let familiar = |name: String| match name.parse::<Reference>() {
            Ok(reference) => reference.familiar(),
            Err(_) => name,
        };
        Ok(Self(tags.map(|(name, id)| (familiar(name), id)).collect()))
    }

    pub(super) fn name(&self, image: &ImageId) -> String {
        let name = self.0.iter().find(|(_, id)| id == image);
        name.map_or_else(|| image.short(), |(name, _)| name.clone())
    }
}

/// `1 file`, `2 files`.
pub(super) fn count(number: u64, one: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {one}s"),
    }
}
