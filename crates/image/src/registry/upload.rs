//! Blobs on their way to a registry.
//!
//! ```text
//! small   POST uploads/ -> PUT location?digest=   with all bytes
//! large   POST uploads/ -> PATCH location, a part at a time -> PUT location?digest=
//!         a part that broke off: GET location -> Range: 0-N -> PATCH from N + 1 on
//! mount   POST uploads/?mount=DIGEST&from=REPOSITORY -> 201, nothing to send
//! ```
//! (distribution specification, "Pushing blobs".)
//!
//! Invariants: what is sent can be sent again; the registry checks the digest at the end, and an
//! upload that fails is begun anew as often as other requests are repeated.

use std::io::{self, Read};

use strata_tree::BlobDigest;
use ureq::http::Method;

use super::client::Client;
use super::error::Refusal;
use super::http::{Answer, Body};
use super::url::Url;

/// A blob that can be read from any offset, as often as needed.
pub(crate) struct Outgoing<'a> {
    pub(crate) digest: BlobDigest,
    pub(crate) size: u64,
    pub(crate) open: &'a (dyn Fn(u64) -> io::Result<Box<dyn Read + 'a>> + 'a),
    /// Told how many bytes have been sent.
    pub(crate) sent: &'a dyn Fn(u64),
}

/// How a request to mount was answered.
pub(crate) enum Mount {
    Done,
    /// The registry wants the bytes, here.
    Upload(Url),
}

fn location(answer: &Answer) -> Result<Url, Refusal> {
    let location = answer.header("location").and_then(|location| answer.url.join(location));
    location.ok_or_else(|| Refusal::Failed("it does not say where to upload to".to_owned()))
}

impl Client {
    /// Asks the registry to take a blob from another of its repositories.
    pub(crate) fn mount(&self, digest: BlobDigest, from: &str) -> Result<Mount, Refusal> {
        let url = self.uploads()?.with_query("mount", &digest.to_string()).with_query("from", from);
        let answer = self.upload_request(Method::POST, url, Vec::new(), Body::Empty)?;
        match answer.status {
            201 => Ok(Mount::Done),
            202 => location(&answer).map(Mount::Upload),
            _ => Err(answer.refusal()),
        }
    }

    /// Whether the repository has a blob.
    pub(crate) fn has(&self, digest: BlobDigest) -> Result<bool, Refusal> {
        match self.blob_head(digest) {
            Ok(_) => Ok(true),
            Err(Refusal::NotFound(_)) => Ok(false),
            Err(why) => Err(why),
        }
    }

    /// Sends a blob that is in memory, if it is not there.
    pub(crate) fn put_small(&self, digest: BlobDigest, bytes: &[u8]) -> Result<(), Refusal> {
        if self.has(digest)? {
            return Ok(());
        }
        let open = |offset: u64| {
            let at = usize::try_from(offset).unwrap_or(bytes.len()).min(bytes.len());
            Ok(Box::new(&bytes[at..]) as Box<dyn Read>)
        };
        let size = bytes.len() as u64;
        self.upload(&Outgoing { digest, size, open: &open, sent: &|_| {} }, size, None)
    }

    fn begin(&self) -> Result<Url, Refusal> {
        let answer = self.upload_request(Method::POST, self.uploads()?, Vec::new(), Body::Empty)?;
        match answer.status {
            202 => location(&answer),
            _ => Err(answer.refusal()),
        }
    }

    /// Sends a blob, in parts of at most `part` bytes; `begun` is an upload that waits already.
    pub(crate) fn upload(
        &self,
        blob: &Outgoing<'_>,
        part: u64,
        mut begun: Option<Url>,
    ) -> Result<(), Refusal> {
        let mut failures = 0;
        loop {
            let at = begun.take().map_or_else(|| self.begin(), Ok)?;
            let outcome = match blob.size <= part {
                true => self.finish(at, blob, 0),
                false => self.parts(at, blob, part),
            };
            match outcome {
                // A registry that was restarted does not know the upload any more.
                Err(why)
                    if (why.may_pass() || matches!(why, Refusal::NotFound(_)))
                        && failures + 1 < self.retry().tries =>
                {
                    failures += 1;
                    tracing::debug!("upload of {}: {}: {why}", blob.digest, self.label());
                    std::thread::sleep(self.retry().pause_after(failures, None));
                }
                outcome => return outcome,
            }
        }
    }

    /// The last request, with the bytes from `offset` on.
    fn finish(&self, at: Url, blob: &Outgoing<'_>, offset: u64) -> Result<(), Refusal> {
        let url = at.with_query("digest", &blob.digest.to_string());
        let answer = self.send(Method::PUT, url, blob, offset, blob.size - offset)?;
        match answer.status {
            200..=299 => Ok(()),
            _ => Err(answer.refusal()),
        }
    }

    fn parts(&self, mut at: Url, blob: &Outgoing<'_>, part: u64) -> Result<(), Refusal> {
        let (mut offset, mut failures) = (0, 0);
        while offset < blob.size {
            let len = part.min(blob.size - offset);
            let outcome = self.send(Method::PATCH, at.clone(), blob, offset, len);
            let outcome = outcome.and_then(|answer| match answer.status {
                200..=299 => Ok((location(&answer)?, offset + len)),
                // The registry has another idea of what it has got.
                416 => self.where_we_are(&at),
                _ => Err(answer.refusal()),
            });
            match outcome {
                Ok((next, reached)) if reached > offset && reached <= blob.size => {
                    (at, offset, failures) = (next, reached, 0);
                }
                Ok(_) => {
                    return Err(Refusal::Failed("it does not take part after part".to_owned()));
                }
                Err(why) if why.may_pass() && failures + 1 < self.retry().tries => {
                    failures += 1;
                    std::thread::sleep(self.retry().pause_after(failures, None));
                    (at, offset) = self.where_we_are(&at)?;
                }
                Err(why) => return Err(why),
            }
        }
        self.finish(at, blob, offset)
    }

    /// How much of an upload has arrived.
    fn where_we_are(&self, at: &Url) -> Result<(Url, u64), Refusal> {
        let answer = self.upload_request(Method::GET, at.clone(), Vec::new(), Body::Empty)?;
        if !matches!(answer.status, 200..=299) {
            return Err(answer.refusal());
        }
        let next = location(&answer).unwrap_or_else(|_| at.clone());
        // `0-N`; an upload without any bytes says `0-0` or nothing.
        let last = answer.header("range").and_then(|range| {
            range.trim_start_matches("bytes=").split_once('-')?.1.parse::<u64>().ok()
        });
        Ok((next, last.filter(|last| *last > 0).map_or(0, |last| last + 1)))
    }

    fn send(
        &self,
        method: Method,
        url: Url,
        blob: &Outgoing<'_>,
        offset: u64,
        len: u64,
    ) -> Result<Answer, Refusal> {
        let mut headers = vec![("content-type", "application/octet-stream".to_owned())];
        if method == Method::PATCH {
            headers.push(("content-range", format!("{offset}-{}", offset + len - 1)));
        }
        let open = || {
            let reader = (blob.open)(offset)?.take(len);
            let counted = Counted { reader, count: offset, sent: blob.sent };
            Ok(Box::new(counted) as Box<dyn Read>)
        };
        match len {
            // Nothing that could have arrived in part.
            0 => self.upload_request(method, url, headers, Body::Empty),
            len => self.upload_once(method, url, headers, Body::Stream(&open, len)),
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
