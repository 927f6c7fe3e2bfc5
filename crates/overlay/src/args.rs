//! The command line, as mount(8), mount.fuse3 and container engines write it.
//!
//! Invariants: `-o` may come anywhere, several times, with its value attached or not; the last
//! operand is the mountpoint, one before it is the source that the mount table shows.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::USAGE;
use crate::options::{OverlaySettings, read};

/// What the daemon is started with, before the arguments of the command.
pub(crate) const DAEMON: &str = "--daemon";

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Invocation {
    /// Print this and end.
    Print(String),
    /// Mount.
    Mount(Box<Request>),
}

/// A mount that is wanted.
#[derive(Debug)]
pub(crate) struct Request {
    /// What `-o` asks for.
    pub(crate) settings: OverlaySettings,
    /// The directory to mount on.
    pub(crate) mountpoint: PathBuf,
    /// Serve in this process.
    pub(crate) foreground: bool,
    /// Tell every request.
    pub(crate) debug: bool,
    /// Be the daemon that the command has started.
    pub(crate) daemon: bool,
}

/// Reads the arguments after the program's name.
pub(crate) fn parse(args: &[OsString]) -> Result<Invocation> {
    let mut settings = OverlaySettings::default();
    let mut operands: Vec<&OsStr> = Vec::new();
    let (mut foreground, mut debug, mut daemon) = (false, false, false);
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_bytes() {
            b"-h" | b"--help" => return Ok(Invocation::Print(USAGE.to_owned())),
            b"-V" | b"--version" => {
                return Ok(Invocation::Print(format!(
                    "strata-overlay {}",
                    env!("CARGO_PKG_VERSION")
                )));
            }
            b"-f" => foreground = true,
            b"-d" | b"--debug" => (foreground, debug) = (true, true),
            b"-s" => read(b"threaded=0", &mut settings)?,
            b"-o" => match rest.next() {
                Some(options) => read(options.as_bytes(), &mut settings)?,
                None => bail!("-o needs options after it\n{USAGE}"),
            },
            b"--" => operands.extend(rest.by_ref().map(OsString::as_os_str)),
            bytes if bytes == DAEMON.as_bytes() => daemon = true,
            bytes => match bytes.strip_prefix(b"-o") {
                Some(options) => read(options, &mut settings)?,
                None if bytes.starts_with(b"-") && bytes.len() > 1 => {
                    bail!("unknown option {}\n{USAGE}", arg.display());
                }
                None => operands.push(arg),
            },
        }
    }
    let (source, mountpoint) = match operands[..] {
        [mountpoint] => (None, mountpoint),
        [source, mountpoint] => (Some(source), mountpoint),
        _ => bail!("a source and a mountpoint are expected\n{USAGE}"),
    };
    if settings.fsname.is_none() {
        settings.fsname = source.map(|source| source.to_string_lossy().into_owned());
    }
    settings.check()?;
    let mountpoint = PathBuf::from(mountpoint);
    Ok(Invocation::Mount(Box::new(Request { settings, mountpoint, foreground, debug, daemon })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(args: &[&str]) -> Result<Request> {
        let args: Vec<OsString> = args.iter().map(Into::into).collect();
        match parse(&args)? {
            Invocation::Mount(request) => Ok(*request),
            Invocation::Print(text) => bail!("{text}"),
        }
    }

    #[test]
    fn engines_and_mount_write_it_their_ways() {
        for args in [
            &["-o", "lowerdir=/a:/b,upperdir=u,workdir=w", "/m"][..],
            &["-olowerdir=/a:/b,upperdir=u,workdir=w", "/m"],
            &["none", "/m", "-o", "rw,lowerdir=/a:/b", "-o", "upperdir=u,workdir=w"],
            &["-o", "lowerdir=/a:/b", "-oupperdir=u", "-o", "workdir=w", "--", "none", "/m"],
        ] {
            let request = request(args).unwrap();
            assert_eq!(request.settings.lower, [PathBuf::from("/a"), PathBuf::from("/b")]);
            assert_eq!(request.settings.upper, Some("u".into()));
            assert_eq!(request.settings.work, Some("w".into()));
            assert_eq!(request.mountpoint, PathBuf::from("/m"));
            assert!(!request.foreground && !request.daemon);
        }
        let shown = |args: &[&str]| request(args).unwrap().settings.fsname;
        assert_eq!(shown(&["src", "/m", "-olowerdir=/a"]).as_deref(), Some("src"));
        assert_eq!(shown(&["src", "/m", "-olowerdir=/a,fsname=x"]).as_deref(), Some("x"));
        assert!(request(&["-d", "-olowerdir=/a", "/m"]).unwrap().foreground);
    }

    #[test]
    fn the_manual_shows_command_lines_that_are_taken() {
        let lines = crate::EXAMPLES.lines();
        let own: Vec<_> = lines.filter_map(|line| line.strip_prefix("strata-overlay ")).collect();
        assert!(own.len() > 2);
        for line in own {
            let words: Vec<&str> = line.split(' ').collect();
            assert!(request(&words).is_ok(), "{line}");
        }
    }

    #[test]
    fn what_is_missing_or_too_much_is_said() {
        for (args, said) in [
            (&["-olowerdir=/a"][..], "mountpoint"),
            (&["-olowerdir=/a", "a", "b", "c"], "mountpoint"),
            (&["/m"], "lowerdir"),
            (&["-o"], "-o needs"),
            (&["-x", "/m"], "unknown option -x"),
            (&["-olowerdir=/a,upperdir=/u", "/m"], "workdir"),
            (&["-olowerdir=/a,workdir=/u", "/m"], "upperdir"),
        ] {
            let error = request(args).unwrap_err().to_string();
            assert!(error.contains(said), "{args:?}: {error}");
        }
        let version = [OsString::from("--version")];
        let Invocation::Print(text) = parse(&version).unwrap() else { panic!("not printed") };
        assert!(text.starts_with("strata-overlay 0."));
    }
}
