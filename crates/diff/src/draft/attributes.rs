//! Extended attributes that no file system of Linux can hold (xattr(7), limits.h).
//!
//! A tar can say anything; a layer keeps it, for the exact tar and for questions to the store. But
//! a file that is unpacked or copied up cannot have such attributes, and the load warns of them.
//!
//! Invariants: what one file system can hold and another cannot does not concern the layer, and is
//! not reported here; a message names the path and the attribute, both escaped and cut.

use strata_tree::Xattr;

/// `XATTR_NAME_MAX`: bytes of a name.
const NAME: usize = 255;
/// `XATTR_SIZE_MAX`: bytes of a value.
const VALUE: usize = 65536;
/// `XATTR_LIST_MAX`: bytes of all names of an inode, each with its end.
const LIST: usize = 65536;
/// The namespaces: Linux' own, and those that some file systems have for themselves.
const SPACES: [&[u8]; 7] =
    [b"user.", b"trusted.", b"security.", b"system.", b"btrfs.", b"ceph.", b"afs."];
/// Bytes of a name that are shown.
const SHOWN: usize = 80;

/// What an inode is, as far as its attributes depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// It may have any.
    FileOrDirectory,
    /// A symbolic link, a device or a fifo: no user attributes (xattr(7), "Extended user
    /// attributes").
    Other,
}

/// What is wrong with each that cannot be held.
pub(super) fn too_much(all: &[Xattr], holder: Holder) -> Vec<String> {
    let mut told: Vec<String> = all
        .iter()
        .filter_map(|(name, value)| {
            let why = unholdable(name, value, holder)?;
            Some(format!("its extended attribute {} {why}", shown(name)))
        })
        .collect();
    let list: usize = all.iter().map(|(name, _)| name.len() + 1).sum();
    if list > LIST {
        told.push(format!(
            "the names of its {} extended attributes have {list} bytes, and Linux lists {LIST}",
            all.len()
        ));
    }
    told
}

fn unholdable(name: &[u8], value: &[u8], holder: Holder) -> Option<String> {
    let Some(space) = SPACES.iter().find(|space| name.starts_with(space)) else {
        return Some("is in no namespace (user., trusted., security., system.)".to_owned());
    };
    if name.len() == space.len() {
        return Some("is a namespace without a name".to_owned());
    }
    if name.len() > NAME {
        return Some(format!("has a name of {} bytes, and Linux takes {NAME}", name.len()));
    }
    if value.len() > VALUE {
        return Some(format!("has {} bytes, and Linux takes {VALUE}", value.len()));
    }
    let misplaced = holder == Holder::Other && *space == b"user.";
    misplaced.then(|| "is for files and directories alone".to_owned())
}

fn shown(name: &[u8]) -> String {
    let cut = &name[..name.len().min(SHOWN)];
    format!("{}{}", cut.escape_ascii(), if cut.len() < name.len() { "..." } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(name: &[u8], value: usize, holder: Holder) -> String {
        too_much(&[(name.to_vec(), vec![0; value])], holder).join("; ")
    }

    #[test]
    fn the_bounds_are_linux_own() {
        use Holder::{FileOrDirectory, Other};
        let long = |len: usize| [b"user.".to_vec(), vec![b'x'; len - 5]].concat();
        for (name, value) in [
            (&b"user.a"[..], VALUE),
            (&long(NAME), 1),
            (b"security.capability", 20),
            (b"system.posix_acl_access", 28),
            (b"btrfs.compression", 4),
            (b"user.\xff\n", 0),
        ] {
            assert_eq!(told(name, value, FileOrDirectory), "", "{}", name.escape_ascii());
        }
        for (name, value, holder, want) in [
            (&b"user.a"[..], VALUE + 1, FileOrDirectory, "user.a has 65537 bytes"),
            (&long(NAME + 1), 1, FileOrDirectory, "xxx... has a name of 256 bytes"),
            (b"com.apple.quarantine", 1, FileOrDirectory, "is in no namespace"),
            (b"plain", 1, FileOrDirectory, "plain is in no namespace"),
            (b"User.a", 1, FileOrDirectory, "is in no namespace"),
            (b"user.", 1, FileOrDirectory, "user. is a namespace without a name"),
            (b"user.a", 1, Other, "user.a is for files and directories alone"),
        ] {
            let told = told(name, value, holder);
            assert!(told.contains(want), "{told}");
        }
        assert_eq!(told(b"trusted.a", 1, Other), "");
    }

    #[test]
    fn the_list_is_bounded_as_a_whole() {
        let all = |count: usize| -> Vec<Xattr> {
            (0..count).map(|n| (format!("user.{n:0250}").into_bytes(), Vec::new())).collect()
        };
        assert!(too_much(&all(256), Holder::FileOrDirectory).is_empty());
        let told = too_much(&all(257), Holder::FileOrDirectory);
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("the names of its 257 extended attributes have 65792 bytes"));
    }
}
