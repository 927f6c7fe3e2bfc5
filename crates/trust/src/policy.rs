//! `policy.json`: what an image must be signed with (containers-policy.json(5)).
//!
//! ```text
//! Policy ── default ────────────────────────────┐
//!    └───── transports ── scope, longest first ─┴─> Requirement, all of which must hold
//! ```
//!
//! Invariants: a policy that is not wholly understood is refused, as github.com/containers/image
//! refuses it; every list of requirements has at least one.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::named::SignedIdentity;
use crate::place::{ImagePlace, check_scope};
use crate::strict::{Fields, Malformed, StrictValue};

/// A whole policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    default: Vec<Requirement>,
    transports: BTreeMap<String, BTreeMap<String, Vec<Requirement>>>,
}

/// What an image must fulfil.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    /// Nothing is let in.
    Reject,
    /// Everything is let in.
    AcceptAnything,
    /// Simple signing, with OpenPGP keys.
    SignedBy {
        /// How `keys` are to be understood.
        key_type: KeyType,
        /// Whose signatures count.
        keys: KeySource,
        /// For what they count.
        identity: SignedIdentity,
    },
    /// What the format has and nobody implements: refused, as by containers/image.
    SignedBaseLayer,
    /// Sigstore's signatures.
    Sigstore {
        /// Whose signatures count.
        signer: Signer,
        /// The log's keys, where a signature must be in it.
        log: Option<KeySource>,
        /// For what they count.
        identity: SignedIdentity,
    },
}

/// Kinds of keys of simple signing. Only the first is implemented anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    /// OpenPGP keys.
    GpgKeys,
    /// Keys signed by OpenPGP keys.
    SignedByGpgKeys,
    /// Certificates.
    X509Certificates,
    /// Certificates signed by authorities.
    SignedByX509Cas,
}

/// Where keys or certificates are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// In files.
    Paths(Vec<PathBuf>),
    /// In the policy.
    Data(Vec<Vec<u8>>),
}

/// Who signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signer {
    /// The owners of these keys.
    Keys(KeySource),
    /// Whoever Fulcio gave a certificate, under one name.
    Fulcio {
        /// Fulcio's certificates.
        authorities: KeySource,
        /// Who said that it is that person.
        issuer: String,
        /// Their address.
        email: String,
    },
}

/// Which part of a policy counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicySection {
    /// `default`.
    Default,
    /// A scope of a transport; `""` for the whole transport.
    Scope {
        /// The transport.
        transport: String,
        /// The scope.
        scope: String,
    },
}

impl fmt::Display for PolicySection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Scope { transport, scope } if scope.is_empty() => write!(f, "{transport}"),
            Self::Scope { transport, scope } => write!(f, "{transport} {scope}"),
        }
    }
}

impl Policy {
    /// A policy that lets everything in.
    pub fn accept_anything() -> Self {
        Self { default: vec![Requirement::AcceptAnything], transports: BTreeMap::new() }
    }

    /// Reads a policy.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::of(StrictValue::read(bytes)?, "the policy")?;
        let default = requirements(fields.need("default")?, "default")?;
        let mut transports = BTreeMap::new();
        let listed = fields.take("transports");
        let listed = listed.map(|value| value.object("transports")).transpose()?;
        for (transport, scopes) in listed.unwrap_or_default() {
            let mut known = BTreeMap::new();
            for (scope, value) in scopes.object(&format!("transport {transport:?}"))? {
                check_scope(&transport, &scope).map_err(Malformed)?;
                let what = format!("scope {scope:?} of {transport}");
                known.insert(scope, requirements(value, &what)?);
            }
            transports.insert(transport, known);
        }
        fields.end()?;
        Ok(Self { default, transports })
    }

    /// All parts of the policy, the default first.
    pub fn sections(&self) -> Vec<(PolicySection, &[Requirement])> {
        let scopes = self.transports.iter().flat_map(|(transport, scopes)| {
            scopes.iter().map(|(scope, requirements)| {
                let (transport, scope) = (transport.clone(), scope.clone());
                (PolicySection::Scope { transport, scope }, requirements.as_slice())
            })
        });
        std::iter::once((PolicySection::Default, self.default.as_slice())).chain(scopes).collect()
    }

    /// What counts for a place.
    pub fn section(&self, place: &ImagePlace) -> (PolicySection, &[Requirement]) {
        if let Some(scopes) = self.transports.get(place.transport()) {
            let wanted = place.scopes().iter().map(String::as_str).chain([""]);
            for scope in wanted {
                if let Some(requirements) = scopes.get(scope) {
                    let section = PolicySection::Scope {
                        transport: place.transport().to_owned(),
                        scope: scope.to_owned(),
                    };
                    return (section, requirements);
                }
            }
        }
        (PolicySection::Default, &self.default)
    }
}

impl Requirement {
    /// What policies call it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::AcceptAnything => "insecureAcceptAnything",
            Self::SignedBy { .. } => "signedBy",
            Self::SignedBaseLayer => "signedBaseLayer",
            Self::Sigstore { .. } => "sigstoreSigned",
        }
    }
}

fn requirements(value: StrictValue, what: &str) -> Result<Vec<Requirement>, Malformed> {
    let all = value.list(what)?.into_iter().map(|one| requirement(one, what));
    let all = all.collect::<Result<Vec<_>, _>>()?;
    match all.is_empty() {
        true => Err(Malformed(format!("{what} has no requirement"))),
        false => Ok(all),
    }
}

