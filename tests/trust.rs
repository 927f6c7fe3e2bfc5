//! Policies, asked by the commands that bring images in: what they print, and that nothing of a
//! refused image stays.
//!
//! The model: a registry on loopback has one image under several names; cosign's attachment and a
//! referrer are put beside it with a key of openssl. `scripts/trust` compares many more policies
//! with skopeo.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use strata_testkit::registry::{Answer, How, Registry, Seen};
use strata_testkit::sandbox::{Sandbox, program};
use strata_testkit::{fixture, needs};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// A registry with `team/app:1`, and a sandbox whose policy wants the key `key`.
struct World {
    sandbox: Sandbox,
    registry: Registry,
    digest: String,
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

impl World {
    fn new() -> Self {
        let registry = Registry::new();
        let digest = registry.layout(&fixture("cases.oci"), "team/app", "1");
        let world = Self { sandbox: Sandbox::new(), registry, digest };
        for name in ["key", "stranger"] {
            world.openssl(&format!(
                "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}.key"
            ));
            world.openssl(&format!("pkey -in {name}.key -pubout -out {name}.pub"));
        }
        let policy = json!({
            "default": [{ "type": "reject" }],
            "transports": {
                "docker": { world.registry.host(): [
                    { "type": "sigstoreSigned", "keyPath": world.path("key.pub") }
                ] },
                "oci": { "": [{
                    "type": "sigstoreSigned", "keyPath": world.path("key.pub"),
                    "signedIdentity": {
                        "type": "exactRepository",
                        "dockerRepository": format!("{}/team/app", world.registry.host()),
                    },
                }] },
            },
        });
        fs::write(world.sandbox.path().join("policy.json"), policy.to_string()).unwrap();
        let settings = world.sandbox.dir("registries.d").join("all.yaml");
        fs::write(settings, "default-docker: {use-sigstore-attachments: true}\n").unwrap();
        world
    }

    fn path(&self, name: &str) -> String {
        self.sandbox.path().join(name).to_str().unwrap().to_owned()
    }

