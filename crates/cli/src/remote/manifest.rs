//! `strata manifest`: what a registry says that a name stands for.
//!
//! Invariant: the document is printed byte for byte, so that its sha256 is the digest.

use std::io::{IsTerminal, Write};

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::json;
use strata_image::json::Json;
use strata_image::{Platform, fetch_document};

use super::config::RegistryArgs;
use super::pull::{RegistryName, document_limits};
use super::transfer::{Stream, Transfer};
use crate::context::{Context, Format};
use crate::progress::ShowProgress;
use crate::told::tell;

/// Show a manifest or index of a registry, and its digest
///
/// Nothing is pulled. The document goes to standard output byte for byte, its digest to standard
/// error; with --quiet the digest alone to standard output.
#[derive(Debug, Args)]
pub(crate) struct ManifestArgs {
    /// NAME[:TAG], NAME@DIGEST, HOST[:PORT]/NAME...
    #[arg(value_name = "REF")]
    name: RegistryName,
    /// Of an index, show the manifest for this platform
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub(crate) fn run(context: &Context, args: &ManifestArgs, out: &mut impl Write) -> Result<()> {
    let registries = args.registry.registries(context)?;
    let reference = &args.name.reference;
    let listener = Transfer::new(ShowProgress::Nothing, Stream::Err);
    let platform = args.platform.as_ref();
    let document =
        fetch_document(&registries, reference, platform, &document_limits(None), &listener)
            .context("cannot fetch the manifest")?;
    if context.quiet {
        writeln!(out, "{}", document.digest)?;
        return Ok(());
    }
    if context.format == Format::Json {
        let parsed = Json::parse(&document.bytes).context("the registry's document is not JSON")?;
        let all = json!({
            "reference": reference.to_string(),
            "digest": document.digest.to_string(),
            "mediaType": document.media_type,
            "size": document.bytes.len(),
            "manifest": parsed.to_value(),
        });
        serde_json::to_writer_pretty(&mut *out, &all)?;
        writeln!(out)?;
        return Ok(());
    }
    out.write_all(&document.bytes)?;
    if std::io::stdout().is_terminal() && !document.bytes.ends_with(b"\n") {
        writeln!(out)?;
    }
    out.flush()?;
    tell(format_args!("Digest: {}\nMedia type: {}", document.digest, document.media_type));
    Ok(())
}
