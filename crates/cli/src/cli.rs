//! The commands and their options.
//!
//! This file says what a command line is; `run` carries it out.
//!
//! Invariant: `--help`, completions and manual pages come from here and nowhere else.

use std::ffi::OsString;
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
    #[command(flatten)]
    pub(crate) everywhere: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

// The options that every command takes.
#[derive(Debug, Args)]
pub(crate) struct GlobalArgs {
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

impl Command {
    /// Whether it is done when nobody reads what it says. What asks for the exit status, or changes
    /// something, is not.
    pub(crate) fn ends_with_reader(&self) -> bool {
        match self {
            Self::Diff(args) => !args.is_asked_for_status(),
            _ => !matches!(
                self,
                Self::Verify(_)
                    | Self::Trust(_)
                    | Self::Lint(_)
                    | Self::Fsck(_)
                    | Self::Rmi(_)
                    | Self::Rm(_)
                    | Self::Login(_)
                    | Self::Logout(_)
            ),
        }
    }
}

/// Show the help of a command
#[derive(Debug, Args)]
pub(crate) struct HelpArgs {
    /// The command, and the one below it: image ls
    #[arg(value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// Describes the arguments of a command.
type Augment = fn(clap::Command) -> clap::Command;

/// Commands that are run often, and what describes their arguments.
const OFTEN: [(&str, Augment); 8] = [
    ("mount", mount::MountArgs::augment_args),
    ("umount", mounts::UmountArgs::augment_args),
    ("mounts", mounts::MountsArgs::augment_args),
    ("ls", look::LsArgs::augment_args),
    ("cat", look::CatArgs::augment_args),
    ("stat", look::StatArgs::augment_args),
    ("images", images::ImagesArgs::augment_args),
    ("inspect", images::InspectArgs::augment_args),
];

/// The command that a line names: its first word that is no option, nor the value of one.
pub(crate) fn named_command(args: &[OsString]) -> Option<&str> {
    let mut words = args.iter().skip(1).map(|word| word.to_str());
    while let Some(word) = words.next() {
        match word? {
            "--root" | "--format" | "--progress" | "--log-level" => drop(words.next()),
            option if option.starts_with('-') => {}
            name => return Some(name),
        }
    }
    None
}

/// The description of a line with this command and no other, for commands that are run often: that
/// of all commands takes half of the time of a short one. `None` for the others. What it takes, the
/// whole description takes, with the same meaning; help and messages are the whole one's.
pub(crate) fn alone(name: &str) -> Option<clap::Command> {
    let (name, augment) = OFTEN.iter().find(|(often, _)| *often == name)?;
    let strata = clap::Command::new("strata")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_version_flag(true)
        .disable_help_subcommand(true);
    let top = GlobalArgs::augment_args(strata);
    Some(top.subcommand(augment(clap::Command::new(*name))))
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_command_alone_takes_what_it_takes_among_all() {
        let mut whole = Cli::command();
        whole.build();
        for (name, _) in OFTEN {
            let mut one = alone(name).unwrap();
            one.build();
            let arguments = |top: &clap::Command| {
                let command = top.find_subcommand(name).unwrap();
                let all = command.get_arguments().filter(|arg| arg.get_id() != "help");
                let mut all: Vec<String> = all.map(|arg| format!("{arg:?}")).collect();
                all.sort();
                all
            };
            assert_eq!(arguments(&one), arguments(&whole), "{name}");
        }
        assert!(alone("pull").is_none());
    }

    #[test]
    fn the_command_of_a_line_is_found() {
        let named = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            named_command(&words).map(str::to_owned)
        };
        assert_eq!(named("strata mount a b").as_deref(), Some("mount"));
        assert_eq!(named("strata --root mount -q ls x").as_deref(), Some("ls"));
        assert_eq!(named("strata --root=mount --format json images").as_deref(), Some("images"));
        assert_eq!(named("strata --version"), None);
        assert_eq!(named("strata --root"), None);
    }
}
