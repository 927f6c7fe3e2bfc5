//! Standard output, whose errors say that they are its own.
//!
//! Invariants: the kind of an error stays, for an interrupted call is made again; that nobody reads
//! on is another error than any other closed pipe, such as that of a helper program.

use std::io::{self, ErrorKind, Write};

/// A writer whose errors name standard output.
pub(crate) struct Results<W> {
    to: W,
    /// Whether the command goes on when nobody reads what it says.
    goes_on: bool,
}

impl<W> Results<W> {
    /// For a command that ends when nobody reads what it says.
    pub(crate) fn new(to: W) -> Self {
        Self { to, goes_on: false }
    }

    /// For one whose exit status says something too, or that changes something: what nobody reads
    /// is dropped.
    pub(crate) fn to_the_end(to: W) -> Self {
        Self { to, goes_on: true }
    }

    fn done<T>(&self, done: io::Result<T>, dropped: T) -> io::Result<T> {
        match done {
            Err(error) if error.kind() == ErrorKind::BrokenPipe && self.goes_on => Ok(dropped),
            done => done.map_err(named),
        }
    }
}

fn named(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::Interrupted | ErrorKind::WouldBlock => error,
        ErrorKind::BrokenPipe => io::Error::new(ErrorKind::BrokenPipe, NoReader),
        kind => io::Error::new(kind, format!("cannot write to standard output: {error}")),
    }
}

/// Nobody reads standard output any more.
#[derive(Debug)]
struct NoReader;

impl std::fmt::Display for NoReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cannot write to standard output: its reader went away")
    }
}

impl std::error::Error for NoReader {}

/// Whether an error is that nobody reads standard output any more.
pub(crate) fn is_without_reader(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        // This writes to standard output alone, and hides the error of the system.
        let json = cause.downcast_ref().and_then(serde_json::Error::io_error_kind);
        io.is_some_and(|inner| inner.is::<NoReader>()) || json == Some(ErrorKind::BrokenPipe)
    })
}

impl<W: Write> Write for Results<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes);
        self.done(written, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.to.flush();
        self.done(flushed, ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fails(ErrorKind);

    impl Write for Fails {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn an_error_names_it_and_keeps_its_kind() {
        let full = Fails(ErrorKind::StorageFull);
        let error = Results::to_the_end(full).write(b"x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert!(error.to_string().starts_with("cannot write to standard output: no storage space"));
    }

    #[test]
    fn its_closed_pipe_is_told_from_others() {
        let closed = || Fails(ErrorKind::BrokenPipe);
        let error = Results::new(closed()).flush().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        assert!(is_without_reader(&anyhow::Error::new(error).context("cannot list")));
        let json = serde_json::to_writer(Results::new(closed()), "x").unwrap_err();
        assert!(is_without_reader(&json.into()));
        let other = io::Error::from(ErrorKind::BrokenPipe);
        assert!(!is_without_reader(&anyhow::Error::new(other).context("cannot pull")));
    }

    #[test]
    fn a_command_may_go_on_without_a_reader() {
        let mut out = Results::to_the_end(Fails(ErrorKind::BrokenPipe));
        out.write_all(b"text").unwrap();
        out.flush().unwrap();
    }
}
