//! Pushing to registries that behave, and that do not.
//!
//! The model: an image is pulled from one loopback registry and pushed to another, or to the
//! same; what is there then is what a third party would get.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

mod client;

use std::num::NonZeroUsize;
use std::sync::Mutex;

use client::{Client, attempts, big, layers, one};
use strata_image::{Error, PushEvent, PushOptions, push, resolve_image};
use strata_registry::{EndpointError, Registries};
use strata_testkit::layout::{LAYER, Layout, tar_of};
use strata_testkit::registry::{Answer, How, Registry, Seen};

#[derive(Default)]
struct Said(Mutex<Vec<String>>);

fn push_to(client: &Client, image: &str, name: &str) -> Result<Said, Error> {
    push_at_once(client, image, name, 3)
}

fn push_at_once(client: &Client, image: &str, name: &str, threads: usize) -> Result<Said, Error> {
    let registries = Registries::new(client.options());
    let record = resolve_image(&client.store, image).unwrap();
    let said = Said::default();
    let listen = |layer: &str, event: PushEvent<'_>| match event {
        PushEvent::Preparing | PushEvent::Sending { .. } => {}
        event => said.0.lock().unwrap().push(format!("{layer} {event:?}")),
    };
    let threads = NonZeroUsize::new(threads);
    let options = PushOptions { threads, ..PushOptions::default() };
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
    assert_eq!(push_to(&client, &name, &name).unwrap().count("Exists"), 3);
    let moved = format!("{host}/other/x:1");
    assert_eq!(push_to(&client, &name, &moved).unwrap().count("Mounted"), 3);
    let (was, is) =
        (registry.stored_manifest("team/x", "1"), registry.stored_manifest("other/x", "1"));
    assert_eq!(was, is);
    // Another one has none of them. Uncompressed layers, as these were, go back as they came.
    let far = Registry::new();
    let there = format!("{}/far/x:1", far.host());
    assert_eq!(push_to(&client, &name, &there).unwrap().count("Pushed"), 3);
    assert_eq!(far.stored_manifest("far/x", "1"), was);
    assert_eq!(push_to(&client, &name, &there).unwrap().count("Exists"), 3);
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
    // One at a time, for the rule counts.
    push_at_once(&client, &name, &there, 1).unwrap();
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
    let error = push_to(&client, &name, &format!("{}/b/x:1", registry.host())).err().unwrap();
    assert!(matches!(attempts(&error)[0].why, EndpointError::Denied(_)), "{error}");
    assert_eq!(registry.stored_manifest("b/x", "1"), None);
    let pinned = format!("{}/b/x@{}", registry.host(), big());
    assert!(matches!(push_to(&client, &name, &pinned), Err(Error::NameWithDigest(_))));
}

/// An image may say of a blob that it is a layer that the store has, and nobody has looked.
#[test]
fn a_manifest_is_not_believed_which_blob_a_layer_is() {
    let client = Client::new();
    let near = Registry::new();
    let tar = tar_of(&[("f", "the layer")]);
    let foreign = tar_of(&[("f", "another")]);
    let pack = |tar: &[u8], level| zstd::encode_all(tar, level).unwrap();
    let layout = Layout::new("claims");
    let config = layout.config(&[&tar, &tar], "linux/amd64");
    let blob = layout.blob(&format!("{LAYER}+zstd"), pack(&tar, 3));
    let other = layout.blob(&format!("{LAYER}+zstd"), pack(&foreign, 3));
    layout.index(&[layout.manifest(&config, &[blob.clone(), other.clone()])]);
    near.layout(layout.root(), "claims", "1");
    let name = format!("{}/claims:1", near.host());
    client.pull(&name).unwrap();
    // The target has the blob that the second layer is said to be.
    let there = format!("{}/claims:2", near.host());
    push_to(&client, &name, &there).unwrap();
    let put = near.stored_manifest("claims", "2").unwrap();
    let text = String::from_utf8(put).unwrap();
    let has =
        |descriptor: &serde_json::Value| text.contains(descriptor["digest"].as_str().unwrap());
    assert!(has(&blob) && !has(&other), "{text}");
    Client::new().pull(&there).unwrap();
    // Another image of that registry is not to be given the foreign blob by way of this one.
    let (honest, home) = (Layout::new("honest"), Registry::new());
    let config = honest.config(&[&tar], "linux/amd64");
    let blob = honest.blob(&format!("{LAYER}+zstd"), pack(&tar, 19));
    honest.index(&[honest.manifest(&config, &[blob])]);
    home.layout(honest.root(), "honest", "1");
    let name = format!("{}/honest:1", home.host());
    client.pull(&name).unwrap();
    let there = format!("{}/honest:1", near.host());
    push_to(&client, &name, &there).unwrap();
    let put = near.stored_manifest("honest", "1").unwrap();
    assert!(!String::from_utf8(put).unwrap().contains(other["digest"].as_str().unwrap()));
    Client::new().pull(&there).unwrap();
}

