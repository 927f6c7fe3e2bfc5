//! HTTP: one exchange at a time, with the redirects that it leads to.
//!
//! ```text
//! Call (method, address, headers, body that can be sent again)
//!   --> agent for (verified or not, by proxy or not) --> HttpResponse (status, headers, reader)
//! ```
//!
//! Invariants: `Authorization` goes to the origin (scheme, host and port) that it is meant for
//! and is dropped at the first redirect elsewhere; a redirect that would take a secret body
//! elsewhere is not followed; no redirect leads from https to http; a server that stops sending is
//! given up after [`Timeouts`]; no more of a body is read than its caller allows. Nothing here
//! reads the environment: proxies and roots are passed in.

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ureq::http::{HeaderMap, Method, Request};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Proxy, SendBody};

use crate::address::{Scheme, Url};
use crate::error::{BAD_PROXY, EndpointError, SILENT, UNKNOWN_HOST};
use crate::hosts::HostPattern;
use crate::least_pace::LeastPace;
use crate::lookup::TimedLookup;
use crate::pace::Pace;

/// Redirects that one request may take.
const REDIRECTS: usize = 10;
/// Bytes of an error document that are looked at.
const ERROR_BYTES: u64 = 64 << 10;

/// How long to wait, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For the first byte of an answer; ten times that for a body that was sent, for a registry
    /// may put much together before it answers.
    pub answer: Duration,
    /// Between any two bytes of a body, in either direction; a body of an answer that brings less
    /// than 8 KiB in twice that time is given up, too.
    pub stall: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let (connect, wait) = (Duration::from_secs(15), Duration::from_secs(30));
        Self { connect, answer: wait, stall: wait }
    }
}

/// Which proxies to go by, as `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` say it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For http addresses.
    pub http: Option<String>,
    /// For https addresses.
    pub https: Option<String>,
    /// Hosts, domains and address ranges to be spoken to directly, separated by commas.
    pub none_for: String,
}

impl Proxies {
    fn of(&self, url: &Url) -> Option<&str> {
        let proxy = match url.scheme() {
            Scheme::Http => self.http.as_deref(),
            Scheme::Https => self.https.as_deref(),
        };
        // Patterns may name the port, also the scheme's own.
        let host = url.host_and_port();
        let direct = crate::hosts::is_loopback(&host)
            || self.none_for.split(',').filter(|text| !text.trim().is_empty()).any(|text| {
                text.parse().is_ok_and(|pattern: HostPattern| pattern.matches_domain(&host))
            });
        proxy.filter(|proxy| !proxy.is_empty() && !direct)
    }
}

/// A request.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: RequestBody<'a>,
    /// For the origin of `url` alone.
    pub(crate) authorization: Option<String>,
    /// Whether certificates are checked.
    pub(crate) verify: bool,
}

