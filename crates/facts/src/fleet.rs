//! Data sets of many stores, read back: who has which images and layers, and what layers hold.
//!
//! ```text
//! DIR/store=NAME/day=latest ── images, names, image_layers, layers, contents ── FleetStore
//!                           └─ entries, of layers that no store before had ──── FleetLayer
//! ```
//!
//! A layer is the same in every store, so its names are read once: a row group whose layers are all
//! known is not decoded beyond its column of diff ids.
//!
//! Invariants: of each store its latest day counts, whichever directory has it; all tables of a
//! store are of one data set, also while another takes its place; memory grows with the distinct
//! layers, not with the stores that have them; a data set of another version is refused.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::{
    ByteArray, ByteArrayType, DataType, FixedLenByteArray, FixedLenByteArrayType, Int32Type,
    Int64Type,
};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use strata_tree::{ContentDigest, DiffId, ImageId};

use crate::error::{Error, Result, WhileDoing};
use crate::place::{Day, StoreName};
use crate::schema::{
    CONTENTS, ENTRIES, IMAGE_LAYERS, IMAGES, LAYERS, NAMES, TABLES, VERSION, VERSION_KEY,
};

/// Many stores.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    /// Sorted by name.
    pub stores: Vec<FleetStore>,
    /// The layers of all of them, each once, in the order in which stores have them.
    pub layers: Vec<FleetLayer>,
}

/// One store.
#[derive(Debug, Clone)]
pub struct FleetStore {
    /// Its name.
    pub name: StoreName,
    /// The day that its facts are of.
    pub day: Day,
    /// Its images, sorted by id.
    pub images: Vec<FleetImage>,
    /// All of its layers, those of no image too.
    pub layers: Vec<DiffId>,
    /// How many contents it has, and their bytes.
    pub files: u64,
    /// Bytes of its contents.
    pub stored: u64,
    /// Blocks of 512 bytes that they take; 0 where no disk has them.
    pub blocks: u64,
}

/// An image of a store.
#[derive(Debug, Clone)]
pub struct FleetImage {
    /// Its id.
    pub id: ImageId,
    /// Its names, sorted.
    pub names: Vec<String>,
    /// Its layers, base first, each with the digest of the stack up to it.
    pub layers: Vec<(DiffId, [u8; 32])>,
}

/// A layer of one store or more.
#[derive(Debug, Clone)]
pub struct FleetLayer {
    /// Its id.
    pub diff_id: DiffId,
    /// Names in it.
    pub entries: u64,
    /// Bytes of its regular files, each inode once.
    pub apparent: u64,
    /// What its names refer to; one that several names have may come several times.
    pub contents: Vec<(ContentDigest, u64)>,
}

/// Reads the data sets below directories. `progress` hears how many stores are read, and of how
/// many.
///
/// # Errors
/// `Io`, `Parquet`; `NoFacts` where a directory has no data set, `OtherVersion`.
pub fn read_fleet(dirs: &[PathBuf], progress: &mut dyn FnMut(u64, u64)) -> Result<Fleet> {
    let places = latest(dirs)?;
    let (mut fleet, mut known) = (Fleet::default(), HashMap::new());
    let total = places.len() as u64;
    for (at, (name, (day, path))) in places.into_iter().enumerate() {
        progress(at as u64, total);
        let set = TableFiles::open(&path)?;
        let (store, new) = store(name, day, &set, &known)?;
        let wanted: HashSet<DiffId> = new.iter().map(|layer| layer.diff_id).collect();
        for layer in new {
            known.insert(layer.diff_id, fleet.layers.len());
            fleet.layers.push(layer);
        }
        if !wanted.is_empty() {
            entries(&set, &wanted, &mut |layer, digest, size| {
                if let Some(at) = known.get(&layer) {
                    fleet.layers[*at].contents.push((digest, size));
                }
            })?;
        }
        fleet.stores.push(store);
    }
    progress(total, total);
    Ok(fleet)
}

/// Where the latest facts of each store are.
fn latest(dirs: &[PathBuf]) -> Result<BTreeMap<StoreName, (Day, PathBuf)>> {
    let mut found: BTreeMap<StoreName, (Day, PathBuf)> = BTreeMap::new();
    for dir in dirs {
        let mut any = false;
        for (name, store) in partitions(dir, "store=")? {
            for (day, path) in partitions(&store, "day=")? {
                let (name, day): (StoreName, Day) = (name.parse()?, day.parse()?);
                any = true;
                if found.get(&name).is_none_or(|(known, _)| *known < day) {
                    found.insert(name, (day, path));
                }
            }
        }
        if !any {
            return Err(Error::NoFacts(dir.clone()));
        }
    }
    Ok(found)
}

