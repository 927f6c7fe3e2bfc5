//! Which identity a signature may be for: `signedIdentity` of containers-policy.json(5).
//!
//! A signature names the image that it was made for. If any image signed with the same key would
//! do, whoever may write to a registry could give an old or another image the name of this one.
//!
//! Invariants: the text in a signature counts as it is; no tag is filled in, so one without tag
//! and digest matches repositories only. What cannot be read matches nothing.

use strata_registry::Reference;

use crate::strict::{Fields, Malformed, StrictValue};

/// The name in a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SignedName {
    reference: Reference,
    /// It has neither a tag nor a digest.
    is_bare: bool,
}

impl SignedName {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let last = text.rsplit('/').next().unwrap_or(text);
        Some(Self { reference: text.parse().ok()?, is_bare: !last.contains([':', '@']) })
    }

    /// Whether both are names of one repository.
    fn is_in_repository_of(&self, other: &Reference) -> bool {
        self.reference.domain() == other.domain()
            && self.reference.repository() == other.repository()
    }
}

/// Which names in signatures are accepted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SignedIdentity {
    /// The reference of the image, tag and all.
    MatchExact,
    /// The same, but the repository alone for an image that is asked for by digest.
    #[default]
    MatchRepoDigestOrExact,
    /// Any name in the repository of the image.
    MatchRepository,
    /// This name, whatever the image is called.
    ExactReference(String),
    /// Any name in this repository, whatever the image is called.
    ExactRepository(String),
    /// As `MatchRepoDigestOrExact`, for an image whose name begins with `prefix` after putting
    /// `signed` in its place: a mirror of other people's signed images.
    RemapIdentity {
        /// What names of images begin with.
        prefix: String,
        /// What the signer wrote instead.
        signed: String,
    },
}

impl SignedIdentity {
    pub(crate) fn read(value: StrictValue, what: &str) -> Result<Self, Malformed> {
        let mut fields = Fields::of(value, what)?;
        let kind = fields.text("type")?;
        let identity = match kind.as_str() {
            "matchExact" => Self::MatchExact,
            "matchRepoDigestOrExact" => Self::MatchRepoDigestOrExact,
            "matchRepository" => Self::MatchRepository,
            "exactReference" => {
                let text = fields.text("dockerReference")?;
                match SignedName::parse(&text) {
                    Some(name) if !name.is_bare => Self::ExactReference(text),
                    Some(_) => {
                        let why =
                            format!("dockerReference {text:?} has neither a tag nor a digest");
                        return Err(Malformed(why));
                    }
                    None => return Err(Malformed(format!("{text:?} is no dockerReference"))),
                }
            }
            "exactRepository" => {
                let text = fields.text("dockerRepository")?;
                if SignedName::parse(&text).is_none() {
                    return Err(Malformed(format!("{text:?} is no dockerRepository")));
                }
                Self::ExactRepository(text)
            }
            "remapIdentity" => {
                let (prefix, signed) = (fields.text("prefix")?, fields.text("signedPrefix")?);
                for text in [&prefix, &signed] {
                    if !is_prefix(text) {
                        return Err(Malformed(format!("{text:?} is no prefix of image names")));
                    }
                }
                Self::RemapIdentity { prefix, signed }
            }
            other => return Err(Malformed(format!("{what} is of an unknown type, {other:?}"))),
        };
        fields.end()?;
        Ok(identity)
    }

    /// What policies call it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::MatchExact => "matchExact",
            Self::MatchRepoDigestOrExact => "matchRepoDigestOrExact",
            Self::MatchRepository => "matchRepository",
            Self::ExactReference(_) => "exactReference",
            Self::ExactRepository(_) => "exactRepository",
            Self::RemapIdentity { .. } => "remapIdentity",
        }
    }

    /// Whether a signature for `signed` is one for the image that is called `image`; `None` for
    /// an image of a file, which has no such name.
    pub(crate) fn accepts(&self, image: Option<&Reference>, signed: &str) -> bool {
        let Some(signed) = SignedName::parse(signed) else { return false };
        match self {
            Self::ExactReference(text) => {
                let wanted = SignedName::parse(text).filter(|wanted| !wanted.is_bare);
                wanted.is_some_and(|wanted| !signed.is_bare && wanted.reference == signed.reference)
            }
            Self::ExactRepository(text) => SignedName::parse(text)
                .is_some_and(|wanted| signed.is_in_repository_of(&wanted.reference)),
            Self::MatchExact => {
                image.is_some_and(|image| !signed.is_bare && *image == signed.reference)
            }
            Self::MatchRepository => image.is_some_and(|image| signed.is_in_repository_of(image)),
            Self::MatchRepoDigestOrExact => {
                image.is_some_and(|image| digest_or_exact(image, &signed))
            }
            Self::RemapIdentity { prefix, signed: instead } => image
                .and_then(|image| remapped(image, prefix, instead))
                .is_some_and(|image| digest_or_exact(&image, &signed)),
        }
    }
}

