//! Logs of tables: commits, checkpoints, what says where to begin, and schemas.

use std::sync::Arc;

use buoyant_kernel::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use bytes::Bytes;
use deltashare::delta::{ChangeKind, DeltaTable, Schema, may_be_read, read_schema};
use deltashare::error::Error;
use deltashare::limits::Limits;

use super::log::*;
use super::{RUNTIME, on_a_thread, text, within_memory};

/// The newest version and the paths of its files, in their order; or why they cannot be read.
type Files = Result<(u64, Vec<String>), String>;

fn files_of(table: &DeltaTable) -> Files {
    let read = || {
        let newest = table.latest()?;
        let (mut files, mut paths) = (table.files(&newest)?, Vec::new());
        while let Some(file) = files.advance()? {
            paths.push(file.path.to_owned());
        }
        Ok((newest.version(), paths))
    };
    read().map_err(|error: Error| error.message().to_owned())
}

/// Reads everything that a table's log says.
fn read_all(table: &DeltaTable) {
    let Ok(newest) = table.latest() else { return };
    let _ = (newest.timestamp(), newest.file_stats(), newest.exact_features(), newest.version_as_of(0));
    if let Ok(range) = table.change_range(&newest, 0, newest.version()) {
        let range = Arc::new(range);
        for kind in [ChangeKind::Data, ChangeKind::Files] {
            let _ = table.survey(&range, kind, None, &mut |_| Ok(()));
        }
    }
}

/// Reads a table's files, and once more by another server that was asked for everything else before: both find the same.
fn read_twice(write: impl Future<Output = Log>) -> Files {
    let mut found = None;
    within_memory(|| {
        found = RUNTIME.block_on(async {
            let log = write.await;
            let (one, other) = (log.table(), log.table());
            let read = move || {
                let files = files_of(&one);
                read_all(&other);
                assert_eq!(files_of(&other), files);
                files
            };
            Some(blocking(read).await)
        });
    });
    found.unwrap()
}

/// The lines of a table's third commit.
pub fn commits(input: &[u8]) {
    _ = read_twice(async {
        let log = Log::new();
        log.commits_by_hand(2).await;
        log.put(&commit_name(2), input).await;
        log
    });
}

/// A checkpoint, with the commits that it stands for or, where its last byte is odd, without the first of them.
pub fn checkpoints(input: &[u8]) {
    let (&last, file) = input.split_last().unwrap_or((&0, input));
    _ = read_twice(async {
        let log = Log::new();
        log.commits_by_hand(4).await;
        log.put(&checkpoint_name(2), file).await;
        if last % 2 == 1 {
            log.delete(&commit_name(0)).await;
        }
        log
    });
}

/// A Parquet file: what the guard lets through, the reader reads in a few batches within its memory, or refuses.
pub fn parquet(input: &[u8]) {
    const ROWS: usize = 100;
    let limits = Limits { log_batch_bytes: 16 << 20, parquet_page_bytes: 16 << 20, ..Limits::default() };
    let file = Bytes::copy_from_slice(input);
    within_memory(|| {
        on_a_thread(|| {
            if may_be_read(&file, ROWS as u64, &limits) {
                // The reader panics at some files; in the server, that is caught too.
                let hook = std::panic::take_hook();
                std::panic::set_hook(Box::new(|_| {}));
                let _ = std::panic::catch_unwind(|| {
                    let builder = ParquetRecordBatchReaderBuilder::try_new(file.clone()).ok()?;
                    let reader = builder.with_batch_size(ROWS).build().ok()?;
                    Some(reader.take(20).take_while(Result::is_ok).count())
                });
                std::panic::set_hook(hook);
            }
        });
    });
}

/// `_last_checkpoint` and the checksum of a version. Neither can hide a file.
pub fn hints(input: &[u8]) {
    let read = read_twice(async {
        let log = Log::new();
        log.commits_by_hand(3).await;
        log.put("_last_checkpoint", input).await;
        log.put("00000000000000000002.crc", input).await;
        log
    });
    let (version, mut paths) = read.unwrap();
    paths.sort();
    assert_eq!((version, paths), (2, files(0..3)));
}

/// The schema string of a table.
pub fn schemas(input: &[u8]) {
    let Some(text) = text(input) else { return };
    on_a_thread(|| {
        if Schema::parse(text).is_ok() {
            assert!(read_schema(text).unwrap().is_object());
        }
    });
}
