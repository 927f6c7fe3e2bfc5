//! The images of a source, from its two lists: `index.json` and `manifest.json`.
//!
//! Nothing that a source lists is left out without an error, except what a choice of platform
//! leaves out.
//!
//! Invariants: if the two lists contradict each other, neither counts; no layer's descriptor of
//! what is found has a negative size.

use std::collections::{BTreeSet, HashSet};

use strata_registry::Reference;

use crate::docker::{self, DockerItem};
use crate::error::{Error, Result};
use crate::found::{FoundImage, FoundRoom, Wanted, listed};
use crate::oci::{self, Descriptor};
use crate::platform::{Platform, Rank};
use crate::source::{ImageSource, path_of};
use crate::spec::{List, SourceSpec};

/// Finds the wanted images of a source, in the source's order.
///
/// # Errors
/// `NoFormat` if it holds none at all, `NoSuchName` or `Platform` if none of its images is
/// wanted, `TwoLists` where its two lists are at odds, and everything that damaged documents lead
/// to.
pub(crate) fn find(source: &ImageSource, wanted: &Wanted<'_>) -> Result<Vec<FoundImage>> {
    let list = wanted.spec.list();
    let index = match list {
        Some(List::Docker) => None,
        _ => oci::read_index(source)?,
    };
    let items = match list {
        Some(List::Oci) if index.is_none() => None,
        _ => docker::read_items(source)?,
    };
    if index.is_none() && items.is_none() {
        return Err(match list {
            Some(list) => no_list(source, list),
            None => no_format(source),
        });
    }
    let mut known = BTreeSet::new();
    let (index, items) = (index.unwrap_or_default(), items.unwrap_or_default());
    let mut found = of_both(source, wanted, index, &items, &mut known)?;
    if list == Some(List::Docker) {
        add_manifests(source, wanted.platform, &mut found);
    }
    if found.is_empty() {
        let label = source.label.clone();
        return Err(match wanted.spec.wanted() {
            Some(name) => Error::NoSuchName {
                label,
                wanted: name.to_owned(),
                available: listed(&known.into_iter().collect::<Vec<_>>()),
            },
            None => Error::Document {
                label,
                document: "its list of images".to_owned(),
                why: "it is empty".to_owned(),
            },
        });
    }
    let found = found.into_iter().map(FoundImage::checked).collect::<Result<Vec<_>>>()?;
    for_platform(source, found, wanted.platform)
}

/// The images of both lists: those of `index.json`, with the names that `manifest.json` gives
/// them too, and those that only `manifest.json` has. `docker save` writes both, and dockers have
/// written either one with less in it than the other.
fn of_both(
    source: &ImageSource,
    wanted: &Wanted<'_>,
    index: Vec<Descriptor>,
    items: &[DockerItem],
    known: &mut BTreeSet<String>,
) -> Result<Vec<FoundImage>> {
    let covered = match items {
        [] => HashSet::new(),
        _ => oci::all_configs(source, &index)?,
    };
    let mut room = FoundRoom::new(&source.label, &source.limits);
    let oci::ListedImages { images: mut found, artifact } =
        oci::find(source, wanted, index, known, &mut room)?;
    let mut further = Vec::new();
    for item in items {
        if found.is_empty() && covered.is_empty() {
            further.push(item);
            continue;
        }
        let config = docker::config_digest(source, item)?;
        let names = docker::names(item, wanted, known)?;
        let at = found.iter().position(|image| image.config.id() == config.into());
        match at {
            // Docker 25.0 began with manifests that name no layer.
            Some(at) if !found[at].is_whole() && found[at].has_as_many(item.layer_count()) => {
                let mut instead = docker::find(source, wanted, &[item], known, &mut room)?;
                if let [image] = instead.as_mut_slice() {
                    let theirs = std::mem::replace(&mut image.names, found[at].names.clone());
                    image.add_names(theirs);
                    std::mem::swap(&mut found[at], image);
                } else {
                    found[at].add_names(names);
                }
            }
            Some(at) => found[at].add_names(names),
            // Another platform of an image that the index has.
            None if covered.contains(&config) => {}
            None => further.push(item),
        }
    }
    if wanted.spec.list() == Some(List::Oci) {
        further.clear();
    }
    let further = docker::find(source, wanted, &further, known, &mut room)?;
    for image in &further {
        let taken = |name: &&Reference| found.iter().any(|other| other.names.contains(name));
        if let Some(name) = image.names.iter().find(taken) {
            return Err(Error::TwoLists { label: source.label.clone(), name: name.familiar() });
        }
    }
    found.extend(further);
    match artifact {
        Some(what) if found.is_empty() => Err(oci::no_image(&source.label, &what)),
        _ => Ok(found),
    }
}

