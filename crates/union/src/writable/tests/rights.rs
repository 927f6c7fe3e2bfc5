//! Operations on what decides access, and on an upper that is not mounted: ACLs of several users
//! and groups, on files and to be inherited; file capabilities; a file that is copied with its
//! attributes; everything moved to other inodes.
//!
//! Invariant: the model's ACLs are POSIX.1e's, as acl(5) tells them, and capabilities go when
//! content or owner change, as in capabilities(7).

use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::Command;

use rustix::io::Errno;
use strata_testkit::needs;
use strata_tree::Kind;

use super::model::{Model, ModelInode};
use super::operations::{NAMES, Op};
use super::world::World;
use crate::writable::{SetMode, Union};

pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";
pub(super) const CAPABILITY: &[u8] = b"security.capability";

/// Revision 2 (linux/capability.h), cap_net_raw: permitted and effective.
pub(super) const RAW: [u8; 20] = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The tags of entries (linux/posix_acl.h).
const OWNER: u16 = 1;
const USER: u16 = 2;
const GROUP_OWNER: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 16;
const OTHER: u16 = 32;

/// An ACL of a user, or a group, besides the owner's, with bits that `seed` chooses.
pub(super) fn acl(seed: u16) -> Vec<u8> {
    let bits = |shift: u16| seed >> shift & 7;
    let none = u32::MAX;
    let entries = match seed & 0x8000 {
        0 => [(USER, bits(3), 1000 + u32::from(seed & 1)), (GROUP_OWNER, bits(6), none)],
        _ => [(GROUP_OWNER, bits(6), none), (GROUP, bits(3), 2000 + u32::from(seed & 1))],
    };
    let mut bytes = vec![2, 0, 0, 0];
    let rest = [(MASK, bits(9), none), (OTHER, bits(12), none)];
    for (tag, perm, id) in [(OWNER, bits(0), none)].into_iter().chain(entries).chain(rest) {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(perm.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// Tells each entry's tag and bits, which may be changed.
fn each(acl: &mut [u8], mut change: impl FnMut(u16, &mut u8)) {
    for entry in acl[4..].chunks_exact_mut(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        change(tag, &mut entry[2]);
    }
}

/// The permission bits that an access ACL of more than three entries stands for.
fn bits(acl: &[u8]) -> u16 {
    let mut all = 0;
    each(&mut acl.to_vec(), |tag, perm| {
        let shift = match tag {
            OWNER => 6,
            MASK => 3,
            OTHER => 0,
            _ => return,
        };
        all |= u16::from(*perm) << shift;
    });
    all
}

/// `chmod` of a node that may have an ACL: the owner's, the mask's and the others' bits follow.
pub(super) fn chmod(inode: &mut ModelInode, perm: u16) {
    inode.perm = perm;
    if let Some(acl) = inode.xattrs.get_mut(ACCESS) {
        each(acl, |tag, bits| match tag {
            OWNER => *bits = (perm >> 6 & 7) as u8,
            MASK => *bits = (perm >> 3 & 7) as u8,
            OTHER => *bits = (perm & 7) as u8,
            _ => {}
        });
    }
}

/// What a new node takes from its directory's default ACL.
pub(super) fn inherit(parent: &ModelInode, inode: &mut ModelInode) {
    let Some(default) = parent.xattrs.get(DEFAULT).filter(|_| inode.kind != Kind::Symlink) else {
        return;
    };
    let (mut access, perm) = (default.clone(), inode.perm);
    each(&mut access, |tag, bits| match tag {
        OWNER => *bits &= (perm >> 6 & 7) as u8,
        MASK => *bits &= (perm >> 3 & 7) as u8,
        OTHER => *bits &= (perm & 7) as u8,
        _ => {}
    });
    inode.perm = perm & 0o7000 | bits(&access);
    inode.xattrs.insert(ACCESS.to_vec(), access);
    if inode.kind.is_dir() {
        inode.xattrs.insert(DEFAULT.to_vec(), default.clone());
    }
}

impl Model {
    /// Content or owner of a node have changed.
    pub(super) fn uncap(&mut self, node: usize) {
        self.inodes[node].xattrs.remove(CAPABILITY);
    }
}

/// Whether `op` gives an ACL or a capability: the path, the attribute and its value.
pub(super) fn gives(op: &Op, world: &World) -> Option<(String, usize, &'static [u8], Vec<u8>)> {
    match op {
        Op::Acl(n, seed) => {
            let (path, node) = world.node_at(*n);
            let kind = world.model.inodes[node].kind;
            (kind != Kind::Symlink).then(|| (path, node, ACCESS, acl(*seed)))
        }
        Op::DefaultAcl(n, seed) => {
            let (path, node) = world.dir_at(*n);
            Some((path, node, DEFAULT, acl(*seed)))
        }
        Op::Capability(n) => {
            let (path, node) = world.file_at(*n)?;
            Some((path, node, CAPABILITY, RAW.to_vec()))
        }
        _ => None,
    }
}

impl World {
    /// Does the operations of this module, if `op` is one.
    pub(super) fn apply_right(&mut self, op: &Op) -> Result<(), String> {
        if !needs::root() {
            return Ok(()); // Who is not root cannot set them below.
        }
        if let Some((path, node, name, value)) = gives(op, self) {
            let id = self.id(&path);
            let set = |union: &Union| union.set_xattr(id, name, &value, SetMode::Either);
            set(self.union()).map_err(|error| format!("{op:?}: {error}"))?;
            let inode = &mut self.model.inodes[node];
            if name == ACCESS {
                inode.perm = inode.perm & 0o7000 | bits(&value);
            }
            inode.xattrs.insert(name.to_vec(), value);
            return Ok(());
        }
        match op {
            Op::CopyInUpper(n, dir, to) => self.copy_in_upper(*n, *dir, *to),
            Op::MoveAway => self.move_away(),
            _ => Ok(()),
        }
    }

    /// `cp -a` of a file of the upper while nothing is mounted, to a name that shows nothing.
    fn copy_in_upper(&mut self, n: u8, dir: u8, to: u8) -> Result<(), String> {
        let Some((from, node)) = self.file_at(n) else { return Ok(()) };
        let (dir_path, dir) = self.dir_at(dir);
        let name = NAMES[usize::from(to) % NAMES.len()];
        let path = self.upper().join(&from);
        let at = self.upper().join(&dir_path);
        let whole = path.symlink_metadata().is_ok_and(|stat| stat.is_file())
            && !has(&path, "trusted.overlay.metacopy");
        let is_dir = at.symlink_metadata().is_ok_and(|stat| stat.is_dir());
        if !whole || !is_dir || self.model.inodes[dir].names.contains_key(name) {
            return Ok(());
        }
        self.leave();
        let target = at.join(name);
        if target.symlink_metadata().is_ok_and(|stat| stat.file_type().is_char_device()) {
            std::fs::remove_file(&target).map_err(|error| error.to_string())?;
        }
        if target.symlink_metadata().is_err() {
            copy(&path, &target)?;
            let mut inode = self.model.inodes[node].clone();
            // `cp` takes neither the time of the directory nor other names with it.
            inode.names.clear();
            self.model.inodes.push(inode);
            let made = self.model.inodes.len() - 1;
            self.model.inodes[dir].names.insert(name.to_owned(), made);
            self.model.inodes[dir].mtime = None;
        }
        self.mount();
        Ok(())
    }

    /// Upper and work directory copied to other inodes, as to another disk; the old ones go.
    fn move_away(&mut self) -> Result<(), String> {
        self.leave();
        let moved = self.dir.path().join("moved");
        std::fs::create_dir(&moved).map_err(|error| error.to_string())?;
        for name in ["upper", "work"] {
            copy(&self.dir.path().join(name), &moved.join(name))?;
        }
        for name in ["upper", "work"] {
            let old = self.dir.path().join(name);
            std::fs::remove_dir_all(&old).map_err(|error| error.to_string())?;
            std::fs::rename(moved.join(name), old).map_err(|error| error.to_string())?;
        }
        std::fs::remove_dir(&moved).map_err(|error| error.to_string())?;
        // Nothing has kept its inode: numbers may be others, but stay what they are now.
        self.numbers.clear();
        self.mount();
        Ok(())
    }
}

fn has(path: &Path, name: &str) -> bool {
    rustix::fs::lgetxattr(path, name, &mut [0_u8; 0][..]) != Err(Errno::NODATA)
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let copied = Command::new("cp").arg("-aT").arg(from).arg(to).output();
    let copied = copied.map_err(|error| error.to_string())?;
    match copied.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&copied.stderr).into_owned()),
    }
}

/// The attributes of a path that a user sees, as text.
pub(super) fn shown(path: &Path) -> String {
    let mut all = Vec::new();
    for name in [ACCESS, DEFAULT, CAPABILITY, b"user.one", b"user.two"] {
        let mut room = [0_u8; 256];
        if let Ok(len) = rustix::fs::lgetxattr(path, name, &mut room[..]) {
            all.push(format!("{}={:?}", String::from_utf8_lossy(name), &room[..len]));
        }
    }
    all.join(" ")
}

/// The same of the model.
pub(super) fn expected(inode: &ModelInode) -> String {
    let names: [&[u8]; 5] = [ACCESS, DEFAULT, CAPABILITY, b"user.one", b"user.two"];
    let all = names.into_iter().filter_map(|name| {
        let value = inode.xattrs.get(name)?;
        Some(format!("{}={value:?}", String::from_utf8_lossy(name)))
    });
    all.collect::<Vec<_>>().join(" ")
}

/// A default ACL that lets strangers in, on a directory.
pub(super) fn lay_trap(parent: &Path, name: &str) {
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::lsetxattr(parent.join(name), DEFAULT, &acl(0o77777), flags).unwrap();
}
