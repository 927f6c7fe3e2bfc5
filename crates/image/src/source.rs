//! A source of images: a directory or an archive with the same paths inside.
//!
//! Both answer the same two questions: the bytes of a small document, and a reader of a large
//! blob. In a directory that is `openat2` beneath it; in an archive, a range of its file.
//!
//! A layout that a build made (bazel, nix) is often links to files elsewhere, and every tool that
//! the user has follows them. So links of a directory are followed, wherever they lead: what they
//! lead to counts only if it is a JSON list of images, or has the digest that such a list names.
//!
//! Invariants: no path of a document has `..`; no link of an archive leads out of it; only regular
//! files are opened, and a device is not even opened to look at it; a document's size is checked
//! before it is read and reading stops there; readers use `pread`, so any number may read one
//! archive at the same time.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use strata_diff::stream::SkipRead;
use strata_tree::{BlobDigest, DiffId, TreePath};

use crate::archive::ArchiveIndex;
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::found::FoundLayer;
use crate::limits::SourceLimits;
use crate::spec::SourceSpec;
use crate::spool::{self, OpenedPlace, Scratch};

/// Where documents and layers of images come from: files (an [`ImageSource`]) or a registry.
pub(crate) trait Blobs: Sync {
    /// What the user calls it.
    fn label(&self) -> &str;

    /// Whether it can have the blob, as far as that is known without reading it.
    ///
    /// # Errors
    /// `Io`.
    fn offers(&self, digest: BlobDigest) -> Result<bool>;

    /// An index or manifest, verified; `None` if it is not there.
    ///
    /// # Errors
    /// `WrongSize`, `WrongDigest`, `Limit`, and those of reading.
    fn manifest(&self, what: &str, digest: BlobDigest, size: i64) -> Result<Option<Vec<u8>>>;

    /// A config, verified; `None` if it is not there.
    ///
    /// # Errors
    /// As [`Blobs::manifest`].
    fn config(&self, what: &str, digest: BlobDigest, size: i64) -> Result<Option<Vec<u8>>>;

    /// The bytes of a layer, open; `None` if they are not there.
    ///
    /// # Errors
    /// Those of opening.
    fn layer(&self, layer: &FoundLayer) -> Result<Option<Blob<'_>>>;

    /// What progress calls a layer.
    fn layer_label(&self, layer: &FoundLayer, diff_id: &DiffId) -> String;

    /// Called when the store has refused the bytes of a layer. With `Ok` another place may have
    /// better ones, and [`Blobs::layer`] gives them.
    ///
    /// # Errors
    /// `error`, if that is the end of it.
    fn refused(&self, layer: &FoundLayer, error: Error) -> Result<()>;
}

/// An open source.
#[derive(Debug)]
pub(crate) struct ImageSource {
    kind: Kind,
    /// What the user calls it.
    pub(crate) label: String,
    /// What it may make us read.
    pub(crate) limits: SourceLimits,
}

#[derive(Debug)]
enum Kind {
    Directory(File),
    Archive(ArchiveIndex),
}

/// A readable blob.
pub(crate) struct Blob<'a> {
    /// Its size in bytes, as the directory or archive has it.
    pub(crate) size: u64,
    /// Its bytes, from the beginning.
    pub(crate) reader: Box<dyn SkipRead + Send + 'a>,
    repeated: bool,
}

impl<'a> Blob<'a> {
    /// A blob of `size` bytes that `reader` gives.
    pub(crate) fn new(size: u64, reader: Box<dyn SkipRead + Send + 'a>) -> Self {
        Self { size, reader, repeated: false }
    }
}

impl ImageSource {
    /// Opens what `spec` names.
    ///
    /// # Errors
    /// `Io`, `WrongKind`, and those of reading a compressed or damaged archive.
    pub(crate) fn open(
        spec: &SourceSpec,
        scratch: Scratch<'_>,
        limits: &SourceLimits,
    ) -> Result<Self> {
        let label = spec.label();
        let kind = match spool::open(spec.place())? {
            OpenedPlace::Directory(directory) => Kind::Directory(directory),
            OpenedPlace::Stream(file) => {
                let (file, fault) = spool::plain(file, &label, scratch, limits)?;
                let archive = ArchiveIndex::index(file, &label, limits)
                    .and_then(|archive| archive.expand(scratch, &label, limits));
                match fault {
                    Some(fault) if !archive.as_ref().is_ok_and(ArchiveIndex::has_end) => {
                        return Err(fault);
                    }
                    Some(fault) => tracing::warn!("behind the end of the archive: {fault}"),
                    None => {}
                }
                Kind::Archive(archive?)
            }
        };
        Ok(Self { kind, label, limits: limits.clone() })
    }

