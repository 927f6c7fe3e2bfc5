//! What real registries do that the specification does not: an image comes all the same.
//!
//! The model: one image behind a loopback registry with one habit at a time. Where a habit leaves
//! no way, the error says so; nothing that was asked for is left out without one.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

mod client;

use std::collections::HashMap;

use client::{Client, Warnings, offer, one, quick};
use serde_json::{Value, json};
use strata_image::{CheckedStore, CopyOptions, Error, Listeners, Location, Target, copy};
use strata_registry::{Registries, RegistryOptions};
use strata_testkit::digest;
use strata_testkit::layout::{INDEX, MANIFEST};
use strata_testkit::registry::{Answer, How, Registry, Seen};

/// A registry's answer to a manifest by tag, with one header changed or left out.
fn manifest_as(bytes: Vec<u8>, headers: &'static [(&'static str, &'static str)]) -> How {
    let answer = Answer::new(200).body(bytes);
    headers.iter().fold(answer, |answer, (name, value)| answer.header(name, *value)).how()
}

#[test]
fn a_manifest_is_known_by_what_it_is() {
    let cases: [&[(&str, &str)]; 10] = [
        &[],
        &[("content-type", "application/json")],
        &[("content-type", "text/plain; charset=utf-8")],
        &[("content-type", "binary/octet-stream")],
        &[("content-type", "text/html")],
        &[("content-type", "application/vnd.oci.image.manifest.v1+json; charset=utf-8")],
        &[("docker-content-digest", "")],
        &[("docker-content-digest", "sha512:00")],
        &[("docker-content-digest", "nonsense"), ("content-type", "")],
        &[("etag", "\"x\"")],
    ];
    for headers in cases {
        let (registry, name) = one();
        let bytes = registry.stored_manifest("team/x", "1").unwrap();
        registry.rule(move |seen| match seen.is("GET", "/manifests/1") {
            true => manifest_as(bytes.clone(), headers),
            false => How::Well,
        });
        Client::new().pull(&name).unwrap_or_else(|error| panic!("{headers:?}: {error}"));
    }
}

#[test]
fn what_was_packed_for_the_way_is_unpacked() {
    let packed = |bytes: &[u8]| {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut out, bytes).unwrap();
        Answer::new(200).header("content-encoding", "gzip").body(out.finish().unwrap()).how()
    };
    let (registry, name) = one();
    let bytes = registry.stored_manifest("team/x", "1").unwrap();
    let blobs = client::blobs(&registry, &bytes);
    registry.rule(move |seen| match seen.path.rsplit('/').next() {
        Some("1") if seen.is("GET", "/manifests/") => packed(&bytes),
        Some(digest) if seen.is("GET", "/blobs/") => packed(&blobs[digest]),
        _ => How::Well,
    });
    Client::new().pull(&name).unwrap();
    // Said of what is not packed any further.
    let (registry, name) = one();
    let bytes = registry.stored_manifest("team/x", "1").unwrap();
    let blobs = client::blobs(&registry, &bytes);
    registry.rule(move |seen| match seen.path.rsplit('/').next() {
        Some(digest) if seen.is("GET", "/blobs/") => {
            Answer::new(200).header("content-encoding", "gzip").body(blobs[digest].clone()).how()
        }
        _ => How::Well,
    });
    Client::new().pull(&name).unwrap();
}

#[test]
fn a_mirrored_origin_that_refuses_head_is_asked_for_the_manifest() {
    let (mirror, _) = one();
    let (origin, _) = one();
    let digest =
        origin.manifest("team/x", "1", "", &origin.stored_manifest("team/x", "1").unwrap());
    let conf = format!(
        "[[registry]]\nprefix='example.com'\nlocation='{}'\ninsecure=true\n\
         [[registry.mirror]]\nlocation='{}'\ninsecure=true\n",
        origin.host(),
        mirror.host()
    );
    for status in [400, 401, 403, 405, 501] {
        origin.rule(move |seen| match seen.is("HEAD", "/manifests/") {
            true => Answer::new(status).how(),
            false => How::Well,
        });
        // What the mirror calls by that tag does not count.
        mirror.rule(|seen| match seen.is("GET", "/manifests/1") {
            true => Answer::new(200).body("{}").how(),
            false => How::Well,
        });
        let client = Client::new();
        let options = client.settings(&conf);
        let pulled = client.pull_with("example.com/team/x:1", options).unwrap();
        assert_eq!(pulled.digest.to_string(), digest);
    }
}

