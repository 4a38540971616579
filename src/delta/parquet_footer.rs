//! What Parquet files of a log may cost, checked in their footers and in the columns that are read, before the Parquet
//! reader parses and unpacks them.
//!
//! The reader parses the tree of the schema recursively, and it reserves what a header claims. A page of a few
//! kilobytes may unpack into gigabytes, and a value that a dictionary holds once may be meant in every row.

use std::collections::HashMap;
use std::ops::Range;

use buoyant_kernel::parquet::file::metadata::ParquetMetaDataReader;
use bytes::Bytes;

use super::log_rejection::LogRejection;
use super::parquet_pages::Column;
use super::thrift::{self, Value};
use crate::limits::Limits;

/// The most rows that a file has for each of its bytes.
const ROWS_OF_A_BYTE: u64 = 16;

/// What follows the metadata of a Parquet file: its length, and the magic number.
pub(super) const END_BYTES: usize = 8;

/// What a column of the schema takes.
const SCHEMA_COLUMN_BYTES: usize = 300;

/// The columns of a file, by the bytes that hold them.
#[derive(Debug)]
pub(super) struct Footer {
    columns: HashMap<(u64, u64), Vec<Column>>,
    /// How many columns the schema has, which the columns of all row groups share.
    schema_columns: usize,
}

impl Footer {
    /// The length of the metadata, from the last bytes of a file; `None` if they are not those of a Parquet file.
    pub(super) fn metadata_bytes(end: &[u8]) -> Option<u64> {
        let (rest, magic) = end.split_last_chunk::<4>()?;
        let length = rest.last_chunk::<4>()?;
        (magic == b"PAR1").then(|| u64::from(u32::from_le_bytes(*length)))
    }

    /// Reads the metadata of a file of so many bytes.
    pub(super) fn read(metadata: &[u8], file_bytes: u64, limits: &Limits) -> Result<Self, LogRejection> {
        check(metadata, limits)?;
        let metadata =
            ParquetMetaDataReader::decode_metadata(metadata).map_err(|_| LogRejection::Malformed)?;
        let mut columns: HashMap<_, Vec<Column>> = HashMap::new();
        let mut rows = 0_u64;
        for group in metadata.row_groups() {
            let group_rows = u64::try_from(group.num_rows()).map_err(|_| LogRejection::Malformed)?;
            rows = rows.saturating_add(group_rows);
            for column in group.columns() {
                let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
                let start = u64::try_from(start).map_err(|_| LogRejection::Malformed)?;
                let bytes = u64::try_from(column.compressed_size()).map_err(|_| LogRejection::Malformed)?;
                let end = start.checked_add(bytes).filter(|&end| end <= file_bytes);
                let same = columns.entry((start, end.ok_or(LogRejection::Malformed)?)).or_default();
                let column = Column::new(column);
                if !same.contains(&column) {
                    same.push(column);
                }
            }
        }
        // Every action has a path or an id that no other one has, which takes some bits however well it is packed.
        if rows > file_bytes.saturating_mul(ROWS_OF_A_BYTE) {
            return Err(LogRejection::Rows);
        }
        Ok(Self { columns, schema_columns: metadata.file_metadata().schema_descr().num_columns() })
    }

    /// How much it holds.
    pub(super) fn len(&self) -> usize {
        self.columns.len()
    }

    /// About how many bytes of memory it takes. Each list of columns has room for four.
    pub(super) fn kept_bytes(&self) -> usize {
        const ENTRY: usize = size_of::<((u64, u64), Vec<Column>)>() + 4 * size_of::<Column>();
        self.columns.capacity() * ENTRY + self.schema_columns * SCHEMA_COLUMN_BYTES
    }

    /// Checks columns that were fetched to be read together, as many rows at a time. Returns what a batch of rows takes.
    pub(super) fn check(
        &self,
        ranges: &[Range<u64>],
        fetched: &[Bytes],
        batch_rows: u64,
        limits: &Limits,
    ) -> Result<u64, LogRejection> {
        let mut batch = 0_u64;
        for (range, bytes) in ranges.iter().zip(fetched) {
            let columns = self.columns.get(&(range.start, range.end)).ok_or(LogRejection::Malformed)?;
            let mut costs = columns.iter().map(|column| column.cost(bytes, batch_rows, limits));
            let cost = costs.try_fold(0, |most, cost| cost.map(|cost| cost.max(most)))?;
            batch = batch.saturating_add(cost);
        }
        if batch > limits.log_batch_bytes { Err(LogRejection::Batch) } else { Ok(batch) }
    }
}

/// Whether a whole file may be given to the Parquet reader, which then reads all of its columns in batches of so many rows.
pub fn may_be_read(file: &Bytes, batch_rows: u64, limits: &Limits) -> bool {
    check_file(file, batch_rows, limits).is_ok()
}

