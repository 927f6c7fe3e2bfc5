//! [`TableWriter`]: rows in, a Parquet file out, one row group in memory at a time.
//!
//! Parquet stores columns, and rows come one by one. So the cells of a row group are collected
//! column by column, then each column is encoded and compressed, and the group is written.
//!
//! Invariants: a row group has at most [`GROUP_ROWS`] rows, and is closed by the row with which its
//! bytes and texts reach [`GROUP_BYTES`]; nothing of the machine or the moment is in a file.

use std::fs::File;
use std::io::BufWriter;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{
    Compression, Encoding, LogicalType, Repetition, TimeUnit, Type as PhysicalType, ZstdLevel,
};
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, FixedLenByteArray, FixedLenByteArrayType, Int32Type,
    Int64Type,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::{ColumnPath, Type, TypePtr};

use crate::WrittenTable;
use crate::error::{Error, Result};
use crate::schema::{ColumnKind, FactColumn, FactTable, PATHS_KEY, Storage, VERSION, VERSION_KEY};

/// Rows of a row group: DuckDB's own number, which divides work among threads by row groups.
pub(crate) const GROUP_ROWS: usize = 122_880;
/// Bytes of texts and byte strings of a row group.
const GROUP_BYTES: usize = 16 << 20;
/// Bytes of a digest.
const DIGEST: usize = 32;