/// Tags `v00` to `v29` of `team/x`, ten a page; `link` makes the header from the next page's path.
fn paged(registry: &Registry, link: impl Fn(&str) -> String + Send + 'static) {
    let all: Vec<String> = (0..30).map(|n| format!("v{n:02}")).collect();
    registry.rule(move |seen: &Seen| {
        let Some((path, query)) = seen.path.split_once("/tags/list?") else { return How::Well };
        let last = query.split('&').find_map(|pair| pair.strip_prefix("last="));
        let from = last.map_or(0, |last| all.iter().position(|tag| tag == last).unwrap() + 1);
        let page = &all[from..(from + 10).min(all.len())];
        let answer = Answer::new(200).body(serde_json::json!({"tags": page}).to_string());
        if from + 10 >= all.len() {
            return answer.how();
        }
        let next = format!("{path}/tags/list?last={}&n=10", page[page.len() - 1]);
        answer.header("link", link(&next)).how()
    });
}

#[test]
fn a_listing_goes_on_at_the_registry_whatever_the_link_says() {
    type Link = fn(&str) -> String;
    let links: [Link; 9] = [
        |path| format!("<{path}>; rel=\"next\""),
        |path| format!("<{path}>;rel=next"),
        |path| format!("<https://registry.internal:8443{path}>; rel=\"next\""),
        |path| format!("<http://registry.internal/behind/a/proxy{path}>; rel=\"next\""),
        |path| format!("<//registry.internal{path}>; rel=\"next\""),
        |path| format!("</v2/x>; rel=\"first\", <{path}>; rel=\"next\", </y>; rel=\"last\""),
        |path| format!("<{}>; rel=\"next\"", &path[path.find('?').unwrap()..]),
        |path| format!("<{}>; rel=\"next\"", path.rsplit('/').next().unwrap()),
        |path| format!("<{path}>; title=\"a; b\"; rel=\"start next\""),
    ];
    for link in links {
        let (registry, name) = one();
        paged(&registry, link);
        let registries = Registries::new(quick());
        let tags = registries.tags(&name.parse().unwrap()).unwrap();
        assert_eq!(tags.len(), 30, "{}", link("/PATH?Q"));
    }
}

#[test]
fn a_listing_that_cannot_be_followed_is_an_error() {
    for (link, said) in [
        ("<ftp://elsewhere/list?last=x>; rel=\"next\"", "at an address that is not followed"),
        ("<http://elsewhere/list>; rel=\"next\"", "at an address that is not followed"),
        ("</v2/team/x/tags/list?n=1000>; rel=\"next\"", "names a page before it"),
    ] {
        let (registry, name) = one();
        registry.rule(move |seen| match seen.path.contains("/tags/list") {
            true => Answer::new(200).body(r#"{"tags":["1"]}"#).header("link", link).how(),
            false => How::Well,
        });
        let error = Registries::new(quick()).tags(&name.parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[test]
fn a_token_may_be_null_under_one_of_its_names() {
    for body in [
        r#"{"token":"T"}"#,
        r#"{"access_token":"T","expires_in":300}"#,
        r#"{"token":null,"access_token":"T","refresh_token":null}"#,
        r#"{"token":"","access_token":"T"}"#,
        r#"{"token":"T","access_token":null}"#,
    ] {
        let (registry, name) = one();
        let host = registry.host().to_owned();
        registry.rule(move |seen| {
            if seen.path.starts_with("/token") {
                return Answer::new(200).body(body).how();
            }
            let challenge = format!("Bearer realm=\"http://{host}/token\"");
            match seen.header("authorization") {
                Some("Bearer T") => How::Well,
                _ => Answer::new(401).header("www-authenticate", challenge).how(),
            }
        });
        Client::new().pull(&name).unwrap_or_else(|error| panic!("{body}: {error}"));
    }
}

#[test]
fn a_silent_registry_is_given_up() {
    let (registry, _) = one();
    registry.rule(|_| How::Stall(0));
    // The headers come at once and the body never; and nothing at all.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mute = silent.local_addr().unwrap().to_string();
    for host in [registry.host(), &mute] {
        let client = Client::new();
        let wait = std::time::Duration::from_millis(50);
        let timeouts = strata_registry::Timeouts { connect: wait, answer: wait, stall: wait };
        let options = || RegistryOptions { timeouts, ..client.options() };
        let error = client.pull_with(&format!("{host}/team/x:1"), options()).unwrap_err();
        assert!(error.to_string().contains("no answer in time"), "{error}");
        let error = Registries::new(options()).check_login(host, None);
        if host == mute {
            assert!(error.unwrap_err().to_string().contains("no answer in time"));
        }
        let name = format!("{host}/team/x:1").parse().unwrap();
        let error = Registries::new(options()).tags(&name).unwrap_err();
        assert!(error.to_string().contains("no answer in time"), "{error}");
        let error = Registries::new(options()).search(host, "x", 10).unwrap_err();
        assert!(error.to_string().contains("no answer in time"), "{error}");
    }
}

/// Puts a manifest beside the image of the digest `subject`; gives its entry in a list.
fn refer(registry: &Registry, subject: &str, number: usize) -> Value {
    let config = registry.blob("team/x", b"{}");
    let empty = json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": config,
                       "size": 2});
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/x", "layers": [],
        "config": empty, "annotations": {"number": number.to_string()},
        "subject": {"mediaType": MANIFEST, "digest": subject, "size": 1},
    });
    let bytes = manifest.to_string().into_bytes();
    let digest = digest(&bytes);
    registry.manifest("team/x", &digest, MANIFEST, &bytes);
    json!({"mediaType": MANIFEST, "digest": digest, "size": bytes.len()})
}

