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

use super::users::Users;
use super::{familiar, is_pin, split};
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

/// What an argument asks for.
pub(super) enum Asked {
    /// That these names go; the image has others.
    Untag(Vec<String>),
    /// That the image goes, with all its names.
    Remove(ImageId),
}

pub(crate) fn run_tag(context: &Context, args: &TagArgs) -> Result<()> {
    let store = context.store_to_change()?;
    let image = resolve_image(&store, &args.source)?;
    let name = match (args.target.store_tag(), args.target.digest()) {
        (Some(name), None) => name,
        _ => bail!("{} names a digest; a tag is a name like {}:v1", args.target, args.source),
    };
    store.tag(&name, &image.id)?;
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
    let tags = store.tags()?;
    match asked(store, &tags, users, text, force)? {
        Asked::Untag(names) => untag(store, &names, out)?,
        Asked::Remove(id) => {
            let shown = shown(&tags, &id, text);
            let freed = match (store.remove_image(&id), gone_by_name(&tags, &id, text)) {
                // The image stays, without a name, as long as it is in use.
                (Err(LayerError::InUse { .. }), Some(names)) if force => {
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
        store.untag(name)?;
        writeln!(out, "Untagged: {}", familiar(name))?;
    }
    Ok(())
}

/// By name: the name goes, and the image if it was its last of `tags`. By id: the image, if it
/// has one name at most.
pub(super) fn asked(
    store: &Store,
    tags: &[(String, ImageId)],
    users: &Users,
    text: &str,
    force: bool,
) -> Result<Asked> {
    let image = resolve_image(store, text)?;
    let names = names_of(tags, &image.id);
    let named = named(&names, text);
    let short = image.id.short();
    let tags_of_it = || names.iter().filter(|name| !is_pin(name));
    match named {
        Some(name) => {
            let gone = gone_with(&names, name);
            // As docker does it: the image stays, without a name, as long as an upper needs it.
            let kept = force && users.upper(&image.id).is_some();
            if kept || gone.len() < names.len() {
                return Ok(Asked::Untag(gone));
            }
        }
        None if tags_of_it().count() > 1 && !force => bail!(
            "unable to delete {short} (must be forced): it is named {}; remove those names, or \
             use --force",
            tags_of_it().map(|name| familiar(name)).collect::<Vec<_>>().join(", ")
        ),
        None => {}
    }
    if let Some(how) = users.upper(&image.id) {
        bail!("unable to delete {}: {how}", shown(tags, &image.id, text));
    }
    Ok(Asked::Remove(image.id))
}

/// The image as it was asked for: by the name that it has, else as the text has it.
pub(super) fn shown(tags: &[(String, ImageId)], id: &ImageId, text: &str) -> String {
    named(&names_of(tags, id), text).map_or_else(|| text.to_owned(), familiar)
}

/// What goes with a name: itself, and with a repository's last tag the digests of the repository.
fn gone_with(names: &[&str], name: &str) -> Vec<String> {
    let own = split(name).0;
    let of_repository = |other: &&&str| **other != name && split(other).0 == own;
    let mut gone = vec![name.to_owned()];
    if !is_pin(name) && names.iter().filter(of_repository).all(|other| is_pin(other)) {
        gone.extend(names.iter().filter(of_repository).map(|pin| (*pin).to_owned()));
    }
    gone
}

/// The names that go with the one that the text is.
pub(super) fn gone_by_name(
    tags: &[(String, ImageId)],
    id: &ImageId,
    text: &str,
) -> Option<Vec<String>> {
    let names = names_of(tags, id);
    named(&names, text).map(|name| gone_with(&names, name))
}

/// Which of the names the text is.
fn named<'a>(names: &[&'a str], text: &str) -> Option<&'a str> {
    let reference = text.parse::<Reference>().ok()?;
    let tag = reference.store_pin().or_else(|| reference.store_tag())?;
    names.iter().copied().find(|name| *name == tag)
}

pub(super) fn names_of<'a>(tags: &'a [(String, ImageId)], id: &ImageId) -> Vec<&'a str> {
    tags.iter().filter(|(_, image)| image == id).map(|(name, _)| &name[..]).collect()
}
