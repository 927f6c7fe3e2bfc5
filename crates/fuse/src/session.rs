//! The life of one mount in this process.
//!
//! [`serve`] and [`serve_union`] shake hands with the kernel, start the threads, and only then
//! make the mount visible, so that it can be used as soon as it can be seen.
//!
//! Invariants: when [`Session::wait`] returns, the kernel has let go of the connection and no
//! thread of it is left; a session that is dropped takes its mount along.

use std::error::Error as StdError;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use fuser::{BackgroundSession, Config, Filesystem, SessionACL};
use strata_confine::Confinement;
use strata_content::FileTree;
use strata_tree::NodeId;
use strata_union::writable::Union;

use crate::adapter::Adapter;
use crate::connection::MountConnection;
use crate::error::{Error, Result};
use crate::live_top::LiveTop;
use crate::mounting::Mountpoint;
use crate::options::{MountOptions, Profile, WritableOptions};
use crate::readonly::ReadOnly;
use crate::unmounting::{Manner, Unmounter, device_at};
use crate::writable::Writable;

/// How much the kernel reads ahead of a sequential reader, in KiB. Its own default is 128.
const READAHEAD_KIB: u32 = 1024;

/// Puts something over a detached mount: takes the mount, and gives the one to be shown.
pub type MountCover<'a> =
    &'a mut dyn FnMut(OwnedFd) -> std::result::Result<OwnedFd, Box<dyn StdError + Send + Sync>>;

/// A mount that is being served.
#[derive(Debug)]
pub struct Session {
    background: Option<BackgroundSession>,
    unmounter: Unmounter,
}

/// Mounts `tree` at `mountpoint` and serves it. The mount is usable when this returns.
///
/// # Errors
/// Every [`Error`] but those of unmounting; nothing stays mounted then.
pub fn serve(tree: FileTree, mountpoint: &Path, options: &MountOptions) -> Result<Session> {
    serve_tree(tree, None, (mountpoint, None), options)
}

/// The same, but what is shown at `mountpoint` is what `cover` puts over the mount, such as an
/// overlayfs with it as a lower. The session ends when nothing uses the mount any more.
///
/// # Errors
/// As [`serve`]; `NeedsRoot` where the caller may not mount by itself; `Cover` with what `cover`
/// says.
pub fn serve_below(
    tree: FileTree,
    mountpoint: &Path,
    options: &MountOptions,
    cover: MountCover<'_>,
) -> Result<Session> {
    serve_tree(tree, None, (mountpoint, Some(cover)), options)
}

/// The same for a tree with a top that grows and listens. Nothing of it can be written, and it is
/// not mounted read-only, for then the kernel would refuse what the top is to hear.
///
/// # Errors
/// As [`serve`].
pub fn serve_growing(
    tree: FileTree,
    top: Arc<dyn LiveTop>,
    mountpoint: &Path,
    options: &MountOptions,
) -> Result<Session> {
    serve_tree(tree, Some(top), (mountpoint, None), options)
}

