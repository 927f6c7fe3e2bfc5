//! Names of images, on what is held of their layers: what `strata images`, `df` and `why` say.
//!
//! CRI, containerd's transfer service and an import write on a snapshot which image it is of. All
//! layers below that snapshot are that image's too, also where an earlier image brought them.
//!
//! Invariant: the record of snapshots is locked meanwhile, so no hold is named that is just going.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use stratafs::{DiffId, Holds, Reference};

use crate::error::Result;
use crate::labels;
use crate::state::{Labels, SnapshotRow, State};

/// The name of the image that labels say, as people say it.
fn name_in(labels: &Labels) -> Option<String> {
    let name = labels.get(labels::CRI_IMAGE)?;
    Some(name.parse::<Reference>().map_or_else(|_| name.clone(), |name| name.familiar()))
}

/// Names the layers of a snapshot that has just come. If that fails, the next cleanup does it.
pub(crate) fn name_snapshot(state: &State, holds: &Holds, snapshot: &str, labels: &Labels) {
    let Some(name) = name_in(labels) else { return };
    if let Err(error) = name_chain(state, holds, snapshot, &name) {
        tracing::warn!("naming the layers of {name}: {error}");
    }
}

fn name_chain(state: &State, holds: &Holds, snapshot: &str, name: &str) -> Result<()> {
    for layer in state.chain(snapshot)? {
        let known = holds.get(&layer.to_string())?;
        let mut names = known.map(|hold| hold.images).unwrap_or_default();
        if let Err(at) = names.binary_search_by(|known| known.as_str().cmp(name)) {
            names.insert(at, name.to_owned());
            holds.name(&layer, &names)?;
        }
    }
    Ok(())
}

/// Names all layers, and takes away names of images that have gone. A hold that cannot be named
/// holds its layer all the same.
pub(crate) fn name_all(state: &State, holds: &Holds) -> Result<()> {
    let rows = state.all()?;
    for (layer, names) in names(&rows) {
        let names: Vec<String> = names.into_iter().collect();
        if let Err(error) = holds.name(&layer, &names) {
            tracing::warn!("naming the layer {layer}: {error}");
        }
    }
    Ok(())
}

/// The names of each layer of all snapshots.
fn names(rows: &[SnapshotRow]) -> BTreeMap<DiffId, BTreeSet<String>> {
    let by_name: HashMap<&str, &SnapshotRow> =
        rows.iter().map(|row| (row.name.as_str(), row)).collect();
    let mut names: BTreeMap<DiffId, BTreeSet<String>> = BTreeMap::new();
    for row in rows {
        for layer in &row.layers {
            names.entry(*layer).or_default();
        }
    }
    let mut named = BTreeSet::new();
    for row in rows {
        let Some(name) = name_in(&row.labels) else { continue };
        let mut next = Some(row);
        while let Some(row) = next.filter(|row| named.insert((row.id, name.clone()))) {
            for layer in &row.layers {
                names.entry(*layer).or_default().insert(name.clone());
            }
            next = by_name.get(row.parent.as_str()).copied();
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{SnapshotId, SnapshotKind, SnapshotUsage};

    #[test]
    fn a_name_is_that_of_all_layers_below() {
        let layer = |n: u8| DiffId::from_bytes([n; 32]);
        let row = |id: u8, parent: &str, image: Option<&str>| SnapshotRow {
            id: SnapshotId(i64::from(id)),
            name: id.to_string(),
            parent: parent.to_owned(),
            kind: SnapshotKind::Committed,
            created: 0,
            updated: 0,
            labels: image
                .map(|image| (labels::CRI_IMAGE.to_owned(), image.to_owned()))
                .into_iter()
                .collect(),
            layers: vec![layer(id)],
            usage: SnapshotUsage::default(),
        };
        let rows = [
            row(1, "", Some("docker.io/library/app:1")),
            row(2, "1", Some("docker.io/library/app:1")),
            row(3, "1", Some("quay.io/other:2")),
            row(4, "", None),
        ];
        let names = names(&rows);
        let of = |n: u8| names[&layer(n)].iter().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(of(1), ["app:1", "quay.io/other:2"]);
        assert_eq!((of(2), of(3)), (vec!["app:1"], vec!["quay.io/other:2"]));
        assert!(of(4).is_empty());
    }
}