fn requirement(value: StrictValue, what: &str) -> Result<Requirement, Malformed> {
    let what = format!("a requirement of {what}");
    let mut fields = Fields::of(value, &what)?;
    let kind = fields.text("type")?;
    let read = match kind.as_str() {
        "reject" => Requirement::Reject,
        "insecureAcceptAnything" => Requirement::AcceptAnything,
        "signedBy" => signed_by(&mut fields)?,
        "signedBaseLayer" => {
            SignedIdentity::read(fields.need("baseLayerIdentity")?, "baseLayerIdentity")?;
            Requirement::SignedBaseLayer
        }
        "sigstoreSigned" => sigstore(&mut fields)?,
        other => return Err(Malformed(format!("{what} is of an unknown type, {other:?}"))),
    };
    fields.end()?;
    Ok(read)
}

fn signed_by(fields: &mut Fields) -> Result<Requirement, Malformed> {
    let key_type = match fields.text("keyType")?.as_str() {
        "GPGKeys" => KeyType::GpgKeys,
        "signedByGPGKeys" => KeyType::SignedByGpgKeys,
        "X509Certificates" => KeyType::X509Certificates,
        "signedByX509CAs" => KeyType::SignedByX509Cas,
        other => return Err(Malformed(format!("keyType {other:?} is unknown"))),
    };
    let found = sources(fields, ["keyPath", "keyPaths", "keyData", ""])?;
    let keys = exactly_one(found, "signedBy", "keyPath, keyPaths and keyData")?;
    Ok(Requirement::SignedBy { key_type, keys, identity: identity(fields)? })
}

fn sigstore(fields: &mut Fields) -> Result<Requirement, Malformed> {
    let keys = sources(fields, ["keyPath", "keyPaths", "keyData", "keyDatas"])?;
    let fulcio = fields.take("fulcio").map(fulcio).transpose()?;
    let log = ["Path", "Paths", "Data", "Datas"].map(|end| format!("rekorPublicKey{end}"));
    let [one, two, three, four] = &log;
    let mut log = sources(fields, [one, two, three, four])?;
    if keys.iter().chain(&log).any(KeySource::is_empty) {
        return Err(Malformed("sigstoreSigned has a list of keys that is empty".to_owned()));
    }
    if log.len() > 1 {
        let why = "sigstoreSigned has more than one of the rekorPublicKey fields";
        return Err(Malformed(why.to_owned()));
    }
    let signer = match fulcio {
        None => {
            let one_of = "keyPath, keyPaths, keyData, keyDatas and fulcio";
            Signer::Keys(exactly_one(keys, "sigstoreSigned", one_of)?)
        }
        Some(_) if !keys.is_empty() => {
            return Err(Malformed("sigstoreSigned has both keys and fulcio".to_owned()));
        }
        Some(_) if log.is_empty() => {
            let why = "sigstoreSigned with fulcio needs a rekorPublicKey: only the log says when";
            return Err(Malformed(why.to_owned()));
        }
        Some(signer) => signer,
    };
    Ok(Requirement::Sigstore { signer, log: log.pop(), identity: identity(fields)? })
}

fn fulcio(value: StrictValue) -> Result<Signer, Malformed> {
    let mut fields = Fields::of(value, "fulcio")?;
    let found = sources(&mut fields, ["caPath", "", "caData", ""])?;
    let authorities = exactly_one(found, "fulcio", "caPath and caData")?;
    let mut text = |key: &str| match fields.text(key)? {
        text if text.is_empty() => Err(Malformed(format!("{key} of fulcio is empty"))),
        text => Ok(text),
    };
    let (issuer, email) = (text("oidcIssuer")?, text("subjectEmail")?);
    fields.end()?;
    Ok(Signer::Fulcio { authorities, issuer, email })
}

fn identity(fields: &mut Fields) -> Result<SignedIdentity, Malformed> {
    let value = fields.take("signedIdentity");
    let read = value.map(|value| SignedIdentity::read(value, "signedIdentity"));
    Ok(read.transpose()?.unwrap_or_default())
}

/// What is given of a path, paths, data and a list of data, under these names; `""` for none.
fn sources(fields: &mut Fields, names: [&str; 4]) -> Result<Vec<KeySource>, Malformed> {
    let [path, paths, data, datas] = names.map(Some).map(|name| name.filter(|n| !n.is_empty()));
    let mut found = Vec::new();
    if let Some(path) = path.map(|key| fields.text_if_any(key)).transpose()?.flatten() {
        if path.is_empty() {
            return Err(Malformed("a path of a key is empty".to_owned()));
        }
        found.push(KeySource::Paths(vec![path.into()]));
    }
    if let Some(paths) = paths.map(|key| fields.texts_if_any(key)).transpose()?.flatten() {
        found.push(KeySource::Paths(paths.into_iter().map(PathBuf::from).collect()));
    }
    let data = data.map(|key| fields.bytes_if_any(key)).transpose()?.flatten();
    found.extend(data.map(|data| KeySource::Data(vec![data])));
    let datas = datas.map(|key| fields.byte_lists_if_any(key)).transpose()?.flatten();
    found.extend(datas.map(KeySource::Data));
    Ok(found)
}

fn exactly_one(mut found: Vec<KeySource>, what: &str, names: &str) -> Result<KeySource, Malformed> {
    match (found.pop(), found.is_empty()) {
        (Some(only), true) => Ok(only),
        (one, _) => {
            let how = if one.is_some() { "more than one" } else { "none" };
            Err(Malformed(format!("{what} must have exactly one of {names}, and has {how}")))
        }
    }
}

impl KeySource {
    fn is_empty(&self) -> bool {
        match self {
            Self::Paths(paths) => paths.is_empty(),
            Self::Data(data) => data.is_empty(),
        }
    }
}
