//! Facts of images that are in no store: their layers are read as streams, and nothing is unpacked.
//!
//! ```text
//! FactSource ── images ── layers that the ledger has not ── Ledger ── Snapshot ── the same tables
//!   archive      manifest    several at once, each diff id     index.db
//!   reference    and config  once for all
//!   registry
//! ```
//!
//! The [`Ledger`](strata_layer::Ledger) lies in a working directory. A run that was killed is begun
//! again with the same one, and reads only what is missing.
//!
//! Invariants: what is refused is what a load refuses (but for stacks that do not merge, which need
//! the store); the tables are those of a store that has loaded the same images, but for what these
//! take on its disk, which is NULL; a layer is read once, however many images have it, and an image
//! that cannot be read takes no other image with it.

mod jobs;

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use strata_image::{ImageConfig, Platform, SourceLimits, SourceSpec};
use strata_layer::{ImageRecord, Ledger, Limits, Progress};
use strata_registry::{Reference, Registries};
use strata_tree::BlobDigest;

use crate::error::Result;
use crate::{FactsOptions, WrittenFacts, write_tables};

/// Where images are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FactSource {
    /// In a layout or an archive.
    Files(SourceSpec),
    /// In a registry, under that name.
    Image(Reference),
    /// In a registry: all tags of the repositories that its catalogue lists.
    Registry {
        /// Its host, with its port if one is given.
        host: String,
        /// Only the repository of this name and those below it.
        prefix: Option<String>,
    },
}

/// How to read them.
#[derive(Debug, Clone)]
pub struct GatherOptions {
    /// The ledger's directory, which is made if it is not there.
    pub ledger: PathBuf,
    /// Of an index, the images for this platform; without it the host's.
    pub platform: Option<Platform>,
    /// How many images or layers are read at once.
    pub at_once: NonZeroUsize,
    /// Goes on after an image that cannot be read, and leaves it out.
    pub keep_going: bool,
    /// What the sources may make us read.
    pub limits: SourceLimits,
    /// What their layers may ask for.
    pub layer_limits: Limits,
}

/// What sources have, read.
pub struct GatheredFacts {
    ledger: Ledger,
    /// Images with their layers, each once.
    pub images: usize,
    /// Layers that were read now.
    pub read: u64,
    /// Layers that an earlier run had read.
    pub known: u64,
    /// What registries have under a tag that is no image for the platform, with the reason.
    pub passed_over: Vec<(String, String)>,
    /// Images that could not be read, with the reason; only with `keep_going`.
    pub failed: Vec<(String, String)>,
}

/// Reads all images of the sources. `scratch` gives files for archives that are compressed or come
/// through a pipe.
///
/// # Errors
/// The first thing that is not right: those of [`strata_image::load`] and [`strata_image::pull()`];
/// `Store` if the ledger cannot be written. What was read so far stays in the ledger.
pub fn gather(
    sources: &[FactSource],
    registries: &Registries,
    scratch: &(dyn Fn() -> strata_image::Result<File> + Sync),
    options: &GatherOptions,
    progress: &dyn Progress,
) -> Result<GatheredFacts> {
    let ledger = Ledger::open(&options.ledger)?;
    let run = jobs::Run::new(&ledger, registries, scratch, options, progress);
    let mut outcome = run.all(sources)?;
    let mut held: Vec<(ImageRecord, Vec<String>)> = Vec::new();
    for image in std::mem::take(&mut outcome.images) {
        let mut missing = None;
        for layer in &image.record.layers {
            if missing.is_none() && !ledger.has(layer)? {
                missing = Some(layer);
            }
        }
        let broken = outcome.broken.remove(&image.place);
        match (missing, broken) {
            (None, None) => held.push((image.record, image.names)),
            (None, Some(why)) => {
                let text = format!("{}: {why}; another image gave this layer", image.title);
                progress.warning("", &text);
                held.push((image.record, image.names));
            }
            (Some(_), Some(why)) => outcome.failed.push((image.title, why)),
            (Some(layer), None) => {
                let why = format!("its layer {layer} could not be read");
                outcome.failed.push((image.title, why));
            }
        }
    }
    outcome.passed_over.sort();
    outcome.failed.sort();
    outcome.failed.dedup_by(|a, b| a.0 == b.0);
    ledger.show(&held)?;
    let images = ledger.snapshot()?.images()?.len();
    let jobs::Outcome { read, known, passed_over, failed, .. } = outcome;
    Ok(GatheredFacts { ledger, images, read, known, passed_over, failed })
}

