//! The unions that are known by name, and the life of one mount.
//!
//! A union is a few lines for `sh`: how to mount, and how to unmount. Its environment says where
//! things are: `LOWER` (the lowers as `lowerdir` has them), `UPPER`, `WORK`, `MNT`, and `MERGED`, a
//! plain directory with the merged lowers for a union that takes an image.
//!
//! Invariants: when [`Mounted`] is gone, nothing is mounted, also after an error; a daemon that
//! serves a mount has ended before the upper is used again.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal};

use super::ground::UnionGround;
use crate::adapters::{missing_program, shell, version};
use crate::{Error, Result, at};

/// A program that mounts a union.
#[derive(Debug, Clone)]
pub struct UnionMount {
    /// As reports name it.
    pub name: String,
    /// Its version, as it says it; empty if it cannot be asked.
    pub version: String,
    /// What `sh` runs to mount; scripts for people have it too.
    pub(crate) mount: String,
    pub(crate) unmount: String,
    /// The options with which the kernel's overlayfs reads the upper; none if it cannot.
    pub(crate) kernel_options: Option<String>,
    first: Option<PathBuf>,
}

struct KnownUnion {
    name: &'static str,
    needs: &'static [&'static str],
    version: &'static str,
    mount: &'static str,
    unmount: &'static str,
    kernel_options: Option<&'static str>,
}

const UMOUNT: &str = r#"umount "$MNT""#;
const LINUX: &str = "uname -sr | cut -d- -f1";
/// An image of the merged lowers; the upper is in the store.
const STRATA_IMAGE: &str = r#"
[ -d "$WORK/store" ] ||
  tar -C "$MERGED" --xattrs --xattrs-include='*' --numeric-owner -c . |
  strata --root "$WORK/store" import -q - conform:1 > /dev/null
strata --root "$WORK/store" mount --upper u --backend "#;

const KNOWN: [KnownUnion; 9] = [
    KnownUnion {
        name: "overlayfs",
        needs: &["mount"],
        version: LINUX,
        mount: r#"mount -t overlay -o "lowerdir=$LOWER,upperdir=$UPPER,workdir=$WORK" o "$MNT""#,
        unmount: UMOUNT,
        kernel_options: Some(""),
    },
    KnownUnion {
        name: "overlayfs-redirect",
        needs: &["mount"],
        version: LINUX,
        mount: r#"mount -t overlay -o redirect_dir=on,metacopy=on \
  -o "lowerdir=$LOWER,upperdir=$UPPER,workdir=$WORK" o "$MNT""#,
        unmount: UMOUNT,
        kernel_options: Some("redirect_dir=on,metacopy=on"),
    },
    KnownUnion {
        name: "overlayfs-index",
        needs: &["mount"],
        version: LINUX,
        mount: r#"mount -t overlay -o redirect_dir=on,metacopy=on,index=on \
  -o "lowerdir=$LOWER,upperdir=$UPPER,workdir=$WORK" o "$MNT""#,
        unmount: UMOUNT,
        kernel_options: Some("redirect_dir=on,metacopy=on"),
    },
    KnownUnion {
        name: "fuse-overlayfs",
        needs: &["fuse-overlayfs"],
        version: "fuse-overlayfs --version | grep fuse-overlayfs",
        mount: r#"fuse-overlayfs -o "lowerdir=$LOWER,upperdir=$UPPER,workdir=$WORK" "$MNT""#,
        unmount: UMOUNT,
        kernel_options: None,
    },
    KnownUnion {
        name: "fuse-overlayfs-2",
        needs: &["fuse-overlayfs-2"],
        version: "fuse-overlayfs-2 --version | grep fuse-overlayfs",
        mount: r#"fuse-overlayfs-2 -o "lowerdir=$LOWER,upperdir=$UPPER,workdir=$WORK" "$MNT""#,
        unmount: UMOUNT,
        kernel_options: None,
    },
    KnownUnion {
        name: "unionfs-fuse",
        needs: &["unionfs"],
        version: "unionfs --version 2>&1 | grep unionfs-fuse",
        mount: r#"unionfs -o cow,hide_meta_files,allow_other,suid,dev,default_permissions \
  "$UPPER=RW:$(echo "$LOWER" | sed 's/:/=RO:/g')=RO" "$MNT""#,
        unmount: UMOUNT,
        kernel_options: None,
    },
    KnownUnion {
        name: "strata-overlay",
        needs: &["strata-overlay"],
        version: "strata-overlay --version",
        mount: r#"strata-overlay -o "lowerdir=$LOWER,upperdir=$UPPER,workdir=$WORK" "$MNT""#,
        unmount: UMOUNT,
        kernel_options: Some("redirect_dir=on,metacopy=on"),
    },
    KnownUnion {
        name: "strata-fuse",
        needs: &["strata"],
        version: "strata --version",
        mount: r#"fuse conform:1 "$MNT""#,
        unmount: r#"strata --root "$WORK/store" umount "$MNT""#,
        kernel_options: None,
    },
    KnownUnion {
        name: "strata-kernel",
        needs: &["strata"],
        version: r#"echo "$(strata --version), Linux $(uname -r | cut -d- -f1)""#,
        mount: r#"kernel conform:1 "$MNT""#,
        unmount: r#"strata --root "$WORK/store" umount "$MNT""#,
        kernel_options: None,
    },
];

