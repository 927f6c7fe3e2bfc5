//! Pulling from registries that behave, and that do not.
//!
//! The model: a loopback registry that a rule breaks in one way; afterwards the image is in the
//! store as it should be, or there is a clear error and nothing of it.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

mod client;

use std::time::Duration;

use client::{Client, Warnings, attempts, big, is_big, layers, offer, one};
use serde_json::{Value, json};
use strata_image::{
    CheckedStore, LoadOptions, SourceLimits, SourceSpec, check_trust_of_all, load, resolve_image,
};
use strata_registry::{
    Credentials, EndpointError, Proxies, Reference, Registries, RegistryOptions, Timeouts,
};
use strata_testkit::layout::{CONFIG, INDEX, Layout, MANIFEST, on, tar_of, with};
use strata_testkit::registry::{Answer, How, Proxy, Registry, Seen};
use strata_testkit::{digest, fixture, needs};
use strata_trust::{Gpgv, LookasideConfig, TrustPolicy};

#[test]
fn a_second_pull_moves_nothing() {
    let (registry, name) = one();
    let client = Client::new();
    let first = client.pull(&name).unwrap();
    assert!(first.newer && first.layers.iter().all(|layer| !layer.existed));
    assert_eq!(registry.count("GET", "/blobs/sha256"), 4);
    registry.forget();
    let second = client.pull(&name).unwrap();
    assert!(!second.newer && second.id == first.id);
    assert_eq!(registry.count("GET", "/blobs/sha256"), 0);
    // An image shares layers with it: only the missing ones are fetched.
    let layout = Layout::new("y");
    let (all, more) = (layers(), tar_of(&[("more", "m")]));
    let image = layout.image(&[&all[0], &all[1], &more], "linux/amd64");
    layout.index(&[image]);
    registry.layout(layout.root(), "team/y", "1");
    let other = client.pull(&format!("{}/team/y:1", registry.host())).unwrap();
    assert_eq!(other.layers.iter().map(|one| one.existed).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(registry.count("GET", &format!("/blobs/{}", digest(&more))), 1);
    assert_eq!(registry.count("GET", "/blobs/sha256"), 2);
}

#[test]
fn every_fixture_comes_as_it_is_loaded() {
    let (registry, client) = (Registry::new(), Client::new());
    let digest = registry.layout(&fixture("cases.oci"), "cases", "1");
    let pulled = client.pull(&format!("{}/cases:1", registry.host())).unwrap();
    assert_eq!(pulled.digest.to_string(), digest);
    let other = Client::new();
    let spec = SourceSpec::path(&fixture("cases.oci"));
    let loaded = load(
        CheckedStore::unchecked(&other.store),
        &spec,
        &LoadOptions::default(),
        &Warnings::default(),
    )
    .unwrap();
    assert_eq!(loaded[0].id, pulled.id);
    assert_eq!(client.store.images().all().unwrap(), other.store.images().all().unwrap());
}

#[test]
fn a_broken_transfer_goes_on_where_it_broke() {
    let (registry, name) = one();
    let mut cuts = vec![1, 70_000, 0, 100_000];
    registry.rule(move |seen| match is_big(seen).then(|| cuts.pop()).flatten() {
        Some(bytes) => How::Cut(bytes),
        None => How::Well,
    });
    let client = Client::new();
    client.pull(&name).unwrap();
    let ranges: Vec<_> = registry
        .seen()
        .iter()
        .filter(|seen| is_big(seen))
        .map(|seen| seen.header("range").unwrap_or("-").to_owned())
        .collect();
    let expected = ["-", "bytes=100000-", "bytes=100000-", "bytes=170000-", "bytes=170001-"];
    assert_eq!(ranges, expected);
}

#[test]
fn a_server_without_ranges_is_read_again_from_the_beginning() {
    let (registry, name) = one();
    let mut cut = false;
    registry.rule(move |seen| match is_big(seen) {
        true if !std::mem::replace(&mut cut, true) => How::Cut(100_000),
        true => How::Whole,
        false => How::Well,
    });
    Client::new().pull(&name).unwrap();
    assert_eq!(registry.seen().iter().filter(|seen| is_big(seen)).count(), 2);
}

#[test]
fn a_silent_server_is_left_and_asked_again() {
    let (registry, name) = one();
    let mut stalled = false;
    registry.rule(move |seen| {
        match is_big(seen) && !std::mem::replace(&mut stalled, is_big(seen)) {
            true => How::Stall(50_000),
            false => How::Well,
        }
    });
    let client = Client::new();
    let timeouts = Timeouts { stall: Duration::from_millis(300), ..Timeouts::default() };
    client.pull_with(&name, RegistryOptions { timeouts, ..client.options() }).unwrap();
    registry.rule(|seen| if is_big(seen) { How::Stall(0) } else { How::Well });
    let client = Client::new();
    let error = client.pull_with(&name, RegistryOptions { timeouts, ..client.options() });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("no answer in time") && error.contains("layer 2 of 3"), "{error}");
    client.assert_empty();
}

