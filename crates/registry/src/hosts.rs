//! Hosts as configurations name them: exactly, by domain, or by a range of addresses.
//!
//! Invariants: letter case counts nothing; a name is never looked up, so a range means hosts that
//! are given by their address alone.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

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

#[cfg(test)]
mod tests {
    use super::*;

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
