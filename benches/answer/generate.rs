//! Delta logs of any size, always the same for the same size: a Parquet checkpoint and ten commits after it.
//!
//! Paths have about 90 bytes, statistics about 400; there is one partition column. The data files
//! themselves do not exist, because no answer reads them. The logs are written by hand and not with `deltalake`, which
//! holds all files of a commit in memory and would write other bytes each time.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use buoyant_kernel::arrow::array::{
    Array as _, ArrayRef, BooleanBuilder, Int32Array, Int64Builder, ListBuilder, MapBuilder, MapFieldNames,
    RecordBatch, StringArray, StringBuilder, StructArray, new_null_array,
};
use buoyant_kernel::arrow::buffer::NullBuffer;
use buoyant_kernel::arrow::datatypes::{DataType, Field, Fields, Schema};
use buoyant_kernel::parquet::arrow::ArrowWriter;
use buoyant_kernel::parquet::basic::Compression;
use buoyant_kernel::parquet::file::properties::WriterProperties;
use chrono::{Days, NaiveDate};

const ROW_GROUP: usize = 160_000;
const COMMITS: usize = 10;
const ADDED_BY_COMMIT: usize = 10;
const REMOVED_BY_COMMIT: usize = 5;

const SCHEMA: &str = r#"{"type":"struct","fields":[{"name":"id","type":"long","nullable":true,"metadata":{}},{"name":"customer","type":"string","nullable":true,"metadata":{}},{"name":"amount","type":"double","nullable":true,"metadata":{}},{"name":"at","type":"timestamp","nullable":true,"metadata":{}},{"name":"status","type":"string","nullable":true,"metadata":{}},{"name":"quantity","type":"integer","nullable":true,"metadata":{}},{"name":"country","type":"string","nullable":true,"metadata":{}},{"name":"date","type":"date","nullable":true,"metadata":{}}]}"#;

/// How the partition values of files follow on one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// 336 days, each of them everywhere.
    Mixed,
    /// 1,000 days, one after the other, as in a table that gets a partition each day.
    ByDay,
    /// 1,000 days, each of them everywhere, as in the checkpoints of Spark, which are in the order of hashes.
    Scattered,
}

impl Layout {
    /// The date of a file of a table of so many files.
    fn date(self, number: usize, files: usize) -> String {
        let day = match self {
            Self::Mixed => return format!("2024-{:02}-{:02}", number / 28 % 12 + 1, number % 28 + 1),
            Self::ByDay => number * 1000 / files % 1000,
            Self::Scattered => number % 1000,
        };
        let first = NaiveDate::from_ymd_opt(2022, 1, 1).unwrap_or_default();
        (first + Days::new(day as u64)).to_string()
    }
}

