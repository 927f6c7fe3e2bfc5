//! `strata copy`: images from one place to another, one or a whole list.
//!
//! Invariants: the copies of a list are made in its order, and the first that fails ends it; an
//! archive gets its name once all of its images are in it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum, ValueHint};
use strata_image::{
    ArchiveWriter, CopiedImage, CopyOptions, ImageFormat, Listeners, Location, Platform, PushEvent,
    Target,
};
use strata_layer::Store;
use strata_registry::{Reference, Registries};

use super::config::RegistryArgs;
use super::pull::document_limits;
use super::push::PushCompression;
use super::transfer::{Stream, Transfer};
use crate::context::Context;
use crate::look;
use crate::trust::TrustArgs;

/// Copy images between registries, layouts, archives and the store
///
/// A place is docker://REF, oci:DIR[:NAME], oci-archive:FILE[:NAME], docker-archive:FILE[:NAME],
/// or strata:IMAGE; without a prefix it is the store. Blobs go as they are, with their digests,
/// and not by way of the store. If the source is an index, the image for one platform is copied.
///
/// Several images may go to one place: a registry, then written docker://HOST/PATH/ with a slash
/// at its end, below which each keeps its path and tag; a layout; an archive; or strata: alone,
/// for the store.
#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// What to copy, and last where to
    #[arg(value_name = "PLACE", required_unless_present = "list")]
    places: Vec<String>,
    /// Copy what this file lists, too: a line is SOURCE, or SOURCE DESTINATION; - for standard
    /// input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    list: Option<PathBuf>,
    /// Of an index, copy the image for this platform [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// How layers are packed for a registry [default: as they are]
    #[arg(long, value_name = "gzip|zstd|none", hide_possible_values = true)]
    compression: Option<PushCompression>,
    /// Carry along what stands beside an image: signatures, attestations, and whatever refers to
    /// it [default: none]
    #[arg(long, value_name = "all|none", value_enum, hide_possible_values = true,
          default_value_t = CarrySignatures::None, hide_default_value = true)]
    signatures: CarrySignatures,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// What goes along with an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CarrySignatures {
    /// All that stands beside it.
    All,
    /// Nothing.
    None,
}

/// Where one or more images go.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Goal {
    Registry(Reference),
    /// Below this host and path, which end with a slash.
    Below(String),
    Layout(PathBuf, Option<String>),
    OciArchive(PathBuf, Option<String>),
    DockerArchive(PathBuf, Option<String>),
    Store(Option<Reference>),
}

impl Goal {
    fn parse(text: &str) -> Result<Self> {
        if let Some(prefix) = text.strip_prefix("docker://").filter(|rest| rest.ends_with('/')) {
            // Any name below it has to be one.
            let probe = format!("{prefix}x");
            probe.parse::<Reference>().with_context(|| format!("{text} is no place"))?;
            return Ok(Self::Below(prefix.to_owned()));
        }
        if text == "strata:" {
            return Ok(Self::Store(None));
        }
        Ok(match Location::parse(text)? {
            Some(Location::Registry(reference)) => Self::Registry(reference),
            Some(Location::Stored(name)) => Self::Store(Some(name.parse()?)),
            Some(Location::Files { format, path, name }) => match format {
                ImageFormat::OciDirectory => Self::Layout(path, name),
                ImageFormat::OciArchive => Self::OciArchive(path, name),
                ImageFormat::DockerArchive => Self::DockerArchive(path, name),
            },
            None => Self::Store(Some(text.parse()?)),
        })
    }

    /// Whether it can take several images.
    fn is_wide(&self) -> bool {
        match self {
            Self::Registry(_) | Self::Store(Some(_)) => false,
            Self::Below(_) | Self::Store(None) => true,
            Self::Layout(_, name) | Self::OciArchive(_, name) | Self::DockerArchive(_, name) => {
                name.is_none()
            }
        }
    }
}

fn source(text: &str) -> Result<Location> {
    let location = Location::parse(text)?;
    Ok(location.unwrap_or_else(|| Location::Stored(text.to_owned())))
}

