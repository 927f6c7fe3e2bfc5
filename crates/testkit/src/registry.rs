//! A registry on loopback that does what a test tells it, well or badly.
//!
//! The model: blobs and manifests in memory behind the distribution API, one connection a
//! request. Before each answer a rule of the test looks at the request and says how to answer.
//!
//! Invariants: what no rule breaks is right (digests, lengths, ranges); every request is logged
//! with its credentials; it serves until it is dropped.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::digest;

/// A request, as a rule sees it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    /// Path and query.
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.path.contains(part)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// How a request is answered.
#[derive(Debug, Clone)]
pub enum How {
    /// As it should be.
    Well,
    /// With this.
    With(Answer),
    /// Right headers and this many bytes of the body; then the connection ends.
    Cut(usize),
    /// The same, but the connection stays and nothing comes any more.
    Stall(usize),
    /// The same, and then a byte comes every 20 ms.
    Drip(usize),
    /// One byte of the body is another.
    Flip,
    /// This many more bytes are promised than come.
    Promise(usize),
    /// The body ends this many bytes early, and the headers say so.
    Shorter(usize),
    /// As if no range had been asked for.
    Whole,
    /// The connection ends.
    Nothing,
    /// The connection ends after this many bytes of the request's body.
    Keep(usize),
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub fn how(self) -> How {
        How::With(self)
    }
}

type Rule = Box<dyn FnMut(&Seen) -> How + Send>;

type Manifests = BTreeMap<(String, String), (String, Vec<u8>)>;

struct Shared {
    blobs: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Which repository has which blob.
    held: Mutex<Vec<(String, String)>>,
    /// By repository and name: media type and bytes.
    manifests: Mutex<Manifests>,
    uploads: Mutex<BTreeMap<String, Vec<u8>>>,
    log: Mutex<Vec<Seen>>,
    rule: Mutex<Rule>,
    next: AtomicUsize,
    stop: AtomicBool,
}

/// The registry.
pub struct Registry {
    host: String,
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// An empty one that behaves.
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            blobs: Mutex::default(),
            held: Mutex::default(),
            manifests: Mutex::default(),
            uploads: Mutex::default(),
            log: Mutex::default(),
            rule: Mutex::new(Box::new(|_| How::Well)),
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let state = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if state.stop.load(Ordering::SeqCst) {
                    return;
                }
                let state = Arc::clone(&state);
                // A client that goes away is no failure of the test.
                std::thread::spawn(move || serve(&state, stream.unwrap()).unwrap_or_default());
            }
        });
        Self { host, shared, thread: Some(thread) }
    }

    /// One whose every answer follows a rule.
    pub fn with(rule: impl FnMut(&Seen) -> How + Send + 'static) -> Self {
        let registry = Self::new();
        registry.rule(rule);
        registry
    }

    /// From now on.
    pub fn rule(&self, rule: impl FnMut(&Seen) -> How + Send + 'static) {
        *self.shared.rule.lock().unwrap() = Box::new(rule);
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        self.shared.blobs.lock().unwrap().insert(digest.clone(), bytes.to_vec());
        self.shared.held.lock().unwrap().push((repository.to_owned(), digest.clone()));
        digest
    }

    /// Puts a manifest under a name, and under its digest.
    pub fn manifest(&self, repository: &str, name: &str, media_type: &str, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        put_manifest(&self.shared, repository, name, media_type, bytes);
        digest
    }

    /// Takes in all blobs of an OCI layout, and its first manifest under a tag.
    pub fn layout(&self, root: &Path, repository: &str, tag: &str) -> String {
        let read = |path: &Path| std::fs::read(path).unwrap();
        let index: serde_json::Value =
            serde_json::from_slice(&read(&root.join("index.json"))).unwrap();
        for entry in std::fs::read_dir(root.join("blobs/sha256")).unwrap() {
            self.blob(repository, &read(&entry.unwrap().path()));
        }
        let first = &index["manifests"][0];
        let digest = first["digest"].as_str().unwrap();
        let bytes = read(&root.join("blobs/sha256").join(&digest[7..]));
        self.manifest(repository, tag, first["mediaType"].as_str().unwrap(), &bytes)
    }

    /// The bytes under a name.
    pub fn stored_manifest(&self, repository: &str, name: &str) -> Option<Vec<u8>> {
        let manifests = self.shared.manifests.lock().unwrap();
        manifests.get(&(repository.to_owned(), name.to_owned())).map(|(_, bytes)| bytes.clone())
    }

    pub fn stored_blob(&self, digest: &str) -> Option<Vec<u8>> {
        self.shared.blobs.lock().unwrap().get(digest).cloned()
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.log.lock().unwrap().clone()
    }

    /// How often this was asked for.
    pub fn count(&self, method: &str, part: &str) -> usize {
        self.seen().iter().filter(|seen| seen.is(method, part)).count()
    }

    pub fn forget(&self) {
        self.shared.log.lock().unwrap().clear();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the listener.
        drop(TcpStream::connect(&self.host));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap_or_default();
        }
    }
}

