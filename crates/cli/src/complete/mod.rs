//! What the shell offers: commands and options, and names of the store's images, uppers and mounts.
//!
//! ```text
//! strata completions SHELL ─► a script that, at each Tab, runs
//! STRATA_COMPLETE=SHELL strata -- WORD... ─► one offer a line
//! ```
//!
//! An argument says by its name what it is: IMAGE or REF an image, and so on ([`subject`]); no
//! command is known here.
//!
//! Invariants: a store is read where there is one, and never made; what cannot be read is not
//! offered, without a message: the person is in the middle of a line.

mod names;

use std::ffi::{OsStr, OsString};
use std::io::Write;

use anyhow::{Context as _, Result};
use clap::{Arg, Command};
use clap_complete::Shell;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, ValueCompleter};
use clap_complete::env::{CompleteEnv, Shells};

/// The variable that the scripts set.
const VARIABLE: &str = "STRATA_COMPLETE";

/// Answers a shell that asks; false if none does.
pub(crate) fn answer(command: fn() -> Command) -> clap::error::Result<bool> {
    let here = std::env::current_dir().ok();
    let words: Vec<OsString> = std::env::args_os().collect();
    // bash and zsh say which word it is, and zsh gives those behind it too.
    let at = std::env::var("_CLAP_COMPLETE_INDEX").ok().and_then(|at| at.parse::<usize>().ok());
    let begin = words.iter().position(|word| word == "--").map_or(0, |at| at + 1);
    let word = at.map_or(words.last(), |at| words.get(begin + at));
    let option = word.is_some_and(|word| word.as_encoded_bytes().starts_with(b"-"));
    let factory = || {
        let command = with_subjects(command());
        if option { command } else { without_options(command) }
    };
    CompleteEnv::with_factory(factory).var(VARIABLE).try_complete(words, here.as_deref())
}

/// Writes the script that makes completion known to a shell.
pub(crate) fn script(shell: Shell, out: &mut impl Write) -> Result<()> {
    match shell {
        Shell::Bash => out.write_all(include_bytes!("strata.bash"))?,
        Shell::Zsh => out.write_all(include_bytes!("strata.zsh"))?,
        other => {
            let (shells, name) = (Shells::builtins(), other.to_string());
            let known = shells.completer(&name).with_context(|| format!("{name} is not known"))?;
            let mut script = Vec::new();
            known.write_registration(VARIABLE, "strata", "strata", "strata", &mut script)?;
            out.write_all(&script)?;
        }
    }
    Ok(())
}

/// What an argument is a name of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Subject {
    images: bool,
    /// An image is not enough: a path in it has to follow.
    path_follows: bool,
    uppers: bool,
    mounts: bool,
}

impl ValueCompleter for Subject {
    fn complete(&self, current: &OsStr) -> Vec<CompletionCandidate> {
        let (Some(typed), Ok(store)) = (current.to_str(), names::KnownNames::of_command_line())
        else {
            return Vec::new();
        };
        let mut offers = Vec::new();
        if self.images {
            let end = if self.path_follows { ":/" } else { "" };
            offers.extend(store.images(typed, end));
        }
        if self.uppers {
            offers.extend(store.uppers());
        }
        if self.mounts {
            offers.extend(store.mounts(typed));
        }
        let offers = offers.into_iter().filter(|(name, _)| name.starts_with(typed));
        let mut offers: Vec<_> = offers.collect();
        offers.sort();
        offers.dedup_by(|a, b| a.0 == b.0);
        let offers = offers.into_iter();
        offers.map(|(name, help)| CompletionCandidate::new(name).help(Some(help.into()))).collect()
    }
}

/// What an argument is, by its name, its value's name and what they say together.
fn subject(arg: &Arg) -> Subject {
    let value = arg.get_value_names().unwrap_or_default().join("|");
    let words = || value.split(|c: char| !c.is_ascii_alphabetic());
    let is = |word: &str| words().any(|one| one == word);
    let id = arg.get_id().as_str();
    let any = id == "names" && is("NAME");
    Subject {
        images: any
            || ["IMAGE", "IMAGES", "REF", "REFERENCE"].into_iter().any(is)
            || (id == "source" && is("SOURCE")),
        path_follows: value == "REF:PATH",
        uppers: any || ["upper", "uppers"].contains(&id) || (is("NAME") && is("IMAGE")),
        mounts: is("MOUNTPOINT") || (is("NAME") && is("DIR")),
    }
}

fn with_subjects(command: Command) -> Command {
    let command = command.mut_args(|arg| match subject(&arg) {
        none if none == Subject::default() => arg,
        some => arg.add(ArgValueCompleter::new(some)),
    });
    command.mut_subcommands(with_subjects)
}

/// Options stand back behind names, until a dash is typed.
fn without_options(command: Command) -> Command {
    let command = command.disable_help_flag(true).disable_version_flag(true);
    let command = command.mut_args(|arg| if arg.is_positional() { arg } else { arg.hide(true) });
    command.mut_subcommands(without_options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(id: &'static str, value: &'static str) -> (bool, bool, bool) {
        let Subject { images, uppers, mounts, .. } = subject(&Arg::new(id).value_name(value));
        (images, uppers, mounts)
    }

    #[test]
    fn an_argument_is_what_its_name_says() {
        assert_eq!(of("image", "IMAGE"), (true, false, false));
        assert_eq!(of("other", "IMAGE2"), (true, false, false));
        assert_eq!(of("targets", "REF:PATH"), (true, false, false));
        assert_eq!(of("image", "IMAGE[:PATH]"), (true, false, false));
        assert_eq!(of("upper", "NAME"), (false, true, false));
        assert_eq!(of("first", "NAME|DIR|IMAGE"), (true, true, true));
        assert_eq!(of("names", "NAME"), (true, true, false));
        assert_eq!(of("directory", "MOUNTPOINT"), (false, false, true));
        assert_eq!(of("directory", "DIRECTORY"), (false, false, false));
        assert_eq!(of("daemon", "NAME"), (false, false, false));
    }
}
