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
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal};

use super::ground::UnionGround;
use crate::adapters::{missing_program, shell, version};
use crate::removal::{self, MountFacts};
use crate::run::wait;
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
        self.run_within(PATIENCE, script, ground)
    }

    fn run_within(&self, limit: Duration, script: &str, ground: &UnionGround) -> Result<()> {
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
        // A group of its own, so that all of it can be killed.
        let child = at("sh", command.stdout(other).stderr(file).process_group(0).spawn())?;
        match wait(child, limit)? {
            Some(status) if status.success() => return Ok(()),
            Some(_) => {}
            None => {
                let limit = limit.as_secs();
                let why = format!(
                    "its command did not end in {limit} seconds and was killed: it has to leave \
                     the mount to a process in the background"
                );
                return Err(Error::CannotRun(self.name.clone(), why));
            }
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
        if !is_mounted(ground)? {
            let why = "its command ended, and nothing is mounted".to_owned();
            return Err(Error::CannotRun(union.name.clone(), why));
        }
        Ok(mounted)
    }

    /// Unmounts, and waits for the daemon.
    ///
    /// # Errors
    /// If the command fails, or leaves something mounted.
    pub fn unmount(mut self) -> Result<()> {
        let daemons = MountDaemons::of(self.ground)?;
        // A child that another thread has just forked holds this one's files until it runs.
        let end = Instant::now() + Duration::from_secs(2);
        let mut done = self.union.run(&self.union.unmount, self.ground);
        while is_mounted(self.ground)? {
            if Instant::now() > end {
                let why = "its unmount command ended, and something is still mounted: \
                           it has to unmount all";
                return done.and(Err(Error::CannotRun(self.union.name.clone(), why.to_owned())));
            }
            std::thread::sleep(Duration::from_millis(20));
            if done.is_err() {
                done = self.union.run(&self.union.unmount, self.ground);
            }
        }
        done?;
        self.stands = false;
        daemons.wait();
        Ok(())
    }

    /// Kills the daemons, and unmounts what they leave. `false` if a mount by FUSE has daemons that
    /// are not found: it stands as before.
    ///
    /// # Errors
    /// If a daemon cannot be killed, or something stays mounted.
    pub fn kill(&mut self) -> Result<bool> {
        let daemons = MountDaemons::of(self.ground)?;
        if daemons.found.is_empty() && !daemons.connections.is_empty() {
            return Ok(false);
        }
        for daemon in &daemons.found {
            match rustix::process::kill_process(*daemon, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => return Err(Error::Io("kill".to_owned(), errno.into())),
            }
        }
        daemons.wait();
        removal::detach_all(&self.ground.mount_point())?;
        self.stands = false;
        Ok(true)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if self.stands {
            // What stays makes the end of the directory an error.
            let _ = removal::detach_all(&self.ground.mount_point());
        }
    }
}

/// What stands at the mountpoint itself.
fn mounts_on(ground: &UnionGround) -> Result<Vec<MountFacts>> {
    let mnt = ground.mount_point();
    Ok(removal::mounts_in(&mnt)?.into_iter().filter(|one| one.point == mnt).collect())
}

/// Whether something is mounted on the mountpoint, also a bind mount of the same file system.
fn is_mounted(ground: &UnionGround) -> Result<bool> {
    Ok(!mounts_on(ground)?.is_empty())
}

/// The processes that serve a mount.
struct MountDaemons {
    mnt: PathBuf,
    /// The numbers of its FUSE connections.
    connections: Vec<String>,
    found: Vec<Pid>,
}

impl MountDaemons {
    fn of(ground: &UnionGround) -> Result<Self> {
        let by_fuse = mounts_on(ground)?.into_iter().filter(|one| one.kind.starts_with("fuse"));
        let connections = by_fuse.map(|one| one.minor).collect();
        let mut daemons = Self { mnt: ground.path("mnt"), connections, found: Vec::new() };
        let all = at("/proc", fs::read_dir("/proc"))?;
        let numbers = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        // This process serves nothing.
        let own = rustix::process::getpid();
        let others = numbers.filter_map(Pid::from_raw).filter(|pid| *pid != own);
        daemons.found = others.filter(|pid| daemons.has(*pid)).collect();
        Ok(daemons)
    }

