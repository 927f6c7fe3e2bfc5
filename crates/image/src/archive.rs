//! An outer tar as random access: one pass over its headers gives every member's place.
//!
//! The archive is a plain, seekable file by the time it gets here (see `spool`), so members are
//! read with `pread` straight from it: several layers at the same time, none in memory whole.
//! Old `docker save` and `podman save` write a repeated layer as a symbolic link to the first,
//! so links are followed, inside the index of members alone: no file system is asked.
//!
//! Sparse members, whose zeros are left out, are written whole to a scratch file in a second pass.
//! A name that stands there several times with equal bytes (tools that join archives write it so)
//! is one member. A volume label is passed over; a part of a member that other volumes have more
//! of is refused.
//!
//! Invariants: a member lies wholly inside the file; extension headers are capped before they
//! are read; a link never leads out of the archive, and a chain of links ends after
//! [`LINK_CHAIN`] steps.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;

use strata_diff::tar::{DiffReader, RawSink};
use strata_tree::TreePath;
use tar::{EntryType, Header};

use crate::error::{Error, Result};
use crate::limits::SourceLimits;
use crate::spool::Scratch;

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
    /// Bytes of the file that sparse members were written to, holes and all.
    Expanded { offset: u64, size: u64 },
    /// Present, and nothing that can be read (directory, device, sparse file for now).
    Opaque,
}

/// A place in the archive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent<'a> {
    pub(crate) file: &'a File,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    /// Several members of different bytes have this path: readers could disagree on which counts.
    pub(crate) repeated: bool,
}

/// The members of an outer tar.
#[derive(Debug)]
pub(crate) struct ArchiveIndex {
    file: File,
    members: HashMap<TreePath, (Member, bool)>,
    has_end: bool,
    /// It has members whose zeros are left out; [`ArchiveIndex::expand`] reads them.
    has_sparse: bool,
    expanded: Option<File>,
}

/// What the headers before a member say about it.
#[derive(Default)]
struct Pending {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

impl ArchiveIndex {
    /// Reads all headers of `file`, an uncompressed tar that is called `label` in errors.
    ///
    /// # Errors
    /// `Archive` for a damaged one, `Limit` for too many members, `Io`.
    pub(crate) fn index(file: File, label: &str, limits: &SourceLimits) -> Result<Self> {
        let length = file.metadata().map_err(|e| Error::io(format!("stat {label}"), e))?.len();
        let scan = Scan { file: &file, label, length };
        let mut members: HashMap<TreePath, (Member, bool)> = HashMap::new();
        let mut pending = Pending::default();
        let mut offset = 0;
        let mut has_sparse = false;
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
            let body = scan.body(offset, &header)?;
            let next = scan.after(body - BLOCK, size)?;
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
                    has_sparse |= state.sparse || kind == EntryType::GNUSparse;
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
        Ok(Self { file, members, has_end, has_sparse, expanded: None })
    }

    /// Writes the members whose zeros are left out to a scratch file, so that they can be read
    /// like the others.
    ///
    /// # Errors
    /// `Archive` for a damaged one, `Limit` if they are too large, `Io`.
    pub(crate) fn expand(
        mut self,
        scratch: Scratch<'_>,
        label: &str,
        limits: &SourceLimits,
    ) -> Result<Self> {
        if !self.has_sparse {
            return Ok(self);
        }
        let damaged =
            |offset, what: String| Error::Archive { label: label.to_owned(), offset, what };
        let writing = |e| Error::io(format!("writing {label} to a scratch file"), e);
        let out = scratch()?;
        let mut end = 0_u64;
        let input = At { file: &self.file, offset: 0 };
        let mut reader = DiffReader::new(BufReader::new(input), label.to_owned(), BOUNDS, Dropped);
        let mut chunk = vec![0; COMPARED];
        loop {
            let at = reader.offset();
            let member = reader.next().map_err(|e| damaged(at, e.to_string()))?;
            let Some(member) = member else { break };
            let base = end;
            if member.sparse.is_some() {
                end = end.saturating_add(member.size);
                if end > limits.archive_bytes {
                    return Err(Error::Limit {
                        label: label.to_owned(),
                        what: "the number of bytes of sparse members".to_owned(),
                        limit: limits.archive_bytes,
                        option: "--max-archive-bytes",
                    });
                }
            }
            for (mut to, len) in member.sparse.clone().unwrap_or(vec![(0, member.stored)]) {
                let stop = to + len;
                while to < stop {
                    let n = COMPARED.min(usize::try_from(stop - to).unwrap_or(COMPARED));
                    let n = reader
                        .read_body(&mut chunk[..n])
                        .map_err(|e| damaged(member.offset, e.to_string()))?;
                    if n == 0 {
                        break;
                    }
                    if member.sparse.is_some() {
                        out.write_all_at(&chunk[..n], base + to).map_err(writing)?;
                    }
                    to += n as u64;
                }
            }
            if member.sparse.is_some() {
                let path = TreePath::clamped(&member.path)
                    .map_err(|e| damaged(member.offset, format!("member path: {e}")))?;
                let fresh = matches!(self.members.get(&path), None | Some((Member::Opaque, false)));
                let expanded = Member::Expanded { offset: base, size: member.size };
                self.members.insert(path, (expanded, !fresh));
            }
        }
        out.set_len(end).map_err(writing)?;
        self.expanded = Some(out);
        Ok(self)
    }

    /// Where the bytes of the member at `path` are; `None` if there is no such member, or only
    /// something without bytes.
    pub(crate) fn find(&self, path: &TreePath) -> Option<Extent<'_>> {
        let mut at = path;
        let mut ever = false;
        for _ in 0..LINK_CHAIN {
            let (member, repeated) = self.members.get(at)?;
            ever |= *repeated;
            match member {
                Member::Body { offset, size } => {
                    let file = &self.file;
                    return Some(Extent { file, offset: *offset, size: *size, repeated: ever });
                }
                Member::Expanded { offset, size } => {
                    let file = self.expanded.as_ref()?;
                    return Some(Extent { file, offset: *offset, size: *size, repeated: ever });
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
}

/// The sizes of what is read twice have their own bounds.
const BOUNDS: strata_layer::Limits = strata_layer::Limits {
    entries: u64::MAX,
    depth: u64::MAX,
    path_bytes: u64::MAX,
    xattr_bytes: 1 << 20,
    expansion: u64::MAX,
    layer_bytes: u64::MAX,
};

/// Headers are not needed once more.
struct Dropped;

impl RawSink for Dropped {
    fn raw(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

/// A file from its beginning, wherever its descriptor stands.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
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

    /// Where the body of the member at `offset` begins: GNU's sparse files have more of their map
    /// between.
    fn body(&self, offset: u64, header: &Header) -> Result<u64> {
        let mut body = offset + BLOCK;
        if header.entry_type() != EntryType::GNUSparse || header.as_gnu().is_none() {
            return Ok(body);
        }
        let mut more = header.as_bytes()[482] != 0;
        while more {
            let mut block = [0; BLOCK as usize];
            if self.length - body < BLOCK {
                return Err(self.damaged(offset, "it ends inside the map of a sparse file"));
            }
            self.read(body, &mut block)?;
            more = block[504] != 0;
            body += BLOCK;
        }
        Ok(body)
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
mod tests;
