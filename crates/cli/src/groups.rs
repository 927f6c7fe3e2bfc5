//! docker's groups of commands: `image`, `container`, `system`.
//!
//! Invariant: a command of a group is one of the plain commands under another name, with the same
//! options; `plain` says which.

use clap::Subcommand;

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
    Prune(images::PruneImagesArgs),
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
