//! The endpoints that have an image, in the order in which they are asked.
//!
//! ```text
//! mirrors as configured, then the origin; those that did not answer lately after the others
//! ```
//!
//! Invariants: an answer of any endpoint counts only if it has the digest that the user or the
//! origin named; an endpoint that gave bytes of a blob that was wrong is not asked for that blob
//! again; if all fail, the error names all.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use flate2::read::MultiGzDecoder;
use strata_tree::BlobDigest;

use crate::client::Client;
use crate::error::{Attempt, EndpointError, RegistryError};
use crate::health::Health;
use crate::http::{HttpResponse, broken};
use crate::least_pace::LEAST;

/// Failures of one connection after another that a blob may have at one endpoint, progress or not.
const BREAKS: u32 = 100;

/// The endpoints of one image.
pub struct Places {
    clients: Vec<Client>,
    health: Arc<Health>,
    /// By blob: which endpoints gave bytes of it, and which are not asked for it again, with the
    /// reason.
    blobs: Mutex<HashMap<BlobDigest, Given>>,
    down: Mutex<HashSet<usize>>,
}

#[derive(Default)]
struct Given {
    used: Vec<usize>,
    failed: Vec<(usize, EndpointError)>,
}

impl Places {
    /// `clients` are in the order of the configuration, the origin last.
    pub(crate) fn new(clients: Vec<Client>, health: Arc<Health>) -> Self {
        Self { clients, health, blobs: Mutex::default(), down: Mutex::default() }
    }

    /// Where the name says that the image is; `None` if the configuration forbids to ask there.
    pub fn origin(&self) -> Option<&Client> {
        self.clients.last().filter(|client| client.endpoint.is_origin)
    }

    /// Whether there is an endpoint to ask besides the origin.
    pub fn has_mirrors(&self) -> bool {
        self.clients.iter().any(|client| !client.endpoint.is_origin)
    }

    /// Whether a client did not answer lately.
    pub fn is_down(&self, client: &Client) -> bool {
        self.health.down_until(&client.endpoint.host).is_some()
    }

    /// All positions, those that answer first.
    fn order(&self) -> Vec<usize> {
        let down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        let bad = |at: &usize| down.contains(at) || self.is_down(&self.clients[*at]);
        let (late, mut order): (Vec<_>, Vec<_>) = (0..self.clients.len()).partition(bad);
        order.extend(late);
        order
    }

    fn note(&self, at: usize, outcome: Option<&EndpointError>) {
        let client = &self.clients[at];
        match outcome {
            Some(why) if why.is_outage() => {
                self.down.lock().unwrap_or_else(PoisonError::into_inner).insert(at);
                // There is no endpoint to ask before a lone origin.
                if self.clients.len() > 1 {
                    self.health.down(&client.endpoint.host);
                }
            }
            _ => self.health.up(&client.endpoint.host),
        }
    }

    /// The first answer that is no failure.
    ///
    /// # Errors
    /// What each said.
    pub fn first<T>(
        &self,
        what: &str,
        ask: impl Fn(&Client) -> Result<T, EndpointError>,
    ) -> Result<T, Box<RegistryError>> {
        let mut attempts = Vec::new();
        for at in self.order() {
            let client = &self.clients[at];
            let outcome = ask(client);
            self.note(at, outcome.as_ref().err());
            match outcome {
                Ok(answer) => return Ok(answer),
                Err(why) => {
                    tracing::debug!("{what}: {}: {why}", client.label());
                    attempts.push((at, client.attempt(why)));
                }
            }
        }
        // The origin's answer last, whatever the order was.
        attempts.sort_by_key(|(at, _)| *at);
        let attempts = attempts.into_iter().map(|(_, attempt)| attempt).collect();
        Err(Box::new(RegistryError::new(what, attempts)))
    }

    /// Asks one client, which is one of these.
    ///
    /// # Errors
    /// What it said.
    pub fn ask<T>(
        &self,
        client: &Client,
        ask: impl Fn(&Client) -> Result<T, EndpointError>,
    ) -> Result<T, EndpointError> {
        let outcome = ask(client);
        if let Some(at) = self.clients.iter().position(|one| std::ptr::eq(one, client)) {
            self.note(at, outcome.as_ref().err());
        }
        outcome
    }

