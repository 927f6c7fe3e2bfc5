//! Keys, certificates and log entries, made with openssl and judged through the public interface.
//!
//! The model: a [`World`] has a key, a certificate authority, and a log, all made for one test. A
//! test makes a signature, perhaps spoils a part of it, and asks what the policy says.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use strata_tree::BlobDigest;
use strata_trust::{
    Attachment, BoxError, FindSignatures, Gpgv, ImagePlace, LookasideConfig, Signature,
    TrustPolicy, TrustVerdict,
};

const NAME: &str = "h.example/team/app:1";
const ISSUER: &str = "https://issuer.example";
const EMAIL: &str = "signer@example.com";

fn openssl(dir: &Path, words: &[&str], input: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut child = Command::new("openssl")
        .args(words)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed()
}

struct World {
    dir: tempfile::TempDir,
    manifest: BlobDigest,
}

/// Signatures that are there.
struct There(Vec<Signature>);

impl FindSignatures for There {
    fn signatures(&self) -> Result<Vec<Signature>, BoxError> {
        Ok(self.0.clone())
    }
}

impl World {
    fn new() -> Option<Self> {
        let there = Command::new("openssl").arg("version").output().is_ok();
        if !there {
            let all = std::env::var_os("STRATA_TEST_ALL").is_some_and(|value| value == "1");
            assert!(!all, "the test needs openssl");
            return None;
        }
        let world = Self {
            dir: tempfile::tempdir().unwrap(),
            manifest: BlobDigest::from_bytes([0x5a; 32]),
        };
        for name in ["key", "log", "leaf", "other"] {
            world.make_key(name);
        }
        Some(world)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, line: &str) -> Vec<u8> {
        openssl(self.dir.path(), &line.split(' ').collect::<Vec<_>>(), b"")
    }

