//! One repository at one endpoint: the distribution API, with credentials and retries.
//!
//! ```text
//! request --> 401 --> challenge --> token or basic --> request again
//!         --> 429, 5xx, no answer --> wait, a little longer each time --> request again
//! ```
//! (distribution specification 1.1, "API".)
//!
//! Invariants: a request is repeated only if that is safe (every one here is); a token is kept for
//! this repository alone and renewed once when it is refused; the scheme is found once and then
//! stays, http being tried only where it is allowed.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};
use strata_tree::BlobDigest;
use ureq::http::Method;

use crate::address::{Scheme, Url};
use crate::auth::{self, Challenge};
use crate::credential::Credential;
use crate::error::{Attempt, EndpointError, UNKNOWN_HOST};
use crate::forms::Refused;
use crate::hosts::is_loopback;
use crate::http::{Call, Http, HttpResponse, RequestBody, broken};
use crate::pages::each_page;
use crate::retry::{Retry, seconds_until};

/// What we read, in the order of preference.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1";

/// What an answer to the question for referrers is.
const REFERRERS: &str = "application/vnd.oci.image.index.v1+json";

/// Where and how a repository is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Host, with its port if one is given.
    pub(crate) host: String,
    pub(crate) repository: String,
    /// Plain http, and https with any certificate, are allowed.
    pub(crate) insecure: bool,
    /// Whether this is where the name says that the image is.
    pub(crate) is_origin: bool,
}

/// What may be asked of a repository (scopes of docker's token authentication).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Access {
    Pull,
    Push,
}

impl Access {
    fn actions(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
        }
    }
}

/// A manifest as the registry gave it.
#[derive(Debug, Clone)]
pub struct FetchedManifest {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What the registry says that it is; `None` for a type of just any document.
    pub media_type: Option<String>,
    /// The digest of the bytes.
    pub digest: BlobDigest,
}

/// How a HEAD request for a blob or manifest was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The digest that the registry names, if it does.
    pub digest: Option<BlobDigest>,
    /// The size in bytes, if it is named.
    pub size: Option<u64>,
}

/// A connection to a repository.
pub struct Client {
    http: Arc<Http>,
    pub(crate) endpoint: Endpoint,
    credential: Option<Credential>,
    access: Access,
    retry: Retry,
    base: OnceLock<Url>,
    /// By the repository that the token also reads, for mounting from it; "" for none.
    authorization: Mutex<HashMap<String, String>>,
    /// Repositories that no token is given for.
    closed: Mutex<HashSet<String>>,
    pub(crate) refused: Refused,
}

impl Client {
    pub(crate) fn new(
        http: Arc<Http>,
        endpoint: Endpoint,
        credential: Option<Credential>,
        access: Access,
        retry: Retry,
    ) -> Self {
        Self {
            http,
            endpoint,
            credential,
            access,
            retry,
            base: OnceLock::new(),
            authorization: Mutex::default(),
            closed: Mutex::default(),
            refused: Refused::default(),
        }
    }

    /// What errors call it.
    pub fn label(&self) -> String {
        let Endpoint { host, repository, .. } = &self.endpoint;
        match self.base.get() {
            Some(base) => format!("{}/{repository}", base.origin()),
            None => format!("{host}/{repository}"),
        }
    }

    /// The registry's host, with its port if one is given.
    pub fn host(&self) -> &str {
        &self.endpoint.host
    }

    /// Whether this is where the name says that the image is, not a mirror.
    pub fn is_origin(&self) -> bool {
        self.endpoint.is_origin
    }

    pub(crate) fn attempt(&self, why: EndpointError) -> Attempt {
        Attempt { endpoint: self.label(), why }
    }

    pub(crate) fn retry(&self) -> &Retry {
        &self.retry
    }

