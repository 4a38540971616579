//! The names of the files in `_delta_log`.

/// The file that names the newest checkpoint, as a hint.
pub(super) const LAST_CHECKPOINT: &str = "_last_checkpoint";

/// What a file of the log is, read from its name alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogFile {
    /// `<version>.json`
    Commit(u64),
    /// `<version>.checkpoint.parquet`, a part of it, or a named one; complete or not.
    Checkpoint(u64),
    /// `<version>.crc`, a compacted commit, or something else that starts with a version.
    Other,
}

impl LogFile {
    /// Reads the last segment of a path. `None` for a name that does not start with a version. Versions are 64 bits
    /// with a sign in every implementation, so that there is always a next one here.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (version, rest) = name.split_once('.')?;
        if version.len() != 20 || !version.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let version = u64::try_from(version.parse::<i64>().ok()?).ok()?;
        Some(if rest == "json" {
            Self::Commit(version)
        } else if rest.starts_with("checkpoint.") {
            Self::Checkpoint(version)
        } else {
            Self::Other
        })
    }
}

/// The last segment of a path.
pub(super) fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::LogFile;

    #[test]
    fn names() {
        let parse = |name: &str| LogFile::parse(name);
        assert_eq!(parse("00000000000000000007.json"), Some(LogFile::Commit(7)));
        assert_eq!(parse("00000000000000000007.checkpoint.parquet"), Some(LogFile::Checkpoint(7)));
        assert_eq!(
            parse("00000000000000000007.checkpoint.0000000001.0000000002.parquet"),
            Some(LogFile::Checkpoint(7))
        );
        assert_eq!(
            parse("00000000000000000007.checkpoint.80a083e8-7026-4e79-81be-64bd76c43a11.json"),
            Some(LogFile::Checkpoint(7))
        );
        assert_eq!(parse("00000000000000000007.crc"), Some(LogFile::Other));
        assert_eq!(parse("00000000000000000000.00000000000000000007.compacted.json"), Some(LogFile::Other));
        assert_eq!(parse("09223372036854775807.json"), Some(LogFile::Commit(i64::MAX.unsigned_abs())));
        assert_eq!(parse("09223372036854775808.json"), None);
        assert_eq!(parse("18446744073709551615.json"), None);
        assert_eq!(parse("99999999999999999999.json"), None);
        assert_eq!(parse("+0000000000000000007.json"), None);
        assert_eq!(parse("_last_checkpoint"), None);
    }
}
