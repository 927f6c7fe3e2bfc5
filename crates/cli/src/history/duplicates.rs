//! `strata duplicates`: contents that are held more than once, and bytes held for nothing.
//!
//! Invariant: totals are of all there is, also where a table shows its first rows only.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Result;
use serde_json::{Value, json};
use strata_analysis::history::{
    Chain, Duplicate, Duplicates, Gone, Kept, Side, Waste, WastedFile, compare, content_of,
    duplicates,
};
use strata_image::{LayerSteps, resolve_image};
use strata_layer::Store;
use strata_tree::{ContentDigest, TreePath};

use super::DuplicatesArgs;
use super::words::{self, count, shown};
use crate::context::{Context, Format};
use crate::{table, units};

pub(crate) fn run(context: &Context, args: &DuplicatesArgs, out: &mut impl Write) -> Result<()> {
    let json = context.format == Format::Json;
    match (&args.image, &args.other) {
        (Some(one), Some(two)) => near(context, [one, two], args, json, out),
        (Some(image), None) => of_image(&context.store()?, image, args, json, out),
        (None, _) => {
            let found = duplicates(&context.store()?, args.limit)?;
            match json {
                true => Ok(writeln!(out, "{:#}", duplicates_json(&found))?),
                false => print_duplicates(&found, args, out),
            }
        }
    }
}

fn bytes(number: u64, args: &DuplicatesArgs) -> String {
    if args.no_trunc { number.to_string() } else { units::size(number) }
}

fn print_duplicates(found: &Duplicates, args: &DuplicatesArgs, out: &mut impl Write) -> Result<()> {
    if found.contents.is_empty() {
        return Ok(writeln!(out, "No content is in more than one file")?);
    }
    let mut rows = vec![["SAVED", "SIZE", "FILES", "NAMES", "CONTENT", "PATH"].map(str::to_owned)];
    for one in &found.contents {
        let more = one.names - one.paths.len().min(1) as u64;
        let path = one.paths.first().map(shown).unwrap_or_default();
        let digest = one.content.to_string();
        rows.push([
            bytes(one.saved(), args),
            bytes(one.size, args),
            one.files.to_string(),
            one.names.to_string(),
            if args.no_trunc { digest } else { one.content.hex()[..12].to_owned() },
            if more > 0 { format!("{path} and {more} more") } else { path },
        ]);
    }
    table::print(&rows, out)?;
    let saved: u64 = found.contents.iter().map(Duplicate::saved).sum();
    writeln!(
        out,
        "\n{} with several names; sharing saves {}, {} of it the above",
        count(found.count, "content"),
        bytes(found.saved, args),
        bytes(saved, args)
    )?;
    Ok(())
}

fn duplicates_json(found: &Duplicates) -> Value {
    let contents = found.contents.iter().map(|one| {
        json!({
            "content": one.content.to_string(),
            "size": one.size,
            "files": one.files,
            "names": one.names,
            "apart": one.apart(),
            "saved": one.saved(),
            "paths": one.paths.iter().map(words::path_json).collect::<Vec<_>>(),
        })
    });
    json!({
        "contents": contents.collect::<Vec<_>>(), "count": found.count, "saved": found.saved,
    })
}

fn of_image(
    store: &Store,
    reference: &str,
    args: &DuplicatesArgs,
    json: bool,
    out: &mut impl Write,
) -> Result<()> {
    let image = resolve_image(store, reference)?;
    let chain = Chain::open(store, &image.id)?;
    let waste = chain.waste(&image.id)?;
    let steps = words::steps(store, &image)?;
    let found = match args.waste {
        true => None,
        false => Some(chain.duplicates(args.limit)?),
    };
    if json {
        let found = found.as_ref().map(duplicates_json);
        let waste = waste_json(&waste, &steps, args.limit);
        return Ok(writeln!(out, "{:#}", json!({ "duplicates": found, "waste": waste }))?);
    }
    if !steps.certain {
        tracing::warn!("{reference}: {}", words::GUESSED);
    }
    if let Some(found) = &found {
        print_duplicates(found, args, out)?;
        writeln!(out)?;
    }
    print_waste(&waste, &steps, args, out)
}

/// Sums of wasted files.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    files: u64,
    bytes: u64,
}

impl Sum {
    fn of<'a>(files: impl Iterator<Item = &'a WastedFile>) -> Self {
        files.fold(Self::default(), |sum, file| Self {
            files: sum.files + 1,
            bytes: sum.bytes + file.bytes,
        })
    }

    fn json(self) -> Value {
        json!({ "files": self.files, "bytes": self.bytes })
    }
}

