//! The file with the key that tokens are authenticated with.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use deltashare::protocol::tokens::TokenKey;

use super::Failure;

const BYTES: usize = 32;

/// Reads the key, or creates it if the file does not exist. Of two servers that start at once, one creates it.
pub(crate) fn read_or_make(path: &Path) -> Result<TokenKey, Failure> {
    match make(path) {
        Ok(key) => return Ok(key),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => {
            return Err(Failure::failed(format!("the key {} cannot be written: {error}", path.display())));
        }
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::failed(format!("the key {} cannot be read: {error}", path.display())))?;
    parse(text.trim()).map(|key| TokenKey::new(&key)).ok_or_else(|| {
        Failure::usage(format!("{} does not hold a key: {} hexadecimal digits", path.display(), 2 * BYTES))
    })
}

/// The key is complete before it has its name, so that nobody reads half of it.
fn make(path: &Path) -> std::io::Result<TokenKey> {
    if path.try_exists()? {
        return Err(ErrorKind::AlreadyExists.into());
    }
    let mut key = [0; BYTES];
    getrandom::fill(&mut key).map_err(|error| std::io::Error::other(error.to_string()))?;
    let draft = path.with_extension(format!("{}.new", std::process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let made = options
        .open(&draft)
        .and_then(|mut file| writeln!(file, "{digits}"))
        .and_then(|()| std::fs::hard_link(&draft, path));
    let removed = std::fs::remove_file(&draft);
    made.and(removed).map(|()| TokenKey::new(&key))
}

fn parse(digits: &str) -> Option<[u8; BYTES]> {
    let values: Vec<u8> =
        digits.chars().map(|digit| digit.to_digit(16).map(|value| value as u8)).collect::<Option<_>>()?;
    let bytes: Vec<u8> = values.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    (values.len() == 2 * BYTES).then(|| bytes.try_into().ok()).flatten()
}
