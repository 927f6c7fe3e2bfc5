//! The arguments of the commands that look into images.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueEnum, ValueHint};

use super::refpath::RefPath;

/// A reference with a path that may be left out.
fn any() -> impl TypedValueParser<Value = RefPath> {
    OsStringValueParser::new().try_map(|text| RefPath::parse(&text))
}

/// A reference with a path.
fn pathed() -> impl TypedValueParser<Value = RefPath> {
    OsStringValueParser::new().try_map(|text| RefPath::parse_with_path(&text))
}

/// List a directory of an image
///
/// All names are listed, those with a leading dot too, sorted by their bytes, one on a line.
/// Times are UTC. On a terminal bytes that cannot be printed are escaped; in a pipe names are
/// written as they are.
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Type and mode, links, uid, gid, size (or device number), time and link target
    #[arg(short)]
    pub(crate) long: bool,
    /// Subdirectories too
    #[arg(short = 'R')]
    pub(crate) recursive: bool,
    /// The directory itself instead of what is in it
    #[arg(short)]
    pub(crate) directory: bool,
    /// Accepted for habit: all names are always listed
    #[arg(short, short_alias = 'A', hide = true)]
    pub(crate) all: bool,
    /// The image and a path in it, which begins with a slash; the root if left out
    #[arg(value_name = "REF[:PATH]", value_parser = any())]
    pub(crate) target: RefPath,
}

/// Write files of an image to standard output
///
/// Symbolic links are followed inside the image.
#[derive(Debug, Args)]
pub(crate) struct CatArgs {
    /// The image and a path in it, which begins with a slash
    #[arg(value_name = "REF:PATH", required = true, value_parser = pathed())]
    pub(crate) targets: Vec<RefPath>,
}

/// Copy a file or a directory out of an image
///
/// Contents, links, modes and times are kept; as root owners, devices and all attributes too.
/// What an ordinary user may not set is left out and told on standard error; the exit code is
/// still 0. Where the owner cannot be kept, setuid and setgid bits are dropped.
///
/// An existing directory DEST receives the copy under its own name (of PATH/. only what is in
/// it), any other DEST becomes the copy. Existing files are replaced; existing directories are
/// merged and take the mode, owner and times of the image's.
#[derive(Debug, Args)]
pub(crate) struct CpArgs {
    /// Copy what a link PATH leads to inside the image, not the link
    #[arg(short = 'L', long)]
    pub(crate) follow_link: bool,
    /// The image and a path in it, which begins with a slash
    #[arg(value_name = "REF:PATH", value_parser = pathed())]
    pub(crate) source: RefPath,
    /// Where to copy to; with a slash at its end it must be a directory; - writes a tar to
    /// standard output
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) dest: OsString,
}

/// Show all that is known of a file of an image
#[derive(Debug, Args)]
pub(crate) struct StatArgs {
    /// What a link leads to inside the image, not the link
    #[arg(short = 'L', long)]
    pub(crate) dereference: bool,
    /// The image and a path in it, which begins with a slash; the root if left out
    #[arg(value_name = "REF[:PATH]", value_parser = any())]
    pub(crate) target: RefPath,
}

/// List the layers of an image, the base first
#[derive(Debug, Args)]
pub(crate) struct LayersArgs {
    /// The image
    #[arg(value_name = "REF")]
    pub(crate) reference: String,
}

/// Recreate the whole tree of an image as real files
///
/// As root the result is exact. What an ordinary user may not set (owners, devices, some
/// attributes) is left out and told on standard error; the exit code is still 0. Where an owner
/// cannot be set, setuid and setgid bits are dropped.
#[derive(Debug, Args)]
pub(crate) struct UnpackArgs {
    /// The image
    #[arg(value_name = "REF")]
    pub(crate) reference: String,
    /// A new or an empty directory
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
}

/// Write the whole tree of an image or of an upper on its image as one file
///
/// The file is exact, whichever user writes it: owners, modes, devices and attributes are those of
/// the image, and the same tree gives the same bytes. A tar is what any tool reads; an EROFS image
/// is what Linux mounts (`mount -o loop`, from 5.4 on), without strata.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The image, the name of an upper, or the directory that it is mounted on
    #[arg(value_name = "REF|UPPER")]
    pub(crate) reference: String,
    /// What to write
    #[arg(long = "type", value_enum, default_value_t = ExportType::Tar)]
    pub(crate) form: ExportType,
    /// The file to write; - is standard output, for a tar alone
    #[arg(short, long, value_name = "FILE", default_value = "-", value_hint = ValueHint::FilePath)]
    pub(crate) output: PathBuf,
}

/// What `export` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportType {
    /// A tar (ustar with PAX headers)
    Tar,
    /// An EROFS image, uncompressed
    Erofs,
}
