//! The commands and their options.
//!
//! Invariant: `--help`, completions and manual pages come from here and nowhere else.

use std::io::{BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand, ValueHint};
use strata_tree::Lower;

use crate::commands::{df, housekeeping, layers, load, mount, save, shell};
use crate::context::{Asked, Context, Format, OpenImage};
use crate::groups::{ContainerCommand, ImageCommand, SystemCommand};
use crate::progress::Shown;
use crate::{
    elsewhere, explore, history, images, look, mounts, pages, progress, remote, reuse, template,
    uppers,
};

/// Store container images, share what is equal in them, and mount them through FUSE
#[derive(Debug, Parser)]
#[command(name = "strata", version, disable_version_flag = true, disable_help_subcommand = true,
          after_help = START, max_term_width = 100)]
pub(crate) struct Cli {
    /// The store [default: $STRATA_ROOT, else /var/lib/stratafs for root and
    /// $XDG_DATA_HOME/stratafs for others]
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath,
          help_heading = EVERYWHERE)]
    root: Option<PathBuf>,
    /// How listings are printed: table, json, json-full (where docker has the command, json is
    /// docker's, and json-full has exact numbers), or a Go template
    #[arg(long, global = true, default_value = "table", help_heading = EVERYWHERE)]
    format: Asked,
    /// No progress; listings show ids only
    #[arg(short, long, global = true, help_heading = EVERYWHERE)]
    quiet: bool,
    /// How progress is shown
    #[arg(long, global = true, default_value = "auto", help_heading = EVERYWHERE,
          value_name = "auto|plain|tty", hide_possible_values = true)]
    progress: Shown,
    /// What to log: error, warn, info, debug, trace, or a filter as in RUST_LOG
    #[arg(long, global = true, value_name = "LEVEL", help_heading = EVERYWHERE)]
    pub(crate) log_level: Option<String>,
    /// Print the version
    #[arg(short = 'v', short_alias = 'V', long, action = clap::ArgAction::Version)]
    version: (),
    #[command(subcommand)]
    command: Command,
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
    Serve(remote::ServeArgs),
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
    PruneImages(images::PruneArgs),
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
    command: Vec<String>,
}

impl Command {
    /// Whether its rows are those that docker's templates know.
    fn is_dockers(&self) -> bool {
        matches!(
            self,
            Self::Images(_)
                | Self::Inspect(_)
                | Self::History(_)
                | Self::DfInDockersWords(_)
                | Self::Ps(_)
                | Self::Search(_)
                | Self::Info(_)
                | Self::Version(_)
        )
    }

