//! Lists that come in pages, each of which names the next one (distribution specification, "Listing
//! Tags", "Listing Referrers").
//!
//! Invariants: a page is asked for at the registry itself, whatever host a link names; pages that
//! go round in a circle, and more than [`PAGES`], are an error.

use std::collections::HashSet;

use crate::address::Url;
use crate::error::EndpointError;
use crate::http::HttpResponse;

type Result<T> = std::result::Result<T, EndpointError>;

/// Pages of one listing.
const PAGES: usize = 1000;

/// Asks for page after page, until `take`, which reads them, has enough.
///
/// # Errors
/// Those of `get` and `take`; `Failed` for a link that leads nowhere, and for too many pages.
pub(crate) fn each_page(
    first: &str,
    get: impl Fn(&str) -> Result<HttpResponse>,
    mut take: impl FnMut(HttpResponse) -> Result<bool>,
) -> Result<()> {
    let mut path = first.to_owned();
    let mut seen = HashSet::from([path.clone()]);
    for _ in 0..PAGES {
        let answer = get(&path)?;
        let links = answer.headers.get_all("link");
        let link = links.iter().filter_map(|link| link.to_str().ok()).find_map(next_of);
        let next = link.map(|link| page_at(&answer.url, link));
        let more = take(answer)?;
        match next.filter(|_| more).transpose()? {
            Some(next) if !seen.insert(next.clone()) => {
                let why = "a page of its list names a page before it as the next one";
                return Err(EndpointError::Failed(why.to_owned()));
            }
            Some(next) => path = next,
            None => return Ok(()),
        }
    }
    Err(EndpointError::Failed(format!("its list has more than {PAGES} pages")))
}

/// The address that a `Link` header names as the next page (RFC 8288): one of several links, with
/// `rel` in quotes or not, of one relation or several.
fn next_of(header: &str) -> Option<&str> {
    let mut rest = header;
    while let Some((_, after)) = rest.split_once('<') {
        let (address, params) = after.split_once('>')?;
        // A comma in an address is within its brackets.
        let end = params.find('<').unwrap_or(params.len());
        let is_next = params[..end].split(';').any(|param| {
            let Some((name, value)) = param.split_once('=') else { return false };
            let value = value.trim().trim_end_matches(',').trim().trim_matches('"');
            let mut relations = value.split_ascii_whitespace();
            name.trim().eq_ignore_ascii_case("rel")
                && relations.any(|relation| relation.eq_ignore_ascii_case("next"))
        });
        if is_next {
            return Some(address);
        }
        rest = &params[end..];
    }
    None
}

/// The path of the next page at the registry itself.
fn page_at(here: &Url, link: &str) -> Result<String> {
    let bad =
        || EndpointError::Failed("its list goes on at an address that is not followed".to_owned());
    let next = here.join(link).ok_or_else(bad)?;
    if next.same_origin(here) {
        let query = next.query().map(|query| format!("?{query}")).unwrap_or_default();
        return Ok(format!("{}{query}", next.path()));
    }
    // Another host, or another path in front of the API's: only the query says where to go on.
    next.query().map(|query| format!("{}?{query}", here.path())).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_the_next_page_at_the_registry_itself() {
        let here = Url::parse("http://r.io:5000/v2/a/tags/list?n=10").unwrap();
        let own = Some("/v2/a/tags/list?last=x,y&n=10".to_owned());
        for (header, expected) in [
            ("</v2/a/tags/list?last=x,y&n=10>; rel=\"next\"", own.clone()),
            ("<list?last=x,y&n=10>;rel=next", own.clone()),
            ("<?last=x,y&n=10> ; title=\"a\"; REL=\"last Next\"", own.clone()),
            ("<http://r.io:5000/v2/a/tags/list?last=x,y&n=10>; rel=\"next\"", own.clone()),
            ("<https://r.io:5000/v2/a/tags/list?last=x,y&n=10>; rel=next", own.clone()),
            ("<//in.local/hub/v2/a/tags/list?last=x,y&n=10>; rel=next", own.clone()),
            ("</v2/f>; rel=\"first\", </v2/a/tags/list?last=x,y&n=10>; rel=next", own.clone()),
            ("</v2/a/tags/list?last=x,y&n=10>; rel=next, </v2/l>; rel=last", own),
            ("</v2/f>; rel=\"prev\"", None),
            ("</v2/f>; rel=\"nextish\"", None),
            ("nonsense", None),
        ] {
            let found = next_of(header).map(|link| page_at(&here, link).unwrap());
            assert_eq!(found, expected, "{header}");
        }
        assert!(page_at(&here, "ftp://r.io/x?last=1").is_err());
        assert!(page_at(&here, "http://other.io/x").is_err());
    }
}
