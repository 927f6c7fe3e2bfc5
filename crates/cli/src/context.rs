//! What every command needs: the store's root, the output format, and the store in words for a
//! person who cannot use it.
//!
//! Invariant: only what adds to a store makes one.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};
use rustix::fs::{Mode, OFlags};
use strata_fuse::in_first_user_namespace;
use strata_layer::{Limits, Store, StoreOptions};
use stratafs::{Engine, OpenImage};

use crate::home::home;
use crate::limits::NewLayerArgs;
use crate::progress::ShowProgress;

/// How listings are printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Format {
    /// Columns for people.
    Table,
    /// One JSON document.
    Json,
    /// By a Go template, as docker's `--format`.
    Template(String),
}

/// What `--format` says; what that is depends on the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    Table,
    /// docker's JSON where docker has the command, else as [`Asked::JsonFull`].
    Json,
    /// One JSON document with all that is known.
    JsonFull,
    Sarif,
    Template(String),
}

impl FromStr for Asked {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            "json-full" => Ok(Self::JsonFull),
            // Of `strata lint` alone, which says so.
            "sarif" => Ok(Self::Sarif),
            _ if text.contains("{{") => Ok(Self::Template(text.to_owned())),
            _ => Err("it is table, json, json-full, or a template such as '{{.ID}}'".to_owned()),
        }
    }
}

/// The options that all commands share.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) root: PathBuf,
    pub(crate) format: Format,
    pub(crate) quiet: bool,
    /// How progress is shown; nothing where it is quiet.
    pub(crate) shown: ShowProgress,
    pub(crate) log_level: Option<String>,
}

impl Context {
    /// Where the store is: as given, else as the environment has it, else where the system keeps
    /// such things.
    pub(crate) fn root_or_default(given: Option<PathBuf>) -> Result<PathBuf> {
        let said = || std::env::var_os("STRATA_ROOT").filter(|root| !root.is_empty());
        if let Some(root) = given.or_else(|| said().map(PathBuf::from)) {
            return std::path::absolute(&root)
                .with_context(|| format!("{} is no usable path", root.display()));
        }
        if rustix::process::geteuid().is_root() {
            return Ok(PathBuf::from("/var/lib/stratafs"));
        }
        let absolute = |name: &str| {
            std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
        };
        if let Some(data) = absolute("XDG_DATA_HOME") {
            return Ok(data.join("stratafs"));
        }
        match home() {
            Some(home) => Ok(home.join(".local/share/stratafs")),
            None => bail!(
                "neither XDG_DATA_HOME nor HOME is set, and /etc/passwd names no home directory; \
                 say --root DIR"
            ),
        }
    }

    /// Opens the store that is there, read-only if it cannot be written.
    ///
    /// # Errors
    /// There is none; it cannot be read, and whose it is.
    pub(crate) fn store(&self) -> Result<Store> {
        self.opened(self.engine().store())
    }

    /// The same, to change or remove something: on a full disk what is derived goes first, for a
    /// removal is written down before anything is free.
    ///
    /// # Errors
    /// As [`Context::store`]; it cannot be written, and why.
    pub(crate) fn store_to_change(&self) -> Result<Store> {
        let mut store = self.store()?;
        if store.read_only().is_some() && Store::shed(&self.root).is_ok_and(|freed| freed > 0) {
            drop(store);
            store = self.store()?;
        }
        match store.read_only() {
            None => Ok(store),
            Some(_) if self.is_on_read_only() => bail!(
                "cannot change the store at {}: its file system is read-only here",
                self.root.display()
            ),
            Some(why) => bail!("cannot change the store at {}: {why}", self.root.display()),
        }
    }

    fn is_on_read_only(&self) -> bool {
        let access = rustix::fs::access(&self.root, rustix::fs::Access::WRITE_OK);
        access == Err(rustix::io::Errno::ROFS)
    }

    /// Removes something; once more where the disk was full and room could be made.
    ///
    /// # Errors
    /// Those of `remove`.
    pub(crate) fn freeing<T>(&self, mut remove: impl FnMut() -> Result<T>) -> Result<T> {
        let full = |error: &anyhow::Error| {
            error.chain().any(|cause| {
                let store = cause.downcast_ref().is_some_and(strata_layer::Error::is_full);
                store || cause.downcast_ref().is_some_and(stratafs::Error::is_full)
            })
        };
        match remove() {
            Err(error) if full(&error) => match Store::shed(&self.root) {
                Ok(1..) => remove(),
                Ok(0) | Err(_) => Err(error),
            },
            done => done,
        }
    }

    /// Opens the store, making it if there is none.
    ///
    /// # Errors
    /// As [`Context::store`].
    pub(crate) fn made_store(&self) -> Result<Store> {
        self.opened(self.engine().made_store())
    }

