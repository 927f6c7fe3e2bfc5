//! [`Engine`]: a store, given by its directory, and the operations on it as a whole.
//!
//! Invariants: an engine is a directory and how it is used, and holds nothing open: each call opens
//! the store for itself, so several processes can work on one; only what adds to a store makes one.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use strata_fuse::in_first_user_namespace;
use strata_image::{
    CopiedImage, CopyOptions, ImportOptions, Listeners, LoadOptions, Loaded, Location, PullOptions,
    Pulled, SourceSpec, Target,
};
use strata_layer::{DiskUsage, Limits, Progress, Removal, Store, StoreOptions};
use strata_registry::{Reference, Registries};

use crate::error::{Error, ErrorContext, Result, bail};
use crate::image::OpenImage;
use crate::mounts::kernel::{self, KernelMount, KernelTop};
use crate::mounts::{
    MountInfo, MountRecords, MountSettings, MountStatus, ServedFrom, ServedMount, UnmountHow,
    Unmounted, list, point, umount,
};
use crate::trees::checked;
use crate::uppers::{HeldUpper, NamedUpper, Uppers};

/// A store, given by its directory. See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    root: PathBuf,
    cache: Option<PathBuf>,
    limits: Limits,
    verity: bool,
}

impl Engine {
    /// The store at `root`, which need not be there yet. Nothing is opened.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), cache: None, limits: Limits::default(), verity: false }
    }

    /// The directory for compiled trees and records of mounts that cannot be written to the store.
    /// Without one they are kept in memory, or fail.
    #[must_use]
    pub fn with_cache(self, directory: impl Into<PathBuf>) -> Self {
        Self { cache: Some(directory.into()), ..self }
    }

    /// What layers may make us read.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Finds out the fs-verity digests of what comes in, and seals its files where that can be.
    #[must_use]
    pub fn with_verity(self, verity: bool) -> Self {
        Self { verity, ..self }
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// How the store is opened, for a caller that opens it itself.
    pub fn store_options(&self) -> StoreOptions {
        let Self { limits, verity, cache: elsewhere, .. } = self.clone();
        StoreOptions { limits, verity, memory: None, on_step: None, elsewhere }
    }

    /// Opens the store that is there; read-only if it cannot be written.
    ///
    /// # Errors
    /// `Store`: `NoStore` where there is none, or the reason why it cannot be read.
    pub fn store(&self) -> Result<Store> {
        Ok(Store::open_existing(&self.root, self.store_options())?)
    }

    /// Opens the store, making it if there is none.
    ///
    /// # Errors
    /// `Store`: it cannot be made or read.
    pub fn made_store(&self) -> Result<Store> {
        let store = Store::open_with(&self.root, self.store_options())?;
        store.set_aside();
        Ok(store)
    }

    /// Opens an image by name, id, or the beginning of its id.
    ///
    /// # Errors
    /// `Image` with `NoImage` or `Ambiguous`; `Store`; `Doing` if its layers do not merge.
    pub fn image(&self, text: &str) -> Result<OpenImage> {
        OpenImage::open(&self.store()?, text)
    }

    /// Loads the images of an archive or a layout directory, making the store if there is none.
    ///
    /// # Errors
    /// As [`strata_image::load`]; nothing stays of an image that fails.
    pub fn load(&self, archive: impl AsRef<Path>, progress: &dyn Progress) -> Result<Vec<Loaded>> {
        let spec = match archive.as_ref().to_str() {
            Some(text) => {
                let Ok(spec) = text.parse::<SourceSpec>();
                spec
            }
            None => SourceSpec::path(archive.as_ref()),
        };
        load(&self.made_store()?, &spec, LoadOptions::default(), progress)
    }

    /// Makes an image of one layer of a plain tar, compressed or not.
    ///
    /// # Errors
    /// As [`strata_image::import`].
    pub fn import(
        &self,
        tar: impl AsRef<Path>,
        name: Option<&Reference>,
        progress: &dyn Progress,
    ) -> Result<Loaded> {
        import(&self.made_store()?, tar.as_ref(), name, ImportOptions::default(), progress)
    }

    /// Brings the image of a name from a registry.
    ///
    /// # Errors
    /// As [`strata_image::pull`].
    pub fn pull(
        &self,
        registries: &Registries,
        name: &Reference,
        progress: &dyn Progress,
    ) -> Result<Pulled> {
        pull(&self.made_store()?, registries, name, PullOptions::default(), progress)
    }

    /// What the store takes, part by part, and what is shared.
    ///
    /// # Errors
    /// `Store`.
    pub fn usage(&self) -> Result<DiskUsage> {
        Ok(self.store()?.accounts().disk_usage()?)
    }

    /// What removing images, one after the other, would free; nothing is removed.
    ///
    /// # Errors
    /// As [`Engine::image`].
    pub fn would_free(&self, images: &[&str]) -> Result<Removal> {
        let store = self.store()?;
        let mut ids = Vec::new();
        for text in images {
            ids.push(strata_image::resolve_image(&store, text)?.id);
        }
        Ok(store.accounts().removal(&ids, &[])?)
    }

    /// Mounts an image read-only; this process serves it. The mount is usable on return.
    ///
    /// # Errors
    /// `Refused` for a directory that will not do; `Mount`.
    pub fn mount(&self, image: OpenImage, settings: &MountSettings) -> Result<ServedMount> {
        let records = MountRecords::open(&self.root, self.cache.as_deref())?;
        ServedMount::start(&self.root, &records, image, ServedFrom::Image, settings)
    }

    /// Mounts an image read-only for root of a user namespace: this process serves the names, and
    /// the kernel reads the contents by itself. For Linux 6.16 or later.
    ///
    /// # Errors
    /// `KernelCannot` where that is not possible, and [`Engine::mount`] may be; as there.
    pub fn mount_names(&self, image: OpenImage, settings: &MountSettings) -> Result<ServedMount> {
        let records = MountRecords::open(&self.root, self.cache.as_deref())?;
        ServedMount::start(&self.root, &records, image, ServedFrom::Names, settings)
    }

    /// Mounts an image with a writable layer on top, which must be one of this image.
    ///
    /// # Errors
    /// `Refused` if the upper is in use or another image's, or the directory will not do; `Union`;
    /// `Mount`.
    pub fn mount_writable(
        &self,
        image: OpenImage,
        upper: HeldUpper,
        settings: &MountSettings,
    ) -> Result<ServedMount> {
        let uppers = self.uppers();
        upper.upper.require(&image.record.id, settings.shown())?;
        let lease = uppers.lease(&upper)?;
        let upper = upper.upper;
        let union = uppers.open(&upper, image.files.clone())?;
        let writable = crate::mounts::WritableTop { upper, lease, union };
        let records = MountRecords::open(&self.root, self.cache.as_deref())?;
        ServedMount::start(
            &self.root,
            &records,
            image,
            ServedFrom::Writable(Box::new(writable)),
            settings,
        )
    }

    /// Has the kernel mount an image by itself, with a writable layer on top if one is given. No
    /// process serves the mount: it lives until it is unmounted. For root, and
    /// Linux 6.13 or later.
    ///
    /// # Errors
    /// `KernelCannot` where that is not possible, and [`Engine::mount`] may be; `Refused` if the
    /// upper is in use or another image's, or the directory will not do.
    pub fn mount_in_kernel(
        &self,
        image: &OpenImage,
        upper: Option<HeldUpper>,
        settings: &MountSettings,
    ) -> Result<KernelMount> {
        self.mount_in_kernel_from(&self.store()?, image, upper, settings)
    }

    /// The same for a caller that has the store open: `store` is this engine's.
    ///
    /// # Errors
    /// As [`Engine::mount_in_kernel`].
    pub fn mount_in_kernel_from(
        &self,
        store: &Store,
        image: &OpenImage,
        upper: Option<HeldUpper>,
        settings: &MountSettings,
    ) -> Result<KernelMount> {
        let uppers = self.uppers();
        let top = match upper {
            None => None,
            Some(upper) => {
                upper.upper.require(&image.record.id, settings.shown())?;
                let directory = uppers.dir_of(&upper.upper)?;
                // It outlives this process, and what fails here may be tried by a daemon.
                let lease = uppers.lease(&upper.clone().kept())?;
                Some(KernelTop { upper: upper.upper, directory, _lease: lease })
            }
        };
        let records = MountRecords::open(&self.root, None)?;
        kernel::mount(store, &records, image, top, settings)
    }

    /// The records of the mounts, for a program that starts daemons of its own.
    pub fn mount_records(&self) -> MountRecords {
        MountRecords::existing(&self.root, self.cache.as_deref())
    }

    /// The same, with their directory made.
    ///
    /// # Errors
    /// `Doing`: it cannot be made.
    pub fn made_mount_records(&self) -> Result<MountRecords> {
        MountRecords::open(&self.root, self.cache.as_deref())
    }

    /// All mounts that are recorded, the oldest first, also those whose daemon is dead.
    ///
    /// # Errors
    /// `Doing`: the records cannot be read.
    pub fn recorded_mounts(&self) -> Result<Vec<MountInfo>> {
        list::list(&self.mount_records())
    }

    /// The mounts that are served, the oldest first.
    ///
    /// # Errors
    /// `Doing`: the records cannot be read.
    pub fn mounts(&self) -> Result<Vec<MountInfo>> {
        let mut mounts = self.recorded_mounts()?;
        mounts.retain(|mount| mount.status != MountStatus::Dead);
        Ok(mounts)
    }

    /// Unmounts the image at `directory`, whichever process serves it and whatever store it is
    /// from, and waits for that process.
    ///
    /// # Errors
    /// `Refused` if no image is mounted there, if it is busy (naming some of the processes), or if
    /// it lives on in another mount namespace; `Mount` if the kernel or fusermount3 refuse.
    pub fn unmount(&self, directory: &Path, how: UnmountHow) -> Result<Unmounted> {
        // Which of several it is, `umount` decides.
        let upper = self.mount_at(directory).ok().flatten().and_then(|mount| mount.record.upper);
        let unmounted = umount::umount(&self.mount_records(), directory, how)?;
        if let (Unmounted::Ended, Some(name)) = (unmounted, upper) {
            // A daemon has removed its temporary upper; the kernel removes nothing.
            let uppers = self.uppers();
            if let Some(upper) = uppers.known(&name)?.filter(|upper| upper.temporary)
                && !uppers.is_mounted(&upper)?
            {
                uppers.remove(&upper)?;
            }
        }
        Ok(unmounted)
    }

    /// The resolved directory for a new mount; takes away a dead mount that is in its place.
    ///
    /// # Errors
    /// `Refused` or `Doing`: what is wrong with the directory.
    pub fn mountpoint(&self, directory: &Path) -> Result<PathBuf> {
        point::prepare(directory, &self.root)
    }

    /// The writable layers.
    pub fn uppers(&self) -> Uppers {
        Uppers::new(&self.root, self.mount_records())
    }

    /// A writable layer by its name, else by the directory that it is mounted on; also a damaged
    /// one, which can only be removed. What has a `/` or a `:` is no name: `./work` is a directory
    /// also where there is an upper `work`.
    ///
    /// # Errors
    /// `Doing`: it cannot be read; `Refused` for what cannot be a name, and as
    /// [`Engine::mount_at`].
    pub fn upper(&self, text: &str) -> Result<Option<NamedUpper>> {
        let uppers = self.uppers();
        let named = match text.contains(['/', ':']) {
            true => Ok(None),
            false => uppers.known(text),
        };
        // What cannot be a name is a directory all the same: `.` is one.
        if !matches!(named, Ok(None) | Err(Error::Refused(_))) {
            return named;
        }
        match self.mount_at(Path::new(text))?.and_then(|mount| mount.record.upper) {
            Some(name) => uppers.known(&name),
            None => named,
        }
    }

    /// The mount on a directory, which need not be resolved: the one that is there in this mount
    /// namespace, else the only one that lives and was made there.
    ///
    /// # Errors
    /// `Refused` where several live elsewhere; `Doing`: the records cannot be read.
    pub fn mount_at(&self, directory: &Path) -> Result<Option<MountInfo>> {
        let Ok(directory) = point::resolve(directory) else { return Ok(None) };
        list::at(&self.mount_records(), &directory)
    }

    /// The writable layer for a mount of `image`, which the user calls `reference`: the one called
    /// `wanted`, made if there is none, or a new one, which goes with its mount unless `keep`. Says
    /// whether it was made; then it is held until what this gives is dropped.
    ///
    /// # Errors
    /// `Refused` if it belongs to another image; `Doing`: it cannot be made.
    pub fn upper_for(
        &self,
        image: &OpenImage,
        reference: &str,
        wanted: Option<&str>,
        keep: bool,
    ) -> Result<(HeldUpper, bool)> {
        let uppers = self.uppers();
        let id = image.record.id;
        if let Some(upper) = wanted.map(|name| uppers.find(name)).transpose()?.flatten() {
            upper.require(&id, reference)?;
            return Ok((upper.into(), false));
        }
        let root = rustix::process::geteuid().is_root();
        let now = Timestamp::now();
        let made = format!("{}-{:x}", id.short(), now.as_microsecond());
        let upper = NamedUpper {
            name: wanted.map_or(made, str::to_owned),
            image: id.to_string(),
            reference: reference.to_owned(),
            created: u64::try_from(now.as_second()).unwrap_or(0),
            temporary: wanted.is_none() && !keep,
            apart: !root,
            user_marks: root && !in_first_user_namespace().unwrap_or(true),
            damage: None,
        };
        Ok((uppers.create(&upper, image.files.clone())?, true))
    }
}

