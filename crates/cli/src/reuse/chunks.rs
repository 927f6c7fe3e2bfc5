//! `--chunks`: sizes as people write them, and the measuring with its progress.
//!
//! Invariant: progress and speed go to stderr, so that stdout holds the result alone.

use std::time::Instant;

use anyhow::{Context as _, Result};
use strata_analysis::reuse::chunks::{ChunkOptions, MeanSize, Measured, measure_chunks};
use strata_layer::Store;

use super::facts::ReuseFacts;
use crate::context::Context;
use crate::told::tell;
use crate::{progress, units};

/// The mean sizes, ascending, each once.
#[derive(Debug, Clone)]
pub(crate) struct Means(pub(crate) Vec<MeanSize>);

/// `8KiB,64KiB`.
pub(crate) fn means(text: &str) -> Result<Means, String> {
    let mut means = Vec::new();
    for part in text.split(',') {
        let bytes = size(part)?;
        let mean = u32::try_from(bytes).ok().and_then(MeanSize::new);
        means.push(mean.ok_or_else(|| {
            format!("{part} is no mean size: it is 256 B to 4 MiB, in multiples of 8 bytes")
        })?);
    }
    means.sort_unstable();
    means.dedup();
    Ok(Means(means))
}

/// At least a mebibyte.
pub(crate) fn memory(text: &str) -> Result<u64, String> {
    let bytes = size(text)?;
    match bytes < 1 << 20 {
        true => Err(format!("{text} is too little for a table of pieces; 1MiB is the least")),
        false => Ok(bytes),
    }
}

/// Bytes, or KiB, MiB, GiB; K, M, G are the same.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return Err(format!("{text:?} is no size; write 4096, 8KiB, 1MiB")),
    };
    let number = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    number.ok_or_else(|| format!("{text:?} is no size; write 4096, 8KiB, 1MiB"))
}

/// `64KiB`, as [`size`] reads it.
pub(crate) fn written(bytes: u32) -> String {
    match bytes {
        _ if bytes.is_multiple_of(1 << 20) => format!("{}MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{}KiB", bytes >> 10),
        _ => format!("{bytes}B"),
    }
}

/// Reads what the images of the store hold.
pub(crate) fn of_store(
    context: &Context,
    store: &Store,
    facts: &ReuseFacts,
    options: &ChunkOptions,
) -> Result<Measured> {
    let layers: Vec<_> = facts.levels.counted.iter().map(|layer| layer.diff_id).collect();
    watched(context, |progress| Ok(measure_chunks(store, &layers, options, progress)?))
}

/// Shows how far it is, and at the end how fast it was.
pub(crate) fn watched(
    context: &Context,
    run: impl FnOnce(&(dyn Fn(u64, u64) + Sync)) -> Result<Measured>,
) -> Result<Measured> {
    let bar = progress::measuring(context.shown);
    let start = Instant::now();
    let measured = run(&|read, all| {
        bar.set_length(all);
        bar.inc(read);
    })
    .context("cannot measure chunks")?;
    bar.finish_and_clear();
    if !context.quiet {
        let seconds = start.elapsed().as_secs_f64();
        let passes = match measured.passes {
            1 => String::new(),
            n => format!(", files in {n} passes"),
        };
        let read = units::size(measured.read);
        let speed = units::size((measured.read as f64 / seconds.max(1e-3)) as u64);
        tell(format_args!("Read {read} in {seconds:.1} s, {speed}/s{passes}"));
    }
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        let bytes = |text| {
            means(text).map(|means| means.0.iter().map(|mean| mean.bytes()).collect::<Vec<_>>())
        };
        assert_eq!(bytes("64KiB,8k,8192"), Ok(vec![8192, 65536]));
        assert_eq!(bytes("1MiB,256"), Ok(vec![256, 1 << 20]));
        for bad in ["", "8KB", "-1", "100", "1GiB", "8KiB,", "99999999999999999999", "0x10"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(memory("2g"), Ok(2 << 30));
        assert!(memory("1KiB").is_err());
        for text in ["256B", "8KiB", "4MiB"] {
            assert_eq!(means(text).map(|means| written(means.0[0].bytes())).unwrap(), text);
        }
    }
}
