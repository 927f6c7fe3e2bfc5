//! What the view knows of an image before the first key: its layers with their history, who else
//! has them, and what the store calls other images.
//!
//! Invariant: read once; nothing here changes while the view is open.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Result, bail};
use strata_analysis::image_tree::{Efficiency, ImageTree, PathId, Span, Version};
use strata_image::{ImageConfig, resolve_image};
use strata_layer::{ImageRecord, LeasedImage, LeasedLayer, Store};
use strata_tree::{DiffId, ImageId, Kind};

use crate::context::Context;
use crate::images::familiar;
use crate::look::render::{escaped, full_time, kind_name, mode_string};
use crate::look::xattr_text;
use crate::units::{self, size};

/// One layer, as the list of layers shows it.
#[derive(Debug, Clone)]
pub(crate) struct ExploredLayer {
    pub(crate) diff_id: DiffId,
    /// Bytes of its regular files, each inode once.
    pub(crate) size: u64,
    /// Names in it, whiteouts included.
    pub(crate) entries: u64,
    /// The command of the history entry that made it; empty if unsaid.
    pub(crate) created_by: String,
    /// How many other images have it.
    pub(crate) other_images: usize,
}

/// The image that is explored.
pub(crate) struct ExploredImage {
    /// As the user called it.
    pub(crate) name: String,
    pub(crate) id: ImageId,
    pub(crate) layers: Vec<ExploredLayer>,
    pub(crate) tree: Arc<ImageTree>,
    pub(crate) efficiency: Efficiency,
    /// The names of all images; without one the short id.
    pub(super) names: HashMap<ImageId, String>,
    /// Who has a layer that no image has.
    pub(super) engines: HashMap<DiffId, String>,
    /// Keeps the layers from being removed.
    #[allow(dead_code, reason = "leased, not read")]
    pub(super) leased: Option<(LeasedImage, Vec<LeasedLayer>)>,
}

/// The one number about waste: `44.4MB, 16.7% of what the layers hold`.
pub(crate) fn wasted_share(wasted: u64, layers: u64) -> String {
    format!("{}, {} of what the layers hold", size(wasted), units::percent(wasted, layers))
}

impl ExploredImage {
    /// Reads an image; calls `watch` with how many of how many layers were read.
    ///
    /// # Errors
    /// There is no such image, or the store cannot read it.
    pub(crate) fn open(
        context: &Context,
        reference: &str,
        watch: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let store = context.store()?;
        let record = resolve_image(&store, reference)?;
        let (config, leased) = store.lease_image(&record.id)?;
        let count = leased.len();
        let tree = ImageTree::read(&store, &record, &leased, &mut |read| watch(read, count))?;
        let images = store.images().all()?;
        let history = ImageConfig::of(&store, &record.id)?;
        let mut entries = history.history().into_iter().filter(|entry| entry.layer.is_some());
        let mut layers = Vec::new();
        for diff_id in &record.layers {
            let Some(layer) = store.layer(diff_id)? else {
                bail!(
                    "layer {diff_id} of {reference} is not in the store; `strata fsck` tells more"
                );
            };
            let command = entries.next().and_then(|entry| entry.created_by);
            let others = images.iter().filter(|other| other.id != record.id);
            layers.push(ExploredLayer {
                diff_id: *diff_id,
                size: layer.apparent,
                entries: layer.entries,
                created_by: command.map(dockerfile_line).unwrap_or_default(),
                other_images: others.filter(|other| other.layers.contains(diff_id)).count(),
            });
        }
        let mut names: HashMap<ImageId, String> = HashMap::new();
        for (name, id) in store.images().tags()? {
            // Tags come before digests, so a digest is its name only without a tag.
            names.entry(id).or_insert_with(|| familiar(&name));
        }
        Ok(Self {
            name: names.get(&record.id).cloned().unwrap_or_else(|| reference.to_owned()),
            id: record.id,
            layers,
            efficiency: tree.efficiency(),
            tree: Arc::new(tree),
            names,
            engines: engines(&store, &images)?,
            leased: Some((config, leased)),
        })
    }

    /// How people call another image.
    pub(crate) fn image_name(&self, id: &ImageId) -> String {
        self.names.get(id).cloned().unwrap_or_else(|| id.short())
    }

    /// `layer 2 (0123456789ab)`.
    fn layer_name(&self, diff_id: &DiffId) -> String {
        match self.layers.iter().position(|layer| layer.diff_id == *diff_id) {
            Some(number) => format!("layer {number} ({})", diff_id.short()),
            None => match self.engines.get(diff_id) {
                Some(engine) => format!("layer {} of {engine}", diff_id.short()),
                None => format!("layer {}", diff_id.short()),
            },
        }
    }

    /// All that is known of a layer, as lines of label and text.
    pub(crate) fn layer_facts(&self, number: usize) -> Vec<(&'static str, String)> {
        let Some(layer) = self.layers.get(number) else { return Vec::new() };
        let mut lines = vec![
            ("Diff id", layer.diff_id.hex()),
            ("Size", format!("{} ({} bytes)", size(layer.size), layer.size)),
            ("Entries", layer.entries.to_string()),
            ("Images", format!("in {} other images of the store", layer.other_images)),
        ];
        if !layer.created_by.is_empty() {
            lines.push(("History", layer.created_by.clone()));
        }
        lines
    }

