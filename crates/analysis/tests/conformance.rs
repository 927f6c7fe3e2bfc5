//! An image's tree answers as every other [`Lower`] does: the suite of `strata_tree`, through a
//! tar and a store.
//!
//! [`Lower`]: strata_tree::Lower

#![allow(unreachable_pub, clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

#[path = "../../layer/tests/store/spec_tar.rs"]
mod spec_tar;

use std::sync::Arc;

use spec_tar::tar_of;
use strata_analysis::image_tree::{ImageTree, TreeAt};
use strata_content::FileTree;
use strata_content::conformance::check;
use strata_layer::{Event, ImageRecord, LayerInput, Progress, Store, Unpacked};
use strata_tree::ImageId;
use strata_tree::conformance::merged_specs;

struct Silent;

impl Progress for Silent {
    fn event(&self, _: &str, _: Event) {}
    fn warning(&self, _: &str, _: &str) {}
}

fn unpack(store: &Store, tar: &[u8]) -> Unpacked {
    let reader = Box::new(tar);
    let input = LayerInput { label: "layer".into(), diff_id: None, blob: None, reader };
    store.unpack(input, &Silent).unwrap()
}

#[test]
fn an_image_of_one_layer_conforms() {
    let mut checked = 0;
    for (name, spec) in merged_specs().into_iter().filter(|(name, _)| *name != "sockets") {
        let place = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let store = Store::open(&place.path().join("store")).unwrap();
        let unpacked = unpack(&store, &tar_of(&spec));
        let layers = vec![*unpacked.layer.diff_id()];
        let image = ImageRecord { id: ImageId::from_bytes([7; 32]), manifest: None, layers };
        let mut read = Vec::new();
        let tree =
            ImageTree::read(&store, &image, &[unpacked.layer], &mut |count| read.push(count));
        let tree = Arc::new(tree.unwrap());
        let contents = tree.contents();
        let tree = FileTree::new(Arc::new(TreeAt::new(tree, 1)), contents);
        check(&spec, &tree).unwrap_or_else(|difference| panic!("{name}: {difference}"));
        assert_eq!(read, [1]);
        checked += 1;
    }
    assert_eq!(checked, 4);
}