    /// What an asked format is here.
    fn format(&self, asked: Asked) -> Result<Format> {
        Ok(match (asked, self) {
            (Asked::Table, _) => Format::Table,
            // The same documents in both: docker's, which `inspect` prints whole by itself.
            (Asked::Json, Self::Inspect(_)) => Format::Json,
            (Asked::JsonFull, Self::Inspect(_)) => Format::Table,
            (Asked::Json, _) if self.is_dockers() => Format::Template("{{json .}}".to_owned()),
            (Asked::Json | Asked::JsonFull, _) => Format::Json,
            (Asked::Template(text), _) if self.is_dockers() => Format::Template(text),
            (Asked::Template(text), _) => return template::refuse(&text),
        })
    }
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

/// Does what the command line says.
pub(crate) fn run(cli: Cli) -> Result<()> {
    let terminal = std::io::stdout().is_terminal();
    let command = cli.command.plain();
    let context = Context {
        root: Context::root_or_default(cli.root)?,
        format: command.format(cli.format)?,
        quiet: cli.quiet,
        shown: if cli.quiet { Shown::Nothing } else { cli.progress },
        log_level: cli.log_level,
    };
    if cli.progress == Shown::Tty && !terminal && !std::io::stderr().is_terminal() {
        bail!("--progress tty wants a terminal; plain shows lines");
    }
    let mut out = BufWriter::new(std::io::stdout());
    let mut err = std::io::stderr();
    let json = context.format == Format::Json;
    let mut screen = look::Screen { out: &mut out, err: &mut err, terminal, json };
    match &command {
        Command::Pull(args) => remote::pull(&context, args)?,
        Command::Push(args) => remote::push(&context, args)?,
        Command::Copy(args) => remote::copy(&context, args)?,
        Command::Login(args) => remote::login(&context, args, &mut screen.out)?,
        Command::Logout(args) => remote::logout(args, &mut screen.out)?,
        Command::Search(args) => remote::search(&context, args, &mut screen.out)?,
        Command::Serve(args) => remote::serve(&context, args, &mut screen.out)?,
        Command::Manifest(args) => remote::manifest(&context, args, &mut screen.out)?,
        Command::Verify(args) => remote::verify(&context, args, &mut screen.out)?,
        Command::Load(args) => load::run_load(&context, args)?,
        Command::Import(args) => load::run_import(&context, args)?,
        Command::Save(args) => save::run_save(&context, args, &mut screen)?,
        Command::Images(args) => images::run_images(&context, args, &mut screen.out)?,
        Command::Tag(args) => images::run_tag(&context, args)?,
        Command::Rmi(args) => images::run_rmi(&context, args, &mut screen.out)?,
        Command::Inspect(args) => images::run_inspect(&context, args, &mut screen.out)?,
        Command::History(args) => images::run_history(&context, args, &mut screen.out)?,
        Command::PruneImages(args) => images::run_prune(&context, args, &mut screen.out)?,
        Command::PruneUppers(args) => uppers::run_prune(&context, args, &mut screen.out)?,
        Command::PruneAll(args) => images::run_system_prune(&context, args, &mut screen.out)?,
        Command::DfInDockersWords(args) => {
            images::run_system_df(&context, args, &mut screen.out)?;
        }
        // `plain` has turned these into the others.
        Command::Image(_) | Command::Container(_) | Command::System(_) => {}
        Command::Mount(args) => mount::run(&context, args)?,
        Command::Umount(args) => mounts::umount(&context.root, args)?,
        Command::Mounts(args) => mounts::list(&context.root, args, json, screen.out)?,
        Command::Ps(args) => uppers::run_ps(&context, args, &mut screen.out)?,
        Command::Uppers(args) => uppers::run_uppers(&context, args, &mut screen.out)?,
        Command::Diff(args) => uppers::run_diff(&context, args, terminal, &mut screen.out)?,
        Command::Why(args) => history::run_why(&context, args, &mut screen.out)?,
        Command::Duplicates(args) => history::run_duplicates(&context, args, &mut screen.out)?,
        Command::Commit(args) => uppers::run_commit(&context, args, &mut screen.out)?,
        Command::Rm(args) => uppers::run_rm(&context, args, &mut screen.out)?,
        Command::Ls(args) => {
            let image = context.open_image(args.target.reference())?;
            look::ls(&*image.tree, args, &mut screen)?;
        }
        Command::Cat(args) => {
            let mut held: Vec<OpenImage> = Vec::new();
            let mut open = |reference: &str| {
                let image = context.open_image(reference)?;
                let tree: Arc<dyn Lower> = image.tree.clone();
                held.push(image);
                Ok(tree)
            };
            look::cat(&mut open, args, &mut screen)?;
        }
        Command::Cp(args) => {
            let image = context.open_image(args.source.reference())?;
            look::cp(&*image.tree, args, &mut screen)?;
        }
        Command::Stat(args) => {
            let image = context.open_image(args.target.reference())?;
            look::stat(&*image.tree, &image.record.layers, args, &mut screen)?;
        }
        Command::Layers(args) => {
            look::layers(&layers::layer_rows(&context, &args.reference)?, &mut screen)?;
        }
        Command::Explore(args) => explore::run(&context, args, &mut screen.out)?,
        Command::Unpack(args) => {
            let image = context.open_image(&args.reference)?;
            crate::commands::mount::refuse_inside(&context.root, &args.dir)?;
            let progress = progress::unpacking(context.shown, image.tree.content_bytes());
            look::unpack(&*image.tree, args, &progress, &mut screen)?;
        }
        Command::Export(args) => match uppers::merged(&context, &args.reference)? {
            Some((_image, tree)) => look::export(&tree, args, &mut screen)?,
            None => {
                let image = context.open_image(&args.reference)?;
                look::export(&*image.tree, args, &mut screen)?;
            }
        },
        Command::Report(args) => crate::report::run(&context, args, &mut screen.out)?,
        Command::Reuse(args) => reuse::run(&context, args, &mut screen.out)?,
        Command::Df(args) => df::run_df(&context, args, &mut screen.out)?,
        Command::Fsck(args) => housekeeping::run_fsck(&context, args, &mut screen.out)?,
        Command::Gc => housekeeping::run_gc(&context, &mut screen.out)?,
        Command::Version(args) => remote::version(&context, args, &mut screen.out)?,
        Command::Help(args) => match elsewhere::help(pages::command(), &args.command) {
            Ok(Some(text)) => text.print()?,
            Ok(None) => {}
            Err(why) => bail!("{why}"),
        },
        Command::Info(args) => remote::info(&context, args, &mut screen.out)?,
        Command::Completions(args) => shell::run_completions(args, &mut screen.out)?,
        Command::Man(args) => shell::run_man(args, &mut screen.out)?,
    }
    Ok(out.flush()?)
}
