//! The rows of `layers` and `contents`.

use strata_layer::Snapshot;

use crate::error::{Error, Result};
use crate::table::{FactCell, TableWriter};

/// A row for each layer, sorted by diff id.
pub(crate) fn write_layers(snapshot: &Snapshot, rows: &mut TableWriter) -> Result<()> {
    for layer in snapshot.layers()? {
        rows.push(&[
            FactCell::Digest(layer.diff_id.as_bytes()),
            FactCell::count(layer.entries),
            FactCell::count(layer.apparent),
            FactCell::count(layer.diff_size),
            FactCell::count(layer.headers_size),
            FactCell::count(layer.headers_blocks),
            FactCell::count(layer.directories.bytes),
            FactCell::count(layer.directories.blocks),
        ])?;
    }
    Ok(())
}

/// A row for each stored content, sorted by digest.
pub(crate) fn write_contents(snapshot: &Snapshot, rows: &mut TableWriter) -> Result<()> {
    snapshot.each_content::<Error>(&mut |content| {
        rows.push(&[
            FactCell::Digest(content.digest.as_bytes()),
            FactCell::Int(i32::try_from(content.copy).unwrap_or(i32::MAX)),
            FactCell::count(content.size),
            FactCell::count(content.blocks),
        ])
    })
}
