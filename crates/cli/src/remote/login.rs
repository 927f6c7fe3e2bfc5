//! `strata login` and `logout`: docker's words, docker's and podman's files.
//!
//! Invariants: a credential is kept only once the registry has taken it; a password is never
//! shown, and read without an echo from a terminal.

use std::io::{BufRead, IsTerminal, Read, Write};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use strata_registry::{Credential, Credentials, EndpointError, KeptLogin, Registries};

use super::config::RegistryArgs;
use crate::context::Context;
use crate::told;

const HUB: &str = "docker.io";
/// Bytes of a password, far above what any registry takes.
const PASSWORD_BYTES: u64 = 64 << 10;

/// Log in to a registry
///
/// The credential is tried, then kept in the file that knows the registry already, else where
/// docker keeps it (or in --authfile, or in $REGISTRY_AUTH_FILE), with the credential helper that
/// is set up there if there is one.
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// The registry [default: docker.io]
    #[arg(value_name = "HOST[:PORT]", value_parser = host, default_value = HUB,
          hide_default_value = true)]
    registry: String,
    /// The name
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// The password; others can see it in the list of processes
    #[arg(short, long, value_name = "PASSWORD")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long, conflicts_with = "password")]
    password_stdin: bool,
    #[command(flatten)]
    access: RegistryArgs,
}

/// Forget the login to a registry
///
/// In every file, and with every helper, that pull would ask.
#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    /// The registry [default: docker.io]
    #[arg(value_name = "HOST[:PORT]", value_parser = host, default_value = HUB,
          hide_default_value = true)]
    registry: String,
    #[command(flatten)]
    access: RegistryArgs,
}

/// A registry as people write it, with a scheme or old docker's path or not.
fn host(text: &str) -> std::result::Result<String, String> {
    let bare = text.strip_prefix("https://").or(text.strip_prefix("http://")).unwrap_or(text);
    let bare = bare.split('/').next().unwrap_or_default();
    match bare {
        "index.docker.io" | "registry-1.docker.io" | HUB => Ok(HUB.to_owned()),
        bare if bare.is_empty() || bare.contains(['@', ' ']) => {
            Err("expected HOST or HOST:PORT".to_owned())
        }
        bare => Ok(bare.to_owned()),
    }
}

pub(crate) fn login(context: &Context, args: &LoginArgs, out: &mut impl Write) -> Result<()> {
    let registries = args.access.registries(context)?;
    let known = registries.credential(&args.registry).unwrap_or_default();
    let alone = args.username.is_none() && args.password.is_none() && !args.password_stdin;
    if alone && let Some(known) = known {
        writeln!(out, "Authenticating with existing credentials...")?;
        out.flush()?;
        match try_login(&registries, &args.registry, known) {
            Ok(()) => {
                writeln!(out, "Login Succeeded")?;
                return Ok(());
            }
            Err(error) if !std::io::stdin().is_terminal() => return Err(error),
            Err(error) => tracing::warn!("{error:#}"),
        }
    }
    let (username, password) = asked(args)?;
    let credential = Credential::Basic { username: username.clone(), password: password.clone() };
    try_login(&registries, &args.registry, credential)?;
    let file = args.access.login_file(&args.registry)?;
    let kept = Credentials::keep(&file, &args.registry, &username, &password)?;
    if let KeptLogin::Plainly(path) = kept {
        let mut err = std::io::stderr();
        writeln!(
            err,
            "warning: the password is stored unencrypted in {}; a credential helper avoids that",
            path.display()
        )?;
    }
    writeln!(out, "Login Succeeded")?;
    Ok(())
}

fn try_login(registries: &Registries, host: &str, credential: Credential) -> Result<()> {
    let Err(error) = registries.check_login(host, Some(credential)) else { return Ok(()) };
    if let strata_registry::Error::Refused(refused) = &error
        && let Some(EndpointError::Denied(said)) = refused.decisive()
    {
        bail!("{host} does not take this name and password: {said}");
    }
    Err(error.into())
}

