//! `strata mount`: the command, and the daemon that it starts.
//!
//! The command checks the mountpoint, makes a log, and runs this program once more with
//! `--daemon NAME`: no fork of a running program. The daemon leaves the session and the
//! directory it was started in, opens the image, mounts it, registers, and then says `ready` on
//! its standard output, which is a pipe to the command; or it says what failed. The command
//! returns with that.
//!
//! Invariants: when the command has returned without error, the mount is usable and listed; if
//! the command is gone before that, the daemon takes the mount away again; the daemon holds no
//! descriptor of whoever started it; SIGTERM, SIGINT and SIGHUP end it, and its mount first.

use std::any::Any;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::Mode;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use strata_content::FileTree;
use strata_fuse::{
    Error, InheritedFds, Manner, MountOptions, Profile, Session, TreeFacts, Unmounter,
    WritableOptions,
};
use strata_union::writable::Union;

use super::point;
use super::registry::{Record, Registration, Registry, now};
use crate::told::told;

/// What the daemon says when the mount is usable.
const READY: &str = "ready\n";

/// Which part this process plays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Role {
    /// The command that a person typed: starts the daemon and waits until it is ready.
    Starter,
    /// The daemon, with its name in the registry.
    Daemon(String),
    /// Both in one: serves until it is unmounted.
    Foreground,
}

/// A mount that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountRequest {
    /// The store's root; the registry is in it.
    pub(crate) root: PathBuf,
    /// The image as the user named it.
    pub(crate) image: String,
    /// The directory to mount on.
    pub(crate) directory: PathBuf,
    /// How files are read.
    pub(crate) profile: Profile,
    /// Honour set-user-id bits.
    pub(crate) suid: bool,
    /// Honour devices.
    pub(crate) dev: bool,
    /// Allow running programs.
    pub(crate) exec: bool,
    /// How many threads answer.
    pub(crate) threads: usize,
    /// Poll for the next request while one caller asks one after another.
    pub(crate) busy_poll: bool,
    /// The name of the writable layer on top.
    pub(crate) upper: Option<String>,
    /// Which part this process plays.
    pub(crate) role: Role,
    /// The arguments before the subcommand that the daemon is started with.
    pub(crate) globals: Vec<OsString>,
}

/// An image that is ready to be served.
pub(crate) struct Opened {
    /// What is served.
    pub(crate) served: Served,
    /// The image's id.
    pub(crate) image: String,
    /// Kept as long as the mount lives: the locks on its layers.
    pub(crate) guard: Box<dyn Any + Send>,
}

/// What a mount shows.
pub(crate) enum Served {
    /// A merged tree, read-only, and what is known of it.
    Tree(FileTree, TreeFacts),
    /// A tree with a writable layer.
    Union(Arc<Union>),
}

/// Mounts. `open` opens the image; only the process that serves it calls that.
///
/// # Errors
/// In words for whoever typed the command, also where it was the daemon that failed.
pub(crate) fn mount(request: &MountRequest, open: impl FnOnce() -> Result<Opened>) -> Result<()> {
    match &request.role {
        Role::Starter => start(request),
        Role::Foreground => {
            let registry = Registry::open(&request.root)?;
            registry.clean()?;
            let (name, _, _log) = registry.create_log()?;
            begin(request, &name, open)?.run()
        }
        Role::Daemon(name) => run_daemon(request, name, open),
    }
}

/// Starts the daemon and waits until it is ready or has failed.
fn start(request: &MountRequest) -> Result<()> {
    let registry = Registry::open(&request.root)?;
    registry.clean()?;
    let directory = point::prepare(&request.directory, &request.root)?;
    let hides = point::holds_names(&directory);
    let (name, log_path, log) = registry.create_log()?;
    let mut daemon = Command::new("/proc/self/exe")
        .arg0("strata")
        .args(request.daemon_args(&name, &directory))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context("cannot start the mount daemon")?;
    let mut answer = String::new();
    if let Some(mut pipe) = daemon.stdout.take() {
        pipe.read_to_string(&mut answer).context("cannot hear the mount daemon")?;
    }
    if answer == READY {
        if hides {
            note_hidden(&request.directory);
        }
        return Ok(());
    }
    let status = daemon.wait().context("cannot wait for the mount daemon")?;
    let last_words = fs::read_to_string(&log_path).unwrap_or_default();
    let _ = fs::remove_file(&log_path);
    match answer.trim_end() {
        "" => bail!("the mount daemon ended early ({status}): {}", last_words.trim_end()),
        message => Err(anyhow!("{message}")),
    }
}

/// Most who mount over something did not mean to.
fn note_hidden(directory: &Path) {
    let shown = point::shown(directory);
    let note = format!("note: {shown} was not empty; what is in it is hidden until unmounted\n");
    // The mount is there whether or not anybody reads this.
    let _ = io::stderr().write_all(note.as_bytes());
}

/// The daemon's life from its first step to its last.
fn run_daemon(
    request: &MountRequest,
    name: &str,
    open: impl FnOnce() -> Result<Opened>,
) -> Result<()> {
    leave_surroundings()?;
    let running = match begin(request, name, open) {
        Ok(running) => running,
        Err(error) => {
            let _ = say(&format!("{}\n", told(&error)));
            return Err(error);
        }
    };
    if let Err(error) = say(READY).and_then(|()| close_stdout()) {
        running.stop();
        return Err(error).context("whoever wanted the mount is gone");
    }
    running.run()
}

