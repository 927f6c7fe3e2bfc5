//! The other half of the diff service: what one snapshot changes in another, as a blob.
//!
//! ```text
//! left   a view of a parent             layers
//! right  an active snapshot above it    layers + upper     the upper's changes, packed
//!        a view of a committed one      layers + one       that layer's own diff, byte for byte
//! ```
//!
//! Invariant: whatever else is compared is left to the next plugin, which mounts both.

use stratafs::{DiffId, LayerPacking, OpenChain, PackedDiff};

use crate::apply::upper_of;
use crate::error::{Error, Result};
use crate::labels;
use crate::places::SnapshotMount;
use crate::snapshots::Snapshots;
use crate::state::{SnapshotKind, SnapshotRow};

/// What a diff is when nobody says it.
const DEFAULT: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A diff, as it is to be.
pub(crate) struct DiffForm {
    pub(crate) media_type: String,
    packing: LayerPacking,
}

impl DiffForm {
    /// The form that a media type names; the empty one is the usual form. `dated` says that no
    /// time in it may be later than one that is given.
    ///
    /// # Errors
    /// `NotImplemented` for one that is not known here, and for one that is dated: its times are
    /// not those of the files.
    pub(crate) fn of(media_type: &str, dated: bool) -> Result<Self> {
        if dated {
            return Err(Error::NotImplemented("making a diff with a source date".to_owned()));
        }
        let media_type = if media_type.is_empty() { DEFAULT } else { media_type };
        let packing = match media_type {
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar" => LayerPacking::Plain,
            DEFAULT | "application/vnd.docker.image.rootfs.diff.tar.gzip" => LayerPacking::Gzip,
            "application/vnd.oci.image.layer.v1.tar+zstd" => LayerPacking::Zstd,
            other => return Err(Error::NotImplemented(format!("making a diff as {other}"))),
        };
        Ok(Self { media_type: media_type.to_owned(), packing })
    }
}

/// What mounts show: layers, and an upper with something in it.
struct Side {
    name: String,
    layers: Vec<DiffId>,
    written: Option<SnapshotRow>,
}

fn side(snapshots: &Snapshots, mounts: &[SnapshotMount]) -> Result<Option<Side>> {
    let lower = || {
        let [mount] = mounts else { return None };
        let lower = mount.options.iter().find_map(|option| option.strip_prefix("lowerdir="))?;
        snapshots.places.above(lower)
    };
    let upper = upper_of(mounts);
    let id = match upper {
        Some(upper) => snapshots.places.of_upper(upper),
        None => lower(),
    };
    let Some(id) = id else { return Ok(None) };
    let Some(row) = snapshots.state().numbered(id)? else { return Ok(None) };
    let layers = snapshots.state().chain(&row.name)?;
    let is_written = upper.is_some()
        && row.kind == SnapshotKind::Active
        && !snapshots.places.is_untouched(row.id)?;
    Ok(Some(Side { name: row.name.clone(), layers, written: is_written.then_some(row) }))
}

/// Makes the diff from the snapshot with the mounts `left` to that with the mounts `right`; gives
/// it with the namespace of a snapshot that has the latter: of any one, where several have the same
/// layers.
///
/// # Errors
/// `NotImplemented` where the next plugin is to do it.
pub(crate) fn diff(
    snapshots: &Snapshots,
    left: &[SnapshotMount],
    right: &[SnapshotMount],
    form: &DiffForm,
) -> Result<(String, PackedDiff)> {
    let other = |why: &str| Error::NotImplemented(format!("making a diff: {why}"));
    let (Some(left), Some(right)) = (side(snapshots, left)?, side(snapshots, right)?) else {
        return Err(other("the mounts are not those of snapshots here"));
    };
    if left.written.is_some() {
        return Err(other("the left snapshot is being written"));
    }
    let namespace = labels::namespace(&right.name).to_owned();
    let packed = match (right.layers.strip_prefix(&*left.layers), right.written) {
        (Some([]), Some(row)) => {
            let chain = OpenChain::open(&snapshots.store, &right.layers)?;
            let upper = snapshots.places.upper(row.id);
            chain.pack_upper(&snapshots.store, &upper, form.packing)?
        }
        (Some([layer]), None) => {
            let leased = snapshots.store.lease(layer)?;
            let leased = leased.ok_or_else(|| other("its layer is gone"))?;
            let packed = stratafs::pack_layer(&snapshots.store, &leased, form.packing);
            packed.map_err(stratafs::Error::from)?
        }
        _ => return Err(other("the right snapshot is not one layer above the left")),
    };
    Ok((namespace, packed))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::grpc::pb::services::diff::v1::DiffRequest;

    #[test]
    fn a_diff_with_a_source_date_is_left_to_the_next_plugin() {
        let asked = |bytes: &[u8]| {
            let request = DiffRequest::decode(bytes).unwrap();
            DiffForm::of(&request.media_type, request.source_date_epoch.is_some())
        };
        assert!(asked(&[]).is_ok());
        // A time of no seconds, as the sixth field.
        assert!(matches!(asked(&[6 << 3 | 2, 0]), Err(Error::NotImplemented(_))));
    }
}
