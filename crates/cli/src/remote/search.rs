//! `strata search`, in docker's words.
//!
//! Invariant: what a registry says is shown as text, without control characters.

use std::io::Write;

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;
use serde_json::json;
use strata_registry::Hit;

use super::config::RegistryArgs;
use crate::context::{Context, Format};
use crate::table;
use crate::template::Template;

/// What is left of a description, in characters, as docker has it.
const SHOWN: usize = 45;

/// Search a registry for images
///
/// Docker Hub, unless TERM begins with another registry. A registry without a search of its own
/// is searched by the names in its catalogue; TERM may then be empty, as in localhost:5000/. With
/// --format '{{...}}' the fields are .Name .Description .StarCount .IsOfficial .IsAutomated.
#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    /// [HOST[:PORT]/]TERM
    term: String,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 25)]
    limit: usize,
    /// Show whole descriptions
    #[arg(long)]
    no_trunc: bool,
    /// Only some: stars=N, is-official=true|false, is-automated=true|false
    #[arg(short, long, value_name = "FILTER", value_parser = filter)]
    filter: Vec<Filter>,
    #[command(flatten)]
    registry: RegistryArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filter {
    Stars(u64),
    Official(bool),
    Automated(bool),
}

fn filter(text: &str) -> std::result::Result<Filter, String> {
    let bad = || "expected stars=N, is-official=true|false or is-automated=true|false".to_owned();
    let (key, value) = text.split_once('=').ok_or_else(bad)?;
    Ok(match key {
        "stars" => Filter::Stars(value.parse().map_err(|_| bad())?),
        "is-official" => Filter::Official(value.parse().map_err(|_| bad())?),
        "is-automated" => Filter::Automated(value.parse().map_err(|_| bad())?),
        _ => return Err(bad()),
    })
}

impl Filter {
    fn keeps(self, hit: &Hit) -> bool {
        match self {
            Self::Stars(least) => hit.stars >= least,
            Self::Official(wanted) => hit.official == wanted,
            Self::Automated(wanted) => hit.automated == wanted,
        }
    }
}

/// A row as a template sees it: docker's fields, all of them texts.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    description: String,
    is_automated: String,
    is_official: String,
    name: String,
    star_count: String,
}

const HEADS: [(&str, &str); 5] = [
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("StarCount", "STARS"),
    ("IsOfficial", "OFFICIAL"),
    ("IsAutomated", "AUTOMATED"),
];

impl Row {
    fn new(hit: &Hit, name: String, whole: bool) -> Self {
        Self {
            description: match whole {
                true => hit.description.clone(),
                false => shortened(&hit.description),
            },
            is_automated: hit.automated.to_string(),
            is_official: hit.official.to_string(),
            name,
            star_count: hit.stars.to_string(),
        }
    }
}

/// The registry and the term; a first part is a registry where it would be one in a name.
fn split(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((host, term)) if host.contains(['.', ':']) || host == "localhost" => (host, term),
        _ => ("docker.io", text),
    }
}

pub(crate) fn run(context: &Context, args: &SearchArgs, out: &mut impl Write) -> Result<()> {
    let registries = args.registry.registries(context)?;
    let (host, term) = split(&args.term);
    let mut hits = registries.search(host, term, args.limit).context("cannot search")?;
    hits.retain(|hit| args.filter.iter().all(|filter| filter.keeps(hit)));
    let shown = |hit: &Hit| match host {
        "docker.io" => hit.name.clone(),
        host => format!("{host}/{}", hit.name),
    };
    if let Format::Template(text) = &context.format {
        let rows: Vec<Row> =
            hits.iter().map(|hit| Row::new(hit, shown(hit), args.no_trunc)).collect();
        return Template::parse(text)?.print(&HEADS, &rows, out);
    }
    if context.format == Format::Json {
        let all: Vec<_> = hits
            .iter()
            .map(|hit| {
                json!({
                    "name": shown(hit),
                    "description": hit.description,
                    "stars": hit.stars,
                    "official": hit.official,
                    "automated": hit.automated,
                })
            })
            .collect();
        serde_json::to_writer_pretty(&mut *out, &all)?;
        writeln!(out)?;
        return Ok(());
    }
    if context.quiet {
        for hit in &hits {
            writeln!(out, "{}", shown(hit))?;
        }
        return Ok(());
    }
    let mark = |is_so: bool| if is_so { "[OK]".to_owned() } else { String::new() };
    let mut rows =
        vec![["NAME", "DESCRIPTION", "STARS", "OFFICIAL", "AUTOMATED"].map(str::to_owned)];
    for hit in &hits {
        let Row { name, description, star_count, .. } = Row::new(hit, shown(hit), args.no_trunc);
        rows.push([name, description, star_count, mark(hit.official), mark(hit.automated)]);
    }
    table::print(&rows, out)
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= SHOWN {
        return text.to_owned();
    }
    text.chars().take(SHOWN - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_may_name_a_registry() {
        assert_eq!(split("nginx"), ("docker.io", "nginx"));
        assert_eq!(split("team/nginx"), ("docker.io", "team/nginx"));
        assert_eq!(split("quay.io/nginx"), ("quay.io", "nginx"));
        assert_eq!(split("localhost:5000/"), ("localhost:5000", ""));
        assert_eq!(shortened(&"x".repeat(46)), format!("{}…", "x".repeat(44)));
        assert_eq!(filter("stars=3"), Ok(Filter::Stars(3)));
        assert!(filter("stars=many").is_err() && filter("x=1").is_err() && filter("x").is_err());
    }
}
