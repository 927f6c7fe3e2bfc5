//! Why a registry did not do what it was asked, endpoint by endpoint.
//!
//! Invariants: the error names every endpoint that was tried and why each failed; "not there",
//! "not allowed" and "not reached" are never mixed up; no secret and no query string is in it.

use std::fmt;

/// What an endpoint is said to be whose name does not resolve; that does not pass by waiting.
pub(crate) const UNKNOWN_HOST: &str = "there is no host of this name";

/// What an endpoint is said to be that accepts and then keeps silent.
pub(crate) const SILENT: &str = "no answer in time";

/// How a proxy's fault begins; that does not pass by waiting either.
pub(crate) const BAD_PROXY: &str = "the proxy";

/// Why one endpoint failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
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

impl Refusal {
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

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detail() {
            "" => f.write_str(self.kind()),
            detail => write!(f, "{}: {detail}", self.kind()),
        }
    }
}

impl std::error::Error for Refusal {}

/// One endpoint that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Scheme, host and repository.
    pub endpoint: String,
    /// Why it failed.
    pub why: Refusal,
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
    pub(crate) fn new(what: impl Into<String>, attempts: Vec<Attempt>) -> Self {
        Self { what: what.into(), attempts }
    }

    pub(crate) fn one(what: impl Into<String>, endpoint: impl Into<String>, why: Refusal) -> Self {
        Self::new(what, vec![Attempt { endpoint: endpoint.into(), why }])
    }

    /// What decides: the origin's answer, for mirrors may lack anything.
    pub fn decisive(&self) -> Option<&Refusal> {
        self.attempts.last().map(|attempt| &attempt.why)
    }

    fn way_out(&self) -> Option<&'static str> {
        Some(match self.decisive()? {
            Refusal::NotFound(_) => "check name and tag",
            Refusal::Denied(_) => {
                "the repository does not exist or needs other credentials: see `strata login`"
            }
            Refusal::Unreachable(text) if text.contains("certificate") => {
                "for a registry with a certificate of its own: --tls-verify=false, or list it as \
                 insecure"
            }
            Refusal::Unreachable(_) => "check the name of the registry, network and proxies",
            Refusal::Busy(_) => "try again later, or log in, which often raises the limit",
            Refusal::Blocked(_) => "see registries.conf",
            Refusal::Failed(_) | Refusal::Wrong(_) => return None,
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
