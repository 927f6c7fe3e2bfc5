//! Which endpoints a name leads to: mirrors, rewritten names, blocked and insecure registries.
//!
//! ```text
//! registries.conf (containers, version 2)    [[registry]] prefix, location, insecure, blocked
//!                                            [[registry.mirror]] location, insecure,
//!                                              pull-from-mirror = all | digest-only | tag-only
//! daemon.json (docker)                       registry-mirrors (of Docker Hub),
//!                                            insecure-registries
//! ```
//! (containers-registries.conf(5); dockerd reference, "Daemon configuration file".)
//!
//! A name belongs to the `[[registry]]` whose prefix is the longest that fits: a host, `*.` and a
//! domain, either with the beginning of a path, or a name with its tag or digest. Its mirrors come
//! first, in order, then the daemon's for Docker Hub, then the registry itself.
//!
//! Invariants: a short name means Docker Hub and nothing else, whatever
//! `unqualified-search-registries` says; a blocked registry is asked for nothing, nor are its
//! mirrors, and one that is to be blocked by a prefix that no name can have is refused, so that no
//! block is without effect; mirrors are for pulling only.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::address::{Scheme, Url, written_host};
use crate::client::Endpoint;
use crate::error::{EndpointError, Error, RegistryError, Result};
use crate::hosts::HostPattern;
use crate::null::or_default;
use crate::prefix::{NamePrefix, host_of, is_location};
use crate::reference::Reference;

const HUB: &str = "docker.io";

/// What the configuration says.
#[derive(Debug, Clone, Default)]
pub struct RegistrySettings {
    registries: Vec<Registry>,
    hub_mirrors: Vec<HubMirror>,
    insecure: Vec<HostPattern>,
    /// The parts of the daemon's configuration that make no sense and are ignored.
    pub faults: Vec<String>,
    /// The files that it was read from.
    pub sources: Vec<PathBuf>,
}

/// A mirror of Docker Hub as `daemon.json` has it.
#[derive(Debug, Clone)]
struct HubMirror {
    scheme: Scheme,
    /// As it is written, with its port if one is given.
    host: String,
}

impl HubMirror {
    /// `None` if it is not an address, or has a path or a query.
    fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).filter(|url| url.path() == "/" && url.query().is_none())?;
        Some(Self { scheme: url.scheme(), host: written_host(text)?.to_ascii_lowercase() })
    }
}

/// One registry or mirror, as listings show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorInfo {
    /// For which names it is.
    pub prefix: String,
    /// Where it is.
    pub location: String,
    /// `http` where it is not to be asked otherwise, else `https`.
    pub scheme: &'static str,
    /// Plain http and any certificate are allowed.
    pub insecure: bool,
    /// Nothing of it may be pulled.
    pub blocked: bool,
    /// What it may be asked for: `all`, `digest-only` or `tag-only`.
    pub pulls: &'static str,
    /// It stands in for the registry of that prefix.
    pub is_mirror: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Registry {
    #[serde(default)]
    prefix: NamePrefix,
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<Mirror>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: Pulls,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Pulls {
    #[default]
    #[serde(alias = "")]
    All,
    DigestOnly,
    TagOnly,
}

impl Pulls {
    fn text(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::DigestOnly => "digest-only",
            Self::TagOnly => "tag-only",
        }
    }
}

#[derive(Deserialize)]
struct RegistriesConf {
    #[serde(default)]
    registry: Vec<Registry>,
    /// The tables of version 1.
    registries: Option<toml::Table>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct DaemonJson {
    #[serde(default, deserialize_with = "or_default")]
    registry_mirrors: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    insecure_registries: Vec<String>,
}

impl RegistrySettings {
    /// Adds a `registries.conf`; a registry that is known already is replaced. A file that is
    /// not there adds nothing.
    ///
    /// # Errors
    /// `Config`, `Io`.
    pub fn add_registries_conf(&mut self, path: &Path) -> Result<()> {
        let Some(text) = read(path)? else { return Ok(()) };
        let bad = |why: String| Error::config(path, "registries", why);
        let conf: RegistriesConf = toml::from_str(&text).map_err(|e| bad(e.to_string()))?;
        if conf.registries.is_some() {
            return Err(bad("it is of version 1; write [[registry]] tables".to_owned()));
        }
        for registry in conf.registry {
            let Some(registry) = registry.checked().map_err(bad)? else { continue };
            self.registries.retain(|known| known.prefix != registry.prefix);
            self.registries.push(registry);
        }
        self.sources.push(path.to_owned());
        Ok(())
    }

