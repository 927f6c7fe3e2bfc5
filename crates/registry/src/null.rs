//! `null` in documents that Go programs write.
//!
//! Invariant: where a field is read with this, `null` says the same as its absence.

use serde::{Deserialize, Deserializer};

/// Go writes `null` for what is empty.
///
/// # Errors
/// Those of the value itself.
pub fn or_default<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
