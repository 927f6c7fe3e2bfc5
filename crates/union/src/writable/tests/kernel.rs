//! The kernel's overlayfs mounts the upper that a union has written, over the same lower laid
//! out on disk, and has to show the same tree.
//!
//! Invariant: needs root, for overlayfs wants it.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use strata_testkit::needs;
use strata_tree::{Device, Item, Kind, Spec};

use super::beside;
use super::lowers::{lower, lower_without_zero};
use super::operations::{operation, run, run_beside};
use super::rights;
use super::world::{World, options};
use crate::tests::Mounted;

/// Lays a lower out as overlayfs wants it.
fn lay_out(spec: &Spec, root: &Path) {
    for (path, item) in spec.items() {
        let path = root.join(std::str::from_utf8(path).unwrap());
        let inode = match item {
            Item::Inode(inode) => inode,
            Item::Link(target) => {
                std::fs::hard_link(root.join(target.as_os_str()), &path).unwrap();
                continue;
            }
            Item::Whiteout | Item::LowerLink(_) => panic!("not in a merged tree"),
        };
        let node = |kind, Device { major, minor }| {
            let device = rustix::fs::makedev(major, minor);
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, device).unwrap();
        };
        match inode.kind {
            Kind::Directory if path == root => {}
            Kind::Directory => std::fs::create_dir(&path).unwrap(),
            Kind::Regular => std::fs::write(&path, &inode.body).unwrap(),
            Kind::Symlink => {
                let to = std::str::from_utf8(&inode.body).unwrap();
                std::os::unix::fs::symlink(to, &path).unwrap();
            }
            // It cannot be laid out: in a lower it is a whiteout.
            Kind::CharDevice(Device { major: 0, minor: 0 }) => continue,
            Kind::CharDevice(device) => node(rustix::fs::FileType::CharacterDevice, device),
            Kind::Fifo => node(rustix::fs::FileType::Fifo, Device { major: 0, minor: 0 }),
            other => panic!("{other:?}"),
        }
        std::os::unix::fs::lchown(&path, Some(inode.uid), Some(inode.gid)).unwrap();
        if inode.kind != Kind::Symlink {
            // What its directory has given it.
            for name in [rights::ACCESS, rights::DEFAULT] {
                let _ = rustix::fs::lremovexattr(&path, name);
            }
            let perm = std::fs::Permissions::from_mode(u32::from(inode.perm));
            std::fs::set_permissions(&path, perm).unwrap();
        }
        for (name, value) in &inode.xattrs {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::lsetxattr(&path, name.as_slice(), value, flags).unwrap();
        }
    }
}

/// What can be compared of one entry: times of the model are those of the lower, which `lay_out`
/// does not set.
fn facts(path: &Path) -> String {
    let stat = std::fs::symlink_metadata(path).unwrap();
    let kind = stat.file_type();
    let body = if kind.is_file() {
        format!("{:?}", std::fs::read(path).unwrap())
    } else if kind.is_symlink() {
        format!("{:?}", std::fs::read_link(path).unwrap())
    } else if kind.is_char_device() || kind.is_block_device() {
        format!("{}", stat.rdev())
    } else {
        String::new()
    };
    let links = if kind.is_dir() { 0 } else { stat.nlink() };
    let mode = if kind.is_symlink() { 0o777 } else { stat.mode() };
    let attributes = rights::shown(path);
    format!("{mode:o} {}:{} links {links} {body} {attributes}", stat.uid(), stat.gid())
}

fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut stack = vec![root.to_owned()];
    while let Some(path) = stack.pop() {
        if path.symlink_metadata().unwrap().is_dir() {
            stack.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        all.insert(name, facts(&path));
    }
    all
}

fn model_tree(world: &World) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (path, node) in world.model.paths() {
        let inode = &world.model.inodes[node];
        let links = if inode.kind.is_dir() { 0 } else { world.model.links(node) };
        let perm = if inode.kind == Kind::Symlink { 0o777 } else { inode.perm };
        let mode = inode.kind.mode_bits() | u32::from(perm);
        let mode = if inode.kind == Kind::Symlink { 0o777 } else { mode };
        let body = match inode.kind {
            Kind::Regular => format!("{:?}", inode.body),
            Kind::Symlink => format!("{:?}", std::str::from_utf8(&inode.body).unwrap()),
            Kind::CharDevice(d) | Kind::BlockDevice(d) => {
                format!("{}", rustix::fs::makedev(d.major, d.minor))
            }
            _ => String::new(),
        };
        let attributes = rights::expected(inode);
        let owner = format!("{}:{}", inode.uid, inode.gid);
        let line = format!("{mode:o} {owner} links {links} {body} {attributes}");
        all.insert(path, line);
    }
    all
}

/// Only a strata upper has devices 0:0: the kernel shows the file that stands for one.
fn without_zero_devices(tree: &mut BTreeMap<String, String>, world: &World) {
    let zero = Kind::CharDevice(Device { major: 0, minor: 0 });
    for (path, node) in world.model.paths() {
        if world.model.inodes[node].kind == zero {
            tree.remove(&path);
        }
    }
}

