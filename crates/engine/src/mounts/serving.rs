//! One mount that this process serves, with its record.
//!
//! Invariants: the mount is usable and recorded when [`ServedMount`] exists; what it shows cannot
//! be removed from the store as long as it does; when it is gone, so are the mount and the record.

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use strata_confine::Confinement;
use strata_fuse::{Manner, MountOptions, Profile, Session, Unmounter, WritableOptions};
use strata_union::writable::Union;

use super::records::{MountRecord, MountRecords, MountRegistration, USERNS, now};
use super::{point, userns};
use crate::error::Result;
use crate::image::OpenImage;
use crate::trees::confined_to_layers;
use crate::uppers::{NamedUpper, UpperLease};

/// How an image is to be mounted.
#[derive(Debug, Clone)]
pub struct MountSettings {
    /// The directory to mount on. It must be outside of the store, and the store outside of it.
    pub directory: PathBuf,
    /// The image as the user named it, for listings.
    pub reference: String,
    /// The name of the record; without it a new one.
    pub name: Option<String>,
    /// The kernel is to compare each content with its fs-verity digest; for
    /// [`Engine::mount_in_kernel`](crate::Engine::mount_in_kernel) alone.
    pub verity: bool,
    /// The options of the mount, and how files are read.
    pub options: MountOptions,
}

impl MountSettings {
    /// A mount on `directory` with the options that suit the caller.
    pub fn on(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            reference: String::new(),
            name: None,
            verity: false,
            options: MountOptions::for_caller(),
        }
    }

    /// The image as people know it.
    pub(crate) fn shown(&self) -> &str {
        if self.reference.is_empty() { "this image" } else { &self.reference }
    }

    pub(crate) fn record(
        &self,
        image: &OpenImage,
        upper: Option<&str>,
        mountpoint: &Path,
    ) -> MountRecord {
        let options = &self.options;
        let flags = [
            ("suid", options.suid),
            ("dev", options.dev),
            ("noexec", !options.exec),
            ("verify", image.verifies),
            ("verity", self.verity),
        ];
        let profile = match options.profile {
            Profile::NoOpen => "no-open",
            Profile::Passthrough => "passthrough",
        };
        MountRecord {
            mountpoint: mountpoint.to_owned(),
            image: image.record.id.to_string(),
            reference: match self.reference.is_empty() {
                true => image.record.id.to_string(),
                false => self.reference.clone(),
            },
            pid: std::process::id(),
            started: now(),
            profile: profile.to_owned(),
            options: flags.iter().filter(|(_, on)| *on).map(|(flag, _)| (*flag).into()).collect(),
            upper: upper.map(str::to_owned),
            device: point::device_mounted_at(mountpoint),
            backend: None,
        }
    }
}

/// A mount of this process. When this is dropped, the mount is detached at once.
pub struct ServedMount {
    session: Option<Session>,
    union: Option<Arc<Union>>,
    registration: Option<MountRegistration>,
    /// Keeps image and upper from being removed or used by others.
    leases: Option<(OpenImage, Option<UpperLease>)>,
    asks: mpsc::Sender<MountEvent>,
    events: mpsc::Receiver<MountEvent>,
}

enum MountEvent {
    Asked,
    Over(strata_fuse::Result<()>),
}

/// Asks a mount to end, from another thread.
#[derive(Debug, Clone)]
pub struct Ender(mpsc::Sender<MountEvent>);

impl std::fmt::Debug for MountEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Asked => "Asked",
            Self::Over(_) => "Over",
        })
    }
}

impl Ender {
    /// Asks; `false` if the mount is gone already.
    pub fn end(&self) -> bool {
        self.0.send(MountEvent::Asked).is_ok()
    }
}

/// What a mount with a writable layer is made of.
pub(crate) struct WritableTop {
    pub(crate) upper: NamedUpper,
    pub(crate) lease: UpperLease,
    pub(crate) union: Union,
}

/// Who reads the contents of a mount, and what it is made of.
pub(crate) enum ServedFrom {
    /// This process, from the image alone.
    Image,
    /// The kernel: this process has the names (`userns`).
    Names,
    /// This process, with a writable layer on top.
    Writable(Box<WritableTop>),
}

