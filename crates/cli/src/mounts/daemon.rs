//! `strata mount`: the command, and the daemon that it starts.
//!
//! The command checks the mountpoint, makes a log, and runs this program once more with
//! `--daemon NAME`: no fork of a running program. The daemon leaves the session and the
//! directory it was started in, opens the image, mounts it, registers, and then says `ready` on
//! its standard output, which is a pipe to the command; or it says what failed. The command
//! returns with that. An upper that the command has made is locked: the daemon has the open file
//! with that lock as its standard input, so that nobody gets in between.
//!
//! Invariants: when the command has returned without error, the mount is usable and listed; if
//! the command is gone before that, or cannot hear the daemon, the daemon takes the mount away
//! again; the daemon holds no descriptor of its parent but that lock; SIGTERM, SIGINT and SIGHUP
//! end it, and its mount first.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::Mode;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use strata_fuse::{InheritedFds, MountOptions, Profile};
use stratafs::{Engine, HeldUpper, MountSettings, OpenImage, ServedMount, Store};

use crate::told::{tell, told};

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
    /// The store; the records of mounts are in it.
    pub(crate) engine: Engine,
    /// The image as the user named it.
    pub(crate) image: String,
    /// The image that this was when it was looked for: the daemon's, also where the name has moved.
    pub(crate) image_id: Option<String>,
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
    /// Compare contents with their digests.
    pub(crate) verify: bool,
    /// Have the kernel compare contents with their fs-verity digests.
    pub(crate) verity: bool,
    /// How many threads answer.
    pub(crate) threads: usize,
    /// Poll for the next request while one caller asks one after another.
    pub(crate) busy_poll: bool,
    /// Serve names alone, below an overlayfs that reads the contents by itself.
    pub(crate) names_only: bool,
    /// The name of the writable layer on top.
    pub(crate) upper: Option<String>,
    /// Which part this process plays.
    pub(crate) role: Role,
    /// The arguments before the subcommand that the daemon is started with.
    pub(crate) globals: Vec<OsString>,
}

/// What a mount shows: an image, and the writable layer on top.
pub(crate) type ToMount = (OpenImage, Option<HeldUpper>);

/// A mount that has come to be.
pub(crate) struct StandingMount {
    /// What this process serves of it, and the file that keeps the name of its record.
    served: Option<(ServedMount, File)>,
}

impl StandingMount {
    /// One that this process does not serve, or has served.
    pub(crate) const ELSEWHERE: Self = Self { served: None };

    /// Serves it to its end, if that is for this process to do.
    ///
    /// # Errors
    /// As [`ServedMount::wait`]: it was there all the same, and its upper may have been written.
    pub(crate) fn wait(self) -> Result<()> {
        let Some((mount, _log)) = self.served else { return Ok(()) };
        Ok(mount.wait()?)
    }
}

/// Mounts. `open` opens the image; only the process that serves it calls that, a daemon with its
/// standard input, which is `lock` of the process that starts it.
///
/// # Errors
/// In words for the person who typed the command, also where the daemon failed: but for a daemon
/// itself, the mount has not come to be.
pub(crate) fn mount(
    request: &MountRequest,
    lock: Option<BorrowedFd<'_>>,
    open: impl FnOnce(Option<OwnedFd>) -> Result<ToMount>,
) -> Result<StandingMount> {
    match &request.role {
        Role::Starter => start(request, lock).map(|()| StandingMount::ELSEWHERE),
        Role::Foreground => {
            let records = request.engine.made_mount_records()?;
            records.clean()?;
            let (name, _, log) = records.create_log()?;
            let mount = begin(request, &name, || open(None))?;
            Ok(StandingMount { served: Some((mount, log)) })
        }
        Role::Daemon(name) => run_daemon(request, name, open).map(|()| StandingMount::ELSEWHERE),
    }
}

impl MountRequest {
    /// How the engine is to mount it; `name` is the name of its record.
    fn settings(&self, name: Option<String>) -> MountSettings {
        MountSettings {
            directory: self.directory.clone(),
            reference: self.image.clone(),
            name,
            verity: self.verity,
            options: MountOptions {
                profile: self.profile,
                suid: self.suid,
                dev: self.dev,
                exec: self.exec,
                fsname: format!("strata:{}", self.image),
                // Reading a large content whole takes long: the others go on meanwhile.
                threads: if self.verify { self.threads.max(4) } else { self.threads },
                busy_poll: self.busy_poll,
                ..MountOptions::for_caller()
            },
        }
    }
}

/// Has the kernel mount it, so that nothing runs on. The store is open.
///
/// # Errors
/// As [`Engine::mount_in_kernel_from`].
pub(crate) fn mount_in_kernel(
    request: &MountRequest,
    store: &Store,
    image: &OpenImage,
    upper: Option<HeldUpper>,
) -> stratafs::Result<()> {
    request.engine.made_mount_records()?.clean()?;
    let hides = stratafs::holds_names(&request.directory);
    let settings = request.settings(None);
    let mount = request.engine.mount_in_kernel_from(store, image, upper, &settings)?;
    super::ahead::start(mount.names);
    if hides {
        note_hidden(&request.directory);
    }
    Ok(())
}

