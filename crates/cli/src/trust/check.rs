//! `strata trust check`: what the policy says of an image now.
//!
//! Invariant: nothing is stored; the exit status is 0 only for an image that would be let in.

use std::io::Write;

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::json;
use strata_image::{Error, Platform, TrustQuestion, check_trust};
use strata_trust::TrustVerdict;

use super::{TrustArgs, location};
use crate::context::{Context, Format};
use crate::progress::ShowProgress;
use crate::remote::{RegistryArgs, Stream, Transfer, document_limits};

/// Ask whether the policy accepts an image
///
/// The image's manifest and its signatures are fetched, and nothing is stored. The exit status is
/// 0 if the image would be accepted, and 1 if not.
#[derive(Debug, Args)]
pub(crate) struct TrustCheckArgs {
    /// NAME[:TAG], docker://REF, oci:DIR[:NAME], oci-archive:FILE[:NAME], docker-archive:FILE
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Of an index, ask about the image for this platform [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub(super) fn run(context: &Context, args: &TrustCheckArgs, out: &mut impl Write) -> Result<()> {
    let trust = args.trust.trust()?;
    let location = location(&args.image)?;
    let question = TrustQuestion {
        location: &location,
        called: None,
        platform: args.platform.as_ref(),
        limits: document_limits(None),
    };
    let registries = args.registry.registries(context)?;
    let listener = Transfer::new(ShowProgress::Nothing, Stream::Err);
    let scratch = || context.scratch();
    let answer = check_trust(&trust, &registries, &question, &scratch, &listener);
    if context.format == Format::Json {
        let (accepted, why, verdict) = match &answer {
            Ok(verdict) => (true, None, verdict.as_ref()),
            Err(Error::Trust(error)) => (false, Some(error.to_string()), None),
            Err(_) => return answer.map(|_| ()).context("cannot ask"),
        };
        let document = json!({
            "image": location.to_string(),
            "accepted": accepted,
            "why": why,
            "verdict": verdict,
        });
        serde_json::to_writer_pretty(&mut *out, &document)?;
        writeln!(out)?;
        // What is said comes before the error.
        out.flush()?;
    } else if let Ok(verdict) = &answer {
        for line in lines(verdict.as_ref()) {
            writeln!(out, "{line}")?;
        }
    }
    answer.map(|_| ()).context("not accepted")
}

/// A verdict for people.
pub(super) fn lines(verdict: Option<&TrustVerdict>) -> Vec<String> {
    let Some(verdict) = verdict else {
        return vec!["Accepted: there is no policy".to_owned()];
    };
    let mut lines = vec![format!("Accepted by {} ({})", verdict.policy, verdict.scope)];
    for one in &verdict.accepted {
        let mut line = one.kind.clone();
        if let Some(signer) = &one.signer {
            line.push_str(&format!(": {signer}"));
        }
        if let Some(identity) = &one.identity {
            line.push_str(&format!(" for {identity}"));
        }
        lines.push(line);
    }
    lines
}
