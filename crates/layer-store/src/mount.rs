//! [`LayerStore`]: the mount, and how it suits who reads it.
//!
//! ```text
//! root                             trusted.overlay.*   owners as they are
//! root of a user namespace         user.overlay.*      owners as they are: it is mounted there
//! another user                     user.overlay.*      owners as that user's namespace maps them
//! ```
//!
//! Invariants: nobody but who mounts may enter, as nobody else may enter podman's own storage;
//! modes and access lists are checked as in any lower directory.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use strata_confine::Confinement;
use strata_content::{FileTree, Files, LayerDir};
use strata_fuse::{Ids, Manner, MountOptions, Profile, Session};
use strata_layer::Store;
use strata_registry::{Reference, Registries};
use strata_tree::dialect::XattrClass;
use strata_trust::{BoxError, TrustPolicy};
use stratafs::{Engine, PullOptions, Quiet};

use crate::error::{Error, Result};
use crate::served::{Fetch, ServedLayers};
use crate::tree::ServedBytes;

/// Reads whom images are fetched from, and which policy lets them in. Asked for each image: both
/// may be changed while a layer store is served.
pub type FetchTerms =
    dyn Fn() -> std::result::Result<(Registries, TrustPolicy), BoxError> + Send + Sync;

/// How a layer store is to be served.
pub struct LayerStoreSettings {
    /// The directory to mount on.
    pub directory: PathBuf,
    /// Who sets the marks of overlayfs there.
    pub class: XattrClass,
    /// The owners that files are shown to have.
    pub ids: Ids,
    /// What the store has not is fetched on these terms. Where they cannot be read, it is not.
    pub pull: Option<Box<FetchTerms>>,
    /// How many threads answer; at least 1.
    pub threads: usize,
}

/// A layer store that is served. When this is dropped, the mount is detached.
pub struct LayerStore {
    served: Arc<ServedLayers>,
    session: Session,
}

impl LayerStore {
    /// Mounts and serves the store of `engine`, which is made if there is none.
    ///
    /// # Errors
    /// `Store`; `Engine` for a directory that will not do; `Mount`.
    pub fn start(engine: &Engine, settings: LayerStoreSettings) -> Result<Self> {
        let store = engine.made_store()?;
        let directory = engine.mountpoint(&settings.directory)?;
        let layers = store.root().join("layers");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let layers = rustix::fs::open(&layers, flags, Mode::empty())
            .map_err(|errno| Error::Io { what: "cannot open layers/", source: errno.into() })?;
        let confinement = match settings.pull {
            Some(_) => Confinement::writer().fetching(),
            None => Confinement::writer(),
        };
        let fetch = settings.pull.map(fetch_from);
        let served = Arc::new(ServedLayers::new(store, settings.class, fetch));
        let files = Files::new(vec![LayerDir::new(layers, "the store")]);
        let bytes = ServedBytes { served: Arc::clone(&served), files };
        let tree = FileTree::new(Arc::clone(&served) as _, Arc::new(bytes));
        let options = MountOptions {
            // Where the kernel does not let us, it is read through this process.
            profile: match settings.class {
                XattrClass::Trusted => Profile::Passthrough,
                XattrClass::User => Profile::NoOpen,
            },
            default_permissions: true,
            acl: true,
            fsname: "strata:layers".to_owned(),
            ids: settings.ids,
            threads: settings.threads,
            confinement: Some(confinement),
            ..MountOptions::default()
        };
        let top = Arc::clone(&served) as _;
        let session = strata_fuse::serve_growing(tree, top, &directory, &options)?;
        Ok(Self { served, session })
    }

    /// Gives up what was not asked for lately; to be called now and then.
    ///
    /// # Errors
    /// `Store`.
    pub fn rest(&self) -> Result<()> {
        self.served.rest()
    }

    /// How often [`LayerStore::rest`] is worth calling.
    pub const REST_EVERY: Duration = Duration::from_secs(20);

    /// Whether the mount is gone, whoever ended it.
    pub fn is_over(&self) -> bool {
        self.session.is_over()
    }

    /// Unmounts; a mount that is in use is detached, and lives on until this process ends.
    ///
    /// # Errors
    /// `Mount`.
    pub fn stop(&self) -> Result<()> {
        let unmounter = self.session.unmounter();
        match unmounter.unmount(Manner::Clean) {
            Err(strata_fuse::Error::NotMounted(_)) | Ok(()) => Ok(()),
            Err(_) => Ok(unmounter.unmount(Manner::Lazy)?),
        }
    }
}

/// Fetches as `strata pull` does, on the terms of that moment.
pub(crate) fn fetch_from(terms: Box<FetchTerms>) -> Box<Fetch> {
    Box::new(move |store: &Store, reference: &Reference| {
        let (registries, trust) = match terms() {
            Ok(terms) => terms,
            Err(error) => {
                tracing::warn!("{reference} is not fetched: {error}");
                return false;
            }
        };
        let options = PullOptions { trust: Some(&trust), ..PullOptions::default() };
        match stratafs::pull(store, &registries, reference, options, &Quiet) {
            Ok(pulled) => {
                tracing::info!("{reference}: fetched, image {}", pulled.id.short());
                true
            }
            Err(error) => {
                tracing::warn!("{reference} cannot be fetched: {error}");
                false
            }
        }
    })
}
