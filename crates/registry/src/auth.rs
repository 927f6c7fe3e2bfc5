//! Challenges and tokens: what a registry requires before it answers.
//!
//! ```text
//! 401, WWW-Authenticate: Bearer realm="...",service="...",scope="..."
//!   --> GET realm?service=&scope=   with name and password, or with nothing (anonymous)
//!   --> POST realm  grant_type=refresh_token   with an identity token
//! 401, WWW-Authenticate: Basic --> name and password with every request
//! ```
//! (distribution specification; docker's token authentication and OAuth2 documents.)
//!
//! Invariants: credentials go to the registry that they are for, and to the realm that it names
//! only by https, or by http if the registry itself is spoken to by http; another origin that the
//! realm redirects to gets none.

use serde::Deserialize;
use ureq::http::Method;

use crate::address::{Scheme, Url, escape};
use crate::credential::Credential;
use crate::error::EndpointError;
use crate::http::{Call, Http, RequestBody};

/// Bytes of a token document.
const TOKEN_BYTES: u64 = 1 << 20;

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// The strongest challenge among the header's values that is understood.
    pub(crate) fn parse<'a>(values: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut basic = None;
        for value in values {
            for (scheme, params) in split(value) {
                if scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Self::Basic);
                }
                let get = |name: &str| {
                    let found = params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                    found.map(|(_, value)| value.clone())
                };
                if scheme.eq_ignore_ascii_case("bearer")
                    && let Some(realm) = get("realm")
                {
                    let (service, scope) = (get("service"), get("scope"));
                    return Some(Self::Bearer { realm, service, scope });
                }
            }
        }
        basic
    }
}

type Param = (String, String);

/// The challenges of one header value (RFC 9110, 11.6.1).
fn split(value: &str) -> Vec<(String, Vec<Param>)> {
    let mut all: Vec<(String, Vec<Param>)> = Vec::new();
    let mut rest = value.trim_start_matches([' ', ',']);
    while !rest.is_empty() {
        let end = rest.find([' ', ',', '=']).unwrap_or(rest.len());
        let word = rest[..end].to_owned();
        rest = &rest[end..];
        match rest.strip_prefix('=') {
            Some(after) => {
                let (text, after) = quoted(after);
                if let Some((_, params)) = all.last_mut() {
                    params.push((word, text));
                }
                rest = after;
            }
            None if !word.is_empty() => all.push((word, Vec::new())),
            None => {}
        }
        rest = rest.trim_start_matches([' ', ',', '\t']);
    }
    all
}

/// A token or quoted string at the beginning of `text`, and what follows it.
fn quoted(text: &str) -> (String, &str) {
    let Some(inner) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut out = String::new();
    let mut chars = inner.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (out, &inner[at + 1..]),
            '\\' => out.extend(chars.next().map(|(_, c)| c)),
            c => out.push(c),
        }
    }
    (out, "")
}

