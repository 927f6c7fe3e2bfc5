//! What images share, as one JSON document.
//!
//! Invariants: every number of bytes and files is exact; `matrix` has a row for each image in the
//! order of `images`, and in it a number for each image.

use std::io::Write;

use anyhow::Result;
use serde_json::{Value, json};
use strata_analysis::reuse::chunks::{BLOCK, Cut, Measured};
use strata_analysis::reuse::{Added, Matrix, Relative, Shared, held};

use super::ReuseArgs;
use super::facts::ReuseFacts;

pub(crate) fn print(facts: &ReuseFacts, args: &ReuseArgs, out: &mut impl Write) -> Result<()> {
    let levels = &facts.levels;
    let mut all = json!({
        "levels": {
            "none": { "bytes": levels.images },
            "layers": { "bytes": levels.layers },
            "files": { "bytes": levels.files.bytes, "files": levels.files.files },
        },
    });
    if let Some(measured) = &facts.measured {
        measured_levels(facts, measured, &mut all["levels"]);
    }
    if let Some(Added { known_layers, new_layers, known, new }) = facts.added {
        all["store"] = json!({
            "known": { "layers": known_layers, "files": known.files, "bytes": known.bytes },
            "new": { "layers": new_layers, "files": new.files, "bytes": new.bytes },
        });
    }
    match facts.one {
        Some(one) => {
            all["image"] = image(facts, one);
            let nearest = facts.relatives(one, args.nearest);
            let nearest = nearest.iter().map(|relative| relative_of(facts, relative));
            all["nearest"] = nearest.collect();
        }
        None => {
            let matrix = facts.matrix();
            let images = (0..facts.images.len()).map(|at| {
                let mut image = image(facts, at);
                let held = matrix.shared(at, at).contents;
                image["files"] = held.files.into();
                image["bytes"] = held.bytes.into();
                image
            });
            all["images"] = images.collect();
            all["matrix"] = rows(&matrix);
            let clusters = matrix.tree().clusters(f64::from(args.similar) / 100.0);
            let clusters = clusters.into_iter().map(|cluster| {
                let records = cluster.images.iter().map(|at| facts.records[*at].clone());
                let held = held(&facts.sharing, &records.collect::<Vec<_>>());
                json!({
                    "images": cluster.images, "similarity": cluster.similarity,
                    "files": held.files, "bytes": held.bytes,
                })
            });
            all["clusters"] = clusters.collect();
        }
    }
    serde_json::to_writer_pretty(&mut *out, &all)?;
    Ok(writeln!(out)?)
}

/// The levels below files, and what all take compressed.
fn measured_levels(facts: &ReuseFacts, measured: &Measured, levels: &mut Value) {
    let mut chunks = Vec::new();
    for cut in &measured.cuts {
        let of_cut = json!({
            "pieces": cut.pieces, "distinct": cut.distinct, "bytes": cut.bytes,
            "compressed": (!measured.layers.is_empty()).then_some(cut.compressed),
        });
        match cut.cut {
            Cut::Files => levels["files"]["compressed"] = of_cut["compressed"].clone(),
            Cut::Blocks => {
                levels["blocks"] = of_cut;
                levels["blocks"]["size"] = BLOCK.into();
            }
            Cut::Chunks(mean) => {
                let mut of_cut = of_cut;
                of_cut["mean"] = mean.bytes().into();
                of_cut["least"] = mean.least().into();
                of_cut["most"] = mean.most().into();
                chunks.push(of_cut);
            }
        }
    }
    levels["chunks"] = chunks.into();
    levels["none"]["compressed"] = facts.packed_layers(|layer| layer.uses).into();
    levels["layers"]["compressed"] = facts.packed_layers(|layer| layer.stacks).into();
}

fn image(facts: &ReuseFacts, at: usize) -> Value {
    let layers = facts.records[at].layers.iter().map(ToString::to_string);
    json!({
        "id": facts.images[at].id.to_string(),
        "names": facts.images[at].names,
        "layers": layers.collect::<Vec<_>>(),
    })
}

fn relative_of(facts: &ReuseFacts, relative: &Relative) -> Value {
    let mut value = image(facts, relative.image);
    let Shared { layers, in_layers, contents } = relative.shared;
    value["shared"] = json!({
        "layers": layers, "layer_bytes": in_layers.bytes, "layer_files": in_layers.files,
        "bytes": contents.bytes, "files": contents.files,
    });
    value["either"] = relative.similarity.either.into();
    value["similarity"] = relative.similarity.ratio().into();
    value
}

/// One square for each number.
fn rows(matrix: &Matrix) -> Value {
    let square = |number: fn(Shared) -> u64| -> Value {
        let n = matrix.images();
        (0..n).map(|a| (0..n).map(|b| number(matrix.shared(a, b))).collect::<Value>()).collect()
    };
    json!({
        "layers": square(|shared| shared.layers),
        "layer_bytes": square(|shared| shared.in_layers.bytes),
        "layer_files": square(|shared| shared.in_layers.files),
        "bytes": square(|shared| shared.contents.bytes),
        "files": square(|shared| shared.contents.files),
    })
}
