//! Digests: every sha256 in stratafs has the type of the thing that it names.
//!
//! Invariants: a digest value is always 32 whole bytes; text is parsed once, here, and only
//! `sha256:` followed by 64 lowercase hex digits is accepted (OCI image-spec, descriptor.md,
//! "Digests"), so a digest may be used in a path without any further check.

use std::fmt;
use std::str::FromStr;

/// Text that is not `sha256:<64 lowercase hex digits>`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a digest: expected sha256:<64 lowercase hex digits>")]
pub struct DigestError(pub String);

fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let bytes = text.as_bytes();
    if bytes.len() != 64 {
        return None;
    }
    let nibble = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut out = [0; 32];
    for (slot, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
        *slot = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(out)
}

macro_rules! digest_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Wraps the 32 bytes that a sha256 gave.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// 64 lowercase hex digits, without the `sha256:` prefix: a safe file name.
            pub fn hex(&self) -> String {
                self.0.iter().map(|byte| format!("{byte:02x}")).collect()
            }

            /// The first 12 hex digits, as docker's listings show ids.
            pub fn short(&self) -> String {
                self.hex()[..12].to_owned()
            }

            /// Parses 64 lowercase hex digits, as they stand in a store's file names.
            ///
            /// # Errors
            /// `DigestError` for anything else.
            pub fn from_hex(text: &str) -> Result<Self, DigestError> {
                parse_hex(text).map(Self).ok_or_else(|| DigestError(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "sha256:{}", self.hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.hex())
            }
        }

        impl FromStr for $name {
            type Err = DigestError;

            fn from_str(text: &str) -> Result<Self, DigestError> {
                text.strip_prefix("sha256:")
                    .and_then(parse_hex)
                    .map(Self)
                    .ok_or_else(|| DigestError(text.to_owned()))
            }
        }
    };
}

digest_type! {
    /// The sha256 of a layer's uncompressed tar (OCI config.md, `rootfs.diff_ids`).
    DiffId
}
digest_type! {
    /// Names a stack of layers (OCI config.md, "Layer ChainID").
    ChainId
}
digest_type! {
    /// The sha256 of an image's config (OCI config.md, "ImageID").
    ImageId
}
digest_type! {
    /// The sha256 of stored or transported bytes: manifest, config, compressed layer.
    BlobDigest
}
digest_type! {
    /// The sha256 of the bytes of one regular file.
    ContentDigest
}

digest_type! {
    /// The fs-verity digest of the bytes of one regular file, by sha256 (Linux, fsverity.rst).
    VerityDigest
}

/// An image id is the digest of the config blob.
impl From<ImageId> for BlobDigest {
    fn from(id: ImageId) -> Self {
        Self(id.0)
    }
}

/// A config's blob digest is the id of its image.
impl From<BlobDigest> for ImageId {
    fn from(digest: BlobDigest) -> Self {
        Self(digest.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_refuses_everything_else() {
        let text = format!("sha256:{}", "0f".repeat(32));
        let id: DiffId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(id.short(), "0f0f0f0f0f0f");
        for bad in [
            "",
            "sha256:",
            &"0f".repeat(32),
            &format!("sha256:{}", "0F".repeat(32)),
            &format!("sha512:{}", "0f".repeat(32)),
            &format!("sha256:{}/", "0f".repeat(31)),
            &format!("sha256:../{}", "0".repeat(61)),
        ] {
            assert!(bad.parse::<DiffId>().is_err(), "{bad}");
        }
    }
}