    /// The blob at `path`, open; `None` if there is none.
    pub(crate) fn blob(&self, path: &TreePath) -> Result<Option<Blob<'_>>> {
        match &self.kind {
            Kind::Archive(archive) => Ok(archive.find(path).map(|extent| Blob {
                size: extent.size,
                reader: Box::new(Range {
                    file: extent.file,
                    offset: extent.offset,
                    left: extent.size,
                }),
                repeated: extent.repeated,
            })),
            Kind::Directory(directory) => self.open_beneath(directory, path),
        }
    }

    /// Something in the archive that is called `path`, in a directory where it is not looked for.
    pub(crate) fn deeper(&self, path: &TreePath) -> Option<&TreePath> {
        match &self.kind {
            Kind::Archive(archive) => archive.deeper(path),
            Kind::Directory(_) => None,
        }
    }

    fn open_beneath(&self, directory: &File, path: &TreePath) -> Result<Option<Blob<'_>>> {
        let what = || format!("opening {path} in {}", self.label);
        let open = |flags| {
            let flags = flags | OFlags::CLOEXEC;
            let resolve = ResolveFlags::NO_MAGICLINKS;
            rustix::fs::openat2(directory, path.as_os_str(), flags, Mode::empty(), resolve)
        };
        // Looked at before it is opened: opening a device may do something.
        let mut fd = match open(OFlags::PATH) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(e) => return Err(Error::io(what(), e)),
        };
        let mut stat = rustix::fs::fstat(&fd).map_err(|e| Error::io(what(), e))?;
        let is_file = |mode| FileType::from_raw_mode(mode) == FileType::RegularFile;
        if is_file(stat.st_mode) {
            // NONBLOCK for the fifo that may have taken its place.
            fd = open(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
                .map_err(|e| Error::io(what(), e))?;
            stat = rustix::fs::fstat(&fd).map_err(|e| Error::io(what(), e))?;
        }
        if !is_file(stat.st_mode) {
            return Err(Error::document(&self.label, &path.to_string(), "not a regular file"));
        }
        let size = stat.st_size.unsigned_abs();
        let reader = Range { file: File::from(fd), offset: 0, left: size };
        Ok(Some(Blob::new(size, Box::new(reader))))
    }

    /// The bytes of a small document; `None` if it is not there.
    ///
    /// # Errors
    /// `Limit` before anything is read if it is too large; `Document` if the archive has it twice
    /// (readers could disagree on which one counts).
    pub(crate) fn document(&self, path: &TreePath) -> Result<Option<Vec<u8>>> {
        let Some(mut blob) = self.blob(path)? else { return Ok(None) };
        if blob.repeated {
            return Err(self.repeated(path));
        }
        if blob.size > self.limits.document_bytes {
            return Err(Error::Limit {
                label: self.label.clone(),
                what: format!("the size of {path}, {} bytes,", blob.size),
                limit: self.limits.document_bytes,
                option: "--max-manifest-bytes",
            });
        }
        let mut bytes = vec![0; blob.size as usize];
        blob.reader
            .read_exact(&mut bytes)
            .map_err(|e| Error::io(format!("reading {path} in {}", self.label), e))?;
        Ok(Some(bytes))
    }

    /// A document named by its digest, verified; `None` if it is not there.
    ///
    /// # Errors
    /// `WrongSize` before it is read, `WrongDigest` after, and those of [`ImageSource::document`].
    pub(crate) fn verified(
        &self,
        what: &str,
        digest: BlobDigest,
        size: i64,
    ) -> Result<Option<Vec<u8>>> {
        let path = blob_path(digest);
        let Some(blob) = self.blob(&path)? else { return Ok(None) };
        self.check_size(&format!("{what} {digest}"), size, blob.size)?;
        drop(blob);
        let Some(bytes) = self.document(&path)? else { return Ok(None) };
        check_digest(&self.label, what, digest, &bytes)?;
        Ok(Some(bytes))
    }

    /// A blob as a whole, of at most `most` bytes, verified; `None` if it is not there.
    ///
    /// # Errors
    /// As [`ImageSource::verified`].
    pub(crate) fn sized(
        &self,
        what: &str,
        digest: BlobDigest,
        size: i64,
        most: u64,
    ) -> Result<Option<Vec<u8>>> {
        let path = blob_path(digest);
        let Some(blob) = self.blob(&path)? else { return Ok(None) };
        if blob.repeated {
            return Err(self.repeated(&path));
        }
        self.check_size(what, size, blob.size)?;
        let mut bytes = Vec::new();
        let read = blob.reader.take(most).read_to_end(&mut bytes);
        read.map_err(|e| Error::io(format!("reading {path} in {}", self.label), e))?;
        check_digest(&self.label, what, digest, &bytes)?;
        Ok(Some(bytes))
    }

    /// Whether it is a directory, not an archive.
    pub(crate) fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory(_))
    }

    fn repeated(&self, path: &TreePath) -> Error {
        let why = "the archive has several members of this name with different bytes, and readers \
                   disagree on which one counts; save the image again";
        Error::document(&self.label, &path.to_string(), why)
    }

    fn check_size(&self, what: &str, said: i64, actual: u64) -> Result<()> {
        check_size(&self.label, what, said, actual)
    }
}

