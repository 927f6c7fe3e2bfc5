//! The same tree without a terminal: a line or a JSON object for each path.
//!
//! Invariants: paths are in the order of their bytes, directory by directory; one path at a time
//! is in memory; bytes that are not UTF-8 are shown escaped and, in JSON, once more in hex.

use std::io::Write;

use anyhow::Result;
use serde::{Serialize, Serializer};
use strata_analysis::image_tree::{PathId, Span, SpanChange, Totals, Version};

use super::facts::ExploredImage;
use super::model::filter::Filter;
use crate::look::render::{escaped, full_time, hex, mode_string, type_word};

/// What is printed of an image.
pub(super) struct Printed<'a> {
    pub(super) image: &'a ExploredImage,
    pub(super) span: Span,
    pub(super) only_changes: bool,
    pub(super) filter: Option<Filter>,
}

#[derive(Serialize)]
struct Document<'a> {
    image: &'a str,
    id: String,
    /// By dive's formula, 0 to 1; bytes of files that no name shows.
    efficiency: f64,
    wasted: u64,
    layers: Vec<ShownLayer<'a>>,
    /// The layers whose changes `entries` tells, and up to which they are merged.
    first_layer: usize,
    last_layer: usize,
    #[serde(serialize_with = "entries")]
    entries: (&'a Printed<'a>, &'a Totals),
}

#[derive(Serialize)]
struct ShownLayer<'a> {
    index: usize,
    diff_id: String,
    size: u64,
    entries: u64,
    created_by: &'a str,
    other_images: usize,
}

#[derive(Serialize)]
struct ShownEntry<'a> {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    /// `added`, `modified`, `removed`, `again`.
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    differences: Vec<&'static str>,
    r#type: &'static str,
    mode: String,
    uid: u32,
    gid: u32,
    mtime: String,
    /// The layer that its inode is from, counted from the base, 0.
    layer: u32,
    /// Bytes of files here and below, each inode once; those that no one else holds.
    size: u64,
    unique: u64,
    /// Bytes that the layers brought here and below, and hid.
    brought: u64,
    hidden: u64,
    /// Names here and below.
    entries: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    other_images: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layers: Option<usize>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    xattrs: Vec<&'a str>,
}

fn entries<S: Serializer>(
    (printed, totals): &(&Printed<'_>, &Totals),
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_seq(printed.paths(totals).map(|path| printed.entry(path, totals)))
}

/// What became of a path, in a word and a letter.
fn word(change: SpanChange) -> (&'static str, char) {
    match change {
        SpanChange::Added => ("added", 'A'),
        SpanChange::Modified(_) => ("modified", 'M'),
        SpanChange::Removed => ("removed", 'D'),
        SpanChange::Again => ("again", '='),
    }
}

impl Printed<'_> {
    /// Prints JSON.
    pub(super) fn json(&self, out: &mut dyn Write) -> Result<()> {
        let image = self.image;
        let layers = image.layers.iter().enumerate().map(|(index, layer)| ShownLayer {
            index,
            diff_id: layer.diff_id.to_string(),
            size: layer.size,
            entries: layer.entries,
            created_by: &layer.created_by,
            other_images: layer.other_images,
        });
        let totals = image.tree.totals(self.span);
        let document = Document {
            image: &image.name,
            id: image.id.to_string(),
            efficiency: image.efficiency.score,
            wasted: image.efficiency.wasted,
            layers: layers.collect(),
            first_layer: self.span.below,
            last_layer: self.span.to.saturating_sub(1),
            entries: (self, &totals),
        };
        serde_json::to_writer_pretty(&mut *out, &document).map_err(std::io::Error::from)?;
        writeln!(out)?;
        Ok(out.flush()?)
    }

    /// Prints a line for each path: mark, mode, owner, bytes, unique bytes, path. A removed path
    /// shows the bytes that it had.
    pub(super) fn lines(&self, out: &mut dyn Write) -> Result<()> {
        let (tree, totals) = (&self.image.tree, self.image.tree.totals(self.span));
        for path in self.paths(&totals) {
            let Some(version) = self.version(path) else { continue };
            let (change, total) = (tree.change(path, self.span), totals.of(path));
            let mark = change.map_or(if total.changes > 0 { '.' } else { ' ' }, |c| word(c).1);
            let path = tree.path(path);
            // What is gone shows what it had.
            let (size, unique) = match change {
                Some(SpanChange::Removed) => (total.hidden, 0),
                _ => (total.size, total.unique()),
            };
            write!(
                out,
                "{mark} {} {:>5} {:>5} {:>12} {:>12} /{}",
                mode_string(&version.stat(1)),
                version.uid,
                version.gid,
                size,
                unique,
                escaped(path.as_bytes())
            )?;
            match tree.link(version) {
                Some(target) => writeln!(out, " -> {}", escaped(target))?,
                None => writeln!(out)?,
            }
        }
        Ok(out.flush()?)
    }

    /// What is there, or was before.
    fn version(&self, path: PathId) -> Option<&Version> {
        let tree = &self.image.tree;
        tree.at(path, self.span.to).or_else(|| tree.at(path, self.span.below))
    }

    /// The paths to print, depth first.
    fn paths(&self, totals: &Totals) -> impl Iterator<Item = PathId> {
        let tree = &self.image.tree;
        let shown = |path: PathId| match (totals.of(path), self.only_changes) {
            (total, true) => total.changes > 0,
            (total, false) => total.entries > 0 || total.changes > 0,
        };
        let found = self.filter.as_ref().map(|filter| filter.matches(tree, shown));
        let mut order = Vec::new();
        let mut open = vec![PathId::ROOT];
        while let Some(path) = open.pop() {
            if !shown(path) {
                continue;
            }
            let changed = !self.only_changes || tree.change(path, self.span).is_some();
            if changed && found.as_ref().is_none_or(|found| found[path.index()]) {
                order.push(path);
            }
            open.extend(tree.children(path).iter().rev());
        }
        order.into_iter()
    }

    fn entry(&self, path: PathId, totals: &Totals) -> Option<ShownEntry<'_>> {
        let tree = &self.image.tree;
        let version = self.version(path)?;
        let (change, total) = (tree.change(path, self.span), totals.of(path));
        let path = tree.path(path);
        let utf8 = std::str::from_utf8(path.as_bytes());
        let content = tree.content(version);
        let holders = content.map(|content| tree.holders(content));
        let xattrs = tree.xattrs(version).iter();
        Some(ShownEntry {
            path: match utf8 {
                Ok(text) => format!("/{text}"),
                Err(_) => format!("/{}", escaped(path.as_bytes())),
            },
            path_hex: utf8.is_err().then(|| hex(path.as_bytes())),
            change: change.map(|change| word(change).0),
            differences: match change {
                Some(SpanChange::Modified(differences)) => differences.words().collect(),
                _ => Vec::new(),
            },
            r#type: type_word(version.kind),
            mode: format!("{:04o}", version.perm),
            uid: version.uid,
            gid: version.gid,
            mtime: full_time(version.mtime),
            layer: version.layer,
            size: total.size,
            unique: total.unique(),
            brought: total.brought,
            hidden: total.hidden,
            entries: total.entries,
            target: tree.link(version).map(|target| escaped(target).into_owned()),
            sha256: content.map(|content| content.digest.hex()),
            other_images: holders.map(|holders| holders.other_images.len()),
            layers: holders.map(|holders| holders.layers.len()),
            xattrs: xattrs.filter_map(|(name, _)| std::str::from_utf8(name).ok()).collect(),
        })
    }
}
