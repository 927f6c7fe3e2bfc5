//! HMAC-SHA256 (RFC 2104) of paths: equal paths have equal hashes, under one key.
//!
//! Invariant: the key is never printed.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Bytes of a block of SHA-256.
const BLOCK: usize = 64;

/// A key, ready for hashing.
#[derive(Clone)]
pub struct HashKey {
    /// The inner and the outer hash, each after its padded key.
    begun: Box<[Sha256; 2]>,
}

impl HashKey {
    /// A key of any length.
    ///
    /// # Errors
    /// `NoKey` if it is empty.
    pub fn new(key: &[u8]) -> Result<Self> {
        if key.is_empty() {
            return Err(Error::NoKey);
        }
        let mut block = [0; BLOCK];
        match key.len() > BLOCK {
            true => block[..32].copy_from_slice(&Sha256::digest(key)),
            false => block[..key.len()].copy_from_slice(key),
        }
        let padded = |pad: u8| Sha256::new().chain_update(block.map(|byte| byte ^ pad));
        Ok(Self { begun: Box::new([padded(0x36), padded(0x5c)]) })
    }

    /// The hash of a text.
    pub fn hash(&self, text: &[u8]) -> [u8; 32] {
        let [inner, outer] = &*self.begun;
        let inner = inner.clone().chain_update(text).finalize();
        outer.clone().chain_update(inner).finalize().into()
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey")
    }
}

/// Hex digits, in lower case.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_rfc_4231() {
        let of = |key: &[u8], text: &[u8]| hex(&HashKey::new(key).unwrap().hash(text));
        assert_eq!(
            of(&[0x0b; 20], b"Hi There"),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
        assert_eq!(
            of(b"Jefe", b"what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            of(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First"),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    #[test]
    fn a_key_is_not_empty_and_not_printed() {
        assert!(matches!(HashKey::new(b""), Err(Error::NoKey)));
        assert_eq!(format!("{:?}", HashKey::new(b"secret").unwrap()), "HashKey");
    }
}
