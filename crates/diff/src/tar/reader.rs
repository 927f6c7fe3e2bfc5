//! The block loop: a tar as a stream of members, with every byte accounted for.
//!
//! ```text
//! [x|g|L|K header, data, padding]...  header  [sparse map]  body  padding   ...  0 0  trailing
//! └───────────── to the sink ──────────────────────────────┘ │    └ to the sink ─────────────┘
//!                                                          the caller
//! ```
//!
//! Invariants: each byte of the input goes either to the sink or, as body, to the caller, in
//! order and exactly once; nothing is read ahead; memory is bounded by one extended header, one
//! sparse map and the limits; a member is yielded only if its headers can be read in one way.

use std::io::{self, Read};

use strata_tree::Timestamp;
use tar::GnuExtSparseHeader;

use super::error::{DiffError, HeaderFault, Result};
use super::header::{BLOCK, Block, owner, text};
use super::member::{Member, MemberKind};
use super::pax::{Records, SparseRecords};
use super::sparse::{PaxMap, Segments, TextMap, add_gnu, checked};
use crate::limits::Limits;
use crate::stream::SkipRead;

/// Bytes that one extended header or long name may have (Go has the same bound).
const MAX_RECORDS: u64 = 1 << 20;
/// Bytes that one path or link target may have, before any rule for layers.
const MAX_PATH: usize = 1 << 16;

/// Takes every byte of the tar that is not part of a body, in order: headers, padding, end
/// blocks, and what comes after them.
pub trait RawSink {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// Ends the reading: the reader gives [`DiffError::Sink`].
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()>;
}

impl<S: RawSink + ?Sized> RawSink for &mut S {
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        (**self).raw(bytes)
    }
}

/// Collects the bytes.
impl RawSink for Vec<u8> {
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

/// Reads the members of one uncompressed tar.
///
/// For each member: [`DiffReader::next`], then [`DiffReader::read_body`] until it gives 0. After
/// the last: [`DiffReader::finish`]. After an error the reader is of no further use.
pub struct DiffReader<R, S> {
    input: R,
    sink: S,
    layer: String,
    limits: Limits,
    offset: u64,
    body_left: u64,
    padding: usize,
    headers: u64,
    globals: Records,
    ended: bool,
}

/// Headers that extend the next member.
#[derive(Default)]
struct Extensions {
    records: Option<Records>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl Extensions {
    fn is_empty(&self) -> bool {
        self.records.is_none() && self.long_name.is_none() && self.long_link.is_none()
    }
}

impl<R: Read, S: RawSink> DiffReader<R, S> {
    /// Reads `input`, an uncompressed tar; `layer` is the label that errors show.
    pub fn new(input: R, layer: String, limits: Limits, sink: S) -> Self {
        Self {
            input,
            sink,
            layer,
            limits,
            offset: 0,
            body_left: 0,
            padding: 0,
            headers: 0,
            globals: Records::default(),
            ended: false,
        }
    }

    /// The sink. Between `next` and the first `read_body` it has got every byte before the body.
    pub fn sink(&mut self) -> &mut S {
        &mut self.sink
    }

    /// What it reads from.
    pub fn input(&mut self) -> &mut R {
        &mut self.input
    }

    /// Bytes of the uncompressed tar read so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next member; `None` at the end of the archive, for good.
    ///
    /// # Errors
    /// Any [`DiffError`]; `Unread` if the last member's body was not read to its end.
    #[allow(clippy::should_implement_trait)] // `Iterator` cannot lend the body.
    pub fn next(&mut self) -> Result<Option<Member>> {
        if self.body_left > 0 {
            return Err(self.unread());
        }
        self.skip_padding()?;
        let mut extensions = Extensions::default();
        while !self.ended {
            let at = self.offset;
            let Some(bytes) = self.read_header()? else {
                self.ended = true;
                break;
            };
            self.headers += 1;
            if self.headers > self.limits.entries {
                let limit = self.limits.entries;
                let bound = "headers in one layer";
                return Err(
                    self.fault(at, HeaderFault::Limit { bound, option: "--max-entries", limit })
                );
            }
            let block = Block::new(&bytes).map_err(|fault| self.fault(at, fault))?;
            if !self.extension(&block, at, &mut extensions)? {
                return self.member(&block, at, extensions).map(Some);
            }
        }
        if extensions.is_empty() {
            return Ok(None);
        }
        let what = "an extended header has no member";
        Err(self.fault(self.offset, HeaderFault::malformed(what)))
    }

