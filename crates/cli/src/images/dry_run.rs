//! `strata rmi --dry-run`: what the same command without it would take away and free.
//!
//! Invariant: the arguments are gone through in their order, each on what those before it would
//! have left, by the same rules as the removal itself; what would fail there fails here.

use std::io::Write;

use anyhow::{Result, bail};
use serde_json::json;
use strata_layer::{Removal, Store};
use strata_registry::Reference;
use strata_tree::ImageId;

use super::effect::{RmiEffect, asked, gone_by_name, is_absent, names_of, shown};
use super::familiar;
use super::users::mounted;
use crate::commands::df::space_json;
use crate::context::{Context, Format};
use crate::told::{tell, told};
use crate::{table, units};

pub(super) fn run(
    context: &Context,
    store: &Store,
    images: &[String],
    force: bool,
    out: &mut impl Write,
) -> Result<()> {
    let mounts = context.engine().mounts()?;
    let mut tags = store.images().tags()?;
    let (mut untagged, mut failed) = (Vec::new(), Vec::new());
    // With --force it is said, and is no error.
    let mut absent = Vec::new();
    let mut wanted: Vec<(ImageId, String)> = Vec::new();
    for text in images {
        let gone = |name: &String| text.parse().is_ok_and(|known| is_named(&known, name));
        match asked(context, store, &tags, text, force) {
            _ if untagged.iter().any(gone) => absent.push(no_image(text)),
            // Found by what an argument before this one takes away.
            Ok(RmiEffect::Remove(id)) if wanted.iter().any(|(known, _)| *known == id) => {
                absent.push(no_image(text));
            }
            Ok(RmiEffect::Untag(_, names)) => {
                tags.retain(|(known, _)| !names.contains(known));
                untagged.extend(names);
            }
            // The image stays, without a name, as long as it is in use.
            Ok(RmiEffect::Remove(id)) if force && mounted(&mounts, &id).is_some() => {
                match gone_by_name(&tags, &id, text) {
                    Some(names) => {
                        tags.retain(|(known, _)| !names.contains(known));
                        untagged.extend(names);
                    }
                    None => wanted.push((id, shown(&tags, &id, text))),
                }
            }
            Ok(RmiEffect::Remove(id)) => wanted.push((id, shown(&tags, &id, text))),
            Err(error) if is_absent(&error) => absent.push(told(&error)),
            Err(error) => failed.push(told(&error)),
        }
        if !force {
            failed.append(&mut absent);
        }
    }
    absent.iter().for_each(|why| tell(format_args!("strata: {why}")));
    let ids: Vec<ImageId> = wanted.iter().map(|(id, _)| *id).collect();
    let removal = store.accounts().removal(&ids, &untagged)?;
    for (id, shown) in wanted.iter().filter(|(id, _)| removal.in_use.contains(id)) {
        let how = mounted(&mounts, id).unwrap_or_else(|| {
            format!("image {} is in use: a running load or command holds it", id.short())
        });
        failed.push(format!("unable to delete {shown}: {how}"));
    }
    let with_images = removal.images.iter().flat_map(|id| names_of(&tags, id));
    let names = untagged.iter().map(String::as_str).chain(with_images).map(familiar);
    let names: Vec<String> = names.collect();
    if context.format == Format::Json {
        let freed = removal.parts().into_iter().chain([("total", removal.total())]);
        let freed = freed.map(|(part, space)| (part.to_owned(), space_json(space)));
        let all = json!({
            "untagged": names, "images": texts(&removal.images), "layers": texts(&removal.layers),
            "files": removal.files, "in_use": texts(&removal.in_use),
            "freed": freed.collect::<serde_json::Map<_, _>>(),
        });
        writeln!(out, "{all:#}")?;
    } else {
        print(&names, &removal, out)?;
    }
    out.flush()?;
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("{}", failed.join("\nstrata: ")),
    }
}

fn print(names: &[String], removal: &Removal, out: &mut impl Write) -> Result<()> {
    names.iter().try_for_each(|name| writeln!(out, "Would untag: {name}"))?;
    removal.images.iter().try_for_each(|id| writeln!(out, "Would delete: {id}"))?;
    removal.layers.iter().rev().try_for_each(|id| writeln!(out, "Would delete: {id}"))?;
    writeln!(out)?;
    let mut rows = vec![["FREED", "FILES", "SIZE", "ON DISK"].map(String::from)];
    for (part, space) in removal.parts().into_iter().chain([("TOTAL", removal.total())]) {
        let files = if part == "contents" { removal.files.to_string() } else { String::new() };
        let (size, disk) = (units::size(space.bytes), units::size(space.blocks * 512));
        rows.push([part.to_owned(), files, size, disk]);
    }
    table::print(&rows, out)?;
    Ok(writeln!(out, "\nindex.db stays as large as it is: what comes next uses its free pages")?)
}

fn is_named(reference: &Reference, name: &str) -> bool {
    reference.store_pin().or_else(|| reference.store_tag()).as_deref() == Some(name)
}

/// As the image crate says it.
fn no_image(text: &str) -> String {
    format!("no image {text:?} in the store; `strata images` lists what there is")
}

fn texts<T: ToString>(all: &[T]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}
