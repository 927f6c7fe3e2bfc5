//! Endpoints that did not answer, remembered for a while, also by the next run.
//!
//! The file (`registries.json` below the store's root) is `{"down": {"HOST": SECONDS}}`, the time
//! until which a host is passed over, in seconds since 1970.
//!
//! Invariants: it only ever changes the order in which endpoints are asked, never whether the
//! last one is; a missing, damaged or unwritable file means that nothing is remembered; no host is
//! passed over for longer than that while, even if the clock was wrong when it was written down.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The file's name below the store's root.
pub(crate) const FILE: &str = "registries.json";
/// How long a host that did not answer is passed over.
const PASS_OVER: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    #[serde(default)]
    down: BTreeMap<String, u64>,
}

/// What is remembered.
#[derive(Debug, Default)]
pub(crate) struct Health {
    path: Option<PathBuf>,
    state: Mutex<State>,
}

impl Health {
    /// Remembers in the store at `root`.
    pub(crate) fn of_store(root: &Path) -> Self {
        let path = root.join(FILE);
        let state = read(&path);
        Self { path: Some(path), state: Mutex::new(state) }
    }

    /// Until when a host is passed over, in seconds since 1970.
    pub(crate) fn down_until(&self, host: &str) -> Option<u64> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.down.get(host).copied().filter(|until| counts(*until))
    }

    /// A host did not answer.
    pub(crate) fn down(&self, host: &str) {
        self.change(|state| {
            state.down.insert(host.to_owned(), now() + PASS_OVER.as_secs());
        });
    }

    /// A host answered.
    pub(crate) fn up(&self, host: &str) {
        if self.state.lock().unwrap_or_else(PoisonError::into_inner).down.contains_key(host) {
            self.change(|state| {
                state.down.remove(host);
            });
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = &self.path {
            // Other processes may have written it since.
            *state = read(path);
        }
        change(&mut state);
        state.down.retain(|_, until| counts(*until));
        if let Some(path) = &self.path
            && let Err(error) = write(path, &state)
        {
            tracing::debug!("{} is not written: {error}", path.display());
        }
    }
}

fn read(path: &Path) -> State {
    let text = std::fs::read(path).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn write(path: &Path, state: &State) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(&serde_json::to_vec(state)?)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Whether a host is passed over until then: a time further off was written by another clock.
fn counts(until: u64) -> bool {
    let now = now();
    (now + 1..=now + PASS_OVER.as_secs()).contains(&until)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_down_is_known_to_the_next_run_until_it_is_up() {
        let dir = tempfile::tempdir().unwrap();
        let health = Health::of_store(dir.path());
        health.down("a.io");
        let next = Health::of_store(dir.path());
        assert!(next.down_until("a.io").is_some() && next.down_until("b.io").is_none());
        next.down("b.io");
        next.up("a.io");
        let last = Health::of_store(dir.path());
        assert!(last.down_until("a.io").is_none() && last.down_until("b.io").is_some());
    }

    #[test]
    fn old_and_damaged_memories_count_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for (text, down) in [
            (r#"{"down":{"a.io":5}}"#, false),
            (&format!(r#"{{"down":{{"a.io":{}}}}}"#, now() + 60), true),
            (r#"{"down":{"a.io":99999999999}}"#, false),
            ("{", false),
            (r#"{"down":[]}"#, false),
        ] {
            std::fs::write(dir.path().join(FILE), text).unwrap();
            let health = Health::of_store(dir.path());
            assert_eq!(health.down_until("a.io").is_some(), down, "{text}");
            // What does not count goes when the file is written next.
            health.down("b.io");
            let kept = read(&dir.path().join(FILE)).down;
            assert_eq!(kept.contains_key("a.io"), down, "{text}");
        }
    }
}
