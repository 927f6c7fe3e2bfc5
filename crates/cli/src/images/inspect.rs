//! `strata inspect`: all that is known of an image, a layer, an upper or a mount.
//!
//! Invariants: always a JSON array, one element a name, in the order asked; images have docker's
//! fields, so that what reads `docker inspect` reads this.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};
use strata_image::{ImageConfig, resolve_image};
use strata_layer::Store;
use strata_tree::DiffId;

use super::Known;
use crate::context::{Context, Format};
use crate::mounts::MountInfo;
use crate::template;
use crate::uppers::{Shelf, Upper};

/// Show all that is known of images, layers, uppers or mounts, as JSON
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Names or ids of images, diff ids of layers, names of uppers, directories of mounts
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Only this kind of thing
    #[arg(long = "type", value_enum, value_name = "KIND")]
    kind: Option<Kind>,
    /// Taken for docker's sake: sizes are always shown
    #[arg(short, long)]
    size: bool,
    /// The same as --format, as docker has it
    #[arg(short = 'f', value_name = "TEMPLATE")]
    template: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Image,
    Layer,
    #[value(alias = "container")]
    Upper,
    Mount,
}

impl InspectArgs {
    /// Of `image inspect`, which asks for nothing else.
    pub(crate) fn of_images(mut self) -> Self {
        self.kind = self.kind.or(Some(Kind::Image));
        self
    }

    /// Of `container inspect`: an upper by its name or by the directory that it is mounted on.
    pub(crate) fn of_containers(mut self) -> Self {
        let by_directory = self.names.iter().any(|name| name.contains('/'));
        let kind = if by_directory { Kind::Mount } else { Kind::Upper };
        self.kind = self.kind.or(Some(kind));
        self
    }
}

pub(crate) fn run_inspect(
    context: &Context,
    args: &InspectArgs,
    out: &mut impl Write,
) -> Result<()> {
    let store = context.store()?;
    let mounts = crate::mounts::all(&context.root)?;
    let mut found = Vec::new();
    let mut failed = Vec::new();
    for name in &args.names {
        match inspect(context, &store, &mounts, args.kind, name) {
            Ok(value) => found.push(value),
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    let given = match &context.format {
        Format::Template(text) => Some(text.as_str()),
        Format::Table | Format::Json => args.template.as_deref().filter(|text| *text != "json"),
    };
    template::print_values(given, &found, out)?;
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("{}", failed.join("\nstrata: ")),
    }
}

/// As docker looks: the kinds one after the other, unless one is said.
fn inspect(
    context: &Context,
    store: &Store,
    mounts: &[MountInfo],
    kind: Option<Kind>,
    name: &str,
) -> Result<Value> {
    let wanted = |this| kind.is_none_or(|kind| kind == this);
    if wanted(Kind::Mount) && name.contains('/') {
        let path = std::path::absolute(name)?;
        if let Some(mount) = mounts.iter().find(|mount| mount.record.mountpoint == path) {
            return Ok(of_mount(mount));
        }
    }
    if wanted(Kind::Upper) && !name.contains('/') && !name.starts_with("sha256:") {
        let shelf = Shelf::new(&context.root);
        if let Ok(Some(upper)) = shelf.find(name) {
            return of_upper(store, &shelf, mounts, &upper);
        }
    }
    if wanted(Kind::Layer)
        && let Some(layer) = find_layer(store, name)?
    {
        return of_layer(store, &layer);
    }
    match kind {
        None | Some(Kind::Image) => {
            let image = Known::one(store, resolve_image(store, name)?)?;
            of_image(store, mounts, &image)
        }
        Some(Kind::Layer) => bail!("no layer {name:?}; `strata df` lists them"),
        Some(Kind::Upper) => bail!("no upper {name:?}; `strata uppers` lists them"),
        Some(Kind::Mount) => bail!("nothing is mounted on {name:?}; `strata mounts` lists them"),
    }
}

fn of_image(store: &Store, mounts: &[MountInfo], image: &Known) -> Result<Value> {
    let raw = ImageConfig::document(store, &image.record.id)?;
    let of_config = |key: &str| raw.get(key).cloned().unwrap_or(Value::Null);
    let text = |key: &str| Value::from(raw.get(key).and_then(Value::as_str).unwrap_or_default());
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
    let mut value = Map::new();
    for (key, one) in [
        ("Id", json!(id)),
        ("RepoTags", json!(image.familiar_names())),
        ("RepoDigests", json!(image.digests())),
        ("Parent", json!("")),
        ("Comment", json!(comment)),
        ("Created", of_config("created")),
        ("Author", text("author")),
        ("Config", of_config("config")),
        ("Architecture", text("architecture")),
        ("Variant", text("variant")),
        ("Os", text("os")),
        ("Size", json!(image.size(store)?)),
        ("GraphDriver", driver(below, &top, mount.map(|mount| &mount.record.mountpoint), None)),
        (
            "RootFS",
            json!({
                "Type": "layers",
                "Layers": image.record.layers.iter().map(DiffId::to_string).collect::<Vec<_>>(),
            }),
        ),
        ("Metadata", json!({ "Manifest": image.record.manifest.map(|one| one.to_string()) })),
    ] {
        value.insert(key.to_owned(), one);
    }
    Ok(Value::Object(value))
}

/// Where things are, as docker says it of overlay2. Layers of the store are contents and
/// metadata apart: their directories are to look into, not for the kernel to mount.
fn driver(
    lowers: &[PathBuf],
    upper: &str,
    merged: Option<&PathBuf>,
    work: Option<&PathBuf>,
) -> Value {
    let lowers: Vec<String> = lowers.iter().rev().map(|path| shown(path)).collect();
    json!({
        "Name": "strata",
        "Data": {
            "LowerDir": lowers.join(":"),
            "UpperDir": upper,
            "MergedDir": merged.map(|path| shown(path)).unwrap_or_default(),
            "WorkDir": work.map(|path| shown(path)).unwrap_or_default(),
        },
    })
}

fn shown(path: &std::path::Path) -> String {
    path.display().to_string()
}

/// A layer by its diff id, or by the beginning of it that is long enough not to be a name.
fn find_layer(store: &Store, name: &str) -> Result<Option<DiffId>> {
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    if hex.len() < 12 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let layers = store.layers()?.into_iter().map(|record| record.diff_id);
    let mut found = layers.filter(|id| id.hex().starts_with(hex));
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(Some(only)),
        (Some(_), Some(_)) => bail!("{name:?} is the beginning of several layers' diff ids"),
        (None, _) => Ok(None),
    }
}

