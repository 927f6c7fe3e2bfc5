//! `strata inspect`: all that is known of an image, a layer, an upper or a mount.
//!
//! Invariants: always a JSON array, one element a name, in the order asked; images have docker's
//! fields, so that what reads `docker inspect` reads this.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use strata_image::resolve_image;
use strata_layer::Store;
use strata_tree::DiffId;

use super::KnownImage;
use super::facts::{driver, of_image, shown};
use crate::context::{Context, Format};
use crate::document::{self, Document, Field, TameJson};
use crate::template::Template;
use stratafs::MountInfo;
use stratafs::{NamedUpper, Uppers};

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
    /// The arguments of `image inspect`, which shows nothing else.
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
    let mounts = context.engine().mounts()?;
    let mut found = Vec::new();
    let mut failed = Vec::new();
    for name in &args.names {
        match inspect(context, &store, &mounts, args.kind, name) {
            Ok(value) => found.push(value),
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    let template = args.template.as_deref();
    match (&context.format, template) {
        (Format::Template(text), _) => Template::parse(text)?.print_documents(&found, out)?,
        // As docker: on one line where JSON is asked for, else to read.
        (Format::Json, _) | (_, Some("json")) => {
            serde_json::to_writer(TameJson::new(&mut *out), &found)?;
            writeln!(out)?;
        }
        (Format::Table, Some(text)) => Template::parse(text)?.print_documents(&found, out)?,
        (Format::Table, None) => document::print(&found, out)?,
    }
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
) -> Result<Document> {
    let wanted = |this| kind.is_none_or(|kind| kind == this);
    let mounted = || -> Result<Option<Document>> {
        let mount = context.engine().mount_at(Path::new(name))?;
        Ok(mount.as_ref().map(of_mount).map(Document::from))
    };
    // A plain name is that of something in the store first.
    if (kind == Some(Kind::Mount) || wanted(Kind::Mount) && name.contains('/'))
        && let Some(mount) = mounted()?
    {
        return Ok(mount);
    }
    if wanted(Kind::Upper) && !name.contains('/') && !name.starts_with("sha256:") {
        let shelf = context.engine().uppers();
        if let Ok(Some(upper)) = shelf.known(name) {
            return of_upper(store, &shelf, mounts, &upper.whole()?);
        }
    }
    if wanted(Kind::Layer)
        && let Some(layer) = find_layer(store, name)?
    {
        return Ok(of_layer(store, &layer)?.into());
    }
    match kind {
        None | Some(Kind::Image) => {
            let found = resolve_image(store, name);
            if found.is_err()
                && kind.is_none()
                && let Some(mount) = mounted()?
            {
                return Ok(mount);
            }
            of_image(store, mounts, &KnownImage::one(store, found?)?)
        }
        Some(Kind::Layer) => bail!("no layer {name:?}; `strata df` lists them"),
        Some(Kind::Upper) => match context.engine().upper(name) {
            Ok(Some(upper)) => of_upper(store, &context.engine().uppers(), mounts, &upper.whole()?),
            Ok(None) | Err(_) => bail!("no upper {name:?}; `strata uppers` lists them"),
        },
        Some(Kind::Mount) => bail!("nothing is mounted on {name:?}; `strata mounts` lists them"),
    }
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
    let images = store.images().all()?.into_iter().filter(|image| image.layers.contains(id));
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

fn of_upper(
    store: &Store,
    shelf: &Uppers,
    mounts: &[MountInfo],
    upper: &NamedUpper,
) -> Result<Document> {
    let image = store.images().get(&upper.image_id()?)?;
    let layers = image.map(|image| image.layers).unwrap_or_default();
    let layers: Vec<PathBuf> = layers.iter().map(|id| store.layer_files(id)).collect();
    let mount = MountInfo::of_upper(mounts, &upper.name);
    let dir = shelf.dir_of(upper)?;
    let merged = mount.map(|mount| &mount.record.mountpoint);
    let (upper_dir, work_dir) = (shown(&dir.join("upper")), dir.join("work"));
    let driver = driver(&layers, &upper_dir, merged, Some(&work_dir));
    let state = vec![
        Field::new("Status", if mount.is_some() { "running" } else { "exited" }),
        Field::new("Running", mount.is_some()),
        Field::new("Pid", mount.map_or(0, |mount| mount.record.pid)),
    ];
    Ok(Document::Record(vec![
        Field::new("Id", upper.name.clone()).also("ID"),
        Field::new("Created", upper.created_at().map(|time| time.to_string())),
        Field::new("State", Document::Record(state)),
        Field::new("Image", upper.image.clone()),
        Field::new("Name", upper.name.clone()),
        Field::new("Reference", upper.reference.clone()),
        Field::new("Temporary", upper.temporary),
        Field::new("Mounted", mount.is_some()),
        Field::new("SizeRw", shelf.bytes(upper)?),
        Field::new("GraphDriver", driver),
    ]))
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