/// What is to be copied where, in order.
fn pairs(args: &CopyArgs) -> Result<Vec<(Location, Goal)>> {
    let mut sources = args.places.clone();
    let goal = match args.list.is_none() || !sources.is_empty() {
        true => sources.pop(),
        false => None,
    };
    if args.list.is_none() && sources.is_empty() {
        bail!("say what to copy, and where to");
    }
    let goal = goal.map(|text| Goal::parse(&text)).transpose()?;
    let mut pairs = Vec::new();
    let mut narrow = 0;
    let mut add = |from: &str, to: Option<&str>| -> Result<()> {
        let to = match (to, &goal) {
            (Some(to), _) => Goal::parse(to)?,
            (None, Some(goal)) => {
                narrow += usize::from(!goal.is_wide());
                goal.clone()
            }
            (None, None) => bail!("{from} has no destination: name one in its line or at the end"),
        };
        pairs.push((source(from)?, to));
        Ok(())
    };
    for from in &sources {
        add(from, None)?;
    }
    if let Some(list) = &args.list {
        for line in lines(list)? {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                [from] => add(from, None)?,
                [from, to] => add(from, Some(to))?,
                _ => bail!("{}: not SOURCE [DESTINATION]: {line}", list.display()),
            }
        }
    }
    if narrow > 1 {
        bail!(
            "{narrow} images cannot have one name; end the registry's path with a slash, or give \
             no name to the layout or archive"
        );
    }
    Ok(pairs)
}

/// The lines of a list that say something.
fn lines(list: &Path) -> Result<Vec<String>> {
    let reading = || format!("cannot read {}", list.display());
    let reader: Box<dyn Read> = match list.as_os_str() == "-" {
        true => Box::new(std::io::stdin()),
        false => Box::new(std::fs::File::open(list).with_context(reading)?),
    };
    let mut lines = Vec::new();
    for line in BufReader::new(reader).lines() {
        let line = line.with_context(reading)?;
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            lines.push(line.to_owned());
        }
    }
    Ok(lines)
}

pub(crate) fn run(context: &Context, args: &CopyArgs) -> Result<()> {
    let pairs = pairs(args)?;
    let trust = args.trust.trust()?;
    let store = context.made_store()?;
    let registries = args.registry.registries(context)?;
    let options = CopyOptions {
        platform: args.platform.clone(),
        packing: args.compression.map(Into::into),
        limits: document_limits(None),
        trust: Some(&trust),
        with_signatures: args.signatures == CarrySignatures::All,
    };
    let run = Run { context, store: &store, registries: &registries, options: &options };
    // What goes into one archive goes there together, when the first of it comes.
    let mut archives = archives(&pairs)?;
    for (from, to) in &pairs {
        match archive_of(to) {
            Some((format, path, _)) => {
                if let Some(images) = archives.remove(path).map(|(_, images)| images) {
                    run.archive(&images, format, path)?;
                }
            }
            None => run.one(from, to)?,
        }
    }
    Ok(())
}

/// What goes into one archive: each image, and its name there.
type Packed<'a> = Vec<(&'a Location, Option<&'a str>)>;

/// The archives, by their paths, each with its images in their order.
fn archives(pairs: &[(Location, Goal)]) -> Result<BTreeMap<&Path, (ImageFormat, Packed<'_>)>> {
    let mut archives: BTreeMap<&Path, (ImageFormat, Packed<'_>)> = BTreeMap::new();
    for (from, to) in pairs {
        let Some((format, path, name)) = archive_of(to) else { continue };
        let (known, images) = archives.entry(path).or_insert_with(|| (format, Vec::new()));
        if *known != format {
            bail!("{} cannot be an archive of both kinds; name two files", path.display());
        }
        if name.is_some() && images.iter().any(|(_, other)| *other == name) {
            bail!(
                "two images cannot be {} in {}; give {from} another name",
                name.unwrap_or_default(),
                path.display()
            );
        }
        images.push((from, name));
    }
    Ok(archives)
}

/// The archive that it is, and the image's name in it.
fn archive_of(goal: &Goal) -> Option<(ImageFormat, &Path, Option<&str>)> {
    match goal {
        Goal::OciArchive(path, name) => Some((ImageFormat::OciArchive, path, name.as_deref())),
        Goal::DockerArchive(path, name) => {
            Some((ImageFormat::DockerArchive, path, name.as_deref()))
        }
        Goal::Registry(_) | Goal::Below(_) | Goal::Layout(..) | Goal::Store(_) => None,
    }
}

struct Run<'a> {
    context: &'a Context,
    store: &'a Store,
    registries: &'a Registries,
    options: &'a CopyOptions<'a>,
}

