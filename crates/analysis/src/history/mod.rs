//! What happened to a path, what differs between two images, what is held for nothing.
//!
//! ```text
//! Chain ──replay──> events ──┬─ life        one path, layer by layer
//!  layers of an image        ├─ waste       files that a later layer takes away
//!                            └─ duplicates  contents under several names
//! compare(Side, Side)        two merged trees and the layers that they have not in common
//! occurrences                where else a content is
//! ```
//!
//! Invariants: nothing here writes; the cost of an answer grows with the entries of the images in
//! question, or is that of an indexed query; only [`duplicates()`] reads one whole index, once.

mod chain;
mod compare;
mod duplicates;
mod facts;
mod life;
mod replay;
mod waste;

pub use chain::{Chain, LayerNode, NodeFacts, Shown};
pub use compare::{Difference, Side, compare, content_of};
pub use duplicates::{Duplicate, Duplicates, Occurrences, duplicates, occurrences};
pub use facts::ChangedFacts;
pub use life::{Detour, Happened, Life, LifeEvent, Tally};
pub use replay::{HiddenBy, Merged, NameChange, NameEvent};
pub use waste::{Gone, Kept, Waste, WastedFile};
