//! [`WriteBehind`]: bodies are written by a thread of its own, one batch behind.
//!
//! The thread that reads a tar hashes bodies, looks them up and makes their files, empty. For a
//! layer alone that thread is what everything waits for; copying bytes into the kernel is a sixth
//! of its time.
//!
//! ```text
//! add      a file, empty, and its bytes                  into the batch
//!          64 files or 256 KiB: the batch is handed over, once the one before it is written
//! wait     until the batch with that ticket is written
//! ```
//!
//! Invariants: at most two batches, of [`BYTES`] and one body each, are in memory; all of them in
//! this process have no more than a quarter of the descriptors that it may have; after an error
//! nothing more is written, and whoever waits next is told of it; where no thread can be had, the
//! batch is written at once.

use std::fs::File;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rustix::process::{Resource, getrlimit};

use crate::error::{Error, IoContext, Result};
use crate::stage::write_body;

/// A batch is handed over when it has this many bytes,
const BYTES: usize = 256 << 10;
/// or this many files: each is an open descriptor.
const FILES: usize = 64;

/// Files of all batches of this process.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// How many of them there may be: layers are unpacked side by side, as many as there are
/// processors.
fn most_open() -> usize {
    static MOST: OnceLock<usize> = OnceLock::new();
    *MOST.get_or_init(|| {
        let most = getrlimit(Resource::Nofile).current.map(|limit| limit / 4);
        most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX)
    })
}

/// A file without its bytes, counted.
struct EmptyFile(File);

impl EmptyFile {
    fn new(file: File) -> Self {
        OPEN.fetch_add(1, Ordering::Relaxed);
        Self(file)
    }
}

impl Drop for EmptyFile {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The number of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WriteTicket(u64);

/// Files, with where the bytes of each end.
#[derive(Default)]
struct Batch {
    files: Vec<(EmptyFile, PathBuf, usize)>,
    bytes: Vec<u8>,
}

impl Batch {
    fn write(&mut self) -> Result<()> {
        let mut from = 0;
        for (file, path, to) in self.files.drain(..) {
            let bytes = self.bytes.get(from..to).unwrap_or_default();
            write_body(&file.0, bytes).doing(|| format!("cannot write {}", path.display()))?;
            from = to;
        }
        self.bytes.clear();
        Ok(())
    }
}

/// The thread: batches go there, and come back empty.
struct Writer {
    batches: SyncSender<Batch>,
    written: Receiver<Result<Batch>>,
    thread: JoinHandle<()>,
}

impl Writer {
    fn start() -> std::io::Result<Self> {
        let (batches, work) = sync_channel::<Batch>(1);
        let (done, written) = sync_channel(1);
        let thread = std::thread::Builder::new().name("strata-write".into());
        let thread = thread.spawn(move || {
            for mut batch in work {
                let result = batch.write().map(|()| batch);
                let failed = result.is_err();
                if done.send(result).is_err() || failed {
                    break;
                }
            }
        })?;
        Ok(Self { batches, written, thread })
    }
}

/// What is still to be written. See the module.
#[derive(Default)]
pub(crate) struct WriteBehind {
    batch: Batch,
    /// How many batches were handed over, and are written.
    given: u64,
    written: u64,
    writer: Option<Writer>,
}

impl WriteBehind {
    /// Takes bytes for a file that is empty. An error may be that of an earlier file.
    pub(crate) fn add(&mut self, file: File, path: PathBuf, bytes: &[u8]) -> Result<WriteTicket> {
        self.batch.bytes.extend_from_slice(bytes);
        self.batch.files.push((EmptyFile::new(file), path, self.batch.bytes.len()));
        let ticket = WriteTicket(self.given + 1);
        if OPEN.load(Ordering::Relaxed) >= most_open() {
            self.wait(ticket)?;
        } else if self.batch.bytes.len() >= BYTES || self.batch.files.len() >= FILES {
            self.hand_over()?;
        }
        Ok(ticket)
    }

