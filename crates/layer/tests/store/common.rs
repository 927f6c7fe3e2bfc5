//! Stores in temporary directories, layers and images to put in, and what is on disk after.

use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use sha2::{Digest, Sha256};
use strata_layer::{
    Error, Event, FsckReport, ImageRecord, LayerInput, Progress, Store, StoreOptions, Unpacked,
};
use strata_tree::{DiffId, ImageId};
use tempfile::TempDir;

use strata_testkit::tars::{Head, Tar};

/// Says nothing.
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _: &str, _: Event) {}
    fn warning(&self, _: &str, _: &str) {}
}

/// An empty directory for a store, beside which other things may lie.
pub struct TempStore(TempDir);

impl TempStore {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// In memory where that is to be had: for tests that sync a lot.
    pub fn in_memory() -> Self {
        match tempfile::tempdir_in("/dev/shm") {
            Ok(dir) => Self(dir),
            Err(_) => Self::new(),
        }
    }

    pub fn root(&self) -> PathBuf {
        self.0.path().join("store")
    }

    pub fn beside(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn open(&self) -> Store {
        Store::open(&self.root()).unwrap()
    }
}

pub fn diff_id(tar: &[u8]) -> DiffId {
    DiffId::from_bytes(Sha256::digest(tar).into())
}

/// Unpacks a layer whose diff id is known, as a load does.
pub fn unpack(store: &Store, tar: &[u8]) -> Result<Unpacked, Error> {
    let input = LayerInput {
        label: "the layer".to_owned(),
        diff_id: Some(diff_id(tar)),
        blob: None,
        reader: Box::new(tar),
    };
    store.unpack(input, &Silent)
}

/// Unpacks the layers and commits an image of them.
pub fn try_load(store: &Store, tag: &str, layers: &[&[u8]]) -> Result<ImageId, Error> {
    let mut leased = Vec::new();
    for layer in layers {
        leased.push(unpack(store, layer)?.layer);
    }
    let manifest = store.put_blob(format!("manifest of {tag}").as_bytes())?;
    let config = store.put_blob(format!("config of {tag}").as_bytes())?;
    let layers = layers.iter().map(|layer| diff_id(layer)).collect();
    let image = ImageRecord { id: config.into(), manifest: Some(manifest), layers };
    store.images().commit(&image, &[tag.to_owned()], None, &leased)?;
    Ok(image.id)
}

pub fn load(store: &Store, tag: &str, layers: &[&[u8]]) -> ImageId {
    try_load(store, tag, layers).unwrap()
}

/// A tar of plain files.
pub fn files(members: &[(&str, &[u8])]) -> Vec<u8> {
    let tar = members
        .iter()
        .fold(Tar::default(), |tar, (name, body)| tar.long_file(name.as_bytes(), body));
    tar.end()
}

/// One member as text: `d path`, `f path content`, `s path -> target`, `h path => target`,
/// `c path` (device 1:3), `p path` (fifo).
pub fn members(lines: &[&str]) -> Vec<u8> {
    let mut tar = Tar::default();
    for line in lines {
        let (kind, rest) = line.split_once(' ').unwrap();
        let linked = |flag, separator| {
            let (path, target) = rest.split_once(separator).unwrap();
            Head::new(flag, path.as_bytes()).link(target.as_bytes())
        };
        tar = match kind {
            "f" => {
                let (path, body) = rest.split_once(' ').unwrap_or((rest, ""));
                tar.file(path.as_bytes(), body.as_bytes())
            }
            "d" => tar.add(Head::new(b'5', rest.as_bytes()).put(100, b"0000755\0"), b""),
            "s" => tar.add(linked(b'2', " -> "), b""),
            "h" => tar.add(linked(b'1', " => "), b""),
            "c" => {
                let head = Head::new(b'3', rest.as_bytes());
                tar.add(head.put(329, b"0000001\0").put(337, b"0000003\0"), b"")
            }
            "p" => tar.add(Head::new(b'6', rest.as_bytes()), b""),
            other => panic!("unknown member {other}"),
        };
    }
    tar.end()
}

pub fn fsck(root: &Path) -> FsckReport {
    Store::fsck(root, false, StoreOptions::default(), &Silent).unwrap()
}

/// `fsck` finds nothing, not even something to remark.
pub fn assert_clean(root: &Path) {
    let report = fsck(root);
    assert_eq!((&report.problems[..], &report.notes[..]), (&[][..], &[][..]));
}

/// Everything below a directory: path to mode, inode and length.
pub fn walk(root: &Path) -> BTreeMap<PathBuf, (u32, u64, u64)> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            if meta.is_dir() {
                todo.push(path.clone());
            }
            let below = path.strip_prefix(root).unwrap().to_owned();
            found.insert(below, (meta.mode(), meta.ino(), meta.len()));
        }
    }
    found
}

