//! Blobs on their way to a registry.
//!
//! ```text
//! whole   POST uploads/ -> PUT location?digest=   with all bytes
//!         where that form is refused: PATCH location with all bytes, no range -> PUT
//! rest    an exchange that broke off: GET location -> Range: 0-N
//!         -> PATCH from N + 1 on, if N has grown -> PUT; else all of it again
//! mount   POST uploads/?mount=DIGEST&from=REPOSITORY -> 201, nothing to send
//! ```
//! (distribution specification, "Pushing blobs".) Parts are not used otherwise: GHCR takes parts
//! up to 4 MiB alone, ECR the first part alone, and both take a whole blob of any size.
//!
//! Invariants: what is sent can be sent again; the registry checks the digest at the end; a form
//! that a registry has refused is not tried again; an upload that breaks is begun again as often as
//! other requests are repeated, and what is refused is not repeated.

use std::io::{self, Read};
use std::sync::atomic::Ordering::Relaxed;

use strata_tree::BlobDigest;
use ureq::http::Method;

use crate::address::Url;
use crate::client::Client;
use crate::error::EndpointError;
use crate::forms::UploadForm;
use crate::http::{HttpResponse, RequestBody};

/// Times that one upload goes on after a break.
const BREAKS: u32 = 100;

/// A blob that can be read from any offset, as often as needed.
pub struct Outgoing<'a> {
    /// Its digest.
    pub digest: BlobDigest,
    /// Its size in bytes.
    pub size: u64,
    /// Opens it at an offset.
    pub open: &'a (dyn Fn(u64) -> io::Result<Box<dyn Read + 'a>> + 'a),
    /// Called with how many bytes have been sent.
    pub sent: &'a dyn Fn(u64),
}

/// How a request to mount was answered.
pub enum Mount {
    /// The repository has the blob now.
    Done,
    /// The registry wants the bytes.
    Upload(Begun),
}

/// An upload that waits for its bytes, and where.
pub struct Begun(Url);

/// Why an exchange that carries bytes did not end well.
enum Fault {
    /// The registry does not take the bytes in this form.
    Form(EndpointError),
    /// It broke off, or the registry is in trouble.
    Broken(EndpointError),
    /// Another form, or another time, changes nothing.
    Final(EndpointError),
}

impl Fault {
    fn of(answer: HttpResponse) -> Self {
        match answer.status {
            401 | 403 | 507 => Self::Final(answer.refusal()),
            // The upload is not known any more, or the registry has no time or is out of order.
            404 | 408 | 425 | 429 | 500 | 502.. => Self::Broken(answer.refusal()),
            _ => Self::Form(answer.refusal()),
        }
    }
}

impl From<EndpointError> for Fault {
    fn from(why: EndpointError) -> Self {
        if why.may_pass() { Self::Broken(why) } else { Self::Final(why) }
    }
}

fn location(answer: &HttpResponse) -> Result<Url, EndpointError> {
    let location = answer.header("location").and_then(|location| answer.url.join(location));
    location.ok_or_else(|| EndpointError::Failed("it does not say where to upload to".to_owned()))
}

/// How many bytes of an upload the registry has: `0-N`, `bytes=0-N` or `bytes 0-N`.
fn reached(answer: &HttpResponse) -> u64 {
    let last = answer.header("range").and_then(|range| {
        let range = range.trim().trim_start_matches("bytes").trim_start_matches(['=', ' ']);
        range.strip_prefix("0-")?.split('/').next()?.trim().parse::<u64>().ok()
    });
    // An upload without any bytes says `0-0` or nothing.
    last.filter(|last| *last > 0).map_or(0, |last| last.saturating_add(1))
}

