//! An outer tar as random access: one pass over its headers gives every member's place.
//!
//! The archive is a plain, seekable file by the time it gets here (see `spool`), so members are
//! read with `pread` straight from it: several layers at the same time, none in memory whole.
//! Old `docker save` and `podman save` write a repeated layer as a symbolic link to the first,
//! so links are followed, inside the index of members alone: no file system is asked.
//!
//! A name that stands there several times with equal bytes (tools that join archives write it so)
//! is one member. A volume label is passed over; a part of a member that other volumes have more
//! of is refused.
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
/// GNU tar's types: the label of a volume, and a member that began in the volume before.
const VOLUME_LABEL: u8 = b'V';
const CONTINUED: u8 = b'M';
/// Bytes that are compared at a time.
const COMPARED: usize = 64 << 10;
/// As many links in a row as the kernel follows.
const LINK_CHAIN: usize = 40;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Member {
    /// Bytes of the archive.
    Body { offset: u64, size: u64 },
    /// Another member, clamped to the archive's root.
    Link(TreePath),
    /// The same; some tools write a symbolic link as if it stood in the root, which is the second.
    Symlink(TreePath, TreePath),
    /// Present, and nothing that can be read (directory, device, sparse file).
    Opaque,
}

/// A place in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) size: u64,
    /// Several members of different bytes have this path: readers could disagree on which counts.
    pub(crate) repeated: bool,
}

