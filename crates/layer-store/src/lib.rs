//! The store's layers as an *additional layer store* of podman, buildah and CRI-O.
//!
//! containers-storage looks for each layer of an image that it pulls below a directory of its
//! configuration (`additionallayerstores`), and uses what it finds there as a lower directory of
//! overlayfs, in place of fetching and unpacking the layer. [`LayerStore`] is such a directory, a
//! FUSE mount:
//!
//! ```text
//! podman pull REF ──look up──> <base64 of REF>/<digest>/{diff,info,blob}    served, tree
//!                                    │ which layer is it, in which chain?   catalogue
//!                                    │ in the form of a lower directory     form, place
//!        takes it ──make use──>      │ written down in the store            held
//!        removes it ──rmdir──>       v
//!                             layers/<diff id>/ of the store
//! ```
//!
//! Invariants: nothing of a layer is copied; what an engine has taken is not removed from the
//! store, whether this runs or not, until the engine has given it back.

mod catalogue;
mod contents;
mod error;
mod form;
mod held;
mod mount;
mod place;
mod served;
#[cfg(test)]
mod tests;
mod tree;

pub use error::{Error, Result};
pub use held::HeldLayer;
pub use mount::{FetchTerms, LayerStore, LayerStoreSettings};