    /// Reads from the body of the last member: its stored bytes in order, holes left out. 0 at
    /// the end, or if `buf` is empty.
    ///
    /// # Errors
    /// `Truncated`, `Read`.
    pub fn read_body(&mut self, buf: &mut [u8]) -> Result<usize> {
        let left = usize::try_from(self.body_left).unwrap_or(usize::MAX);
        let want = buf.len().min(left);
        if want == 0 {
            return Ok(0);
        }
        match self.read_some(&mut buf[..want])? {
            0 => Err(self.truncated("a body")),
            n => {
                self.body_left -= n as u64;
                Ok(n)
            }
        }
    }

    /// The same as a reader, whose errors wrap the [`DiffError`].
    pub fn body(&mut self) -> BodyReader<'_, R, S> {
        BodyReader(self)
    }

    /// Bytes of the last member's body that are still to be read.
    pub fn body_left(&self) -> u64 {
        self.body_left
    }

    /// Hands everything after the end of the archive to the sink, to the end of the input: it
    /// counts in the diff id. Returns the input and the sink.
    ///
    /// # Errors
    /// `Unread` unless `next` has given `None`; `Read`, `Sink`.
    pub fn finish(mut self) -> Result<(R, S)> {
        if !self.ended {
            return Err(self.unread());
        }
        let mut buf = vec![0; 1 << 16];
        loop {
            match self.read_some(&mut buf)? {
                0 => return Ok((self.input, self.sink)),
                n => self.hand_over(&buf[..n])?,
            }
        }
    }

