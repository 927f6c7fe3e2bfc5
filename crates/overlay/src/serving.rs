//! Mounting, the daemon, and its end.
//!
//! The command runs this program once more as the daemon: no fork of a running program. The
//! daemon opens everything, mounts it, says `ready` on its standard output, which is a pipe to
//! the command, and then releases all that belongs to its parent. If it fails before that, it says
//! why on the standard error that both share.
//!
//! Invariants: the command returns 0 only when the mount is usable, and leaves none where it cannot
//! know that; the daemon afterwards holds no descriptor and no directory of its parent; SIGTERM,
//! SIGINT and SIGHUP end it, and its mount first; no limit of file sizes does.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use strata_fuse::{InheritedFds, Manner, Session, Unmounter, in_first_user_namespace};
use strata_union::writable::{Union, UnionOptions};

use crate::args::{DAEMON, Request};
use crate::{complain, layers, remount};

/// What the daemon says when the mount is usable.
const READY: &str = "ready\n";
/// How many files may be open at once, if the limit can be raised so far: one for each file that
/// programs have open, and one for each lower.
const FILES: u64 = 1 << 20;

/// Mounts. `args` are those of this process.
pub(crate) fn run(request: &Request, args: &[OsString]) -> Result<ExitCode> {
    if request.settings.remount {
        remount::remount(&request.mountpoint, &request.settings)?;
        return Ok(ExitCode::SUCCESS);
    }
    if request.daemon || request.foreground {
        serve(request)?;
        Ok(ExitCode::SUCCESS)
    } else {
        start(args)
    }
}

/// Starts the daemon and waits until it is ready or has failed.
fn start(args: &[OsString]) -> Result<ExitCode> {
    let mut daemon = Command::new("/proc/self/exe")
        .arg0("strata-overlay")
        .arg(DAEMON)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the daemon")?;
    if strata_fuse::hear(&mut daemon).context("cannot hear the daemon")? == READY {
        return Ok(ExitCode::SUCCESS);
    }
    let status = daemon.wait().context("cannot wait for the daemon")?;
    match status.code() {
        // It has said why.
        Some(code) if code != 0 => Ok(ExitCode::FAILURE),
        _ => bail!("the daemon ended early: {status}"),
    }
}

/// Mounts, and serves until the mount is gone.
fn serve(request: &Request) -> Result<()> {
    // Directories may be given through them, so they are closed late.
    let inherited = InheritedFds::note().context("cannot read /proc/self/fd")?;
    for option in &request.settings.unknown {
        complain(&format!("ignoring the unknown option {option}"));
    }
    raise_limits();
    strata_fuse::outlast_file_size_limit().context("cannot catch signals")?;
    // Modes are what the programs in the mount ask for, less their own umask.
    rustix::process::umask(Mode::empty());
    // Caught from now on, and acted on once there is something to unmount.
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("cannot catch signals")?;
    let (session, union) = mount(request)?;
    // Before the caller is told that all is well: nothing may fail after that.
    attend(signals, session.unmounter(), union.clone()).context("cannot start a thread")?;
    if request.daemon
        && let Err(error) = leave_surroundings(inherited)
    {
        drop(session);
        return Err(error).context("the process that wanted the mount is gone");
    }
    let ended = session.wait();
    end(union.as_deref());
    Ok(ended?)
}

/// Opens the directories and mounts them.
fn mount(request: &Request) -> Result<(Session, Option<Arc<Union>>)> {
    let settings = &request.settings;
    let root = rustix::process::geteuid().is_root();
    let first = root && in_first_user_namespace().unwrap_or(false);
    let options =
        UnionOptions { access_times: settings.access_times(root), ..settings.union(first) };
    let all = [&settings.lower[..], &settings.data].concat();
    layers::refuse_overlaps(&all, settings.upper.as_deref(), settings.work.as_deref())?;
    let stated = settings.stated_owners(first);
    let lower = layers::merged(&settings.lower, &settings.data, options.user_marks, stated)?;
    let (Some(upper), Some(work)) = (&settings.upper, &settings.work) else {
        let session = strata_fuse::serve(lower, &request.mountpoint, &settings.mount(root))?;
        return Ok((session, None));
    };
    let union = Arc::new(Union::open(lower, upper, work, options)?);
    if union.is_shared() {
        complain(&format!(
            "{} or {} is in use by another mount; what both then show is undefined (index=off)",
            upper.display(),
            work.display()
        ));
    }
    let options = settings.writable(root);
    let session = strata_fuse::serve_union(Arc::clone(&union), &request.mountpoint, &options)?;
    Ok((session, Some(union)))
}

/// Ends mount and process after a signal.
fn attend(mut signals: Signals, unmounter: Unmounter, union: Option<Arc<Union>>) -> Result<()> {
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for _signal in signals.forever() {
            sync(union.as_deref());
            // A clean end ends the session, and with it the process.
            if let Err(error) = unmounter.unmount(Manner::Clean) {
                tracing::warn!("{error}; detaching it");
                if let Err(error) = unmounter.unmount(Manner::Lazy) {
                    tracing::error!("{error}");
                }
                end(union.as_deref());
                std::process::exit(0);
            }
        }
    })?;
    Ok(())
}

/// A caller that unmounts this way waits for what was written.
fn sync(union: Option<&Union>) {
    if let Some(Err(error)) = union.map(Union::sync) {
        tracing::error!("{error}");
    }
}

fn end(union: Option<&Union>) {
    if let Some(Err(error)) = union.map(Union::finish) {
        tracing::error!("{error}");
    }
}

/// Raises the limit of open files as far as it goes.
fn raise_limits() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let most = limit.maximum.map(|hard| hard.max(FILES));
    let wanted = Rlimit { current: most, maximum: most };
    if rustix::process::setrlimit(Resource::Nofile, wanted).is_err() {
        // Only root may raise the hard limit.
        let reachable = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = rustix::process::setrlimit(Resource::Nofile, reachable) {
            tracing::warn!("cannot raise the limit of open files: {error}");
        }
    }
}

/// Says that the mount is usable and releases everything that belongs to the parent.
fn leave_surroundings(inherited: InheritedFds) -> io::Result<()> {
    // A shell's locks and pipes would live on here.
    inherited.close();
    // Fails only for the leader of a process group, which a new child never is.
    let _ = rustix::process::setsid();
    std::env::set_current_dir("/")?;
    let null = File::options().write(true).open("/dev/null")?;
    // Container engines wait until no process holds their pipe any more.
    rustix::stdio::dup2_stderr(&null)?;
    let mut out = io::stdout().lock();
    out.write_all(READY.as_bytes())?;
    out.flush()?;
    Ok(rustix::stdio::dup2_stdout(&null)?)
}
