//! The program: its arguments, standard output and the exit status; `cli` does the rest.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // What is made for a case has the permissions that the case says, whoever calls.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let mut out = std::io::stdout().lock();
    match strata_conform::cli::run(&strata_conform::cli::Arguments::parse(), &mut out) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            // Nowhere else to say it.
            let _ = writeln!(std::io::stderr(), "strata-conform: {error}");
            ExitCode::from(2)
        }
    }
}