/// What a request sends.
#[derive(Clone, Copy)]
pub(crate) enum RequestBody<'a> {
    Empty,
    Bytes(&'a [u8]),
    /// Bytes for the origin of the call's address alone.
    Secret(&'a [u8]),
    /// A reader for each time that it is sent, and its length in bytes.
    Stream(&'a (dyn Fn() -> std::io::Result<Box<dyn Read + 'a>> + 'a), u64),
}

/// A response whose body is yet to be read.
pub(crate) struct HttpResponse {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// Where it came from in the end.
    pub(crate) url: Url,
    body: ureq::Body,
    stall: Duration,
}

impl HttpResponse {
    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether the body was compressed for transport, unasked (RFC 9110, 8.4). Some servers say
    /// this of a blob that is a gzip itself.
    pub(crate) fn says_gzip(&self) -> bool {
        self.header("content-encoding").is_some_and(|how| how.trim().eq_ignore_ascii_case("gzip"))
    }

    fn into_paced(self) -> LeastPace<ureq::BodyReader<'static>> {
        LeastPace::new(self.body.into_reader(), self.stall.saturating_mul(2))
    }

    /// The body as it comes.
    pub(crate) fn into_reader(self) -> Box<dyn Read + Send> {
        Box::new(self.into_paced())
    }

    /// The whole body, of at most `most` bytes.
    pub(crate) fn bytes(self, most: u64) -> Result<Vec<u8>, EndpointError> {
        let mut bytes = Vec::new();
        let url = self.url.to_string();
        // A length that the server names itself is no reason to reserve memory.
        let mut reader = self.into_paced().take(most.saturating_add(1));
        reader.read_to_end(&mut bytes).map_err(|error| broken(&error))?;
        if bytes.len() as u64 > most {
            return Err(EndpointError::Failed(format!("{url} is larger than {most} bytes")));
        }
        Ok(bytes)
    }

    /// What a status other than a success means (distribution specification, "Error codes").
    pub(crate) fn refusal(self) -> EndpointError {
        #[derive(serde::Deserialize)]
        struct Errors {
            errors: Vec<One>,
        }
        #[derive(serde::Deserialize)]
        struct One {
            #[serde(default)]
            code: String,
            #[serde(default)]
            message: String,
        }
        let status = self.status;
        let mut text = Vec::new();
        // Where the explanation cannot be read, the status alone has to do.
        let read = self.into_paced().take(ERROR_BYTES).read_to_end(&mut text);
        let said = read.ok().and_then(|_| serde_json::from_slice::<Errors>(&text).ok());
        let said = said.and_then(|said| said.errors.into_iter().next());
        let detail = match said {
            Some(One { code, message }) if message.is_empty() => format!("{status}, {code}"),
            Some(One { code, message }) if code.is_empty() => format!("{status}, {message}"),
            Some(One { code, message }) => format!("{status} {code}, {message}"),
            None => format!("status {status}"),
        };
        let detail: String = detail.chars().filter(|c| !c.is_control()).take(300).collect();
        match status {
            404 => EndpointError::NotFound(detail),
            401 | 403 => EndpointError::Denied(detail),
            429 => EndpointError::Busy(detail),
            _ => EndpointError::Failed(detail),
        }
    }
}

type AgentKey = (bool, Option<String>);

/// The connections.
pub(crate) struct Http {
    pub(crate) pace: Pace,
    timeouts: Timeouts,
    proxies: Proxies,
    roots: RootCerts,
    provider: Arc<rustls::crypto::CryptoProvider>,
    agents: Mutex<HashMap<AgentKey, Agent>>,
}

impl Http {
    /// `roots` are the certificates that are trusted, in DER.
    pub(crate) fn new(timeouts: Timeouts, proxies: Proxies, roots: &[Vec<u8>], pace: Pace) -> Self {
        let roots = roots.iter().map(|der| Certificate::from_der(der).to_owned());
        Self {
            pace,
            timeouts,
            proxies,
            roots: RootCerts::from(roots),
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            agents: Mutex::default(),
        }
    }

    fn agent(&self, url: &Url, verify: bool) -> Result<Agent, EndpointError> {
        let proxy = self.proxies.of(url);
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (verify, proxy.map(str::to_owned));
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        let proxy = proxy.map(proxy_of).transpose()?;
        let tls = TlsConfig::builder()
            .root_certs(self.roots.clone())
            .disable_verification(!verify)
            .unversioned_rustls_crypto_provider(Arc::clone(&self.provider))
            .build();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .tls_config(tls)
            .proxy(proxy)
            .user_agent(concat!("strata/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(self.timeouts.connect))
            .timeout_resolve(Some(self.timeouts.connect))
            .timeout_recv_response(Some(self.timeouts.answer))
            .timeout_per_read(Some(self.timeouts.stall))
            .timeout_per_write(Some(self.timeouts.stall))
            .build();
        let agent = Agent::with_parts(config, DefaultConnector::new(), TimedLookup);
        agents.insert(key, agent.clone());
        Ok(agent)
    }

    /// Sends a request and follows where it leads.
    ///
    /// # Errors
    /// `Unreachable` without an answer, `Failed` for redirects that are not followed, among them
    /// those that would take a secret body to another origin. Every status is an answer.
    pub(crate) fn send(&self, call: &Call<'_>) -> Result<HttpResponse, EndpointError> {
        let mut url = call.url.clone();
        let mut method = call.method.clone();
        let mut body = call.body;
        for _ in 0..=REDIRECTS {
            let answer = self.exchange(call, &method, &url, body)?;
            let location = match answer.status {
                301 | 302 | 303 | 307 | 308 => answer.header("location"),
                _ => return Ok(answer),
            };
            let next = location.and_then(|location| url.join(location)).ok_or_else(|| {
                EndpointError::Failed(format!("{url} redirects to an address that is not followed"))
            })?;
            if url.scheme() == Scheme::Https && next.scheme() == Scheme::Http {
                let why = format!("{url} redirects from https to http, to {}", next.origin());
                return Err(EndpointError::Failed(why));
            }
            // RFC 9110, 15.4: 303 is a GET; so is, in practice, an old redirect of a POST.
            let rewritten = answer.status == 303
                || matches!(answer.status, 301 | 302) && method == Method::POST;
            if rewritten && method != Method::HEAD {
                (method, body) = (Method::GET, RequestBody::Empty);
            }
            if matches!(body, RequestBody::Secret(_)) && !next.same_origin(&call.url) {
                let why =
                    format!("{url} redirects to {}, which gets no credentials", next.origin());
                return Err(EndpointError::Failed(why));
            }
            url = next;
        }
        Err(EndpointError::Failed(format!("{} redirects more than {REDIRECTS} times", call.url)))
    }

    fn exchange(
        &self,
        call: &Call<'_>,
        method: &Method,
        url: &Url,
        body: RequestBody<'_>,
    ) -> Result<HttpResponse, EndpointError> {
        let mut request = Request::builder().method(method.clone()).uri(url.whole());
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        if let Some(authorization) = &call.authorization
            && url.same_origin(&call.url)
        {
            request = request.header("authorization", authorization);
        }
        let agent = self.agent(url, call.verify)?;
        self.pace.wait(&url.host_and_port());
        let bad = |error: ureq::http::Error| EndpointError::Failed(format!("{url}: {error}"));
        let answer = match body {
            RequestBody::Empty if matches!(*method, Method::GET | Method::HEAD) => {
                agent.run(request.body(()).map_err(bad)?)
            }
            // Registries want a length even of nothing.
            RequestBody::Empty => agent.run(request.body(&[][..]).map_err(bad)?),
            RequestBody::Bytes(bytes) | RequestBody::Secret(bytes) => {
                agent.run(request.body(bytes).map_err(bad)?)
            }
            RequestBody::Stream(open, size) => {
                let mut reader =
                    open().map_err(|error| EndpointError::Failed(error.to_string()))?;
                let request = request.header("content-length", size);
                let request = request.body(SendBody::from_reader(&mut reader)).map_err(bad)?;
                let patience = self.timeouts.answer.saturating_mul(10);
                agent.run(
                    agent.configure_request(request).timeout_recv_response(Some(patience)).build(),
                )
            }
        };
        let answer = answer.map_err(|error| unreachable(&error))?;
        let (head, body) = answer.into_parts();
        Ok(HttpResponse {
            status: head.status.as_u16(),
            headers: head.headers,
            url: url.clone(),
            body,
            stall: self.timeouts.stall,
        })
    }
}

/// A proxy by its address, which may hold a password and is not repeated.
fn proxy_of(text: &str) -> Result<Proxy, EndpointError> {
    let bad = |why: &str| EndpointError::Unreachable(format!("{BAD_PROXY} {why}"));
    let text = text.trim();
    if let Some((scheme, _)) = text.split_once("://") {
        let scheme = scheme.to_ascii_lowercase();
        if !matches!(scheme.as_str(), "http" | "https") {
            let scheme: String = scheme.chars().filter(char::is_ascii_alphanumeric).collect();
            return Err(bad(&format!(
                "of the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY) is of the kind {scheme}, \
                 and only http:// and https:// are spoken; name such a one, or exempt this host \
                 in NO_PROXY"
            )));
        }
    }
    let malformed = "of the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY) is not an address \
                     such as http://HOST:PORT";
    let host = text.rsplit('@').next().unwrap_or_default();
    let host = host.split_once("://").map_or(host, |(_, host)| host);
    let host = host.split(['/', '?', '#']).next().unwrap_or_default();
    let after = &host[crate::hosts::host_name(host).len()..];
    let port_is_right = after.is_empty()
        || after.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok_and(|n| n > 0));
    if host.is_empty() || !port_is_right {
        return Err(bad(malformed));
    }
    Proxy::new(text).map_err(|_| bad(malformed))
}

/// An exchange that gave no answer.
fn unreachable(error: &ureq::Error) -> EndpointError {
    EndpointError::Unreachable(match error {
        ureq::Error::HostNotFound => UNKNOWN_HOST.to_owned(),
        ureq::Error::ConnectionFailed => "no connection".to_owned(),
        ureq::Error::Io(error) => told(error),
        ureq::Error::Timeout(_) => SILENT.to_owned(),
        other => other.to_string(),
    })
}

/// A body that broke off.
pub(crate) fn broken(error: &std::io::Error) -> EndpointError {
    EndpointError::Unreachable(told(error))
}

fn told(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
    if let Some(ureq::Error::Timeout(_)) = inner {
        return SILENT.to_owned();
    }
    match error.kind() {
        std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock => SILENT.to_owned(),
        std::io::ErrorKind::UnexpectedEof => "the connection broke off".to_owned(),
        _ => {
            let text = error.to_string();
            // The resolver has no kind of its own for this; other causes of it may pass.
            if text.contains("Name or service not known") { UNKNOWN_HOST.to_owned() } else { text }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_that_cannot_be_spoken_to_are_said_without_their_password() {
        for text in ["http://p:3128", "https://u:secret@p.example", "p:3128", "http://[::1]:80/"] {
            assert!(proxy_of(text).is_ok(), "{text}");
        }
        for (text, said) in [
            ("socks5://u:secret@p:1080", "of the kind socks5"),
            ("socks5h://p:1080", "of the kind socks5h"),
            ("SOCKS4://p", "of the kind socks4"),
            ("ftp://p", "of the kind ftp"),
            ("http://", "is not an address"),
            ("http://u:secret@p:port", "is not an address"),
            ("http://p:99999", "is not an address"),
            ("http://p:0", "is not an address"),
            ("http:// p", "is not an address"),
            ("//", "is not an address"),
        ] {
            let why = proxy_of(text).map(|_| ()).unwrap_err();
            let shown = why.to_string();
            assert!(shown.contains(said) && !shown.contains("secret"), "{text}: {shown}");
            // Asking again changes nothing.
            assert!(!why.may_pass(), "{text}");
        }
    }
}
