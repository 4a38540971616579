//! From a path as the Delta log writes it to the key of a file that may be signed.
//!
//! The log is third-party input. Delta's specification says that a path is a URI: relative to the table's
//! root, or absolute. It is decoded once; what is left names a file under the table's root or under one of
//! the locations that the provider listed, or it is refused.
//!
//! Some writers leave characters as they are that a URI would encode (spaces, letters outside ASCII); those
//! are taken as they are. A `%` that is not followed by two hexadecimal digits, a raw `?` and a raw `#` have
//! no reading that all clients share, and are refused.

use std::fmt;

use crate::location::Location;

/// Why a path of the log is not signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InvalidPath {
    Empty,
    DotSegment,
    EmptySegment,
    ControlCharacter,
    NotUtf8,
    BadEscape,
    QueryOrFragment,
    Scheme,
    Authority,
    Outside,
    TooLong,
}

impl fmt::Display for InvalidPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the path is empty",
            Self::DotSegment => "the path has a `.` or `..` segment",
            Self::EmptySegment => "the path has an empty segment",
            Self::ControlCharacter => "the path has a control character",
            Self::NotUtf8 => "the decoded path is not UTF-8",
            Self::BadEscape => "the path has a % without two hexadecimal digits",
            Self::QueryOrFragment => "the path has a query or a fragment",
            Self::Scheme => "the path's scheme is none that tables lie under",
            Self::Authority => "the path names a host, a port or a user",
            Self::Outside => "the path is outside the table's root and the locations allowed for it",
            Self::TooLong => "the key is longer than S3 allows",
        })
    }
}

/// A location under which files may be signed.
#[derive(Debug)]
pub(super) struct Root {
    /// The S3 bucket; none for a local directory.
    bucket: Option<String>,
    /// No leading `/`; ends with `/` or is empty.
    prefix: String,
    /// The longest path under this root that still makes a key S3 allows, in bytes.
    longest: usize,
}

/// S3's limit for the length of a key, in bytes.
const LONGEST_KEY: usize = 1024;

impl Root {
    /// `key_prefix` is the length of what stands before a path under this root in the key that is signed.
    pub(super) fn new(location: &Location, key_prefix: usize) -> Self {
        let (bucket, prefix) = match location {
            Location::S3 { bucket, prefix, .. } => (Some(bucket.clone()), prefix.clone()),
            Location::Local(path) => {
                let path = path.to_string_lossy();
                let path = path.trim_matches('/');
                (None, if path.is_empty() { String::new() } else { format!("{path}/") })
            }
        };
        Self { bucket, prefix, longest: LONGEST_KEY.saturating_sub(key_prefix) }
    }
}

/// Finds the root that `log_path` lies under and leaves in `key` its decoded path under that root.
/// The first of `roots` is the table's own: relative paths start there.
pub(super) fn resolve(log_path: &str, roots: &[Root], key: &mut Vec<u8>) -> Result<usize, InvalidPath> {
    let Some(own) = roots.first() else { return Err(InvalidPath::Outside) };
    let (bucket, absolute) = match split_scheme(log_path) {
        None => match log_path.strip_prefix('/') {
            None => {
                decode(log_path, key)?;
                return if key.len() > own.longest { Err(InvalidPath::TooLong) } else { Ok(0) };
            }
            // An absolute path without a scheme stays in the table's own bucket or file system.
            Some(path) if path.starts_with('/') => return Err(InvalidPath::Authority),
            Some(path) => (own.bucket.as_deref(), path),
        },
        Some((scheme, rest)) if is_one_of(scheme, &["s3", "s3a", "s3n"]) => {
            let rest = rest.strip_prefix("//").ok_or(InvalidPath::Scheme)?;
            let (bucket, path) = rest.split_once('/').ok_or(InvalidPath::Empty)?;
            if bucket.is_empty() || bucket.contains(['@', ':']) {
                return Err(InvalidPath::Authority);
            }
            (Some(bucket), path)
        }
        Some((scheme, rest)) if is_one_of(scheme, &["file"]) => {
            let path = match rest.strip_prefix("//") {
                Some(rest) => rest.strip_prefix("localhost").unwrap_or(rest),
                None => rest,
            };
            (None, path.strip_prefix('/').ok_or(InvalidPath::Authority)?)
        }
        Some(_) => return Err(InvalidPath::Scheme),
    };
    decode(absolute, key)?;
    for (index, root) in roots.iter().enumerate() {
        if root.bucket.as_deref() == bucket && key.starts_with(root.prefix.as_bytes()) {
            key.drain(..root.prefix.len());
            return if key.len() > root.longest { Err(InvalidPath::TooLong) } else { Ok(index) };
        }
    }
    Err(InvalidPath::Outside)
}

fn is_one_of(scheme: &str, names: &[&str]) -> bool {
    names.iter().any(|name| scheme.eq_ignore_ascii_case(name))
}

