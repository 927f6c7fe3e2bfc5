//! References: the names that people give to images, by docker's grammar.
//!
//! ```text
//! reference  = [ domain "/" ] path [ ":" tag ] [ "@" digest ]
//! domain     = ( component *( "." component ) | "[" IPv6 "]" ) [ ":" port ]
//! path       = part *( "/" part ),  part = [a-z0-9]+ joined by ".", "_", "__" or dashes
//! tag        = [A-Za-z0-9_] followed by at most 127 of [A-Za-z0-9_.-]
//! ```
//! (github.com/distribution/reference, grammar and `ParseNormalizedNamed`.) The first part is a
//! domain only if it has a dot, a colon or a capital, or is `localhost`; otherwise the domain is
//! `docker.io`, and there a path of one part lies below `library/`.
//!
//! Invariants: a [`Reference`] is complete: it has a domain, a path, and a tag or a digest or
//! both (`latest` is filled in when it has neither). `Display` gives the whole form and parsing
//! that gives the same value back; [`Reference::familiar`] is the short form for people.

use std::fmt;
use std::str::FromStr;

use strata_tree::BlobDigest;

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL: &str = "library";
const DEFAULT_TAG: &str = "latest";

/// The longest path that registries accept, in bytes.
const PATH_MAX: usize = 255;
/// The longest tag, in bytes.
const TAG_MAX: usize = 128;

/// Text that is not a reference, with the rule that it breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an image reference: {rule}")]
pub struct ReferenceError {
    /// The whole text.
    pub text: String,
    /// The rule.
    pub rule: ReferenceRule,
}

/// The rules of the grammar that text can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceRule {
    /// Nothing stands before the tag or digest.
    #[error("the name is empty")]
    Empty,
    /// The domain has a bad character or an empty component.
    #[error(
        "the domain must be components of letters, digits and inner dashes, joined by dots, \
         or an IPv6 address in brackets"
    )]
    Domain,
    /// The port is not a number.
    #[error("the port must be digits")]
    Port,
    /// A capital letter in the path.
    #[error("the repository path must be lowercase")]
    Uppercase,
    /// Another character, or a separator in the wrong place.
    #[error(
        "each part of the path must be of a-z and 0-9, joined inside by one dot, one or two \
         underscores, or dashes"
    )]
    Path,
    /// The path is too long.
    #[error("the path is longer than 255 bytes")]
    Length,
    /// 64 hex digits would be taken for an id.
    #[error("64 hex digits are an image id, not a name")]
    LooksLikeId,
    /// A tag that breaks the grammar.
    #[error(
        "the tag must be 1 to 128 of letters, digits, underscore, dot and dash, and not begin \
         with a dot or a dash"
    )]
    Tag,
    /// A digest that is not sha256.
    #[error("the digest must be sha256: and 64 lowercase hex digits")]
    Digest,
}

/// The registry's host, with its port if one is given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(String);

/// The path of a repository on its registry, such as `library/ubuntu`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository(String);

/// A tag, such as `latest`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

