//! The directory of a run, what is mounted in it, and how both go.
//!
//! What a program under test has mounted in the directory is detached first: the kernel's table of
//! mounts (proc_pid_mountinfo(5)) has all of it, also bind mounts of the same file system. Then all
//! in the directory is removed, and no step of that enters a mount, whoever makes one meanwhile.
//!
//! Invariants: nothing behind a mount is removed or has its permissions changed; a directory in
//! which something stays mounted stays, and that is an error.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags, openat, openat2, unlinkat};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use tempfile::TempDir;

use crate::{Error, Result, at};

const TABLE: &str = "/proc/self/mountinfo";

/// A line of the kernel's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountFacts {
    /// Where it is mounted.
    pub(crate) point: PathBuf,
    /// The minor number of its device; a FUSE connection has the same one.
    pub(crate) minor: String,
    /// The type of its file system.
    pub(crate) kind: String,
}

/// What is mounted at `dir` or below it, in the order of the table. `dir` has no links in it.
///
/// # Errors
/// If the table cannot be read.
pub(crate) fn mounts_in(dir: &Path) -> Result<Vec<MountFacts>> {
    let table = at(TABLE, fs::read(TABLE))?;
    let all = table.split(|byte| *byte == b'\n').filter_map(mount_facts);
    Ok(all.filter(|one| one.point.starts_with(dir)).collect())
}

fn mount_facts(line: &[u8]) -> Option<MountFacts> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = String::from_utf8_lossy(fields.nth(2)?);
    let minor = device.split_once(':')?.1.to_owned();
    let point = PathBuf::from(OsString::from_vec(unescaped(fields.nth(1)?)));
    // Before the hyphen there are as many fields as the mount has peers.
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(MountFacts { point, minor, kind: String::from_utf8_lossy(kind).into_owned() })
}

/// A field in which a space is `\040`, and so on.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = if *first == b'\\' { after.get(..3) } else { None };
        let octal = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

/// Detaches all that is mounted at `dir` or below it, also mounts whose daemons are gone. `dir` has
/// no links in it.
///
/// # Errors
/// If something stays mounted.
pub(crate) fn detach_all(dir: &Path) -> Result<()> {
    loop {
        let mut mounted = mounts_in(dir)?;
        // What hides a mount is at the same path or above it. So the shortest path leads to a mount
        // and through none; what is mounted below it goes with it.
        mounted.sort_by_key(|one| one.point.as_os_str().len());
        let mut stay: Vec<&Path> = Vec::new();
        let is_less = mounted.iter().any(|MountFacts { point, .. }| {
            if stay.iter().any(|above| point.starts_with(above)) {
                return false;
            }
            let is_detached = detach(point);
            if !is_detached {
                stay.push(point);
            }
            is_detached
        });
        match stay.first() {
            _ if is_less => {}
            Some(point) => {
                let (point, dir) = (point.display().to_string(), dir.display().to_string());
                return Err(Error::StaysMounted { point, dir });
            }
            None => return Ok(()),
        }
    }
}

/// Detaches the uppermost mount at `point`.
fn detach(point: &Path) -> bool {
    let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    // An ordinary user's mounts by FUSE need a program with more rights.
    let helpers = [("umount", "-l"), ("fusermount3", "-uz"), ("fusermount", "-uz")];
    rustix::mount::unmount(point, flags).is_ok()
        || helpers.into_iter().any(|(program, lazily)| {
            let mut command = Command::new(program);
            command.arg(lazily).arg(point).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        })
}

/// The directory of a run, which goes with this.
#[derive(Debug)]
pub(crate) struct RunDirectory {
    /// As the user has named it: some unpackers take no long path.
    path: PathBuf,
    /// As the kernel names it.
    real: PathBuf,
    stands: bool,
}

