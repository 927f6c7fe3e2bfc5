//! Platforms: which of an index's manifests is meant. The one place that decides it, for archives,
//! layouts and registries alike.
//!
//! The choice is containerd's, so that docker and strata take the same image: what runs on the
//! platform counts, and of that what asks most of it.
//!
//! | wanted | serves it, the best first |
//! |---|---|
//! | amd64/vN | amd64 of variants vN to v2, then v1, which is amd64 without a variant; then 386 |
//! | arm/vN | arm of variants vN to v5; without a variant it is v7 |
//! | arm64/vN.M | arm64 up to that variant; without one it is v8; then arm |
//! | anything else | the same variant; then, if one side names none, any |
//!
//! The newest of several versions of an operating system (Windows has them) counts, or one of the
//! build that was asked for: `windows(10.0.17763)/amd64`.
//!
//! Invariants: another operating system never serves; a variant that asks for more than is wanted
//! never does.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use strata_registry::or_default;

use crate::error::Error;

/// An operating system, an architecture and perhaps its variant, in Go's words (`linux/arm64/v8`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
pub struct Platform {
    /// Such as `linux`.
    #[serde(default, deserialize_with = "or_default")]
    pub os: String,
    /// Such as `amd64`.
    #[serde(default, deserialize_with = "or_default")]
    pub architecture: String,
    /// Such as `v8`.
    #[serde(default)]
    pub variant: Option<String>,
    /// Such as `10.0.17763.1`.
    #[serde(rename = "os.version", default)]
    pub os_version: Option<String>,
}

/// How well a platform serves another: higher is better.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    fit: Fit,
    /// The system's version, number by number.
    version: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// It may be for any platform.
    Unsaid,
    /// The machine also runs that architecture, of this level.
    Elder(u16),
    /// The architecture itself, of this level.
    Own(u16),
}

impl Rank {
    /// That of an image whose platform nobody says.
    pub(crate) fn unsaid() -> Self {
        Self { fit: Fit::Unsaid, version: Vec::new() }
    }

    /// Whether it is an older architecture that runs as well.
    pub(crate) fn is_elder(&self) -> bool {
        matches!(self.fit, Fit::Elder(_))
    }

    /// Whether it is the architecture itself.
    pub(crate) fn is_own(&self) -> bool {
        matches!(self.fit, Fit::Own(_))
    }
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
            os_version: None,
        }
    }

    /// How well `self` serves a request for `wanted`; `None`: not at all.
    pub fn serves(&self, wanted: &Self) -> Option<Rank> {
        if self.os != wanted.os {
            return None;
        }
        let version = numbers(self.os_version.as_deref());
        let build = numbers(wanted.os_version.as_deref());
        // The fourth number is a revision, which changes nothing that runs.
        if !version.is_empty() && build.iter().zip(&version).take(3).any(|(a, b)| a != b) {
            return None;
        }
        Some(Rank { fit: self.fit(wanted)?, version })
    }

    /// The same for what a config says, which often has no variant where the index had one.
    pub(crate) fn may_serve(&self, wanted: &Self) -> Option<Rank> {
        let unsaid = said(&self.variant).is_none() && self.architecture == wanted.architecture;
        match unsaid {
            true => Self { variant: wanted.variant.clone(), ..self.clone() }.serves(wanted),
            false => self.serves(wanted),
        }
    }

    fn fit(&self, wanted: &Self) -> Option<Fit> {
        let levels = (self.level(), wanted.level());
        match (self.architecture.as_str(), wanted.architecture.as_str()) {
            (own, other) if own != other => match (own, other) {
                ("386", "amd64") => Some(Fit::Elder(0)),
                ("arm", "arm64") => levels.0.map(Fit::Elder),
                _ => None,
            },
            ("amd64" | "arm" | "arm64", _) if levels.0.is_some() && levels.1.is_some() => {
                levels.0.filter(|own| Some(*own) <= levels.1).map(Fit::Own)
            }
            _ => match (said(&self.variant), said(&wanted.variant)) {
                (a, b) if a == b => Some(Fit::Own(2)),
                (Some(_), Some(_)) => None,
                _ => Some(Fit::Own(1)),
            },
        }
    }

    /// The variant as a number, where variants are levels that include the lower ones.
    fn level(&self) -> Option<u16> {
        let variant = match (self.architecture.as_str(), said(&self.variant)) {
            ("amd64", None) => "1",
            ("arm", None) => "7",
            ("arm64", None) => "8",
            (_, variant) => variant?.trim_start_matches('v'),
        };
        let (major, minor) = variant.split_once('.').unwrap_or((variant, "0"));
        Some(u16::from(major.parse::<u8>().ok()?) << 8 | u16::from(minor.parse::<u8>().ok()?))
    }

    /// BuildKit marks attestations, which are no images, this way.
    pub(crate) fn is_unknown(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }

    /// Whether it says nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.os.is_empty() && self.architecture.is_empty()
    }
}

