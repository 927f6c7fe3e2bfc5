//! One sequence on one union: a rule with its expectation, or operations that are done on the mount
//! and in a plain directory alike.
//!
//! Invariants: each sequence has directories of its own; what the union does wrong is a difference,
//! and an error is only what keeps the suite from asking; a sequence ends at its first operation
//! that differs, for what follows it would tell the same difference again.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::mount::MountFlags;

use super::ground::{self, UnionGround};
use super::mounts::{self, Mounted, UnionMount};
use super::operation::{Failure, Operation, RuleStep, SequenceState, errno_name};
use super::rules::Rule;
use super::script;
use crate::judge::{Judgement, Verdict, differences, is_own};
use crate::powers::Powers;
use crate::{Error, Result, TreeEntry, at, seen};

/// Where the directories of a sequence are made, and what can be made there.
#[derive(Debug, Clone)]
pub struct UnionPlace {
    dir: Option<std::path::PathBuf>,
    powers: Powers,
}

impl UnionPlace {
    /// A directory, or where temporary files go.
    ///
    /// # Errors
    /// If nothing can be made there.
    pub fn new(dir: Option<&Path>) -> Result<Self> {
        let ground = UnionGround::new(dir, &[])?;
        let powers = Powers::tried(&ground.path("plain"))?;
        Ok(Self { dir: dir.map(Path::to_owned), powers })
    }

    /// What can be made there.
    #[must_use]
    pub fn powers(&self) -> Powers {
        self.powers
    }

    /// Whether whiteouts and opaque directories can be made here.
    #[must_use]
    pub fn can_make_marks(&self) -> bool {
        self.powers.devices && self.powers.privileged_xattrs
    }

    /// Whether the lowers can be made here: marks need devices and `trusted.` attributes, and some
    /// file systems keep no attributes at all.
    #[must_use]
    pub fn can_make(&self, lowers: &[Vec<TreeEntry>]) -> bool {
        lowers.iter().flatten().all(|entry| {
            let is_device = entry.kind == "char" || entry.kind == "block";
            let owned = entry.uid.unwrap_or(0) != 0 || entry.gid.unwrap_or(0) != 0;
            let mut names = entry.xattrs.iter().flat_map(|all| all.keys());
            (!is_device || self.powers.devices)
                && (!owned || self.powers.owners)
                && names.all(|name| self.can_set(name))
        })
    }

    /// Why the kernel does not mount the uppers of this union here, so that they are not compared:
    /// an older kernel, or in a user namespace, lacks options or all of overlayfs. None where it
    /// does, and where it is not asked.
    #[must_use]
    pub fn kernel_refusal(&self, union: &UnionMount) -> Option<Error> {
        let options = union.kernel_options.as_ref()?;
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let tried = UnionGround::new(self.dir.as_deref(), &[Vec::new()]).and_then(|ground| {
            let mounted = kernel_mount(&ground, options);
            ground.remove()?;
            mounted
        });
        tried.err()
    }

    fn can_set(&self, xattr: &[u8]) -> bool {
        match xattr.starts_with(b"user.") {
            true => self.powers.user_xattrs,
            false => self.powers.privileged_xattrs,
        }
    }
}

impl UnionPlace {
    /// Whether a rule can be asked here: its lowers can be made, and its operations are such as the
    /// running user may do in a plain directory.
    #[must_use]
    pub fn can_play(&self, rule: &Rule) -> bool {
        self.can_make(&rule.lowers)
            && rule.steps.iter().all(|RuleStep { operation, .. }| match operation {
                Operation::Chown { .. } => self.powers.owners,
                Operation::Node { kind, .. } => {
                    matches!(kind, FileType::Fifo | FileType::Socket) || self.powers.devices
                }
                Operation::SetXattr { name, .. } | Operation::RemoveXattr { name, .. } => {
                    self.can_set(name)
                }
                _ => true,
            })
    }
}

/// A sequence that goes on.
struct Play<'a> {
    union: &'a UnionMount,
    ground: &'a UnionGround,
    mounted: Option<Mounted<'a>>,
    kept: SequenceState,
    before: Vec<Vec<TreeEntry>>,
}

impl<'a> Play<'a> {
    fn new(union: &'a UnionMount, ground: &'a UnionGround) -> Result<Self> {
        let before = lowers(ground)?;
        let mounted = Some(Mounted::new(union, ground)?);
        Ok(Self { union, ground, mounted, kept: SequenceState::default(), before })
    }

