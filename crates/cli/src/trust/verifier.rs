//! An image verifier of containerd 2: the program `strata-image-verifier` in its `bin_dir`.
//!
//! ```text
//! strata-image-verifier -name REF -digest DIGEST -stdin-media-type TYPE < descriptor
//!   exit status 0: the image may be pulled; the reason is on standard output
//! ```
//! (github.com/containerd/containerd, docs/image-verification.md.) The program is `strata` under
//! that name.
//!
//! Invariants: what cannot be decided is refused; without a policy everything is, for whoever
//! installs a verifier wants one; the digest that containerd has resolved is judged, not what the
//! tag stands for by now; of an index all images are, for containerd goes by the platform alone
//! when it chooses one (core/images/image.go, `Manifest`), and is told at times which to take.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use strata_image::check_trust_of_all;
use strata_registry::Reference;
use strata_trust::PolicyOrigin;

use super::{TrustArgs, check};
use crate::context::{Context, Format};
use crate::progress::ShowProgress;
use crate::remote::{RegistryArgs, Stream, Transfer, document_limits};
use crate::told;

/// The name under which `strata` is one.
const NAME: &str = "strata-image-verifier";

/// Whether the program was started as a verifier.
pub(crate) fn is_verifier(program: &OsStr) -> bool {
    Path::new(program).file_name() == Some(OsStr::new(NAME))
}

/// Answers containerd; gives the reason why the image may be pulled.
///
/// # Errors
/// Why it may not.
pub(crate) fn verify(args: &[String]) -> Result<String> {
    judged(args).map_err(|error| anyhow!("{}", told::harmless(&told::told(&error))))
}

fn judged(args: &[String]) -> Result<String> {
    let value = |name: &str| {
        let long = format!("-{name}");
        let at = args.iter().position(|arg| *arg == name || *arg == long);
        at.and_then(|at| args.get(at + 1)).with_context(|| format!("{NAME}: {name} is missing"))
    };
    let name = value("-name")?;
    let called: Reference = name.parse().with_context(|| format!("{name} is refused"))?;
    let digest = value("-digest")?;
    let digest = digest.parse().with_context(|| format!("the digest of {name}"))?;
    let trust = TrustArgs::default().trust()?;
    if *trust.origin() == PolicyOrigin::Nowhere {
        bail!(
            "{name} is refused: there is no policy; write /etc/containers/policy.json \
             (containers-policy.json(5))"
        );
    }
    // No store is needed, so it need not be there.
    let context = Context {
        root: "/nonexistent".into(),
        format: Format::Table,
        quiet: true,
        shown: ShowProgress::Nothing,
        log_level: None,
    };
    let registries = RegistryArgs::as_configured().registries(&context)?;
    let listener = Transfer::new(ShowProgress::Nothing, Stream::Err);
    let fetched = called.with_digest(digest);
    let limits = document_limits(None);
    let all = check_trust_of_all(&trust, &registries, &fetched, &called, &limits, &listener)?;
    let mut lines: Vec<String> = Vec::new();
    for line in all.iter().flat_map(|verdict| check::lines(Some(verdict))) {
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    Ok(lines.join("; "))
}