    /// Adds docker's `daemon.json`. A file that is not there adds nothing; it is another
    /// program's, so what makes no sense in it is kept in `faults` and stops nobody.
    pub fn add_daemon_json(&mut self, path: &Path) {
        let bad = |why: String| format!("{}: {why}", path.display());
        let text = match read(path) {
            Ok(Some(text)) if !text.trim().is_empty() => text,
            Ok(_) => return,
            Err(error) => return self.faults.push(bad(format!("it is not read: {error}"))),
        };
        let conf: DaemonJson = match serde_json::from_str(&text) {
            Ok(conf) => conf,
            Err(error) => {
                return self.faults.push(bad(format!("{error}; nothing of it is used")));
            }
        };
        for mirror in &conf.registry_mirrors {
            match HubMirror::parse(mirror) {
                Some(mirror) => self.hub_mirrors.push(mirror),
                None => self.faults.push(bad(format!(
                    "{mirror:?} is not the address of a mirror; it is passed over"
                ))),
            }
        }
        if !conf.registry_mirrors.is_empty() || !conf.insecure_registries.is_empty() {
            self.sources.push(path.to_owned());
        }
        for text in conf.insecure_registries {
            self.add_insecure(&text);
        }
    }

    /// Allows plain http and any certificate for a host, a `*.domain` or a range of addresses.
    pub fn add_insecure(&mut self, text: &str) {
        let Ok(pattern) = text.parse();
        self.insecure.push(pattern);
    }

    /// The hosts that are listed as insecure, as they are written.
    pub fn insecure(&self) -> Vec<String> {
        self.insecure.iter().map(ToString::to_string).collect()
    }

    /// All registries and mirrors that are configured.
    pub fn mirrors(&self) -> Vec<MirrorInfo> {
        let mut all = Vec::new();
        for registry in &self.registries {
            let Registry { prefix, location, insecure, blocked, .. } = registry.clone();
            let prefix = prefix.text().to_owned();
            for mirror in &registry.mirror {
                all.push(MirrorInfo {
                    prefix: prefix.clone(),
                    location: mirror.location.clone(),
                    scheme: Scheme::Https.text(),
                    insecure: mirror.insecure || self.is_insecure(host_of(&mirror.location)),
                    blocked,
                    pulls: registry.pulls(mirror).text(),
                    is_mirror: true,
                });
            }
            let insecure = insecure || self.is_insecure(host_of(&location));
            let pulls = Pulls::All.text();
            let scheme = Scheme::Https.text();
            let is_mirror = false;
            all.push(MirrorInfo { prefix, location, scheme, insecure, blocked, pulls, is_mirror });
        }
        for mirror in &self.hub_mirrors {
            all.push(MirrorInfo {
                prefix: HUB.to_owned(),
                location: mirror.host.clone(),
                scheme: mirror.scheme.text(),
                insecure: mirror.scheme == Scheme::Http || self.is_insecure(&mirror.host),
                blocked: false,
                pulls: Pulls::All.text(),
                is_mirror: true,
            });
        }
        all
    }

    fn is_insecure(&self, host: &str) -> bool {
        self.insecure.iter().any(|pattern| pattern.matches(host))
    }

    fn registry_of(&self, reference: &Reference) -> Option<&Registry> {
        let fitting = self.registries.iter().filter(|one| one.prefix.rest(reference).is_some());
        fitting.max_by_key(|one| one.prefix.text().len())
    }

    /// A registry as a whole, at `address`, to ask it for `what`; `host` is what names begin with.
    ///
    /// # Errors
    /// `Refused` where it is blocked.
    pub(crate) fn whole(&self, address: &str, host: &str, what: &str) -> Result<Endpoint> {
        let fitting = self.registries.iter().filter(|one| one.prefix.has_host(host));
        match fitting.max_by_key(|one| one.prefix.text().len()).filter(|one| one.blocked) {
            Some(registry) => Err(registry.refusal(what.to_owned(), host)),
            None => Ok(self.host(address)),
        }
    }

