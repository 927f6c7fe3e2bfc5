//! A stored layer answers as every other [`Lower`] does: the suite of `strata_tree`, through a
//! tar and a store.
//!
//! [`Lower`]: strata_tree::Lower

use std::sync::Arc;

use strata_content::FileTree;
use strata_content::conformance::check;
use strata_layer::LeasedLayer;
use strata_tree::conformance::{layer_specs, merged_specs};

use crate::common::{TempStore, unpack};
use crate::spec_tar::tar_of;

#[test]
fn a_stored_layer_conforms() {
    let specs = merged_specs().into_iter().chain(layer_specs());
    let mut checked = 0;
    // A tar cannot say what a socket is.
    for (name, spec) in specs.filter(|(name, _)| *name != "sockets") {
        let place = TempStore::in_memory();
        let store = place.open();
        let unpacked = unpack(&store, &tar_of(&spec)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let tree = Arc::new(store.lower(&unpacked.layer).unwrap());
        let layers = std::slice::from_ref(&unpacked.layer);
        let files = LeasedLayer::files(layers).unwrap();
        let verified = store.verified_files(layers).unwrap();
        let names = Arc::clone(&tree);
        for tree in [FileTree::new(tree, Arc::new(files)), FileTree::new(names, Arc::new(verified))]
        {
            check(&spec, &tree).unwrap_or_else(|difference| panic!("{name}: {difference}"));
        }
        checked += 1;
    }
    assert_eq!(checked, 5);
}