/// Names what was to be mounted, where the error does not, and the way out of a mount that the
/// kernel cannot make.
pub(crate) fn explained(request: &MountRequest, error: stratafs::Error) -> anyhow::Error {
    use strata_fuse::Error as Fuse;
    let at = format!("cannot mount {} on {}", request.image, stratafs::shown(&request.directory));
    match error {
        stratafs::Error::KernelCannot(_) => {
            let instead = if request.verity { "--verify" } else { "--backend fuse" };
            anyhow::Error::from(error).context(format!("{at}; try {instead}"))
        }
        stratafs::Error::Store(strata_layer::Error::NoFsVerity(_)) => {
            anyhow::Error::from(error).context(at)
        }
        stratafs::Error::Mount(
            Fuse::Kernel { .. }
            | Fuse::Device(_)
            | Fuse::NoHelper(_)
            | Fuse::Helper(_)
            | Fuse::Session(_),
        ) => anyhow::Error::from(error).context(at),
        other => other.into(),
    }
}

/// Starts the daemon and waits until it is ready or has failed.
fn start(request: &MountRequest, lock: Option<BorrowedFd<'_>>) -> Result<()> {
    let records = request.engine.made_mount_records()?;
    records.clean()?;
    let directory = request.engine.mountpoint(&request.directory)?;
    let hides = stratafs::holds_names(&directory);
    let lock = lock.map(|lock| lock.try_clone_to_owned()).transpose();
    let lock = lock.context("cannot give the mount daemon its upper")?;
    let (name, log_path, log) = records.create_log()?;
    let mut daemon = Command::new("/proc/self/exe")
        .arg0("strata")
        .args(request.daemon_args(&name, &directory))
        .stdin(lock.map_or(Stdio::null(), Stdio::from))
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context("cannot start the mount daemon")?;
    let answer = match strata_fuse::hear(&mut daemon) {
        Ok(answer) => answer,
        Err(error) => {
            let _ = fs::remove_file(&log_path);
            return Err(error).context("cannot hear the mount daemon");
        }
    };
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

/// Most users who mount over something did not mean to.
fn note_hidden(directory: &Path) {
    let shown = stratafs::shown(directory);
    let hidden = "what is in it is hidden until unmounted";
    tell(format_args!("note: {shown} was not empty; {hidden}"));
}

/// The daemon's life from its first step to its last.
fn run_daemon(
    request: &MountRequest,
    name: &str,
    open: impl FnOnce(Option<OwnedFd>) -> Result<ToMount>,
) -> Result<()> {
    leave_surroundings()?;
    // Had before the caller is told that all is well: nothing may fail after that.
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.context("cannot open /dev/null")?;
    let lock = take_stdin(&null).context("cannot take over what the command has locked")?;
    let running = match begin(request, name, || open(Some(lock))) {
        Ok(running) => running,
        Err(error) => {
            let _ = say(&format!("{}\n", told(&error)));
            return Err(error);
        }
    };
    if let Err(error) = say(READY).and_then(|()| close_stdout(&null)) {
        drop(running);
        return Err(error).context("the process that wanted the mount is gone");
    }
    Ok(running.wait()?)
}

/// Releases everything that belongs to the process that started the daemon.
fn leave_surroundings() -> Result<()> {
    // A shell's locks and pipes would live on here.
    InheritedFds::note().context("cannot list inherited descriptors")?.close();
    // Fails only for the leader of a process group, which a new child never is.
    let _ = rustix::process::setsid();
    std::env::set_current_dir("/").context("cannot change to /")?;
    rustix::process::umask(Mode::from_raw_mode(0o077));
    Ok(())
}

/// The standard input as a descriptor of its own, and `null` in its place: what the programs that
/// this one runs get has no lock.
fn take_stdin(null: &File) -> io::Result<OwnedFd> {
    let own = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    rustix::stdio::dup2_stdin(null)?;
    Ok(own)
}

fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Ends the pipe, so that the command stops reading.
fn close_stdout(null: &File) -> io::Result<()> {
    Ok(rustix::stdio::dup2_stdout(null)?)
}

/// Opens, mounts and records; from then on a signal ends the mount.
fn begin(
    request: &MountRequest,
    name: &str,
    open: impl FnOnce() -> Result<ToMount>,
) -> Result<ServedMount> {
    strata_fuse::outlast_file_size_limit().context("cannot catch signals")?;
    // Caught from now on, and obeyed once there is something to unmount.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("cannot catch signals")?;
    let (image, upper) = open()?;
    let settings = request.settings(Some(name.to_owned()));
    let mount = match upper {
        None if request.names_only => request.engine.mount_names(image, &settings),
        None => request.engine.mount(image, &settings),
        Some(upper) => request.engine.mount_writable(image, upper, &settings),
    }
    .map_err(|error| explained(request, error))?;
    let (ender, point) = (mount.ender(), mount.mountpoint().to_owned());
    let attend = move || {
        for signal in signals.forever() {
            tracing::info!("signal {signal}: unmounting {}", point.display());
            if !ender.end() {
                break;
            }
        }
    };
    let thread = std::thread::Builder::new().name("signals".to_owned());
    thread.spawn(attend).context("cannot start a thread for signals")?;
    Ok(mount)
}
