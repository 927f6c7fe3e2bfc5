//! What callers of a [`Union`](super::Union) hand in and get back.
//!
//! Invariants: everything here is plain data; nothing refers to a kernel interface.

use strata_tree::{Kind, NameBuf, NodeId, Stat, Timestamp};

/// Who makes something: the owner of what is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The owner.
    pub uid: u32,
    /// The group, unless the directory hands down its own (`S_ISGID`).
    pub gid: u32,
    /// The caller's umask: taken off unless the directory has a default ACL (acl(5)).
    pub umask: u16,
}

/// All that `stat` shows of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Its number, `st_ino`: the same over copy-up and remount.
    pub id: NodeId,
    /// Goes up when a number is used again for another inode.
    pub generation: u64,
    /// Type, mode, owner, size, link count, modification time. `nlink` is 0 for an inode that is
    /// only open.
    pub stat: Stat,
    /// The last access.
    pub atime: Timestamp,
    /// The last change of the inode.
    pub ctime: Timestamp,
    /// The time of birth, where the upper's file system keeps one.
    pub birth: Option<Timestamp>,
    /// 512-byte blocks in use.
    pub blocks: u64,
}

/// A time that is set: a given one, or now by the upper's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    /// This time.
    To(Timestamp),
    /// The present.
    Now,
}

/// What [`Union::set_attr`](super::Union::set_attr) changes; `None`s stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changes {
    /// The 12 permission bits.
    pub perm: Option<u16>,
    /// The owner.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
    /// The length in bytes, of regular files.
    pub size: Option<u64>,
    /// The last access.
    pub atime: Option<SetTime>,
    /// The last modification.
    pub mtime: Option<SetTime>,
    /// The length is changed through an open file (ftruncate(2)).
    pub held: bool,
    /// It follows from another change: the flags `i` and `a` do not stop it.
    pub forced: bool,
}

/// What [`Union::make`](super::Union::make) makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum New<'a> {
    /// A directory, a device, a fifo, a socket or an empty regular file, by its kind, with these
    /// permission bits.
    Plain(Kind, u16),
    /// A symbolic link to this target.
    Symlink(&'a [u8]),
}

/// What happens to an existing target of a rename.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenameMode {
    /// It is replaced.
    Replace,
    /// `EEXIST` (`RENAME_NOREPLACE`).
    NoReplace,
    /// It takes the source's name (`RENAME_EXCHANGE`); `ENOENT` without one.
    Exchange,
}

/// How `setxattr` meets an attribute that exists or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetMode {
    /// Either is fine.
    Either,
    /// `EEXIST` if it exists (`XATTR_CREATE`).
    Create,
    /// `ENODATA` if it does not (`XATTR_REPLACE`).
    Replace,
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenHow {
    /// For writing, too: then the file is copied up.
    pub write: bool,
    /// And emptied (`O_TRUNC`): then its bytes are not copied.
    pub truncate: bool,
    /// All that is written goes to the end (`O_APPEND`); the kernel sees to that.
    pub append: bool,
    /// What is written is on disk at once (`O_SYNC`, `O_DSYNC`), also where no open file of
    /// the union sees it.
    pub synced: bool,
    /// Reading leaves the access time alone (`O_NOATIME`).
    pub unseen: bool,
}

/// One name of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedName {
    /// The name.
    pub name: NameBuf,
    /// Its number and type, if it is the lower's; [`Union::identity`](super::Union::identity)
    /// tells those of every name.
    pub(super) below: Option<(NodeId, Kind)>,
}

/// What `statfs` shows: of a union, the upper's file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatFs {
    /// Bytes of one block.
    pub block_size: u32,
    /// All blocks.
    pub blocks: u64,
    /// Blocks that are free.
    pub free: u64,
    /// Blocks that are free for an ordinary user.
    pub available: u64,
    /// Inodes.
    pub files: u64,
    /// Inodes that are free.
    pub files_free: u64,
    /// Bytes of the longest name.
    pub name_max: u32,
}

/// How the upper keeps owners, modes and types that its owner may not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ownership {
    /// In the inodes themselves: for root, also root of a user namespace.
    #[default]
    Inode,
    /// In `user.containers.override_stat`, as podman and buildah understand it: for everybody.
    Override,
}

/// What reading does to the access times of what is in the upper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessTimes {
    /// What the mount that the upper lies on says.
    #[default]
    Mount,
    /// Nothing (`noatime`).
    Never,
    /// It moves them where they are older than the last change, or than a day (`relatime`).
    Relative,
    /// It moves them (`strictatime`).
    Always,
}

/// How a [`Union`](super::Union) behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UnionOptions {
    /// How owners and modes are kept.
    pub ownership: Ownership,
    /// Use `user.overlay.*` instead of `trusted.overlay.*` marks (overlayfs.rst, "userxattr").
    pub user_marks: bool,
    /// Never sync: a crash of the machine may lose the upper (overlayfs.rst, "Volatile mount").
    pub volatile: bool,
    /// Copy the content, too, when only metadata change (`metacopy=off`).
    pub no_metacopy: bool,
    /// Rename of directories that lower layers hold: `EXDEV` (`redirect_dir=off`).
    pub no_redirect: bool,
    /// Use directories that another union uses, too; what both then do is undefined
    /// (`index=off`; overlayfs.rst, "Sharing and copying layers").
    pub shared: bool,
    /// What reading does to access times.
    pub access_times: AccessTimes,
}