impl KnownUnion {
    fn union(&self, first: Option<&Path>) -> UnionMount {
        let image = if self.needs == ["strata"] { STRATA_IMAGE } else { "" };
        UnionMount {
            name: self.name.to_owned(),
            version: version(self.version, first),
            mount: format!("{image}{}", self.mount),
            unmount: self.unmount.to_owned(),
            kernel_options: self.kernel_options.map(str::to_owned),
            first: first.map(Path::to_owned),
        }
    }
}

/// The names of all that are known.
#[must_use]
pub fn names() -> Vec<&'static str> {
    KNOWN.iter().map(|known| known.name).collect()
}

/// All known unions that can run here, and why the others cannot.
#[must_use]
pub fn present(first: Option<&Path>) -> (Vec<UnionMount>, Vec<(&'static str, String)>) {
    let (mut found, mut absent) = (Vec::new(), Vec::new());
    for known in &KNOWN {
        match missing_program(known.needs, first) {
            Some(why) => absent.push((known.name, why)),
            None => found.push(known.union(first)),
        }
    }
    (found, absent)
}

/// The union of a name, or of a command with `%lower`, `%upper`, `%work` and `%mnt`; `unmount` is a
/// command with `%mnt`, by default `umount`.
///
/// # Errors
/// If it is neither, or the named one cannot run here.
pub fn find(text: &str, unmount: Option<&str>, first: Option<&Path>) -> Result<UnionMount> {
    if let Some(known) = KNOWN.iter().find(|known| known.name == text) {
        return match missing_program(known.needs, first) {
            Some(why) => Err(Error::CannotRun(text.to_owned(), why)),
            None => Ok(known.union(first)),
        };
    }
    if !["%lower", "%upper", "%mnt"].iter().all(|place| text.contains(place)) {
        return Err(Error::NoUnion(text.to_owned(), names().join(", ")));
    }
    let placed = |text: &str| {
        let places = [("%lower", "LOWER"), ("%upper", "UPPER"), ("%work", "WORK"), ("%mnt", "MNT")];
        let mut text = text.to_owned();
        for (place, variable) in places {
            text = text.replace(place, &format!("\"${variable}\""));
        }
        text
    };
    Ok(UnionMount {
        name: text.to_owned(),
        version: String::new(),
        mount: placed(text),
        unmount: placed(unmount.unwrap_or("umount %mnt")),
        kernel_options: None,
        first: first.map(Path::to_owned),
    })
}

/// How long a command, or the end of a daemon, is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

impl UnionMount {
    fn run(&self, script: &str, ground: &UnionGround) -> Result<()> {
        let mut command = shell(script, self.first.as_deref());
        for (name, dir) in
            [("UPPER", "upper"), ("WORK", "work"), ("MNT", "mnt"), ("MERGED", "merged")]
        {
            command.env(name, ground.path(dir));
        }
        command.env("LOWER", ground.lowerdir()).current_dir(ground.path(""));
        // A daemon keeps the output of its command open: a file does not wait for it.
        let log = ground.path("said");
        let file = at(log.display(), fs::File::create(&log))?;
        let other = at(log.display(), file.try_clone())?;
        let status = at("sh", command.stdout(other).stderr(file).status())?;
        if status.success() {
            return Ok(());
        }
        let said = fs::read(&log).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message");
        Err(Error::CannotRun(self.name.clone(), last.trim().to_owned()))
    }
}

/// A mount that stands.
pub struct Mounted<'a> {
    union: &'a UnionMount,
    ground: &'a UnionGround,
    stands: bool,
}

