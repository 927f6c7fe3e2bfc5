//! The bytes of `info` and `blob`.
//!
//! Invariant: a content that is kept open keeps no table of a diff: that is asked of the place for
//! each read, and made again where it was given up.

use std::fs::File;
use std::io;
use std::sync::Arc;

use strata_content::Content;
use strata_tree::{ContentRef, Error, Result};

use crate::place::{LayerPlace, OpenForm};
use crate::served::ServedLayers;

/// The layers of contents that are no files of the store: their path is the place's number.
pub(crate) const PLACE_INFO: u32 = 1;
pub(crate) const PLACE_BLOB: u32 = 2;

/// Opens one of these.
///
/// # Errors
/// `Corrupt` for a place that is not; those of the store.
pub(crate) fn open(served: &Arc<ServedLayers>, which: &ContentRef) -> Result<Box<dyn Content>> {
    let number = std::str::from_utf8(which.path.as_bytes()).ok().and_then(|text| text.parse().ok());
    let place = number.and_then(|number| served.place_numbered(number));
    let place = place.ok_or_else(|| Error::Corrupt {
        tree: "of the layer store".to_owned(),
        what: format!("there is no place {}", which.path),
    })?;
    Ok(match which.layer {
        PLACE_INFO => Box::new(InfoBytes(served.form(&place)?)),
        _ => Box::new(DiffBytes { served: Arc::clone(served), place, len: which.size }),
    })
}

struct InfoBytes(Arc<OpenForm>);

impl std::fmt::Debug for InfoBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InfoBytes")
    }
}

impl Content for InfoBytes {
    fn len(&self) -> u64 {
        self.0.info.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.0.info.len());
        let rest = &self.0.info[from..];
        let done = rest.len().min(buffer.len());
        buffer[..done].copy_from_slice(&rest[..done]);
        Ok(done)
    }

    fn as_file(&self) -> Option<&File> {
        None
    }
}

struct DiffBytes {
    served: Arc<ServedLayers>,
    place: Arc<LayerPlace>,
    len: u64,
}

impl std::fmt::Debug for DiffBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DiffBytes")
    }
}

impl Content for DiffBytes {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let diff = self.place.diff(&self.served.store, self.served.class);
        diff.map_err(io::Error::other)?.read_at(buffer, offset)
    }

    fn as_file(&self) -> Option<&File> {
        None
    }
}
