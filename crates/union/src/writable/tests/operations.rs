//! Random operations, done to a union and to its model.
//!
//! Invariant: both give the same errno; the whole tree is compared after every step.

use proptest::prelude::*;
use rustix::io::Errno;
use strata_tree::{Device, Kind};

use super::lowers::{layers, lower};
use super::model::{Answer, ModelInode};
use super::refused;
use super::rights::chmod;
use super::world::{READ, WRITE, World, options};
use crate::writable::{Caller, Changes, Error, New, OpenHow, RenameMode, SetMode, SetTime};

const WHO: Caller = Caller { uid: 0, gid: 0, umask: 0 };
pub(super) const NAMES: [&str; 6] = ["a", "b", "c", "d", ".wh.a", "x"];

/// Directories and nodes are chosen from those that exist, by number.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Make(u8, u8, u8),
    Symlink(u8, u8),
    Create(u8, u8),
    Write(u8, u16, u8),
    Truncate(u8, u16),
    OpenTruncate(u8),
    Chmod(u8, u16),
    Chown(u8, u8, u8),
    Times(u8, i32),
    SetXattr(u8, u8, u8),
    RemoveXattr(u8, u8),
    Link(u8, u8, u8),
    Unlink(u8, u8),
    Rmdir(u8, u8),
    Rename(u8, u8, u8, u8, u8),
    RenameExisting(u8, u8, u8),
    HoldRead(u8),
    HoldWrite(u8),
    WriteHeld(u8, u8),
    Close(u8),
    Remount,
    Allocate(u8, u16),
    Punch(u8, u16),
    CopyRange(u8, u8),
    SeekPastEnd(u8),
    CreateXattr(u8, u8),
    ReplaceXattr(u8, u8),
    RenameWhiteout(u8, u8, u8),
    TruncateHeld(u8, u16),
    ChmodHeld(u8, u16),
    Sync(u8),
    Forget,
    LongName(u8),
    Acl(u8, u16),
    DefaultAcl(u8, u16),
    Capability(u8),
    CopyInUpper(u8, u8, u8),
    MoveAway,
}

pub(super) fn operation() -> impl Strategy<Value = Op> {
    let b = any::<u8>;
    prop_oneof![
        3 => (b(), b(), b()).prop_map(|(d, n, k)| Op::Make(d, n, k)),
        1 => (b(), b()).prop_map(|(d, n)| Op::Symlink(d, n)),
        3 => (b(), b()).prop_map(|(d, n)| Op::Create(d, n)),
        3 => (b(), 0..9000u16, b()).prop_map(|(n, at, byte)| Op::Write(n, at, byte)),
        1 => (b(), 0..9000u16).prop_map(|(n, size)| Op::Truncate(n, size)),
        1 => b().prop_map(Op::OpenTruncate),
        2 => (b(), 0..0o10000u16).prop_map(|(n, perm)| Op::Chmod(n, perm)),
        2 => (b(), b(), b()).prop_map(|(n, u, g)| Op::Chown(n, u, g)),
        2 => (b(), any::<i32>()).prop_map(|(n, time)| Op::Times(n, time)),
        2 => (b(), b(), b()).prop_map(|(n, name, value)| Op::SetXattr(n, name, value)),
        1 => (b(), b()).prop_map(|(n, name)| Op::RemoveXattr(n, name)),
        3 => (b(), b(), b()).prop_map(|(n, d, name)| Op::Link(n, d, name)),
        4 => (b(), b()).prop_map(|(d, n)| Op::Unlink(d, n)),
        4 => (b(), b()).prop_map(|(d, n)| Op::Rmdir(d, n)),
        4 => (b(), b(), b(), b(), b()).prop_map(|(a, x, c, y, m)| Op::Rename(a, x, c, y, m)),
        4 => (b(), b(), b()).prop_map(|(a, c, m)| Op::RenameExisting(a, c, m)),
        1 => b().prop_map(Op::HoldRead),
        1 => b().prop_map(Op::HoldWrite),
        2 => (b(), b()).prop_map(|(n, byte)| Op::WriteHeld(n, byte)),
        1 => b().prop_map(Op::Close),
        1 => Just(Op::Remount),
        1 => (b(), 0..9000u16).prop_map(|(n, size)| Op::Allocate(n, size)),
        1 => (b(), 0..9000u16).prop_map(|(n, at)| Op::Punch(n, at)),
        1 => (b(), b()).prop_map(|(n, m)| Op::CopyRange(n, m)),
        1 => b().prop_map(Op::SeekPastEnd),
        1 => (b(), b()).prop_map(|(n, name)| Op::CreateXattr(n, name)),
        1 => (b(), b()).prop_map(|(n, name)| Op::ReplaceXattr(n, name)),
        1 => (b(), b(), b()).prop_map(|(n, d, name)| Op::RenameWhiteout(n, d, name)),
        1 => (b(), 0..9000u16).prop_map(|(n, size)| Op::TruncateHeld(n, size)),
        1 => (b(), 0..0o10000u16).prop_map(|(n, perm)| Op::ChmodHeld(n, perm)),
        1 => b().prop_map(Op::Sync),
        1 => Just(Op::Forget),
        1 => b().prop_map(Op::LongName),
        2 => (b(), any::<u16>()).prop_map(|(n, acl)| Op::Acl(n, acl)),
        2 => (b(), any::<u16>()).prop_map(|(d, acl)| Op::DefaultAcl(d, acl)),
        2 => b().prop_map(Op::Capability),
        1 => (b(), b(), b()).prop_map(|(n, d, name)| Op::CopyInUpper(n, d, name)),
        1 => Just(Op::MoveAway),
    ]
}

