//! `strata diff IMAGE1 IMAGE2 [PATH]`.
//!
//! Invariants: a time alone is no difference unless asked for: an image that is built again has new
//! times everywhere, and nothing runs differently because of them; directories are compared name by
//! name, a file that is named itself is compared line by line.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use strata_analysis::history::{
    Chain, ChangedFacts, Difference, NameChange, NameEvent, NodeFacts, Side, compare, content_of,
};
use strata_layer::Store;
use strata_tree::{Entry, Follow, Kind, Lower, Node, TreePath, resolve};

use super::stat::DiffStat;
use super::text::{self, File};
use super::words::{self, shown};
use super::{DiffOptions, Differs};
use stratafs::OpenImage;

use crate::context::{Context, Format};

/// Both images, opened.
struct Both<'a> {
    names: [&'a str; 2],
    images: [OpenImage; 2],
    store: &'a Store,
}

pub(crate) fn run(
    context: &Context,
    images: [&str; 2],
    path: Option<&OsStr>,
    args: &DiffOptions,
    terminal: bool,
    out: &mut impl Write,
) -> Result<()> {
    let store = context.store()?;
    let opened = [context.open_image(images[0])?, context.open_image(images[1])?];
    let both = Both { names: images, images: opened, store: &store };
    let json = context.format == Format::Json;
    let differs = both.run(path.map(OsStr::as_bytes), args, json, terminal, out)?;
    out.flush()?;
    match differs && args.exit_code {
        true => Err(Differs.into()),
        false => Ok(()),
    }
}

