//! The rows of `layers` and `contents`.
//!
//! Invariant: what nothing takes on a disk, for it was never unpacked, is NULL and not 0.

use strata_layer::Snapshot;

use crate::error::{Error, Result};
use crate::table::{FactCell, TableWriter};

/// A row for each layer, sorted by diff id.
pub(crate) fn write_layers(snapshot: &Snapshot, rows: &mut TableWriter) -> Result<()> {
    let on_disk = disk(snapshot);
    for layer in snapshot.layers()? {
        rows.push(&[
            FactCell::Digest(layer.diff_id.as_bytes()),
            FactCell::count(layer.entries),
            FactCell::count(layer.apparent),
            FactCell::count(layer.diff_size),
            on_disk(layer.headers_size),
            on_disk(layer.headers_blocks),
            on_disk(layer.directories.bytes),
            on_disk(layer.directories.blocks),
        ])?;
    }
    Ok(())
}

/// A row for each stored content, sorted by digest.
pub(crate) fn write_contents(snapshot: &Snapshot, rows: &mut TableWriter) -> Result<()> {
    let on_disk = disk(snapshot);
    snapshot.each_content::<Error>(&mut |content| {
        rows.push(&[
            FactCell::Digest(content.digest.as_bytes()),
            FactCell::Int(i32::try_from(content.copy).unwrap_or(i32::MAX)),
            FactCell::count(content.size),
            on_disk(content.blocks),
        ])
    })
}

/// The cell of a number that says what something takes on disk: NULL where there is no disk.
fn disk(snapshot: &Snapshot) -> impl Fn(u64) -> FactCell<'static> {
    let measured = snapshot.is_measured();
    move |number| if measured { FactCell::count(number) } else { FactCell::Null }
}
