//! The command line.
//!
//! Invariant: every option has a default that fits a node set up as the guide says.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::daemon::ShowArgs;
use crate::import::GivenImageArgs;

/// A layer store for containerd: a proxy snapshotter and a proxy differ.
#[derive(Debug, Parser)]
#[command(name = "strata-snapshotter", version)]
pub(crate) struct Args {
    /// The store
    #[arg(long, value_name = "DIR", env = "STRATA_ROOT", default_value = "/var/lib/stratafs")]
    pub(crate) root: PathBuf,
    /// The socket for containerd; one that systemd passes counts instead
    #[arg(long, value_name = "PATH", default_value = "/run/strata/snapshotter.sock")]
    pub(crate) address: PathBuf,
    /// Where names of layers are mounted
    #[arg(long, value_name = "DIR", default_value = "/run/strata/names")]
    pub(crate) run: PathBuf,
    /// Who shows layers: the kernel where it can, or always a process, through FUSE
    #[arg(long, value_name = "WHO", default_value = "auto")]
    pub(crate) backend: LowerBackend,
    /// containerd's content store
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/containerd/io.containerd.content.v1.content"
    )]
    pub(crate) content: PathBuf,
    /// containerd's socket, for the diffs that it asks for
    #[arg(long, value_name = "PATH", default_value = "/run/containerd/containerd.sock")]
    pub(crate) containerd: PathBuf,
    /// Seconds that layers stay which containerd has removed, for the next pull to find them, and
    /// that the names of an image stay mounted after its last container; on a disk that is nearly
    /// full they go at once
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(crate) keep: u64,
    /// Where Prometheus asks for metrics: a port of loopback, as 127.0.0.1:9342, or a path
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) metrics: Option<String>,
    /// The program strata, which fetches images [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    pub(crate) strata: Option<PathBuf>,
    /// What is logged, as in STRATA_LOG: error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL", env = "STRATA_LOG", default_value = "warn")]
    pub(crate) log_level: String,
    #[command(subcommand)]
    pub(crate) command: Option<SnapshotterCommand>,
}

/// What else than to serve.
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotterCommand {
    /// Give containerd an image of the store, without copying a layer
    Import(GivenImageArgs),
    /// Show layers through FUSE, where the kernel cannot; this program starts it by itself
    #[command(hide = true)]
    Show(ShowArgs),
}

/// How layers become a lower of overlayfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LowerBackend {
    /// By the kernel where it can, else through FUSE.
    Auto,
    /// Through FUSE.
    Fuse,
}
