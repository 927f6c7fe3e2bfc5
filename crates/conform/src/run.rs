//! One case, given to one unpacker, in a directory of its own.
//!
//! ```text
//! RUN/layout                    the image
//! RUN/docker.tar                the same as a docker archive, for an unpacker that asks for it
//! RUN/work                      what the unpacker keeps
//! RUN/around/in/out             the root file system
//! RUN/around/canary, RUN/around/in/canary, /tmp/strata-conform-canary
//!                               what an escape is aimed at, each with a file `keep`
//! ```
//!
//! Invariants: `RUN/around` and the absolute canary are the same afterwards, and no member lies
//! beside a root that the unpacker has made elsewhere in `RUN`, or the unpacker has escaped;
//! nothing that the unpacker leaves mounted is removed with the directory or the canary; one
//! process at a time uses the absolute canary, and removes it.

use std::fs::{self, DirBuilder, File};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::adapters::{Unpacker, shell};
use crate::catalogue::{self, Case, Need};
use crate::judge::{Conduct, Judgement, Verdict, judge};
use crate::powers::Powers;
use crate::removal::{self, RunDirectory};
use crate::{Error, Result, TreeEntry, at, image, seen, strays};

/// One case and its verdict.
pub type CaseResult = (Case, Judgement);

/// Where absolute paths and links of cases lead.
pub const CANARY: &str = "/tmp/strata-conform-canary";

/// How long a process may take after which it is asked again.
const PAUSE: Duration = Duration::from_millis(5);

/// How many runs this process has begun.
static RUNS: AtomicU64 = AtomicU64::new(0);

/// The directory of one run.
struct Ground {
    dir: RunDirectory,
}

impl Ground {
    fn new(case: &Case, unpacker: &Unpacker) -> Result<Self> {
        // Short, for podman takes no directory of more than 50 bytes for what it keeps of a run.
        let number = RUNS.fetch_add(1, Ordering::Relaxed);
        // A run that was killed leaves its directory, and another process gets its id. No capital
        // letters, which tempfile would draw too: some unpackers make a name of the path.
        let drawn = RandomState::new().hash_one(number) & 0xffff;
        let name = format!("conform.{}-{number}-{drawn:04x}", std::process::id());
        let dir = tempfile::Builder::new().prefix(&name).rand_bytes(0).tempdir();
        let ground = Self { dir: RunDirectory::new("the directory of a run", dir)? };
        for dir in [ground.out(), ground.path("work")] {
            at(dir.display(), fs::create_dir_all(&dir))?;
        }
        for canary in ["around/canary", "around/in/canary"] {
            make_canary(&ground.path(canary))?;
        }
        image::write_parts(&ground.path("layout"), &image::layout(case))?;
        if unpacker.script.contains("$ARCHIVE") {
            let archive = ground.path("docker.tar");
            at(archive.display(), fs::write(&archive, image::docker_archive(case)))?;
        }
        Ok(ground)
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    fn out(&self) -> PathBuf {
        self.path("around/in/out")
    }

    /// Everything that must stay as it is, without times of directories: `out` may be made again.
    fn surroundings(&self) -> Result<Vec<TreeEntry>> {
        let mut all = within(&self.path("around"), Some(&self.out()))?;
        let mut far = within(Path::new(CANARY), None)?;
        for entry in &mut far {
            entry.path = [CANARY.as_bytes(), b"/", &entry.path].concat();
            entry.inode = entry.path.clone();
        }
        all.extend(far);
        for entry in all.iter_mut().filter(|entry| entry.kind == "dir") {
            entry.mtime = None;
        }
        Ok(all)
    }

    /// A process of `sh` that knows the places.
    fn start(&self, script: &str, first: Option<&Path>, log: &str) -> Result<Child> {
        let log = self.path(log);
        let file = at(log.display(), File::create(&log))?;
        let other = at(log.display(), file.try_clone())?;
        let mut command = shell(script, first);
        command.stdout(other).stderr(file);
        command.current_dir(self.path("work")).process_group(0);
        command.env("LAYOUT", self.path("layout")).env("OUT", self.out());
        command.env("ARCHIVE", self.path("docker.tar"));
        at("sh", command.env("WORK", self.path("work")).spawn())
    }

    /// A text without the directory of this run.
    fn relative(&self, text: &str) -> String {
        text.replace(&self.dir.path().display().to_string(), "")
    }

    /// The last line of a log, without the directory of this run.
    fn said(&self, log: &str) -> String {
        let bytes = fs::read(self.path(log)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let line: String = self.relative(line).chars().take(300).collect();
        line.trim().escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'")
    }
}

/// All that is in a directory; nothing where there is none any more, for then all of it is gone.
fn within(top: &Path, but: Option<&Path>) -> Result<Vec<TreeEntry>> {
    use io::ErrorKind::{NotADirectory, NotFound};
    match fs::symlink_metadata(top) {
        Ok(facts) if facts.is_dir() => seen::tree(top, but),
        Ok(_) => Ok(Vec::new()),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(Vec::new()),
        Err(error) => at(top.display(), Err(error)),
    }
}

fn make_canary(dir: &Path) -> Result<()> {
    at(dir.display(), fs::create_dir_all(dir))?;
    at(dir.display(), fs::write(dir.join("keep"), "untouched"))
}

/// The absolute canary. Who has it has the directory around it locked: an unpacker may remove the
/// canary, and the turn of a run is not to go with it.
struct AbsoluteCanary {
    _turn: File,
}

impl AbsoluteCanary {
    fn new() -> Result<Self> {
        let path = Path::new(CANARY);
        let around = path.parent().unwrap_or(path);
        let turn = at(around.display(), File::open(around))?;
        let locked = flock(&turn, FlockOperation::LockExclusive).map_err(io::Error::from);
        at(around.display(), locked)?;
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::Io(CANARY.to_owned(), error)),
        }
        // One that a killed run left will do, if nobody else can change it.
        removal::detach_all(&real_canary())?;
        let facts = at(CANARY, fs::symlink_metadata(path))?;
        let is_ours = facts.uid() == rustix::process::geteuid().as_raw();
        if !facts.is_dir() || !is_ours || facts.mode() & 0o077 != 0 {
            return Err(Error::Canary(CANARY.to_owned()));
        }
        let canary = Self { _turn: turn };
        make_canary(path)?;
        Ok(canary)
    }
}

