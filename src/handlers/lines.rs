//! One line for each file: "File" and "File in Delta Format". The hot path: nothing is allocated.

use md5::{Digest as _, Md5};
use sha2::Sha256;

use super::partition_values::Forms;
use crate::delta::{AddFile, ChangedFile, DeletionVector, Schema};
use crate::error::{Error, Result};
use crate::protocol::capabilities::{Capabilities, DELETION_VECTORS, FileIdHash, ResponseFormat};
use crate::protocol::json::{write_integer, write_string};
use crate::storage::FileSigner;

/// Writes the lines of one answer.
pub struct FileLines {
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

/// What a commit did with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It added the file.
    Add,
    /// It removed the file.
    Remove,
    /// It wrote change data into the file.
    Cdc,
}

/// The version that a request asked for, and its time, which then stand on every line.
#[derive(Debug, Clone, Copy)]
pub struct QueriedVersion {
    /// The version.
    pub version: u64,
    /// When it was committed, in milliseconds since the epoch, where that is still known.
    pub timestamp: Option<i64>,
}

impl FileLines {
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

    /// Says which version the lines that follow belong to.
    pub fn set_version(&mut self, version: Option<QueriedVersion>) {
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

    /// When the URLs end, in milliseconds since the epoch.
    pub fn expiration_millis(&self) -> i64 {
        self.signer.expiration_millis()
    }

    /// Appends the line of one file.
    ///
    /// Fails where the file has a deletion vector that the client does not know, since it would read
    /// deleted rows, and where a path of the log may not be signed.
    pub fn write(&mut self, file: &AddFile<'_>, out: &mut Vec<u8>) -> Result<()> {
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

    /// Appends the line of one file that a commit added or removed, or that holds its change data.
    ///
    /// Fails as [`FileLines::write`] does, and where a writer left out of a `remove` what a recipient needs.
    pub fn write_change(&mut self, change: Change, file: &ChangedFile, out: &mut Vec<u8>) -> Result<()> {
        self.check_deletion_vector(file.deletion_vector().is_some())?;
        let (Some(size), Some(values)) = (file.size, &file.partition_values) else {
            return Err(Error::internal("a change that was surveyed lacks its size or its partition values"));
        };
        let values = values.iter().map(|(column, value)| (column.as_str(), value.as_deref()));
        if self.format == ResponseFormat::Parquet {
            out.extend_from_slice(match change {
                Change::Add => b"{\"add\":{\"url\":\"",
                Change::Remove => b"{\"remove\":{\"url\":\"",
                Change::Cdc => b"{\"cdf\":{\"url\":\"",
            });
            self.signer.presign(&file.path, out)?;
            out.extend_from_slice(b"\",\"id\":\"");
            self.write_id(&file.path, out);
            out.extend_from_slice(b"\",\"partitionValues\":");
            self.forms.write(values, out);
            write_field(out, "size", size);
            if let (Change::Add, Some(stats)) = (change, &file.stats) {
                out.extend_from_slice(b",\"stats\":");
                write_string(out, stats);
            }
            out.extend_from_slice(&self.constant);
            out.extend_from_slice(b"}}");
            return Ok(());
        }
        out.extend_from_slice(b"{\"file\":{\"id\":\"");
        self.write_id(&file.path, out);
        out.push(b'"');
        if let Some(vector) = file.deletion_vector() {
            self.write_deletion_vector_id(&vector, out)?;
        }
        out.extend_from_slice(&self.constant);
        out.extend_from_slice(b",\"deltaSingleAction\":");
        out.extend_from_slice(match change {
            Change::Add => b"{\"add\":{\"path\":\"",
            Change::Remove => b"{\"remove\":{\"path\":\"",
            Change::Cdc => b"{\"cdc\":{\"path\":\"",
        });
        self.signer.presign(&file.path, out)?;
        out.extend_from_slice(b"\",\"partitionValues\":");
        write_map(values, out);
        write_field(out, "size", size);
        match change {
            Change::Add => write_field(out, "modificationTime", file.modification_time.unwrap_or_default()),
            Change::Remove => {
                write_field(out, "deletionTimestamp", file.deletion_timestamp.unwrap_or_default())
            }
            Change::Cdc => {}
        }
        // Of what is added and removed, only what changes rows is sent.
        out.extend_from_slice(match (change, file.data_change) {
            (Change::Add | Change::Remove, _) | (Change::Cdc, Some(true)) => b",\"dataChange\":true",
            (Change::Cdc, Some(false) | None) => b",\"dataChange\":false",
        });
        if change == Change::Remove {
            out.extend_from_slice(b",\"extendedFileMetadata\":true");
        }
        if let Some(stats) = &file.stats {
            out.extend_from_slice(b",\"stats\":");
            write_string(out, stats);
        }
        if let Some(tags) = &file.tags {
            out.extend_from_slice(b",\"tags\":");
            write_map(tags.iter().map(|(key, value)| (key.as_str(), value.as_deref())), out);
        }
        if let Some(vector) = file.deletion_vector() {
            self.write_deletion_vector(&vector, out)?;
        }
        if let Some(id) = file.base_row_id {
            write_field(out, "baseRowId", id);
        }
        if let Some(version) = file.default_row_commit_version {
            write_field(out, "defaultRowCommitVersion", version);
        }
        if let Some(provider) = &file.clustering_provider {
            out.extend_from_slice(b",\"clusteringProvider\":");
            write_string(out, provider);
        }
        out.extend_from_slice(b"}}}}");
        Ok(())
    }

    fn parquet(&mut self, file: &AddFile<'_>, out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(b"{\"file\":{\"url\":\"");
        self.signer.presign(file.path, out)?;
        out.extend_from_slice(b"\",\"id\":\"");
        self.write_id(file.path, out);
        out.extend_from_slice(b"\",\"partitionValues\":");
        self.forms.write(file.partition_values.iter(), out);
        write_field(out, "size", file.size);
        if let Some(stats) = file.stats {
            out.extend_from_slice(b",\"stats\":");
            write_string(out, stats);
        }
        out.extend_from_slice(&self.constant);
        out.extend_from_slice(b"}}");
        Ok(())
    }

    fn delta(&mut self, file: &AddFile<'_>, out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(b"{\"file\":{\"id\":\"");
        self.write_id(file.path, out);
        out.push(b'"');
        if let Some(vector) = &file.deletion_vector {
            self.write_deletion_vector_id(vector, out)?;
        }
        out.extend_from_slice(&self.constant);
        out.extend_from_slice(b",\"deltaSingleAction\":{\"add\":{\"path\":\"");
        self.signer.presign(file.path, out)?;
        out.extend_from_slice(b"\",\"partitionValues\":");
        write_map(file.partition_values.iter(), out);
        write_field(out, "size", file.size);
        write_field(out, "modificationTime", file.modification_time);
        // A checkpoint says false of every file and a commit says true, so the log's own value would depend on
        // whether there is a checkpoint. In a version, every file is data.
        out.extend_from_slice(b",\"dataChange\":true");
        if let Some(stats) = file.stats {
            out.extend_from_slice(b",\"stats\":");
            write_string(out, stats);
        }
        if let Some(tags) = &file.tags {
            out.extend_from_slice(b",\"tags\":");
            write_map(tags.iter(), out);
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

/// Writes a map of text to text or null.
pub(super) fn write_map<'a, V: AsRef<str>>(
    values: impl Iterator<Item = (&'a str, Option<V>)>,
    out: &mut Vec<u8>,
) {
    out.push(b'{');
    for (index, (key, value)) in values.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(out, key);
        out.push(b':');
        match value {
            Some(value) => write_string(out, value.as_ref()),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.push(b'}');
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
