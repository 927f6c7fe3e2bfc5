//! `strata info`: the store, the kernel, and the registries as they are configured.
//!
//! Invariants: nobody is asked, neither a registry nor a mount daemon; no secret is shown, also
//! not that of a proxy's address.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::json;

use super::config::{self, RegistryArgs};
use crate::context::{Context, Format};

/// Show the store, the kernel and the configuration of registries
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    #[command(flatten)]
    registry: RegistryArgs,
}

struct Facts {
    images: usize,
    tags: usize,
    layers: usize,
    uppers: usize,
    kernel: String,
    /// Where the device is and we may use it.
    fuse: bool,
    fusermount: Option<PathBuf>,
}

pub(crate) fn run(context: &Context, args: &InfoArgs, out: &mut impl Write) -> Result<()> {
    let store = context.store()?;
    let registries = args.registry.registries(context)?;
    let uname = rustix::system::uname();
    let facts = Facts {
        images: store.images()?.len(),
        tags: store.tags()?.iter().filter(|(name, _)| !name.contains('@')).count(),
        layers: store.layers()?.len(),
        uppers: crate::uppers::Shelf::new(&context.root).all()?.len(),
        kernel: uname.release().to_string_lossy().into_owned(),
        fuse: usable(Path::new("/dev/fuse")),
        fusermount: config::program("fusermount3"),
    };
    let settings = registries.settings();
    let mirrors = settings.mirrors();
    let proxies = config::proxies();
    let proxies: Vec<(&str, &str)> = [("http", &proxies.http), ("https", &proxies.https)]
        .into_iter()
        .filter_map(|(name, proxy)| Some((name, without_password(proxy.as_deref()?))))
        .collect();
    let down =
        |location: &str| registries.down_until(location.split('/').next().unwrap_or(location));
    if context.format == Format::Json {
        let mirrors: Vec<_> = mirrors
            .iter()
            .map(|one| {
                json!({
                    "prefix": one.prefix,
                    "location": one.location,
                    "insecure": one.insecure,
                    "blocked": one.blocked,
                    "pulls": one.pulls,
                    "mirror": one.is_mirror,
                    "downUntil": down(&one.location),
                })
            })
            .collect();
        let all = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "root": context.root,
            "images": facts.images,
            "tags": facts.tags,
            "layers": facts.layers,
            "uppers": facts.uppers,
            "kernel": facts.kernel,
            "fuse": facts.fuse,
            "fusermount3": facts.fusermount,
            "registries": mirrors,
            "insecure": settings.insecure(),
            "sources": settings.sources,
            "proxies": proxies.iter().copied().collect::<std::collections::BTreeMap<_, _>>(),
        });
        serde_json::to_writer_pretty(&mut *out, &all)?;
        writeln!(out)?;
        return Ok(());
    }
    writeln!(out, "Version:      {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "Store:        {}", context.root.display())?;
    writeln!(out, "Images:       {} ({} names)", facts.images, facts.tags)?;
    writeln!(out, "Layers:       {}", facts.layers)?;
    writeln!(out, "Uppers:       {}", facts.uppers)?;
    writeln!(out, "Kernel:       {}", facts.kernel)?;
    let fuse = if facts.fuse { "usable" } else { "not usable: /dev/fuse cannot be opened" };
    writeln!(out, "FUSE:         {fuse}")?;
    match &facts.fusermount {
        Some(path) => writeln!(out, "fusermount3:  {}", path.display())?,
        None => writeln!(out, "fusermount3:  not found; only root can mount")?,
    }
    for (name, proxy) in proxies {
        writeln!(out, "{:<14}{proxy}", format!("{name} proxy:"))?;
    }
    if !settings.insecure().is_empty() {
        writeln!(out, "Insecure:     {}", settings.insecure().join(", "))?;
    }
    if !mirrors.is_empty() {
        writeln!(out, "Registries:")?;
    }
    let mut prefix = None;
    for one in &mirrors {
        if prefix != Some(&one.prefix) {
            writeln!(out, "  {}", one.prefix)?;
            prefix = Some(&one.prefix);
        }
        let mut marks = Vec::new();
        if one.blocked {
            marks.push("blocked".to_owned());
        }
        if one.insecure {
            marks.push("insecure".to_owned());
        }
        if one.pulls != "all" {
            marks.push(one.pulls.to_owned());
        }
        if let Some(until) = down(&one.location) {
            let until = i64::try_from(until).context("a time beyond all time")?;
            let until = jiff::Timestamp::from_second(until).context("a time beyond all time")?;
            marks.push(format!("did not answer, asked last until {until}"));
        }
        let kind = if one.is_mirror { "mirror" } else { "origin" };
        let location = if one.location.is_empty() { "as named" } else { &one.location };
        let marks =
            if marks.is_empty() { String::new() } else { format!(" ({})", marks.join(", ")) };
        writeln!(out, "    {kind} {location}{marks}")?;
    }
    for source in &settings.sources {
        writeln!(out, "Read from:    {}", source.display())?;
    }
    Ok(())
}

fn usable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK).is_ok()
}

/// The address without what stands before an `@`.
fn without_password(address: &str) -> &str {
    address.rsplit('@').next().unwrap_or(address)
}