    /// The registry's root, its scheme found by asking once where there is a choice.
    fn base(&self) -> Result<&Url, EndpointError> {
        if let Some(base) = self.base.get() {
            return Ok(base);
        }
        let host = api_host(&self.endpoint.host);
        let loopback = is_loopback(host);
        let order: &[Scheme] = match (loopback, self.endpoint.insecure) {
            (true, _) => &[Scheme::Http, Scheme::Https],
            (false, true) => &[Scheme::Https, Scheme::Http],
            (false, false) => &[Scheme::Https],
        };
        let (mut failure, mut refused) = (None, None);
        for scheme in order {
            let Some(url) = Url::new(*scheme, host) else {
                return Err(EndpointError::Unreachable(UNKNOWN_HOST.to_owned()));
            };
            let url = url.at("/v2/");
            if order.len() == 1 {
                return Ok(self.base.get_or_init(|| url));
            }
            match self.http.send(&self.call(Method::GET, url.clone(), RequestBody::Empty)) {
                // What Go's servers say to plain http on a TLS port; what https says then counts.
                Ok(answer) if answer.status == 400 && *scheme == Scheme::Http => {
                    refused = Some(answer.refusal());
                }
                Ok(_) => return Ok(self.base.get_or_init(|| url)),
                // A server that does not answer plain http does not answer TLS either.
                Err(why) if why.is_silence() && *scheme == Scheme::Http => return Err(why),
                Err(why) => {
                    failure.get_or_insert(why);
                }
            }
        }
        Err(failure.or(refused).unwrap_or(EndpointError::Unreachable(String::new())))
    }