fn check_file(file: &Bytes, batch_rows: u64, limits: &Limits) -> Result<(), LogRejection> {
    let length = Footer::metadata_bytes(file).ok_or(LogRejection::Malformed)?;
    if length > limits.parquet_footer_bytes {
        return Err(LogRejection::Footer);
    }
    let end = file.len().checked_sub(END_BYTES).ok_or(LogRejection::Malformed)?;
    let start = end.checked_sub(length as usize).ok_or(LogRejection::Malformed)?;
    let footer = Footer::read(&file[start..end], file.len() as u64, limits)?;
    let ranges: Vec<_> = footer.columns.keys().map(|&(start, end)| start..end).collect();
    let fetched: Vec<_> =
        ranges.iter().map(|range| file.slice(range.start as usize..range.end as usize)).collect();
    footer.check(&ranges, &fetched, batch_rows, limits).map(drop)
}

/// Walks the metadata before it is parsed: the depth of the schema and the number of columns.
fn check(metadata: &[u8], limits: &Limits) -> Result<(), LogRejection> {
    const SCHEMA: i16 = 2;
    const CHILDREN: &[i16] = &[SCHEMA, 5];
    const ROW_GROUPS: &[i16] = &[4];
    const COLUMNS: &[i16] = &[4, 1];
    let (mut elements, mut children) = (None, Vec::new());
    let mut current = 0_i32;
    let (mut columns, mut row_groups) = (0_usize, false);
    thrift::walk(metadata, thrift::FILE, &mut |path, met| {
        match (path, met) {
            ([SCHEMA], Value::List(count)) => {
                if elements.replace(count).is_some() {
                    return Err(LogRejection::Malformed);
                }
                children.reserve_exact(count);
            }
            // Of an element of the schema, which may be written twice.
            (CHILDREN, Value::Int(count)) => current = count as i32,
            ([SCHEMA], Value::End) => {
                children.push(usize::try_from(current).map_err(|_| LogRejection::Malformed)?);
                current = 0;
            }
            (ROW_GROUPS, Value::List(_)) if std::mem::replace(&mut row_groups, true) => {
                return Err(LogRejection::Malformed);
            }
            (COLUMNS, Value::List(count)) => {
                columns += count;
                if columns > limits.parquet_columns {
                    return Err(LogRejection::Footer);
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    if children.len() > limits.parquet_columns {
        return Err(LogRejection::Footer);
    }
    // The reader makes room for as many children as an element claims.
    if children
        .iter()
        .try_fold(0_usize, |sum, &count| sum.checked_add(count))
        .is_none_or(|sum| sum > children.len())
    {
        return Err(LogRejection::Malformed);
    }
    let mut open: Vec<usize> = Vec::new();
    for count in children {
        if let Some(left) = open.last_mut() {
            *left -= 1;
        }
        if count > 0 {
            open.push(count);
            if open.len() > limits.parquet_depth {
                return Err(LogRejection::TooDeep);
            }
        }
        while open.last() == Some(&0) {
            open.pop();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use buoyant_kernel::arrow::array::{ArrayRef, Int64Array, ListArray, RecordBatch, StringArray};
    use buoyant_kernel::arrow::buffer::OffsetBuffer;
    use buoyant_kernel::arrow::datatypes::{DataType, Field};
    use buoyant_kernel::parquet::arrow::ArrowWriter;
    use buoyant_kernel::parquet::basic::{Compression, Encoding, GzipLevel};
    use buoyant_kernel::parquet::file::properties::{WriterProperties, WriterVersion};

    use super::*;

    fn properties() -> buoyant_kernel::parquet::file::properties::WriterPropertiesBuilder {
        WriterProperties::builder().set_compression(Compression::SNAPPY)
    }

    fn file(column: ArrayRef, properties: WriterProperties) -> Bytes {
        let batch = RecordBatch::try_from_iter([("a", column)]).unwrap();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        bytes.into()
    }

    /// Checks every column of a file as one that is read in batches of 100 rows.
    fn check(file: &Bytes, limits: &Limits) -> Result<(), LogRejection> {
        check_file(file, 100, limits)
    }

    fn limits(batch: u64) -> Limits {
        Limits { log_batch_bytes: batch, ..Limits::default() }
    }

    fn texts(rows: usize, length: usize) -> ArrayRef {
        Arc::new(StringArray::from_iter_values((0..rows).map(|row| format!("{row:0length$}"))))
    }

    fn lists(lengths: &[usize]) -> ArrayRef {
        let values = StringArray::from_iter_values((0..lengths.iter().sum()).map(|_| "value of ten"));
        let field = Arc::new(Field::new("element", DataType::Utf8, true));
        let offsets = OffsetBuffer::from_lengths(lengths.iter().copied());
        Arc::new(ListArray::new(field, offsets, Arc::new(values), None))
    }

    #[test]
    fn what_writers_make_is_read() {
        for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
            for compression in [
                Compression::UNCOMPRESSED,
                Compression::SNAPPY,
                Compression::GZIP(GzipLevel::default()),
                Compression::ZSTD(Default::default()),
                Compression::LZ4,
                Compression::LZ4_RAW,
            ] {
                for encoding in
                    [None, Some(Encoding::DELTA_LENGTH_BYTE_ARRAY), Some(Encoding::DELTA_BYTE_ARRAY)]
                {
                    let mut properties = WriterProperties::builder()
                        .set_compression(compression)
                        .set_writer_version(version)
                        .set_data_page_row_count_limit(300)
                        .set_write_batch_size(100);
                    if let Some(encoding) = encoding {
                        properties = properties.set_dictionary_enabled(false).set_encoding(encoding);
                    }
                    let properties = properties.build();
                    let columns =
                        [texts(1_500, 20), Arc::new(StringArray::from(vec![None::<&str>; 300])) as _];
                    for column in columns.into_iter().chain([lists(&[0, 3, 50].repeat(60))]) {
                        let file = file(column, properties.clone());
                        assert_eq!(
                            check(&file, &Limits::default()),
                            Ok(()),
                            "{version:?} {compression} {encoding:?}"
                        );
                    }
                }
            }
        }
        let numbers = Arc::new(Int64Array::from_iter_values(0..10_000));
        assert_eq!(check(&file(numbers, properties().build()), &Limits::default()), Ok(()));
    }

    #[test]
    fn a_batch_is_measured_unpacked() {
        // A value of 1,000 bytes in each of 2,000 rows, which the file has once.
        let same: ArrayRef = Arc::new(StringArray::from_iter_values((0..2_000).map(|_| "x".repeat(1_000))));
        let packed = file(same, properties().build());
        assert!(packed.len() < 10_000);
        assert_eq!(check(&packed, &limits(90_000)), Err(LogRejection::Batch));
        assert_eq!(check(&packed, &limits(110_000)), Ok(()));
        // Without a dictionary, a batch of 100 rows may have values of three pages of 50.
        let small = || properties().set_data_page_row_count_limit(50).set_write_batch_size(50);
        let long = file(texts(10_000, 1_000), small().set_dictionary_enabled(false).build());
        assert_eq!(check(&long, &limits(100_000)), Err(LogRejection::Batch));
        assert_eq!(check(&long, &limits(160_000)), Ok(()));
    }

    #[test]
    fn rows_of_many_values_are_counted() {
        let many = file(lists(&[30].repeat(2_000)), properties().build());
        // 100 rows of 30 values of 12 bytes and some more.
        assert_eq!(check(&many, &limits(30_000)), Err(LogRejection::Batch));
        assert_eq!(check(&many, &limits(70_000)), Ok(()));
        let mut lengths = vec![1; 2_000];
        lengths[777] = 100_000;
        let one = file(lists(&lengths), properties().build());
        assert!(one.len() < 100_000);
        assert_eq!(check(&one, &limits(1_000_000)), Err(LogRejection::Batch));
        assert_eq!(check(&one, &limits(3_000_000)), Ok(()));
    }

    #[test]
    fn pages_are_measured_unpacked() {
        let zeros: ArrayRef = Arc::new(StringArray::from_iter_values(["0".repeat(1 << 20)]));
        let limits = Limits { parquet_page_bytes: 1 << 19, ..Limits::default() };
        for compression in [
            Compression::SNAPPY,
            Compression::GZIP(GzipLevel::default()),
            Compression::ZSTD(Default::default()),
        ] {
            let file = file(Arc::clone(&zeros), properties().set_compression(compression).build());
            assert_eq!(check(&file, &limits), Err(LogRejection::Page), "{compression}");
            assert_eq!(check(&file, &Limits::default()), Ok(()), "{compression}");
        }
    }

    #[test]
    fn every_flipped_bit_of_a_footer_is_refused_or_read() {
        let file = file(lists(&[3].repeat(100)), properties().build());
        let metadata = Footer::metadata_bytes(&file).unwrap() as usize;
        let start = file.len() - END_BYTES - metadata;
        for at in start..file.len() - END_BYTES {
            for bit in 0..8 {
                let mut bytes = file.to_vec();
                bytes[at] ^= 1 << bit;
                let _ = check(&bytes.into(), &Limits::default());
            }
        }
    }

    #[test]
    fn schemas_are_trees_of_a_limited_depth() {
        let limits = Limits { parquet_depth: 10, parquet_columns: 50, ..Limits::default() };
        // Version 1, and a schema of groups with so many children each.
        let schema = |children: &[u8]| {
            let mut bytes = vec![0x15, 2, 0x19, 0xfc, children.len() as u8];
            for &count in children {
                bytes.extend([0x35, 2, 0x18, 1, b'g', 0x15, count * 2, 0]);
            }
            bytes.extend([0x16, 0, 0x19, 0x0c, 0]);
            bytes
        };
        let chain = |length: usize| [vec![1; length], vec![0]].concat();
        assert_eq!(super::check(&schema(&chain(10)), &limits), Ok(()));
        assert_eq!(super::check(&schema(&chain(11)), &limits), Err(LogRejection::TooDeep));
        assert_eq!(super::check(&schema(&[3, 1, 0, 0, 0]), &limits), Ok(()));
        assert_eq!(super::check(&schema(&[0; 51]), &limits), Err(LogRejection::Footer));
        assert_eq!(super::check(&schema(&[1, 100, 0]), &limits), Err(LogRejection::Malformed));
        assert_eq!(super::check(&[], &limits), Err(LogRejection::Malformed));
    }
}
