//! The mounts that the records know, and the state of each.
//!
//! Invariant: listing changes nothing; a dead daemon is shown until the next mount, unmount or
//! garbage collection cleans up after it.

use std::path::Path;

use serde::Serialize;

use super::records::{KnownMount, MountRecord, MountRecords, now};
use super::{namespaces, point};
use crate::error::{Result, bail};

/// The state of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MountStatus {
    /// Served.
    Alive,
    /// Unmounted lazily, and served for files that are still open.
    Detached,
    /// Served in another mount namespace alone.
    Elsewhere,
    /// Its daemon ended without unmounting.
    Dead,
}

impl MountStatus {
    /// The word that `strata mounts` shows.
    pub fn text(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Detached => "detached",
            Self::Elsewhere => "elsewhere",
            Self::Dead => "dead",
        }
    }
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountInfo {
    /// What the registry says.
    pub record: MountRecord,
    /// Its state.
    pub status: MountStatus,
    /// Since it was ready, in seconds.
    pub uptime: u64,
}

impl MountInfo {
    /// The mount of an upper, if it is mounted: one of `mounts`.
    pub fn of_upper<'a>(mounts: &'a [Self], upper: &str) -> Option<&'a Self> {
        let mut served = mounts.iter().filter(|mount| mount.status != MountStatus::Dead);
        served.find(|mount| mount.record.upper.as_deref() == Some(upper))
    }

    /// Where it is, and what ends it.
    pub fn and_its_end(&self) -> String {
        let at = point::shown(&self.record.mountpoint);
        match self.status {
            MountStatus::Alive => format!("mounted on {at}; unmount it first: strata umount {at}"),
            MountStatus::Detached if self.record.is_of_kernel() => {
                "not mounted any more, but files of it are open; it ends with the last of them"
                    .to_owned()
            }
            MountStatus::Elsewhere if self.record.is_of_kernel() => {
                "mounted in another mount namespace; it ends with that".to_owned()
            }
            MountStatus::Detached => format!(
                "not mounted any more, but files of it are open; `strata umount --abort {at}` ends \
                 that at once"
            ),
            MountStatus::Elsewhere => format!(
                "mounted in another mount namespace; `strata umount --abort {at}` ends that at once"
            ),
            MountStatus::Dead => format!("left on {at} by a daemon that is dead; first: strata gc"),
        }
    }
}

/// The mounts that are recorded, the oldest first.
pub(crate) fn list(records: &MountRecords) -> Result<Vec<MountInfo>> {
    Ok(records.all()?.into_iter().map(info).collect())
}

/// The mount on a directory (resolved): the one that is there in this namespace, else the only one
/// that lives, detached or in another namespace. Of the dead, the one whose mount still stands.
///
/// # Errors
/// `Refused` where several live and none of them is here; `Doing`: the records cannot be read.
pub(crate) fn at(records: &MountRecords, directory: &Path) -> Result<Option<MountInfo>> {
    let all = records.all()?.into_iter().filter(|one| one.record.mountpoint == directory);
    let (dead, living): (Vec<_>, Vec<_>) =
        all.map(info).partition(|one| one.status == MountStatus::Dead);
    let (mut here, mut others): (Vec<_>, Vec<_>) =
        living.into_iter().partition(|one| one.status == MountStatus::Alive);
    match (here.pop(), others.pop()) {
        // A record without a device is there too, if anything is.
        (Some(last), _) => Ok(Some(last)),
        (None, Some(_)) if !others.is_empty() => bail!(
            "several mounts that are not in this mount namespace were made on {}; `strata mounts` \
             lists them, and an upper can be called by its name",
            point::shown(directory)
        ),
        (None, Some(only)) => Ok(Some(only)),
        // Numbers of devices come again, so the place has to be that of a dead mount too.
        (None, None) if point::is_stale(directory) => {
            let device = point::device_mounted_at(directory);
            Ok(dead.into_iter().rfind(|one| device.is_some() && one.record.device == device))
        }
        (None, None) => Ok(None),
    }
}

/// Whether the mount is at its place in this namespace, and not another one.
fn is_there(record: &MountRecord) -> bool {
    let at = &record.mountpoint;
    let same = |device| point::device_mounted_at(at).as_ref() == Some(device);
    point::is_ours(at) && record.device.as_ref().is_none_or(same)
}

fn info(one: KnownMount) -> MountInfo {
    let status = match one.alive {
        false => MountStatus::Dead,
        true if is_there(&one.record) => MountStatus::Alive,
        true => match one.record.device.as_deref().map(namespaces::having) {
            Some(found) if !found.is_empty() => MountStatus::Elsewhere,
            Some(_) | None => MountStatus::Detached,
        },
    };
    let uptime = now().saturating_sub(one.record.started);
    MountInfo { record: one.record, status, uptime }
}
