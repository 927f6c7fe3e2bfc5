//! Certificates of Fulcio, which say for minutes whose key it is.
//!
//! The log's entry says when the key was used; the certificate must have been valid then.
//! (sigstore, fulcio/docs/oid-info.md: 1.3.6.1.4.1.57264.1.1 is the issuer as it is, .1.8 the same
//! as a UTF8String.)
//!
//! Invariants: the certificate's chain ends at an authority of the policy; it is for signing code,
//! if it says what it is for; the issuer and the address are exactly those of the policy, and a
//! certificate that names two issuers has none.

use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::asn1::Utf8StringRef;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::keys::PublicKey;

/// The extended key usage for code, 1.3.6.1.5.5.7.3.3.
const CODE_SIGNING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x03];
const ISSUER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1.1");
const ISSUER_UTF8: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1.8");
const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");

/// Who is accepted.
pub(crate) struct FulcioRoot<'a> {
    /// PEM of each authority.
    pub(crate) authorities: &'a [Vec<u8>],
    pub(crate) issuer: &'a str,
    pub(crate) email: &'a str,
}

/// The one certificate in a PEM text, in DER.
pub(crate) fn only_certificate(pem: &[u8]) -> Result<CertificateDer<'static>, String> {
    let mut all = certificates(pem)?;
    match (all.pop(), all.is_empty()) {
        (Some(only), true) => Ok(only),
        _ => Err("there is not exactly one certificate with the signature".to_owned()),
    }
}

/// All certificates of a PEM text.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("not certificates in PEM: {error}"))
}

impl FulcioRoot<'_> {
    /// The key of a certificate that was valid at `time`, in seconds since 1970.
    pub(crate) fn key_at(
        &self,
        time: i64,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
    ) -> Result<PublicKey, String> {
        let mut roots = Vec::new();
        for pem in self.authorities {
            roots.extend(certificates(pem)?);
        }
        let anchors = roots.iter().map(webpki::anchor_from_trusted_cert);
        let anchors: Vec<_> = anchors
            .collect::<Result<_, _>>()
            .map_err(|error| format!("a certificate of Fulcio in the policy: {error}"))?;
        if anchors.is_empty() {
            return Err("the policy has no certificate of Fulcio".to_owned());
        }
        let refused = |error: webpki::Error| format!("the certificate is not accepted: {error}");
        let seconds =
            u64::try_from(time).map_err(|_| "the log's time is before 1970".to_owned())?;
        EndEntityCert::try_from(certificate)
            .map_err(refused)?
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &anchors,
                between,
                UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
                KeyUsage::required_if_present(CODE_SIGNING),
                None,
                None,
            )
            .map_err(refused)?;
        let parsed = Certificate::from_der(certificate)
            .map_err(|error| format!("the certificate cannot be read: {error}"))?;
        let issuer = issuer(&parsed)?;
        if issuer != self.issuer {
            return Err(format!("the certificate's issuer is {issuer:?}, not {:?}", self.issuer));
        }
        let emails = emails(&parsed)?;
        if !emails.iter().any(|email| email == self.email) {
            return Err(format!("the certificate is for {emails:?}, not {:?}", self.email));
        }
        PublicKey::of(parsed.tbs_certificate().subject_public_key_info())
    }
}

fn issuer(certificate: &Certificate) -> Result<String, String> {
    let wrong = || "the certificate's issuer cannot be read".to_owned();
    let mut found: Vec<String> = Vec::new();
    for extension in certificate.tbs_certificate().extensions().into_iter().flatten() {
        let bytes = extension.extn_value.as_bytes();
        if extension.extn_id == ISSUER {
            found.push(String::from_utf8(bytes.to_vec()).map_err(|_| wrong())?);
        } else if extension.extn_id == ISSUER_UTF8 {
            let text = Utf8StringRef::from_der(bytes).map_err(|_| wrong())?;
            found.push(text.as_str().to_owned());
        }
    }
    found.dedup();
    match (found.pop(), found.is_empty()) {
        (Some(only), true) => Ok(only),
        (Some(_), false) => Err("the certificate names two issuers".to_owned()),
        (None, _) => Err("the certificate names no issuer: Fulcio did not make it".to_owned()),
    }
}

fn emails(certificate: &Certificate) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for extension in certificate.tbs_certificate().extensions().into_iter().flatten() {
        if extension.extn_id != SUBJECT_ALT_NAME {
            continue;
        }
        let names = SubjectAltName::from_der(extension.extn_value.as_bytes())
            .map_err(|error| format!("the certificate's names cannot be read: {error}"))?;
        for name in names.0 {
            if let GeneralName::Rfc822Name(email) = name {
                found.push(email.to_string());
            }
        }
    }
    Ok(found)
}
