//! A conformance suite for union mounts: read-only lowers, and an upper that takes the changes.
//!
//! [`rules`] are named: lowers, operations, and what the mount then has to show. [`random`] draws
//! operations from a seed and does them twice, on the mount and in a plain directory with the same
//! content, which is the reference: whatever differs is a difference of the union. [`shrink`] takes
//! operations and files away as long as it differs, and [`script`] prints the rest for a shell.
//!
//! A sequence ends with the checks that every union has to pass: the mount shows the same tree
//! after a remount (or, where a daemon serves it, after SIGKILL and a new mount), no lower has
//! changed, and where the upper is in the kernel's format, the kernel shows the same tree as well.
//!
//! Invariants: the rules are data, in `rules/`; a union is only known by its commands
//! ([`mounts`]); a seed gives the same operations on every machine.

pub mod cli;
pub mod ground;
pub mod mounts;
pub mod operation;
pub mod play;
pub mod random;
pub mod rules;
pub mod script;
pub mod search;
pub mod shrink;
