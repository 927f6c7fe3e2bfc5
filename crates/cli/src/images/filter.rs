//! `--filter`: which images a command means.
//!
//! Invariant: all filters hold, as with docker, but several references, of which one is enough;
//! there is one filter at most of a key that can have one answer only.

use anyhow::{Context as _, Result, anyhow, bail};
use glob::{MatchOptions, Pattern};
use jiff::{SignedDuration, Timestamp};
use strata_image::resolve_image;
use strata_layer::Store;

use super::{KnownImage, NONE, split};

/// One filter, read.
#[derive(Debug)]
enum Filter {
    Dangling(bool),
    /// Made before (`true`) or after this image, in creation time.
    Image(bool, Option<Timestamp>),
    Label(LabelFilter),
    /// That no image has which is meant, unless it lacks another of these.
    NotLabel(LabelFilter),
    Reference(Pattern),
    Until(Timestamp),
}

/// A label, with a value where one is wanted.
#[derive(Debug)]
struct LabelFilter {
    name: String,
    value: Option<String>,
}

/// The keys of which one filter says all.
const ONCE: [&str; 4] = ["dangling", "before", "since", "until"];

/// All filters of a command line.
#[derive(Debug, Default)]
pub(super) struct Filters(Vec<(String, Filter)>);

impl Filters {
    /// Reads `KEY=VALUE` texts; `allowed` are the keys that the command has.
    pub(super) fn parse(store: &Store, texts: &[String], allowed: &[&str]) -> Result<Self> {
        let mut filters = Vec::new();
        for (at, text) in texts.iter().enumerate() {
            // Docker's filters are sets.
            if texts[..at].contains(text) {
                continue;
            }
            let Some((key, value)) = text.split_once('=') else {
                bail!("--filter {text:?} is not KEY=VALUE; keys are {}", allowed.join(", "));
            };
            if !allowed.contains(&key) {
                bail!("--filter {text:?}: no such key; keys are {}", allowed.join(", "));
            }
            let filter = read(store, key, value).with_context(|| format!("--filter {text:?}"))?;
            if ONCE.contains(&key) && filters.iter().any(|(known, _)| known == key) {
                bail!("--filter {text:?}: there is another filter {key}; give only one");
            }
            filters.push((key.to_owned(), filter));
        }
        Ok(Self(filters))
    }

    /// Whether an image, under one of its names, is meant.
    pub(super) fn match_row(&self, image: &KnownImage, name: &(String, String)) -> bool {
        self.0.iter().all(|(key, filter)| match filter {
            Filter::Reference(_) => self.of(key).any(|other| other.matches(image, name)),
            // As docker: an image is left out that has all of them.
            Filter::NotLabel(_) => !self.of(key).all(|other| other.matches(image, name)),
            Filter::Dangling(_) | Filter::Image(..) | Filter::Label(_) | Filter::Until(_) => {
                filter.matches(image, name)
            }
        })
    }

    fn of<'f>(&'f self, key: &'f str) -> impl Iterator<Item = &'f Filter> {
        self.0.iter().filter(move |(known, _)| known == key).map(|(_, filter)| filter)
    }

    /// Takes the filter `dangling` away, and says what it was.
    pub(super) fn take_dangling(&mut self) -> Option<bool> {
        let at = self.0.iter().position(|(key, _)| key == "dangling")?;
        match self.0.remove(at).1 {
            Filter::Dangling(wanted) => Some(wanted),
            Filter::Image(..)
            | Filter::Label(_)
            | Filter::NotLabel(_)
            | Filter::Reference(_)
            | Filter::Until(_) => None,
        }
    }
}

fn read(store: &Store, key: &str, value: &str) -> Result<Filter> {
    Ok(match key {
        "dangling" => match value {
            "true" | "1" => Filter::Dangling(true),
            "false" | "0" => Filter::Dangling(false),
            _ => bail!("it is true or false"),
        },
        "before" | "since" => {
            let image = KnownImage::one(store, resolve_image(store, value)?)?;
            Filter::Image(key == "before", image.config.created())
        }
        "label" => Filter::Label(LabelFilter::of(value)),
        "label!" => Filter::NotLabel(LabelFilter::of(value)),
        "reference" => Filter::Reference(Pattern::new(value).context("not a pattern")?),
        "until" => Filter::Until(moment(value)?),
        _ => bail!("no such filter"),
    })
}

/// A time, a number of seconds since 1970, or a duration before now.
fn moment(text: &str) -> Result<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(seconds) = text.parse::<i64>() {
        return Timestamp::from_second(seconds).context("no such time");
    }
    if let Ok(date) = text.parse::<jiff::civil::Date>() {
        return Ok(date.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp());
    }
    let ago: SignedDuration = text
        .parse()
        .map_err(|_| anyhow!("neither a time (2024-05-06T07:08:09Z) nor an age (24h)"))?;
    Timestamp::now().checked_sub(ago).context("no such time")
}

impl LabelFilter {
    fn of(text: &str) -> Self {
        match text.split_once('=') {
            Some((name, value)) => Self { name: name.to_owned(), value: Some(value.to_owned()) },
            None => Self { name: text.to_owned(), value: None },
        }
    }

    fn is_on(&self, image: &KnownImage) -> bool {
        let found = image.config.label(&self.name);
        found.is_some_and(|found| self.value.as_deref().is_none_or(|value| value == found))
    }
}

impl Filter {
    fn matches(&self, image: &KnownImage, name: &(String, String)) -> bool {
        let created = image.config.created();
        match self {
            Self::Dangling(wanted) => (name.1 == NONE) == *wanted,
            Self::Image(true, than) => created < *than,
            Self::Image(false, than) => created > *than,
            Self::Until(when) => created.is_none_or(|created| created < *when),
            Self::Label(label) | Self::NotLabel(label) => label.is_on(image),
            Self::Reference(pattern) => names_match(pattern, name),
        }
    }
}

/// As docker's path.Match: `*` stays within one path component; a pattern without a tag is of
/// the repository.
fn names_match(pattern: &Pattern, (repository, tag): &(String, String)) -> bool {
    let options = MatchOptions { require_literal_separator: true, ..MatchOptions::new() };
    pattern.matches_with(repository, options)
        || pattern.matches_with(&format!("{repository}:{tag}"), options)
}

/// Whether a name is what `strata images NAME` asks for: a reference, or a pattern.
pub(super) fn is_named(wanted: &str, name: &(String, String)) -> bool {
    if wanted.contains(['*', '?', '[']) {
        return Pattern::new(wanted).is_ok_and(|pattern| names_match(&pattern, name));
    }
    let (repository, tag) = split(wanted);
    let bare = !wanted.rsplit('/').next().unwrap_or(wanted).contains(':');
    name.0 == repository && (bare || name.1 == tag)
}
