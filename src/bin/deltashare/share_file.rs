//! Reading the share file, and reading it again when it changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use deltashare::catalog::share_file::{ShareFile, ShareFileCatalog};
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
            .ok_or_else(|| "the directory's name is not UTF-8".to_owned()),
        Ok(Location::S3 { bucket, prefix, .. }) => Ok(format!("s3://{bucket}/{prefix}")),
        Err(reason) => Err(reason.to_string()),
    };
    ShareFile::parse(&text, &locate).map_err(|error| format!("{}: {error}", path.display()))
}

/// The local directories that a share file names.
pub(crate) fn directories(file: &ShareFile) -> Vec<PathBuf> {
    let locations =
        file.tables().flat_map(|table| std::iter::once(&table.location).chain(&table.allowed_locations));
    locations.filter(|location| !location.starts_with("s3://")).map(PathBuf::from).collect()
}

/// Reads the file again whenever it changes. `prepare` completes a file before it is in force. A file
/// that is refused changes nothing.
pub(crate) async fn watch(
    path: PathBuf,
    catalog: Arc<ShareFileCatalog>,
    mut prepare: impl FnMut(&mut ShareFile),
) {
    let mut seen = stamp(&path);
    loop {
        tokio::time::sleep(INTERVAL).await;
        let now = stamp(&path);
        if now == seen {
            continue;
        }
        seen = now;
        match read(&path) {
            Ok(mut file) => {
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

/// What changes when a file is written or replaced.
fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
