//! One operation on a mount, or one question about it.
//!
//! An operation is a line: a word, its arguments, and `fails=ERRNO` or `may=ERRNO,...`
//! ([`RuleStep`]).
//!
//! Invariants: an operation is one system call, or an open with one write; paths are below the
//! directory that it is given; nothing is asked of the union but what every program may ask.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self as sys, AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Timespec};
use rustix::fs::{Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::text::CaseLine;

/// How a file is opened for a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteKind {
    /// Made if it is absent, else truncated.
    Whole,
    /// Made, or the operation fails.
    New,
    /// At the end of a file that exists.
    Append,
    /// From an offset in bytes on, in a file that exists.
    At(u64),
}

/// One operation, or one question whose answer is given.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // The words are those of the system calls.
pub enum Operation {
    Write {
        path: Vec<u8>,
        body: Vec<u8>,
        kind: WriteKind,
    },
    Truncate {
        path: Vec<u8>,
        size: u64,
    },
    Mkdir {
        path: Vec<u8>,
        mode: u32,
    },
    Rmdir {
        path: Vec<u8>,
    },
    Unlink {
        path: Vec<u8>,
    },
    Rename {
        from: Vec<u8>,
        to: Vec<u8>,
        flags: RenameFlags,
    },
    Link {
        from: Vec<u8>,
        to: Vec<u8>,
    },
    Symlink {
        path: Vec<u8>,
        target: Vec<u8>,
    },
    Node {
        path: Vec<u8>,
        kind: FileType,
        device: (u32, u32),
    },
    Chmod {
        path: Vec<u8>,
        mode: u32,
    },
    Chown {
        path: Vec<u8>,
        uid: u32,
        gid: u32,
    },
    Times {
        path: Vec<u8>,
        seconds: i64,
    },
    SetXattr {
        path: Vec<u8>,
        name: Vec<u8>,
        value: Vec<u8>,
    },
    RemoveXattr {
        path: Vec<u8>,
        name: Vec<u8>,
    },
    /// Opens a file, or a directory, under a name of its own.
    Open {
        handle: String,
        path: Vec<u8>,
        is_writable: bool,
    },
    /// Writes at an open file's end.
    WriteTo {
        handle: String,
        body: Vec<u8>,
    },
    /// Syncs an open file.
    Sync {
        handle: String,
    },
    Close {
        handle: String,
    },
    /// What an open file holds, from its start.
    Holds {
        handle: String,
        body: Vec<u8>,
    },
    Content {
        path: Vec<u8>,
        body: Vec<u8>,
    },
    /// The names that a directory lists, in any order.
    Lists {
        path: Vec<u8>,
        names: Vec<Vec<u8>>,
    },
    /// Two paths, one inode.
    Same {
        one: Vec<u8>,
        other: Vec<u8>,
    },
    /// The number of hard links.
    Links {
        path: Vec<u8>,
        count: u64,
    },
    /// Remembers the inode number of a path.
    Mark {
        path: Vec<u8>,
        name: String,
    },
    /// A path has a number that was remembered.
    Still {
        path: Vec<u8>,
        name: String,
    },
    /// The number that readdir gives is the number that stat gives.
    Numbered {
        path: Vec<u8>,
    },
    /// Unmounts, and mounts again.
    Remount,
    /// Kills whoever serves the mount, and mounts again; a mount again where the kernel serves it.
    Kill,
}

/// An operation with what may come of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleStep {
    /// What is done.
    pub operation: Operation,
    /// The error that it must end with; none if it must not fail.
    pub fails: Option<Errno>,
    /// The errors that it may end with instead: the union then does less than the rule asks for.
    pub may: Vec<Errno>,
}

/// Why an operation did not do what it was to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The system call failed.
    Errno(Errno),
    /// The answer is another one.
    Answer(String),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Errno(Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }
}

/// What a sequence keeps between its operations.
#[derive(Debug, Default)]
pub struct SequenceState {
    handles: HashMap<String, File>,
    numbers: HashMap<String, u64>,
}

impl SequenceState {
    /// Closes all that is open: a mount that is in use cannot be unmounted.
    pub fn close(&mut self) {
        self.handles.clear();
    }

    fn handle(&mut self, name: &str) -> Result<&mut File, Failure> {
        let none = || Failure::Answer(format!("{name} is not open"));
        self.handles.get_mut(name).ok_or_else(none)
    }
}

