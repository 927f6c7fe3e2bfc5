//! What the store holds, in bytes and blocks: asked of the index, equal to `du`.
//!
//! ```text
//! ROOT/  layers/ = contents + headers + directories       the index knows them: not walked
//!        trees/ blobs/ uppers/ mounts/ images.json reserve few, or not in the index: walked
//!        staging/ trash/ and layers that the index lacks  leftovers: walked
//!        index.db with its log
//! ```
//!
//! Invariants: `stored` in total counts every inode of contents once, so it is what `du` counts
//! of the regular files below `layers/*/diff`; [`Disk::total`] is what `du` and
//! `du --apparent-size` (that of coreutils before 9.2, which counts directories) count of the
//! whole root.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, OFlags, statat};
use rustix::io::Errno;
use strata_tree::DiffId;

use super::dir::StoreDir;
use super::held_images::{HeldImage, HeldImages};
use super::reserve::RESERVE;
use super::sharing::{Sharing, Usage};
use crate::error::{IoContext, Result};
use crate::index::shared::SharedIndex;
use crate::index::{self, ImageRecord, images};
use crate::measure::{Space, link_count, space, total};
use crate::stage::open_beneath;

/// One layer's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerUsage {
    /// Which layer.
    pub diff_id: DiffId,
    /// Names in it, whiteouts included.
    pub entries: u64,
    /// How many images have it.
    pub images: u64,
    /// Its files; shared and attributed are among layers.
    pub usage: Usage,
    /// Its `headers.zst`.
    pub headers: Space,
    /// Its directories.
    pub directories: Space,
}

/// The whole store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskUsage {
    /// Image by image, sorted by id; shared and unique are among these and [`Self::engines`].
    pub images: Vec<(ImageRecord, Usage)>,
    /// Layer by layer, in the order in which they came.
    pub layers: Vec<LayerUsage>,
    /// Names in all layers.
    pub entries: u64,
    /// Contents in all layers, each once.
    pub files: u64,
    /// Bytes of regular files if every image (and every layer that no image has) were kept by
    /// itself.
    pub apparent: u64,
    /// The same with layers shared as overlay2 shares them.
    pub layered: u64,
    /// Bytes of all distinct contents: what is on disk.
    pub stored: u64,
    /// The part of `stored` that two layers or more hold.
    pub shared: u64,
    /// What engines have that no image has, by the names that it came with.
    pub engines: Vec<(HeldImage, Usage)>,
    /// What nobody holds: contents of layers that no image and no engine has.
    pub unheld: Usage,
    /// Everything on disk, by what it is for.
    pub disk: Disk,
}

/// What is on disk, each inode in one part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Disk {
    /// Contents: the regular files below `layers/*/diff`.
    pub contents: Space,
    /// All `headers.zst`.
    pub headers: Space,
    /// `layers/` and all directories of layers below it.
    pub directories: Space,
    /// `trees/` with the compiled trees.
    pub trees: Space,
    /// The images of names in `trees/`, of which the kernel serves mounts.
    pub names: Space,
    /// `blobs/` with manifests and configs.
    pub blobs: Space,
    /// `uppers/` with all that is in it, and those of containerd's snapshots with their record.
    pub uppers: Space,
    /// `mounts/` with records, logs and locks, and `holds/`.
    pub mounts: Space,
    /// `staging/`, `trash/`, and what lies in `layers/` without being in the index: what running
    /// loads are writing, or a crash left.
    pub leftovers: Space,
    /// `images.json`.
    pub listing: Space,
    /// `reserve`, for removals on a full disk.
    pub reserve: Space,
    /// `index.db` with its log.
    pub index: Space,
    /// The root directory and the other files in it: `layer-blobs`, what is known of registries,
    /// and files that strata has not made.
    pub root: Space,
}

