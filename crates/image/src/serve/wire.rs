//! HTTP/1.1, as much of it as a server of files needs.
//!
//! Invariants: a head is at most 16 KiB and comes as a whole within a minute, however its bytes
//! are spread over it, so that no client keeps a connection open for long without asking; a
//! request with a body is answered and its connection ended, so that no body is ever taken for a
//! request; at most 64 are open at a time, and for one more the one ends that has kept us waiting
//! for a head the longest, so that no number of silent clients keeps others out; a shortage of the
//! machine (descriptors, threads, memory) costs a connection, never the server.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::permits::Permits;

use super::{Request, Response, ServeEvent, Shelf};
use strata_registry::is_loopback;

/// Bytes of a request's head.
const HEAD_BYTES: usize = 16 << 10;
const HEADERS: usize = 64;
/// Bytes that are read after the last answer and thrown away.
const LEFT_BYTES: u64 = 1 << 20;
/// How long a client may take nothing of an answer.
const SILENCE: Duration = Duration::from_secs(60);
/// How long it may send nothing of what is read after the last answer.
const LINGER: Duration = Duration::from_secs(2);
/// How long nobody is accepted when the machine is short of descriptors or memory.
const SHORTAGE: Duration = Duration::from_millis(50);
/// How long one that is to make room has for that, before another one is asked to.
const ROOM: Duration = Duration::from_millis(100);

/// What clients may use of this server.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServeBounds {
    /// Connections at a time.
    pub(super) connections: usize,
    /// How long the whole head of a request may take, from the end of the request before on.
    pub(super) head: Duration,
    /// How long a client may take nothing of its answer while others wait for its place.
    pub(super) stalled: Duration,
}

impl Default for ServeBounds {
    fn default() -> Self {
        Self { connections: 64, head: Duration::from_secs(60), stalled: Duration::from_secs(10) }
    }
}

/// Accepts connections, each served by a thread.
///
/// # Errors
/// Those of accepting.
pub(super) fn accept(
    shelf: &Shelf<'_>,
    listener: &TcpListener,
    stopped: &(dyn Fn() -> bool + Sync),
    listen: &(dyn Fn(&ServeEvent) + Sync),
    bounds: ServeBounds,
) -> io::Result<()> {
    let (open, permits) = (Open::default(), Permits::new(bounds.connections));
    std::thread::scope(|scope| {
        let outcome = loop {
            let stream = match listener.accept() {
                _ if stopped() => break Ok(()),
                Ok((stream, _)) => stream,
                // What a single client did.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if is_shortage(&error) => {
                    tracing::warn!("a connection waits: {error}");
                    std::thread::sleep(SHORTAGE);
                    continue;
                }
                Err(error) => break Err(error),
            };
            let mut permit = permits.try_take();
            while permit.is_none() && !stopped() {
                open.make_room(bounds.stalled);
                permit = permits.take_within(ROOM);
            }
            let Some(permit) = permit else { break Ok(()) };
            let opened = match open.add(&stream) {
                Ok(opened) => opened,
                Err(error) => {
                    tracing::warn!("a connection is refused: {error}");
                    continue;
                }
            };
            let answer = move || {
                let _permit = permit;
                if let Err(error) = connection(shelf, (stream, &opened), stopped, listen, bounds) {
                    tracing::debug!("a connection ended: {error}");
                }
            };
            // Its client connects again, or is told that it was cut off.
            if let Err(error) = std::thread::Builder::new().spawn_scoped(scope, answer) {
                tracing::warn!("a connection is refused, for there is no thread for it: {error}");
            }
        };
        open.end();
        outcome
    })
}

/// Whether the machine lacks what a connection takes, which others may give back.
fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| shortages.contains(&errno))
}

/// The connections that are open, so that they can be ended.
#[derive(Default)]
struct Open(Mutex<BTreeMap<u64, OpenConnection>>);

struct OpenConnection {
    stream: TcpStream,
    state: ConnectionState,
}

