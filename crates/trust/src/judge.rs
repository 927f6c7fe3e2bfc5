//! The judgement: every requirement of the section that counts must hold.
//!
//! ```text
//! place --> section of the policy --> for each requirement: accepted, refused, or
//!                                     a signature that fulfils it --> TrustVerdict | Refused
//! ```
//!
//! Invariants: signatures are fetched only if a requirement asks for one; one good signature is
//! enough for a requirement, whatever the others are; nothing that a signature says is believed
//! before its cryptography has been checked.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use strata_tree::BlobDigest;

use crate::error::{BoxError, Error, Result};
use crate::lookaside::LookasideConfig;
use crate::named::SignedIdentity;
use crate::openpgp::Gpgv;
use crate::payload::{PayloadForm, SignedPayload};
use crate::place::ImagePlace;
use crate::policy::{KeySource, KeyType, Policy, Requirement};
use crate::signature::Signature;
use crate::sigstore::SigstoreRules;
use crate::verdict::{Accepted, TrustVerdict};

/// Where a policy comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyOrigin {
    /// A file.
    File(PathBuf),
    /// The option that switches policies off.
    Insecure,
    /// There is no file.
    Nowhere,
}

/// Whom images are accepted from: a policy, where signatures are, and what verifies them.
#[derive(Debug, Clone)]
pub struct TrustPolicy {
    policy: Policy,
    origin: PolicyOrigin,
    lookaside: LookasideConfig,
    gpgv: Gpgv,
}

/// Whoever can fetch the signatures of an image.
pub trait FindSignatures {
    /// All of them.
    ///
    /// # Errors
    /// If it cannot be known whether there are any.
    fn signatures(&self) -> std::result::Result<Vec<Signature>, BoxError>;
}

/// An image without signatures, by its format.
pub struct NoSignatures;

impl FindSignatures for NoSignatures {
    fn signatures(&self) -> std::result::Result<Vec<Signature>, BoxError> {
        Ok(Vec::new())
    }
}

impl TrustPolicy {
    /// The policy of a file.
    ///
    /// # Errors
    /// `Read`, `Policy`.
    pub fn load(path: &Path, lookaside: LookasideConfig, gpgv: Gpgv) -> Result<Self> {
        let bytes =
            std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let policy = Policy::read(&bytes)
            .map_err(|why| Error::Policy { path: path.to_owned(), why: why.0 })?;
        Ok(Self { policy, origin: PolicyOrigin::File(path.to_owned()), lookaside, gpgv })
    }

    /// A policy that lets everything in, for this reason.
    pub fn accept_anything(origin: PolicyOrigin) -> Self {
        Self {
            policy: Policy::accept_anything(),
            origin,
            lookaside: LookasideConfig::default(),
            gpgv: Gpgv::default(),
        }
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Where it comes from.
    pub fn origin(&self) -> &PolicyOrigin {
        &self.origin
    }

    /// Where signatures are.
    pub fn lookaside(&self) -> &LookasideConfig {
        &self.lookaside
    }

    /// Says whether an image may be used. `manifest` is the digest of its own manifest, not of an
    /// index that leads to it; `None` where the format has none. `None` is given where there is no
    /// policy at all.
    ///
    /// # Errors
    /// `Refused`; `Signatures` if those cannot be looked for.
    pub fn judge(
        &self,
        place: &ImagePlace,
        manifest: Option<&BlobDigest>,
        find: &dyn FindSignatures,
    ) -> Result<Option<TrustVerdict>> {
        let PolicyOrigin::File(file) = &self.origin else { return Ok(None) };
        let (section, requirements) = self.policy.section(place);
        let file = file.display().to_string();
        let mut verdict = TrustVerdict::of(file.clone(), section.to_string(), manifest);
        let judging = Judging { gpgv: &self.gpgv, place, manifest, find, all: OnceCell::new() };
        for requirement in requirements {
            match judging.requirement(requirement)? {
                Ok(accepted) => verdict.accepted.push(accepted),
                Err(why) => {
                    return Err(Error::Refused {
                        place: place.to_string(),
                        policy: file,
                        section: section.to_string(),
                        why,
                    });
                }
            }
        }
        Ok(Some(verdict))
    }
}

struct Judging<'a> {
    gpgv: &'a Gpgv,
    place: &'a ImagePlace,
    manifest: Option<&'a BlobDigest>,
    find: &'a dyn FindSignatures,
    all: OnceCell<Vec<Signature>>,
}

/// A requirement that holds, or why not.
type Outcome = std::result::Result<Accepted, String>;