    /// Whether a process names the mount on its command line, or holds a connection of it.
    fn has(&self, pid: Pid) -> bool {
        let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        words.any(|word| word == self.mnt.as_os_str().as_bytes()) || self.holds(pid)
    }

    /// Whether a process holds a connection, as far as the kernel tells: older ones do not.
    fn holds(&self, pid: Pid) -> bool {
        let process = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
        let all =
            if self.connections.is_empty() { None } else { fs::read_dir(process.join("fd")).ok() };
        all.into_iter().flatten().flatten().any(|entry| {
            // A process may have many files open, and only these tell something.
            if !fs::read_link(entry.path()).is_ok_and(|to| to.ends_with("fuse")) {
                return false;
            }
            let facts = fs::read_to_string(process.join("fdinfo").join(entry.file_name()));
            let facts = facts.unwrap_or_default();
            let mut told = facts.lines().filter_map(|line| line.strip_prefix("fuse_connection:"));
            told.any(|told| self.connections.iter().any(|one| one == told.trim()))
        })
    }

    /// Waits until they have ended, or serve other mounts alone. One that nobody has reaped yet has
    /// no command line and no files.
    fn wait(&self) {
        let end = Instant::now() + PATIENCE;
        for daemon in &self.found {
            while self.has(*daemon) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(1));
            }
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

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use rustix::mount::MountFlags;
    use strata_testkit::needs;

    use super::*;

    #[test]
    fn who_serves_a_mount_is_killed_by_its_connection_or_nobody_is() {
        if !needs::root_and_fuse() {
            return;
        }
        let union = find("true %lower %upper %mnt", None, None).unwrap();
        let ground = UnionGround::new(None, &[]).unwrap();
        let connection = fs::File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let data = format!("fd={},rootmode=40000,user_id=0,group_id=0", connection.as_raw_fd());
        let data = std::ffi::CString::new(data).unwrap();
        let mnt = ground.path("mnt");
        rustix::mount::mount("x", &mnt, "fuse.x", MountFlags::empty(), Some(data.as_c_str()))
            .unwrap();
        let mut mounted = Mounted { union: &union, ground: &ground, stands: true };
        // This process has the connection, and is no daemon.
        assert!(!mounted.kill().unwrap());
        assert!(is_mounted(&ground).unwrap());
        let facts = format!("/proc/self/fdinfo/{}", connection.as_raw_fd());
        let is_told = fs::read_to_string(facts).unwrap().contains("fuse_connection");
        let mut command = Command::new("sleep");
        let mut daemon = command.arg("600").stdin(Stdio::from(connection)).spawn().unwrap();
        // Now the child alone has it.
        drop(command);
        if is_told {
            assert!(mounted.kill().unwrap());
            assert!(!is_mounted(&ground).unwrap());
            assert_eq!(daemon.wait().unwrap().signal(), Some(9));
        } else {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
    }

    #[test]
    fn a_command_that_does_not_end_is_killed_with_its_children() {
        let union = find("true %lower %upper %mnt", None, None).unwrap();
        let ground = UnionGround::new(None, &[]).unwrap();
        let limit = Duration::from_secs(2);
        let error = union.run_within(limit, "sleep 600 & echo $! > pid; wait", &ground);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("did not end in 2 seconds"), "{error}");
        let pid = fs::read_to_string(ground.path("pid")).unwrap();
        let line = || fs::read(format!("/proc/{}/cmdline", pid.trim())).unwrap_or_default();
        let end = Instant::now() + PATIENCE;
        // One that nobody has reaped yet has no command line.
        while !line().is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(line().is_empty());
        union.run_within(PATIENCE, "true", &ground).unwrap();
    }

    #[test]
    fn an_unmount_that_leaves_a_mount_is_an_error() {
        if !needs::root() {
            return;
        }
        let twice = "mount -t tmpfs x %mnt && mount -t tmpfs x %mnt && : %lower %upper";
        let union = find(twice, None, None).unwrap();
        let ground = UnionGround::new(None, &[]).unwrap();
        let error = Mounted::new(&union, &ground).unwrap().unmount().unwrap_err();
        assert!(error.to_string().contains("still mounted"), "{error}");
        assert!(!is_mounted(&ground).unwrap());
    }
}
