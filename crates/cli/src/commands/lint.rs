//! `strata lint`: which entries of an image programs disagree on.
//!
//! Invariants: nothing is stored and nothing unpacked; what is allowed is counted, never silent.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum, ValueHint};
use glob::Pattern;
use serde_json::{Value, json};
use strata_analysis::lint::{CHECKS, ImageLint, LintClass, LintFinding, ReadThrough};
use strata_image::{OpenSource, SourceSpec, UnverifiedLayer, resolve_image};
use strata_layer::{Error as StoreError, LayerInput, LeasedLayer};

use crate::context::{Context, Format};
use crate::limits::{LayerLimitArgs, SourceLimitArgs};
use crate::{progress, table};

/// Say which entries of images programs disagree on, and what some cannot keep
///
/// The headers of every layer are read once, and nothing is unpacked; of a plain layer in a file
/// the contents are not even read, so digests are compared only with --verify.
///
/// A finding is an entry of a layer, with what it costs: security, data-loss, metadata, privilege
/// (an ordinary user cannot unpack it as it is) or space (a later layer hides it). What programs do
/// was seen with strata-conform; the guide has the page.
#[derive(Debug, Args)]
pub(crate) struct LintArgs {
    /// Names or ids of the store; or archives and layouts, as for `strata load`
    #[arg(required_unless_present = "checks", value_name = "IMAGE|SOURCE")]
    images: Vec<String>,
    /// Exit with 1 if there is a finding of this class or a graver one
    #[arg(long, value_name = "CLASS", default_value = "data-loss")]
    fail_on: FailOn,
    /// Leave out findings of this check; with a pattern, those whose path it matches
    #[arg(long, value_name = "CHECK[=PATTERN]")]
    allow: Vec<Allowed>,
    /// Leave out what the lines of FILE allow; a # begins a comment
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    allow_file: Option<PathBuf>,
    /// Print every finding, not the first ten of each check
    #[arg(short, long)]
    all: bool,
    /// Read every byte, and compare the digests that the image names
    #[arg(long)]
    verify: bool,
    /// List the checks
    #[arg(long)]
    checks: bool,
    /// Whether JSON is SARIF: `--format sarif`.
    #[arg(skip)]
    pub(crate) is_sarif: bool,
    #[command(flatten)]
    layer_limits: LayerLimitArgs,
    #[command(flatten)]
    source_limits: SourceLimitArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FailOn {
    Security,
    DataLoss,
    Metadata,
    Privilege,
    Space,
    Never,
}

impl FailOn {
    fn is_met(self, class: LintClass) -> bool {
        match self {
            Self::Security => class <= LintClass::Security,
            Self::DataLoss => class <= LintClass::DataLoss,
            Self::Metadata => class <= LintClass::Metadata,
            Self::Privilege => class <= LintClass::Privilege,
            Self::Space => class <= LintClass::Space,
            Self::Never => false,
        }
    }
}

/// Findings that are known: a check, and perhaps a pattern of paths.
#[derive(Debug, Clone)]
struct Allowed {
    check: String,
    paths: Option<Pattern>,
}

impl std::str::FromStr for Allowed {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (check, paths) = match text.split_once('=') {
            Some((check, pattern)) => (check, Some(pattern)),
            None => (text, None),
        };
        if !CHECKS.iter().any(|known| known.id == check) {
            return Err(format!("{check} is no check; `strata lint --checks` lists all"));
        }
        let paths = paths.map(Pattern::new).transpose().map_err(|error| error.to_string())?;
        Ok(Self { check: check.to_owned(), paths })
    }
}

impl Allowed {
    fn matches(&self, finding: &LintFinding) -> bool {
        let path = String::from_utf8_lossy(&finding.path);
        self.check == finding.check.id
            && self.paths.as_ref().is_none_or(|pattern| pattern.matches(&path))
    }
}

/// What was found in one image.
struct LintedImage {
    name: String,
    findings: Vec<LintFinding>,
    allowed: usize,
}

