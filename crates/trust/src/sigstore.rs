//! `sigstoreSigned`: cosign's attachments and sigstore's bundles against keys or Fulcio.
//!
//! ```text
//! attachment: payload + annotations {signature, bundle, certificate, chain}
//!   with keys:    a key verifies; with a log key: the log's entry is about just this
//!   with Fulcio:  the log's entry says when --> the certificate was valid --> its key verifies
//! ```
//! (cosign, SIGNATURE_SPEC.md, "dev.cosignproject.cosign/signature" and `dev.sigstore.cosign/*`.)
//!
//! Invariant: the annotations are not signed; each is used only after what it claims has been
//! checked against the policy's own keys.

use sha2::{Digest, Sha256};
use strata_tree::BlobDigest;

use crate::bundle::{SignedBundle, SignedSubject};
use crate::fulcio::{self, FulcioRoot};
use crate::keys::{self, PublicKey};
use crate::payload::{PayloadForm, SignedPayload};
use crate::policy::{KeySource, Signer};
use crate::rekor::{LogEntry, LoggedSignature, hex};
use crate::signature::Attachment;
use crate::strict::decoded;

const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const BUNDLE: &str = "dev.sigstore.cosign/bundle";
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
const CHAIN: &str = "dev.sigstore.cosign/chain";

/// The keys and certificates of a requirement, loaded.
pub(crate) struct SigstoreRules {
    who: Who,
    log: Option<Vec<PublicKey>>,
}

enum Who {
    Keys(Vec<PublicKey>),
    Fulcio { authorities: Vec<Vec<u8>>, issuer: String, email: String },
}

impl SigstoreRules {
    pub(crate) fn load(signer: &Signer, log: Option<&KeySource>) -> Result<Self, String> {
        let who = match signer {
            Signer::Keys(source) => Who::Keys(keys::public_keys(source)?),
            Signer::Fulcio { authorities, issuer, email } => Who::Fulcio {
                authorities: keys::load(authorities)?,
                issuer: issuer.clone(),
                email: email.clone(),
            },
        };
        Ok(Self { who, log: log.map(keys::log_keys).transpose()? })
    }

    fn logs(&self) -> &[PublicKey] {
        self.log.as_deref().unwrap_or_default()
    }

    /// Who signed an attachment, and what.
    pub(crate) fn attachment(&self, one: &Attachment) -> Result<(String, SignedPayload), String> {
        let annotation = |key: &str| {
            let text = one.annotations.get(key);
            text.ok_or_else(|| format!("the signature has no annotation {key}"))
        };
        let signature = decoded(annotation(SIGNATURE)?)
            .ok_or_else(|| "the signature is no base64".to_owned())?;
        let wanted =
            |signer| LoggedSignature { signer, signature: &signature, signed: &one.payload };
        let signer = match &self.who {
            Who::Keys(keys) => {
                let key = keys.iter().find(|key| key.verifies(&one.payload, &signature));
                let key = key.ok_or_else(|| "it is signed by none of the keys".to_owned())?;
                if self.log.is_some() {
                    let entry = LogEntry::read(annotation(BUNDLE)?)?;
                    entry.verify(self.logs(), &wanted(&key.der))?;
                }
                label(key)
            }
            Who::Fulcio { authorities, issuer, email } => {
                let entry = LogEntry::read(annotation(BUNDLE)?)?;
                let certificate = fulcio::only_certificate(annotation(CERTIFICATE)?.as_bytes())?;
                let time = entry.verify(self.logs(), &wanted(&certificate))?;
                let mut between = match one.annotations.get(CHAIN) {
                    Some(pem) => fulcio::certificates(pem.as_bytes())?,
                    None => Vec::new(),
                };
                // The last is the root, which only the policy can name.
                between.pop();
                let root = FulcioRoot { authorities, issuer, email };
                let key = root.key_at(time, &certificate, &between)?;
                if !key.verifies(&one.payload, &signature) {
                    return Err("it is not signed by the certificate's key".to_owned());
                }
                email.clone()
            }
        };
        Ok((signer, SignedPayload::read(&one.payload, PayloadForm::Cosign)?))
    }

    /// Who signed a bundle about that manifest, and under which name.
    pub(crate) fn bundle(
        &self,
        text: &[u8],
        manifest: &BlobDigest,
    ) -> Result<(String, SignedSubject), String> {
        let bundle = SignedBundle::read(text)?;
        match &self.who {
            Who::Keys(keys) => {
                let mut why = "the policy has no key".to_owned();
                for key in keys {
                    let checked = bundle.subject(key, manifest).and_then(|subject| {
                        if self.log.is_some() {
                            bundle.logged(self.logs(), &key.der)?;
                        }
                        Ok(subject)
                    });
                    match checked {
                        Ok(subject) => return Ok((label(key), subject)),
                        Err(other) => why = other,
                    }
                }
                Err(why)
            }
            Who::Fulcio { authorities, issuer, email } => {
                let certificate = bundle.certificate()?;
                let time = bundle.logged(self.logs(), &certificate)?;
                let root = FulcioRoot { authorities, issuer, email };
                let key = root.key_at(time, &certificate, &[])?;
                Ok((email.clone(), bundle.subject(&key, manifest)?))
            }
        }
    }
}

/// What a key is called where it is shown.
fn label(key: &PublicKey) -> String {
    format!("sha256:{}", hex(&Sha256::digest(&key.der)))
}
