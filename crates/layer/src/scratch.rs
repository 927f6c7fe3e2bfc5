//! Memory for what is noted of layers while they are read, and files for what is beyond it.
//!
//! Invariant: a file has no name by the time that it is used, so it goes with the process.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use strata_diff::spill::{Room, SpillSpace};

/// Memory for all layers that are read at a time.
#[derive(Debug)]
pub(crate) struct BooksMemory {
    bytes: usize,
    room: Arc<Room>,
}

impl Default for BooksMemory {
    fn default() -> Self {
        Self::of(48 << 20)
    }
}

impl BooksMemory {
    /// That number of bytes.
    pub(crate) fn of(bytes: usize) -> Self {
        Self { bytes, room: Room::new(bytes) }
    }

    /// The same for what a check notes of a layer, or of all: half of the memory, and the check
    /// goes on where the disk is full, or cannot be written.
    pub(crate) fn scratch_for_check(&self, dir: &Path) -> Arc<SpillSpace> {
        let (dir, place) = (dir.to_owned(), dir.display().to_string());
        let memory = self.bytes / 2;
        SpillSpace::or_memory(&Room::new(memory), memory, place, move || scratch_file(&dir))
    }

    /// For one layer: a large one leaves some to others. The file is made in `dir`.
    pub(crate) fn scratch(&self, dir: &Path) -> Arc<SpillSpace> {
        let (dir, place) = (dir.to_owned(), dir.display().to_string());
        SpillSpace::new(&self.room, self.bytes / 4 * 3, place, move || scratch_file(&dir))
    }
}

/// An unnamed file in a directory, gone when it is closed.
pub(crate) fn scratch_file(dir: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    match rustix::fs::open(dir, flags, Mode::from_raw_mode(0o600)) {
        Ok(fd) => Ok(fd.into()),
        // A file system without O_TMPFILE: made with a name, which is taken away at once.
        Err(_) => {
            let path = dir.join(format!("scratch-{}-{:p}", std::process::id(), &flags));
            let file = File::options().read(true).write(true).create_new(true).open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        }
    }
}