impl Operation {
    /// Does it below `root`.
    ///
    /// # Errors
    /// The errno of the system call, or the other answer to a question. [`Operation::Remount`] and
    /// [`Operation::Kill`] are done by whoever mounts; here they do nothing.
    pub fn apply(&self, root: &Path, kept: &mut SequenceState) -> Result<(), Failure> {
        let at = |path: &[u8]| root.join(OsStr::from_bytes(path));
        match self {
            Self::Write { path, body, kind } => write(&at(path), body, *kind)?,
            Self::Truncate { path, size } => {
                open(&at(path), OFlags::WRONLY)?.set_len(*size)?;
            }
            Self::Mkdir { path, mode } => sys::mkdir(at(path), Mode::from_raw_mode(*mode))?,
            Self::Rmdir { path } => sys::rmdir(at(path))?,
            Self::Unlink { path } => sys::unlink(at(path))?,
            Self::Rename { from, to, flags } => {
                sys::renameat_with(CWD, at(from), CWD, at(to), *flags)?;
            }
            Self::Link { from, to } => sys::link(at(from), at(to))?,
            Self::Symlink { path, target } => sys::symlink(OsStr::from_bytes(target), at(path))?,
            Self::Node { path, kind, device: (major, minor) } => {
                let mode = Mode::from_raw_mode(0o644);
                sys::mknodat(CWD, at(path), *kind, mode, sys::makedev(*major, *minor))?;
            }
            Self::Chmod { path, mode } => sys::chmod(at(path), Mode::from_raw_mode(*mode))?,
            Self::Chown { path, uid, gid } => {
                let (uid, gid) = (Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)));
                sys::chownat(CWD, at(path), uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Self::Times { path, seconds } => set_times(&at(path), (*seconds, 0))?,
            Self::SetXattr { path, name, value } => {
                sys::lsetxattr(at(path), OsStr::from_bytes(name), value, XattrFlags::empty())?;
            }
            Self::RemoveXattr { path, name } => {
                sys::lremovexattr(at(path), OsStr::from_bytes(name))?;
            }
            Self::Remount | Self::Kill => {}
            Self::Open { .. }
            | Self::WriteTo { .. }
            | Self::Sync { .. }
            | Self::Close { .. }
            | Self::Holds { .. } => self.on_handle(root, kept)?,
            Self::Content { .. }
            | Self::Lists { .. }
            | Self::Same { .. }
            | Self::Links { .. }
            | Self::Mark { .. }
            | Self::Still { .. }
            | Self::Numbered { .. } => self.ask(root, kept)?,
        }
        Ok(())
    }

