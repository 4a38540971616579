//! Where a table is stored: an S3 prefix or a directory, read from what a provider wrote.

use std::borrow::Cow;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use percent_encoding::percent_decode_str;

use crate::role::RoleArn;

/// Where a table is stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Location {
    /// A prefix of an S3 bucket.
    S3 {
        /// The bucket's name.
        bucket: String,
        /// The prefix: no leading `/`, ends with `/` or is empty.
        prefix: String,
        /// The role that reads it and signs its URLs, if it is not the server's.
        role: Option<RoleArn>,
    },
    /// A directory of this machine: absolute and canonical.
    Local(PathBuf),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S3 { bucket, prefix, .. } => write!(f, "s3://{bucket}/{prefix}"),
            Self::Local(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Why a location was refused, as a sentence for the person who wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocationError {
    reason: Cow<'static, str>,
    unsupported: bool,
}

impl LocationError {
    /// Whether the location names a storage that this server does not read, and may be right otherwise.
    pub fn is_unsupported(&self) -> bool {
        self.unsupported
    }
}

impl fmt::Display for LocationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for LocationError {}

fn refuse(reason: impl Into<Cow<'static, str>>) -> LocationError {
    LocationError { reason: reason.into(), unsupported: false }
}

fn unsupported(reason: impl Into<Cow<'static, str>>) -> LocationError {
    LocationError { unsupported: true, ..refuse(reason) }
}

fn no_directory() -> LocationError {
    unsupported("the location is a directory of the server's machine, which only a share file can name")
}

fn arn() -> LocationError {
    unsupported(
        "the location is an ARN; write s3://bucket/prefix with the bucket's name (access points are not supported)",
    )
}

impl Location {
    /// Reads `s3://`, `s3a://`, `s3n://`, `file:` (percent-decoded), an absolute directory, or a directory
    /// relative to `base`. A directory has to exist. An S3 prefix is taken as it is written, not decoded.
    ///
    /// Without a `base`, a directory of this machine is refused, whether it exists or not: that is for what does not
    /// come from the operator of this machine.
    ///
    /// ```
    /// use deltashare::location::Location;
    ///
    /// let (bucket, prefix) = ("lake".to_owned(), "tables/orders/".to_owned());
    /// let location = Location::parse("s3a://lake/tables/orders", None)?;
    /// assert_eq!(location, Location::S3 { bucket, prefix, role: None });
    /// assert!(Location::parse("/srv/tables/orders", None).is_err());
    /// # Ok::<_, deltashare::location::LocationError>(())
    /// ```
    pub fn parse(text: &str, base: Option<&Path>) -> Result<Self, LocationError> {
        if text.is_empty() {
            return Err(refuse("the location is empty"));
        }
        if text.chars().any(char::is_control) {
            return Err(refuse("the location has a control character"));
        }
        if text.contains(['*', '?']) {
            return Err(refuse("the location has a wildcard or a query; name one table's root"));
        }
        if strip_scheme(text, "arn:").is_some() {
            return Err(arn());
        }
        let base = base.ok_or_else(no_directory);
        if let Some(path) = strip_scheme(text, "file:") {
            return base.and_then(|_| file_uri(path));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return base.and_then(|base| directory(&base.join(text)));
        };
        if ["s3", "s3a", "s3n"].iter().any(|s3| scheme.eq_ignore_ascii_case(s3)) {
            return s3(rest);
        }
        let reason =
            format!("the scheme {scheme}:// is not supported; use s3://, s3a://, file:// or a directory");
        Err(unsupported(reason))
    }

    /// The same location, read and signed by `role`. A directory is read by this process alone.
    #[must_use]
    pub fn read_by(self, by: Option<RoleArn>) -> Self {
        match self {
            Self::S3 { bucket, prefix, .. } => Self::S3 { bucket, prefix, role: by },
            local @ Self::Local(_) => local,
        }
    }
}

/// A location as a provider wrote it, with what it resolves to or the reason why it resolves to nothing. Two are equal
/// if they are written in the same way.
#[derive(Debug, Clone)]
pub struct WrittenLocation {
    text: String,
    location: Result<Location, LocationError>,
}

impl WrittenLocation {
    /// Reads a location as [`Location::parse`] does, and keeps its text.
    pub fn parse(text: &str, base: Option<&Path>) -> Self {
        Self { text: text.to_owned(), location: Location::parse(text, base) }
    }

    /// The location as it is written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The location that the text names. A directory is looked up again: it may have been moved or deleted since the
    /// text was read.
    pub fn resolve(&self) -> Result<Location, LocationError> {
        match &self.location {
            Ok(Location::Local(path)) => directory(path),
            other => other.clone(),
        }
    }

    /// Why it names no location.
    pub fn error(&self) -> Option<&LocationError> {
        self.location.as_ref().err()
    }

    /// The same location in a form that needs no base. One that names no location stays as it is written.
    #[must_use]
    pub fn absolute(self) -> Self {
        let text = match &self.location {
            Ok(Location::S3 { bucket, prefix, .. }) => format!("s3://{bucket}/{prefix}"),
            Ok(Location::Local(path)) => path.to_string_lossy().into_owned(),
            Err(_) => return self,
        };
        Self { text, ..self }
    }

    /// The same location as it is compared and exported: `s3://` for every spelling of that scheme, and no slash at
    /// the end unless there is nothing else.
    #[must_use]
    pub fn canonical(&self) -> Self {
        Self { text: canonical(&self.text), location: self.location.clone() }
    }
}

impl PartialEq for WrittenLocation {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for WrittenLocation {}

impl fmt::Display for WrittenLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn canonical(location: &str) -> String {
    if let Some((scheme, rest)) = location.split_once("://")
        && ["s3", "s3a", "s3n"].iter().any(|s3| scheme.eq_ignore_ascii_case(s3))
    {
        return format!("s3://{}", rest.trim_end_matches('/'));
    }
    let bare = location.trim_end_matches('/');
    if bare.is_empty() { location.to_owned() } else { bare.to_owned() }
}

fn strip_scheme<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// What follows `file:`; the authority may be absent, empty or `localhost`.
fn file_uri(rest: &str) -> Result<Location, LocationError> {
    let path = match rest.strip_prefix("//") {
        Some(rest) => strip_scheme(rest, "localhost").unwrap_or(rest),
        None => rest,
    };
    if !path.starts_with('/') {
        return Err(refuse("a file: location must be an absolute path without a host"));
    }
    if path.contains('#') {
        return Err(refuse("a file: location cannot have a fragment; write # as %23"));
    }
    let path = percent_decode_str(path).decode_utf8().map_err(|_| refuse("the location is not UTF-8"))?;
    if path.chars().any(char::is_control) {
        return Err(refuse("the location has a control character"));
    }
    directory(Path::new(&*path))
}

fn directory(path: &Path) -> Result<Location, LocationError> {
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(refuse("the location has a `..` component"));
    }
    let canonical =
        path.canonicalize().map_err(|error| refuse(format!("the directory cannot be opened: {error}")))?;
    if !canonical.is_dir() {
        return Err(refuse("the location is a file; name the directory that holds _delta_log"));
    }
    // Every file of the machine is below it, and a log could name any of them.
    if canonical.parent().is_none() {
        return Err(refuse(
            "the location is the root directory of this machine; name a table's own directory",
        ));
    }
    if canonical.to_str().is_none() {
        return Err(refuse("the directory's name is not UTF-8"));
    }
    Ok(Location::Local(canonical))
}

fn s3(rest: &str) -> Result<Location, LocationError> {
    if rest.contains('#') {
        return Err(refuse("an S3 location cannot have a fragment"));
    }
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.contains('@') {
        return Err(refuse("an S3 location cannot contain credentials"));
    }
    if strip_scheme(bucket, "arn:").is_some() {
        return Err(arn());
    }
    if let Some(reason) = other_than_a_bucket(bucket) {
        return Err(unsupported(reason));
    }
    if !is_bucket_name(bucket) {
        return Err(refuse("the bucket's name is not one that S3 allows"));
    }
    let key = key.trim_end_matches('/');
    if key.is_empty() {
        return Ok(Location::S3 { bucket: bucket.to_owned(), prefix: String::new(), role: None });
    }
    for segment in key.split('/') {
        match segment {
            "" => return Err(refuse("the location has an empty path segment (`//`)")),
            "." | ".." => return Err(refuse("the location has a `.` or `..` component")),
            _ => {}
        }
    }
    Ok(Location::S3 { bucket: bucket.to_owned(), prefix: format!("{key}/"), role: None })
}

/// What a name means that S3 takes like that of a bucket, recognized by the endings that it reserves. The policies of buckets do
/// not cover access points, and directory buckets have another kind of credentials.
fn other_than_a_bucket(name: &str) -> Option<&'static str> {
    if [".mrap", "--ol-s3", "-s3alias"].iter().any(|ending| name.ends_with(ending)) {
        return Some("the location is an access point, which is not supported; name the bucket behind it");
    }
    name.ends_with("--x-s3").then_some("the location is a directory bucket, which is not supported")
}