/// The members of an outer tar.
#[derive(Debug)]
pub(crate) struct Archive {
    file: File,
    members: HashMap<TreePath, (Member, bool)>,
    has_end: bool,
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
                kind if kind.as_byte() == VOLUME_LABEL => pending = Pending::default(),
                kind if kind.as_byte() == CONTINUED => {
                    let what = "it goes on from another volume; join the volumes first (tar -M)";
                    return Err(scan.damaged(offset, what));
                }
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
                    let repeated = match members.get(&path) {
                        Some((before, repeated)) => *repeated || !scan.same(before, &member)?,
                        None => false,
                    };
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
        let has_end = offset < length;
        Ok(Self { file, members, has_end })
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
                Member::Symlink(near, root) => {
                    at = if self.members.contains_key(near) { near } else { root };
                }
                Member::Opaque => return None,
            }
        }
        None
    }

    /// Whether it says that it ends.
    pub(crate) fn has_end(&self) -> bool {
        self.has_end
    }

    /// A member that is called `path` in some directory.
    pub(crate) fn deeper(&self, path: &TreePath) -> Option<&TreePath> {
        let suffix = [b"/", path.as_bytes()].concat();
        self.members.keys().filter(|known| known.as_bytes().ends_with(&suffix)).min()
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
            // Its size field is blank, or what is left of another member.
            kind if [VOLUME_LABEL, CONTINUED].contains(&kind.as_byte()) => Ok(0),
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

    /// Whether two members of one name say the same.
    fn same(&self, one: &Member, other: &Member) -> Result<bool> {
        let (at, to, size) = match (one, other) {
            (Member::Body { offset: at, size }, Member::Body { offset: to, size: other })
                if size == other =>
            {
                (*at, *to, *size)
            }
            _ => return Ok(one == other),
        };
        let (mut a, mut b) = (vec![0; COMPARED], vec![0; COMPARED]);
        let mut done = 0;
        while done < size {
            let n = COMPARED.min(usize::try_from(size - done).unwrap_or(COMPARED));
            self.read(at + done, &mut a[..n])?;
            self.read(to + done, &mut b[..n])?;
            if a[..n] != b[..n] {
                return Ok(false);
            }
            done += n as u64;
        }
        Ok(true)
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
        let clamped = |text: &[u8]| {
            TreePath::clamped(text).map_err(|e| self.damaged(offset, format!("link {path}: {e}")))
        };
        let root = clamped(target)?;
        // A symbolic link starts from its directory, a hard link from the archive's root.
        match path.split_last() {
            Some((parent, _)) if kind == EntryType::Symlink && !target.starts_with(b"/") => {
                let near = clamped(&[parent.as_bytes(), b"/", target].concat())?;
                Ok(Member::Symlink(near, root))
            }
            _ => Ok(Member::Link(root)),
        }
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
    fn a_member_that_is_there_with_other_bytes_is_marked() {
        let long = "x".repeat(COMPARED + 100);
        let other = format!("{}y", &long[1..]);
        for (members, repeated) in [
            (["one", "one", "one"], false),
            ([&long, &long, &long], false),
            (["one", "two", "two"], true),
            (["one", "two", "one"], true),
            (["one", "one", "on"], true),
            ([&long, &long, &other], true),
        ] {
            let mut tar = tar::Builder::new(Vec::new());
            add(&mut tar, "x", EntryType::Regular, members[0]);
            add(&mut tar, "d/", EntryType::Directory, "");
            add(&mut tar, "./x", EntryType::Regular, members[1]);
            add(&mut tar, "d/", EntryType::Directory, "");
            add(&mut tar, "x", EntryType::Regular, members[2]);
            let archive = index(&tar.into_inner().unwrap()).unwrap();
            let found = archive.find(&TreePath::clamped(b"x").unwrap()).unwrap();
            assert_eq!(found.repeated, repeated, "{}", members[2].len());
        }
        for (kinds, repeated) in [
            ([EntryType::Symlink, EntryType::Symlink], false),
            ([EntryType::Symlink, EntryType::Link], true),
            ([EntryType::Regular, EntryType::Symlink], true),
        ] {
            let mut tar = tar::Builder::new(Vec::new());
            add(&mut tar, "a", EntryType::Regular, "bytes");
            for kind in kinds {
                add(&mut tar, "d/x", kind, "../a");
            }
            let archive = index(&tar.into_inner().unwrap()).unwrap();
            let found = archive.find(&TreePath::clamped(b"d/x").unwrap()).unwrap();
            assert_eq!(found.repeated, repeated, "{kinds:?}");
        }
    }

    #[test]
    fn a_link_may_be_named_from_the_root() {
        let mut tar = tar::Builder::new(Vec::new());
        add(&mut tar, "l/layer.tar", EntryType::Symlink, "a.tar");
        add(&mut tar, "m/layer.tar", EntryType::Symlink, "b.tar");
        add(&mut tar, "a.tar", EntryType::Regular, "root");
        add(&mut tar, "b.tar", EntryType::Regular, "root");
        add(&mut tar, "m/b.tar", EntryType::Regular, "near");
        let archive = index(&tar.into_inner().unwrap()).unwrap();
        assert_eq!(body(&archive, "l/layer.tar").as_deref(), Some(&b"root"[..]));
        assert_eq!(body(&archive, "m/layer.tar").as_deref(), Some(&b"near"[..]));
    }

    #[test]
    fn gnu_tars_own_members_are_known() {
        let other = |tar: &mut tar::Builder<Vec<u8>>, kind: u8, size: &[u8]| {
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::new(kind));
            header.as_mut_bytes()[124..124 + size.len()].copy_from_slice(size);
            header.set_cksum();
            tar.get_mut().extend_from_slice(header.as_bytes());
        };
        let mut tar = tar::Builder::new(Vec::new());
        other(&mut tar, b'V', &[0; 12]);
        add(&mut tar, "dump/", EntryType::new(b'D'), "Ya\0\0");
        add(&mut tar, "a", EntryType::Regular, "bytes");
        let archive = index(&tar.into_inner().unwrap()).unwrap();
        assert_eq!(body(&archive, "a").as_deref(), Some(&b"bytes"[..]));
        let mut tar = tar::Builder::new(Vec::new());
        other(&mut tar, b'M', b"00000000777\0");
        let error = index(&tar.into_inner().unwrap()).unwrap_err().to_string();
        assert!(error.contains("it goes on from another volume"), "{error}");
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
