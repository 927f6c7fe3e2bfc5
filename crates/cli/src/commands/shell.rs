//! `strata completions` and `strata man`: made from the command line's own definition.
//!
//! Invariant: nothing here knows a command by name.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, Command, ValueHint};
use clap_complete::Shell;

use crate::complete;

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
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Where to write strata.1, strata-load.1, ... [default: strata.1 to standard output]
    #[arg(value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

pub(crate) fn run_completions(args: &CompletionsArgs, out: &mut impl Write) -> Result<()> {
    complete::script(args.shell, out)
}

pub(crate) fn run_man(args: &ManArgs, command: Command, out: &mut impl Write) -> Result<()> {
    match &args.dir {
        None => Ok(clap_mangen::Man::new(command).render(out)?),
        Some(dir) => {
            std::fs::create_dir_all(dir)
                .with_context(|| format!("cannot make {}", dir.display()))?;
            clap_mangen::generate_to(command, dir)
                .with_context(|| format!("cannot write to {}", dir.display()))
        }
    }
}