    /// The same, for layers that come in as `new` says.
    ///
    /// # Errors
    /// As [`Context::store`].
    pub(crate) fn store_for(&self, new: &NewLayerArgs) -> Result<Store> {
        let engine = self.engine().with_limits(new.limits.limits()).with_verity(new.verity);
        self.opened(engine.made_store())
    }

    /// How every store is opened.
    pub(crate) fn options(&self, limits: Limits) -> StoreOptions {
        self.engine().with_limits(limits).store_options()
    }

    fn opened(&self, opened: stratafs::Result<Store>) -> Result<Store> {
        let error = match opened {
            Err(stratafs::Error::Store(error @ strata_layer::Error::NoStore(_))) => {
                return Err(error.into());
            }
            Err(stratafs::Error::Store(error)) => error,
            opened => return Ok(opened?),
        };
        let shown = self.root.display();
        let refused = matches!(
            &error,
            strata_layer::Error::Io { source, .. }
                if source.kind() == std::io::ErrorKind::PermissionDenied
        );
        let owner = std::fs::metadata(&self.root).map(|meta| meta.uid());
        let me = rustix::process::geteuid().as_raw();
        let context = match owner {
            Ok(owner) if refused && owner != me => format!(
                "cannot open the store at {shown}: it belongs to another user (uid {owner})"
            ),
            _ if self.is_on_read_only() => {
                format!("cannot write to the store at {shown}: its file system is read-only here")
            }
            _ => format!("cannot open the store at {shown}"),
        };
        Err(anyhow::Error::new(error).context(context))
    }

    /// A file without a name for an archive that cannot be read where it is: in the store, where
    /// there is one that can be written, else in the directory for temporary files.
    ///
    /// # Errors
    /// There is no room for it, or no such directory.
    pub(crate) fn scratch(&self) -> strata_image::Result<File> {
        if let Some(store) = self.store().ok().filter(|store| store.read_only().is_none()) {
            return Ok(store.scratch_file()?);
        }
        let dir = std::env::temp_dir();
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&dir, flags, Mode::from_raw_mode(0o600));
        let what = || format!("cannot make a file in {}", dir.display());
        Ok(opened.map(File::from).map_err(|error| strata_layer::Error::io(what(), error))?)
    }

    /// The store as the engine sees it.
    pub(crate) fn engine(&self) -> Engine {
        let engine = Engine::new(&self.root);
        match elsewhere() {
            Some(cache) => engine.with_cache(cache),
            None => engine,
        }
    }

    /// Opens an image by name or id.
    pub(crate) fn open_image(&self, text: &str) -> Result<OpenImage> {
        Ok(OpenImage::open(&self.store()?, text)?)
    }
}

/// The directory for what cannot be written to the store: a cache directory, or else a temporary
/// one; `None` if that is somebody else's.
fn elsewhere() -> Option<PathBuf> {
    let named = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let absolute = |name: &str| named(name).filter(|path| path.is_absolute());
    let user = rustix::process::geteuid();
    // Who is root in a namespace only is an ordinary user to the directories of the system.
    if user.is_root() && in_first_user_namespace().unwrap_or(true) {
        return Some(PathBuf::from("/var/cache/stratafs"));
    }
    let below_home = || home().map(|home| home.join(".cache"));
    if let Some(cache) = absolute("XDG_CACHE_HOME").or_else(below_home) {
        return Some(cache.join("stratafs"));
    }
    // Everybody can make it, and trees that are read there are believed.
    let dir = std::env::temp_dir().join(format!("stratafs-{}", user.as_raw()));
    match make_private(&dir) {
        Ok(()) => Some(dir),
        Err(error) => {
            static TOLD: std::sync::Once = std::sync::Once::new();
            TOLD.call_once(|| {
                let shown = dir.display();
                tracing::warn!("{shown} is no cache: {error}; set XDG_CACHE_HOME or HOME");
            });
            None
        }
    }
}

/// Makes a directory for this user alone, or finds it so.
fn make_private(dir: &Path) -> std::io::Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        made => return made,
    }
    let meta = std::fs::symlink_metadata(dir)?;
    let is_own = meta.uid() == rustix::process::geteuid().as_raw();
    match meta.is_dir() && is_own && meta.mode() & 0o077 == 0 {
        true => Ok(()),
        false => Err(std::io::Error::other("it is not a directory of this user alone")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_directory_that_others_can_change_is_no_cache() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("cache");
        make_private(&dir).unwrap();
        make_private(&dir).unwrap();
        assert_eq!(std::fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        symlink(&dir, base.path().join("link")).unwrap();
        assert!(make_private(&base.path().join("link")).is_err());
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o770)).unwrap();
        assert!(make_private(&dir).is_err());
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&dir, Some(1), None).unwrap();
            assert!(make_private(&dir).is_err());
        }
    }
}