/// `scheme:rest`, where the scheme is one by the URI grammar. A colon behind any other character, as in
/// `ts=2020-01-01 12:30:00/part-0`, belongs to the file's name. `c:foo` does not: it is a URI of scheme `c`.
fn split_scheme(path: &str) -> Option<(&str, &str)> {
    if !path.as_bytes().first()?.is_ascii_alphabetic() {
        return None;
    }
    let end = path.bytes().position(|byte| !matches!(class(byte), Class::Scheme))?;
    (path.as_bytes().get(end) == Some(&b':')).then(|| (&path[..end], &path[end + 1..]))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// May be part of a scheme; means nothing else.
    Scheme,
    /// Stands for itself.
    Plain,
    Slash,
    Percent,
    Delimiter,
    Control,
    NotAscii,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Plain; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'+' | b'-' | b'.' => Class::Scheme,
            b'/' => Class::Slash,
            b'%' => Class::Percent,
            b'?' | b'#' => Class::Delimiter,
            0..=0x1f | 0x7f => Class::Control,
            0x80..=0xff => Class::NotAscii,
            _ => Class::Plain,
        };
        byte += 1;
    }
    classes
};

/// Whether a byte stands for itself.
static PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        plain[byte] = matches!(CLASSES[byte], Class::Scheme | Class::Plain);
        byte += 1;
    }
    plain
};

fn class(byte: u8) -> Class {
    CLASSES[usize::from(byte)]
}

/// Decodes the whole of `path` into `key`, which holds nothing else afterwards.
fn decode(path: &str, key: &mut Vec<u8>) -> Result<(), InvalidPath> {
    key.clear();
    if path.is_empty() {
        return Err(InvalidPath::Empty);
    }
    let bytes = path.as_bytes();
    let mut ascii = true;
    // Where the run of bytes that stand for themselves began, and the segment in `key`.
    let (mut run, mut segment) = (0, 0);
    let mut at = 0;
    loop {
        at += plain_bytes(&bytes[at..]);
        let Some(&byte) = bytes.get(at) else { break };
        match class(byte) {
            Class::Scheme | Class::Plain => at += 1,
            Class::NotAscii => {
                ascii = false;
                at += 1;
            }
            Class::Slash => {
                key.extend_from_slice(&bytes[run..at]);
                segment = end_segment(key, segment)?;
                at += 1;
                run = at;
            }
            Class::Percent => {
                key.extend_from_slice(&bytes[run..at]);
                let decoded = escape(bytes, at).ok_or(InvalidPath::BadEscape)?;
                match class(decoded) {
                    Class::Slash => segment = end_segment(key, segment)?,
                    Class::Control => return Err(InvalidPath::ControlCharacter),
                    kind => {
                        ascii &= kind != Class::NotAscii;
                        key.push(decoded);
                    }
                }
                at += 3;
                run = at;
            }
            Class::Delimiter => return Err(InvalidPath::QueryOrFragment),
            Class::Control => return Err(InvalidPath::ControlCharacter),
        }
    }
    key.extend_from_slice(&bytes[run..]);
    check_segment(&key[segment..])?;
    if !ascii {
        let text = std::str::from_utf8(key).map_err(|_| InvalidPath::NotUtf8)?;
        if text.chars().any(char::is_control) {
            return Err(InvalidPath::ControlCharacter);
        }
    }
    Ok(())
}

/// How many bytes at the beginning stand for themselves. Names are long, so that several are looked at in one step.
fn plain_bytes(bytes: &[u8]) -> usize {
    let (steps, rest) = bytes.as_chunks::<8>();
    let is_plain = |&byte: &u8| PLAIN[usize::from(byte)];
    let whole =
        steps.iter().take_while(|step| step.iter().fold(true, |all, byte| all & is_plain(byte))).count();
    let next = steps.get(whole).map_or(rest, |step| step.as_slice());
    whole * 8 + next.iter().take_while(|byte| is_plain(byte)).count()
}

/// Checks the segment that ends here, writes the slash and says where the next one begins.
fn end_segment(key: &mut Vec<u8>, start: usize) -> Result<usize, InvalidPath> {
    check_segment(&key[start..])?;
    key.push(b'/');
    Ok(key.len())
}

fn check_segment(segment: &[u8]) -> Result<(), InvalidPath> {
    match segment {
        b"" => Err(InvalidPath::EmptySegment),
        b"." | b".." => Err(InvalidPath::DotSegment),
        _ => Ok(()),
    }
}

