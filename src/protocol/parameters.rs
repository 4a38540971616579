//! The parameters of a query string, and the texts and numbers in them.

use crate::error::{Error, Result};

/// How many characters of what a client sent a message repeats.
const SHOWN_CHARS: usize = 64;

/// Query parameters, decoded, in their order. Of two with one name the first counts, and an empty one is
/// the same as none, because some clients send every parameter they know.
#[derive(Debug, Clone, Copy)]
pub struct QueryParameters<'a>(pub &'a [(String, String)]);

impl<'a> QueryParameters<'a> {
    /// The text of a parameter.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        let found = self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        found.filter(|text| !text.is_empty())
    }

    /// Whether a parameter is `true`, in any case; everything else is false.
    pub fn flag(&self, name: &str) -> bool {
        self.text(name).is_some_and(|text| text.eq_ignore_ascii_case("true"))
    }

    /// The whole number in a parameter.
    pub fn number(&self, name: &str) -> Result<Option<i64>> {
        self.number_or(name, |name| {
            format!("{name}: expected a number but the string didn't have the appropriate format.")
        })
    }

    /// The version in a parameter of the change data feed, which has a message of its own.
    pub fn version(&self, name: &str) -> Result<Option<i64>> {
        self.number_or(name, |name| format!("{name} is not a valid number."))
    }

    fn number_or(&self, name: &str, message: impl Fn(&str) -> String) -> Result<Option<i64>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        whole_number(text)
            .map(Some)
            .ok_or_else(|| Error::invalid(format!("{} Not a numeric value: {}", message(name), shown(text))))
    }
}

/// Reads a whole number of 64 bits that is written as text: decimal digits, after a sign or without one.
pub fn whole_number(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// What a client sent, as a message may repeat it: the beginning, with everything that does not print escaped.
pub fn shown(text: &str) -> String {
    let mut shown = String::new();
    let mut length = 0;
    for character in text.chars() {
        let prints = character == ' ' || character.is_ascii_graphic() || character.is_alphanumeric();
        let written =
            if prints { character.to_string() } else { character.escape_unicode().collect::<String>() };
        length += written.chars().count();
        if length > SHOWN_CHARS {
            break;
        }
        shown.push_str(&written);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Result<Option<i64>> {
        QueryParameters(&[("maxFiles".to_owned(), text.to_owned())]).number("maxFiles")
    }

    #[test]
    fn numbers_are_whole_and_have_64_bits() {
        for (text, expected) in [
            ("0", 0),
            ("-1", -1),
            ("+1", 1),
            ("007", 7),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(number(text).unwrap(), Some(expected), "{text}");
        }
        assert_eq!(number("").unwrap(), None);
        for text in [
            " ",
            " 1",
            "1 ",
            "1e3",
            "1.0",
            "0x1",
            "1_000",
            "1,000",
            "x",
            "-",
            "--1",
            "\u{661}",
            "NaN",
            "null",
            "9223372036854775808",
            "-9223372036854775809",
        ] {
            let error = number(text).unwrap_err();
            assert_eq!(
                error.message(),
                format!(
                    "maxFiles: expected a number but the string didn't have the appropriate format. Not a numeric \
                     value: {text}"
                )
            );
        }
    }

    #[test]
    fn what_a_message_repeats_is_short_and_prints() {
        assert_eq!(shown("x3"), "x3");
        assert_eq!(shown("größe 日本"), "größe 日本");
        assert_eq!(shown("a\u{0}\r\nb\u{202e}"), r"a\u{0}\u{d}\u{a}b\u{202e}");
        assert_eq!(shown(&"x".repeat(1000)), "x".repeat(64));
        assert!(shown(&"\u{202e}".repeat(1000)).len() <= 64);
    }

    #[test]
    fn the_first_of_two_counts() {
        let pairs = [("a", "1"), ("a", "2"), ("b", "TRUE"), ("c", "yes")];
        let pairs = pairs.map(|(name, text)| (name.to_owned(), text.to_owned()));
        let parameters = QueryParameters(&pairs);
        assert_eq!((parameters.text("a"), parameters.text("A")), (Some("1"), None));
        assert!(parameters.flag("b") && !parameters.flag("c"));
    }
}
