//! Sigstore's bundles, which cosign 3 puts beside images as referrers.
//!
//! ```text
//! {"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
//!  "verificationMaterial": {"publicKey" or "certificate", "tlogEntries": [...]},
//!  "dsseEnvelope": {"payloadType": "application/vnd.in-toto+json", "payload": base64,
//!                   "signatures": [{"sig": base64}]}}
//! ```
//! The payload is an in-toto statement; its subjects are the digests of what was signed, and each
//! may have a name (sigstore, protobuf-specs; in-toto, Statement v1; DSSE, protocol.md).
//!
//! A statement whose predicate is `https://sigstore.dev/cosign/sign/v1` says that an image was
//! signed. Other predicates are attestations: they say something about an image, and nothing of
//! whether it may be used.
//!
//! Invariants: the payload is read only once its signature holds; a statement has exactly one
//! signature.

use std::collections::BTreeMap;

use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use strata_tree::BlobDigest;

use crate::keys::PublicKey;
use crate::rekor::{LogEntry, LoggedSignature, hex};
use crate::strict::decoded;

/// What every bundle's media type begins with.
pub(crate) const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";
const IN_TOTO: &str = "application/vnd.in-toto+json";
const SIGNED: &str = "https://sigstore.dev/cosign/sign/v1";

/// A bundle of a signed statement.
pub(crate) struct SignedBundle {
    payload: Vec<u8>,
    signature: Vec<u8>,
    certificate: Option<Vec<u8>>,
    entries: Vec<LogEntry>,
}

/// What a statement says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SignedSubject {
    /// The name that was signed with the digest, if one was.
    pub(crate) name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Whole {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Option<Envelope>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    certificate: Option<Raw>,
    x509_certificate_chain: Option<Chain>,
    #[serde(default)]
    tlog_entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Chain {
    certificates: Vec<Raw>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    raw_bytes: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    log_index: Count,
    log_id: LogId,
    integrated_time: Option<Count>,
    inclusion_promise: Option<Promise>,
    canonicalized_body: String,
}

/// A 64-bit number, which protobuf writes as a string.
#[derive(Deserialize)]
#[serde(untagged)]
enum Count {
    Text(String),
    Number(i64),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogId {
    key_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Promise {
    signed_entry_timestamp: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSig>,
}

#[derive(Deserialize)]
struct EnvelopeSig {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<StatementSubject>,
    predicate_type: String,
}

#[derive(Deserialize)]
struct StatementSubject {
    #[serde(default)]
    name: Option<String>,
    digest: BTreeMap<String, String>,
}

impl Count {
    fn value(&self) -> Option<i64> {
        match self {
            Self::Text(text) => text.parse().ok(),
            Self::Number(number) => Some(*number),
        }
    }
}

fn bytes(text: &str, what: &str) -> Result<Vec<u8>, String> {
    decoded(text).ok_or_else(|| format!("{what} of the bundle is no base64"))
}

impl SignedBundle {
    pub(crate) fn read(text: &[u8]) -> Result<Self, String> {
        let whole: Whole =
            serde_json::from_slice(text).map_err(|error| format!("not a bundle: {error}"))?;
        if !whole.media_type.starts_with(BUNDLE) {
            return Err(format!("{:?} is no bundle of sigstore", whole.media_type));
        }
        let envelope = whole.dsse_envelope.ok_or_else(|| {
            "the bundle signs bare bytes, and no statement of what they are".to_owned()
        })?;
        if envelope.payload_type != IN_TOTO {
            return Err(format!("the bundle is about {:?}", envelope.payload_type));
        }
        let [one] = envelope.signatures.as_slice() else {
            return Err("the bundle has not exactly one signature".to_owned());
        };
        let material = whole.verification_material;
        let chain = material.x509_certificate_chain.into_iter().flat_map(|all| all.certificates);
        let certificate = material.certificate.into_iter().chain(chain).next();
        let entries = material.tlog_entries.iter().filter_map(|entry| {
            // Without a promise there is nothing that could be verified without asking the log.
            let promise = entry.inclusion_promise.as_ref()?;
            Some(entry_of(entry, promise))
        });
        Ok(Self {
            payload: bytes(&envelope.payload, "the payload")?,
            signature: bytes(&one.sig, "the signature")?,
            certificate: certificate
                .map(|raw| bytes(&raw.raw_bytes, "the certificate"))
                .transpose()?,
            entries: entries.collect::<Result<_, _>>()?,
        })
    }

    /// The signer's certificate.
    pub(crate) fn certificate(&self) -> Result<CertificateDer<'_>, String> {
        let certificate = self.certificate.as_deref().map(CertificateDer::from);
        certificate.ok_or_else(|| "the bundle has no certificate".to_owned())
    }

    /// When the log had it, in seconds since 1970; `signer` is its key or certificate in DER.
    pub(crate) fn logged(&self, logs: &[PublicKey], signer: &[u8]) -> Result<i64, String> {
        let wanted = LoggedSignature { signer, signature: &self.signature, signed: &self.payload };
        let mut why = "the bundle has no promise of the log".to_owned();
        for entry in &self.entries {
            match entry.verify(logs, &wanted) {
                Ok(time) => return Ok(time),
                Err(other) => why = other,
            }
        }
        Err(why)
    }

    /// What it says of the manifest, if the key signed it.
    pub(crate) fn subject(
        &self,
        key: &PublicKey,
        manifest: &BlobDigest,
    ) -> Result<SignedSubject, String> {
        // DSSE, "Signature Definition".
        let mut message =
            format!("DSSEv1 {} {IN_TOTO} {} ", IN_TOTO.len(), self.payload.len()).into_bytes();
        message.extend(&self.payload);
        if !key.verifies(&message, &self.signature) {
            return Err("the signature is not by that key".to_owned());
        }
        let statement: Statement = serde_json::from_slice(&self.payload)
            .map_err(|error| format!("the signed statement: {error}"))?;
        if !statement.kind.starts_with("https://in-toto.io/Statement/") {
            return Err(format!("the signed statement is {:?}", statement.kind));
        }
        if statement.predicate_type != SIGNED {
            let kind = statement.predicate_type;
            return Err(format!("it is an attestation ({kind}), not a signature"));
        }
        let wanted = hex(manifest.as_bytes());
        let about = |one: &StatementSubject| one.digest.get("sha256") == Some(&wanted);
        let subject = statement.subject.into_iter().find(about);
        let subject = subject.ok_or_else(|| "it is for another manifest".to_owned())?;
        Ok(SignedSubject { name: subject.name.filter(|name| !name.is_empty()) })
    }
}

fn entry_of(entry: &Entry, promise: &Promise) -> Result<LogEntry, String> {
    let number = |count: Option<&Count>| {
        count.and_then(Count::value).ok_or_else(|| "the log's entry has no number".to_owned())
    };
    Ok(LogEntry {
        promise: bytes(&promise.signed_entry_timestamp, "the promise")?,
        body: bytes(&entry.canonicalized_body, "the log's entry")?,
        log_id: hex(&bytes(&entry.log_id.key_id, "the log's key")?),
        log_index: number(Some(&entry.log_index))?,
        integrated: number(entry.integrated_time.as_ref())?,
    })
}
