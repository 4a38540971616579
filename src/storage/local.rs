//! The files below a directory of this machine.
//!
//! What is in a shared directory was written by others, and may change while it is read. So files are opened below
//! a handle of the directory: no symbolic link leads out of it, whenever it was put there. And only regular files
//! are opened, because reading a pipe would wait for its writer.

use std::fs::{File, FileType, Metadata};
use std::io::{self, Read as _};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, MetadataExt as _, OpenOptions, OpenOptionsExt as _};
use object_store::path::Path as ObjectPath;
use object_store::{Error, GetOptions, GetResult, GetResultPayload, ObjectMeta};

use super::file_fault::FileFault;

/// A directory, by its canonical path.
#[derive(Debug, Clone)]
pub(super) struct LocalDirectory(PathBuf);

/// Why a file of the directory cannot be read.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// There is nothing at the path.
    Missing,
    /// A symbolic link leads out of the directory.
    Outside,
    /// The system does not allow it.
    Denied,
    /// What is there is not what it should be.
    Odd(&'static str),
    /// It may work another time.
    Failed(io::Error),
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("there is no such file"),
            Self::Outside => f.write_str("the path is outside the table's root"),
            Self::Denied => f.write_str("the system does not allow it to be read"),
            Self::Odd(what) => f.write_str(what),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Unreadable {}

impl Unreadable {
    fn into_store_error(self, path: &ObjectPath) -> Error {
        let path = path.to_string();
        match self {
            Self::Missing => Error::NotFound { path, source: self.into() },
            Self::Outside | Self::Denied => Error::PermissionDenied { path, source: self.into() },
            Self::Odd(what) => Error::NotSupported { source: format!("{path}: {what}").into() },
            Self::Failed(error) => Error::Generic { store: "local", source: error.into() },
        }
    }
}

const LOOP: &str = "it is a loop of symbolic links";
const DIRECTORY: &str = "it is a directory, not a file";
const NO_DIRECTORY: &str = "it is not a directory";
const PIPE: &str = "it is a pipe, not a file";
const DEVICE: &str = "it is a socket or a device, not a file";

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            // What `cap-std` says by itself: the path leads out.
            None if error.kind() == io::ErrorKind::PermissionDenied => Self::Outside,
            Some(libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG) => Self::Missing,
            Some(libc::EACCES | libc::EPERM) => Self::Denied,
            Some(libc::ELOOP) => Self::Odd(LOOP),
            // Only a socket or a device is refused in this way when it is opened to be read.
            Some(libc::ENXIO | libc::EOPNOTSUPP) => Self::Odd(DEVICE),
            _ => Self::Failed(error),
        }
    }
}

/// What tells one state of a file from another.
struct Stamp {
    size: u64,
    modified: SystemTime,
    inode: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> io::Result<Self> {
        Ok(Self { size: metadata.len(), modified: metadata.modified()?, inode: metadata.ino() })
    }

    fn of_listed(metadata: &cap_std::fs::Metadata) -> io::Result<Self> {
        Ok(Self { size: metadata.len(), modified: metadata.modified()?.into_std(), inode: metadata.ino() })
    }

    fn describe(&self, location: ObjectPath) -> ObjectMeta {
        let Self { size, modified, inode } = self;
        let micros = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros();
        ObjectMeta {
            location,
            last_modified: (*modified).into(),
            size: *size,
            e_tag: Some(format!("{inode:x}-{micros:x}-{size:x}")),
            version: None,
        }
    }
}

impl LocalDirectory {
    /// The directory at a canonical path. Fails if there is none.
    pub(super) fn open(root: &Path) -> Result<Self, Unreadable> {
        let this = Self(root.to_owned());
        this.handle()?;
        Ok(this)
    }

    /// Opens the regular file at `path`, which is relative and has no dots.
    pub(super) fn file(&self, path: &Path) -> Result<(File, Metadata), Unreadable> {
        let mut options = OpenOptions::new();
        // Opening a pipe does not wait then. For a file it means nothing.
        options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        let file = self.beneath(path, |root, path| root.open_with(path, &options))?.into_std();
        let metadata = file.metadata()?;
        match not_a_file(metadata.file_type()) {
            Some(what) => Err(Unreadable::Odd(what)),
            None => Ok((file, metadata)),
        }
    }

    /// Reads the first bytes of the file at `path`, fewer if there are no more. Blocks.
    pub(super) fn first_bytes(&self, path: &Path) -> Result<Vec<u8>, FileFault> {
        let read = self.file(path).and_then(|(file, _)| {
            let mut bytes = Vec::new();
            file.take(4).read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        read.map_err(|error| match error {
            Unreadable::Missing => FileFault::Gone,
            error => FileFault::Unreadable(error.to_string()),
        })
    }

    /// Reads the file at `location`, as an object store does. Blocks.
    pub(super) fn get(&self, location: &ObjectPath, options: GetOptions) -> object_store::Result<GetResult> {
        let refused = |error: Unreadable| error.into_store_error(location);
        let path = file_path(location);
        let (file, metadata) = self.file(&path).map_err(refused)?;
        let meta = Stamp::of(&metadata).map_err(|error| refused(error.into()))?.describe(location.clone());
        options.check_preconditions(&meta)?;
        let range = match options.range {
            None => 0..meta.size,
            Some(range) => range.as_range(meta.size).map_err(|error| out_of_range(location, &error))?,
        };
        let payload = GetResultPayload::File(file, path);
        Ok(GetResult { payload, attributes: Default::default(), range, meta })
    }

    /// Reads these ranges of the file at `location`. Blocks.
    pub(super) fn get_ranges(
        &self,
        location: &ObjectPath,
        ranges: &[Range<u64>],
    ) -> object_store::Result<Vec<Bytes>> {
        let refused = |error: Unreadable| error.into_store_error(location);
        let (file, metadata) = self.file(&file_path(location)).map_err(refused)?;
        let read = |range: &Range<u64>| {
            let (start, end) = (range.start, range.end.min(metadata.len()));
            // Before memory is set aside for it.
            let length = end.checked_sub(start).filter(|length| *length > 0 || range.is_empty());
            let length = length.ok_or_else(|| out_of_range(location, &format!("{range:?}")))?;
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
            file.read_exact_at(&mut bytes, start).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => out_of_range(location, &error),
                _ => refused(error.into()),
            })?;
            Ok(bytes.into())
        };
        ranges.iter().map(read).collect()
    }