    /// Who is asked for an image, in order; the origin is the last.
    ///
    /// # Errors
    /// `Blocked`.
    pub(crate) fn pull_from(&self, reference: &Reference) -> Result<Vec<Endpoint>> {
        let origin = self.push_to(reference)?;
        let mut all = Vec::new();
        if let Some(registry) = self.registry_of(reference) {
            for mirror in &registry.mirror {
                let wanted = match registry.pulls(mirror) {
                    Pulls::All => true,
                    Pulls::DigestOnly => reference.digest().is_some(),
                    Pulls::TagOnly => reference.digest().is_none(),
                };
                let name = registry.rewrite(&mirror.location, reference);
                if let Some(name) = name.filter(|_| wanted) {
                    all.push(self.endpoint(&name, mirror.insecure, false));
                }
            }
        }
        if reference.domain().as_str() == HUB {
            all.extend(self.hub_mirrors.iter().map(|mirror| Endpoint {
                host: mirror.host.clone(),
                repository: reference.repository().as_str().to_owned(),
                insecure: mirror.scheme == Scheme::Http || self.is_insecure(&mirror.host),
                is_origin: false,
            }));
        }
        all.retain(|one| (&one.host, &one.repository) != (&origin.host, &origin.repository));
        all.push(origin);
        Ok(all)
    }

    /// Where an image belongs.
    ///
    /// # Errors
    /// `Blocked`.
    pub(crate) fn push_to(&self, reference: &Reference) -> Result<Endpoint> {
        let name = format!("{}/{}", reference.domain().as_str(), reference.repository().as_str());
        let Some(registry) = self.registry_of(reference) else {
            return Ok(self.endpoint(&name, false, true));
        };
        if registry.blocked {
            return Err(registry.refusal(reference.familiar(), &name));
        }
        let name = registry.rewrite(&registry.location, reference).unwrap_or(name);
        Ok(self.endpoint(&name, registry.insecure, true))
    }

    fn endpoint(&self, name: &str, insecure: bool, is_origin: bool) -> Endpoint {
        let (host, repository) = name.split_once('/').unwrap_or((name, ""));
        Endpoint {
            host: host.to_owned(),
            repository: repository.to_owned(),
            insecure: insecure || self.is_insecure(host),
            is_origin,
        }
    }

    /// A registry without a repository.
    fn host(&self, host: &str) -> Endpoint {
        let listed = self.registries.iter().any(|one| one.prefix.text() == host && one.insecure);
        self.endpoint(&format!("{host}/"), listed, true)
    }
}

impl Registry {
    fn pulls(&self, mirror: &Mirror) -> Pulls {
        if self.mirror_by_digest_only { Pulls::DigestOnly } else { mirror.pull_from_mirror }
    }

    /// With what is left out filled in, and without slashes at the end; `None` for what is for no
    /// name, as podman takes it, unless it was to block.
    fn checked(mut self) -> std::result::Result<Option<Self>, String> {
        self.prefix = self.prefix.or(&self.location);
        let prefix = &self.prefix;
        if prefix.text().is_empty() {
            return Err("a [[registry]] has neither prefix nor location".to_owned());
        }
        self.location = prefix.place(&self.location);
        if !self.location.is_empty() && !is_location(&self.location) {
            return Err(format!(
                "{:?} is not a location: write HOST or HOST/PATH, with no tag but the prefix's",
                self.location
            ));
        }
        if !prefix.fits_any() {
            if !self.blocked {
                tracing::warn!("no name begins with the prefix {:?} of a registry", prefix.text());
                return Ok(None);
            }
            return Err(format!(
                "no name begins with the prefix {:?}; write HOST or *.DOMAIN, perhaps with a path, \
                 or the name of an image with its tag or digest",
                prefix.text()
            ));
        }
        if self.location.is_empty() && !prefix.is_wild() {
            self.location = prefix.place(prefix.text());
        }
        for mirror in &mut self.mirror {
            mirror.location = prefix.place(&mirror.location);
            if !is_location(&mirror.location) {
                return Err(format!("{:?} is not the location of a mirror", mirror.location));
            }
        }
        Ok(Some(self))
    }