impl ServedMount {
    /// Mounts and records it.
    pub(crate) fn start(
        root: &Path,
        records: &MountRecords,
        image: OpenImage,
        from: ServedFrom,
        settings: &MountSettings,
    ) -> Result<Self> {
        // Two mounts at one place: the second one waits here, and then sees the first.
        let alone = records.exclusively()?;
        let directory = point::prepare(&settings.directory, root)?;
        let log;
        let name = match &settings.name {
            Some(name) => name,
            None => {
                log = records.create_log()?;
                &log.0
            }
        };
        let options = &settings.options;
        let (mut upper, mut backend) = (None, None);
        let (session, union, lease) = match from {
            ServedFrom::Names => {
                backend = Some(USERNS.to_owned());
                (userns::serve(root, &image, &directory, options)?, None, None)
            }
            ServedFrom::Image => {
                let confinement = Some(confined_to_layers(root));
                let facts = (&*image.tree).into();
                let options = MountOptions { facts, confinement, ..options.clone() };
                (strata_fuse::serve(image.files.clone(), &directory, &options)?, None, None)
            }
            ServedFrom::Writable(writable) => {
                // A copy-up takes long: the others go on meanwhile.
                let threads = options.threads.max(4);
                let confinement = Some(Confinement::writer());
                let mount =
                    MountOptions { read_only: false, threads, confinement, ..options.clone() };
                let options = WritableOptions { mount, ..WritableOptions::default() };
                let union = Arc::new(writable.union);
                upper = Some(writable.upper.name);
                let session = strata_fuse::serve_union(Arc::clone(&union), &directory, &options)?;
                (session, Some(union), Some(writable.lease))
            }
        };
        let mut record = settings.record(&image, upper.as_deref(), session.mountpoint());
        record.backend = backend;
        let registration = records.register(name, &record)?;
        drop(alone);
        let (asks, events) = mpsc::channel();
        Ok(Self {
            session: Some(session),
            union,
            registration: Some(registration),
            leases: Some((image, lease)),
            asks,
            events,
        })
    }

    /// Where it is mounted: absolute, without links.
    pub fn mountpoint(&self) -> &Path {
        self.session.as_ref().map_or(Path::new(""), Session::mountpoint)
    }

    /// Asks it to end, from another thread, while this one is in [`ServedMount::wait`].
    pub fn ender(&self) -> Ender {
        Ender(self.asks.clone())
    }

    /// Unmounts, and waits for what was written.
    ///
    /// # Errors
    /// `Mount` with `Busy` while files are open below it: it is detached then, which ends it as
    /// soon as they are closed; `Union` for what could not be written.
    pub fn unmount(self) -> Result<()> {
        if let Some(union) = &self.union {
            union.sync()?;
        }
        if let Some(session) = &self.session {
            session.unmount()?;
        }
        self.wait()
    }

    /// Serves until the mount is gone, whoever ends it, or until it is asked to end.
    ///
    /// # Errors
    /// `Mount` if it ended by a fault; `Union` for what could not be written; `Io`.
    pub fn wait(mut self) -> Result<()> {
        let Some(session) = self.session.take() else { return Ok(()) };
        let unmounter = session.unmounter();
        let sender = self.asks.clone();
        std::thread::Builder::new().name("session".to_owned()).spawn(move || {
            // Nobody listens any more only if the process is about to end.
            let _ = sender.send(MountEvent::Over(session.wait()));
        })?;
        let result = loop {
            match self.events.recv() {
                Ok(MountEvent::Over(result)) => break result,
                Ok(MountEvent::Asked) if ends_now(&unmounter, self.union.as_deref()) => {
                    break Ok(());
                }
                Ok(MountEvent::Asked) => {}
                Err(mpsc::RecvError) => break Ok(()),
            }
        };
        // The leases are given back at once: the next user waits for the union's end.
        let ended = self.union.take().map_or(Ok(()), |union| union.finish());
        drop(self.leases.take());
        if let Some(registration) = self.registration.take() {
            registration.leave();
        }
        result?;
        Ok(ended?)
    }
}

impl Drop for ServedMount {
    fn drop(&mut self) {
        drop(self.session.take());
        if let Some(registration) = self.registration.take() {
            registration.leave();
        }
    }
}

/// Unmounts because it was asked for. `true` if nobody has to be waited for: files are open, and
/// with the process their connection ends.
fn ends_now(unmounter: &Unmounter, union: Option<&Union>) -> bool {
    // What was written is waited for.
    if let Some(Err(error)) = union.map(Union::sync) {
        tracing::error!("{error}");
    }
    match unmounter.unmount(Manner::Clean) {
        Ok(()) => false,
        // Detached before, and still serving open files.
        Err(strata_fuse::Error::NotMounted(_)) => true,
        Err(error) => {
            tracing::warn!("{error}; detaching it");
            if let Err(error) = unmounter.unmount(Manner::Lazy) {
                tracing::error!("{error}");
            }
            true
        }
    }
}
