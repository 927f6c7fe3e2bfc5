//! `strata history`: the steps that made an image, the newest first.
//!
//! Invariant: as with docker, only the newest step has the image's id; the others are of no image
//! that exists, `<missing>`.

use std::io::Write;

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use strata_image::resolve_image;

use super::{KnownImage, shown_id};
use crate::context::{Context, Format};
use crate::look::render::escaped_char;
use crate::template::Template;
use crate::units;

/// Show how an image was made
///
/// The newest step first. SIZE: bytes of the files of the step's layer; a step without a layer
/// has 0B. With --format '{{...}}' the fields are .ID .CreatedAt .CreatedSince .CreatedBy .Size
/// .Comment.
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Name or id of the image
    image: String,
    /// Show sizes and times for people; with =false bytes, and times as they are said
    #[arg(short = 'H', long, value_name = "true|false", num_args = 0..=1, require_equals = true,
          default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    human: bool,
    /// The same as --human=false
    #[arg(long = "no-human")]
    no_human: bool,
    /// Show whole ids and commands
    #[arg(long)]
    no_trunc: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    #[serde(rename = "ID")]
    id: String,
    created_at: String,
    created_since: String,
    created_by: String,
    size: String,
    comment: String,
}

const HEADS: [(&str, &str); 6] = [
    ("ID", "IMAGE"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedSince", "CREATED"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];

const MISSING: &str = "<missing>";

/// Columns that docker gives a command.
const COMMAND_WIDTH: usize = 45;

pub(crate) fn run_history(
    context: &Context,
    args: &HistoryArgs,
    out: &mut impl Write,
) -> Result<()> {
    let store = context.store()?;
    let image = KnownImage::one(&store, resolve_image(&store, &args.image)?)?;
    let mut steps = Vec::new();
    for step in image.config.history().into_iter().rev() {
        let size = match step.layer {
            Some((_, layer)) => store.layer(&layer)?.map_or(0, |record| record.apparent),
            None => 0,
        };
        steps.push((step, size));
    }
    if context.format == Format::Json {
        let steps = steps.iter().enumerate().map(|(at, (step, size))| {
            json!({
                "id": (at == 0).then(|| image.record.id.to_string()),
                "created": step.created.map(|time| time.to_string()),
                "created_by": step.created_by,
                "layer": step.layer.map(|(_, layer)| layer.to_string()),
                "size": size,
                "comment": step.comment,
            })
        });
        return Ok(writeln!(out, "{:#}", json!(steps.collect::<Vec<_>>()))?);
    }
    let (now, exact) = (Timestamp::now(), args.no_human || !args.human);
    let whole = image.record.id.to_string();
    let rows = steps.iter().enumerate().map(|(at, (step, size))| {
        let created_by = step.created_by.unwrap_or_default().replace(['\t', '\n'], " ");
        Row {
            id: match at {
                0 => shown_id(&whole, args.no_trunc).to_owned(),
                _ => MISSING.to_owned(),
            },
            created_at: step.created.map_or_else(|| "N/A".to_owned(), to_the_second),
            created_since: match step.created {
                None => "N/A".to_owned(),
                Some(time) if exact => to_the_second(time),
                Some(time) => units::age(time, now),
            },
            created_by: if args.no_trunc { created_by } else { shortened(&created_by) },
            size: if exact { size.to_string() } else { units::size(*size) },
            comment: step.comment.unwrap_or_default().replace(['\t', '\n'], " "),
        }
    });
    let rows: Vec<Row> = rows.collect();
    if let Format::Template(text) = &context.format {
        return Template::parse(text)?.print(&HEADS, &rows, out);
    }
    if context.quiet {
        return rows.iter().try_for_each(|row| Ok(writeln!(out, "{}", row.id)?));
    }
    let created = if exact { "CREATED AT" } else { "CREATED" };
    let mut lines = vec![["IMAGE", created, "CREATED BY", "SIZE", "COMMENT"].map(String::from)];
    for row in rows {
        let (command, comment) = (for_terminal(&row.created_by), for_terminal(&row.comment));
        lines.push([row.id, row.created_since, command, row.size, comment]);
    }
    crate::table::print(&lines, out)
}

/// What an image says, so that it does nothing to a terminal. The backslashes of a command stay as
/// docker shows them.
fn for_terminal(text: &str) -> String {
    text.chars().map(escaped_char).collect()
}

/// As docker prints the times of steps.
fn to_the_second(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(COMMAND_WIDTH) {
        None => text.to_owned(),
        Some(_) => text.chars().take(COMMAND_WIDTH - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_does_nothing_to_a_terminal() {
        let said = for_terminal("RUN printf 'a\\n' \u{1b}[2J\u{202e}\u{7}é");
        assert_eq!(said, r"RUN printf 'a\n' \033[2J\342\200\256\007é");
    }
}