pub(crate) fn run_lint(context: &Context, args: &LintArgs, out: &mut impl Write) -> Result<()> {
    if args.checks {
        return checks(context, out);
    }
    let allowed = allowed(args)?;
    let mut images = Vec::new();
    for text in &args.images {
        let found = match is_source(text) {
            true => of_source(context, args, text)?,
            false => vec![of_store(context, args, text)?],
        };
        for (name, findings) in found {
            let before = findings.len();
            let is_left = |finding: &LintFinding| !allowed.iter().any(|one| one.matches(finding));
            let findings: Vec<_> = findings.into_iter().filter(is_left).collect();
            let allowed = before - findings.len();
            images.push(LintedImage { name, findings, allowed });
        }
    }
    match context.format {
        Format::Json if args.is_sarif => writeln!(out, "{:#}", sarif(&images, args.verify))?,
        Format::Json => writeln!(out, "{:#}", json(&images, args.verify))?,
        Format::Table | Format::Template(_) => print(&images, args, out)?,
    }
    let all = images.iter().flat_map(|image| &image.findings);
    let grave = all.filter(|finding| args.fail_on.is_met(finding.check.class)).count();
    if grave > 0 {
        out.flush()?;
        bail!("{grave} findings are of the class of --fail-on or a graver one");
    }
    Ok(())
}

/// What the options and the file allow.
fn allowed(args: &LintArgs) -> Result<Vec<Allowed>> {
    let mut all = args.allow.clone();
    if let Some(file) = &args.allow_file {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                let one = line.parse::<Allowed>().map_err(anyhow::Error::msg);
                all.push(one.with_context(|| format!("{}:{}", file.display(), number + 1))?);
            }
        }
    }
    Ok(all)
}

/// Whether the text names something outside of the store: a file, or a transport and a place.
fn is_source(text: &str) -> bool {
    let transports = ["oci:", "oci-archive:", "docker-archive:", "dir:"];
    text == "-" || Path::new(text).exists() || transports.iter().any(|one| text.starts_with(one))
}

fn of_source(
    context: &Context,
    args: &LintArgs,
    text: &str,
) -> Result<Vec<(String, Vec<LintFinding>)>> {
    let spec: SourceSpec = text.parse()?;
    let limits = args.source_limits.limits(&args.layer_limits);
    let scratch = || context.scratch();
    let source = OpenSource::open(&spec, None, &scratch, &limits)?;
    let listener = progress::listener(context.shown);
    let mut found = Vec::new();
    for image in source.images() {
        let mut lint = ImageLint::new();
        for position in 0..image.diff_ids().len() {
            let limits = args.layer_limits.limits();
            let judged = if args.verify {
                lint.layer(image.layer(position)?, &limits, &*listener)
            } else {
                let UnverifiedLayer { label, size, reader } = image.unverified(position)?;
                lint.headers(label, reader, Some(size), &limits, &*listener)
            };
            judged.map_err(|error| image.refused(position, error))?;
            lint.media_type(image.media_type(position));
        }
        let names: Vec<String> = image.names().iter().map(|name| name.familiar()).collect();
        let name = if names.is_empty() { text.to_owned() } else { names.join(", ") };
        found.push((name, lint.finish()));
    }
    Ok(found)
}

fn of_store(context: &Context, args: &LintArgs, text: &str) -> Result<(String, Vec<LintFinding>)> {
    let store = context.store()?;
    let image = resolve_image(&store, text)?;
    let (_image, layers) = store.lease_image(&image.id)?;
    let listener = progress::listener(context.shown);
    let mut lint = ImageLint::new();
    for layer in &layers {
        let read = |reader: Box<dyn Read + Send + '_>| {
            let label = layer.diff_id().short();
            let limits = args.layer_limits.limits();
            if args.verify {
                let diff_id = Some(*layer.diff_id());
                let input = LayerInput { label, diff_id, blob: None, reader };
                lint.layer(input, &limits, &*listener)
            } else {
                lint.headers(label, Box::new(ReadThrough(reader)), None, &limits, &*listener)
            }
        };
        with_tar(layer, read)?;
    }
    Ok((text.to_owned(), lint.finish()))
}

/// Calls `read` with the exact tar of a layer, which another thread writes into a pipe.
fn with_tar<T>(
    layer: &LeasedLayer,
    read: impl FnOnce(Box<dyn Read + Send + '_>) -> strata_layer::Result<T>,
) -> Result<T> {
    let (from, mut to) = std::io::pipe().context("cannot make a pipe")?;
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || layer.write_diff(&mut to));
        let done = read(Box::new(from));
        match writer.join() {
            // A reader that stops early has closed the pipe, and knows why.
            Ok(Err(error)) if !is_closed_pipe(&error) => Err(error.into()),
            Ok(_) => Ok(done?),
            Err(_) => bail!("the thread that rebuilds a layer has failed"),
        }
    })
}

fn is_closed_pipe(error: &StoreError) -> bool {
    matches!(error, StoreError::Io { source, .. } if source.kind() == ErrorKind::BrokenPipe)
}

