//! Credentials for registries, from docker's and containers' files and from credential helpers.
//!
//! ```text
//! config.json (docker)        auths, credHelpers, credsStore     keys are hosts or old URLs
//! auth.json (containers)      the same; keys may have a path, the longest that fits wins
//! ```
//!
//! The first of several files that knows the registry decides. Within a file the registry's own
//! helper comes first, then the common one, then `auths`.
//!
//! Invariants: a file is replaced whole, in one step, readable by its owner alone, and what this
//! module does not know in it stays; no secret is ever part of an error.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::credential::Credential;
use crate::error::{Error, Result};
use crate::helper::{ask_helper, run_helper};
use crate::null::or_default;

/// What Docker Hub is called in configuration files.
const HUB_KEY: &str = "https://index.docker.io/v1/";
const HUB: &str = "docker.io";

/// The files that are asked, in order.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    files: Vec<AuthFile>,
}

#[derive(Debug, Clone)]
struct AuthFile {
    path: PathBuf,
    content: Map<String, Value>,
}

/// How a login was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeptLogin {
    /// In the file, readable by every user who can read the file.
    Plainly(PathBuf),
    /// By this helper.
    Helper(String),
}

impl Credentials {
    /// Reads those of `paths` that exist.
    ///
    /// # Errors
    /// `Config` if one is not such a file, `Io`.
    pub fn load(paths: &[PathBuf]) -> Result<Self> {
        let mut files = Vec::new();
        for path in paths {
            files.extend(AuthFile::read(path)?);
        }
        Ok(Self { files })
    }