impl Domain {
    fn parse(text: &str) -> Result<Self, ReferenceRule> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (inner, after) = rest.split_once(']').ok_or(ReferenceRule::Domain)?;
                let plausible =
                    !inner.is_empty() && inner.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
                if !plausible {
                    return Err(ReferenceRule::Domain);
                }
                match after.strip_prefix(':') {
                    Some(port) => (None, Some(port)),
                    None if after.is_empty() => (None, None),
                    None => return Err(ReferenceRule::Domain),
                }
            }
            None => match text.split_once(':') {
                Some((host, port)) => (Some(host), Some(port)),
                None => (Some(text), None),
            },
        };
        if port.is_some_and(|port| port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit())) {
            return Err(ReferenceRule::Port);
        }
        let component = |part: &str| {
            !part.is_empty()
                && !part.starts_with('-')
                && !part.ends_with('-')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        match host {
            Some(host) if !host.split('.').all(component) => Err(ReferenceRule::Domain),
            _ => Ok(Self(text.to_owned())),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Repository {
    fn parse(text: &str) -> Result<Self, ReferenceRule> {
        if text.is_empty() {
            return Err(ReferenceRule::Empty);
        }
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(ReferenceRule::Uppercase);
        }
        if text.len() > PATH_MAX {
            return Err(ReferenceRule::Length);
        }
        if !text.split('/').all(is_path_part) {
            return Err(ReferenceRule::Path);
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_path_part(part: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends =
        bytes.first().copied().is_some_and(plain) && bytes.last().copied().is_some_and(plain);
    ends && bytes.split(|b| plain(*b)).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
    })
}

impl Tag {
    /// Checks a tag alone.
    ///
    /// # Errors
    /// `ReferenceRule::Tag`.
    pub fn parse(text: &str) -> Result<Self, ReferenceRule> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let first = text.bytes().next().is_some_and(word);
        if first
            && text.len() <= TAG_MAX
            && text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(ReferenceRule::Tag)
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of an image, complete.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: Domain,
    repository: Repository,
    tag: Option<Tag>,
    digest: Option<BlobDigest>,
}

impl Reference {
    /// The registry's host.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The path of the repository on that host.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The tag; `None` only if there is a digest.
    pub fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// The digest of the manifest, if the reference pins one.
    pub fn digest(&self) -> Option<BlobDigest> {
        self.digest
    }

    /// The repository as docker shows it: without `docker.io/` and `library/`, unless what is left
    /// would be read as another name (`docker.io/other.host/a`, which docker shortens).
    pub fn familiar_name(&self) -> String {
        let path = self.repository.as_str();
        let short = match path.strip_prefix(OFFICIAL).and_then(|rest| rest.strip_prefix('/')) {
            Some(official) if !official.contains('/') => official,
            _ => path,
        };
        let is_same = self.domain.as_str() == DEFAULT_DOMAIN
            && Self::parse(short)
                .is_ok_and(|read| read.domain == self.domain && read.repository == self.repository);
        match is_same {
            true => short.to_owned(),
            false => format!("{}/{path}", self.domain.as_str()),
        }
    }

    /// The whole reference as docker shows it, such as `ubuntu:latest`.
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_name())
    }

    /// What a store keeps for this name: the complete text without a digest; `None` if there is
    /// no tag, as a digest alone names no place that could move.
    pub fn store_tag(&self) -> Option<String> {
        let tag = self.tag.as_ref()?;
        Some(format!("{}/{}:{}", self.domain.as_str(), self.repository.as_str(), tag.as_str()))
    }

    /// What a store keeps for an image that was asked for by digest alone, as docker does: the
    /// complete text without a tag; `None` without a digest.
    pub fn store_pin(&self) -> Option<String> {
        let digest = self.digest?;
        Some(format!("{}/{}@{digest}", self.domain.as_str(), self.repository.as_str()))
    }

    /// The repository with a digest, and without a tag.
    #[must_use]
    pub fn with_digest(&self, digest: BlobDigest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    fn with_suffix(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag.as_str());
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }

    fn parse(text: &str) -> Result<Self, ReferenceRule> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(digest.parse().map_err(|_| ReferenceRule::Digest)?))
            }
            None => (text, None),
        };
        // A colon before the last slash belongs to the port.
        let name_start = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[name_start..].find(':') {
            Some(colon) => {
                let colon = name_start + colon;
                (&rest[..colon], Some(Tag::parse(&rest[colon + 1..])?))
            }
            None => (rest, None),
        };
        if name.is_empty() {
            return Err(ReferenceRule::Empty);
        }
        if name.len() == 64
            && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        {
            return Err(ReferenceRule::LooksLikeId);
        }
        let (domain, path) = split_domain(name);
        let domain = Domain::parse(domain)?;
        let repository = if domain.as_str() == DEFAULT_DOMAIN && !path.contains('/') {
            // The bare part is checked first, so that an empty one is not hidden by `library/`.
            Repository::parse(path)?;
            Repository::parse(&format!("{OFFICIAL}/{path}"))?
        } else {
            Repository::parse(path)?
        };
        let tag = match (tag, digest) {
            (None, None) => Some(Tag(DEFAULT_TAG.to_owned())),
            (tag, _) => tag,
        };
        Ok(Self { domain, repository, tag, digest })
    }
}