    fn openssl(&self, line: &str) -> Vec<u8> {
        let words = line.split(' ');
        let output =
            Command::new("openssl").args(words).current_dir(self.sandbox.path()).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// The manifest of cosign's attachment for an image.
    fn attach(&self, key: &str, name: &str) -> Vec<u8> {
        let content = json!({
            "critical": {
                "type": "cosign container image signature",
                "image": { "docker-manifest-digest": self.digest },
                "identity": { "docker-reference": format!("{}/{name}", self.registry.host()) },
            },
            "optional": null,
        });
        let content = content.to_string();
        fs::write(self.sandbox.path().join("content"), &content).unwrap();
        let signature = self.openssl(&format!("dgst -sha256 -sign {key}.key content"));
        let layer = self.registry.blob("team/app", content.as_bytes());
        let config = self.registry.blob("team/app", b"{}");
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config,
                "size": 2,
            },
            "layers": [{
                "mediaType": SIMPLE,
                "digest": layer,
                "size": content.len(),
                "annotations": { "dev.cosignproject.cosign/signature": base64(&signature) },
            }],
        });
        manifest.to_string().into_bytes()
    }

    fn tag(&self) -> String {
        self.digest.replace(':', "-")
    }

    /// Puts an attachment where cosign does.
    fn sign(&self, key: &str, name: &str) {
        let manifest = self.attach(key, name);
        self.registry.manifest("team/app", &format!("{}.sig", self.tag()), MANIFEST, &manifest);
    }

    /// Something that refers to the image, listed under the fallback tag.
    fn refer(&self) -> String {
        let layer = self.registry.blob("team/app", b"a bill of materials");
        let config = self.registry.blob("team/app", b"{}");
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": "application/vnd.example.sbom",
            "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": config,
                        "size": 2 },
            "layers": [{ "mediaType": "text/plain", "digest": layer, "size": 19 }],
            "subject": { "mediaType": MANIFEST, "digest": self.digest, "size": 1 },
        });
        let bytes = manifest.to_string().into_bytes();
        let digest = format!("sha256:{}", hex(&Sha256::digest(&bytes)));
        self.registry.manifest("team/app", &digest, MANIFEST, &bytes);
        let index = json!({
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [{ "mediaType": MANIFEST, "digest": digest, "size": bytes.len() }],
        });
        let tag = self.tag();
        self.registry.manifest("team/app", &tag, INDEX, index.to_string().as_bytes());
        digest
    }

    /// A bundle of sigstore about the image, beside it; gives the index that lists it.
    fn bundle(&self, key: &str) -> Vec<u8> {
        let kind = "application/vnd.in-toto+json";
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{ "digest": { "sha256": self.digest[7..] } }],
            "predicateType": "https://sigstore.dev/cosign/sign/v1",
            "predicate": {},
        });
        let payload = statement.to_string();
        let message = format!("DSSEv1 {} {kind} {} {payload}", kind.len(), payload.len());
        fs::write(self.sandbox.path().join("content"), message).unwrap();
        let signature = self.openssl(&format!("dgst -sha256 -sign {key}.key content"));
        let bundle = json!({
            "mediaType": BUNDLE,
            "verificationMaterial": { "publicKey": { "hint": "" }, "tlogEntries": [] },
            "dsseEnvelope": {
                "payload": base64(payload.as_bytes()),
                "payloadType": kind,
                "signatures": [{ "sig": base64(&signature) }],
            },
        });
        let bundle = bundle.to_string();
        let layer = self.registry.blob("team/app", bundle.as_bytes());
        let config = self.registry.blob("team/app", b"{}");
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": BUNDLE,
            "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": config,
                        "size": 2 },
            "layers": [{ "mediaType": BUNDLE, "digest": layer, "size": bundle.len() }],
            "subject": { "mediaType": MANIFEST, "digest": self.digest, "size": 1 },
        });
        let bytes = manifest.to_string().into_bytes();
        let digest = format!("sha256:{}", hex(&Sha256::digest(&bytes)));
        self.registry.manifest("team/app", &digest, MANIFEST, &bytes);
        let index = json!({
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [{ "mediaType": MANIFEST, "digest": digest, "size": bytes.len(),
                            "artifactType": BUNDLE }],
        });
        index.to_string().into_bytes()
    }

    fn with_policy<'a>(&self, args: &[&'a str]) -> Vec<&'a str> {
        let mut all = args.to_vec();
        all.extend(["--policy", "policy.json", "--registries.d", "registries.d"]);
        all
    }

    fn name(&self) -> String {
        format!("{}/team/app:1", self.registry.host())
    }

    /// What must be refused, and leave an empty store.
    fn refused(&self, args: &[&str], why: &str) {
        let error = self.sandbox.fails(&self.with_policy(args));
        assert!(error.contains(why), "{args:?}: {why:?} is not in: {error}");
        assert!(error.contains("nothing was kept"), "{error}");
        let store = self.sandbox.path().join("store");
        for dir in ["layers", "blobs/sha256", "staging"] {
            let left = fs::read_dir(store.join(dir)).map_or(0, Iterator::count);
            assert_eq!(left, 0, "{args:?} left something in {dir}");
        }
        assert_eq!(self.sandbox.ok(&["images", "-q"]), "");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn nothing_of_a_refused_image_stays() {
    if !needs::program("openssl") {
        return;
    }
    let world = World::new();
    let name = world.name();
    let pull = ["pull", "-q", &name];
    world.refused(&pull, "there is none");
    world.sign("stranger", "team/app:1");
    world.refused(&pull, "none of the keys");
    world.sign("key", "team/other:1");
    world.refused(&pull, "does not accept");
    let (point, from) = (world.path("point"), format!("docker://{name}"));
    fs::create_dir(&point).unwrap();
    world.refused(&["mount", &name, &point], "does not accept");
    world.refused(&["copy", &from, "strata:kept:1"], "does not accept");
    world.refused(&["copy", &from, "oci:copied:1"], "does not accept");
    assert!(!Path::new(&world.path("copied")).exists());
    world.refused(&["copy", &from, &format!("{from}-copy")], "does not accept");
    assert_eq!(world.registry.stored_manifest("team/app", "1-copy"), None);
    let docker = fixture("cases-docker24.docker.tar");
    world.refused(&["load", "-i", docker.to_str().unwrap()], "rejects all images");
    world.refused(&["load", "-i", fixture("cases.oci").to_str().unwrap()], "there is none");
    // Signed, by tag and by digest; the verdict is kept with the name.
    world.sign("key", "team/app:1");
    world.sandbox.ok(&world.with_policy(&pull));
    let found = world.sandbox.json(&["inspect", &name]);
    let verdict = &found[0]["Trust"][&name];
    assert_eq!(verdict["accepted"][0]["type"], "sigstoreSigned");
    assert_eq!(verdict["accepted"][0]["identity"], Value::from(name.as_str()));
    assert_eq!(verdict["manifest"], Value::from(world.digest.as_str()));
    // It survives a rebuild, and is gone once the image came in unasked, or under another name.
    world.sandbox.ok(&["tag", &name, "mine:1"]);
    fs::remove_file(world.path("store/index.db")).unwrap();
    world.sandbox.ok(&["fsck", "--repair"]);
    let again = world.sandbox.json(&["inspect", "mine:1"]);
    let kept = again[0]["Trust"].as_object().unwrap();
    assert_eq!(kept[&name], *verdict);
    assert!(kept.keys().all(|name| !name.contains("mine")), "{kept:?}");
    world.sandbox.ok(&["pull", "-q", "--insecure-policy", &name]);
    assert_eq!(world.sandbox.json(&["inspect", &name])[0].get("Trust"), None);
}

#[test]
fn a_policy_is_shown_and_asked() {
    if !needs::program("openssl") {
        return;
    }
    let world = World::new();
    let name = world.name();
    let shown = world.sandbox.ok(&world.with_policy(&["trust", "show", &name]));
    let line = format!("docker {}   sigstoreSigned   ", world.registry.host());
    assert!(shown.contains("Policy: policy.json\n") && shown.contains("Attachments: yes\n"));
    assert!(shown.contains(&line) && !shown.contains("reject"), "{shown}");
    let all = world.sandbox.json(&world.with_policy(&["trust", "show"]));
    assert_eq!(all["sections"].as_array().unwrap().len(), 3);
    assert_eq!(all["sections"][0]["requirements"][0]["type"], "reject");
    let check = ["trust", "check", &name];
    assert!(world.sandbox.fails(&world.with_policy(&check)).contains("there is none"));
    world.sign("key", "team/app:1");
    let said = world.sandbox.ok(&world.with_policy(&check));
    assert!(said.starts_with("Accepted by policy.json (docker ") && said.contains(&name), "{said}");
    let answer = world.sandbox.json(&world.with_policy(&check));
    assert_eq!((&answer["accepted"], &answer["why"]), (&json!(true), &Value::Null));
    // No store was made by asking.
    assert!(!Path::new(&world.path("store")).exists());
    fs::write(world.path("policy.json"), r#"{"default": [], "default": []}"#).unwrap();
    let error = world.sandbox.fails(&world.with_policy(&check));
    assert!(error.contains("not a policy") && error.contains("comes twice"), "{error}");
}

#[test]
fn signatures_and_referrers_go_along() {
    if !needs::program("openssl") {
        return;
    }
    let world = World::new();
    world.sign("key", "team/app:1");
    let referrer = world.refer();
    let from = format!("docker://{}", world.name());
    let sandbox = &world.sandbox;
    sandbox.ok(&world.with_policy(&["copy", "--signatures", "all", &from, "oci:layout:1"]));
    let index: Value =
        serde_json::from_slice(&fs::read(world.path("layout/index.json")).unwrap()).unwrap();
    let listed = index["manifests"].as_array().unwrap();
    assert_eq!(listed.len(), 3, "{index}");
    assert!(listed.iter().any(|one| one["digest"] == referrer.as_str()));
    // The layout's image is judged by what stands beside it there.
    let check = sandbox.ok(&world.with_policy(&["trust", "check", "oci:layout:1"]));
    assert!(check.contains("sigstoreSigned"), "{check}");
    sandbox.ok(&world.with_policy(&["load", "-q", "-i", "oci:layout:1"]));
    // And on, to a registry that does not know what refers to what.
    let to = format!("docker://{}/new/app:1", world.registry.host());
    sandbox.ok(&world.with_policy(&["copy", "--signatures", "all", "oci:layout:1", &to]));
    let there = |name: &str| world.registry.stored_manifest("new/app", name);
    let signature = there(&format!("{}.sig", world.tag())).unwrap();
    assert_eq!(
        Some(signature),
        world.registry.stored_manifest("team/app", &format!("{}.sig", world.tag()))
    );
    assert!(there(&referrer).is_some());
    let list: Value = serde_json::from_slice(&there(&world.tag()).unwrap()).unwrap();
    assert_eq!(list["manifests"][0]["digest"], referrer.as_str());
    assert_eq!(list["manifests"][0]["artifactType"], "application/vnd.example.sbom");
    // Nothing goes along unasked, and not where it would be of no use.
    sandbox.ok(&world.with_policy(&["copy", &from, "oci:bare:1"]));
    let bare: Value =
        serde_json::from_slice(&fs::read(world.path("bare/index.json")).unwrap()).unwrap();
    assert_eq!(bare["manifests"].as_array().unwrap().len(), 1);
    for place in ["docker-archive:x.tar", "strata:x:1"] {
        let copy = ["copy", "--signatures", "all", &from, place];
        let error = sandbox.fails(&world.with_policy(&copy));
        assert!(error.contains("--signatures none"), "{error}");
    }
}

#[test]
fn a_bundle_is_a_referrer() {
    if !needs::program("openssl") {
        return;
    }
    let world = World::new();
    let tagged = world.name();
    let by_digest = format!("{}/team/app@{}", world.registry.host(), world.digest);
    world.refused(&["pull", "-q", &by_digest], "there is none");
    // Listed under a tag, as old registries need it.
    let index = world.bundle("stranger");
    let list = |index: &[u8]| world.registry.manifest("team/app", &world.tag(), INDEX, index);
    list(&index);
    world.refused(&["pull", "-q", &by_digest], "not by that key");
    let index = world.bundle("key");
    list(&index);
    world.refused(&["pull", "-q", &tagged], "ask for the image by digest");
    world.sandbox.ok(&world.with_policy(&["trust", "check", &by_digest]));
    // Listed by the registry itself, which then counts alone.
    let empty = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] }).to_string();
    let answer = |index: Vec<u8>| {
        move |seen: &Seen| match seen.path.contains("/referrers/") {
            true => Answer::new(200).header("content-type", INDEX).body(index.clone()).how(),
            false => How::Well,
        }
    };
    world.registry.rule(answer(empty.into_bytes()));
    world.refused(&["pull", "-q", &by_digest], "there is none");
    world.registry.rule(answer(index));
    world.sandbox.ok(&world.with_policy(&["pull", "-q", &by_digest]));
}