/// The empty layer of two builders is one diff in two forms.
#[test]
fn one_layer_may_be_two_blobs_of_an_image() {
    let client = Client::new();
    let near = Registry::new();
    let (tar, top) = (tar_of(&[("f", "twice")]), tar_of(&[("g", "top")]));
    let layout = Layout::new("twice");
    let config = layout.config(&[&tar, &top, &tar], "linux/amd64");
    let blob = |tar: &[u8], level| {
        layout.blob(&format!("{LAYER}+zstd"), zstd::encode_all(tar, level).unwrap())
    };
    let mut again = zstd::encode_all(&tar[..], 3).unwrap();
    // Another form of the same: a frame to be skipped behind it.
    again.extend([0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 0]);
    let again = layout.blob(&format!("{LAYER}+zstd"), again);
    layout.index(&[layout.manifest(&config, &[blob(&tar, 3), blob(&top, 3), again])]);
    near.layout(layout.root(), "twice", "1");
    let name = format!("{}/twice:1", near.host());
    client.pull(&name).unwrap();
    // Both are there, which is found out by reading the one that was never read. Where it cannot
    // be read, nothing else is put in its place: the manifest may be signed.
    let there = format!("{}/twice:2", near.host());
    near.rule(|seen| match seen.is("GET", "/blobs/") {
        true => refused(503),
        false => How::Well,
    });
    let error = push_to(&client, &name, &there).err().unwrap();
    assert!(matches!(attempts(&error)[0].why, EndpointError::Failed(_)), "{error}");
    assert_eq!(near.stored_manifest("twice", "2"), None);
    near.rule(|_| How::Well);
    assert_eq!(push_to(&client, &name, &there).unwrap().count("Exists"), 3);
    assert_eq!(near.stored_manifest("twice", "2"), near.stored_manifest("twice", "1"));
    near.forget();
    assert_eq!(push_to(&client, &name, &there).unwrap().count("Exists"), 3);
    assert_eq!(near.count("GET", "/blobs/"), 0, "what was read once is known");
    // Where neither is, both are sent: the manifest names nothing that is not there.
    let far = Registry::new();
    let there = format!("{}/twice:1", far.host());
    push_to(&client, &name, &there).unwrap();
    Client::new().pull(&there).unwrap();
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
            push_to(&client, &format!("{}/x:1", near.host()), &there).unwrap();
            far.stored_manifest("x", "1").unwrap()
        })
        .collect();
    assert_eq!(manifests[0], manifests[1]);
    let text = String::from_utf8_lossy(&manifests[0]);
    assert!(text.contains("tar+zstd") && text.contains(config["digest"].as_str().unwrap()));
    assert_ne!(manifests[0], near.stored_manifest("x", "1").unwrap());
}

