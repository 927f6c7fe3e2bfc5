//! What keeps an image in the store: uppers on top of it, and its mounts.
//!
//! Invariant: what is said of a user names the commands that end the use, in their order.

use anyhow::Result;
use strata_tree::ImageId;
use stratafs::MountInfo;

use crate::context::Context;

/// An upper that is on top of the image, and how it goes.
pub(super) fn upper_on(context: &Context, id: &ImageId) -> Result<Option<String>> {
    let engine = context.engine();
    let Some(upper) = engine.uppers().on_image(id)? else { return Ok(None) };
    let name = &upper.name;
    Ok(Some(match MountInfo::of_upper(&engine.mounts()?, name) {
        Some(mount) => {
            format!("upper {name} is on top of it, {}, then strata rm {name}", mount.and_its_end())
        }
        None => format!("upper {name} is on top of it; remove that first: strata rm {name}"),
    }))
}

/// Where the image is mounted, of all mounts, and how those mounts go.
pub(super) fn mounted(mounts: &[MountInfo], id: &ImageId) -> Option<String> {
    let id = id.to_string();
    let mut mounts = mounts.iter().filter(|mount| mount.record.image == id);
    let first = mounts.next()?;
    let more = match mounts.count() {
        0 => String::new(),
        more => format!(" (and {more} more: `strata mounts`)"),
    };
    Some(format!("it is {}{more}", first.and_its_end()))
}