    /// Does one operation on the mount. The outer error is the suite's, or says that the union
    /// cannot be mounted again.
    fn step(&mut self, operation: &Operation) -> Result<std::result::Result<(), Failure>> {
        match operation {
            Operation::Remount => self.remount()?,
            Operation::Kill => self.kill()?,
            _ => {}
        }
        Ok(operation.apply(&self.ground.path("mnt"), &mut self.kept))
    }

    fn remount(&mut self) -> Result<()> {
        self.kept.close();
        if let Some(mounted) = self.mounted.take() {
            mounted.unmount()?;
        }
        self.mounted = Some(Mounted::new(self.union, self.ground)?);
        Ok(())
    }

    /// Kills whoever serves the mount, and mounts again. If that is not found, the mount stands.
    fn kill(&mut self) -> Result<()> {
        self.kept.close();
        if let Some(mounted) = &mut self.mounted
            && !mounted.kill()?
        {
            return Err(Error::NoDaemon(self.union.name.clone()));
        }
        self.mounted = Some(Mounted::new(self.union, self.ground)?);
        Ok(())
    }

    /// The checks at the end of every sequence. `judge` compares a tree with what is expected.
    fn finish(
        mut self,
        kernel: bool,
        mut judge: impl FnMut(Vec<TreeEntry>) -> Vec<String>,
    ) -> Result<Vec<String>> {
        let mnt = self.ground.path("mnt");
        let mut look = |when: &str| match seen::tree(&mnt, None) {
            Ok(tree) => told(when, judge(tree)),
            Err(error) => vec![format!("{when}the tree cannot be read: {error}")],
        };
        self.kept.close();
        let mut found = look("");
        if found.is_empty() {
            match self.remount() {
                Ok(()) => found = look("after a remount: "),
                Err(error) => found.push(format!("cannot be remounted: {error}")),
            }
        }
        if let Some(Err(error)) = self.mounted.take().map(Mounted::unmount) {
            found.push(format!("cannot be unmounted: {error}"));
        }
        for (number, (before, dir)) in self.before.iter().zip(self.ground.lowers()).enumerate() {
            let changed = match seen::tree(&dir, None) {
                Ok(after) => differences_of_all(before, &after),
                Err(error) => vec![error.to_string()],
            };
            found.extend(told(&format!("lower {number} was changed: "), changed));
        }
        if let (Some(options), true, true) = (&self.union.kernel_options, kernel, found.is_empty())
            && rustix::process::geteuid().is_root()
        {
            match kernel_mount(self.ground, options) {
                Ok(()) => {
                    found = look("the upper, mounted by the kernel: ");
                    at(mnt.display(), mounts::unmount(&mnt))?;
                }
                // It mounts others (`UnionPlace::kernel_refusal`).
                Err(error) => found.push(error.to_string()),
            }
        }
        Ok(found.iter().map(|text| self.ground.relative(text)).collect())
    }
}

fn told(when: &str, found: Vec<String>) -> Vec<String> {
    found.into_iter().map(|text| format!("{when}{text}")).collect()
}

fn lowers(ground: &UnionGround) -> Result<Vec<Vec<TreeEntry>>> {
    ground.lowers().map(|dir| seen::tree(&dir, None)).collect()
}

/// What differs between two states of a directory, all facts counted.
fn differences_of_all(before: &[TreeEntry], after: &[TreeEntry]) -> Vec<String> {
    let all = Powers { owners: true, devices: true, user_xattrs: true, privileged_xattrs: true };
    differences(before, after, all)
}

/// Mounts the upper and the lowers with the kernel's overlayfs, read-only.
fn kernel_mount(ground: &UnionGround, options: &str) -> Result<()> {
    let upper = ground.path("upper");
    let mut data = format!("lowerdir={}:{}", upper.display(), ground.lowerdir());
    if !options.is_empty() {
        data = format!("{},{data}", options.replace("redirect_dir=on", "redirect_dir=follow"));
    }
    let data = std::ffi::CString::new(data).unwrap_or_default();
    let mnt = ground.path("mnt");
    let done =
        rustix::mount::mount("o", &mnt, "overlay", MountFlags::RDONLY, Some(data.as_c_str()));
    at("the kernel's overlayfs of the upper", done.map_err(Into::into))
}

/// Plays a rule, and judges.
///
/// # Errors
/// If the union cannot be mounted, the directories cannot be read, or something stays mounted.
pub fn play_rule(union: &UnionMount, rule: &Rule, place: &UnionPlace) -> Result<Judgement> {
    let ground = UnionGround::new(place.dir.as_deref(), &rule.lowers)?;
    let judged = judged(union, rule, place, &ground);
    ground.remove()?;
    judged
}

