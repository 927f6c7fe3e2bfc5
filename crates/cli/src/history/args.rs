//! The arguments of `why`, of `diff` of two images and of `duplicates`.

use std::ffi::OsString;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::look::RefPath;

/// Show what every layer of an image did to a path
///
/// From the base up: which layer added, changed, removed or hid it, by which step of the image's
/// history, and who else holds its content. Also for paths that the image no longer has. Links on
/// the way are followed as the image's root would; the last name is not, without -L. Layers are
/// counted from the base, 0; STEP is the line of the history, the oldest being 1. For a directory
/// also what is added, changed and removed below it.
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// What a link PATH leads to, not the link
    #[arg(short = 'L', long)]
    pub(crate) dereference: bool,
    /// How many names of the same content to show
    #[arg(short = 'n', long, default_value_t = 5, value_name = "N")]
    pub(crate) names: usize,
    /// Whole digests and commands
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// The image; with a path in it as in `strata ls`, PATH is left out
    #[arg(value_name = "IMAGE[:PATH]", value_parser = OsStringValueParser::new()
          .try_map(|text| RefPath::parse(&text)))]
    pub(crate) image: RefPath,
    /// The path
    pub(crate) path: Option<OsString>,
}

/// How two images are compared.
#[derive(Debug, Args)]
pub(crate) struct DiffOptions {
    /// Count by directory, as diffstat
    #[arg(long, conflicts_with_all = ["name_only", "layers"])]
    pub(crate) stat: bool,
    /// How deep --stat goes below PATH
    #[arg(long, default_value_t = 2, value_name = "N", requires = "stat")]
    pub(crate) depth: usize,
    /// Paths alone
    #[arg(long)]
    pub(crate) name_only: bool,
    /// What each layer does that only one of the images has
    #[arg(long)]
    pub(crate) layers: bool,
    /// A time is a difference too
    #[arg(long)]
    pub(crate) time: bool,
    /// Exit with 1 if there are differences, 0 if not, 2 after an error
    #[arg(long)]
    pub(crate) exit_code: bool,
}

impl DiffOptions {
    /// The first option given; none of them means anything for an upper.
    pub(crate) const fn given(&self) -> Option<&'static str> {
        match self {
            Self { stat: true, .. } => Some("--stat"),
            Self { name_only: true, .. } => Some("--name-only"),
            Self { layers: true, .. } => Some("--layers"),
            Self { time: true, .. } => Some("--time"),
            Self { exit_code: true, .. } => Some("--exit-code"),
            _ => None,
        }
    }
}

/// Show contents that are held more than once, and bytes that are held for nothing
///
/// Without an image: the contents of the whole store that have the most bytes in more than one
/// file. With one image: the same for its files, and its waste: what one layer adds and a later
/// one deletes or writes again, with the steps that did it. With two: files of one path whose
/// contents differ.
///
/// Wasted is what the layers hold and the image does not show. JSON also has it as an efficiency,
/// the part that is shown, and as dive's score, which is another thing: the sum over all paths of
/// the smallest size that the path has in a layer, by the sum of all its sizes. It overlooks what
/// was in a deleted directory, so that 99% may stand beside much waste.
#[derive(Debug, Args)]
pub(crate) struct DuplicatesArgs {
    /// Only the waste
    #[arg(long, requires = "image", conflicts_with = "other")]
    pub(crate) waste: bool,
    /// How many rows of each table to show
    #[arg(short = 'n', long, default_value_t = 20, value_name = "N")]
    pub(crate) limit: usize,
    /// Sizes in bytes, whole commands
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// An image
    pub(crate) image: Option<String>,
    /// Another one
    #[arg(value_name = "IMAGE2")]
    pub(crate) other: Option<String>,
}
