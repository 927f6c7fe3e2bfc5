//! The commands that speak to registries.
//!
//! ```text
//! config    what options, environment and files say about registries and credentials
//! transfer  the lines and bars of docker, for whatever comes or goes
//! ```
//!
//! Invariant: the environment is read in `config` alone; everything else is told.

mod config;
mod pull;
mod transfer;

pub(crate) use pull::{PullArgs, run as pull};