impl Drop for AbsoluteCanary {
    fn drop(&mut self) {
        // A failure leaves a directory in /tmp, which the next run takes over. What an unpacker put
        // in its place would be in the way.
        let _ = removal::clear(&real_canary());
    }
}

/// The absolute canary as the table of mounts has it.
fn real_canary() -> PathBuf {
    let path = Path::new(CANARY);
    let around = path.parent().and_then(|around| fs::canonicalize(around).ok());
    around.zip(path.file_name()).map_or_else(|| path.to_owned(), |(dir, name)| dir.join(name))
}

/// An image of one file: an unpacker that refuses it does not run here.
const PROBE: &str = "case probe
class cosmetic
spec unspecified
why one file
layer
  file a \"a\"
tree
  file a \"a\"
";

/// Gives all cases to the unpacker, and before them an image of one file: a program that refuses
/// everything would else seem to refuse what it must.
///
/// # Errors
/// As [`run`], and if the unpacker refuses the image of one file.
pub fn run_all(
    cases: Vec<Case>,
    unpacker: &Unpacker,
    timeout: Duration,
) -> Result<Vec<CaseResult>> {
    for probe in catalogue::parse("the probe", PROBE)? {
        let Judgement { verdict, reasons } = run(&probe, unpacker, timeout)?;
        if verdict == Verdict::Refused {
            let why = format!("refuses an image of one file: {}", reasons.join("; "));
            return Err(Error::CannotRun(unpacker.name.clone(), why));
        }
    }
    let judged = cases.into_iter().map(|case| {
        let judgement = run(&case, unpacker, timeout)?;
        Ok((case, judgement))
    });
    judged.collect()
}

/// Why what a case needs is not here.
fn hindrance(case: &Case, ground: &Ground, powers: Powers) -> Option<String> {
    match case.needs? {
        Need::Owners => (!powers.owners).then(|| {
            "the running user cannot give files any owner, so nothing is at stake; root can".into()
        }),
        Need::LinkToCanary => {
            let (kept, link) = (Path::new(CANARY).join("keep"), ground.path("work/tried-link"));
            let tried = fs::hard_link(kept, &link).and_then(|()| fs::remove_file(&link));
            let error = tried.err()?;
            let dir = ground.dir.path().parent()?.display();
            Some(format!(
                "{dir}, where temporary files go, has no hard links to {CANARY} ({error}), which \
                 would keep every unpacker from the escape: set TMPDIR to a directory of the file \
                 system of /tmp"
            ))
        }
    }
}

