//! One layer: each member against the checks, and what the layer does to the names below.
//!
//! Invariant: nothing of the names below changes before the whole layer was read, for programs
//! disagree on the order as well.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZeroU32;

use strata_diff::tar::{DiffError, Member, MemberKind};
use strata_layer::Limits;

use super::LintFinding;
use super::begun::BegunDirs;
use super::checks::{self, Check};

/// What is kept of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NameFacts {
    kind: NameKind,
    /// Whether it has what a directory without an entry gets: 0755, root, no attributes.
    is_plain: bool,
    /// Bytes of a file.
    pub(super) size: u64,
    /// What is the same for all names of a file that has several.
    pub(super) file: Option<NonZeroU32>,
    attributes: NameAttributes,
    /// The layer that has it, from the base on.
    pub(super) layer: usize,
}

/// Permissions, owner, group, and the time in seconds.
type NameAttributes = (u16, u32, u32, i64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NameKind {
    Directory,
    Symlink,
    /// A FIFO or a device.
    Special,
    /// A file, or a second name of something.
    Other,
}

impl NameFacts {
    pub(super) fn is_dir(&self) -> bool {
        self.kind == NameKind::Directory
    }

    /// Whether it is a file with bytes, which a hard link may share.
    pub(super) fn has_bytes(&self) -> bool {
        self.kind == NameKind::Other && self.size > 0
    }

    /// Whether it may be a hard link of which no bytes are known.
    pub(super) fn is_bare_link(&self) -> bool {
        self.kind == NameKind::Other && self.size == 0
    }
}

/// What is on the way to a name in place of a directory.
enum Above {
    Link(Vec<u8>),
    File(Vec<u8>),
}

/// What a layer does.
#[derive(Debug, Default)]
pub(super) struct LayerChanges {
    pub(super) found: Vec<LintFinding>,
    /// Whiteouts, and opaque directories.
    pub(super) gone: Vec<Vec<u8>>,
    pub(super) emptied: Vec<Vec<u8>>,
    /// Hard links with their targets, in the order of the layer.
    pub(super) links: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) names: BTreeMap<Vec<u8>, NameFacts>,
    pub(super) attributes: DirectoryAttributes,
}

/// The names of the attributes of directories that have any.
pub(super) type DirectoryAttributes = BTreeMap<Vec<u8>, Vec<Vec<u8>>>;

/// A layer that is being read.
pub(super) struct LayerLint<'a> {
    label: &'a str,
    limits: &'a Limits,
    below: &'a BTreeMap<Vec<u8>, NameFacts>,
    attributes_below: &'a DirectoryAttributes,
    changes: LayerChanges,
    /// Hard links, whose targets may come later: path, target, and what the link itself says.
    links: Vec<(Vec<u8>, Vec<u8>, NameAttributes)>,
    /// Directories in which something was named before now.
    begun: BegunDirs,
    /// Those of them that a layer below describes, and not as one without an entry would be.
    described_below: Vec<Vec<u8>>,
    /// The first path of each name that has capitals, by its directory and the name without them.
    folded: HashMap<Vec<u8>, Vec<u8>>,
    /// The directory of the member before, if it has only directories above it: most members are in
    /// the same one.
    none_above: Option<Vec<u8>>,
    /// The directory of the member before.
    last_begun: Option<Vec<u8>>,
}

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

impl<'a> LayerLint<'a> {
    pub(super) fn new(
        label: &'a str,
        limits: &'a Limits,
        below: &'a BTreeMap<Vec<u8>, NameFacts>,
        attributes_below: &'a DirectoryAttributes,
    ) -> Self {
        Self {
            label,
            limits,
            below,
            attributes_below,
            changes: LayerChanges::default(),
            links: Vec::new(),
            begun: BegunDirs::default(),
            described_below: Vec::new(),
            folded: HashMap::new(),
            none_above: None,
            last_begun: None,
        }
    }

    fn add(&mut self, check: &'static Check, path: &[u8], detail: impl Into<String>) {
        self.changes.found.push(LintFinding {
            check,
            layer: self.label.to_owned(),
            path: path.to_vec(),
            detail: detail.into(),
            bytes: 0,
        });
    }

