//! A credential: name and password, or a token.
//!
//! Invariant: no secret is part of `Debug`.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A credential. See the module.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// Name and password.
    Basic {
        /// The name.
        username: String,
        /// The password, or an access token in its place.
        password: String,
    },
    /// An OAuth2 refresh token.
    IdentityToken(String),
    /// A token that the registry itself takes (`registrytoken`).
    RegistryToken(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { username, .. } => write!(f, "Basic({username})"),
            Self::IdentityToken(_) => f.write_str("IdentityToken"),
            Self::RegistryToken(_) => f.write_str("RegistryToken"),
        }
    }
}

impl Credential {
    /// The value of an `Authorization: Basic` header (RFC 7617); `None` for a token.
    pub(crate) fn basic(&self) -> Option<String> {
        match self {
            Self::Basic { username, password } => {
                Some(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
            }
            Self::IdentityToken(_) | Self::RegistryToken(_) => None,
        }
    }
}
