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
mod error;
mod filter;
mod grpc;
mod keys;
mod labels;
mod places;
mod remote;
mod server;
mod snapshots;
mod state;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

/// A layer store for containerd: a proxy snapshotter and a proxy differ.
#[derive(Debug, Parser)]
#[command(name = "strata-snapshotter", version)]
struct Args {
    /// The store
    #[arg(long, value_name = "DIR", env = "STRATA_ROOT", default_value = "/var/lib/stratafs")]
    root: PathBuf,
    /// The socket for containerd; one that systemd passes counts instead
    #[arg(long, value_name = "PATH", default_value = "/run/strata/snapshotter.sock")]
    address: PathBuf,
    /// Where names of layers are mounted
    #[arg(long, value_name = "DIR", default_value = "/run/strata/names")]
    run: PathBuf,
    /// containerd's content store
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/containerd/io.containerd.content.v1.content"
    )]
    content: PathBuf,
    /// The program strata, which fetches images [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    strata: Option<PathBuf>,
    /// What is logged, as in STRATA_LOG: error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL", env = "STRATA_LOG", default_value = "warn")]
    log_level: String,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_new(&args.log_level).unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .init();
    match server::serve(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
