//! Names in the store that the unfinished command line means.
//!
//! Invariant: each name comes with a word on what it is; what cannot be read is left out.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::context::{Context, Format};
use crate::images::familiar;
use crate::progress::ShowProgress;

/// A name, and what it is.
type Offer = (String, String);

/// A store that is there.
pub(super) struct KnownNames {
    context: Context,
}

impl KnownNames {
    /// The store of `--root`, or the usual one.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn of_command_line() -> Result<Self> {
        let root = Context::root_or_default(root_of(std::env::args_os().collect()))?;
        if !root.join("index.db").exists() {
            bail!("there is no store at {}", root.display());
        }
        let (format, quiet, log_level) = (Format::Table, true, None);
        Ok(Self {
            context: Context { root, format, quiet, shown: ShowProgress::Nothing, log_level },
        })
    }

    /// Images by name, each followed by `end`; and by id, if one has been begun.
    pub(super) fn images(&self, typed: &str, end: &str) -> Vec<Offer> {
        let Ok(store) = self.context.store() else { return Vec::new() };
        let mut offers = Vec::new();
        for (name, id) in store.images().tags().unwrap_or_default() {
            let short = familiar(&name);
            // A user who writes the whole name gets the whole name.
            let whole = typed.contains('/') && !short.starts_with(typed);
            let name = if whole { name } else { short };
            offers.push((format!("{name}{end}"), id.short()));
        }
        if !typed.is_empty() && typed.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let images = store.images().all().unwrap_or_default();
            offers.extend(images.iter().map(|one| {
                let layers = one.layers.len();
                (format!("{}{end}", one.id.short()), format!("image of {layers} layers"))
            }));
        }
        offers
    }

    /// Uppers by name.
    pub(super) fn uppers(&self) -> Vec<Offer> {
        let all = self.context.engine().uppers().listed().unwrap_or_default();
        all.into_iter().map(|one| (one.name, format!("upper of {}", one.reference))).collect()
    }

    /// Mountpoints: whole, or from the working directory, as the person has begun.
    pub(super) fn mounts(&self, typed: &str) -> Vec<Offer> {
        let here = std::env::current_dir().unwrap_or_default();
        let all = self.context.engine().mounts().unwrap_or_default();
        let offer = |path: &Path, reference: String| {
            let near = path.strip_prefix(&here).ok().filter(|path| !path.as_os_str().is_empty());
            let path = if typed.starts_with('/') { path } else { near.unwrap_or(path) };
            Some((path.to_str()?.to_owned(), format!("mount of {reference}")))
        };
        let all = all.into_iter();
        all.filter_map(|one| offer(&one.record.mountpoint, one.record.reference)).collect()
    }
}

/// The value of `--root` in words that are no whole command yet.
fn root_of(words: Vec<OsString>) -> Option<PathBuf> {
    let mut words = words.into_iter().skip_while(|word| word != "--");
    while let Some(word) = words.next() {
        if word == "--root" {
            return words.next().map(PathBuf::from);
        }
        if let Some(root) = word.to_str().and_then(|word| word.strip_prefix("--root=")) {
            return Some(PathBuf::from(root));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_that_of_the_words() {
        let of = |words: &[&str]| root_of(words.iter().map(OsString::from).collect());
        assert_eq!(of(&["strata", "--", "strata", "ls", "--root", "/a"]), Some("/a".into()));
        assert_eq!(of(&["strata", "--", "strata", "--root=/a", "ls"]), Some("/a".into()));
        assert_eq!(of(&["strata", "--root=/b", "--", "strata", "ls"]), None);
    }
}
