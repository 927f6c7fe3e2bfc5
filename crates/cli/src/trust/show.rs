//! `strata trust show`: the policy, or the part of it that counts for an image.
//!
//! Invariant: nothing is asked of a registry, and no key is read.

use std::io::Write;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Value, json};
use strata_image::Location;
use strata_trust::{
    KeySource, PolicyOrigin, PolicySection, Requirement, SignedIdentity, Signer, TrustPolicy,
};

use super::{TrustArgs, location};
use crate::context::{Context, Format};
use crate::table;

/// Show the policy, or what of it counts for an image
///
/// Without an image every part of the policy is listed. With one, the part that counts for it, and
/// where its signatures are looked for.
#[derive(Debug, Args)]
pub(crate) struct TrustShowArgs {
    /// NAME[:TAG], docker://REF, oci:DIR, oci-archive:FILE, docker-archive:FILE
    #[arg(value_name = "IMAGE")]
    image: Option<String>,
    #[command(flatten)]
    trust: TrustArgs,
}

pub(super) fn run(context: &Context, args: &TrustShowArgs, out: &mut impl Write) -> Result<()> {
    let trust = args.trust.trust()?;
    let image = args.image.as_deref().map(location).transpose()?;
    let (sections, sources) = match &image {
        None => (trust.policy().sections(), Value::Null),
        Some(image) => {
            let Some(place) = image.place() else {
                bail!(
                    "{image} is in the store, which policies do not know; `strata inspect` shows \
                       why it was let in"
                );
            };
            (vec![trust.policy().section(&place)], sources(&trust, image)?)
        }
    };
    if context.format == Format::Json {
        let all: Vec<Value> = sections.iter().map(|(section, all)| shown(section, all)).collect();
        let document = json!({
            "policy": origin(&trust),
            "image": image.map(|image| image.to_string()),
            "signatures": sources,
            "sections": all,
        });
        serde_json::to_writer_pretty(&mut *out, &document)?;
        writeln!(out)?;
        return Ok(());
    }
    let origin = origin(&trust).unwrap_or_else(|| match trust.origin() {
        PolicyOrigin::Insecure => "none is asked (--insecure-policy)".to_owned(),
        _ => "there is none; every image is accepted".to_owned(),
    });
    writeln!(out, "Policy: {origin}")?;
    if let Some(lookaside) = sources.get("lookaside").and_then(Value::as_str) {
        writeln!(out, "Lookaside: {lookaside}")?;
    }
    if let Some(attachments) = sources.get("attachments").and_then(Value::as_bool) {
        writeln!(out, "Attachments: {}", if attachments { "yes" } else { "no" })?;
    }
    let mut rows = vec![["SCOPE", "REQUIREMENT", "SIGNER", "IDENTITY"].map(str::to_owned)];
    for (section, requirements) in sections {
        rows.extend(requirements.iter().map(|one| row(&section, one)));
    }
    table::print(&rows, out)
}

/// The policy's file.
fn origin(trust: &TrustPolicy) -> Option<String> {
    match trust.origin() {
        PolicyOrigin::File(path) => Some(path.display().to_string()),
        PolicyOrigin::Insecure | PolicyOrigin::Nowhere => None,
    }
}

/// Where the signatures of an image of a registry are.
fn sources(trust: &TrustPolicy, image: &Location) -> Result<Value> {
    let Location::Registry(reference) = image else { return Ok(Value::Null) };
    let sources = trust.lookaside().sources(reference)?;
    Ok(json!({
        "lookaside": sources.lookaside.map(|url| url.to_string()),
        "attachments": sources.attachments,
    }))
}

fn row(section: &PolicySection, requirement: &Requirement) -> [String; 4] {
    let (signer, identity) = match requirement {
        Requirement::SignedBy { keys, identity, .. } => (source(keys), said(identity)),
        Requirement::Sigstore { signer, identity, .. } => {
            let signer = match signer {
                Signer::Keys(keys) => source(keys),
                Signer::Fulcio { issuer, email, .. } => format!("{email} by {issuer}"),
            };
            (signer, said(identity))
        }
        Requirement::Reject | Requirement::AcceptAnything | Requirement::SignedBaseLayer => {
            ("-".to_owned(), "-".to_owned())
        }
    };
    [section.to_string(), requirement.kind().to_owned(), signer, identity]
}

fn source(keys: &KeySource) -> String {
    match keys {
        KeySource::Paths(paths) => {
            paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
        }
        KeySource::Data(data) => format!("{} in the policy", data.len()),
    }
}

fn said(identity: &SignedIdentity) -> String {
    let kind = identity.kind();
    match identity {
        SignedIdentity::ExactReference(name) | SignedIdentity::ExactRepository(name) => {
            format!("{kind} {name}")
        }
        SignedIdentity::RemapIdentity { prefix, signed } => format!("{kind} {prefix} = {signed}"),
        SignedIdentity::MatchExact
        | SignedIdentity::MatchRepoDigestOrExact
        | SignedIdentity::MatchRepository => kind.to_owned(),
    }
}

fn shown(section: &PolicySection, requirements: &[Requirement]) -> Value {
    let (transport, scope) = match section {
        PolicySection::Default => (None, None),
        PolicySection::Scope { transport, scope } => (Some(transport), Some(scope)),
    };
    let all = requirements.iter().map(|one| {
        let [_, kind, signer, identity] = row(section, one);
        let text = |text: String| Some(text).filter(|text| text != "-");
        json!({ "type": kind, "signer": text(signer), "identity": text(identity) })
    });
    json!({ "transport": transport, "scope": scope, "requirements": all.collect::<Vec<_>>() })
}
