//! [`Quiet`]: a listener to the progress of long work that hears nothing.
//!
//! Invariant: it has no state, so it can be shared by any number of calls.

use strata_layer::{Event, Progress};

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn event(&self, _layer: &str, _event: Event) {}

    fn warning(&self, _layer: &str, _text: &str) {}
}