    /// Judges one member, unless its path passes a bound, as unpacking it would.
    pub(super) fn member(&mut self, member: &Member) -> Result<(), DiffError> {
        let path = cleaned(&member.path);
        if let Some(path) = path.as_deref().filter(|path| !path.is_empty()) {
            let depth = path.split(|byte| *byte == b'/').count() as u64;
            let limits = self.limits;
            self.bound(member, "path components", depth, limits.depth, "--max-depth")?;
            let bytes = member.path.len() as u64;
            self.bound(member, "bytes in a path", bytes, limits.path_bytes, "--max-path")?;
        }
        let Some(path) = path else {
            self.add(&checks::PATH_ESCAPES, &member.path, "");
            return Ok(());
        };
        let (parent, name) = split(&path);
        if name.starts_with(WHITEOUT) {
            self.whiteout(member, &path, parent, name);
        } else {
            self.name(member, &path, parent);
            self.facts(member, &path);
        }
        // A directory is begun with all that are above it, described or not.
        if path.is_empty() || self.last_begun.as_deref() == Some(parent) {
            return Ok(());
        }
        for dir in self.begun.begin(parent) {
            if self.below.get(dir).is_some_and(|facts| facts.is_dir() && !facts.is_plain) {
                self.described_below.push(dir.to_vec());
            }
        }
        self.last_begun = Some(parent.to_vec());
        Ok(())
    }

    fn bound(
        &self,
        member: &Member,
        bound: &'static str,
        n: u64,
        limit: u64,
        option: &'static str,
    ) -> Result<(), DiffError> {
        if n <= limit {
            return Ok(());
        }
        let (layer, offset) = (self.label.to_owned(), member.offset);
        Err(DiffError::Limit { layer, offset, bound, option, limit })
    }

    fn whiteout(&mut self, member: &Member, path: &[u8], parent: &[u8], name: &[u8]) {
        if name != OPAQUE && name.starts_with(b".wh..wh.") {
            self.add(&checks::WHITEOUT_OF_AUFS, path, "");
            return;
        }
        if member.kind != MemberKind::Regular || member.size > 0 {
            self.add(&checks::WHITEOUT_NOT_A_FILE, path, "");
            if member.kind == MemberKind::Directory {
                return;
            }
        }
        if let Some(Above::Link(link)) = self.above(parent) {
            self.add(&checks::WHITEOUT_BELOW_SYMLINK, path, shown(&link));
            return;
        }
        let known = |dir: &[u8]| self.changes.names.get(dir).or_else(|| self.below.get(dir));
        let is_dir = parent.is_empty()
            || self.begun.contains(parent)
            || known(parent).is_some_and(NameFacts::is_dir);
        if !is_dir {
            self.add(&checks::WHITEOUT_NOWHERE, path, "");
        }
        if name == OPAQUE {
            if parent.is_empty() {
                self.add(&checks::OPAQUE_ROOT, path, "");
            }
            if self.begun.contains(parent) {
                self.add(&checks::OPAQUE_AFTER_ENTRIES, path, "");
            }
            self.changes.emptied.push(parent.to_vec());
            return;
        }
        let hidden = &name[WHITEOUT.len()..];
        if [&b""[..], b".", b".."].contains(&hidden) {
            self.add(&checks::PATH_ESCAPES, path, "a whiteout of no name");
            return;
        }
        self.changes.gone.push(joined(parent, hidden));
    }

    /// The member as a name among names.
    fn name(&mut self, member: &Member, path: &[u8], parent: &[u8]) {
        if path.split(|byte| *byte == b'/').any(|name| name.len() > 255) || path.len() > 4095 {
            self.add(&checks::TOO_LONG, path, "");
        }
        match self.above(parent) {
            Some(Above::Link(link)) => self.add(&checks::BELOW_SYMLINK, path, shown(&link)),
            Some(Above::File(file)) => self.add(&checks::BELOW_FILE, path, shown(&file)),
            None => {}
        }
        let attributes = (member.perm, member.uid, member.gid, member.mtime.seconds);
        let is_dir = member.kind == MemberKind::Directory;
        self.case(path, parent);
        let kind = match &member.kind {
            MemberKind::Directory => NameKind::Directory,
            MemberKind::Symlink { .. } => NameKind::Symlink,
            MemberKind::HardLink { target } => {
                self.links.push((path.to_vec(), target.clone(), attributes));
                NameKind::Other
            }
            MemberKind::Regular => NameKind::Other,
            _ => NameKind::Special,
        };
        if is_dir {
            self.attributes(member, path);
        }
        let owner = (member.uid, member.gid);
        let is_plain = member.perm == 0o755 && owner == (0, 0) && member.xattrs.is_empty();
        if path.is_empty() && !is_plain {
            self.add(&checks::ROOT_DESCRIBED, b"", "");
        }
        let size = member.size;
        let facts = NameFacts { kind, is_plain, size, file: None, attributes, layer: 0 };
        if !is_dir {
            self.none_above = None;
        }
        match self.changes.names.insert(path.to_vec(), facts) {
            Some(first) if is_dir && first.is_dir() => {
                self.add(&checks::DIRECTORY_TWICE, path, "");
            }
            Some(_) => self.add(&checks::NAME_TWICE, path, ""),
            None => {}
        }
    }