impl Both<'_> {
    fn run(
        &self,
        path: Option<&[u8]>,
        args: &DiffOptions,
        json: bool,
        terminal: bool,
        out: &mut impl Write,
    ) -> Result<bool> {
        let chains = [self.chain(0)?, self.chain(1)?];
        let sides = [self.side(0, &chains[0]), self.side(1, &chains[1])];
        let path = path.unwrap_or_default();
        let top = self.top(path, &chains)?;
        let ends = [end(sides[0].tree, &top)?, end(sides[1].tree, &top)?];
        if args.layers {
            return self.layers(&chains, &top, args, json, out);
        }
        let listed = args.stat || args.name_only || json;
        let file = |node: &Option<Node>| node.is_some_and(|node| node.stat.kind == Kind::Regular);
        let is_dir = |node: &Option<Node>| node.is_some_and(|node| node.stat.kind.is_dir());
        if !listed && ends.iter().any(file) && !ends.iter().any(is_dir) {
            return self.file(sides, &top, ends, args, terminal, out);
        }
        let mut stat = DiffStat::new(&top, args.depth);
        let (mut differs, mut failed, mut rows) = (false, None, Vec::new());
        compare(sides[0], sides[1], &top, &mut |mut one| {
            if !args.time {
                one.facts = one.facts.without_time();
            }
            if one.facts.is_empty() && one.old.is_some() && one.new.is_some() {
                return true;
            }
            differs = true;
            let told = match (args.stat, json) {
                (true, _) => {
                    stat.count(&one);
                    Ok(())
                }
                (false, true) => difference_json(sides, &one).map(|value| rows.push(value)),
                (false, false) => line(sides, &one, args.name_only, out),
            };
            failed = told.err();
            failed.is_none()
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        match (args.stat, json) {
            (true, true) => writeln!(out, "{:#}", stat.json())?,
            (true, false) => stat.print(out)?,
            (false, true) => writeln!(out, "{:#}", json!(rows))?,
            (false, false) => {}
        }
        Ok(differs)
    }

    fn chain(&self, at: usize) -> Result<Chain<'_>> {
        Ok(Chain::open(self.store, &self.images[at].record.id)?)
    }

    fn side<'a>(&'a self, at: usize, chain: &'a Chain<'a>) -> Side<'a> {
        Side { tree: &*self.images[at].tree, chain }
    }

    /// Where the path leads, which has to be one and the same path in both images.
    fn top(&self, path: &[u8], chains: &[Chain<'_>; 2]) -> Result<TreePath> {
        let mut tops = Vec::new();
        for (at, chain) in chains.iter().enumerate() {
            let tree = &*self.images[at].tree;
            if resolve(tree, path, Follow::NotLast).ok().flatten().is_some() {
                let written = TreePath::clamped(path).unwrap_or_default();
                // Without a link on the way the path is what is written.
                match end(tree, &written)? {
                    Some(_) if !path.windows(2).any(|two| two == b"..") => tops.push(written),
                    _ => tops.push(chain.detour(path, false)?.path),
                }
            }
        }
        let text = crate::look::escaped(path);
        match &tops[..] {
            [] => bail!("neither {} nor {} has {text}", self.names[0], self.names[1]),
            [one, two] if one != two => bail!(
                "{text} leads to {} in {} and to {} in {}; name one of these",
                shown(one),
                self.names[0],
                shown(two),
                self.names[1]
            ),
            [top, ..] => Ok(top.clone()),
        }
    }

    /// One file, line by line.
    fn file(
        &self,
        sides: [Side<'_>; 2],
        top: &TreePath,
        ends: [Option<Node>; 2],
        args: &DiffOptions,
        terminal: bool,
        out: &mut impl Write,
    ) -> Result<bool> {
        let mut found = None;
        compare(sides[0], sides[1], top, &mut |one| {
            found = Some(one);
            true
        })?;
        let Some(mut one) = found else { return Ok(false) };
        if !args.time {
            one.facts = one.facts.without_time();
        }
        let both = one.old.is_some() && one.new.is_some();
        if both && one.facts.is_empty() {
            return Ok(false);
        }
        let about = ChangedFacts { content: false, ..one.facts };
        if !both || !about.is_empty() {
            line(sides, &Difference { facts: about, ..one.clone() }, false, out)?;
        }
        if both && !one.facts.data() {
            return Ok(true);
        }
        let label = |at: usize| format!("{}:{}", self.names[at], shown(top));
        let old = File::read(&self.images[0].files, ends[0].as_ref(), &label(0))?;
        let new = File::read(&self.images[1].files, ends[1].as_ref(), &label(1))?;
        text::print(&old, &new, terminal, out)?;
        Ok(true)
    }

    /// What each layer does that only one of the images has.
    fn layers(
        &self,
        chains: &[Chain<'_>; 2],
        top: &TreePath,
        args: &DiffOptions,
        json: bool,
        out: &mut impl Write,
    ) -> Result<bool> {
        let common = chains[0].common(&chains[1]);
        let mut all = Vec::new();
        if !json {
            match common {
                0 => writeln!(out, "No layer in common at the base")?,
                1 => writeln!(out, "The base layer is in both")?,
                n => writeln!(out, "The first {n} layers are in both")?,
            }
        }
        let mut differs = false;
        for (at, chain) in chains.iter().enumerate() {
            let steps = words::steps(self.store, &self.images[at].record)?;
            if !steps.certain && !json {
                tracing::warn!("{}: {}", self.names[at], words::GUESSED);
            }
            let mut rows: Vec<Vec<(TreePath, NameChange)>> = vec![Vec::new(); chain.count()];
            chain.replay(&mut |event| {
                if event.layer >= common && event.is_within(top) && tells(event, args.time) {
                    rows[event.layer].push((event.tree_path(), event.what));
                }
            })?;
            for (step, rows) in steps.steps.iter().zip(rows).skip(common) {
                differs = true;
                if json {
                    let rows = rows.iter().map(|(path, what)| event_json(path, what, args.time));
                    let mut value = words::step_json(step);
                    value["image"] = json!(self.names[at]);
                    value["changes"] = json!(rows.collect::<Vec<_>>());
                    all.push(value);
                    continue;
                }
                let (name, command) = (self.names[at], words::command(step, false));
                writeln!(
                    out,
                    "\n{name} layer {} {}  {command}",
                    step.position,
                    step.diff_id.short()
                )?;
                for (path, what) in rows {
                    event_line(chain, &path, &what, args.time, out)?;
                }
            }
        }
        if json {
            writeln!(out, "{:#}", json!({ "common_layers": common, "layers": all }))?;
        }
        Ok(differs)
    }
}

/// What a path shows, no link followed.
fn end(tree: &dyn Lower, path: &TreePath) -> Result<Option<Node>> {
    let mut here = tree.node(tree.root())?;
    for name in path.names() {
        if !here.stat.kind.is_dir() {
            return Ok(None);
        }
        match tree.lookup(here.id, name)? {
            Some(Entry::Node(node)) => here = node,
            _ => return Ok(None),
        }
    }
    Ok(Some(here))
}

/// What `words` needs of a node of a tree.
fn facts_of(tree: &dyn Lower, node: &Node) -> Result<NodeFacts> {
    let target = match node.stat.kind {
        Kind::Symlink => Some(tree.read_link(node.id)?),
        _ => None,
    };
    Ok(NodeFacts { stat: node.stat, xattrs: Vec::new(), target, content: None })
}

fn line(sides: [Side<'_>; 2], one: &Difference, names: bool, out: &mut impl Write) -> Result<()> {
    let path = shown(&one.path);
    match (&one.old, &one.new) {
        _ if names => writeln!(out, "{path}")?,
        (None, _) => writeln!(out, "A {path}")?,
        (_, None) => writeln!(out, "D {path}")?,
        (Some(old), Some(new)) => {
            let (old, new) = (facts_of(sides[0].tree, old)?, facts_of(sides[1].tree, new)?);
            writeln!(out, "C {path}  {}", words::changes(one.facts, &old, &new))?;
        }
    }
    Ok(())
}

fn difference_json(sides: [Side<'_>; 2], one: &Difference) -> Result<Value> {
    let node = |side: Side<'_>, node: &Option<Node>| -> Result<Value> {
        let Some(node) = node else { return Ok(Value::Null) };
        let mut facts = facts_of(side.tree, node)?;
        facts.xattrs = side.tree.xattrs(node.id)?;
        facts.content = content_of(side, node)?;
        Ok(words::node_json(&facts))
    };
    let change = match (&one.old, &one.new) {
        (None, _) => "added",
        (_, None) => "removed",
        _ => "changed",
    };
    Ok(json!({
        "change": change,
        "path": words::path_json(&one.path),
        "facts": one.facts.words().collect::<Vec<_>>(),
        "old": node(sides[0], &one.old)?,
        "new": node(sides[1], &one.new)?,
    }))
}

/// Whether an event is listed: what a layer only has again is not.
fn tells(event: &NameEvent<'_>, time: bool) -> bool {
    match event.what {
        NameChange::Changed { facts, .. } => !counted(facts, time).is_empty(),
        NameChange::Added(_) | NameChange::Removed { .. } => true,
    }
}

fn counted(facts: ChangedFacts, time: bool) -> ChangedFacts {
    if time { facts } else { facts.without_time() }
}

fn event_json(path: &TreePath, what: &NameChange, time: bool) -> Value {
    let (change, facts, by) = match what {
        NameChange::Added(_) => ("added", ChangedFacts::NONE, None),
        NameChange::Changed { facts, .. } => ("changed", counted(*facts, time), None),
        NameChange::Removed { by, .. } => ("removed", ChangedFacts::NONE, Some(words::reason(*by))),
    };
    json!({
        "change": change,
        "path": words::path_json(path),
        "facts": facts.words().collect::<Vec<_>>(),
        "by": by,
    })
}

fn event_line(
    chain: &Chain<'_>,
    path: &TreePath,
    what: &NameChange,
    time: bool,
    out: &mut impl Write,
) -> Result<()> {
    match what {
        NameChange::Added(_) => writeln!(out, "A {}", shown(path))?,
        NameChange::Removed { .. } => writeln!(out, "D {}", shown(path))?,
        NameChange::Changed { was, now, facts } => {
            let (was, now) = (chain.facts(*was)?, chain.facts(*now)?);
            let changes = words::changes(counted(*facts, time), &was, &now);
            writeln!(out, "C {}  {changes}", shown(path))?;
        }
    }
    Ok(())
}
