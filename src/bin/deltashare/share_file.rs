//! Reading the share file, and reading it again when it changes.
//!
//! A file that is written in place can be seen half written, and half a share file may grant more than the whole one. So
//! a change is taken only when the file has looked the same for a while.

use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use deltashare::catalog::share_file::{Access, ShareFile, ShareFileCatalog};
use deltashare::catalog::state::CatalogState;
use deltashare::location::WrittenLocation;

use super::output::printable;

/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_millis(500);

/// How long a file must have looked the same before it is taken.
const QUIET: Duration = Duration::from_secs(2);

/// The same for a file that looks as if it were cut off.
const LONG_QUIET: Duration = Duration::from_secs(10);

/// When a file that has just changed is looked at again at the start, when nobody wants to wait long.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Reads and checks a share file, as soon as it is not being written. The error names the file, the line and the
/// reason.
pub(crate) fn read(path: &Path) -> Result<(ShareFile, Stamp), String> {
    let (text, stamp) = settled_text(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok((parse(path, &text)?, stamp))
}

/// Checks the text of a share file as [`read`] does.
pub(crate) fn parse(path: &Path, text: &str) -> Result<ShareFile, String> {
    let base = std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let base = base.parent().unwrap_or(Path::new("/"));
    ShareFile::parse(text, Some(base)).map_err(|error| format!("{}: {error}", path.display()))
}

/// The local directories that a share file names.
pub(crate) fn directories(file: &ShareFile) -> Vec<PathBuf> {
    let locations = file.tables().flat_map(|table| table.settings.locations());
    locations.map(WrittenLocation::text).filter(|text| text.starts_with('/')).map(PathBuf::from).collect()
}

/// Logs what of a good share file has no effect, which tables cannot be read, and who may read.
pub(crate) fn warn(file: &ShareFile) {
    match file.access() {
        Access::Everyone => tracing::warn!(
            "the share file says authorization: none, so anyone who can reach this server can read every share"
        ),
        Access::Unsaid => tracing::warn!(
            "the share file has neither authorization nor recipients, so anyone who can reach this server can read \
             every share"
        ),
        Access::Tokens if !file.has_tokens() => {
            tracing::warn!("the share file has no token, so nobody can read");
        }
        Access::Tokens => {}
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
    for missing in some_of(&file.missing_properties()) {
        tracing::warn!("the share file: {missing}");
    }
}

/// The most lines about one subject.
const MOST_LINES: usize = 20;

/// Says which recipients see nothing because they lack a property that a filter reads.
pub(crate) fn warn_of_missing_properties(state: &CatalogState) {
    warn_of_each(&state.missing_properties());
}

/// Prints warnings of one kind.
pub(crate) fn warn_of_each<T: ToString>(warnings: &[T]) {
    for line in some_of(warnings) {
        eprintln!("warning: {}", printable(&line));
    }
}

/// The warnings as lines, at most [`MOST_LINES`] and a line with the number of the others.
fn some_of<T: ToString>(all: &[T]) -> Vec<String> {
    let mut lines: Vec<String> = all.iter().take(MOST_LINES).map(ToString::to_string).collect();
    if all.len() > MOST_LINES {
        lines.push(format!("and {} more warnings of this kind", all.len() - MOST_LINES));
    }
    lines
}

const WOULD_OPEN: &str = "the file lets everyone read every share without a token. A change to the file never makes \
                          a running server public; if this is intended, restart the server";

/// Whether a file that says nothing of who may read is open to everyone, as at the reference server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silence {
    /// It is: only this machine reaches the server.
    Opens,
    /// It is refused.
    IsRefused,
}

impl Silence {
    /// Refuses a file that is open although it does not say so.
    pub(crate) fn check(self, file: &ShareFile) -> Result<(), &'static str> {
        match (self, file.access()) {
            (Self::IsRefused, Access::Unsaid) => Err(
                "the file has neither recipients nor authorization, and other machines can reach this server. Add \
                 recipients, or set authorization: none to let everyone read every share without a token",
            ),
            _ => Ok(()),
        }
    }
}

