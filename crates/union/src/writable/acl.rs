//! ACLs: what a new inode takes from its directory, and what an ACL and an inode's bits have in
//! common.
//!
//! ```text
//! system.posix_acl_*    le32 version (2), then for each entry  le16 tag  le16 perm  le32 id
//! tags                  1 owner  2 user  4 owning group  8 group  16 mask  32 others
//! ```
//!
//! The bits of the owner, of the mask (or else of the owning group) and of others are the inode's
//! permission bits (acl(5), "Correspondence between ACL entries and file permission bits"). Where
//! ACLs and bits are kept apart from the inode, no file system keeps the two in step: this module
//! does.
//!
//! Invariants: with a default ACL the umask does not apply (acl(5), "Object creation and default
//! ACLs"); without one it does; an access ACL that says no more than the bits is not kept.

use strata_tree::Xattr;

use super::types::Caller;

/// The attribute that is an inode's access ACL.
pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";
const HEADER: usize = 4;
const ENTRY: usize = 8;
const SETGID: u16 = 0o2000;

/// Owner, bits and attributes that a new inode starts with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Inherited {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) perm: u16,
    pub(super) xattrs: Vec<Xattr>,
}

/// The start of an inode that `who` makes with the bits `perm` in a directory with this group,
/// these bits and attributes.
pub(super) fn inherit(
    who: &Caller,
    perm: u16,
    is_dir: bool,
    is_symlink: bool,
    parent: (u32, u16, &[Xattr]),
) -> Inherited {
    let (parent_gid, parent_perm, parent_xattrs) = parent;
    let mut perm = perm;
    let mut gid = who.gid;
    if parent_perm & SETGID != 0 {
        gid = parent_gid;
        if is_dir {
            perm |= SETGID;
        }
    }
    let default = parent_xattrs.iter().find(|(name, _)| name == DEFAULT).map(|(_, acl)| acl);
    let mut xattrs = Vec::new();
    match default.filter(|acl| !is_symlink && acl.len() >= HEADER + 3 * ENTRY) {
        Some(acl) => {
            let (access, bits, extended) = restricted(acl, perm);
            perm = perm & !0o777 | bits;
            if extended {
                xattrs.push((ACCESS.to_vec(), access));
            }
            if is_dir {
                xattrs.push((DEFAULT.to_vec(), acl.clone()));
            }
        }
        None if !is_symlink => perm &= !who.umask,
        None => {}
    }
    Inherited { uid: who.uid, gid, perm, xattrs }
}

/// The access ACL that a default ACL and the bits asked for make; the bits that it stands for;
/// whether it says more than those.
fn restricted(default: &[u8], perm: u16) -> (Vec<u8>, u16, bool) {
    let mut acl = default.to_vec();
    let has_mask = acl[HEADER..].chunks_exact(ENTRY).any(|entry| entry[0] == 16);
    let mut bits = 0;
    let mut extended = false;
    for entry in acl[HEADER..].chunks_exact_mut(ENTRY) {
        let (asked, shift) = match entry[0] {
            1 => (perm >> 6 & 7, 6),
            4 if !has_mask => (perm >> 3 & 7, 3),
            16 => (perm >> 3 & 7, 3),
            32 => (perm & 7, 0),
            _ => {
                extended = true;
                continue;
            }
        };
        extended |= entry[0] == 16;
        let granted = u16::from(entry[2]) & asked;
        entry[2] = granted as u8;
        bits |= granted << shift;
    }
    (acl, bits, extended)
}

/// The entry of an ACL that the bits of the group stand for: its mask, or else its owning group.
fn of_group(acl: &[u8]) -> u8 {
    let tags = acl.get(HEADER..).unwrap_or_default().chunks_exact(ENTRY);
    if tags.clone().any(|entry| entry[0] == 16) { 16 } else { 4 }
}

