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

use super::effect::{RmiEffect, asked, gone_by_name, names_of, shown};
use super::familiar;
use super::users::Users;
use crate::context::Context;
use crate::told;

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
    let users = Users::of(context)?;
    if args.dry_run {
        return super::dry_run::run(context, &store, &users, &args.images, args.force, out);
    }
    let mut failed = Vec::new();
    for text in &args.images {
        match context.freeing(|| remove(&store, &users, text, args.force, out)) {
            Ok(()) => {}
            // As docker says it, which does not call it an error.
            Err(error) if args.force && is_absent(&error) => {
                writeln!(std::io::stderr(), "strata: {}", told::told(&error))?;
            }
            Err(error) => failed.push(told::told(&error)),
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("{}", failed.join("\nstrata: ")),
    }
}

fn is_absent(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(strata_image::Error::NoImage { .. }))
}

fn remove(
    store: &Store,
    users: &Users,
    text: &str,
    force: bool,
    out: &mut impl Write,
) -> Result<()> {
    let tags = store.images().tags()?;
    match asked(store, &tags, users, text, force)? {
        RmiEffect::Untag(names) => untag(store, &names, out)?,
        RmiEffect::Remove(id) => {
            let shown = shown(&tags, &id, text);
            let freed = match (store.images().remove(&id), gone_by_name(&tags, &id, text)) {
                // The image stays, without a name, as long as it is in use.
                (Err(error), Some(names)) if force && error.is_in_use() => {
                    return untag(store, &names, out);
                }
                (Err(error @ LayerError::InUse { .. }), _) => match users.mounted(&id) {
                    Some(how) => bail!("unable to delete {shown}: {how}"),
                    None => return Err(error).context(format!("unable to delete {shown}")),
                },
                (freed, _) => freed.with_context(|| format!("unable to delete {shown}"))?,
            };
            for name in names_of(&tags, &id) {
                writeln!(out, "Untagged: {}", familiar(name))?;
            }
            writeln!(out, "Deleted: {id}")?;
            for layer in freed {
                writeln!(out, "Deleted: {layer}")?;
            }
        }
    }
    Ok(())
}

fn untag(store: &Store, names: &[String], out: &mut impl Write) -> Result<()> {
    for name in names {
        store.images().untag(name)?;
        writeln!(out, "Untagged: {}", familiar(name))?;
    }
    Ok(())
}