/// S3's rules for bucket names, without the few reserved prefixes.
fn is_bucket_name(name: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    (3..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| alphanumeric(byte) || matches!(byte, b'-' | b'.'))
        && bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && !name.contains("..")
        && name.parse::<std::net::Ipv4Addr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_s3(text: &str) -> (String, String) {
        match Location::parse(text, None).unwrap() {
            Location::S3 { bucket, prefix, .. } => (bucket, prefix),
            Location::Local(path) => panic!("{text} became {path:?}"),
        }
    }

    #[test]
    fn s3_prefixes_end_with_one_slash_or_are_empty() {
        let expected = ("lake".to_owned(), "a/b/".to_owned());
        for text in ["s3://lake/a/b", "s3a://lake/a/b/", "s3n://lake/a/b//", "S3://lake/a/b"] {
            assert_eq!(parse_s3(text), expected, "{text}");
        }
        assert_eq!(parse_s3("s3://lake"), ("lake".to_owned(), String::new()));
        assert_eq!(parse_s3("s3://lake/"), ("lake".to_owned(), String::new()));
        assert_eq!(parse_s3("s3://lake/a%20b").1, "a%20b/", "S3 locations are not decoded");
    }

    #[test]
    fn what_is_no_table_root_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), b"").unwrap();
        std::fs::create_dir(directory.path().join("t")).unwrap();
        for text in [
            "",
            "hdfs://host/a",
            "https://lake.s3.amazonaws.com/a",
            "s3://",
            "s3://ab/c",
            "s3://Lake/c",
            "s3://-lake/c",
            "s3://la..ke/c",
            "s3://10.0.0.1/c",
            "s3://user:secret@lake/c",
            "s3://lake:9000/c",
            "s3://lake/a//b",
            "s3://lake/a/../b",
            "s3://lake/./b",
            "s3://lake/a?versionId=1",
            "s3://lake/a#b",
            "s3://lake/a*",
            "s3://lake/a\nb",
            "t/../t",
            "missing",
            "file",
            "t*",
            "file://host/tmp",
            "file:relative",
            "file:///tmp%00",
            "file:///tmp/%2e%2e/tmp",
            "file:///tmp#a",
        ] {
            let refused = Location::parse(text, Some(directory.path()));
            assert!(refused.is_err(), "{text:?} became {refused:?}");
        }
        assert!(
            !Location::parse("s3://user:secret@lake/c", None).unwrap_err().to_string().contains("secret")
        );
    }

    #[test]
    fn access_points_are_refused_as_what_they_are_wherever_the_location_comes_from() {
        for base in [None, Some(Path::new("/nowhere"))] {
            for (text, reason) in [
                ("s3://lake-ap-abc123def456-s3alias/t", "access point"),
                ("s3://arn:aws:s3:eu-central-1:111122223333:accesspoint/lake-ap/t", "ARN"),
                ("arn:aws:s3:eu-central-1:111122223333:accesspoint/lake-ap/t", "ARN"),
                ("s3://lake--euc1-az1--x-s3/t", "directory bucket"),
            ] {
                let refused = Location::parse(text, base).unwrap_err().to_string();
                assert!(refused.contains(reason) && refused.contains("not supported"), "{text}: {refused}");
            }
        }
    }

    #[test]
    fn other_storages_are_told_from_mistakes() {
        for (text, unsupported) in [
            ("wasbs://c@a.blob.core.windows.net/t", true),
            ("abfss://c@a.dfs.core.windows.net/t", true),
            ("gs://bucket/t", true),
            ("hdfs://host/t", true),
            ("s3://lake-ap-abc123def456-s3alias/t", true),
            ("s3://arn:aws:s3:eu-central-1:111122223333:accesspoint/lake-ap/t", true),
            ("arn:aws:s3:eu-central-1:111122223333:accesspoint/lake-ap", true),
            ("arn:aws:s3:::lake/t", true),
            ("s3://mfzwi23gnjvgw.mrap/t", true),
            ("s3://lambda-ap-abc123--ol-s3/t", true),
            ("s3://lake--euc1-az1--x-s3/t", true),
            ("s3://Lake/t", false),
            ("gs://bucket/*", false),
            ("missing", false),
        ] {
            let refused = Location::parse(text, Some(Path::new("/nowhere"))).unwrap_err();
            assert_eq!(refused.is_unsupported(), unsupported, "{text}: {refused}");
        }
    }

    #[test]
    fn without_a_base_no_directory_is_named_and_none_is_looked_for() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path().to_str().unwrap();
        let mut refusals = Vec::new();
        for text in [here, "/", ".", "t", "/missing", "file:///", &format!("file://{here}"), "FILE:/missing"]
        {
            let refused = Location::parse(text, None).unwrap_err();
            assert!(refused.is_unsupported(), "{text}: {refused}");
            refusals.push(refused);
        }
        refusals.dedup();
        assert_eq!(refusals.len(), 1, "{refusals:?}");
        assert!(Location::parse("s3://lake/t", None).is_ok());
    }

    #[test]
    fn the_root_of_the_file_system_is_no_table() {
        let base = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", base.path().join("link")).unwrap();
        for text in ["/", "//", "/.", "file:///", "file:/", "link"] {
            let refused = Location::parse(text, Some(base.path())).unwrap_err().to_string();
            assert!(refused.contains("root directory"), "{text}: {refused}");
        }
    }

    #[test]
    fn directories_become_absolute_and_canonical() {
        let base = tempfile::tempdir().unwrap();
        let table = base.path().join("a b#é");
        std::fs::create_dir(&table).unwrap();
        std::os::unix::fs::symlink(&table, base.path().join("link")).unwrap();
        let canonical = Location::Local(table.canonicalize().unwrap());
        let root = base.path().to_str().unwrap();
        for text in [
            "a b#é".to_owned(),
            "./a b#é/".to_owned(),
            "link".to_owned(),
            format!("{root}/a b#é"),
            format!("file://{root}/a%20b%23%C3%A9"),
            format!("file:{root}/a%20b%23é/"),
            format!("FILE://localhost{root}/link"),
        ] {
            assert_eq!(Location::parse(&text, Some(base.path())).as_ref(), Ok(&canonical), "{text}");
        }
    }

    #[test]
    fn written_locations_keep_their_text_and_are_compared_by_it() {
        let written = WrittenLocation::parse("S3A://lake/t//", None);
        assert_eq!((written.text(), written.canonical().text()), ("S3A://lake/t//", "s3://lake/t"));
        assert_eq!(written.resolve().unwrap(), Location::parse("s3://lake/t", None).unwrap());
        assert_eq!(written.clone().absolute().text(), "s3://lake/t/");
        assert_ne!(written, written.canonical());
        assert_eq!(written.canonical(), WrittenLocation::parse("s3://lake/t", None));
        for (text, canonical) in
            [("/", "/"), ("/data/t/", "/data/t"), ("s3n://lake", "s3://lake"), ("gs://b/t/", "gs://b/t")]
        {
            assert_eq!(WrittenLocation::parse(text, None).canonical().text(), canonical);
        }
        let unsupported = WrittenLocation::parse("gs://bucket/t/", None).absolute();
        assert!(unsupported.text() == "gs://bucket/t/" && unsupported.error().unwrap().is_unsupported());
    }

    #[test]
    fn a_directory_that_is_gone_is_no_place_any_more() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join("t")).unwrap();
        let written = WrittenLocation::parse("t", Some(base.path())).absolute();
        let location = written.resolve().unwrap();
        assert_eq!(location, Location::Local(written.text().into()));
        std::fs::remove_dir(base.path().join("t")).unwrap();
        assert!(written.error().is_none() && written.resolve().is_err());
    }
}