    /// Whether the directory has the name in another case.
    fn case(&mut self, path: &[u8], parent: &[u8]) {
        let name = split(path).1;
        let has_capitals = name.iter().any(u8::is_ascii_uppercase);
        if !has_capitals && self.folded.is_empty() {
            return;
        }
        let folded = joined(parent, &name.to_ascii_lowercase());
        let twin = match self.folded.get(&folded) {
            Some(first) => Some(first.clone()),
            None => self.changes.names.contains_key(&folded).then(|| folded.clone()),
        };
        if let Some(twin) = twin.filter(|twin| twin != path) {
            self.add(&checks::CASE_TWINS, path, shown(&twin));
        }
        if has_capitals {
            self.folded.entry(folded).or_insert_with(|| path.to_vec());
        }
    }

    /// The attributes of a directory, beside those that it has below.
    fn attributes(&mut self, member: &Member, path: &[u8]) {
        let names: Vec<Vec<u8>> = member.xattrs.iter().map(|(name, _)| name.clone()).collect();
        let is_below = self.below.get(path).is_some_and(NameFacts::is_dir);
        let below = self.attributes_below.get(path).filter(|_| is_below);
        let gone = below.into_iter().flatten().filter(|name| !names.contains(name));
        let dropped: Vec<String> = gone.map(|name| shown(name)).collect();
        if !dropped.is_empty() {
            self.add(&checks::ATTRIBUTE_DROPPED, path, dropped.join(", "));
        }
        // Also where there are none any more.
        if !names.is_empty() || below.is_some() {
            self.changes.attributes.insert(path.to_vec(), names);
        }
    }

    /// What the member itself is.
    fn facts(&mut self, member: &Member, path: &[u8]) {
        match &member.kind {
            MemberKind::CharDevice(device) if (device.major, device.minor) == (0, 0) => {
                self.add(&checks::DEVICE_LIKE_WHITEOUT, path, "");
            }
            MemberKind::CharDevice(device) | MemberKind::BlockDevice(device) => {
                let detail = format!("{}:{}", device.major, device.minor);
                self.add(&checks::DEVICE, path, detail);
            }
            MemberKind::Regular if member.perm & 0o6000 != 0 => {
                let detail = format!("{:04o} {}:{}", member.perm, member.uid, member.gid);
                self.add(&checks::SETUID, path, detail);
            }
            _ => {}
        }
        if member.uid.max(member.gid) > 65_535 {
            let detail = format!("{}:{}", member.uid, member.gid);
            self.add(&checks::OWNER_BEYOND_65535, path, detail);
        }
        let seconds = member.mtime.seconds;
        if seconds < 0 {
            self.add(&checks::TIME_BEFORE_1970, path, format!("{seconds} seconds"));
        } else if seconds > (1 << 34) - (1 << 31) - 1 {
            self.add(&checks::TIME_AFTER_2446, path, format!("{seconds} seconds"));
        }
        for (name, value) in &member.xattrs {
            if value.is_empty() {
                self.add(&checks::EMPTY_ATTRIBUTE, path, shown(name));
            }
            let check = match name.as_slice() {
                b"security.capability" => &checks::CAPABILITY,
                name if is_mark(name) => &checks::MARK_OF_OVERLAYFS,
                name if name.starts_with(b"trusted.") || name.starts_with(b"security.") => {
                    &checks::PRIVILEGED_ATTRIBUTE
                }
                _ => continue,
            };
            self.add(check, path, shown(name));
        }
    }