/// In words, as the tables and JSON name it.
fn how(file: &WastedFile) -> &'static str {
    match &file.how {
        Gone::Deleted { .. } => "deleted",
        Gone::Rewritten(_) if file.how.is_metadata_only() => "metadata",
        Gone::Rewritten(_) => "rewritten",
    }
}

const HOWS: [(&str, &str); 3] = [
    ("deleted", "deleted by a later layer"),
    ("rewritten", "written again with another content"),
    ("metadata", "written again for mode, owner, attributes or time alone"),
];

const KEPTS: [(Kept, &str); 3] = [
    (Kept::Here, "the image shows the same content elsewhere: the store has it once"),
    (Kept::Elsewhere, "another image holds it"),
    (Kept::Nowhere, "stored for nothing"),
];

/// The sums for each pair of layers, the largest first.
fn by_layers(waste: &Waste) -> Vec<((usize, usize), Sum)> {
    let mut pairs: BTreeMap<(usize, usize), Sum> = BTreeMap::new();
    for file in &waste.files {
        let sum = pairs.entry((file.added, file.removed)).or_default();
        *sum = Sum { files: sum.files + 1, bytes: sum.bytes + file.bytes };
    }
    let mut pairs: Vec<_> = pairs.into_iter().collect();
    pairs.sort_by_key(|(pair, sum)| (std::cmp::Reverse(sum.bytes), *pair));
    pairs
}

fn print_waste(
    waste: &Waste,
    steps: &LayerSteps,
    args: &DuplicatesArgs,
    out: &mut impl Write,
) -> Result<()> {
    writeln!(
        out,
        "The layers hold {}, the image shows {}: {} ({}) is wasted",
        bytes(waste.total, args),
        bytes(waste.total - waste.wasted, args),
        bytes(waste.wasted, args),
        units::percent(waste.wasted, waste.total)
    )?;
    if waste.files.is_empty() {
        return Ok(writeln!(out, "Nothing is wasted")?);
    }
    let mut rows = vec![["WASTED", "FILES", "WHY"].map(str::to_owned)];
    for (word, text) in HOWS {
        let sum = Sum::of(waste.files.iter().filter(|file| how(file) == word));
        rows.push([bytes(sum.bytes, args), sum.files.to_string(), text.to_owned()]);
    }
    let all = Sum::of(waste.files.iter());
    rows.push([bytes(all.bytes, args), all.files.to_string(), "together, of which".to_owned()]);
    for (kept, text) in KEPTS {
        let sum = Sum::of(waste.files.iter().filter(|file| file.kept == kept));
        rows.push([bytes(sum.bytes, args), sum.files.to_string(), format!("  {text}")]);
    }
    table::print(&rows, out)?;
    writeln!(out)?;
    let step =
        |layer: usize| format!("{layer}: {}", words::command(&steps.steps[layer], args.no_trunc));
    let mut rows =
        vec![["WASTED", "FILES", "ADDED BY LAYER", "TAKEN AWAY BY LAYER"].map(str::to_owned)];
    let pairs = by_layers(waste);
    for ((added, removed), sum) in pairs.iter().take(args.limit) {
        let (bytes, files) = (bytes(sum.bytes, args), sum.files.to_string());
        rows.push([bytes, files, step(*added), step(*removed)]);
    }
    table::print(&rows, out)?;
    writeln!(out)?;
    let mut rows = vec![["SIZE", "LAYERS", "HOW", "STORED", "PATH"].map(str::to_owned)];
    for file in waste.files.iter().take(args.limit) {
        rows.push([
            bytes(file.bytes, args),
            format!("{} -> {}", file.added, file.removed),
            match &file.how {
                Gone::Rewritten(facts) if facts.is_empty() => "rewritten, the same".to_owned(),
                Gone::Rewritten(facts) => {
                    format!("rewritten: {}", facts.words().collect::<Vec<_>>().join(", "))
                }
                Gone::Deleted { by, at } => words::removal("deleted", &file.path, *by, at),
            },
            match file.kept {
                Kept::Here => "for the image",
                Kept::Elsewhere => "for others",
                Kept::Nowhere => "for nothing",
            }
            .to_owned(),
            shown(&file.path),
        ]);
    }
    table::print(&rows, out)?;
    let more = waste.files.len().saturating_sub(args.limit);
    if more > 0 {
        writeln!(out, "and {more} more (--limit N)")?;
    }
    Ok(())
}

