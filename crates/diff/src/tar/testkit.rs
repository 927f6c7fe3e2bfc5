//! Reading whole tars, for tests; `strata_testkit::tars` builds them.

use super::{DiffReader, Member, Result};
use crate::limits::Limits;

pub(crate) use strata_testkit::tars::{Head, Tar};

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
