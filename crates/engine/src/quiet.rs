//! [`Quiet`]: a progress listener that ignores everything.
//!
//! Invariant: it has no state, so it can be shared by any number of calls.

use strata_layer::{Event, Progress};

/// Ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn event(&self, _layer: &str, _event: Event) {}

    fn warning(&self, _layer: &str, _text: &str) {}
}