fn asked(args: &LoginArgs) -> Result<(String, String)> {
    let terminal = std::io::stdin().is_terminal();
    if args.password_stdin {
        let Some(username) = args.username.clone() else {
            bail!("--password-stdin needs --username");
        };
        let mut password = String::new();
        std::io::stdin()
            .take(PASSWORD_BYTES)
            .read_to_string(&mut password)
            .context("cannot read the password from standard input")?;
        let password = password.trim_end_matches(['\r', '\n']).to_owned();
        return nonempty(username, password);
    }
    if let (Some(username), Some(password)) = (&args.username, &args.password) {
        let mut err = std::io::stderr();
        writeln!(err, "warning: --password is seen by others; --password-stdin is not")?;
        return nonempty(username.clone(), password.clone());
    }
    if !terminal {
        bail!("standard input is no terminal; say --username NAME and --password-stdin");
    }
    let username = match &args.username {
        Some(username) => username.clone(),
        None => ask("Username: ")?,
    };
    let password = match &args.password {
        Some(password) => password.clone(),
        None => ask_secretly("Password: ")?,
    };
    nonempty(username, password)
}

fn nonempty(username: String, password: String) -> Result<(String, String)> {
    if username.is_empty() || password.is_empty() {
        bail!("neither the name nor the password may be empty");
    }
    if username.contains(':') {
        bail!("a user name cannot have a colon");
    }
    Ok((username, password))
}

fn ask(question: &str) -> Result<String> {
    let mut err = std::io::stderr();
    write!(err, "{question}")?;
    err.flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("cannot read from the terminal")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn ask_secretly(question: &str) -> Result<String> {
    let stdin = std::io::stdin();
    let before = tcgetattr(&stdin).context("cannot turn the terminal's echo off")?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    silent.local_modes.insert(LocalModes::ECHONL);
    tcsetattr(&stdin, OptionalActions::Flush, &silent)
        .context("cannot turn the terminal's echo off")?;
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot wait for signals")?;
    let (waiting, restored) = (signals.handle(), before.clone());
    let wait = move || {
        if let Some(signal) = signals.forever().next() {
            // The process ends now: nobody is left to tell if this fails.
            tcsetattr(std::io::stdin(), OptionalActions::Flush, &restored).unwrap_or_default();
            emulate_default_handler(signal).unwrap_or_default();
        }
    };
    let answer = match std::thread::Builder::new().spawn(wait) {
        Ok(waiter) => {
            let answer = ask(question);
            waiting.close();
            waiter.join().map_err(|_| anyhow!("waiting for signals failed")).and(answer)
        }
        Err(error) => Err(error).context("cannot start a thread"),
    };
    tcsetattr(&stdin, OptionalActions::Flush, &before)
        .context("cannot turn the terminal's echo on again")?;
    answer
}

pub(crate) fn logout(args: &LogoutArgs, out: &mut impl Write) -> Result<()> {
    let (mut known, mut failed) = (false, Vec::new());
    for file in args.access.logout_files() {
        match Credentials::forget(&file, &args.registry) {
            Ok(was_known) => known |= was_known,
            Err(error) => failed.push(told::told(&error.into())),
        }
    }
    match known {
        true => writeln!(out, "Removing login credentials for {}", args.registry)?,
        false if failed.is_empty() => writeln!(out, "Not logged in to {}", args.registry)?,
        false => {}
    }
    out.flush()?;
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("a login may be left: {}", failed.join("\nstrata: ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_may_be_written_as_an_address() {
        for (text, expected) in [
            ("docker.io", Some("docker.io")),
            ("https://index.docker.io/v1/", Some("docker.io")),
            ("http://127.0.0.1:5000", Some("127.0.0.1:5000")),
            ("quay.io/team", Some("quay.io")),
            ("", None),
            ("user@host", None),
        ] {
            assert_eq!(host(text).ok().as_deref(), expected, "{text}");
        }
    }
}
