//! What the program shows of an image: by `ls`, `stat` and `cat`, and in a mount.
//!
//! Invariant: a mount goes away with the function that looked into it, also when it panics.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use strata_testkit::needs;

use strata_testkit::example::PathFacts;

const IMAGE: &str = "test:1";
/// Why the kernel does not mount an image with a character device 0:0.
const NO_WHITEOUT_DEVICE: &str = "overlayfs takes it for a whiteout";

/// A store in a temporary directory.
pub(crate) struct Store {
    dir: PathBuf,
}

/// Whether mounts can be compared: as root, since others do not see `trusted.*`.
pub(crate) fn can_mount() -> bool {
    needs::is_root() && std::fs::File::open("/dev/fuse").is_ok()
}

impl Store {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    fn strata(&self, args: &[&OsStr]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strata"));
        command.arg("--root").arg(self.dir.join("store")).arg("--quiet").args(args);
        command.output().unwrap()
    }

    fn done(&self, args: &[&OsStr]) -> Vec<u8> {
        let output = self.strata(args);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "strata {args:?}: {message}");
        output.stdout
    }

    /// Loads `image`; the error's message if it is refused.
    pub(crate) fn load(&self) -> Result<(), String> {
        let image = self.dir.join("image");
        let output = self.strata(&["load".as_ref(), "-i".as_ref(), image.as_ref()]);
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Whether nothing of any image is there: no image, no layer, nothing half done.
    pub(crate) fn is_empty(&self) -> bool {
        ["layers", "blobs/sha256", "trees", "staging", "trash"].iter().all(|dir| {
            std::fs::read_dir(self.dir.join("store").join(dir)).unwrap().next().is_none()
        })
    }

    /// The tree as `ls`, `stat` and `cat` tell it.
    pub(crate) fn listed(&self) -> Vec<PathFacts> {
        let target = |path: &[u8]| OsString::from_vec([IMAGE.as_bytes(), b":/", path].concat());
        let json = |args: &[&OsStr]| -> Value {
            let args = [&["--format".as_ref(), "json".as_ref()], args].concat();
            serde_json::from_slice(&self.done(&args)).unwrap()
        };
        let mut found = json(&["ls".as_ref(), "-R".as_ref(), IMAGE.as_ref()]);
        let mut entries = found.as_array_mut().map(std::mem::take).unwrap();
        entries.push(json(&["stat".as_ref(), target(b"").as_ref()]));
        let mut inodes = Vec::new();
        let mut all = Vec::new();
        for entry in &entries {
            let path = bytes(entry, "path");
            let path = path.strip_prefix(b"/").unwrap();
            let (kind, body) = match entry["type"].as_str().unwrap() {
                "directory" => ("dir", Vec::new()),
                "regular" => ("file", self.done(&["cat".as_ref(), target(path).as_ref()])),
                "symlink" => ("symlink", bytes(entry, "target")),
                kind @ ("char" | "block") => {
                    let device = &entry["device"];
                    (kind, format!("{}:{}", device["major"], device["minor"]).into_bytes())
                }
                kind => (kind, Vec::new()),
            };
            let stat = json(&["stat".as_ref(), target(path).as_ref()]);
            let number = |key: &str| entry[key].as_u64().unwrap();
            let xattrs = stat["xattrs"].as_array().unwrap().iter();
            all.push(PathFacts {
                path: if path.is_empty() { b".".to_vec() } else { path.to_vec() },
                kind: kind.to_owned(),
                body,
                mode: u32::from_str_radix(entry["mode"].as_str().unwrap(), 8).unwrap(),
                uid: number("uid") as u32,
                gid: number("gid") as u32,
                mtime: timestamp(entry["mtime"].as_str().unwrap()),
                nlink: number("nlink"),
                xattrs: xattrs
                    .map(|xattr| {
                        let name = xattr["name"].as_str().unwrap().as_bytes().to_vec();
                        (name, unhex(xattr["hex"].as_str().unwrap()))
                    })
                    .collect(),
                inode: Vec::new(),
            });
            inodes.push(number("inode"));
        }
        name_inodes(&mut all, &inodes);
        all
    }

    /// The tree in a mount of this backend; `None` where there can be none.
    pub(crate) fn mounted(&self, backend: &str) -> Option<Vec<PathFacts>> {
        if !can_mount() {
            return None;
        }
        let point = self.dir.join(format!("mountpoint-{backend}"));
        std::fs::create_dir(&point).unwrap();
        let args = ["mount", "--backend", backend, IMAGE].map(OsStr::new);
        let mounted = self.strata(&[&args[..], &[point.as_ref()]].concat());
        let message = String::from_utf8_lossy(&mounted.stderr);
        // Said with a reason, and never of a tree that it can show.
        if backend == "kernel" && message.contains(NO_WHITEOUT_DEVICE) {
            return None;
        }
        assert!(mounted.status.success(), "{message}");
        let _unmount = Unmount(self, &point);
        let (mut all, mut inodes) = (Vec::new(), Vec::new());
        let mut todo = vec![PathBuf::new()];
        while let Some(path) = todo.pop() {
            let at = point.join(&path);
            let meta = std::fs::symlink_metadata(&at).unwrap();
            let (kind, body) = look(&at, &meta);
            if meta.is_dir() {
                let names = std::fs::read_dir(&at).unwrap();
                todo.extend(names.map(|name| path.join(name.unwrap().file_name())));
            }
            let path = path.into_os_string().into_vec();
            all.push(PathFacts {
                path: if path.is_empty() { b".".to_vec() } else { path },
                kind: kind.to_owned(),
                body,
                mode: meta.mode() & 0o7777,
                uid: meta.uid(),
                gid: meta.gid(),
                mtime: (meta.mtime(), meta.mtime_nsec() as u32),
                nlink: meta.nlink(),
                xattrs: xattrs(&at),
                inode: Vec::new(),
            });
            inodes.push(meta.ino());
        }
        name_inodes(&mut all, &inodes);
        Some(all)
    }
}

