//! `strata-snapshotter`: a layer store for containerd, as a proxy plugin.
//!
//! ```text
//! containerd --gRPC--> grpc --threads--> snapshots --> engine: layers, trees, names
//!                                        apply         containerd's content store: blobs
//!                                        state         ROOT/containerd/snapshots.db
//!                                        places        uppers; names, mounted below RUN
//! ```
//!
//! It is a snapshotter and a differ: a layer that the store has is not fetched, a blob that
//! containerd fetched becomes a layer of the store, and a chain of layers is one lower of
//! overlayfs. The kernel serves the mounts, so containers go on while this program does not run.
//!
//! Invariants: nothing asynchronous but the transport; it runs as root, and only who can open its
//! socket can ask it for anything.

mod apply;
mod args;
mod client;
#[cfg(test)]
mod crash_tests;
mod daemon;
mod differ;
mod error;
mod fetched;
mod filter;
mod grpc;
mod import;
mod keys;
mod labels;
#[cfg(test)]
mod lower_tests;
mod memory;
mod metrics;
mod naming;
mod places;
mod remote;
mod server;
mod snapshots;
mod socket;
#[cfg(test)]
mod stand_in;
mod state;
mod taking;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use args::{Args, SnapshotterCommand};

fn main() -> ExitCode {
    memory::keep_little();
    let args = Args::parse();
    let filter = EnvFilter::try_new(&args.log_level).unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .init();
    let done = match &args.command {
        None => server::serve(&args),
        Some(SnapshotterCommand::Import(import)) => server::import(&args, import),
        Some(SnapshotterCommand::Show(show)) => daemon::show(&args.root, show),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
