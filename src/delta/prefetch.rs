//! Files of the log that a version is surely read from, fetched together before the kernel asks for one after the other.
//!
//! The kernel gets the answers to these requests, or their errors, as if it had sent them itself. What it never asks for is
//! forgotten.

use std::sync::Arc;

use buoyant_kernel::FileMeta;
use buoyant_kernel::object_store::path::Path;
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::log_names::{LogFile, file_name};
use super::log_store::{COMMIT_BYTES, LogStore, Part, TAIL_BYTES};

/// The most files that are fetched at the same time. Commits are small, so the time for each is the round trip to S3.
const FILES: usize = 48;

/// The most parts of a checkpoint that are fetched: the kernel opens as many at the same time.
const PARTS: usize = 16;

/// The most bytes that are fetched, besides footers of Parquet files that are larger than usual. The store keeps twice as many,
/// so that none is dropped before it was read.
const BYTES: u64 = 8 * 1024 * 1024;

/// What a caller who opens the newest version reads of it next.
#[derive(Debug, Clone, Copy, Default)]
pub struct NextReads {
    /// The files.
    pub files: bool,
    /// The number of files and their size: [`Snapshot::file_stats`](super::Snapshot::file_stats).
    pub totals: bool,
}

/// Files that are being fetched. Dropping it ends what the kernel did not ask for.
pub(super) struct Prefetch {
    store: Arc<LogStore>,
    runtime: Handle,
    turns: Arc<Semaphore>,
    fetches: Vec<(Path, AbortHandle)>,
}

impl Prefetch {
    pub(super) fn new(store: &Arc<LogStore>, runtime: &Handle) -> Self {
        let (store, runtime) = (Arc::clone(store), runtime.clone());
        Self { store, runtime, turns: Arc::new(Semaphore::new(FILES)), fetches: Vec::new() }
    }

    /// Sends the request for a part of a file.
    pub(super) fn begin(&mut self, location: Path, part: Part) {
        let turn = Arc::clone(&self.turns).acquire_owned();
        let fetch = self.store.fetch(&self.runtime, &location, part, turn);
        self.fetches.push((location, fetch));
    }

    /// Leaves what is under way to whoever asks for it soon.
    pub(super) fn leave(mut self) {
        self.fetches.clear();
    }

    /// Fetches what the newest version is read from, if these are all files of its log: the commits since the newest
    /// checkpoint, and the ends of that checkpoint and of the sidecars that `hint` says it has.
    pub(super) fn begin_newest(&mut self, files: &[FileMeta], hint: Option<&Hint>) {
        let checkpoint = newest_checkpoint(files);
        let since = checkpoint.first().and_then(|part| version_of(part));
        let commits = files.iter().rev().filter(|file| {
            matches!(LogFile::parse(file_name(file.location.path())), Some(LogFile::Commit(version))
                if since.is_none_or(|since| version > since))
        });
        let whole = |file: &FileMeta| (file.size <= COMMIT_BYTES).then_some((Part::Whole, file.size));
        let name = checkpoint.first().map(|part| file_name(part.location.path()));
        let sidecars =
            hint.and_then(|hint| hint.v2_checkpoint.as_ref()).filter(|v2| name == Some(v2.path.as_str()));
        let sidecars = sidecars.map_or(&[][..], |v2| v2.sidecar_files.as_slice()).iter().take(PARTS);
        let sidecars = sidecars
            .filter_map(|sidecar| Some((sidecar.location(checkpoint.first()?)?, sidecar.size_in_bytes)));
        let sidecars: Vec<(Path, u64)> = sidecars.collect();
        let parts = checkpoint.into_iter().map(|file| {
            let part = match file.location.path().ends_with(".parquet") {
                true => Some((Part::End(file.size), file.size.min(TAIL_BYTES))),
                false => whole(file),
            };
            (file, part)
        });
        let end = |size: u64| Some((Part::End(size), size.min(TAIL_BYTES)));
        let listed = parts.chain(commits.map(|file| (file, whole(file))));
        let listed = listed.map(|(file, part)| (Path::from(file.location.path()), part));
        let mut left = BYTES;
        for (location, part) in listed.chain(sidecars.into_iter().map(|(sidecar, size)| (sidecar, end(size))))
        {
            // A large commit is read in pieces when it is needed.
            let Some((part, bytes)) = part else { continue };
            let Some(rest) = left.checked_sub(bytes) else { break };
            left = rest;
            self.begin(location, part);
        }
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        for (location, fetch) in self.fetches.drain(..) {
            fetch.abort();
            self.store.forget_fetch(&location);
        }
    }
}

