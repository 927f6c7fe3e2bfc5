//! The store as a registry that others pull from: read-only, for this machine alone.
//!
//! ```text
//! GET /v2/                        it is one
//! GET /v2/_catalog                the repositories
//! GET /v2/NAME/tags/list          the tags of one
//! GET /v2/NAME/manifests/REF      by tag or digest      GET or HEAD, all of them
//! GET /v2/NAME/blobs/DIGEST       config or layer, also from a byte on
//! ```
//! (distribution specification 1.1, "Pull"; NAME is `docker.io/library/x`, `library/x` or `x`.)
//!
//! Layers are the diffs themselves, which the store gives back byte for byte, so their digests
//! are their diff ids. An image that came with just these blobs has its own manifest; any other
//! has one that is made here, the same every time.
//!
//! Invariants: nothing is changed, whatever is asked; only requests that name this machine as
//! their host are answered, so no web page elsewhere reads the store through a browser; a
//! request is bounded in size and time, and so is the number of connections.

#[cfg(test)]
mod tests;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};

use percent_encoding::percent_decode_str;
use serde_json::json;
use strata_layer::{LeasedLayer, Store};
use strata_registry::{Reference, Tag};
use strata_tree::{BlobDigest, DiffId, ImageId};

use wire::ServeBounds;

use crate::derive::manifest_of;
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::media::manifest_type;
use crate::oci::{manifest_parts, media_type_of};

/// A request that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeEvent {
    /// GET or HEAD, or what was tried.
    pub method: String,
    /// What was asked for.
    pub path: String,
    /// How it was answered.
    pub status: u16,
}

/// Serves the store until the listener fails or `stopped` says so, which is asked after each
/// connection.
///
/// # Errors
/// `Io` if the listener fails.
pub fn serve(
    store: &Store,
    listener: &TcpListener,
    stopped: &(dyn Fn() -> bool + Sync),
    listen: &(dyn Fn(&ServeEvent) + Sync),
) -> Result<()> {
    let shelf = Shelf { store, made: Mutex::default() };
    wire::accept(&shelf, listener, stopped, listen, ServeBounds::default())
        .map_err(|error| Error::io("serving the store", error))
}

/// What is asked for.
struct Request<'a> {
    method: &'a str,
    path: &'a str,
    /// The first byte that is wanted.
    from: Option<u64>,
}

/// What is answered.
struct Response {
    status: u16,
    headers: Vec<(&'static str, String)>,
    /// Bytes of the body.
    length: u64,
    body: Body,
}

enum Body {
    Bytes(Vec<u8>),
    /// A diff, from a byte on.
    Diff(LeasedLayer, u64),
}

impl Response {
    fn bytes(status: u16, media_type: &str, bytes: Vec<u8>) -> Self {
        let headers = vec![("content-type", media_type.to_owned())];
        Self { status, headers, length: bytes.len() as u64, body: Body::Bytes(bytes) }
    }

    fn json(value: &serde_json::Value) -> Self {
        Self::bytes(200, "application/json", value.to_string().into_bytes())
    }

    fn error(status: u16, code: &str, message: &str) -> Self {
        let value = json!({"errors": [{"code": code, "message": message}]});
        Self::bytes(status, "application/json", value.to_string().into_bytes())
    }

    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// The store, and the manifests that were made for its images.
struct Shelf<'a> {
    store: &'a Store,
    made: Mutex<BTreeMap<ImageId, (BlobDigest, Vec<u8>)>>,
}

impl Shelf<'_> {
    fn answer(&self, request: &Request<'_>) -> Response {
        if !matches!(request.method, "GET" | "HEAD") {
            let message = "the store is served read-only";
            return Response::error(405, "UNSUPPORTED", message).header("allow", "GET, HEAD");
        }
        let path = request.path.split('?').next().unwrap_or_default();
        // Both forms are asked for, with the slash and without.
        let Some(rest) = path.strip_prefix("/v2/").or((path == "/v2").then_some("")) else {
            return Response::error(404, "UNSUPPORTED", "nothing but /v2/ is served");
        };
        let answer = match rest {
            "" => Ok(Response::json(&json!({}))),
            "_catalog" => self.catalog(request.path),
            rest => self.repository(request, rest),
        };
        answer.unwrap_or_else(|error| {
            tracing::warn!("{path}: {error}");
            Response::error(500, "UNKNOWN", "the store failed; its own log says why")
        })
    }

