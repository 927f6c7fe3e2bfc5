//! OpenPGP signatures, verified by `gpgv` of GnuPG.
//!
//! ```text
//! keys of the policy --(armour off)--> keyring --+
//! signature on stdin ----------------------------+--> gpgv --> the signed bytes on stdout
//!                                                         --> what it found on stderr
//! ```
//! `gpgv` reads no configuration, needs no agent and trusts every key of the keyring that it is
//! given. It runs in a directory of its own, which goes away with the call.
//!
//! Invariants: the user's keyrings and configuration are never read; exactly one signature must be
//! there and it must be good, by a key that is neither expired nor revoked; what is signed is at
//! most [`SIGNED_MAX`] bytes, whatever it was compressed to.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::strict::decoded;

/// Bytes of what a signature signs: a small JSON document.
const SIGNED_MAX: u64 = 1 << 20;

/// The `gpgv` of this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gpgv {
    /// The program, if there is one.
    pub program: Option<PathBuf>,
    /// Where directories are made that exist for the time of one call.
    pub scratch: PathBuf,
}

/// What was signed, and by whom.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SignedBytes {
    pub(crate) bytes: Vec<u8>,
    /// The fingerprint of the primary key.
    pub(crate) key: String,
}

impl Gpgv {
    /// Verifies a signed message with any of `keys`, armoured or not.
    pub(crate) fn verify(&self, keys: &[Vec<u8>], message: &[u8]) -> Result<SignedBytes, String> {
        let Some(program) = &self.program else {
            let why = "gpgv, which verifies OpenPGP signatures, is not there; install the package \
                       gpgv";
            return Err(why.to_owned());
        };
        let failed = |what: &str| {
            let what = what.to_owned();
            move |error: std::io::Error| format!("{what}: {error}")
        };
        let home = tempfile::Builder::new().prefix("strata-gpgv-").tempdir_in(&self.scratch);
        let home = home.map_err(failed("cannot make a directory for gpgv"))?;
        let keyring = home.path().join("keys.gpg");
        let mut ring = Vec::new();
        for key in keys {
            ring.extend(without_armour(key)?);
        }
        if ring.is_empty() {
            return Err("the policy names no public key".to_owned());
        }
        std::fs::write(&keyring, ring).map_err(failed("cannot write the keyring"))?;
        let input = home.path().join("signature");
        std::fs::write(&input, message).map_err(failed("cannot write the signature"))?;
        let mut child = self.command(program, home.path(), &keyring, &input)?;
        let mut child = child.spawn().map_err(failed("cannot start gpgv"))?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            err.map(|err| err.take(SIGNED_MAX).read_to_end(&mut text));
            text
        });
        let mut bytes = Vec::new();
        let read = out.map(|out| out.take(SIGNED_MAX + 1).read_to_end(&mut bytes));
        if bytes.len() as u64 > SIGNED_MAX {
            // It would write more than that to nobody.
            child.kill().map_err(failed("cannot end gpgv"))?;
        }
        let status = child.wait().map_err(failed("cannot wait for gpgv"))?;
        let said = reader.join().unwrap_or_default();
        read.transpose().map_err(failed("cannot read what gpgv writes"))?;
        if bytes.len() as u64 > SIGNED_MAX {
            return Err(format!("what is signed is larger than {SIGNED_MAX} bytes"));
        }
        let key = gpgv_signer(&String::from_utf8_lossy(&said))?;
        match status.success() {
            true => Ok(SignedBytes { bytes, key }),
            false => Err(format!("gpgv ended with {status}")),
        }
    }

    fn command(
        &self,
        program: &Path,
        home: &Path,
        keyring: &Path,
        input: &Path,
    ) -> Result<Command, String> {
        let input = File::open(input).map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.arg("--homedir").arg(home).arg("--keyring").arg(keyring);
        // What it has to say to people would stand between what it says to us.
        command.arg("--log-file").arg(home.join("log"));
        command.args(["--status-fd", "2", "--output", "-", "--", "-"]);
        command.env_clear().env("LC_ALL", "C").current_dir(home);
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command)
    }
}

