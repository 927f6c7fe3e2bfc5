//! Addresses of hosts, looked up on a thread of their own, which is left behind when time is up.
//!
//! Invariant: where no thread can be had, that is an error. ureq's own resolver panics there.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use ureq::unversioned::transport::time::Duration;

/// Looks up as the C library does.
#[derive(Debug)]
pub(crate) struct TimedLookup;

impl Resolver for TimedLookup {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        // Without an end to wait for, ureq's starts no thread.
        let endless = NextTimeout { after: Duration::NotHappening, ..timeout };
        let (uri, config) = (uri.clone(), config.clone());
        let (found, answer) = sync_channel(1);
        let look = move || {
            // Nobody listens any more when time is up.
            let _ = found.send(DefaultResolver::default().resolve(&uri, &config, endless));
        };
        thread::Builder::new().name("lookup".to_owned()).spawn(look).map_err(Error::Io)?;
        match answer.recv_timeout(*timeout.after) {
            Ok(found) => found,
            Err(RecvTimeoutError::Timeout) => Err(Error::Timeout(timeout.reason)),
            Err(RecvTimeoutError::Disconnected) => Err(Error::HostNotFound),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(uri: &str, after: Duration) -> Result<ResolvedSocketAddrs, Error> {
        let timeout = NextTimeout { after, ..NextTimeout::default() };
        TimedLookup.resolve(&uri.parse().unwrap(), &Config::default(), timeout)
    }

    #[test]
    fn addresses_and_names_are_found() {
        let soon = Duration::from_secs(10);
        let found = look("http://127.0.0.1:5000/v2/", soon).unwrap();
        assert_eq!(*found, ["127.0.0.1:5000".parse().unwrap()]);
        let found = look("https://localhost/v2/", Duration::NotHappening).unwrap();
        assert!(found.iter().all(|addr| addr.ip().is_loopback() && addr.port() == 443));
        assert!(look("https://no.such.host.invalid/", soon).is_err());
    }

    #[test]
    fn nobody_waits_longer_than_the_time_that_there_is() {
        let now = look("https://no.such.host.invalid/", Duration::from_millis(0));
        assert!(matches!(now, Err(Error::Timeout(_))), "{now:?}");
    }
}
