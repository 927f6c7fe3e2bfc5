//! Signatures that are good, over whatever an input says: what is read only behind a good one.
//!
//! The key is known to everybody, and signs all there is: the payload, the log's promise, and the
//! certificate, whose authority it is too.
//!
//! Invariant: nothing here is refused for its cryptography.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use strata_trust::{Attachment, Signature};

/// The private half, PKCS #8.
const PRIVATE: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg/3VtoBzrbL9XEs13Q0etWZYK\
    jg4R8xqiwc8xe6qx/XShRANCAASml55Yy8/5H8hsotGIf7wsqo6FtVMayJOzzBFDNqO/my6ek5eyoE6ER2/w+hfCTH0j\
    fqYpFgtfBZgbZr136ySW";
/// The public half.
pub(crate) const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
    MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEppeeWMvP+R/IbKLRiH+8LKqOhbVT\n\
    GsiTs8wRQzajv5sunpOXsqBOhEdv8PoXwkx9I36mKRYLXwWYG2a9d+sklg==\n\
    -----END PUBLIC KEY-----\n";
/// The authority, with that key; it ends in 2126.
pub(crate) const AUTHORITY: &str = "-----BEGIN CERTIFICATE-----\n\
    MIIBZDCCAQqgAwIBAgIUN+/daezvfikdWXdghv1MgWuw+L4wCgYIKoZIzj0EAwIw\n\
    DzENMAsGA1UEAwwEcm9vdDAgFw0yNjExMzAyMjExMTRaGA8yMTI2MTEwNjIyMTEx\n\
    NFowDzENMAsGA1UEAwwEcm9vdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABKaX\n\
    nljLz/kfyGyi0Yh/vCyqjoW1UxrIk7PMEUM2o7+bLp6Tl7KgToRHb/D6F8JMfSN+\n\
    pikWC18FmBtmvXfrJJajQjBAMA8GA1UdEwEB/wQFMAMBAf8wDgYDVR0PAQH/BAQD\n\
    AgIEMB0GA1UdDgQWBBSeRg7l5juk6rPCOaHsQ0BHN7wUITAKBggqhkjOPQQDAgNI\n\
    ADBFAiEA55Irdm4AsUaj/TDQF+T5ERcz0coFGVEbJ2r39CRBoK8CIAIjOae9PwKT\n\
    U2SCjjqJt8UMkQoA0z2pvF0tJGGhXRSo\n\
    -----END CERTIFICATE-----\n";
/// When the log had everything, in seconds since 1970.
const LOGGED: i64 = 1_800_000_000;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[allow(clippy::unwrap_used)]
fn sign(message: &[u8]) -> Vec<u8> {
    static KEY: OnceLock<EcdsaKeyPair> = OnceLock::new();
    let random = SystemRandom::new();
    let key = KEY.get_or_init(|| {
        let der = STANDARD.decode(PRIVATE).unwrap();
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &der, &random).unwrap()
    });
    key.sign(&random, message).unwrap().as_ref().to_vec()
}

/// A certificate, in PEM, whose inside is `inside`: signed, whatever it is.
fn certificate(inside: &[u8]) -> Vec<u8> {
    // AlgorithmIdentifier of ECDSA with SHA-256 (RFC 5758, 3.2).
    const ALGORITHM: [u8; 12] = *b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
    let signature = [&[0], &sign(inside)[..]].concat();
    element(0x30, &[inside, &ALGORITHM, &element(0x03, &signature)].concat())
}

/// An element of DER of less than 64 KiB.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u16).to_be_bytes();
    let head = match content.len() {
        0..0x80 => vec![tag, length[1]],
        0x80..0x100 => vec![tag, 0x81, length[1]],
        _ => vec![tag, 0x82, length[0], length[1]],
    };
    [head, content.to_vec()].concat()
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der))
}

/// What the log says of a signature. In `body`, `@SIGNER@`, `@SIGNATURE@` and `@HASH@` are what an
/// entry about just this one has there.
struct Logged {
    body: String,
    promise: String,
}

impl Logged {
    fn of(body: &[u8], signer: &str, signature: &[u8], signed: &[u8]) -> Self {
        let body = String::from_utf8_lossy(body)
            .replace("@SIGNER@", &STANDARD.encode(signer))
            .replace("@SIGNATURE@", &STANDARD.encode(signature))
            .replace("@HASH@", &hex(&Sha256::digest(signed)));
        let body = STANDARD.encode(body);
        let canonical = format!(
            r#"{{"body":"{body}","integratedTime":{LOGGED},"logID":"c0ffee","logIndex":7}}"#
        );
        Self { body, promise: STANDARD.encode(sign(canonical.as_bytes())) }
    }
}

/// The first line, and the rest.
fn line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    (&bytes[..end], bytes.get(end + 1..).unwrap_or_default())
}

/// An attachment or a bundle of an input: a line that is signed, one that is the body of the log's
/// entry, and if there is more the inside of the signer's certificate.
pub(crate) fn signature(input: &[u8], is_bundle: bool) -> Signature {
    let (signed, rest) = line(input);
    let (body, inside) = line(rest);
    let certificate = (!inside.is_empty()).then(|| certificate(inside));
    let signer = certificate.as_deref().map_or_else(|| PUBLIC.to_owned(), pem);
    match is_bundle {
        true => bundle(signed, body, &signer, certificate.as_deref()),
        false => attachment(signed, body, &signer, certificate.is_some()),
    }
}

fn attachment(payload: &[u8], body: &[u8], signer: &str, certified: bool) -> Signature {
    let signature = sign(payload);
    let logged = Logged::of(body, signer, &signature, payload);
    let entry = json!({
        "SignedEntryTimestamp": logged.promise,
        "Payload": {
            "body": logged.body, "integratedTime": LOGGED, "logIndex": 7, "logID": "c0ffee",
        },
    });
    let mut annotations = BTreeMap::from([
        ("dev.cosignproject.cosign/signature".to_owned(), STANDARD.encode(signature)),
        ("dev.sigstore.cosign/bundle".to_owned(), entry.to_string()),
    ]);
    if certified {
        annotations.insert("dev.sigstore.cosign/certificate".to_owned(), signer.to_owned());
        annotations.insert("dev.sigstore.cosign/chain".to_owned(), AUTHORITY.to_owned());
    }
    Signature::Attachment(Attachment {
        media_type: "application/vnd.dev.cosign.simplesigning.v1+json".to_owned(),
        payload: payload.to_vec(),
        annotations,
    })
}

fn bundle(payload: &[u8], body: &[u8], signer: &str, certificate: Option<&[u8]>) -> Signature {
    let kind = "application/vnd.in-toto+json";
    let head = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len());
    let signature = sign(&[head.as_bytes(), payload].concat());
    let logged = Logged::of(body, signer, &signature, payload);
    let mut bundle = json!({
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": { "tlogEntries": [{
            "logIndex": "7",
            "logId": { "keyId": STANDARD.encode([0xc0, 0xff, 0xee]) },
            "integratedTime": LOGGED.to_string(),
            "inclusionPromise": { "signedEntryTimestamp": logged.promise },
            "canonicalizedBody": logged.body,
        }] },
        "dsseEnvelope": {
            "payload": STANDARD.encode(payload),
            "payloadType": kind,
            "signatures": [{ "sig": STANDARD.encode(signature) }],
        },
    });
    if let Some(certificate) = certificate {
        let raw: Value = json!({ "rawBytes": STANDARD.encode(certificate) });
        bundle["verificationMaterial"]["certificate"] = raw;
    }
    Signature::Bundle(bundle.to_string().into_bytes())
}
