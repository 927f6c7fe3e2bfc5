//! An outer tar as random access: one pass over its headers gives every member's place.
//!
//! The archive is a plain, seekable file by the time it gets here (see `spool`), so members are
//! read with `pread` straight from it: several layers at the same time, none in memory whole.
//! Old `docker save` and `podman save` write a repeated layer as a symbolic link to the first,
//! so links are followed, inside the index of members alone: no file system is asked.
//!
//! Invariants: a member lies wholly inside the file; extension headers are capped before they
//! are read; a link never leads out of the archive, and a chain of links ends after
//! [`LINK_CHAIN`] steps.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use strata_tree::TreePath;
use tar::{EntryType, Header};

use crate::error::{Error, Result};
use crate::limits::Limits;

const BLOCK: u64 = 512;
/// Enough for any path that Linux takes and any comment that a tool writes.
const EXTENSION_MAX: u64 = 1 << 20;
/// As many links in a row as the kernel follows.
const LINK_CHAIN: usize = 40;

#[derive(Debug, Clone)]
enum Member {
    /// Bytes of the archive.
    Body { offset: u64, size: u64 },
    /// Another member, clamped to the archive's root.
    Link(TreePath),
    /// Present, and nothing that can be read (directory, device, sparse file).
    Opaque,
}

/// A place in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) size: u64,
    /// Several members have this path, so readers could disagree on which one counts.
    pub(crate) repeated: bool,
}

/// The members of an outer tar.
#[derive(Debug)]
pub(crate) struct Archive {
    file: File,
    members: HashMap<TreePath, (Member, bool)>,
}

/// What the headers before a member say about it.
#[derive(Default)]
struct Pending {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

impl Archive {
    /// Reads all headers of `file`, an uncompressed tar that is called `label` in errors.
    ///
    /// # Errors
    /// `Archive` for a damaged one, `Limit` for too many members, `Io`.
    pub(crate) fn index(file: File, label: &str, limits: &Limits) -> Result<Self> {
        let length = file.metadata().map_err(|e| Error::io(format!("stat {label}"), e))?.len();
        let scan = Scan { file: &file, label, length };
        let mut members: HashMap<TreePath, (Member, bool)> = HashMap::new();
        let mut pending = Pending::default();
        let mut offset = 0;
        // The end is two zero blocks; an archive cut at a member's end is read as it is.
        while let Some(header) = scan.header(offset)? {
            let extension = header.entry_type().is_gnu_longname()
                || header.entry_type().is_gnu_longlink()
                || header.entry_type().is_pax_local_extensions()
                || header.entry_type().is_pax_global_extensions();
            // A size from a PAX record is the member's, not that of another extension between.
            let size = match pending.size {
                Some(size) if !extension => size,
                _ => scan.size(&header, offset)?,
            };
            let body = offset + BLOCK;
            let next = scan.after(offset, size)?;
            match header.entry_type() {
                EntryType::GNULongName => pending.path = Some(scan.text(offset, body, size)?),
                EntryType::GNULongLink => pending.link = Some(scan.text(offset, body, size)?),
                EntryType::XHeader => scan.pax(offset, body, size, &mut pending)?,
                EntryType::XGlobalHeader => {}
                kind => {
                    let state = std::mem::take(&mut pending);
                    let raw = state.path.unwrap_or_else(|| header.path_bytes().into_owned());
                    let path = TreePath::clamped(&raw)
                        .map_err(|e| scan.damaged(offset, format!("member path: {e}")))?;
                    let link = state
                        .link
                        .or_else(|| header.link_name_bytes().map(|name| name.into_owned()));
                    let member = match kind {
                        _ if state.sparse => Member::Opaque,
                        EntryType::Regular | EntryType::Continuous => {
                            Member::Body { offset: body, size }
                        }
                        EntryType::Symlink | EntryType::Link => {
                            scan.link(offset, &path, kind, link.as_deref())?
                        }
                        _ => Member::Opaque,
                    };
                    let repeated =
                        !matches!(kind, EntryType::Directory) && members.contains_key(&path);
                    members.insert(path, (member, repeated));
                    if members.len() as u64 > limits.members {
                        return Err(Error::Limit {
                            label: label.to_owned(),
                            what: "the number of members".to_owned(),
                            limit: limits.members,
                            option: "--max-members",
                        });
                    }
                }
            }
            offset = next;
        }
        Ok(Self { file, members })
    }