    /// The error of asking a blocked one for `what`.
    fn refusal(&self, what: String, place: &str) -> Error {
        let why = EndpointError::Blocked(format!("registries.conf blocks {}", self.prefix.text()));
        Box::new(RegistryError::one(what, place, why)).into()
    }

    /// The name with the prefix replaced by a location.
    fn rewrite(&self, location: &str, reference: &Reference) -> Option<String> {
        if location.is_empty() {
            return None;
        }
        let name = format!("{location}{}", self.prefix.rest(reference)?);
        // Docker Hub's names have two parts at least, also where a location is Docker Hub.
        match name.strip_prefix("docker.io/") {
            Some(path) if !path.contains('/') => Some(format!("docker.io/library/{path}")),
            _ => Some(name),
        }
    }
}

fn read(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(format!("reading {}", path.display()), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(conf: &str, daemon: &str) -> Result<RegistrySettings> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("registries.conf"), conf).unwrap();
        std::fs::write(dir.path().join("daemon.json"), daemon).unwrap();
        let mut settings = RegistrySettings::default();
        settings.add_registries_conf(&dir.path().join("registries.conf"))?;
        settings.add_registries_conf(&dir.path().join("none.conf"))?;
        settings.add_daemon_json(&dir.path().join("daemon.json"));
        Ok(settings)
    }

    fn ask(settings: &RegistrySettings, name: &str) -> Vec<String> {
        let all = settings.pull_from(&name.parse().unwrap()).unwrap();
        all.iter()
            .map(|one| {
                let mark = if one.insecure { "!" } else { "" };
                format!("{mark}{}/{}", one.host, one.repository)
            })
            .collect()
    }

