//! `registries.d`: where the signatures of a registry's images are (containers-registries.d(5)).
//!
//! ```text
//! DIR/*.yaml --> default-docker: and docker: by scope, longest first
//!            --> lookaside (or its old name sigstore), use-sigstore-attachments
//! ```
//!
//! Each of the two settings comes from the narrowest scope that says it. Without a lookaside there
//! is a default one on this machine.
//!
//! Invariants: a scope that two files define is an error; what a file says besides is ignored, as
//! by github.com/containers/image.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use strata_registry::Reference;
use strata_tree::BlobDigest;
use url::Url;

use crate::error::{Error, Result};
use crate::place::ImagePlace;

/// What all files of the directory say.
#[derive(Debug, Clone, Default)]
pub struct LookasideConfig {
    default: Option<(Namespace, PathBuf)>,
    docker: BTreeMap<String, (Namespace, PathBuf)>,
    /// The directory that is asked where no file says anything.
    fallback: Option<PathBuf>,
}

/// Where the signatures of an image are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureSources {
    /// The lookaside, without the image's path.
    pub lookaside: Option<Url>,
    /// Where new signatures would go.
    pub staging: Option<Url>,
    /// Whether those beside the image in its registry count.
    pub attachments: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Namespace {
    lookaside: Option<String>,
    lookaside_staging: Option<String>,
    sigstore: Option<String>,
    sigstore_staging: Option<String>,
    use_sigstore_attachments: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    default_docker: Option<Namespace>,
    #[serde(default)]
    docker: Option<BTreeMap<String, Option<Namespace>>>,
}

impl LookasideConfig {
    /// Reads the `*.yaml` of a directory, which may be absent. `fallback` is the directory with
    /// signatures where no file names another.
    ///
    /// # Errors
    /// `Read`, `Lookaside`.
    pub fn load(directory: &Path, fallback: Option<PathBuf>) -> Result<Self> {
        let mut config = Self { fallback, ..Self::default() };
        let reading = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Read { path, source }
        };
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(config),
            Err(error) => return Err(reading(directory)(error)),
        };
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.map_err(reading(directory))?.path();
            if path.extension().is_some_and(|end| end == "yaml") {
                files.push(path);
            }
        }
        files.sort();
        for path in files {
            let text = std::fs::read_to_string(&path).map_err(reading(&path))?;
            config.add(&path, &text)?;
        }
        Ok(config)
    }

    fn add(&mut self, path: &Path, text: &str) -> Result<()> {
        let wrong = |why: String| Error::Lookaside { path: path.to_owned(), why };
        let twice =
            |what: &str, other: &Path| wrong(format!("{what} is in {} too", other.display()));
        // An empty file says nothing.
        let file: Option<File> =
            serde_saphyr::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let file = file.unwrap_or_default();
        if let Some(found) = file.default_docker {
            if let Some((_, other)) = &self.default {
                return Err(twice("default-docker", other));
            }
            self.default = Some((found, path.to_owned()));
        }
        for (scope, found) in file.docker.unwrap_or_default() {
            if let Some((_, other)) = self.docker.get(&scope) {
                return Err(twice(&format!("{scope:?} of docker"), other));
            }
            self.docker.insert(scope, (found.unwrap_or_default(), path.to_owned()));
        }
        Ok(())
    }

    /// Where the signatures of an image are.
    ///
    /// # Errors
    /// `Lookaside` for what is no address.
    pub fn sources(&self, reference: &Reference) -> Result<SignatureSources> {
        let place = ImagePlace::registry(reference);
        let known: Vec<&(Namespace, PathBuf)> = place
            .scopes()
            .iter()
            .filter_map(|scope| self.docker.get(scope))
            .chain(&self.default)
            .collect();
        let find = |pick: &dyn Fn(&Namespace) -> Option<&str>| -> Result<Option<Url>> {
            let told = known.iter().find_map(|(space, path)| Some((pick(space)?, path)));
            let Some((text, path)) = told else {
                let fallback =
                    self.fallback.as_deref().and_then(|dir| Url::from_file_path(dir).ok());
                return Ok(fallback);
            };
            let url = Url::parse(text).map_err(|error| Error::Lookaside {
                path: path.clone(),
                why: format!("{text:?} is no address: {error}"),
            })?;
            Ok(Some(url))
        };
        let attachments = known.iter().find_map(|(space, _)| space.use_sigstore_attachments);
        Ok(SignatureSources {
            lookaside: find(&Namespace::reading)?,
            staging: find(&|space| space.writing())?,
            attachments: attachments.unwrap_or(false),
        })
    }
}

fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

impl Namespace {
    fn reading(&self) -> Option<&str> {
        given(&self.lookaside).or(given(&self.sigstore))
    }

    fn writing(&self) -> Option<&str> {
        let staging = given(&self.lookaside_staging).or(given(&self.sigstore_staging));
        staging.or(self.reading())
    }
}

impl SignatureSources {
    /// The address of the `number`th signature of a manifest, counted from 1.
    pub fn signature(
        base: &Url,
        reference: &Reference,
        manifest: &BlobDigest,
        number: usize,
    ) -> Url {
        let mut url = base.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        let path = reference.repository().as_str();
        let hex = manifest.hex();
        url.set_path(&format!("{base}/{path}@sha256={hex}/signature-{number}"));
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(texts: &[&str]) -> Result<LookasideConfig> {
        let mut config =
            LookasideConfig { fallback: Some("/var/sig".into()), ..LookasideConfig::default() };
        for (at, text) in texts.iter().enumerate() {
            config.add(Path::new(&format!("{at}.yaml")), text)?;
        }
        Ok(config)
    }

    #[test]
    fn the_narrowest_scope_that_says_it_counts() {
        let config = config(&[
            "default-docker:\n  sigstore: file:///old\n  use-sigstore-attachments: false\n",
            "# words\ndocker:\n  h.io:\n    use-sigstore-attachments: true\n  h.io/a/b:\n    \
             lookaside: https://s.io/x/\n    lookaside-staging: file:///stage\n  h.io/none:\n",
            "",
        ])
        .unwrap();
        let sources = |text: &str| config.sources(&text.parse().unwrap()).unwrap();
        let shown = |sources: SignatureSources| {
            let text = |url: Option<Url>| url.map(|url| url.to_string()).unwrap_or_default();
            (text(sources.lookaside), text(sources.staging), sources.attachments)
        };
        let (a, b) = ("https://s.io/x/".to_owned(), "file:///stage".to_owned());
        assert_eq!(shown(sources("h.io/a/b:1")), (a, b, true));
        let old = || "file:///old".to_owned();
        assert_eq!(shown(sources("h.io/none")), (old(), old(), true));
        assert_eq!(shown(sources("x.io/y")), (old(), old(), false));
        let digest = BlobDigest::from_bytes([0xab; 32]);
        let reference: Reference = "h.io/a/b:1".parse().unwrap();
        let base = sources("h.io/a/b:1").lookaside.unwrap();
        let url = SignatureSources::signature(&base, &reference, &digest, 1);
        let expected = format!("https://s.io/x/a/b@sha256={}/signature-1", "ab".repeat(32));
        assert_eq!(url.as_str(), expected);
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        let default = "default-docker: {lookaside: 'file:///a'}";
        let space = "docker: {h.io: {lookaside: 'file:///a'}}";
        assert!(config(&[default, space]).is_ok());
        for bad in [&[default, default][..], &[space, space], &["docker: [1]"], &["a: [", ""]] {
            assert!(config(bad).is_err(), "{bad:?}");
        }
        let none = config(&["docker: {h.io: {lookaside: 'no address'}}"]).unwrap();
        assert!(none.sources(&"h.io/a".parse().unwrap()).is_err());
        let empty = config(&[]).unwrap().sources(&"h.io/a".parse().unwrap()).unwrap();
        assert_eq!(empty.lookaside.unwrap().as_str(), "file:///var/sig");
    }
}