    /// Reads an extending header's data; `false` if `block` is a member's own header.
    fn extension(&mut self, block: &Block, at: u64, found: &mut Extensions) -> Result<bool> {
        match block.flag() {
            // POSIX puts `x` right before its member, GNU and Go replace an `x` by a later one.
            b'x' => {
                let data = self.read_records(block, at)?;
                let records = Records::parse(&data, &self.limits);
                found.records = Some(records.map_err(|fault| self.fault(at, fault))?);
            }
            b'g' => {
                if !found.is_empty() {
                    let what = "a global header between an extended header and its member";
                    return Err(self.fault(at, HeaderFault::ambiguous(what)));
                }
                let data = self.read_records(block, at)?;
                let mut globals = std::mem::take(&mut self.globals);
                Records::parse(&data, &self.limits)
                    .and_then(|records| globals.merge_global(records, &self.limits))
                    .map_err(|fault| self.fault(at, fault))?;
                self.globals = globals;
            }
            b'L' => found.long_name = Some(self.read_long_name(block, at)?),
            b'K' => found.long_link = Some(self.read_long_name(block, at)?),
            // GNU tar's label of a volume is about the archive, and no member of it.
            b'V' if found.is_empty() && block.size().is_ok_and(|size| size == 0) => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn read_long_name(&mut self, block: &Block, at: u64) -> Result<Vec<u8>> {
        let mut name = self.read_records(block, at)?;
        name.truncate(text(&name).len());
        if name.is_empty() {
            return Err(self.fault(at, HeaderFault::ambiguous("an empty GNU long name")));
        }
        Ok(name)
    }

    fn read_records(&mut self, block: &Block, at: u64) -> Result<Vec<u8>> {
        let size = block.size().map_err(|fault| self.fault(at, fault))?;
        if size > MAX_RECORDS {
            let what = format!("an extended header of {size} bytes (at most {MAX_RECORDS})");
            return Err(self.fault(at, HeaderFault::Unsupported(what)));
        }
        let mut data = vec![0; size as usize];
        self.read_full(&mut data, "an extended header")?;
        self.hand_over(&data)?;
        self.padding = padding(size);
        self.skip_padding()?;
        Ok(data)
    }

    fn member(&mut self, block: &Block, at: u64, extensions: Extensions) -> Result<Member> {
        let draft = describe(block, extensions, &self.globals, &self.limits);
        let (mut member, map) = draft.map_err(|fault| self.fault(at, fault))?;
        member.offset = at;
        self.body_left = member.stored;
        self.padding = padding(member.stored);
        let segments = match map {
            Map::None => None,
            Map::Pax(segments) => Some(segments),
            Map::Gnu => Some(self.read_gnu_map(block, at)?),
            Map::Body => {
                let segments = self.read_body_map(at)?;
                member.stored = self.body_left;
                Some(segments)
            }
        };
        if let Some(segments) = segments {
            let segments = checked(segments, member.size, member.stored);
            member.sparse = Some(segments.map_err(|fault| self.fault(at, fault))?);
        }
        Ok(member)
    }

    fn read_gnu_map(&mut self, block: &Block, at: u64) -> Result<Segments> {
        let Some(gnu) = block.gnu() else {
            let what = "a GNU sparse file without a GNU header";
            return Err(self.fault(at, HeaderFault::ambiguous(what)));
        };
        let mut segments = Segments::new();
        let mut open =
            add_gnu(&mut segments, &gnu.sparse).map_err(|fault| self.fault(at, fault))?;
        let mut extended = gnu.isextended[0] != 0;
        while extended {
            if !open {
                let what = "a sparse map that ends and goes on";
                return Err(self.fault(at, HeaderFault::ambiguous(what)));
            }
            let mut block = GnuExtSparseHeader::new();
            self.read_full(block.as_mut_bytes(), "a sparse map")?;
            self.hand_over(block.as_bytes())?;
            open = add_gnu(&mut segments, &block.sparse).map_err(|fault| self.fault(at, fault))?;
            extended = block.isextended[0] != 0;
        }
        Ok(segments)
    }

    /// The map in front of the body, which is not part of it.
    fn read_body_map(&mut self, at: u64) -> Result<Segments> {
        let mut map = TextMap::default();
        let mut block = [0; BLOCK];
        loop {
            let Some(left) = self.body_left.checked_sub(BLOCK as u64) else {
                let what = "the sparse map passes the end of the body";
                return Err(self.fault(at, HeaderFault::malformed(what)));
            };
            self.read_full(&mut block, "a sparse map")?;
            self.hand_over(&block)?;
            self.body_left = left;
            if map.take(&block).map_err(|fault| self.fault(at, fault))? {
                return Ok(map.into_segments());
            }
        }
    }

    /// The next header block; `None` at the end of the archive: two zero blocks, or the end of
    /// the input in place of a header or of the second zero block.
    fn read_header(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let at = self.offset;
        let Some(block) = self.read_block()? else { return Ok(None) };
        if block != [0; BLOCK] {
            return Ok(Some(block));
        }
        match self.read_block()? {
            None => Ok(None),
            Some(second) if second == [0; BLOCK] => Ok(None),
            // GNU tar ends here with a warning, Go with an error, others go on.
            Some(_) => Err(self.fault(at, HeaderFault::ambiguous("a lone zero block"))),
        }
    }

    fn read_block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let n = self.read_some(&mut block)?;
        if n == 0 {
            return Ok(None);
        }
        self.read_full(&mut block[n..], "a header")?;
        self.hand_over(&block)?;
        Ok(Some(block))
    }

    /// Padding that the end of the input cuts is the end of the archive: Go reads it so, GNU tar
    /// complains after the same members, and `umoci insert` writes layers like that.
    fn skip_padding(&mut self) -> Result<()> {
        let mut block = [0; BLOCK];
        let mut left = std::mem::take(&mut self.padding);
        while left > 0 {
            let n = self.read_some(&mut block[..left])?;
            if n == 0 {
                self.ended = true;
                break;
            }
            self.hand_over(&block[..n])?;
            left -= n;
        }
        Ok(())
    }

    fn read_full(&mut self, mut buf: &mut [u8], what: &'static str) -> Result<()> {
        while !buf.is_empty() {
            match self.read_some(buf)? {
                0 => return Err(self.truncated(what)),
                n => buf = &mut buf[n..],
            }
        }
        Ok(())
    }

    fn read_some(&mut self, buf: &mut [u8]) -> Result<usize> {
        loop {
            match self.input.read(buf) {
                Ok(n) => {
                    self.offset += n as u64;
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let (layer, offset) = (self.layer.clone(), self.offset);
                    return Err(DiffError::Read { layer, offset, source });
                }
            }
        }
    }

    fn hand_over(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.sink.raw(bytes).map_err(|source| {
            let (layer, offset) = (self.layer.clone(), self.offset);
            DiffError::Sink { layer, offset, source }
        })
    }

    fn fault(&self, at: u64, fault: HeaderFault) -> DiffError {
        fault.at(&self.layer, at)
    }

    fn truncated(&self, what: &'static str) -> DiffError {
        DiffError::Truncated { layer: self.layer.clone(), offset: self.offset, what }
    }

    fn unread(&self) -> DiffError {
        let (layer, offset) = (self.layer.clone(), self.offset);
        DiffError::Unread { layer, offset, left: self.body_left }
    }
}

impl<R: SkipRead, S: RawSink> DiffReader<R, S> {
    /// Passes over what is left of the last member's body.
    ///
    /// # Errors
    /// `Truncated`, `Read`.
    pub fn skip_body(&mut self) -> Result<()> {
        let skipped = self.input.skip(self.body_left).map_err(|source| {
            let (layer, offset) = (self.layer.clone(), self.offset);
            DiffError::Read { layer, offset, source }
        })?;
        self.offset += skipped;
        self.body_left -= skipped;
        if self.body_left > 0 {
            return Err(self.truncated("a body"));
        }
        Ok(())
    }
}

/// The body of the last member, from [`DiffReader::body`].
pub struct BodyReader<'a, R, S>(&'a mut DiffReader<R, S>);

impl<R: Read, S: RawSink> Read for BodyReader<'_, R, S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_body(buf).map_err(io::Error::other)
    }
}

