//! `strata mounts`: the registry as a table or as JSON.
//!
//! Invariant: listing changes nothing; a dead daemon is shown until the next mount, umount or gc
//! cleans up after it.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use super::registry::{Record, Registered, Registry, now};
use super::{namespaces, point};
use crate::units;

/// How a mount is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Served.
    Alive,
    /// Unmounted lazily, and served for files that are still open.
    Detached,
    /// Served in another mount namespace alone.
    Elsewhere,
    /// Its daemon ended without unmounting.
    Dead,
}

impl Status {
    fn text(self) -> &'static str {
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
pub(crate) struct MountInfo {
    /// What the registry says.
    pub(crate) record: Record,
    /// How it is.
    pub(crate) status: Status,
    /// Since it was ready, in seconds.
    pub(crate) uptime: u64,
}

impl MountInfo {
    /// Where it is, and what ends it.
    pub(crate) fn and_its_end(&self) -> String {
        let at = point::shown(&self.record.mountpoint);
        match self.status {
            Status::Alive => format!("mounted on {at}; unmount it first: strata umount {at}"),
            Status::Detached => format!(
                "not mounted any more, but files of it are open; `strata umount --abort {at}` ends \
                 that at once"
            ),
            Status::Elsewhere => format!(
                "mounted in another mount namespace; `strata umount --abort {at}` ends that at once"
            ),
            Status::Dead => format!("left on {at} by a daemon that is dead; first: strata gc"),
        }
    }
}

/// The mounts of the store at `root`, the oldest first.
pub(crate) fn list(root: &Path) -> Result<Vec<MountInfo>> {
    Ok(Registry::existing(root).all()?.into_iter().map(info).collect())
}

fn info(one: Registered) -> MountInfo {
    let status = match one.alive {
        false => Status::Dead,
        true if point::is_ours(&one.record.mountpoint) => Status::Alive,
        true => match one.record.device.as_deref().map(namespaces::having) {
            Some(found) if !found.is_empty() => Status::Elsewhere,
            Some(_) | None => Status::Detached,
        },
    };
    let uptime = now().saturating_sub(one.record.started);
    MountInfo { record: one.record, status, uptime }
}

/// Writes a table with a heading.
pub(crate) fn write_table(mounts: &[MountInfo], out: &mut dyn Write) -> io::Result<()> {
    let mut rows = vec![["MOUNTPOINT", "IMAGE", "PID", "UPTIME", "STATUS"].map(str::to_owned)];
    rows.extend(mounts.iter().map(|mount| {
        [
            point::shown(&mount.record.mountpoint),
            mount.record.reference.clone(),
            mount.record.pid.to_string(),
            match mount.status {
                Status::Dead => "-".to_owned(),
                _ => units::duration(i64::try_from(mount.uptime).unwrap_or(i64::MAX)),
            },
            mount.status.text().to_owned(),
        ]
    }));
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    let widths = [width(0), width(1), width(2), width(3)];
    for row in &rows {
        for (cell, width) in row.iter().zip(widths) {
            write!(out, "{cell:width$}   ")?;
        }
        writeln!(out, "{}", row[4])?;
    }
    Ok(())
}

/// One mount in JSON. A path that is not UTF-8 is given twice: readable, and as its bytes.
#[derive(Serialize)]
struct Json<'a> {
    mountpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mountpoint_bytes: Option<&'a [u8]>,
    image: &'a str,
    reference: &'a str,
    pid: u32,
    started: u64,
    uptime_seconds: u64,
    status: Status,
    profile: &'a str,
    options: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    upper: Option<&'a str>,
}

/// Writes a JSON array.
pub(crate) fn write_json(mounts: &[MountInfo], out: &mut dyn Write) -> io::Result<()> {
    let all: Vec<Json<'_>> = mounts
        .iter()
        .map(|MountInfo { record, status, uptime }| {
            let path = record.mountpoint.as_path();
            Json {
                mountpoint: path.to_string_lossy().into_owned(),
                mountpoint_bytes: path.to_str().is_none().then(|| path.as_os_str().as_bytes()),
                image: &record.image,
                reference: &record.reference,
                pid: record.pid,
                started: record.started,
                uptime_seconds: *uptime,
                status: *status,
                profile: &record.profile,
                options: &record.options,
                upper: record.upper.as_deref(),
            }
        })
        .collect();
    serde_json::to_writer_pretty(&mut *out, &all)?;
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    fn mounts() -> Vec<MountInfo> {
        let record = |point: &[u8], pid| Record {
            mountpoint: OsStr::from_bytes(point).into(),
            image: "sha256:00".into(),
            reference: "app:1".into(),
            pid,
            started: 0,
            profile: "no-open".into(),
            options: vec!["dev".into()],
            upper: None,
            device: None,
        };
        vec![
            MountInfo { record: record(b"/mnt/x", 7), status: Status::Alive, uptime: 3 },
            MountInfo { record: record(b"/\xff\n", 12), status: Status::Dead, uptime: 9 },
        ]
    }

    #[test]
    fn the_table_has_a_line_for_each() {
        let mut out = Vec::new();
        write_table(&mounts(), &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "MOUNTPOINT   IMAGE   PID   UPTIME      STATUS\n\
             /mnt/x       app:1   7     3 seconds   alive\n\
             /\\xff\\n      app:1   12    -           dead\n"
        );
    }

    #[test]
    fn json_keeps_the_bytes() {
        let mut out = Vec::new();
        write_json(&mounts(), &mut out).unwrap();
        let all: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(all[0]["mountpoint"], "/mnt/x");
        assert_eq!(all[0]["status"], "alive");
        assert!(all[0].get("mountpoint_bytes").is_none());
        assert_eq!(all[1]["mountpoint_bytes"], serde_json::json!([47, 255, 10]));
    }
}
