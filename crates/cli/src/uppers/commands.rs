//! `strata uppers`, `diff` and `commit`.
//!
//! Invariant: an upper is named by its name, or by the directory that it is mounted on.

use std::ffi::OsString;
use std::io::{PipeWriter, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, ValueHint};
use jiff::Timestamp;
use serde_json::json;
use strata_content::{FileTree, Joined};
use strata_image::{DeriveOptions, derive, resolve_image};
use strata_registry::Reference;
use strata_tree::Lower;
use strata_union::Stack;
use strata_union::writable::{PathChange, UpperView};

use super::shelf::{Shelf, Upper};
use crate::context::{Context, Format, OpenImage, check_chain};
use crate::history::{self, DiffOptions};
use crate::{mounts, progress, table, units};

/// List the writable layers
#[derive(Debug, Args)]
pub(crate) struct UppersArgs {}

/// List what a writable layer changes, or what differs between two images
///
/// With one name: what a writable layer changes. With two images: what the second has otherwise;
/// with a PATH what is there and below it, for a file its lines. A added, C changed, D deleted.
///
/// Compared are types, contents, link targets, device numbers, modes, owners and extended
/// attributes. A time alone is no difference without --time: building an image anew changes the
/// times of all it writes, and nothing else by them. Link counts are not compared.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    options: DiffOptions,
    /// An upper's name, or the directory that it is mounted on; or an image
    #[arg(value_name = "NAME|DIR|IMAGE", value_hint = ValueHint::DirPath)]
    first: String,
    /// The image to compare the first with
    #[arg(value_name = "IMAGE2")]
    second: Option<String>,
    /// Where to look in both
    path: Option<OsString>,
}

impl DiffArgs {
    /// The exit code of an error: with --exit-code, 1 has a meaning of its own.
    pub(crate) const fn trouble(&self) -> u8 {
        if self.options.exit_code { 2 } else { 1 }
    }
}

/// Make an image of a writable layer and the image below it
#[derive(Debug, Args)]
pub(crate) struct CommitArgs {
    /// The upper's name, or the directory that it is mounted on
    #[arg(value_name = "NAME|DIR", value_hint = ValueHint::DirPath)]
    upper: String,
    /// The new image's name [default: none; its id is printed]
    reference: Option<Reference>,
    /// A change of what the image says of a container, as a line of a Dockerfile: CMD, ENTRYPOINT,
    /// ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<strata_image::Change>,
    /// Taken for docker's sake: what is written meanwhile is in the image or not
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pause: Option<bool>,
    /// A remark for the image's history
    #[arg(short, long)]
    message: Option<String>,
    /// Who made it
    #[arg(short, long)]
    author: Option<String>,
    /// The creation time, for reproducible image ids [default: now]
    #[arg(long, value_name = "TIME")]
    created: Option<Timestamp>,
}

pub(crate) fn run_uppers(context: &Context, _: &UppersArgs, out: &mut impl Write) -> Result<()> {
    let shelf = Shelf::new(&context.root);
    let mut rows = Vec::new();
    let mounted = mounts::all(&context.root)?;
    for upper in shelf.all()? {
        let at = mounts::of_upper(&mounted, &upper.name).map(|one| one.record.mountpoint.clone());
        let bytes = shelf.bytes(&upper)?;
        rows.push((upper, at, bytes));
    }
    if context.format == Format::Json {
        let all: Vec<_> = rows
            .iter()
            .map(|(upper, at, bytes)| {
                json!({
                    "name": upper.name, "image": upper.image, "reference": upper.reference,
                    "created": upper.created, "temporary": upper.temporary, "bytes": bytes,
                    "mountpoint": at.as_ref().map(|path| path.display().to_string()),
                })
            })
            .collect();
        writeln!(out, "{:#}", json!(all))?;
        return Ok(());
    }
    if context.quiet {
        return rows.iter().try_for_each(|(upper, ..)| Ok(writeln!(out, "{}", upper.name)?));
    }
    let now = Timestamp::now();
    let head = ["NAME", "IMAGE", "CREATED", "SIZE", "MOUNTED ON"];
    let mut lines = vec![head.map(String::from)];
    for (upper, at, bytes) in rows {
        let created = upper.created_at();
        lines.push([
            upper.name,
            upper.reference,
            created.map_or("N/A".to_owned(), |time| units::age(time, now)),
            units::size(bytes),
            at.map_or("-".to_owned(), |path| path.display().to_string()),
        ]);
    }
    table::print(&lines, out)
}