    fn names(&self) -> Result<Vec<(Reference, ImageId)>> {
        let tags = self.store.images().tags()?.into_iter();
        Ok(tags.filter_map(|(tag, id)| Some((tag.parse::<Reference>().ok()?, id))).collect())
    }

    fn catalog(&self, asked: &str) -> Result<Response> {
        let names = self.names()?;
        let all: BTreeSet<String> = names.iter().map(|(name, _)| listed(name)).collect();
        let (page, link) = paged(all.iter().map(String::as_str), asked);
        Ok(link.on(Response::json(&json!({ "repositories": page }))))
    }

    fn repository(&self, request: &Request<'_>, rest: &str) -> Result<Response> {
        let unknown = || Response::error(404, "NAME_UNKNOWN", "the store has no such repository");
        if let Some(name) = rest.strip_suffix("/tags/list") {
            let images = self.images_of(name)?;
            let tags = images.iter().filter_map(|(name, _)| name.tag()).map(Tag::as_str);
            let tags: BTreeSet<&str> = tags.collect();
            if images.is_empty() {
                return Ok(unknown());
            }
            let (page, link) = paged(tags.into_iter(), request.path);
            return Ok(link.on(Response::json(&json!({ "name": name, "tags": page }))));
        }
        let is_manifest = |rest: &str| rest.rsplit_once("/manifests/").is_some();
        let parts = match is_manifest(rest) {
            true => rest.rsplit_once("/manifests/"),
            false => rest.rsplit_once("/blobs/"),
        };
        let Some((name, wanted)) = parts else {
            return Ok(Response::error(404, "UNSUPPORTED", "there is no such part of the API"));
        };
        let images = self.images_of(name)?;
        if images.is_empty() {
            return Ok(unknown());
        }
        match is_manifest(rest) {
            true => self.manifest(&images, wanted),
            false => self.blob(request, &images, wanted),
        }
    }

    /// The images of a repository, by its whole name, by its path, or as people call it.
    fn images_of(&self, name: &str) -> Result<Vec<(Reference, ImageId)>> {
        let names = self.names()?;
        let is_so: [&dyn Fn(&Reference) -> bool; 3] = [
            &|one| whole(one) == name,
            &|one| one.domain().as_str() == "docker.io" && is_path(one, name),
            &|one| is_path(one, name),
        ];
        for is_so in is_so {
            let found: Vec<_> = names.iter().filter(|(one, _)| is_so(one)).cloned().collect();
            // Several registries may have the path; the first of them is meant.
            if let Some(domain) = found.first().map(|(one, _)| one.domain().clone()) {
                return Ok(found.into_iter().filter(|(one, _)| *one.domain() == domain).collect());
            }
        }
        Ok(Vec::new())
    }

    fn manifest(&self, images: &[(Reference, ImageId)], wanted: &str) -> Result<Response> {
        let digest = wanted.parse::<BlobDigest>().ok();
        for (name, id) in images {
            if digest.is_none() && name.tag().map(Tag::as_str) != Some(wanted) {
                continue;
            }
            let (own, bytes) = self.manifest_of(id)?;
            if digest.is_none_or(|digest| digest == own) {
                // What the image says goes into no head.
                let media_type = manifest_type(media_type_of(&bytes).as_deref());
                let response = Response::bytes(200, media_type, bytes);
                return Ok(response.header("docker-content-digest", own.to_string()));
            }
        }
        Ok(Response::error(404, "MANIFEST_UNKNOWN", "the store has no such image"))
    }

    /// The manifest that an image is served with.
    fn manifest_of(&self, id: &ImageId) -> Result<(BlobDigest, Vec<u8>)> {
        let known = self.made.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let (_, leased) = self.store.lease_image(id)?;
        let own = self.store.images().get(id)?.and_then(|image| image.manifest);
        let own = own.map(|digest| self.store.blob(&digest)).transpose()?;
        let bytes = match own.filter(|bytes| is_plain(bytes, &leased)) {
            Some(bytes) => bytes,
            None => manifest_of(self.store, &self.store.blob(&(*id).into())?, &leased)?,
        };
        let made = (sha256(&bytes), bytes);
        let mut all = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(*id, made.clone());
        Ok(made)
    }