    /// The first that is no directory on the way to `parent`: one of this layer, or of a layer
    /// below that this layer has not replaced.
    fn above(&mut self, parent: &[u8]) -> Option<Above> {
        if self.none_above.as_deref() == Some(parent) {
            return None;
        }
        let mut at = 0;
        while at < parent.len() {
            let end = parent[at..].iter().position(|byte| *byte == b'/');
            let end = end.map_or(parent.len(), |length| at + length);
            let dir = &parent[..end];
            let known = self.changes.names.get(dir).or_else(|| self.below.get(dir));
            match known.map(|facts| facts.kind) {
                Some(NameKind::Symlink) => return Some(Above::Link(dir.to_vec())),
                Some(NameKind::Other | NameKind::Special) => {
                    return Some(Above::File(dir.to_vec()));
                }
                Some(NameKind::Directory) | None => {}
            }
            at = end + 1;
        }
        self.none_above = Some(parent.to_vec());
        None
    }

    /// Told how many headers were for all members after them.
    pub(super) fn global_headers(&mut self, seen: u64) {
        if seen > 0 {
            self.add(&checks::GLOBAL_HEADER, b"", format!("{seen} headers"));
        }
    }

    /// What can be said once all members were read.
    pub(super) fn finish(mut self) -> LayerChanges {
        let hidden: HashSet<Vec<u8>> = self.changes.gone.iter().cloned().collect();
        for (path, target, attributes) in std::mem::take(&mut self.links) {
            let Some(clean) = cleaned(&target) else {
                self.add(&checks::LINK_ESCAPES, &path, shown(&target));
                continue;
            };
            self.changes.links.push((path.clone(), clean.to_vec()));
            let here = self.changes.names.get(&*clean).copied();
            let is_gone = hidden.contains(&*clean);
            let check = match (here, self.below.get(&*clean)) {
                (Some(facts), _) if facts.is_dir() => &checks::LINK_TO_DIRECTORY,
                (Some(facts), _) if facts.kind != NameKind::Other => &checks::LINK_TO_SPECIAL,
                (Some(facts), _) if facts.attributes != attributes => &checks::LINK_ATTRIBUTES,
                (Some(_), _) => continue,
                (None, Some(_)) if is_gone => &checks::LINK_TO_NOTHING,
                (None, Some(facts)) if facts.is_dir() => &checks::LINK_TO_DIRECTORY,
                (None, Some(_)) => &checks::LINK_ACROSS_LAYERS,
                (None, None) => &checks::LINK_TO_NOTHING,
            };
            self.add(check, &path, shown(&target));
        }
        let mut described = std::mem::take(&mut self.described_below);
        described.sort_unstable();
        described.retain(|dir| !self.changes.names.contains_key(dir));
        described.iter().for_each(|dir| self.add(&checks::DIRECTORY_NOT_DESCRIBED, dir, ""));
        let named = self.changes.names.keys().filter(|path| !path.is_empty());
        let timed = named.filter(|path| self.begun.contains(path)).count();
        if timed > 0 {
            self.add(&checks::DIRECTORY_TIMES, b"", format!("{timed} directories"));
        }
        let emptied: HashSet<Vec<u8>> = self.changes.emptied.iter().cloned().collect();
        for gone in self.changes.gone.clone() {
            let (parent, name) = split(&gone);
            let mark = joined(parent, &[WHITEOUT, name].concat());
            let below = [&gone[..], b"/"].concat();
            let mut names = self.changes.names.range(below.clone()..);
            let holds = names.next().is_some_and(|(path, _)| path.starts_with(&below));
            if holds || self.changes.names.contains_key(&gone) {
                self.add(&checks::WHITEOUT_BESIDE_NAME, &mark, "");
            }
            if emptied.contains(parent) {
                self.add(&checks::OPAQUE_AND_WHITEOUT, &mark, "");
            }
        }
        self.changes
    }
}

fn is_mark(name: &[u8]) -> bool {
    let marks: [&[u8]; 4] = [
        b"trusted.overlay.",
        b"user.overlay.",
        b"user.fuseoverlayfs.",
        b"user.containers.override_stat",
    ];
    marks.iter().any(|mark| name.starts_with(mark))
}

/// The path without slashes at its ends, `.` and empty names; none if it leads out of the root.
fn cleaned(path: &[u8]) -> Option<Cow<'_, [u8]>> {
    let usual = path.strip_prefix(b"./").unwrap_or(path);
    let usual = usual.strip_suffix(b"/").unwrap_or(usual);
    let is_odd = |name: &[u8]| matches!(name, b"" | b"." | b"..");
    if !usual.split(|byte| *byte == b'/').any(is_odd) {
        return Some(Cow::Borrowed(usual));
    }
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => {
                names.pop()?;
            }
            name => names.push(name),
        }
    }
    Some(Cow::Owned(names.join(&b'/')))
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

fn joined(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
