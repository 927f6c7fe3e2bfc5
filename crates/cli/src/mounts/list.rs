//! `strata mounts`: the mounts as a table or as JSON.
//!
//! Invariant: a path that is not UTF-8 keeps its bytes in JSON.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use serde::Serialize;

use stratafs::{MountInfo, MountStatus, shown};

use crate::units;

/// Writes a table with a heading.
pub(crate) fn write_table(mounts: &[MountInfo], out: &mut dyn Write) -> io::Result<()> {
    let mut rows = vec![["MOUNTPOINT", "IMAGE", "PID", "UPTIME", "STATUS"].map(str::to_owned)];
    rows.extend(mounts.iter().map(|mount| {
        [
            shown(&mount.record.mountpoint),
            mount.record.reference.clone(),
            served_by(mount).map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            match mount.status {
                MountStatus::Dead => "-".to_owned(),
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

/// The daemon; `None` where the kernel serves it.
fn served_by(mount: &MountInfo) -> Option<u32> {
    (!mount.record.is_of_kernel()).then_some(mount.record.pid)
}

/// One mount in JSON. A path that is not UTF-8 is given twice: readable, and as its bytes.
#[derive(Serialize)]
struct Json<'a> {
    mountpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mountpoint_bytes: Option<&'a [u8]>,
    image: &'a str,
    reference: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    backend: &'a str,
    started: u64,
    uptime_seconds: u64,
    status: MountStatus,
    profile: &'a str,
    options: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    upper: Option<&'a str>,
}

/// Writes a JSON array.
pub(crate) fn write_json(mounts: &[MountInfo], out: &mut dyn Write) -> io::Result<()> {
    let all: Vec<Json<'_>> = mounts
        .iter()
        .map(|mount| {
            let MountInfo { record, status, uptime } = mount;
            let path = record.mountpoint.as_path();
            Json {
                mountpoint: path.to_string_lossy().into_owned(),
                mountpoint_bytes: path.to_str().is_none().then(|| path.as_os_str().as_bytes()),
                image: &record.image,
                reference: &record.reference,
                pid: served_by(mount),
                backend: record.backend.as_deref().unwrap_or("fuse"),
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

    use stratafs::MountRecord;

    fn mounts() -> Vec<MountInfo> {
        let record = |point: &[u8], pid| MountRecord {
            mountpoint: OsStr::from_bytes(point).into(),
            image: "sha256:00".into(),
            reference: "app:1".into(),
            pid,
            started: 0,
            profile: "no-open".into(),
            options: vec!["dev".into()],
            upper: None,
            device: None,
            backend: None,
        };
        vec![
            MountInfo { record: record(b"/mnt/x", 7), status: MountStatus::Alive, uptime: 3 },
            MountInfo { record: record(b"/\xff\n", 12), status: MountStatus::Dead, uptime: 9 },
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
