//! Programs that keep credentials: `docker-credential-NAME`, by docker's protocol.
//!
//! Invariants: a helper is called by a plain name, never by a path; no secret is ever part of an
//! error.

use std::io::Write;
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::credential::Credential;
use crate::error::{Error, Result};

/// The user name by which helpers say that the secret is an identity token.
const TOKEN_USER: &str = "<token>";

/// What a helper has for a registry.
///
/// # Errors
/// `Helper`.
pub(crate) fn ask_helper(helper: &str, key: &str) -> Result<Option<Credential>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Got {
        #[serde(default)]
        username: String,
        #[serde(default)]
        secret: String,
    }
    let Some(text) = run_helper(helper, "get", key)? else { return Ok(None) };
    let got: Got = serde_json::from_slice(&text).map_err(|_| Error::Helper {
        helper: helper.to_owned(),
        why: "its answer is not the JSON of a credential".to_owned(),
    })?;
    Ok(match got {
        Got { username, secret } if username.is_empty() && secret.is_empty() => None,
        Got { username, secret } if username == TOKEN_USER => {
            Some(Credential::IdentityToken(secret))
        }
        Got { username, secret } => Some(Credential::Basic { username, password: secret }),
    })
}

/// Runs `docker-credential-HELPER VERB`; `None` if it has nothing for the registry.
///
/// # Errors
/// `Helper`.
pub(crate) fn run_helper(helper: &str, verb: &str, input: &str) -> Result<Option<Vec<u8>>> {
    let failed = |why: String| Error::Helper { helper: helper.to_owned(), why };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if !helper.bytes().all(plain) {
        return Err(failed("not the name of a helper".to_owned()));
    }
    let mut child = Command::new(format!("docker-credential-{helper}"))
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(format!("cannot start it: {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input.as_bytes()) {
            Ok(()) => {}
            // It answers without having read; its exit status tells.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            Err(error) => return Err(failed(format!("cannot write to it: {error}"))),
        }
    }
    let output =
        child.wait_with_output().map_err(|error| failed(format!("cannot read it: {error}")))?;
    if output.status.success() {
        return Ok(Some(output.stdout));
    }
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    // The words of docker-credential-helpers; there is no exit code of its own for it.
    if verb == "get" && said.contains("credentials not found") {
        return Ok(None);
    }
    // What a failed `get` prints is no secret, but it is not ours to know that for sure.
    let said: String = said.lines().next().unwrap_or_default().chars().take(200).collect();
    Err(failed(format!("{verb}: {}: {said}", output.status)))
}
