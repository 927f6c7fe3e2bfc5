//! A stored layer as a blob again: compressed the same way every time.
//!
//! Invariants: the same diff gives the same bytes on every machine: fixed levels, one thread, no
//! time and no name in the gzip header; the blob lies in an unnamed file of the store's staging
//! directory and goes with it; the diff is the exact tar that came in.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;

use flate2::GzBuilder;
use sha2::{Digest, Sha256};
use strata_layer::{LeasedLayer, Store};
use strata_tree::{BlobDigest, DiffId};

use crate::error::{Error, Result};
use crate::media::OCI_LAYER;

/// zlib's default, which docker and skopeo use too.
const GZIP_LEVEL: u32 = 6;
/// zstd's default.
const ZSTD_LEVEL: i32 = 3;

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LayerPacking {
    /// gzip, which every registry and client takes.
    #[default]
    Gzip,
    /// zstd, which newer ones take.
    Zstd,
    /// The tar as it is.
    Plain,
}

/// A layer's media type in the same vocabulary, for another packing.
pub(crate) fn repacked(media_type: &str, packing: Option<LayerPacking>) -> String {
    let docker = media_type.starts_with("application/vnd.docker.");
    let stem = match docker {
        true => "application/vnd.docker.image.rootfs.diff.tar",
        false => OCI_LAYER,
    };
    let end = match (packing, docker) {
        (None | Some(LayerPacking::Gzip), true) => ".gzip",
        (None | Some(LayerPacking::Gzip), false) => "+gzip",
        (Some(LayerPacking::Zstd), true) => ".zstd",
        (Some(LayerPacking::Zstd), false) => "+zstd",
        (Some(LayerPacking::Plain), _) => "",
    };
    format!("{stem}{end}")
}

/// The packing that a media type claims; the claim may be wrong, and any packing is right.
pub(crate) fn packing_of(media_type: &str) -> LayerPacking {
    match media_type {
        text if text.ends_with("zstd") => LayerPacking::Zstd,
        text if text.ends_with(".tar") => LayerPacking::Plain,
        _ => LayerPacking::Gzip,
    }
}

/// A packed layer.
pub(crate) struct Packed {
    pub(crate) digest: BlobDigest,
    pub(crate) size: u64,
    file: File,
}

impl Packed {
    /// Digest, size in bytes, and the file.
    pub(crate) fn into_parts(self) -> (BlobDigest, u64, File) {
        (self.digest, self.size, self.file)
    }

    /// Its bytes from an offset on.
    pub(crate) fn open(&self, offset: u64) -> Box<dyn Read + '_> {
        Box::new(At { file: &self.file, offset })
    }
}

struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buffer, self.offset)?;
        self.offset += n as u64;
        Ok(n)
    }
}

/// Packs a layer, and checks on the way that its diff is what its name says.
///
/// # Errors
/// `Store` if the layer is damaged; `Io`.
pub(crate) fn pack(store: &Store, layer: &LeasedLayer, packing: LayerPacking) -> Result<Packed> {
    let what = format!("packing layer {}", layer.diff_id());
    pack_from(store, packing, &what, &mut |out| write_checked(layer, out).map(drop))
}

/// Packs what `write` writes; `what` is said of failures.
///
/// # Errors
/// Those of `write`; `Io`.
pub(crate) fn pack_from(
    store: &Store,
    packing: LayerPacking,
    what: &str,
    write: &mut dyn FnMut(&mut dyn Write) -> Result<()>,
) -> Result<Packed> {
    let doing = |error| Error::io(what, error);
    let file = store.scratch_file()?;
    let buffered = BufWriter::with_capacity(256 << 10, file.try_clone().map_err(doing)?);
    let mut out = Hashed { inner: buffered, hasher: Sha256::new(), size: 0 };
    let out = match packing {
        LayerPacking::Gzip => {
            let level = flate2::Compression::new(GZIP_LEVEL);
            let mut gzip = GzBuilder::new().mtime(0).operating_system(255).write(out, level);
            write(&mut gzip)?;
            gzip.finish().map_err(doing)?
        }
        LayerPacking::Zstd => {
            let mut zstd = zstd::Encoder::new(out, ZSTD_LEVEL).map_err(doing)?;
            write(&mut zstd)?;
            zstd.finish().map_err(doing)?
        }
        LayerPacking::Plain => {
            write(&mut out)?;
            out
        }
    };
    let Hashed { mut inner, hasher, size } = out;
    inner.flush().map_err(doing)?;
    Ok(Packed { digest: BlobDigest::from_bytes(hasher.finalize().into()), size, file })
}

/// A diff, packed for whoever keeps blobs elsewhere.
pub struct PackedDiff {
    /// The digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// The digest of the blob.
    pub digest: BlobDigest,
    /// Bytes of the blob.
    pub size: u64,
    /// The blob; the file has no name.
    pub file: File,
}

/// Packs the diff that `write` writes; `what` is said of failures.
///
/// # Errors
/// Those of `write`; `Io`.
pub fn pack_diff(
    store: &Store,
    packing: LayerPacking,
    what: &str,
    write: &mut dyn FnMut(&mut dyn Write) -> Result<()>,
) -> Result<PackedDiff> {
    let mut diff_id = None;
    let packed = pack_from(store, packing, what, &mut |out| {
        let mut out = Hashed { inner: out, hasher: Sha256::new(), size: 0 };
        write(&mut out)?;
        diff_id = Some(DiffId::from_bytes(out.hasher.finalize().into()));
        Ok(())
    })?;
    let Packed { digest, size, file } = packed;
    let diff_id = diff_id.ok_or_else(|| Error::io(what, io::ErrorKind::UnexpectedEof))?;
    Ok(PackedDiff { diff_id, digest, size, file })
}

/// Packs a layer's own diff, byte for byte.
///
/// # Errors
/// `Store` if the layer is damaged; `Io`.
pub fn pack_layer(store: &Store, layer: &LeasedLayer, packing: LayerPacking) -> Result<PackedDiff> {
    let Packed { digest, size, file } = pack(store, layer, packing)?;
    Ok(PackedDiff { diff_id: *layer.diff_id(), digest, size, file })
}

/// Writes a layer's diff, and checks on the way that it is what its name says; gives its size in
/// bytes.
///
/// # Errors
/// `Store` or `Document` if the layer is damaged, which is known when all is written; `Io`.
pub(crate) fn write_checked(layer: &LeasedLayer, out: &mut dyn Write) -> Result<u64> {
    let mut out = Hashed { inner: out, hasher: Sha256::new(), size: 0 };
    let written = layer.write_diff(&mut out)?;
    let actual = DiffId::from_bytes(out.hasher.finalize().into());
    if actual != *layer.diff_id() {
        return Err(Error::document(
            "the store",
            &format!("layer {}", layer.diff_id()),
            format!("its diff is {actual} now; run `strata fsck`"),
        ));
    }
    Ok(written)
}

struct Hashed<W> {
    inner: W,
    hasher: Sha256,
    size: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