/// The upper that a person means, if there is one.
pub(super) fn known(context: &Context, text: &str) -> Result<Option<Upper>> {
    let shelf = Shelf::new(&context.root);
    match mounts::upper_at(&context.root, Path::new(text))? {
        Some(name) => shelf.find(&name),
        None if text.contains(['/', ':']) => Ok(None),
        None => shelf.find(text),
    }
}

/// The same, where there has to be one.
fn find(context: &Context, text: &str) -> Result<Upper> {
    known(context, text)?
        .ok_or_else(|| anyhow!("no upper {text:?}, nor a mount of one; `strata uppers` lists them"))
}

/// An upper and the image below as one tree, if `text` names an upper or its mount.
pub(crate) fn merged(context: &Context, text: &str) -> Result<Option<(OpenImage, FileTree)>> {
    let Some(upper) = known(context, text)? else { return Ok(None) };
    let (image, view) = view(context, &upper)?;
    let changes = view.changes().with_context(|| format!("cannot read upper {}", upper.name))?;
    let layers = u32::try_from(image.record.layers.len()).context("too many layers")?;
    let (below, own) = (Arc::clone(image.files.contents()), changes.contents());
    // The view refers to the image's layers too: it has one more than they are.
    let contents = Joined::new(vec![(layers, below), (u32::MAX - layers, own)]);
    let names = Stack::joined(vec![
        (image.tree.clone() as Arc<dyn Lower>, layers),
        (Arc::new(changes), u32::MAX - layers),
    ]);
    Ok(Some((image, FileTree::new(Arc::new(names), Arc::new(contents)))))
}

/// An upper on top of its image, for reading.
fn view(context: &Context, upper: &Upper) -> Result<(OpenImage, UpperView)> {
    let image = context
        .open_image(&upper.image)
        .with_context(|| format!("cannot open the image of upper {}", upper.name))?;
    let view = Shelf::new(&context.root).view(upper, image.files.clone())?;
    Ok((image, view))
}

/// The upper of a `diff` with one name.
fn find_for_diff(context: &Context, args: &DiffArgs) -> Result<Upper> {
    let name = &args.first;
    if known(context, name)?.is_none() && resolve_image(&context.store()?, name).is_ok() {
        bail!("{name} is an image; name a second one to compare it with");
    }
    let upper = find(context, name)?;
    match args.options.given() {
        Some(option) => bail!("{option} compares two images; {name} is an upper"),
        None => Ok(upper),
    }
}

pub(crate) fn run_diff(
    context: &Context,
    args: &DiffArgs,
    terminal: bool,
    out: &mut impl Write,
) -> Result<()> {
    if let Some(second) = &args.second {
        for name in [&args.first, second] {
            if resolve_image(&context.store()?, name).is_err() && known(context, name)?.is_some() {
                bail!("{name} is an upper; `strata diff {name}` lists what it changes");
            }
        }
        let (images, path) = ([&args.first[..], second], args.path.as_deref());
        return history::run_diff(context, images, path, &args.options, terminal, out);
    }
    let upper = find_for_diff(context, args)?;
    let (_image, view) = view(context, &upper)?;
    let layer = view.changes().with_context(|| format!("cannot read upper {}", upper.name))?;
    if context.format == Format::Json {
        let word = |change| match change {
            PathChange::Added => "added",
            PathChange::Changed => "changed",
            PathChange::Deleted => "deleted",
        };
        let all: Vec<_> = layer
            .list()
            .map(|(path, change)| json!({ "change": word(change), "path": path.to_string() }))
            .collect();
        writeln!(out, "{:#}", json!(all))?;
        return Ok(());
    }
    for (path, change) in layer.list() {
        let letter = match change {
            PathChange::Added => 'A',
            PathChange::Changed => 'C',
            PathChange::Deleted => 'D',
        };
        writeln!(out, "{letter} {path}")?;
    }
    Ok(())
}

