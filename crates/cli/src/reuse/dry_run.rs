//! `--dry-run`: sources instead of the store.
//!
//! Invariants: nothing is stored; a store that is not there is not made.

use anyhow::{Context as _, Result};
use strata_analysis::reuse::would_add;
use strata_analysis::{Survey, SurveyOptions};
use strata_image::SourceSpec;
use strata_registry::Reference;

use super::facts::{ReuseFacts, ReuseImage};
use super::{ReuseArgs, chunks};
use crate::context::Context;
use crate::progress;

pub(crate) fn facts(context: &Context, args: &ReuseArgs) -> Result<ReuseFacts> {
    let mut specs: Vec<SourceSpec> = Vec::new();
    for text in &args.images {
        specs.push(text.parse()?);
    }
    let store = match context.root.join("index.db").exists() {
        true => Some(context.store()?),
        false => None,
    };
    let options = SurveyOptions {
        platform: args.platform.clone(),
        limits: args.source_limits.limits(&args.layer_limits),
        layer_limits: args.layer_limits.limits(),
    };
    let listener = progress::listener(context.shown);
    let scratch = || context.scratch();
    let survey =
        Survey::read(&specs, &scratch, &options, &*listener).context("cannot read the images")?;
    let images = survey.images().iter().map(|image| ReuseImage {
        id: image.record.id,
        names: image.references.iter().map(Reference::familiar).collect(),
    });
    let records = survey.images().iter().map(|image| image.record.clone()).collect();
    let mut facts = ReuseFacts::new(images.collect(), records, survey.sharing(), None);
    if let Some(store) = &store {
        let layers = survey.layers().iter().map(|layer| &layer.contents);
        facts.added = Some(would_add(store, layers)?);
    }
    if let Some(means) = &args.chunks {
        let options = args.options(means);
        let run = |progress: &(dyn Fn(u64, u64) + Sync)| Ok(survey.measure(&options, progress)?);
        facts.measured = Some(chunks::watched(context, run)?);
    }
    Ok(facts)
}