/// A table whose log has `files` active files, made below `root` where it is not there yet. With `crc`
/// the last version has a checksum file, which says how many files there are.
pub(crate) fn table(root: &Path, files: usize, layout: Layout, crc: bool) -> io::Result<PathBuf> {
    let layout_name = match layout {
        Layout::Mixed => String::new(),
        other => format!("-{other:?}").to_lowercase(),
    };
    let table = root.join(format!("{files}{layout_name}{}", if crc { "-crc" } else { "" }));
    let file_of = |number| FileOf::number(number, layout.date(number, files));
    let done = table.join("done");
    if done.exists() {
        return Ok(table);
    }
    eprintln!("making a log of {files} files in {}", table.display());
    let log = table.join("_delta_log");
    fs::create_dir_all(&log)?;
    // The commits add more than they remove, so that the table ends with as many files as asked for.
    let kept = COMMITS * (ADDED_BY_COMMIT - REMOVED_BY_COMMIT);
    let in_checkpoint = files - kept;
    checkpoint(&log.join(format!("{:020}.checkpoint.parquet", 0)), in_checkpoint, &file_of)?;
    fs::write(log.join("_last_checkpoint"), format!(r#"{{"version":0,"size":{}}}"#, in_checkpoint + 2))?;
    for commit in 1..=COMMITS {
        let mut out = BufWriter::new(File::create(log.join(format!("{commit:020}.json")))?);
        writeln!(out, r#"{{"commitInfo":{{"timestamp":1700000000000,"operation":"WRITE"}}}}"#)?;
        for added in 0..ADDED_BY_COMMIT {
            let file = file_of(in_checkpoint + commit * ADDED_BY_COMMIT + added);
            writeln!(
                out,
                r#"{{"add":{{"path":"{}","partitionValues":{{"date":"{}"}},"size":{},"modificationTime":1700000000000,"dataChange":true,"stats":{}}}}}"#,
                file.path,
                file.date,
                file.size,
                serde_json::Value::from(file.stats.as_str())
            )?;
        }
        for removed in 0..REMOVED_BY_COMMIT {
            let file = file_of((commit * 37 + removed * 7) % in_checkpoint);
            writeln!(
                out,
                r#"{{"remove":{{"path":"{}","deletionTimestamp":1700000000000,"dataChange":true}}}}"#,
                file.path
            )?;
        }
        out.flush()?;
    }
    if crc {
        let text = format!(
            r#"{{"tableSizeBytes":{},"numFiles":{files},"numMetadata":1,"numProtocol":1,"metadata":{{"id":"5fba94ed-9794-4965-ba6e-6ee3c0d22af9","format":{{"provider":"parquet","options":{{}}}},"schemaString":{},"partitionColumns":["date"],"configuration":{{}},"createdTime":1700000000000}},"protocol":{{"minReaderVersion":1,"minWriterVersion":2}}}}"#,
            files * 1_000_000,
            serde_json::Value::from(SCHEMA)
        );
        fs::write(log.join(format!("{COMMITS:020}.crc")), text)?;
    }
    fs::write(done, "")?;
    Ok(table)
}

struct FileOf {
    path: String,
    date: String,
    size: i64,
    stats: String,
}

impl FileOf {
    fn number(number: usize, date: String) -> Self {
        // A fixed mixing of the number, so that names and values compress as real ones do.
        let mixed = (number as u64 ^ 0x9e37_79b9).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let more = mixed.rotate_left(31).wrapping_mul(0x94d0_49bb_1331_11eb);
        let path = format!(
            "date={date}/part-{:05}-{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}-c000.snappy.parquet",
            number % 100_000,
            mixed as u32,
            (mixed >> 32) as u16,
            mixed >> 52,
            more >> 52,
            more & 0xffff_ffff_ffff
        );
        let mut stats = String::new();
        let rows = 10_000 + mixed % 5_000;
        let bounds = |stats: &mut String, low: u64| {
            write!(
                stats,
                r#"{{"id":{},"customer":"customer-{:06}","amount":{}.25,"at":"2024-01-{:02}T00:00:00.000Z","status":"s{}","quantity":{},"country":"c{}"}}"#,
                low,
                low % 1_000_000,
                low % 10_000,
                low % 28 + 1,
                low % 7,
                low % 100,
                low % 200
            )
        };
        let written = write!(stats, r#"{{"numRecords":{rows},"minValues":"#)
            .and_then(|()| bounds(&mut stats, mixed % 1_000_000))
            .and_then(|()| stats.write_str(r#","maxValues":"#))
            .and_then(|()| bounds(&mut stats, more % 1_000_000))
            .and_then(|()| {
                stats.write_str(r#","nullCount":{"id":0,"customer":0,"amount":0,"at":0,"status":0}}"#)
            });
        assert!(written.is_ok());
        Self { path, date, size: 900_000 + (more % 200_000) as i64, stats }
    }
}

fn map_builder() -> MapBuilder<StringBuilder, StringBuilder> {
    let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
    MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new())
}

fn struct_of(columns: Vec<(&str, ArrayRef)>, valid: Option<NullBuffer>) -> StructArray {
    let fields: Fields =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    StructArray::new(fields, columns.into_iter().map(|(_, array)| array).collect(), valid)
}

fn protocol() -> StructArray {
    struct_of(
        vec![
            ("minReaderVersion", Arc::new(Int32Array::from(vec![1])) as ArrayRef),
            ("minWriterVersion", Arc::new(Int32Array::from(vec![2]))),
        ],
        None,
    )
}

fn metadata() -> StructArray {
    let text = |text: &str| Arc::new(StringArray::from(vec![text])) as ArrayRef;
    let mut empty = map_builder();
    let mut empty_map = || {
        drop(empty.append(true));
        Arc::new(empty.finish()) as ArrayRef
    };
    let format = struct_of(vec![("provider", text("parquet")), ("options", empty_map())], None);
    let mut columns = ListBuilder::new(StringBuilder::new());
    columns.values().append_value("date");
    columns.append(true);
    struct_of(
        vec![
            ("id", text("5fba94ed-9794-4965-ba6e-6ee3c0d22af9")),
            ("format", Arc::new(format)),
            ("schemaString", text(SCHEMA)),
            ("partitionColumns", Arc::new(columns.finish())),
            ("configuration", empty_map()),
        ],
        None,
    )
}

fn adds(files: std::ops::Range<usize>, file_of: &impl Fn(usize) -> FileOf) -> StructArray {
    let (mut path, mut stats) = (StringBuilder::new(), StringBuilder::new());
    let mut values = map_builder();
    let (mut size, mut time) = (Int64Builder::new(), Int64Builder::new());
    let mut change = BooleanBuilder::new();
    let count = files.len();
    for number in files {
        let file = file_of(number);
        path.append_value(&file.path);
        values.keys().append_value("date");
        values.values().append_value(&file.date);
        drop(values.append(true));
        size.append_value(file.size);
        time.append_value(1_700_000_000_000);
        change.append_value(false);
        stats.append_value(&file.stats);
    }
    let vector = DataType::Struct(Fields::from(vec![
        Field::new("storageType", DataType::Utf8, true),
        Field::new("pathOrInlineDv", DataType::Utf8, true),
        Field::new("offset", DataType::Int32, true),
        Field::new("sizeInBytes", DataType::Int32, true),
        Field::new("cardinality", DataType::Int64, true),
    ]));
    struct_of(
        vec![
            ("path", Arc::new(path.finish()) as ArrayRef),
            ("partitionValues", Arc::new(values.finish())),
            ("size", Arc::new(size.finish())),
            ("modificationTime", Arc::new(time.finish())),
            ("dataChange", Arc::new(change.finish())),
            ("stats", Arc::new(stats.finish())),
            ("deletionVector", new_null_array(&vector, count)),
        ],
        None,
    )
}

/// The rows of one checkpoint batch: of the three columns, one is given and the others are null.
fn batch(schema: &Arc<Schema>, column: usize, array: &Arc<StructArray>) -> io::Result<RecordBatch> {
    let rows = array.len();
    let columns = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(index, field)| {
            if index == column {
                Arc::clone(array) as ArrayRef
            } else {
                new_null_array(field.data_type(), rows)
            }
        })
        .collect();
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(io::Error::other)
}

fn checkpoint(path: &Path, files: usize, file_of: &impl Fn(usize) -> FileOf) -> io::Result<()> {
    let (protocol, metadata, example) = (Arc::new(protocol()), Arc::new(metadata()), adds(0..1, file_of));
    let schema = Arc::new(Schema::new(vec![
        Field::new("protocol", protocol.data_type().clone(), true),
        Field::new("metaData", metadata.data_type().clone(), true),
        Field::new("add", example.data_type().clone(), true),
    ]));
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(ROW_GROUP))
        .build();
    let mut writer = ArrowWriter::try_new(File::create(path)?, Arc::clone(&schema), Some(properties))
        .map_err(io::Error::other)?;
    writer.write(&batch(&schema, 0, &protocol)?).map_err(io::Error::other)?;
    writer.write(&batch(&schema, 1, &metadata)?).map_err(io::Error::other)?;
    for start in (0..files).step_by(10_000) {
        let rows = Arc::new(adds(start..files.min(start + 10_000), file_of));
        writer.write(&batch(&schema, 2, &rows)?).map_err(io::Error::other)?;
    }
    writer.close().map_err(io::Error::other)?;
    Ok(())
}
