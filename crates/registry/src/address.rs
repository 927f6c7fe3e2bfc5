//! Addresses of registries, as far as HTTP needs them.
//!
//! Invariants: a [`Url`] has a scheme of http or https, a host and an absolute path; user
//! information is refused, for credentials come from the configuration alone; two addresses
//! have the same origin only if scheme, host and port are equal, the default port filled in.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

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

    fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// An absolute address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) scheme: Scheme,
    /// Host, and port if one is given.
    pub(crate) host: String,
    /// Path and query, beginning with a slash.
    pub(crate) path: String,
}

impl Url {
    /// An address on a host.
    pub(crate) fn new(scheme: Scheme, host: &str, path: impl Into<String>) -> Self {
        Self { scheme, host: host.to_owned(), path: path.into() }
    }

    /// Reads an absolute address; `None` if it is none that is followed.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(end);
        if host.is_empty() || host.contains('@') || !plain(host) || !plain(path) {
            return None;
        }
        let path = path.split('#').next().unwrap_or_default();
        let slash = if path.starts_with('/') { "" } else { "/" };
        Some(Self { scheme, host: host.to_ascii_lowercase(), path: format!("{slash}{path}") })
    }

    /// The address that a `Location` header of this one means (RFC 9110, 10.2.2).
    pub(crate) fn join(&self, location: &str) -> Option<Self> {
        if let Some(rest) = location.strip_prefix("//") {
            return Self::parse(&format!("{}://{rest}", self.scheme.text()));
        }
        if location.split(['/', '?']).next().is_some_and(|first| first.contains(':')) {
            return Self::parse(location);
        }
        if location.is_empty() || !plain(location) {
            return None;
        }
        let base = self.path.split('?').next().unwrap_or_default();
        let path = match location.as_bytes()[0] {
            b'/' => location.to_owned(),
            b'?' => format!("{base}{location}"),
            _ => {
                let dir = base.rfind('/').map_or(0, |slash| slash + 1);
                format!("{}{location}", &base[..dir])
            }
        };
        Some(Self { path, ..self.clone() })
    }

    /// The same with a further query parameter; `value` is escaped.
    #[must_use]
    pub(crate) fn with_query(&self, name: &str, value: &str) -> Self {
        let joint = if self.path.contains('?') { '&' } else { '?' };
        Self { path: format!("{}{joint}{name}={}", self.path, escape(value)), ..self.clone() }
    }

    /// The host without its port.
    pub(crate) fn name(&self) -> &str {
        host_name(&self.host)
    }

    /// The port, the scheme's own if none is given.
    pub(crate) fn port(&self) -> u16 {
        let after = &self.host[self.name().len()..];
        let digits = after.rsplit(':').next().unwrap_or_default();
        digits.parse().unwrap_or(self.scheme.port())
    }

    /// Whether what is told to one of the two may be told to the other.
    pub(crate) fn same_origin(&self, other: &Self) -> bool {
        (self.scheme, self.name(), self.port()) == (other.scheme, other.name(), other.port())
    }

    /// Scheme and host.
    pub(crate) fn origin(&self) -> String {
        format!("{}://{}", self.scheme.text(), self.host)
    }
}

impl fmt::Display for Url {
    /// Without the query, which may hold a signature that grants access.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.path.split('?').next().unwrap_or_default())
    }
}

impl Url {
    /// All of it.
    pub(crate) fn whole(&self) -> String {
        format!("{}{}", self.origin(), self.path)
    }
}

fn plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The host without its port; an IPv6 address keeps its brackets.
pub(crate) fn host_name(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inner, _)) => &host[..inner.len() + 2],
        None => host.split(':').next().unwrap_or(host),
    }
}

/// Its address, if the host is given by one.
pub(crate) fn host_address(host: &str) -> Option<IpAddr> {
    host_name(host).trim_matches(['[', ']']).parse().ok()
}