/// One value of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) enum FactCell<'a> {
    Null,
    Digest(&'a [u8; DIGEST]),
    Bytes(&'a [u8]),
    Text(&'a str),
    Long(i64),
    Int(i32),
    Flag(bool),
    Time(i64),
}

impl<'a> FactCell<'a> {
    /// A text, or NULL.
    pub(crate) fn text(text: Option<&'a str>) -> Self {
        text.map_or(Self::Null, Self::Text)
    }

    /// A digest, or NULL.
    pub(crate) fn digest(digest: Option<&'a [u8; DIGEST]>) -> Self {
        digest.map_or(Self::Null, Self::Digest)
    }

    /// A number, or NULL.
    pub(crate) fn long(number: Option<i64>) -> Self {
        number.map_or(Self::Null, Self::Long)
    }

    /// A small number, or NULL.
    pub(crate) fn int(number: Option<i32>) -> Self {
        number.map_or(Self::Null, Self::Int)
    }

    /// A size or count: none is so large that it would not fit.
    pub(crate) fn count(number: u64) -> Self {
        Self::Long(i64::try_from(number).unwrap_or(i64::MAX))
    }

    /// A moment, or NULL.
    pub(crate) fn time(time: Option<jiff::Timestamp>) -> Self {
        time.map_or(Self::Null, |time| Self::Time(time.as_microsecond()))
    }
}

/// The cells of one column, those that are not NULL.
enum Values {
    Digests(Vec<u8>),
    /// Bytes or text, and where each ends.
    Strings(Vec<u8>, Vec<usize>),
    Longs(Vec<i64>),
    Ints(Vec<i32>),
    Flags(Vec<bool>),
}

/// A column of the row group that is collected.
struct Collected {
    column: FactColumn,
    values: Values,
    /// Of each row whether it has a value, as Parquet numbers it; for a column that can be NULL.
    levels: Vec<i16>,
}

impl Collected {
    fn new(column: FactColumn) -> Self {
        let values = match column.kind {
            ColumnKind::Digest => Values::Digests(Vec::new()),
            ColumnKind::Bytes | ColumnKind::Text => Values::Strings(Vec::new(), Vec::new()),
            ColumnKind::Long | ColumnKind::Time => Values::Longs(Vec::new()),
            ColumnKind::Int => Values::Ints(Vec::new()),
            ColumnKind::Flag => Values::Flags(Vec::new()),
        };
        Self { column, values, levels: Vec::new() }
    }

    /// Takes a cell in; gives its bytes if it is a string, `None` if it does not belong here.
    fn push(&mut self, cell: FactCell<'_>) -> Option<usize> {
        let optional = self.column.optional;
        let mut bytes = 0;
        match (&mut self.values, cell, self.column.kind) {
            (_, FactCell::Null, _) if optional => {
                self.levels.push(0);
                return Some(0);
            }
            (Values::Digests(all), FactCell::Digest(digest), _) => all.extend_from_slice(digest),
            (Values::Strings(all, ends), FactCell::Bytes(text), ColumnKind::Bytes) => {
                all.extend_from_slice(text);
                ends.push(all.len());
                bytes = text.len();
            }
            (Values::Strings(all, ends), FactCell::Text(text), ColumnKind::Text) => {
                all.extend_from_slice(text.as_bytes());
                ends.push(all.len());
                bytes = text.len();
            }
            (Values::Longs(all), FactCell::Long(number), ColumnKind::Long)
            | (Values::Longs(all), FactCell::Time(number), ColumnKind::Time) => all.push(number),
            (Values::Ints(all), FactCell::Int(number), _) => all.push(number),
            (Values::Flags(all), FactCell::Flag(flag), _) => all.push(flag),
            _ => return None,
        }
        if optional {
            self.levels.push(1);
        }
        Some(bytes)
    }

    /// Writes the cells and forgets them.
    fn write(
        &mut self,
        writer: &mut SerializedColumnWriter<'_>,
    ) -> std::result::Result<(), ParquetError> {
        let levels = self.column.optional.then_some(self.levels.as_slice());
        match &mut self.values {
            Values::Digests(all) => {
                let all = Bytes::from(std::mem::take(all));
                let digests = (0..all.len()).step_by(DIGEST);
                let digests: Vec<FixedLenByteArray> =
                    digests.map(|at| ByteArray::from(all.slice(at..at + DIGEST)).into()).collect();
                writer.typed::<FixedLenByteArrayType>().write_batch(&digests, levels, None)?;
            }
            Values::Strings(all, ends) => {
                let all = Bytes::from(std::mem::take(all));
                let starts = [0].into_iter().chain(ends.iter().copied());
                let strings: Vec<ByteArray> =
                    starts.zip(&*ends).map(|(at, end)| all.slice(at..*end).into()).collect();
                writer.typed::<ByteArrayType>().write_batch(&strings, levels, None)?;
                ends.clear();
            }
            Values::Longs(all) => {
                writer.typed::<Int64Type>().write_batch(all, levels, None)?;
                all.clear();
            }
            Values::Ints(all) => {
                writer.typed::<Int32Type>().write_batch(all, levels, None)?;
                all.clear();
            }
            Values::Flags(all) => {
                writer.typed::<BoolType>().write_batch(all, levels, None)?;
                all.clear();
            }
        }
        self.levels.clear();
        Ok(())
    }
}

/// A table that is being written.
pub(crate) struct TableWriter {
    table: &'static FactTable,
    file: SerializedFileWriter<BufWriter<File>>,
    columns: Vec<Collected>,
    /// Rows of the group that is collected, and bytes of its strings.
    group: (usize, usize),
    rows: u64,
}

impl TableWriter {
    /// Begins a file; `paths` is the word for what became of paths.
    pub(crate) fn new(file: File, table: &'static FactTable, paths: &'static str) -> Result<Self> {
        let refused = |source| Error::Parquet { table: table.name, source };
        let schema = schema(table).map_err(refused)?;
        let properties = Arc::new(properties(table, paths).map_err(refused)?);
        let file = SerializedFileWriter::new(BufWriter::new(file), schema, properties);
        let columns = table.columns.iter().copied().map(Collected::new).collect();
        Ok(Self { table, file: file.map_err(refused)?, columns, group: (0, 0), rows: 0 })
    }

    /// Adds a row: a cell for each column.
    pub(crate) fn push(&mut self, row: &[FactCell<'_>]) -> Result<()> {
        if row.len() != self.columns.len() {
            return Err(Error::Row(self.table.name));
        }
        for (column, cell) in self.columns.iter_mut().zip(row) {
            self.group.1 += column.push(*cell).ok_or(Error::Row(self.table.name))?;
        }
        self.group.0 += 1;
        self.rows += 1;
        match self.group.0 >= GROUP_ROWS || self.group.1 >= GROUP_BYTES {
            true => self.end_group(),
            false => Ok(()),
        }
    }

    fn end_group(&mut self) -> Result<()> {
        self.group = (0, 0);
        let (file, columns) = (&mut self.file, &mut self.columns);
        let mut write = || {
            let mut group = file.next_row_group()?;
            for column in columns.iter_mut() {
                let Some(mut writer) = group.next_column()? else { break };
                column.write(&mut writer)?;
                writer.close()?;
            }
            group.close().map(|_| ())
        };
        write().map_err(|source| Error::Parquet { table: self.table.name, source })
    }

    /// Writes what is left, durably.
    pub(crate) fn finish(mut self) -> Result<WrittenTable> {
        if self.group.0 > 0 {
            self.end_group()?;
        }
        let name = self.table.name;
        let refused = |source| Error::Parquet { table: name, source };
        let buffer = self.file.into_inner().map_err(refused)?;
        let unwritten =
            |source| Error::Io { doing: format!("cannot write the table {name}"), source };
        let file = buffer.into_inner().map_err(|error| unwritten(error.into_error()))?;
        file.sync_all().map_err(unwritten)?;
        let bytes = file.metadata().map_err(unwritten)?.len();
        Ok(WrittenTable { name, rows: self.rows, bytes })
    }
}

/// The schema of a file.
fn schema(table: &FactTable) -> std::result::Result<TypePtr, ParquetError> {
    let field = |column: &FactColumn| {
        let (physical, logical) = match column.kind {
            ColumnKind::Digest => (PhysicalType::FIXED_LEN_BYTE_ARRAY, None),
            ColumnKind::Bytes => (PhysicalType::BYTE_ARRAY, None),
            ColumnKind::Text => (PhysicalType::BYTE_ARRAY, Some(LogicalType::String)),
            ColumnKind::Long => (PhysicalType::INT64, None),
            ColumnKind::Int => (PhysicalType::INT32, None),
            ColumnKind::Flag => (PhysicalType::BOOLEAN, None),
            ColumnKind::Time => {
                (PhysicalType::INT64, Some(LogicalType::timestamp(true, TimeUnit::MICROS)))
            }
        };
        let length = if column.kind == ColumnKind::Digest { DIGEST as i32 } else { -1 };
        let repetition = match column.optional {
            true => Repetition::OPTIONAL,
            false => Repetition::REQUIRED,
        };
        Type::primitive_type_builder(column.name, physical)
            .with_logical_type(logical)
            .with_length(length)
            .with_repetition(repetition)
            .build()
            .map(Arc::new)
    };
    let fields: std::result::Result<Vec<TypePtr>, ParquetError> =
        table.columns.iter().map(field).collect();
    Ok(Arc::new(Type::group_type_builder(table.name).with_fields(fields?).build()?))
}

/// How a file is written.
fn properties(
    table: &FactTable,
    paths: &'static str,
) -> std::result::Result<WriterProperties, ParquetError> {
    let said = [(VERSION_KEY, VERSION.to_string()), (PATHS_KEY, paths.to_owned())];
    let said = said.into_iter().map(|(key, value)| KeyValue::new(key.to_owned(), value));
    let mut all = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_created_by("strata".to_owned())
        .set_max_row_group_row_count(None)
        .set_key_value_metadata(Some(said.collect()));
    for column in table.columns {
        let path = ColumnPath::from(column.name);
        all = match column.storage {
            Storage::Repeated => continue,
            // Of digests of files, which come in no order, the least and the largest tell nothing.
            Storage::Distinct if column.optional => all
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_statistics_enabled(path, EnabledStatistics::None),
            Storage::Distinct => all.set_column_dictionary_enabled(path, false),
            Storage::Neighbours => {
                let encoding = match column.kind {
                    ColumnKind::Bytes | ColumnKind::Text => Encoding::DELTA_BYTE_ARRAY,
                    _ => Encoding::DELTA_BINARY_PACKED,
                };
                all.set_column_dictionary_enabled(path.clone(), false)
                    .set_column_encoding(path, encoding)
            }
        };
    }
    Ok(all.build())
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader, SerializedFileReader};

    use super::*;
    use crate::schema::{CONTENTS, NAMES, TABLES};

    fn writer(name: &str) -> (TableWriter, File) {
        let file = tempfile::tempfile().unwrap();
        let table = TABLES.iter().find(|table| table.name == name).unwrap();
        (TableWriter::new(file.try_clone().unwrap(), table, "plain").unwrap(), file)
    }

    fn groups(file: File) -> Vec<i64> {
        let reader = SerializedFileReader::new(file).unwrap();
        reader.metadata().row_groups().iter().map(|group| group.num_rows()).collect()
    }

    #[test]
    fn a_row_group_has_a_bounded_number_of_rows() {
        let (mut rows, file) = writer(CONTENTS);
        let count = 2 * GROUP_ROWS + 5;
        for number in 0..count as i64 {
            let long = FactCell::Long(number);
            rows.push(&[FactCell::Digest(&[7; 32]), FactCell::Int(0), long, long]).unwrap();
        }
        assert_eq!(rows.finish().unwrap().rows, count as u64);
        assert_eq!(groups(file), [GROUP_ROWS as i64, GROUP_ROWS as i64, 5]);
    }

    #[test]
    fn a_row_group_has_bounded_bytes_of_text() {
        let (mut rows, file) = writer(NAMES);
        let name = "x".repeat(GROUP_BYTES / 4);
        for _ in 0..9 {
            rows.push(&[FactCell::Text(&name), FactCell::Digest(&[7; 32])]).unwrap();
        }
        rows.finish().unwrap();
        assert_eq!(groups(file), [4, 4, 1]);
    }

    #[test]
    fn a_row_of_other_columns_is_refused() {
        let (mut rows, _file) = writer(NAMES);
        let digest = FactCell::Digest(&[7; 32]);
        for row in [&[digest, digest][..], &[FactCell::Null, digest], &[digest]] {
            assert!(matches!(rows.push(row), Err(Error::Row("names"))));
        }
    }
}
