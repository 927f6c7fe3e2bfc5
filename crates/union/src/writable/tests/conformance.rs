//! What an upper changed is a tree like any other: the suite, through an upper.

use std::sync::Arc;

use strata_content::FileTree;
use strata_content::conformance::{check, in_memory};
use strata_testkit::needs;
use strata_tree::conformance::merged_specs;
use strata_tree::dialect::XattrClass;
use strata_tree::{Spec, lay_overlay};

use super::world::options;
use crate::writable::UpperView;

#[test]
fn what_an_upper_holds_over_an_empty_lower_conforms() {
    if !needs::root() {
        return;
    }
    let mut checked = 0;
    // An upper's own marks are no attributes of its files, and it makes no devices 0:0.
    for (name, spec) in merged_specs().into_iter().filter(|(name, _)| *name != "tour") {
        let dir = tempfile::tempdir().unwrap();
        lay_overlay(&spec, dir.path(), XattrClass::Trusted, false).unwrap();
        let lower = in_memory(&Spec::new()).unwrap();
        let changes = UpperView::open(lower, dir.path(), options()).unwrap().changes().unwrap();
        let contents = changes.contents();
        let tree = FileTree::new(Arc::new(changes), contents);
        check(&spec, &tree).unwrap_or_else(|difference| panic!("{name}: {difference}"));
        checked += 1;
    }
    assert_eq!(checked, 4);
}
