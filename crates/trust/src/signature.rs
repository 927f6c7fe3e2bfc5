//! A signature as it was found, unverified.
//!
//! Invariant: nothing in it is believed here.

use std::collections::BTreeMap;

use crate::strict::{Fields, StrictValue};

/// The media type of what cosign signs.
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// What every signature in a lookaside begins with if it is not OpenPGP.
const SIGSTORE_JSON: &[u8] = b"\0sigstore-json\n";

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signature {
    /// Simple signing: an OpenPGP message.
    Simple(Vec<u8>),
    /// Cosign's attachment: a layer of the manifest that is tagged `sha256-<hex>.sig`.
    Attachment(Attachment),
    /// A bundle, by the bytes of its JSON.
    Bundle(Vec<u8>),
}

/// What cosign attaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The layer's media type.
    pub media_type: String,
    /// The layer's bytes: what is signed.
    pub payload: Vec<u8>,
    /// The layer's annotations: the signature, and what proves it.
    pub annotations: BTreeMap<String, String>,
}

impl Attachment {
    /// Whether it is a signature, not something else that is attached.
    pub(crate) fn is_signature(&self) -> bool {
        self.media_type == SIMPLE_SIGNING
    }
}

impl Signature {
    /// What lies in a lookaside (github.com/containers/image, internal/signature, `FromBlob`).
    ///
    /// # Errors
    /// What is neither OpenPGP packets nor the JSON of an attachment, in words.
    pub fn from_lookaside(bytes: &[u8]) -> Result<Self, String> {
        if let Some(json) = bytes.strip_prefix(SIGSTORE_JSON) {
            return Self::from_json(json).ok_or_else(|| "not a signature of sigstore".to_owned());
        }
        // A packet of compressed data, a one-pass signature, or a signature (RFC 9580, 4.2).
        let tag = bytes.first().and_then(|first| match first {
            0xc0..=0xff => Some(first & 0x3f),
            0x80..=0xbf => Some((first >> 2) & 0xf),
            _ => None,
        });
        match tag {
            Some(2 | 4 | 8) => Ok(Self::Simple(bytes.to_vec())),
            _ => Err("neither OpenPGP nor sigstore's".to_owned()),
        }
    }

    fn from_json(json: &[u8]) -> Option<Self> {
        let mut fields = Fields::of(StrictValue::read(json).ok()?, "the signature").ok()?;
        let media_type = fields.text("mimeType").ok()?;
        let payload = fields.bytes_if_any("payload").ok()??;
        let annotations = fields.take("annotations")?.object("annotations").ok()?;
        let annotations = annotations
            .into_iter()
            .map(|(key, value)| value.text(&key).ok().map(|text| (key, text)));
        let annotations = annotations.collect::<Option<_>>()?;
        Some(Self::Attachment(Attachment { media_type, payload, annotations }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_says_what_it_is() {
        for good in [&[0xa3_u8, 1][..], &[0x90, 1], &[0xc4, 1], &[0x89], &[0xc2], &[0xc8]] {
            assert!(matches!(Signature::from_lookaside(good), Ok(Signature::Simple(_))));
        }
        for bad in [&b"-----BEGIN PGP MESSAGE-----"[..], b"", b"{}", &[0x99], b"\0other\n{}"] {
            assert!(Signature::from_lookaside(bad).is_err(), "{bad:?}");
        }
        let json = b"\0sigstore-json\n{\"mimeType\":\"x\",\"payload\":\"eA==\",\
                     \"annotations\":{\"a\":\"b\"}}";
        let Ok(Signature::Attachment(one)) = Signature::from_lookaside(json) else { panic!() };
        assert_eq!((one.payload.as_slice(), one.annotations["a"].as_str()), (&b"x"[..], "b"));
        assert!(!one.is_signature());
    }
}
