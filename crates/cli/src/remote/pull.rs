//! `strata pull`: docker's words, our store.
//!
//! Invariant: the lines that tell the result come once the image is committed, and the last of
//! them is the reference, as docker has it.

use std::fmt;
use std::io::Write;
use std::num::NonZeroUsize;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use strata_image::{Platform, PullOptions, Pulled, SourceLimits, resolve_image};
use strata_layer::Store;
use strata_registry::{Reference, ReferenceError, Registries};
use strata_trust::TrustPolicy;

use super::config::RegistryArgs;
use super::transfer::{Stream, Transfer};
use crate::context::Context;
use crate::limits::NewLayerArgs;
use crate::trust::TrustArgs;

/// Fetch an image from a registry
///
/// A short name means Docker Hub: alpine is docker.io/library/alpine:latest. Only layers that
/// the store does not have are fetched, several at once, and unpacked as they come. Mirrors of
/// registries.conf and daemon.json are asked first; what they give is checked against the digest
/// that the registry itself, or the name, says.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// NAME[:TAG], NAME@DIGEST, HOST[:PORT]/NAME...
    #[arg(value_name = "REF")]
    name: RegistryName,
    /// Fetch every tag of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Take the image for this platform [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// Layers to fetch at the same time [default: 3, or one for each processor if those are more]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    layers: NewLayerArgs,
    /// Bytes of one index, manifest or config [default: 4194304]
    #[arg(long, value_name = "BYTES", help_heading = "Limits on untrusted documents")]
    max_manifest_bytes: Option<u64>,
}

/// A reference, and whether it was given with a tag or digest.
#[derive(Debug, Clone)]
pub(crate) struct RegistryName {
    pub(crate) reference: Reference,
    pub(crate) is_bare: bool,
}

impl FromStr for RegistryName {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let bare = bare_name(text)?;
        let text = bare.as_str();
        let last = text.rsplit('/').next().unwrap_or(text);
        let reference = text.parse().map_err(|error: ReferenceError| error.to_string())?;
        Ok(Self { reference, is_bare: !last.contains([':', '@']) })
    }
}

/// A name as skopeo writes it (`docker://`), or the address of a page of Docker Hub, as a name.
///
/// # Errors
/// What to write instead, where an address does not say which image is meant.
fn bare_name(text: &str) -> std::result::Result<String, String> {
    if let Some(name) = text.strip_prefix("docker://") {
        return Ok(name.to_owned());
    }
    let Some((scheme, rest)) = text.split_once("://") else { return Ok(text.to_owned()) };
    if !matches!(scheme, "http" | "https") {
        let copy = "`strata copy` and `strata load -i` take other places than registries";
        return Err(format!("{scheme}: is no registry; {copy}"));
    }
    let rest = rest.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let parts: Vec<&str> = path.split('/').collect();
    match (host, &parts[..]) {
        ("hub.docker.com", ["_", name] | ["_", name, "tags"]) => Ok((*name).to_owned()),
        ("hub.docker.com", ["r" | "repository", "library", name]) => Ok((*name).to_owned()),
        ("hub.docker.com", ["r", owner, name] | ["r", owner, name, "tags"]) => {
            Ok(format!("{owner}/{name}"))
        }
        ("hub.docker.com", ["layers", owner, name, tag, ..]) => Ok(format!("{owner}/{name}:{tag}")),
        ("hub.docker.com", _) => {
            let pages = "those of images are https://hub.docker.com/_/NAME and /r/OWNER/NAME";
            Err(format!("this page of Docker Hub is no image's; {pages}"))
        }
        (_, [""]) => Err(format!("{text} names no image; write HOST/NAME:TAG")),
        _ => Err(format!("write it without {scheme}://, as in {rest}")),
    }
}

