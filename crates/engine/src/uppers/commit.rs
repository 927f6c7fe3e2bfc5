//! What a writable layer changes, as a layer, as a tree, and as a new image.
//!
//! Invariant: the writable layer is only read, also while a mount writes to it: what is written
//! meanwhile is in the result or is not.

use std::io::{self, BufWriter, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use strata_content::threads::beside;
use strata_content::{FileTree, Joined};
use strata_image::{ConfigChange, DeriveOptions, Loaded};
use strata_layer::{Progress, Store};
use strata_registry::Reference;
use strata_tree::Lower;
use strata_union::Stack;
use strata_union::writable::{Layer, UpperView};

use super::NamedUpper;
use crate::engine::Engine;
use crate::error::{Error, ErrorContext, Result, bail};
use crate::image::OpenImage;
use crate::trees::checked;

/// What the new image says of itself.
#[derive(Debug, Default)]
pub struct CommitOptions {
    /// The creation time, for reproducible image ids; without it, now.
    pub created: Option<jiff::Timestamp>,
    /// Who made it.
    pub author: Option<String>,
    /// A remark for the image's history.
    pub message: Option<String>,
    /// Changes of what the image says of a container.
    pub changes: Vec<ConfigChange>,
}

/// What a commit came to.
#[derive(Debug)]
pub struct Committed {
    /// The new image.
    pub image: Loaded,
    /// What a layer cannot hold, one line each.
    pub left_out: Vec<String>,
}

impl Engine {
    /// A writable layer on top of its image, for reading, also while it is mounted.
    ///
    /// # Errors
    /// `Doing`, naming the upper: its image is gone, or it is damaged.
    pub fn view(&self, upper: &NamedUpper) -> Result<(OpenImage, UpperView)> {
        let upper = &upper.clone().whole()?;
        let image = self
            .image(&upper.image)
            .with_context(|| format!("cannot open the image of upper {}", upper.name))?;
        let view = self.uppers().view(upper, image.files.clone())?;
        Ok((image, view))
    }

    /// A writable layer and the image below it as one tree.
    ///
    /// # Errors
    /// As [`Engine::view`].
    pub fn merged(&self, upper: &NamedUpper) -> Result<(OpenImage, FileTree)> {
        let (image, view) = self.view(upper)?;
        let changes = changes(&view, upper)?;
        let layers = u32::try_from(image.record.layers.len())
            .map_err(|_| Error::Refused("an image has too many layers".to_owned()))?;
        let (below, own) = (Arc::clone(image.files.contents()), changes.contents());
        // The view refers to the image's layers too: it has one more than they are.
        let contents = Joined::new(vec![(layers, below), (u32::MAX - layers, own)]);
        let names = Stack::joined(vec![
            (image.tree.clone() as Arc<dyn Lower>, layers),
            (Arc::new(changes), u32::MAX - layers),
        ]);
        Ok((image, FileTree::new(Arc::new(names), Arc::new(contents))))
    }

    /// Makes an image of a writable layer and the image below it, in `store`.
    ///
    /// # Errors
    /// `Doing`, naming the upper: what it holds is no layer, or the store's trouble. Nothing of
    /// the image stays then.
    pub fn commit(
        &self,
        store: &Store,
        upper: &NamedUpper,
        name: Option<&Reference>,
        options: CommitOptions,
        progress: &dyn Progress,
    ) -> Result<Committed> {
        let (image, view) = self.view(upper)?;
        let layer = changes(&view, upper)?;
        let options = DeriveOptions {
            created: options.created,
            author: options.author,
            message: options.message,
            changes: options.changes,
            created_by: format!("strata commit {}", upper.name),
        };
        let (reader, writer) = diff_pipe()?;
        let derive = || {
            let diff = Box::new(reader);
            let into = checked(store);
            strata_image::derive(into, &image.record, diff, name, &options, progress)
        };
        let (written, derived) =
            beside(|| write_diff(layer, writer), derive).context("cannot start a thread")?;
        // The writer's error comes first: a diff that ends early is refused by its reader too, for
        // a reason that tells less.
        let left_out = written?;
        let image = derived.with_context(|| format!("cannot commit upper {}", upper.name))?;
        let Some(left_out) = left_out else {
            bail!("cannot commit upper {}: its layer was not read to the end", upper.name)
        };
        Ok(Committed { image, left_out })
    }
}

/// What an upper changes, read once.
fn changes(view: &UpperView, upper: &NamedUpper) -> Result<Layer> {
    view.changes().with_context(|| format!("cannot read upper {}", upper.name))
}

/// A pipe for a diff. Its reader fails at the end if [`write_diff`] has, for a diff that was cut
/// off between two members is a good diff of less.
///
/// # Errors
/// Those of making a pipe.
pub(crate) fn diff_pipe() -> Result<(WholeDiff, DiffPipe)> {
    let (reader, pipe) = io::pipe().context("cannot make a pipe for the layer")?;
    let whole = Arc::new(AtomicBool::new(false));
    let reader = WholeDiff { pipe: reader, whole: Arc::clone(&whole) };
    Ok((reader, DiffPipe { pipe, closed: false, whole }))
}

/// The end of it that is read.
pub(crate) struct WholeDiff {
    pipe: PipeReader,
    whole: Arc<AtomicBool>,
}

impl Read for WholeDiff {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.pipe.read(buffer)? {
            0 if !buffer.is_empty() && !self.whole.load(Ordering::Acquire) => {
                Err(io::Error::other("what the upper changes could not be read to its end"))
            }
            n => Ok(n),
        }
    }
}

/// The end of it that a diff is written into.
pub(crate) struct DiffPipe {
    pipe: PipeWriter,
    /// Nobody reads any more.
    closed: bool,
    /// All of the diff was written.
    whole: Arc<AtomicBool>,
}

impl Write for DiffPipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.pipe.write(bytes);
        self.closed |= matches!(&written, Err(error) if error.kind() == ErrorKind::BrokenPipe);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pipe.flush()
    }
}

/// Writes the layer as a diff; says what a diff cannot hold, or `None` if the reader stopped before
/// the end, for a reason of its own.
pub(crate) fn write_diff(layer: Layer, pipe: DiffPipe) -> Result<Option<Vec<String>>> {
    let mut out = BufWriter::with_capacity(256 << 10, pipe);
    let contents = layer.contents();
    let layer = FileTree::new(Arc::new(layer), contents);
    let exported = strata_diff::export::write_changes(&layer, &mut out)
        .map_err(Error::from)
        .and_then(|exported| Ok(out.flush().map(|()| exported)?));
    if out.get_ref().closed {
        return Ok(None);
    }
    let left_out = exported?.left_out.into_iter();
    out.get_ref().whole.store(true, Ordering::Release);
    Ok(Some(left_out.map(|one| format!("{}: left out: {}", one.path, one.what)).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_whose_writer_fails_has_no_end() {
        let (mut reader, writer) = diff_pipe().unwrap();
        drop(writer);
        let mut all = Vec::new();
        let cut_off = reader.read_to_end(&mut all).unwrap_err();
        assert!(cut_off.to_string().contains("to its end"), "{cut_off}");

        let (mut reader, mut writer) = diff_pipe().unwrap();
        writer.write_all(b"all").unwrap();
        writer.whole.store(true, Ordering::Release);
        drop(writer);
        reader.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"all");
    }
}