/// Whether a host is this machine.
pub fn is_loopback(host: &str) -> bool {
    let name = host_name(host);
    name.eq_ignore_ascii_case("localhost")
        || host_address(host).is_some_and(|address| address.is_loopback())
}

/// A host, `host:port`, `*.domain`, or a range of addresses (`10.0.0.0/8`), as insecure
/// registries and exceptions from proxies are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPattern(String);

impl FromStr for HostPattern {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let text = text.strip_prefix("https://").or(text.strip_prefix("http://")).unwrap_or(text);
        Ok(Self(text.trim_end_matches('/').to_ascii_lowercase()))
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl HostPattern {
    /// Whether `host`, with its port if one is given, is meant.
    pub(crate) fn matches(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        if self.0 == host || self.0 == host_name(&host) {
            return true;
        }
        if let Some(domain) = self.0.strip_prefix("*.") {
            return below(&host, domain);
        }
        self.range().is_some_and(|(base, bits)| {
            host_address(&host).is_some_and(|address| in_range(address, base, bits))
        })
    }

    /// The same in the manner of `NO_PROXY`: a domain means what is below it too.
    pub(crate) fn matches_domain(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        self.0 == "*" || self.matches(&host) || below(&host, self.0.trim_start_matches('.'))
    }

    fn range(&self) -> Option<(IpAddr, u32)> {
        let (base, bits) = self.0.split_once('/')?;
        Some((base.parse().ok()?, bits.parse().ok()?))
    }
}

fn below(host: &str, domain: &str) -> bool {
    [host, host_name(host)].iter().any(|host| {
        host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')) && !domain.is_empty()
    })
}

fn in_range(address: IpAddr, base: IpAddr, bits: u32) -> bool {
    let wide = |address: IpAddr| match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let most = if base.is_ipv4() { 32 } else { 128 };
    if address.is_ipv4() != base.is_ipv4() || bits > most {
        return false;
    }
    bits == 0 || (wide(address) ^ wide(base)) >> (128 - bits) == 0
}

/// Escapes a query value (RFC 3986); slash, colon and comma, which scopes are made of, may stand.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => out.push(char::from(byte)),
            b'-' | b'.' | b'_' | b'~' | b'/' | b':' | b',' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
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
        ] {
            assert_eq!(base.join(location).unwrap().whole(), whole);
        }
        for bad in ["", "ftp://x/", "https://u:p@h/", "https:///x", "/a b", "javascript:x"] {
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

    #[test]
    fn hosts_match_patterns() {
        let matches =
            |pattern: &str, host: &str| pattern.parse::<HostPattern>().unwrap().matches(host);
        assert!(matches("http://r.io:5000/", "r.io:5000"));
        assert!(matches("r.io", "R.io:5000") && !matches("r.io:5000", "r.io"));
        assert!(matches("*.r.io", "a.r.io") && !matches("*.r.io", "r.io"));
        assert!(matches("10.0.0.0/8", "10.1.2.3:5000") && !matches("10.0.0.0/8", "11.0.0.1"));
        assert!(matches("fd00::/8", "[fd00::1]:5000") && !matches("10.0.0.0/8", "a.io"));
        assert!(matches("0.0.0.0/0", "1.2.3.4") && !matches("1.2.3.4/33", "1.2.3.4:1"));
        let near =
            |pattern: &str, host| pattern.parse::<HostPattern>().unwrap().matches_domain(host);
        assert!(near("*", "x") && near("r.io", "a.r.io") && near(".r.io", "a.r.io:5"));
        assert!(!near("r.io", "xr.io") && !near("", "r.io"));
        for (host, loopback) in [
            ("localhost:5000", true),
            ("127.3.2.1", true),
            ("[::1]:80", true),
            ("localhost.evil", false),
            ("128.0.0.1", false),
        ] {
            assert_eq!(is_loopback(host), loopback, "{host}");
        }
    }
}