impl Blobs for ImageSource {
    fn label(&self) -> &str {
        &self.label
    }

    fn offers(&self, digest: BlobDigest) -> Result<bool> {
        Ok(self.blob(&blob_path(digest))?.is_some())
    }

    fn manifest(&self, what: &str, digest: BlobDigest, size: i64) -> Result<Option<Vec<u8>>> {
        self.verified(what, digest, size)
    }

    fn config(&self, what: &str, digest: BlobDigest, size: i64) -> Result<Option<Vec<u8>>> {
        self.verified(what, digest, size)
    }

    fn layer(&self, layer: &FoundLayer) -> Result<Option<Blob<'_>>> {
        let blob = self.blob(&layer.path)?;
        if blob.as_ref().is_some_and(|blob| blob.repeated) {
            return Err(self.repeated(&layer.path));
        }
        Ok(blob)
    }

    fn layer_label(&self, _: &FoundLayer, diff_id: &DiffId) -> String {
        diff_id.short()
    }

    fn refused(&self, _: &FoundLayer, error: Error) -> Result<()> {
        Err(error)
    }
}

/// Compares a descriptor's size with what is there.
///
/// # Errors
/// `WrongSize`.
pub(crate) fn check_size(label: &str, what: &str, said: i64, actual: u64) -> Result<()> {
    if u64::try_from(said) == Ok(actual) {
        return Ok(());
    }
    Err(Error::WrongSize {
        label: label.to_owned(),
        document: what.to_owned(),
        expected: said,
        actual,
    })
}

/// Compares the bytes of a document with the digest that names it.
///
/// # Errors
/// `WrongDigest`.
pub(crate) fn check_digest(
    label: &str,
    what: &str,
    expected: BlobDigest,
    bytes: &[u8],
) -> Result<()> {
    let actual = sha256(bytes);
    if actual == expected {
        return Ok(());
    }
    Err(Error::WrongDigest { label: label.to_owned(), document: what.to_owned(), expected, actual })
}

/// Where a layout keeps the blob of a digest.
pub(crate) fn blob_path(digest: BlobDigest) -> TreePath {
    path_of(&format!("blobs/sha256/{}", digest.hex()))
}

/// The path of a document that the formats name: our own constants, and never refused.
pub(crate) fn path_of(text: &str) -> TreePath {
    TreePath::clamped(text.as_bytes()).unwrap_or_default()
}

/// A range of a file, read with `pread`.
struct Range<F> {
    file: F,
    offset: u64,
    left: u64,
}