    fn make_key(&self, name: &str) {
        self.run(&format!(
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}.key"
        ));
        self.run(&format!("pkey -in {name}.key -pubout -out {name}.pub"));
    }

    fn sign(&self, key: &str, content: &[u8]) -> Vec<u8> {
        let key = format!("{key}.key");
        openssl(self.dir.path(), &["dgst", "-sha256", "-sign", &key], content)
    }

    /// A root, an authority below it, and a certificate for `leaf`.
    fn certify(&self, issuer: &str, email: &str) {
        let extensions = format!(
            "[ca]\nbasicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign\n\
             extendedKeyUsage=codeSigning\n[leaf]\nkeyUsage=critical,digitalSignature\n\
             extendedKeyUsage=codeSigning\nsubjectAltName=critical,email:{email}\n\
             1.3.6.1.4.1.57264.1.1=DER:{0}\n",
            hex(issuer.as_bytes())
        );
        fs::write(self.path("ext"), extensions).unwrap();
        for (name, by) in [("root", ""), ("middle", "root"), ("leaf", "middle")] {
            if name != "leaf" {
                self.make_key(name);
            }
            let subject = format!("/CN={name}");
            let request = format!("{name}.csr");
            let key = format!("{name}.key");
            openssl(
                self.dir.path(),
                &["req", "-new", "-key", &key, "-subj", &subject, "-out", &request],
                b"",
            );
            let section = if name == "leaf" { "leaf" } else { "ca" };
            let signer = match by {
                "" => format!("-signkey {name}.key"),
                by => format!("-CA {by}.pem -CAkey {by}.key -CAcreateserial"),
            };
            self.run(&format!(
                "x509 -req -in {request} {signer} -days 1 -extfile ext -extensions {section} \
                 -out {name}.pem"
            ));
        }
        let chain = fs::read_to_string(self.path("middle.pem")).unwrap()
            + &fs::read_to_string(self.path("root.pem")).unwrap();
        fs::write(self.path("chain.pem"), chain).unwrap();
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn payload(&self) -> Vec<u8> {
        let document = json!({
            "critical": {
                "type": "cosign container image signature",
                "image": { "docker-manifest-digest": self.manifest.to_string() },
                "identity": { "docker-reference": NAME },
            },
            "optional": null,
        });
        document.to_string().into_bytes()
    }

    /// The log's entry of a signature, at a time, with its promise.
    fn entry(&self, signed: &[u8], signature: &[u8], signer: &str, at: i64) -> (Value, Vec<u8>) {
        let body = json!({
            "apiVersion": "0.0.1",
            "kind": "hashedrekord",
            "spec": {
                "data": {
                    "hash": { "algorithm": "sha256", "value": hex(&Sha256::digest(signed)) },
                },
                "signature": {
                    "content": STANDARD.encode(signature),
                    "publicKey": { "content": STANDARD.encode(signer) },
                },
            },
        });
        self.promised(&body, at)
    }

    fn promised(&self, body: &Value, at: i64) -> (Value, Vec<u8>) {
        let body = STANDARD.encode(body.to_string());
        let canonical =
            format!(r#"{{"body":"{body}","integratedTime":{at},"logID":"c0ffee","logIndex":7}}"#);
        let promise = self.sign("log", canonical.as_bytes());
        let payload =
            json!({ "body": body, "integratedTime": at, "logIndex": 7, "logID": "c0ffee" });
        (payload, promise)
    }

    /// An attachment, signed with a key; with the log's entry at a time if there is one.
    fn attachment(&self, key: &str, signer: &str, at: Option<i64>) -> Attachment {
        let payload = self.payload();
        let signature = self.sign(key, &payload);
        let mut annotations = BTreeMap::new();
        annotations
            .insert("dev.cosignproject.cosign/signature".to_owned(), STANDARD.encode(&signature));
        if let Some(at) = at {
            let (entry, promise) = self.entry(&payload, &signature, signer, at);
            let bundle =
                json!({ "SignedEntryTimestamp": STANDARD.encode(promise), "Payload": entry });
            annotations.insert("dev.sigstore.cosign/bundle".to_owned(), bundle.to_string());
        }
        let media_type = "application/vnd.dev.cosign.simplesigning.v1+json".to_owned();
        Attachment { media_type, payload, annotations }
    }

    /// One by Fulcio's certificate.
    fn certified(&self, at: i64) -> Attachment {
        let certificate = self.text("leaf.pem");
        let mut one = self.attachment("leaf", &certificate, Some(at));
        one.annotations.insert("dev.sigstore.cosign/certificate".to_owned(), certificate);
        one.annotations.insert("dev.sigstore.cosign/chain".to_owned(), self.text("chain.pem"));
        one
    }

    /// A bundle by a key about subjects.
    fn bundle(&self, predicate: &str, subject: &Value, logged: Option<i64>) -> Value {
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [subject],
            "predicateType": predicate,
            "predicate": {},
        });
        let payload = statement.to_string();
        let kind = "application/vnd.in-toto+json";
        let message = format!("DSSEv1 {} {kind} {} {payload}", kind.len(), payload.len());
        let signature = self.sign("key", message.as_bytes());
        let entries = logged.map(|at| {
            let body = json!({
                "apiVersion": "0.0.1",
                "kind": "dsse",
                "spec": {
                    "payloadHash": {
                        "algorithm": "sha256",
                        "value": hex(&Sha256::digest(payload.as_bytes())),
                    },
                    "signatures": [{
                        "signature": STANDARD.encode(&signature),
                        "verifier": STANDARD.encode(self.text("key.pub")),
                    }],
                },
            });
            let (entry, promise) = self.promised(&body, at);
            json!({
                "logIndex": "7",
                "logId": { "keyId": STANDARD.encode([0xc0, 0xff, 0xee]) },
                "integratedTime": at.to_string(),
                "inclusionPromise": { "signedEntryTimestamp": STANDARD.encode(promise) },
                "canonicalizedBody": entry["body"],
            })
        });
        json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "publicKey": { "hint": "x" },
                "tlogEntries": entries.into_iter().collect::<Vec<_>>(),
            },
            "dsseEnvelope": {
                "payload": STANDARD.encode(payload),
                "payloadType": kind,
                "signatures": [{ "sig": STANDARD.encode(signature) }],
            },
        })
    }

    fn ask(&self, requirement: &Value, name: &str, one: Signature) -> Result<TrustVerdict, String> {
        let policy = self.path("policy.json");
        fs::write(&policy, json!({ "default": [requirement] }).to_string()).unwrap();
        let trust = TrustPolicy::load(&policy, LookasideConfig::default(), Gpgv::default());
        let trust = trust.map_err(|error| error.to_string())?;
        let place = ImagePlace::registry(&name.parse().unwrap());
        let verdict = trust.judge(&place, Some(&self.manifest), &There(vec![one]));
        verdict.map(Option::unwrap).map_err(|error| error.to_string())
    }

    fn keyed(&self, log: bool) -> Value {
        let mut one = json!({ "type": "sigstoreSigned", "keyPath": self.path("key.pub") });
        if log {
            one["rekorPublicKeyPath"] = json!(self.path("log.pub"));
        }
        one
    }

    fn by_fulcio(&self, issuer: &str, email: &str) -> Value {
        json!({
            "type": "sigstoreSigned",
            "fulcio": { "caPath": self.path("root.pem"), "oidcIssuer": issuer,
                        "subjectEmail": email },
            "rekorPublicKeyData": STANDARD.encode(self.text("log.pub")),
        })
    }
}

