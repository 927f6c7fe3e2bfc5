//! Mounts of ours that live in other mount namespaces: in a container, or a service that has its
//! own.
//!
//! A namespace that is made while a mount stands has a copy of it, and the copy keeps file system
//! and daemon alive when the mount here is gone. Copies have the device of the first, which nothing
//! else has while its daemon lives.
//!
//! Invariant: only `/proc` is read, so nothing here waits for a daemon. Processes that the caller
//! may not look into are not seen.

use std::collections::HashSet;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::table::MountLine;

use super::point;

/// A mount in another namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Elsewhere {
    /// One of the namespace's processes.
    pub(crate) pid: u32,
    /// What it is called.
    pub(crate) command: String,
    /// Where it sees the mount.
    pub(crate) path: PathBuf,
}

impl std::fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pid {} ({}) has it at {}", self.pid, self.command, point::shown(&self.path))
    }
}

/// The mounts of `device` (as the mount table has it, `0:50`) in all namespaces but this one, one
/// process each.
pub(crate) fn having(device: &str) -> Vec<Elsewhere> {
    let namespace = |process: &Path| fs::read_link(process.join("ns/mnt")).ok();
    let mut seen: HashSet<PathBuf> = namespace(Path::new("/proc/self")).into_iter().collect();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let mut pids: Vec<u32> =
        processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    // The first process of a container says most about it.
    pids.sort_unstable();
    let mut found = Vec::new();
    for pid in pids {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let Some(own) = namespace(&process) else { continue };
        if !seen.insert(own) {
            continue;
        }
        let table = fs::read(process.join("mountinfo")).unwrap_or_default();
        if let Some(path) = path_of(&table, device) {
            let command = fs::read_to_string(process.join("comm")).unwrap_or_default();
            found.push(Elsewhere { pid, command: command.trim_end().to_owned(), path });
        }
    }
    found
}

fn path_of(table: &[u8], device: &str) -> Option<PathBuf> {
    let line = MountLine::all(table).find(|line| line.device() == Some(device.as_bytes()))?;
    Some(std::ffi::OsString::from_vec(line.path()?).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_where_it_is_mounted() {
        let table = b"21 1 8:1 / / rw - ext4 /dev/sda rw\n\
            40 21 0:50 / /a\\040b ro,nosuid master:1 - fuse.strata x ro\n";
        assert_eq!(path_of(table, "0:50"), Some(PathBuf::from("/a b")));
        assert_eq!(path_of(table, "0:5"), None);
    }
}