impl Disk {
    /// All parts with their names.
    pub fn parts(&self) -> [(&'static str, Space); 13] {
        [
            ("contents", self.contents),
            ("headers", self.headers),
            ("directories", self.directories),
            ("trees", self.trees),
            ("names", self.names),
            ("blobs", self.blobs),
            ("uppers", self.uppers),
            ("mounts", self.mounts),
            ("leftovers", self.leftovers),
            ("images.json", self.listing),
            ("reserve", self.reserve),
            ("index.db", self.index),
            ("root", self.root),
        ]
    }

    /// Everything: what `du` says of the root.
    pub fn total(&self) -> Space {
        self.parts().into_iter().map(|(_, space)| space).sum()
    }
}

const INDEX: [&str; 3] = ["index.db", "index.db-wal", "index.db-shm"];

/// Counts; see [`Accounts::disk_usage`](super::accounts::Accounts::disk_usage).
pub(super) fn disk_usage(dir: &StoreDir, shared: &SharedIndex) -> Result<DiskUsage> {
    let images = images::all(&shared.lock().db)?;
    let records = index::layers(&shared.lock().db)?;
    let sharing = Sharing::read(&shared.lock().db)?;
    let mut having: HashMap<DiffId, u64> = HashMap::new();
    for image in &images {
        let layers: BTreeSet<&DiffId> = image.layers.iter().collect();
        layers.into_iter().for_each(|layer| *having.entry(*layer).or_default() += 1);
    }
    let usage: HashMap<&DiffId, Usage> =
        sharing.layers.iter().zip(sharing.layer_usage(&images)).collect();
    let layers: Vec<LayerUsage> = records
        .iter()
        .map(|record| LayerUsage {
            diff_id: record.diff_id,
            entries: record.entries,
            images: having.get(&record.diff_id).copied().unwrap_or(0),
            usage: usage.get(&record.diff_id).copied().unwrap_or_default(),
            headers: Space { bytes: record.headers_size, blocks: record.headers_blocks },
            directories: record.directories,
        })
        .collect();
    let groups = || sharing.groups.iter();
    let contents = Space {
        bytes: total(groups().map(|group| group.bytes)),
        blocks: total(groups().map(|group| group.blocks)),
    };
    let held = HeldImages::of(dir)?;
    let mut engines = held.beside(&images);
    // What an image has too is the image's in these accounts, and stays without it.
    let mut held = held.layers();
    held.retain(|layer| having.contains_key(layer));
    let came: HashMap<DiffId, i64> =
        records.iter().map(|record| (record.diff_id, record.id)).collect();
    // A base comes before what is above it.
    engines.iter_mut().for_each(|held| held.layers.sort_by_key(|layer| came.get(layer)));
    let mut holders = images.clone();
    holders.extend(engines.iter().map(HeldImage::record));
    let (mut of_images, unheld) = sharing.all(&holders, &held);
    let of_engines = of_images.split_off(images.len());
    Ok(DiskUsage {
        entries: total(layers.iter().map(|layer| layer.entries)),
        files: total(groups().map(|group| group.files)),
        apparent: total(of_images.iter().chain(&of_engines).map(|usage| usage.apparent))
            .saturating_add(unheld.apparent),
        layered: total(layers.iter().map(|layer| layer.usage.layered)),
        stored: contents.bytes,
        shared: total(groups().filter(|group| group.layers.len() > 1).map(|group| group.bytes)),
        engines: engines.into_iter().zip(of_engines).collect(),
        unheld,
        disk: disk(dir, contents, &layers)?,
        images: images.into_iter().zip(of_images).collect(),
        layers,
    })
}

fn disk(store: &StoreDir, contents: Space, layers: &[LayerUsage]) -> Result<Disk> {
    let root = store.fd();
    let below = |dir: &str| walk(root, [PathBuf::from(dir)]).map(|walked| walked.total());
    let (trees, names_images) = derived(root)?;
    let mut disk = Disk {
        contents,
        headers: layers.iter().map(|layer| layer.headers).sum(),
        directories: layers.iter().map(|layer| layer.directories).sum(),
        trees,
        names: names_images,
        blobs: below("blobs")?,
        uppers: below("uppers")? + below("containerd")?,
        mounts: below("mounts")? + below("holds")?,
        leftovers: leftovers(store, layers)?,
        listing: all_of(root, &["images.json"])?,
        reserve: all_of(root, &[RESERVE])?,
        index: all_of(root, &INDEX)?,
        root: space(root, Path::new(""))?.unwrap_or_default(),
    };
    disk.directories += all_of(root, &["layers"])?;
    let known = ["layers", "trees", "blobs", "uppers", "mounts", "staging", "trash"];
    let known = known.into_iter().chain(["containerd", "holds"]);
    let known = known.chain(["images.json", RESERVE]).chain(INDEX);
    let known: BTreeSet<&OsStr> = known.map(OsStr::new).collect();
    let strangers = names(root, Path::new("."))?.into_iter();
    let strangers = strangers.filter(|name| !known.contains(name.as_os_str()));
    disk.root += walk(root, strangers)?.total();
    Ok(disk)
}

/// Compiled trees with their directory, and the images of names beside them.
fn derived(root: BorrowedFd<'_>) -> Result<(Space, Space)> {
    let dir = Path::new("trees");
    let Some(own) = space(root, dir)? else { return Ok(Default::default()) };
    let paths = names(root, dir)?.into_iter().map(|name| dir.join(name));
    let (images, trees): (Vec<_>, Vec<_>) =
        paths.partition(|path| path.extension() == Some(OsStr::new("erofs")));
    Ok((own + walk(root, trees)?.total(), walk(root, images)?.total()))
}

/// What is in `staging/`, `trash/` and, without a row, in `layers/`. Files of it may be names
/// of contents: those are counted there.
fn leftovers(store: &StoreDir, layers: &[LayerUsage]) -> Result<Space> {
    let known: BTreeSet<String> = layers.iter().map(|layer| layer.diff_id.hex()).collect();
    let root = store.fd();
    let strange = names(root, Path::new("layers"))?.into_iter();
    let strange = strange.filter(|name| name.to_str().is_none_or(|name| !known.contains(name)));
    let strange = strange.map(|name| Path::new("layers").join(name));
    let todo = ["staging", "trash"].map(PathBuf::from).into_iter().chain(strange);
    let walked = walk(root, todo)?;
    let own = walked.linked.values().filter(|inode| inode.names == inode.links);
    Ok(walked.directories + walked.files + own.map(|inode| inode.space).sum())
}

/// Bytes of regular files below the layers, blobs, trees, staging and trash.
pub(super) fn bytes_on_disk(store: &StoreDir) -> Result<u64> {
    let dirs = ["layers", "blobs", "trees", "staging", "trash"];
    let walked = walk(store.fd(), dirs.map(PathBuf::from))?;
    Ok(walked.total().bytes - walked.directories.bytes)
}

/// What the index takes now.
pub(super) fn index_space(store: &StoreDir) -> Result<Space> {
    all_of(store.fd(), &INDEX)
}

fn all_of(root: BorrowedFd<'_>, names: &[&str]) -> Result<Space> {
    let mut all = Space::default();
    for name in names {
        all += space(root, Path::new(name))?.unwrap_or_default();
    }
    Ok(all)
}

/// An inode of several names.
struct Linked {
    space: Space,
    /// That it has.
    links: u64,
    /// That were met.
    names: u64,
}

#[derive(Default)]
struct Walked {
    directories: Space,
    /// What has one name.
    files: Space,
    linked: HashMap<(u64, u64), Linked>,
}

impl Walked {
    fn total(&self) -> Space {
        self.directories + self.files + self.linked.values().map(|inode| inode.space).sum()
    }
}

/// A path below the store, for messages.
fn in_store(path: &Path) -> String {
    match path.to_str() {
        Some("" | ".") => "the store's directory".to_owned(),
        _ => format!("{} in the store", path.display()),
    }
}

fn names(root: BorrowedFd<'_>, dir: &Path) -> Result<Vec<PathBuf>> {
    let doing = || format!("cannot list {}", in_store(dir));
    let fd = open_beneath(root, dir, OFlags::RDONLY | OFlags::DIRECTORY).doing(doing)?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&fd).doing(doing)? {
        let entry = entry.doing(doing)?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(PathBuf::from(OsStr::from_bytes(entry.file_name().to_bytes())));
        }
    }
    Ok(names)
}