/// Leaves everything that belongs to whoever started the daemon.
fn leave_surroundings() -> Result<()> {
    // A shell's locks and pipes would live on here.
    InheritedFds::note().context("cannot list inherited descriptors")?.close();
    // Fails only for the leader of a process group, which a new child never is.
    let _ = rustix::process::setsid();
    std::env::set_current_dir("/").context("cannot change to /")?;
    rustix::process::umask(Mode::from_raw_mode(0o077));
    Ok(())
}

fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Ends the pipe, so that the command stops reading.
fn close_stdout() -> io::Result<()> {
    let null = File::options().write(true).open("/dev/null")?;
    Ok(rustix::stdio::dup2_stdout(&null)?)
}

/// A mount that is served and registered.
struct Running {
    session: Session,
    union: Option<Arc<Union>>,
    registration: Registration,
    signals: Signals,
    guard: Box<dyn Any + Send>,
}

/// Opens, mounts and registers.
fn begin(
    request: &MountRequest,
    name: &str,
    open: impl FnOnce() -> Result<Opened>,
) -> Result<Running> {
    // Caught from now on, and heeded once there is something to unmount.
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("cannot catch signals")?;
    let opened = open()?;
    let registry = Registry::open(&request.root)?;
    // Two mounts at one place: the second one waits here, and then sees the first.
    let alone = registry.exclusively()?;
    let directory = point::prepare(&request.directory, &request.root)?;
    let options = MountOptions {
        profile: request.profile,
        suid: request.suid,
        dev: request.dev,
        exec: request.exec,
        fsname: format!("strata:{}", request.image),
        threads: request.threads,
        busy_poll: request.busy_poll,
        ..MountOptions::for_caller()
    };
    let (session, union) = match opened.served {
        Served::Tree(tree, facts) => {
            let options = MountOptions { facts, ..options };
            (strata_fuse::serve(tree, &directory, &options)?, None)
        }
        Served::Union(union) => {
            // A copy-up takes long: the others go on meanwhile.
            let mount =
                MountOptions { read_only: false, threads: request.threads.max(4), ..options };
            let options = WritableOptions { mount, ..WritableOptions::default() };
            let session = strata_fuse::serve_union(Arc::clone(&union), &directory, &options)?;
            (session, Some(union))
        }
    };
    let record = record(request, &opened.image, session.mountpoint());
    let registration = registry.register(name, &record)?;
    drop(alone);
    Ok(Running { session, union, registration, signals, guard: opened.guard })
}

fn record(request: &MountRequest, image: &str, mountpoint: &Path) -> Record {
    let flags = [("suid", request.suid), ("dev", request.dev), ("noexec", !request.exec)];
    Record {
        mountpoint: mountpoint.to_owned(),
        image: image.to_owned(),
        reference: request.image.clone(),
        pid: std::process::id(),
        started: now(),
        profile: request.profile_name().to_owned(),
        options: flags.iter().filter(|(_, on)| *on).map(|(flag, _)| (*flag).to_owned()).collect(),
        upper: request.upper.clone(),
        device: point::device_mounted_at(mountpoint),
    }
}

enum Event {
    Signal(i32),
    Over(strata_fuse::Result<()>),
}

impl Running {
    /// Takes the mount away at once.
    fn stop(self) {
        drop(self.session);
        self.registration.leave();
    }

    /// Serves until the mount is gone or a signal says to end.
    fn run(self) -> Result<()> {
        let Self { session, union, registration, mut signals, guard } = self;
        let unmounter = session.unmounter();
        let (sender, events) = mpsc::channel();
        let signal_sender = sender.clone();
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                if signal_sender.send(Event::Signal(signal)).is_err() {
                    break;
                }
            }
        })?;
        std::thread::Builder::new().name("session".to_owned()).spawn(move || {
            // Nobody listens any more only if the process is about to end.
            let _ = sender.send(Event::Over(session.wait()));
        })?;
        let result = loop {
            match events.recv() {
                Ok(Event::Over(result)) => break result,
                Ok(Event::Signal(signal)) if ends_now(&unmounter, union.as_deref(), signal) => {
                    break Ok(());
                }
                Ok(Event::Signal(_)) => {}
                Err(mpsc::RecvError) => break Ok(()),
            }
        };
        // What is held is given back at once: whoever comes next waits for the union's end.
        let ended = union.map_or(Ok(()), |union| union.finish());
        drop(guard);
        registration.leave();
        result?;
        Ok(ended?)
    }
}

/// Unmounts after a signal. `true` if the process is to end without waiting: files are open, and
/// with the process their connection ends.
fn ends_now(unmounter: &Unmounter, union: Option<&Union>, signal: i32) -> bool {
    let point = unmounter.mountpoint().display();
    tracing::info!("signal {signal}: unmounting {point}");
    // Whoever unmounts this way waits for what was written.
    if let Some(Err(error)) = union.map(Union::sync) {
        tracing::error!("{error}");
    }
    match unmounter.unmount(Manner::Clean) {
        Ok(()) => false,
        // Detached before, and still serving open files.
        Err(Error::NotMounted(_)) => true,
        Err(error) => {
            tracing::warn!("{error}; detaching it");
            if let Err(error) = unmounter.unmount(Manner::Lazy) {
                tracing::error!("{error}");
            }
            true
        }
    }
}
