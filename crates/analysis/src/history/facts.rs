//! What can differ between two nodes of one path.
//!
//! Invariants: if the type differs no other fact is reported, because the others mean something
//! else for another type; a directory's size and link count are no facts of their own, because they
//! follow from the names.

use std::mem::discriminant;

use strata_tree::{ContentDigest, Kind, Stat, Xattr};

/// What differs between two nodes. Nothing: they are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ChangedFacts {
    /// The type; then nothing else is reported.
    pub kind: bool,
    /// The bytes of a regular file.
    pub content: bool,
    /// The target of a symbolic link.
    pub target: bool,
    /// The number of a device.
    pub device: bool,
    /// The 12 permission bits.
    pub mode: bool,
    /// Owner or group.
    pub owner: bool,
    /// Names or values of extended attributes.
    pub xattrs: bool,
    /// The time of the last change.
    pub time: bool,
}

impl ChangedFacts {
    /// No difference.
    pub const NONE: Self = Self {
        kind: false,
        content: false,
        target: false,
        device: false,
        mode: false,
        owner: false,
        xattrs: false,
        time: false,
    };

    /// Whether nothing differs.
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }

    /// Whether what the node holds differs (bytes, target, device number, type), not only its
    /// metadata.
    pub const fn data(self) -> bool {
        self.kind || self.content || self.target || self.device
    }

    /// The same without the time.
    #[must_use]
    pub const fn without_time(self) -> Self {
        Self { time: false, ..self }
    }

    /// A word for each difference.
    ///
    /// ```
    /// use strata_analysis::history::ChangedFacts;
    /// let facts = ChangedFacts { mode: true, content: true, ..ChangedFacts::NONE };
    /// assert_eq!(facts.words().collect::<Vec<_>>(), ["content", "mode"]);
    /// ```
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        let all = [
            (self.kind, "type"),
            (self.content, "content"),
            (self.target, "target"),
            (self.device, "device"),
            (self.mode, "mode"),
            (self.owner, "owner"),
            (self.xattrs, "xattr"),
            (self.time, "time"),
        ];
        all.into_iter().filter_map(|(differs, word)| differs.then_some(word))
    }

    /// What differs between two nodes.
    pub(super) fn between(old: &Seen<'_>, new: &Seen<'_>) -> Self {
        if discriminant(&old.stat.kind) != discriminant(&new.stat.kind) {
            return Self { kind: true, ..Self::NONE };
        }
        Self {
            kind: false,
            content: old.stat.kind == Kind::Regular && old.content != new.content,
            target: old.target != new.target,
            device: old.stat.kind.device() != new.stat.kind.device(),
            mode: old.stat.perm != new.stat.perm,
            owner: (old.stat.uid, old.stat.gid) != (new.stat.uid, new.stat.gid),
            xattrs: old.xattrs != new.xattrs,
            time: old.stat.mtime != new.stat.mtime,
        }
    }
}

/// All facts of a node, borrowed.
pub(super) struct Seen<'a> {
    pub(super) stat: Stat,
    pub(super) xattrs: &'a [Xattr],
    /// The target, for symbolic links.
    pub(super) target: Option<&'a [u8]>,
    /// The content, for regular files.
    pub(super) content: Option<ContentDigest>,
}

impl Seen<'_> {
    /// A directory that no layer describes.
    pub(super) const fn unstated() -> Self {
        Self { stat: Stat::unstated_dir(), xattrs: &[], target: None, content: None }
    }
}
