//! What images share, as tables.
//!
//! Invariant: without `--matrix` no line of the matrix is wider than the terminal.

use std::io::Write;

use anyhow::Result;
use strata_analysis::reuse::chunks::{BLOCK, Cut, MeasuredCut};
use strata_analysis::reuse::{Added, Held, Matrix, Relative, held};

use super::ReuseArgs;
use super::chunks::written;
use super::facts::ReuseFacts;
use crate::units::counted;
use crate::{table, units};

/// The most images whose pairs are shown where no terminal says how wide it is.
const FEW: usize = 12;
/// How many of the clusters, and of the closest pairs, are shown.
const MANY: usize = 20;

pub(crate) fn print(
    facts: &ReuseFacts,
    args: &ReuseArgs,
    width: Option<usize>,
    out: &mut impl Write,
) -> Result<()> {
    if let Some(one) = facts.one {
        if facts.measured.is_some() {
            levels(facts, args, out)?;
            writeln!(out)?;
        }
        return relatives(facts, one, args, out);
    }
    levels(facts, args, out)?;
    if let Some(added) = &facts.added {
        writeln!(out)?;
        would_add(added, args, out)?;
    }
    if facts.images.len() < 2 {
        return Ok(());
    }
    let matrix = facts.matrix();
    writeln!(out)?;
    let rows = matrix_rows(facts, &matrix, args);
    if args.matrix || fits(&rows, width) {
        table::print_columns(&rows, out)?;
        writeln!(
            out,
            "\nOn the diagonal what an image holds; below it what two images both hold; above it \
             the\npart of that which lies in layers that both have."
        )?;
        return Ok(());
    }
    clusters(facts, &matrix, args, out)?;
    writeln!(out)?;
    closest(facts, &matrix, args, out)
}

fn size(args: &ReuseArgs, bytes: u64) -> String {
    if args.bytes { bytes.to_string() } else { units::size(bytes) }
}

/// `38.1%`, `-` of nothing. Cut off, so that only a whole is `100.0%`.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    match (u128::from(part) * 1000).checked_div(u128::from(whole)) {
        None => "-".to_owned(),
        Some(tenths) => format!("{}.{}%", tenths / 10, tenths % 10),
    }
}

fn levels(facts: &ReuseFacts, args: &ReuseArgs, out: &mut impl Write) -> Result<()> {
    let levels = &facts.levels;
    let images = if facts.one.is_some() { 1 } else { facts.images.len() as u64 };
    let layers = levels.counted.len() as u64;
    writeln!(out, "{}, {}", counted(images, "image"), counted(layers, "layer"))?;
    writeln!(out)?;
    let uses = levels.counted.iter().map(|layer| layer.uses).sum();
    let files = &levels.files;
    let measured = facts.measured.as_ref();
    let packed = |cut: &MeasuredCut| Some(cut.compressed);
    let packed_files = measured.and_then(|all| all.cuts.iter().find(|c| c.cut == Cut::Files));
    let mut rows = vec![
        Row(
            "none".to_owned(),
            levels.images,
            facts.packed_layers(|l| l.uses),
            counted(uses, "layer"),
        ),
        Row(
            "layers".to_owned(),
            levels.layers,
            facts.packed_layers(|layer| layer.stacks),
            counted(stacks(facts), "layer"),
        ),
        Row(
            "files".to_owned(),
            files.bytes,
            packed_files.and_then(packed),
            counted(files.files, "content"),
        ),
    ];
    for cut in measured.iter().flat_map(|measured| &measured.cuts) {
        let (name, noun) = match cut.cut {
            Cut::Files => continue,
            Cut::Chunks(mean) => (format!("chunks of {}", written(mean.bytes())), "chunk"),
            Cut::Blocks => (format!("blocks of {}", written(BLOCK)), "block"),
        };
        rows.push(Row(name, cut.bytes, packed(cut), counted(cut.distinct, noun)));
    }
    let of_none = |bytes| [size(args, bytes), percent(bytes, levels.images)];
    let compressed = measured.is_some_and(|measured| !measured.layers.is_empty());
    let mut lines = vec![match compressed {
        true => "SHARING\tBYTES\tOF NONE\tWITH ZSTD\tOF NONE\tKEPT".to_owned(),
        false => "SHARING\tBYTES\tOF NONE\tSAVED\tKEPT".to_owned(),
    }];
    for Row(name, bytes, packed, kept) in rows {
        let [bytes_cell, part] = of_none(bytes);
        let saved = || size(args, levels.images.saturating_sub(bytes));
        let after = match packed.filter(|_| compressed) {
            Some(packed) => of_none(packed).join("\t"),
            None => saved(),
        };
        lines.push([name, bytes_cell, part, after, kept].join("\t"));
    }
    table::print_columns(&lines, out)
}

/// A level: its name, bytes, bytes compressed, what is kept.
struct Row(String, u64, Option<u64>, String);

fn would_add(added: &Added, args: &ReuseArgs, out: &mut impl Write) -> Result<()> {
    let layers = added.known_layers + added.new_layers;
    let held =
        |held: &Held| format!("{} in {}", size(args, held.bytes), counted(held.files, "content"));
    if added.new_layers == 0 {
        return Ok(writeln!(out, "The store has all of these layers; loading them adds nothing")?);
    }
    writeln!(
        out,
        "Loading them would add {} to the store.\nIt has {} of {}, and holds {} of theirs already.",
        held(&added.new),
        added.known_layers,
        counted(layers, "layer"),
        held(&added.known),
    )?;
    Ok(())
}

fn stacks(facts: &ReuseFacts) -> u64 {
    facts.levels.counted.iter().map(|layer| layer.stacks).sum()
}

