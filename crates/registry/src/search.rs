//! Which repositories a registry has.
//!
//! ```text
//! Docker Hub, and registries that know it   GET /v1/search?q=TERM&n=LIMIT
//! others                                    GET /v2/_catalog, page by page, filtered here
//! one repository                            GET /v2/NAME/tags/list, page by page
//! ```
//!
//! Invariants: pages are capped in size and number, and followed on the registry itself alone,
//! whatever host a link names (a registry behind a proxy does not know its own name); what is kept
//! of all pages is capped, too; a listing is whole, or cut where the caller has enough, or an
//! error; texts lose their control characters before anybody shows them.

use std::collections::HashSet;
use std::hash::Hash;

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
/// Bytes that the names of one listing may take: some 800,000 of them, where the largest
/// repositories have some 100,000 tags.
const LISTING_BYTES: usize = 128 << 20;
/// What keeping a name takes besides its text.
const NAME_BYTES: usize = 128;

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
                let (mut hits, mut room) = (Vec::new(), NameRoom::default());
                let listed = client.pages("/v2/_catalog?n=1000", |page| {
                    let names = page.repositories.into_iter().filter(|name| name.contains(term));
                    for name in names.take(limit - hits.len()) {
                        room.take(&name)?;
                        hits.push(Hit::named(name));
                    }
                    Ok(hits.len() < limit)
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

    /// All repositories of a registry whose names are `prefix` or are below it, each once; all
    /// without a prefix.
    ///
    /// # Errors
    /// `Refused`, as by registries without a catalogue or with one that is too long, and those of
    /// reading credentials.
    pub fn repositories(&self, host: &str, prefix: Option<&str>) -> Result<Vec<Reference>> {
        let client = self.whole(host, host)?;
        let prefix = prefix.map(|text| text.trim_matches('/')).unwrap_or_default();
        let below = |name: &str| {
            let rest = name.strip_prefix(prefix);
            rest.is_some_and(|rest| prefix.is_empty() || rest.is_empty() || rest.starts_with('/'))
        };
        let (mut found, mut room) = (Vec::new(), NameRoom::default());
        let listed = client.pages("/v2/_catalog?n=1000", |page| {
            for name in page.repositories.iter().filter(|name| below(name)) {
                room.take(name)?;
                match format!("{host}/{name}").parse() {
                    Ok(reference) => found.push(reference),
                    Err(why) => tracing::warn!("{name:?} is passed over: {why}"),
                }
            }
            Ok(true)
        });
        listed.map_err(|why| {
            let what = format!("the catalogue of {host}");
            Box::new(RegistryError::one(what, client.label(), why))
        })?;
        Ok(each_once(found))
    }

    /// All tags of a repository, each once, at the registry itself.
    ///
    /// # Errors
    /// `Refused`, and those of reading credentials.
    pub fn tags(&self, reference: &Reference) -> Result<Vec<Tag>> {
        let client = self.to_ask(reference)?;
        let (mut tags, mut room) = (Vec::new(), NameRoom::default());
        let path = format!("/v2/{}/tags/list?n=1000", client.endpoint.repository);
        let listed = client.pages(&path, |page| {
            for text in &page.tags {
                room.take(text)?;
                match Tag::parse(text) {
                    Ok(tag) => tags.push(tag),
                    // It cannot be asked for, so it is said.
                    Err(_) => tracing::warn!("{:?} is no tag, and is passed over", text),
                }
            }
            Ok(true)
        });
        listed.map_err(|why| {
            let what = format!("the tags of {}", reference.familiar_name());
            Box::new(RegistryError::one(what, client.label(), why))
        })?;
        Ok(each_once(tags))
    }
}

impl Hit {
    fn named(name: String) -> Self {
        Self { name, description: String::new(), stars: 0, official: false, automated: false }
    }
}

/// What the names of one listing may still take.
struct NameRoom(usize);

impl Default for NameRoom {
    fn default() -> Self {
        Self(LISTING_BYTES)
    }
}

impl NameRoom {
    /// Another name is kept.
    fn take(&mut self, name: &str) -> Told<()> {
        let left = self.0.checked_sub(NAME_BYTES.saturating_add(name.len()));
        self.0 = left.ok_or_else(|| {
            let most = LISTING_BYTES >> 20;
            EndpointError::Failed(format!(
                "its list has more names than fit into {most} MiB; name what you want of it"
            ))
        })?;
        Ok(())
    }
}

/// The same in the same order, what is repeated once.
fn each_once<T: Eq + Hash>(mut all: Vec<T>) -> Vec<T> {
    let mut seen = HashSet::new();
    let is_first: Vec<bool> = all.iter().map(|one| seen.insert(one)).collect();
    let mut is_first = is_first.into_iter();
    all.retain(|_| is_first.next().unwrap_or_default());
    all
}

type Told<T> = std::result::Result<T, EndpointError>;

impl Client {
    /// Reads page after page until `take` has enough.
    fn pages(&self, first: &str, mut take: impl FnMut(Page) -> Told<bool>) -> Told<()> {
        each_page(
            first,
            |path| self.get(path, None),
            |answer| {
                if answer.status != 200 {
                    return Err(answer.refusal());
                }
                let page = serde_json::from_slice(&answer.bytes(PAGE_BYTES)?)
                    .map_err(|_| EndpointError::Failed("its answer is no list".to_owned()))?;
                take(page)
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::registries::RegistryOptions;

    /// A registry that answers everything with this.
    fn registry(body: String) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = BufReader::new(stream.try_clone().unwrap()).lines();
                while head.next().is_some_and(|line| !line.unwrap().is_empty()) {}
                let length = body.len();
                let head = "HTTP/1.1 200 OK\r\nconnection: close";
                let answer = format!("{head}\r\ncontent-length: {length}\r\n\r\n{body}");
                // A client may leave before it has read all.
                stream.write_all(answer.as_bytes()).unwrap_or_default();
            }
        });
        host
    }

    #[test]
    fn what_a_listing_repeats_is_in_it_once() {
        let host = registry(r#"{"repositories":["b","a","b"],"tags":["2","1","2"]}"#.to_owned());
        let registries = Registries::new(RegistryOptions::default());
        let tags = registries.tags(&format!("{host}/a").parse().unwrap()).unwrap();
        assert_eq!(tags, [Tag::parse("2").unwrap(), Tag::parse("1").unwrap()]);
        let found = registries.repositories(&host, None).unwrap();
        let found: Vec<_> = found.iter().map(|one| one.repository().as_str()).collect();
        assert_eq!(found, ["b", "a"]);
    }

    #[test]
    fn a_listing_takes_no_more_memory_than_it_may() {
        let names = r#""a","#.repeat(LISTING_BYTES / NAME_BYTES);
        let host = registry(format!(r#"{{"tags":[{names}"a"]}}"#));
        let registries = Registries::new(RegistryOptions::default());
        let error = registries.tags(&format!("{host}/a").parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("more names than fit into 128 MiB"), "{error}");
        // Many more than real registries have.
        let mut room = NameRoom::default();
        assert!((0..500_000).all(|_| room.take(&"x".repeat(100)).is_ok()));
    }
}
