//! How a long operation tells what it is doing, without knowing who listens.
//!
//! Invariant: events of one layer come in the order `Waiting`, then `Exists` or
//! (`Started`, `Read`..., `Done`); events of several layers mix.

/// What happens to a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It is in line, or another load is unpacking it.
    Waiting,
    /// The store has it already.
    Exists,
    /// Its bytes are being read.
    Started {
        /// Compressed bytes in all, if known.
        total: Option<u64>,
    },
    /// Progress.
    Read {
        /// Compressed bytes read so far.
        bytes: u64,
    },
    /// It is in the store, durably.
    Done,
}

/// A listener. Called from several threads.
pub trait Progress: Sync {
    /// `layer` is the short diff id, or the name of the input where that is not known yet.
    fn event(&self, layer: &str, event: Event);

    /// Something that a person should know; not an error.
    fn warning(&self, layer: &str, text: &str);
}
