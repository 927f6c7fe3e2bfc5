//! Mounts in a user namespace: this process serves the names, and the kernel reads the contents.
//!
//! ```text
//! FUSE, the compiled tree with marks    names       lower
//! layers/                               contents    data-only lower
//! ```
//!
//! EROFS is not mounted in a user namespace, but overlayfs is, with its marks in `user.overlay.*`;
//! from Linux 6.16 on its lowers may refer to a data-only one there. The daemon is asked for names,
//! metadata and marks; no read of a content reaches it.
//!
//! The kernel reads marks with the rights of whoever mounts, and a directory that this namespace's
//! root may not read, for its owner is not mapped here, could not be looked up at all. So the mount
//! below checks no modes: overlayfs does that for what it shows. Only ACLs want it to
//! (`FUSE_POSIX_ACL`).
//!
//! Invariants: the FUSE mount below is attached nowhere, and ends with the overlayfs; a mount shows
//! everything that the image has, or there is none ([`Error::KernelCannot`]).

use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use strata_content::FileTree;
use strata_fuse::{MountOptions, Session, in_first_user_namespace};
use strata_kernel::{MarkedTree, OverlayParts, detached_overlay};
use strata_tree::dialect::XattrClass;
use strata_tree::{Device, Kind, Lower};

use super::point;
use crate::error::{Error, Result};
use crate::image::OpenImage;
use crate::trees::{confined_to_layers, content_place};

/// Why this process cannot mount so; `None` if it may try.
pub(crate) fn hindrance() -> Option<String> {
    match in_first_user_namespace() {
        Ok(false) => {}
        Ok(true) => {
            let who = "that is for root of a user namespace, such as podman unshare makes";
            return Some(who.into());
        }
        Err(error) => return Some(format!("/proc/self/uid_map cannot be read: {error}")),
    }
    let root = rustix::process::geteuid().is_root();
    (!root).then(|| "that is for root of the user namespace alone".into())
}

/// Serves the names of an image below an overlayfs, which is shown at `directory`.
///
/// # Errors
/// `KernelCannot`: this kernel, this namespace or this image do not allow it; `Mount`.
pub(super) fn serve(
    root: &Path,
    image: &OpenImage,
    directory: &Path,
    options: &MountOptions,
) -> Result<Session> {
    if let Some(why) = hindrance() {
        return Err(Error::KernelCannot(why));
    }
    let checks = look_through(image)?;
    let contents = point::open_dir(&root.join("layers"))?;
    let place = content_place(&image.record.layers);
    let names = MarkedTree::new(Arc::clone(&image.tree) as _, XattrClass::User, place);
    let tree: FileTree = image.files.with_names(Arc::new(names));
    let mut facts: strata_fuse::TreeFacts = (&*image.tree).into();
    // The marks.
    facts.has_xattrs = true;
    let mut cover = |below: OwnedFd| {
        let parts = OverlayParts {
            class: XattrClass::User,
            names: below.as_fd(),
            data: &[contents.as_fd()],
            upper: None,
            verity: false,
            source: &options.fsname,
            suid: options.suid,
            dev: options.dev,
            exec: options.exec,
        };
        Ok(detached_overlay(&parts)?)
    };
    let confinement = Some(confined_to_layers(root));
    let options =
        MountOptions { facts, default_permissions: checks, confinement, ..options.clone() };
    match strata_fuse::serve_below(tree, directory, &options, &mut cover) {
        Ok(session) => Ok(session),
        Err(strata_fuse::Error::Cover(error)) => Err(Error::KernelCannot(error.to_string())),
        Err(error @ strata_fuse::Error::NeedsRoot(_)) => {
            Err(Error::KernelCannot(error.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether the mount below has to check modes, since the image has ACLs.
///
/// # Errors
/// `KernelCannot` for what overlayfs would not show.
fn look_through(image: &OpenImage) -> Result<bool> {
    let (users, groups) = (MappedIds::of("uid_map"), MappedIds::of("gid_map"));
    let (mut acls, mut whiteout, mut closed) = (false, None, None);
    let mut failed = None;
    image.walk(&mut |path, node| {
        let stat = &node.stat;
        if matches!(stat.kind, Kind::CharDevice(Device { major: 0, minor: 0 })) {
            whiteout = Some(path.clone());
            return ControlFlow::Break(());
        }
        let mapped = users.has(stat.uid) && groups.has(stat.gid);
        if stat.kind == Kind::Directory && !mapped && stat.mode() & 0o004 == 0 {
            closed.get_or_insert_with(|| path.clone());
        }
        if !acls && image.tree.has_xattrs() {
            match image.tree.xattrs(node.id) {
                Ok(all) => acls = all.iter().any(|(name, _)| name.starts_with(ACL)),
                Err(error) => failed = Some(error),
            }
        }
        ControlFlow::Continue(())
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    let cannot =
        |path, what: &str| Err(Error::KernelCannot(format!("it cannot show {path}: {what}")));
    match (whiteout, closed) {
        (Some(path), _) => {
            cannot(path, "a character device 0:0: overlayfs takes it for a whiteout")
        }
        (None, Some(path)) if acls => {
            cannot(path, "its owner is not mapped in this user namespace, and the image has ACLs")
        }
        (None, _) => Ok(acls),
    }
}

/// What the names of ACLs begin with.
const ACL: &[u8] = b"system.posix_acl_";

/// The ids of a user namespace, from its map (user_namespaces(7)).
struct MappedIds(Vec<(u32, u32)>);

impl MappedIds {
    fn of(map: &str) -> Self {
        let text = std::fs::read_to_string(format!("/proc/self/{map}")).unwrap_or_default();
        Self::parse(&text)
    }

    fn parse(text: &str) -> Self {
        let range = |line: &str| {
            let mut words = line.split_whitespace().map(|word| word.parse().ok());
            Some((words.next()??, words.nth(1)??))
        };
        Self(text.lines().filter_map(range).collect())
    }

    fn has(&self, id: u32) -> bool {
        self.0.iter().any(|(first, count)| id.checked_sub(*first).is_some_and(|at| at < *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_says_which_ids_there_are() {
        let ids = MappedIds::parse(
            "         0       1000          1\n         1     100000      65536\n",
        );
        assert!(ids.has(0) && ids.has(1) && ids.has(65536));
        assert!(!ids.has(65537) && !ids.has(u32::MAX));
        assert!(!MappedIds::parse("").has(0));
    }
}
