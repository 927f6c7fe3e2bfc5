//! `strata save`.
//!
//! Invariant: an archive of the same images under the same names is the same, byte for byte.

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueHint};
use strata_image::{Saved, resolve_image, save};
use strata_layer::Store;
use strata_registry::Reference;

use crate::context::Context;
use crate::look::{self, Screen};

/// Write images to an archive that docker, podman, skopeo and strata load
///
/// The archive is an OCI archive and a docker archive in one. Every layer is in it byte for byte
/// as it came in, uncompressed.
#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    /// Where to write the archive; - for standard output
    #[arg(short, long, value_name = "FILE", default_value = "-", value_hint = ValueHint::FilePath)]
    output: PathBuf,
    /// Names or ids; an image given by id has no name in the archive
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub(crate) fn run_save(context: &Context, args: &SaveArgs, screen: &mut Screen<'_>) -> Result<()> {
    let store = context.store()?;
    let images = wanted(&store, &args.images)?;
    let mut write = |out: &mut dyn Write| {
        let mut out = BufWriter::with_capacity(256 << 10, out);
        save(&store, &images, &mut out)?;
        Ok(out.flush()?)
    };
    match args.output.as_os_str() == "-" {
        true => look::to_stdout(screen, &mut write),
        false => look::to_file(&args.output, "save the images", &mut write),
    }
}

/// Each image once, with all the names that it was asked for by.
fn wanted(store: &Store, texts: &[String]) -> Result<Vec<Saved>> {
    let mut all: Vec<Saved> = Vec::new();
    for text in texts {
        let image = resolve_image(store, text)?;
        let tags = store.images().tags()?;
        let name = text.parse::<Reference>().ok();
        let name = name.filter(|name| {
            let tag = name.store_tag();
            tags.iter().any(|(known, id)| *id == image.id && Some(known) == tag.as_ref())
        });
        match all.iter_mut().find(|saved| saved.image.id == image.id) {
            Some(saved) => saved.names.extend(name),
            None => all.push(Saved { image, names: name.into_iter().collect() }),
        }
    }
    Ok(all)
}
