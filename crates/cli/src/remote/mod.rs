//! The commands that speak to registries.
//!
//! ```text
//! config    what options, environment and files say about registries and credentials
//! transfer  the lines and bars of docker, for whatever comes or goes
//! ```
//!
//! Invariant: the environment is read in `config` alone; everything else is passed in.

mod config;
mod copy;
mod info;
mod login;
mod manifest;
mod pull;
mod push;
mod search;
mod serve;
mod transfer;
mod verify;
mod version;

pub(crate) use config::{RegistryArgs, program};
pub(crate) use copy::{CopyArgs, run as copy};
pub(crate) use info::{InfoArgs, run as info};
pub(crate) use login::{LoginArgs, LogoutArgs, login, logout};
pub(crate) use manifest::{ManifestArgs, run as manifest};
pub(crate) use pull::{LazyArgs, PullArgs, document_limits, run as pull};
pub(crate) use push::{PushArgs, run as push};
pub(crate) use search::{SearchArgs, run as search};
pub(crate) use serve::{ServeArgs, run as serve};
pub(crate) use transfer::{Stream, Transfer};
pub(crate) use verify::{VerifyArgs, run as verify};
pub(crate) use version::{VersionArgs, run as version};