impl Client {
    /// Asks the registry to take a blob from another of its repositories; `None` if it does not.
    ///
    /// No refusal of it says anything of the upload: a token server may refuse the other
    /// repository, a registry may not know how to mount.
    pub fn mount(&self, digest: BlobDigest, from: &str) -> Option<Mount> {
        let asked = || {
            let url = self.uploads()?;
            let url = url.with_query("mount", &digest.to_string()).with_query("from", from);
            let answer = self.mount_request(url, from)?;
            match answer.status {
                201 if self.has(digest)? => Ok(Mount::Done),
                201 => Err(EndpointError::Wrong("it said that the blob is there".to_owned())),
                202 => Ok(Mount::Upload(Begun(location(&answer)?))),
                _ => Err(answer.refusal()),
            }
        };
        match asked() {
            Ok(mount) => Some(mount),
            Err(why) => {
                tracing::debug!("{digest} is not mounted from {from}: {why}");
                None
            }
        }
    }

    /// Whether the repository has a blob. Where that may not be asked, it has to be sent.
    ///
    /// # Errors
    /// What the registry said, where that says nothing of the blob.
    pub fn has(&self, digest: BlobDigest) -> Result<bool, EndpointError> {
        match self.blob_head(digest) {
            Ok(_) => Ok(true),
            Err(EndpointError::NotFound(_)) => Ok(false),
            Err(why @ (EndpointError::Denied(_) | EndpointError::Failed(_))) => {
                tracing::debug!("{digest}: {}: whether it is there: {why}", self.label());
                Ok(false)
            }
            Err(why) => Err(why),
        }
    }

    /// Sends a blob that is in memory, if it is not there.
    ///
    /// # Errors
    /// As [`Client::upload`].
    pub fn put_small(&self, digest: BlobDigest, bytes: &[u8]) -> Result<(), EndpointError> {
        if self.has(digest)? {
            return Ok(());
        }
        let open = |offset: u64| {
            let at = usize::try_from(offset).unwrap_or(bytes.len()).min(bytes.len());
            Ok(Box::new(&bytes[at..]) as Box<dyn Read>)
        };
        let size = bytes.len() as u64;
        self.upload(&Outgoing { digest, size, open: &open, sent: &|_| {} }, None)
    }

    fn begin(&self) -> Result<Url, EndpointError> {
        let answer =
            self.upload_request(Method::POST, self.uploads()?, Vec::new(), RequestBody::Empty)?;
        match answer.status {
            200..=299 => location(&answer),
            _ => Err(answer.refusal()),
        }
    }

    /// Sends a blob; `begun` is an upload that waits already.
    ///
    /// # Errors
    /// What the registry said last.
    pub fn upload(&self, blob: &Outgoing<'_>, begun: Option<Begun>) -> Result<(), EndpointError> {
        let mut begun = begun.map(|Begun(at)| at);
        let (mut failures, mut form) = (0, self.refused.first());
        loop {
            let at = begun.take().map_or_else(|| self.begin(), Ok)?;
            let why = match self.whole(form, at, blob) {
                Ok(()) => return Ok(()),
                Err(Fault::Form(why)) => {
                    self.refused.of(form).store(true, Relaxed);
                    form = form.other();
                    // Both forms, and no third one is left.
                    if self.refused.of(form).load(Relaxed) {
                        return Err(why);
                    }
                    tracing::debug!("upload of {}: {}: {why}", blob.digest, self.label());
                    continue;
                }
                Err(Fault::Broken(why)) => why,
                Err(Fault::Final(why)) => return Err(why),
            };
            failures += 1;
            if failures >= self.retry().tries_after(&why) {
                return Err(why);
            }
            tracing::debug!("upload of {}: {}: {why}", blob.digest, self.label());
            std::thread::sleep(self.retry().pause_after(failures, None));
            // A server that refuses without reading on looks like a broken connection.
            if !self.refused.of(form.other()).load(Relaxed) {
                form = form.other();
            }
        }
    }

    /// All bytes in one request; where it breaks off, the rest in others as long as it moves.
    fn whole(&self, form: UploadForm, at: Url, blob: &Outgoing<'_>) -> Result<(), Fault> {
        let why = match form {
            UploadForm::Put => match self.finish(at.clone(), blob, 0) {
                Err(Fault::Broken(why)) => why,
                outcome => return outcome,
            },
            UploadForm::Patch => match self.patch(at.clone(), blob, 0) {
                Ok(at) => return self.finish(at, blob, blob.size),
                Err(Fault::Broken(why)) => why,
                Err(fault) => return Err(fault),
            },
        };
        self.rest(at, blob, why)
    }