/// The directories of a partition: their values and paths.
fn partitions(dir: &Path, key: &str) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).doing("list", dir)? {
        let entry = entry.doing("list", dir)?;
        let name = entry.file_name();
        if let Some(value) = name.to_str().and_then(|name| name.strip_prefix(key)) {
            found.push((value.to_owned(), entry.path()));
        }
    }
    Ok(found)
}

/// A store, and those of its layers that are not known yet, without their contents.
fn store(
    name: StoreName,
    day: Day,
    set: &TableFiles,
    known: &HashMap<DiffId, usize>,
) -> Result<(FleetStore, Vec<FleetLayer>)> {
    let mut images: BTreeMap<[u8; 32], FleetImage> = BTreeMap::new();
    set.table(IMAGES)?.groups(|group| {
        for id in group.digests("image")? {
            let image = FleetImage { id: ImageId::from_bytes(id), names: vec![], layers: vec![] };
            images.insert(id, image);
        }
        Ok(())
    })?;
    set.table(NAMES)?.groups(|group| {
        for (name, id) in group.texts("name")?.into_iter().zip(group.digests("image")?) {
            if let Some(image) = images.get_mut(&id) {
                image.names.push(name);
            }
        }
        Ok(())
    })?;
    let mut stacks: Vec<([u8; 32], i32, DiffId, [u8; 32])> = Vec::new();
    set.table(IMAGE_LAYERS)?.groups(|group| {
        let (ids, layers) = (group.digests("image")?, group.digests("diff_id")?);
        let chains = group.digests("chain_id")?;
        let (positions, _) = group.column::<Int32Type>("position")?;
        for (((id, position), layer), chain) in
            ids.into_iter().zip(positions).zip(layers).zip(chains)
        {
            stacks.push((id, position, DiffId::from_bytes(layer), chain));
        }
        Ok(())
    })?;
    stacks.sort_by_key(|(id, position, ..)| (*id, *position));
    for (id, _, layer, chain) in stacks {
        if let Some(image) = images.get_mut(&id) {
            image.layers.push((layer, chain));
        }
    }
    let (mut layers, mut new) = (Vec::new(), Vec::new());
    set.table(LAYERS)?.groups(|group| {
        let (entries, _) = group.column::<Int64Type>("entries")?;
        let (apparent, _) = group.column::<Int64Type>("apparent")?;
        for ((id, entries), apparent) in
            group.digests("diff_id")?.into_iter().zip(entries).zip(apparent)
        {
            let diff_id = DiffId::from_bytes(id);
            layers.push(diff_id);
            if !known.contains_key(&diff_id) {
                let (entries, apparent) = (entries as u64, apparent as u64);
                new.push(FleetLayer { diff_id, entries, apparent, contents: Vec::new() });
            }
        }
        Ok(())
    })?;
    let (mut files, mut stored, mut blocks) = (0, 0, 0);
    set.table(CONTENTS)?.groups(|group| {
        let (sizes, _) = group.column::<Int64Type>("size")?;
        files += sizes.len() as u64;
        stored += sizes.iter().map(|size| *size as u64).sum::<u64>();
        blocks += group.column::<Int64Type>("blocks")?.0.iter().map(|n| *n as u64).sum::<u64>();
        Ok(())
    })?;
    let images = images.into_values().collect();
    Ok((FleetStore { name, day, images, layers, files, stored, blocks }, new))
}

/// Hands over the contents that names of these layers refer to.
fn entries(
    set: &TableFiles,
    wanted: &HashSet<DiffId>,
    take: &mut dyn FnMut(DiffId, ContentDigest, u64),
) -> Result<()> {
    set.table(ENTRIES)?.groups(|group| {
        let layers = group.digests("diff_id")?;
        if !layers.iter().any(|layer| wanted.contains(&DiffId::from_bytes(*layer))) {
            return Ok(());
        }
        let (digests, digest_levels) = group.column::<FixedLenByteArrayType>("digest")?;
        let (sizes, size_levels) = group.column::<Int64Type>("size")?;
        let (mut digests, mut sizes) = (digests.iter(), sizes.iter());
        for (at, layer) in layers.iter().enumerate() {
            let size = if size_levels[at] > 0 { sizes.next().copied() } else { None };
            let digest = if digest_levels[at] > 0 { digests.next() } else { None };
            let layer = DiffId::from_bytes(*layer);
            if let (Some(digest), Some(size)) = (digest, size)
                && wanted.contains(&layer)
            {
                take(layer, ContentDigest::from_bytes(group.digest(digest)?), size as u64);
            }
        }
        Ok(())
    })
}

