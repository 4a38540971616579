//! Where a deletion vector lies, from the descriptor in the log.

use super::batch::DeletionVector;
use super::failure::damaged;
use crate::error::Result;

/// The path of a file as the log has it, and its deletion vector's id.
pub(super) type FileKey = (String, Option<String>);

/// A UUID is 16 bytes: 20 characters of z85.
const ENCODED_UUID: usize = 20;

impl DeletionVector<'_> {
    /// The path as the log would write it: for `u` the path relative to the table's root, for `p` the absolute
    /// path, and `None` for a vector that is stored in the log itself (`i`).
    ///
    /// `scratch` is where a relative path is built. Fails when the descriptor is malformed.
    pub fn log_path<'b>(&'b self, scratch: &'b mut String) -> Result<Option<&'b str>> {
        self.check()?;
        match self.storage_type {
            "i" => Ok(None),
            "p" => Ok(Some(self.path_or_inline_dv)),
            _ => {
                let (prefix, encoded) = self.split_relative()?;
                let uuid = decode_uuid(encoded)?;
                scratch.clear();
                if !prefix.is_empty() {
                    scratch.push_str(prefix);
                    scratch.push('/');
                }
                scratch.push_str("deletion_vector_");
                let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
                scratch.push_str(uuid.hyphenated().encode_lower(&mut text));
                scratch.push_str(".bin");
                Ok(Some(scratch))
            }
        }
    }

    /// What tells this vector from every other one of the same file: the storage type, the path or the inline
    /// data, and `@offset` if there is an offset.
    pub fn unique_id(&self) -> String {
        let Self { storage_type, path_or_inline_dv, .. } = self;
        match self.offset {
            Some(offset) => format!("{storage_type}{path_or_inline_dv}@{offset}"),
            None => format!("{storage_type}{path_or_inline_dv}"),
        }
    }

    /// Refuses a descriptor that breaks a rule of the Delta protocol.
    pub(super) fn check(&self) -> Result<()> {
        if self.size_in_bytes < 0 || self.cardinality < 0 || self.offset.is_some_and(|offset| offset < 0) {
            return Err(damaged("a deletion vector has a negative offset, size or cardinality"));
        }
        match self.storage_type {
            "u" => {
                let (_, encoded) = self.split_relative()?;
                decode_uuid(encoded).map(drop)
            }
            "p" if self.path_or_inline_dv.is_empty() => Err(damaged("a deletion vector has an empty path")),
            "p" => Ok(()),
            "i" if self.offset.is_some() => Err(damaged("an inline deletion vector has an offset")),
            "i" => check_inline(self.path_or_inline_dv, self.size_in_bytes),
            _ => Err(damaged("a deletion vector has an unknown storage type")),
        }
    }

    fn split_relative(&self) -> Result<(&str, &str)> {
        let path = self.path_or_inline_dv;
        path.len()
            .checked_sub(ENCODED_UUID)
            .and_then(|at| path.split_at_checked(at))
            .ok_or_else(|| damaged("a deletion vector's file name is too short"))
    }
}

fn check_inline(data: &str, size: i32) -> Result<()> {
    // Inline data is z85 of the bytes padded to a multiple of four.
    let valid = data.len().is_multiple_of(5)
        && data.bytes().all(|byte| digit(byte).is_some())
        && u64::try_from(size).is_ok_and(|size| size.div_ceil(4) * 5 == data.len() as u64);
    if valid { Ok(()) } else { Err(damaged("an inline deletion vector is not z85 of its size")) }
}

fn decode_uuid(encoded: &str) -> Result<uuid::Uuid> {
    let mut bytes = [0; 16];
    for (word, digits) in bytes.chunks_exact_mut(4).zip(encoded.as_bytes().chunks_exact(5)) {
        let mut value = 0_u64;
        for &byte in digits {
            let digit = digit(byte).ok_or_else(|| damaged("a deletion vector's file name is not z85"))?;
            value = value * 85 + u64::from(digit);
        }
        let value = u32::try_from(value).map_err(|_| damaged("a deletion vector's file name is not z85"))?;
        word.copy_from_slice(&value.to_be_bytes());
    }
    Ok(uuid::Uuid::from_bytes(bytes))
}

/// The value of a digit of z85 (ZeroMQ RFC 32).
fn digit(byte: u8) -> Option<u8> {
    const DIGITS: &[u8; 85] =
        b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
    const VALUES: [u8; 128] = {
        let mut values = [u8::MAX; 128];
        let mut at = 0;
        while at < DIGITS.len() {
            values[DIGITS[at] as usize] = at as u8;
            at += 1;
        }
        values
    };
    VALUES.get(usize::from(byte)).copied().filter(|&value| value != u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector<'a>(
        storage_type: &'a str,
        path_or_inline_dv: &'a str,
        offset: Option<i32>,
    ) -> DeletionVector<'a> {
        DeletionVector { storage_type, path_or_inline_dv, offset, size_in_bytes: 40, cardinality: 6 }
    }

    /// The three descriptors of Delta's PROTOCOL.md.
    #[test]
    fn examples_of_the_protocol() {
        let mut scratch = String::new();
        let relative = vector("u", "ab^-aqEH.-t@S}K{vb[*k^", Some(4));
        assert_eq!(
            relative.log_path(&mut scratch).unwrap(),
            Some("ab/deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin")
        );
        assert_eq!(relative.unique_id(), "uab^-aqEH.-t@S}K{vb[*k^@4");

        let path = "s3://mytable/deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin";
        assert_eq!(vector("p", path, Some(4)).log_path(&mut scratch).unwrap(), Some(path));

        let inline = vector("i", "wi5b=000010000siXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L", None);
        assert_eq!(inline.log_path(&mut scratch).unwrap(), None);
        assert_eq!(inline.unique_id(), format!("i{}", inline.path_or_inline_dv));
    }

    #[test]
    fn no_prefix() {
        let mut scratch = String::from("left from before");
        assert_eq!(
            vector("u", "^-aqEH.-t@S}K{vb[*k^", None).log_path(&mut scratch).unwrap(),
            Some("deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin")
        );
    }

    #[test]
    fn malformed_descriptors_are_refused() {
        let mut scratch = String::new();
        let good = "^-aqEH.-t@S}K{vb[*k^";
        for bad in [
            vector("u", "", None),
            vector("u", "^-aqEH.-t@S}K{vb[*k", None),
            vector("u", "^-aqEH.-t@S}K{vb[*k\"", None),
            vector("u", "#####################", None),
            vector("u", "^-aqEH.-t@S}K{vb[*é", None),
            vector("u", "é-aqEH.-t@S}K{vb[*k", None),
            vector("p", "", None),
            vector("i", "abc", None),
            vector("i", "0000", None),
            vector("x", good, None),
            vector("", good, None),
            vector("u", good, Some(-1)),
            DeletionVector { size_in_bytes: -1, ..vector("u", good, None) },
            DeletionVector { cardinality: -1, ..vector("u", good, None) },
            DeletionVector { size_in_bytes: i32::MIN, ..vector("i", "", None) },
        ] {
            assert!(bad.log_path(&mut scratch).is_err(), "{bad:?}");
        }
    }
}