fn of_layer(store: &Store, id: &DiffId) -> Result<Value> {
    let record = store.layer(id)?;
    let record = record.ok_or_else(|| anyhow::anyhow!("layer {id} has just been removed"))?;
    let images = store.images()?.into_iter().filter(|image| image.layers.contains(id));
    Ok(json!({
        "DiffId": id.to_string(),
        "DiffSize": record.diff_size,
        "Entries": record.entries,
        "Size": record.apparent,
        "HeadersSize": record.headers_size,
        "Dir": shown(&store.layer_files(id)),
        "Images": images.map(|image| image.id.to_string()).collect::<Vec<_>>(),
    }))
}

fn of_upper(store: &Store, shelf: &Shelf, mounts: &[MountInfo], upper: &Upper) -> Result<Value> {
    let image = store.image(&upper.image_id()?)?;
    let layers = image.map(|image| image.layers).unwrap_or_default();
    let layers: Vec<PathBuf> = layers.iter().map(|id| store.layer_files(id)).collect();
    let mount = crate::mounts::of_upper(mounts, &upper.name);
    let dir = shelf.dir_of(upper)?;
    Ok(json!({
        "Name": upper.name,
        "Image": upper.image,
        "Reference": upper.reference,
        "Created": upper.created_at().map(|time| time.to_string()),
        "Temporary": upper.temporary,
        "Mounted": mount.is_some(),
        "SizeRw": shelf.bytes(upper)?,
        "GraphDriver": driver(
            &layers,
            &shown(&dir.join("upper")),
            mount.map(|mount| &mount.record.mountpoint),
            Some(&dir.join("work")),
        ),
    }))
}

fn of_mount(mount: &MountInfo) -> Value {
    let record = &mount.record;
    json!({
        "Mountpoint": shown(&record.mountpoint),
        "Image": record.image,
        "Reference": record.reference,
        "Upper": record.upper,
        "Pid": record.pid,
        "Started": record.started,
        "UptimeSeconds": mount.uptime,
        "Status": mount.status,
        "Profile": record.profile,
        "Options": record.options,
    })
}
