//! `strata tag` and `rmi`.
//!
//! Invariants: a name goes alone as long as the image has others, and the last tag of a repository
//! takes the digests along that the image was pulled as from there; an image that is in use, by a
//! mount or by an upper, stays.

use std::io::Write;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use strata_image::resolve_image;
use strata_layer::{Error as LayerError, Store};
use strata_registry::Reference;
use strata_tree::ImageId;

use super::effect::{RmiEffect, asked, gone_by_name, is_absent, names_of, shown};
use super::familiar;
use super::users::mounted;
use crate::context::Context;
use crate::told::{tell, told};

/// Give an image a further name
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// Name or id of the image
    source: String,
    /// The new name
    target: Reference,
}

/// Remove names, and images that have none left
///
/// An image that is mounted is in use and stays. Layers go with the last image that needs them.
#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    /// Names or ids
    #[arg(required = true)]
    images: Vec<String>,
    /// Remove an image by id even if it has several names; take the last name of an image away
    /// that is in use; what is not there is no error
    #[arg(short, long)]
    force: bool,
    /// Taken for docker's sake: there are no untagged parents
    #[arg(long)]
    no_prune: bool,
    /// Remove nothing: tell what would go and what that would free
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run_tag(context: &Context, args: &TagArgs) -> Result<()> {
    let store = context.store_to_change()?;
    let image = resolve_image(&store, &args.source)?;
    let name = match (args.target.store_tag(), args.target.digest()) {
        (Some(name), None) => name,
        _ => bail!("{} names a digest; a tag is a name like {}:v1", args.target, args.source),
    };
    store.images().tag(&name, &image.id)?;
    Ok(())
}

pub(crate) fn run_rmi(context: &Context, args: &RmiArgs, out: &mut impl Write) -> Result<()> {
    let store = context.store_to_change()?;
    if args.dry_run {
        return super::dry_run::run(context, &store, &args.images, args.force, out);
    }
    let mut failed = Vec::new();
    for text in &args.images {
        match context.freeing(|| remove(context, &store, text, args.force, out)) {
            Ok(()) => {}
            // As docker says it, which does not call it an error.
            Err(error) if args.force && is_absent(&error) => {
                tell(format_args!("strata: {}", told(&error)));
            }
            Err(error) => failed.push(told(&error)),
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("{}", failed.join("\nstrata: ")),
    }
}

/// Again, as long as others name the image or take a name away between the question what is to go
/// and its going.
fn remove(
    context: &Context,
    store: &Store,
    text: &str,
    force: bool,
    out: &mut impl Write,
) -> Result<()> {
    loop {
        match remove_as_named(context, store, text, force) {
            Ok(lines) => return Ok(lines.iter().try_for_each(|line| writeln!(out, "{line}"))?),
            Err(error) if is_renamed(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

fn is_renamed(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(LayerError::Renamed(_)))
}

/// Gives what is to be said of it.
fn remove_as_named(
    context: &Context,
    store: &Store,
    text: &str,
    force: bool,
) -> Result<Vec<String>> {
    let tags = store.images().tags()?;
    match asked(context, store, &tags, text, force)? {
        RmiEffect::Untag(id, names) => untag(store, &id, &names_of(&tags, &id), &names),
        RmiEffect::Remove(id) => {
            let (shown, names) = (shown(&tags, &id, text), names_of(&tags, &id));
            let uppers = context.engine().uppers();
            let removed = store.images().remove_known(&id, &names, &|| uppers.may_be_on(&id));
            let freed = match (removed, gone_by_name(&tags, &id, text)) {
                // The image stays, without a name, as long as it is in use.
                (Err(error), Some(gone)) if force && error.is_in_use() => {
                    return untag(store, &id, &names, &gone);
                }
                (Err(error @ LayerError::InUse { .. }), _) => {
                    match mounted(&context.engine().mounts()?, &id) {
                        Some(how) => bail!("unable to delete {shown}: {how}"),
                        None => return Err(error).context(format!("unable to delete {shown}")),
                    }
                }
                (freed, _) => freed.with_context(|| format!("unable to delete {shown}"))?,
            };
            let mut lines: Vec<String> =
                names.iter().map(|name| format!("Untagged: {}", familiar(name))).collect();
            lines.push(format!("Deleted: {id}"));
            lines.extend(freed.iter().map(|layer| format!("Deleted: {layer}")));
            Ok(lines)
        }
    }
}

fn untag(store: &Store, id: &ImageId, known: &[&str], gone: &[String]) -> Result<Vec<String>> {
    store.images().untag_of(id, known, gone)?;
    Ok(gone.iter().map(|name| format!("Untagged: {}", familiar(name))).collect())
}