/// The permission bits that an access ACL says, and whether it says more than these. `None` for
/// what is no ACL.
pub(super) fn bits_of(acl: &[u8]) -> Option<(u16, bool)> {
    let entries = acl.get(HEADER..).filter(|entries| entries.len() % ENTRY == 0)?;
    let group = of_group(acl);
    let (mut bits, mut more) = (0, false);
    for entry in entries.chunks_exact(ENTRY) {
        let perm = u16::from(entry[2] & 7);
        match entry[0] {
            1 => bits |= perm << 6,
            32 => bits |= perm,
            tag if tag == group => bits |= perm << 3,
            _ => {}
        }
        more |= !matches!(entry[0], 1 | 4 | 32);
    }
    Some((bits, more))
}

/// An access ACL with other permission bits, as chmod(2) changes it.
pub(super) fn with_bits(acl: &[u8], perm: u16) -> Vec<u8> {
    let (mut changed, group) = (acl.to_vec(), of_group(acl));
    for entry in changed.get_mut(HEADER..).unwrap_or_default().chunks_exact_mut(ENTRY) {
        match entry[0] {
            1 => entry[2] = (perm >> 6 & 7) as u8,
            32 => entry[2] = (perm & 7) as u8,
            tag if tag == group => entry[2] = (perm >> 3 & 7) as u8,
            _ => {}
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: Caller = Caller { uid: 1000, gid: 1000, umask: 0o022 };

    fn acl(entries: &[(u16, u16)]) -> Vec<u8> {
        let mut acl = vec![2, 0, 0, 0];
        for (tag, perm) in entries {
            acl.extend(tag.to_le_bytes());
            acl.extend(perm.to_le_bytes());
            acl.extend(u32::MAX.to_le_bytes());
        }
        acl
    }

    #[test]
    fn the_umask_applies_without_a_default_acl() {
        let made = inherit(&WHO, 0o666, false, false, (5, 0o755, &[]));
        assert_eq!((made.perm, made.gid), (0o644, 1000));
    }

    #[test]
    fn a_set_group_id_directory_hands_down_its_group() {
        let dir = inherit(&WHO, 0o777, true, false, (5, 0o2755, &[]));
        assert_eq!((dir.perm, dir.gid), (0o2755, 5));
        let file = inherit(&WHO, 0o666, false, false, (5, 0o2755, &[]));
        assert_eq!((file.perm, file.gid), (0o644, 5));
    }

    #[test]
    fn bits_and_an_acl_say_the_same() {
        let full = acl(&[(1, 6), (2, 7), (4, 5), (16, 4), (32, 1)]);
        assert_eq!(bits_of(&full), Some((0o641, true)));
        assert_eq!(with_bits(&full, 0o4750), acl(&[(1, 7), (2, 7), (4, 5), (16, 5), (32, 0)]));
        let plain = acl(&[(1, 6), (4, 5), (32, 1)]);
        assert_eq!(bits_of(&plain), Some((0o651, false)));
        assert_eq!(with_bits(&plain, 0o720), acl(&[(1, 7), (4, 2), (32, 0)]));
        for bad in [&b""[..], b"\x02\0\0", b"\x02\0\0\0\x01"] {
            assert_eq!(bits_of(bad), None);
            assert_eq!(with_bits(bad, 0o777), bad);
        }
    }

    #[test]
    fn a_default_acl_replaces_the_umask() {
        let plain = [(DEFAULT.to_vec(), acl(&[(1, 7), (4, 5), (32, 0)]))];
        let made = inherit(&WHO, 0o666, false, false, (5, 0o755, &plain));
        assert_eq!((made.perm, made.xattrs.len()), (0o640, 0));
        let full = [(DEFAULT.to_vec(), acl(&[(1, 7), (2, 7), (4, 5), (16, 7), (32, 1)]))];
        let made = inherit(&WHO, 0o664, false, false, (5, 0o755, &full));
        assert_eq!(made.perm, 0o660);
        assert_eq!(
            made.xattrs,
            [(ACCESS.to_vec(), acl(&[(1, 6), (2, 7), (4, 5), (16, 6), (32, 0)]))]
        );
        let dir = inherit(&WHO, 0o777, true, false, (5, 0o755, &full));
        assert_eq!(dir.xattrs[1], full[0]);
    }
}
