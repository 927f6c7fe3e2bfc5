//! The owners of files: the numbers on disk, and those that are shown for them.
//!
//! A map is a list of ranges as in `/proc/PID/uid_map`: the first number of the range on disk, the
//! first shown for it, and how many. It stands for a user namespace that the daemon itself is not
//! in: on disk are the numbers inside that namespace, shown are those outside. A squash shows
//! everything as one owner's, and takes precedence.
//!
//! Invariants: without ranges every number is its own; with ranges, a number in none is shown as
//! the overflow number and never written; POSIX ACLs name the same owners as stat does.

use std::str::FromStr;

/// What stands for numbers that have no other (user_namespaces(7)).
const OVERFLOW: u32 = 65_534;

/// Whether this process is in the user namespace that all others come from (user_namespaces(7)):
/// every number is mapped, to itself.
///
/// # Errors
/// Those of reading `/proc/self/uid_map`.
pub fn in_first_user_namespace() -> std::io::Result<bool> {
    let map = std::fs::read_to_string("/proc/self/uid_map")?;
    Ok(map.split_whitespace().eq(["0", "0", "4294967295"]))
}

/// One range of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    disk: u32,
    shown: u32,
    count: u32,
}

/// Translates the numbers of users, or those of groups.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdMap {
    ranges: Vec<Range>,
    squash: Option<u32>,
}

/// Why a text is no map.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}: a mapping is INSIDE:OUTSIDE:COUNT, in numbers, and may be followed by another")]
pub struct IdMapError(String);

/// Reads `0:1000:1:1:110000:65536`.
impl FromStr for IdMap {
    type Err = IdMapError;

    fn from_str(text: &str) -> Result<Self, IdMapError> {
        let wrong = || IdMapError(text.to_owned());
        let numbers: Vec<u32> =
            text.split(':').map(str::parse).collect::<Result<_, _>>().map_err(|_| wrong())?;
        let (triples, rest) = numbers.as_chunks::<3>();
        let ranges = triples
            .iter()
            .map(|&[disk, shown, count]| {
                let last = count.checked_sub(1)?;
                disk.checked_add(last)?;
                shown.checked_add(last)?;
                Some(Range { disk, shown, count })
            })
            .collect::<Option<Vec<_>>>()
            .filter(|_| rest.is_empty())
            .ok_or_else(wrong)?;
        Ok(Self { ranges, squash: None })
    }
}

impl IdMap {
    /// Everything is this one's.
    #[must_use]
    pub fn squashed(mut self, to: u32) -> Self {
        self.squash = Some(to);
        self
    }

    /// What is shown for the number on disk.
    pub fn shown(&self, disk: u32) -> u32 {
        let find = |range: &Range| offset(disk, range.disk, range.count).map(|at| range.shown + at);
        match self.squash {
            Some(one) => one,
            None if self.ranges.is_empty() => disk,
            None => self.ranges.iter().find_map(find).unwrap_or(OVERFLOW),
        }
    }

    /// What is written for a number that the kernel sent; `None` if it has none on disk.
    pub fn written(&self, shown: u32) -> Option<u32> {
        let find =
            |range: &Range| offset(shown, range.shown, range.count).map(|at| range.disk + at);
        match self.squash {
            Some(one) => Some(one),
            None if self.ranges.is_empty() => Some(shown),
            None => self.ranges.iter().find_map(find),
        }
    }

    fn is_identity(&self) -> bool {
        self.ranges.is_empty() && self.squash.is_none()
    }
}

fn offset(id: u32, first: u32, count: u32) -> Option<u32> {
    id.checked_sub(first).filter(|at| *at < count)
}

/// The maps of users and of groups.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ids {
    /// Users.
    pub users: IdMap,
    /// Groups.
    pub groups: IdMap,
}

/// The kinds of ACL entries that name someone (`linux/posix_acl.h`).
const ACL_USER: u16 = 0x02;
const ACL_GROUP: u16 = 0x08;
/// A 4-byte version, then entries of 8 bytes: tag, permissions, number (little endian).
const ACL_HEADER: usize = 4;

impl Ids {
    /// Whether `name` is an attribute that holds numbers of users and groups.
    fn concerns(&self, name: &[u8]) -> bool {
        let acl = name == b"system.posix_acl_access" || name == b"system.posix_acl_default";
        acl && !(self.users.is_identity() && self.groups.is_identity())
    }