impl World {
    pub(super) fn dir_at(&self, choice: u8) -> (String, usize) {
        let dirs = self.model.paths().into_iter();
        let dirs: Vec<_> = dirs.filter(|(_, n)| self.model.inodes[*n].kind.is_dir()).collect();
        dirs[usize::from(choice) % dirs.len()].clone()
    }

    pub(super) fn node_at(&self, choice: u8) -> (String, usize) {
        let all = self.model.paths();
        all[usize::from(choice) % all.len()].clone()
    }

    pub(super) fn file_at(&self, choice: u8) -> Option<(String, usize)> {
        let all = self.model.paths().into_iter();
        let files: Vec<_> =
            all.filter(|(_, n)| self.model.inodes[*n].kind == Kind::Regular).collect();
        (!files.is_empty()).then(|| files[usize::from(choice) % files.len()].clone())
    }

    /// Does it to both; an error says how they differ.
    pub(super) fn apply(&mut self, op: &Op) -> Result<(), String> {
        let name = |choice: u8| NAMES[usize::from(choice) % NAMES.len()];
        match op {
            Op::Make(dir, n, kind) => {
                let kind = kind_of(*kind);
                let ((path, dir), n) = (self.dir_at(*dir), name(*n));
                let made =
                    self.union().make(&WHO, self.id(&path), n.as_bytes(), New::Plain(kind, 0o755));
                same(op, refused(made), self.model.make(dir, n, ModelInode::new(kind, 0o755)))
            }
            Op::Symlink(dir, n) => {
                let ((path, dir), n) = (self.dir_at(*dir), name(*n));
                let made =
                    self.union().make(&WHO, self.id(&path), n.as_bytes(), New::Symlink(b"../to"));
                let mut inode = ModelInode::new(Kind::Symlink, 0o777);
                inode.body = b"../to".to_vec();
                same(op, refused(made), self.model.make(dir, n, inode))
            }
            Op::Create(dir, n) => {
                let ((path, dir), n) = (self.dir_at(*dir), name(*n));
                let made = self.union().create(&WHO, self.id(&path), n.as_bytes(), 0o640);
                let made = made.map(|(_, file)| file.write(0, b"new").unwrap());
                let mut inode = ModelInode::new(Kind::Regular, 0o640);
                inode.body = b"new".to_vec();
                same(op, refused(made), self.model.make(dir, n, inode))
            }
            Op::Write(n, at, byte) => {
                let Some((path, node)) = self.file_at(*n) else { return Ok(()) };
                let file = self.union().open_file(self.id(&path), WRITE).unwrap();
                self.write(node, &file, usize::from(*at), *byte);
                Ok(())
            }
            Op::Truncate(n, size) => {
                let Some((path, node)) = self.file_at(*n) else { return Ok(()) };
                let changes = Changes { size: Some(u64::from(*size)), ..Changes::default() };
                self.union().set_attr(self.id(&path), &changes).unwrap();
                self.model.inodes[node].body.resize(usize::from(*size), 0);
                self.model.uncap(node);
                self.model.inodes[node].mtime = None;
                Ok(())
            }
            Op::OpenTruncate(n) => {
                let Some((path, node)) = self.file_at(*n) else { return Ok(()) };
                let how = OpenHow { truncate: true, ..WRITE };
                self.union().open_file(self.id(&path), how).unwrap();
                self.model.inodes[node].body.clear();
                self.model.uncap(node);
                self.model.inodes[node].mtime = None;
                Ok(())
            }
            Op::Chmod(n, perm) => {
                let (path, node) = self.node_at(*n);
                if self.model.inodes[node].kind == Kind::Symlink {
                    return Ok(());
                }
                let changes = Changes { perm: Some(*perm), ..Changes::default() };
                self.union().set_attr(self.id(&path), &changes).unwrap();
                chmod(&mut self.model.inodes[node], *perm);
                Ok(())
            }
            Op::Chown(n, uid, gid) => {
                let (path, node) = self.node_at(*n);
                let (uid, gid) = (u32::from(*uid), u32::from(*gid));
                // The kernel says what becomes of the set-user-id bits by a mode of its own.
                let perm = self.model.inodes[node].perm & 0o1777;
                let dir_or_link =
                    matches!(self.model.inodes[node].kind, Kind::Directory | Kind::Symlink);
                let perm = (!dir_or_link).then_some(perm);
                let changes =
                    Changes { uid: Some(uid), gid: Some(gid), perm, ..Changes::default() };
                self.union().set_attr(self.id(&path), &changes).unwrap();
                let inode = &mut self.model.inodes[node];
                (inode.uid, inode.gid) = (uid, gid);
                if let Some(perm) = perm {
                    chmod(inode, perm);
                    self.model.uncap(node);
                }
                Ok(())
            }
            Op::Times(n, time) => {
                let (path, node) = self.node_at(*n);
                let seconds = i64::from(*time);
                let mtime = SetTime::To(strata_tree::Timestamp { seconds, nanos: 7 });
                let changes = Changes { mtime: Some(mtime), ..Changes::default() };
                self.union().set_attr(self.id(&path), &changes).unwrap();
                self.model.inodes[node].mtime = Some(seconds);
                Ok(())
            }
            Op::SetXattr(n, which, value) => {
                let (path, node) = self.node_at(*n);
                if !matches!(self.model.inodes[node].kind, Kind::Regular | Kind::Directory) {
                    return Ok(()); // xattr(7): no user attributes.
                }
                let name = xattr(*which);
                self.union()
                    .set_xattr(self.id(&path), name, &[*value], SetMode::Either)
                    .map_err(|error| error.to_string())?;
                self.model.inodes[node].xattrs.insert(name.to_vec(), vec![*value]);
                Ok(())
            }
            Op::RemoveXattr(n, which) => {
                let (path, node) = self.node_at(*n);
                let name = xattr(*which);
                let removed = self.union().remove_xattr(self.id(&path), name);
                let had = self.model.inodes[node].xattrs.remove(name);
                same(op, refused(removed), had.map(drop).ok_or(Errno::NODATA))
            }
            Op::Link(n, dir, to) => {
                let ((path, node), (dir_path, dir), to) =
                    (self.node_at(*n), self.dir_at(*dir), name(*to));
                let linked = self.union().link(self.id(&path), self.id(&dir_path), to.as_bytes());
                same(op, refused(linked), self.model.link(node, dir, to))
            }
            Op::Unlink(dir, n) => {
                let ((path, dir), n) = (self.dir_at(*dir), name(*n));
                let removed = self.union().unlink(self.id(&path), n.as_bytes());
                same(op, refused(removed), self.model.remove(dir, n, false))
            }
            Op::Rmdir(dir, n) => {
                let ((path, dir), n) = (self.dir_at(*dir), name(*n));
                let removed = self.union().rmdir(self.id(&path), n.as_bytes());
                same(op, refused(removed), self.model.remove(dir, n, true))
            }
            Op::Rename(a, x, c, y, mode) => {
                let (a, c) = (self.dir_at(*a), self.dir_at(*c));
                self.rename(op, &a, name(*x), &c, name(*y), *mode)
            }
            Op::RenameExisting(a, c, mode) => {
                let (from, to) = (self.node_at(*a).0, self.node_at(*c).0);
                let (Some((d1, n1)), Some((d2, n2))) = (split(&from), split(&to)) else {
                    return Ok(());
                };
                let a = (d1.clone(), self.model.walk(&d1).unwrap());
                let c = (d2.clone(), self.model.walk(&d2).unwrap());
                self.rename(op, &a, &n1, &c, &n2, *mode)
            }
            Op::HoldRead(n) | Op::HoldWrite(n) => {
                let Some((path, node)) = self.file_at(*n) else { return Ok(()) };
                let how = if matches!(op, Op::HoldRead(_)) { READ } else { WRITE };
                let file = self.union().open_file(self.id(&path), how).unwrap();
                self.open.push((node, file));
                Ok(())
            }
            Op::WriteHeld(n, byte) => {
                if self.open.is_empty() {
                    return Ok(());
                }
                let (node, held) = self.open[usize::from(*n) % self.open.len()].clone();
                // Any descriptor can be opened again for writing, as through /proc/self/fd.
                let file = self.union().open_file(held.node(), WRITE).unwrap();
                self.write(node, &file, 3, *byte);
                Ok(())
            }
            Op::Close(n) => {
                if !self.open.is_empty() {
                    let which = usize::from(*n) % self.open.len();
                    self.open.remove(which);
                }
                Ok(())
            }
            Op::Remount => {
                self.mount();
                Ok(())
            }
            _ => self.apply_more(op),
        }
    }