/// The tables of one data set, all open: nothing that takes its place changes what they say.
struct TableFiles {
    path: PathBuf,
    files: BTreeMap<&'static str, File>,
}

/// A table of a data set.
struct Table {
    name: &'static str,
    file: SerializedFileReader<File>,
}

impl TableFiles {
    const READ: [&str; 6] = [IMAGES, NAMES, IMAGE_LAYERS, LAYERS, CONTENTS, ENTRIES];

    /// How long to wait for a data set that was there a moment ago, in milliseconds: where two
    /// directories cannot be exchanged (NFS), there is none until the next one is in its place.
    const PAUSES: [u64; 4] = [1, 10, 100, 1000];

    /// Opens all tables of the data set that lies at a path, or did when it was listed.
    fn open(path: &Path) -> Result<Self> {
        let mut pauses = Self::PAUSES.iter();
        loop {
            let dir = match File::open(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let pause = pauses.next().ok_or(error).doing("open", path)?;
                    thread::sleep(Duration::from_millis(*pause));
                    continue;
                }
                opened => opened.doing("open", path)?,
            };
            if let Some(set) = Self::within(&dir, path)? {
                return Ok(set);
            }
        }
    }

    /// Opens all tables in the directory of a data set; `None` if it lacks one and is not at its
    /// path any more: where another takes its place, it is being removed.
    fn within(dir: &File, path: &Path) -> Result<Option<Self>> {
        let open = |table: &str| -> std::result::Result<File, Errno> {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            Ok(openat(dir, format!("{table}.parquet"), flags, Mode::empty())?.into())
        };
        let files = Self::READ.map(|table| (table, open(table)));
        let is_gone = files.iter().any(|(_, file)| matches!(file, Err(Errno::NOENT)));
        if is_gone && !is_at(dir, path)? {
            return Ok(None);
        }
        let mut opened = BTreeMap::new();
        for (name, file) in files {
            let at = path.join(format!("{name}.parquet"));
            opened.insert(name, file.doing("open", &at)?);
        }
        Ok(Some(Self { path: path.to_owned(), files: opened }))
    }

    fn table(&self, name: &'static str) -> Result<Table> {
        let path = self.path.join(format!("{name}.parquet"));
        let file = self.files.get(name).ok_or(Errno::NOENT).doing("open", &path)?;
        let file = file.try_clone().doing("open", &path)?;
        let refused = |source| Error::Parquet { table: name, source };
        let file = SerializedFileReader::new(file).map_err(refused)?;
        let said = file.metadata().file_metadata().key_value_metadata();
        let said = said.and_then(|all| all.iter().find(|pair| pair.key == VERSION_KEY));
        let found = said.and_then(|pair| pair.value.clone()).unwrap_or_default();
        match found == VERSION.to_string() {
            true => Ok(Table { name, file }),
            false => Err(Error::OtherVersion { path, found }),
        }
    }
}

/// Whether a directory that is open still lies at a path.
fn is_at(dir: &File, path: &Path) -> Result<bool> {
    let open = dir.metadata().doing("stat", path)?;
    let there = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        there => there.doing("stat", path)?,
    };
    Ok((open.dev(), open.ino()) == (there.dev(), there.ino()))
}

impl Table {
    /// Hands over its row groups.
    fn groups(&self, mut take: impl FnMut(Group<'_>) -> Result<()>) -> Result<()> {
        for at in 0..self.file.num_row_groups() {
            let group = self.file.get_row_group(at);
            let group = group.map_err(|source| Error::Parquet { table: self.name, source })?;
            take(Group { table: self.name, group })?;
        }
        Ok(())
    }
}

/// Some rows of a table.
struct Group<'a> {
    table: &'static str,
    group: Box<dyn RowGroupReader + 'a>,
}