#[test]
fn a_server_that_drips_is_left() {
    let (registry, name) = one();
    let client = Client::new();
    let timeouts = Timeouts { stall: Duration::from_millis(200), ..Timeouts::default() };
    let pull = || client.pull_with(&name, RegistryOptions { timeouts, ..client.options() });
    // What came quickly is not asked for again.
    registry.rule(|seen| if is_big(seen) { How::Drip(100_000) } else { How::Well });
    pull().unwrap();
    let client = Client::new();
    let pull = || client.pull_with(&name, RegistryOptions { timeouts, ..client.options() });
    registry.rule(|seen| if is_big(seen) { How::Drip(0) } else { How::Well });
    let error = pull().unwrap_err().to_string();
    assert!(error.contains("layer 2 of 3") && error.contains("no answer in time"), "{error}");
    client.assert_empty();
    registry.rule(|seen| match seen.path.contains("/manifests/") {
        true => How::Drip(1),
        false => How::Well,
    });
    let error = pull().unwrap_err().to_string();
    assert!(error.contains("no answer in time"), "{error}");
    client.assert_empty();
    registry.rule(|_| How::Well);
    pull().unwrap();
}

#[test]
fn what_is_not_as_promised_is_not_kept() {
    let cases: [(&str, How, &str); 8] = [
        ("cut", How::Cut(0), "the connection broke off"),
        ("flip", How::Flip, "the manifest says"),
        ("promise", How::Promise(5), "it has 301573 bytes of a blob of 301568"),
        ("shorter", How::Shorter(5), "it has 301563 bytes of a blob of 301568"),
        ("nothing", How::Nothing, "unreachable"),
        ("500", Answer::new(500).how(), "failed: status 500"),
        ("429", Answer::new(429).how(), "too many requests: status 429"),
        ("404", Answer::new(404).how(), "not found: status 404"),
    ];
    for (what, how, text) in cases {
        let (registry, name) = one();
        let bad = how.clone();
        registry.rule(move |seen| if is_big(seen) { bad.clone() } else { How::Well });
        let client = Client::new();
        let error = client.pull(&name).unwrap_err().to_string();
        assert!(error.contains(text) && error.contains(&big()), "{what}: {error}");
        client.assert_empty();
        // Once it behaves again the same store takes the image.
        registry.rule(|_| How::Well);
        client.pull(&name).unwrap();
    }
}

#[test]
fn trouble_that_passes_is_waited_for() {
    for status in [429, 500, 502, 503] {
        for part in ["/manifests/1", "/manifests/sha256", "/blobs/"] {
            let registry = Registry::new();
            let manifest = offer(&registry, "team/x", "1");
            let mut left = 3;
            registry.rule(move |seen| match seen.path.contains(part) && left > 0 {
                true => {
                    left -= 1;
                    Answer::new(status).header("retry-after", "0").how()
                }
                false => How::Well,
            });
            let host = registry.host();
            for name in [format!("{host}/team/x:1"), format!("{host}/team/x@{manifest}")] {
                let client = Client::new();
                client.pull(&name).unwrap();
                resolve_image(&client.store, &name).unwrap();
            }
        }
    }
}

