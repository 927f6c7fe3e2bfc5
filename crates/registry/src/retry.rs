//! How often, and after which pauses, a registry is asked again.
//!
//! Invariant: no pause is longer than [`Retry::longest`], whatever the server asks for.

use std::time::Duration;

use crate::error::EndpointError;

/// Tries of what is not answered at all.
const SILENT_TRIES: u32 = 3;

/// How often, and after which pauses, something that may pass is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Tries in a row without any progress, the first one included.
    pub tries: u32,
    /// The first pause; each further one is twice as long.
    pub pause: Duration,
    /// The longest pause, also if the server names one.
    pub longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { tries: 5, pause: Duration::from_millis(250), longest: Duration::from_secs(30) }
    }
}

impl Retry {
    /// Tries after a failure: one that keeps silent has cost much time already.
    pub(crate) fn tries_after(&self, why: &EndpointError) -> u32 {
        if why.is_silence() { self.tries.min(SILENT_TRIES) } else { self.tries }
    }

    /// The pause after this number of failures; the server may ask for a longer one.
    pub(crate) fn pause_after(&self, failures: u32, asked: Option<Duration>) -> Duration {
        let doubled = self.pause.saturating_mul(1 << failures.saturating_sub(1).min(16));
        doubled.max(asked.unwrap_or_default()).min(self.longest)
    }
}

/// `Retry-After`: seconds, or a date (RFC 9110, 10.2.3).
pub(crate) fn seconds_until(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    u64::try_from(date.as_second() - jiff::Timestamp::now().as_second()).ok()
}