pub(crate) fn run(context: &Context, args: &PullArgs) -> Result<()> {
    let reference = &args.name.reference;
    let trust = args.trust.trust()?;
    let store = context.store_for(&args.layers)?;
    let registries = args.registry.registries(context)?;
    let fetched = |name: &RegistryName| {
        // One for each image: the layers of the one before stay as they are.
        let transfer = Transfer::new(context.shown, Stream::Out);
        let wanted = Wanted {
            name,
            platform: args.platform.as_ref(),
            threads: args.jobs,
            limits: document_limits(args.max_manifest_bytes),
            trust: &trust,
        };
        let pulled = fetch(&store, &registries, &wanted, &transfer)?;
        Ok::<_, anyhow::Error>((transfer, pulled))
    };
    let last = if args.all_tags {
        if !args.name.is_bare {
            bail!("{reference}: with --all-tags the name has neither tag nor digest");
        }
        let (domain, path) = (reference.domain().as_str(), reference.repository().as_str());
        let tags = registries.tags(reference).context("cannot list the tags")?;
        if tags.is_empty() {
            bail!("{domain}/{path} has no tags; pull it by digest");
        }
        let mut newer = false;
        for tag in tags {
            let reference = format!("{domain}/{path}:{}", tag.as_str()).parse()?;
            let (transfer, pulled) = fetched(&RegistryName { reference, is_bare: false })?;
            transfer.result(&format!("Digest: {}", pulled.digest));
            newer |= pulled.newer;
        }
        let transfer = Transfer::new(context.shown, Stream::Out);
        transfer.result(&status(newer, &reference.familiar_name()));
        format!("{domain}/{path}")
    } else {
        let (transfer, pulled) = fetched(&args.name)?;
        transfer.result(&format!("Digest: {}", pulled.digest));
        transfer.result(&status(pulled.newer, &reference.familiar()));
        reference.to_string()
    };
    let mut out = std::io::stdout();
    // The image is in the store whether or not anybody reads this.
    out.write_all(format!("{last}\n").as_bytes()).unwrap_or_default();
    Ok(())
}

/// What is to be pulled.
struct Wanted<'a> {
    name: &'a RegistryName,
    platform: Option<&'a Platform>,
    threads: Option<NonZeroUsize>,
    limits: SourceLimits,
    trust: &'a TrustPolicy,
}

fn fetch(
    store: &Store,
    registries: &Registries,
    wanted: &Wanted<'_>,
    transfer: &Transfer,
) -> Result<Pulled> {
    let reference = &wanted.name.reference;
    if wanted.name.is_bare {
        transfer.line("Using default tag: latest");
    }
    let asked = match (reference.digest(), reference.tag()) {
        (None, Some(tag)) => tag.as_str().to_owned(),
        _ => reference.to_string(),
    };
    let begins = || {
        transfer.line(&format!("{asked}: Pulling from {}", reference.repository().as_str()));
    };
    let options = PullOptions {
        platform: wanted.platform.cloned(),
        threads: wanted.threads,
        limits: wanted.limits.clone(),
        trust: Some(wanted.trust),
        on_found: Some(&begins),
    };
    stratafs::pull(store, registries, reference, options, transfer).context("cannot pull")
}

fn status(newer: bool, name: &str) -> String {
    match newer {
        true => format!("Status: Downloaded newer image for {name}"),
        false => format!("Status: Image is up to date for {name}"),
    }
}

/// When a command that needs an image asks a registry for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullWhen {
    /// Every time.
    Always,
    /// If the store does not have it.
    Missing,
    /// Never.
    Never,
}

impl fmt::Display for PullWhen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Always => "always",
            Self::Missing => "missing",
            Self::Never => "never",
        })
    }
}

/// The options of a command that pulls the image that it needs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Pulling")]
pub(crate) struct LazyArgs {
    /// Pull the image first: always, never, or if it is missing
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = PullWhen::Missing,
          hide_possible_values = true)]
    pull: PullWhen,
    /// Pull the image for this platform [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// Whether there is no store at all.