/// Loads the images of a source into an open store; layers that do not merge are refused.
///
/// # Errors
/// As [`strata_image::load`].
pub fn load(
    store: &Store,
    spec: &SourceSpec,
    options: LoadOptions<'_>,
    progress: &dyn Progress,
) -> Result<Vec<Loaded>> {
    Ok(strata_image::load(checked(store), spec, &options, progress)?)
}

/// Makes an image of a tar in an open store; a layer that does not merge is refused.
///
/// # Errors
/// As [`strata_image::import`].
pub fn import(
    store: &Store,
    tar: &Path,
    name: Option<&Reference>,
    options: ImportOptions,
    progress: &dyn Progress,
) -> Result<Loaded> {
    Ok(strata_image::import(checked(store), tar, name, &options, progress)?)
}

/// Pulls into an open store; layers that do not merge are refused.
///
/// # Errors
/// As [`strata_image::pull`].
pub fn pull(
    store: &Store,
    registries: &Registries,
    name: &Reference,
    options: PullOptions<'_>,
    progress: &dyn Progress,
) -> Result<Pulled> {
    Ok(strata_image::pull(checked(store), registries, name, &options, progress)?)
}

/// Refuses a directory inside of the store as a place to write files to.
///
/// # Errors
/// `Refused` for a directory inside of the store: what is written there would be taken for layers.
pub fn refuse_inside(root: &Path, directory: &Path) -> Result<()> {
    let real = |path: &Path| -> std::io::Result<PathBuf> {
        let path = std::path::absolute(path)?;
        path.canonicalize().or_else(|error| match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
            _ => Err(error),
        })
    };
    let inside = real(directory).with_context(|| format!("cannot use {}", directory.display()))?;
    if real(root).is_ok_and(|root| inside.starts_with(root)) {
        bail!("{} is inside the store; choose a directory elsewhere", directory.display());
    }
    Ok(())
}

/// Copies an image between places; into the store only what merges.
///
/// # Errors
/// As [`strata_image::copy`].
pub fn copy(
    store: &Store,
    registries: &Registries,
    from: &Location,
    to: Target<'_, '_>,
    options: &CopyOptions<'_>,
    listeners: &Listeners<'_>,
) -> Result<CopiedImage> {
    Ok(strata_image::copy(checked(store), registries, from, to, options, listeners)?)
}
