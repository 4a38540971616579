//! Reading the share file, and reading it again when it changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use deltashare::catalog::share_file::{BadLocation, ShareFile, ShareFileCatalog};
use deltashare::storage::Location;

/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// Reads and checks a share file. The error names the file, the line and the reason.
pub(crate) fn read(path: &Path) -> Result<ShareFile, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let base = std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let base = base.parent().unwrap_or(Path::new("/"));
    let locate = |location: &str| match Location::parse(location, base) {
        Ok(Location::Local(directory)) => directory
            .to_str()
            .map(str::to_owned)
            .ok_or_else(|| BadLocation::Wrong("the directory's name is not UTF-8".to_owned())),
        Ok(Location::S3 { bucket, prefix, .. }) => Ok(format!("s3://{bucket}/{prefix}")),
        Err(reason) if reason.is_unsupported() => Err(BadLocation::Unsupported(reason.to_string())),
        Err(reason) => Err(BadLocation::Wrong(reason.to_string())),
    };
    ShareFile::parse(&text, &locate).map_err(|error| format!("{}: {error}", path.display()))
}

/// The local directories that a share file names.
pub(crate) fn directories(file: &ShareFile) -> Vec<PathBuf> {
    let locations =
        file.tables().flat_map(|table| std::iter::once(&table.location).chain(&table.allowed_locations));
    locations.filter(|location| location.starts_with('/')).map(PathBuf::from).collect()
}

/// Logs what of a good share file has no effect, and which tables cannot be read.
pub(crate) fn warn(file: &ShareFile) {
    if file.is_open() {
        tracing::warn!(
            "the share file has neither authorization nor recipients: whoever reaches this server reads every share"
        );
    }
    if !file.without_effect.is_empty() {
        tracing::warn!(
            "keys of the share file that have no effect on this server: {}",
            file.without_effect.join(", ")
        );
    }
    for table in &file.unreadable {
        tracing::warn!("the share file, {table}");
    }
}

/// Reads the file again whenever it changes after this call. `prepare` completes a file before it is in force.
/// A file that is refused changes nothing.
pub(crate) fn watch(
    path: PathBuf,
    catalog: Arc<ShareFileCatalog>,
    mut prepare: impl FnMut(&mut ShareFile),
) -> impl Future<Output = ()> {
    let mut seen = stamp(&path);
    async move {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let now = stamp(&path);
            if now == seen {
                continue;
            }
            seen = now;
            match read(&path) {
                Ok(mut file) => {
                    warn(&file);
                    prepare(&mut file);
                    let tables = file.tables().count();
                    catalog.replace(file);
                    tracing::info!(tables, "the share file changed and is in force");
                }
                Err(reason) => {
                    tracing::error!("the share file is refused, the one before stays in force: {reason}")
                }
            }
        }
    }
}

/// What changes when a file is written or replaced.
fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
