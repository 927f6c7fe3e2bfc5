//! What the program tells Prometheus: calls with their times and errors, snapshots, pulls, bytes.
//!
//! Text over HTTP, on a port of loopback or on a unix socket, one answer to any request: the format
//! is small, and a server for it would be larger than it.
//!
//! Invariants: only loopback is listened on; a reader that does not go on is left after some
//! seconds; counting a call takes no lock that work is done under.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

use crate::snapshots::Snapshots;
use crate::state::SnapshotKind;

/// Upper bounds of times, in seconds.
const BOUNDS: [f64; 8] = [0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0];

/// How long a reader may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Readers at a time: every user of the machine can connect to a port, and containerd's calls need
/// descriptors too.
const READERS: usize = 64;

/// Bytes of a request that are read: what it asks for does not matter.
const REQUEST: usize = 8192;

/// Calls of one kind.
#[derive(Debug, Default, Clone, Copy)]
struct Calls {
    errors: u64,
    seconds: f64,
    /// How many took as long as each bound, or longer than all.
    times: [u64; BOUNDS.len() + 1],
}

/// What was counted since the start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    calls: Mutex<BTreeMap<&'static str, Calls>>,
}

impl Metrics {
    /// Counts a call.
    pub(crate) fn count(&self, call: &'static str, took: Duration, failed: bool) {
        let seconds = took.as_secs_f64();
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = calls.entry(call).or_default();
        calls.errors += u64::from(failed);
        calls.seconds += seconds;
        let at = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        if let Some(count) = calls.times.get_mut(at) {
            *count += 1;
        }
    }

    /// All of it, in Prometheus' text format.
    fn text(&self, snapshots: &Snapshots) -> crate::error::Result<String> {
        let mut text = String::new();
        self.calls(&mut text);
        let facts = snapshots.facts()?;
        head(&mut text, "snapshots", "gauge", "Snapshots that containerd has.");
        for kind in [SnapshotKind::View, SnapshotKind::Active, SnapshotKind::Committed] {
            let count = facts.kinds.iter().filter(|one| **one == kind).count();
            line(&mut text, "snapshots", &format!("{{kind=\"{}\"}}", kind.name()), count as f64);
        }
        for (name, kind, what, value) in [
            ("pulls_total", "counter", "Images fetched for containerd.", facts.pulls),
            ("pull_failures_total", "counter", "Images left to containerd.", facts.failures),
            ("applied_total", "counter", "Layers unpacked for containerd.", facts.diffs.0),
            ("diffs_total", "counter", "Diffs made for containerd.", facts.diffs.1),
            ("layers", "gauge", "Layers of the store.", facts.layers),
            ("stored_bytes", "gauge", "Contents of the store, each once.", facts.stored),
            ("shared_bytes", "gauge", "Those that two layers or more have.", facts.shared),
            ("apparent_bytes", "gauge", "The same if nothing was shared.", facts.apparent),
        ] {
            head(&mut text, name, kind, what);
            line(&mut text, name, "", value as f64);
        }
        Ok(text)
    }

    fn calls(&self, text: &mut String) {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone();
        head(text, "call_errors_total", "counter", "Calls that were answered with an error.");
        for (call, of) in &calls {
            line(text, "call_errors_total", &format!("{{call=\"{call}\"}}"), of.errors as f64);
        }
        head(text, "call_seconds", "histogram", "What calls took.");
        for (call, of) in &calls {
            let mut sum = 0;
            for (bound, count) in BOUNDS.iter().map(f64::to_string).zip(of.times) {
                sum += count;
                let labels = format!("{{call=\"{call}\",le=\"{bound}\"}}");
                line(text, "call_seconds_bucket", &labels, sum as f64);
            }
            let all: u64 = of.times.iter().sum();
            let labels = format!("{{call=\"{call}\",le=\"+Inf\"}}");
            line(text, "call_seconds_bucket", &labels, all as f64);
            let labels = format!("{{call=\"{call}\"}}");
            line(text, "call_seconds_sum", &labels, of.seconds);
            line(text, "call_seconds_count", &labels, all as f64);
        }
    }
}

fn head(text: &mut String, name: &str, kind: &str, what: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "# HELP strata_snapshotter_{name} {what}");
    let _ = writeln!(text, "# TYPE strata_snapshotter_{name} {kind}");
}

fn line(text: &mut String, name: &str, labels: &str, value: f64) {
    let _ = writeln!(text, "strata_snapshotter_{name}{labels} {value}");
}

/// A connection of either kind.
trait Talk: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Talk for T {}

/// Where metrics are asked for.
pub(crate) enum MetricsPlace {
    Port(TcpListener),
    Socket(UnixListener),
}