    /// Where the bytes of the member at `path` are; `None` if there is no such member, or only
    /// something without bytes.
    pub(crate) fn find(&self, path: &TreePath) -> Option<Extent> {
        let mut at = path;
        let mut ever = false;
        for _ in 0..LINK_CHAIN {
            let (member, repeated) = self.members.get(at)?;
            ever |= *repeated;
            match member {
                Member::Body { offset, size } => {
                    return Some(Extent { offset: *offset, size: *size, repeated: ever });
                }
                Member::Link(target) => at = target,
                Member::Opaque => return None,
            }
        }
        None
    }

    /// The archive itself, for `pread`.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

/// One pass over the headers.
struct Scan<'a> {
    file: &'a File,
    label: &'a str,
    length: u64,
}

impl Scan<'_> {
    fn damaged(&self, offset: u64, what: impl Into<String>) -> Error {
        Error::Archive { label: self.label.to_owned(), offset, what: what.into() }
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(|e| Error::io(format!("reading {} at byte {offset}", self.label), e))
    }

    /// The header at `offset`; `None` at the end.
    fn header(&self, offset: u64) -> Result<Option<Header>> {
        if offset >= self.length {
            return Ok(None);
        }
        if self.length - offset < BLOCK {
            return Err(self.damaged(offset, "it ends inside a header"));
        }
        let mut header = Header::new_old();
        self.read(offset, header.as_mut_bytes())?;
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum: u32 = header
            .as_bytes()
            .iter()
            .enumerate()
            // The checksum's own field counts as spaces.
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
            .sum();
        match header.cksum() {
            Ok(said) if said == sum => Ok(Some(header)),
            _ => Err(self.damaged(offset, "no tar header (its checksum does not fit)")),
        }
    }

    fn size(&self, header: &Header, offset: u64) -> Result<u64> {
        // Links and directories may carry a size in some old archives, but never a body.
        match header.entry_type() {
            EntryType::Link | EntryType::Symlink | EntryType::Directory => Ok(0),
            _ => header.entry_size().map_err(|e| self.damaged(offset, e.to_string())),
        }
    }

    /// Where the next header begins.
    fn after(&self, offset: u64, size: u64) -> Result<u64> {
        let end = (offset + BLOCK).checked_add(size).filter(|end| *end <= self.length);
        let end = end.ok_or_else(|| {
            self.damaged(offset, format!("a member of {size} bytes passes the end: truncated"))
        })?;
        end.checked_next_multiple_of(BLOCK).ok_or_else(|| self.damaged(offset, "too large"))
    }

    fn extension(&self, offset: u64, body: u64, size: u64) -> Result<Vec<u8>> {
        if size > EXTENSION_MAX {
            return Err(self.damaged(
                offset,
                format!("an extension header of {size} bytes (the limit is {EXTENSION_MAX})"),
            ));
        }
        let mut bytes = vec![0; size as usize];
        self.read(body, &mut bytes)?;
        Ok(bytes)
    }

    /// A GNU long name: ends at the first NUL.
    fn text(&self, offset: u64, body: u64, size: u64) -> Result<Vec<u8>> {
        let mut bytes = self.extension(offset, body, size)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        bytes.truncate(end);
        Ok(bytes)
    }

    /// The PAX records that bear on where a member is and what it is called.
    fn pax(&self, offset: u64, body: u64, size: u64, pending: &mut Pending) -> Result<()> {
        let bytes = self.extension(offset, body, size)?;
        let bad = || self.damaged(offset, "a PAX record that breaks its format");
        let mut rest = bytes.as_slice();
        while !rest.is_empty() && rest.first() != Some(&0) {
            let space = rest.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
            let length = decimal(&rest[..space]).ok_or_else(bad)?;
            let length = usize::try_from(length).map_err(|_| bad())?;
            if length <= space + 1 || length > rest.len() || rest[length - 1] != b'\n' {
                return Err(bad());
            }
            let record = &rest[space + 1..length - 1];
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => pending.path = Some(value.to_vec()),
                b"linkpath" => pending.link = Some(value.to_vec()),
                b"size" => pending.size = Some(decimal(value).ok_or_else(bad)?),
                _ if key.starts_with(b"GNU.sparse.") => pending.sparse = true,
                _ => {}
            }
            rest = &rest[length..];
        }
        Ok(())
    }

    fn link(
        &self,
        offset: u64,
        path: &TreePath,
        kind: EntryType,
        target: Option<&[u8]>,
    ) -> Result<Member> {
        let target =
            target.ok_or_else(|| self.damaged(offset, format!("link {path} has no target")))?;
        let mut whole = Vec::new();
        // A symbolic link starts from its directory, a hard link from the archive's root.
        if kind == EntryType::Symlink
            && !target.starts_with(b"/")
            && let Some((parent, _)) = path.split_last()
        {
            whole.extend_from_slice(parent.as_bytes());
            whole.push(b'/');
        }
        whole.extend_from_slice(target);
        TreePath::clamped(&whole)
            .map(Member::Link)
            .map_err(|e| self.damaged(offset, format!("link {path}: {e}")))
    }
}

