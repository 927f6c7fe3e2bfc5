//! Into an OCI layout directory.
//!
//! Invariants: a blob has its name only once it is complete and right; `index.json` is replaced
//! whole, last, and keeps what it has but the image of the same name.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use serde_json::{Value, json};
use strata_tree::BlobDigest;

use super::outbound::{Outbound, blob_name, called, prepare, shown};
use crate::beside::Companions;
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::limits::SourceLimits;
use crate::push::{PushEvent, PushListener};

const REF_NAME: &str = "org.opencontainers.image.ref.name";

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
    let index = index(root, image, &digest, name)?;
    replace(&root.join("index.json"), index.to_string().as_bytes()).map_err(writing)
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

/// The index with the image in it.
fn index(
    root: &Path,
    image: &Outbound<'_>,
    digest: &BlobDigest,
    name: Option<&str>,
) -> Result<Value> {
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
    let own = descriptors(image, digest, name);
    manifests.retain(|known| {
        !own.iter().any(|one| match one["annotations"].get(REF_NAME) {
            Some(name) => known["annotations"].get(REF_NAME) == Some(name),
            None => known["digest"] == one["digest"],
        })
    });
    manifests.extend(own);
    Ok(index)
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
            annotations["io.containerd.image.name"] = json!(whole.to_string());
        }
        one["annotations"] = annotations;
        one
    });
    let mut all: Vec<Value> = if names.is_empty() { vec![plain] } else { named.collect() };
    all.extend(image.beside.iter().flat_map(Companions::descriptors));
    all
}
