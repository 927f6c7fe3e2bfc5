//! [`LeastPace`]: a body that comes byte by byte is given up.
//!
//! A server that sends something now and then is never silent, so it would keep its client for
//! ever.
//!
//! Invariant: only the time that is spent waiting for the server counts, not what the caller does
//! between two reads.

use std::io::{Error, ErrorKind, Read};
use std::time::{Duration, Instant};

/// Bytes that have to come within the time that is given. With the default times that is less than
/// the slowest modem had.
pub(crate) const LEAST: u64 = 8 << 10;

/// A body that must not take for ever. See the module.
pub(crate) struct LeastPace<R> {
    from: R,
    within: Duration,
    waited: Duration,
    got: u64,
}

impl<R> LeastPace<R> {
    pub(crate) fn new(from: R, within: Duration) -> Self {
        Self { from, within, waited: Duration::ZERO, got: 0 }
    }
}

impl<R: Read> Read for LeastPace<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let begun = Instant::now();
        let read = self.from.read(into)?;
        self.waited = self.waited.saturating_add(begun.elapsed());
        self.got += read as u64;
        if read == 0 || self.got >= LEAST {
            (self.waited, self.got) = (Duration::ZERO, 0);
        } else if self.waited > self.within {
            let why = format!("only {} bytes came in {} seconds", self.got, self.waited.as_secs());
            return Err(Error::new(ErrorKind::TimedOut, why));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives that many bytes at a time, and takes that long for them.
    struct Slow(usize, Duration);

    impl Read for Slow {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            std::thread::sleep(self.1);
            let given = self.0.min(into.len());
            into[..given].fill(7);
            Ok(given)
        }
    }

    const WITHIN: Duration = Duration::from_millis(50);

    #[test]
    fn a_body_that_drips_is_given_up() {
        let mut body = LeastPace::new(Slow(1, Duration::from_millis(5)), WITHIN);
        let error = body.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(error.to_string().starts_with("only "), "{error}");
    }

    #[test]
    fn one_that_is_slow_and_one_whose_reader_is_slow_are_not() {
        let mut body = LeastPace::new(Slow(LEAST as usize, 2 * WITHIN), WITHIN);
        for _ in 0..3 {
            assert_eq!(body.read(&mut [0; LEAST as usize]).unwrap() as u64, LEAST);
        }
        let mut body = LeastPace::new(&[7; 20][..], WITHIN);
        for _ in 0..20 {
            std::thread::sleep(WITHIN / 5);
            assert_eq!(body.read(&mut [0]).unwrap(), 1);
        }
        assert_eq!(body.read(&mut [0]).unwrap(), 0);
    }
}