    /// The rarer ones.
    fn apply_more(&mut self, op: &Op) -> Result<(), String> {
        let name = |choice: u8| NAMES[usize::from(choice) % NAMES.len()];
        match op {
            Op::Allocate(n, size) => {
                let Some((path, node)) = self.file_at(*n) else { return Ok(()) };
                let size = usize::from(*size).max(1);
                let file = self.union().open_file(self.id(&path), WRITE).unwrap();
                file.allocate(0, 0, size as u64).unwrap();
                let inode = &mut self.model.inodes[node];
                inode.body.resize(inode.body.len().max(size), 0);
                inode.mtime = None;
                self.model.uncap(node);
                Ok(())
            }
            Op::Punch(n, at) => {
                const KEEP_SIZE_AND_PUNCH: u32 = 3;
                let Some((path, node)) = self.file_at(*n) else { return Ok(()) };
                let file = self.union().open_file(self.id(&path), WRITE).unwrap();
                file.allocate(KEEP_SIZE_AND_PUNCH, u64::from(*at), 100).unwrap();
                let inode = &mut self.model.inodes[node];
                let end = inode.body.len();
                let at = usize::from(*at).min(end);
                inode.body[at..(at + 100).min(end)].fill(0);
                inode.mtime = None;
                self.model.uncap(node);
                Ok(())
            }
            Op::CopyRange(n, m) => {
                let (Some(from), Some(to)) = (self.file_at(*n), self.file_at(*m)) else {
                    return Ok(());
                };
                if from.1 == to.1 {
                    return Ok(());
                }
                let source = self.union().open_file(self.id(&from.0), READ).unwrap();
                let target = self.union().open_file(self.id(&to.0), WRITE).unwrap();
                let bytes = self.model.inodes[from.1].body.clone();
                let mut done = 0;
                while done < bytes.len() {
                    let left = (bytes.len() - done) as u64;
                    done += match source.copy_range(done as u64, &target, done as u64, left) {
                        Ok(copied) => copied as usize,
                        // The lower in memory is another file system: then the kernel writes.
                        Err(Error::Refused(Errno::XDEV)) => {
                            target.write(done as u64, &bytes[done..]).unwrap()
                        }
                        Err(error) => return Err(error.to_string()),
                    };
                }
                let inode = &mut self.model.inodes[to.1];
                inode.body.resize(inode.body.len().max(bytes.len()), 0);
                inode.body[..bytes.len()].copy_from_slice(&bytes);
                inode.mtime = None;
                if !bytes.is_empty() {
                    self.model.uncap(to.1);
                }
                Ok(())
            }
            Op::SeekPastEnd(n) => {
                let Some((path, node)) = self.file_at(*n) else { return Ok(()) };
                let file = self.union().open_file(self.id(&path), READ).unwrap();
                let end = self.model.inodes[node].body.len() as u64;
                same(op, refused(file.seek(end + 1, true)), Err::<(), _>(Errno::NXIO))
            }
            Op::CreateXattr(n, which) | Op::ReplaceXattr(n, which) => {
                let Some((path, node)) = self.file_at(*n) else { return Ok(()) };
                let (name, create) = (xattr(*which), matches!(op, Op::CreateXattr(..)));
                let mode = if create { SetMode::Create } else { SetMode::Replace };
                let done = self.union().set_xattr(self.id(&path), name, b"once", mode);
                let xattrs = &mut self.model.inodes[node].xattrs;
                let expected = match (xattrs.contains_key(name), create) {
                    (true, true) => Err(Errno::EXIST),
                    (false, false) => Err(Errno::NODATA),
                    _ => {
                        xattrs.insert(name.to_vec(), b"once".to_vec());
                        Ok(())
                    }
                };
                same(op, refused(done), expected)
            }
            Op::RenameWhiteout(n, dir, to) => {
                let ((path, _), (dir_path, dir), to) =
                    (self.node_at(*n), self.dir_at(*dir), name(*to));
                let Some((from, last)) = split(&path) else { return Ok(()) };
                let source = self.model.walk(&from).unwrap();
                let moved = self.model.clone().rename((source, &last), (dir, to), true, false);
                // Onto itself, or another name of itself: nothing moves, and there is no hole.
                let itself = self.model.inodes[dir].names.get(to)
                    == self.model.inodes[source].names.get(&last);
                let (Some(expected), false) = (moved, itself) else { return Ok(()) };
                let (from_id, to_id) = (self.id(&from), self.id(&dir_path));
                let done = self.union().rename(
                    (from_id, last.as_bytes()),
                    (to_id, to.as_bytes()),
                    RenameMode::Replace,
                    true,
                );
                if expected.is_ok() {
                    let _ = self.model.rename((source, &last), (dir, to), true, false);
                    let device = Kind::CharDevice(Device { major: 0, minor: 0 });
                    self.model.make(source, &last, ModelInode::new(device, 0)).unwrap();
                }
                same(op, refused(done), expected)
            }
            Op::TruncateHeld(n, size) => {
                let Some((node, held)) = self.held_at(*n) else { return Ok(()) };
                let changes = Changes { size: Some(u64::from(*size)), ..Changes::default() };
                self.union().set_attr(held, &changes).unwrap();
                self.model.inodes[node].body.resize(usize::from(*size), 0);
                self.model.uncap(node);
                self.model.inodes[node].mtime = None;
                Ok(())
            }
            Op::ChmodHeld(n, perm) => {
                let Some((node, held)) = self.held_at(*n) else { return Ok(()) };
                let changes = Changes { perm: Some(*perm), ..Changes::default() };
                let attr = self.union().set_attr(held, &changes).unwrap();
                chmod(&mut self.model.inodes[node], *perm);
                let links = self.model.links(node);
                match (attr.stat.perm, attr.stat.nlink) == (*perm, links) {
                    true => Ok(()),
                    false => Err(format!("{op:?} gives {attr:?}, expected {links} links")),
                }
            }
            Op::Sync(n) => {
                let Some((path, _)) = self.file_at(*n) else { return Ok(()) };
                let file = self.union().open_file(self.id(&path), READ).unwrap();
                file.sync(true).map_err(|error| error.to_string())?;
                self.union().sync_dir(strata_tree::NodeId::ROOT).map_err(|error| error.to_string())
            }
            Op::Forget => {
                self.forget_all();
                Ok(())
            }
            Op::LongName(dir) => {
                let (path, _) = self.dir_at(*dir);
                let found = self.union().lookup(self.id(&path), &[b'x'; 256]);
                same(op, refused(found), Err::<(), _>(Errno::NAMETOOLONG))
            }
            _ => self.apply_right(op),
        }
    }

