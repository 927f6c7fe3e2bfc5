//! `strata containerd`: what containerd is given.
//!
//! containerd's API is gRPC, which only `strata-snapshotter` speaks; this program becomes that one.
//!
//! Invariant: the program beside this one comes first, so both are of one build.

use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueHint};

use crate::context::Context;

/// The program that speaks to containerd.
const PROGRAM: &str = "strata-snapshotter";

/// Give containerd images of the store
#[derive(Debug, Subcommand)]
pub(crate) enum ContainerdCommand {
    Import(ContainerdImportArgs),
}

/// Make an image of the store an image of containerd, without copying a layer
///
/// containerd must have strata-snapshotter as a snapshotter, for this store. `ctr run` and nerdctl
/// then start a container of the image at once.
#[derive(Debug, Args)]
pub(crate) struct ContainerdImportArgs {
    /// The image, by any of its names in the store
    #[arg(value_name = "IMAGE")]
    image: String,
    /// What containerd is to call it [default: its name in the store]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// containerd's namespace; k8s.io for Kubernetes
    #[arg(long, value_name = "NAMESPACE", default_value = "default")]
    namespace: String,
    /// What containerd's configuration calls the snapshotter
    #[arg(long, value_name = "NAME", default_value = "strata")]
    snapshotter: String,
    /// containerd's socket
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath,
          default_value = "/run/containerd/containerd.sock")]
    containerd: PathBuf,
}

pub(crate) fn run_containerd(context: &Context, command: &ContainerdCommand) -> Result<()> {
    let ContainerdCommand::Import(args) = command;
    let own = std::env::current_exe().ok().map(|own| own.with_file_name(PROGRAM));
    let program = own.filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from(PROGRAM));
    let mut import = Command::new(&program);
    import.arg("--root").arg(&context.root).arg("--containerd").arg(&args.containerd);
    import.args(["import", "--namespace", &args.namespace, "--snapshotter", &args.snapshotter]);
    if let Some(name) = &args.name {
        import.args(["--name", name]);
    }
    import.args(["--", &args.image]);
    let error = import.exec();
    if error.kind() == ErrorKind::NotFound {
        bail!(
            "{PROGRAM} speaks to containerd, and is neither beside this program nor in PATH; it \
             comes with strata"
        );
    }
    bail!("cannot run {}: {error}", program.display())
}
