//! `strata ps`: uppers as docker lists containers.
//!
//! Invariant: an upper that is mounted is up; one that is not is exited, and listed with --all.

use std::io::Write;

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use stratafs::MountInfo;

use crate::context::{Context, Format};
use crate::images::docker_time;
use crate::template::Template;
use crate::{table, units};

/// List the writable layers that are mounted
///
/// With --format '{{...}}' the fields are .ID .Names .Image .CreatedAt .RunningFor .State .Status
/// .Mounts .Size.
#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Also those that are not mounted
    #[arg(short, long)]
    all: bool,
    /// Show what they take on disk
    #[arg(short, long)]
    size: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    #[serde(rename = "ID")]
    id: String,
    names: String,
    image: String,
    created_at: String,
    running_for: String,
    state: &'static str,
    status: String,
    mounts: String,
    size: String,
    // What docker has and nothing here can have.
    command: &'static str,
    labels: &'static str,
    local_volumes: &'static str,
    networks: &'static str,
    ports: &'static str,
}

const HEADS: [(&str, &str); 14] = [
    ("ID", "UPPER"),
    ("Names", "NAMES"),
    ("Image", "IMAGE"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Mounts", "MOUNTS"),
    ("Size", "SIZE"),
    ("Command", "COMMAND"),
    ("Labels", "LABELS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Ports", "PORTS"),
];

pub(crate) fn run_ps(context: &Context, args: &PsArgs, out: &mut impl Write) -> Result<()> {
    let shelf = context.engine().uppers();
    let (mounted, now) = (context.engine().mounts()?, Timestamp::now());
    let mut rows = Vec::new();
    for upper in shelf.listed()? {
        let mount = MountInfo::of_upper(&mounted, &upper.name);
        if mount.is_none() && !args.all {
            continue;
        }
        let created = upper.created_at();
        rows.push(Row {
            id: upper.name.clone(),
            image: upper.reference.clone(),
            created_at: created.map(docker_time).unwrap_or_default(),
            running_for: created.map_or("N/A".to_owned(), |time| units::age(time, now)),
            state: if mount.is_some() { "running" } else { "exited" },
            status: match mount {
                Some(mount) => {
                    format!("Up {}", units::duration(mount.uptime.try_into().unwrap_or(0)))
                }
                None => "Not mounted".to_owned(),
            },
            mounts: mount.map_or("-".to_owned(), |m| m.record.mountpoint.display().to_string()),
            size: units::size(shelf.bytes(&upper)?),
            names: upper.name,
            command: "\"\"",
            labels: "",
            local_volumes: "0",
            networks: "",
            ports: "",
        });
    }
    match &context.format {
        Format::Template(text) => return Template::parse(text)?.print(&HEADS, &rows, out),
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &rows)?;
            return Ok(writeln!(out)?);
        }
        Format::Table => {}
    }
    if context.quiet {
        return rows.iter().try_for_each(|row| Ok(writeln!(out, "{}", row.id)?));
    }
    let mut lines = vec![["NAMES", "IMAGE", "CREATED", "STATUS", "MOUNTED ON"].join("\t")];
    if args.size {
        lines[0].push_str("\tSIZE");
    }
    for row in rows {
        let mut line = [row.names, row.image, row.running_for, row.status, row.mounts].join("\t");
        if args.size {
            line.push('\t');
            line.push_str(&row.size);
        }
        lines.push(line);
    }
    table::print_columns(&lines, out)
}
