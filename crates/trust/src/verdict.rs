//! What was found when an image was let in, to be kept with its name.
//!
//! Invariant: [`TrustPolicy::judge`](crate::TrustPolicy::judge) alone makes a verdict, so there is
//! none of an image that was refused.

use serde::{Deserialize, Serialize};
use strata_tree::BlobDigest;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrustVerdict {
    /// The policy's file.
    pub policy: String,
    /// The part of it that counted: `default`, or a transport and a scope.
    pub scope: String,
    /// The manifest that was judged; none for an archive that has none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub manifest: Option<String>,
    /// What held, one for each requirement.
    pub accepted: Vec<Accepted>,
}

/// A requirement that held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    /// What policies call the requirement.
    #[serde(rename = "type")]
    pub kind: String,
    /// Who signed: a fingerprint, a key's digest, or an address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signer: Option<String>,
    /// The name that was signed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub identity: Option<String>,
}

impl TrustVerdict {
    pub(crate) fn of(policy: String, scope: String, manifest: Option<&BlobDigest>) -> Self {
        Self { policy, scope, manifest: manifest.map(BlobDigest::to_string), accepted: Vec::new() }
    }

    /// The text that is kept.
    pub fn to_text(&self) -> String {
        // Texts and lists of texts always become JSON.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads the text again; `None` for any other text.
    pub fn from_text(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Whether a signature was asked for and found.
    pub fn is_signed(&self) -> bool {
        self.accepted.iter().any(|one| one.signer.is_some())
    }
}
