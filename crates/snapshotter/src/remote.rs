//! Images that containerd asks for by name: fetched by `strata pull`, before containerd fetches
//! any layer.
//!
//! containerd's CRI plugin writes on a snapshot which image and which manifest the layer is of. The
//! first such snapshot brings the whole image, its layers at once; the others find theirs in the
//! store. `strata pull` is run as a program, next to this one: it knows the node's mirrors,
//! certificates and logins, and its memory goes with it.
//!
//! Invariants: one image is fetched once at a time; a failure is no error of the snapshot, for
//! containerd then fetches the layer by itself, and is not tried again within a minute; a registry
//! that is slow for ever keeps [`WAITING`] calls waiting at most, and no other one.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{IoDoing, Result};
use crate::keys::{KeyLock, Keys};
use crate::labels;
use crate::state::Labels;

/// How long a failure counts.
const AGAIN: Duration = Duration::from_secs(60);

/// Calls that may wait for registries at once. Others of containerd's need threads too.
pub(crate) const WAITING: usize = 8;

/// The right of a call to wait for a registry.
pub(crate) struct FetchPlace<'f>(&'f AtomicUsize);

impl Drop for FetchPlace<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Fetches images.
pub(crate) struct Fetcher {
    /// The program `strata`.
    program: PathBuf,
    root: PathBuf,
    turns: Keys,
    waiting: AtomicUsize,
    failed: Mutex<HashMap<String, Instant>>,
    /// Images that were fetched, and that were not.
    counts: [AtomicU64; 2],
}

impl Fetcher {
    /// Fetches into the store at `root`.
    pub(crate) fn new(program: PathBuf, root: PathBuf) -> Self {
        Self {
            program,
            root,
            turns: Keys::default(),
            waiting: AtomicUsize::new(0),
            failed: Mutex::default(),
            counts: Default::default(),
        }
    }

    /// The image that labels name: by its manifest's digest where that is known.
    pub(crate) fn image_of(labels: &Labels) -> Option<String> {
        let name = labels.get(labels::CRI_IMAGE)?;
        labels.get(labels::CRI_LAYER)?;
        let Some(manifest) = labels.get(labels::CRI_MANIFEST) else { return Some(name.clone()) };
        let bare = name.split_once('@').map_or(name.as_str(), |(bare, _)| bare);
        // The last colon is that of a tag unless a slash, so a port, is behind it.
        let bare = match bare.rsplit_once(':') {
            Some((bare, tag)) if !tag.contains('/') => bare,
            _ => bare,
        };
        Some(format!("{bare}@{manifest}"))
    }

    /// A place to wait for a registry; `None` if all are taken.
    pub(crate) fn place(&self) -> Option<FetchPlace<'_>> {
        let place = FetchPlace(&self.waiting);
        // If it is one too many, it goes at once.
        (self.waiting.fetch_add(1, Ordering::Relaxed) < WAITING).then_some(place)
    }

    /// Waits until nobody else fetches that image.
    pub(crate) fn turn(&self, image: &str) -> KeyLock<'_> {
        self.turns.lock(image)
    }

    /// The same, unless somebody fetches it just now.
    pub(crate) fn free(&self, image: &str) -> Option<KeyLock<'_>> {
        self.turns.try_lock(image)
    }

    /// Fetches an image. Whoever calls has its turn.
    pub(crate) fn fetch(&self, image: &str) {
        tracing::info!("fetching {image}");
        let fetched = self.pull(image);
        self.counts[usize::from(fetched.is_err())].fetch_add(1, Ordering::Relaxed);
        if let Err(why) = &fetched {
            tracing::warn!("{image} is left to containerd: {why}");
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.insert(image.to_owned(), Instant::now());
        }
    }

    /// How many images were fetched, and how many were left to containerd.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let [fetched, failed] = &self.counts;
        (fetched.load(Ordering::Relaxed), failed.load(Ordering::Relaxed))
    }

    /// Whether it could not be fetched a short while ago.
    pub(crate) fn failed_lately(&self, image: &str) -> bool {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.retain(|_, at| at.elapsed() < AGAIN);
        failed.contains_key(image)
    }

    fn pull(&self, image: &str) -> std::result::Result<(), String> {
        let output = Command::new(&self.program)
            .arg("--root")
            .arg(&self.root)
            .args(["--quiet", "pull", "--", image])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("cannot run {}: {error}", self.program.display()))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }

    /// Whether a program fetches that image, for this one or for one that was killed.
    pub(crate) fn is_running(image: &str) -> Result<bool> {
        let doing = || "cannot list /proc".to_owned();
        for entry in std::fs::read_dir("/proc").doing(doing)? {
            // A process may end meanwhile.
            let line = std::fs::read(entry.doing(doing)?.path().join("cmdline"));
            let line = line.unwrap_or_default();
            let mut words = line.split(|byte| *byte == 0);
            if words.any(|word| word == b"pull") && words.any(|word| word == image.as_bytes()) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_calls_wait_for_registries_and_the_others_do_not() {
        let fetcher = Fetcher::new(PathBuf::new(), PathBuf::new());
        let mut places: Vec<_> = std::iter::from_fn(|| fetcher.place()).take(100).collect();
        assert_eq!(places.len(), WAITING);
        assert!(fetcher.place().is_none());
        places.pop();
        places.push(fetcher.place().unwrap());
        assert!(fetcher.place().is_none());
        drop(places);
        assert!(fetcher.place().is_some());
    }

    #[test]
    fn an_image_is_named_by_its_manifest() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (name, wanted) in [
            ("docker.io/library/alpine:3.20", "docker.io/library/alpine"),
            ("127.0.0.1:5000/alpine", "127.0.0.1:5000/alpine"),
            ("127.0.0.1:5000/alpine:1@sha256:bb", "127.0.0.1:5000/alpine"),
        ] {
            let labels = [
                (labels::CRI_IMAGE, name),
                (labels::CRI_LAYER, "sha256:cc"),
                (labels::CRI_MANIFEST, digest.as_str()),
            ];
            let mut labels: Labels =
                labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
            assert_eq!(Fetcher::image_of(&labels), Some(format!("{wanted}@{digest}")));
            labels.remove(labels::CRI_MANIFEST);
            assert_eq!(Fetcher::image_of(&labels).as_deref(), Some(name));
            labels.remove(labels::CRI_LAYER);
            assert_eq!(Fetcher::image_of(&labels), None);
        }
    }
}