    fn call<'a>(&self, method: Method, url: Url, body: RequestBody<'a>) -> Call<'a> {
        let headers = Vec::new();
        let verify = !self.endpoint.insecure;
        Call { method, url, headers, body, authorization: None, verify }
    }

    /// Asks once, or twice if the registry wants credentials first.
    fn ask(&self, call: &mut Call<'_>) -> Result<HttpResponse, EndpointError> {
        self.ask_with(call, "")
    }

    /// The same with a token that also reads the repository `also`, if that is not empty.
    fn ask_with(&self, call: &mut Call<'_>, also: &str) -> Result<HttpResponse, EndpointError> {
        let tokens = || self.authorization.lock().unwrap_or_else(PoisonError::into_inner);
        let known = tokens().get(also).cloned();
        let base = self.base()?;
        // An upload may be redirected elsewhere; our credentials go to the registry alone.
        let ours = call.url.same_origin(base);
        call.authorization = known.filter(|_| ours);
        let answer = self.http.send(call)?;
        if answer.status != 401 || !ours {
            return Ok(answer);
        }
        let values = answer.headers.get_all("www-authenticate");
        let Some(challenge) = Challenge::parse(values.iter().filter_map(|v| v.to_str().ok()))
        else {
            return Ok(answer);
        };
        if !answer.url.same_origin(base) {
            return Ok(answer);
        }
        let Some(fresh) = self.authorize(base, &challenge, also)? else { return Ok(answer) };
        if call.authorization.as_ref() == Some(&fresh) {
            return Ok(answer);
        }
        tokens().insert(also.to_owned(), fresh.clone());
        call.authorization = Some(fresh);
        self.http.send(call)
    }

    fn authorize(
        &self,
        base: &Url,
        challenge: &Challenge,
        also: &str,
    ) -> Result<Option<String>, EndpointError> {
        match challenge {
            Challenge::Basic => Ok(self.credential.as_ref().and_then(Credential::basic)),
            Challenge::Bearer { realm, service, scope } => {
                if let Some(Credential::RegistryToken(token)) = &self.credential {
                    return Ok(Some(format!("Bearer {token}")));
                }
                let mut wanted = match self.endpoint.repository.as_str() {
                    // A login asks for no repository.
                    "" => scope.clone().unwrap_or_default(),
                    own => format!("repository:{own}:{}", self.access.actions()),
                };
                if !also.is_empty() {
                    wanted.push_str(&format!(" repository:{also}:pull"));
                }
                let credential = self.credential.as_ref();
                let verify = !self.endpoint.insecure;
                let challenge = (realm.as_str(), service.as_deref(), wanted.as_str());
                auth::fetch(&self.http, base, challenge, credential, verify).map(Some)
            }
        }
    }

    /// Asks until there is an answer that will not change by asking again.
    fn request(&self, mut call: Call<'_>) -> Result<HttpResponse, EndpointError> {
        let mut failures = 0;
        loop {
            failures += 1;
            let (mut host, mut asked) = (None, None);
            match self.ask(&mut call) {
                Ok(answer) if !matches!(answer.status, 429 | 500..) => return Ok(answer),
                Ok(answer) if failures >= self.retry.tries => return Ok(answer),
                Ok(answer) => {
                    asked = answer.header("retry-after").and_then(seconds_until);
                    host = Some(answer.url.host_and_port()).filter(|_| answer.status == 429);
                }
                Err(why) if failures >= self.retry.tries || !why.may_pass() => return Err(why),
                Err(_) => {}
            }
            let pause = self.retry.pause_after(failures, asked.map(Duration::from_secs));
            if let Some(host) = host {
                // What is too much for it is too much from all threads.
                self.http.pace.pause(&host, pause);
            }
            std::thread::sleep(pause);
        }
    }

    /// A user who waits long is to know for what.
    fn told_of(&self, why: &EndpointError) {
        if why.is_silence() {
            tracing::warn!("{}: {why}; it is asked again", self.label());
        }
    }

    fn url(&self, rest: &str) -> Result<Url, EndpointError> {
        let base = self.base_with_retry()?;
        Ok(base.at(&format!("/v2/{}/{rest}", self.endpoint.repository)))
    }

    fn base_with_retry(&self) -> Result<&Url, EndpointError> {
        let mut failures = 0;
        loop {
            match self.base() {
                Err(why) if why.may_pass() && failures + 1 < self.retry.tries_after(&why) => {
                    failures += 1;
                    self.told_of(&why);
                    std::thread::sleep(self.retry.pause_after(failures, None));
                }
                other => return other,
            }
        }
    }

    /// Whether the registry is there and takes our credentials.
    pub(crate) fn ping(&self) -> Result<(), EndpointError> {
        let url = self.base_with_retry()?.clone();
        let answer = self.request(self.call(Method::GET, url, RequestBody::Empty))?;
        match answer.status {
            200 => Ok(()),
            _ => Err(answer.refusal()),
        }
    }

    /// What the registry has at a path, of the media type `accept` if one is given; whatever the
    /// answer.
    pub(crate) fn get(
        &self,
        path: &str,
        accept: Option<&str>,
    ) -> Result<HttpResponse, EndpointError> {
        let url = self.base_with_retry()?.at(path);
        let mut call = self.call(Method::GET, url, RequestBody::Empty);
        call.headers.extend(accept.map(|accept| ("accept", accept.to_owned())));
        self.request(call)
    }

    /// A manifest by tag or digest, of at most `most` bytes.
    ///
    /// # Errors
    /// `Wrong` if it is not what the digest in `wanted`, or the registry itself, says; else what
    /// the registry said.
    pub fn manifest(
        &self,
        wanted: &ManifestName,
        most: u64,
    ) -> Result<FetchedManifest, EndpointError> {
        let mut call = self.call(Method::GET, self.url(&wanted.path())?, RequestBody::Empty);
        call.headers.push(("accept", ACCEPT.to_owned()));
        let answer = self.request(call)?;
        if answer.status != 200 {
            return Err(answer.refusal());
        }
        let media_type = answer.header("content-type").unwrap_or_default().to_owned();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_lowercase();
        let said = answer.header("docker-content-digest").and_then(|text| text.parse().ok());
        let packed = answer.says_gzip();
        let mut bytes = answer.bytes(most)?;
        // A document is JSON and no gzip, so one that looks like gzip was compressed for transport.
        if packed && bytes.starts_with(&[0x1f, 0x8b]) {
            bytes = unpacked(&bytes, most)?;
        }
        // A type for just any document says nothing.
        let media_type = Some(media_type).filter(|text| text.starts_with("application/vnd."));
        let digest = BlobDigest::from_bytes(Sha256::digest(&bytes).into());
        let expected = match wanted {
            ManifestName::Digest(digest) => Some(*digest),
            ManifestName::Tag(_) => said,
        };
        match expected.filter(|expected| *expected != digest) {
            Some(expected) => {
                Err(EndpointError::Wrong(format!("the manifest is {digest}, expected {expected}")))
            }
            None => Ok(FetchedManifest { bytes, media_type, digest }),
        }
    }

    /// The pages of the index of the manifests that refer to one, of at most `most` bytes in all;
    /// `None` where the registry does not know the question (distribution specification 1.1,
    /// "Listing Referrers").
    ///
    /// # Errors
    /// What the registry said.
    pub fn referrers(
        &self,
        subject: BlobDigest,
        most: u64,
    ) -> Result<Option<Vec<Vec<u8>>>, EndpointError> {
        let (mut pages, mut left, mut unknown) = (Vec::new(), most, false);
        let first = self.url(&format!("referrers/{subject}"))?;
        let get = |path: &str| self.get(path, Some(REFERRERS));
        each_page(first.path(), get, |answer| match page_of_referrers(answer)? {
            Some(answer) => {
                let page = answer.bytes(left)?;
                left -= page.len() as u64;
                pages.push(page);
                Ok(true)
            }
            None if pages.is_empty() => {
                unknown = true;
                Ok(false)
            }
            None => Err(EndpointError::Failed("a page of its list is no index".to_owned())),
        })?;
        Ok((!unknown).then_some(pages))
    }

    /// Whether the registry itself lists what refers to a manifest.
    ///
    /// # Errors
    /// What the registry said.
    pub fn lists_referrers(&self, subject: BlobDigest) -> Result<bool, EndpointError> {
        let first = self.url(&format!("referrers/{subject}"))?;
        let answer = self.get(first.path(), Some(REFERRERS))?;
        Ok(page_of_referrers(answer)?.is_some())
    }

    /// Whether a manifest is there, and which.
    ///
    /// # Errors
    /// `NotFound`, and whatever else the registry said.
    pub fn manifest_head(&self, wanted: &ManifestName) -> Result<Head, EndpointError> {
        let mut call = self.call(Method::HEAD, self.url(&wanted.path())?, RequestBody::Empty);
        call.headers.push(("accept", ACCEPT.to_owned()));
        head(self.request(call)?)
    }

    /// Whether a blob is there.
    ///
    /// # Errors
    /// `NotFound`, and whatever else the registry said.
    pub fn blob_head(&self, digest: BlobDigest) -> Result<Head, EndpointError> {
        let url = self.url(&format!("blobs/{digest}"))?;
        head(self.request(self.call(Method::HEAD, url, RequestBody::Empty))?)
    }

    /// Asks once for a blob from byte `offset` on. The answer is 200 or 206, or an error.
    pub(crate) fn blob(
        &self,
        digest: BlobDigest,
        offset: u64,
    ) -> Result<HttpResponse, EndpointError> {
        let url = self.url(&format!("blobs/{digest}"))?;
        let mut call = self.call(Method::GET, url, RequestBody::Empty);
        if offset > 0 {
            call.headers.push(("range", format!("bytes={offset}-")));
        }
        let answer = self.ask(&mut call)?;
        match answer.status {
            200 => Ok(answer),
            206 if offset > 0 => Ok(answer),
            _ => Err(answer.refusal()),
        }
    }

    /// Puts a manifest under a tag or its digest.
    ///
    /// # Errors
    /// What the registry said.
    pub fn put_manifest(
        &self,
        name: &ManifestName,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), EndpointError> {
        let url = self.url(&name.path())?;
        let mut call = self.call(Method::PUT, url, RequestBody::Bytes(bytes));
        call.headers.push(("content-type", media_type.to_owned()));
        let answer = self.request(call)?;
        match answer.status {
            200..=299 => Ok(()),
            _ => Err(answer.refusal()),
        }
    }

    /// Sends a request on behalf of an upload, with the same patience as all others.
    pub(crate) fn upload_request(
        &self,
        method: Method,
        url: Url,
        headers: Vec<(&'static str, String)>,
        body: RequestBody<'_>,
    ) -> Result<HttpResponse, EndpointError> {
        self.request(Call { headers, ..self.call(method, url, body) })
    }

    /// Asks once to mount from another repository, with a token of its own: the server of tokens
    /// may refuse that repository, and the upload itself needs no right to it.
    pub(crate) fn mount_request(
        &self,
        url: Url,
        from: &str,
    ) -> Result<HttpResponse, EndpointError> {
        let closed = || self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if closed().contains(from) {
            return Err(EndpointError::Denied("it was refused before".to_owned()));
        }
        let answer = self.ask_with(&mut self.call(Method::POST, url, RequestBody::Empty), from);
        if matches!(&answer, Err(EndpointError::Denied(_)))
            || answer.as_ref().is_ok_and(|answer| matches!(answer.status, 401 | 403))
        {
            closed().insert(from.to_owned());
        }
        answer
    }

    /// The same once, for a body that may have arrived in part.
    pub(crate) fn upload_once(
        &self,
        method: Method,
        url: Url,
        headers: Vec<(&'static str, String)>,
        body: RequestBody<'_>,
    ) -> Result<HttpResponse, EndpointError> {
        self.ask(&mut Call { headers, ..self.call(method, url, body) })
    }

    /// Where uploads begin.
    pub(crate) fn uploads(&self) -> Result<Url, EndpointError> {
        self.url("blobs/uploads/")
    }
}

/// The content of a gzip, of at most `most` bytes.
fn unpacked(bytes: &[u8], most: u64) -> Result<Vec<u8>, EndpointError> {
    let mut out = Vec::new();
    let mut reader = MultiGzDecoder::new(bytes).take(most.saturating_add(1));
    reader.read_to_end(&mut out).map_err(|error| broken(&error))?;
    if out.len() as u64 > most {
        return Err(EndpointError::Failed(format!("its manifest is larger than {most} bytes")));
    }
    Ok(out)
}

/// A page of referrers; `None` of a registry that does not know the question.
fn page_of_referrers(answer: HttpResponse) -> Result<Option<HttpResponse>, EndpointError> {
    let media_type = answer.header("content-type").unwrap_or_default();
    match answer.status {
        // A page for people is no answer.
        200 if media_type.starts_with(REFERRERS) => Ok(Some(answer)),
        200 | 400 | 404 | 405 | 501 => Ok(None),
        _ => Err(answer.refusal()),
    }
}

fn head(answer: HttpResponse) -> Result<Head, EndpointError> {
    if answer.status != 200 {
        return Err(answer.refusal());
    }
    Ok(Head {
        digest: answer.header("docker-content-digest").and_then(|text| text.parse().ok()),
        size: answer.header("content-length").and_then(|text| text.parse().ok()),
    })
}

/// By what a manifest is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestName {
    /// A tag.
    Tag(String),
    /// Its digest.
    Digest(BlobDigest),
}

impl ManifestName {
    fn path(&self) -> String {
        match self {
            Self::Tag(tag) => format!("manifests/{tag}"),
            Self::Digest(digest) => format!("manifests/{digest}"),
        }
    }
}

/// Where the API of a registry is: Docker Hub's is not at its name.
fn api_host(host: &str) -> &str {
    match host {
        "docker.io" => "registry-1.docker.io",
        other => other,
    }
}
