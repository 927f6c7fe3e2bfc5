//! docker's groups of commands: `image`, `container`, `system`.
//!
//! Invariant: a command of a group is one of the plain commands under another name, with the same
//! options: [`plain`](Command::plain) says which, and nothing else knows groups.

use clap::Subcommand;

use crate::cli::Command;
use crate::commands::{load, save};
use crate::{images, look, mounts, remote, uppers};

/// Work on images
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    #[command(name = "ls", visible_alias = "list")]
    Ls(images::ImagesArgs),
    Inspect(images::InspectArgs),
    History(images::HistoryArgs),
    Tag(images::TagArgs),
    #[command(name = "rm", visible_alias = "remove")]
    Rm(images::RmiArgs),
    Prune(images::PruneArgs),
    Pull(remote::PullArgs),
    Push(remote::PushArgs),
    Load(load::LoadArgs),
    Import(load::ImportArgs),
    Save(save::SaveArgs),
    Search(remote::SearchArgs),
    Mount(crate::commands::mount::MountArgs),
    #[command(name = "unmount", visible_alias = "umount")]
    Unmount(mounts::UmountArgs),
    Diff(uppers::DiffArgs),
}

/// Work on writable layers, which are what containers are elsewhere
#[derive(Debug, Subcommand)]
pub(crate) enum ContainerCommand {
    #[command(name = "ls", visible_aliases = ["list", "ps"])]
    Ls(uppers::PsArgs),
    Inspect(images::InspectArgs),
    Diff(uppers::DiffArgs),
    Commit(uppers::CommitArgs),
    Export(look::ExportArgs),
    #[command(name = "rm", visible_alias = "remove")]
    Rm(uppers::RmArgs),
    Prune(uppers::PruneArgs),
}

/// Look after the store
#[derive(Debug, Subcommand)]
pub(crate) enum SystemCommand {
    Df(images::SystemDfArgs),
    Prune(images::SystemPruneArgs),
    Info(remote::InfoArgs),
}

impl Command {
    /// The same command without its group.
    pub(crate) fn plain(self) -> Self {
        match self {
            Self::Image(command) => command.plain(),
            Self::Container(command) => command.plain(),
            Self::System(command) => command.plain(),
            plain => plain,
        }
    }
}

impl ImageCommand {
    fn plain(self) -> Command {
        match self {
            Self::Ls(args) => Command::Images(args),
            Self::Inspect(args) => Command::Inspect(args.of_images()),
            Self::History(args) => Command::History(args),
            Self::Tag(args) => Command::Tag(args),
            Self::Rm(args) => Command::Rmi(args),
            Self::Prune(args) => Command::PruneImages(args),
            Self::Pull(args) => Command::Pull(args),
            Self::Push(args) => Command::Push(args),
            Self::Load(args) => Command::Load(args),
            Self::Import(args) => Command::Import(args),
            Self::Save(args) => Command::Save(args),
            Self::Search(args) => Command::Search(args),
            Self::Mount(args) => Command::Mount(args),
            Self::Unmount(args) => Command::Umount(args),
            Self::Diff(args) => Command::Diff(args),
        }
    }
}

impl ContainerCommand {
    fn plain(self) -> Command {
        match self {
            Self::Ls(args) => Command::Ps(args),
            Self::Inspect(args) => Command::Inspect(args.of_containers()),
            Self::Diff(args) => Command::Diff(args),
            Self::Commit(args) => Command::Commit(args),
            Self::Export(args) => Command::Export(args),
            Self::Rm(args) => Command::Rm(args),
            Self::Prune(args) => Command::PruneUppers(args),
        }
    }
}

impl SystemCommand {
    fn plain(self) -> Command {
        match self {
            Self::Df(args) => Command::DfInDockersWords(args),
            Self::Prune(args) => Command::PruneAll(args),
            Self::Info(args) => Command::Info(args),
        }
    }
}