impl MetricsPlace {
    /// Listens on `HOST:PORT` of loopback, or on a path.
    pub(crate) async fn open(address: &str) -> Result<Self> {
        let doing = || format!("cannot listen on {address} for metrics");
        if address.starts_with('/') {
            let listener = crate::socket::listen(Path::new(address))?;
            listener.set_nonblocking(true).with_context(doing)?;
            return Ok(Self::Socket(UnixListener::from_std(listener).with_context(doing)?));
        }
        let port: SocketAddr = address.parse().with_context(doing)?;
        if !port.ip().is_loopback() {
            bail!("{address} is not of loopback; put a proxy with a login before 127.0.0.1");
        }
        Ok(Self::Port(TcpListener::bind(port).await.with_context(doing)?))
    }

    async fn accept(&self) -> std::io::Result<Box<dyn Talk>> {
        Ok(match self {
            Self::Port(listener) => Box::new(listener.accept().await?.0),
            Self::Socket(listener) => Box::new(listener.accept().await?.0),
        })
    }

    /// Answers, for ever, [`READERS`] at a time.
    pub(crate) async fn serve(self, metrics: Arc<Metrics>, snapshots: Arc<Snapshots>) {
        let readers = Arc::new(Semaphore::new(READERS));
        // It is never closed.
        while let Ok(place) = Arc::clone(&readers).acquire_owned().await {
            let (metrics, snapshots) = (Arc::clone(&metrics), Arc::clone(&snapshots));
            match self.accept().await {
                Ok(stream) => drop(tokio::spawn(async move {
                    answer(stream, metrics, snapshots).await;
                    drop(place);
                })),
                Err(error) => refused(&error).await,
            }
        }
    }
}

/// No descriptor is left, for instance: one will be.
async fn refused(error: &std::io::Error) {
    tracing::warn!("metrics: {error}");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    metrics: Arc<Metrics>,
    snapshots: Arc<Snapshots>,
) {
    let talk = async {
        let mut request = Vec::new();
        let mut part = [0; 1024];
        while !request.ends_with(b"\r\n\r\n") && request.len() < REQUEST {
            match stream.read(&mut part).await? {
                0 => break,
                length => request.extend_from_slice(part.get(..length).unwrap_or_default()),
            }
        }
        let made = tokio::task::spawn_blocking(move || metrics.text(&snapshots)).await;
        let (status, body) = match made {
            Ok(Ok(text)) => ("200 OK", text),
            Ok(Err(error)) => ("500 Internal Server Error", error.to_string()),
            Err(error) => ("500 Internal Server Error", error.to_string()),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        stream.shutdown().await
    };
    match tokio::time::timeout(PATIENCE, talk).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("metrics: {error}"),
        Err(_) => tracing::debug!("metrics: the reader was too slow"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up() {
        let metrics = Metrics::default();
        for milliseconds in [0, 3, 3, 700, 100_000] {
            metrics.count("Stat", Duration::from_millis(milliseconds), milliseconds == 700);
        }
        let mut text = String::new();
        metrics.calls(&mut text);
        for wanted in [
            "strata_snapshotter_call_errors_total{call=\"Stat\"} 1\n",
            "call_seconds_bucket{call=\"Stat\",le=\"0.001\"} 1\n",
            "call_seconds_bucket{call=\"Stat\",le=\"0.005\"} 3\n",
            "call_seconds_bucket{call=\"Stat\",le=\"60\"} 4\n",
            "call_seconds_bucket{call=\"Stat\",le=\"+Inf\"} 5\n",
            "call_seconds_count{call=\"Stat\"} 5\n",
        ] {
            assert!(text.contains(wanted), "{wanted} in {text}");
        }
    }

    /// Many more silent clients than there may be readers take no more descriptors than those.
    #[tokio::test]
    async fn silent_clients_take_few_descriptors() {
        let dir = tempfile::tempdir().unwrap();
        let store = stratafs::Store::open(&dir.path().join("store")).unwrap();
        let (run, none) = (dir.path().join("run"), Path::new("/nonexistent"));
        let run = (run.as_path(), crate::args::LowerBackend::Auto);
        let snapshots = Snapshots::of_store(store, run, none, Duration::ZERO, None).unwrap();
        let path = dir.path().join("metrics.sock");
        let place = MetricsPlace::open(path.to_str().unwrap()).await.unwrap();
        tokio::spawn(place.serve(Arc::default(), Arc::new(snapshots)));
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = open();
        let mut silent = Vec::new();
        for _ in 0..2 * READERS {
            silent.push(tokio::net::UnixStream::connect(&path).await.unwrap());
            tokio::task::yield_now().await;
        }
        assert!(open() - before <= 3 * READERS + 8, "{} descriptors", open() - before);
        drop(silent);
        // The places come free again.
        let mut client = tokio::net::UnixStream::connect(&path).await.unwrap();
        client.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
}