#[test]
fn documents_that_lie_are_refused() {
    let large = format!("{{\"x\":\"{}\"}}", "y".repeat(5 << 20));
    let cases: [(&str, How, &str); 6] = [
        ("/manifests/1", How::Flip, "wrong content"),
        ("/manifests/1", Answer::new(200).body(large).how(), "larger than 4194304 bytes"),
        ("/manifests/1", Answer::new(200).body("{}").how(), "it has neither manifests"),
        ("/manifests/1", Answer::new(200).body("<html>").how(), "neither an index nor a manifest"),
        (
            "/manifests/1",
            Answer::new(301).header("location", "file:///etc/passwd").how(),
            "redirects to an address that is not followed",
        ),
        ("CONFIG", How::Flip, "its digest is"),
    ];
    for (part, how, text) in cases {
        let (registry, name) = one();
        let layers = layers();
        let config = Layout::new("c").config(&[&layers[0], &layers[1], &layers[2]], "linux/amd64");
        let config = config["digest"].as_str().unwrap().to_owned();
        let part = if part == "CONFIG" { config } else { part.to_owned() };
        let bad = how.clone();
        registry.rule(move |seen| match seen.is("GET", &part) {
            true => bad.clone(),
            false => How::Well,
        });
        let client = Client::new();
        let error = client.pull(&name).unwrap_err().to_string();
        assert!(error.contains(text), "{text}: {error}");
        client.assert_empty();
    }
}

#[test]
fn the_refusals_are_told_apart() {
    let (registry, name) = one();
    let client = Client::new();
    let missing = name.replace(":1", ":2");
    let error = client.pull(&missing).unwrap_err();
    assert!(matches!(attempts(&error)[0].why, EndpointError::NotFound(_)), "{error}");
    assert!(error.to_string().contains("check name and tag"), "{error}");
    for status in [401, 403] {
        registry.rule(move |_| Answer::new(status).how());
        let error = client.pull(&name).unwrap_err();
        assert!(matches!(attempts(&error)[0].why, EndpointError::Denied(_)), "{error}");
        assert!(error.to_string().contains("strata login"), "{error}");
    }
    let gone = registry.host().to_owned();
    drop(registry);
    let error = client.pull(&format!("{gone}/team/x:1")).unwrap_err();
    assert!(matches!(attempts(&error)[0].why, EndpointError::Unreachable(_)), "{error}");
    client.assert_empty();
}

#[test]
fn redirects_are_followed_without_the_credentials() {
    let (registry, name) = one();
    let store = Registry::new();
    offer(&store, "elsewhere", "1");
    let host = store.host().to_owned();
    registry.rule(move |seen| {
        if seen.header("authorization") != Some("Basic dTpw") {
            return Answer::new(401).header("www-authenticate", "Basic realm=\"x\"").how();
        }
        match seen.path.split_once("/blobs/") {
            Some((_, blob)) => {
                let location = format!("http://{host}/v2/elsewhere/blobs/{blob}");
                Answer::new(307).header("location", location).how()
            }
            None => How::Well,
        }
    });
    let client = Client::new();
    let file = client.dir.path().join("auth.json");
    Credentials::keep(&file, registry.host(), "u", "p").unwrap();
    let credentials = Credentials::load(&[file]).unwrap();
    client.pull_with(&name, RegistryOptions { credentials, ..client.options() }).unwrap();
    assert_eq!(store.count("GET", "/blobs/"), 4);
    assert!(store.seen().iter().all(|seen| seen.header("authorization").is_none()));
}

#[test]
fn a_circle_of_redirects_ends() {
    let (registry, name) = one();
    registry.rule(|seen| match is_big(seen) {
        true => Answer::new(302).header("location", seen.path.clone()).how(),
        false => How::Well,
    });
    let client = Client::new();
    let error = client.pull(&name).unwrap_err().to_string();
    assert!(error.contains("redirects more than 10 times"), "{error}");
    client.assert_empty();
}

/// Asks for a token of `u` and `p`, and for that token.
fn token_rule(host: String) -> impl FnMut(&Seen) -> How + Send + 'static {
    move |seen| {
        if seen.path.starts_with("/token?") {
            return match seen.header("authorization") {
                Some("Basic dTpw") => Answer::new(200).body(r#"{"token":"T"}"#).how(),
                _ => Answer::new(401).how(),
            };
        }
        match seen.header("authorization") {
            Some("Bearer T") => How::Well,
            _ => {
                let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
                Answer::new(401).header("www-authenticate", challenge).how()
            }
        }
    }
}

#[test]
fn tokens_are_fetched_once() {
    let (registry, name) = one();
    registry.rule(token_rule(registry.host().to_owned()));
    let client = Client::new();
    let file = client.dir.path().join("auth.json");
    Credentials::keep(&file, registry.host(), "u", "p").unwrap();
    let with = |file: &std::path::Path| RegistryOptions {
        credentials: Credentials::load(&[file.to_owned()]).unwrap(),
        ..client.options()
    };
    client.pull_with(&name, with(&file)).unwrap();
    let tokens: Vec<_> =
        registry.seen().into_iter().filter(|seen| seen.path.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0].path, "/token?service=s&scope=repository:team/x:pull");

    Credentials::keep(&file, registry.host(), "u", "wrong").unwrap();
    let client = Client::new();
    let error = client.pull_with(&name, with(&file)).unwrap_err();
    assert!(matches!(attempts(&error)[0].why, EndpointError::Denied(_)), "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");
    client.assert_empty();
}

