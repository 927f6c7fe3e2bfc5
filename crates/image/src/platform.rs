//! Platforms: which of an index's manifests is meant.
//!
//! Invariant: comparison is exact on os and architecture; a variant decides only where both
//! sides name one, and an exact variant wins over none.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use crate::error::Error;

/// An operating system, an architecture and perhaps its variant, in Go's words (`linux/arm64/v8`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// Such as `linux`.
    #[serde(default)]
    pub os: String,
    /// Such as `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// Such as `v8`.
    #[serde(default)]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform that this program runs on.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", None),
            "powerpc64" => ("ppc64", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        Self {
            os: std::env::consts::OS.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// How well `self` serves one who asked for `wanted`: `None` not at all, higher is better.
    pub fn serves(&self, wanted: &Self) -> Option<u8> {
        if self.os != wanted.os || self.architecture != wanted.architecture {
            return None;
        }
        match (self.variant(), wanted.variant()) {
            (a, b) if a == b => Some(2),
            (Some(_), Some(_)) => None,
            _ => Some(1),
        }
    }

    /// The variant that counts: `v8` is what arm64 means without one.
    fn variant(&self) -> Option<&str> {
        match self.variant.as_deref() {
            Some("") => None,
            Some("v8") if self.architecture == "arm64" => None,
            variant => variant,
        }
    }

    /// BuildKit marks attestations, which are no images, this way.
    pub(crate) fn is_unknown(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts: Vec<&str> = text.split('/').collect();
        let word = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        if !(2..=3).contains(&parts.len()) || !parts.iter().all(|part| word(part)) {
            return Err(Error::PlatformText(text.to_owned()));
        }
        Ok(Self {
            os: parts[0].to_owned(),
            architecture: match parts[1] {
                "x86_64" | "x86-64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            }
            .to_owned(),
            variant: parts.get(2).map(|&part| part.to_owned()),
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_decide_only_where_both_name_one() {
        for (offered, wanted, rank) in [
            ("linux/amd64", "linux/amd64", Some(2)),
            ("linux/amd64", "linux/arm64", None),
            ("windows/amd64", "linux/amd64", None),
            ("linux/arm64/v8", "linux/arm64", Some(2)),
            ("linux/arm/v7", "linux/arm", Some(1)),
            ("linux/arm/v6", "linux/arm/v7", None),
            ("linux/amd64/v3", "linux/x86_64", Some(1)),
        ] {
            let offered: Platform = offered.parse().unwrap();
            assert_eq!(offered.serves(&wanted.parse().unwrap()), rank, "{offered} {wanted}");
        }
    }

    #[test]
    fn text_round_trips_or_is_refused() {
        for text in ["linux/amd64", "linux/arm/v7"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
        for text in ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/a b"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
        assert_eq!(Platform::host().os, "linux");
    }
}