fn digest_or_exact(image: &Reference, signed: &SignedName) -> bool {
    if signed.is_bare {
        return false;
    }
    match image.tag() {
        Some(_) => *image == signed.reference,
        None => signed.is_in_repository_of(image),
    }
}

/// The image's name with another prefix; as it is if it does not begin with that.
fn remapped(image: &Reference, prefix: &str, instead: &str) -> Option<Reference> {
    let whole = image.to_string();
    let name = format!("{}/{}", image.domain().as_str(), image.repository().as_str());
    let rest = name.strip_prefix(prefix);
    if !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
        return Some(image.clone());
    }
    let text = format!("{instead}{}", whole.strip_prefix(prefix)?);
    // Only a complete name is one: `docker.io/x` would become `docker.io/library/x`.
    text.parse::<Reference>().ok().filter(|name| name.to_string() == text)
}

/// A domain, or a domain and a path below it.
fn is_prefix(text: &str) -> bool {
    let domain = text.split('/').next().unwrap_or_default();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':');
    let bracketed = domain.starts_with('[');
    let plausible = !domain.is_empty() && (bracketed || domain.bytes().all(plain));
    let probe = match text.contains('/') {
        true => text.to_owned(),
        false => format!("{text}/x"),
    };
    plausible && SignedName::parse(&probe).is_some_and(|name| name.is_bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(identity: &SignedIdentity, image: &str, signed: &str) -> bool {
        identity.accepts(Some(&image.parse().unwrap()), signed)
    }

    const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    #[test]
    fn names_match_as_containers_image_has_it() {
        use SignedIdentity as I;
        let by_digest = format!("h.io/a/b@{DIGEST}");
        for (identity, image, signed, expected) in [
            (I::MatchExact, "h.io/a/b:1", "h.io/a/b:1", true),
            (I::MatchExact, "h.io/a/b:1", "h.io/a/b:2", false),
            (I::MatchExact, "h.io/a/b", "h.io/a/b", false),
            (I::MatchExact, &by_digest, "h.io/a/b:1", false),
            (I::MatchExact, "busybox:1", "docker.io/library/busybox:1", true),
            (I::MatchRepoDigestOrExact, "h.io/a/b:1", "h.io/a/b:1", true),
            (I::MatchRepoDigestOrExact, "h.io/a/b:1", "h.io/a/b:2", false),
            (I::MatchRepoDigestOrExact, &by_digest, "h.io/a/b:2", true),
            (I::MatchRepoDigestOrExact, &by_digest, "h.io/a/c:2", false),
            (I::MatchRepoDigestOrExact, &by_digest, "h.io/a/b", false),
            (I::MatchRepository, "h.io/a/b:1", "h.io/a/b", true),
            (I::MatchRepository, "h.io/a/b:1", "h.io/a/bb:1", false),
            (I::MatchRepository, "h.io/a/b:1", "no name!", false),
            (I::ExactReference("h.io/x:1".into()), "h.io/a/b:1", "h.io/x:1", true),
            (I::ExactReference("h.io/x:1".into()), "h.io/a/b:1", "h.io/a/b:1", false),
            (I::ExactRepository("h.io/x".into()), "h.io/a/b:1", "h.io/x:9", true),
            (I::ExactRepository("h.io/x".into()), "h.io/a/b:1", "h.io/xy:9", false),
        ] {
            assert_eq!(
                accepts(&identity, image, signed),
                expected,
                "{identity:?} {image} {signed}"
            );
        }
        assert!(!I::MatchExact.accepts(None, "h.io/a:1"));
        assert!(I::ExactRepository("h.io/a".into()).accepts(None, "h.io/a:1"));
    }

    #[test]
    fn prefixes_are_put_in_place_of_others() {
        let remap = |prefix: &str, signed: &str| SignedIdentity::RemapIdentity {
            prefix: prefix.into(),
            signed: signed.into(),
        };
        for (prefix, signed, image, in_signature, expected) in [
            ("m.io/up", "up.io", "m.io/up/a:1", "up.io/a:1", true),
            ("m.io/up", "up.io", "m.io/up/a:1", "m.io/up/a:1", false),
            ("m.io/up", "up.io", "m.io/upper/a:1", "m.io/upper/a:1", true),
            ("m.io/up", "up.io/x", "m.io/up:1", "up.io/x:1", true),
            ("m.io", "docker.io", "m.io/busybox:1", "docker.io/library/busybox:1", false),
            ("m.io", "docker.io/library", "m.io/busybox:1", "docker.io/library/busybox:1", true),
            ("localhost", "h.io", "localhost:5000/a:1", "localhost:5000/a:1", true),
        ] {
            let identity = remap(prefix, signed);
            assert_eq!(accepts(&identity, image, in_signature), expected, "{prefix} {image}");
        }
        for good in ["h.io", "h.io:5000", "h.io/a/b", "localhost", "[::1]:5000/a"] {
            assert!(is_prefix(good), "{good}");
        }
        for bad in ["", "h_o", "h.io/", "h.io/A", "h.io/a:1", "/a", "h.io//a"] {
            assert!(!is_prefix(bad), "{bad}");
        }
    }
}
