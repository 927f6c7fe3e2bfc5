//! All registries, as one run of the program sees them.
//!
//! Invariant: no registry is contacted before a caller asks for something of it.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use ureq::http::Method;

use crate::address::Url;
use crate::client::{Access, Client, Endpoint};
use crate::credential::Credential;
use crate::credentials::Credentials;
use crate::error::{EndpointError, RegistryError, Result};
use crate::health::Health;
use crate::http::{Call, Http, Proxies, RequestBody, Timeouts};
use crate::pace::Pace;
use crate::places::Places;
use crate::reference::Reference;
use crate::retry::Retry;
use crate::settings::RegistrySettings;

/// Everything that decides how registries are spoken to.
#[derive(Default)]
pub struct RegistryOptions {
    /// Mirrors, rewritten names, insecure registries.
    pub settings: RegistrySettings,
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
    /// How many requests a second one host gets at most; `None` for no bound.
    pub rate: Option<NonZeroU32>,
    /// Treat every registry as insecure.
    pub no_tls_verify: bool,
    /// The store's root, where endpoints that did not answer are remembered; `None` forgets.
    pub state: Option<PathBuf>,
}

/// All registries, as this run sees them.
pub struct Registries {
    http: Arc<Http>,
    settings: RegistrySettings,
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
            http: Arc::new(Http::new(
                options.timeouts,
                options.proxies,
                &options.roots,
                Pace::new(options.rate),
            )),
            settings: options.settings,
            credentials: options.credentials,
            retry: options.retry,
            no_tls_verify: options.no_tls_verify,
            health: Arc::new(health),
        }
    }

    /// What is configured.
    pub fn settings(&self) -> &RegistrySettings {
        &self.settings
    }

    /// Until when a host is passed over because it did not answer, in seconds since 1970.
    pub fn down_until(&self, host: &str) -> Option<u64> {
        self.health.down_until(host)
    }

    /// Tries a credential; it is not kept.
    ///
    /// # Errors
    /// `Refused`; `Denied` in it means that the registry does not take it, `Blocked` that it is not
    /// to be asked.
    pub fn check_login(&self, host: &str, credential: Option<Credential>) -> Result<()> {
        let what = format!("login to {host}");
        let endpoint = self.adjusted(self.settings.whole(host, host, &what)?);
        let http = Arc::clone(&self.http);
        let client = Client::new(http, endpoint, credential, Access::Pull, self.retry);
        client.ping().map_err(|why| Box::new(RegistryError::one(what, host, why)).into())
    }

    /// The credential that would be used for a registry.
    ///
    /// # Errors
    /// `Config`.
    pub fn credential(&self, host: &str) -> Result<Option<Credential>> {
        self.credentials.find(host, "")
    }

    /// A small document at any address, of at most `most` bytes; `None` if it is not there. No
    /// credentials are sent.
    ///
    /// # Errors
    /// `Refused`.
    pub fn document_at(&self, address: &str, most: u64) -> Result<Option<Vec<u8>>> {
        let refused = |why| Box::new(RegistryError::one(address, address, why));
        let url = Url::parse(address)
            .ok_or_else(|| refused(EndpointError::Unreachable("it is no address".to_owned())))?;
        let ask = || {
            let mut tries = 0;
            loop {
                tries += 1;
                let call = Call {
                    method: Method::GET,
                    url: url.clone(),
                    headers: Vec::new(),
                    body: RequestBody::Empty,
                    authorization: None,
                    verify: !self.no_tls_verify,
                };
                match self.http.send(&call) {
                    Ok(answer) if answer.status == 200 => return answer.bytes(most).map(Some),
                    Ok(answer) if matches!(answer.status, 404 | 410) => return Ok(None),
                    Ok(answer) if answer.status < 500 || tries >= self.retry.tries => {
                        return Err(answer.refusal());
                    }
                    Err(why) if !why.may_pass() || tries >= self.retry.tries_after(&why) => {
                        return Err(why);
                    }
                    Ok(_) | Err(_) => std::thread::sleep(self.retry.pause_after(tries, None)),
                }
            }
        };
        Ok(ask().map_err(refused)?)
    }

    fn adjusted(&self, mut endpoint: Endpoint) -> Endpoint {
        endpoint.insecure |= self.no_tls_verify;
        endpoint
    }

    /// What speaks to a registry at an endpoint, as whom the configuration says.
    ///
    /// # Errors
    /// `Config`.
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

    /// Who is asked for an image: mirrors and the registry itself.
    ///
    /// # Errors
    /// `Refused` if the name is blocked, `Config`.
    pub fn places(&self, reference: &Reference) -> Result<Places> {
        let endpoints = self.settings.pull_from(reference)?.into_iter();
        let clients = endpoints.map(|endpoint| self.client(endpoint, Access::Pull));
        Ok(Places::new(clients.collect::<Result<_>>()?, Arc::clone(&self.health)))
    }

    /// The registry itself, without its mirrors.
    ///
    /// # Errors
    /// As [`Registries::places`].
    pub fn only_origin(&self, reference: &Reference) -> Result<Places> {
        Ok(Places::new(vec![self.to_ask(reference)?], Arc::clone(&self.health)))
    }

    /// The registry where an image of that name belongs, to put it there.
    ///
    /// # Errors
    /// As [`Registries::places`].
    pub fn to_push(&self, reference: &Reference) -> Result<Client> {
        self.client(self.settings.push_to(reference)?, Access::Push)
    }

    /// The same, to ask.
    pub(crate) fn to_ask(&self, reference: &Reference) -> Result<Client> {
        self.client(self.settings.push_to(reference)?, Access::Pull)
    }

    /// A client for a registry as a whole, at `address`; `host` is what names and credentials call
    /// it.
    ///
    /// # Errors
    /// `Refused` if it is blocked, `Config`.
    pub(crate) fn whole(&self, address: &str, host: &str) -> Result<Client> {
        let endpoint = self.adjusted(self.settings.whole(address, host, host)?);
        let credential = self.credentials.find(host, "")?;
        Ok(Client::new(Arc::clone(&self.http), endpoint, credential, Access::Pull, self.retry))
    }
}
