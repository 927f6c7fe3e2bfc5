//! Which repositories a registry has.
//!
//! ```text
//! Docker Hub, and registries that know it   GET /v1/search?q=TERM&n=LIMIT
//! others                                    GET /v2/_catalog, page by page, filtered here
//! one repository                            GET /v2/NAME/tags/list, page by page
//! ```
//!
//! Invariants: pages are capped in size and number, and followed on the registry itself alone;
//! texts lose their control characters before anybody shows them.

use serde::Deserialize;

use super::client::{Access, Client};
use super::error::{Refusal, RegistryError};
use super::{Credential, Registries};
use crate::error::Result;
use crate::reference::{Reference, Tag};

const HUB: &str = "docker.io";
/// Where Docker Hub answers searches.
const HUB_SEARCH: &str = "index.docker.io";
/// Bytes of one page.
const PAGE_BYTES: u64 = 8 << 20;
/// Pages of one listing.
const PAGES: usize = 1000;

/// A repository that was found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Hit {
    /// Its name, as it is pulled from that registry.
    pub name: String,
    /// What it is said to be.
    #[serde(default, deserialize_with = "crate::config::or_default")]
    pub description: String,
    /// How many like it.
    #[serde(default, rename = "star_count")]
    pub stars: u64,
    /// The registry vouches for it.
    #[serde(default, rename = "is_official")]
    pub official: bool,
    /// It is built by the registry.
    #[serde(default, rename = "is_automated")]
    pub automated: bool,
}

#[derive(Deserialize)]
struct Found {
    #[serde(default, deserialize_with = "crate::config::or_default")]
    results: Vec<Hit>,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default, deserialize_with = "crate::config::or_default")]
    repositories: Vec<String>,
    #[serde(default, deserialize_with = "crate::config::or_default")]
    tags: Vec<String>,
}

impl Registries {
    /// Repositories of a registry whose names or descriptions have `term` in them, at most
    /// `limit`.
    ///
    /// # Errors
    /// `Registry`, and those of reading credentials.
    pub fn search(&self, host: &str, term: &str, limit: usize) -> Result<Vec<Hit>> {
        let what = format!("search for {term:?} in {host}");
        let client = self.registry(if host == HUB { HUB_SEARCH } else { host }, host)?;
        let refused = |why| RegistryError::one(what.as_str(), client.label(), why);
        let path = format!("/v1/search?q={}&n={limit}", super::url::escape(term));
        let found = client.get(&path).and_then(|answer| match answer.status {
            200 => answer.bytes(PAGE_BYTES),
            _ => Err(answer.refusal()),
        });
        let found = found.and_then(|bytes| {
            let found = serde_json::from_slice::<Found>(&bytes);
            found.map_err(|_| Refusal::Failed("its answer is not that of a search".to_owned()))
        });
        let mut hits = match found {
            Ok(found) => found.results,
            // Most registries know no search; then their catalogue tells.
            Err(Refusal::NotFound(_) | Refusal::Failed(_)) if host != HUB => {
                let mut hits = Vec::new();
                let listed = client.pages("/v2/_catalog?n=1000", |page| {
                    let names = page.repositories.into_iter().filter(|name| name.contains(term));
                    hits.extend(names.map(Hit::named));
                    hits.len() < limit
                });
                listed.map_err(|why| Box::new(refused(why)))?;
                hits
            }
            Err(why) => return Err(Box::new(refused(why)).into()),
        };
        hits.truncate(limit);
        for hit in &mut hits {
            for text in [&mut hit.name, &mut hit.description] {
                text.retain(|c| !c.is_control());
            }
        }
        Ok(hits)
    }

    /// All tags of a repository, at the registry itself.
    ///
    /// # Errors
    /// `Registry`, and those of reading credentials.
    pub fn tags(&self, reference: &Reference) -> Result<Vec<Tag>> {
        let client = self.client(self.settings.push_to(reference)?, Access::Pull)?;
        let mut tags = Vec::new();
        let path = format!("/v2/{}/tags/list?n=1000", client.endpoint.repository);
        let listed = client.pages(&path, |page| {
            // What is no tag cannot be asked for.
            tags.extend(page.tags.iter().filter_map(|text| Tag::parse(text).ok()));
            true
        });
        listed.map_err(|why| {
            let what = format!("the tags of {}", reference.familiar_name());
            Box::new(RegistryError::one(what, client.label(), why))
        })?;
        Ok(tags)
    }

    /// A client for a registry as a whole, at `address`.
    fn registry(&self, address: &str, host: &str) -> Result<Client> {
        let endpoint = self.adjusted(self.settings.host(address));
        let credential: Option<Credential> = self.credentials.find(host, "")?;
        let http = std::sync::Arc::clone(&self.http);
        Ok(Client::new(http, endpoint, credential, Access::Pull, self.retry))
    }
}

impl Hit {
    fn named(name: String) -> Self {
        Self { name, description: String::new(), stars: 0, official: false, automated: false }
    }
}

type Told = std::result::Result<(), Refusal>;

impl Client {
    /// Reads page after page until `take` has enough.
    fn pages(&self, first: &str, mut take: impl FnMut(Page) -> bool) -> Told {
        let mut path = first.to_owned();
        for _ in 0..PAGES {
            let answer = self.get(&path)?;
            if answer.status != 200 {
                return Err(answer.refusal());
            }
            // RFC 8288: `<ADDRESS>; rel="next"`.
            let link = answer.header("link").and_then(|link| {
                let (address, rest) = link.strip_prefix('<')?.split_once('>')?;
                rest.contains("next").then(|| answer.url.join(address))?
            });
            let next = link.filter(|next| next.same_origin(&answer.url)).map(|next| next.path);
            let bytes = answer.bytes(PAGE_BYTES)?;
            let page = serde_json::from_slice(&bytes)
                .map_err(|_| Refusal::Failed("its answer is no list".to_owned()))?;
            let more = take(page);
            match next.filter(|next| more && *next != path) {
                Some(next) => path = next,
                None => return Ok(()),
            }
        }
        Ok(())
    }
}