/// What a connection is at.
#[derive(Clone, Copy)]
enum ConnectionState {
    /// A request is awaited, since then.
    Waits(Instant),
    /// One is answered; then the client took something of the answer.
    Answers(Instant),
    /// It was ended to make room.
    Ended,
}

struct Opened<'a>(&'a Open, u64);

impl Open {
    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, OpenConnection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, stream: &TcpStream) -> io::Result<Opened<'_>> {
        let stream = stream.try_clone()?;
        let mut all = self.all();
        let number = all.last_key_value().map_or(0, |(last, _)| last + 1);
        all.insert(
            number,
            OpenConnection { stream, state: ConnectionState::Waits(Instant::now()) },
        );
        Ok(Opened(self, number))
    }

    /// Ends the connection that has kept us waiting the longest: with a request, or, if none does,
    /// by taking nothing of its answer for as long as `stalled`. Its client, if it still wants
    /// something, connects again.
    fn make_room(&self, stalled: Duration) {
        let mut all = self.all();
        let longest = all.values_mut().filter_map(|connection| match connection.state {
            ConnectionState::Waits(since) => Some(((0, since), connection)),
            ConnectionState::Answers(since) if since.elapsed() >= stalled => {
                Some(((1, since), connection))
            }
            ConnectionState::Answers(_) | ConnectionState::Ended => None,
        });
        if let Some((_, connection)) = longest.min_by_key(|(rank, _)| *rank) {
            connection.state = ConnectionState::Ended;
            shut(&connection.stream, Shutdown::Both);
        }
    }

    /// No further requests; what is being answered is.
    fn end(&self) {
        for connection in self.all().values() {
            shut(&connection.stream, Shutdown::Read);
        }
    }
}

fn shut(stream: &TcpStream, how: Shutdown) {
    if let Err(error) = stream.shutdown(how) {
        tracing::debug!("a connection is gone already: {error}");
    }
}

impl Opened<'_> {
    /// Notes what the connection is at from now on.
    fn is_at(&self, state: ConnectionState) {
        if let Some(connection) = self.0.all().get_mut(&self.1) {
            connection.state = state;
        }
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.0.all().remove(&self.1);
    }
}

/// What a head says.
struct Head {
    method: String,
    path: String,
    host: String,
    from: Option<u64>,
    has_body: bool,
    close: bool,
}

fn connection(
    shelf: &Shelf<'_>,
    (mut stream, opened): (TcpStream, &Opened<'_>),
    stopped: &dyn Fn() -> bool,
    listen: &dyn Fn(&ServeEvent),
    bounds: ServeBounds,
) -> io::Result<()> {
    stream.set_write_timeout(Some(SILENCE))?;
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    while !stopped() {
        let until = Instant::now() + bounds.head;
        let Some(head) = read_head(&mut stream, &mut buffer, until)? else { return Ok(()) };
        opened.is_at(ConnectionState::Answers(Instant::now()));
        let (head, response) = match head {
            Ok(head) if !is_loopback(&head.host) => {
                let response = Response::error(403, "DENIED", "this is for this machine alone");
                (head, response)
            }
            Ok(head) => {
                let Head { method, path, from, .. } = &head;
                let response = shelf.answer(&Request { method, path, from: *from });
                (head, response)
            }
            Err(()) => {
                let head = Head {
                    method: "?".to_owned(),
                    path: String::new(),
                    host: String::new(),
                    from: None,
                    has_body: true,
                    close: true,
                };
                (head, Response::error(400, "UNSUPPORTED", "that is no request"))
            }
        };
        let close = head.close || head.has_body;
        let Head { method, path, .. } = head;
        let is_head = method == "HEAD";
        listen(&ServeEvent { method, path, status: response.status });
        write_response(shelf, Answer(&stream, opened), &response, is_head, close)?;
        opened.is_at(ConnectionState::Waits(Instant::now()));
        if close {
            return linger(&mut stream, Instant::now() + bounds.head);
        }
    }
    Ok(())
}

/// Ends a connection so that the client reads the answer even if it is still sending: what is
/// unread when a socket closes makes the answer be thrown away.
fn linger(stream: &mut TcpStream, until: Instant) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    let reader = Until { stream, until, silence: LINGER };
    io::copy(&mut reader.take(LEFT_BYTES), &mut io::sink())?;
    Ok(())
}

