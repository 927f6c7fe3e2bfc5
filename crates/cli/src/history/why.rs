//! `strata why`: the life of a path.
//!
//! Invariants: the path is resolved as the image's root would resolve it, and every link on the way
//! is shown; if nothing ever was at the end of that way but something was at the path as it is
//! written, that is shown instead.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use strata_analysis::history::{
    Chain, Detour, Happened, Life, LifeEvent, NodeFacts, Occurrences, occurrences,
};
use strata_image::{LayerSteps, resolve_image};
use strata_layer::{HeldImage, ImageRecord, Store};
use strata_tree::{Kind, TreePath};

use super::WhyArgs;
use super::words::{self, shown};
use crate::context::{Context, Format};
use crate::look::{RefPath, escaped, mode_string, short_time};
use crate::{table, units};

/// Everything that is said.
struct Told<'a> {
    reference: &'a str,
    image: ImageRecord,
    detour: Detour,
    life: Life,
    steps: LayerSteps,
    holders: Option<Occurrences>,
    names: words::Names,
    /// What engines have of it that no image has, as people know it.
    engines: Vec<String>,
}

pub(crate) fn run(context: &Context, args: &WhyArgs, out: &mut impl Write) -> Result<()> {
    let store = context.store()?;
    let told = ask(&store, args)?;
    if !told.steps.certain && context.format != Format::Json {
        tracing::warn!("{}: {}", told.reference, words::GUESSED);
    }
    match context.format == Format::Json {
        true => Ok(writeln!(out, "{:#}", json_of(&told))?),
        false => print(&told, args, out),
    }
}

fn ask<'a>(store: &Store, args: &'a WhyArgs) -> Result<Told<'a>> {
    let reference = args.image.reference();
    let text = match (&args.path, args.image.has_path()) {
        (Some(path), false) => path.as_bytes(),
        (None, true) => args.image.path(),
        (Some(_), true) => bail!("the path is said twice: in {} and behind it", args.image),
        (None, false) => bail!("no path is named; write: strata why {reference} /PATH"),
    };
    if let Err(error) = TreePath::clamped(text) {
        bail!("{} cannot be a path of an image: {error}", escaped(text));
    }
    let image = resolve_image(store, reference)?;
    let chain = Chain::open(store, &image.id)?;
    let (detour, life) = chain.life_of(text, args.dereference)?;
    if detour.endless {
        bail!("{}: too many levels of symbolic links in {reference}", escaped(text));
    }
    if life.events.is_empty() {
        return Err(never(&chain, &args.image, &detour)?);
    }
    let last = life.events.iter().rev().find_map(|event| event.node.as_ref());
    let content = life.now.as_ref().or(last).and_then(|facts| facts.content);
    let holders = content.map(|content| occurrences(store, &content, args.names)).transpose()?;
    let (steps, names) = (words::steps(store, &image)?, words::Names::of(store)?);
    let layers = holders.as_ref().map(|holders| &holders.layers[..]).unwrap_or_default();
    let beside = store.held_images()?.beside(&store.images().all()?);
    let has_it = |held: &&HeldImage| held.layers.iter().any(|layer| layers.contains(layer));
    let engines = beside.iter().filter(has_it).map(HeldImage::shown).collect();
    Ok(Told { reference, image, detour, life, steps, holders, names, engines })
}

/// The error about a path that never was.
fn never(chain: &Chain<'_>, image: &RefPath, detour: &Detour) -> Result<anyhow::Error> {
    let near: Vec<String> = chain.near(&detour.path)?.iter().map(shown).collect();
    let near = match near.is_empty() {
        true => format!("`strata ls {}:/` shows what there is", image.reference()),
        false => format!("there is or was {}", near.join(", ")),
    };
    let (path, reference) = (shown(&detour.path), image.reference());
    Ok(anyhow::anyhow!("no layer of {reference} has or had {path}; {near}"))
}

fn print(told: &Told<'_>, args: &WhyArgs, out: &mut impl Write) -> Result<()> {
    let path = &told.life.path;
    for (link, target) in &told.detour.links {
        writeln!(out, "{} is a symbolic link to {}", shown(link), escaped(target))?;
    }
    let mut rows =
        vec![["LAYER", "DIFF ID", "WHAT HAPPENS", "STEP", "CREATED BY"].map(str::to_owned)];
    let mut was: Option<&NodeFacts> = None;
    for event in &told.life.events {
        let step = &told.steps.steps[event.layer];
        let mut what = happened(path, event, was);
        if event.below != Default::default() && event.what != Happened::Below {
            what = format!("{what}; {}", below(event));
        }
        rows.push([
            event.layer.to_string(),
            if args.no_trunc { step.diff_id.to_string() } else { step.diff_id.short() },
            what,
            step.number.map_or_else(|| "-".to_owned(), |number| number.to_string()),
            words::command(step, args.no_trunc),
        ]);
        if event.what != Happened::Below {
            was = event.node.as_ref();
        }
    }
    table::print(&rows, out)?;
    writeln!(out)?;
    match &told.life.now {
        Some(now) => {
            let stat = &now.stat;
            writeln!(
                out,
                "{} is in the image: {}, {} {}:{} {}",
                shown(path),
                words::node(now),
                mode_string(stat),
                stat.uid,
                stat.gid,
                short_time(stat.mtime)
            )?;
        }
        None => writeln!(out, "{} is not in the image", shown(path))?,
    }
    let links: Vec<_> = told.life.names.iter().filter(|name| *name != path).collect();
    if !links.is_empty() {
        let shown: Vec<_> = links.iter().take(args.names).map(|name| shown(name)).collect();
        let more = links.len() - shown.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        writeln!(out, "Hard links: {}{more}", shown.join(", "))?;
    }
    match &told.holders {
        Some(holders) => print_holders(told, holders, args, out),
        None => Ok(()),
    }
}