/// Regular files of all layers: path below `layers/` to content and inode.
pub fn stored_files(root: &Path) -> BTreeMap<PathBuf, (Vec<u8>, u64)> {
    let layers = root.join("layers");
    let all = walk(&layers).into_iter();
    let files = all.filter(|(path, (mode, ..))| {
        mode & 0o170_000 == 0o100_000 && path.components().nth(1).unwrap().as_os_str() == "diff"
    });
    files
        .map(|(path, (_, inode, _))| {
            let bytes = std::fs::read(layers.join(&path)).unwrap();
            (path, (bytes, inode))
        })
        .collect()
}

/// Each distinct content of the store is exactly one inode; gives how many there are.
pub fn assert_one_inode_each(root: &Path) -> usize {
    let files = stored_files(root);
    let contents: HashSet<_> = files.values().map(|(bytes, _)| bytes).collect();
    let inodes: HashSet<_> = files.values().map(|(_, inode)| inode).collect();
    assert_eq!(contents.len(), inodes.len());
    contents.len()
}

/// The index as text, without the numbers that it gives layers and contents itself.
pub fn dump(root: &Path) -> Vec<String> {
    let db = rusqlite::Connection::open(root.join("index.db")).unwrap();
    let mut lines = Vec::new();
    for query in [
        "SELECT 'layer', hex(diff_id), diff_size, headers_size, entries, apparent, headers_blocks,
                dirs_size, dirs_blocks FROM layers",
        "SELECT 'content', hex(digest), size, count(*), sum(blocks) FROM contents
         GROUP BY digest, size",
        "SELECT 'entry', hex(diff_id), e.*, hex(e.name), hex(e.link), hex(e.xattrs), hex(digest)
         FROM entries AS e JOIN layers ON layers.id = e.layer LEFT JOIN contents
         ON contents.id = e.content",
        "SELECT 'image', hex(id), hex(manifest) FROM images",
        "SELECT 'image layer', hex(image), position, hex(diff_id)
         FROM image_layers JOIN layers ON layers.id = layer",
        "SELECT 'tag', reference, hex(image) FROM tags",
    ] {
        let mut statement = db.prepare(query).unwrap();
        let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let columns = names.iter().enumerate().filter(|(_, name)| {
                !["layer", "content", "name", "link", "xattrs"].contains(&name.as_str())
            });
            let values = columns.map(|(at, name)| format!("{name}={:?}", row.get_ref(at).unwrap()));
            lines.push(values.collect::<Vec<_>>().join(" "));
        }
    }
    lines.extend(holder_sets(&db));
    lines.sort();
    lines
}

/// The holder sets, with their layers by name.
fn holder_sets(db: &rusqlite::Connection) -> Vec<String> {
    let mut statement = db.prepare("SELECT id, hex(diff_id) FROM layers").unwrap();
    let names = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let names: BTreeMap<i64, String> = names.map(Result::unwrap).collect();
    let mut statement = db
        .prepare(
            "SELECT layers, files, bytes, holders.blocks, count(*), sum(size), sum(contents.blocks)
             FROM holders JOIN contents ON contents.holders = holders.id GROUP BY holders.id",
        )
        .unwrap();
    let sets = statement.query_map([], |row| {
        let layers: Vec<u8> = row.get(0)?;
        let (mut layer, mut step, mut shift) = (0, 0, 0);
        let mut holders = Vec::new();
        for byte in layers {
            step |= i64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                layer += step;
                holders.push(names[&layer].clone());
                (step, shift) = (0, 0);
            }
        }
        holders.sort();
        let number = |at| row.get::<_, i64>(at);
        let sums = [number(1)?, number(2)?, number(3)?];
        assert_eq!(sums, [number(4)?, number(5)?, number(6)?], "{holders:?}");
        Ok(format!("set of {holders:?}: {sums:?}"))
    });
    sets.unwrap().map(Result::unwrap).collect()
}

/// Changes one byte of a file, whatever its mode.
pub fn flip(path: &Path, at: u64) {
    change(path, at, |byte| byte ^ 0x10);
}

pub fn change(path: &Path, at: u64, with: impl Fn(u8) -> u8) {
    use std::os::unix::fs::FileExt;
    let modes = std::fs::metadata(path).unwrap().permissions();
    let mut writable = modes.clone();
    std::os::unix::fs::PermissionsExt::set_mode(&mut writable, 0o644);
    std::fs::set_permissions(path, writable).unwrap();
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0] = with(byte[0]);
    file.write_all_at(&byte, at).unwrap();
    std::fs::set_permissions(path, modes).unwrap();
}

/// A copy of a store, hard links and modes as they are.
pub fn copy_store(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

/// This program once more, to do what `task` names: the tests in `module` called `child_*` are
/// for that and do nothing else.
pub fn child(task: &str, env: &[(&str, &str)]) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", task, "--ignored", "--nocapture", "--test-threads=1"])
        .envs(env.iter().copied())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for a child; its output goes to ours if it failed.
pub fn finish(child: std::process::Child) -> ExitStatus {
    let output = child.wait_with_output().unwrap();
    if !output.status.success() {
        println!("{}", String::from_utf8_lossy(&output.stdout));
        println!("{}", String::from_utf8_lossy(&output.stderr));
    }
    output.status
}