/// Digits alone, as PAX writes numbers.
fn decimal(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    text.bytes().all(|b| b.is_ascii_digit()).then_some(())?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn index(bytes: &[u8]) -> Result<Archive> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Archive::index(file, "test.tar", &Limits { members: 8, ..Limits::default() })
    }

    fn body(archive: &Archive, path: &str) -> Option<Vec<u8>> {
        let extent = archive.find(&TreePath::clamped(path.as_bytes()).unwrap())?;
        let mut bytes = vec![0; extent.size as usize];
        archive.file().read_exact_at(&mut bytes, extent.offset).unwrap();
        Some(bytes)
    }

    fn add(tar: &mut tar::Builder<Vec<u8>>, path: &str, kind: EntryType, data: &str) {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        if matches!(kind, EntryType::Symlink | EntryType::Link) {
            header.set_size(0);
            tar.append_link(&mut header, path, data).unwrap();
        } else {
            header.set_size(data.len() as u64);
            tar.append_data(&mut header, path, data.as_bytes()).unwrap();
        }
    }

    #[test]
    fn members_are_found_by_path_and_through_links() {
        let mut tar = tar::Builder::new(Vec::new());
        let long = format!("{}/layer.tar", "d".repeat(150));
        add(&mut tar, "./a/layer.tar", EntryType::Regular, "first");
        add(&mut tar, "b/layer.tar", EntryType::Symlink, "../a/layer.tar");
        add(&mut tar, "c/layer.tar", EntryType::Symlink, "../../../../b/layer.tar");
        add(&mut tar, "h", EntryType::Link, "a/layer.tar");
        add(&mut tar, &long, EntryType::Regular, "long");
        add(&mut tar, "loop", EntryType::Symlink, "loop");
        add(&mut tar, "out", EntryType::Symlink, "/etc/hostname");
        let archive = index(&tar.into_inner().unwrap()).unwrap();
        for (path, data) in [
            ("a/layer.tar", Some("first")),
            ("b/layer.tar", Some("first")),
            ("c/layer.tar", Some("first")),
            ("h", Some("first")),
            (&long, Some("long")),
            ("loop", None),
            ("out", None),
            ("absent", None),
        ] {
            assert_eq!(body(&archive, path).as_deref(), data.map(str::as_bytes), "{path}");
        }
    }

    #[test]
    fn pax_records_give_path_and_size() {
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_pax_extensions([("path", &b"real"[..]), ("comment", b"a\nb")]).unwrap();
        add(&mut tar, "nominal", EntryType::Regular, "bytes");
        let archive = index(&tar.into_inner().unwrap()).unwrap();
        assert_eq!(body(&archive, "real").as_deref(), Some(&b"bytes"[..]));
        assert_eq!(body(&archive, "nominal"), None);
    }

    #[test]
    fn a_repeated_member_is_marked() {
        let mut tar = tar::Builder::new(Vec::new());
        add(&mut tar, "x", EntryType::Regular, "one");
        add(&mut tar, "./x", EntryType::Regular, "two");
        let archive = index(&tar.into_inner().unwrap()).unwrap();
        assert!(archive.find(&TreePath::clamped(b"x").unwrap()).unwrap().repeated);
    }

    #[test]
    fn damage_is_named_with_its_offset() {
        let mut tar = tar::Builder::new(Vec::new());
        add(&mut tar, "a", EntryType::Regular, &"x".repeat(1000));
        let whole = tar.into_inner().unwrap();
        let mut broken = whole.clone();
        broken[0] ^= 1;
        let mut long = tar::Builder::new(Vec::new());
        add(&mut long, "big", EntryType::GNULongName, &"x".repeat((1 << 20) + 1));
        for (bytes, text) in [
            (whole[..1000].to_vec(), "at byte 0: a member of 1000 bytes passes the end"),
            (whole[..300].to_vec(), "at byte 0: it ends inside a header"),
            (broken, "at byte 0: no tar header"),
            (long.into_inner().unwrap(), "an extension header of 1048577 bytes"),
        ] {
            let error = index(&bytes).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn too_many_members_are_refused() {
        let mut tar = tar::Builder::new(Vec::new());
        for n in 0..9 {
            add(&mut tar, &n.to_string(), EntryType::Regular, "");
        }
        let error = index(&tar.into_inner().unwrap()).unwrap_err().to_string();
        assert!(error.contains("--max-members"), "{error}");
    }
}