impl<'a> Mounted<'a> {
    /// Mounts.
    ///
    /// # Errors
    /// If the command fails, or mounts nothing.
    pub fn new(union: &'a UnionMount, ground: &'a UnionGround) -> Result<Self> {
        union.run(&union.mount, ground)?;
        let mounted = Self { union, ground, stands: true };
        if !is_mounted(&ground.path("mnt"))? {
            let why = "its command ended, and nothing is mounted".to_owned();
            return Err(Error::CannotRun(union.name.clone(), why));
        }
        Ok(mounted)
    }

    /// Unmounts, and waits for the daemon.
    ///
    /// # Errors
    /// If the command fails.
    pub fn unmount(mut self) -> Result<()> {
        let daemons = self.daemons();
        // A child that another thread has just forked holds this one's files until it runs.
        let end = Instant::now() + Duration::from_secs(2);
        while let Err(error) = self.union.run(&self.union.unmount, self.ground) {
            if Instant::now() > end || !is_mounted(&self.ground.path("mnt"))? {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.stands = false;
        wait(&daemons);
        Ok(())
    }

    /// Kills the daemons, and unmounts what they leave; `false` if there are none.
    ///
    /// # Errors
    /// If a daemon cannot be killed.
    pub fn kill(mut self) -> Result<bool> {
        let daemons = self.daemons();
        for daemon in &daemons {
            match rustix::process::kill_process(*daemon, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => return Err(Error::Io("kill".to_owned(), errno.into())),
            }
        }
        wait(&daemons);
        detach(&self.ground.path("mnt"));
        self.stands = false;
        Ok(!daemons.is_empty())
    }

    /// The processes that name the mount on their command line.
    fn daemons(&self) -> Vec<Pid> {
        let mnt = self.ground.path("mnt");
        let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
        let numbers = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let serves = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|word| word == mnt.as_os_str().as_bytes())
        };
        numbers.filter(serves).filter_map(Pid::from_raw).collect()
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if self.stands {
            detach(&self.ground.path("mnt"));
        }
    }
}

/// Whether something is mounted on `mnt`, also a bind mount of the same file system (proc(5)).
fn is_mounted(mnt: &Path) -> Result<bool> {
    let table = at("/proc/self/mountinfo", fs::read_to_string("/proc/self/mountinfo"))?;
    let mnt = mnt.display().to_string().replace(' ', "\\040");
    Ok(table.lines().any(|line| line.split(' ').nth(4) == Some(mnt.as_str())))
}

/// Waits until the processes have ended. One that nobody has reaped yet has no command line.
fn wait(daemons: &[Pid]) {
    let end = Instant::now() + PATIENCE;
    for daemon in daemons {
        let line = format!("/proc/{}/cmdline", daemon.as_raw_nonzero());
        while fs::read(&line).is_ok_and(|line| !line.is_empty()) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Unmounts what the suite itself has mounted; [`Mounted::unmount`] says why it tries again.
pub(crate) fn unmount(mnt: &Path) -> std::io::Result<()> {
    let end = Instant::now() + Duration::from_secs(2);
    loop {
        match rustix::mount::unmount(mnt, UnmountFlags::empty()) {
            Err(Errno::BUSY) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(20));
            }
            done => return Ok(done?),
        }
    }
}

/// Unmounts whatever stands there, also a mount whose daemon is gone.
fn detach(mnt: &Path) {
    for program in ["umount", "fusermount3"] {
        let mut command = Command::new(program);
        if program == "fusermount3" {
            command.arg("-u");
        }
        let lazy = if program == "umount" { "-l" } else { "-z" };
        let silent = command.arg(lazy).arg(mnt).stderr(std::process::Stdio::null()).status();
        if silent.is_ok_and(|status| status.success()) {
            return;
        }
    }
}
