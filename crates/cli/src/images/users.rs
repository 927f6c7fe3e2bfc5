//! What keeps an image in the store: uppers on top of it, and its mounts.
//!
//! Invariant: what is said of a user names the commands that end the use, in their order.

use anyhow::Result;
use strata_tree::ImageId;

use crate::context::Context;
use stratafs::MountInfo;
use stratafs::NamedUpper;

/// All uppers and mounts of a store.
pub(super) struct Users {
    uppers: Vec<NamedUpper>,
    mounts: Vec<MountInfo>,
}

impl Users {
    pub(super) fn of(context: &Context) -> Result<Self> {
        let uppers = context.engine().uppers().all()?;
        Ok(Self { uppers, mounts: context.engine().mounts()? })
    }

    /// An upper that is on top of the image, and how it goes.
    pub(super) fn upper(&self, id: &ImageId) -> Option<String> {
        let id = id.to_string();
        let name = &self.uppers.iter().find(|upper| upper.image == id)?.name;
        Some(match MountInfo::of_upper(&self.mounts, name) {
            Some(mount) => {
                format!(
                    "upper {name} is on top of it, {}, then strata rm {name}",
                    mount.and_its_end()
                )
            }
            None => {
                format!("upper {name} is on top of it; remove that first: strata rm {name}")
            }
        })
    }

    /// Where the image is mounted, and how those mounts go.
    pub(super) fn mounted(&self, id: &ImageId) -> Option<String> {
        let id = id.to_string();
        let mut mounts = self.mounts.iter().filter(|mount| mount.record.image == id);
        let first = mounts.next()?;
        let more = match mounts.count() {
            0 => String::new(),
            more => format!(" (and {more} more: `strata mounts`)"),
        };
        Some(format!("it is {}{more}", first.and_its_end()))
    }
}
