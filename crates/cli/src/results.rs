//! Standard output, whose errors say that they are its own.
//!
//! Invariant: the kind of an error stays, for a closed pipe is no failure and an interrupted call
//! is made again.

use std::io::{self, Write};

/// A writer whose errors name standard output.
pub(crate) struct Results<W>(pub(crate) W);

fn named(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => error,
        kind => io::Error::new(kind, format!("cannot write to standard output: {error}")),
    }
}

impl<W: Write> Write for Results<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(named)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(28))
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    #[test]
    fn an_error_names_it_and_keeps_its_kind() {
        let error = Results(Full).write(b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(error.to_string().starts_with("cannot write to standard output: No space left"));
        assert_eq!(Results(Full).flush().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
