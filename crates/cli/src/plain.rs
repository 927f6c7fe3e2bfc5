//! Which plain command a command of a group is.
//!
//! Invariant: nothing but this and the command line's definition knows groups.

use crate::cli::Command;
use crate::groups::{ContainerCommand, ImageCommand, SystemCommand};

/// The same command without its group.
pub(crate) fn plain(command: Command) -> Command {
    match command {
        Command::Image(command) => of_images(command),
        Command::Container(command) => of_containers(command),
        Command::System(command) => of_the_system(command),
        plain => plain,
    }
}

fn of_images(command: ImageCommand) -> Command {
    match command {
        ImageCommand::Ls(args) => Command::Images(args),
        ImageCommand::Inspect(args) => Command::Inspect(args.of_images()),
        ImageCommand::History(args) => Command::History(args),
        ImageCommand::Tag(args) => Command::Tag(args),
        ImageCommand::Rm(args) => Command::Rmi(args),
        ImageCommand::Prune(args) => Command::PruneImages(args),
        ImageCommand::Pull(args) => Command::Pull(args),
        ImageCommand::Push(args) => Command::Push(args),
        ImageCommand::Load(args) => Command::Load(args),
        ImageCommand::Import(args) => Command::Import(args),
        ImageCommand::Save(args) => Command::Save(args),
        ImageCommand::Search(args) => Command::Search(args),
        ImageCommand::Mount(args) => Command::Mount(args),
        ImageCommand::Unmount(args) => Command::Umount(args),
        ImageCommand::Diff(args) => Command::Diff(args),
    }
}

fn of_containers(command: ContainerCommand) -> Command {
    match command {
        ContainerCommand::Ls(args) => Command::Ps(args),
        ContainerCommand::Inspect(args) => Command::Inspect(args.of_containers()),
        ContainerCommand::Diff(args) => Command::Diff(args),
        ContainerCommand::Commit(args) => Command::Commit(args),
        ContainerCommand::Export(args) => Command::Export(args),
        ContainerCommand::Rm(args) => Command::Rm(args),
        ContainerCommand::Prune(args) => Command::PruneUppers(args),
    }
}

fn of_the_system(command: SystemCommand) -> Command {
    match command {
        SystemCommand::Df(args) => Command::DfInDockersWords(args),
        SystemCommand::Prune(args) => Command::PruneAll(args),
        SystemCommand::Info(args) => Command::Info(args),
    }
}
