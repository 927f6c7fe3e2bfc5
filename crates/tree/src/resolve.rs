//! [`resolve`]: a path inside a tree to its node, following the tree's own symbolic links.
//!
//! Resolution is the kernel's, inside the tree: an absolute link starts at the tree's root, `..`
//! at the root stays there, `..` after a link is the parent of where the link led.
//!
//! Invariants: nothing outside the tree is ever read; at most [`LINKS_MAX`] links are followed; the
//! work is bounded by the path and the links' targets.

use std::collections::VecDeque;

use crate::lower::{Error, Lower, Result};
use crate::name::{Name, NameError};
use crate::node::{Entry, Kind, Node};

/// How many symbolic links one resolution follows: as many as the kernel.
pub const LINKS_MAX: u32 = 40;

/// What to do about a symbolic link in the last component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// Follow it, as `stat` does.
    All,
    /// Take the link itself, as `lstat` does. After a trailing slash it is followed all the same.
    NotLast,
}

/// The node that `path` leads to in a merged tree; `None` if some name on the way does not
/// exist. A leading slash changes nothing, the empty path is the root.
///
/// # Errors
/// `NotDirectory` if the way leads through something else, `TooManyLinks` beyond
/// [`LINKS_MAX`]; whatever the tree answers.
pub fn resolve(tree: &dyn Lower, path: &[u8], follow: Follow) -> Result<Option<Node>> {
    let mut todo: VecDeque<Vec<u8>> = components(path).collect();
    let mut ancestors = Vec::new();
    let mut here = tree.node(tree.root())?;
    let mut links = 0;
    while let Some(component) = todo.pop_front() {
        if !here.stat.kind.is_dir() {
            return Err(Error::NotDirectory(here.id));
        }
        let name = match Name::new(&component) {
            Ok(name) => name,
            // A slash at the end of the path asks for a directory; the check above did.
            Err(NameError::Empty) => continue,
            Err(NameError::Dots) => {
                if component == b".."
                    && let Some(parent) = ancestors.pop()
                {
                    here = parent;
                }
                continue;
            }
            // No tree has such a name.
            Err(NameError::Forbidden | NameError::TooLong(_)) => return Ok(None),
        };
        let Some(Entry::Node(node)) = tree.lookup(here.id, name)? else {
            return Ok(None);
        };
        if node.stat.kind != Kind::Symlink || (todo.is_empty() && follow == Follow::NotLast) {
            ancestors.push(here);
            here = node;
            continue;
        }
        links += 1;
        if links > LINKS_MAX {
            return Err(Error::TooManyLinks { path: path.escape_ascii().to_string() });
        }
        let target = tree.read_link(node.id)?;
        if target.is_empty() {
            return Ok(None);
        }
        if target.starts_with(b"/") {
            here = tree.node(tree.root())?;
            ancestors.clear();
        }
        for component in components(&target).rev() {
            todo.push_front(component);
        }
    }
    Ok(Some(here))
}

/// Splits at slashes; an empty last component remains where the path ends in one.
fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    let trailing = path.ends_with(b"/").then(Vec::new);
    let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
    parts.map(<[u8]>::to_vec).chain(trailing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemTree, Spec};

    fn tree() -> MemTree {
        let mut spec = Spec::new()
            .dir("etc")
            .file("etc/hosts", "h")
            .dir("usr")
            .dir("usr/bin")
            .file("usr/bin/sh", "sh")
            .symlink("bin", "usr/bin")
            .symlink("abs", "/usr/bin/sh")
            .symlink("up", "../../../../etc/../etc/hosts")
            .symlink("usr/back", "..")
            .symlink("loop", "loop")
            .symlink("dangling", "/nowhere")
            .symlink("slash", "usr/")
            .symlink("file-slash", "etc/hosts/")
            .symlink("l0", "etc/hosts");
        for n in 1..=40 {
            spec = spec.symlink(format!("l{n}"), format!("l{}", n - 1));
        }
        MemTree::new(&spec).unwrap()
    }

    fn find(path: &str, follow: Follow) -> Result<Option<Node>> {
        resolve(&tree(), path.as_bytes(), follow)
    }

    fn same(a: &str, b: &str) {
        assert_eq!(find(a, Follow::All).unwrap(), find(b, Follow::NotLast).unwrap(), "{a}");
        assert!(find(a, Follow::All).unwrap().is_some(), "{a}");
    }

    #[test]
    fn links_stay_inside() {
        same("", "/");
        same("../..//./", "/");
        same("/bin/sh", "usr/bin/sh");
        same("abs", "usr/bin/sh");
        same("up", "etc/hosts");
        same("bin/..", "usr");
        same("usr/back/etc/hosts", "etc/hosts");
        same("slash", "usr");
        same("l39", "etc/hosts");
    }

    #[test]
    fn the_last_link_is_kept_when_asked() {
        let kind = |path| find(path, Follow::NotLast).unwrap().unwrap().stat.kind;
        assert_eq!(kind("bin"), Kind::Symlink);
        assert_eq!(kind("loop"), Kind::Symlink);
        assert_eq!(kind("bin/"), Kind::Directory);
        assert_eq!(kind("bin/."), Kind::Directory);
    }

    #[test]
    fn what_does_not_exist_is_none() {
        for path in ["nope", "nope/x", "dangling", "a\0b", &"x".repeat(256)] {
            assert_eq!(find(path, Follow::All).unwrap(), None, "{path}");
        }
    }

    #[test]
    fn errors_are_told_apart() {
        for path in ["etc/hosts/x", "etc/hosts/", "etc/hosts/..", "file-slash"] {
            let error = find(path, Follow::All).unwrap_err();
            assert!(matches!(error, Error::NotDirectory(_)), "{path}: {error}");
        }
        for path in ["loop", "loop/x", "l40"] {
            let error = find(path, Follow::All).unwrap_err();
            assert!(matches!(error, Error::TooManyLinks { .. }), "{path}: {error}");
        }
    }
}