    fn on_handle(&self, root: &Path, kept: &mut SequenceState) -> Result<(), Failure> {
        match self {
            Self::Open { handle, path, is_writable } => {
                let flags = if *is_writable { OFlags::RDWR } else { OFlags::RDONLY };
                let file = open(&root.join(OsStr::from_bytes(path)), flags)?;
                kept.handles.insert(handle.clone(), file);
            }
            Self::WriteTo { handle, body } => {
                let file = kept.handle(handle)?;
                file.seek(SeekFrom::End(0))?;
                file.write_all(body)?;
            }
            Self::Sync { handle } => kept.handle(handle)?.sync_all()?,
            Self::Close { handle } => {
                kept.handle(handle)?;
                kept.handles.remove(handle);
            }
            Self::Holds { handle, body } => {
                let file = kept.handle(handle)?;
                file.seek(SeekFrom::Start(0))?;
                let mut found = Vec::new();
                file.read_to_end(&mut found)?;
                answer(&format!("the open file {handle}"), &found, body)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn ask(&self, root: &Path, kept: &mut SequenceState) -> Result<(), Failure> {
        let at = |path: &[u8]| root.join(OsStr::from_bytes(path));
        let facts = |path: &[u8]| at(path).symlink_metadata();
        match self {
            Self::Content { path, body } => {
                let mut found = Vec::new();
                open(&at(path), OFlags::RDONLY)?.read_to_end(&mut found)?;
                answer(&path.escape_ascii().to_string(), &found, body)?;
            }
            Self::Lists { path, names } => {
                let mut found = Vec::new();
                for entry in std::fs::read_dir(at(path))? {
                    found.push(entry?.file_name().as_bytes().to_vec());
                }
                found.sort();
                let mut names = names.clone();
                names.sort();
                let what = format!("the listing of {}", path.escape_ascii());
                answer(&what, &found.join(&b' '), &names.join(&b' '))?;
            }
            Self::Same { one, other } => {
                let (first, second) = (facts(one)?, facts(other)?);
                if (first.dev(), first.ino()) != (second.dev(), second.ino()) {
                    let names = (one.escape_ascii(), other.escape_ascii());
                    let said = format!("{} and {} are two inodes", names.0, names.1);
                    return Err(Failure::Answer(said));
                }
            }
            Self::Links { path, count } => {
                let what = format!("the link count of {}", path.escape_ascii());
                let facts = facts(path)?;
                // 1 says that the links of a directory are not counted (find(1), -noleaf).
                if !(facts.is_dir() && facts.nlink() == 1) {
                    let found = facts.nlink().to_string();
                    answer(&what, found.as_bytes(), count.to_string().as_bytes())?;
                }
            }
            Self::Mark { path, name } => {
                kept.numbers.insert(name.clone(), facts(path)?.ino());
            }
            Self::Still { path, name } => {
                let number = facts(path)?.ino().to_string();
                let kept = kept.numbers.get(name).map(u64::to_string).unwrap_or_default();
                let what = format!("the inode number of {}", path.escape_ascii());
                answer(&what, number.as_bytes(), kept.as_bytes())?;
            }
            Self::Numbered { path } => {
                use std::os::unix::fs::DirEntryExt;
                for entry in std::fs::read_dir(at(path))? {
                    let entry = entry?;
                    if entry.ino() != entry.path().symlink_metadata()?.ino() {
                        let name = entry.file_name();
                        let name = name.as_bytes().escape_ascii();
                        let said = format!("{name}: readdir and stat give two inode numbers");
                        return Err(Failure::Answer(said));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn answer(what: &str, found: &[u8], expected: &[u8]) -> Result<(), Failure> {
    if found == expected {
        return Ok(());
    }
    let (found, expected) = (found.escape_ascii(), expected.escape_ascii());
    Err(Failure::Answer(format!("{what}: \"{found}\", expected \"{expected}\"")))
}

fn open(path: &PathBuf, flags: OFlags) -> Result<File, Errno> {
    // A FIFO without a reader must not stop the suite.
    let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK;
    sys::open(path, flags, Mode::from_raw_mode(0o644)).map(File::from)
}

fn write(path: &PathBuf, body: &[u8], kind: WriteKind) -> Result<(), Failure> {
    let flags = OFlags::WRONLY
        | match kind {
            WriteKind::Whole => OFlags::CREATE | OFlags::TRUNC,
            WriteKind::New => OFlags::CREATE | OFlags::EXCL,
            WriteKind::Append => OFlags::APPEND,
            WriteKind::At(_) => OFlags::empty(),
        };
    let mut file = open(path, flags)?;
    if let WriteKind::At(offset) = kind {
        file.seek(SeekFrom::Start(offset))?;
    }
    Ok(file.write_all(body)?)
}

/// Sets both times of a node, not of what a link leads to: seconds and nanoseconds since 1970.
pub(crate) fn set_times(path: &Path, (seconds, nanos): (i64, u32)) -> Result<(), Errno> {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    sys::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
}

/// The errors that rules name.
const ERRNOS: [(&str, Errno); 16] = [
    ("EACCES", Errno::ACCESS),
    ("EBUSY", Errno::BUSY),
    ("EEXIST", Errno::EXIST),
    ("EINVAL", Errno::INVAL),
    ("EIO", Errno::IO),
    ("EISDIR", Errno::ISDIR),
    ("ELOOP", Errno::LOOP),
    ("ENAMETOOLONG", Errno::NAMETOOLONG),
    ("ENODATA", Errno::NODATA),
    ("ENOENT", Errno::NOENT),
    ("ENOTDIR", Errno::NOTDIR),
    ("ENOTEMPTY", Errno::NOTEMPTY),
    ("EOPNOTSUPP", Errno::OPNOTSUPP),
    ("EPERM", Errno::PERM),
    ("ESTALE", Errno::STALE),
    ("EXDEV", Errno::XDEV),
];

/// The name of an error, or its number.
#[must_use]
pub fn errno_name(errno: Errno) -> String {
    let named = ERRNOS.iter().find(|(_, other)| *other == errno);
    named.map_or_else(|| format!("errno {}", errno.raw_os_error()), |(name, _)| (*name).to_owned())
}

impl RuleStep {
    /// A step that must not fail.
    #[must_use]
    pub fn of(operation: Operation) -> Self {
        Self { operation, fails: None, may: Vec::new() }
    }

    /// The step that a line describes.
    pub(crate) fn parse(line: &CaseLine) -> Result<Self, String> {
        let errno = |name: &str| {
            let found = ERRNOS.iter().find(|(known, _)| *known == name);
            found.map(|(_, errno)| *errno).ok_or_else(|| format!("{name} is no error"))
        };
        let fails = line.text("fails")?.map(errno).transpose()?;
        let may = line.text("may")?.into_iter().flat_map(|names| names.split(',')).map(errno);
        Ok(Self { operation: parse(line)?, fails, may: may.collect::<Result<_, _>>()? })
    }
}

fn parse(line: &CaseLine) -> Result<Operation, String> {
    let path = || line.arg(0).map(<[u8]>::to_vec);
    let second = || line.arg(1).map(<[u8]>::to_vec);
    let name = |at| Ok::<_, String>(String::from_utf8_lossy(line.arg(at)?).into_owned());
    let number = |at, radix| -> Result<u64, String> {
        let text = name(at)?;
        u64::from_str_radix(&text, radix).map_err(|_| format!("{text} is no number"))
    };
    let small =
        |at, radix| number(at, radix).and_then(|n| u32::try_from(n).map_err(|e| e.to_string()));
    let write = |kind| Ok::<_, String>(Operation::Write { path: path()?, body: second()?, kind });
    let node = |kind, device| Ok::<_, String>(Operation::Node { path: path()?, kind, device });
    let rename = |flags| Ok::<_, String>(Operation::Rename { from: path()?, to: second()?, flags });
    Ok(match line.word.as_str() {
        "write" => write(WriteKind::Whole)?,
        "create" => write(WriteKind::New)?,
        "append" => write(WriteKind::Append)?,
        "patch" => write(WriteKind::At(number(2, 10)?))?,
        "truncate" => Operation::Truncate { path: path()?, size: number(1, 10)? },
        "mkdir" => {
            let mode = u32::try_from(line.number("mode", 8, 0o755)?).map_err(|e| e.to_string())?;
            Operation::Mkdir { path: path()?, mode }
        }
        "rmdir" => Operation::Rmdir { path: path()? },
        "unlink" => Operation::Unlink { path: path()? },
        "rename" => rename(RenameFlags::empty())?,
        "rename-noreplace" => rename(RenameFlags::NOREPLACE)?,
        "exchange" => rename(RenameFlags::EXCHANGE)?,
        "link" => Operation::Link { from: path()?, to: second()? },
        "symlink" => Operation::Symlink { path: path()?, target: second()? },
        "mkfifo" => node(FileType::Fifo, (0, 0))?,
        "mknod" => node(FileType::CharacterDevice, (small(1, 10)?, small(2, 10)?))?,
        "chmod" => Operation::Chmod { path: path()?, mode: small(1, 8)? },
        "chown" => Operation::Chown { path: path()?, uid: small(1, 10)?, gid: small(2, 10)? },
        "times" => {
            let seconds = i64::try_from(number(1, 10)?).map_err(|e| e.to_string())?;
            Operation::Times { path: path()?, seconds }
        }
        "setxattr" => {
            Operation::SetXattr { path: path()?, name: second()?, value: line.arg(2)?.to_vec() }
        }
        "removexattr" => Operation::RemoveXattr { path: path()?, name: second()? },
        "open" => Operation::Open { handle: name(0)?, path: second()?, is_writable: false },
        "open-rw" => Operation::Open { handle: name(0)?, path: second()?, is_writable: true },
        "write-to" => Operation::WriteTo { handle: name(0)?, body: second()? },
        "sync" => Operation::Sync { handle: name(0)? },
        "close" => Operation::Close { handle: name(0)? },
        "holds" => Operation::Holds { handle: name(0)?, body: second()? },
        "content" => Operation::Content { path: path()?, body: second()? },
        "lists" => Operation::Lists { path: path()?, names: line.args[1..].to_vec() },
        "same" => Operation::Same { one: path()?, other: second()? },
        "links" => Operation::Links { path: path()?, count: number(1, 10)? },
        "mark" => Operation::Mark { path: path()?, name: name(1)? },
        "still" => Operation::Still { path: path()?, name: name(1)? },
        "numbered" => Operation::Numbered { path: path()? },
        "remount" => Operation::Remount,
        "kill" => Operation::Kill,
        word => return Err(format!("{word} is no operation")),
    })
}