impl RunDirectory {
    /// Takes over a new directory.
    ///
    /// # Errors
    /// If it could not be made, or is not found.
    pub(crate) fn new(what: &str, made: io::Result<TempDir>) -> Result<Self> {
        let made = at(what, made)?;
        let real = at(made.path().display(), fs::canonicalize(made.path()))?;
        Ok(Self { path: made.keep(), real, stands: true })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A path below it as the table of mounts has it.
    pub(crate) fn real(&self, below: &str) -> PathBuf {
        self.real.join(below)
    }

    /// Detaches what is mounted in it, and removes it.
    ///
    /// # Errors
    /// If something stays mounted; the directory stays then.
    pub(crate) fn remove(mut self) -> Result<()> {
        self.stands = false;
        clear(&self.real)
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        if self.stands {
            // An error is on its way already. What stays is where temporary files are.
            let _ = clear(&self.real);
        }
    }
}

/// Detaches what is mounted at `path` or below it, and removes `path`, whatever it is. Only its
/// last name may be that of a link, which goes itself. What cannot be removed stays.
///
/// # Errors
/// If something stays mounted.
pub(crate) fn clear(path: &Path) -> Result<()> {
    detach_all(path)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if let (Some(around), Some(name)) = (path.parent(), path.file_name())
        && let Ok(around) = openat(CWD, around, flags, Mode::empty())
    {
        // An unpacker may have removed it, or have made what the running user cannot remove.
        let _ = remove_at(around.as_fd(), name);
    }
    Ok(())
}

/// Removes a name and all below it but what is mounted there: opening that is EXDEV.
fn remove_at(dir: BorrowedFd<'_>, name: impl rustix::path::Arg + Copy) -> io::Result<()> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        done => return Ok(done?),
    }
    let mut inside = Dir::new(opened(dir, name)?)?;
    while let Some(entry) = inside.read() {
        let entry = entry?;
        if ![&b"."[..], b".."].contains(&entry.file_name().to_bytes()) {
            remove_at(inside.fd()?, entry.file_name())?;
        }
    }
    Ok(unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}

/// A directory that is no mountpoint, to be read and emptied.
fn opened(dir: BorrowedFd<'_>, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    let inside = openat2(dir, name, flags | OFlags::PATH, Mode::empty(), resolve)?;
    if !rustix::process::geteuid().is_root() {
        // An ordinary user cannot remove what is in a directory without permissions. One of
        // somebody else is tried as it is.
        let link = format!("/proc/self/fd/{}", inside.as_raw_fd());
        let _ = fs::set_permissions(link, Permissions::from_mode(0o700));
    }
    Ok(openat(&inside, c".", flags | OFlags::RDONLY, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::mount::MountPropagationFlags;
    use strata_testkit::needs;

    fn bind(from: &Path, to: &Path) {
        rustix::mount::mount_bind(from, to).unwrap();
        // Or what is mounted in it is mounted in `from` too.
        rustix::mount::mount_change(to, MountPropagationFlags::PRIVATE).unwrap();
    }

    #[test]
    fn a_line_of_the_table_is_read() {
        let line = b"47 27 0:39 / /tmp/a\\040b\\134 rw shared:1 master:2 - fuse.x y rw";
        let facts = mount_facts(line).unwrap();
        assert_eq!(facts.point, Path::new("/tmp/a b\\"));
        assert_eq!((facts.minor.as_str(), facts.kind.as_str()), ("39", "fuse.x"));
        assert_eq!(unescaped(b"a\\04"), b"a\\04");
        assert_eq!(mount_facts(b""), None);
    }

    #[test]
    fn every_mount_is_detached_and_nothing_is_removed_through_one() {
        if !needs::root() {
            return;
        }
        let kept = tempfile::tempdir().unwrap();
        fs::create_dir(kept.path().join("d")).unwrap();
        fs::write(kept.path().join("d/keep"), "").unwrap();
        let run = RunDirectory::new("run", tempfile::tempdir()).unwrap();
        let (top, out) = (run.path().to_owned(), run.path().join("o u t"));
        for dir in [&out, &out.join("d")] {
            fs::create_dir(dir).unwrap();
        }
        // Below another one, twice in one place, and where a second one hides the first.
        bind(kept.path(), &out);
        bind(kept.path(), &out.join("d"));
        bind(kept.path(), &out.join("d"));
        bind(kept.path(), &out);
        // Removing alone comes to the mount, and leaves it.
        let around = fs::File::open(&top).unwrap();
        assert!(remove_at(around.as_fd(), "o u t").is_err());
        assert_eq!(mounts_in(&run.real("")).unwrap().len(), 4);
        run.remove().unwrap();
        assert!(!top.exists());
        assert!(kept.path().join("d/keep").exists());
    }

    #[test]
    fn directories_without_permissions_go_too() {
        let run = RunDirectory::new("run", tempfile::tempdir()).unwrap();
        let (top, dir) = (run.path().to_owned(), run.path().join("d"));
        fs::create_dir_all(dir.join("e")).unwrap();
        fs::write(dir.join("e/f"), "").unwrap();
        std::os::unix::fs::symlink("/", dir.join("root")).unwrap();
        for dir in [&dir.join("e"), &dir] {
            fs::set_permissions(dir, Permissions::from_mode(0o000)).unwrap();
        }
        run.remove().unwrap();
        assert!(!top.exists());
    }
}
