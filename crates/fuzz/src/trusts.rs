//! What says which images may come in: policies, and the signatures that strangers write.
//!
//! Invariants: nobody who does not have the policy's key makes a signature that it accepts; who has
//! it makes none that is good for two images.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;

use strata_registry::Reference;
use strata_tree::BlobDigest;
use strata_trust::{
    Attachment, BoxError, FileTransport, FindSignatures, Gpgv, ImagePlace, LookasideConfig,
    NoSignatures, Signature, TrustPolicy, gpgv_signer,
};

use crate::kit::{in_memory, path_of};
use crate::signed;

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
        let mut file = tempfile::NamedTempFile::new().unwrap();
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

/// Policies whose key is that of [`signed`]: as [`demanding`], and the last with another issuer.
#[allow(clippy::unwrap_used)]
fn trusting() -> &'static [TrustPolicy; 4] {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    static POLICIES: OnceLock<[TrustPolicy; 4]> = OnceLock::new();
    POLICIES.get_or_init(|| {
        let (key, ca) = (STANDARD.encode(signed::PUBLIC), STANDARD.encode(signed::AUTHORITY));
        let by = |issuer: &str| {
            let who = serde_json::json!({
                "caData": ca, "oidcIssuer": issuer, "subjectEmail": "a@b.example",
            });
            serde_json::json!({"fulcio": who, "rekorPublicKeyData": key})
        };
        [
            serde_json::json!({"keyData": key}),
            serde_json::json!({"keyData": key, "rekorPublicKeyData": key}),
            by("https://issuer.example"),
            by("https://other.example"),
        ]
        .map(|mut requirement| {
            requirement["type"] = "sigstoreSigned".into();
            let text = serde_json::json!({"default": [requirement]}).to_string();
            load(text.as_bytes()).unwrap()
        })
    })
}

/// Which of these policies accept a signature, for an image of that name and manifest.
#[allow(clippy::unwrap_used)]
fn accepting(
    policies: &[TrustPolicy],
    signature: &Signature,
    name: &str,
    manifest: [u8; 32],
) -> Vec<usize> {
    let place = ImagePlace::registry(&name.parse().unwrap());
    let (digest, there) = (BlobDigest::from_bytes(manifest), There(vec![signature.clone()]));
    let accepts = |at: &usize| policies[*at].judge(&place, Some(&digest), &there).is_ok();
    (0..policies.len()).filter(accepts).collect()
}

/// A good signature over what an input says; which policies accept it.
fn judge_signed(input: &[u8], is_bundle: bool) -> Vec<usize> {
    let signature = signed::signature(input, is_bundle);
    assert_eq!(accepting(demanding(), &signature, NAMES[0], MANIFEST), [0; 0], "another key");
    let all = accepting(trusting(), &signature, NAMES[0], MANIFEST);
    if !all.is_empty() {
        assert!(!all.contains(&2) || !all.contains(&3), "two issuers");
        let elsewhere = accepting(trusting(), &signature, NAMES[2], MANIFEST);
        assert_eq!(elsewhere, [0; 0], "an image of another name");
        // A statement may be about several manifests.
        let other = accepting(trusting(), &signature, NAMES[0], [0x5b; 32]);
        assert!(is_bundle || other.is_empty(), "another manifest");
    }
    all
}

/// Any bytes as a signature; the first one says in which form.
#[allow(clippy::unwrap_used)]
pub(crate) fn signature(data: &[u8]) {
    let Some((form, rest)) = data.split_first() else { return };
    let said = String::from_utf8_lossy(rest);
    if gpgv_signer(&said).is_ok() {
        assert!(said.contains("GOODSIG") && said.contains("VALIDSIG"), "signed by nobody");
    }
    let signature = match form % 8 {
        4 | 6 => return drop(judge_signed(rest, false)),
        5 | 7 => return drop(judge_signed(rest, true)),
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
    let accepted = accepting(demanding(), &signature, NAMES[0], MANIFEST);
    assert_eq!(accepted, [0; 0], "nobody has that key");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fuzzing_begins_from_is_accepted() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/signature");
        for (name, by) in [
            ("signed", &[0, 1][..]),
            ("signed-statement", &[0, 1]),
            ("certified", &[0, 2]),
            ("certified-statement", &[0, 2]),
        ] {
            let input = std::fs::read(corpus.join(name)).unwrap();
            assert_eq!(judge_signed(&input[1..], input[0] % 2 == 1), by, "{name}");
        }
    }
}