#[test]
fn proxies_are_gone_by() {
    let (registry, _) = one();
    let proxy = Proxy::to(registry.host());
    let address = Some(format!("http://{}", proxy.host()));
    let client = Client::new();
    let pull = |none_for: &str| {
        let options = client.settings("[[registry]]\nlocation='registry.invalid'\ninsecure=true");
        let (http, https) = (address.clone(), address.clone());
        let proxies = Proxies { http, https, none_for: none_for.to_owned() };
        client.pull_with("registry.invalid/team/x:1", RegistryOptions { proxies, ..options })
    };
    let error = pull("other, .invalid").unwrap_err();
    assert!(matches!(attempts(&error)[0].why, EndpointError::Unreachable(_)), "{error}");
    assert!(proxy.asked().is_empty());
    pull("other, *.example").unwrap();
    let asked = proxy.asked();
    assert!(asked.contains(&"registry.invalid:443".to_owned()), "{asked:?}");
    assert!(asked.contains(&"registry.invalid:80".to_owned()), "{asked:?}");
}

fn mirrored(mirror: &str, origin: &str) -> String {
    format!(
        "[[registry]]\nprefix='example.com'\nlocation='{origin}'\ninsecure=true\n\
         [[registry.mirror]]\nlocation='{mirror}'\ninsecure=true\n"
    )
}

#[test]
fn a_mirror_gives_the_bytes_and_the_origin_says_which() {
    let (mirror, origin) = (Registry::new(), Registry::new());
    offer(&mirror, "team/x", "1");
    offer(&origin, "team/x", "1");
    let client = Client::new();
    let options = client.settings(&mirrored(mirror.host(), origin.host()));
    client.pull_with("example.com/team/x:1", options).unwrap();
    assert_eq!(origin.count("GET", "/team/"), 0, "{:?}", origin.seen());
    assert_eq!(mirror.count("GET", "/blobs/"), 4);
}

#[test]
fn a_mirror_that_lags_behind_or_lies_is_passed_over() {
    for how in [How::Flip, Answer::new(404).how(), Answer::new(500).how(), How::Shorter(3)] {
        let (mirror, origin) = (Registry::new(), Registry::new());
        let layout = Layout::new("old");
        let old = tar_of(&[("old", "old")]);
        let image = layout.image(&[&old], "linux/amd64");
        layout.index(&[image]);
        mirror.layout(layout.root(), "team/x", "1");
        offer(&mirror, "team/x", "2");
        let digest = offer(&origin, "team/x", "1");
        let client = Client::new();
        let bad = how.clone();
        mirror.rule(move |seen| if is_big(seen) { bad.clone() } else { How::Well });
        let options = client.settings(&mirrored(mirror.host(), origin.host()));
        let pulled = client.pull_with("example.com/team/x:1", options).unwrap();
        assert_eq!(pulled.digest.to_string(), digest);
        assert_eq!(origin.count("GET", "/blobs/"), 1, "{how:?}: {:?}", origin.seen());
        assert!(mirror.count("GET", &big()) > 0);
    }
}

#[test]
fn a_dead_mirror_is_remembered_and_a_dead_origin_is_told_of() {
    let (mirror, origin) = (Registry::new(), Registry::new());
    offer(&mirror, "team/x", "1");
    offer(&origin, "team/x", "1");
    let conf = mirrored(mirror.host(), origin.host());
    let (mirror_host, origin_host) = (mirror.host().to_owned(), origin.host().to_owned());
    let client = Client::new();
    drop(origin);
    let warnings = Warnings::default();
    client.pull_warned("example.com/team/x:1", client.settings(&conf), &warnings).unwrap();
    let warned = warnings.0.into_inner().unwrap();
    assert!(warned.len() == 1 && warned[0].contains("the registry itself did not answer"));
    drop(mirror);
    let other = Client::new();
    let error = other.pull_with("example.com/team/x:1", other.settings(&conf)).unwrap_err();
    let asked: Vec<_> = attempts(&error).iter().map(|one| one.endpoint.as_str()).collect();
    let expected = [format!("{mirror_host}/team/x"), format!("{origin_host}/team/x")];
    assert_eq!(asked, expected);
    assert!(attempts(&error).iter().all(|one| matches!(one.why, EndpointError::Unreachable(_))));
    let registries = Registries::new(other.options());
    assert!(registries.down_until(&mirror_host).is_some());
    other.assert_empty();
}