/// A registry that lists these by their subjects, ten a page.
fn lists(registry: &Registry, all: HashMap<String, Vec<Value>>) {
    registry.rule(move |seen: &Seen| {
        let Some((path, rest)) = seen.path.split_once("/referrers/") else { return How::Well };
        let (subject, query) = rest.split_once("?from=").unwrap_or((rest, "0"));
        let listed = all.get(subject).map(Vec::as_slice).unwrap_or_default();
        let from: usize = query.parse().unwrap();
        let page = &listed[from..(from + 10).min(listed.len())];
        let answer = Answer::new(200)
            .header("content-type", INDEX)
            .body(json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": page}).to_string());
        match from + 10 < listed.len() {
            true => {
                let next = format!("<{path}/referrers/{subject}?from={}>; rel=\"next\"", from + 10);
                answer.header("link", next).how()
            }
            false => answer.how(),
        }
    });
}

/// How many entries a layout has after a copy of the image and what stands beside it.
fn carried(client: &Client, options: RegistryOptions, name: &str) -> Result<usize, Error> {
    let path = client.dir.path().join("out");
    let listeners = Listeners { pulling: &Warnings::default(), pushing: &|_, _| {} };
    copy(
        CheckedStore::unchecked(&client.store),
        &Registries::new(options),
        &Location::Registry(name.parse().unwrap()),
        Target::Layout { path: path.clone(), name: None },
        &CopyOptions { with_signatures: true, ..CopyOptions::default() },
        &listeners,
    )?;
    let index = std::fs::read(path.join("index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    Ok(index["manifests"].as_array().unwrap().len())
}

#[test]
fn all_that_refers_to_an_image_goes_along_or_it_is_said() {
    let (registry, name) = one();
    let image = digest(&registry.stored_manifest("team/x", "1").unwrap());
    let beside = |count: usize| (0..count).map(|number| refer(&registry, &image, number)).collect();
    lists(&registry, HashMap::from([(image.clone(), beside(25))]));
    let client = Client::new();
    assert_eq!(carried(&client, client.options(), &name).unwrap(), 26);
    lists(&registry, HashMap::from([(image.clone(), beside(129))]));
    let error = carried(&client, client.options(), &name).unwrap_err().to_string();
    assert!(error.contains("the number of manifests beside the image is more than 128"), "{error}");

    // Signatures of signatures.
    let mut row = HashMap::new();
    let mut subject = image;
    for (expected, number) in [(Some(2), 1000), (Some(3), 1001), (Some(4), 1002), (None, 1003)] {
        let entry = refer(&registry, &subject, number);
        let next = entry["digest"].as_str().unwrap().to_owned();
        row.insert(std::mem::replace(&mut subject, next), vec![entry]);
        lists(&registry, row.clone());
        let client = Client::new();
        match (carried(&client, client.options(), &name), expected) {
            (Ok(count), Some(expected)) => assert_eq!(count, expected),
            (Err(error), None) => assert!(error.to_string().contains("in a row"), "{error}"),
            (other, _) => panic!("{number}: {other:?}"),
        }
    }
}

#[test]
fn a_mirror_that_lists_no_referrers_does_not_answer_for_the_origin() {
    let (mirror, origin) = (Registry::new(), Registry::new());
    offer(&mirror, "team/x", "1");
    let image = offer(&origin, "team/x", "1");
    lists(&origin, HashMap::from([(image.clone(), vec![refer(&origin, &image, 1)])]));
    let client = Client::new();
    let conf = format!(
        "[[registry]]\nprefix='example.com'\nlocation='{}'\ninsecure=true\n\
         [[registry.mirror]]\nlocation='{}'\ninsecure=true\n",
        origin.host(),
        mirror.host(),
    );
    let options = client.settings(&conf);
    assert_eq!(carried(&client, options, "example.com/team/x:1").unwrap(), 2);
    assert_eq!(mirror.count("GET", "/referrers/"), 2, "{:?}", mirror.seen());
}