    /// Everything below `prefix` that may be read as a file, in the order of paths, after `offset`. Blocks.
    pub(super) fn list(
        &self,
        prefix: &ObjectPath,
        offset: Option<&ObjectPath>,
    ) -> object_store::Result<Vec<ObjectMeta>> {
        let found = self.walk(&file_path(prefix)).map_err(|error| error.into_store_error(prefix))?;
        let object = |(path, stamp): &(PathBuf, Stamp)| {
            // No file of a log has a name that is not a path of an object store.
            let location = ObjectPath::parse(path.to_str()?).ok()?;
            offset.is_none_or(|offset| location > *offset).then(|| stamp.describe(location))
        };
        let mut objects: Vec<_> = found.iter().filter_map(object).collect();
        objects.sort_unstable_by(|left, right| left.location.cmp(&right.location));
        Ok(objects)
    }

    /// What is in the directory at `path` and in those below it; nothing if there is no such directory. A link
    /// is described by what it leads to; directories to which one leads are not entered. What has the name of a file of
    /// the log is there whatever it is: left out, it would make the rest look complete.
    fn walk(&self, path: &Path) -> Result<Vec<(PathBuf, Stamp)>, Unreadable> {
        let mut found = Vec::new();
        let mut directories = vec![path.to_owned()];
        while let Some(directory) = directories.pop() {
            let entries = match self.beneath(&directory, |root, path| root.read_dir(path)) {
                Err(Unreadable::Missing) if !self.is_there(&directory) => continue,
                Err(Unreadable::Missing) => return Err(Unreadable::Odd(NO_DIRECTORY)),
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                let path = directory.join(entry.file_name());
                let kind = entry.file_type()?;
                let leads_to = if kind.is_symlink() {
                    self.beneath(&path, |root, path| root.metadata(path)).ok()
                } else {
                    None
                };
                if kind.is_dir() {
                    directories.push(path.clone());
                }
                let is_file = match &leads_to {
                    Some(metadata) => !metadata.is_dir(),
                    None => !kind.is_dir() && !kind.is_symlink(),
                };
                if !is_file && !is_named_as_file(&path) {
                    continue;
                }
                match leads_to.map_or_else(|| entry.metadata(), Ok) {
                    Ok(metadata) => found.push((path, Stamp::of_listed(&metadata)?)),
                    // It is gone since its directory was read.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(found)
    }

    fn is_there(&self, path: &Path) -> bool {
        self.0.join(path).symlink_metadata().is_ok()
    }

    /// Does something with a path below the root. No link that leads out is followed.
    fn beneath<T>(&self, path: &Path, run: impl Fn(&Dir, &Path) -> io::Result<T>) -> Result<T, Unreadable> {
        if !path.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(Unreadable::Outside);
        }
        let root = self.handle()?;
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        match run(&root, path).map_err(Unreadable::from) {
            // To an absolute link, which may lead back into the directory. It is followed here, and what it leads to
            // is opened like any other path.
            Err(Unreadable::Outside) => {
                let canonical = self.0.join(path).canonicalize()?;
                let inside = canonical.strip_prefix(&self.0).map_err(|_| Unreadable::Outside)?;
                Ok(run(&root, inside)?)
            }
            done => done,
        }
    }

    fn handle(&self) -> Result<Dir, Unreadable> {
        let root = Dir::open_ambient_dir(&self.0, ambient_authority())?;
        // A link that has taken the directory's place since its path was found would be followed.
        let (opened, there) = (root.dir_metadata()?, self.0.symlink_metadata()?);
        let same = there.is_dir() && (opened.dev(), opened.ino()) == (there.dev(), there.ino());
        if same { Ok(root) } else { Err(Unreadable::Outside) }
    }
}

fn not_a_file(kind: FileType) -> Option<&'static str> {
    if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some(DIRECTORY)
    } else if kind.is_fifo() {
        Some(PIPE)
    } else {
        Some(DEVICE)
    }
}

/// Whether something that is no file has the name of a file of a log.
fn is_named_as_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json" || extension == "parquet")
}

fn file_path(location: &ObjectPath) -> PathBuf {
    location.parts().map(|part| part.as_ref().to_owned()).collect()
}

/// The file is shorter than its reader expects.
fn out_of_range(location: &ObjectPath, what: &dyn std::fmt::Display) -> Error {
    Error::Generic { store: "local", source: format!("Out of range of file {location}: {what}").into() }
}