fn judged(
    union: &UnionMount,
    rule: &Rule,
    place: &UnionPlace,
    ground: &UnionGround,
) -> Result<Judgement> {
    at("the merged lowers", ground::lay(&ground.path("merged"), &ground::merge(&rule.lowers)))?;
    let mut play = Play::new(union, ground)?;
    let mut lesser = Vec::new();
    for RuleStep { operation, fails, may } in &rule.steps {
        let what = script::line(operation);
        let done = match play.step(operation) {
            Ok(done) => done,
            Err(error @ Error::NoDaemon(_)) => {
                let reasons = vec![error.to_string()];
                return Ok(Judgement { verdict: Verdict::NotRun, reasons });
            }
            Err(error) => {
                return Ok(wrong(vec![ground.relative(&format!("{what}: {error}"))]));
            }
        };
        match (done, fails) {
            (Ok(()), None) => {}
            (Err(Failure::Errno(errno)), Some(expected)) if errno == *expected => {}
            (Err(Failure::Errno(errno)), _) if may.contains(&errno) => {
                lesser.push(format!("{what}: {}", errno_name(errno)));
            }
            (done, fails) => return Ok(wrong(vec![difference(&what, &done, *fails)])),
        }
    }
    // With what was refused in part, neither tree is right.
    let is_refused = lesser.len() == rule.steps.iter().filter(|step| !step.may.is_empty()).count();
    let refused = rule.refused.as_ref().filter(|_| is_refused);
    // How an allowed tree differs from the first one.
    let mut first = Vec::new();
    let found = play.finish(rule.kernel, |tree| {
        let each = rule
            .trees
            .iter()
            .chain(refused)
            .map(|expected| differences(expected, &tree, place.powers));
        let each: Vec<Vec<String>> = each.collect();
        let nearest = each.iter().min_by_key(|found| found.len()).cloned().unwrap_or_default();
        if nearest.is_empty() && first.is_empty() {
            first = each.into_iter().next().unwrap_or_default();
        }
        nearest
    })?;
    lesser.extend(first);
    Ok(match (found.is_empty(), lesser.is_empty()) {
        (false, _) => wrong(found),
        (true, true) => Judgement { verdict: Verdict::Pass, reasons: Vec::new() },
        (true, false) => Judgement { verdict: Verdict::Allowed, reasons: lesser },
    })
}

fn wrong(reasons: Vec<String>) -> Judgement {
    Judgement { verdict: Verdict::Wrong, reasons }
}

/// How an operation ended, and how it should have.
fn difference(
    what: &str,
    done: &std::result::Result<(), Failure>,
    expected: Option<Errno>,
) -> String {
    let expected = expected.map_or_else(|| "success".to_owned(), errno_name);
    match done {
        Ok(()) => format!("{what}: success, expected {expected}"),
        Err(Failure::Errno(errno)) => {
            format!("{what}: {}, expected {expected}", errno_name(*errno))
        }
        Err(Failure::Answer(said)) => said.clone(),
    }
}

/// What a search passes over, so that it finds what lies behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Ignored {
    /// Times of the last change.
    Times,
    /// Extended attributes.
    Xattrs,
    /// Names that begin with `.wh.`, which some unions keep for themselves: none is drawn.
    OciNames,
    /// Operations that the union refuses with EINVAL, EPERM, EOPNOTSUPP or EXDEV.
    Refusals,
}

/// Does the operations on the mount and in a plain directory, and returns the differences but those
/// of what is `ignored`.
///
/// A rename of a directory that ends with EXDEV on the mount is left out in the plain directory:
/// overlayfs.rst allows it.
///
/// # Errors
/// As [`play_rule`].
pub fn play_pair(
    union: &UnionMount,
    lowers: &[Vec<TreeEntry>],
    operations: &[Operation],
    place: &UnionPlace,
    ignored: &[Ignored],
) -> Result<Vec<String>> {
    let ground = UnionGround::new(place.dir.as_deref(), lowers)?;
    let found = found_by_pair(union, lowers, operations, &ground, (place.powers, ignored));
    ground.remove()?;
    found
}