    /// The bytes of a blob, from the first place that has them.
    pub fn blob(&self, digest: BlobDigest, size: u64) -> BlobReader<'_> {
        // An endpoint that gave wrong bytes is in `failed` by now.
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        blobs.entry(digest).or_default().used.clear();
        drop(blobs);
        BlobReader {
            places: self,
            digest,
            size,
            offset: 0,
            body: None,
            fresh: 0,
            failures: 0,
            breaks: 0,
        }
    }

    /// The bytes that were read of a blob are wrong: those that gave them are not asked again.
    /// If there are several, the last, which gave only the end, is asked once more, for all of it.
    /// Says whether any endpoint is left; none is for bytes that nobody was asked for, which stay
    /// wrong however often they are read.
    pub fn wrong(&self, digest: BlobDigest, why: &str) -> bool {
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        let given = blobs.entry(digest).or_default();
        let mut used = std::mem::take(&mut given.used);
        if used.is_empty() {
            return false;
        }
        if used.len() > 1 {
            used.pop();
        }
        for at in used {
            if !given.failed.iter().any(|(known, _)| *known == at) {
                given.failed.push((at, EndpointError::Wrong(why.to_owned())));
            }
        }
        given.failed.len() < self.clients.len()
    }

    /// What is known of the failures of a blob, as an error.
    pub fn failures(&self, digest: BlobDigest) -> Box<RegistryError> {
        let blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut failed = blobs.get(&digest).map(|given| given.failed.clone()).unwrap_or_default();
        failed.sort_by_key(|(at, _)| *at);
        let attempts: Vec<Attempt> =
            failed.into_iter().map(|(at, why)| self.clients[at].attempt(why)).collect();
        Box::new(RegistryError::new(format!("blob {digest}"), attempts))
    }

    /// Whom to ask for a blob.
    fn next_for(&self, digest: BlobDigest) -> Option<usize> {
        let order = self.order();
        let blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = blobs.get(&digest).map(|given| given.failed.as_slice()).unwrap_or_default();
        order.into_iter().find(|at| !failed.iter().any(|(known, _)| known == at))
    }

    fn used(&self, digest: BlobDigest, at: usize) {
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        let used = &mut blobs.entry(digest).or_default().used;
        if !used.contains(&at) {
            used.push(at);
        }
    }

    fn gave_up(&self, digest: BlobDigest, at: usize, why: EndpointError) {
        self.note(at, Some(&why));
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        blobs.entry(digest).or_default().failed.push((at, why));
    }
}

/// A blob as one stream, however often the connection breaks and from whatever endpoint the rest
/// comes.
///
/// The bytes come in order, none twice, and at most as many as the descriptor says. The store
/// checks whether they are right.
pub struct BlobReader<'a> {
    places: &'a Places,
    digest: BlobDigest,
    size: u64,
    offset: u64,
    body: Option<(usize, Box<dyn Read + Send>)>,
    /// Bytes since the last break.
    fresh: u64,
    failures: u32,
    breaks: u32,
}

