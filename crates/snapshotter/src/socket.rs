//! Unix sockets to listen on: systemd's, or made here.
//!
//! Invariants: a socket is open to root alone, and takes the place of none that somebody listens
//! on; one that is there can be connected to.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::process::{PidfdFlags, PidfdGetfdFlags};

/// The socket that systemd opened for us (sd_listen_fds(3)): the first one, descriptor 3.
pub(crate) fn inherited() -> Result<Option<UnixListener>> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) || number("LISTEN_FDS").unwrap_or(0) < 1 {
        return Ok(None);
    }
    // A copy of it, without taking a bare number for a descriptor.
    let own = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
    let socket: OwnedFd = rustix::process::pidfd_getfd(own, 3, PidfdGetfdFlags::empty())
        .context("cannot take the socket that systemd passed")?;
    Ok(Some(UnixListener::from(socket)))
}

/// Makes the socket, in the place of one that nobody listens on.
pub(crate) fn listen(address: &Path) -> Result<UnixListener> {
    let doing = || format!("cannot listen on {}", address.display());
    if let Some(parent) = address.parent() {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o711).create(parent).with_context(doing)?;
    }
    match UnixStream::connect(address) {
        Ok(_) => bail!("another program listens on {}", address.display()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(_) => {}
    }
    // It gets its name once it can be connected to: between bind(2) and listen(2) it cannot.
    let mut draft = address.as_os_str().to_owned();
    draft.push("~");
    match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).with_context(doing),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&draft).with_context(doing)?;
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&draft, mode).with_context(doing)?;
    std::fs::rename(&draft, address).with_context(doing)?;
    Ok(listener)
}