#[track_caller]
fn refused(answer: Result<TrustVerdict, String>, why: &str) {
    let error = answer.unwrap_err();
    assert!(error.contains(why), "{why:?} is not in: {error}");
}

#[test]
fn the_log_must_know_exactly_this_signature() {
    let Some(world) = World::new() else { return };
    let public = world.text("key.pub");
    let good = world.attachment("key", &public, Some(now()));
    let ask =
        |one: &Attachment| world.ask(&world.keyed(true), NAME, Signature::Attachment(one.clone()));
    let verdict = ask(&good).unwrap();
    assert!(verdict.is_signed() && verdict.accepted[0].identity.as_deref() == Some(NAME));
    refused(ask(&world.attachment("key", &public, None)), "no annotation dev.sigstore");
    refused(ask(&world.attachment("other", &public, Some(now()))), "none of the keys");
    let other = world.attachment("key", &world.text("other.pub"), Some(now()));
    refused(ask(&other), "another key");
    // The entry of another signature over the same bytes: ECDSA makes a new one each time.
    let mut mixed = good.clone();
    let key = "dev.cosignproject.cosign/signature";
    let fresh = world.attachment("key", &public, None).annotations[key].clone();
    mixed.annotations.insert(key.to_owned(), fresh);
    refused(ask(&mixed), "another signature");
    let bundle = "dev.sigstore.cosign/bundle";
    for (from, to, why) in [
        ("\"logIndex\":7", "\"logIndex\":8", "not signed by the log"),
        ("\"logID\"", "\"more\":1,\"logID\"", "unknown key"),
        ("\"logID\":\"c0ffee\"", "\"logID\":\"c0ff\\\"\"", "not hexadecimal"),
    ] {
        let mut spoilt = good.clone();
        let text = spoilt.annotations[bundle].replace(from, to);
        assert_ne!(text, spoilt.annotations[bundle], "{from}");
        spoilt.annotations.insert(bundle.to_owned(), text);
        refused(ask(&spoilt), why);
    }
    // Without a log in the policy nobody asks for an entry.
    let plain = world.attachment("key", &public, None);
    world.ask(&world.keyed(false), NAME, Signature::Attachment(plain)).unwrap();
}

#[test]
fn a_certificate_counts_for_its_time_issuer_and_address() {
    let Some(world) = World::new() else { return };
    world.certify(ISSUER, EMAIL);
    let good = world.certified(now());
    let ask = |policy: &Value, one: &Attachment| {
        world.ask(policy, NAME, Signature::Attachment(one.clone()))
    };
    let policy = world.by_fulcio(ISSUER, EMAIL);
    let verdict = ask(&policy, &good).unwrap();
    assert_eq!(verdict.accepted[0].signer.as_deref(), Some(EMAIL));
    refused(ask(&world.by_fulcio("https://other.example", EMAIL), &good), "issuer is");
    refused(ask(&world.by_fulcio(ISSUER, "other@example.com"), &good), "certificate is for");
    for days in [-2, 2] {
        refused(ask(&policy, &world.certified(now() + days * 86_400)), "not accepted");
    }
    for missing in ["certificate", "bundle", "chain"] {
        let mut less = good.clone();
        less.annotations.remove(&format!("dev.sigstore.cosign/{missing}")).unwrap();
        refused(ask(&policy, &less), if missing == "chain" { "not accepted" } else { missing });
    }
    let mut two = good.clone();
    let certificate = two.annotations.get_mut("dev.sigstore.cosign/certificate").unwrap();
    *certificate = certificate.repeat(2);
    refused(ask(&policy, &two), "exactly one certificate");
    // Another authority of the same name.
    world.certify(ISSUER, EMAIL);
    refused(ask(&policy, &good), "not accepted");
    refused(ask(&world.keyed(false), &good), "none of the keys");
}