/// The matrix as lines of cells; the images have numbers for their columns.
fn matrix_rows(facts: &ReuseFacts, matrix: &Matrix, args: &ReuseArgs) -> Vec<String> {
    let n = facts.images.len();
    let mut rows = vec!["\tIMAGE".to_owned()];
    (1..=n).for_each(|number| rows[0].push_str(&format!("\t{number}")));
    for row in 0..n {
        let mut line = format!("{}\t{}", row + 1, facts.images[row].title());
        for column in 0..n {
            let shared = matrix.shared(row, column);
            let bytes = match column > row {
                true => shared.in_layers.bytes,
                false => shared.contents.bytes,
            };
            line.push('\t');
            line.push_str(&size(args, bytes));
        }
        rows.push(line);
    }
    rows
}

fn fits(rows: &[String], width: Option<usize>) -> bool {
    let Some(width) = width else { return rows.len() <= FEW + 1 };
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (at, cell) in row.split('\t').enumerate() {
            widths.resize(widths.len().max(at + 1), 0);
            widths[at] = widths[at].max(cell.chars().count());
        }
    }
    widths.iter().sum::<usize>() + 3 * widths.len().saturating_sub(1) <= width
}

fn clusters(
    facts: &ReuseFacts,
    matrix: &Matrix,
    args: &ReuseArgs,
    out: &mut impl Write,
) -> Result<()> {
    let all = matrix.tree().clusters(f64::from(args.similar) / 100.0);
    let several: Vec<_> = all.iter().filter(|cluster| cluster.images.len() > 1).collect();
    let head = ["CLUSTER", "IMAGES", "APART", "TOGETHER", "SIMILAR", "AROUND"];
    let mut rows = vec![head.map(String::from)];
    for (at, cluster) in several.iter().take(MANY).enumerate() {
        let images: Vec<_> =
            cluster.images.iter().map(|image| facts.records[*image].clone()).collect();
        let apart = cluster.images.iter().map(|image| matrix.shared(*image, *image));
        // The image that has most in common with the others stands for them.
        let in_common = |image: &usize| -> u64 {
            cluster.images.iter().map(|other| matrix.shared(*image, *other).contents.bytes).sum()
        };
        let middle = cluster.images.iter().rev().max_by_key(|image| in_common(image));
        rows.push([
            (at + 1).to_string(),
            cluster.images.len().to_string(),
            size(args, apart.map(|held| held.contents.bytes).sum()),
            size(args, held(&facts.sharing, &images).bytes),
            format!("{:.0}%", cluster.similarity * 100.0),
            middle.map_or_else(String::new, |image| facts.images[*image].title()),
        ]);
    }
    if !several.is_empty() {
        table::print(&rows, out)?;
        writeln!(out)?;
    }
    if several.len() > MANY {
        let rest = (several.len() - MANY) as u64;
        writeln!(out, "and {} more; --format json has all", counted(rest, "cluster"))?;
    }
    let alone = (all.len() - several.len()) as u64;
    writeln!(
        out,
        "{} similar to no other by {}% on average",
        match alone {
            1 => "1 image is".to_owned(),
            _ => format!("{alone} images are"),
        },
        args.similar
    )?;
    Ok(())
}

fn closest(
    facts: &ReuseFacts,
    matrix: &Matrix,
    args: &ReuseArgs,
    out: &mut impl Write,
) -> Result<()> {
    let head = ["CLOSEST", "", "SIMILAR", "LAYERS", "IN LAYERS", "BOTH HOLD", "FILES"];
    let mut rows = vec![head.map(String::from)];
    for (one, other) in matrix.closest(MANY) {
        let [similar, layers, in_layers, both, files] = cells(&other, args);
        let titles = [one, other.image].map(|image| facts.images[image].title());
        let [one, other] = titles;
        rows.push([one, other, similar, layers, in_layers, both, files]);
    }
    match rows.len() {
        1 => Ok(writeln!(out, "No two of them have a content in common")?),
        _ => table::print(&rows, out),
    }
}

fn cells(relative: &Relative, args: &ReuseArgs) -> [String; 5] {
    let shared = &relative.shared;
    [
        percent(relative.similarity.shared, relative.similarity.either),
        shared.layers.to_string(),
        size(args, shared.in_layers.bytes),
        size(args, shared.contents.bytes),
        shared.contents.files.to_string(),
    ]
}

fn relatives(facts: &ReuseFacts, one: usize, args: &ReuseArgs, out: &mut impl Write) -> Result<()> {
    let (held, layers) = (facts.levels.files, facts.levels.counted.len() as u64);
    writeln!(
        out,
        "{} holds {} in {}, {}",
        facts.images[one].title(),
        size(args, held.bytes),
        counted(held.files, "content"),
        counted(layers, "layer"),
    )?;
    let found = facts.relatives(one, args.nearest);
    let found: Vec<_> =
        found.iter().filter(|relative| relative.shared.contents.files > 0).collect();
    writeln!(out)?;
    if found.is_empty() {
        return Ok(writeln!(out, "No other image has any of them")?);
    }
    let head = ["NEAREST", "SIMILAR", "LAYERS", "IN LAYERS", "BOTH HOLD", "FILES", "ONLY HERE"];
    let mut rows = vec![head.map(String::from)];
    for relative in found {
        let [similar, layers, in_layers, both, files] = cells(relative, args);
        let only = size(args, held.bytes - relative.shared.contents.bytes);
        let title = facts.images[relative.image].title();
        rows.push([title, similar, layers, in_layers, both, files, only]);
    }
    table::print(&rows, out)
}