fn print_holders(
    told: &Told<'_>,
    holders: &Occurrences,
    args: &WhyArgs,
    out: &mut impl Write,
) -> Result<()> {
    let last = told.life.events.iter().rev().find_map(|event| event.node.as_ref());
    let Some(facts) = told.life.now.as_ref().or(last) else { return Ok(()) };
    let Some(content) = facts.content else { return Ok(()) };
    writeln!(out, "Content: {content}, {}", units::size(facts.stat.size))?;
    let others = holders.images.iter().filter(|image| **image != told.image.id);
    let mut others: Vec<String> = others.map(|image| told.names.name(image)).collect();
    others.sort();
    others.extend(told.engines.iter().cloned());
    let more = others.len().saturating_sub(args.names);
    others.truncate(args.names);
    if more > 0 {
        others.push(format!("{more} more"));
    }
    let others = match others.is_empty() {
        true => "no other image".to_owned(),
        false => format!("also {}", others.join(", ")),
    };
    writeln!(
        out,
        "Held by: {others}; {} in {}",
        words::count(holders.names, "name"),
        words::count(holders.layers.len() as u64, "layer")
    )?;
    if holders.names > 1 {
        for (layer, path) in &holders.paths {
            writeln!(out, "  {} {}", layer.short(), shown(path))?;
        }
        let more = holders.names - holders.paths.len() as u64;
        if more > 0 {
            writeln!(out, "  and {more} more (--names N)")?;
        }
    }
    Ok(())
}

fn happened(path: &TreePath, event: &LifeEvent, was: Option<&NodeFacts>) -> String {
    let node = event.node.as_ref();
    let mut text = match &event.what {
        Happened::Below => return below(event),
        Happened::Added { again } => {
            let word = if *again { "added again" } else { "added" };
            format!("{word}: {}", node.map(words::node).unwrap_or_default())
        }
        Happened::Changed(facts) if facts.is_empty() => {
            match node.is_some_and(|node| node.stat.kind == Kind::Directory) {
                true => "said again, the same".to_owned(),
                false => "written again, the same".to_owned(),
            }
        }
        Happened::Changed(facts) => match (was, node) {
            (Some(was), Some(now)) => format!("changed: {}", words::changes(*facts, was, now)),
            _ => format!("changed: {}", facts.words().collect::<Vec<_>>().join(", ")),
        },
        Happened::Removed { by, at } => words::removal("removed", path, *by, at),
    };
    match (event.linked_from, &event.links[..]) {
        (Some(layer), [link, ..]) => {
            text += &format!(", hard link to {} of layer {layer}", shown(link))
        }
        (Some(layer), []) => text += &format!(", hard link to this name in layer {layer}"),
        (None, [link]) => text += &format!(", hard link with {}", shown(link)),
        (None, [link, more @ ..]) => {
            text += &format!(", hard link with {} and {} more", shown(link), more.len());
        }
        (None, []) => {}
    }
    text
}

fn below(event: &LifeEvent) -> String {
    let tally = event.below;
    let numbers = [
        (tally.added, "added"),
        (tally.changed, "changed"),
        (tally.again, "said again"),
        (tally.removed, "removed"),
    ];
    let numbers = numbers.into_iter().filter(|(number, _)| *number > 0);
    let numbers: Vec<_> = numbers.map(|(number, word)| format!("{number} {word}")).collect();
    format!("below it {}", numbers.join(", "))
}

fn json_of(told: &Told<'_>) -> Value {
    let path = &told.life.path;
    let events = told.life.events.iter().map(|event| {
        let step = &told.steps.steps[event.layer];
        let (what, facts, by, at) = match &event.what {
            Happened::Added { again: false } => ("added", None, None, None),
            Happened::Added { again: true } => ("added again", None, None, None),
            Happened::Changed(facts) => {
                ("changed", Some(facts.words().collect::<Vec<_>>()), None, None)
            }
            Happened::Removed { by, at } => ("removed", None, Some(words::reason(*by)), Some(at)),
            Happened::Below => ("below", None, None, None),
        };
        json!({
            "what": what,
            "facts": facts,
            "by": by,
            "at": at.map(words::path_json),
            "node": event.node.as_ref().map(words::node_json),
            "links": event.links.iter().map(words::path_json).collect::<Vec<_>>(),
            "linked_from": event.linked_from,
            "below": {
                "added": event.below.added,
                "changed": event.below.changed,
                "again": event.below.again,
                "removed": event.below.removed,
            },
            "step": words::step_json(step),
        })
    });
    let holders = told.holders.as_ref().map(|holders| {
        let images = holders.images.iter();
        let images = images.map(|id| json!({ "id": id.to_string(), "name": told.names.name(id) }));
        let paths = holders.paths.iter();
        let paths = paths.map(
            |(layer, path)| json!({ "diff_id": layer.to_string(), "path": words::path_json(path) }),
        );
        json!({
            "names": holders.names,
            "layers": holders.layers.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "images": images.collect::<Vec<_>>(),
            "engines": told.engines,
            "paths": paths.collect::<Vec<_>>(),
        })
    });
    let detour = told.detour.links.iter().map(|(link, target)| {
        json!({ "link": words::path_json(link), "target": String::from_utf8_lossy(target) })
    });
    json!({
        "image": told.image.id.to_string(),
        "path": words::path_json(path),
        "detour": detour.collect::<Vec<_>>(),
        "history_fits": told.steps.certain,
        "events": events.collect::<Vec<_>>(),
        "now": told.life.now.as_ref().map(words::node_json),
        "names": told.life.names.iter().map(words::path_json).collect::<Vec<_>>(),
        "holders": holders,
    })
}