struct Unmount<'a>(&'a Store, &'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let output = self.0.strata(&["umount".as_ref(), self.1.as_ref()]);
        if !output.status.success() && !std::thread::panicking() {
            panic!("umount: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

fn look(at: &Path, meta: &std::fs::Metadata) -> (&'static str, Vec<u8>) {
    let kind = meta.file_type();
    let device = || {
        let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
        format!("{major}:{minor}").into_bytes()
    };
    if kind.is_dir() {
        ("dir", Vec::new())
    } else if kind.is_file() {
        ("file", std::fs::read(at).unwrap())
    } else if kind.is_symlink() {
        ("symlink", std::fs::read_link(at).unwrap().into_os_string().into_vec())
    } else if kind.is_char_device() {
        ("char", device())
    } else if kind.is_block_device() {
        ("block", device())
    } else {
        ("fifo", Vec::new())
    }
}

fn xattrs(at: &Path) -> std::collections::BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 1 << 16];
    let length = rustix::fs::llistxattr(at, names.as_mut_slice()).unwrap();
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0; 1 << 16];
        let length = rustix::fs::lgetxattr(at, name, value.as_mut_slice())
            .unwrap_or_else(|error| panic!("{at:?}: {}: {error}", name.escape_ascii()));
        value.truncate(length);
        value
    };
    names.map(|name| (name.to_vec(), value(name))).collect()
}

/// Gives each path the first path of its inode.
fn name_inodes(all: &mut [PathFacts], inodes: &[u64]) {
    for at in 0..all.len() {
        let same = (0..all.len()).filter(|other| inodes[*other] == inodes[at]);
        all[at].inode = same.map(|other| all[other].path.clone()).min().unwrap();
    }
}

/// A field of bytes: in hex beside it where it is no text.
fn bytes(entry: &Value, key: &str) -> Vec<u8> {
    match entry[format!("{key}_hex")].as_str() {
        Some(hex) => unhex(hex),
        None => entry[key].as_str().unwrap().as_bytes().to_vec(),
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    let pairs = (0..hex.len()).step_by(2);
    pairs.map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn timestamp(text: &str) -> (i64, u32) {
    let time: jiff::Timestamp = text.parse().unwrap();
    let nanos = time.as_nanosecond();
    (nanos.div_euclid(1_000_000_000) as i64, nanos.rem_euclid(1_000_000_000) as u32)
}
