//! Pushing to registries that behave, and that do not.
//!
//! The model: an image is pulled from one loopback registry and pushed to another, or to the
//! same; what is there then is what a third party would get.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

mod client;
#[path = "../../../tests/support/fake.rs"]
mod fake;
mod support;

use std::num::NonZeroUsize;
use std::sync::Mutex;

use client::{Client, attempts, big, layers, one};
use fake::{Answer, How, Registry};
use strata_image::registry::{PushEvent, PushOptions, Refusal, Registries, push};
use strata_image::{Error, resolve_image};
use support::{LAYER, Layout};

#[derive(Default)]
struct Said(Mutex<Vec<String>>);

fn push_to(client: &Client, image: &str, name: &str, part: u64) -> Result<Said, Error> {
    let registries = Registries::new(client.options());
    let record = resolve_image(&client.store, image).unwrap();
    let said = Said::default();
    let listen = |layer: &str, event: PushEvent<'_>| match event {
        PushEvent::Preparing | PushEvent::Sending { .. } => {}
        event => said.0.lock().unwrap().push(format!("{layer} {event:?}")),
    };
    // One at a time where a rule counts.
    let threads = NonZeroUsize::new(if part == 0 { 3 } else { 1 });
    let options = PushOptions { part, threads, ..PushOptions::default() };
    push(&client.store, &registries, &record, &name.parse().unwrap(), &options, &listen)?;
    Ok(said)
}

impl Said {
    fn count(self, word: &str) -> usize {
        self.0.into_inner().unwrap().iter().filter(|line| line.contains(word)).count()
    }
}

#[test]
fn a_pushed_image_is_pulled_as_it_was() {
    let (registry, name) = one();
    let client = Client::new();
    let pulled = client.pull(&name).unwrap();
    let host = registry.host();
    // The same registry has every layer; the manifest is put as it came.
    assert_eq!(push_to(&client, &name, &name, 0).unwrap().count("Exists"), 3);
    let moved = format!("{host}/other/x:1");
    assert_eq!(push_to(&client, &name, &moved, 0).unwrap().count("Mounted"), 3);
    let (was, is) =
        (registry.stored_manifest("team/x", "1"), registry.stored_manifest("other/x", "1"));
    assert_eq!(was, is);
    // Another one has none of them. Uncompressed layers, as these were, go back as they came.
    let far = Registry::new();
    let there = format!("{}/far/x:1", far.host());
    assert_eq!(push_to(&client, &name, &there, 0).unwrap().count("Pushed"), 3);
    assert_eq!(far.stored_manifest("far/x", "1"), was);
    assert_eq!(push_to(&client, &name, &there, 0).unwrap().count("Exists"), 3);
    let other = Client::new();
    assert_eq!(other.pull(&there).unwrap().id, pulled.id);
}

#[test]
fn a_push_goes_on_after_trouble() {
    let (registry, name) = one();
    let client = Client::new();
    client.pull(&name).unwrap();
    let far = Registry::new();
    let mut count = 0;
    far.rule(move |seen| {
        count += 1;
        // Every third request that changes something fails, in another way each time.
        match (seen.method.as_str(), count % 9) {
            ("PATCH" | "PUT" | "POST", 2) => Answer::new(500).how(),
            ("PATCH" | "PUT" | "POST", 5) => How::Nothing,
            ("PATCH" | "PUT" | "POST", 8) => Answer::new(429).header("retry-after", "0").how(),
            _ => How::Well,
        }
    });
    let there = format!("{}/far/x:1", far.host());
    push_to(&client, &name, &there, 10_000).unwrap();
    assert!(far.count("PATCH", "/uploads/") >= 31);
    assert_eq!(far.stored_blob(&big()), registry.stored_blob(&big()));
    far.rule(|_| How::Well);
    Client::new().pull(&there).unwrap();
}

#[test]
fn a_push_that_is_not_allowed_says_so() {
    let (registry, name) = one();
    let client = Client::new();
    client.pull(&name).unwrap();
    registry.rule(|seen| match seen.method.as_str() {
        "PUT" | "POST" => Answer::new(403).body(r#"{"errors":[{"code":"DENIED"}]}"#).how(),
        _ => How::Well,
    });
    let error = push_to(&client, &name, &format!("{}/b/x:1", registry.host()), 0).err().unwrap();
    assert!(matches!(attempts(&error)[0].why, Refusal::Denied(_)), "{error}");
    assert_eq!(registry.stored_manifest("b/x", "1"), None);
    let pinned = format!("{}/b/x@{}", registry.host(), big());
    assert!(matches!(push_to(&client, &name, &pinned, 0), Err(Error::NameWithDigest(_))));
}

#[test]
fn layers_are_packed_the_same_way_every_time() {
    let client = Client::new();
    let layout = Layout::new("gz");
    let layers = layers();
    let config = layout.config(&[&layers[1]], "linux/amd64");
    let packed = zstd::encode_all(&layers[1][..], 19).unwrap();
    let blob = layout.blob(&format!("{LAYER}+zstd"), &packed);
    layout.index(&[layout.manifest(&config, &[blob])]);
    let near = Registry::new();
    near.layout(layout.root(), "x", "1");
    client.pull(&format!("{}/x:1", near.host())).unwrap();
    let manifests: Vec<_> = (0..2)
        .map(|_| {
            let far = Registry::new();
            let there = format!("{}/x:1", far.host());
            push_to(&client, &format!("{}/x:1", near.host()), &there, 0).unwrap();
            far.stored_manifest("x", "1").unwrap()
        })
        .collect();
    assert_eq!(manifests[0], manifests[1]);
    let text = String::from_utf8_lossy(&manifests[0]);
    assert!(text.contains("tar+zstd") && text.contains(config["digest"].as_str().unwrap()));
    assert_ne!(manifests[0], near.stored_manifest("x", "1").unwrap());
}
