//! `strata-overlay`: overlay directories as a FUSE mount, in place of `fuse-overlayfs`.
//!
//! A program as a library, so that it is built and shipped with `strata`; it knows no store.
//!
//! ```text
//! args      the command line
//! options   what is in its -o, and what that asks for
//! layers    the directories, opened and merged
//! serving   mounting, the daemon, and its end
//! remount   changing a mount that is there
//! ```
//!
//! Invariants: when the command returns 0, the mount is usable; an error is one line on stderr,
//! and the exit code is 1 (2 for a wrong command line); nothing is left mounted after an error.

mod args;
mod layers;
mod options;
mod remount;
mod serving;

use std::io::Write;
use std::process::ExitCode;

use args::Invocation;
pub use options::separate;

/// What `strata-overlay --help` prints.
pub const USAGE: &str = include_str!("usage.txt").trim_ascii_end();

/// Command lines that work, one a line, each followed by what it is for: for the manual page.
pub const EXAMPLES: &str = include_str!("examples.txt");

/// The program: reads its command line and its environment, mounts, and returns its exit code: 0,
/// 1, or 2 for a wrong command line.
pub fn main() -> ExitCode {
    let Some(args) = args::words(std::env::args_os()) else { return ExitCode::SUCCESS };
    let request = match args::parse(&args) {
        Ok(Invocation::Print(text)) => {
            // The reader has gone.
            writeln!(std::io::stdout(), "{text}").unwrap_or_default();
            return ExitCode::SUCCESS;
        }
        Ok(Invocation::Mount(request)) => *request,
        Err(error) => {
            complain(&in_words(&error));
            return ExitCode::from(2);
        }
    };
    start_log(request.debug);
    match serving::run(&request, &args) {
        Ok(code) => code,
        Err(error) => {
            complain(&in_words(&error));
            ExitCode::FAILURE
        }
    }
}

/// Reads a command line, without the program's name, as [`main`] does, and does nothing.
///
/// # Errors
/// What is wrong with it, as the program says it.
pub fn check_command_line(words: &[std::ffi::OsString]) -> Result<(), String> {
    args::parse(words).map(drop).map_err(|error| in_words(&error))
}

/// An error with its causes, but for those whose words an earlier one has already used.
fn in_words(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| {
        match (said.is_empty(), said.ends_with(&cause)) {
            (true, _) => cause,
            (false, true) => said,
            (false, false) => format!("{said}: {cause}"),
        }
    })
}

fn complain(text: &str) {
    // One write, for others may share the log. Nobody is left to tell if it fails.
    let line = format!("strata-overlay: {text}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap_or_default();
}

fn start_log(debug: bool) {
    let level = if debug { "debug" } else { "warn" };
    let filter = tracing_subscriber::EnvFilter::new(level);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    log.without_time().with_target(false).init();
}