fn padding(size: u64) -> usize {
    (size.wrapping_neg() % BLOCK as u64) as usize
}

/// Where a member's sparse map is.
enum Map {
    None,
    Pax(Segments),
    Gnu,
    Body,
}

/// Puts a header and what extends it together.
fn describe(
    block: &Block,
    extensions: Extensions,
    globals: &Records,
    limits: &Limits,
) -> std::result::Result<(Member, Map), HeaderFault> {
    let mut records = extensions.records.unwrap_or_default();
    let sparse = records.sparse.take();
    let path = agreed("path", records.path.take(), extensions.long_name, || block.name())?;
    let linked = agreed("link target", records.link_path.take(), extensions.long_link, || {
        Ok(block.link_name())
    })?;
    let header_size = block.size()?;
    let stored = records.size.unwrap_or(header_size);
    let kind = kind(block, &path, linked, stored, records.size)?;
    let regular = kind == MemberKind::Regular;
    let mut member = Member {
        path,
        kind,
        perm: block.perm()?,
        uid: match records.uid.or(globals.uid) {
            Some(uid) => uid,
            None => owner("uid", block.uid()?)?,
        },
        gid: match records.gid.or(globals.gid) {
            Some(gid) => gid,
            None => owner("gid", block.gid()?)?,
        },
        mtime: match records.mtime.or(globals.mtime) {
            Some(mtime) => mtime,
            None => Timestamp { seconds: block.mtime()?, nanos: 0 },
        },
        offset: 0,
        size: if regular { stored } else { 0 },
        stored: if regular { stored } else { 0 },
        sparse: None,
        xattrs: Vec::new(),
    };
    let map = match sparse {
        None if block.flag() == b'S' => {
            if stored != header_size {
                return Err(HeaderFault::ambiguous("a GNU sparse file with a PAX size"));
            }
            let size = block.gnu().and_then(|gnu| super::header::number(&gnu.realsize));
            let size = size.and_then(|size| u64::try_from(size).ok());
            member.size =
                size.ok_or_else(|| HeaderFault::malformed("a sparse file without a size"))?;
            Map::Gnu
        }
        None => Map::None,
        Some(sparse) => {
            if !regular || block.flag() == b'S' {
                let what = "GNU.sparse records of something else than a plain file";
                return Err(HeaderFault::ambiguous(what));
            }
            sparse_pax(sparse, &mut member)?
        }
    };
    member.xattrs = records.xattrs_over(globals, limits)?;
    if let MemberKind::HardLink { target } | MemberKind::Symlink { target } = &member.kind {
        check_length("link target", target)?;
    }
    check_length("path", &member.path)?;
    Ok((member, map))
}

