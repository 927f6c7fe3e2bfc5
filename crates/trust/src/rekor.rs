//! Entries of the log Rekor: that a signature was in it, and since when.
//!
//! The log signs a promise, the signed entry timestamp, over four fields of the entry in canonical
//! JSON (RFC 8785). The entry's body says which signature, key and content it is about.
//!
//! ```text
//! {"SignedEntryTimestamp": base64, "Payload": {"body": base64, "integratedTime": seconds,
//!                                              "logIndex": n, "logID": hex}}
//! ```
//! (cosign, the annotation `dev.sigstore.cosign/bundle`.) Nothing is asked over the network.
//!
//! Invariants: the body is read only once the promise over it holds; it must be about exactly the
//! key, the signature and the bytes that are being verified.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::{PemObject, SectionKind};
use sha2::{Digest, Sha256};

use crate::keys::PublicKey;
use crate::strict::{Fields, Malformed, StrictValue, decoded};

/// What an entry must be about.
pub(crate) struct LoggedSignature<'a> {
    /// The key or certificate, in DER.
    pub(crate) signer: &'a [u8],
    pub(crate) signature: &'a [u8],
    pub(crate) signed: &'a [u8],
}

/// An entry, with the promise.
pub(crate) struct LogEntry {
    pub(crate) promise: Vec<u8>,
    pub(crate) body: Vec<u8>,
    pub(crate) log_id: String,
    pub(crate) log_index: i64,
    /// In seconds since 1970.
    pub(crate) integrated: i64,
}

impl LogEntry {
    /// Reads cosign's annotation.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        Self::strictly(text).map_err(|Malformed(why)| format!("the log's entry: {why}"))
    }

    fn strictly(text: &str) -> Result<Self, Malformed> {
        let mut all = Fields::of(StrictValue::read(text.as_bytes())?, "the log's entry")?;
        let promise = all.need("SignedEntryTimestamp")?.bytes("SignedEntryTimestamp")?;
        let mut payload = Fields::of(all.need("Payload")?, "Payload")?;
        all.end()?;
        let body = payload.need("body")?.bytes("body")?;
        let integrated = payload.need("integratedTime")?.integer("integratedTime")?;
        let log_index = payload.need("logIndex")?.integer("logIndex")?;
        let log_id = payload.text("logID")?;
        payload.end()?;
        Ok(Self { promise, body, log_id, log_index, integrated })
    }

    /// What the log signs. None of these texts needs an escape.
    fn canonical(&self) -> Result<Vec<u8>, String> {
        if !self.log_id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err("the log's entry: logID is not hexadecimal".to_owned());
        }
        let Self { body, log_id, log_index, integrated, .. } = self;
        let body = STANDARD.encode(body);
        let mut text = format!(r#"{{"body":"{body}","integratedTime":{integrated},"#);
        text.push_str(&format!(r#""logID":"{log_id}","logIndex":{log_index}}}"#));
        Ok(text.into_bytes())
    }

    /// Checks the promise and that the entry is about `wanted`; gives the time, in seconds since
    /// 1970, at which the log had it.
    pub(crate) fn verify(
        &self,
        logs: &[PublicKey],
        wanted: &LoggedSignature<'_>,
    ) -> Result<i64, String> {
        let canonical = self.canonical()?;
        if !logs.iter().any(|log| log.verifies(&canonical, &self.promise)) {
            return Err("the log's entry is not signed by the log that the policy names".to_owned());
        }
        let body: Body = serde_json::from_slice(&self.body)
            .map_err(|error| format!("the body of the log's entry: {error}"))?;
        let (signer, signature, hash) = body.parts()?;
        let matches = [
            (is_about(&signer, wanted.signer), "key"),
            (signature == wanted.signature, "signature"),
            (hash.eq_ignore_ascii_case(&hex(&Sha256::digest(wanted.signed))), "content"),
        ];
        match matches.iter().find(|(same, _)| !same) {
            Some((_, what)) => Err(format!("the log's entry is about another {what}")),
            None => Ok(self.integrated),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether the PEM of an entry holds that key or certificate and nothing else.
fn is_about(pem: &[u8], der: &[u8]) -> bool {
    let mut sections = <(SectionKind, Vec<u8>)>::pem_slice_iter(pem);
    let first = sections.next().and_then(Result::ok);
    first.is_some_and(|(_, bytes)| bytes == der) && sections.next().is_none()
}

/// The body of an entry, of either kind that images have.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    api_version: String,
    kind: String,
    spec: Spec,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    // hashedrekord
    signature: Option<RecordSignature>,
    data: Option<RecordData>,
    // dsse
    #[serde(default)]
    signatures: Vec<EnvelopeSignature>,
    payload_hash: Option<Hash>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecordSignature {
    content: String,
    public_key: Content,
}

#[derive(serde::Deserialize)]
struct Content {
    content: String,
}

#[derive(serde::Deserialize)]
struct RecordData {
    hash: Hash,
}

#[derive(serde::Deserialize)]
struct Hash {
    algorithm: String,
    value: String,
}

#[derive(serde::Deserialize)]
struct EnvelopeSignature {
    signature: String,
    verifier: String,
}

impl Body {
    /// The signer's PEM, the signature and the content's SHA-256 in hexadecimal.
    fn parts(self) -> Result<(Vec<u8>, Vec<u8>, String), String> {
        let incomplete = || "the body of the log's entry is incomplete".to_owned();
        let Self { api_version, kind, spec } = self;
        let (signer, signature, hash) = match (kind.as_str(), api_version.as_str()) {
            ("hashedrekord", "0.0.1") => {
                let (one, data) = spec.signature.zip(spec.data).ok_or_else(incomplete)?;
                (one.public_key.content, one.content, data.hash)
            }
            ("dsse", "0.0.1") => {
                let hash = spec.payload_hash.ok_or_else(incomplete)?;
                let mut all = spec.signatures.into_iter();
                match (all.next(), all.next()) {
                    (Some(one), None) => (one.verifier, one.signature, hash),
                    _ => return Err(incomplete()),
                }
            }
            _ => return Err(format!("the log's entry is of the kind {kind} {api_version}")),
        };
        if hash.algorithm != "sha256" {
            return Err(format!("the log's entry has a hash of the kind {}", hash.algorithm));
        }
        let bytes = |text: &str| decoded(text).ok_or_else(incomplete);
        Ok((bytes(&signer)?, bytes(&signature)?, hash.value))
    }
}
