//! `strata facts --from`: archives, layouts and registries instead of the store.
//!
//! Invariants: the working directory goes once the data set is there, unless the user named it;
//! what was passed over or could not be read is said on stderr, and the latter in the exit status.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueHint};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use strata_facts::{FactSource, GatherOptions, GatheredFacts, StoreName, gather};
use strata_image::{Location, Platform};
use strata_tree::BlobDigest;

use crate::context::Context;
use crate::limits::{LayerLimitArgs, SourceLimitArgs};
use crate::progress;
use crate::remote::RegistryArgs;
use crate::told::tell;

/// How many layers are read at once if nothing else is said.
const AT_ONCE: usize = 4;
/// Requests a second to one host if nothing else is said.
const RATE: u32 = 20;

/// The options for what is in no store.
#[derive(Debug, Args)]
pub(crate) struct FromArgs {
    /// Read these in place of the store: FILE, DIR or oci:DIR as for load, docker://REF, and
    /// registry HOST[/PREFIX] or registry://HOST[/PREFIX] for all that a registry has, or has below
    /// a name
    #[arg(long = "from", value_name = "SOURCE", num_args = 1.., value_hint = ValueHint::AnyPath)]
    pub(super) sources: Vec<String>,
    /// Images or layers to read at once [default: 4]
    #[arg(short, long, value_name = "N", requires = "sources", help_heading = FROM)]
    jobs: Option<NonZeroUsize>,
    /// Requests a second to one registry, 0 for no bound [default: 20]
    #[arg(long, value_name = "N", requires = "sources", help_heading = FROM)]
    rate: Option<u32>,
    /// Go on after an image that cannot be read; the exit status is 1 then
    #[arg(long, requires = "sources", help_heading = FROM)]
    keep_going: bool,
    /// Keep what was read of layers in this directory, for the next run; one that is not named
    /// goes when the data set is there
    #[arg(long, value_name = "DIR", requires = "sources", value_hint = ValueHint::DirPath,
          help_heading = FROM)]
    work: Option<PathBuf>,
    /// Of an index, read the image for this platform [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", requires = "sources", help_heading = FROM)]
    platform: Option<Platform>,
    #[command(flatten, next_help_heading = "Registries")]
    registry: RegistryArgs,
    #[command(flatten)]
    layer_limits: LayerLimitArgs,
    #[command(flatten)]
    source_limits: SourceLimitArgs,
}

const FROM: &str = "With --from";

impl FromArgs {
    /// The directory of what is read: the same for the same command, which may be begun again on
    /// another day. `day` is the one that the user named.
    pub(super) fn ledger(&self, output: &Path, store: &StoreName, day: Option<&str>) -> PathBuf {
        if let Some(dir) = &self.work {
            return dir.clone();
        }
        let mut hash = Sha256::new();
        for part in day.into_iter().chain(self.sources.iter().map(String::as_str)) {
            hash.update(part);
            hash.update([0]);
        }
        let hash = BlobDigest::from_bytes(hash.finalize().into()).hex();
        output.join(format!(".from-{store}-{}", &hash[..16]))
    }

    /// Reads the sources.
    pub(super) fn gather(&self, context: &Context, ledger: &Path) -> Result<GatheredFacts> {
        let sources = sources(&self.sources)?;
        let rate = NonZeroU32::new(self.rate.unwrap_or(RATE));
        let registries = self.registry.patient(context, rate)?;
        let options = GatherOptions {
            ledger: ledger.to_owned(),
            platform: self.platform.clone(),
            at_once: self.jobs.or(NonZeroUsize::new(AT_ONCE)).unwrap_or(NonZeroUsize::MIN),
            keep_going: self.keep_going,
            limits: self.source_limits.limits(&self.layer_limits),
            layer_limits: self.layer_limits.limits(),
        };
        let listener = progress::listener(context.shown);
        let scratch = || context.scratch();
        let gathered = gather(&sources, &registries, &scratch, &options, &*listener)
            .context("cannot read the images")?;
        for (what, why) in &gathered.passed_over {
            tell(format_args!("passed over: {what}: {why}"));
        }
        for (what, why) in &gathered.failed {
            tell(format_args!("not read: {what}: {why}"));
        }
        Ok(gathered)
    }

    /// Removes the working directory, if the user did not name it.
    pub(super) fn end(&self, gathered: GatheredFacts, ledger: &Path) -> Result<()> {
        let failed = gathered.failed.len();
        drop(gathered);
        if self.work.is_none() {
            std::fs::remove_dir_all(ledger)
                .with_context(|| format!("cannot remove {}", ledger.display()))?;
        }
        match failed {
            0 => Ok(()),
            1 => bail!("the data set is there, without the image that could not be read"),
            _ => bail!("the data set is there, without the {failed} images that could not be read"),
        }
    }
}

