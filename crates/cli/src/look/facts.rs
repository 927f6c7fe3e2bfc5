//! What a tree says of one node, for `--format json` of `ls` and `stat`.
//!
//! Invariants: a path or target that is not UTF-8 is shown with replacement characters and, in a
//! field of its own, exactly, in hex; numbers are never rounded.

use std::borrow::Cow;

use serde::Serialize;
use strata_tree::{Kind, Lower, Node, Result};

use super::render::{full_time, hex, type_word};

/// The number of a device.
#[derive(Debug, Serialize)]
pub(super) struct DeviceJson {
    major: u32,
    minor: u32,
}

/// All facts of one node under one path.
#[derive(Debug, Serialize)]
pub(super) struct NodeJson {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    r#type: &'static str,
    /// The 12 permission bits in octal.
    mode: String,
    nlink: u32,
    uid: u32,
    gid: u32,
    /// Bytes.
    size: u64,
    inode: u64,
    /// UTC, to the nanosecond.
    mtime: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<DeviceJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_hex: Option<String>,
}

fn text_and_hex(bytes: &[u8]) -> (String, Option<String>) {
    match String::from_utf8_lossy(bytes) {
        Cow::Borrowed(text) => (text.to_owned(), None),
        Cow::Owned(lossy) => (lossy, Some(hex(bytes))),
    }
}

impl NodeJson {
    pub(super) fn of(tree: &dyn Lower, node: &Node, path: &[u8]) -> Result<Self> {
        let stat = node.stat;
        let (path, path_hex) = text_and_hex(path);
        let (target, target_hex) = match stat.kind {
            Kind::Symlink => {
                let (target, hex) = text_and_hex(&tree.read_link(node.id)?);
                (Some(target), hex)
            }
            _ => (None, None),
        };
        Ok(Self {
            path,
            path_hex,
            r#type: type_word(stat.kind),
            mode: format!("{:04o}", stat.perm),
            nlink: stat.nlink,
            uid: stat.uid,
            gid: stat.gid,
            size: stat.size,
            inode: node.id.0,
            mtime: full_time(stat.mtime),
            device: stat.kind.device().map(|d| DeviceJson { major: d.major, minor: d.minor }),
            target,
            target_hex,
        })
    }
}