    /// The image as a whole, with the paths that waste most.
    pub(crate) fn totals(&self) -> Vec<(&'static str, String)> {
        let top = Span { below: 0, to: self.layers.len() };
        let totals = self.tree.totals(top);
        let all = totals.of(PathId::ROOT);
        let stated = |bytes: u64| format!("{} ({bytes} bytes)", size(bytes));
        let layers: u64 = self.layers.iter().map(|layer| layer.size).sum();
        let Efficiency { score, wasted, files } = &self.efficiency;
        let mut lines = vec![
            ("Name", self.name.clone()),
            ("Image id", self.id.hex()),
            ("Layers", self.layers.len().to_string()),
            ("Entries", all.entries.to_string()),
            ("In layers", format!("{} of files", stated(layers))),
            ("Visible", format!("{} of files", stated(all.size))),
            ("Unique", format!("{} only this image's one layer holds", stated(all.unique()))),
            ("Shared", format!("{} other images or layers hold too", stated(all.shared))),
            ("Wasted", wasted_share(*wasted, layers)),
            ("", format!("{wasted} bytes of {} files that no name shows any more", files.len())),
            ("By dive", format!("efficiency {:.2}%; it overlooks", score * 100.0)),
            ("", "what was in a deleted directory".to_owned()),
        ];
        for (path, bytes) in files.iter().filter(|(_, bytes)| *bytes > 0).take(200) {
            let path = self.tree.path(*path);
            lines.push(("", format!("{:>8}  /{}", size(*bytes), escaped(path.as_bytes()))));
        }
        lines
    }

    /// All that is known of a path after `span`, as lines of label and text.
    pub(crate) fn facts(&self, path: PathId, span: Span) -> Vec<(&'static str, String)> {
        let tree = &self.tree;
        let shown_path = format!("/{}", escaped(tree.path(path).as_bytes()));
        let mut lines = vec![("Path", shown_path)];
        let now = tree.at(path, span.to);
        let shown = now.or_else(|| tree.at(path, span.below));
        if let Some(version) = shown {
            self.version_facts(version, &mut lines);
        }
        if now.is_none() {
            lines.push(("State", "removed; the facts are those from before".to_owned()));
        }
        for event in tree.events(path) {
            let what = match (event.before, event.after) {
                (_, None) => "removed".to_owned(),
                (None, Some(_)) => "added".to_owned(),
                (Some(before), Some(after)) => {
                    let words: Vec<&str> = tree.differences(before, after).words().collect();
                    match words.is_empty() {
                        true => "stored again, the same".to_owned(),
                        false => format!("changed: {}", words.join(", ")),
                    }
                }
            };
            let by = self.layers.get(event.layer).map_or("", |layer| layer.created_by.as_str());
            lines.push(("History", format!("layer {} {what}  {by}", event.layer)));
        }
        lines
    }

    fn version_facts(&self, version: &Version, lines: &mut Vec<(&'static str, String)>) {
        let tree = &self.tree;
        let mut kind = kind_name(version.kind).to_owned();
        if let Some(device) = version.kind.device() {
            kind = format!("{kind} {}, {}", device.major, device.minor);
        }
        lines.push(("Type", kind));
        if let Some(target) = tree.link(version) {
            lines.push(("Target", escaped(target).into_owned()));
        }
        if version.kind == Kind::Regular {
            lines.push(("Size", format!("{} bytes", version.size)));
        }
        let mode = mode_string(&version.stat(1));
        lines.push(("Mode", format!("{:04o} ({mode})", version.perm)));
        lines.push(("Owner", format!("uid {}, gid {}", version.uid, version.gid)));
        lines.push(("Modified", full_time(version.mtime)));
        for (name, value) in tree.xattrs(version) {
            let value = xattr_text::value(name, value);
            lines.push(("Xattr", format!("{}={value}", escaped(name))));
        }
        if let Some(layer) = self.layers.get(version.layer as usize) {
            lines.push(("Layer", version.layer.to_string()));
            lines.push(("Diff id", layer.diff_id.hex()));
        }
        let Some(content) = tree.content(version) else { return };
        lines.push(("Sha256", content.digest.hex()));
        let holders = tree.holders(content);
        let own = self.layers.get(version.layer as usize).map(|layer| layer.diff_id);
        for layer in holders.layers.iter().filter(|layer| Some(**layer) != own) {
            lines.push(("Held by", self.layer_name(layer)));
        }
        for image in &holders.other_images {
            lines.push(("Held by", format!("image {}", self.image_name(image))));
        }
        if !holders.is_shared() {
            lines.push(("Held by", "this layer of this image alone".to_owned()));
        }
    }
}

/// Who has the layers that none of the store's images has.
fn engines(store: &Store, images: &[ImageRecord]) -> Result<HashMap<DiffId, String>> {
    let mut engines: HashMap<DiffId, String> = HashMap::new();
    for held in store.held_images()?.beside(images) {
        for layer in &held.layers {
            engines.entry(*layer).or_insert_with(|| held.shown());
        }
    }
    Ok(engines)
}

/// The line of the Dockerfile, as far as the history has kept it.
fn dockerfile_line(created_by: &str) -> String {
    let line = created_by.trim();
    let line = match line.strip_prefix("/bin/sh -c #(nop)") {
        Some(instruction) => instruction.trim_start().to_owned(),
        None => match line.strip_prefix("/bin/sh -c ") {
            Some(command) => format!("RUN {}", command.trim_start()),
            None => line.to_owned(),
        },
    };
    let line = line.strip_suffix("# buildkit").unwrap_or(&line);
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    escaped(line.as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::dockerfile_line;

    #[test]
    fn history_reads_as_the_dockerfile_does() {
        for (said, line) in [
            ("/bin/sh -c #(nop) COPY file:ab in / ", "COPY file:ab in /"),
            (
                "/bin/sh -c apt-get update &&   apt-get install x",
                "RUN apt-get update && apt-get install x",
            ),
            ("RUN /bin/sh -c pip install # buildkit", "RUN /bin/sh -c pip install"),
            ("umoci insert", "umoci insert"),
        ] {
            assert_eq!(dockerfile_line(said), line);
        }
    }
}
