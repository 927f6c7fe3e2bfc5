//! Text that people and registries write: names of images, options of mounts.

use strata_overlay::separate;
use strata_registry::Reference;

/// A name of an image: what is accepted is written so that it means the same.
pub(crate) fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(found) = text.parse::<Reference>() {
        for written in [found.to_string(), found.familiar()] {
            assert_eq!(written.parse().ok().as_ref(), Some(&found), "{written}");
        }
    }
}

/// The options of a mount: no byte appears from nowhere.
pub(crate) fn options(data: &[u8]) {
    let total: usize = separate(data).map(|option| option.len()).sum();
    assert!(total <= data.len());
}