    #[test]
    fn mirrors_come_in_order_and_the_origin_last() {
        let conf = r#"
            unqualified-search-registries = ["quay.io"]
            [[registry]]
            location = "docker.io"
            [[registry.mirror]]
            location = "m1.io/hub"
            [[registry.mirror]]
            location = "m2.io:5000"
            insecure = true
            [[registry]]
            prefix = "docker.io/team"
            location = "own.io/x/"
            [[registry]]
            prefix = "*.corp.io"
            insecure = true
            [[registry]]
            prefix = "q.io/a/b"
            location = "docker.io"
        "#;
        let daemon = r#"{"registry-mirrors": ["https://D1.io/", "http://127.0.0.1:5001"],
                         "insecure-registries": ["m1.io", "10.0.0.0/8"], "debug": true}"#;
        let all = settings(conf, daemon).unwrap();
        let hub = [
            "!m1.io/hub/library/x",
            "!m2.io:5000/library/x",
            "d1.io/library/x",
            "!127.0.0.1:5001/library/x",
            "docker.io/library/x",
        ];
        assert_eq!(ask(&all, "x"), hub);
        assert_eq!(ask(&all, "team/x").last().unwrap(), "own.io/x/x");
        assert_eq!(ask(&all, "teams/x").last().unwrap(), "docker.io/teams/x");
        assert_eq!(ask(&all, "a.corp.io/x"), ["!a.corp.io/x"]);
        assert_eq!(ask(&all, "corp.io/x"), ["corp.io/x"]);
        assert_eq!(ask(&all, "10.2.3.4:5000/x"), ["!10.2.3.4:5000/x"]);
        assert_eq!(ask(&all, "q.io/a/b/c"), ["docker.io/library/c"]);
        assert_eq!(ask(&all, "q.io/a/bc"), ["q.io/a/bc"]);
        assert_eq!(all.sources.len(), 2);
        let shown: Vec<_> = all.mirrors().iter().map(|one| one.location.clone()).collect();
        assert_eq!(
            shown,
            [
                "m1.io/hub",
                "m2.io:5000",
                "docker.io",
                "own.io/x",
                "",
                "docker.io",
                "d1.io",
                "127.0.0.1:5001"
            ]
        );
    }

    #[test]
    fn some_mirrors_are_for_tags_or_digests_only() {
        let conf = r#"
            [[registry]]
            prefix = "a.io"
            [[registry.mirror]]
            location = "tags.io"
            pull-from-mirror = "tag-only"
            [[registry.mirror]]
            location = "digests.io"
            pull-from-mirror = "digest-only"
            [[registry]]
            prefix = "b.io"
            mirror-by-digest-only = true
            [[registry.mirror]]
            location = "m.io"
        "#;
        let all = settings(conf, "").unwrap();
        let pin = format!("@sha256:{}", "0f".repeat(32));
        assert_eq!(ask(&all, "a.io/x"), ["tags.io/x", "a.io/x"]);
        assert_eq!(ask(&all, &format!("a.io/x{pin}")), ["digests.io/x", "a.io/x"]);
        assert_eq!(ask(&all, "b.io/x"), ["b.io/x"]);
        assert_eq!(ask(&all, &format!("b.io/x{pin}")), ["m.io/x", "b.io/x"]);
    }

    #[test]
    fn what_is_blocked_or_makes_no_sense_is_refused() {
        let all = settings("[[registry]]\nprefix='a.io/b'\nblocked=true", "").unwrap();
        let error = all.pull_from(&"a.io/b/c".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("blocks a.io/b"), "{error}");
        assert_eq!(ask(&all, "a.io/c"), ["a.io/c"]);
        assert!(all.whole("a.io", "a.io", "search").is_ok());
        let blocked = "a.io/ b.io/x/ c.io/x:1 *.d.io docker.io".split(' ');
        let conf = blocked.map(|prefix| format!("[[registry]]\nprefix='{prefix}'\nblocked=true\n"));
        let all = settings(&conf.collect::<String>(), "").unwrap();
        for name in ["a.io/x", "b.io/x/y", "c.io/x:1", "r.d.io/x", "x"] {
            let error = all.pull_from(&name.parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains("blocked"), "{error}");
        }
        for name in ["b.io/y", "c.io/x:2", "d.io/x"] {
            assert_eq!(ask(&all, name).len(), 1, "{name}");
        }
        // Nor is it asked what it has.
        for (host, is_blocked) in [
            ("a.io", true),
            ("r.d.io", true),
            ("docker.io", true),
            ("b.io", false),
            ("d.io", false),
        ] {
            let asked = all.whole("asked.io", host, "search");
            assert_eq!(asked.is_err(), is_blocked, "{host}");
        }
        // For no name, and blocks nothing.
        assert!(settings("[[registry]]\nprefix='team'\nlocation='b.io/team'", "").is_ok());
        for (conf, daemon, why) in [
            ("[registries.search]\nregistries=['x']", "", "version 1"),
            ("[[registry]]\nblocked=true", "", "neither prefix nor location"),
            (
                "[[registry]]\nprefix='https://a.io'\nblocked=true",
                "",
                "no name begins with the prefix",
            ),
            ("[[registry]]\nprefix='a.io/x:1'\nlocation='b.io/y:2'", "", "not a location"),
            ("[[registry]]\nlocation='https://a.io'", "", "not a location"),
            ("[[registry]]\nprefix='a.io'\n[[registry.mirror]]\nlocation='A B'", "", "of a mirror"),
            ("x", "", "TOML parse error"),
        ] {
            let error = settings(conf, daemon).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
    #[test]
    fn what_makes_no_sense_in_daemon_json_is_told_and_passed_over() {
        let mirrors = r#"{"registry-mirrors":["m.io","https://n.io","https://m.io/x"]}"#;
        for (daemon, faults, hosts) in [
            (mirrors, &["\"m.io\" is not the address", "m.io/x"][..], &["n.io", "docker.io"][..]),
            ("[", &["daemon.json: EOF"], &["docker.io"]),
            (r#"{"registry-mirrors":null,"insecure-registries":null}"#, &[], &["docker.io"]),
            (r#"{"registry-mirrors":"https://m.io"}"#, &["expected a sequence"], &["docker.io"]),
        ] {
            let all = settings("", daemon).unwrap();
            assert_eq!(all.faults.len(), faults.len(), "{:?}", all.faults);
            for (fault, text) in all.faults.iter().zip(faults) {
                assert!(fault.contains(text), "{fault}");
            }
            let asked = ask(&all, "x").into_iter().map(|one| one.replace("/library/x", ""));
            assert_eq!(asked.collect::<Vec<_>>(), hosts);
        }
    }
}