/// Gives the case to the unpacker, and judges what it does.
///
/// # Errors
/// If the unpacker cannot be started, what is around the root cannot be read, or what it has
/// mounted in the directory of the run cannot be detached.
pub fn run(case: &Case, unpacker: &Unpacker, timeout: Duration) -> Result<Judgement> {
    let ground = Ground::new(case, unpacker)?;
    let powers = Powers::tried(&ground.path("work"))?;
    let canary = AbsoluteCanary::new()?;
    if let Some(why) = hindrance(case, &ground, powers) {
        ground.dir.remove()?;
        return Ok(Judgement { verdict: Verdict::NotRun, reasons: vec![why] });
    }
    let before = ground.surroundings()?;
    let first = unpacker.first.as_deref();
    let ended = wait(ground.start(&unpacker.script, first, "said")?, timeout);
    let conduct = match ended {
        Ok(status) => conduct(unpacker, &ground, status, timeout),
        Err(error) => Err(error),
    };
    let after = ground.surroundings();
    let (asked, dir, but) = (case.clone(), ground.dir.path().to_owned(), ground.path("around"));
    let strays = within_time(timeout, move || strays::find(&asked, &dir, &but));
    let cleaning = ground.start(&unpacker.cleanup, first, "cleaned");
    let cleaned = cleaning.and_then(|child| wait(child, timeout));
    let removed = ground.dir.remove();
    drop(canary);
    removed?;
    let mut changes = changes(&before, &after?);
    let made = |path: &PathBuf| format!("outside of the root: {} was made", path.display());
    changes.extend(strays.iter().flatten().map(made));
    if !changes.is_empty() {
        // Also where nothing is left to clean.
        return Ok(judge(case, &Conduct::Escaped(changes), powers));
    }
    cleaned?;
    Ok(judge(case, &conduct?, powers))
}

/// What `look` returns, or nothing if it takes longer: a mount may never answer. The thread that
/// waits for it then ends when the mount does, or with the process.
fn within_time<T: Send + 'static>(
    timeout: Duration,
    look: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (send, receive) = mpsc::channel();
    // Nobody may be there to hear it any more.
    std::thread::spawn(move || drop(send.send(look())));
    receive.recv_timeout(timeout).ok()
}

fn conduct(
    unpacker: &Unpacker,
    ground: &Ground,
    ended: Option<ExitStatus>,
    timeout: Duration,
) -> Result<Conduct> {
    let Some(status) = ended else { return Ok(Conduct::Broke("did not end".to_owned())) };
    let said = ground.said("said");
    Ok(match (status.code(), status.signal()) {
        (Some(0), _) => {
            let out = ground.out();
            let look = move || {
                // Never through a link: what it leads to is not the root file system.
                let is_dir = fs::symlink_metadata(&out).is_ok_and(|out| out.is_dir());
                is_dir.then(|| seen::tree(&out, None))
            };
            match within_time(timeout, look) {
                Some(Some(Ok(tree))) => Conduct::Unpacked(tree),
                Some(Some(Err(error))) => {
                    let error = ground.relative(&error.to_string());
                    Conduct::Broke(format!("the tree cannot be read: {error}"))
                }
                Some(None) => Conduct::Broke("the root is no directory any more".to_owned()),
                None => Conduct::Broke("the tree was not read in time".to_owned()),
            }
        }
        // The shell has not found or not started the program.
        (Some(126 | 127), _) => return Err(Error::CannotRun(unpacker.name.clone(), said)),
        // As a shell tells the signal that has ended its program.
        (Some(code @ 129..=192), _) => Conduct::Broke(format!("ended by signal {}", code - 128)),
        (Some(_), _) => Conduct::Refused(said),
        (None, signal) => Conduct::Broke(format!("ended by signal {}", signal.unwrap_or(0))),
    })
}

/// The status, or none if the process and its group had to be killed.
pub(crate) fn wait(mut child: Child, timeout: Duration) -> Result<Option<ExitStatus>> {
    let end = Instant::now() + timeout;
    loop {
        if let Some(status) = at("sh", child.try_wait())? {
            return Ok(Some(status));
        }
        if Instant::now() > end {
            let group = rustix::process::Pid::from_child(&child);
            let killed = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            at("sh", killed.map_err(io::Error::from))?;
            at("sh", child.wait())?;
            return Ok(None);
        }
        std::thread::sleep(PAUSE);
    }
}

/// What differs around the root file system.
fn changes(before: &[TreeEntry], after: &[TreeEntry]) -> Vec<String> {
    let mut found = Vec::new();
    let mut add = |entry: &TreeEntry, what: &str| {
        found.push(format!("outside of the root: {} {what}", entry.path.escape_ascii()));
    };
    for entry in before {
        match after.iter().find(|other| other.path == entry.path) {
            None => add(entry, "is gone"),
            Some(other) if other != entry => add(entry, "was changed"),
            Some(_) => {}
        }
    }
    for entry in after.iter().filter(|entry| !before.iter().any(|old| old.path == entry.path)) {
        add(entry, "was made");
    }
    found
}