impl Group<'_> {
    fn refused(&self, why: impl Into<String>) -> Error {
        Error::Parquet { table: self.table, source: ParquetError::General(why.into()) }
    }

    /// The values of a column that are not NULL, and of each row whether it has one; nothing of
    /// the latter for a column that has all.
    fn column<T: DataType>(&self, name: &str) -> Result<(Vec<T::T>, Vec<i16>)> {
        let table = TABLES.iter().find(|table| table.name == self.table);
        let columns = table.map(|table| table.columns).unwrap_or_default();
        let at = columns.iter().position(|column| column.name == name);
        let at = at.ok_or_else(|| self.refused(format!("it has no column {name}")))?;
        let fault = |source| Error::Parquet { table: self.table, source };
        let rows = self.group.metadata().num_rows() as usize;
        let optional = columns[at].optional;
        let physical = self.group.metadata().column(at).column_type();
        if physical != T::get_physical_type() {
            return Err(self.refused(format!("its column {name} is of the type {physical}")));
        }
        let mut reader =
            get_typed_column_reader::<T>(self.group.get_column_reader(at).map_err(fault)?);
        let (mut values, mut levels, mut read) = (Vec::new(), Vec::new(), 0);
        while read < rows {
            let levels = optional.then_some(&mut levels);
            let (records, ..) =
                reader.read_records(rows - read, levels, None, &mut values).map_err(fault)?;
            if records == 0 {
                return Err(self.refused(format!("its column {name} ends too early")));
            }
            read += records;
        }
        Ok((values, levels))
    }

    fn digests(&self, name: &str) -> Result<Vec<[u8; 32]>> {
        let (values, _) = self.column::<FixedLenByteArrayType>(name)?;
        values.iter().map(|value| self.digest(value)).collect()
    }

    fn digest(&self, value: &FixedLenByteArray) -> Result<[u8; 32]> {
        value.data().try_into().map_err(|_| self.refused("a digest that has not 32 bytes"))
    }

    fn texts(&self, name: &str) -> Result<Vec<String>> {
        let (values, _) = self.column::<ByteArrayType>(name)?;
        let text = |value: &ByteArray| String::from_utf8_lossy(value.data()).into_owned();
        Ok(values.iter().map(text).collect())
    }
}

#[cfg(test)]
mod tests {
    use strata_layer::Store;

    use super::*;
    use crate::{FactsOptions, PathPolicy, Place, write};

    fn tables(set: &TableFiles) -> Result<Vec<i64>> {
        let rows = |table: &Table| table.file.metadata().file_metadata().num_rows();
        TableFiles::READ.iter().map(|name| set.table(name).map(|table| rows(&table))).collect()
    }

    #[test]
    fn a_data_set_that_another_replaces_is_read_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let (name, day) = ("a".parse().unwrap(), "2026-01-31".parse().unwrap());
        let options =
            FactsOptions { place: Place { store: name, day }, paths: PathPolicy::Nothing };
        let facts = || write(&store, &dir.path().join("facts"), &options, &mut |_, _| {}).unwrap();
        facts();
        let path = dir.path().join("facts").join(options.place.path());
        let set = TableFiles::open(&path).unwrap();
        let before = tables(&set).unwrap();
        let old = File::open(&path).unwrap();
        facts();
        assert!(TableFiles::within(&old, &path).unwrap().is_none(), "the older one is gone");
        assert_eq!(tables(&set).unwrap(), before);
        // Where two cannot be exchanged, one is moved away before the other is moved in.
        let away = dir.path().join("away");
        fs::rename(&path, &away).unwrap();
        assert!(TableFiles::within(&old, &path).unwrap().is_none(), "and no other is there yet");
        thread::scope(|scope| {
            let opened = scope.spawn(|| TableFiles::open(&path).map(|set| tables(&set).unwrap()));
            thread::sleep(Duration::from_millis(20));
            fs::rename(&away, &path).unwrap();
            assert_eq!(opened.join().unwrap().unwrap(), before);
        });
        let never = TableFiles::open(&away).err().map(|error| error.to_string()).unwrap();
        assert!(never.starts_with("cannot open") && never.contains("away"), "{never}");
        // What lacks a table by itself is an error.
        fs::remove_file(path.join("layers.parquet")).unwrap();
        let error = TableFiles::open(&path).err().map(|error| error.to_string()).unwrap();
        assert!(error.starts_with("cannot open") && error.contains("layers.parquet"), "{error}");
    }
}
