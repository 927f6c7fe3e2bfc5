//! The options that bound what untrusted input may ask for.
//!
//! Invariant: every bound of the libraries has its option here, under the name that the errors
//! of the libraries tell; defaults are the libraries' own.

use clap::Args;
use strata_image::SourceLimits;
use strata_layer::Limits as LayerLimits;

const LAYERS: &str = "Limits on untrusted layers";
const SOURCES: &str = "Limits on untrusted archives";

/// Bounds on what one layer may ask for.
#[derive(Debug, Args)]
#[command(next_help_heading = LAYERS)]
pub(crate) struct LayerLimitArgs {
    /// Members of one layer [default: 4000000]
    #[arg(long, value_name = "N")]
    max_entries: Option<u64>,
    /// Components of one path [default: 1024]
    #[arg(long, value_name = "N")]
    max_depth: Option<u64>,
    /// Bytes of one path [default: 4000]
    #[arg(long, value_name = "BYTES")]
    max_path: Option<u64>,
    /// Bytes of extended attributes of one member; all members have at most 64 times as many more
    /// than the layer has bytes [default: 1048576]
    #[arg(long, value_name = "BYTES")]
    max_xattr_bytes: Option<u64>,
    /// Uncompressed bytes for each compressed one, beyond 64 MiB, blocks of zeros left out
    /// [default: 2000]
    #[arg(long, value_name = "N")]
    max_expansion: Option<u64>,
    /// Bytes of one uncompressed layer [default: 2^40]
    #[arg(long, value_name = "BYTES")]
    max_layer_bytes: Option<u64>,
}

impl LayerLimitArgs {
    pub(crate) fn limits(&self) -> LayerLimits {
        let default = LayerLimits::default();
        LayerLimits {
            entries: self.max_entries.unwrap_or(default.entries),
            depth: self.max_depth.unwrap_or(default.depth),
            path_bytes: self.max_path.unwrap_or(default.path_bytes),
            xattr_bytes: self.max_xattr_bytes.unwrap_or(default.xattr_bytes),
            expansion: self.max_expansion.unwrap_or(default.expansion),
            layer_bytes: self.max_layer_bytes.unwrap_or(default.layer_bytes),
        }
    }
}

/// How layers that come into the store are read, and what is done with their files.
#[derive(Debug, Args)]
pub(crate) struct NewLayerArgs {
    /// Find out the fs-verity digest of each new content, and seal the store's files with fs-verity
    /// where kernel and file system can: `strata mount --verity` then has less to do
    #[arg(long)]
    pub(crate) verity: bool,
    #[command(flatten)]
    pub(crate) limits: LayerLimitArgs,
}

/// Bounds on what the archive or layout around the layers may ask for.
#[derive(Debug, Args)]
#[command(next_help_heading = SOURCES)]
pub(crate) struct SourceLimitArgs {
    /// Bytes of one index, manifest or config [default: 4194304]
    #[arg(long, value_name = "BYTES")]
    max_manifest_bytes: Option<u64>,
    /// Members of the archive [default: 100000]
    #[arg(long, value_name = "N")]
    max_members: Option<u64>,
    /// Bytes of a compressed or piped archive, uncompressed [default: 2^38]
    #[arg(long, value_name = "BYTES")]
    max_archive_bytes: Option<u64>,
    /// Images in the archive [default: 1000]
    #[arg(long, value_name = "N")]
    max_images: Option<u64>,
}

impl SourceLimitArgs {
    /// `--max-expansion` bounds the archive as it bounds its layers.
    pub(crate) fn limits(&self, layer: &LayerLimitArgs) -> SourceLimits {
        let default = SourceLimits::default();
        SourceLimits {
            document_bytes: self.max_manifest_bytes.unwrap_or(default.document_bytes),
            members: self.max_members.unwrap_or(default.members),
            archive_bytes: self.max_archive_bytes.unwrap_or(default.archive_bytes),
            expansion: layer.max_expansion.unwrap_or(default.expansion),
            images: self.max_images.unwrap_or(default.images),
            ..default
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        layer: LayerLimitArgs,
        #[command(flatten)]
        source: SourceLimitArgs,
    }

    #[test]
    fn each_option_sets_its_bound() {
        let none = Alone::parse_from(["x"]);
        assert_eq!(none.layer.limits(), LayerLimits::default());
        assert_eq!(none.source.limits(&none.layer), SourceLimits::default());
        let all = Alone::parse_from([
            "x",
            "--max-entries=1",
            "--max-depth=2",
            "--max-path=3",
            "--max-xattr-bytes=4",
            "--max-expansion=5",
            "--max-layer-bytes=6",
            "--max-manifest-bytes=7",
            "--max-members=8",
            "--max-archive-bytes=9",
            "--max-images=10",
        ]);
        let layer = LayerLimits {
            entries: 1,
            depth: 2,
            path_bytes: 3,
            xattr_bytes: 4,
            expansion: 5,
            layer_bytes: 6,
        };
        assert_eq!(all.layer.limits(), layer);
        let source = SourceLimits {
            document_bytes: 7,
            members: 8,
            archive_bytes: 9,
            expansion: 5,
            images: 10,
            ..SourceLimits::default()
        };
        assert_eq!(all.source.limits(&all.layer), source);
    }

    #[test]
    fn the_help_tells_the_libraries_defaults() {
        let (layer, source) = (LayerLimits::default(), SourceLimits::default());
        assert_eq!((layer.entries, layer.depth, layer.path_bytes), (4_000_000, 1024, 4000));
        assert_eq!((layer.xattr_bytes, layer.expansion), (1_048_576, 2000));
        assert_eq!((layer.layer_bytes, LayerLimits::EXPANSION_FREE), (1 << 40, 64 << 20));
        assert_eq!((source.document_bytes, source.members), (4_194_304, 100_000));
        assert_eq!((source.archive_bytes, source.expansion), (1 << 38, 2000));
        assert_eq!(source.images, 1000);
    }
}