/// Reads the file again whenever it has changed since `taken` and is no longer being written. `prepare` completes a
/// file before it is in force. A file that is refused changes nothing, and a file that would open a closed server is
/// refused.
pub(crate) async fn watch(
    path: PathBuf,
    taken: Stamp,
    catalog: Arc<ShareFileCatalog>,
    silence: Silence,
    mut prepare: impl FnMut(&mut ShareFile),
) {
    let mut watch = FileWatch { taken: Some(taken.clone()), seen: Some(taken), since: Instant::now() };
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(read) = watch.settled(&path) else { continue };
        let text = read.map_err(|error| error.to_string());
        let checked = text.and_then(|text| {
            let file = tokio::task::block_in_place(|| parse(&path, &text))?;
            if file.is_public() && !catalog.is_public() {
                return Err(WOULD_OPEN.to_owned());
            }
            silence.check(&file)?;
            Ok(file)
        });
        match checked {
            Ok(mut file) => {
                prepare(&mut file);
                warn(&file);
                let tables = file.tables().count();
                catalog.replace(file);
                tracing::info!(tables, "the share file changed and is in force");
            }
            Err(reason) => {
                tracing::error!(
                    "the new share file is refused, and the previous one stays in force: {reason}"
                );
            }
        }
    }
}

/// What was seen of a file that is looked at again and again.
struct FileWatch {
    /// The file that was read last, whether it is in force or was refused.
    taken: Option<Stamp>,
    /// The file at the last look.
    seen: Option<Stamp>,
    /// Since when it looks like that.
    since: Instant,
}

impl FileWatch {
    /// The text of the file, once for each change, when the change is over.
    fn settled(&mut self, path: &Path) -> Option<io::Result<String>> {
        let now = Stamp::of(path).ok();
        if now != self.seen {
            (self.seen, self.since) = (now, Instant::now());
            return None;
        }
        let quiet = self.since.elapsed();
        let is_file = now.as_ref().is_none_or(|now| now.is_file);
        if !is_file || now == self.taken || quiet < QUIET {
            return None;
        }
        // A large file takes seconds to read, in which requests are answered. To look at its stamp must not take a thread
        // each time, which would never end.
        let text = tokio::task::block_in_place(|| text_of(path));
        if Stamp::of(path).ok() != now || text.as_ref().is_ok_and(|text| quiet < LONG_QUIET && is_cut(text)) {
            return None;
        }
        self.taken = now;
        Some(text)
    }
}

/// Whether a file ends in the middle of a line, as it does while it is written in pieces. Some editors leave the last
/// line without its end too.
fn is_cut(text: &str) -> bool {
    !text.ends_with(['\n', '}', ']'])
}

/// The largest share file that is read: that of some 500,000 tables.
const MAX_BYTES: u64 = 64 << 20;

/// The text of a file.
fn text_of(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = std::fs::File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)? as u64;
    if read > MAX_BYTES {
        return Err(io::Error::other("the file has more than 64 MiB"));
    }
    Ok(text)
}

/// The text of a file that nobody writes to at the moment.
fn settled_text(path: &Path) -> io::Result<(String, Stamp)> {
    let began = Instant::now();
    loop {
        let before = Stamp::of(path)?;
        let text = text_of(path)?;
        if before.is_file && before.is_recent() {
            std::thread::sleep(LOOK_AGAIN);
        }
        // A pipe can be read only once.
        if !before.is_file || Stamp::of(path)? == before {
            return Ok((text, before));
        }
        if began.elapsed() > LONG_QUIET {
            return Err(io::Error::other("the file is being written; try again when it is complete"));
        }
    }
}

/// What changes when a file is written or replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    modified: SystemTime,
    changed: (i64, i64),
    inode: (u64, u64),
    len: u64,
    is_file: bool,
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self {
            modified: metadata.modified()?,
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            inode: (metadata.dev(), metadata.ino()),
            len: metadata.len(),
            is_file: metadata.is_file(),
        })
    }

    fn is_recent(&self) -> bool {
        self.modified.elapsed().is_ok_and(|age| age < QUIET)
    }
}