/// The upper as a lower of the kernel's overlayfs, which reads whiteouts that are files there.
fn mount_as_a_lower(world: &mut World) -> Result<Mounted, String> {
    world.open.clear();
    world.union = None;
    let dir = world.dir.path().to_owned();
    let (under, merged) = (dir.join("under"), dir.join("again"));
    for path in [&under, &merged] {
        std::fs::create_dir(path).unwrap();
    }
    lay_out(&world.spec, &under);
    let options = format!(
        "lowerdir={}:{},redirect_dir=follow,metacopy=on",
        world.upper().display(),
        under.display(),
    );
    let mount = Command::new("mount")
        .args(["-t", "overlay", "overlay", "-o", &options])
        .arg(&merged)
        .output()
        .unwrap();
    if !mount.status.success() {
        return Err(format!("the kernel refuses: {}", String::from_utf8_lossy(&mount.stderr)));
    }
    Ok(Mounted(merged))
}

/// Compares what the kernel makes of the upper as a lower.
pub(super) fn as_a_lower(world: &mut World) -> Result<(), String> {
    let mounted = mount_as_a_lower(world)?;
    let seen = tree(&mounted.0);
    drop(mounted);
    same_tree(world, seen)
}

/// The same for some paths that are there and some that are not.
pub(super) fn lower_again(world: &mut World, there: &[&str], not: &[&str]) -> Result<(), String> {
    let mounted = mount_as_a_lower(world)?;
    let seen = tree(&mounted.0);
    let wrong = there.iter().find(|path| !seen.contains_key(**path));
    match wrong.or(not.iter().find(|path| seen.contains_key(**path))) {
        Some(path) => Err(format!("{path} is wrong in {seen:?}")),
        None => Ok(()),
    }
}

fn compare(world: &mut World) -> Result<(), String> {
    world.open.clear();
    world.union = None;
    let dir = world.dir.path().to_owned();
    let (under, merged) = (dir.join("lower"), dir.join("merged"));
    for path in [&under, &merged, &dir.join("kernelwork")] {
        std::fs::create_dir(path).unwrap();
    }
    lay_out(&world.spec, &under);
    let options = format!(
        "lowerdir={},upperdir={},workdir={},redirect_dir=on,metacopy=on,index=off",
        under.display(),
        world.upper().display(),
        dir.join("kernelwork").display()
    );
    let mount = Command::new("mount")
        .args(["-t", "overlay", "overlay", "-o", &options])
        .arg(&merged)
        .output()
        .unwrap();
    if !mount.status.success() {
        return Err(format!("the kernel refuses: {}", String::from_utf8_lossy(&mount.stderr)));
    }
    let mounted = Mounted(merged);
    let seen = tree(&mounted.0);
    drop(mounted);
    same_tree(world, seen)
}

fn same_tree(world: &World, mut seen: BTreeMap<String, String>) -> Result<(), String> {
    let mut expected = model_tree(world);
    without_zero_devices(&mut seen, world);
    without_zero_devices(&mut expected, world);
    // The union's root is the lower's; overlayfs takes the upper's.
    seen.remove("");
    expected.remove("");
    for (path, line) in &expected {
        if seen.get(path) != Some(line) {
            return Err(format!("{path}: the kernel shows {:?}, not {line:?}", seen.get(path)));
        }
    }
    match seen.keys().find(|path| !expected.contains_key(*path)) {
        Some(extra) => Err(format!("the kernel shows {extra} as well")),
        None => Ok(()),
    }
}

/// A mount of overlayfs, of an upper of its own.
fn mount_beside(world: &World) -> Mounted {
    let dir = world.dir.path().join("beside");
    for name in ["", "lower", "upper", "work", "merged"] {
        std::fs::create_dir(dir.join(name)).unwrap();
    }
    lay_out(&world.spec, &dir.join("lower"));
    let shown = dir.display();
    let options = format!(
        "lowerdir={shown}/lower,upperdir={shown}/upper,workdir={shown}/work,\
         index=on,redirect_dir=on,metacopy=on,xino=on"
    );
    let merged = dir.join("merged");
    let mut mount = Command::new("mount");
    mount.args(["-t", "overlay", "overlay", "-o", &options]).arg(&merged);
    assert!(mount.status().unwrap().success());
    Mounted(merged)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: super::cases(), ..ProptestConfig::default() })]

    #[test]
    fn the_kernel_shows_the_same_tree(ops in proptest::collection::vec(operation(), 1..40)) {
        if !needs::root() {
            return Ok(());
        }
        let mut world = World::new(lower(), options());
        run(&ops, &mut world).map_err(TestCaseError::fail)?;
        compare(&mut world).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn the_kernel_does_the_same(ops in proptest::collection::vec(operation(), 1..40)) {
        if !needs::root() {
            return Ok(());
        }
        let ops: Vec<_> = ops.into_iter().filter(beside::fits).collect();
        // A device 0:0 cannot be laid out.
        let mut world = World::new(lower_without_zero(), options());
        let mounted = mount_beside(&world);
        let root = mounted.0.clone();
        run_beside(&ops, &mut world, &mut |op, world| beside::apply(op, world, &root))
            .map_err(TestCaseError::fail)?;
        let (mut seen, mut expected) = (tree(&root), model_tree(&world));
        seen.remove("");
        expected.remove("");
        prop_assert_eq!(seen, expected);
    }
}
