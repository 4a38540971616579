//! Words of commands that are shown to be pasted.

/// A word as a shell takes it.
pub(crate) fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@=+".contains(&byte);
    // Some shells expand a word that begins with `=`.
    if !word.is_empty() && !word.starts_with('=') && word.bytes().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// An option with its value: as `usual` and `value`, or, for a value that would be taken for another option, as
/// `long=value`.
pub(crate) fn option(usual: &str, long: &str, value: &str) -> String {
    if value.starts_with('-') {
        format!("{long}={}", quoted(value))
    } else {
        format!("{usual} {}", quoted(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_split_or_change_them() {
        for (word, typed) in [
            ("retail.sales", "retail.sales"),
            ("Retail Data", "'Retail Data'"),
            ("it's", r"'it'\''s'"),
            ("a$b", "'a$b'"),
            ("", "''"),
            ("=ls", "'=ls'"),
            ("日本", "'日本'"),
        ] {
            assert_eq!(quoted(word), typed);
        }
    }

    #[test]
    fn a_value_that_begins_with_a_hyphen_is_not_taken_for_an_option() {
        assert_eq!(option("-f", "--file", "shares.yaml"), "-f shares.yaml");
        assert_eq!(option("-f", "--file", "-my shares.yaml"), "--file='-my shares.yaml'");
    }
}
