//! One line for each file: "File" and "File in Delta Format". The hot path: nothing is allocated.

use std::collections::BTreeMap;

use md5::{Digest as _, Md5};
use sha2::Sha256;

use super::partition_values::Forms;
use crate::delta::{AddFile, ChangedFile, DeletionVector, Schema};
use crate::error::{Error, Result};
use crate::protocol::capabilities::{Capabilities, DELETION_VECTORS, FileIdHash, ResponseFormat};
use crate::protocol::json::{write_integer, write_map, write_string};
use crate::storage::FileSigner;

/// Writes the lines of one answer, in one format and with URLs of one signer.
pub struct FileLineWriter {
    format: ResponseFormat,
    id_hash: FileIdHash,
    reads_deletion_vectors: bool,
    signer: FileSigner,
    /// The fields that are the same on every line: `,"version":…,"timestamp":…,"expirationTimestamp":…`.
    constant: Vec<u8>,
    /// The forms of partition values in parquet format; in delta format they stay as they are in the log.
    forms: Forms,
    scratch: String,
}

/// What a line says of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileAction {
    /// The file is one of the version's.
    Active,
    /// A commit added the file.
    Add,
    /// A commit removed the file.
    Remove,
    /// A commit wrote change data into the file.
    Cdc,
}

/// The version that a request asked for, and its time, which then stand on every line.
#[derive(Debug, Clone, Copy)]
pub struct QueriedVersion {
    /// The version.
    pub version: u64,
    /// When it was committed, in milliseconds since the epoch, if that is still known.
    pub timestamp: Option<i64>,
}

/// A file as its line needs it, borrowed from a checkpoint's batch or from an action of a commit. `M` iterates over
/// maps of text to text or null.
struct FileView<'a, M> {
    action: FileAction,
    path: &'a str,
    size: i64,
    partition_values: M,
    /// `modificationTime` or `deletionTimestamp`.
    time: Option<(&'static str, i64)>,
    data_change: bool,
    stats: Option<&'a str>,
    tags: Option<M>,
    deletion_vector: Option<DeletionVector<'a>>,
    base_row_id: Option<i64>,
    default_row_commit_version: Option<i64>,
    clustering_provider: Option<&'a str>,
}

/// How many bytes a line grants: those of the file, and those of its deletion vector if that has a URL of its own.
pub(super) fn granted_bytes(size: i64, vector: Option<&DeletionVector<'_>>) -> u64 {
    let vector = vector.filter(|vector| vector.storage_type != "i").map_or(0, |vector| vector.size_in_bytes);
    size.unsigned_abs().saturating_add(u64::from(vector.unsigned_abs()))
}

impl FileLineWriter {
    /// Lines in `format`, signed by `signer`.
    pub fn new(
        format: ResponseFormat,
        id_hash: FileIdHash,
        capabilities: &Capabilities,
        queried: Option<QueriedVersion>,
        signer: FileSigner,
    ) -> Self {
        let reads_deletion_vectors =
            format == ResponseFormat::Delta && capabilities.reads_feature(DELETION_VECTORS);
        let constant = Vec::new();
        let (forms, scratch) = (Forms::default(), String::new());
        let mut this = Self { format, id_hash, reads_deletion_vectors, signer, constant, forms, scratch };
        this.set_version(queried);
        this
    }

    /// The form of the lines.
    pub(super) fn format(&self) -> ResponseFormat {
        self.format
    }

    /// Says which version the lines that follow belong to.
    pub(super) fn set_version(&mut self, version: Option<QueriedVersion>) {
        self.constant.clear();
        if let Some(queried) = version {
            write_field(&mut self.constant, "version", i64::try_from(queried.version).unwrap_or(i64::MAX));
            if let Some(timestamp) = queried.timestamp {
                write_field(&mut self.constant, "timestamp", timestamp);
            }
        }
        write_field(&mut self.constant, "expirationTimestamp", self.signer.expiration_millis());
    }

    /// Says which partition columns the lines that follow have, so that their values get the form that the protocol
    /// gives their types.
    pub fn set_partition_columns(&mut self, schema: &Schema, columns: &[String]) {
        if self.format == ResponseFormat::Parquet {
            self.forms = Forms::new(schema, columns);
        }
    }

    /// When the URLs expire, in milliseconds since the epoch.
    pub(super) fn expiration_millis(&self) -> i64 {
        self.signer.expiration_millis()
    }