/// Fetches a token; gives the `Authorization` header's value.
///
/// # Errors
/// `Denied` if the realm does not give one, `Unreachable`, `Failed`.
pub(crate) fn fetch(
    http: &Http,
    registry: &Url,
    challenge: (&str, Option<&str>, &str),
    credential: Option<&Credential>,
    verify: bool,
) -> Result<String, EndpointError> {
    #[derive(Deserialize)]
    struct Token {
        #[serde(default, deserialize_with = "crate::null::or_default")]
        token: String,
        #[serde(default, deserialize_with = "crate::null::or_default")]
        access_token: String,
    }
    let (realm, service, scope) = challenge;
    let bad = || EndpointError::Failed("its token realm is not an address that is used".to_owned());
    let realm = registry.join(realm).ok_or_else(bad)?;
    if realm.scheme() == Scheme::Http && registry.scheme() == Scheme::Https && credential.is_some()
    {
        return Err(EndpointError::Failed(format!(
            "its token realm {realm} is not https, so it gets no credentials"
        )));
    }
    let mut call = Call {
        method: Method::GET,
        url: realm.clone(),
        headers: Vec::new(),
        body: RequestBody::Empty,
        authorization: None,
        verify,
    };
    let form;
    match credential {
        Some(Credential::IdentityToken(token)) => {
            form = format!(
                "grant_type=refresh_token&client_id=strata&service={}&scope={}&refresh_token={}",
                escape(service.unwrap_or_default()),
                escape(scope),
                escape(token)
            );
            call.method = Method::POST;
            call.headers.push(("content-type", "application/x-www-form-urlencoded".to_owned()));
            call.body = RequestBody::Secret(form.as_bytes());
        }
        known => {
            if let Some(service) = service {
                call.url = call.url.with_query("service", service);
            }
            for scope in scope.split(' ').filter(|scope| !scope.is_empty()) {
                call.url = call.url.with_query("scope", scope);
            }
            call.authorization = known.and_then(Credential::basic);
        }
    }
    let answer = http.send(&call)?;
    if answer.status != 200 {
        return Err(match answer.refusal() {
            EndpointError::NotFound(why) => {
                EndpointError::Denied(format!("{realm} gives no token: {why}"))
            }
            EndpointError::Denied(why) => {
                EndpointError::Denied(format!("{realm} gives no token: {why}"))
            }
            other => other,
        });
    }
    let bytes = answer.bytes(TOKEN_BYTES)?;
    let token: Token = serde_json::from_slice(&bytes)
        .map_err(|_| EndpointError::Failed(format!("{realm} gives no token document")))?;
    let token = if token.token.is_empty() { token.access_token } else { token.token };
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(EndpointError::Failed(format!("{realm} gives an empty or unusable token")));
    }
    Ok(format!("Bearer {token}"))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::http::{Proxies, Timeouts};
    use crate::pace::Pace;

    #[test]
    fn an_identity_token_follows_no_redirect_to_another_origin() {
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (realm, elsewhere) = (listen(), listen());
        let at = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let (base, there) = (at(&realm), at(&elsewhere));
        let moved = |status: u16, to: &str| format!("HTTP/1.1 {status} Moved\r\nlocation: {to}");
        let answers = [
            (moved(307, "/token/v2"), ""),
            ("HTTP/1.1 200 OK".to_owned(), r#"{"token":"T"}"#),
            (moved(307, &there), ""),
            (moved(308, &there), ""),
        ];
        let server = std::thread::spawn(move || {
            for (head, body) in answers {
                let (mut stream, _) = realm.accept().unwrap();
                let (mut asked, mut byte) = (Vec::new(), [0]);
                while !asked.ends_with(b"refresh_token=secret") {
                    stream.read_exact(&mut byte).unwrap();
                    asked.push(byte[0]);
                }
                let length = body.len();
                let head = format!("{head}\r\nconnection: close\r\ncontent-length: {length}");
                stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).unwrap();
            }
        });
        let wait = std::time::Duration::from_secs(5);
        let timeouts = Timeouts { connect: wait, answer: wait, stall: wait };
        let http = Http::new(timeouts, Proxies::default(), &[], Pace::new(None));
        let credential = Credential::IdentityToken("secret".to_owned());
        let fetch = || {
            let challenge = ("/token", None, "repository:x:pull");
            fetch(&http, &Url::parse(&base).unwrap(), challenge, Some(&credential), true)
        };
        assert_eq!(fetch().unwrap(), "Bearer T");
        for _ in [307, 308] {
            let error = fetch().unwrap_err().to_string();
            assert!(error.contains("redirects to") && error.contains("no credentials"), "{error}");
        }
        server.join().unwrap();
        elsewhere.set_nonblocking(true).unwrap();
        assert!(elsewhere.accept().is_err(), "it was spoken to");
    }

    #[test]
    fn challenges_are_read() {
        let parse = |values: &[&str]| Challenge::parse(values.iter().copied());
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.into(),
                service: service.map(Into::into),
                scope: scope.map(Into::into),
            })
        };
        let hub = concat!(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io","#,
            r#"scope="repository:library/ubuntu:pull,push""#
        );
        let scope = Some("repository:library/ubuntu:pull,push");
        let expected = bearer("https://auth.docker.io/token", Some("registry.docker.io"), scope);
        assert_eq!(parse(&[hub]), expected);
        assert_eq!(parse(&["Basic realm=\"x\"", hub]), expected);
        assert_eq!(parse(&["basic realm=x"]), Some(Challenge::Basic));
        assert_eq!(parse(&["Negotiate, Basic"]), Some(Challenge::Basic));
        assert_eq!(
            parse(&[r#"Basic realm="a, b=c", BEARER  Realm="q\"x" , service=s"#]),
            bearer("q\"x", Some("s"), None)
        );
        assert_eq!(parse(&["Bearer"]), None);
        assert_eq!(
            parse(&["", ",", "=", "Digest realm=\"", "Bearer realm=\"a"]),
            bearer("a", None, None)
        );
    }
}