fn said(variant: &Option<String>) -> Option<&str> {
    variant.as_deref().filter(|variant| !variant.is_empty())
}

fn numbers(version: Option<&str>) -> Vec<u64> {
    let parts = version.unwrap_or_default().split('.');
    parts.map_while(|part| part.parse().ok()).collect()
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
        let system = parts[0].strip_suffix(')').and_then(|system| system.split_once('('));
        let (os, version) = match system {
            Some((os, version)) => (os, Some(version)),
            None => (parts[0], None),
        };
        let words = parts[1..].iter().copied().chain([os]).chain(version);
        if !(2..=3).contains(&parts.len()) || !words.into_iter().all(word) {
            return Err(Error::PlatformText(text.to_owned()));
        }
        let (architecture, variant) = match parts[1] {
            "x86_64" | "x86-64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "i386" => ("386", None),
            "armhf" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v6")),
            other => (other, None),
        };
        Ok(Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: parts.get(2).copied().or(variant).map(str::to_owned),
            os_version: version.map(str::to_owned),
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match said(&self.os_version) {
            Some(version) => write!(f, "{}({version})/{}", self.os, self.architecture)?,
            None => write!(f, "{}/{}", self.os, self.architecture)?,
        }
        match said(&self.variant) {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of the platforms serve one, the best first.
    fn served(wanted: &str, offered: &[&str]) -> Vec<String> {
        let wanted: Platform = wanted.parse().unwrap();
        let ranked = offered.iter().map(|text| text.parse::<Platform>().unwrap());
        let mut ranked: Vec<_> =
            ranked.filter_map(|one| Some((one.serves(&wanted)?, one.to_string()))).collect();
        ranked.sort_by(|a, b| b.0.cmp(&a.0));
        ranked.into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn the_choice_is_containerds() {
        let amd64 = ["linux/amd64/v3", "linux/386", "linux/amd64", "linux/amd64/v2"];
        let arm = ["linux/arm/v5", "linux/arm/v7", "linux/arm/v6", "linux/arm64"];
        let windows = [
            "windows(10.0.17763.1)/amd64",
            "windows(10.0.20348.2)/amd64",
            "windows(10.0.17763.22)/amd64",
            "windows(10.0.17763.3)/amd64",
        ];
        for (wanted, offered, right) in [
            ("linux/amd64", &amd64[..], &["linux/amd64", "linux/386"][..]),
            ("linux/amd64", &["linux/amd64/v1", "linux/amd64/v2"], &["linux/amd64/v1"]),
            ("linux/amd64/v1", &amd64, &["linux/amd64", "linux/386"]),
            ("linux/amd64/v2", &amd64, &["linux/amd64/v2", "linux/amd64", "linux/386"]),
            (
                "linux/amd64/v4",
                &amd64,
                &["linux/amd64/v3", "linux/amd64/v2", "linux/amd64", "linux/386"],
            ),
            ("linux/386", &amd64, &["linux/386"]),
            ("linux/arm64", &arm, &["linux/arm64", "linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
            ("linux/arm", &arm, &["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
            ("linux/arm/v6", &arm, &["linux/arm/v6", "linux/arm/v5"]),
            ("linux/arm/v6", &["linux/arm"], &[]),
            ("linux/arm64", &["linux/arm64/v8", "linux/arm64/v9"], &["linux/arm64/v8"]),
            (
                "linux/arm64/v8.2",
                &["linux/arm64/v8", "linux/arm64/v8.1"],
                &["linux/arm64/v8.1", "linux/arm64/v8"],
            ),
            (
                "linux/riscv64",
                &["linux/riscv64", "linux/riscv64/rva23"],
                &["linux/riscv64", "linux/riscv64/rva23"],
            ),
            ("linux/mips/x", &["linux/mips/y", "linux/mips"], &["linux/mips"]),
            ("linux/amd64", &["windows/amd64", "freebsd/amd64"], &[]),
            (
                "windows/amd64",
                &windows,
                &[
                    "windows(10.0.20348.2)/amd64",
                    "windows(10.0.17763.22)/amd64",
                    "windows(10.0.17763.3)/amd64",
                    "windows(10.0.17763.1)/amd64",
                ],
            ),
            (
                "windows(10.0.17763.3)/amd64",
                &windows,
                &[
                    "windows(10.0.17763.22)/amd64",
                    "windows(10.0.17763.3)/amd64",
                    "windows(10.0.17763.1)/amd64",
                ],
            ),
        ] {
            assert_eq!(served(wanted, offered), right, "{wanted} of {offered:?}");
        }
    }

    #[test]
    fn text_round_trips_or_is_refused() {
        for text in ["linux/amd64", "linux/arm/v7", "windows(10.0.17763)/amd64"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
        for (text, same) in [("linux/x86_64/v2", "linux/amd64/v2"), ("linux/armhf", "linux/arm/v7")]
        {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), same);
        }
        for text in ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/a b", "w()/a", "w(1/a"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
        assert_eq!(Platform::host().os, "linux");
    }
}