    /// The last batch that is known to be written.
    pub(crate) fn written(&self) -> WriteTicket {
        WriteTicket(self.written)
    }

    /// Waits until the batch of that number is written.
    pub(crate) fn wait(&mut self, ticket: WriteTicket) -> Result<()> {
        if ticket.0 > self.given {
            self.hand_over()?;
        }
        if ticket.0 > self.written {
            let batch = self.take_back()?;
            self.batch_is_back(batch);
        }
        Ok(())
    }

    /// Waits until everything is written.
    pub(crate) fn settle(&mut self) -> Result<()> {
        let last = self.given + u64::from(!self.batch.files.is_empty());
        self.wait(WriteTicket(last))
    }

    fn hand_over(&mut self) -> Result<()> {
        // The one before comes back, and takes the next files.
        let next = match self.given > self.written {
            true => self.take_back()?,
            false => Batch::default(),
        };
        let mut batch = std::mem::replace(&mut self.batch, next);
        self.given += 1;
        if self.writer.is_none() {
            self.writer = Writer::start().ok();
        }
        match &self.writer {
            Some(writer) => writer.batches.send(batch).map_err(|_| lost()),
            None => {
                batch.write()?;
                self.written = self.given;
                self.batch_is_back(batch);
                Ok(())
            }
        }
    }

    /// The batch that was handed over, once it is written.
    fn take_back(&mut self) -> Result<Batch> {
        let writer = self.writer.as_ref().ok_or_else(lost)?;
        let batch = writer.written.recv().map_err(|_| lost())??;
        self.written = self.given;
        Ok(batch)
    }

    /// Its memory is used again, unless that is in use.
    fn batch_is_back(&mut self, batch: Batch) {
        if self.batch.files.is_empty() {
            self.batch = batch;
        }
    }
}

/// The thread has ended, because of an error that was told before.
fn lost() -> Error {
    Error::io("cannot write a file of the layer", std::io::Error::other("an earlier one failed"))
}

impl Drop for WriteBehind {
    fn drop(&mut self) {
        if let Some(Writer { batches, written, thread }) = self.writer.take() {
            drop((batches, written));
            // One that panicked has nothing to tell.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn body(number: usize) -> Vec<u8> {
        number.to_string().repeat(number % 40_000 + 1).into_bytes()
    }

    #[test]
    fn every_file_has_its_bytes_after_it_was_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut behind = WriteBehind::default();
        let path = |number: usize| dir.path().join(number.to_string());
        let mut tickets = Vec::new();
        for number in 0..500 {
            let file = File::create_new(path(number)).unwrap();
            tickets.push(behind.add(file, path(number), &body(number)).unwrap());
            if number % 97 == 0 {
                behind.wait(tickets[number / 2]).unwrap();
                assert!(behind.written() >= tickets[number / 2]);
                assert_eq!(fs::read(path(number / 2)).unwrap(), body(number / 2));
            }
        }
        behind.settle().unwrap();
        behind.settle().unwrap();
        for (number, ticket) in tickets.into_iter().enumerate() {
            assert!(behind.written() >= ticket);
            assert_eq!(fs::read(path(number)).unwrap(), body(number));
        }
    }

    #[test]
    fn an_error_is_told_and_nothing_is_written_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut behind = WriteBehind::default();
        let full = File::options().write(true).open("/dev/full").unwrap();
        let refused = behind
            .add(full, "bodies/full".into(), b"text")
            .and_then(|ticket| behind.wait(ticket))
            .unwrap_err();
        assert!(refused.to_string().contains("cannot write bodies/full"), "{refused}");
        assert!(refused.is_full());
        let path = dir.path().join("later");
        let later = behind
            .add(File::create_new(&path).unwrap(), path.clone(), b"text")
            .and_then(|_| behind.settle());
        later.unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"");
    }
}
