//! `strata info`: the store, the kernel, and the registries as they are configured.
//!
//! Invariants: nobody is asked, neither a registry nor a mount daemon; no secret is shown, also
//! not that of a proxy's address.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::json;
use strata_layer::Store;
use strata_registry::{Proxies, Registries, RegistrySettings};
use stratafs::MountInfo;

use super::config::{self, RegistryArgs};
use crate::context::{Context, Format};
use crate::document::{Document, Field};
use crate::template::Template;

/// Show the store, the kernel and the configuration of registries
///
/// With --format '{{...}}' or -f the fields are those of docker that there is something to say to:
/// .Images .Driver .DockerRootDir .ServerVersion .KernelVersion .RegistryConfig.Mirrors ...
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// The same as --format, as docker has it
    #[arg(short = 'f', value_name = "TEMPLATE")]
    template: Option<String>,
    #[command(flatten)]
    registry: RegistryArgs,
}

struct SystemInfo {
    images: usize,
    tags: usize,
    layers: usize,
    uppers: usize,
    mounted: usize,
    kernel: String,
    machine: String,
    /// Where the device is and we may use it.
    fuse: bool,
    fusermount: Option<PathBuf>,
    proxies: Proxies,
}

fn facts(context: &Context, store: &Store) -> Result<SystemInfo> {
    let uname = rustix::system::uname();
    let uppers = context.engine().uppers().listed()?;
    let mounts = context.engine().mounts()?;
    let mounted = uppers.iter().filter(|upper| MountInfo::of_upper(&mounts, &upper.name).is_some());
    Ok(SystemInfo {
        images: store.images().all()?.len(),
        tags: store.images().tags()?.iter().filter(|(name, _)| !name.contains('@')).count(),
        layers: store.layers()?.len(),
        mounted: mounted.count(),
        uppers: uppers.len(),
        kernel: uname.release().to_string_lossy().into_owned(),
        machine: uname.machine().to_string_lossy().into_owned(),
        fuse: usable(Path::new("/dev/fuse")),
        fusermount: config::program("fusermount3"),
        proxies: config::proxies(),
    })
}

pub(crate) fn run(context: &Context, args: &InfoArgs, out: &mut impl Write) -> Result<()> {
    let store = context.store()?;
    let registries = args.registry.registries(context)?;
    let facts = facts(context, &store)?;
    let settings = registries.settings();
    let template = match &context.format {
        Format::Template(text) => Some(text.as_str()),
        Format::Table | Format::Json => args.template.as_deref(),
    };
    if let Some(text) = template {
        let text = if text == "json" { "{{json .}}" } else { text };
        let document = in_dockers_words(context, &facts, settings);
        return Template::parse(text)?.print_documents(&[document], out);
    }
    let proxies = &facts.proxies;
    let proxies: Proxied<'_> = [("http", &proxies.http), ("https", &proxies.https)]
        .into_iter()
        .filter_map(|(name, proxy)| Some((name, without_password(proxy.as_deref()?))))
        .collect();
    match context.format == Format::Json {
        true => print_json(context, &facts, &registries, &proxies, out),
        false => print_text(context, &facts, &registries, &proxies, out),
    }
}

/// The proxies that are configured: the scheme that each is for, and its address.
type Proxied<'a> = Vec<(&'static str, &'a str)>;

/// When a place that did not answer is asked again, in seconds since 1970.
fn down_until(registries: &Registries, location: &str) -> Option<u64> {
    registries.down_until(location.split('/').next().unwrap_or(location))
}

