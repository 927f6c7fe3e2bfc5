//! What threads that answer strangers give up before the first question.
//!
//! ```text
//! Confinement   capabilities       files              programs   TCP       who takes it
//! reader        to read all        some, to be read   none       none      image mounts, without a
//!                                                                          writable layer
//! server        to read and write  some, as before    none       none      strata serve
//! writer        those for files    all                all        none      writable mounts, layer
//!                                                                          stores
//! mounter       the same           all                all        all       strata-snapshotter
//! ```
//!
//! A confinement holds for the thread that enters it and for those that this thread starts. Other
//! threads of the process keep what they have: the one that unmounts needs it. So it stops what a
//! request makes a serving thread do, a path that leads out of the store say; it does not hold code
//! that a stranger runs inside of the process.
//!
//! A mounter changes the mount table, which Landlock refuses to every thread that has entered any
//! of its rules: it gives up capabilities alone.
//!
//! Files, programs and TCP are Landlock's (landlock(7); Linux 5.13, and 6.7 for TCP), where the
//! kernel has it. Every thread that enters can gain nothing by running programs (`no_new_privs`,
//! prctl(2)).
//!
//! Invariants: nothing is ever gained; what is open stays open, and what can be done through it
//! stays possible; whatever cannot be given up is told, and the rest is given up all the same.

use std::io;
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, PathFdError, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// The kernel interface that the rules are written for; of an older one the rules hold that it
/// knows.
const KNOWN: ABI = ABI::V6;

/// What could not be given up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system call that failed.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
    /// A directory that stays readable cannot be opened.
    #[error("cannot open {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: PathFdError,
    },
    /// The kernel has no Landlock, or a container forbids to ask for it.
    #[error("this kernel bounds neither files nor programs nor TCP: it has no Landlock")]
    NoLandlock,
    /// The rules for files and the network.
    #[error("landlock: {0}")]
    Rules(#[from] RulesetError),
}

/// See [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What a thread keeps. See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confinement {
    capabilities: CapabilitySet,
    files: Reach,
    /// TCP connections can be made.
    tcp: bool,
}

/// Which files can be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reach {
    /// Whatever the owner and the modes allow.
    All,
    /// Those beneath the directories, to be read.
    Reading(Vec<PathBuf>),
    /// Those beneath the directories.
    Beneath(Vec<PathBuf>),
    /// All, and file systems can be mounted.
    Mounts,
}

impl Confinement {
    /// For threads that only read, and only beneath these directories.
    pub fn reader(beneath: Vec<PathBuf>) -> Self {
        // A store may be another user's.
        let capabilities = CapabilitySet::DAC_READ_SEARCH;
        Self { capabilities, files: Reach::Reading(beneath), tcp: false }
    }

    /// The same, and the kernel is handed the files that it is to read by itself
    /// (`FUSE_DEV_IOC_BACKING_OPEN` requires `CAP_SYS_ADMIN`).
    #[must_use]
    pub fn handing_over(mut self) -> Self {
        self.capabilities |= CapabilitySet::SYS_ADMIN;
        self
    }

    /// For threads that work with whatever is beneath these directories.
    pub fn server(beneath: Vec<PathBuf>) -> Self {
        let capabilities = CapabilitySet::DAC_READ_SEARCH | CapabilitySet::DAC_OVERRIDE;
        Self { capabilities, files: Reach::Beneath(beneath), tcp: false }
    }

    /// For threads that do to files what others ask for, in their name: everything that is about
    /// owners, modes, attributes and devices is kept.
    pub fn writer() -> Self {
        let capabilities = CapabilitySet::CHOWN
            | CapabilitySet::DAC_OVERRIDE
            | CapabilitySet::DAC_READ_SEARCH
            | CapabilitySet::FOWNER
            | CapabilitySet::FSETID
            | CapabilitySet::SETGID
            | CapabilitySet::SETUID
            | CapabilitySet::LINUX_IMMUTABLE
            | CapabilitySet::MKNOD
            | CapabilitySet::LEASE
            | CapabilitySet::SETFCAP
            // Labels, blocks that are kept for root, and `trusted` attributes.
            | CapabilitySet::MAC_ADMIN
            | CapabilitySet::SYS_RESOURCE
            | CapabilitySet::SYS_ADMIN;
        Self { capabilities, files: Reach::All, tcp: false }
    }

    /// For processes that mount file systems and start other programs.
    pub fn mounter() -> Self {
        Self { files: Reach::Mounts, tcp: true, ..Self::writer() }
    }

    /// The same, and registries can be asked.
    #[must_use]
    pub fn fetching(mut self) -> Self {
        self.tcp = true;
        self
    }

    /// Gives up everything else, for this thread and those that it will start. What could not be
    /// given up is logged, as information: most often the kernel has no Landlock.
    pub fn enter(&self) {
        for kept in self.give_up() {
            tracing::info!("the threads that answer keep more than they need: {kept}");
        }
    }

    /// The same; tells what could not be given up.
    fn give_up(&self) -> Vec<Error> {
        let mut kept = Vec::new();
        let mut note = |result: Result<()>| kept.extend(result.err());
        note(system("no_new_privs", rustix::thread::set_no_new_privs(true)));
        note(self.restrict());
        note(self.drop_capabilities());
        kept
    }

    fn drop_capabilities(&self) -> Result<()> {
        let has = system("capget", rustix::thread::capabilities(None))?;
        let sets = CapabilitySets {
            effective: has.effective & self.capabilities,
            permitted: has.permitted & self.capabilities,
            inheritable: CapabilitySet::empty(),
        };
        system("capset", rustix::thread::set_capabilities(None, sets))
    }

    /// Has Landlock refuse files, programs and TCP.
    fn restrict(&self) -> Result<()> {
        let files = AccessFs::from_all(KNOWN);
        let mut rules = Ruleset::default().scope(Scope::AbstractUnixSocket)?;
        if !self.tcp {
            rules = rules.handle_access(AccessNet::from_all(KNOWN))?;
        }
        let rules = match &self.files {
            Reach::Mounts => return Ok(()),
            // A rule about files would refuse links between directories, and files that are not
            // below `/`, such as those of a mount that is shown nowhere.
            Reach::All => rules.create()?,
            Reach::Reading(beneath) => {
                let read = AccessFs::ReadFile | AccessFs::ReadDir;
                allow(rules.handle_access(files)?.create()?, beneath, read)?
            }
            Reach::Beneath(beneath) => {
                let all = files & !BitFlags::from(AccessFs::Execute);
                allow(rules.handle_access(files)?.create()?, beneath, all)?
            }
        };
        match rules.restrict_self()?.ruleset {
            RulesetStatus::NotEnforced => Err(Error::NoLandlock),
            // An older kernel bounds what it knows.
            RulesetStatus::PartiallyEnforced | RulesetStatus::FullyEnforced => Ok(()),
        }
    }
}

fn allow(
    mut rules: RulesetCreated,
    beneath: &[PathBuf],
    what: BitFlags<AccessFs>,
) -> Result<RulesetCreated> {
    for path in beneath {
        let directory =
            PathFd::new(path).map_err(|source| Error::Directory { path: path.clone(), source })?;
        rules = rules.add_rule(PathBeneath::new(directory, what))?;
    }
    Ok(rules)
}

fn system<T>(what: &'static str, result: rustix::io::Result<T>) -> Result<T> {
    result.map_err(|errno| Error::System(what, errno.into()))
}

#[cfg(test)]
mod tests;
