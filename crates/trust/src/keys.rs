//! Public keys of sigstore and what they verify.
//!
//! ECDSA on P-256 and P-384, RSA from 2048 bits with PKCS #1 v1.5, and Ed25519, always over SHA-256
//! but for the last, as cosign signs.
//!
//! Invariant: a key is only ever used with the algorithm that it says it is for.

use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use crate::policy::KeySource;

const EC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// A key that signatures are verified with.
pub(crate) struct PublicKey {
    /// The whole SubjectPublicKeyInfo.
    pub(crate) der: Vec<u8>,
    algorithm: &'static dyn VerificationAlgorithm,
    bytes: Vec<u8>,
    is_ecdsa: bool,
}

impl PublicKey {
    /// The first key of a PEM file.
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem)
            .map_err(|error| format!("not a public key in PEM: {error}"))?;
        let info = SubjectPublicKeyInfoOwned::from_der(&der)
            .map_err(|error| format!("not a public key: {error}"))?;
        Self::of(&info)
    }

    /// A key as certificates hold it.
    pub(crate) fn of(info: &SubjectPublicKeyInfoOwned) -> Result<Self, String> {
        let curve = || info.algorithm.parameters.as_ref()?.decode_as::<ObjectIdentifier>().ok();
        let algorithm: &'static dyn VerificationAlgorithm = match info.algorithm.oid {
            EC_KEY => match curve() {
                Some(P256) => &signature::ECDSA_P256_SHA256_ASN1,
                Some(P384) => &signature::ECDSA_P384_SHA256_ASN1,
                _ => return Err("a key on another curve than P-256 and P-384".to_owned()),
            },
            RSA => &signature::RSA_PKCS1_2048_8192_SHA256,
            ED25519 => &signature::ED25519,
            other => return Err(format!("a key of an unknown kind, {other}")),
        };
        let bytes = info.subject_public_key.raw_bytes().to_vec();
        let der = info.to_der().map_err(|error| error.to_string())?;
        Ok(Self { der, algorithm, bytes, is_ecdsa: info.algorithm.oid == EC_KEY })
    }

    /// Whether this key signed `message`.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.algorithm, &self.bytes).verify(message, signature).is_ok()
    }
}

/// The bytes of all files or data.
pub(crate) fn load(source: &KeySource) -> Result<Vec<Vec<u8>>, String> {
    let read = |path: &std::path::PathBuf| {
        std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
    };
    match source {
        KeySource::Paths(paths) => paths.iter().map(read).collect(),
        KeySource::Data(data) => Ok(data.clone()),
    }
}

/// The keys that images are signed with.
pub(crate) fn public_keys(source: &KeySource) -> Result<Vec<PublicKey>, String> {
    load(source)?.iter().map(|pem| PublicKey::from_pem(pem)).collect()
}

/// The keys of a log, which signs with ECDSA.
pub(crate) fn log_keys(source: &KeySource) -> Result<Vec<PublicKey>, String> {
    let keys = public_keys(source)?;
    match keys.iter().all(|key| key.is_ecdsa) {
        true => Ok(keys),
        false => Err("the log's key is not one of ECDSA".to_owned()),
    }
}
