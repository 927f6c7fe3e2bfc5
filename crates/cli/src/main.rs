//! `strata`: the command line.
//!
//! [`cli`] defines the commands, [`run`] does them, [`context`] is what they share; [`commands`]
//! work on the store, [`images`] lists images and what they take, [`remote`] speaks to registries,
//! [`look`] reads images without mounting, [`mounts`] mounts them, for mount(8) as [`mount_helper`]
//! reads its arguments, [`uppers`] are the writable layers on top; [`history`] tells what happened
//! in images and what differs; [`complete`] answers the shell, [`pages`] are the manual.
//!
//! Invariants: results go to stdout, everything else to stderr; an error is one line that names
//! the thing, the cause and the way out, and the exit code is 1 (2 for a wrong command line, and
//! where 1 says that there are differences); a reader that went away ends a listing quietly, and
//! changes no status that says something.

// The comments of options are what `--help` prints: [:TAG] there is no link.
#![allow(rustdoc::broken_intra_doc_links)]

mod cli;
mod commands;
mod complete;
mod context;
mod document;
mod elsewhere;
mod explore;
mod groups;
mod history;
mod home;
mod images;
mod layer_store;
mod limits;
mod look;
mod mount_helper;
mod mounts;
mod pages;
mod plain;
mod progress;
mod remote;
mod report;
mod results;
mod reuse;
mod run;
mod table;
mod template;
mod told;
mod trust;
mod units;
mod uppers;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};
use mount_helper::Helper;

/// What mount(8) takes for a mount that failed.
const MOUNT_FAILED: u8 = 32;

/// What containerd starts before it pulls an image.
fn verifier() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // containerd shows the reason, which it reads from standard output in both cases.
    let (text, code) = match trust::verify(&args) {
        Ok(reason) => (reason, ExitCode::SUCCESS),
        Err(error) => (format!("{error:#}"), ExitCode::FAILURE),
    };
    writeln!(std::io::stdout(), "{text}").map_or(ExitCode::FAILURE, |()| code)
}

fn main() -> ExitCode {
    match mounts::answer(std::env::args_os()) {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(_) => return ExitCode::FAILURE,
    }
    match complete::answer(cli::Cli::command) {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        // The shell asks in the middle of a line, and goes on without an answer.
        Err(_) => return ExitCode::FAILURE,
    }
    if std::env::args_os().next().is_some_and(|program| trust::is_verifier(&program)) {
        return verifier();
    }
    let (args, failure) = match mount_helper::helper(std::env::args_os()) {
        Some(Helper::Mount(args)) => (args, Some(MOUNT_FAILED)),
        Some(Helper::Nothing) => return ExitCode::SUCCESS,
        Some(Helper::Refused(why)) => {
            told::tell(format_args!("mount.strata: {why}"));
            return ExitCode::FAILURE;
        }
        None => (std::env::args_os().collect(), None),
    };
    let cli = match parsed(&args) {
        Ok(cli) => cli,
        Err(mut error) => {
            match elsewhere::explained(&mut error) {
                Some(text) => told::tell(format_args!("strata: {text}")),
                // mount(8) knows 1 for a wrong line, and 2 for a fault of the system. Nobody is
                // left to tell if this fails.
                None if failure.is_some() => error.print().unwrap_or_default(),
                None => error.exit(),
            }
            return failure.map_or(ExitCode::from(2), |_| ExitCode::FAILURE);
        }
    };
    start_log(&cli);
    let trouble = failure.unwrap_or(cli.trouble());
    match run::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if results::is_without_reader(&error) => ExitCode::SUCCESS,
        Err(error) if error.is::<history::Differs>() => ExitCode::FAILURE,
        Err(error) => {
            told::tell(format_args!("strata: {}", told::told(&error)));
            ExitCode::from(trouble)
        }
    }
}

/// Reads a command line, with no more of the description than it takes. The pages are made only for
/// who reads them: they take a fifth of the time of a short command.
fn parsed(args: &[OsString]) -> Result<cli::Cli, clap::Error> {
    let alone = cli::named_command(args).and_then(cli::alone);
    if let Some(Ok(cli)) = alone.map(|command| parse(command, args)) {
        return Ok(cli);
    }
    parse(cli::Cli::command(), args).or_else(|error| match error.kind() {
        ErrorKind::DisplayVersion => Err(error),
        _ => parse(pages::command(cli::Cli::command()), args),
    })
}

fn parse(mut command: clap::Command, args: &[OsString]) -> Result<cli::Cli, clap::Error> {
    let found = command.try_get_matches_from_mut(args);
    let cli = found.and_then(|found| cli::Cli::from_arg_matches(&found));
    cli.map_err(|error| error.format(&mut command))
}

fn start_log(cli: &cli::Cli) {
    let filter = match &cli.everywhere.log_level {
        Some(level) => tracing_subscriber::EnvFilter::new(level),
        None => tracing_subscriber::EnvFilter::try_from_default_env()
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn")),
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    log.without_time().with_target(false).init();
}
