//! What a new inode takes from its directory: group, set-group-id, default ACL.
//!
//! ```text
//! system.posix_acl_*    le32 version (2), then for each entry  le16 tag  le16 perm  le32 id
//! tags                  1 owner  2 user  4 owning group  8 group  16 mask  32 others
//! ```
//!
//! Invariants: with a default ACL the umask does not apply (acl(5), "Object creation and default
//! ACLs"); without one it does.

use strata_tree::Xattr;

use super::types::Caller;

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";
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