fn waste_json(waste: &Waste, steps: &LayerSteps, limit: usize) -> Value {
    let files = waste.files.iter().take(limit).map(|file| {
        json!({
            "path": words::path_json(&file.path),
            "bytes": file.bytes,
            "content": file.content.to_string(),
            "added": file.added,
            "removed": file.removed,
            "how": how(file),
            "facts": match &file.how {
                Gone::Rewritten(facts) => Some(facts.words().collect::<Vec<_>>()),
                Gone::Deleted { .. } => None,
            },
            "by": match &file.how {
                Gone::Deleted { by, .. } => Some(words::reason(*by)),
                Gone::Rewritten(_) => None,
            },
            "kept": file.kept.word(),
        })
    });
    let how_sums: serde_json::Map<String, Value> = HOWS
        .iter()
        .map(|(word, _)| {
            let sum = Sum::of(waste.files.iter().filter(|file| how(file) == *word));
            ((*word).to_owned(), sum.json())
        })
        .collect();
    let kept_sums: serde_json::Map<String, Value> = KEPTS
        .iter()
        .map(|(kept, _)| {
            let sum = Sum::of(waste.files.iter().filter(|file| file.kept == *kept));
            (kept.word().to_owned(), sum.json())
        })
        .collect();
    let pairs = by_layers(waste).into_iter().map(|((added, removed), sum)| {
        json!({ "added": added, "removed": removed, "files": sum.files, "bytes": sum.bytes })
    });
    json!({
        "total": waste.total,
        "wasted": waste.wasted,
        "efficiency": waste.efficiency(),
        "dive_efficiency": waste.dive,
        "count": waste.files.len(),
        "how": how_sums,
        "kept": kept_sums,
        "layers": pairs.collect::<Vec<_>>(),
        "steps": steps.steps.iter().map(words::step_json).collect::<Vec<_>>(),
        "history_fits": steps.certain,
        "files": files.collect::<Vec<_>>(),
    })
}

/// A path whose contents differ in two images.
struct Near {
    path: TreePath,
    sizes: [u64; 2],
    contents: [Option<ContentDigest>; 2],
}

/// Files of one path whose contents differ.
fn near(
    context: &Context,
    images: [&String; 2],
    args: &DuplicatesArgs,
    json: bool,
    out: &mut impl Write,
) -> Result<()> {
    let opened = [context.open_image(images[0])?, context.open_image(images[1])?];
    let store = context.store()?;
    let chains =
        [Chain::open(&store, &opened[0].record.id)?, Chain::open(&store, &opened[1].record.id)?];
    let side = |at: usize| Side { tree: &*opened[at].tree, chain: &chains[at] };
    let mut found: Vec<Near> = Vec::new();
    let mut failed = None;
    compare(side(0), side(1), &TreePath::root(), &mut |one| {
        let (Some(old), Some(new), true) = (one.old, one.new, one.facts.content) else {
            return true;
        };
        match (content_of(side(0), &old), content_of(side(1), &new)) {
            (Ok(a), Ok(b)) => {
                let (sizes, contents) = ([old.stat.size, new.stat.size], [a, b]);
                found.push(Near { path: one.path, sizes, contents });
            }
            (Err(error), _) | (_, Err(error)) => failed = Some(error),
        }
        failed.is_none()
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    let total = |at: usize| found.iter().map(|one| one.sizes[at]).sum::<u64>();
    let (files, totals) = (found.len() as u64, [total(0), total(1)]);
    found.sort_by(|a, b| {
        let size = |one: &Near| one.sizes[0] + one.sizes[1];
        size(b).cmp(&size(a)).then_with(|| a.path.cmp(&b.path))
    });
    found.truncate(args.limit);
    if json {
        let rows = found.iter().map(|one| {
            json!({
                "path": words::path_json(&one.path),
                "sizes": one.sizes,
                "contents": one.contents.map(|content| content.map(|digest| digest.to_string())),
            })
        });
        let rows: Vec<_> = rows.collect();
        let value = json!({ "count": files, "bytes": totals, "files": rows });
        return Ok(writeln!(out, "{value:#}")?);
    }
    if files == 0 {
        return Ok(writeln!(out, "No file is in both images with another content")?);
    }
    let mut rows = vec![["SIZE", "SIZE2", "CONTENT", "CONTENT2", "PATH"].map(str::to_owned)];
    for one in &found {
        let digest = |at: usize| match one.contents[at] {
            Some(digest) if args.no_trunc => digest.to_string(),
            Some(digest) => digest.hex()[..12].to_owned(),
            None => "-".to_owned(),
        };
        let (a, b) = (bytes(one.sizes[0], args), bytes(one.sizes[1], args));
        rows.push([a, b, digest(0), digest(1), shown(&one.path)]);
    }
    table::print(&rows, out)?;
    writeln!(
        out,
        "\n{} with another content: {} in {}, {} in {}",
        count(files, "file"),
        bytes(totals[0], args),
        images[0],
        bytes(totals[1], args),
        images[1]
    )?;
    Ok(())
}
