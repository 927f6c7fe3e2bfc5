//! Into an OCI layout directory.
//!
//! Invariants: a blob has its name only once it is complete and right; `index.json` is replaced
//! whole, last, and keeps what it has but the image of the same name, also where several copies
//! go into one layout at a time. Of two repositories' images with one tag each keeps its entry; a
//! reader that knows the tag alone finds both.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde_json::{Value, json};
use strata_tree::BlobDigest;

use super::outbound::{Outbound, blob_name, called, prepare, shown};
use crate::beside::Companions;
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::limits::SourceLimits;
use crate::push::{PushEvent, PushListener};

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const WHOLE_NAME: &str = "io.containerd.image.name";
/// How long another copy may take to write the index.
const PATIENCE: Duration =
    if cfg!(test) { Duration::from_secs(2) } else { Duration::from_secs(60) };

/// Writes an image into the layout at `root`, which is made if it is not there.
///
/// # Errors
/// `Io`; `Document` if there is something else.
pub(crate) fn write(
    root: &Path,
    image: &Outbound<'_>,
    name: Option<&str>,
    listen: &PushListener<'_>,
) -> Result<()> {
    let writing = |error| Error::io(format!("writing {}", shown(root)), error);
    let layout = root.join("oci-layout");
    if !layout.exists() && root.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        let why = "the directory is not empty and holds no OCI layout";
        return Err(Error::document(&shown(root), "oci-layout", why));
    }
    fs::create_dir_all(root.join("blobs/sha256")).map_err(writing)?;
    for layer in prepare(image, listen) {
        let label = layer.digest.short();
        if layer.foreign {
            listen(&label, PushEvent::Skipped);
            continue;
        }
        if has(root, &layer.digest, layer.size) {
            listen(&label, PushEvent::Exists);
            continue;
        }
        let total = layer.size;
        let told = |bytes| listen(&label, PushEvent::Sending { bytes, total });
        put(root, &layer.digest, (layer.open)()?, total, &told)?;
        listen(&label, PushEvent::Pushed);
    }
    let digest = sha256(&image.manifest);
    for (digest, bytes) in [(image.id.into(), &image.config), (digest, &image.manifest)] {
        put(root, &digest, Box::new(bytes.as_slice()), bytes.len() as u64, &|_| {})?;
    }
    if let Some(beside) = &image.beside {
        beside.each(&mut |digest, bytes| {
            put(root, digest, Box::new(bytes), bytes.len() as u64, &|_| {})
        })?;
    }
    replace(&layout, br#"{"imageLayoutVersion":"1.0.0"}"#).map_err(writing)?;
    list(root, descriptors(image, &digest, name))
}

/// Puts entries into the index.
fn list(root: &Path, own: Vec<Value>) -> Result<()> {
    let writing = |error| Error::io(format!("writing {}", shown(root)), error);
    let _lock = lock(root)?;
    let index = index(root, own)?;
    replace(&root.join("index.json"), index.to_string().as_bytes()).map_err(writing)
}

/// Keeps other copies from the index, until it is dropped.
fn lock(root: &Path) -> Result<File> {
    let locking = |error| Error::io(format!("locking {}", shown(root)), error);
    let dir = File::open(root).map_err(locking)?;
    let until = Instant::now() + PATIENCE;
    loop {
        match flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(Errno::WOULDBLOCK) => {
                let why = "another process keeps the directory locked; copy again when it is done";
                return Err(locking(io::Error::new(io::ErrorKind::WouldBlock, why)));
            }
            Ok(()) => return Ok(dir),
            // A file system without locks: a copy that is alone there needs none.
            Err(error) => {
                tracing::debug!("{} is not locked: {error}", shown(root));
                return Ok(dir);
            }
        }
    }
}

fn has(root: &Path, digest: &BlobDigest, size: u64) -> bool {
    root.join(blob_name(digest)).metadata().is_ok_and(|stat| stat.is_file() && stat.len() == size)
}

fn put(
    root: &Path,
    digest: &BlobDigest,
    mut reader: Box<dyn Read + '_>,
    size: u64,
    told: &dyn Fn(u64),
) -> Result<()> {
    let path = root.join(blob_name(digest));
    let writing = |error| Error::io(format!("writing {}", shown(&path)), error);
    let mut file = tempfile::NamedTempFile::new_in(root.join("blobs/sha256")).map_err(writing)?;
    let mut buffer = vec![0; 256 << 10];
    let mut written = 0;
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(writing(error)),
        };
        file.write_all(&buffer[..count]).map_err(writing)?;
        written += count as u64;
        told(written);
    }
    if written != size {
        let why = format!("it has {written} bytes, its descriptor says {size}");
        return Err(Error::document(&shown(&path), "the blob", why));
    }
    readable(file.as_file()).map_err(writing)?;
    file.as_file().sync_all().map_err(writing)?;
    file.persist(&path).map_err(|error| writing(error.error))?;
    Ok(())
}

/// As a file is that nobody made secret.
fn readable(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(bytes)?;
    readable(file.as_file())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()
}

/// The index with these entries in it.
fn index(root: &Path, own: Vec<Value>) -> Result<Value> {
    let path = root.join("index.json");
    let mut index = match File::open(&path) {
        Ok(file) => {
            let most = SourceLimits::default().document_bytes;
            serde_json::from_reader(file.take(most)).map_err(|error| {
                Error::document(&shown(root), "index.json", format!("no index: {error}"))
            })?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [],
        }),
        Err(error) => return Err(Error::io(format!("reading {}", shown(&path)), error)),
    };
    let Some(manifests) = index.get_mut("manifests").and_then(Value::as_array_mut) else {
        return Err(Error::document(&shown(root), "index.json", "it has no list of manifests"));
    };
    manifests.retain(|known| !own.iter().any(|one| gives_way(known, one)));
    for one in own {
        // What is there under a name needs no entry without one.
        let there = |known: &Value| known["digest"] == one["digest"];
        if annotation(&one, REF_NAME).is_some() || !manifests.iter().any(there) {
            manifests.push(one);
        }
    }
    Ok(index)
}

