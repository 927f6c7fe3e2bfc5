//! Random operations on an upper whose file system lists names without their types: an ext4
//! without its `filetype` feature, in a file.
//!
//! Invariant: needs root, loop devices and mkfs.ext4.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use proptest::test_runner::{Config, TestCaseError, TestRunner};
use rustix::fs::{Dir, FileType, Mode, OFlags};
use strata_testkit::needs;
use tempfile::TempDir;

use super::lowers::{layers, lower};
use super::operations::{operation, run};
use super::world::{World, options};
use crate::tests::Mounted;

const SIZE: u64 = 64 << 20;

/// Such a file system.
struct TypelessDisk {
    mounted: Mounted,
    _dir: TempDir,
}

impl TypelessDisk {
    fn new() -> Result<Self, String> {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (image, at) = (dir.path().join("image"), dir.path().join("disk"));
        std::fs::File::create(&image).and_then(|file| file.set_len(SIZE)).unwrap();
        std::fs::create_dir(&at).unwrap();
        let (image, target) = (image.as_os_str(), at.as_os_str());
        succeed("mkfs.ext4", &["-q".as_ref(), "-O".as_ref(), "^filetype".as_ref(), image])?;
        succeed("mount", &["-o".as_ref(), "loop".as_ref(), image, target])?;
        Ok(Self { mounted: Mounted(at), _dir: dir })
    }
}

fn succeed(program: &str, args: &[&OsStr]) -> Result<(), String> {
    let path = "/usr/sbin:/usr/bin:/sbin:/bin";
    let said = Command::new(program).args(args).env("PATH", path).output();
    let said = said.map_err(|error| format!("{program}: {error}"))?;
    let why = String::from_utf8_lossy(&said.stderr);
    said.status.success().then_some(()).ok_or_else(|| format!("{program}: {why}"))
}

fn types(dir: &Path) -> Vec<FileType> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let dir = rustix::fs::open(dir, flags, Mode::empty()).unwrap();
    Dir::read_from(dir).unwrap().map(|entry| entry.unwrap().file_type()).collect()
}

#[test]
fn an_upper_that_tells_no_types_is_its_model() {
    if !needs::root() || !needs::path("/dev/loop-control") {
        return;
    }
    let disk = TypelessDisk::new().unwrap();
    assert!(types(&disk.mounted.0).iter().all(|told| *told == FileType::Unknown));
    let config = Config { cases: 24, failure_persistence: None, ..Config::default() };
    let ops = proptest::collection::vec(operation(), 1..40);
    let done = TestRunner::new(config).run(&ops, |ops| {
        let mut world = World::within(&disk.mounted.0, layers(), lower(), options());
        run(&ops, &mut world).map_err(TestCaseError::fail)
    });
    done.unwrap();
}