/// Reads until a moment, and gives up before it where nothing comes for long.
struct Until<'a> {
    stream: &'a TcpStream,
    until: Instant,
    silence: Duration,
}

impl Read for Until<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.until.saturating_duration_since(Instant::now()).min(self.silence);
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buffer)
    }
}

/// The next head; `None` at the end of the connection. What follows it stays in `buffer`.
fn read_head(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    until: Instant,
) -> io::Result<Option<Result<Head, ()>>> {
    let mut stream = Until { stream, until, silence: Duration::MAX };
    let mut chunk = [0; 4096];
    loop {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(buffer) {
            Ok(httparse::Status::Complete(length)) => {
                let head = head_of(&request);
                buffer.drain(..length);
                return Ok(Some(head));
            }
            Ok(httparse::Status::Partial) if buffer.len() < HEAD_BYTES => {}
            Ok(httparse::Status::Partial) | Err(_) => return Ok(Some(Err(()))),
        }
        match stream.read(&mut chunk)? {
            0 => return Ok(None),
            count => buffer.extend_from_slice(&chunk[..count]),
        }
    }
}

fn head_of(request: &httparse::Request<'_, '_>) -> Result<Head, ()> {
    let get = |name: &str| {
        let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| String::from_utf8_lossy(header.value).trim().to_owned())
    };
    let (Some(method), Some(path)) = (request.method, request.path) else { return Err(()) };
    let connection = get("connection").unwrap_or_default().to_ascii_lowercase();
    let length = get("content-length").unwrap_or_else(|| "0".to_owned());
    // RFC 9110, 14.1.2; other ranges than `N-` may be answered with everything.
    let from = get("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<u64>().ok());
    Ok(Head {
        method: method.to_owned(),
        path: path.to_owned(),
        host: get("host").ok_or(())?,
        from,
        has_body: length != "0" || get("transfer-encoding").is_some(),
        close: connection.contains("close") || request.version != Some(1),
    })
}

/// What is sent of an answer; it is noted when the client takes something.
struct Answer<'a>(&'a TcpStream, &'a Opened<'a>);

impl Write for Answer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.0.write(bytes)?;
        self.1.is_at(ConnectionState::Answers(Instant::now()));
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn write_response(
    shelf: &Shelf<'_>,
    stream: Answer<'_>,
    response: &Response,
    is_head: bool,
    close: bool,
) -> io::Result<()> {
    if let Some((name, _)) = response.headers.iter().find(|(_, value)| !is_field_value(value)) {
        let why = format!("the value of {name} would be more than one field");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let mut out = BufWriter::with_capacity(256 << 10, stream);
    write!(out, "HTTP/1.1 {} {}\r\n", response.status, reason(response.status))?;
    write!(out, "content-length: {}\r\n", response.length)?;
    out.write_all(b"docker-distribution-api-version: registry/2.0\r\n")?;
    out.write_all(b"x-content-type-options: nosniff\r\n")?;
    for (name, value) in &response.headers {
        write!(out, "{name}: {value}\r\n")?;
    }
    if close {
        out.write_all(b"connection: close\r\n")?;
    }
    out.write_all(b"\r\n")?;
    if !is_head {
        shelf.write(&response.body, &mut out).map_err(io::Error::other)?;
    }
    out.flush()
}

/// RFC 9110, 5.5: no ends of lines, nor other controls.
fn is_field_value(value: &str) -> bool {
    value.bytes().all(|byte| byte == b'\t' || !byte.is_ascii_control())
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        416 => "Range Not Satisfiable",
        _ => "Internal Server Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_one_line() {
        for good in ["", "text/plain; charset=utf-8", "a\tb", "\u{fc}"] {
            assert!(is_field_value(good), "{good:?}");
        }
        for bad in ["a\r\nx: y", "a\n", "\r", "\0", "\u{1b}[m", "\u{7f}"] {
            assert!(!is_field_value(bad), "{bad:?}");
        }
    }
}
