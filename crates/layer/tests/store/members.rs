//! Reading whole tars, as a reader of diffs does it and through a store.

use strata_diff::Limits;
use strata_diff::tar::{DiffReader, Member, MemberKind, Result};
use strata_layer::{Error, Event, LayerInput, Progress, Store};
use strata_tree::Timestamp;

/// All members with their stored bytes. Checks that headers and bodies make up the input.
pub(crate) fn read_all(tar: &[u8]) -> Result<Vec<(Member, Vec<u8>)>> {
    let limits = Limits::default();
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

/// Puts each tar through a store: what comes back is the same, byte for byte. Names that no
/// layer may have are refused as such.
pub(crate) fn stored_exactly<'t>(tars: impl IntoIterator<Item = (&'t str, &'t [u8])>) {
    struct Silent;
    impl Progress for Silent {
        fn event(&self, _: &str, _: Event) {}
        fn warning(&self, _: &str, _: &str) {}
    }
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for (name, tar) in tars {
        let reader = Box::new(tar);
        let input = LayerInput { label: name.to_owned(), diff_id: None, blob: None, reader };
        match store.unpack(input, &Silent) {
            Ok(unpacked) => {
                let mut out = Vec::new();
                unpacked.layer.write_diff(&mut out).unwrap();
                assert!(out == tar, "{name}: another tar came back");
            }
            Err(Error::Diff(strata_diff::Error::Rule { rule, .. })) => {
                assert!(rule.contains("255") || rule.contains("the root"), "{name}: {rule}");
            }
            Err(error) => panic!("{name}: {error}"),
        }
    }
    let report = Store::fsck(dir.path(), false, Default::default(), &Silent).unwrap();
    assert_eq!(report.problems, []);
}