fn no_store(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(strata_layer::Error::NoStore(_)))
}

impl LazyArgs {
    /// The store that is here, if there is one or none can be made by pulling.
    fn store(&self, context: &Context) -> Result<Option<Store>> {
        match context.store() {
            Err(error) if no_store(&error) && self.pull != PullWhen::Never => Ok(None),
            opened => Ok(Some(opened?)),
        }
    }

    /// Brings the image into the store where that is wanted and needed. Everything that is said
    /// goes to stderr, as docker has it when it runs an image. Gives the store, which is then open.
    ///
    /// # Errors
    /// Those of pulling. What cannot be a name, or is not to be pulled, is for the caller to
    /// look up.
    pub(crate) fn ensure(&self, context: &Context, image: &str) -> Result<Store> {
        let here = self.store(context)?;
        let missing = here.as_ref().is_none_or(|store| {
            matches!(resolve_image(store, image), Err(strata_image::Error::NoImage { .. }))
        });
        let wanted = match self.pull {
            PullWhen::Never => false,
            PullWhen::Missing => missing,
            PullWhen::Always => true,
        };
        let Some(name) = image.parse::<RegistryName>().ok().filter(|_| wanted) else {
            return here.map_or_else(|| context.store(), Ok);
        };
        drop(here);
        let transfer = Transfer::new(context.shown, Stream::Err);
        if missing && self.pull == PullWhen::Missing {
            let familiar = name.reference.familiar();
            transfer.line(&format!("Unable to find image '{familiar}' locally"));
        }
        // What stands for the tag has been said just now.
        let name = RegistryName { is_bare: false, ..name };
        let registries = self.registry.registries(context)?;
        let trust = self.trust.trust()?;
        let wanted = Wanted {
            name: &name,
            platform: self.platform.as_ref(),
            threads: None,
            limits: document_limits(None),
            trust: &trust,
        };
        let store = context.made_store()?;
        let pulled = fetch(&store, &registries, &wanted, &transfer)?;
        transfer.result(&format!("Digest: {}", pulled.digest));
        transfer.result(&status(pulled.newer, &name.reference.familiar()));
        Ok(store)
    }
}

/// The bounds on documents that a registry gives.
pub(crate) fn document_limits(manifest_bytes: Option<u64>) -> SourceLimits {
    let default = SourceLimits::default();
    SourceLimits { document_bytes: manifest_bytes.unwrap_or(default.document_bytes), ..default }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_be_written_as_others_write_it() {
        for (text, wanted) in [
            ("alpine", Ok("alpine:latest")),
            ("docker://alpine:3", Ok("alpine:3")),
            ("docker://localhost:5000/a/b@", Err("")),
            ("https://hub.docker.com/_/nginx", Ok("nginx:latest")),
            ("https://hub.docker.com/_/nginx/tags?page=2", Ok("nginx:latest")),
            ("https://hub.docker.com/r/grafana/grafana/", Ok("grafana/grafana:latest")),
            (
                "https://hub.docker.com/layers/library/alpine/3.20/images/sha256-1",
                Ok("alpine:3.20"),
            ),
            ("https://hub.docker.com/u/somebody", Err("Docker Hub")),
            ("https://quay.io/team/app:1", Err("as in quay.io/team/app:1")),
            ("https://quay.io", Err("names no image")),
            ("docker-archive:x.tar", Ok("docker-archive:x.tar")),
            ("oci-archive://x.tar", Err("strata copy")),
        ] {
            let read = text.parse::<RegistryName>().map(|name| name.reference.familiar());
            match (read, wanted) {
                (Ok(read), Ok(wanted)) => assert_eq!(read, wanted, "{text}"),
                (Err(why), Err(said)) => assert!(why.contains(said), "{text}: {why}"),
                (read, wanted) => panic!("{text}: {read:?}, not {wanted:?}"),
            }
        }
    }
}
