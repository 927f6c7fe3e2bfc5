//! What tests of pulling and pushing share: a store with a hurried client, and an image.
//!
//! Invariant: retries take milliseconds, so that a test may have many of them.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic)]

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use strata_image::{CheckedStore, Error, PullOptions, Pulled, pull};
use strata_layer::{Event, Progress, Store};
use strata_registry::{Reference, Registries, RegistryOptions, RegistrySettings, Retry};

use strata_testkit::digest;
use strata_testkit::layout::{Layout, tar_of};
use strata_testkit::registry::{Registry, Seen};

pub struct Client {
    pub dir: tempfile::TempDir,
    pub store: Store,
}

#[derive(Default)]
pub struct Warnings(pub Mutex<Vec<String>>);

impl Progress for Warnings {
    fn event(&self, _: &str, _: Event) {}

    fn warning(&self, _: &str, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

pub fn quick() -> RegistryOptions {
    RegistryOptions {
        retry: Retry {
            tries: 4,
            pause: Duration::from_millis(1),
            longest: Duration::from_millis(5),
        },
        ..RegistryOptions::default()
    }
}

impl Client {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        Self { dir, store }
    }

    pub fn options(&self) -> RegistryOptions {
        RegistryOptions { state: Some(self.store.root().to_owned()), ..quick() }
    }

    pub fn pull(&self, name: &str) -> Result<Pulled, Error> {
        self.pull_with(name, self.options())
    }

    pub fn pull_with(&self, name: &str, options: RegistryOptions) -> Result<Pulled, Error> {
        self.pull_warned(name, options, &Warnings::default())
    }

    pub fn pull_warned(
        &self,
        name: &str,
        options: RegistryOptions,
        warnings: &Warnings,
    ) -> Result<Pulled, Error> {
        let registries = Registries::new(options);
        let reference: Reference = name.parse().unwrap();
        pull(
            CheckedStore::unchecked(&self.store),
            &registries,
            &reference,
            &PullOptions::default(),
            warnings,
        )
    }

    /// With `registries.conf`, as a mirror of `docker.io`, then this origin for it.
    pub fn settings(&self, conf: &str) -> RegistryOptions {
        let path = self.dir.path().join("registries.conf");
        std::fs::write(&path, conf).unwrap();
        let mut settings = RegistrySettings::default();
        settings.add_registries_conf(&path).unwrap();
        RegistryOptions { settings, ..self.options() }
    }

    /// Nothing of anything is in the store.
    #[track_caller]
    pub fn assert_empty(&self) {
        assert_eq!(self.store.images().all().unwrap(), []);
        assert_eq!(self.store.images().tags().unwrap(), []);
        assert_eq!(self.store.layers().unwrap(), []);
        for dir in ["layers", "staging", "blobs/sha256"] {
            let entries = std::fs::read_dir(self.store.root().join(dir)).into_iter().flatten();
            let left: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(left, Vec::<std::ffi::OsString>::new(), "in {dir}/");
        }
    }
}

/// Three layers, of which the middle one is large enough to come in pieces.
pub fn layers() -> [Vec<u8>; 3] {
    let mut state = 7_u32;
    let noise: String = (0..300_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b'a' + (state >> 27) as u8 % 26)
        })
        .collect();
    [
        tar_of(&[("etc/base", "base")]),
        tar_of(&[("big", &noise)]),
        tar_of(&[("etc/top", "top"), (".wh.none", "")]),
    ]
}

pub fn offer(registry: &Registry, name: &str, tag: &str) -> String {
    let layout = Layout::new("x");
    let layers = layers();
    let image = layout.image(&[&layers[0], &layers[1], &layers[2]], "linux/amd64");
    layout.index(&[image]);
    registry.layout(layout.root(), name, tag)
}

/// What a manifest names: bytes by digest.
#[allow(dead_code)] // Of one test program of several.
pub fn blobs(registry: &Registry, manifest: &[u8]) -> HashMap<String, Vec<u8>> {
    let manifest: serde_json::Value = serde_json::from_slice(manifest).unwrap();
    let layers = manifest["layers"].as_array().unwrap().iter();
    let digests = layers.chain([&manifest["config"]]).map(|one| one["digest"].as_str().unwrap());
    digests.map(|digest| (digest.to_owned(), registry.stored_blob(digest).unwrap())).collect()
}

pub fn big() -> String {
    digest(&layers()[1])
}

pub fn is_big(seen: &Seen) -> bool {
    seen.is("GET", &format!("blobs/{}", big()))
}

/// A registry with one image, `HOST/team/x:1`, and its name.
pub fn one() -> (Registry, String) {
    let registry = Registry::new();
    offer(&registry, "team/x", "1");
    let name = format!("{}/team/x:1", registry.host());
    (registry, name)
}

pub fn attempts(error: &Error) -> &[strata_registry::Attempt] {
    match error {
        Error::Registry(strata_registry::Error::Refused(error)) => &error.attempts,
        other => panic!("{other}"),
    }
}
