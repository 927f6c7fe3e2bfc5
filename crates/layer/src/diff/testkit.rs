//! Tars built block by block, for tests: nothing here knows what is valid.

use strata_tree::Timestamp;

use super::{DiffReader, Member, MemberKind, Result};
use crate::limits::Limits;

/// One header block to be.
#[derive(Clone)]
pub(crate) struct Head(pub(crate) [u8; 512]);

impl Head {
    /// A ustar header: mode 0644, owner 0:0, mtime 0, size 0.
    pub(crate) fn new(flag: u8, name: &[u8]) -> Self {
        let head = Self([0; 512]).put(0, name).put(100, b"0000644\0").put(108, b"0000000\0");
        let head = head.put(116, b"0000000\0").put(136, b"00000000000\0").put(156, &[flag]);
        head.size(0).put(257, b"ustar\x0000").put(329, b"0000000\0").put(337, b"0000000\0")
    }

    pub(crate) fn gnu(self) -> Self {
        self.put(257, b"ustar  \0")
    }

    pub(crate) fn v7(self) -> Self {
        self.put(257, &[0; 255])
    }

    pub(crate) fn put(mut self, at: usize, bytes: &[u8]) -> Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(crate) fn size(self, size: u64) -> Self {
        self.put(124, format!("{size:011o}\0").as_bytes())
    }

    pub(crate) fn link(self, target: &[u8]) -> Self {
        self.put(157, target)
    }

    /// The block with its checksum.
    pub(crate) fn sealed(self) -> [u8; 512] {
        let head = self.put(148, b"        ");
        let sum: u32 = head.0.iter().map(|byte| u32::from(*byte)).sum();
        head.put(148, format!("{sum:06o}\0 ").as_bytes()).0
    }
}

/// One PAX record.
pub(crate) fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while rest + len.to_string().len() != len {
        len = rest + len.to_string().len();
    }
    [format!("{len} ").as_bytes(), key, b"=", value, b"\n"].concat()
}

/// The blocks of a tar.
#[derive(Clone, Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    /// A header as it is, and its body with padding.
    pub(crate) fn raw(mut self, head: Head, body: &[u8]) -> Self {
        self.0.extend_from_slice(&head.sealed());
        self.data(body)
    }

    /// A header with the body's size, and the body.
    pub(crate) fn add(self, head: Head, body: &[u8]) -> Self {
        self.raw(head.size(body.len() as u64), body)
    }

    /// Bytes, padded to whole blocks.
    pub(crate) fn data(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.extended(b'x', records)
    }

    pub(crate) fn extended(self, flag: u8, records: &[(&str, &[u8])]) -> Self {
        let data: Vec<u8> =
            records.iter().flat_map(|(key, value)| record(key.as_bytes(), value)).collect();
        self.add(Head::new(flag, b"PaxHeaders/x"), &data)
    }

    pub(crate) fn long(self, flag: u8, name: &[u8]) -> Self {
        self.add(Head::new(flag, b"././@LongLink").gnu(), &[name, b"\0"].concat())
    }

    /// A plain file.
    pub(crate) fn file(self, name: &[u8], body: &[u8]) -> Self {
        self.add(Head::new(b'0', name), body)
    }

    /// Two zero blocks.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// All members with their stored bytes. Checks that headers and bodies make up the input.
pub(crate) fn read_all(tar: &[u8]) -> Result<Vec<(Member, Vec<u8>)>> {
    read_with(tar, Limits::default())
}

pub(crate) fn read_with(tar: &[u8], limits: Limits) -> Result<Vec<(Member, Vec<u8>)>> {
    let mut reader = DiffReader::new(tar, "sha256:test".to_owned(), limits, Vec::new());
    let mut all = Vec::new();
    while let Some(member) = reader.next()? {
        let mut body = Vec::new();
        // An odd size, so that bodies are cut anywhere.
        let mut buf = [0; 1013];
        assert_eq!(reader.body_left(), member.stored);
        loop {
            match reader.read_body(&mut buf)? {
                0 => break,
                n => {
                    body.extend_from_slice(&buf[..n]);
                    reader.sink().extend_from_slice(&buf[..n]);
                }
            }
        }
        assert_eq!(body.len() as u64, member.stored);
        all.push((member, body));
    }
    let (_, sink) = reader.finish()?;
    assert!(sink == tar, "headers and bodies in order are not the input");
    Ok(all)
}

/// The file that a member's stored bytes make.
pub(crate) fn expand(member: &Member, stored: &[u8]) -> Vec<u8> {
    let Some(map) = &member.sparse else { return stored.to_vec() };
    let mut file = vec![0; member.size as usize];
    let mut at = 0;
    for (offset, length) in map {
        let (offset, length) = (*offset as usize, *length as usize);
        file[offset..offset + length].copy_from_slice(&stored[at..at + length]);
        at += length;
    }
    file
}

/// What [`Head::new`] with that name gives, without a body.
pub(crate) fn plain(name: &[u8]) -> Member {
    Member {
        path: name.to_vec(),
        kind: MemberKind::Regular,
        perm: 0o644,
        uid: 0,
        gid: 0,
        mtime: Timestamp::default(),
        xattrs: Vec::new(),
        offset: 0,
        size: 0,
        stored: 0,
        sparse: None,
    }
}