fn checks(context: &Context, out: &mut impl Write) -> Result<()> {
    if context.format == Format::Json {
        let all = CHECKS.iter().map(|check| {
            let (class, what, who) = (check.class.name(), check.what, check.who);
            json!({"check": check.id, "class": class, "what": what, "who": who})
        });
        writeln!(out, "{:#}", Value::Array(all.collect()))?;
        return Ok(());
    }
    let heading = ["CHECK", "CLASS", "WHAT", "WHO DOES WHAT"].map(str::to_owned);
    let rows = CHECKS
        .iter()
        .map(|check| [check.id, check.class.name(), check.what, check.who].map(str::to_owned));
    let rows: Vec<_> = std::iter::once(heading).chain(rows).collect();
    table::print(&rows, out)
}

/// How many findings of a check are printed without `--all`.
const SHOWN: usize = 10;

fn print(images: &[LintedImage], args: &LintArgs, out: &mut impl Write) -> Result<()> {
    for image in images {
        writeln!(out, "{}", image.name)?;
        let mut by_check: BTreeMap<(LintClass, &str), Vec<&LintFinding>> = BTreeMap::new();
        for finding in &image.findings {
            by_check.entry((finding.check.class, finding.check.id)).or_default().push(finding);
        }
        for ((class, id), findings) in by_check {
            let check = findings[0].check;
            writeln!(out, "\n  {id} ({}): {}; {}", class.name(), check.what, check.who)?;
            let shown = if args.all { findings.len() } else { SHOWN };
            for finding in findings.iter().take(shown) {
                let path = finding.path.escape_ascii().to_string();
                let line = format!("{}  {path}  {}", finding.layer, finding.detail);
                writeln!(out, "    {}", line.trim_end())?;
            }
            let left = findings.len().saturating_sub(shown);
            if left > 0 {
                writeln!(out, "    and {left} more; --all prints them")?;
            }
        }
        let count = image.findings.len();
        let allowed = match image.allowed {
            0 => String::new(),
            allowed => format!(", {allowed} allowed"),
        };
        let digests = if args.verify { "verified" } else { "not compared (--verify)" };
        writeln!(out, "\n  {count} findings{allowed}; digests {digests}")?;
    }
    Ok(())
}

fn json(images: &[LintedImage], is_verified: bool) -> Value {
    let all = images.iter().map(|image| {
        let findings = image.findings.iter().map(|finding| {
            json!({
                "check": finding.check.id,
                "class": finding.check.class.name(),
                "layer": finding.layer,
                "path": finding.path.escape_ascii().to_string(),
                "detail": finding.detail,
                "bytes": finding.bytes,
            })
        });
        let findings: Vec<Value> = findings.collect();
        json!({
            "image": image.name,
            "verified": is_verified,
            "allowed": image.allowed,
            "findings": findings,
        })
    });
    Value::Array(all.collect())
}

/// SARIF 2.1.0 (OASIS): one run, a rule for each check, a result for each finding.
fn sarif(images: &[LintedImage], is_verified: bool) -> Value {
    let rules = CHECKS.iter().map(|check| {
        json!({
            "id": check.id,
            "shortDescription": {"text": check.what},
            "fullDescription": {"text": check.who},
            "properties": {"tags": [check.class.name()]},
        })
    });
    let rules: Vec<Value> = rules.collect();
    let results = images.iter().flat_map(|image| {
        image.findings.iter().map(|finding| {
            let path = finding.path.escape_ascii().to_string();
            let level = match finding.check.class {
                LintClass::Security | LintClass::DataLoss => "error",
                LintClass::Metadata => "warning",
                LintClass::Privilege | LintClass::Space => "note",
            };
            let text = format!("{path}: {} {}", finding.check.what, finding.detail);
            json!({
                "ruleId": finding.check.id,
                "level": level,
                "message": {"text": text.trim_end()},
                "locations": [{
                    "physicalLocation": {"artifactLocation": {"uri": uri(&finding.path)}},
                    "logicalLocations": [
                        {"fullyQualifiedName": format!("{}/{}", image.name, finding.layer)},
                    ],
                }],
            })
        })
    });
    let results: Vec<Value> = results.collect();
    let driver = json!({
        "name": "strata lint", "version": env!("CARGO_PKG_VERSION"), "rules": rules,
    });
    json!({
        "version": "2.1.0",
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "runs": [{
            "tool": {"driver": driver},
            "results": results,
            "properties": {"verified": is_verified},
        }],
    })
}

/// A path as a relative URI (RFC 3986): what is not unreserved is percent-encoded.
fn uri(path: &[u8]) -> String {
    let mut text = String::new();
    for byte in path {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                text.push(char::from(*byte));
            }
            byte => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}