impl Judging<'_> {
    fn requirement(&self, requirement: &Requirement) -> Result<Outcome> {
        let plain = |kind: &str| Accepted { kind: kind.to_owned(), signer: None, identity: None };
        Ok(match requirement {
            Requirement::AcceptAnything => Ok(plain(requirement.kind())),
            Requirement::Reject => Err("the policy rejects all images of this scope".to_owned()),
            Requirement::SignedBaseLayer => {
                Err("signedBaseLayer is implemented nowhere".to_owned())
            }
            Requirement::SignedBy { key_type: KeyType::GpgKeys, keys, identity } => {
                self.any(&|signature| self.simple(signature, keys, identity))?
            }
            Requirement::SignedBy { .. } => {
                Err("of the kinds of keys only GPGKeys is implemented".to_owned())
            }
            Requirement::Sigstore { signer, log, identity } => {
                match SigstoreRules::load(signer, log.as_ref()) {
                    Ok(rules) => {
                        self.any(&|signature| self.sigstore(signature, &rules, identity))?
                    }
                    Err(why) => Err(why),
                }
            }
        })
    }

    fn signatures(&self) -> Result<&[Signature]> {
        if let Some(all) = self.all.get() {
            return Ok(all);
        }
        let found = self
            .find
            .signatures()
            .map_err(|source| Error::Signatures { place: self.place.to_string(), source })?;
        Ok(self.all.get_or_init(|| found))
    }

    /// The first signature that fulfils it; `None` for one of another kind.
    fn any(&self, check: &dyn Fn(&Signature) -> Option<Outcome>) -> Result<Outcome> {
        let all = self.signatures()?;
        let mut reasons = Vec::new();
        for signature in all {
            match check(signature) {
                Some(Ok(accepted)) => return Ok(Ok(accepted)),
                Some(Err(why)) => reasons.push(why),
                None => {}
            }
        }
        Ok(Err(match (reasons.len(), all.len()) {
            (0, 0) => "a signature is required, and there is none".to_owned(),
            (0, others) => {
                format!("a signature is required, and there is none of that kind ({others} others)")
            }
            _ => {
                reasons.dedup();
                format!("no signature is accepted: {}", reasons.join("; "))
            }
        }))
    }

    fn simple(
        &self,
        signature: &Signature,
        keys: &KeySource,
        identity: &SignedIdentity,
    ) -> Option<Outcome> {
        let Signature::Simple(bytes) = signature else { return None };
        let checked = || {
            let signed = self.gpgv.verify(&crate::keys::load(keys)?, bytes)?;
            let payload = SignedPayload::read(&signed.bytes, PayloadForm::Simple)?;
            let name = self.matches(&payload, identity)?;
            Ok(Accepted {
                kind: "signedBy".to_owned(),
                signer: Some(signed.key),
                identity: Some(name),
            })
        };
        Some(checked())
    }

    fn sigstore(
        &self,
        signature: &Signature,
        rules: &SigstoreRules,
        identity: &SignedIdentity,
    ) -> Option<Outcome> {
        let checked = match signature {
            Signature::Simple(_) => return None,
            Signature::Attachment(one) if !one.is_signature() => return None,
            Signature::Attachment(one) => rules.attachment(one).and_then(|(signer, payload)| {
                let name = self.matches(&payload, identity)?;
                Ok((signer, Some(name)))
            }),
            Signature::Bundle(text) => self.manifest.map_or_else(
                || Err("the image has no manifest that a bundle could be about".to_owned()),
                |manifest| {
                    let (signer, subject) = rules.bundle(text, manifest)?;
                    self.named(subject.name.as_deref(), identity)?;
                    Ok((signer, subject.name))
                },
            ),
        };
        Some(checked.map(|(signer, name)| Accepted {
            kind: "sigstoreSigned".to_owned(),
            signer: Some(signer),
            identity: name,
        }))
    }

    /// Whether a payload is about this image; gives the name in it.
    fn matches(
        &self,
        payload: &SignedPayload,
        identity: &SignedIdentity,
    ) -> std::result::Result<String, String> {
        if self.manifest != Some(&payload.manifest) {
            return Err(format!("it is for the manifest {}, not for this one", payload.manifest));
        }
        self.named(Some(&payload.identity), identity)?;
        Ok(payload.identity.clone())
    }

    /// Whether that name is one for this image.
    fn named(
        &self,
        signed: Option<&str>,
        identity: &SignedIdentity,
    ) -> std::result::Result<(), String> {
        let name = self.place.name();
        let Some(signed) = signed else {
            // A digest says which image it must be. Without one a signature of any image would do.
            let pinned = name.is_some_and(|name| name.digest().is_some());
            return match (pinned, identity) {
                (true, SignedIdentity::MatchRepoDigestOrExact) => Ok(()),
                _ => Err("it names no repository; ask for the image by digest".to_owned()),
            };
        };
        match identity.accepts(name, signed) {
            true => Ok(()),
            false => {
                let kind = identity.kind();
                Err(format!("it is for the name {signed:?}, which {kind} does not accept"))
            }
        }
    }
}