/// Gives images of `manifest.json` the manifests that `index.json` has of them, so that their
/// digests stay. `index.json` is not asked for here, so its faults are ignored.
fn add_manifests(source: &ImageSource, platform: Option<&Platform>, found: &mut [FoundImage]) {
    let all = SourceSpec::path(std::path::Path::new(&source.label));
    let wanted = Wanted { spec: &all, platform };
    let Ok(Some(index)) = oci::read_index(source) else { return };
    let mut room = FoundRoom::new(&source.label, &source.limits);
    let Ok(listed) = oci::find(source, &wanted, index, &mut BTreeSet::new(), &mut room) else {
        return;
    };
    for image in found {
        let same = |other: &&FoundImage| {
            other.config.id() == image.config.id() && other.layers.len() == image.layers.len()
        };
        if let Some(other) = listed.images.iter().find(same) {
            image.manifest.clone_from(&other.manifest);
            image.layers.clone_from(&other.layers);
        }
    }
}

fn no_list(source: &ImageSource, list: List) -> Error {
    let (file, other) = match list {
        List::Docker => ("manifest.json", "oci-archive: or oci:"),
        List::Oci => ("index.json", "docker-archive:"),
    };
    let why = format!("it is not there, and the prefix asks for it; say {other}, or no prefix");
    Error::document(&source.label, file, why)
}

/// The one wanted image of a source.
///
/// # Errors
/// `Several`, and those of [`find`].
pub(crate) fn one(source: &ImageSource, wanted: &Wanted<'_>) -> Result<FoundImage> {
    let mut all = find(source, wanted)?;
    match (all.pop(), all.is_empty()) {
        (Some(found), true) => Ok(found),
        (last, _) => {
            all.extend(last);
            let names: Vec<String> = all.iter().map(FoundImage::title).collect();
            Err(Error::Several { label: source.label.clone(), available: listed(&names) })
        }
    }
}

/// A platform that was asked for leaves out images for others, also where no index says so.
fn for_platform(
    source: &ImageSource,
    found: Vec<FoundImage>,
    platform: Option<&Platform>,
) -> Result<Vec<FoundImage>> {
    let Some(platform) = platform else { return Ok(found) };
    let offered: Vec<_> = found.iter().map(|image| image.config.platform()).collect();
    let ranked: Vec<_> = found
        .into_iter()
        .filter_map(|image| {
            let own = image.config.platform();
            let unsaid = own.os.is_empty().then(Rank::unsaid);
            Some((unsaid.or_else(|| own.may_serve(platform))?, image))
        })
        .collect();
    // What only runs as well is left out where there is the architecture itself.
    let own = ranked.iter().any(|(rank, _)| rank.is_own());
    let serving: Vec<_> = ranked
        .into_iter()
        .filter(|(rank, _)| !own || !rank.is_elder())
        .map(|(_, image)| image)
        .collect();
    if serving.is_empty() && !offered.is_empty() {
        return Err(Error::Platform {
            label: source.label.clone(),
            wanted: platform.to_string(),
            available: listed(&offered),
        });
    }
    Ok(serving)
}

fn no_format(source: &ImageSource) -> Error {
    let has = |path: &str| matches!(source.blob(&path_of(path)), Ok(Some(_)));
    let hint = if has("oci-layout") {
        Some("it has an oci-layout file, but its index.json is missing")
    } else if has("repositories") {
        Some(
            "it has a `repositories` file, as docker before 1.10 saved images, which name no \
             digests; load it with an old docker and save it again",
        )
    } else if has("version") {
        Some("it looks like skopeo's dir: format, which is not read; copy it to oci: first")
    } else if has("etc/passwd") || has("etc/os-release") || has("bin/sh") {
        Some("it looks like such a root file system")
    } else {
        None
    };
    let deeper = ["index.json", "manifest.json"].map(|name| source.deeper(&path_of(name)));
    let hint = match deeper.into_iter().flatten().next() {
        Some(path) => {
            Some(format!("it has {path}; an image's files must stand at the top (tar -C DIR -c .)"))
        }
        None => hint.map(str::to_owned),
    };
    Error::NoFormat { label: source.label.clone(), hint }
}