/// What a registry does with requests that carry bytes, and how often it may see the bytes of a
/// layer: `(name, rule, most)`.
type Habit = (&'static str, fn(&Seen) -> How, usize);

fn refused(status: u16) -> How {
    Answer::new(status).body(r#"{"errors":[{"code":"UNSUPPORTED","message":"no"}]}"#).how()
}

fn has_bytes(seen: &Seen) -> bool {
    !seen.body.is_empty()
}

#[test]
fn a_blob_is_sent_in_the_form_that_a_registry_takes() {
    let (registry, name) = one();
    let client = Client::new();
    client.pull(&name).unwrap();
    let habits: [Habit; 12] = [
        // GHCR: parts up to 4 MiB; ECR: the first part alone. A whole blob is no part.
        (
            "parts are refused",
            |seen| match seen.header("content-range") {
                Some(_) => refused(416),
                None => How::Well,
            },
            1,
        ),
        ("no PATCH", |seen| if seen.is("PATCH", "") { refused(405) } else { How::Well }, 1),
        (
            "no bytes in PUT",
            |seen| match seen.is("PUT", "/uploads/") && has_bytes(seen) {
                true => refused(400),
                false => How::Well,
            },
            2,
        ),
        (
            "no bytes in PUT, said so otherwise",
            |seen| match seen.is("PUT", "/uploads/") && has_bytes(seen) {
                true => refused(501),
                false => How::Well,
            },
            2,
        ),
        (
            "no HEAD of blobs",
            |seen| match seen.is("HEAD", "/blobs/") {
                true => refused(405),
                false => How::Well,
            },
            1,
        ),
        (
            "HEAD of blobs is denied",
            |seen| match seen.is("HEAD", "/blobs/") {
                true => refused(403),
                false => How::Well,
            },
            1,
        ),
        (
            "mounting is denied",
            |seen| match seen.is("POST", "mount=") {
                true => refused(403),
                false => How::Well,
            },
            1,
        ),
        (
            "mounting is unknown",
            |seen| match seen.is("POST", "mount=") {
                true => refused(405),
                false => How::Well,
            },
            1,
        ),
        (
            "mounting breaks the registry",
            |seen| match seen.is("POST", "mount=") {
                true => refused(500),
                false => How::Well,
            },
            1,
        ),
        (
            "mounting is a lie",
            |seen| match seen.is("POST", "mount=") {
                true => Answer::new(201).header("location", "/x").how(),
                false => How::Well,
            },
            1,
        ),
        (
            "an upload is moved to another address",
            |seen| match seen.is("POST", "/uploads/") && !seen.path.contains("again") {
                true => Answer::new(307).header("location", format!("{}?again", seen.path)).how(),
                false => How::Well,
            },
            1,
        ),
        ("a manifest is put with 200", |_| How::Well, 1),
    ];
    for (habit, rule, most) in habits {
        let far = Registry::new();
        // Something to mount from, as far as the store knows.
        let there = format!("{}/far/x:1", far.host());
        far.rule(rule);
        push_at_once(&client, &name, &there, 1).map_err(|error| error.to_string()).unwrap();
        assert_eq!(far.stored_blob(&big()), registry.stored_blob(&big()), "{habit}");
        let size = registry.stored_blob(&big()).unwrap().len();
        let sent = far.seen().iter().filter(|seen| seen.body.len() == size).count();
        assert!((1..=most).contains(&sent), "{habit}: sent {sent} times");
        far.rule(|_| How::Well);
        Client::new().pull(&there).unwrap();
    }
}

#[test]
fn a_form_that_is_refused_is_not_tried_again() {
    let (_registry, name) = one();
    let client = Client::new();
    client.pull(&name).unwrap();
    let far = Registry::with(|seen| match seen.is("PUT", "/uploads/") && has_bytes(seen) {
        true => refused(400),
        false => How::Well,
    });
    push_at_once(&client, &name, &format!("{}/far/x:1", far.host()), 1).unwrap();
    let puts =
        far.seen().iter().filter(|seen| seen.is("PUT", "/uploads/") && has_bytes(seen)).count();
    assert_eq!(puts, 1);
    // Both forms refused: said, with each tried once.
    let far = Registry::with(|seen| match has_bytes(seen) {
        true => refused(400),
        false => How::Well,
    });
    let error = push_at_once(&client, &name, &format!("{}/far/x:1", far.host()), 1).err().unwrap();
    assert!(error.to_string().contains("400 UNSUPPORTED"), "{error}");
    assert_eq!(far.seen().iter().filter(|seen| has_bytes(seen)).count(), 2);
}

#[test]
fn an_upload_that_broke_off_goes_on_only_where_it_moved() {
    let (registry, name) = one();
    let client = Client::new();
    client.pull(&name).unwrap();
    let size = registry.stored_blob(&big()).unwrap().len();
    for (range, rest_is_taken, sizes) in [
        // Nothing came through: all of it is sent again.
        ("0-0", true, vec![size, size]),
        ("", true, vec![size, size]),
        // A part did; what follows it is sent.
        ("0-99999", true, vec![size, size - 100_000]),
        ("bytes=0-99999", true, vec![size, size - 100_000]),
        ("bytes 0-99999", true, vec![size, size - 100_000]),
        // An offset beyond the blob's end is no place to go on from.
        ("0-99999999999", true, vec![size, size]),
        // The rest is not taken: then all of it once more.
        ("0-99999", false, vec![size, size - 100_000, size]),
    ] {
        let far = Registry::new();
        let mut broken = false;
        far.rule(move |seen| {
            if seen.body.len() == size && !broken {
                broken = true;
                return How::Keep(100_000);
            }
            match (seen.is("GET", "/uploads/"), seen.header("content-range").is_some()) {
                (true, _) => {
                    let at = seen.path.clone();
                    let answer = Answer::new(204).header("location", at);
                    if range.is_empty() { answer } else { answer.header("range", range) }.how()
                }
                (_, true) if !rest_is_taken => refused(416),
                _ => How::Well,
            }
        });
        let there = format!("{}/far/x:1", far.host());
        push_at_once(&client, &name, &there, 1).unwrap();
        let sent: Vec<_> =
            far.seen().iter().map(|seen| seen.body.len()).filter(|len| *len > 50_000).collect();
        assert_eq!(sent, sizes, "{range}");
        assert_eq!(far.stored_blob(&big()), registry.stored_blob(&big()));
    }
}

#[test]
fn a_repository_that_no_token_is_given_for_is_not_needed() {
    let (registry, name) = one();
    let client = Client::new();
    client.pull(&name).unwrap();
    let host = registry.host().to_owned();
    registry.rule(move |seen| {
        if seen.path.starts_with("/token?") {
            return match seen.path.matches("repository:").count() {
                1 => Answer::new(200).body(r#"{"token":null,"access_token":"T"}"#).how(),
                _ => refused(403),
            };
        }
        match seen.header("authorization") {
            Some("Bearer T") => How::Well,
            _ => {
                let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
                Answer::new(401).header("www-authenticate", challenge).how()
            }
        }
    });
    let there = format!("{}/app/x:1", registry.host());
    // The registry has the blobs in a repository that it does not let us mount from.
    registry.forget();
    assert_eq!(push_at_once(&client, &name, &there, 1).unwrap().count("Pushed"), 3);
    // Asked for once, not once for each layer.
    let both = |seen: &Seen| seen.path.matches("repository:").count() == 2;
    assert!(registry.seen().iter().filter(|seen| both(seen)).count() <= 1);
}