/// What JSON says of a run.
pub(super) fn gathered_json(gathered: &GatheredFacts) -> Value {
    let told = |all: &[(String, String)]| {
        let one = |(image, why): &(String, String)| json!({ "what": image, "why": why });
        all.iter().map(one).collect::<Vec<Value>>()
    };
    json!({
        "images": gathered.images, "layers_read": gathered.read,
        "layers_known": gathered.known, "passed_over": told(&gathered.passed_over),
        "failed": told(&gathered.failed),
    })
}

fn sources(texts: &[String]) -> Result<Vec<FactSource>> {
    let mut sources = Vec::new();
    let mut texts = texts.iter();
    while let Some(text) = texts.next() {
        let registry = match text.as_str() {
            // A file of this name can be given as ./registry.
            "registry" => Some(texts.next().context("registry: say HOST[/PREFIX] after it")?),
            _ => None,
        };
        let registry = registry.map(String::as_str).or_else(|| text.strip_prefix("registry://"));
        sources.push(match registry {
            Some(text) => whole_registry(text)?,
            None => source(text)?,
        });
    }
    Ok(sources)
}

fn whole_registry(text: &str) -> Result<FactSource> {
    let text = text.trim_end_matches('/');
    let (host, prefix) = match text.split_once('/') {
        Some((host, prefix)) => (host, Some(prefix.to_owned())),
        None => (text, None),
    };
    let probe = format!("{host}/{}", prefix.as_deref().unwrap_or("x"));
    let parsed: strata_registry::Reference =
        probe.parse().with_context(|| format!("{text:?} names no registry"))?;
    if parsed.domain().as_str() != host {
        bail!("{host:?} is no host of a registry: one has a dot or a port, or is localhost");
    }
    Ok(FactSource::Registry { host: host.to_owned(), prefix })
}

fn source(text: &str) -> Result<FactSource> {
    match Location::parse(text) {
        Ok(Some(Location::Registry(reference))) => Ok(FactSource::Image(reference)),
        Ok(Some(Location::Stored(_))) => {
            bail!("{text}: without --from the facts are the store's")
        }
        Ok(Some(Location::Files { .. }) | None) => Ok(FactSource::Files(text.parse()?)),
        Err(_) if std::path::Path::new(text).exists() => Ok(FactSource::Files(text.parse()?)),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        from: FromArgs,
    }

    #[test]
    fn the_same_command_finds_what_it_has_read() {
        let dir = |sources: &[&str], day: Option<&str>| {
            let from = Alone::parse_from([&["x", "--from"], sources].concat()).from;
            from.ledger(Path::new("all"), &"one".parse().unwrap(), day)
        };
        let one = dir(&["a.tar", "b.tar"], None);
        assert!(one.to_str().unwrap().starts_with("all/.from-one-"), "{one:?}");
        assert_eq!(dir(&["a.tar", "b.tar"], None), one);
        assert_ne!(dir(&["a.tar"], None), one);
        assert_ne!(dir(&["a.tar", "b.tar"], Some("2026-01-31")), one);
    }

    fn read(texts: &[&str]) -> Result<Vec<FactSource>> {
        sources(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_registry_may_be_two_words() {
        let registry = |host: &str, prefix: Option<&str>| FactSource::Registry {
            host: host.into(),
            prefix: prefix.map(str::to_owned),
        };
        let found = read(&[
            "registry",
            "localhost:5000",
            "registry://r.example/team/",
            "docker://busybox",
            "oci:dir:tag",
            "x.tar",
        ])
        .unwrap();
        assert_eq!(found[0], registry("localhost:5000", None));
        assert_eq!(found[1], registry("r.example", Some("team")));
        assert_eq!(
            found[2],
            FactSource::Image("docker.io/library/busybox:latest".parse().unwrap())
        );
        assert_eq!(found[3], FactSource::Files("oci:dir:tag".parse().unwrap()));
        assert_eq!(found[4], FactSource::Files("x.tar".parse().unwrap()));
    }

    #[test]
    fn what_is_no_source_is_refused() {
        for texts in [&["registry"][..], &["registry", "team"], &["registry://A B"], &["docker://"]]
        {
            assert!(read(texts).is_err(), "{texts:?}");
        }
        assert!(read(&["strata:x"]).is_err());
    }
}
