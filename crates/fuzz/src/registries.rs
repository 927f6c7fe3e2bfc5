//! What registries answer, and the files that say how to ask them.
//!
//! Invariant: an answer of a registry that is not what was asked for is an error or is empty; it
//! never is another image.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use strata_registry::{
    Credentials, ManifestName, Reference, Registries, RegistryOptions, RegistrySettings, Retry,
    Timeouts,
};
use strata_tree::BlobDigest;

use crate::kit::{in_memory, path_of};

/// Any bytes as a `registries.conf`, a `daemon.json` or an `auth.json`.
pub(crate) fn settings(data: &[u8]) {
    let file = in_memory(data);
    let path = path_of(&file);
    let mut settings = RegistrySettings::default();
    let _ = settings.add_registries_conf(&path);
    settings.add_daemon_json(&path);
    let listed = settings.mirrors();
    assert!(listed.iter().all(|info| matches!(info.scheme, "http" | "https")));
    if let Ok(found) = Credentials::load(&[path]) {
        for host in ["docker.io", "h.example", "localhost:5000"] {
            // No helper that a file names is to run here.
            if !data.windows(4).any(|word| word == b"cred") && !data.contains(&b'\\') {
                let _ = found.find(host, "team/app");
            }
        }
    }
    // One of each kind of name leads somewhere, or nowhere, without asking anybody.
    let registries = Registries::new(RegistryOptions { settings, ..RegistryOptions::default() });
    for name in ["app:1", "h.example/team/app:1", "localhost:5000/a:1"] {
        if let Ok(name) = name.parse::<Reference>() {
            let _ = registries.places(&name);
        }
    }
}

/// A server whose answers are the input: each connection gets the next part of it.
struct Answers {
    port: u16,
    parts: Mutex<Vec<Vec<u8>>>,
}

/// What the first byte of a TLS connection is (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// What stands between the answers of an input.
const BETWEEN: &[u8] = b"\n===\n";

#[allow(clippy::unwrap_used)]
fn answers() -> &'static Answers {
    static ANSWERS: OnceLock<&'static Answers> = OnceLock::new();
    ANSWERS.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let answers: &'static Answers =
            Box::leak(Box::new(Answers { port, parts: Mutex::default() }));
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                answers.give(connection);
            }
        });
        answers
    })
}

impl Answers {
    /// Reads one request, gives one answer, and ends the connection.
    fn give(&self, mut connection: TcpStream) {
        let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            match connection.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                // A client tries TLS first, and is told at once that there is none.
                Ok(_) if request.is_empty() && buffer[0] == TLS_HANDSHAKE => return,
                Ok(n) => request.extend_from_slice(&buffer[..n]),
            }
        }
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let part = match parts.len() {
            0 => Vec::new(),
            1 => parts[0].clone(),
            _ => parts.remove(0),
        };
        drop(parts);
        let text = String::from_utf8_lossy(&part).replace("@PORT@", &self.port.to_string());
        // What is not UTF-8 goes as it is.
        let bytes = if text.contains('\u{fffd}') { part.as_slice() } else { text.as_bytes() };
        let _ = connection.write_all(bytes);
        let _ = connection.shutdown(Shutdown::Write);
    }
}

/// Any bytes as what a registry answers, to each question; the first byte says which one.
#[allow(clippy::unwrap_used)]
pub(crate) fn answer(data: &[u8]) {
    let Some((question, rest)) = data.split_first() else { return };
    let server = answers();
    let mut parts = Vec::new();
    let mut rest = rest;
    while let Some(at) = rest.windows(BETWEEN.len()).position(|text| text == BETWEEN) {
        parts.push(rest[..at].to_vec());
        rest = &rest[at + BETWEEN.len()..];
    }
    parts.push(rest.to_vec());
    *server.parts.lock().unwrap_or_else(PoisonError::into_inner) = parts;
    let wait = Duration::from_secs(2);
    let registries = Registries::new(RegistryOptions {
        timeouts: Timeouts { connect: wait, answer: wait, stall: wait },
        retry: Retry { tries: 1, pause: Duration::ZERO, longest: Duration::ZERO },
        no_tls_verify: true,
        ..RegistryOptions::default()
    });
    let host = format!("127.0.0.1:{}", server.port);
    let name: Reference = format!("{host}/team/app:1").parse().unwrap();
    let digest = BlobDigest::from_bytes([7; 32]);
    let Ok(client) = registries.to_push(&name) else { return };
    match question % 8 {
        0 => {
            let found = client.manifest(&ManifestName::Digest(digest), 64 << 10);
            assert!(found.is_err(), "no bytes have that digest");
        }
        1 => {
            if let Ok(found) = client.manifest(&ManifestName::Tag("1".to_owned()), 64 << 10) {
                assert!(found.bytes.len() <= 64 << 10);
            }
        }
        2 => {
            let found = client.referrers(digest, 64 << 10);
            assert!(
                found.is_err()
                    || found.unwrap().is_none_or(|pages| pages.concat().len() <= 64 << 10)
            );
        }
        3 => drop(client.blob_head(digest)),
        4 => {
            if let Ok(hits) = registries.search(&host, "app", 5) {
                assert!(hits.len() <= 5);
            }
        }
        5 => drop(registries.repositories(&host, Some("team"))),
        6 => drop(registries.tags(&name)),
        _ => {
            let Ok(places) = registries.only_origin(&name) else { return };
            let mut read = Vec::new();
            let _ = places.blob(digest, 100).take(1000).read_to_end(&mut read);
            assert!(read.len() <= 100, "more than the manifest says");
        }
    }
}
