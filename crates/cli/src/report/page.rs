//! The page's text: a frame of markup with data, style, script and charts put in.
//!
//! The model: the assets are written by hand and compiled in; the data is the only thing that
//! differs. It stands in a script element of a type that no browser runs, as JSON in which `<`,
//! `>` and `&` are escaped, so that nothing in it can end the element or open a comment.
//!
//! Invariant: the policy (Content-Security-Policy) allows the scripts and styles with the digests
//! of those of this page and refuses all else: other scripts, pictures, connections, frames, forms.

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::data::PageData;
use super::wording::of_hosts;

pub(super) const FRAME: &str = include_str!("assets/page.html");
const STYLE: &str = include_str!("assets/style.css");
const CHARTS: &str = include_str!("assets/echarts.min.js");

/// One script of the page; they share their names, so they are one for the browser too.
pub(super) const SCRIPT: &str = concat!(
    "\"use strict\";(() => {\n",
    include_str!("assets/text.js"),
    include_str!("assets/theme.js"),
    include_str!("assets/map.js"),
    include_str!("assets/sections.js"),
    include_str!("assets/main.js"),
    "})();\n",
);

/// The whole page.
pub(super) fn page(report: &PageData) -> Result<String> {
    let data = embedded(&serde_json::to_string(report)?);
    let (frame, script) = match report.hosts {
        true => (of_hosts(FRAME), of_hosts(SCRIPT)),
        false => (FRAME.to_owned(), SCRIPT.to_owned()),
    };
    let policy = format!(
        "default-src 'none'; script-src {} {}; style-src {}; img-src data:; base-uri 'none'; \
         form-action 'none'",
        source(CHARTS),
        source(&script),
        source(STYLE),
    );
    let parts = [
        ("{{policy}}", policy.as_str()),
        ("{{style}}", STYLE),
        ("{{data}}", data.as_str()),
        ("{{charts}}", CHARTS),
        ("{{script}}", script.as_str()),
    ];
    let mut page = String::with_capacity(frame.len() + CHARTS.len() + script.len() + data.len());
    let mut rest = frame.as_str();
    for (mark, part) in parts {
        let found = rest.split_once(mark);
        ensure!(found.is_some(), "the page's frame lacks {mark}");
        let (before, after) = found.unwrap_or((rest, ""));
        page.push_str(before);
        page.push_str(part);
        rest = after;
    }
    page.push_str(rest);
    Ok(page)
}

/// How a policy names an inline script or style (CSP level 3, section 2.3.1).
fn source(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text.as_bytes())))
}

/// JSON that can stand in a script element. These characters are in JSON's strings alone.
fn embedded(json: &str) -> String {
    json.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_cannot_end_its_element() {
        let json = serde_json::to_string(&["</script><!-- &amp;"]).unwrap();
        let embedded = embedded(&json);
        assert!(!embedded.contains(['<', '>', '&']));
        let read: [String; 1] = serde_json::from_str(&embedded).unwrap();
        assert_eq!(read, ["</script><!-- &amp;"]);
    }

    #[test]
    fn assets_stay_within_their_elements() {
        for script in [CHARTS, SCRIPT] {
            let lower = script.to_ascii_lowercase();
            assert!(!lower.contains("</script") && !lower.contains("<!--"));
        }
        assert!(!STYLE.to_ascii_lowercase().contains("</style"));
        for text in [FRAME, STYLE, SCRIPT] {
            assert!(!text.contains("http:") && !text.contains("https:"), "nothing is fetched");
        }
    }
}
