//! Properties of recipients: names and values that filters read as `${recipient.name}`.

use std::collections::BTreeMap;

use crate::predicate::is_property_name;

/// The properties of a recipient, by their names.
pub type Properties = BTreeMap<String, String>;

/// The most properties of a recipient.
pub const MOST_PROPERTIES: usize = 50;

/// The longest value of a property, in bytes.
pub const LONGEST_VALUE: usize = 1024;

/// Refuses a property that a recipient cannot have. The reason does not repeat the value.
pub fn check_property(name: &str, value: &str) -> Result<(), String> {
    if !is_property_name(name) {
        return Err("the name of a property consists of at most 64 letters, digits and underscores, and does not begin \
                    with a digit"
            .to_owned());
    }
    if value.is_empty() {
        return Err(format!("property {name} has no value"));
    }
    if value.trim() != value {
        return Err(format!("property {name} begins or ends with white space"));
    }
    if value.len() > LONGEST_VALUE {
        return Err(format!("property {name} has more than {LONGEST_VALUE} bytes"));
    }
    Ok(())
}

/// Refuses properties that a recipient cannot have.
pub fn check_properties(properties: &Properties) -> Result<(), String> {
    if properties.len() > MOST_PROPERTIES {
        return Err(format!("a recipient has at most {MOST_PROPERTIES} properties"));
    }
    properties.iter().try_for_each(|(name, value)| check_property(name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_few_short_and_named() {
        assert_eq!(check_property("region", "EU"), Ok(()));
        assert_eq!(check_property("_r2", &"x".repeat(LONGEST_VALUE)), Ok(()));
        for (name, value, reason) in [
            ("", "secret", "the name of a property"),
            ("2nd", "secret", "the name of a property"),
            ("a b", "secret", "the name of a property"),
            ("region", "", "property region has no value"),
            ("region", " secret", "property region begins or ends with white space"),
            ("region", "secret\n", "property region begins or ends with white space"),
            (
                "region",
                "é".repeat(LONGEST_VALUE / 2 + 1).as_str(),
                "property region has more than 1024 bytes",
            ),
        ] {
            let error = check_property(name, value).unwrap_err();
            assert!(error.contains(reason) && !error.contains("secret"), "{error}");
        }
        let many = |count: usize| (0..count).map(|number| (format!("p{number}"), "x".to_owned())).collect();
        assert_eq!(check_properties(&many(MOST_PROPERTIES)), Ok(()));
        assert!(check_properties(&many(MOST_PROPERTIES + 1)).unwrap_err().contains("at most 50"));
    }
}