    /// Appends the line of a file of a version.
    ///
    /// Fails if the file has a deletion vector and the client cannot read those, since it would read deleted rows,
    /// and if a path of the log must not be signed.
    pub(super) fn write(&mut self, file: &AddFile<'_>, out: &mut Vec<u8>) -> Result<()> {
        self.write_view(
            FileView {
                action: FileAction::Active,
                path: file.path,
                size: file.size,
                partition_values: file.partition_values.iter(),
                time: Some(("modificationTime", file.modification_time)),
                // A checkpoint says false of every file and a commit says true, so the log's own value would depend on
                // whether there is a checkpoint. In a version, every file is data.
                data_change: true,
                stats: file.stats,
                tags: file.tags.as_ref().map(|tags| tags.iter()),
                deletion_vector: file.deletion_vector,
                base_row_id: file.base_row_id,
                default_row_commit_version: file.default_row_commit_version,
                clustering_provider: file.clustering_provider,
            },
            out,
        )
    }

    /// Appends the line of a file that a commit added or removed, or that holds its change data.
    ///
    /// Fails as [`Self::write`] does, and if a writer left out of a `remove` what a recipient needs.
    pub(super) fn write_change(
        &mut self,
        action: FileAction,
        file: &ChangedFile,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let (Some(size), Some(values)) = (file.size, &file.partition_values) else {
            return Err(Error::internal("a change that was surveyed lacks its size or its partition values"));
        };
        let time = match action {
            FileAction::Active | FileAction::Add => Some(("modificationTime", file.modification_time)),
            FileAction::Remove => Some(("deletionTimestamp", file.deletion_timestamp)),
            FileAction::Cdc => None,
        };
        self.write_view(
            FileView {
                action,
                path: &file.path,
                size,
                partition_values: text_map(values),
                time: time.map(|(name, millis)| (name, millis.unwrap_or_default())),
                // Of what is added and removed, only what changes rows is sent.
                data_change: action != FileAction::Cdc || file.data_change == Some(true),
                stats: file.stats.as_deref(),
                tags: file.tags.as_ref().map(text_map),
                deletion_vector: file.deletion_vector(),
                base_row_id: file.base_row_id,
                default_row_commit_version: file.default_row_commit_version,
                clustering_provider: file.clustering_provider.as_deref(),
            },
            out,
        )
    }

