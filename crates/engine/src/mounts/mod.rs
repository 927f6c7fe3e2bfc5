//! Mounts: served by this process, recorded for all, listed, taken away.
//!
//! ```text
//! serving     one mount of this process     records     who serves what, on disk
//! list        how each mount is             umount      taking one away, also another process's
//! point       which directories will do     busy        who keeps one busy
//! kernel      one that the kernel serves
//! userns      names served, contents read by the kernel, in a user namespace
//! table       /proc/PID/mountinfo           namespaces  where else one is
//! ```
//!
//! Invariant: the kernel says whether a daemon lives (by a lock that ends with the process), never
//! a pid.

mod busy;
pub(crate) mod kernel;
pub(crate) mod list;
mod namespaces;
pub(crate) mod point;
pub(crate) mod records;
mod serving;
pub(crate) mod table;
pub(crate) mod umount;
pub(crate) mod userns;

pub use kernel::{KernelMount, NamesAhead};
pub use list::{MountInfo, MountStatus};
pub use point::{holds_names, shown};
pub use records::{MountRecord, MountRecords, MountRegistration};
pub use serving::{Ender, MountSettings, ServedMount};
pub(crate) use serving::{ServedFrom, WritableTop};
pub use umount::{UnmountHow, Unmounted};