impl BlobReader<'_> {
    /// Opens the rest of the blob at an endpoint that has it.
    fn open(&mut self) -> io::Result<()> {
        while self.body.is_none() {
            let Some(at) = self.places.next_for(self.digest) else {
                return Err(io::Error::other(*self.places.failures(self.digest)));
            };
            let client = &self.places.clients[at];
            match client.blob(self.digest, self.offset).and_then(|answer| self.body_of(answer)) {
                Ok(body) => {
                    self.places.used(self.digest, at);
                    self.body = Some((at, body));
                }
                Err(why) => self.failed(at, why),
            }
        }
        Ok(())
    }

    /// The body of an answer from `offset` on.
    fn body_of(&self, answer: HttpResponse) -> Result<Box<dyn Read + Send>, EndpointError> {
        let number = |name: &str| answer.header(name).and_then(|text| text.parse::<u64>().ok());
        let wrong = |what: String| Err(EndpointError::Wrong(what));
        let (length, mut skip) = (number("content-length"), 0);
        let begins = if answer.status == 206 {
            // RFC 9110, 14.4: `bytes 5-9/10`.
            let range = answer.header("content-range").and_then(|text| {
                let first = text.trim().strip_prefix("bytes ")?.split('-').next()?;
                first.parse::<u64>().ok()
            });
            match range {
                Some(first) if first <= self.offset => first,
                _ => return wrong("it answers with another range than asked for".to_owned()),
            }
        } else {
            0
        };
        skip += self.offset - begins;
        // Compressed for transport, unasked: then the length differs, and no range of it can be
        // had.
        let packed = answer.says_gzip()
            && answer.status == 200
            && length.is_some_and(|length| length != self.size);
        let length = length.filter(|_| !packed);
        if let Some(length) = length.filter(|length| begins.checked_add(*length) != Some(self.size))
        {
            return wrong(format!(
                "it has {} bytes of a blob of {}",
                begins.saturating_add(length),
                self.size
            ));
        }
        let mut body = answer.into_reader();
        if packed {
            body = Box::new(MultiGzDecoder::new(body));
        }
        while skip > 0 {
            let skipped = io::copy(&mut body.by_ref().take(skip), &mut io::sink());
            match skipped.map_err(|error| broken(&error))? {
                0 => return Err(broken(&io::ErrorKind::UnexpectedEof.into())),
                n => skip -= n,
            }
        }
        Ok(body)
    }

    /// One connection failed: wait, or give this endpoint up.
    fn failed(&mut self, at: usize, why: EndpointError) {
        self.body = None;
        self.fresh = 0;
        self.failures += 1;
        self.breaks += 1;
        let client = &self.places.clients[at];
        let retry = client.retry();
        tracing::debug!("blob {} at byte {}: {}: {why}", self.digest, self.offset, client.label());
        if why.may_pass() && self.failures < retry.tries_after(&why) && self.breaks < BREAKS {
            std::thread::sleep(retry.pause_after(self.failures, None));
            return;
        }
        (self.failures, self.breaks) = (0, 0);
        self.places.gave_up(self.digest, at, why);
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.size - self.offset;
        let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if want == 0 {
            if !buffer.is_empty() {
                self.drain();
            }
            return Ok(0);
        }
        loop {
            self.open()?;
            let Some((at, body)) = &mut self.body else { continue };
            let at = *at;
            match body.read(&mut buffer[..want]) {
                Ok(0) => self.failed(at, broken(&io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => {
                    self.offset += n as u64;
                    self.fresh += n as u64;
                    // Some bytes are no progress: a server could go on like that for ever.
                    if self.fresh >= LEAST {
                        self.failures = 0;
                    }
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.failed(at, broken(&error)),
            }
        }
    }
}

impl BlobReader<'_> {
    /// Reads the end of the answer, so that the connection can serve the next one.
    fn drain(&mut self) {
        if let Some((_, mut body)) = self.body.take() {
            // All bytes are here and counted; what a broken connection says now changes nothing.
            let end = body.read(&mut [0]);
            tracing::trace!("the end of blob {}: {end:?}", self.digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registries::{Registries, RegistryOptions};

    #[test]
    fn bytes_that_nobody_gave_are_no_better_elsewhere() {
        let registries = Registries::new(RegistryOptions::default());
        let places = registries.places(&"registry.invalid/x".parse().unwrap()).unwrap();
        let digest = BlobDigest::from_bytes([1; 32]);
        let mut bytes = Vec::new();
        places.blob(digest, 0).read_to_end(&mut bytes).unwrap();
        assert!(bytes.is_empty() && !places.wrong(digest, "its digest is another"));
        // Those that somebody gave are, until all have given them.
        let places = Places::new(
            (0..2).map(|_| registries.to_ask(&"a.invalid/x".parse().unwrap()).unwrap()).collect(),
            Arc::default(),
        );
        for (at, others_are_left) in [(0, true), (1, false)] {
            places.used(digest, at);
            assert_eq!(places.wrong(digest, "its digest is another"), others_are_left);
        }
    }
}
