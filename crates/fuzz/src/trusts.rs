//! What says which images may come in: policies, and the signatures that strangers write.
//!
//! Invariant: nobody who does not have the policy's key makes a signature that it accepts.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;

use strata_registry::Reference;
use strata_tree::BlobDigest;
use strata_trust::{
    Attachment, BoxError, FileTransport, FindSignatures, Gpgv, ImagePlace, LookasideConfig,
    NoSignatures, Signature, TrustPolicy,
};

use crate::kit::{in_memory, path_of};

/// A name in each kind of scope that a policy can have.
const NAMES: [&str; 3] = ["h.example/team/app:1", "localhost:5000/a@sha256:", "docker.io/b:2"];

/// The manifest that signatures are for.
const MANIFEST: [u8; 32] = [0x5a; 32];

fn load(bytes: &[u8]) -> Option<TrustPolicy> {
    let file = in_memory(bytes);
    TrustPolicy::load(&path_of(&file), LookasideConfig::default(), Gpgv::default()).ok()
}

/// Any bytes as a `policy.json`.
#[allow(clippy::unwrap_used)]
pub(crate) fn policy(data: &[u8]) {
    let Some(policy) = load(data) else { return };
    assert_eq!(load(data).unwrap().policy(), policy.policy(), "read twice");
    assert!(!policy.policy().sections().is_empty(), "a policy has a default");
    let digest = BlobDigest::from_bytes(MANIFEST);
    let files = [FileTransport::Oci, FileTransport::DockerArchive]
        .map(|transport| ImagePlace::files(transport, Some(Path::new("/srv/images/one"))));
    let names = NAMES.iter().filter_map(|name| name.parse().ok());
    for place in names.map(|name: Reference| ImagePlace::registry(&name)).chain(files) {
        // Without signatures nothing is accepted but what needs none.
        if let Ok(Some(verdict)) = policy.judge(&place, Some(&digest), &NoSignatures) {
            let all = verdict.accepted.iter();
            assert!(all.map(|one| &one.kind).all(|kind| kind == "insecureAcceptAnything"));
        }
    }
}

struct There(Vec<Signature>);

impl FindSignatures for There {
    fn signatures(&self) -> Result<Vec<Signature>, BoxError> {
        Ok(self.0.clone())
    }
}

/// A key of nobody's: its private half was thrown away.
const KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
    MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEwhZHrIu3Z+fvtkwcuaQoswYaaYvG\n\
    lYlnrDEiFquoA8CU9CiE+gGlaJ3rbuVNTQRfIuZs5OqKsrcA4y4CAz3x5w==\n\
    -----END PUBLIC KEY-----\n";

/// Policies that want a signature with the key, with a log's entry too, and with a certificate.
#[allow(clippy::unwrap_used)]
fn demanding() -> &'static [TrustPolicy] {
    static POLICIES: OnceLock<Vec<TrustPolicy>> = OnceLock::new();
    POLICIES.get_or_init(|| {
        let mut file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        file.write_all(KEY.as_bytes()).unwrap();
        let key = file.path();
        let one = |requirement: serde_json::Value| {
            let mut requirement = requirement;
            requirement["type"] = "sigstoreSigned".into();
            let text = serde_json::json!({"default": [requirement]}).to_string();
            load(text.as_bytes()).unwrap()
        };
        let fulcio = serde_json::json!({
            "caPath": key, "oidcIssuer": "https://issuer.example", "subjectEmail": "a@b.example",
        });
        let policies = vec![
            one(serde_json::json!({"keyPath": key})),
            one(serde_json::json!({"keyPath": key, "rekorPublicKeyPath": key})),
            one(serde_json::json!({"fulcio": fulcio, "rekorPublicKeyPath": key})),
        ];
        // The policies name the file for as long as this process lives.
        file.keep().unwrap();
        policies
    })
}

/// Any bytes as a signature; the first one says in which form.
#[allow(clippy::unwrap_used)]
pub(crate) fn signature(data: &[u8]) {
    let Some((form, rest)) = data.split_first() else { return };
    let signature = match form % 4 {
        0 => match Signature::from_lookaside(rest) {
            Ok(signature) => signature,
            Err(_) => return,
        },
        1 => {
            let json = [b"\0sigstore-json\n", rest].concat();
            let Ok(signature) = Signature::from_lookaside(&json) else { return };
            signature
        }
        2 => Signature::Bundle(rest.to_vec()),
        _ => {
            // A payload, and the annotations that cosign writes, in lines.
            let mut lines = rest.split(|byte| *byte == b'\n');
            let payload = lines.next().unwrap_or_default().to_vec();
            let names = ["signature", "certificate", "chain", "bundle"];
            let annotations: BTreeMap<String, String> = names
                .iter()
                .zip(lines)
                .map(|(name, value)| {
                    let name = match *name {
                        "signature" => "dev.cosignproject.cosign/signature".to_owned(),
                        name => format!("dev.sigstore.cosign/{name}"),
                    };
                    (name, String::from_utf8_lossy(value).replace('|', "\n"))
                })
                .collect();
            Signature::Attachment(Attachment {
                media_type: "application/vnd.dev.cosign.simplesigning.v1+json".to_owned(),
                payload,
                annotations,
            })
        }
    };
    let place = ImagePlace::registry(&NAMES[0].parse().unwrap());
    let digest = BlobDigest::from_bytes(MANIFEST);
    let there = There(vec![signature]);
    for policy in demanding() {
        assert!(policy.judge(&place, Some(&digest), &there).is_err(), "nobody has that key");
    }
}
