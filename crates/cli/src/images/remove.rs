//! `strata tag` and `rmi`.
//!
//! Invariants: a tag goes alone as long as the image has others; an image that is in use, by a
//! mount or by an upper, stays.

use std::io::Write;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use strata_image::{Reference, resolve_image};
use strata_layer::Store;
use strata_tree::ImageId;

use super::familiar;
use crate::context::Context;
use crate::told;
use crate::uppers::{Shelf, Upper};

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
    /// Remove an image by id even if it has several names
    #[arg(short, long)]
    force: bool,
}

pub(crate) fn run_tag(context: &Context, args: &TagArgs) -> Result<()> {
    let store = context.store()?;
    let image = resolve_image(&store, &args.source)?;
    let name = match (args.target.store_tag(), args.target.digest()) {
        (Some(name), None) => name,
        _ => bail!("{} names a digest; a tag is a name like {}:v1", args.target, args.source),
    };
    store.tag(&name, &image.id)?;
    Ok(())
}

pub(crate) fn run_rmi(context: &Context, args: &RmiArgs, out: &mut impl Write) -> Result<()> {
    let store = context.store()?;
    let uppers = Shelf::new(&context.root).all()?;
    let mut failed = Vec::new();
    for text in &args.images {
        if let Err(error) = remove(&store, &uppers, text, args.force, out) {
            failed.push(told::told(&error));
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("{}", failed.join("\nstrata: ")),
    }
}

/// By name: the name goes, and the image if it was its last. By id: the image, if it has one name
/// at most.
fn remove(
    store: &Store,
    uppers: &[Upper],
    text: &str,
    force: bool,
    out: &mut impl Write,
) -> Result<()> {
    let image = resolve_image(store, text)?;
    let names: Vec<String> = names_of(store, &image.id)?;
    let named = text
        .parse::<Reference>()
        .ok()
        .and_then(|reference| reference.store_tag())
        .filter(|name| names.contains(name));
    let short = image.id.short();
    let shown = named.as_deref().map_or_else(|| text.to_owned(), familiar);
    match named {
        Some(name) if names.len() > 1 => {
            store.untag(&name)?;
            writeln!(out, "Untagged: {}", familiar(&name))?;
            return Ok(());
        }
        None if names.len() > 1 && !force => bail!(
            "unable to delete {short} (must be forced): it is named {}; remove those names, or \
             use --force",
            names.iter().map(|name| familiar(name)).collect::<Vec<_>>().join(", ")
        ),
        Some(_) | None => {}
    }
    let id = image.id.to_string();
    if let Some(upper) = uppers.iter().find(|upper| upper.image == id) {
        bail!(
            "unable to delete {shown}: upper {} is on top of it; remove that first: strata rm {}",
            upper.name,
            upper.name
        );
    }
    let freed =
        store.remove_image(&image.id).with_context(|| format!("unable to delete {shown}"))?;
    for name in &names {
        writeln!(out, "Untagged: {}", familiar(name))?;
    }
    writeln!(out, "Deleted: {}", image.id)?;
    for layer in freed {
        writeln!(out, "Deleted: {layer}")?;
    }
    Ok(())
}

fn names_of(store: &Store, id: &ImageId) -> Result<Vec<String>> {
    let tags = store.tags()?.into_iter();
    Ok(tags.filter(|(_, image)| image == id).map(|(name, _)| name).collect())
}
