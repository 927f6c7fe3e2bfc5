//! Registries: the names of images there, and the protocol to fetch and push them.
//!
//! ```text
//! Reference --settings--> endpoints (mirrors, origin) --> Places: who is asked, in which order
//!                                                           |
//! credentials, auth: who we are ----------------------> Client: one repository at one endpoint
//! health: who did not answer lately                         |
//!                                                         http: one exchange, redirects
//! ```
//! [`Registries`] holds what a run knows; it gives [`Places`] to fetch from and a [`Client`] to
//! push to, searches, and lists tags. What manifests and configs say is not read here.
//!
//! Invariants: a registry is untrusted: documents are capped before they are read, and what is
//! asked for by digest has that digest; credentials leave for the registry that they are for
//! alone; the environment is never read, [`RegistryOptions`] says everything.

mod address;
mod auth;
mod client;
mod credential;
mod credentials;
mod error;
mod forms;
mod health;
mod helper;
mod hosts;
mod http;
mod least_pace;
mod lookup;
mod null;
mod pace;
mod pages;
mod places;
mod prefix;
mod reference;
mod registries;
mod retry;
mod search;
mod settings;
mod upload;

pub use client::{Client, FetchedManifest, Head, ManifestName};
pub use credential::Credential;
pub use credentials::{Credentials, KeptLogin};
pub use error::{Attempt, EndpointError, Error, RegistryError, Result};
pub use hosts::is_loopback;
pub use http::{Proxies, Timeouts};
pub use null::or_default;
pub use places::{BlobReader, Places};
pub use reference::{Domain, Reference, ReferenceError, ReferenceRule, Repository, Tag};
pub use registries::{Registries, RegistryOptions};
pub use retry::Retry;
pub use search::Hit;
pub use settings::{MirrorInfo, RegistrySettings};
pub use upload::{Begun, Mount, Outgoing};
