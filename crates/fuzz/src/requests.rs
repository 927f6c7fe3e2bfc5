//! What clients ask `strata serve`.
//!
//! Invariants: every answer begins as one of HTTP, and none is a fault of the server; nothing is
//! told to who does not ask for this machine; the connection ends when its client's side does.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use strata_image::{CheckedStore, LoadOptions, SourceSpec, load, serve};
use strata_layer::Store;
use strata_registry::is_loopback;

use crate::kit::{Nobody, place};

/// Bytes of answers that are looked at.
const ANSWERS: u64 = 64 << 10;

/// A server of a store with one image, for as long as this process lives.
#[allow(clippy::unwrap_used)]
fn server() -> SocketAddr {
    static SERVER: OnceLock<(SocketAddr, tempfile::TempDir)> = OnceLock::new();
    let (address, _) = SERVER.get_or_init(|| {
        let dir = place();
        let store = Store::open(dir.path()).unwrap();
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
        let image = SourceSpec::path(&fixtures.join("cases.oci"));
        let options = LoadOptions::default();
        load(CheckedStore::unchecked(&store), &image, &options, &Nobody).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || serve(&store, &listener, &|| false, &|_| {}));
        (address, dir)
    });
    *address
}

/// Any bytes as all that a client sends.
#[allow(clippy::unwrap_used)]
pub(crate) fn request(data: &[u8]) {
    let mut client = TcpStream::connect(server()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // The server may have answered and ended it before it has taken everything.
    let _ = client.write_all(data);
    let _ = client.shutdown(Shutdown::Write);
    let mut answers = Vec::new();
    if let Err(error) = (&client).take(ANSWERS).read_to_end(&mut answers) {
        let waits = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        assert!(!waits, "the connection does not end");
    }
    // Its port is free at once.
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    if answers.is_empty() {
        return;
    }
    let first = String::from_utf8_lossy(&answers[..answers.len().min(12)]).into_owned();
    let status = first.strip_prefix("HTTP/1.1 ").unwrap_or_default();
    assert!(["200", "206", "400", "403", "404", "405", "416"].contains(&status), "{first:?}");
    let asked = String::from_utf8_lossy(data);
    let mut hosts = asked.lines().filter_map(|line| line.split_once(':'));
    let own =
        hosts.any(|(name, host)| name.eq_ignore_ascii_case("host") && is_loopback(host.trim()));
    assert!(own || !status.starts_with('2'), "told to somebody else");
}