#[test]
fn containerd_is_answered() {
    if !needs::program("openssl") {
        return;
    }
    let world = World::new();
    world.sign("key", "team/app:1");
    let home = world.sandbox.dir("home");
    let config = home.join(".config/containers");
    fs::create_dir_all(&config).unwrap();
    fs::copy(world.path("policy.json"), config.join("policy.json")).unwrap();
    fs::rename(world.path("registries.d"), config.join("registries.d")).unwrap();
    let verifier = world.sandbox.path().join("strata-image-verifier");
    let program = world.sandbox.command(&[]).get_program().to_owned();
    std::os::unix::fs::symlink(program, &verifier).unwrap();
    let ask = |name: &str, digest: &str| {
        let output = Command::new(&verifier)
            .args(["-name", name, "-digest", digest, "-stdin-media-type"])
            .arg("application/vnd.oci.descriptor.v1+json")
            .env("HOME", &home)
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (accepted, why) = ask(&world.name(), &world.digest);
    assert!(accepted && why.starts_with("Accepted by "), "{why}");
    let (accepted, why) = ask(&format!("{}/team/app:2", world.registry.host()), &world.digest);
    assert!(!accepted && why.contains("does not accept"), "{why}");
    for (name, digest) in [("no name!", world.digest.as_str()), ("x", "sha256:1")] {
        let (accepted, why) = ask(name, digest);
        assert!(!accepted && !why.is_empty());
    }
    fs::write(config.join("policy.json"), "{}").unwrap();
    let (accepted, why) = ask(&world.name(), &world.digest);
    assert!(!accepted && why.contains("not a policy"), "{why}");
}

#[test]
fn the_users_policy_counts_without_home() {
    if !needs::root() {
        return;
    }
    let sandbox = Sandbox::new();
    let config = sandbox.dir("home").join(".config/containers");
    fs::create_dir_all(&config).unwrap();
    let policy = config.join("policy.json");
    fs::write(&policy, r#"{"default": [{"type": "reject"}]}"#).unwrap();
    let home = sandbox.path().join("home");
    let passwd = format!("root:x:0:0:root:{}:/bin/sh\n", home.display());
    fs::write(sandbox.path().join("passwd"), passwd).unwrap();
    // As systemd starts the units of the system: without the variable.
    for home in [None, Some(""), Some("home")] {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        command.args(["mount --bind passwd /etc/passwd && exec \"$@\"", "sh"]);
        command.arg(program("strata")).args(["--root", "store", "trust", "show"]);
        command.current_dir(sandbox.path()).env_remove("HOME");
        home.map(|home| command.env("HOME", home));
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.starts_with(&format!("Policy: {}\n", policy.display())), "{home:?}: {said}");
    }
}
