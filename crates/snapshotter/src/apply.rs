//! The diff service: a blob of containerd's content store becomes a layer.
//!
//! The blob is read from the file where containerd keeps it, by the store's own reader, and
//! verified. What is applied is a layer above the parent's; the upper stays empty.
//!
//! Invariant: what this program cannot do as well as containerd itself is left to the next
//! plugin, with the snapshot as that one expects it.

use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use strata_tree::{BlobDigest, DiffId};
use stratafs::{LayerInput, LeasedLayer, Quiet};

use crate::error::{Error, IoDoing, Result};
use crate::places::SnapshotMount;
use crate::snapshots::Snapshots;
use crate::state::SnapshotKind;

/// What the media type of a layer says, as far as it can be read here: all but encrypted ones.
fn is_readable(media_type: &str) -> bool {
    let (kind, suffix) = media_type.split_once('+').unwrap_or((media_type, ""));
    let layer = kind.starts_with("application/vnd.oci.image.layer.")
        || kind.starts_with("application/vnd.docker.image.rootfs.");
    layer && matches!(suffix, "" | "gzip" | "zstd")
}

/// A blob, as containerd describes it.
pub(crate) struct DescribedBlob {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: i64,
}

/// A diff that was applied.
pub(crate) struct Applied {
    pub(crate) diff_id: DiffId,
    /// Bytes of the tar.
    pub(crate) size: u64,
}

/// Where containerd keeps blobs.
pub(crate) struct ContentStore(pub(crate) PathBuf);

impl ContentStore {
    fn open(&self, digest: &BlobDigest) -> Result<Option<File>> {
        let path = self.0.join("blobs/sha256").join(digest.hex());
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).doing(|| format!("cannot open {}", path.display())),
        }
    }
}

/// Applies a blob to the snapshot that these mounts are of.
///
/// # Errors
/// `NotImplemented` where the next plugin is to do it.
pub(crate) fn apply(
    snapshots: &Snapshots,
    content: &ContentStore,
    blob: &DescribedBlob,
    mounts: &[SnapshotMount],
) -> Result<Applied> {
    let other = |why: &str| Error::NotImplemented(format!("applying {}: {why}", blob.digest));
    let Some(id) = upper_of(mounts).and_then(|upper| snapshots.places.of_upper(upper)) else {
        return Err(other("the mounts are not those of a snapshot here"));
    };
    let found = snapshots.state().numbered(id)?;
    let Some(found) = found.filter(|found| found.kind == SnapshotKind::Active) else {
        return Err(other("no snapshot here is being written there"));
    };
    let _alone = snapshots.alone(&found.name);
    let snapshot = snapshots.stat(&found.name)?;
    // Whoever applies it in our place mounts the snapshot.
    let leave = |why: &str| -> Result<Applied> {
        snapshots.show(&snapshot)?;
        Err(other(why))
    };
    if !is_readable(&blob.media_type) {
        return leave("its media type is unknown here");
    }
    if !snapshots.places.is_untouched(snapshot.id)? {
        return leave("the snapshot was written to");
    }
    let Ok(digest) = blob.digest.parse::<BlobDigest>() else {
        return leave("its digest is not a sha256");
    };
    let Some(file) = content.open(&digest)? else {
        return leave("containerd's content store has no such file");
    };
    let size = u64::try_from(blob.size).unwrap_or(0);
    let layer = take_in(snapshots, file, digest, size)?;
    snapshots.applied(&snapshot, &layer)?;
    let record = snapshots.store.layer(layer.diff_id())?;
    let size = record.map_or(0, |record| record.diff_size);
    Ok(Applied { diff_id: *layer.diff_id(), size })
}

/// Takes a blob into the store, unless its layer is there.
fn take_in(
    snapshots: &Snapshots,
    file: File,
    digest: BlobDigest,
    size: u64,
) -> Result<LeasedLayer> {
    let known = snapshots.state().diff_id_of(&digest)?;
    if let Some(diff_id) = known
        && let Some(layer) = snapshots.store.lease(&diff_id)?
    {
        return Ok(layer);
    }
    let input = LayerInput {
        label: digest.to_string(),
        diff_id: None,
        blob: Some((digest, size)),
        reader: Box::new(BufReader::with_capacity(256 << 10, file)),
    };
    let unpacked = snapshots.store.unpack(input, &Quiet)?;
    snapshots.state().note_blob(&digest, unpacked.layer.diff_id())?;
    Ok(unpacked.layer)
}

/// The upper of mounts as this program gives them out.
pub(crate) fn upper_of(mounts: &[SnapshotMount]) -> Option<&Path> {
    let [mount] = mounts else { return None };
    match mount.kind.as_str() {
        "bind" => Some(Path::new(&mount.source)),
        "overlay" => {
            let upper = mount.options.iter().find_map(|option| option.strip_prefix("upperdir="));
            upper.map(Path::new)
        }
        _ => None,
    }
}
