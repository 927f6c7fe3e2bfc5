//! What simple signing and cosign sign: which manifest, and what it is called.
//!
//! ```text
//! {"critical": {"type": T, "image": {"docker-manifest-digest": D},
//!               "identity": {"docker-reference": R}}, "optional": {...}}
//! ```
//! (containers-signature(5); cosign, SIGNATURE_SPEC.md. T is "atomic container signature" or
//! "cosign container image signature".)
//!
//! Invariant: it is read only after the signature over its bytes has been verified, and read
//! strictly: `critical` has exactly these keys.

use strata_tree::BlobDigest;

use crate::strict::{Fields, Malformed, StrictValue};

/// Which form it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PayloadForm {
    Simple,
    Cosign,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SignedPayload {
    pub(crate) manifest: BlobDigest,
    pub(crate) identity: String,
}

impl SignedPayload {
    pub(crate) fn read(bytes: &[u8], form: PayloadForm) -> Result<Self, String> {
        Self::strictly(bytes, form).map_err(|Malformed(why)| format!("what is signed: {why}"))
    }

    fn strictly(bytes: &[u8], form: PayloadForm) -> Result<Self, Malformed> {
        let mut all = Fields::of(StrictValue::read(bytes)?, "the signed document")?;
        let mut critical = Fields::of(all.need("critical")?, "critical")?;
        match all.need("optional")? {
            // cosign writes it so.
            StrictValue::Null if form == PayloadForm::Cosign => {}
            optional => check_optional(optional)?,
        }
        all.end()?;
        let (kind, expected) = (
            critical.text("type")?,
            match form {
                PayloadForm::Simple => "atomic container signature",
                PayloadForm::Cosign => "cosign container image signature",
            },
        );
        if kind != expected {
            return Err(Malformed(format!("its type is {kind:?}, not {expected:?}")));
        }
        let mut image = Fields::of(critical.need("image")?, "image")?;
        let digest = image.text("docker-manifest-digest")?;
        image.end()?;
        let mut identity = Fields::of(critical.need("identity")?, "identity")?;
        let name = identity.text("docker-reference")?;
        identity.end()?;
        critical.end()?;
        let manifest = digest
            .parse()
            .map_err(|_| Malformed(format!("{digest:?} is no digest that strata knows")))?;
        Ok(Self { manifest, identity: name })
    }
}

fn check_optional(optional: StrictValue) -> Result<(), Malformed> {
    let mut fields = Fields::of(optional, "optional")?;
    fields.text_if_any("creator")?;
    if let Some(time) = fields.take("timestamp") {
        match time {
            StrictValue::Number(number) if number.as_f64().is_some_and(|n| n.fract() == 0.0) => {}
            _ => return Err(Malformed("the timestamp is no integer".to_owned())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_strictly() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let good = format!(
            r#"{{"critical":{{"type":"cosign container image signature","image":
            {{"docker-manifest-digest":"{digest}"}},"identity":{{"docker-reference":"h/x:1"}}}},
            "optional":null}}"#
        );
        let read = SignedPayload::read(good.as_bytes(), PayloadForm::Cosign).unwrap();
        assert_eq!((read.manifest.to_string(), read.identity.as_str()), (digest, "h/x:1"));
        assert!(SignedPayload::read(good.as_bytes(), PayloadForm::Simple).is_err());
        for (from, to) in [
            ("\"optional\":null", "\"optional\":[]"),
            ("\"optional\":null", "\"optional\":{\"timestamp\":1.5}"),
            ("\"optional\":null", "\"optional\":{\"creator\":1}"),
            ("\"optional\":null", "\"optional\":{},\"more\":1"),
            (",\n            \"optional\":null", ""),
            ("\"type\"", "\"kind\""),
            ("cosign container", "a container"),
            ("sha256:", "md5:"),
            ("\"docker-reference\":\"h/x:1\"", "\"docker-reference\":1"),
            ("\"docker-reference\"", "\"b\":\"c\",\"docker-reference\""),
        ] {
            let bad = good.replace(from, to);
            assert_ne!(bad, good, "{from}");
            assert!(SignedPayload::read(bad.as_bytes(), PayloadForm::Cosign).is_err(), "{bad}");
        }
        let fine = good.replace("null", "{\"creator\":\"x\",\"timestamp\":2,\"other\":[]}");
        assert!(SignedPayload::read(fine.as_bytes(), PayloadForm::Cosign).is_ok());
    }
}
