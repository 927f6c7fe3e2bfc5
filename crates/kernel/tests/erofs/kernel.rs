//! What the kernel shows of an image, beside the spec that it was made from.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use strata_testkit::needs;
use strata_tree::{Device, InodeSpec, Item, Kind, Spec};

/// A mount that ends with the drop of this.
pub(crate) struct Mounted<'a>(pub(crate) &'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        // Another test's child may hold the mount until it runs its program.
        let flags = rustix::mount::UnmountFlags::DETACH;
        let _ = rustix::mount::unmount(self.0, flags);
    }
}

/// Mounts `image` and compares it with `spec`, entry by entry; the first difference. Passes
/// where nothing can be mounted and that is no failure.
pub(crate) fn compare(spec: &Spec, image: &Path) -> Result<(), String> {
    if !needs::root() {
        return Ok(());
    }
    let dir = tempfile::tempdir().unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "erofs", "-o", "loop,ro"]).arg(image).arg(dir.path());
    let done = mount.output().unwrap();
    if !done.status.success() {
        return Err(String::from_utf8_lossy(&done.stderr).into_owned());
    }
    let mounted = Mounted(dir.path());
    compare_tree(spec, mounted.0)
}

pub(crate) fn compare_tree(spec: &Spec, root: &Path) -> Result<(), String> {
    let mut inodes: BTreeMap<Vec<u8>, &InodeSpec> = BTreeMap::new();
    let mut names: HashMap<*const InodeSpec, u64> = HashMap::new();
    for (path, item) in spec.items() {
        let inode = match item {
            Item::Inode(inode) => inode,
            Item::Link(target) => inodes[target.as_bytes()],
            Item::Whiteout | Item::LowerLink(_) => panic!("not in a merged tree"),
        };
        inodes.insert(path.to_vec(), inode);
        *names.entry(std::ptr::from_ref(inode)).or_default() += 1;
    }
    let mut numbers: HashMap<u64, *const InodeSpec> = HashMap::new();
    for (path, inode) in &inodes {
        let at = root.join(OsStr::from_bytes(path));
        let shown = |what: &str| format!("{:?}: {what}", OsStr::from_bytes(path));
        let meta = fs::symlink_metadata(&at).map_err(|error| shown(&error.to_string()))?;
        let device = inode.kind.device().unwrap_or(Device { major: 0, minor: 0 });
        let seen = (meta.mode(), meta.uid(), meta.gid(), meta.mtime(), meta.mtime_nsec());
        let right = (
            inode.kind.mode_bits() | u32::from(inode.perm),
            inode.uid,
            inode.gid,
            inode.mtime.seconds,
            i64::from(inode.mtime.nanos),
        );
        if seen != right {
            return Err(shown(&format!("{seen:?}, not {right:?}")));
        }
        if meta.rdev() != rustix::fs::makedev(device.major, device.minor) {
            return Err(shown("another device"));
        }
        let identity = std::ptr::from_ref(*inode);
        if *numbers.entry(meta.ino()).or_insert(identity) != identity {
            return Err(shown("the number of another inode"));
        }
        if !inode.kind.is_dir() && meta.nlink() != names[&identity] {
            return Err(shown(&format!("{} links", meta.nlink())));
        }
        let content = match inode.kind {
            Kind::Regular => fs::read(&at).map_err(|error| shown(&error.to_string()))?,
            Kind::Symlink => fs::read_link(&at).unwrap().into_os_string().into_encoded_bytes(),
            _ => Vec::new(),
        };
        if content != inode.body {
            return Err(shown("another content"));
        }
        let attributes = attributes(&at).map_err(|error| shown(&error.to_string()))?;
        if attributes != inode.xattrs {
            return Err(shown(&format!("{attributes:?}, not {:?}", inode.xattrs)));
        }
        if inode.kind.is_dir() {
            let listed = fs::read_dir(&at).map_err(|error| shown(&error.to_string()))?.count();
            let below = |other: &&Vec<u8>| {
                let rest = match path.is_empty() {
                    true => Some(other.as_slice()).filter(|rest| !rest.is_empty()),
                    false => other.strip_prefix(path.as_slice()).and_then(|r| r.strip_prefix(b"/")),
                };
                rest.is_some_and(|rest| !rest.contains(&b'/'))
            };
            let right = inodes.keys().filter(below).count();
            if listed != right {
                return Err(shown(&format!("{listed} names, not {right}")));
            }
        }
    }
    Ok(())
}

fn attributes(at: &Path) -> std::io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut names = vec![0; 1 << 16];
    let length = rustix::fs::llistxattr(at, names.as_mut_slice())?;
    let mut all = BTreeMap::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 1 << 16];
        let length = rustix::fs::lgetxattr(at, name, value.as_mut_slice())?;
        all.insert(name.to_vec(), value[..length].to_vec());
    }
    Ok(all)
}
