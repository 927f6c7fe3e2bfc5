//! Trust: which images may come in, by the files of podman, skopeo and CRI-O.
//!
//! ```text
//! policy.json   --> Policy --section--> requirements --+
//! registries.d  --> LookasideConfig --> where signatures are
//!                                                      v
//! ImagePlace, digest, signatures --> TrustPolicy::judge --> TrustVerdict | Error::Refused
//!                                                  |
//!                 openpgp: gpgv;  sigstore: keys, fulcio, rekor, bundle
//! ```
//! Whoever calls fetches the signatures ([`FindSignatures`]): this crate opens no connection.
//!
//! Invariants: what is not wholly understood is refused, a policy as well as a signature; no key is
//! trusted but those of the policy; the environment is never read, and the user's keyrings neither.

mod bundle;
mod error;
mod fulcio;
mod judge;
mod keys;
mod lookaside;
mod named;
mod openpgp;
mod payload;
mod place;
mod policy;
mod rekor;
mod signature;
mod sigstore;
mod strict;
mod verdict;

pub use error::{BoxError, Error, Result};
pub use judge::{FindSignatures, NoSignatures, PolicyOrigin, TrustPolicy};
pub use lookaside::{LookasideConfig, SignatureSources};
pub use named::SignedIdentity;
pub use openpgp::{Gpgv, gpgv_signer};
pub use place::{FileTransport, ImagePlace};
pub use policy::{KeySource, KeyType, Policy, PolicySection, Requirement, Signer};
pub use signature::{Attachment, Signature};
pub use verdict::{Accepted, TrustVerdict};

/// Whether a media type is that of sigstore's bundles.
pub fn is_bundle(media_type: &str) -> bool {
    media_type.starts_with(bundle::BUNDLE)
}