pub(crate) fn run_commit(context: &Context, args: &CommitArgs, out: &mut impl Write) -> Result<()> {
    let upper = find(context, &args.upper)?;
    let (image, view) = view(context, &upper)?;
    let layer = view.changes().with_context(|| format!("cannot read upper {}", upper.name))?;
    let store = context.store()?;
    let listener = progress::listener(context.shown);
    let check = |held: &[_]| check_chain(&store, held);
    let options = DeriveOptions {
        created: args.created,
        author: args.author.clone(),
        message: args.message.clone(),
        changes: args.changes.clone(),
        created_by: format!("strata commit {}", upper.name),
        chain_check: Some(&check),
    };
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    let (derived, written) = std::thread::scope(|scope| {
        let writing = scope.spawn(|| write_diff(layer, writer));
        let diff = Box::new(reader);
        let derived =
            derive(&store, &image.record, diff, args.reference.as_ref(), &options, &*listener);
        (derived, writing.join())
    });
    let written = written.map_err(|_| anyhow!("writing the layer failed"))?;
    // A diff that ends early is refused by its reader, for a reason that tells less.
    let left_out = match (&derived, written) {
        (_, Ok(left_out)) => left_out,
        (Ok(_), Err(error)) => return Err(error),
        (Err(_), Err(error)) if is_broken_pipe(&error) => Vec::new(),
        (Err(_), Err(error)) => return Err(error),
    };
    let loaded = derived.with_context(|| format!("cannot commit upper {}", upper.name))?;
    for line in left_out {
        tracing::warn!("{line}");
    }
    writeln!(out, "{}", loaded.id)?;
    Ok(())
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

/// Writes the layer as a diff; says what a diff cannot hold.
fn write_diff(layer: strata_union::writable::Layer, writer: PipeWriter) -> Result<Vec<String>> {
    let mut out = std::io::BufWriter::with_capacity(256 << 10, writer);
    let contents = layer.contents();
    let layer = FileTree::new(Arc::new(layer), contents);
    let exported = strata_layer::export::write_changes(&layer, &mut out)?;
    out.flush()?;
    let left_out = exported.left_out.into_iter();
    Ok(left_out.map(|one| format!("{}: left out: {}", one.path, one.what)).collect())
}

/// The upper that a mount asks for: an existing one, or one made for it.
pub(crate) fn for_mount(
    context: &Context,
    wanted: Option<&str>,
    keep: bool,
    reference: &str,
) -> Result<(Upper, bool)> {
    let shelf = Shelf::new(&context.root);
    let store = context.store()?;
    let image = resolve_image(&store, reference)?;
    if let Some(upper) = wanted.map(|name| shelf.find(name)).transpose()?.flatten() {
        if upper.image_id()? != image.id {
            bail!(
                "upper {} belongs to {} ({}), not to {reference}; choose another name",
                upper.name,
                upper.reference,
                upper.image_id()?.short(),
            );
        }
        return Ok((upper, false));
    }
    let now = Timestamp::now();
    let made = format!("{}-{:x}", image.id.short(), now.as_microsecond());
    let upper = Upper {
        name: wanted.map_or(made, str::to_owned),
        image: image.id.to_string(),
        reference: reference.to_owned(),
        created: u64::try_from(now.as_second()).unwrap_or(0),
        temporary: wanted.is_none() && !keep,
        apart: !rustix::process::geteuid().is_root(),
    };
    shelf.create(&upper, context.open_image(reference)?.files)?;
    Ok((upper, true))
}
