//! What is known of one path of a tree, expected or seen.
//!
//! Invariants: a tree names every path once, in the order of the bytes; the names of one inode have
//! the same `inode`, the first of them; a fact that an expectation leaves open is `None`, and a
//! fact of a tree that was seen never is.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::text::CaseLine;

/// One path and its facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// From the root, without a slash at its start; the root is `.`.
    pub path: Vec<u8>,
    /// `dir`, `file`, `symlink`, `fifo`, `socket`, `char` or `block`; of a tree that was seen also
    /// `name without a node`.
    pub kind: String,
    /// The content of a file, the target of a symlink, `MAJOR:MINOR` of a device.
    pub body: Vec<u8>,
    /// The twelve permission bits.
    pub mode: Option<u32>,
    /// The owner.
    pub uid: Option<u32>,
    /// The owning group.
    pub gid: Option<u32>,
    /// Seconds and nanoseconds of the last change of the content.
    pub mtime: Option<(i64, u32)>,
    /// Extended attributes.
    pub xattrs: Option<BTreeMap<Vec<u8>, Vec<u8>>>,
    /// The first path that is the same inode.
    pub inode: Vec<u8>,
    /// Its permissions keep the running user from looking into it: content, attributes and, of a
    /// directory, what is in it are unknown. Never so in an expectation.
    pub closed: bool,
}

impl TreeEntry {
    /// The entry as JSON; bytes that are not text are in hexadecimal, under a key with `_hex`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut object = serde_json::Map::new();
        let mut put = |key: &str, bytes: &[u8]| match std::str::from_utf8(bytes) {
            Ok(text) => object.insert(key.to_owned(), json!(text)),
            Err(_) => object.insert(format!("{key}_hex"), json!(hex(bytes))),
        };
        put("path", &self.path);
        match self.kind.as_str() {
            "file" => put("content", &self.body),
            "symlink" => put("target", &self.body),
            "char" | "block" => put("device", &self.body),
            _ => None,
        };
        if self.inode != self.path {
            put("same_inode_as", &self.inode);
        }
        object.insert("type".to_owned(), json!(self.kind));
        if let Some(mode) = self.mode {
            object.insert("mode".to_owned(), json!(format!("{mode:04o}")));
        }
        for (key, value) in [("uid", self.uid), ("gid", self.gid)] {
            value.map(|value| object.insert(key.to_owned(), json!(value)));
        }
        if let Some((seconds, nanos)) = self.mtime {
            object.insert("mtime".to_owned(), json!({"seconds": seconds, "nanoseconds": nanos}));
        }
        if let Some(xattrs) = &self.xattrs {
            let named = xattrs.iter().map(|(name, value)| {
                (String::from_utf8_lossy(name).into_owned(), json!(hex(value)))
            });
            object.insert("xattrs_hex".to_owned(), Value::Object(named.collect()));
        }
        Value::Object(object)
    }
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The tree that these lines describe. A fact that a line does not give has its default: mode 0755
/// or 0644, owner 0:0, time 0 (open for directories), no attributes. `KEY=*` leaves a fact open,
/// and `implied` is a directory of which only the name is known, and what its line gives. An option
/// that says nothing is an error.
pub(crate) fn of_lines(lines: &[CaseLine]) -> Result<Vec<TreeEntry>, String> {
    let mut all: Vec<TreeEntry> = Vec::new();
    for line in lines {
        let path = line.arg(0)?.to_vec();
        if all.iter().any(|entry| entry.path == path) {
            return Err(format!("{} is there twice", path.escape_ascii()));
        }
        if line.word == "link" {
            if let Some((key, _)) = line.options.first() {
                return Err(format!("{key} cannot be given to a link: it is the inode's"));
            }
            let target = line.arg(1)?;
            let target = all.iter().find(|entry| entry.path == target);
            let target = target.ok_or("the target of a link comes before it")?.clone();
            all.push(TreeEntry { path, ..target });
            continue;
        }
        all.push(entry(line, path)?);
    }
    all.sort_by(|a, b| a.path.cmp(&b.path));
    first_names(&mut all);
    Ok(all)
}