fn serve_tree(
    tree: FileTree,
    top: Option<Arc<dyn LiveTop>>,
    place: (&Path, Option<MountCover<'_>>),
    options: &MountOptions,
) -> Result<Session> {
    if tree.root() != NodeId::ROOT {
        return Err(Error::RootNumber(tree.root().0));
    }
    let connection = MountConnection::new(options.threads);
    let mut options = MountOptions { read_only: top.is_none(), ..options.clone() };
    if options.profile == Profile::Passthrough {
        options.confinement = options.confinement.map(Confinement::handing_over);
    }
    let tree = ReadOnly::new(tree, options.facts, options.ids.clone());
    let adapter = Adapter::new(tree, top, &options, connection.clone());
    start(adapter, &connection, place, &options, drop)
}

/// Mounts a writable union at `mountpoint` and serves it. The mount is usable when this returns.
///
/// The union is shared: the kernel may not notice what its owner does to it while it is mounted.
///
/// # Errors
/// Every [`Error`] but those of unmounting; nothing stays mounted then.
pub fn serve_union(
    union: Arc<Union>,
    mountpoint: &Path,
    options: &WritableOptions,
) -> Result<Session> {
    let connection = MountConnection::new(options.mount.threads);
    let adapter = Writable::new(union, options, connection.clone());
    let notifier = adapter.notifier();
    // There is one session, and so one notifier.
    let tell = |told| drop(notifier.set(told));
    start(adapter, &connection, (mountpoint, None), &options.mount, tell)
}

/// Mounts what `adapter` answers for on the connection `mount`, below a cover if there is one;
/// `tell` gets the notifier, by which the kernel is told of changes.
fn start(
    adapter: impl Filesystem,
    mount: &MountConnection,
    (mountpoint, cover): (&Path, Option<MountCover<'_>>),
    options: &MountOptions,
    tell: impl FnOnce(fuser::Notifier) + Send,
) -> Result<Session> {
    let point = Mountpoint::open(mountpoint)?;
    let connection = match &cover {
        None => point.connect(options)?,
        Some(_) => point.connect_alone(options)?,
    };
    if options.busy_poll {
        mount.polling().watch(connection.device.try_clone().map_err(Error::Session)?);
    }
    let acl = match (options.allow_other, options.allow_root) {
        (true, _) => SessionACL::All,
        (false, true) => SessionACL::RootAndOwner,
        (false, false) => SessionACL::Owner,
    };
    let mut config = Config::default();
    config.n_threads = Some(options.threads.max(1));
    let device = connection.device;
    let started = confined(options.confinement.as_ref(), move || {
        let session = fuser::Session::from_fd(adapter, device, acl, config)?;
        tell(session.notifier());
        session.spawn()
    });
    let background = match started {
        Ok(background) => background,
        Err(error) => {
            if connection.detached.is_none() {
                let _ = crate::unmounting::unmount(&point.path, Manner::Lazy);
            }
            return Err(Error::Session(error));
        }
    };
    let device = match connection.detached {
        // Asks our own threads for the root: the first request that they answer.
        Some(mount) => {
            let shown = match cover {
                Some(cover) => cover(mount).map_err(Error::Cover)?,
                None => mount,
            };
            let stat = rustix::fs::fstat(&shown).map_err(|errno| Error::Session(errno.into()))?;
            point.attach(&shown)?;
            stat.st_dev
        }
        None => device_at(&point.path).map_err(Error::Session)?,
    };
    set_readahead(device);
    let unmounter = Unmounter { path: point.path, device, over: mount.over() };
    Ok(Session { background: Some(background), unmounter })
}

/// Does `work` in a thread that has entered the confinement, as those then have that it starts.
fn confined<T: Send>(
    confinement: Option<&Confinement>,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let Some(confinement) = confinement else { return work() };
    std::thread::scope(|scope| {
        let inside = || {
            confinement.enter();
            work()
        };
        let thread = std::thread::Builder::new().name("confined".to_owned());
        let ended = thread.spawn_scoped(scope, inside)?.join();
        ended.unwrap_or_else(|_| Err(io::Error::other("the thread that starts others panicked")))
    })
}

/// Only root may; for the others the kernel's default stays.
fn set_readahead(device: u64) {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let file = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    if let Err(error) = std::fs::write(&file, READAHEAD_KIB.to_string()) {
        tracing::debug!("{file}: {error}; the default read-ahead stays");
    }
}

impl Session {
    /// The mountpoint: absolute, without links.
    pub fn mountpoint(&self) -> &Path {
        self.unmounter.mountpoint()
    }

    /// Something that can unmount from another thread, while this one waits.
    pub fn unmounter(&self) -> Unmounter {
        self.unmounter.clone()
    }

    /// Unmounts; [`Session::wait`] then returns soon.
    ///
    /// # Errors
    /// [`Error::Busy`] with files open below; see [`Unmounter::unmount`].
    pub fn unmount(&self) -> Result<()> {
        self.unmounter.unmount(Manner::Clean)
    }

    /// Takes the mount out of the name space at once; files that are open go on to be served.
    ///
    /// # Errors
    /// See [`Unmounter::unmount`].
    pub fn detach(&self) -> Result<()> {
        self.unmounter.unmount(Manner::Lazy)
    }

    /// Whether the connection to the kernel has ended.
    pub fn is_over(&self) -> bool {
        self.background.as_ref().is_none_or(|running| running.guard.is_finished())
    }

    /// Waits until the mount has ended, whoever ends it.
    ///
    /// # Errors
    /// [`Error::Session`] if it ended by a fault.
    pub fn wait(mut self) -> Result<()> {
        match self.background.take() {
            Some(running) => running.join().map_err(Error::Session),
            None => Ok(()),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.is_over()
            && let Err(error) = self.detach()
            && !matches!(error, Error::NotMounted(_))
        {
            tracing::warn!("{error}");
        }
    }
}
