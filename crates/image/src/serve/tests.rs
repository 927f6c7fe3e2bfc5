//! Clients that keep connections, with the bounds of the test.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use strata_testkit::layout::{LAYER, Layout, MANIFEST, named, tar_of};

use super::*;
use crate::checked_store::CheckedStore;
use crate::load::{LoadOptions, load};
use crate::spec::SourceSpec;

fn bounds(connections: usize, head: Duration) -> ServeBounds {
    ServeBounds { connections, head, stalled: Duration::from_secs(3600) }
}

/// Serves an empty store with these bounds while `work` goes on.
fn serving(bounds: ServeBounds, work: impl FnOnce(SocketAddr)) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let shelf = Shelf { store: &store, made: Mutex::default() };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let over = AtomicBool::new(false);
    let stopped = || over.load(Ordering::SeqCst);
    std::thread::scope(|scope| {
        scope.spawn(|| wire::accept(&shelf, &listener, &stopped, &|_| {}, bounds).unwrap());
        work(address);
        over.store(true, Ordering::SeqCst);
        // It asks whether it is to stop after each connection.
        drop(TcpStream::connect(address).unwrap());
    });
}

/// Asks once, and is answered.
fn assert_answered(address: SocketAddr) {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    client.write_all(b"GET /v2/ HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

/// A client in the middle of its head.
fn half_asking(address: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"GET /v2/ HTTP/1.1\r\nhost: localhost\r\nx: ").unwrap();
    client
}

/// The one connection that there may be comes free again though its client never falls silent.
#[test]
fn a_client_that_drips_its_head_does_not_keep_the_others_waiting() {
    let bounds = bounds(1, Duration::from_millis(300));
    serving(bounds, |address| {
        let mut slow = half_asking(address);
        std::thread::spawn(move || {
            while slow.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        assert_answered(address);
    });
}

/// Nobody else wants its place, and it is ended all the same.
#[test]
fn a_head_that_drips_has_its_time() {
    let bounds = bounds(8, Duration::from_millis(300));
    serving(bounds, |address| {
        let mut slow = half_asking(address);
        let mut drips = (0..3000).map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            slow.write_all(b"x")
        });
        assert!(drips.any(|written| written.is_err()), "it is never ended");
    });
}

/// Many more clients than there may be connections ask for nothing, in all ways; one that asks is
/// answered at once, not when their time is over.
#[test]
fn silent_clients_make_room_for_one_that_asks() {
    const SILENT: usize = 300;
    let bounds = bounds(8, Duration::from_secs(3600));
    serving(bounds, |address| {
        let heads: [&[u8]; 4] = [
            b"",
            b"G",
            b"GET /v2/ HTTP/1.1\r\nx: ",
            b"GET /v2/ HTTP/1.1\r\nhost: localhost\r\n\r\n",
        ];
        let mut silent = Vec::new();
        for n in 0..SILENT {
            let mut client = TcpStream::connect(address).unwrap();
            // One that was ended already has made room.
            let _ = client.write_all(heads[n % heads.len()]);
            silent.push(client);
        }
        for _ in 0..3 {
            assert_answered(address);
        }
        drop(silent);
    });
}

/// Clients that ask and ask, and never take an answer, fill all places; one that does is answered.
#[test]
fn clients_that_take_no_answers_make_room() {
    let bounds = ServeBounds {
        stalled: Duration::from_millis(300),
        ..bounds(3, ServeBounds::default().head)
    };
    serving(bounds, |address| {
        let ask = b"GET /v2/ HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(100);
        let asking: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        std::thread::scope(|scope| {
            for mut client in &asking {
                let ask = &ask;
                scope.spawn(move || while client.write_all(ask).is_ok() {});
            }
            // Until they have no room left for answers.
            std::thread::sleep(Duration::from_secs(1));
            assert_answered(address);
            asking
                .iter()
                .for_each(|client| client.shutdown(std::net::Shutdown::Both).unwrap_or(()));
        });
    });
}

/// A head that never ends costs 16 KiB, and says so.
#[test]
fn a_head_without_end_is_refused() {
    let bounds = ServeBounds::default();
    serving(bounds, |address| {
        let mut client = half_asking(address);
        // It is told to stop long before all of it is sent.
        let _ = client.write_all(&vec![b'x'; 4 << 20]);
        let mut answer = String::new();
        let _ = client.read_to_string(&mut answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    });
}

struct Unheard;

impl strata_layer::Progress for Unheard {
    fn event(&self, _: &str, _: strata_layer::Event) {}

    fn warning(&self, _: &str, _: &str) {}
}

/// Parameters of a media type may be anything, ends of lines as well.
#[test]
fn an_image_writes_nothing_into_a_head() {
    const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
    let (dir, diff) = (tempfile::tempdir().unwrap(), tar_of(&[("a", "1")]));
    let store = Store::open(dir.path()).unwrap();
    let shelf = Shelf { store: &store, made: Mutex::default() };
    for (said, served) in [(MANIFEST, MANIFEST), (DOCKER, DOCKER)] {
        let layout = Layout::new("x");
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": format!("{said};\r\nx-evil: 1"),
            "config": layout.config(&[&diff], "linux/amd64"),
            "layers": [layout.blob(LAYER, &diff)],
        });
        let own = layout.blob(MANIFEST, manifest.to_string());
        layout.index(&[named(&own, "team/x:1")]);
        let (into, spec) = (CheckedStore::unchecked(&store), SourceSpec::path(layout.root()));
        load(into, &spec, &LoadOptions::default(), &Unheard).unwrap();
        let path = format!("/v2/team/x/manifests/{}", own["digest"].as_str().unwrap());
        let response = shelf.answer(&Request { method: "GET", path: &path, from: None });
        assert_eq!(response.status, 200);
        assert_eq!(response.headers[0], ("content-type", served.to_owned()));
        shelf.made.lock().unwrap().clear();
    }
}
