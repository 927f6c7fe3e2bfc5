//! `strata reuse`: what images have in common.
//!
//! ```text
//! the store ─────────────┬── facts.rs ──┬── show.rs   tables
//! sources (dry_run.rs) ──┘  chunks.rs   └── json.rs   the same, whole numbers
//! ```
//!
//! Invariant: tables and JSON are made of the same facts; tables round, JSON never does.

pub(crate) mod chunks;
mod dry_run;
mod facts;
mod json;
mod show;

use std::io::{IsTerminal, Write};

use anyhow::{Result, bail};
use clap::Args;
use strata_analysis::reuse::chunks::ChunkOptions;
use strata_image::Platform;

use crate::context::{Context, Format};
use crate::limits::{LayerLimitArgs, SourceLimitArgs};
use facts::ReuseFacts;

/// Show what images share, and how alike they are
///
/// For all images, or those named: what they take apart, with shared layers (as overlay2 keeps
/// them) and with shared files (as the store keeps them); then for each pair of images what both
/// hold. Where that table is too wide: clusters of similar images, and the closest pairs. For one
/// image, its nearest relatives.
///
/// SIMILAR is the weighted Jaccard index: bytes of the contents that both hold, by bytes of the
/// contents that either holds. Clusters join by average linkage, as long as their parts are on
/// average as similar as --similar says.
///
/// --chunks compresses with zstd, level 3: layers as a whole, each file, each chunk, each block on
/// its own, as they are where that makes them no smaller. What it takes besides (names, tables of
/// chunks) is not counted.
#[derive(Debug, Args)]
pub(crate) struct ReuseArgs {
    /// Names or ids [default: all images]; with --dry-run sources, as `strata load` takes them
    #[arg(value_name = "IMAGE|SOURCE")]
    images: Vec<String>,
    /// Read archives and OCI layouts instead, without loading anything: FILE, DIR, -, oci:DIR,
    /// oci-archive:FILE, docker-archive:FILE; tells also what loading them would add to the store
    #[arg(long, requires = "images")]
    dry_run: bool,
    /// With --dry-run: take the image for this platform where there is a choice
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", requires = "dry_run")]
    platform: Option<Platform>,
    /// For one image: how many of its relatives to show
    #[arg(long, value_name = "N", default_value_t = 10)]
    nearest: usize,
    /// How similar the images of a cluster are on average, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 50,
          value_parser = clap::value_parser!(u8).range(1..=100))]
    similar: u8,
    /// Show every pair, however wide the table is
    #[arg(long)]
    matrix: bool,
    /// Read all files, and measure what sharing chunks of them (fastcdc, of these mean sizes) and
    /// blocks of 4 KiB would take, and each level compressed
    #[arg(long, value_name = "SIZES", num_args = 0..=1, require_equals = true,
          default_missing_value = "8KiB,16KiB,64KiB", value_parser = chunks::means)]
    chunks: Option<chunks::Means>,
    /// With --chunks: measure without compression, which takes most of the time
    #[arg(long, requires = "chunks")]
    no_compression: bool,
    /// With --chunks: memory for the table of pieces, beyond which files are read several times
    #[arg(long, value_name = "SIZE", requires = "chunks", default_value = "1GiB",
          value_parser = chunks::memory)]
    memory: u64,
    /// Show bytes instead of rounded sizes
    #[arg(short, long)]
    bytes: bool,
    #[command(flatten)]
    layer_limits: LayerLimitArgs,
    #[command(flatten)]
    source_limits: SourceLimitArgs,
}

impl ReuseArgs {
    fn options(&self, means: &chunks::Means) -> ChunkOptions {
        ChunkOptions { means: means.0.clone(), compress: !self.no_compression, memory: self.memory }
    }
}

pub(crate) fn run(context: &Context, args: &ReuseArgs, out: &mut impl Write) -> Result<()> {
    let facts = match args.dry_run {
        true => dry_run::facts(context, args)?,
        false => {
            let store = context.store()?;
            let mut facts = ReuseFacts::of_store(&store, &args.images)?;
            if let Some(means) = &args.chunks {
                facts.measured =
                    Some(chunks::of_store(context, &store, &facts, &args.options(means))?);
            }
            facts
        }
    };
    if facts.images.is_empty() && context.format != Format::Json {
        bail!("the store has no images; load one with `strata load`");
    }
    match context.format {
        Format::Json => json::print(&facts, args, out),
        Format::Table | Format::Template(_) => {
            let width = width_of_terminal();
            show::print(&facts, args, width, out)
        }
    }
}

/// Columns of the terminal on stdout, if it is one.
fn width_of_terminal() -> Option<usize> {
    let stdout = std::io::stdout();
    let size = stdout.is_terminal().then(|| rustix::termios::tcgetwinsize(&stdout).ok());
    size.flatten().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0)
}