    pub(super) fn held_at(&self, choice: u8) -> Option<(usize, strata_tree::NodeId)> {
        let (node, held) = self.open.get(usize::from(choice) % self.open.len().max(1))?;
        Some((*node, held.node()))
    }

    fn write(&mut self, node: usize, file: &crate::writable::OpenFile, at: usize, byte: u8) {
        let bytes = [byte; 5];
        assert_eq!(file.write(at as u64, &bytes).unwrap(), 5);
        let body = &mut self.model.inodes[node].body;
        if body.len() < at + 5 {
            body.resize(at + 5, 0);
        }
        body[at..at + 5].copy_from_slice(&bytes);
        self.model.inodes[node].mtime = None;
        self.model.uncap(node);
    }

    fn rename(
        &mut self,
        op: &Op,
        a: &(String, usize),
        n1: &str,
        c: &(String, usize),
        n2: &str,
        mode: u8,
    ) -> Result<(), String> {
        let mode = match mode % 4 {
            0 => RenameMode::Exchange,
            1 => RenameMode::NoReplace,
            _ => RenameMode::Replace,
        };
        let (from, to) = (self.id(&a.0), self.id(&c.0));
        let replace = mode != RenameMode::NoReplace;
        let exchange = mode == RenameMode::Exchange;
        let Some(expected) = self.model.rename((a.1, n1), (c.1, n2), replace, exchange) else {
            return Ok(());
        };
        let done = self.union().rename((from, n1.as_bytes()), (to, n2.as_bytes()), mode, false);
        same(op, refused(done), expected)
    }
}

