//! `strata completions` and `strata man`: made from the command line's own definition.
//!
//! Invariant: nothing here knows a command by name.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Command, ValueHint};
use clap_complete::Shell;

use crate::{complete, pages};

/// Print shell completions
///
/// They complete commands and options, and names of images, uppers and mounts: the script asks the
/// program at each Tab.
///
/// bash: strata completions bash > ~/.local/share/bash-completion/completions/strata
///
/// zsh: strata completions zsh > ~/.zfunc/_strata, with fpath+=~/.zfunc before compinit in ~/.zshrc
///
/// fish: strata completions fish > ~/.config/fish/completions/strata.fish
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Write manual pages
///
/// One for each command, strata(1) as an overview, and strata-overlay(1). To read one without
/// installing it: strata man | man -l -
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Where to write strata.1, strata-load.1, ... [default: strata.1 to standard output]
    #[arg(value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

pub(crate) fn run_completions(args: &CompletionsArgs, out: &mut impl Write) -> Result<()> {
    complete::script(args.shell, out)
}

/// Pages of the command line `root`.
pub(crate) fn run_man(args: &ManArgs, root: Command, out: &mut impl Write) -> Result<()> {
    match &args.dir {
        None => Ok(out.write_all(pages::first(root)?.as_bytes())?),
        Some(dir) => pages::write(root, dir),
    }
}
