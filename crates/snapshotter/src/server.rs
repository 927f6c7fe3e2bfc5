//! The socket, the runtime, and the end.
//!
//! Invariants: the socket is there, and systemd told of it, only when every call can be answered;
//! SIGTERM and SIGINT end the program once the calls that are being answered are; mounts stay;
//! nothing is answered before what is not needed was given up.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Resource;
use strata_confine::Confinement;
use stratafs::{Engine, InheritedFds};
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use crate::apply::ContentStore;
use crate::args::Args;
use crate::client::Containerd;
use crate::grpc::Services;
use crate::grpc::pb::services::diff::v1::diff_server::DiffServer;
use crate::grpc::pb::services::snapshots::v1::snapshots_server::SnapshotsServer;
use crate::import::GivenImageArgs;
use crate::metrics::MetricsPlace;
use crate::remote::WAITING;
use crate::snapshots::Snapshots;
use crate::socket::{inherited, listen};

/// How long a thread without work is kept.
const IDLE: Duration = Duration::from_secs(2);

/// How often layers are looked for that are to go.
const SWEEP: Duration = Duration::from_secs(60);

/// How many calls are worked on at once: more than may wait for registries.
const THREADS: usize = 2 * WAITING;

/// Serves until a signal ends it.
pub(crate) fn serve(args: &Args) -> Result<()> {
    let passed = InheritedFds::note().context("cannot list inherited descriptors")?;
    let given = inherited()?;
    // Programs that are started here would have systemd's socket open for as long as they run.
    passed.close();
    raise_limit();
    let engine = Engine::new(&args.root);
    let program = args.strata.clone().unwrap_or_else(beside);
    let kept = Duration::from_secs(args.keep);
    let snapshots = Snapshots::open(&engine, (&args.run, args.backend), &program, kept)
        .with_context(|| format!("cannot keep snapshots in {}", args.root.display()))?;
    let services = Services {
        snapshots: Arc::new(snapshots),
        content: Arc::new(ContentStore(args.content.clone())),
        containerd: Arc::new(Containerd(args.containerd.clone())),
        metrics: Arc::default(),
        large: Arc::default(),
    };
    let listener = match given {
        Some(listener) => listener,
        None => listen(&args.address)?,
    };
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(THREADS)
        .thread_keep_alive(IDLE)
        .build()?;
    runtime.block_on(async {
        let incoming = UnixListenerStream::new(tokio::net::UnixListener::from_std(listener)?);
        let mut terminated = signal(SignalKind::terminate())?;
        let mut interrupted = signal(SignalKind::interrupt())?;
        if let Some(address) = &args.metrics {
            let place = MetricsPlace::open(address).await?;
            let (metrics, snapshots) = (&services.metrics, &services.snapshots);
            tokio::spawn(place.serve(Arc::clone(metrics), Arc::clone(snapshots)));
        }
        if args.keep > 0 {
            tokio::spawn(sweep(services.clone()));
        }
        // The threads that work are started from here on, and so are other programs.
        Confinement::mounter().enter();
        tell_systemd("READY=1");
        let end = async move {
            tokio::select! {
                _ = terminated.recv() => {}
                _ = interrupted.recv() => {}
            }
        };
        Server::builder()
            .add_service(SnapshotsServer::new(services.clone()))
            .add_service(DiffServer::new(services))
            .serve_with_incoming_shutdown(incoming, end)
            .await
            .context("serving the socket failed")
    })
}

/// Imports an image, as a client of containerd.
pub(crate) fn import(args: &Args, import: &GivenImageArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let engine = Engine::new(&args.root);
    let containerd = Containerd(args.containerd.clone());
    runtime.block_on(crate::import::import(&engine, &containerd, import))
}

/// Removes what has been kept for long enough, also if containerd removes nothing more.
async fn sweep(services: Services) {
    loop {
        tokio::time::sleep(SWEEP).await;
        if let Err(status) = services.sweep().await {
            tracing::warn!("removing layers: {}", status.message());
        }
    }
}

/// The program strata beside this one, else the one that the shell would find.
fn beside() -> PathBuf {
    let own = std::env::current_exe().ok().map(|own| own.with_file_name("strata"));
    own.filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from("strata"))
}

/// Each layer of a chain is a descriptor while the chain is read.
fn raise_limit() {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(errno) = rustix::process::setrlimit(Resource::Nofile, limit) {
        tracing::warn!("cannot raise the number of open files: {errno}");
    }
}

/// Tells systemd (sd_notify(3)), where it wants to know.
fn tell_systemd(what: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let told = UnixDatagram::unbound().and_then(|socket| socket.send_to(what.as_bytes(), path));
    if let Err(error) = told {
        tracing::warn!("cannot tell systemd that {what}: {error}");
    }
}
