//! The accounts of a store that was made before there were any: what each content and each layer
//! takes on disk, and who holds what.
//!
//! Invariant: afterwards the index is what publishing the same layers writes today. What is gone
//! from the disk takes nothing; `fsck` tells what is gone.

use std::path::Path;

use rusqlite::Connection;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use strata_tree::Presence;

use super::layer_records::layers;
use super::{holders, rows};
use crate::error::{IoContext, Result};
use crate::layout::{diff_path, layer_path};
use crate::measure::{frame, space};

/// Fills the columns and the table of the accounts, by one pass over the layers of `root`.
pub(super) fn fill(db: &Connection, root: &Path) -> Result<()> {
    let mut blocks_of = db.prepare("UPDATE contents SET blocks = ?2 WHERE id = ?1")?;
    let mut frame_of = db.prepare(
        "UPDATE layers SET headers_blocks = ?2, dirs_size = ?3, dirs_blocks = ?4 WHERE id = ?1",
    )?;
    let mut measured = std::collections::HashSet::new();
    for layer in layers(db)? {
        let path = root.join(layer_path(&layer.diff_id));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let dir = match rustix::fs::openat(CWD, &path, flags, Mode::empty()) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(error) => return Err(error).doing(|| format!("cannot open {}", path.display())),
        };
        let dir = std::os::fd::AsFd::as_fd(&dir);
        let (rows, contents) = rows::select(db, layer.id)?;
        let directories = rows::directories(&rows).filter_map(|(path, _, row)| match &row.kind {
            rows::RowKind::Directory { marks, .. } if marks.presence != Presence::Phantom => {
                Some(Ok(path))
            }
            _ => None,
        });
        let found = frame(dir, directories)?;
        frame_of.execute((
            layer.id,
            found.headers.blocks as i64,
            found.directories.bytes as i64,
            found.directories.blocks as i64,
        ))?;
        for (name, at, _) in rows::with_paths(&rows) {
            let Some(content) = contents.get(at).copied().flatten() else { continue };
            if let Some(space) = space(dir, &diff_path(&name))?
                && measured.insert(content)
            {
                blocks_of.execute([content, space.blocks as i64])?;
            }
        }
    }
    holders::rebuild(db)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rusqlite::Connection;

    use crate::index::schema::FIRST;
    use crate::{Event, LayerInput, Progress, Store, StoreOptions};

    struct Silent;

    impl Progress for Silent {
        fn event(&self, _: &str, _: Event) {}
        fn warning(&self, _: &str, _: &str) {}
    }

    fn unpack(store: &Store, files: &[(&str, &[u8])]) {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, name, *bytes).unwrap();
        }
        let bytes = tar.into_inner().unwrap();
        let reader = Box::new(&bytes[..]);
        let input = LayerInput { label: "layer".into(), diff_id: None, blob: None, reader };
        store.unpack(input, &Silent).unwrap();
    }

    /// Writes `index.db` as the first strata did.
    fn make_old(root: &Path) {
        let db = Connection::open(root.join("old.db")).unwrap();
        db.pragma_update(None, "journal_mode", "WAL").unwrap();
        db.execute_batch(FIRST).unwrap();
        db.execute("ATTACH ?1 AS new", [root.join("index.db").to_str().unwrap()]).unwrap();
        db.execute_batch(
            "INSERT INTO layers SELECT id, diff_id, diff_size, headers_size, entries, apparent
                FROM new.layers;
             INSERT INTO contents SELECT id, digest, copy, size FROM new.contents;
             INSERT INTO entries SELECT * FROM new.entries;
             PRAGMA user_version = 1; DETACH new",
        )
        .unwrap();
        db.close().unwrap();
        std::fs::rename(root.join("old.db"), root.join("index.db")).unwrap();
    }

    fn accounts(root: &Path) -> Vec<String> {
        let db = Connection::open(root.join("index.db")).unwrap();
        let mut all = Vec::new();
        for query in [
            "SELECT json_array(hex(layers), files, bytes, blocks) FROM holders ORDER BY 1",
            "SELECT json_array(contents.id, contents.blocks, hex(layers))
             FROM contents JOIN holders ON holders.id = holders ORDER BY 1",
            "SELECT json_array(id, headers_blocks, dirs_size, dirs_blocks) FROM layers ORDER BY 1",
        ] {
            let mut statement = db.prepare(query).unwrap();
            let rows = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
            all.extend(rows.map(Result::unwrap));
        }
        all
    }

    #[test]
    fn a_store_of_the_first_strata_gets_its_accounts() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("store");
        let store = Store::open(&root).unwrap();
        let big = vec![1; 100_000];
        unpack(&store, &[("a", b"one"), ("d/e/b", &big), ("d/c", b"two")]);
        unpack(&store, &[("x", b"one"), ("y", b"three"), ("empty", b"")]);
        unpack(&store, &[("z", b"one"), ("d/two", b"two")]);
        drop(store);
        let expected = accounts(&root);
        assert_eq!(expected.len(), 4 + 5 + 3, "sets, contents, layers");
        make_old(&root);
        drop(Store::open(&root).unwrap());
        assert_eq!(accounts(&root), expected);
        let report = Store::fsck(&root, false, StoreOptions::default(), &Silent).unwrap();
        assert_eq!(report.problems, []);
    }

    /// A layer whose directory is gone does not keep the store from being opened.
    #[test]
    fn what_is_gone_takes_nothing() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("store");
        let store = Store::open(&root).unwrap();
        unpack(&store, &[("a", b"one")]);
        drop(store);
        make_old(&root);
        let layers = std::fs::read_dir(root.join("layers")).unwrap();
        layers.for_each(|layer| std::fs::remove_dir_all(layer.unwrap().path()).unwrap());
        let store = Store::open(&root).unwrap();
        assert_eq!(store.layers().unwrap()[0].directories.blocks, 0);
    }
}