    /// An attribute's value as it is shown.
    pub(crate) fn shown_xattr(&self, name: &[u8], mut value: Vec<u8>) -> Vec<u8> {
        if self.concerns(name) {
            each_entry(&mut value, |tag, id| match tag {
                ACL_USER => Some(self.users.shown(id)),
                ACL_GROUP => Some(self.groups.shown(id)),
                _ => Some(id),
            });
        }
        value
    }

    /// An attribute's value as it is written; `None` if it names someone without a number on disk.
    pub(crate) fn written_xattr(&self, name: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        let mut value = value.to_vec();
        let all_mapped = !self.concerns(name)
            || each_entry(&mut value, |tag, id| match tag {
                ACL_USER => self.users.written(id),
                ACL_GROUP => self.groups.written(id),
                _ => Some(id),
            });
        all_mapped.then_some(value)
    }
}

/// Replaces the number of each entry of an ACL. `false` as soon as there is none.
fn each_entry(acl: &mut [u8], mut replace: impl FnMut(u16, u32) -> Option<u32>) -> bool {
    let Some(entries) = acl.get_mut(ACL_HEADER..) else { return true };
    entries.as_chunks_mut::<8>().0.iter_mut().all(|entry| {
        let [t0, t1, p0, p1, id @ ..] = *entry;
        replace(u16::from_le_bytes([t0, t1]), u32::from_le_bytes(id)).is_some_and(|id| {
            let [i0, i1, i2, i3] = id.to_le_bytes();
            *entry = [t0, t1, p0, p1, i0, i1, i2, i3];
            true
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> IdMap {
        text.parse().unwrap()
    }

    #[test]
    fn a_namespace_is_seen_from_outside() {
        let map = map("0:1000:1:1:110000:65536");
        for (disk, shown) in [(0, 1000), (1, 110_000), (65_536, 175_535)] {
            assert_eq!(map.shown(disk), shown);
            assert_eq!(map.written(shown), Some(disk));
        }
        assert_eq!(map.shown(65_537), OVERFLOW);
        assert_eq!(map.written(0), None);
        assert_eq!(map.written(175_536), None);
    }

    #[test]
    fn without_ranges_numbers_are_their_own_and_a_squash_wins() {
        assert_eq!(IdMap::default().shown(7), 7);
        assert_eq!(IdMap::default().written(u32::MAX), Some(u32::MAX));
        let squashed = map("0:1000:1").squashed(5);
        assert_eq!(squashed.shown(0), 5);
        assert_eq!(squashed.written(77), Some(5));
    }

    #[test]
    fn what_is_no_map_is_refused() {
        let beyond = ["0:4294967295:2", "4294967295:0:2", "0:0:0"];
        for text in ["", "0", "0:1", "0:1:2:3", "0:1:x", "-1:0:1", "0:0:4294967296"] {
            assert_eq!(text.parse::<IdMap>(), Err(IdMapError(text.to_owned())));
        }
        for text in beyond {
            assert!(text.parse::<IdMap>().is_err(), "{text}");
        }
        assert_eq!(map("0:0:4294967295").shown(4_294_967_294), 4_294_967_294);
    }

    #[test]
    fn access_lists_are_translated_entry_by_entry() {
        let ids = Ids { users: map("0:1000:10"), groups: map("0:2000:10") };
        let entry = |tag: u16, id: u32| {
            let mut bytes = tag.to_le_bytes().to_vec();
            bytes.extend(6u16.to_le_bytes());
            bytes.extend(id.to_le_bytes());
            bytes
        };
        let acl = |user: u32, group: u32| {
            let mut all = vec![2, 0, 0, 0];
            for part in [entry(1, u32::MAX), entry(ACL_USER, user), entry(ACL_GROUP, group)] {
                all.extend(part);
            }
            all
        };
        let name = b"system.posix_acl_access";
        assert_eq!(ids.shown_xattr(name, acl(3, 4)), acl(1003, 2004));
        assert_eq!(ids.written_xattr(name, &acl(1003, 2004)), Some(acl(3, 4)));
        assert_eq!(ids.written_xattr(name, &acl(3, 2004)), None);
        assert_eq!(ids.written_xattr(b"user.x", &acl(3, 4)), Some(acl(3, 4)));
        assert_eq!(ids.shown_xattr(name, vec![2, 0]), vec![2, 0]);
    }
}
