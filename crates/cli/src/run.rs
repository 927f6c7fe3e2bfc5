//! What each command does: the one place that knows both the command line and what carries it out.
//!
//! Invariant: each command is one line here; anything longer is a function of its own.

use std::io::{BufWriter, IsTerminal, Write};

use anyhow::{Result, bail};
use clap::CommandFactory;

use stratafs::OpenImage;

use crate::cli::{Cli, Command, HelpArgs};
use crate::commands::{
    containerd, df, facts, housekeeping, layers, lint, load, mount, save, shell,
};
use crate::context::{Asked, Context, Format};
use crate::document::TameJson;
use crate::look::Screen;
use crate::plain::plain;
use crate::progress::ShowProgress;
use crate::results::Results;
use crate::{
    elsewhere, explore, history, images, layer_store, look, mounts, pages, progress, remote,
    report, reuse, template, trust, uppers,
};

/// Does what the command line says.
pub(crate) fn run(cli: Cli) -> Result<()> {
    let terminal = std::io::stdout().is_terminal();
    let mut command = plain(cli.command);
    if let Command::Lint(args) = &mut command {
        args.is_sarif = cli.everywhere.format == Asked::Sarif;
    }
    let context = Context {
        root: Context::root_or_default(cli.everywhere.root)?,
        format: format(&command, cli.everywhere.format)?,
        quiet: cli.everywhere.quiet,
        shown: if cli.everywhere.quiet { ShowProgress::Nothing } else { cli.everywhere.progress },
        log_level: cli.everywhere.log_level,
    };
    if cli.everywhere.progress == ShowProgress::Tty && !terminal && !std::io::stderr().is_terminal()
    {
        bail!("--progress tty wants a terminal; plain shows lines");
    }
    let stdout = std::io::stdout();
    let json = context.format == Format::Json;
    let results = match command.ends_with_reader() {
        true => Results::new(stdout),
        false => Results::to_the_end(stdout),
    };
    let mut out: BufWriter<Box<dyn Write>> = BufWriter::new(match json && !is_of_bytes(&command) {
        true => Box::new(TameJson::new(results)),
        false => Box::new(results),
    });
    let mut err = std::io::stderr();
    let mut screen = Screen { out: &mut out, err: &mut err, terminal, json };
    dispatch(&command, &context, &mut screen)?;
    Ok(out.flush()?)
}

fn dispatch(command: &Command, context: &Context, screen: &mut Screen<'_>) -> Result<()> {
    match command {
        Command::Pull(args) => remote::pull(context, args)?,
        Command::Push(args) => remote::push(context, args)?,
        Command::Copy(args) => remote::copy(context, args)?,
        Command::Login(args) => remote::login(context, args, &mut screen.out)?,
        Command::Logout(args) => remote::logout(args, &mut screen.out)?,
        Command::Search(args) => remote::search(context, args, &mut screen.out)?,
        Command::Serve(args) => remote::serve(context, args, &mut screen.out)?,
        Command::LayerStore(args) => layer_store::run(context, args, &mut screen.out)?,
        Command::Containerd(command) => containerd::run_containerd(context, command)?,
        Command::Manifest(args) => remote::manifest(context, args, &mut screen.out)?,
        Command::Verify(args) => remote::verify(context, args, &mut screen.out)?,
        Command::Trust(args) => trust::run(context, args, &mut screen.out)?,
        Command::Load(args) => load::run_load(context, args)?,
        Command::Import(args) => load::run_import(context, args)?,
        Command::Save(args) => save::run_save(context, args, screen)?,
        Command::Images(args) => images::run_images(context, args, &mut screen.out)?,
        Command::Tag(args) => images::run_tag(context, args)?,
        Command::Rmi(args) => images::run_rmi(context, args, &mut screen.out)?,
        Command::Inspect(args) => images::run_inspect(context, args, &mut screen.out)?,
        Command::History(args) => images::run_history(context, args, &mut screen.out)?,
        Command::PruneImages(args) => images::run_prune(context, args, &mut screen.out)?,
        Command::PruneUppers(args) => uppers::run_prune(context, args, &mut screen.out)?,
        Command::PruneAll(args) => images::run_system_prune(context, args, &mut screen.out)?,
        Command::DfInDockersWords(args) => {
            images::run_system_df(context, args, &mut screen.out)?;
        }
        // `plain` has turned these into the others.
        Command::Image(_) | Command::Container(_) | Command::System(_) => {}
        Command::Mount(args) => mount::run(context, args)?,
        Command::Umount(args) => mounts::umount(&context.engine(), args)?,
        Command::Mounts(args) => mounts::list(&context.engine(), args, screen.json, screen.out)?,
        Command::Ps(args) => uppers::run_ps(context, args, &mut screen.out)?,
        Command::Uppers(args) => uppers::run_uppers(context, args, &mut screen.out)?,
        Command::Diff(args) => uppers::run_diff(context, args, screen.terminal, &mut screen.out)?,
        Command::Why(args) => history::run_why(context, args, &mut screen.out)?,
        Command::Duplicates(args) => history::run_duplicates(context, args, &mut screen.out)?,
        Command::Commit(args) => uppers::run_commit(context, args, &mut screen.out)?,
        Command::Rm(args) => uppers::run_rm(context, args, &mut screen.out)?,
        Command::Ls(args) => ls(context, args, screen)?,
        Command::Cat(args) => cat(context, args, screen)?,
        Command::Cp(args) => cp(context, args, screen)?,
        Command::Stat(args) => stat(context, args, screen)?,
        Command::Layers(args) => {
            look::layers(&layers::layer_rows(context, &args.reference)?, screen)?;
        }
        Command::Explore(args) => explore::run(context, args, &mut screen.out)?,
        Command::Unpack(args) => unpack(context, args, screen)?,
        Command::Export(args) => export(context, args, screen)?,
        Command::Report(args) => report::run(context, args, &mut screen.out)?,
        Command::Reuse(args) => reuse::run(context, args, &mut screen.out)?,
        Command::Df(args) => df::run_df(context, args, &mut screen.out)?,
        Command::Lint(args) => lint::run_lint(context, args, &mut screen.out)?,
        Command::Facts(args) => facts::run_facts(context, args, &mut screen.out)?,
        Command::Fsck(args) => housekeeping::run_fsck(context, args, &mut screen.out)?,
        Command::Gc => housekeeping::run_gc(context, &mut screen.out)?,
        Command::Version(args) => remote::version(context, args, &mut screen.out)?,
        Command::Help(args) => help(args)?,
        Command::Info(args) => remote::info(context, args, &mut screen.out)?,
        Command::Completions(args) => shell::run_completions(args, &mut screen.out)?,
        Command::Man(args) => shell::run_man(args, Cli::command(), &mut screen.out)?,
    }
    Ok(())
}