fn entry(line: &CaseLine, path: Vec<u8>) -> Result<TreeEntry, String> {
    let implied = line.word == "implied";
    let directory = implied || line.word == "dir";
    let open = |key| match line.option(key) {
        Some(value) => value == b"*",
        None => implied,
    };
    let (kind, body) = match line.word.as_str() {
        "dir" | "implied" => ("dir", Vec::new()),
        "fifo" => ("fifo", Vec::new()),
        kind @ ("file" | "symlink" | "char" | "block") => (kind, line.arg(1)?.to_vec()),
        word => return Err(format!("{word} is nothing that a tree has")),
    };
    meaningful(line)?;
    let fact = |key, radix, default| -> Result<Option<u32>, String> {
        if open(key) {
            return Ok(None);
        }
        let number = line.number(key, radix, default)?;
        u32::try_from(number).map(Some).map_err(|_| format!("{key} is too large"))
    };
    let timeless = open("mtime") || directory && line.option("mtime").is_none();
    let xattrs: BTreeMap<_, _> =
        line.xattrs().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    let any_xattrs = open("xattrs") && xattrs.is_empty();
    Ok(TreeEntry {
        kind: kind.to_owned(),
        body,
        // Linux gives no other mode to symlinks.
        mode: if kind == "symlink" {
            None
        } else {
            fact("mode", 8, if directory { 0o755 } else { 0o644 })?
        },
        uid: fact("uid", 10, 0)?,
        gid: fact("gid", 10, 0)?,
        mtime: if timeless { None } else { Some(line.time()?) },
        xattrs: if any_xattrs { None } else { Some(xattrs) },
        inode: path.clone(),
        path,
        closed: false,
    })
}

/// Whether each option of a line says something of the entry.
fn meaningful(line: &CaseLine) -> Result<(), String> {
    let xattrs: Vec<&[u8]> = line.xattrs().map(|(key, _)| key).collect();
    for (key, value) in &line.options {
        let known = match key.as_str() {
            // Linux gives no other mode to symlinks.
            "mode" => line.word != "symlink",
            "uid" | "gid" | "mtime" => true,
            "xattrs" => value == b"*" && xattrs.is_empty(),
            key => xattrs.contains(&key.as_bytes()),
        };
        if !known {
            return Err(format!("{key} says nothing of a {}", line.word));
        }
    }
    Ok(())
}

/// Gives the entries of each inode the first of their paths; entries are sorted.
pub(crate) fn first_names(all: &mut [TreeEntry]) {
    let mut first: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for entry in all {
        entry.inode = first.entry(entry.inode.clone()).or_insert(entry.path.clone()).clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text;

    fn parsed(line: &str) -> Result<TreeEntry, String> {
        of_lines(&[text::parse(1, line)?]).map(|mut all| all.remove(0))
    }

    #[test]
    fn what_the_line_of_an_implied_directory_gives_is_compared() {
        let open = parsed("implied d").unwrap();
        assert_eq!((open.mode, open.uid, open.mtime, open.xattrs), (None, None, None, None));
        let given = parsed("implied d mode=0755 gid=7 user.a=b").unwrap();
        assert_eq!((given.mode, given.uid, given.gid), (Some(0o755), None, Some(7)));
        assert_eq!(given.xattrs.map(|all| all.len()), Some(1));
    }

    #[test]
    fn an_option_that_says_nothing_is_an_error() {
        for line in [
            "dir d mod=0755",
            "symlink s t mode=0777",
            "file f \"f\" xattrs=none",
            "file f \"f\" xattrs=* user.a=b",
        ] {
            assert!(parsed(line).unwrap_err().contains("says nothing"), "{line}");
        }
        let lines =
            ["file a \"a\"", "link b a mode=0600"].map(|line| text::parse(1, line).unwrap());
        assert!(of_lines(&lines).unwrap_err().contains("cannot be given to a link"));
    }
}
