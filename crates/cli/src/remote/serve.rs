//! `strata serve`: the store as a registry on this machine.
//!
//! Invariants: it listens on a loopback address and on no other; the line that tells the address
//! comes once it listens; a signal ends it when what is being answered is answered; whoever answers
//! can open nothing outside of the store.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use strata_confine::Confinement;
use strata_image::{ServeEvent, serve};

use crate::context::Context;
use crate::told::tell;

/// Serve the store's images to other programs of this machine
///
/// As a read-only registry: skopeo copy docker://127.0.0.1:5000/library/alpine:latest ... The
/// name is the image's repository, with or without its registry in front. Layers are served
/// uncompressed, byte for byte as they are, so the image ids stay and the manifests' digests may
/// not. Anybody on this machine can read them.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The loopback address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000")]
    listen: SocketAddr,
}

pub(crate) fn run(context: &Context, args: &ServeArgs, out: &mut impl Write) -> Result<()> {
    if !args.listen.ip().is_loopback() {
        bail!("{} is no loopback address; the store is served to this machine alone", args.listen);
    }
    let store = context.store()?;
    let listener = TcpListener::bind(args.listen)
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    let address = listener.local_addr().context("cannot tell the address")?;
    let stopped = Arc::new(AtomicBool::new(false));
    let mut signals =
        Signals::new([SIGHUP, SIGINT, SIGTERM]).context("cannot listen for signals")?;
    let told = Arc::clone(&stopped);
    let wait = move || {
        if signals.forever().next().is_some() {
            told.store(true, Ordering::SeqCst);
            // Wakes the thread that accepts; if that fails none accepts any more.
            drop(TcpStream::connect(address));
        }
    };
    std::thread::Builder::new().spawn(wait).context("cannot start a thread")?;
    writeln!(out, "Serving {} at http://{address}/v2/", context.root.display())?;
    out.flush()?;
    // From here on strangers are answered, by this thread and those that it starts.
    Confinement::server(vec![store.root().to_owned()]).enter();
    let quiet = context.quiet;
    let listen = move |event: &ServeEvent| {
        if !quiet {
            let ServeEvent { method, path, status } = event;
            let path: String = path.chars().filter(|c| !c.is_control()).collect();
            tell(format_args!("{status} {method} {path}"));
        }
    };
    serve(&store, &listener, &|| stopped.load(Ordering::SeqCst), &listen)?;
    Ok(())
}
