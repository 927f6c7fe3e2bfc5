//! What names begin with, as `registries.conf` writes it: the prefixes of its registries, and the
//! locations that stand in their places.
//!
//! ```text
//! HOST[/PATH]   *.DOMAIN[/PATH]   either is whole parts of a path
//! HOST/PATH:TAG   HOST/PATH@DIGEST   of one image
//! ```
//! (containers-registries.conf(5), "Choosing a [[registry]] TOML table".)

use serde::Deserialize;

use crate::hosts::host_name;
use crate::reference::Reference;

/// The prefix of a registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct NamePrefix(String);

impl NamePrefix {
    /// The same without slashes at its end and capitals in its host; that of the location where
    /// there is none.
    pub(crate) fn or(&self, location: &str) -> Self {
        let text = if self.0.is_empty() { location } else { &self.0 };
        let text = without_slash(text);
        let (host, path) = text.split_at(host_of(&text).len());
        Self(host.to_ascii_lowercase() + path)
    }

    /// As it is written.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// Whether it is for the hosts below a domain.
    pub(crate) fn is_wild(&self) -> bool {
        self.0.starts_with("*.")
    }

    /// Whether any name has it.
    pub(crate) fn fits_any(&self) -> bool {
        // A host stands for the asterisk.
        match self.0.strip_prefix("*.") {
            Some(domain) => is_beginning(&format!("host.{domain}")),
            None => is_beginning(&self.0),
        }
    }

    /// A location without the tag or digest that the prefix has, too: an image is found under its
    /// own at any place.
    pub(crate) fn place(&self, location: &str) -> String {
        let location = without_slash(location);
        let pin = &self.0[name_of(&self.0).len()..];
        location.strip_suffix(pin).unwrap_or(&location).to_owned()
    }

    /// Whether it is the prefix of all names of a host.
    pub(crate) fn has_host(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        self.on(&host).as_ref() == Some(&host)
    }

    /// What follows it in the path of a name that it fits.
    pub(crate) fn rest(&self, reference: &Reference) -> Option<String> {
        let domain = &reference.domain().as_str().to_ascii_lowercase();
        let name = format!("{domain}/{}", reference.repository().as_str());
        let prefix = self.on(domain)?;
        if let Some(pin) = prefix.strip_prefix(&name).filter(|pin| !pin.is_empty()) {
            let tag = reference.tag().map(|tag| format!(":{}", tag.as_str())).unwrap_or_default();
            let digest = reference.digest().map(|it| format!("@{it}")).unwrap_or_default();
            let fits = pin == tag || pin == digest || pin == tag + &digest;
            return fits.then(String::new);
        }
        let rest = name.strip_prefix(&prefix)?;
        (rest.is_empty() || rest.starts_with('/')).then(|| rest.to_owned())
    }

    /// It as names of that host begin with it; `None` if none does.
    fn on(&self, domain: &str) -> Option<String> {
        let Some(below) = self.0.strip_prefix('*') else { return Some(self.0.clone()) };
        let (parent, path) = below.split_at(below.find('/').unwrap_or(below.len()));
        // A domain with a port is for that port.
        let host = if parent.contains(':') { domain } else { host_name(domain) };
        let is_below = host.len() > parent.len() && host.ends_with(parent);
        is_below.then(|| format!("{domain}{path}"))
    }
}

fn without_slash(text: &str) -> String {
    text.trim_end_matches('/').to_owned()
}

/// The host of a location.
pub(crate) fn host_of(location: &str) -> &str {
    location.split('/').next().unwrap_or(location)
}

/// A host and perhaps the beginning of a path, and no tag and no digest.
pub(crate) fn is_location(text: &str) -> bool {
    name_of(text) == text && is_beginning(text)
}

/// The host and the path of a text that may have a tag or a digest, too.
fn name_of(text: &str) -> &str {
    let path = text.find('/').unwrap_or(text.len());
    let pin = text[path..].find([':', '@']).map_or(text.len(), |at| path + at);
    &text[..pin]
}

/// Whether a complete reference may begin with it.
fn is_beginning(text: &str) -> bool {
    // A host alone is completed, so that the grammar of references can be asked.
    let whole = if text.contains('/') { text.to_owned() } else { format!("{text}/x") };
    whole.parse::<Reference>().is_ok_and(|reference| reference.domain().as_str() == host_of(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_fit_names_their_tags_and_their_digests() {
        let pin = format!("@sha256:{}", "0f".repeat(32));
        for (prefix, name, rest) in [
            ("a.io", "a.io/x/y:1", Some("/x/y")),
            ("a.io", "a.io:5000/x", None),
            ("a.io", "a.io.b/x", None),
            ("a.io:5000", "a.io:5000/x", Some("/x")),
            ("a.io/x", "a.io/x/y", Some("/y")),
            ("a.io/x", "a.io/x:1", Some("")),
            ("a.io/x", "a.io/xy", None),
            ("a.io/x//", "a.io/x/y", Some("/y")),
            ("a.io/x:1", "a.io/x:1", Some("")),
            ("a.io/x:1", &format!("a.io/x:1{pin}"), Some("")),
            ("a.io/x:latest", "a.io/x", Some("")),
            ("a.io/x:1", "a.io/x:1.2", None),
            ("a.io/x:1", "a.io/x/y:1", None),
            ("a.io/x:1", &format!("a.io/x{pin}"), None),
            (&format!("a.io/x{pin}"), &format!("a.io/x{pin}"), Some("")),
            (&format!("a.io/x{pin}"), &format!("a.io/x:1{pin}"), Some("")),
            (&format!("a.io/x{pin}"), "a.io/x:1", None),
            ("*.a.io", "b.c.a.io:5000/x", Some("/x")),
            ("*.a.io", "a.io/x", None),
            ("*.a.io:5000", "b.a.io:5000/x", Some("/x")),
            ("*.a.io:5000", "b.a.io/x", None),
            ("*.a.io/x", "b.a.io/x/y", Some("/y")),
            ("*.a.io/x", "b.a.io/y", None),
            ("*.a.io/x:1", "b.a.io/x:1", Some("")),
            ("*.io", "a.io/x", Some("/x")),
            ("A.io/x", "a.io/x/y", Some("/y")),
            ("a.io/x", "A.IO/x/y", Some("/y")),
            ("*.A.io", "b.a.IO/x", Some("/x")),
        ] {
            let fits = NamePrefix(prefix.to_owned()).or("");
            assert!(fits.fits_any(), "{prefix}");
            let found = fits.rest(&name.parse().unwrap());
            assert_eq!(found.as_deref(), rest, "{prefix} in {name}");
        }
    }

    #[test]
    fn what_no_name_begins_with_is_no_prefix() {
        for text in ["https://a.io", "a.io//x", "team", "a.io/X", "*a.io", "*.", "a.io/x:", "a b"] {
            assert!(!NamePrefix(text.to_owned()).fits_any(), "{text}");
        }
    }
}
