//! `strata uppers`, `diff` and `commit`.
//!
//! Invariant: an upper is named by its name, or by the directory that it is mounted on.

use std::ffi::OsString;
use std::io::Write;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, ValueHint};
use jiff::Timestamp;
use serde_json::json;
use strata_content::FileTree;
use strata_image::resolve_image;
use strata_registry::Reference;
use strata_union::writable::PathChange;
use stratafs::{CommitOptions, MountInfo, NamedUpper, OpenImage};

use crate::context::{Context, Format};
use crate::history::{self, DiffOptions};
use crate::{progress, table, units};

/// List the writable layers
#[derive(Debug, Args)]
pub(crate) struct UppersArgs {}

/// List what a writable layer changes, or what differs between two images
///
/// With one name: what a writable layer changes. With two images: what the second has otherwise;
/// with a PATH what is there and below it, for a file its lines. A added, C changed, D deleted.
///
/// Compared are types, contents, link targets, device numbers, modes, owners and extended
/// attributes. A time alone is no difference without --time: building an image again changes the
/// times of all that it writes, and nothing else. Link counts are not compared.
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

    /// Whether the exit code says what differs.
    pub(crate) const fn is_asked_for_status(&self) -> bool {
        self.options.exit_code
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
    changes: Vec<strata_image::ConfigChange>,
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
    let shelf = context.engine().uppers();
    let mut rows = Vec::new();
    let mounted = context.engine().mounts()?;
    for upper in shelf.listed()? {
        let at =
            MountInfo::of_upper(&mounted, &upper.name).map(|one| one.record.mountpoint.clone());
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

/// The upper that a person means.
fn find(context: &Context, text: &str) -> Result<NamedUpper> {
    context
        .engine()
        .upper(text)?
        .ok_or_else(|| anyhow!("no upper {text:?}, nor a mount of one; `strata uppers` lists them"))
}

/// An upper and the image below as one tree, if `text` names an upper or its mount.
pub(crate) fn merged(context: &Context, text: &str) -> Result<Option<(OpenImage, FileTree)>> {
    let engine = context.engine();
    Ok(engine.upper(text)?.map(|upper| engine.merged(&upper)).transpose()?)
}

/// The upper of a `diff` with one name.
fn find_for_diff(context: &Context, args: &DiffArgs) -> Result<NamedUpper> {
    let name = &args.first;
    if context.engine().upper(name)?.is_none() && resolve_image(&context.store()?, name).is_ok() {
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
            if resolve_image(&context.store()?, name).is_err()
                && context.engine().upper(name)?.is_some()
            {
                bail!("{name} is an upper; `strata diff {name}` lists what it changes");
            }
        }
        let (images, path) = ([&args.first[..], second], args.path.as_deref());
        return history::run_diff(context, images, path, &args.options, terminal, out);
    }
    let upper = find_for_diff(context, args)?;
    let (_image, view) = context.engine().view(&upper)?;
    let layer = view.changes().with_context(|| format!("cannot read upper {}", upper.name))?;
    if context.format == Format::Json {
        let word = |change| match change {
            PathChange::Added => "added",
            PathChange::Changed => "changed",
            PathChange::Deleted => "deleted",
        };
        let all: Vec<_> = layer
            .list()
            .map(|(path, change)| {
                json!({ "change": word(change), "path": history::path_json(path) })
            })
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
    let options = CommitOptions {
        created: args.created,
        author: args.author.clone(),
        message: args.message.clone(),
        changes: args.changes.clone(),
    };
    let listener = progress::listener(context.shown);
    let (engine, name) = (context.engine(), args.reference.as_ref());
    let done = engine.commit(&context.store()?, &upper, name, options, &*listener)?;
    for line in done.left_out {
        tracing::warn!("{line}");
    }
    writeln!(out, "{}", done.image.id)?;
    Ok(())
}
