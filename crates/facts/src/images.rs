//! The rows of `images`, `names`, `image_layers` and `history`.
//!
//! Invariant: rows come sorted by image, then by position; names sorted by themselves.

use strata_layer::{Snapshot, chain_id};

use crate::Configs;
use crate::error::Result;
use crate::paths::PathPolicy;
use crate::table::{FactCell, TableWriter};

/// A row for each image.
pub(crate) fn write_images(
    config: &Configs<'_>,
    snapshot: &Snapshot,
    rows: &mut TableWriter,
) -> Result<()> {
    for image in snapshot.images()? {
        let config = config(&image.id)?;
        let platform = config.platform();
        rows.push(&[
            FactCell::Digest(image.id.as_bytes()),
            FactCell::digest(image.manifest.as_ref().map(|digest| digest.as_bytes())),
            FactCell::time(config.created()),
            FactCell::Text(&platform.os),
            FactCell::Text(&platform.architecture),
            FactCell::text(platform.variant.as_deref()),
        ])?;
    }
    Ok(())
}

/// A row for each name.
pub(crate) fn write_names(snapshot: &Snapshot, rows: &mut TableWriter) -> Result<()> {
    for (name, image) in snapshot.names()? {
        rows.push(&[FactCell::Text(&name), FactCell::Digest(image.as_bytes())])?;
    }
    Ok(())
}

/// A row for each layer of each image, the base first.
pub(crate) fn write_image_layers(snapshot: &Snapshot, rows: &mut TableWriter) -> Result<()> {
    for image in snapshot.images()? {
        for (at, layer) in image.layers.iter().enumerate() {
            let Some(chain) = chain_id(&image.layers[..=at]) else { continue };
            rows.push(&[
                FactCell::Digest(image.id.as_bytes()),
                FactCell::Int(position(at)),
                FactCell::Digest(layer.as_bytes()),
                FactCell::Digest(chain.as_bytes()),
            ])?;
        }
    }
    Ok(())
}

/// A row for each step of each image's history, the oldest first.
pub(crate) fn write_history(
    config: &Configs<'_>,
    snapshot: &Snapshot,
    paths: &PathPolicy,
    rows: &mut TableWriter,
) -> Result<()> {
    for image in snapshot.images()? {
        let config = config(&image.id)?;
        for (at, step) in config.history().into_iter().enumerate() {
            rows.push(&[
                FactCell::Digest(image.id.as_bytes()),
                FactCell::Int(position(at)),
                FactCell::time(step.created),
                FactCell::text(paths.text(step.created_by).as_deref()),
                FactCell::text(paths.text(step.comment).as_deref()),
                FactCell::int(step.layer.map(|(at, _)| position(at))),
                FactCell::digest(step.layer.as_ref().map(|(_, layer)| layer.as_bytes())),
            ])?;
        }
    }
    Ok(())
}

/// A place in a list of an image, which is never that long.
fn position(at: usize) -> i32 {
    i32::try_from(at).unwrap_or(i32::MAX)
}