/// Adds up what is at `paths` below `root`; what vanishes meanwhile is not counted. Paths below
/// `root` may be as long as the system takes, so none is made absolute.
fn walk(root: BorrowedFd<'_>, paths: impl IntoIterator<Item = PathBuf>) -> Result<Walked> {
    let mut walked = Walked::default();
    let mut todo = Vec::new();
    for path in paths {
        let doing = || format!("cannot stat {}", in_store(&path));
        match statat(root, &path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => walked.count(&stat, path, &mut todo),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error).doing(doing),
        }
    }
    while let Some(dir) = todo.pop() {
        let doing = || format!("cannot list {}", in_store(&dir));
        let fd = match open_beneath(root, &dir, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error).doing(doing),
        };
        for entry in Dir::read_from(&fd).doing(doing)? {
            let entry = entry.doing(doing)?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            match statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    walked.count(&stat, dir.join(OsStr::from_bytes(name.to_bytes())), &mut todo);
                }
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error).doing(doing),
            }
        }
    }
    Ok(walked)
}

impl Walked {
    fn count(&mut self, stat: &rustix::fs::Stat, path: PathBuf, todo: &mut Vec<PathBuf>) {
        let space = Space { bytes: stat.st_size as u64, blocks: stat.st_blocks as u64 };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            self.directories += space;
            todo.push(path);
        } else if stat.st_nlink == 1 {
            self.files += space;
        } else {
            let links = link_count(stat.st_nlink);
            let inode = self.linked.entry((stat.st_dev, stat.st_ino));
            inode.or_insert(Linked { space, links, names: 0 }).names += 1;
        }
    }
}
