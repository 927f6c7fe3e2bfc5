//! `strata version`: the version of the program, in docker's form where a template asks for it.
//!
//! Invariant: there is no server; what docker says of client and server is the same program here.

use std::io::Write;

use anyhow::Result;
use clap::Args;
use strata_image::Platform;

use crate::context::{Context, Format};
use crate::document::{Document, Field};
use crate::template::Template;

/// Show the version
///
/// With --format '{{...}}' or -f the fields are .Client.Version .Client.Os .Client.Arch, and the
/// same of .Server.
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// The same as --format, as docker has it
    #[arg(short = 'f', value_name = "TEMPLATE")]
    template: Option<String>,
}

pub(crate) fn run(context: &Context, args: &VersionArgs, out: &mut impl Write) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let template = match (&context.format, &args.template) {
        (Format::Template(text), _) => text,
        (Format::Json, _) => {
            return Ok(writeln!(out, "{:#}", serde_json::json!({ "version": version }))?);
        }
        (Format::Table, Some(text)) if text == "json" => "{{json .}}",
        (Format::Table, Some(text)) => text,
        (Format::Table, None) => return Ok(writeln!(out, "strata {version}")?),
    };
    let Platform { os, architecture, .. } = Platform::host();
    let part = || {
        Document::Record(vec![
            Field::new("Version", version),
            Field::new("Os", os.clone()),
            Field::new("Arch", architecture.clone()),
        ])
    };
    let document =
        Document::Record(vec![Field::new("Client", part()), Field::new("Server", part())]);
    Template::parse(template)?.print_documents(&[document], out)
}