    fn blob(
        &self,
        request: &Request<'_>,
        images: &[(Reference, ImageId)],
        wanted: &str,
    ) -> Result<Response> {
        let unknown = || Response::error(404, "BLOB_UNKNOWN", "the repository has no such blob");
        let Ok(digest) = wanted.parse::<BlobDigest>() else {
            return Ok(Response::error(400, "DIGEST_INVALID", "that is no sha256 digest"));
        };
        let diff_id = DiffId::from_bytes(*digest.as_bytes());
        for (_, id) in images {
            if digest == BlobDigest::from(*id) {
                let bytes = self.store.blob(&digest)?;
                let response = Response::bytes(200, "application/octet-stream", bytes);
                return Ok(response.header("docker-content-digest", digest.to_string()));
            }
            let image = self.store.images().get(id)?;
            if !image.is_some_and(|image| image.layers.contains(&diff_id)) {
                continue;
            }
            let (Some(layer), Some(leased)) =
                (self.store.layer(&diff_id)?, self.store.lease(&diff_id)?)
            else {
                return Ok(unknown());
            };
            return Ok(diff(request, leased, layer.diff_size, digest));
        }
        Ok(unknown())
    }

    /// Writes a body.
    fn write(&self, body: &Body, out: &mut dyn Write) -> Result<()> {
        match body {
            Body::Bytes(bytes) => {
                out.write_all(bytes).map_err(|error| Error::io("answering", error))
            }
            Body::Diff(leased, from) => {
                let mut out = After { out, skip: *from };
                leased.write_diff(&mut out)?;
                Ok(())
            }
        }
    }
}

fn diff(request: &Request<'_>, leased: LeasedLayer, size: u64, digest: BlobDigest) -> Response {
    let (status, from) = match request.from {
        Some(from) if from >= size => {
            let response = Response::error(416, "RANGE_INVALID", "the blob ends before that");
            return response.header("content-range", format!("bytes */{size}"));
        }
        Some(from) => (206, from),
        None => (200, 0),
    };
    let headers = vec![
        ("content-type", "application/octet-stream".to_owned()),
        ("docker-content-digest", digest.to_string()),
        ("accept-ranges", "bytes".to_owned()),
    ];
    let response =
        Response { status, headers, length: size - from, body: Body::Diff(leased, from) };
    match status {
        206 => response.header("content-range", format!("bytes {from}-{}/{size}", size - 1)),
        _ => response,
    }
}

/// Where the next page of a listing is, if there is one (distribution specification, "Listing
/// tags": `n` at most, after `last`).
struct Next(Option<String>);

impl Next {
    fn on(self, response: Response) -> Response {
        match self.0 {
            Some(path) => response.header("link", format!("<{path}>; rel=\"next\"")),
            None => response,
        }
    }
}

/// The page of a sorted listing that a request asks for.
fn paged<'a>(all: impl Iterator<Item = &'a str>, asked: &str) -> (Vec<&'a str>, Next) {
    let (path, query) = asked.split_once('?').unwrap_or((asked, ""));
    let value =
        |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let last = value("last").map(|last| percent_decode_str(last).decode_utf8_lossy());
    let mut page: Vec<&str> =
        all.filter(|name| last.as_deref().is_none_or(|last| *name > last)).collect();
    let Some(n) = value("n").and_then(|n| n.parse::<usize>().ok()) else {
        return (page, Next(None));
    };
    let more = n > 0 && page.len() > n;
    page.truncate(n);
    let next = page.last().filter(|_| more).map(|last| format!("{path}?n={n}&last={last}"));
    (page, Next(next))
}

/// Host and path.
fn whole(name: &Reference) -> String {
    format!("{}/{}", name.domain().as_str(), name.repository().as_str())
}

/// What a catalogue calls it: a host with a port cannot be part of a path.
fn listed(name: &Reference) -> String {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(&b);
    match name.domain().as_str().bytes().all(plain) {
        true => whole(name),
        false => name.repository().as_str().to_owned(),
    }
}

fn is_path(name: &Reference, text: &str) -> bool {
    name.repository().as_str() == text || name.familiar_name() == text
}

/// Whether a manifest's layers are the diffs themselves.
fn is_plain(manifest: &[u8], leased: &[LeasedLayer]) -> bool {
    manifest_parts("the store", manifest).is_ok_and(|(_, layers)| {
        layers.len() == leased.len()
            && layers.iter().zip(leased).all(|(layer, leased)| {
                layer.digest.strip_prefix("sha256:") == Some(leased.diff_id().hex().as_str())
            })
    })
}

/// Passes on what comes after some bytes.
struct After<'a> {
    out: &'a mut dyn Write,
    skip: u64,
}

impl Write for After<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let skipped = buffer.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
        self.skip -= skipped as u64;
        self.out.write_all(&buffer[skipped..])?;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
