//! Whose images are accepted: the options, `strata trust`, and containerd's verifier.
//!
//! ```text
//! args      which policy counts, for all commands that images come in by
//! show      the policy, or what of it counts for an image
//! check     what it says of an image now
//! verifier  the same for containerd, which starts `strata-image-verifier` before it pulls
//! ```
//!
//! Invariant: no command decides by itself: `strata_trust::Trust` does.

mod args;
mod check;
mod show;
mod verifier;

use std::io::Write;

use anyhow::Result;
use clap::{Args, Subcommand};

pub(crate) use args::TrustArgs;
pub(crate) use verifier::{is_verifier, verify};

use crate::context::Context;

/// Show whose images are accepted, and ask about one
///
/// The policy is that of podman, skopeo and CRI-O (containers-policy.json(5)): the user's file,
/// else the system's. Without either every image is accepted.
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct TrustCommandArgs {
    #[command(subcommand)]
    command: TrustCommand,
}

#[derive(Debug, Subcommand)]
enum TrustCommand {
    Show(show::TrustShowArgs),
    Check(check::TrustCheckArgs),
}

pub(crate) fn run(context: &Context, args: &TrustCommandArgs, out: &mut impl Write) -> Result<()> {
    match &args.command {
        TrustCommand::Show(args) => show::run(context, args, out),
        TrustCommand::Check(args) => check::run(context, args, out),
    }
}

/// Where an image is; a name without a prefix is one of a registry.
fn location(text: &str) -> Result<strata_image::Location> {
    match strata_image::Location::parse(text)? {
        Some(location) => Ok(location),
        None => Ok(strata_image::Location::Registry(text.parse()?)),
    }
}