/// Writes the facts of what was gathered, as [`crate::write`] writes those of a store.
///
/// # Errors
/// As [`crate::write`].
pub fn write_gathered(
    gathered: &GatheredFacts,
    dir: &Path,
    options: &FactsOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<WrittenFacts> {
    let snapshot = gathered.ledger.snapshot()?;
    let config = |id: &_| {
        let bytes = gathered.ledger.document(&BlobDigest::from(*id))?;
        Ok(ImageConfig::parse(&bytes)?)
    };
    write_tables(&snapshot, &config, dir, options, progress)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // Helpers are not #[test] functions.

    use std::fs;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    use strata_layer::Event;
    use strata_registry::{RegistryOptions, Retry};
    use strata_testkit::layout::{LAYER, Layout, named, tar_of};
    use strata_testkit::registry::{Answer, How, Registry};
    use strata_tree::DiffId;

    use super::*;

    struct Silent;

    impl Progress for Silent {
        fn event(&self, _: &str, _: Event) {}

        fn warning(&self, _: &str, _: &str) {}
    }

    /// How many images were read, and the names of those that were not.
    fn read(source: FactSource, at_once: usize) -> (usize, Vec<String>) {
        let scratch = || Ok(tempfile::tempfile().unwrap());
        let gathered = read_all(&[source], at_once, &scratch, &Silent).unwrap();
        (gathered.images, gathered.failed.into_iter().map(|(what, _)| what).collect())
    }

    fn read_all(
        sources: &[FactSource],
        at_once: usize,
        scratch: &(dyn Fn() -> strata_image::Result<File> + Sync),
        progress: &dyn Progress,
    ) -> Result<GatheredFacts> {
        let dir = tempfile::tempdir().unwrap();
        let retry = Retry { tries: 1, ..Retry::default() };
        let registries = Registries::new(RegistryOptions { retry, ..RegistryOptions::default() });
        let options = GatherOptions {
            ledger: dir.path().join("ledger"),
            platform: None,
            at_once: NonZeroUsize::new(at_once).unwrap(),
            keep_going: true,
            limits: SourceLimits::default(),
            layer_limits: Limits::default(),
        };
        gather(sources, &registries, scratch, &options, progress)
    }

    /// A layout of one image, which says of `blob` that it is `base` and has a layer of its own.
    fn layout(base: &[u8], blob: &[u8], own: &[u8]) -> Layout {
        let layout = Layout::new("x");
        let layers = [layout.blob(LAYER, blob), layout.blob(LAYER, own)];
        layout.index(&[layout.manifest(&layout.config(&[base, own], "linux/amd64"), &layers)]);
        layout
    }

    /// Lets whoever comes first to the layer `base` wait until the layer `last` is being read, and
    /// looks how many files of a directory are open meanwhile.
    struct Watching<'w> {
        dir: &'w Path,
        base: String,
        last: String,
        begun: AtomicBool,
        is_last: AtomicBool,
        most: AtomicUsize,
    }

    impl Progress for Watching<'_> {
        fn event(&self, label: &str, _: Event) {
            let open = fs::read_dir("/proc/self/fd").unwrap().filter(|entry| {
                let to = entry.as_ref().ok().and_then(|fd| fs::read_link(fd.path()).ok());
                to.is_some_and(|to| to.starts_with(self.dir))
            });
            self.most.fetch_max(open.count(), Ordering::Relaxed);
            self.is_last.fetch_or(label == self.last, Ordering::Relaxed);
            if label == self.base && !self.begun.swap(true, Ordering::Relaxed) {
                let start = Instant::now();
                while !self.is_last.load(Ordering::Relaxed) {
                    assert!(start.elapsed() < Duration::from_secs(60), "the others do not come");
                    thread::sleep(Duration::from_millis(5));
                }
            }
        }

        fn warning(&self, _: &str, _: &str) {}
    }

    #[test]
    fn an_image_that_waits_for_a_layer_keeps_no_archive_open() {
        const ARCHIVES: usize = 20;
        let dir = tempfile::tempdir().unwrap();
        let base = tar_of(&[("etc/passwd", "root")]);
        let own = |at: usize| tar_of(&[("own", &at.to_string())]);
        let mut sources = Vec::new();
        for at in 0..ARCHIVES {
            // One of the first two begins with the base, and then the others are asked.
            let blob = if at < 2 { &b"not the base"[..] } else { &base };
            let path = dir.path().join(format!("{at}.tar"));
            let archive = layout(&base, blob, &own(at)).tar();
            if at == 2 {
                // What comes through a pipe comes once.
                rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
                let path = path.clone();
                thread::spawn(move || fs::write(path, archive).unwrap());
            } else {
                fs::write(&path, archive).unwrap();
            }
            sources.push(FactSource::Files(SourceSpec::path(&path)));
        }
        let label = |layer: &[u8]| strata_testkit::digest(layer).parse::<DiffId>().unwrap().short();
        let watching = Watching {
            dir: dir.path(),
            base: label(&base),
            last: label(&own(ARCHIVES - 1)),
            begun: AtomicBool::new(false),
            is_last: AtomicBool::new(false),
            most: AtomicUsize::new(0),
        };
        let scratch = || Ok(tempfile::tempfile().unwrap());
        let gathered = read_all(&sources, 2, &scratch, &watching).unwrap();
        assert_eq!((gathered.images, &gathered.failed[..]), (ARCHIVES, &[][..]));
        let most = watching.most.into_inner();
        assert!(most <= 4, "{most} are open while two threads read");
    }

    #[test]
    fn what_no_image_is_the_cause_of_ends_the_run() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]).unwrap();
        let source = FactSource::Files(SourceSpec::path(file.path()));
        let scratch = || {
            let source = rustix::io::Errno::MFILE.into();
            Err(strata_image::Error::Io { what: "making a scratch file".to_owned(), source })
        };
        let error = read_all(&[source], 1, &scratch, &Silent).err().map(|error| error.to_string());
        assert!(error.as_ref().is_some_and(|text| text.contains("Too many open")), "{error:?}");
    }

    #[test]
    fn bytes_that_are_no_layer_are_read_once() {
        let base = tar_of(&[("etc/passwd", "root")]);
        let bad = b"no tar, and no layer of that diff id";
        let digest = strata_testkit::digest(bad);
        for how in [Answer::new(404).how(), How::Well] {
            for at_once in [1, 4] {
                let registry = Registry::new();
                for tag in ["1", "2", "3", "4", "5"] {
                    let layout = layout(&base, bad, &tar_of(&[("own", tag)]));
                    registry.layout(layout.root(), "team/x", tag);
                }
                let (answer, of) = (how.clone(), digest.clone());
                registry.rule(move |seen| match seen.is("GET", &of) {
                    true => answer.clone(),
                    false => How::Well,
                });
                let host = registry.host().to_owned();
                let (images, failed) = read(FactSource::Registry { host, prefix: None }, at_once);
                assert_eq!((images, failed.len()), (0, 5), "{how:?} {at_once}: {failed:?}");
                assert_eq!(registry.count("GET", &digest), 1, "{how:?} {at_once}");
            }
        }
    }

    #[test]
    fn an_image_that_cannot_be_read_takes_no_other_with_it() {
        let base = tar_of(&[("etc/passwd", "root")]);
        let bad = b"no tar, and no layer of that diff id";
        // An image that says of `blob` that it is the base, and has a layer of its own.
        let image = |layout: &Layout, own: &str, blob: &[u8]| {
            let own = tar_of(&[("own", own)]);
            let layers = [layout.blob(LAYER, blob), layout.blob(LAYER, &own)];
            layout.manifest(&layout.config(&[&base, &own], "linux/amd64"), &layers)
        };
        for how in [Answer::new(404).how(), How::Well, How::Drip(0)] {
            for at_once in [1, 4] {
                let registry = Registry::new();
                let blobs = [("a-bad", &bad[..]), ("b-good", &base), ("c-good", &base)];
                for (name, blob) in blobs {
                    let layout = Layout::new(name);
                    layout.index(&[image(&layout, name, blob)]);
                    registry.layout(layout.root(), name, "1");
                }
                let (answer, digest) = (how.clone(), strata_testkit::digest(bad));
                registry.rule(move |seen| match seen.is("GET", &digest) {
                    true => answer.clone(),
                    false => How::Well,
                });
                let host = registry.host().to_owned();
                let (images, failed) = read(FactSource::Registry { host, prefix: None }, at_once);
                assert_eq!((images, failed.len()), (3, 0), "{how:?} {at_once}: {failed:?}");
            }
        }
        // The same within one source; and where nobody has the layer.
        let layout = Layout::new("x");
        let mut entries = vec![
            named(&image(&layout, "a", bad), "a-bad:1"),
            named(&image(&layout, "b", bad), "b-bad:1"),
            named(&image(&layout, "c", &base), "c-good:1"),
        ];
        let source = FactSource::Files(layout.root().to_str().unwrap().parse().unwrap());
        layout.index(&entries);
        assert_eq!(read(source.clone(), 1), (3, Vec::new()));
        entries.pop();
        layout.index(&entries);
        assert_eq!(read(source, 1), (0, vec!["a-bad:1".to_owned(), "b-bad:1".to_owned()]));
    }
}
