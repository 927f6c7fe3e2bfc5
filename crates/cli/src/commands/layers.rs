//! What `strata layers` shows of an image.

use anyhow::{Result, bail};
use strata_image::{ImageConfig, resolve_image};

use crate::context::Context;
use crate::look::LayerRow;

/// What `strata layers` shows, base first.
pub(crate) fn layer_rows(context: &Context, text: &str) -> Result<Vec<LayerRow>> {
    let store = context.store()?;
    let image = resolve_image(&store, text)?;
    let config = ImageConfig::of(&store, &image.id)?;
    let sharing = store.accounts().sharing()?;
    let usage = sharing.layer_usage(&[]);
    let mut commands = config.history().into_iter().filter(|step| step.layer.is_some());
    let mut rows = Vec::new();
    for diff_id in &image.layers {
        let known = sharing.layers.iter().position(|layer| layer == diff_id);
        let (Some(record), Some(at)) = (store.layer(diff_id)?, known) else {
            bail!("layer {diff_id} of {text} is not in the store; `strata fsck` tells more");
        };
        rows.push(LayerRow {
            diff_id: *diff_id,
            entries: record.entries,
            bytes: record.apparent,
            stored_bytes: usage[at].unique,
            created_by: commands.next().and_then(|step| step.created_by.map(str::to_owned)),
        });
    }
    Ok(rows)
}
