//! Which repositories a registry has.
//!
//! ```text
//! Docker Hub, and registries that know it   GET /v1/search?q=TERM&n=LIMIT
//! others                                    GET /v2/_catalog, page by page, filtered here
//! one repository                            GET /v2/NAME/tags/list, page by page
//! ```
//!
//! Invariants: pages are capped in size and number, and followed on the registry itself alone,
//! whatever host a link names (a registry behind a proxy does not know its own name); a listing
//! is whole, or cut where the caller has enough, or an error; texts lose their control characters
//! before anybody shows them.

use serde::Deserialize;

use crate::client::Client;
use crate::error::{EndpointError, RegistryError, Result};
use crate::pages::each_page;
use crate::reference::{Reference, Tag};
use crate::registries::Registries;

const HUB: &str = "docker.io";
/// Where Docker Hub answers searches.
const HUB_SEARCH: &str = "index.docker.io";
/// Bytes of one page.
const PAGE_BYTES: u64 = 8 << 20;

/// A repository that was found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Hit {
    /// Its name, as it is pulled from that registry.
    pub name: String,
    /// What it is said to be.
    #[serde(default, deserialize_with = "crate::null::or_default")]
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
    #[serde(default, deserialize_with = "crate::null::or_default")]
    results: Vec<Hit>,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default, deserialize_with = "crate::null::or_default")]
    repositories: Vec<String>,
    #[serde(default, deserialize_with = "crate::null::or_default")]
    tags: Vec<String>,
}

impl Registries {
    /// Repositories of a registry whose names or descriptions have `term` in them, at most
    /// `limit`.
    ///
    /// # Errors
    /// `Refused`, and those of reading credentials.
    pub fn search(&self, host: &str, term: &str, limit: usize) -> Result<Vec<Hit>> {
        let what = format!("search for {term:?} in {host}");
        let client = self.whole(if host == HUB { HUB_SEARCH } else { host }, host)?;
        let refused = |why| RegistryError::one(what.as_str(), client.label(), why);
        let path = format!("/v1/search?q={}&n={limit}", crate::address::escape(term));
        let found = client.get(&path, None).and_then(|answer| match answer.status {
            200 => answer.bytes(PAGE_BYTES),
            _ => Err(answer.refusal()),
        });
        let found = found.and_then(|bytes| {
            let found = serde_json::from_slice::<Found>(&bytes);
            found
                .map_err(|_| EndpointError::Failed("its answer is not that of a search".to_owned()))
        });
        let mut hits = match found {
            Ok(found) => found.results,
            // Most registries know no search; then their catalogue tells.
            Err(EndpointError::NotFound(_) | EndpointError::Failed(_)) if host != HUB => {
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

    /// All repositories of a registry whose names are `prefix` or are below it; all without one.
    ///
    /// # Errors
    /// `Refused`, as by registries without a catalogue, and those of reading credentials.
    pub fn repositories(&self, host: &str, prefix: Option<&str>) -> Result<Vec<Reference>> {
        let client = self.whole(host, host)?;
        let prefix = prefix.map(|text| text.trim_matches('/')).unwrap_or_default();
        let below = |name: &str| {
            let rest = name.strip_prefix(prefix);
            rest.is_some_and(|rest| prefix.is_empty() || rest.is_empty() || rest.starts_with('/'))
        };
        let mut found = Vec::new();
        let listed = client.pages("/v2/_catalog?n=1000", |page| {
            for name in page.repositories.iter().filter(|name| below(name)) {
                match format!("{host}/{name}").parse() {
                    Ok(reference) => found.push(reference),
                    Err(why) => tracing::warn!("{name:?} is passed over: {why}"),
                }
            }
            true
        });
        listed.map_err(|why| {
            let what = format!("the catalogue of {host}");
            Box::new(RegistryError::one(what, client.label(), why))
        })?;
        Ok(found)
    }

    /// All tags of a repository, at the registry itself.
    ///
    /// # Errors
    /// `Refused`, and those of reading credentials.
    pub fn tags(&self, reference: &Reference) -> Result<Vec<Tag>> {
        let client = self.to_ask(reference)?;
        let mut tags = Vec::new();
        let path = format!("/v2/{}/tags/list?n=1000", client.endpoint.repository);
        let listed = client.pages(&path, |page| {
            for text in &page.tags {
                match Tag::parse(text) {
                    Ok(tag) => tags.push(tag),
                    // It cannot be asked for, so it is said.
                    Err(_) => tracing::warn!("{:?} is no tag, and is passed over", text),
                }
            }
            true
        });
        listed.map_err(|why| {
            let what = format!("the tags of {}", reference.familiar_name());
            Box::new(RegistryError::one(what, client.label(), why))
        })?;
        Ok(tags)
    }
}

impl Hit {
    fn named(name: String) -> Self {
        Self { name, description: String::new(), stars: 0, official: false, automated: false }
    }
}

type Told = std::result::Result<(), EndpointError>;

impl Client {
    /// Reads page after page until `take` has enough.
    fn pages(&self, first: &str, mut take: impl FnMut(Page) -> bool) -> Told {
        each_page(
            first,
            |path| self.get(path, None),
            |answer| {
                if answer.status != 200 {
                    return Err(answer.refusal());
                }
                let page = serde_json::from_slice(&answer.bytes(PAGE_BYTES)?)
                    .map_err(|_| EndpointError::Failed("its answer is no list".to_owned()))?;
                Ok(take(page))
            },
        )
    }
}