    /// What is known for a repository of a registry.
    ///
    /// # Errors
    /// `Config` if an entry makes no sense. A helper that fails is warned of.
    pub fn find(&self, host: &str, repository: &str) -> Result<Option<Credential>> {
        for file in &self.files {
            if let Some(found) = file.find(host, repository)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Keeps a credential for a registry in the file at `path`, or with the helper that the file
    /// names.
    ///
    /// # Errors
    /// `Config`, `Helper`, `Io`.
    pub fn keep(path: &Path, host: &str, username: &str, password: &str) -> Result<KeptLogin> {
        let mut file = AuthFile::read(path)?
            .unwrap_or_else(|| AuthFile { path: path.to_owned(), content: Map::new() });
        let key = key_of(host);
        if let Some(helper) = file.helper(host) {
            let text = json!({"ServerURL": key, "Username": username, "Secret": password});
            run_helper(&helper, "store", &text.to_string())?;
            return Ok(KeptLogin::Helper(helper));
        }
        let auth = STANDARD.encode(format!("{username}:{password}"));
        let auths = file.content.entry("auths").or_insert_with(|| json!({}));
        let Some(auths) = auths.as_object_mut() else {
            return Err(file.bad("auths is not an object"));
        };
        auths.retain(|known, _| !names(known, host));
        auths.insert(key, json!({"auth": auth}));
        file.write()?;
        Ok(KeptLogin::Plainly(path.to_owned()))
    }

    /// Forgets a registry in the file at `path` and in its helper; says whether it was known.
    ///
    /// # Errors
    /// As [`Credentials::keep`]; a helper that fails keeps nothing in the file.
    pub fn forget(path: &Path, host: &str) -> Result<bool> {
        let Some(mut file) = AuthFile::read(path)? else { return Ok(false) };
        let erased = file.helper(host).map(|helper| erase(&helper, &key_of(host)));
        let mut known = false;
        if let Some(auths) = file.content.get_mut("auths").and_then(Value::as_object_mut) {
            let before = auths.len();
            auths.retain(|key, _| !names(key, host));
            if auths.len() < before {
                file.write()?;
                known = true;
            }
        }
        Ok(erased.transpose()?.unwrap_or(false) || known)
    }
}

/// Has a helper forget; says whether it knew.
fn erase(helper: &str, key: &str) -> Result<bool> {
    if ask_helper(helper, key)?.is_none() {
        return Ok(false);
    }
    run_helper(helper, "erase", key)?;
    Ok(true)
}

/// What a registry is called in files that docker reads too.
fn key_of(host: &str) -> String {
    if host == HUB { HUB_KEY.to_owned() } else { host.to_owned() }
}

/// Host and path of a key, without scheme and the version that old docker wrote.
fn bare(key: &str) -> &str {
    let key = key.strip_prefix("https://").or(key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    key.strip_suffix("/v1").or(key.strip_suffix("/v2")).unwrap_or(key)
}

/// Whether a key means the whole registry.
fn names(key: &str, host: &str) -> bool {
    let hub = |name: &str| matches!(name, HUB | "index.docker.io" | "registry-1.docker.io");
    let key = bare(key);
    key.eq_ignore_ascii_case(host) || hub(key) && hub(host)
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default, deserialize_with = "or_default")]
    auth: String,
    #[serde(default, deserialize_with = "or_default")]
    username: String,
    #[serde(default, deserialize_with = "or_default")]
    password: String,
    #[serde(default, deserialize_with = "or_default")]
    identitytoken: String,
    #[serde(default, deserialize_with = "or_default")]
    registrytoken: String,
}

impl AuthFile {
    fn read(path: &Path) -> Result<Option<Self>> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(format!("reading {}", path.display()), error)),
        };
        let mut file = Self { path: path.to_owned(), content: Map::new() };
        if !text.trim_ascii().is_empty() {
            file.content = serde_json::from_slice(&text)
                .map_err(|error| file.bad(&format!("not a configuration file: {error}")))?;
        }
        Ok(Some(file))
    }

    fn bad(&self, why: &str) -> Error {
        Error::config(&self.path, "the credentials", why)
    }

    /// The helper in charge of a registry.
    fn helper(&self, host: &str) -> Option<String> {
        let own = self.content.get("credHelpers").and_then(Value::as_object);
        let own = own.and_then(|all| all.iter().find(|(key, _)| names(key, host)));
        let helper = own.map(|(_, helper)| helper).or_else(|| self.content.get("credsStore"));
        helper.and_then(Value::as_str).filter(|name| !name.is_empty()).map(str::to_owned)
    }

    fn find(&self, host: &str, repository: &str) -> Result<Option<Credential>> {
        if let Some(helper) = self.helper(host) {
            match ask_helper(&helper, &key_of(host)) {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                // As docker: many an image needs no credentials, and a helper of a desktop that
                // is gone stays in the file.
                Err(error @ Error::Helper { .. }) => {
                    let path = self.path.display();
                    tracing::warn!("{error}; {path} names it, and it is gone on without");
                }
                Err(error) => return Err(error),
            }
        }
        let Some(auths) = self.content.get("auths").and_then(Value::as_object) else {
            return Ok(None);
        };
        // From the whole path up to the host: the longest key that fits is the first.
        let mut path = repository;
        while !path.is_empty() {
            let wanted = format!("{host}/{path}");
            if let Some((_, entry)) = auths.iter().find(|(key, _)| **key == wanted) {
                return self.credential(&wanted, entry);
            }
            path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        }
        match auths.iter().find(|(key, _)| names(key, host)) {
            Some((key, entry)) => self.credential(key, entry),
            None => Ok(None),
        }
    }

    fn credential(&self, key: &str, entry: &Value) -> Result<Option<Credential>> {
        let bad = |why: &str| self.bad(&format!("the entry of {key}: {why}"));
        if entry.is_null() {
            return Ok(None);
        }
        let entry = Entry::deserialize(entry).map_err(|_| bad("not an object of texts"))?;
        if !entry.registrytoken.is_empty() {
            return Ok(Some(Credential::RegistryToken(entry.registrytoken)));
        }
        if !entry.identitytoken.is_empty() {
            return Ok(Some(Credential::IdentityToken(entry.identitytoken)));
        }
        let (username, password) = if entry.auth.is_empty() {
            (entry.username, entry.password)
        } else {
            let bytes = STANDARD.decode(entry.auth.trim()).map_err(|_| bad("auth is no base64"))?;
            let text = String::from_utf8(bytes).map_err(|_| bad("auth is no text"))?;
            match text.split_once(':') {
                Some((name, password)) => {
                    // Old docker padded with zero bytes.
                    (name.to_owned(), password.trim_end_matches('\0').to_owned())
                }
                None => return Err(bad("auth is not name:password")),
            }
        };
        // An empty entry says that a helper knows more.
        let empty = username.is_empty() && password.is_empty();
        Ok((!empty).then_some(Credential::Basic { username, password }))
    }

    fn write(&self) -> Result<()> {
        // Through a link to the file that it names, as people keep these in other places.
        let path = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        let what = || format!("writing {}", path.display());
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = dir.unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir).map_err(|error| Error::io(what(), error))?;
        let mut text = Vec::new();
        let format = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut out = serde_json::Serializer::with_formatter(&mut text, format);
        serde::Serialize::serialize(&self.content, &mut out)
            .map_err(|error| Error::io(what(), std::io::Error::from(error)))?;
        // Made with mode 0600.
        let written = tempfile::NamedTempFile::new_in(dir).and_then(|mut file| {
            file.as_file().set_permissions(std::fs::Permissions::from_mode(0o600))?;
            file.write_all(&text)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)?;
            File::open(dir)?.sync_all()
        });
        written.map_err(|error| Error::io(what(), error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Credentials {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Credentials::load(&[PathBuf::from("/nonexistent/x"), file.path().to_owned()]).unwrap()
    }

    fn basic(username: &str, password: &str) -> Option<Credential> {
        Some(Credential::Basic { username: username.into(), password: password.into() })
    }

    #[test]
    fn entries_are_found_by_host_and_path() {
        let auth = |text: &str| STANDARD.encode(text);
        let all = load(&format!(
            r#"{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{}"}},
               "http://old.io/v2/":{{"username":"o","password":"p"}},
               "q.io":{{"auth":"{}"}}, "q.io/team":{{"auth":"{}"}}, "q.io/team/x":{{"auth":"{}"}},
               "t.io:5000":{{"identitytoken":"T"}}, "e.io":{{}}}}}}"#,
            auth("hub:a:b"),
            auth("whole:1"),
            auth("team:2"),
            auth("x:3")
        ));
        for (host, repository, expected) in [
            ("docker.io", "library/ubuntu", basic("hub", "a:b")),
            ("old.io", "a", basic("o", "p")),
            ("q.io", "other/x", basic("whole", "1")),
            ("q.io", "team/y", basic("team", "2")),
            ("q.io", "team/x/z", basic("x", "3")),
            ("q.io", "teams", basic("whole", "1")),
            ("t.io:5000", "a", Some(Credential::IdentityToken("T".into()))),
            ("t.io", "a", None),
            ("e.io", "a", None),
            ("none.io", "a", None),
        ] {
            assert_eq!(all.find(host, repository).unwrap(), expected, "{host}/{repository}");
        }
        assert_eq!(basic("a", "b").unwrap().basic().unwrap(), "Basic YTpi");
        assert_eq!(format!("{:?}", basic("a", "secret")), "Some(Basic(a))");
    }

    #[test]
    fn what_makes_no_sense_is_an_error_without_the_secret() {
        let nonsense = STANDARD.encode("secret");
        let all = load(&format!(r#"{{"auths":{{"a.io":{{"auth":"{nonsense}"}}}}}}"#));
        let error = all.find("a.io", "x").unwrap_err().to_string();
        assert!(error.contains("name:password") && !error.contains("secret"), "{error}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{").unwrap();
        assert!(Credentials::load(&[file.path().to_owned()]).is_err());
        let error = run_helper("../evil", "get", "a.io").unwrap_err().to_string();
        assert!(error.contains("not the name of a helper"), "{error}");
    }

    #[test]
    fn a_helper_that_is_not_there_hides_no_other_credential() {
        let all = load(
            r#"{"credHelpers":{"a.io":"there-is-none-of-this-name","c.io":"../evil"},
                "credsStore":null,"auths":{"a.io":{"auth":"YTpi"}}}"#,
        );
        assert_eq!(all.find("a.io", "x").unwrap(), basic("a", "b"));
        assert_eq!(all.find("b.io", "x").unwrap(), None);
        assert_eq!(all.find("c.io", "x").unwrap(), None);
    }

    #[test]
    fn a_helper_that_fails_keeps_nothing_in_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = r#"{"credHelpers":{"a.io":"there-is-none-of-this-name"},
            "auths":{"a.io":{"auth":"YTpi"},"b.io":{"auth":"YTpi"}}}"#;
        std::fs::write(file.path(), text).unwrap();
        let error = Credentials::forget(file.path(), "a.io").unwrap_err().to_string();
        assert!(error.contains("there-is-none-of-this-name"), "{error}");
        let value: Value = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
        assert_eq!(value["auths"], json!({"b.io": {"auth": "YTpi"}}));
    }

    #[test]
    fn every_form_of_an_entry_is_read() {
        for (entry, expected) in [
            ("null", None),
            ("{}", None),
            (r#"{"auth":null,"username":"a","password":"b"}"#, basic("a", "b")),
            (r#"{"auth":"YTpi","email":"x@y"}"#, basic("a", "b")),
            (r#"{"auth":"YTpi\n","username":"other"}"#, basic("a", "b")),
            (
                r#"{"auth":"MDAwMDo=","identitytoken":"I"}"#,
                Some(Credential::IdentityToken("I".into())),
            ),
            (r#"{"registrytoken":"R"}"#, Some(Credential::RegistryToken("R".into()))),
        ] {
            for key in ["a.io", "https://a.io", "https://a.io/v2/", "http://a.io/v1/"] {
                let all = load(&format!(r#"{{"auths":{{"{key}":{entry}}},"credHelpers":null}}"#));
                assert_eq!(all.find("a.io", "x").unwrap(), expected, "{key}: {entry}");
            }
        }
    }

    #[test]
    fn a_login_keeps_what_else_is_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/config.json");
        assert_eq!(
            Credentials::keep(&path, "a.io", "u", "p").unwrap(),
            KeptLogin::Plainly(path.clone())
        );
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "{\n\t\"auths\": {\n\t\t\"a.io\": {\n\t\t\t\"auth\": \"dTpw\"\n\t\t}\n\t}\n}"
        );
        let more = r#"{"auths":{"https://a.io/v1/":{}},"HttpHeaders":{"X":"y"},"n":1.5}"#;
        let link = dir.path().join("link.json");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        std::fs::write(&path, more).unwrap();
        Credentials::keep(&link, "a.io", "u", "q").unwrap();
        Credentials::keep(&link, "docker.io", "h", "q").unwrap();
        assert!(link.is_symlink());
        let value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let expected = json!({"auths": {"a.io": {"auth": "dTpx"}, HUB_KEY: {"auth": "aDpx"}},
            "HttpHeaders": {"X": "y"}, "n": 1.5});
        assert_eq!(value, expected);
        assert!(Credentials::forget(&path, "docker.io").unwrap());
        assert!(!Credentials::forget(&path, "docker.io").unwrap());
        assert!(!Credentials::forget(&dir.path().join("none"), "a.io").unwrap());
        let all = Credentials::load(&[path]).unwrap();
        assert_eq!(all.find("a.io", "x").unwrap(), basic("u", "q"));
    }
}