/// A registry's image of one name with cosign's signature, and whoever wants that.
struct Signed {
    dir: tempfile::TempDir,
    registry: Registry,
    layout: Layout,
}

impl Signed {
    fn openssl(&self, line: &str) -> Vec<u8> {
        let mut openssl = std::process::Command::new("openssl");
        let output = openssl.args(line.split(' ')).current_dir(self.dir.path()).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn sign(&self, image: &Value) {
        let digest = image["digest"].as_str().unwrap();
        let critical = json!({
            "type": "cosign container image signature",
            "image": {"docker-manifest-digest": digest},
            "identity": {"docker-reference": format!("{}/team/x:1", self.registry.host())},
        });
        let content = json!({"critical": critical, "optional": null});
        let content = content.to_string();
        std::fs::write(self.dir.path().join("content"), &content).unwrap();
        let signature = self.openssl("dgst -sha256 -sign key content");
        std::fs::write(self.dir.path().join("signature"), signature).unwrap();
        let signature = String::from_utf8(self.openssl("base64 -A -in signature")).unwrap();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "size": 2,
                       "digest": self.registry.blob("team/x", b"{}")},
            "layers": [{
                "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
                "digest": self.registry.blob("team/x", content.as_bytes()), "size": content.len(),
                "annotations": {"dev.cosignproject.cosign/signature": signature},
            }],
        });
        let tag = format!("{}.sig", digest.replace(':', "-"));
        self.registry.manifest("team/x", &tag, MANIFEST, manifest.to_string().as_bytes());
    }

    /// What the policy says of an index of these.
    fn judged(&self, entries: &[Value]) -> Result<usize, String> {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
        self.layout.index(&[self.layout.blob(INDEX, index.to_string())]);
        self.registry.layout(self.layout.root(), "team/x", "1");
        let name: Reference = format!("{}/team/x:1", self.registry.host()).parse().unwrap();
        let lookaside = LookasideConfig::load(self.dir.path(), None).unwrap();
        let policy = self.dir.path().join("policy.json");
        let gpgv = Gpgv { program: None, scratch: self.dir.path().to_owned() };
        let trust = TrustPolicy::load(&policy, lookaside, gpgv).unwrap();
        let registries = Registries::new(client::quick());
        let limits = SourceLimits::default();
        check_trust_of_all(&trust, &registries, &name, &name, &limits, &Warnings::default())
            .map(|verdicts| verdicts.len())
            .map_err(|error| error.to_string())
    }
}

/// Who chooses by the platform alone, or by another one, would run what nobody signed.
#[test]
fn every_image_of_an_index_is_judged_for_who_chooses_for_himself() {
    if !needs::program("openssl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let all = Signed { dir, registry: Registry::new(), layout: Layout::new("x") };
    all.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key");
    all.openssl("pkey -in key -pubout -out pub");
    let write = |name: &str, text: &str| std::fs::write(all.dir.path().join(name), text).unwrap();
    let requirement = json!({"type": "sigstoreSigned", "keyPath": all.dir.path().join("pub")});
    write("policy.json", &json!({"default": [requirement]}).to_string());
    write("all.yaml", "default-docker: {use-sigstore-attachments: true}\n");
    let image = |n: &str| all.layout.image(&[&tar_of(&[("a", n)])], "linux/amd64");
    let (good, also, evil) = (image("1"), image("2"), image("3"));
    all.sign(&good);
    all.sign(&also);
    let signed = on(&good, "linux/amd64");
    let attestation = on(&evil, "unknown/unknown");
    assert_eq!(all.judged(&[signed.clone(), on(&also, "linux/arm64"), attestation]), Ok(2));
    for unseen in [
        with(&on(&evil, "linux/amd64"), "annotations", json!({"vnd.docker.reference.type": "x"})),
        with(&on(&evil, "linux/amd64"), "artifactType", json!("x/y")),
        on(&evil, "linux/arm64"),
    ] {
        let error = all.judged(&[unseen, signed.clone()]).unwrap_err();
        let digest = evil["digest"].as_str().unwrap();
        assert!(error.contains(digest) && error.contains("there is none"), "{error}");
    }
}