impl<F: std::borrow::Borrow<File>> Read for Range<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let count = self.file.borrow().read_at(&mut buffer[..want], self.offset)?;
        if count == 0 {
            // The file shrank while it was read.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

impl<F: std::borrow::Borrow<File>> SkipRead for Range<F> {
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        let skipped = count.min(self.left);
        self.offset += skipped;
        self.left -= skipped;
        Ok(skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    fn open(path: &Path, limits: &SourceLimits) -> ImageSource {
        let scratch = || -> Result<File> { Ok(tempfile::tempfile().unwrap()) };
        ImageSource::open(&SourceSpec::path(path), &scratch, limits).unwrap()
    }

    fn layout() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        fs::write(dir.path().join("index.json"), "{}").unwrap();
        let digest = sha256(b"content");
        fs::write(dir.path().join("blobs/sha256").join(digest.hex()), "content").unwrap();
        dir
    }

    #[test]
    fn directory_and_archive_answer_alike() {
        let dir = layout();
        let tar = tempfile::NamedTempFile::new().unwrap();
        let mut builder = tar::Builder::new(tar.reopen().unwrap());
        builder.append_dir_all(".", dir.path()).unwrap();
        builder.finish().unwrap();
        for path in [dir.path(), tar.path()] {
            let source = open(path, &SourceLimits::default());
            let digest = sha256(b"content");
            assert_eq!(source.document(&path_of("index.json")).unwrap().unwrap(), b"{}");
            assert_eq!(source.document(&path_of("manifest.json")).unwrap(), None);
            assert_eq!(source.verified("config", digest, 7).unwrap().unwrap(), b"content");
            for lie in [-1, 6, 8, i64::MAX, i64::MIN] {
                let error = source.verified("config", digest, lie).unwrap_err();
                assert!(matches!(error, Error::WrongSize { actual: 7, .. }), "{error}");
            }
            let mut all = Vec::new();
            let mut blob = source.blob(&blob_path(digest)).unwrap().unwrap();
            blob.reader.read_to_end(&mut all).unwrap();
            assert_eq!(all, b"content");
            let error = source.verified("config", sha256(b"absent"), 7).unwrap();
            assert_eq!(error, None);
        }
    }

    #[test]
    fn documents_are_capped_and_verified() {
        let dir = layout();
        let digest = sha256(b"content");
        fs::write(dir.path().join("blobs/sha256").join(digest.hex()), "Content").unwrap();
        let source =
            open(dir.path(), &SourceLimits { document_bytes: 7, ..SourceLimits::default() });
        let error = source.verified("manifest", digest, 7).unwrap_err();
        assert!(matches!(error, Error::WrongDigest { expected, .. } if expected == digest));
        let small =
            open(dir.path(), &SourceLimits { document_bytes: 6, ..SourceLimits::default() });
        let error = small.verified("manifest", digest, 7).unwrap_err().to_string();
        assert!(error.contains("7 bytes, is more than 6"), "{error}");
    }

    #[test]
    fn links_of_a_layout_are_followed_to_regular_files() {
        use std::os::unix::fs::symlink;
        let dir = layout();
        let elsewhere = tempfile::tempdir().unwrap();
        let outside = elsewhere.path().join("out");
        fs::write(&outside, "outside").unwrap();
        let blobs = dir.path().join("blobs/sha256");
        let read = |content: &str| {
            let source = open(dir.path(), &SourceLimits::default());
            let (digest, size) = (sha256(content.as_bytes()), content.len() as i64);
            source.verified("config", digest, size).map(|bytes| bytes.map(String::from_utf8))
        };
        symlink(&outside, blobs.join(sha256(b"outside").hex())).unwrap();
        assert_eq!(read("outside").unwrap().unwrap().unwrap(), "outside");
        // What is not what the name says is of no use, wherever it is.
        symlink(&outside, blobs.join(sha256(b"another").hex())).unwrap();
        assert!(matches!(read("another"), Err(Error::WrongDigest { .. })));
        // A directory of blobs that is elsewhere itself.
        fs::rename(&blobs, elsewhere.path().join("blobs")).unwrap();
        symlink(elsewhere.path().join("blobs"), &blobs).unwrap();
        assert_eq!(read("content").unwrap().unwrap().unwrap(), "content");
        fs::rename(dir.path().join("index.json"), elsewhere.path().join("index")).unwrap();
        symlink(elsewhere.path().join("index"), dir.path().join("index.json")).unwrap();
        let source = open(dir.path(), &SourceLimits::default());
        assert_eq!(source.document(&path_of("index.json")).unwrap().unwrap(), b"{}");
        symlink("gone", blobs.join(sha256(b"gone").hex())).unwrap();
        assert_eq!(read("gone").unwrap(), None);
    }

    #[test]
    fn nothing_but_regular_files_is_opened() {
        use std::os::unix::fs::symlink;
        let dir = layout();
        let blobs = dir.path().join("blobs/sha256");
        let names: Vec<_> = (0..4_u8).map(|n| sha256(&[n])).collect();
        symlink("/dev/null", blobs.join(names[0].hex())).unwrap();
        symlink("/proc/self/fd/0", blobs.join(names[1].hex())).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, blobs.join(names[2].hex()), Mode::RUSR).unwrap();
        fs::create_dir(blobs.join(names[3].hex())).unwrap();
        let source = open(dir.path(), &SourceLimits::default());
        for name in names {
            assert!(source.blob(&blob_path(name)).is_err(), "{name}");
        }
    }
}