/// Whether it writes files, archives or pages, whatever format is asked for.
fn is_of_bytes(command: &Command) -> bool {
    matches!(
        command,
        Command::Cat(_)
            | Command::Cp(_)
            | Command::Export(_)
            | Command::Save(_)
            | Command::Report(_)
            | Command::Completions(_)
            | Command::Man(_)
    )
}

/// Whether its rows are those that docker's templates know.
fn is_dockers(command: &Command) -> bool {
    matches!(
        command,
        Command::Images(_)
            | Command::Inspect(_)
            | Command::History(_)
            | Command::DfInDockersWords(_)
            | Command::Ps(_)
            | Command::Search(_)
            | Command::Info(_)
            | Command::Version(_)
    )
}

/// What an asked format is here.
fn format(command: &Command, asked: Asked) -> Result<Format> {
    Ok(match (asked, command) {
        (Asked::Table, _) => Format::Table,
        // The same documents in both: docker's, which `inspect` prints whole by itself.
        (Asked::Json, Command::Inspect(_)) => Format::Json,
        (Asked::JsonFull, Command::Inspect(_)) => Format::Table,
        (Asked::Json, _) if is_dockers(command) => Format::Template("{{json .}}".to_owned()),
        (Asked::Json | Asked::JsonFull, _) => Format::Json,
        (Asked::Sarif, Command::Lint(_)) => Format::Json,
        (Asked::Sarif, _) => bail!("only `strata lint` prints SARIF; say --format json"),
        (Asked::Template(text), _) if is_dockers(command) => Format::Template(text),
        (Asked::Template(text), _) => return template::refuse(&text),
    })
}

fn ls(context: &Context, args: &look::LsArgs, screen: &mut Screen<'_>) -> Result<()> {
    let image = context.open_image(args.target.reference())?;
    look::ls(&*image.tree, args, screen)
}

fn cat(context: &Context, args: &look::CatArgs, screen: &mut Screen<'_>) -> Result<()> {
    let mut held: Vec<OpenImage> = Vec::new();
    let mut open = |reference: &str| {
        let image = context.open_image(reference)?;
        let tree = image.files.clone();
        held.push(image);
        Ok(tree)
    };
    look::cat(&mut open, args, screen)
}

fn cp(context: &Context, args: &look::CpArgs, screen: &mut Screen<'_>) -> Result<()> {
    let image = context.open_image(args.source.reference())?;
    look::cp(&image.files, args, screen)
}

fn stat(context: &Context, args: &look::StatArgs, screen: &mut Screen<'_>) -> Result<()> {
    let image = context.open_image(args.target.reference())?;
    look::stat(&image.files, &image.record.layers, args, screen)
}

fn unpack(context: &Context, args: &look::UnpackArgs, screen: &mut Screen<'_>) -> Result<()> {
    let image = context.open_image(&args.reference)?;
    stratafs::refuse_inside(&context.root, &args.dir)?;
    let progress = progress::unpacking(context.shown, image.tree.content_bytes());
    look::unpack(&image.files, args, &progress, screen)
}

fn export(context: &Context, args: &look::ExportArgs, screen: &mut Screen<'_>) -> Result<()> {
    match uppers::merged(context, &args.reference)? {
        Some((_image, tree)) => look::export(&tree, args, screen),
        None => {
            let image = context.open_image(&args.reference)?;
            look::export(&image.files, args, screen)
        }
    }
}

fn help(args: &HelpArgs) -> Result<()> {
    match elsewhere::help(pages::command(Cli::command()), &args.command) {
        // As clap itself, which asks nobody whether its help could be written.
        Ok(Some(text)) => text.print().unwrap_or_default(),
        Ok(None) => {}
        Err(why) => bail!("{why}"),
    }
    Ok(())
}