fn found_by_pair(
    union: &UnionMount,
    lowers: &[Vec<TreeEntry>],
    operations: &[Operation],
    ground: &UnionGround,
    (powers, ignored): (Powers, &[Ignored]),
) -> Result<Vec<String>> {
    let merged = ground::merge(lowers);
    let plain = ground.path("plain");
    for name in ["merged", "plain"] {
        at(name, ground::lay(&ground.path(name), &merged))?;
    }
    let mut kept = SequenceState::default();
    let mut play = Play::new(union, ground)?;
    for operation in operations {
        let what = script::line(operation);
        let mut tried = play.step(operation);
        if matches!(tried, Err(Error::NoDaemon(_))) {
            // The tree has to be the same all the same.
            tried = play.step(&Operation::Remount);
        }
        let done = match tried {
            Ok(done) => done,
            Err(error) => return Ok(vec![ground.relative(&format!("{what}: {error}"))]),
        };
        if is_passed_over(operation, &done, &plain, ignored) {
            continue;
        }
        let reference = operation.apply(&plain, &mut kept);
        if done != reference {
            let expected = match &reference {
                Ok(()) => None,
                Err(Failure::Errno(errno)) => Some(*errno),
                Err(Failure::Answer(said)) => return Ok(vec![said.clone()]),
            };
            return Ok(vec![difference(&what, &done, expected)]);
        }
    }
    let expected = comparable(seen::tree(&plain, None)?, ignored);
    play.finish(true, |tree| differences(&expected, &comparable(tree, ignored), powers))
}

/// Whether the operation is left out in the plain directory.
fn is_passed_over(
    operation: &Operation,
    done: &std::result::Result<(), Failure>,
    plain: &Path,
    ignored: &[Ignored],
) -> bool {
    let Err(Failure::Errno(errno)) = done else { return false };
    let refusals = [Errno::INVAL, Errno::PERM, Errno::OPNOTSUPP, Errno::XDEV];
    ignored.contains(&Ignored::Refusals) && refusals.contains(errno)
        || *errno == Errno::XDEV && moves_directory(operation, plain)
}

fn moves_directory(operation: &Operation, plain: &Path) -> bool {
    let Operation::Rename { from, to, .. } = operation else { return false };
    let is_dir = |path: &[u8]| {
        let facts = plain.join(OsStr::from_bytes(path)).symlink_metadata();
        facts.is_ok_and(|facts| facts.is_dir())
    };
    is_dir(from) || is_dir(to)
}

/// From this time on a time is that of an operation, in seconds since 1970: what is set on purpose
/// lies before it.
const RECENT: i64 = 1_500_000_000;

/// The tree with one time for all that were changed by operations, without times of directories,
/// which may be those of a copy, and without attributes that nobody has asked for: where SELinux
/// labels all files, it gives those of a plain directory other labels than those of a mount.
fn comparable(mut tree: Vec<TreeEntry>, ignored: &[Ignored]) -> Vec<TreeEntry> {
    for entry in &mut tree {
        if ignored.contains(&Ignored::Xattrs) {
            entry.xattrs = None;
        }
        if let Some(all) = &mut entry.xattrs {
            all.retain(|name, _| !is_own(name));
        }
        match entry.mtime {
            _ if entry.kind == "dir" || ignored.contains(&Ignored::Times) => entry.mtime = None,
            Some((seconds, _)) if seconds >= RECENT => entry.mtime = Some((RECENT, 0)),
            _ => {}
        }
    }
    tree
}

#[cfg(test)]
mod tests {
    use strata_testkit::needs;

    use super::*;

    #[test]
    fn a_kernel_that_mounts_no_such_upper_is_not_asked() {
        if !needs::root() {
            return;
        }
        let place = UnionPlace::new(None).unwrap();
        let mut union = mounts::find("true %lower %upper %mnt", None, None).unwrap();
        assert!(place.kernel_refusal(&union).is_none());
        union.kernel_options = Some(String::new());
        assert!(place.kernel_refusal(&union).is_none());
        union.kernel_options = Some("no_such_option=on".to_owned());
        let why = place.kernel_refusal(&union).unwrap().to_string();
        assert!(why.contains("the kernel's overlayfs of the upper"), "{why}");
        assert_eq!(super::super::cli::compared_as_possible(union, &place).kernel_options, None);
    }

    #[test]
    fn labels_of_a_plain_directory_are_not_asked_of_a_mount() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "a").unwrap();
        let mounted = seen::tree(dir.path(), None).unwrap();
        let mut plain = mounted.clone();
        for all in plain.iter_mut().filter_map(|entry| entry.xattrs.as_mut()) {
            all.insert(b"security.selinux".to_vec(), b"label".to_vec());
        }
        let differ = |plain: &[TreeEntry]| {
            let expected = comparable(plain.to_vec(), &[]);
            differences_of_all(&expected, &comparable(mounted.clone(), &[]))
        };
        assert_eq!(differ(&plain), Vec::<String>::new());
        plain[1].xattrs.get_or_insert_default().insert(b"user.a".to_vec(), b"b".to_vec());
        assert_eq!(differ(&plain), ["a: user.a is missing"]);
    }
}
