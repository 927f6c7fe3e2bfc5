//! Where an archive or a page goes: a file that appears whole, or what takes it as it comes.
//!
//! Invariants: a file appears under its name only when it is whole, and has the mode and the owner
//! of the one that it replaces; a symbolic link stays, for what it leads to is replaced; what is no
//! regular file (a pipe, a device), and what a process has open (`/dev/stdout`), is written to and
//! never replaced.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, PROC_SUPER_MAGIC, linkat, statfs};

/// What writes an archive.
pub(crate) type WriteArchive<'a> = &'a mut dyn FnMut(&mut dyn Write) -> Result<()>;

/// Writes an archive to a file, which appears under its name only when it is whole.
///
/// # Errors
/// `cannot WHAT to OUTPUT`, with the cause.
pub(crate) fn to_file(output: &Path, what: &str, write: WriteArchive<'_>) -> Result<()> {
    let context = || format!("cannot {what} to {}", output.display());
    match OutputPlace::of(output).with_context(context)? {
        OutputPlace::Directory => {
            bail!("{} is a directory; name the file to write", output.display())
        }
        OutputPlace::Stream { append } => {
            let opened = OpenOptions::new().write(true).append(append).open(output);
            write(&mut opened.with_context(context)?).with_context(context)
        }
        OutputPlace::File(path, old) => {
            replace(&path, old.as_ref(), &mut |file| write(file)).with_context(context)
        }
    }
}

/// What an output is.
pub(super) enum OutputPlace {
    Directory,
    /// What is written to as it is; a file that a process has open is added to.
    Stream {
        append: bool,
    },
    /// A regular file, or none yet, by a name that is no link.
    File(PathBuf, Option<Metadata>),
}

impl OutputPlace {
    /// What `output` is, and what a link of this name leads to.
    ///
    /// # Errors
    /// A link leads nowhere, or may not be followed.
    pub(super) fn of(output: &Path) -> Result<Self> {
        // The kernel follows the links here: it refuses those that others put into a directory such
        // as /tmp.
        let meta = match std::fs::metadata(output) {
            Ok(meta) => meta,
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            Err(_) if output.is_symlink() => {
                bail!("it is a symbolic link to nothing; name the file that it should lead to")
            }
            Err(_) => return Ok(Self::File(output.to_owned(), None)),
        };
        if meta.is_dir() {
            return Ok(Self::Directory);
        }
        let path = if meta.is_file() { followed(output)? } else { None };
        let Some(path) = path else {
            // What stands in the file already is not this program's: `{ ...; strata ...; } > file`.
            return Ok(Self::Stream { append: meta.is_file() });
        };
        let found = std::fs::symlink_metadata(&path)?;
        if (found.dev(), found.ino()) != (meta.dev(), meta.ino()) {
            bail!("a link on the way was changed just now; try again");
        }
        Ok(Self::File(path, Some(found)))
    }
}

/// The name behind the links at the end of a path; `None` if one of them stands for what a process
/// has open, which need not have a name.
fn followed(output: &Path) -> Result<Option<PathBuf>> {
    let mut path = output.to_owned();
    while path.is_symlink() {
        let dir = match path.parent() {
            Some(dir) if dir != Path::new("") => dir,
            Some(_) | None => Path::new("."),
        };
        if statfs(dir)?.f_type == PROC_SUPER_MAGIC {
            return Ok(None);
        }
        let to = std::fs::read_link(&path)?;
        path = dir.join(to);
    }
    Ok(Some(path))
}

/// Writes a file aside and gives it the name `path` when all is there, with the mode and owner of
/// `old`.
pub(super) fn replace(
    path: &Path,
    old: Option<&Metadata>,
    write: &mut dyn FnMut(&mut File) -> Result<()>,
) -> Result<()> {
    let mut new = NewFile::make(path, old.is_some())?;
    write(&mut new.file)?;
    if let Some(old) = old {
        let made = new.file.metadata()?;
        if (made.uid(), made.gid()) != (old.uid(), old.gid()) {
            // Who may not give files away keeps it, as where the old one were removed first.
            fchown(&new.file, Some(old.uid()), Some(old.gid())).unwrap_or_default();
        }
        let mode = std::fs::Permissions::from_mode(old.mode() & 0o777);
        new.file.set_permissions(mode)?;
    }
    new.publish(path)
}

/// A file that is being written.
struct NewFile {
    file: File,
    /// Its name; a file without one leaves nothing if the process is killed.
    name: Option<PathBuf>,
}

impl NewFile {
    /// Makes one in the directory of `path`; one that is `secret` is for its owner alone until it
    /// gets its mode.
    fn make(path: &Path, secret: bool) -> Result<Self> {
        let Some(name) = path.file_name().filter(|_| !ends_in_slash(path.as_os_str())) else {
            bail!("{} does not name a file", path.display());
        };
        let mode = if secret { 0o600 } else { 0o666 };
        let dir = path.with_file_name(".");
        let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
        // Its name comes by way of /proc.
        if Path::new("/proc/self/fd").exists()
            && let Ok(file) = rustix::fs::open(&dir, flags, Mode::from_raw_mode(mode))
        {
            return Ok(Self { file: file.into(), name: None });
        }
        let (file, aside) = aside(path, name, |aside| {
            OpenOptions::new().write(true).create_new(true).mode(mode).open(aside)
        })
        .context("cannot create a file there")?;
        Ok(Self { file, name: Some(aside) })
    }

    fn publish(mut self, path: &Path) -> Result<()> {
        let aside = match self.name.take() {
            Some(aside) => aside,
            None => {
                let file = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                let name = path.file_name().unwrap_or_default();
                aside(path, name, |aside| {
                    Ok(linkat(CWD, &file, CWD, aside, AtFlags::SYMLINK_FOLLOW)?)
                })?
                .1
            }
        };
        // No link to a file replaces another; a rename does.
        std::fs::rename(self.name.insert(aside), path)?;
        self.name = None;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // The first error is the one to tell.
            std::fs::remove_file(name).unwrap_or_default();
        }
    }
}

/// Calls `make` with hidden names beside `path` until there is one that nothing has.
fn aside<T>(
    path: &Path,
    name: &OsStr,
    mut make: impl FnMut(&Path) -> std::io::Result<T>,
) -> std::io::Result<(T, PathBuf)> {
    loop {
        let mut hidden = OsString::from(".");
        hidden.push(name);
        let random = RandomState::new().hash_one(0) as u32;
        hidden.push(format!(".strata-{random:08x}"));
        let aside = path.with_file_name(hidden);
        match make(&aside) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => return Ok((made?, aside)),
        }
    }
}

fn ends_in_slash(text: &OsStr) -> bool {
    text.as_encoded_bytes().ends_with(b"/")
}