pub(super) fn kind_of(choice: u8) -> Kind {
    let device = |major, minor| Device { major, minor };
    let kinds = [
        Kind::Directory,
        Kind::Directory,
        Kind::Regular,
        Kind::Fifo,
        Kind::Socket,
        Kind::CharDevice(device(0, 0)),
        Kind::CharDevice(device(1, 3)),
        Kind::BlockDevice(device(7, 0)),
    ];
    kinds[usize::from(choice) % kinds.len()]
}

/// Directory and name; `None` for the root.
pub(super) fn split(path: &str) -> Option<(String, String)> {
    match path.rsplit_once('/') {
        Some((dir, name)) => Some((dir.to_owned(), name.to_owned())),
        None if path.is_empty() => None,
        None => Some((String::new(), path.to_owned())),
    }
}

pub(super) fn xattr(which: u8) -> &'static [u8] {
    [&b"user.one"[..], b"user.two", b"user.overlay.opaque"][usize::from(which) % 3]
}

thread_local! {
    /// What the model said last.
    pub(super) static SAID: std::cell::Cell<Option<Errno>> = const { std::cell::Cell::new(None) };
}

fn same<T>(op: &Op, got: Option<Errno>, expected: Answer<T>) -> Result<(), String> {
    let expected = expected.err();
    SAID.set(expected);
    if got == expected {
        return Ok(());
    }
    Err(format!("{op:?} gives {got:?}, expected {expected:?}"))
}

