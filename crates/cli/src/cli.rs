//! The commands and their options.
//!
//! This file says what a command line is; `run` carries it out.
//!
//! Invariant: `--help`, completions and manual pages come from here and nowhere else.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};

use crate::commands::containerd::ContainerdCommand;
use crate::commands::{df, facts, housekeeping, lint, load, mount, save, shell};
use crate::context::Asked;
use crate::groups::{ContainerCommand, ImageCommand, SystemCommand};
use crate::progress::ShowProgress;
use crate::{explore, history, images, layer_store, look, mounts, remote, reuse, trust, uppers};

/// Store container images, share what is equal in them, and mount them through FUSE
#[derive(Debug, Parser)]
#[command(name = "strata", version, disable_version_flag = true, disable_help_subcommand = true,
          after_help = START, max_term_width = 100)]
pub(crate) struct Cli {
    /// The store [default: $STRATA_ROOT, else /var/lib/stratafs for root and
    /// $XDG_DATA_HOME/stratafs for others]
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath,
          help_heading = EVERYWHERE)]
    pub(crate) root: Option<PathBuf>,
    /// How listings are printed: table, json, json-full (where docker has the command, json is
    /// docker's, and json-full has exact numbers), or a Go template
    #[arg(long, global = true, default_value = "table", help_heading = EVERYWHERE)]
    pub(crate) format: Asked,
    /// No progress; listings show ids only
    #[arg(short, long, global = true, help_heading = EVERYWHERE)]
    pub(crate) quiet: bool,
    /// How progress is shown
    #[arg(long, global = true, default_value = "auto", help_heading = EVERYWHERE,
          value_name = "auto|plain|tty", hide_possible_values = true)]
    pub(crate) progress: ShowProgress,
    /// What to log: error, warn, info, debug, trace, or a filter as in RUST_LOG
    #[arg(long, global = true, value_name = "LEVEL", help_heading = EVERYWHERE)]
    pub(crate) log_level: Option<String>,
    /// Print the version
    #[arg(short = 'v', short_alias = 'V', long, action = clap::ArgAction::Version)]
    version: (),
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The heading of the options that every command takes.
const EVERYWHERE: &str = "Global options";

const START: &str = "\
To look inside an image:
  docker save alpine | strata load
  strata ls -l alpine:/etc
  mkdir look && strata mount alpine look
  strata umount look";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Pull(remote::PullArgs),
    Push(remote::PushArgs),
    Copy(remote::CopyArgs),
    Login(remote::LoginArgs),
    Logout(remote::LogoutArgs),
    Search(remote::SearchArgs),
    Manifest(remote::ManifestArgs),
    Verify(remote::VerifyArgs),
    Trust(trust::TrustCommandArgs),
    Serve(remote::ServeArgs),
    LayerStore(layer_store::LayerStoreArgs),
    #[command(subcommand)]
    Containerd(ContainerdCommand),
    Load(load::LoadArgs),
    Import(load::ImportArgs),
    Save(save::SaveArgs),
    Images(images::ImagesArgs),
    Tag(images::TagArgs),
    Rmi(images::RmiArgs),
    Inspect(images::InspectArgs),
    History(images::HistoryArgs),
    #[command(subcommand)]
    Image(ImageCommand),
    #[command(subcommand)]
    Container(ContainerCommand),
    #[command(subcommand)]
    System(SystemCommand),
    // Those that only a group has.
    #[command(skip)]
    PruneImages(images::PruneImagesArgs),
    #[command(skip)]
    PruneUppers(uppers::PruneArgs),
    #[command(skip)]
    PruneAll(images::SystemPruneArgs),
    #[command(skip)]
    DfInDockersWords(images::SystemDfArgs),
    Mount(mount::MountArgs),
    #[command(visible_alias = "unmount")]
    Umount(mounts::UmountArgs),
    Mounts(mounts::MountsArgs),
    Uppers(uppers::UppersArgs),
    Ps(uppers::PsArgs),
    Diff(uppers::DiffArgs),
    Why(history::WhyArgs),
    Duplicates(history::DuplicatesArgs),
    Commit(uppers::CommitArgs),
    Rm(uppers::RmArgs),
    Ls(look::LsArgs),
    Cat(look::CatArgs),
    Cp(look::CpArgs),
    Stat(look::StatArgs),
    Layers(look::LayersArgs),
    Explore(explore::ExploreArgs),
    Unpack(look::UnpackArgs),
    Export(look::ExportArgs),
    Report(crate::report::ReportArgs),
    Reuse(reuse::ReuseArgs),
    Df(df::DfArgs),
    Facts(facts::FactsArgs),
    Lint(lint::LintArgs),
    Fsck(housekeeping::FsckArgs),
    /// Remove layers and files that no image needs
    ///
    /// `strata rmi` leaves nothing behind; this is for what was interrupted, or in use then.
    Gc,
    Info(remote::InfoArgs),
    Version(remote::VersionArgs),
    Help(HelpArgs),
    Completions(shell::CompletionsArgs),
    Man(shell::ManArgs),
}

/// Show the help of a command
#[derive(Debug, Args)]
pub(crate) struct HelpArgs {
    /// The command, and the one below it: image ls
    #[arg(value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

impl Cli {
    /// The exit code of an error.
    pub(crate) fn trouble(&self) -> u8 {
        match &self.command {
            Command::Diff(args)
            | Command::Image(ImageCommand::Diff(args))
            | Command::Container(ContainerCommand::Diff(args)) => args.trouble(),
            _ => 1,
        }
    }
}
