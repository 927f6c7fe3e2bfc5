//! [`Files`]: contents that are files below the directories of layers.
//!
//! The model: one directory a layer, base first, each open; a content is the file at its path
//! below the directory of its layer. This is how the store keeps contents, and any lower directory
//! of an overlay.
//!
//! Invariants: no symbolic link is followed and nothing above a directory is reached
//! ([`strata_tree::open_beneath`]); only regular files are opened, for reading only; a stored file
//! that is shorter than its tree says, or becomes so while it is open, is an error (`EIO`).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Advice, fadvise};
use rustix::io::Errno;
use strata_tree::{ContentRef, Error, Result, open_beneath};

use crate::contents::{Content, Contents};

/// The directory of one layer.
#[derive(Debug)]
pub struct LayerDir {
    dir: Arc<OwnedFd>,
    label: String,
    quiet: bool,
}

impl LayerDir {
    /// `dir` is open with `O_PATH` or for reading; `label` names the layer in errors.
    pub fn new(dir: impl Into<Arc<OwnedFd>>, label: impl Into<String>) -> Self {
        Self { dir: dir.into(), label: label.into(), quiet: false }
    }

    /// The same for directories that a user works in: reading leaves access times alone where the
    /// caller owns the file (`O_NOATIME`, open(2)), and a file that has become shorter is no error.
    #[must_use]
    pub fn quiet(self) -> Self {
        Self { quiet: true, ..self }
    }

    fn open(&self, which: &ContentRef) -> Result<FileContent> {
        let (dir, path) = (self.dir.as_fd(), &which.path);
        let failed = |errno| Error::io(format!("opening {path} in {}", self.label), errno);
        let (file, len) = open_beneath(dir, path, self.quiet).map_err(failed)?;
        if !self.quiet && len < which.size {
            let what = format!(
                "opening {path} in {}, which has {len} of its {} bytes (strata fsck tells more)",
                self.label, which.size
            );
            return Err(Error::io(what, Errno::IO));
        }
        Ok(FileContent { file, len, whole: !self.quiet })
    }
}

/// Contents as files of layers. See the module.
#[derive(Debug, Default)]
pub struct Files {
    layers: Vec<LayerDir>,
}

impl Files {
    /// The directories of the layers, base first.
    pub fn new(layers: Vec<LayerDir>) -> Self {
        Self { layers }
    }

    fn layer(&self, which: &ContentRef) -> Option<&LayerDir> {
        usize::try_from(which.layer).ok().and_then(|index| self.layers.get(index))
    }
}

impl Contents for Files {
    fn open(&self, which: &ContentRef) -> Result<Box<dyn Content>> {
        match self.layer(which) {
            Some(layer) => Ok(Box::new(layer.open(which)?)),
            None => Err(which.no_layer(self.layers.len())),
        }
    }

    fn prefetch(&self, which: &[ContentRef]) {
        for one in which {
            if let Some(Ok(opened)) = self.layer(one).map(|layer| layer.open(one)) {
                let _ = fadvise(&opened.file, 0, None, Advice::WillNeed);
            }
        }
    }
}

/// A file as a content.
#[derive(Debug)]
pub struct FileContent {
    file: File,
    len: u64,
    /// An end before `len` is an error.
    whole: bool,
}

impl FileContent {
    /// A regular file that is open for reading only, as long as it is now.
    ///
    /// # Errors
    /// What fstat(2) says.
    pub fn new(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { file, len, whole: false })
    }
}

impl Content for FileContent {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        // The kernel refuses an offset that no file has, where nothing is to be read.
        if offset >= self.len {
            return Ok(0);
        }
        let mut done = 0;
        while done < buffer.len() {
            match rustix::io::pread(&self.file, &mut buffer[done..], offset + done as u64) {
                Ok(0) if self.whole && offset + (done as u64) < self.len => {
                    return Err(Errno::IO.into());
                }
                Ok(0) => break,
                Ok(more) => done += more,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(done)
    }

    fn as_file(&self) -> Option<&File> {
        Some(&self.file)
    }
}