/// A proxy that leads to one server, whatever it is asked for.
pub struct Proxy {
    host: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// It serves until the test program ends.
    pub fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (target, log) = (target.to_owned(), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (target, log) = (target.clone(), Arc::clone(&log));
                // A client that goes away is no failure of the test.
                std::thread::spawn(move || {
                    tunnel(&stream.unwrap(), &target, &log).unwrap_or_default();
                });
            }
        });
        Self { host, asked }
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The hosts and ports that it was asked for.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn tunnel(stream: &TcpStream, target: &str, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let Some(seen) = read_request(&mut reader)? else { return Ok(()) };
    assert_eq!(seen.method, "CONNECT");
    log.lock().unwrap().push(seen.path);
    let far = TcpStream::connect(target)?;
    (&*stream).write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let (mut there, mut back) = (far.try_clone()?, far);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // What ends one direction ends the tunnel.
            std::io::copy(&mut reader, &mut there).unwrap_or_default();
            there.shutdown(Shutdown::Write).unwrap_or_default();
        });
        std::io::copy(&mut back, &mut &*stream)?;
        stream.shutdown(Shutdown::Both)
    })
}

fn put_manifest(shared: &Shared, repository: &str, name: &str, media_type: &str, bytes: &[u8]) {
    let mut manifests = shared.manifests.lock().unwrap();
    for name in [name.to_owned(), digest(bytes)] {
        let value = (media_type.to_owned(), bytes.to_vec());
        manifests.insert((repository.to_owned(), name), value);
    }
}

fn serve(shared: &Shared, stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let Some(seen) = read_request(&mut reader)? else { return Ok(()) };
    shared.log.lock().unwrap().push(seen.clone());
    let how = (shared.rule.lock().unwrap())(&seen);
    let mut right = match &how {
        How::With(answer) => answer.clone(),
        How::Keep(bytes) => {
            let mut seen = seen.clone();
            seen.method = "PATCH".to_owned();
            seen.body.truncate(*bytes);
            let id = seen.path.split('?').next().unwrap_or_default().rsplit('/').next();
            let known = shared.uploads.lock().unwrap();
            let held = known.get(id.unwrap_or_default()).map_or(0, Vec::len);
            drop(known);
            seen.headers.insert("content-range".to_owned(), format!("{held}-"));
            answer(shared, &seen);
            stream.shutdown(Shutdown::Both)?;
            return Ok(());
        }
        How::Nothing => {
            stream.shutdown(Shutdown::Both)?;
            return Ok(());
        }
        How::Whole => {
            let mut seen = seen.clone();
            seen.headers.remove("range");
            answer(shared, &seen)
        }
        _ => answer(shared, &seen),
    };
    let (mut length, mut sent) = (right.body.len(), right.body.len());
    match how {
        How::Cut(bytes) | How::Stall(bytes) | How::Drip(bytes) => sent = bytes.min(sent),
        How::Promise(bytes) => length += bytes,
        How::Shorter(bytes) => {
            sent = sent.saturating_sub(bytes);
            length = sent;
        }
        How::Flip => {
            let middle = right.body.len() / 2;
            if let Some(byte) = right.body.get_mut(middle) {
                *byte ^= 1;
            }
        }
        How::Well | How::With(_) | How::Whole | How::Nothing | How::Keep(_) => {}
    }
    let mut head = format!("HTTP/1.1 {} Status\r\nconnection: close\r\n", right.status);
    if !right.headers.iter().any(|(name, _)| name == "content-length") {
        write!(head, "content-length: {length}\r\n").unwrap();
    }
    for (name, value) in &right.headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    head.push_str("\r\n");
    let mut out = &stream;
    out.write_all(head.as_bytes())?;
    if seen.method != "HEAD" {
        out.write_all(&right.body[..sent])?;
    }
    out.flush()?;
    if matches!(how, How::Stall(_)) {
        // Until the client has had enough.
        let _ = reader.read(&mut [0; 1])?;
    }
    if matches!(how, How::Drip(_)) {
        for byte in &right.body[sent..] {
            std::thread::sleep(Duration::from_millis(20));
            out.write_all(&[*byte])?;
            out.flush()?;
        }
    }
    stream.shutdown(Shutdown::Both)
}

fn read_request(reader: &mut impl BufRead) -> std::io::Result<Option<Seen>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (method, path) = (method.to_owned(), path.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    Ok(Some(Seen { method, path, headers, body }))
}