/// Splits off the domain; what has none belongs to the default one.
fn split_domain(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((LEGACY_DOMAIN, rest)) => (DEFAULT_DOMAIN, rest),
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, name),
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text).map_err(|rule| ReferenceError { text: text.to_owned(), rule })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = format!("{}/{}", self.domain.as_str(), self.repository.as_str());
        f.write_str(&self.with_suffix(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_the_complete_and_the_familiar_form() {
        let hex = "0f".repeat(32);
        let pinned = format!("ubuntu@sha256:{hex}");
        let both = format!("ubuntu:22.04@sha256:{hex}");
        for (text, complete, familiar) in [
            ("ubuntu", "docker.io/library/ubuntu:latest", "ubuntu:latest"),
            ("ubuntu:22.04", "docker.io/library/ubuntu:22.04", "ubuntu:22.04"),
            ("docker.io/ubuntu", "docker.io/library/ubuntu:latest", "ubuntu:latest"),
            ("index.docker.io/library/ubuntu", "docker.io/library/ubuntu:latest", "ubuntu:latest"),
            ("user/app", "docker.io/user/app:latest", "user/app:latest"),
            ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("docker.io/a.b/c", "docker.io/a.b/c:latest", "docker.io/a.b/c:latest"),
            ("localhost:5000/x/y:1", "localhost:5000/x/y:1", "localhost:5000/x/y:1"),
            ("quay.io/a/b", "quay.io/a/b:latest", "quay.io/a/b:latest"),
            ("HOST/a", "HOST/a:latest", "HOST/a:latest"),
            ("[fe80::1]:5000/a", "[fe80::1]:5000/a:latest", "[fe80::1]:5000/a:latest"),
            ("[::1]/a", "[::1]/a:latest", "[::1]/a:latest"),
            ("a__b/c-d/e.f:T_1", "docker.io/a__b/c-d/e.f:T_1", "a__b/c-d/e.f:T_1"),
            ("a---b", "docker.io/library/a---b:latest", "a---b:latest"),
            ("x:5000", "docker.io/library/x:5000", "x:5000"),
            (&pinned, &format!("docker.io/library/{pinned}"), &pinned),
            (&both, &format!("docker.io/library/{both}"), &both),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), complete, "{text}");
            assert_eq!(reference.familiar(), familiar, "{text}");
            assert_eq!(complete.parse::<Reference>().unwrap(), reference, "{text}");
            assert_eq!(familiar.parse::<Reference>().unwrap(), reference, "{text}");
        }
    }

    #[test]
    fn errors_name_the_rule() {
        use ReferenceRule as R;
        let long = "a".repeat(256);
        let long_tag = format!("a:{}", "t".repeat(129));
        for (text, rule) in [
            ("", R::Empty),
            (":tag", R::Empty),
            ("docker.io/", R::Empty),
            ("localhost:5000/", R::Empty),
            ("Ubuntu", R::Uppercase),
            ("quay.io/Repo", R::Uppercase),
            ("a b", R::Path),
            ("a//b", R::Path),
            ("/a", R::Path),
            ("a/", R::Path),
            ("-a", R::Path),
            ("a-", R::Path),
            ("a..b", R::Path),
            ("a___b", R::Path),
            ("a._b", R::Path),
            ("../../etc", R::Domain),
            (".a/b", R::Domain),
            ("-h.io/b", R::Domain),
            ("[zz]/b:1", R::Path),
            ("[zz]:1/b", R::Domain),
            ("[::1/b", R::Domain),
            ("host:port/x", R::Port),
            ("host:/x", R::Port),
            ("a:", R::Tag),
            ("a:.b", R::Tag),
            ("a:b c", R::Tag),
            ("a:b:c", R::Tag),
            (&long_tag, R::Tag),
            (&long, R::Length),
            ("a@sha256:12", R::Digest),
            ("a@md5:00", R::Digest),
            (&"0f".repeat(32), R::LooksLikeId),
            ("caf\u{e9}", R::Path),
        ] {
            let error = text.parse::<Reference>().unwrap_err();
            assert_eq!(error.rule, rule, "{text}");
            assert!(error.to_string().contains(&rule.to_string()));
        }
    }

    #[test]
    fn a_store_keeps_the_tag_without_the_digest() {
        let hex = "0f".repeat(32);
        let tag = |text: &str| text.parse::<Reference>().unwrap().store_tag();
        assert_eq!(tag("x"), Some("docker.io/library/x:latest".to_owned()));
        assert_eq!(tag(&format!("x:1@sha256:{hex}")), Some("docker.io/library/x:1".to_owned()));
        assert_eq!(tag(&format!("x@sha256:{hex}")), None);
        let pin = |text: &str| text.parse::<Reference>().unwrap().store_pin();
        assert_eq!(pin("x"), None);
        assert_eq!(
            pin(&format!("x:1@sha256:{hex}")),
            Some(format!("docker.io/library/x@sha256:{hex}"))
        );
    }
}