/// Runs a sequence, checking after every step; gives the world at its end.
pub(super) fn run(ops: &[Op], world: &mut World) -> Result<(), String> {
    run_beside(ops, world, &mut |_, _| None)
}

/// The same; `beside` does each operation elsewhere before, and has to give the same errno.
pub(super) fn run_beside(
    ops: &[Op],
    world: &mut World,
    beside: &mut dyn FnMut(&Op, &World) -> Option<Answer<()>>,
) -> Result<(), String> {
    world.check().map_err(|error| format!("at the start: {error}"))?;
    for (step, op) in ops.iter().enumerate() {
        let elsewhere = beside(op, world);
        SAID.set(None);
        world.apply(op).map_err(|error| format!("step {step}: {error}"))?;
        world.check().map_err(|error| format!("after step {step}, {op:?}: {error}"))?;
        let said = SAID.get();
        let renames = matches!(op, Op::Rename(..) | Op::RenameExisting(..));
        match elsewhere {
            None => {}
            // A directory into itself: refused before any file system is asked.
            Some(Err(_)) if renames && said.is_none() => {}
            Some(done) if done.err() == said => {}
            Some(done) => {
                return Err(format!("step {step}: {op:?} gives {said:?}, the kernel {done:?}"));
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: super::cases(), ..ProptestConfig::default() })]

    #[test]
    fn a_union_is_its_model(ops in proptest::collection::vec(operation(), 1..40)) {
        let mut world = World::layered(layers(), lower(), options());
        run(&ops, &mut world).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn the_changes_on_top_of_the_lower_are_the_merged_tree(
        ops in proptest::collection::vec(operation(), 1..40)
    ) {
        let mut world = World::new(lower(), options());
        run(&ops, &mut world).map_err(TestCaseError::fail)?;
        world.check_changes().map_err(TestCaseError::fail)?;
    }
}