/// What `_last_checkpoint` says. It may be wrong, so it decides only what is fetched.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Hint {
    pub(super) version: u64,
    v2_checkpoint: Option<V2Checkpoint>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct V2Checkpoint {
    path: String,
    #[serde(default)]
    sidecar_files: Vec<Sidecar>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sidecar {
    path: String,
    size_in_bytes: u64,
}

impl Hint {
    /// Reads the file; what is not as it should be is left out.
    pub(super) fn read(file: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Version {
            version: u64,
        }
        serde_json::from_slice(file).ok().or_else(|| {
            let Version { version } = serde_json::from_slice(file).ok()?;
            Some(Self { version, v2_checkpoint: None })
        })
    }
}

impl Sidecar {
    /// Where the sidecar of a checkpoint is, if it has a usual name.
    fn location(&self, checkpoint: &FileMeta) -> Option<Path> {
        let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let (log, _) = checkpoint.location.path().rsplit_once('/')?;
        let suits = self.path.ends_with(".parquet") && self.path.bytes().all(is_usual);
        suits.then(|| Path::from(format!("{log}/_sidecars/{}", self.path)))
    }
}

fn version_of(file: &FileMeta) -> Option<u64> {
    match LogFile::parse(file_name(file.location.path()))? {
        LogFile::Commit(version) | LogFile::Checkpoint(version) => Some(version),
        LogFile::Other => None,
    }
}

/// The files of the newest checkpoint that is whole, in their order. A guess at what the kernel reads.
fn newest_checkpoint(files: &[FileMeta]) -> Vec<&FileMeta> {
    let is_checkpoint = |file: &&FileMeta| {
        matches!(LogFile::parse(file_name(file.location.path())), Some(LogFile::Checkpoint(_)))
    };
    let all: Vec<&FileMeta> = files.iter().filter(is_checkpoint).collect();
    let versions = all.chunk_by(|file, next| version_of(file) == version_of(next));
    versions.rev().find_map(whole_checkpoint).unwrap_or_default()
}

/// One whole checkpoint among the files of a version.
fn whole_checkpoint<'a>(files: &[&'a FileMeta]) -> Option<Vec<&'a FileMeta>> {
    let parts = |file: &FileMeta| -> Option<usize> {
        let name: Vec<&str> = file_name(file.location.path()).split('.').collect();
        match name.as_slice() {
            [_, _, _part, parts, _] => parts.parse().ok(),
            _ => Some(1),
        }
    };
    let single = files.iter().find(|file| parts(file) == Some(1));
    if let Some(single) = single {
        return Some(vec![single]);
    }
    let all = parts(files.first()?)?;
    let same: Vec<&FileMeta> = files.iter().filter(|file| parts(file) == Some(all)).copied().collect();
    (same.len() == all).then(|| same.into_iter().take(PARTS).collect())
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    fn log(names: &[&str]) -> Vec<FileMeta> {
        let file = |name: &&str| {
            let location = Url::parse(&format!("s3://b/t/_delta_log/{:0>20}", "")).unwrap();
            let (version, rest) = name.split_once('.').unwrap();
            FileMeta {
                location: location.join(&format!("{version:0>20}.{rest}")).unwrap(),
                last_modified: 0,
                size: 9,
            }
        };
        names.iter().map(file).collect()
    }

    #[test]
    fn the_newest_whole_checkpoint_is_found() {
        for (names, found) in [
            (&["0.json", "1.json"][..], 0..0),
            (&["0.json", "1.checkpoint.parquet", "1.json", "2.json"], 1..2),
            (&["1.checkpoint.parquet", "2.checkpoint.1.2.parquet", "2.json"], 0..1),
            (&["1.checkpoint.parquet", "2.checkpoint.1.2.parquet", "2.checkpoint.2.2.parquet"], 1..3),
            (&["2.checkpoint.80a083e8.json", "2.json"], 0..1),
            (&["2.checkpoint.1.2.parquet", "2.checkpoint.parquet"], 1..2),
        ] {
            let files = log(names);
            let expected: Vec<&FileMeta> = files[found].iter().collect();
            assert_eq!(newest_checkpoint(&files), expected, "{names:?}");
        }
    }
}