    /// What an exchange that broke off has left to send. `why` it broke is the answer if the
    /// registry has none of it.
    fn rest(&self, mut at: Url, blob: &Outgoing<'_>, mut why: EndpointError) -> Result<(), Fault> {
        let mut offset = 0;
        for _ in 0..BREAKS {
            if self.refused.rest.load(Relaxed) {
                break;
            }
            std::thread::sleep(self.retry().pause_after(1, None));
            let (next, has) = match self.where_we_are(&at) {
                Ok(place) => place,
                Err(unknown) => {
                    tracing::debug!("{}: what is left of an upload: {unknown}", self.label());
                    break;
                }
            };
            if has <= offset || has > blob.size {
                break;
            }
            (at, offset) = (next, has);
            let rest = match offset < blob.size {
                true => self.patch(at.clone(), blob, offset),
                false => Ok(at.clone()),
            };
            match rest.and_then(|at| self.finish(at, blob, blob.size)) {
                Ok(()) => return Ok(()),
                Err(Fault::Broken(broken)) => why = broken,
                // Parts are not taken, or not put together: the whole may be.
                Err(Fault::Form(refused)) => {
                    self.refused.rest.store(true, Relaxed);
                    return Err(Fault::Broken(refused));
                }
                Err(fault) => return Err(fault),
            }
        }
        Err(Fault::Broken(why))
    }

    /// The last request, with the bytes from `offset` on.
    fn finish(&self, at: Url, blob: &Outgoing<'_>, offset: u64) -> Result<(), Fault> {
        let url = at.with_query("digest", &blob.digest.to_string());
        let answer = self.send(Method::PUT, url, blob, offset)?;
        match answer.status {
            200..=299 => Ok(()),
            _ => Err(Fault::of(answer)),
        }
    }

    /// The bytes from `offset` on; gives where the upload is to be ended.
    fn patch(&self, at: Url, blob: &Outgoing<'_>, offset: u64) -> Result<Url, Fault> {
        let answer = self.send(Method::PATCH, at.clone(), blob, offset)?;
        match answer.status {
            // Some name the place once, in the beginning.
            200..=299 => Ok(location(&answer).unwrap_or(at)),
            _ => Err(Fault::of(answer)),
        }
    }

    /// How much of an upload has arrived.
    fn where_we_are(&self, at: &Url) -> Result<(Url, u64), EndpointError> {
        let answer =
            self.upload_request(Method::GET, at.clone(), Vec::new(), RequestBody::Empty)?;
        if !matches!(answer.status, 200..=299) {
            return Err(answer.refusal());
        }
        Ok((location(&answer).unwrap_or_else(|_| at.clone()), reached(&answer)))
    }

    fn send(
        &self,
        method: Method,
        url: Url,
        blob: &Outgoing<'_>,
        offset: u64,
    ) -> Result<HttpResponse, EndpointError> {
        let len = blob.size.saturating_sub(offset);
        let mut headers = vec![("content-type", "application/octet-stream".to_owned())];
        if method == Method::PATCH && offset > 0 {
            headers.push(("content-range", format!("{offset}-{}", blob.size - 1)));
        }
        let open = || {
            let reader = (blob.open)(offset)?.take(len);
            let counted = Counted { reader, count: offset, sent: blob.sent };
            Ok(Box::new(counted) as Box<dyn Read>)
        };
        match len {
            // Nothing that could have arrived in part.
            0 => self.upload_request(method, url, headers, RequestBody::Empty),
            len => self.upload_once(method, url, headers, RequestBody::Stream(&open, len)),
        }
    }
}

struct Counted<'a, R> {
    reader: R,
    count: u64,
    sent: &'a dyn Fn(u64),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        self.count += n as u64;
        (self.sent)(self.count);
        Ok(n)
    }
}