fn sparse_pax(sparse: SparseRecords, member: &mut Member) -> std::result::Result<Map, HeaderFault> {
    member.size = sparse.logical_size()?;
    let map = match sparse.map()? {
        PaxMap::Body => Map::Body,
        PaxMap::Records(segments) => Map::Pax(segments),
    };
    if let Some(name) = sparse.name {
        member.path = name;
    }
    Ok(map)
}

fn check_length(what: &str, bytes: &[u8]) -> std::result::Result<(), HeaderFault> {
    if bytes.len() > MAX_PATH {
        let len = bytes.len();
        return Err(HeaderFault::Unsupported(format!(
            "a {what} of {len} bytes (at most {MAX_PATH})"
        )));
    }
    Ok(())
}

/// PAX before GNU before the header; GNU tar prefers PAX to GNU, Go GNU to PAX.
fn agreed(
    what: &str,
    pax: Option<Vec<u8>>,
    gnu: Option<Vec<u8>>,
    header: impl FnOnce() -> std::result::Result<Vec<u8>, HeaderFault>,
) -> std::result::Result<Vec<u8>, HeaderFault> {
    match (pax, gnu) {
        (Some(pax), Some(gnu)) if pax != gnu => {
            Err(HeaderFault::ambiguous(format!("a PAX {what} and another GNU one")))
        }
        (Some(name), _) | (None, Some(name)) => Ok(name),
        (None, None) => header(),
    }
}

fn kind(
    block: &Block,
    path: &[u8],
    target: Vec<u8>,
    size: u64,
    pax_size: Option<u64>,
) -> std::result::Result<MemberKind, HeaderFault> {
    let slash = path.ends_with(b"/");
    let kind = match block.flag() {
        b'0' | b'7' | b'S' if slash => {
            return Err(HeaderFault::ambiguous("a file whose path ends in a slash"));
        }
        // Version 7 had no type for directories.
        0 if slash => MemberKind::Directory,
        0 | b'0' | b'7' | b'S' => return Ok(MemberKind::Regular),
        // The header of a hard link may repeat the file's size; no body follows.
        b'1' if pax_size.unwrap_or(0) == 0 => return Ok(MemberKind::HardLink { target }),
        b'1' => return Err(HeaderFault::ambiguous("a hard link with a body")),
        b'2' if target.is_empty() => {
            return Err(HeaderFault::malformed("a symbolic link without a target"));
        }
        b'2' => MemberKind::Symlink { target },
        b'3' => MemberKind::CharDevice(block.device()?),
        b'4' => MemberKind::BlockDevice(block.device()?),
        // POSIX lets a directory's size be what it may grow to; no body follows.
        b'5' => return Ok(MemberKind::Directory),
        b'6' => MemberKind::Fifo,
        other => {
            let what = format!("a member of type '{}'", other.escape_ascii());
            return Err(HeaderFault::Unsupported(what));
        }
    };
    if size > 0 {
        // Go and GNU's extraction go on right after the header, GNU's listing skips the size.
        return Err(HeaderFault::ambiguous("a size on a member that has no body"));
    }
    Ok(kind)
}
