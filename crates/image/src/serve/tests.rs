//! A client that keeps a connection, with the bounds of the test.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;

/// The one connection that there may be comes free again though its client never falls silent.
#[test]
fn a_client_that_drips_its_head_does_not_keep_the_others_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let shelf = Shelf { store: &store, made: Mutex::default() };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let bounds = ServeBounds { connections: 1, head: Duration::from_millis(300) };
    let over = AtomicBool::new(false);
    let stopped = || over.load(Ordering::SeqCst);
    std::thread::scope(|scope| {
        scope.spawn(|| wire::accept(&shelf, &listener, &stopped, &|_| {}, bounds).unwrap());
        let mut slow = TcpStream::connect(address).unwrap();
        slow.write_all(b"GET /v2/ HTTP/1.1\r\nhost: localhost\r\nx: ").unwrap();
        scope.spawn(move || {
            while slow.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let mut other = TcpStream::connect(address).unwrap();
        other
            .write_all(b"GET /v2/ HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        other.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        over.store(true, Ordering::SeqCst);
        // It asks whether it is to stop after each connection.
        drop(TcpStream::connect(address).unwrap());
    });
}
