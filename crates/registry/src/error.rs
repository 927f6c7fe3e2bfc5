//! Why a registry did not do what it was asked, endpoint by endpoint.
//!
//! Invariants: the error names every endpoint that was tried and why each failed; "not there",
//! "not allowed" and "not reached" are never mixed up; no secret and no query string is in it.

use std::fmt;
use std::path::Path;

/// The result of everything in this crate that is not a single exchange.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a registry, or what is configured for it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// The cause.
        source: std::io::Error,
    },
    /// A configuration file is not what its format says.
    #[error("{path}: {part}: {why}")]
    Config {
        /// The file.
        path: String,
        /// What is read from it.
        part: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A credential helper failed.
    #[error(
        "docker-credential-{helper}: {why}; see credHelpers and credsStore in the credentials file"
    )]
    Helper {
        /// Its name without the prefix.
        helper: String,
        /// What went wrong.
        why: String,
    },
    /// Registries did not do what they were asked.
    #[error(transparent)]
    Refused(#[from] Box<RegistryError>),
}

impl Error {
    pub(crate) fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    pub(crate) fn config(path: &Path, part: &'static str, why: impl Into<String>) -> Self {
        Self::Config { path: path.display().to_string(), part, why: why.into() }
    }
}

/// What an endpoint is said to be whose name does not resolve; that does not pass by waiting.
pub(crate) const UNKNOWN_HOST: &str = "there is no host of this name";

/// What an endpoint is said to be that accepts and then keeps silent.
pub(crate) const SILENT: &str = "no answer in time";

/// How a proxy's fault begins; that does not pass by waiting either.
pub(crate) const BAD_PROXY: &str = "the proxy";

/// Why one endpoint failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointError {
    /// It answered that there is no such thing.
    NotFound(String),
    /// It wants credentials, or others.
    Denied(String),
    /// No answer came: name resolution, connection, TLS, or silence.
    Unreachable(String),
    /// It answered that it has no time (429).
    Busy(String),
    /// It failed itself (5xx), or does not speak the protocol.
    Failed(String),
    /// What it gave is not what its digest says.
    Wrong(String),
    /// The configuration forbids it.
    Blocked(String),
}

impl EndpointError {
    /// The kind in a word or two.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "not found",
            Self::Denied(_) => "access denied",
            Self::Unreachable(_) => "unreachable",
            Self::Busy(_) => "too many requests",
            Self::Failed(_) => "failed",
            Self::Wrong(_) => "wrong content",
            Self::Blocked(_) => "blocked",
        }
    }

    /// What it said.
    pub fn detail(&self) -> &str {
        match self {
            Self::NotFound(text)
            | Self::Denied(text)
            | Self::Unreachable(text)
            | Self::Busy(text)
            | Self::Failed(text)
            | Self::Wrong(text)
            | Self::Blocked(text) => text,
        }
    }

    /// Whether the same request may well succeed a little later.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable(why) => why != UNKNOWN_HOST && !why.starts_with(BAD_PROXY),
            Self::Busy(_) | Self::Failed(_) => true,
            Self::NotFound(_) | Self::Denied(_) | Self::Wrong(_) | Self::Blocked(_) => false,
        }
    }

    /// Whether nothing came at all, for as long as is waited.
    pub(crate) fn is_silence(&self) -> bool {
        matches!(self, Self::Unreachable(why) if why == SILENT)
    }

    /// Whether this says that the endpoint is out of order, whatever is asked.
    pub(crate) fn is_outage(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detail() {
            "" => f.write_str(self.kind()),
            detail => write!(f, "{}: {detail}", self.kind()),
        }
    }
}

impl std::error::Error for EndpointError {}

/// One endpoint that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Scheme, host and repository.
    pub endpoint: String,
    /// Why it failed.
    pub why: EndpointError,
}

/// What was asked of registries, and what each said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryError {
    /// What was wanted.
    pub what: String,
    /// Whom it was asked of, in order; the last is the origin if it was asked at all.
    pub attempts: Vec<Attempt>,
}

impl RegistryError {
    /// What was wanted, and what each endpoint said to it.
    pub fn new(what: impl Into<String>, attempts: Vec<Attempt>) -> Self {
        Self { what: what.into(), attempts }
    }

    /// The same of one endpoint.
    pub fn one(what: impl Into<String>, endpoint: impl Into<String>, why: EndpointError) -> Self {
        Self::new(what, vec![Attempt { endpoint: endpoint.into(), why }])
    }

    /// What decides: the origin's answer, for mirrors may lack anything.
    pub fn decisive(&self) -> Option<&EndpointError> {
        self.attempts.last().map(|attempt| &attempt.why)
    }

    fn way_out(&self) -> Option<&'static str> {
        Some(match self.decisive()? {
            EndpointError::NotFound(_) => "check name and tag",
            EndpointError::Denied(_) => {
                "the repository does not exist or needs other credentials: see `strata login`"
            }
            EndpointError::Unreachable(text) if text.contains("certificate") => {
                "for a registry with a certificate of its own: --tls-verify=false, or list it as \
                 insecure"
            }
            EndpointError::Unreachable(_) => "check the name of the registry, network and proxies",
            EndpointError::Busy(_) => "try again later, or log in, which often raises the limit",
            EndpointError::Blocked(_) => "see registries.conf",
            EndpointError::Failed(_) | EndpointError::Wrong(_) => return None,
        })
    }
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.what)?;
        let mut between = "";
        for attempt in &self.attempts {
            write!(f, "{between}{}: {}", attempt.endpoint, attempt.why)?;
            between = "; ";
        }
        match self.way_out() {
            Some(way_out) => write!(f, " ({way_out})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for RegistryError {}