/// Whether an entry of the index goes where another comes: it has the same name, or it is the same
/// and neither has one. A tag alone is the same name as far as nothing says of which repository.
fn gives_way(known: &Value, one: &Value) -> bool {
    let all =
        [known, one].map(|entry| (annotation(entry, REF_NAME), annotation(entry, WHOLE_NAME)));
    match all {
        [(_, Some(a)), (_, Some(b))] => a == b,
        [(Some(a), _), (Some(b), _)] => a == b,
        [(None, None), (None, None)] => known["digest"] == one["digest"],
        [_, _] => false,
    }
}

fn annotation<'v>(entry: &'v Value, key: &str) -> Option<&'v str> {
    entry["annotations"].get(key)?.as_str().filter(|text| !text.is_empty())
}

/// The image as an index names it: once for each of its names, or once without; and what stands
/// beside it.
pub(super) fn descriptors(
    image: &Outbound<'_>,
    digest: &BlobDigest,
    name: Option<&str>,
) -> Vec<Value> {
    let plain = json!({
        "mediaType": image.media_type,
        "digest": digest.to_string(),
        "size": image.manifest.len(),
    });
    let names = called(&image.names, name);
    let named = names.iter().map(|(tag, whole)| {
        let mut one = plain.clone();
        let mut annotations = json!({ REF_NAME: tag });
        if let Some(whole) = whole {
            annotations[WHOLE_NAME] = json!(whole.to_string());
        }
        one["annotations"] = annotations;
        one
    });
    let mut all: Vec<Value> = if names.is_empty() { vec![plain] } else { named.collect() };
    all.extend(image.beside.iter().flat_map(Companions::descriptors));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(digest: &str, name: Option<&str>, whole: Option<&str>) -> Value {
        let mut one = json!({ "digest": digest, "size": 1 });
        for (key, text) in [(REF_NAME, name), (WHOLE_NAME, whole)] {
            if let Some(text) = text {
                one["annotations"][key] = json!(text);
            }
        }
        one
    }

    /// The index as `DIGEST NAME WHOLE`.
    fn listed(root: &Path) -> Vec<String> {
        let index: Value =
            serde_json::from_slice(&fs::read(root.join("index.json")).unwrap()).unwrap();
        let entries = index["manifests"].as_array().unwrap().iter();
        let shown = |one: &Value| {
            let (name, whole) = (annotation(one, REF_NAME), annotation(one, WHOLE_NAME));
            let digest = one["digest"].as_str().unwrap();
            format!("{digest} {} {}", name.unwrap_or("-"), whole.unwrap_or("-"))
        };
        entries.map(shown).collect()
    }

    #[test]
    fn an_entry_gives_way_to_its_own_name_alone() {
        let (a, b) = (Some("h.io/a:1"), Some("h.io/b:1"));
        let cases: [(&[Value], &[&str]); 7] = [
            // One tag of two repositories, and the second again.
            (
                &[entry("x", Some("1"), a), entry("y", Some("1"), b), entry("z", Some("1"), b)],
                &["x 1 h.io/a:1", "z 1 h.io/b:1"],
            ),
            // One name, with the tag as its text and without.
            (&[entry("x", Some("1"), a), entry("y", a, a)], &["y h.io/a:1 h.io/a:1"]),
            // What other tools write, which know the tag alone.
            (&[entry("x", Some("1"), None), entry("y", Some("1"), a)], &["y 1 h.io/a:1"]),
            (&[entry("x", Some("1"), a), entry("y", Some("1"), None)], &["y 1 -"]),
            // Without a name: it takes none away, and does not stand there twice.
            (&[entry("x", Some("v1"), None), entry("x", None, None)], &["x v1 -"]),
            (&[entry("x", None, None), entry("x", None, None)], &["x - -"]),
            (
                &[entry("x", None, None), entry("y", None, None), entry("x", Some("v1"), None)],
                &["x - -", "y - -", "x v1 -"],
            ),
        ];
        for (entries, expected) in cases {
            let dir = tempfile::tempdir().unwrap();
            for one in entries {
                list(dir.path(), vec![one.clone()]).unwrap();
            }
            assert_eq!(listed(dir.path()), expected);
        }
    }

    #[test]
    fn of_two_copies_at_a_time_the_index_has_both() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        list(root, vec![entry("x", Some("1"), None)]).unwrap();
        std::thread::scope(|scope| {
            let held = lock(root).unwrap();
            let other = scope.spawn(|| list(root, vec![entry("z", Some("3"), None)]));
            // The other one comes in between, if it can.
            std::thread::sleep(Duration::from_millis(200));
            let index = index(root, vec![entry("y", Some("2"), None)]).unwrap();
            std::thread::sleep(Duration::from_millis(200));
            replace(&root.join("index.json"), index.to_string().as_bytes()).unwrap();
            drop(held);
            other.join().unwrap().unwrap();
        });
        assert_eq!(listed(root).len(), 3, "{:?}", listed(root));
        // Nobody waits for ever.
        let _held = lock(root).unwrap();
        let error = list(root, vec![entry("z", Some("3"), None)]).unwrap_err().to_string();
        assert!(error.contains("another process keeps the directory locked"), "{error}");
    }
}