/// Who made the one good signature, by what gpgv said on its status descriptor
/// (GnuPG, doc/DETAILS, "Format of the --status-fd output"): the fingerprint of the primary key.
///
/// # Errors
/// Why there is no good signature, or not exactly one, in words.
pub fn gpgv_signer(said: &str) -> Result<String, String> {
    let (mut good, mut key, mut signatures) = (0, None, 0);
    for line in said.lines() {
        let Some(line) = line.strip_prefix("[GNUPG:] ") else { continue };
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["NEWSIG", ..] => signatures += 1,
            ["GOODSIG", ..] => good += 1,
            ["VALIDSIG", rest @ ..] => {
                let primary = rest.get(9).or(rest.first()).copied().unwrap_or_default();
                key = Some(primary.to_owned());
            }
            ["BADSIG", ..] => return Err("the signature is wrong".to_owned()),
            ["EXPSIG", ..] => return Err("the signature has expired".to_owned()),
            ["EXPKEYSIG", id, ..] => return Err(format!("the key {id} has expired")),
            ["REVKEYSIG", id, ..] => return Err(format!("the key {id} is revoked")),
            ["ERRSIG", id, .., "9", _] | ["ERRSIG", id, _, _, _, _, "9"] => {
                return Err(format!(
                    "it is signed by the key {id}, which the policy does not name"
                ));
            }
            ["ERRSIG", id, ..] => {
                return Err(format!("the signature by the key {id} cannot be checked"));
            }
            ["NODATA", ..] => return Err("it is no OpenPGP signature".to_owned()),
            _ => {}
        }
    }
    match (key, good, signatures) {
        (Some(key), 1, 1) => Ok(key),
        (_, _, 0) => Err("it is not signed".to_owned()),
        _ => Err("there is not exactly one good signature".to_owned()),
    }
}

/// The packets in a key, which may be armoured (RFC 9580, 6.2), also several blocks in a row.
fn without_armour(key: &[u8]) -> Result<Vec<u8>, String> {
    // The first bit of every packet is set, of no letter.
    if key.first().is_none_or(|first| first & 0x80 != 0) {
        return Ok(key.to_vec());
    }
    let wrong = || "a key of the policy is neither binary nor armoured".to_owned();
    let text = std::str::from_utf8(key).map_err(|_| wrong())?;
    let (mut all, mut block, mut inside) = (Vec::new(), None::<String>, false);
    for line in text.lines().map(str::trim) {
        match &mut block {
            None if line.starts_with("-----BEGIN PGP PUBLIC KEY BLOCK-----") => {
                (block, inside) = (Some(String::new()), false);
            }
            None => {}
            Some(body) if line.starts_with("-----END PGP") => {
                all.write_all(&decoded(body).ok_or_else(wrong)?).map_err(|e| e.to_string())?;
                block = None;
            }
            // An empty line ends the headers.
            Some(_) if !inside => inside = line.is_empty(),
            // A checksum against slips of the pen; the signature is checked anyhow.
            Some(_) if line.starts_with('=') => {}
            Some(body) => body.push_str(line),
        }
    }
    match all.is_empty() || block.is_some() {
        true => Err(wrong()),
        false => Ok(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_good_signature_is_one() {
        let valid = "[GNUPG:] VALIDSIG SUB 2026-01-01 1 0 4 0 1 10 00 PRIMARY\n";
        let good = "[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG AB somebody\n";
        assert_eq!(gpgv_signer(&format!("{good}{valid}")).unwrap(), "PRIMARY");
        for (said, why) in [
            (String::new(), "not signed"),
            ("gpgv: GOODSIG\n".to_owned(), "not signed"),
            (format!("{good}{valid}{good}{valid}"), "exactly one"),
            (good.to_owned(), "exactly one"),
            (format!("[GNUPG:] NEWSIG\n{good}{valid}"), "exactly one"),
            ("[GNUPG:] NEWSIG\n[GNUPG:] BADSIG AB x\n".to_owned(), "wrong"),
            (format!("[GNUPG:] NEWSIG\n[GNUPG:] EXPKEYSIG AB x\n{valid}"), "expired"),
            (format!("[GNUPG:] NEWSIG\n[GNUPG:] REVKEYSIG AB x\n{valid}"), "revoked"),
            ("[GNUPG:] NEWSIG\n[GNUPG:] ERRSIG AB 1 10 00 1 9 FPR\n".to_owned(), "does not name"),
            ("[GNUPG:] NODATA 1\n".to_owned(), "no OpenPGP"),
        ] {
            let error = gpgv_signer(&said).unwrap_err();
            assert!(error.contains(why), "{said}: {error}");
        }
    }

    #[test]
    fn armour_comes_off() {
        assert_eq!(without_armour(&[0x99, 1]).unwrap(), [0x99, 1]);
        let block = "-----BEGIN PGP PUBLIC KEY BLOCK-----\nVersion: x\n\nmQE=\n=abcd\n\
                     -----END PGP PUBLIC KEY BLOCK-----\n";
        assert_eq!(without_armour(block.as_bytes()).unwrap(), [0x99, 1]);
        let two = format!("words\n{block}\n{block}");
        assert_eq!(without_armour(two.as_bytes()).unwrap(), [0x99, 1, 0x99, 1]);
        for bad in ["words", &block[..60], &block.replace("mQE=", "m?E=")] {
            assert!(without_armour(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