fn print_json(
    context: &Context,
    facts: &SystemInfo,
    registries: &Registries,
    proxies: &Proxied<'_>,
    out: &mut impl Write,
) -> Result<()> {
    let settings = registries.settings();
    let mirrors: Vec<_> = settings
        .mirrors()
        .iter()
        .map(|one| {
            json!({
                "prefix": one.prefix,
                "location": one.location,
                "insecure": one.insecure,
                "blocked": one.blocked,
                "pulls": one.pulls,
                "mirror": one.is_mirror,
                "downUntil": down_until(registries, &one.location),
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
    Ok(writeln!(out)?)
}

fn print_text(
    context: &Context,
    facts: &SystemInfo,
    registries: &Registries,
    proxies: &Proxied<'_>,
    out: &mut impl Write,
) -> Result<()> {
    let settings = registries.settings();
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
    for (head, list) in
        [("Insecure Registries", settings.insecure()), ("Registry Mirrors", hub_mirrors(settings))]
    {
        if !list.is_empty() {
            writeln!(out, "{head}:\n  {}", list.join("\n  "))?;
        }
    }
    print_mirrors(registries, out)?;
    for source in &settings.sources {
        writeln!(out, "Read from:    {}", source.display())?;
    }
    Ok(())
}

/// Where each prefix is pulled from, in the order in which places are asked.
fn print_mirrors(registries: &Registries, out: &mut impl Write) -> Result<()> {
    let mirrors = registries.settings().mirrors();
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
        if let Some(until) = down_until(registries, &one.location) {
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
    Ok(())
}

/// The mirrors of Docker Hub, as docker shows them.
fn hub_mirrors(settings: &RegistrySettings) -> Vec<String> {
    let mirrors = settings.mirrors().into_iter();
    let of_hub = mirrors.filter(|one| one.is_mirror && one.prefix == "docker.io");
    of_hub.map(|one| format!("{}://{}/", one.scheme, one.location)).collect()
}

/// `docker info`, as far as there is something to say: uppers are its containers.
fn in_dockers_words(
    context: &Context,
    facts: &SystemInfo,
    settings: &RegistrySettings,
) -> Document {
    let shown = |proxy: &Option<String>| proxy.as_deref().map_or("", without_password).to_owned();
    let mirrors = hub_mirrors(settings);
    let record = Document::Record;
    // Addresses and ranges are apart from the names of registries.
    let (ranges, hosts): (Vec<_>, Vec<_>) =
        settings.insecure().into_iter().partition(|one| one.contains('/'));
    let index = |name: &str, mirrors: Document, official: bool| {
        let fields = vec![
            Field::new("Mirrors", mirrors),
            Field::new("Name", name.to_owned()),
            Field::new("Official", official),
            Field::new("Secure", official),
        ];
        Field::new(name.to_owned(), record(fields))
    };
    let mut indexes = vec![index("docker.io", mirrors.clone().into(), true)];
    let others = hosts.iter().filter(|host| *host != "docker.io");
    indexes.extend(others.map(|host| index(host, Vec::<String>::new().into(), false)));
    let registries = vec![
        Field::new("IndexConfigs", record(indexes)),
        Field::new("InsecureRegistryCIDRs", ranges),
        Field::new("Mirrors", mirrors),
    ];
    let uname = rustix::system::uname();
    let system = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = |key: &str| {
        let line = system.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches('"').to_owned()
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = rustix::system::sysinfo();
    #[allow(clippy::useless_conversion)] // On 32 bits it is no u64.
    let memory = u64::from(memory.totalram) * u64::from(memory.mem_unit);
    let root = context.root.display().to_string();
    record(vec![
        Field::new("Containers", facts.uppers),
        Field::new("ContainersRunning", facts.mounted),
        Field::new("ContainersPaused", 0),
        Field::new("ContainersStopped", facts.uppers - facts.mounted),
        Field::new("Images", facts.images),
        Field::new("Driver", "strata"),
        Field::new("DriverStatus", json!([["Layers", facts.layers.to_string()]])),
        Field::new("KernelVersion", facts.kernel.clone()),
        Field::new("OperatingSystem", system("PRETTY_NAME")),
        Field::new("OSVersion", system("VERSION_ID")),
        Field::new("OSType", "linux"),
        Field::new("Architecture", facts.machine.clone()),
        Field::new("IndexServerAddress", "https://index.docker.io/v1/"),
        Field::new("RegistryConfig", record(registries)),
        Field::new("NCPU", processors),
        Field::new("MemTotal", memory),
        Field::new("DockerRootDir", root),
        Field::new("HttpProxy", shown(&facts.proxies.http)).also("HTTPProxy"),
        Field::new("HttpsProxy", shown(&facts.proxies.https)).also("HTTPSProxy"),
        Field::new("NoProxy", facts.proxies.none_for.clone()),
        Field::new("Name", uname.nodename().to_string_lossy().into_owned()),
        Field::new("Labels", Vec::<String>::new()),
        Field::new("ServerVersion", env!("CARGO_PKG_VERSION")),
        Field::new("Warnings", Document::NilList),
    ])
}

fn usable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK).is_ok()
}

/// The address without what stands before an `@`.
fn without_password(address: &str) -> &str {
    address.rsplit('@').next().unwrap_or(address)
}
