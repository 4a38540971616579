//! Names of shares, schemas and tables: PROTOCOL.md, "Names".

use std::fmt;

/// The longest name the protocol allows, in characters.
const MAX_CHARS: usize = 255;

/// Why a text cannot be the name of a share, a schema or a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidName(String);

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidName {}

/// A name as its owner spelled it, compared without regard to case.
#[derive(Debug, Clone)]
pub struct Name {
    spelling: String,
    key: String,
}

impl Name {
    /// The name of a share. Spaces are accepted because existing share files have them.
    pub fn share(spelling: &str) -> Result<Self, InvalidName> {
        Self::checked(spelling)
    }

    /// The name of a schema or a table, which also may not contain a period.
    pub fn schema_or_table(spelling: &str) -> Result<Self, InvalidName> {
        if spelling.contains('.') {
            return Err(InvalidName(format!(
                "'{spelling}' contains a period, which clients use as a separator"
            )));
        }
        Self::checked(spelling)
    }

    fn checked(spelling: &str) -> Result<Self, InvalidName> {
        if spelling.is_empty() {
            return Err(InvalidName("a name is empty".to_owned()));
        }
        if spelling.chars().count() > MAX_CHARS {
            return Err(InvalidName(format!("a name is longer than {MAX_CHARS} characters")));
        }
        if spelling.contains('/') {
            return Err(InvalidName(format!("'{spelling}' contains a slash")));
        }
        if spelling.chars().any(char::is_control) {
            return Err(InvalidName(format!("'{}' contains a control character", spelling.escape_default())));
        }
        if spelling != spelling.trim() {
            return Err(InvalidName(format!("'{spelling}' begins or ends with a space")));
        }
        Ok(Self { spelling: spelling.to_owned(), key: Self::key_of(spelling) })
    }

    /// The form that is compared and sorted.
    pub fn key_of(spelling: &str) -> String {
        spelling.to_lowercase()
    }

    /// The name as its owner spelled it.
    pub fn as_str(&self) -> &str {
        &self.spelling
    }

    /// The form that is compared and sorted.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.spelling)
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_compare_without_case_and_keep_their_spelling() {
        let name = Name::share("Retail ÄÖ").unwrap();
        assert_eq!(name, Name::share("rETAIL äö").unwrap());
        assert_eq!(name.as_str(), "Retail ÄÖ");
    }

    #[test]
    fn the_protocols_limits_hold() {
        assert!(Name::share("a.b").is_ok());
        for bad in ["", "a/b", "a\u{7}", "a\u{7f}", " a", &"x".repeat(256)] {
            assert!(Name::share(bad).is_err(), "{bad:?}");
        }
        assert!(Name::share(&"ü".repeat(255)).is_ok());
        assert!(Name::schema_or_table("a.b").is_err());
    }
}
