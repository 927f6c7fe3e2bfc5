//! Addresses of registries: `url::Url`, as far as HTTP needs it, with stricter rules.
//!
//! Reading, joining (RFC 3986, dot segments included), hosts and default ports are the `url`
//! crate's. It reads what people type into browsers, which is more than a registry may say.
//!
//! Invariants: a [`Url`] has a scheme of http or https, a host that is written, and an absolute
//! path; it has no fragment; text with spaces, control characters or other than ASCII is refused;
//! user information is refused, for credentials come from the configuration alone; two addresses
//! have the same origin only if scheme, host and port are equal, the default port filled in.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// How a server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// An absolute address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    inner: url::Url,
    scheme: Scheme,
}

impl Url {
    /// The root of a host, which may have a port; `None` if that is no host.
    pub(crate) fn new(scheme: Scheme, host: &str) -> Option<Self> {
        Self::parse(&format!("{}://{host}/", scheme.text()))
    }

    /// Reads an absolute address; `None` if the text is not one, or one that is not followed.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let host = written_host(text)?;
        if !plain(text) || host.is_empty() || host.contains('@') {
            return None;
        }
        Self::checked(url::Url::parse(text).ok()?)
    }

    /// The address that a `Location` header of this one means (RFC 9110, 10.2.2).
    pub(crate) fn join(&self, location: &str) -> Option<Self> {
        // A backslash is a slash to the parser below, so it is one here.
        let slashes = location.replace('\\', "/");
        if let Some(rest) = slashes.strip_prefix("//") {
            return Self::parse(&format!("{}://{rest}", self.scheme.text()));
        }
        if slashes.split(['/', '?']).next().is_some_and(|first| first.contains(':')) {
            return Self::parse(location);
        }
        if location.is_empty() || !plain(location) {
            return None;
        }
        Self::checked(self.inner.join(location).ok()?)
    }

    fn checked(mut inner: url::Url) -> Option<Self> {
        let scheme = match inner.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        if !inner.has_host() || !inner.username().is_empty() || inner.password().is_some() {
            return None;
        }
        inner.set_fragment(None);
        Some(Self { inner, scheme })
    }

    /// Another path, and perhaps a query, at the same host.
    #[must_use]
    pub(crate) fn at(&self, path: &str) -> Self {
        let mut inner = self.inner.clone();
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path, None),
        };
        inner.set_path(path);
        inner.set_query(query);
        Self { inner, scheme: self.scheme }
    }

    /// The same with a further query parameter; `value` is escaped.
    #[must_use]
    pub(crate) fn with_query(&self, name: &str, value: &str) -> Self {
        let mut inner = self.inner.clone();
        let known = self.inner.query().map(|query| format!("{query}&")).unwrap_or_default();
        inner.set_query(Some(&format!("{known}{name}={}", escape(value))));
        Self { inner, scheme: self.scheme }
    }

    /// How it is spoken to.
    pub(crate) fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host, with its port if that is not the scheme's own.
    pub(crate) fn host(&self) -> &str {
        self.inner.authority()
    }

    /// The host and its port.
    pub(crate) fn host_and_port(&self) -> String {
        let port = self.inner.port_or_known_default().unwrap_or_default();
        format!("{}:{port}", self.inner.host_str().unwrap_or_default())
    }

    /// The path without the query.
    pub(crate) fn path(&self) -> &str {
        self.inner.path()
    }

    /// The query, if there is one.
    pub(crate) fn query(&self) -> Option<&str> {
        self.inner.query()
    }

    /// Whether a secret for one of the two may be sent to the other.
    pub(crate) fn same_origin(&self, other: &Self) -> bool {
        self.inner.origin() == other.inner.origin()
    }

    /// Scheme and host.
    pub(crate) fn origin(&self) -> String {
        format!("{}://{}", self.scheme.text(), self.host())
    }

    /// All of it.
    pub(crate) fn whole(&self) -> &str {
        self.inner.as_str()
    }
}

impl fmt::Display for Url {
    /// Without the query, which may hold a signature that grants access.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.path())
    }
}

/// Host and port of an absolute address as they are written; `None` without a scheme.
pub(crate) fn written_host(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("://")?;
    rest.split(['/', '\\', '?', '#']).next()
}

fn plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What stands for itself in a query value (RFC 3986); slash, colon and comma are what scopes are
/// made of.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/')
    .remove(b':')
    .remove(b',');

/// Escapes a query value.
pub(crate) fn escape(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_joined() {
        let base = Url::parse("https://r.io:444/v2/a/blobs/uploads/?x=1").unwrap();
        for (location, whole) in [
            ("https://CDN.io/b?sig=1#f", "https://cdn.io/b?sig=1"),
            ("http://cdn.io", "http://cdn.io/"),
            ("http://cdn.io?a=b", "http://cdn.io/?a=b"),
            ("//cdn.io/b", "https://cdn.io/b"),
            ("/v2/x", "https://r.io:444/v2/x"),
            ("y?z=:", "https://r.io:444/v2/a/blobs/uploads/y?z=:"),
            ("?z=1", "https://r.io:444/v2/a/blobs/uploads/?z=1"),
            ("../y", "https://r.io:444/v2/a/blobs/y"),
            ("./../../../../../x/./z", "https://r.io:444/x/z"),
            ("/v2/%2e%2e/x", "https://r.io:444/x"),
            ("\\\\cdn.io\\b", "https://cdn.io/b"),
        ] {
            assert_eq!(base.join(location).unwrap().whole(), whole);
        }
        for bad in [
            "",
            "ftp://x/",
            "https://u:p@h/",
            "https:///x",
            "/a b",
            "javascript:x",
            "/\\u@h/x",
            "http:x",
        ] {
            assert_eq!(base.join(bad), None, "{bad}");
        }
        assert_eq!(base.to_string(), "https://r.io:444/v2/a/blobs/uploads/");
        let more = base.with_query("digest", "sha256:ab").with_query("from", "a b&c");
        assert!(more.whole().ends_with("?x=1&digest=sha256:ab&from=a%20b%26c"));
    }

    #[test]
    fn origins_differ_by_scheme_host_and_port() {
        let url = |text| Url::parse(text).unwrap();
        let base = url("https://r.io/v2/");
        for (other, same) in [
            ("https://r.io:443/", true),
            ("https://R.io/x", true),
            ("https://r.io:444/", false),
            ("http://r.io/", false),
            ("http://r.io:443/", false),
            ("https://r.io.evil/", false),
        ] {
            assert_eq!(base.same_origin(&url(other)), same, "{other}");
        }
        assert!(url("http://[::1]:80/").same_origin(&url("http://[::1]/")));
        assert!(!url("http://[::1]:81/").same_origin(&url("http://[::1]/")));
    }
}