fn escape(bytes: &[u8], at: usize) -> Option<u8> {
    let digit = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
    u8::try_from(digit(at + 1)? * 16 + digit(at + 2)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots() -> Vec<Root> {
        let s3 = |bucket: &str, prefix: &str| Location::S3 {
            bucket: bucket.into(),
            prefix: prefix.into(),
            role: None,
        };
        vec![
            Root::new(&s3("lake", "db/table1/"), "db/table1/".len()),
            Root::new(&s3("lake", "source/"), "source/".len()),
            Root::new(&s3("other", ""), 0),
            Root::new(&Location::Local("/data/t".into()), 33),
        ]
    }

    fn resolved(path: &str) -> Result<(usize, String), InvalidPath> {
        let mut key = b"left over".to_vec();
        resolve(path, &roots(), &mut key).map(|root| (root, String::from_utf8(key).unwrap()))
    }

    #[test]
    fn paths_are_decoded_once() {
        for (path, key) in [
            ("part-0.parquet", "part-0.parquet"),
            ("a%20b/c", "a b/c"),
            ("a%2520b/c", "a%20b/c"),
            ("d=x%3Dy/c+d", "d=x=y/c+d"),
            ("a%2Fb", "a/b"),
            ("é/%C3%A9", "é/é"),
            ("a b/\"c\"", "a b/\"c\""),
            ("ts=2020-01-01 12:30:00/part-0", "ts=2020-01-01 12:30:00/part-0"),
            ("12:30/part-0", "12:30/part-0"),
            ("a/c:d", "a/c:d"),
            ("_x:y", "_x:y"),
            ("...", "..."),
            ("a/..b/.c", "a/..b/.c"),
        ] {
            assert_eq!(resolved(path), Ok((0, key.to_owned())), "{path}");
        }
    }

    #[test]
    fn absolute_paths_lie_under_a_root() {
        for (path, root, key) in [
            ("s3://lake/db/table1/a%20b", 0, "a b"),
            ("S3A://lake/db/table1/x", 0, "x"),
            ("s3n://lake/source/x", 1, "x"),
            ("s3a://other/any/where", 2, "any/where"),
            ("/db/table1/x", 0, "x"),
            ("file:/data/t/x", 3, "x"),
            ("file:///data/t/a%20b/x", 3, "a b/x"),
            ("file://localhost/data/t/x", 3, "x"),
        ] {
            assert_eq!(resolved(path), Ok((root, key.to_owned())), "{path}");
        }
    }

    #[test]
    fn hostile_paths_are_refused() {
        use InvalidPath::*;
        for (path, reason) in [
            ("", Empty),
            ("../x", DotSegment),
            ("a/../x", DotSegment),
            ("a/%2e%2E/x", DotSegment),
            ("a%2F..%2Fx", DotSegment),
            ("./x", DotSegment),
            ("a/..", DotSegment),
            ("a//x", EmptySegment),
            ("a%2F/x", EmptySegment),
            ("a/", EmptySegment),
            ("//evil/x", Authority),
            ("a\nb", ControlCharacter),
            ("a\u{7f}b", ControlCharacter),
            ("a\u{85}b", ControlCharacter),
            ("a%0d%0ab", ControlCharacter),
            ("a%00b", ControlCharacter),
            ("a%C2%85b", ControlCharacter),
            ("a%FFb", NotUtf8),
            ("a%C0%AFb", NotUtf8),
            ("a%b", BadEscape),
            ("a%", BadEscape),
            ("a%+1", BadEscape),
            ("a%zz", BadEscape),
            ("a?versionId=1", QueryOrFragment),
            ("a#b", QueryOrFragment),
            ("s3://lake/db/table1/x?versionId=1", QueryOrFragment),
            ("c:foo", Scheme),
            ("s3:foo", Scheme),
            ("http://169.254.169.254/latest", Scheme),
            ("hdfs://lake/db/table1/x", Scheme),
            ("gs://lake/db/table1/x", Scheme),
            ("s3://user@lake/db/table1/x", Authority),
            ("s3://lake:80/db/table1/x", Authority),
            ("s3:///db/table1/x", Authority),
            ("s3://lake", Empty),
            ("s3://lake/", Empty),
            ("file://host/data/t/x", Authority),
            ("file:data/t/x", Authority),
            ("s3://lake/db/table1-evil/x", Outside),
            ("s3://lake/db/table1", Outside),
            ("s3://lake/x", Outside),
            ("s3://lake2/db/table1/x", Outside),
            ("s3://Lake/db/table1/x", Outside),
            ("s3://lake/db%2Ftable1/../x", DotSegment),
            ("s3://lake/db/table1/", EmptySegment),
            ("/etc/passwd", Outside),
            ("file:/etc/passwd", Outside),
            ("file:/data/t2/x", Outside),
            ("file:///db/table1/x", Outside),
        ] {
            assert_eq!(resolved(path), Err(reason), "{path}");
        }
    }

    #[test]
    fn keys_are_at_most_1024_bytes() {
        let room = 1024 - "db/table1/".len();
        assert!(resolved(&"a".repeat(room)).is_ok());
        assert_eq!(resolved(&"a".repeat(room + 1)), Err(InvalidPath::TooLong));
        assert!(resolved(&"%C3%A9".repeat(room / 2)).is_ok());
        assert!(resolved(&format!("s3://other/{}", "a".repeat(1024))).is_ok());
        assert_eq!(resolved(&format!("s3://other/{}", "a".repeat(1025))), Err(InvalidPath::TooLong));
        assert_eq!(resolved(&format!("file:/data/t/{}", "a".repeat(1024 - 32))), Err(InvalidPath::TooLong));
    }
}