#[test]
fn a_bundle_without_a_name_is_for_who_asks_by_digest() {
    let Some(world) = World::new() else { return };
    let sign = "https://sigstore.dev/cosign/sign/v1";
    let digest = json!({ "sha256": hex(world.manifest.as_bytes()) });
    let nameless = json!({ "digest": digest, "annotations": {} });
    let named = json!({ "name": "h.example/team/app", "digest": digest });
    let pinned = format!("h.example/team/app@{}", world.manifest);
    let ask = |policy: &Value, name: &str, bundle: &Value| {
        world.ask(policy, name, Signature::Bundle(bundle.to_string().into_bytes()))
    };
    let policy = world.keyed(false);
    let plain = world.bundle(sign, &nameless, None);
    ask(&policy, &pinned, &plain).unwrap();
    refused(ask(&policy, NAME, &plain), "ask for the image by digest");
    let mut by_repository = policy.clone();
    by_repository["signedIdentity"] = json!({ "type": "matchRepository" });
    refused(ask(&by_repository, &pinned, &plain), "names no repository");
    let whole = world.bundle(sign, &named, None);
    ask(&by_repository, NAME, &whole).unwrap();
    refused(ask(&by_repository, "h.example/team/other:1", &whole), "does not accept");
    refused(ask(&policy, NAME, &whole), "does not accept");
    let about = world.bundle("https://slsa.dev/provenance/v1", &named, None);
    refused(ask(&by_repository, NAME, &about), "an attestation");
    let elsewhere = json!({ "digest": { "sha256": "00".repeat(32) } });
    refused(ask(&policy, &pinned, &world.bundle(sign, &elsewhere, None)), "another manifest");
    // The log.
    let logged = world.keyed(true);
    ask(&logged, &pinned, &world.bundle(sign, &nameless, Some(now()))).unwrap();
    refused(ask(&logged, &pinned, &plain), "no promise");
    let mut moved = world.bundle(sign, &nameless, Some(now()));
    moved["verificationMaterial"]["tlogEntries"][0]["integratedTime"] = json!("1");
    refused(ask(&logged, &pinned, &moved), "not signed by the log");
    // Spoilt.
    let mut spoilt = plain.clone();
    let payload = &mut spoilt["dsseEnvelope"]["payload"];
    let text = STANDARD.decode(payload.as_str().unwrap()).unwrap();
    let text = String::from_utf8(text).unwrap().replace("annotations", "annotationz");
    *payload = json!(STANDARD.encode(text));
    refused(ask(&policy, &pinned, &spoilt), "not by that key");
    let mut twice = plain.clone();
    let one = twice["dsseEnvelope"]["signatures"][0].clone();
    twice["dsseEnvelope"]["signatures"] = json!([one, one]);
    refused(ask(&policy, &pinned, &twice), "exactly one signature");
}

#[test]
fn policies_of_sigstore_are_read_strictly() {
    let Some(world) = World::new() else { return };
    world.certify(ISSUER, EMAIL);
    let one = || Signature::Attachment(world.certified(now()));
    let good = world.by_fulcio(ISSUER, EMAIL);
    world.ask(&good, NAME, one()).unwrap();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut policy = good.clone();
        change(&mut policy);
        world.ask(&policy, NAME, one())
    };
    refused(with(&|p| p["keyPath"] = json!("/x")), "both keys and fulcio");
    refused(with(&|p| drop(p.as_object_mut().unwrap().remove("rekorPublicKeyData"))), "needs a");
    refused(with(&|p| p["rekorPublicKeyPath"] = json!("/x")), "more than one");
    refused(with(&|p| p["fulcio"]["oidcIssuer"] = json!("")), "is empty");
    refused(with(&|p| p["fulcio"]["caData"] = json!("eA==")), "exactly one of caPath");
    refused(with(&|p| p["fulcio"][""] = json!("x")), "unknown key");
    refused(with(&|p| p["pki"] = json!({})), "unknown key");
    refused(with(&|p| p["fulcio"] = json!(null)), "must be an object");
    refused(
        with(&|p| p["rekorPublicKeyData"] = json!(STANDARD.encode("no key"))),
        "not a public key in PEM",
    );
}