    fn write_view<'a>(
        &mut self,
        file: FileView<'a, impl Iterator<Item = (&'a str, Option<&'a str>)>>,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        self.check_deletion_vector(file.deletion_vector.is_some())?;
        match self.format {
            ResponseFormat::Parquet => self.parquet(file, out),
            ResponseFormat::Delta => self.delta(file, out),
        }
    }

    fn check_deletion_vector(&self, present: bool) -> Result<()> {
        if !present || self.reads_deletion_vectors {
            return Ok(());
        }
        Err(Error::unsupported(format!(
            "Unsupported Delta Table Properties: files of the table have deletion vectors, and the client did \
             not declare the reader feature {DELETION_VECTORS} with responseformat=delta."
        )))
    }

    fn parquet<'a>(
        &mut self,
        file: FileView<'a, impl Iterator<Item = (&'a str, Option<&'a str>)>>,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        out.extend_from_slice(match file.action {
            FileAction::Active => b"{\"file\":{\"url\":\"",
            FileAction::Add => b"{\"add\":{\"url\":\"",
            FileAction::Remove => b"{\"remove\":{\"url\":\"",
            FileAction::Cdc => b"{\"cdf\":{\"url\":\"",
        });
        self.signer.presign(file.path, out)?;
        out.extend_from_slice(b"\",\"id\":\"");
        self.write_id(file.path, out);
        out.extend_from_slice(b"\",\"partitionValues\":");
        self.forms.write(file.partition_values, out);
        write_field(out, "size", file.size);
        if matches!(file.action, FileAction::Active | FileAction::Add)
            && let Some(stats) = file.stats
        {
            out.extend_from_slice(b",\"stats\":");
            write_string(out, stats);
        }
        out.extend_from_slice(&self.constant);
        out.extend_from_slice(b"}}");
        Ok(())
    }

    fn delta<'a>(
        &mut self,
        file: FileView<'a, impl Iterator<Item = (&'a str, Option<&'a str>)>>,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        out.extend_from_slice(b"{\"file\":{\"id\":\"");
        self.write_id(file.path, out);
        out.push(b'"');
        if let Some(vector) = &file.deletion_vector {
            self.write_deletion_vector_id(vector, out)?;
        }
        out.extend_from_slice(&self.constant);
        out.extend_from_slice(match file.action {
            FileAction::Active | FileAction::Add => b",\"deltaSingleAction\":{\"add\":{\"path\":\"",
            FileAction::Remove => b",\"deltaSingleAction\":{\"remove\":{\"path\":\"",
            FileAction::Cdc => b",\"deltaSingleAction\":{\"cdc\":{\"path\":\"",
        });
        self.signer.presign(file.path, out)?;
        out.extend_from_slice(b"\",\"partitionValues\":");
        write_map(file.partition_values, out);
        write_field(out, "size", file.size);
        if let Some((name, millis)) = file.time {
            write_field(out, name, millis);
        }
        out.extend_from_slice(match file.data_change {
            true => b",\"dataChange\":true",
            false => b",\"dataChange\":false",
        });
        if file.action == FileAction::Remove {
            out.extend_from_slice(b",\"extendedFileMetadata\":true");
        }
        if let Some(stats) = file.stats {
            out.extend_from_slice(b",\"stats\":");
            write_string(out, stats);
        }
        if let Some(tags) = file.tags {
            out.extend_from_slice(b",\"tags\":");
            write_map(tags, out);
        }
        if let Some(vector) = &file.deletion_vector {
            self.write_deletion_vector(vector, out)?;
        }
        if let Some(id) = file.base_row_id {
            write_field(out, "baseRowId", id);
        }
        if let Some(version) = file.default_row_commit_version {
            write_field(out, "defaultRowCommitVersion", version);
        }
        if let Some(provider) = file.clustering_provider {
            out.extend_from_slice(b",\"clusteringProvider\":");
            write_string(out, provider);
        }
        out.extend_from_slice(b"}}}}");
        Ok(())
    }

    /// The id of the file that the vector is stored in; several vectors may share one.
    fn write_deletion_vector_id(&mut self, vector: &DeletionVector<'_>, out: &mut Vec<u8>) -> Result<()> {
        let mut scratch = std::mem::take(&mut self.scratch);
        if let Some(path) = vector.log_path(&mut scratch)? {
            out.extend_from_slice(b",\"deletionVectorFileId\":\"");
            self.write_id(path, out);
            out.push(b'"');
        }
        self.scratch = scratch;
        Ok(())
    }

    /// A stored vector becomes one with an absolute path, the presigned URL; an inline one stays.
    fn write_deletion_vector(&mut self, vector: &DeletionVector<'_>, out: &mut Vec<u8>) -> Result<()> {
        let mut scratch = std::mem::take(&mut self.scratch);
        out.extend_from_slice(b",\"deletionVector\":{\"storageType\":");
        match vector.log_path(&mut scratch)? {
            Some(path) => {
                out.extend_from_slice(b"\"p\",\"pathOrInlineDv\":\"");
                self.signer.presign(path, out)?;
                out.push(b'"');
            }
            None => {
                write_string(out, vector.storage_type);
                out.extend_from_slice(b",\"pathOrInlineDv\":");
                write_string(out, vector.path_or_inline_dv);
            }
        }
        self.scratch = scratch;
        if let Some(offset) = vector.offset {
            write_field(out, "offset", offset.into());
        }
        write_field(out, "sizeInBytes", vector.size_in_bytes.into());
        write_field(out, "cardinality", vector.cardinality);
        out.push(b'}');
        Ok(())
    }

    fn write_id(&self, path: &str, out: &mut Vec<u8>) {
        match self.id_hash {
            FileIdHash::Md5 => write_hex(out, &Md5::digest(path.as_bytes())),
            FileIdHash::Sha256 => write_hex(out, &Sha256::digest(path.as_bytes())),
        }
    }
}

/// The entries of a map that an action of a commit has.
fn text_map(map: &BTreeMap<String, Option<String>>) -> impl Iterator<Item = (&str, Option<&str>)> {
    map.iter().map(|(key, value)| (key.as_str(), value.as_deref()))
}

fn write_field(out: &mut Vec<u8>, name: &str, value: i64) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    write_integer(out, value);
}

fn write_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]);
    }
}
