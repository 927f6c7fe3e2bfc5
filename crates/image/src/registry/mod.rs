//! Registries: pulling images into a store, pushing them out of it.
//!
//! ```text
//! Reference --settings--> Endpoints (mirrors, origin) --> Places
//!   pull:  top document --> platform manifest --> config --> missing layers --> Store::unpack
//!   push:  Store::write_diff --> gzip, zstd --> upload --> config --> manifest
//!
//! http       one exchange, redirects        client   one repository: tokens, retries
//! auth       challenges, tokens             places   who is asked, in which order; blobs
//! ```
//!
//! Invariants: a registry is untrusted: documents are capped before they are read, digests
//! checked before anything of them is used; bytes of layers stream into the unpacker and no blob
//! lies on disk on its way in; credentials leave for the registry that they are for alone; the
//! environment is never read, [`RegistryOptions`] says everything.

mod auth;
mod client;
mod credentials;
mod error;
mod health;
mod http;
mod pack;
mod places;
mod pull;
mod push;
mod put;
pub(crate) mod remote;
mod search;
mod serve;
mod settings;
mod upload;
mod url;

use std::path::PathBuf;
use std::sync::Arc;

pub use client::Retry;
pub use credentials::{Credential, Credentials, Kept};
pub use error::{Attempt, Refusal, RegistryError};
pub use http::{Proxies, Timeouts};
pub use pack::Packing;
pub(crate) use pack::pack_from;
pub use pull::{Document, PullOptions, Pulled, fetch_document, pull};
pub(crate) use push::repacked;
pub use push::{PushEvent, PushListener, PushOptions, Pushed, push};
pub use search::Hit;
pub use serve::{ServeEvent, serve};
pub use settings::{MirrorInfo, Settings};

use client::{Access, Client, Endpoint};
use health::Health;
use http::Http;
use places::Places;

use crate::error::Result;
use crate::reference::Reference;

/// Everything that decides how registries are spoken to.
#[derive(Default)]
pub struct RegistryOptions {
    /// Mirrors, rewritten names, insecure registries.
    pub settings: Settings,
    /// Who we are.
    pub credentials: Credentials,
    /// Proxies.
    pub proxies: Proxies,
    /// Trusted root certificates, in DER.
    pub roots: Vec<Vec<u8>>,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// How often to try.
    pub retry: Retry,
    /// Treat every registry as insecure.
    pub no_tls_verify: bool,
    /// The store's root, where endpoints that did not answer are remembered; `None` forgets.
    pub state: Option<PathBuf>,
}

/// All registries, as this run sees them.
pub struct Registries {
    http: Arc<Http>,
    settings: Settings,
    credentials: Credentials,
    retry: Retry,
    no_tls_verify: bool,
    health: Arc<Health>,
}

impl Registries {
    /// Nothing is asked yet.
    pub fn new(options: RegistryOptions) -> Self {
        let health = options.state.as_deref().map(Health::of_store).unwrap_or_default();
        Self {
            http: Arc::new(Http::new(options.timeouts, options.proxies, &options.roots)),
            settings: options.settings,
            credentials: options.credentials,
            retry: options.retry,
            no_tls_verify: options.no_tls_verify,
            health: Arc::new(health),
        }
    }

    /// What is configured.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Until when a host is passed over because it did not answer, in seconds since 1970.
    pub fn down_until(&self, host: &str) -> Option<u64> {
        self.health.down_until(host)
    }

    /// Tries a credential; it is not kept.
    ///
    /// # Errors
    /// `Registry`; `Denied` in it means that the registry does not take it.
    pub fn check_login(&self, host: &str, credential: Option<Credential>) -> Result<()> {
        let endpoint = self.adjusted(self.settings.host(host));
        let http = Arc::clone(&self.http);
        let client = Client::new(http, endpoint, credential, Access::Pull, self.retry);
        let what = format!("login to {host}");
        client.ping().map_err(|why| Box::new(RegistryError::one(what, host, why)).into())
    }

    /// The credential that would be used for a registry.
    ///
    /// # Errors
    /// `Helper`, `Document`.
    pub fn credential(&self, host: &str) -> Result<Option<Credential>> {
        self.credentials.find(host, "")
    }

    fn adjusted(&self, mut endpoint: Endpoint) -> Endpoint {
        endpoint.insecure |= self.no_tls_verify;
        endpoint
    }

    fn client(&self, endpoint: Endpoint, access: Access) -> Result<Client> {
        let endpoint = self.adjusted(endpoint);
        let credential = self.credentials.find(&endpoint.host, &endpoint.repository)?;
        let mut retry = self.retry;
        if !endpoint.is_origin {
            // There is somebody else to ask.
            retry.tries = retry.tries.min(2);
        }
        Ok(Client::new(Arc::clone(&self.http), endpoint, credential, access, retry))
    }

    pub(crate) fn places(&self, reference: &Reference) -> Result<Places> {
        let endpoints = self.settings.pull_from(reference)?.into_iter();
        let clients = endpoints.map(|endpoint| self.client(endpoint, Access::Pull));
        Ok(Places::new(clients.collect::<Result<_>>()?, Arc::clone(&self.health)))
    }

    /// The registry itself, without its mirrors.
    pub(crate) fn only_origin(&self, reference: &Reference) -> Result<Places> {
        let client = self.client(self.settings.push_to(reference)?, Access::Pull)?;
        Ok(Places::new(vec![client], Arc::clone(&self.health)))
    }
}
