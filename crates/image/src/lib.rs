//! Images: their names, their documents, and how they come into a store.
//!
//! ```text
//! SourceSpec --> ImageSource (directory | archive) --> FoundImage --> layers --> Store
//!    spec.rs     source.rs archive.rs spool.rs         find.rs        load.rs
//!                                                      oci.rs docker.rs
//! ```
//! [`load`] reads docker archives (`docker save` before and since 25, `podman save`, skopeo), OCI
//! archives and OCI layout directories; [`save()`] writes archives; [`import`] makes an image of a
//! plain tar, [`derive()`] one of another image and one layer more; [`pull()`], [`push()`] and
//! [`copy()`] speak to registries through `strata-registry`, and [`serve()`] is one;
//! [`resolve_image`] finds an image again by what a person types; an [`ImageConfig`] tells what an
//! image is made of.
//!
//! Invariants: all of a source is untrusted: sizes are capped before reading, digests checked
//! before use in a path, every document and layer verified before the image is committed. This
//! crate writes nothing itself; the store does.

mod archive;
mod beside;
mod change;
mod checked_store;
mod config;
mod copy;
mod derive;
mod digest;
mod docker;
mod error;
mod facts;
mod find;
mod found;
mod history;
mod import;
pub mod json;
mod limits;
mod load;
mod location;
mod manifest;
mod media;
mod new_image;
mod oci;
mod pack;
mod permits;
mod platform;
mod pull;
mod push;
mod resolve;
mod save;
mod serve;
mod source;
mod spec;
mod spool;
mod unloaded;

pub use beside::{TrustQuestion, check_trust, check_trust_of_all};
pub use change::{ChangeError, ConfigChange};
pub use checked_store::{ChainCheck, CheckedStore};
pub use config::{HistoryStep, ImageConfig};
pub use copy::{ArchiveWriter, CopiedImage, CopyOptions, Listeners, Target, copy};
pub use derive::{DeriveOptions, derive};
pub use error::{BoxError, Error, Result};
pub use facts::{ImageFacts, LayerFacts};
pub use history::{LayerStep, LayerSteps};
pub use import::{ImportOptions, import};
pub use limits::SourceLimits;
pub use load::{LoadOptions, Loaded, LoadedLayer, load};
pub use location::{ImageFormat, Location, LocationError};
pub use media::MediaKind;
pub use pack::{LayerPacking, PackedDiff, pack_diff, pack_layer};
pub use platform::{Platform, Rank};
pub use pull::{FetchedDocument, KnownDocuments, PullOptions, Pulled, fetch_document, pull};
pub use push::{PushEvent, PushListener, PushOptions, Pushed, push};
pub use resolve::resolve_image;
pub use save::{Saved, save};
pub use serve::{ServeEvent, serve};
pub use spec::SourceSpec;
pub use spool::Scratch;
pub use unloaded::{OpenSource, UnloadedImage, UnverifiedLayer};
