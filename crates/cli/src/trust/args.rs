//! Which policy counts: options, then the user's file, then the system's.
//!
//! ```text
//! policy        --policy FILE, ~/.config/containers/policy.json, /etc/containers/policy.json
//! registries.d  --registries.d DIR, then the same two directories
//! lookaside     where registries.d names none: /var/lib/containers/sigstore for root, else
//!               ~/.local/share/containers/sigstore
//! ```
//! (containers-policy.json(5), containers-registries.d(5).)
//!
//! Invariants: a policy that is there and cannot be read is an error, never passed over; the first
//! file that is there counts alone.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, ValueHint};
use strata_trust::{Gpgv, LookasideConfig, PolicyOrigin, TrustPolicy};

use crate::home::home;
use crate::remote::program;

/// The options of every command that images come in by.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Trust")]
pub(crate) struct TrustArgs {
    /// The policy that says whose images are accepted [default: that of podman and skopeo]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, alias = "signature-policy")]
    policy: Option<PathBuf>,
    /// Accept every image, whatever policies say
    #[arg(long, conflicts_with = "policy")]
    insecure_policy: bool,
    /// The directory that says where signatures are [default: that of podman and skopeo]
    #[arg(long = "registries.d", value_name = "DIR", value_hint = ValueHint::DirPath)]
    registries_d: Option<PathBuf>,
}

impl TrustArgs {
    /// The policy.
    ///
    /// # Errors
    /// Those of reading it.
    pub(crate) fn trust(&self) -> Result<TrustPolicy> {
        if self.insecure_policy {
            return Ok(TrustPolicy::accept_anything(PolicyOrigin::Insecure));
        }
        let home = home();
        let system = Path::new("/etc/containers");
        // Also a link that leads nowhere is there: it is no reason to accept anything.
        let is_there = |path: &PathBuf| path.symlink_metadata().is_ok();
        let user = home.as_ref().map(|home| home.join(".config/containers"));
        let first = |name: &str| {
            let own = user.as_ref().map(|dir| dir.join(name)).filter(is_there);
            own.or_else(|| Some(system.join(name)).filter(is_there))
        };
        let Some(policy) = self.policy.clone().or_else(|| first("policy.json")) else {
            return Ok(TrustPolicy::accept_anything(PolicyOrigin::Nowhere));
        };
        let registries = self.registries_d.clone().or_else(|| first("registries.d"));
        let registries = registries.unwrap_or_else(|| system.join("registries.d"));
        let fallback = match rustix::process::geteuid().is_root() {
            true => Some(PathBuf::from("/var/lib/containers/sigstore")),
            false => home.map(|home| home.join(".local/share/containers/sigstore")),
        };
        let lookaside = LookasideConfig::load(&registries, fallback)?;
        let gpgv = Gpgv { program: program("gpgv"), scratch: std::env::temp_dir() };
        Ok(TrustPolicy::load(&policy, lookaside, gpgv)?)
    }
}