impl Run<'_> {
    fn one(&self, from: &Location, goal: &Goal) -> Result<()> {
        let target = match goal {
            Goal::Registry(reference) => Target::Registry(reference.clone()),
            Goal::Below(prefix) => Target::Registry(below(prefix, from)?),
            Goal::Layout(path, name) => Target::Layout { path: path.clone(), name: name.clone() },
            Goal::Store(name) => Target::Store(name.clone()),
            Goal::OciArchive(..) | Goal::DockerArchive(..) => return Ok(()),
        };
        let shown = match (&target, goal) {
            (Target::Registry(reference), _) => Location::Registry(reference.clone()).to_string(),
            (_, Goal::Layout(path, name)) => Location::Files {
                format: ImageFormat::OciDirectory,
                path: path.clone(),
                name: name.clone(),
            }
            .to_string(),
            (_, Goal::Store(Some(name))) => format!("strata:{}", name.familiar()),
            _ => "strata:".to_owned(),
        };
        self.copy(from, target, &shown)
    }

    fn archive(&self, images: &Packed<'_>, format: ImageFormat, path: &Path) -> Result<()> {
        look::to_file(path, "copy", &mut |out: &mut dyn Write| {
            let mut out = BufWriter::with_capacity(256 << 10, out);
            let mut archive = match format {
                ImageFormat::DockerArchive => ArchiveWriter::docker(&mut out)?,
                ImageFormat::OciArchive | ImageFormat::OciDirectory => {
                    ArchiveWriter::oci(&mut out)?
                }
            };
            for (from, name) in images {
                let name = name.map(str::to_owned);
                let to = Location::Files { format, path: path.to_owned(), name: name.clone() };
                self.copy(from, Target::Archive { archive: &mut archive, name }, &to.to_string())?;
            }
            archive.finish()?;
            Ok(out.flush()?)
        })
    }

    fn copy(&self, from: &Location, target: Target<'_, '_>, to: &str) -> Result<()> {
        let transfer = Transfer::new(self.context.shown, Stream::Err);
        let pushing = |layer: &str, event: PushEvent<'_>| transfer.copying(layer, event);
        let listeners = Listeners { pulling: &transfer, pushing: &pushing };
        transfer.line(&format!("Copying {from} to {to}"));
        let copied: CopiedImage =
            stratafs::copy(self.store, self.registries, from, target, self.options, &listeners)
                .with_context(|| format!("cannot copy {from} to {to}"))?;
        let digest = match copied.manifest {
            Some(digest) => digest.to_string(),
            None => copied.id.to_string(),
        };
        // It is there whether or not anybody reads this.
        writeln!(std::io::stdout(), "{digest}").unwrap_or_default();
        Ok(())
    }
}

/// The name of an image below a registry's path.
fn below(prefix: &str, from: &Location) -> Result<Reference> {
    let name = match from {
        Location::Registry(reference) => Some(reference.clone()),
        Location::Stored(text) => text.parse::<Reference>().ok(),
        Location::Files { name, .. } => name.as_deref().and_then(|name| name.parse().ok()),
    };
    let name = name.filter(|name| name.tag().is_some());
    let name = name.with_context(|| format!("{from} has no name to keep; write a whole one"))?;
    let tag = name.tag().map_or("latest", |tag| tag.as_str());
    let text = format!("{prefix}{}:{tag}", name.repository().as_str());
    text.parse().with_context(|| format!("cannot name {from} below {prefix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_keep_their_path_below_a_registry() {
        for (from, expected) in [
            ("docker://alpine", "localhost:5000/m/library/alpine:latest"),
            ("docker://quay.io/a/b:1", "localhost:5000/m/a/b:1"),
            ("oci:dir:x:2", "localhost:5000/m/library/x:2"),
            ("strata:h.io/y:3", "localhost:5000/m/y:3"),
        ] {
            let from = source(from).unwrap();
            assert_eq!(below("localhost:5000/m/", &from).unwrap().to_string(), expected);
        }
        assert!(below("localhost:5000/", &source("oci:dir").unwrap()).is_err());
        assert_eq!(
            Goal::parse("docker://localhost:5000/").unwrap(),
            Goal::Below("localhost:5000/".to_owned())
        );
        assert!(Goal::parse("docker://BAD/x/").is_ok() && Goal::parse("docker://h.io/A/").is_err());
    }
}