fn answer(shared: &Shared, seen: &Seen) -> Answer {
    let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
    let not_found = |code: &str| {
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"it is not here"}}]}}"#);
        Answer::new(404).body(body)
    };
    let Some(rest) = path.strip_prefix("/v2/") else { return not_found("PATH") };
    if rest.is_empty() {
        return Answer::new(200).body("{}");
    }
    if let Some((repository, name)) = rest.split_once("/manifests/") {
        let key = (repository.to_owned(), name.to_owned());
        if seen.method == "PUT" {
            let media_type = seen.header("content-type").unwrap_or_default();
            put_manifest(shared, repository, name, media_type, &seen.body);
            return Answer::new(201);
        }
        return match shared.manifests.lock().unwrap().get(&key) {
            Some((media_type, bytes)) => Answer::new(200)
                .header("content-type", media_type)
                .header("docker-content-digest", digest(bytes))
                .body(bytes.clone()),
            None => not_found("MANIFEST_UNKNOWN"),
        };
    }
    if let Some((repository, id)) = rest.split_once("/blobs/uploads/") {
        return upload(shared, seen, repository, id, query);
    }
    if let Some((repository, name)) = rest.split_once("/blobs/") {
        let known = (repository.to_owned(), name.to_owned());
        if !shared.held.lock().unwrap().contains(&known) {
            return not_found("BLOB_UNKNOWN");
        }
        return ranged(seen, &shared.blobs.lock().unwrap()[name]);
    }
    if let Some(repository) = rest.strip_suffix("/tags/list") {
        let manifests = shared.manifests.lock().unwrap();
        let tags = manifests.keys().filter(|(own, tag)| own == repository && !tag.contains(':'));
        let tags: Vec<_> = tags.map(|(_, tag)| tag.clone()).collect();
        return Answer::new(200)
            .body(serde_json::json!({"name": repository, "tags": tags}).to_string());
    }
    if rest == "_catalog" {
        let manifests = shared.manifests.lock().unwrap();
        let mut all: Vec<_> = manifests.keys().map(|(own, _)| own.clone()).collect();
        all.dedup();
        return Answer::new(200).body(serde_json::json!({"repositories": all}).to_string());
    }
    not_found("PATH")
}

fn ranged(seen: &Seen, bytes: &[u8]) -> Answer {
    let from = seen
        .header("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    match from {
        Some(from) if from < bytes.len() => {
            let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            Answer::new(206).header("content-range", range).body(&bytes[from..])
        }
        Some(_) => Answer::new(416),
        None => Answer::new(200).body(bytes),
    }
}

fn upload(shared: &Shared, seen: &Seen, repository: &str, id: &str, query: &str) -> Answer {
    let param = |name: &str| {
        let found = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        found.map(|value| value.replace("%3A", ":"))
    };
    let mut uploads = shared.uploads.lock().unwrap();
    let at = |id: &str| format!("/v2/{repository}/blobs/uploads/{id}?state=x");
    match seen.method.as_str() {
        "POST" => {
            if let (Some(digest), Some(from)) = (param("mount"), param("from")) {
                let mut held = shared.held.lock().unwrap();
                if held.contains(&(from, digest.clone())) {
                    held.push((repository.to_owned(), digest));
                    return Answer::new(201);
                }
            }
            let id = shared.next.fetch_add(1, Ordering::SeqCst).to_string();
            uploads.insert(id.clone(), Vec::new());
            Answer::new(202).header("location", at(&id))
        }
        "PATCH" => {
            let Some(known) = uploads.get_mut(id) else { return Answer::new(404) };
            // Without a range it is a stream that begins where the upload is.
            let from = seen.header("content-range").and_then(|text| text.split('-').next());
            if from.is_some_and(|text| text.parse().ok() != Some(known.len())) {
                return Answer::new(416);
            }
            known.extend_from_slice(&seen.body);
            let range = format!("0-{}", known.len().saturating_sub(1));
            Answer::new(202).header("location", at(id)).header("range", range)
        }
        "GET" => match uploads.get(id) {
            Some(known) => {
                let range = format!("0-{}", known.len().saturating_sub(1));
                Answer::new(204).header("location", at(id)).header("range", range)
            }
            None => Answer::new(404),
        },
        "PUT" => {
            let Some(mut bytes) = uploads.remove(id) else { return Answer::new(404) };
            bytes.extend_from_slice(&seen.body);
            let digest = digest(&bytes);
            if param("digest").as_deref() != Some(&digest) {
                return Answer::new(400).body(r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#);
            }
            shared.blobs.lock().unwrap().insert(digest.clone(), bytes);
            shared.held.lock().unwrap().push((repository.to_owned(), digest));
            Answer::new(201)
        }
        _ => Answer::new(405),
    }
}
