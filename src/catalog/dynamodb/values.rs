//! Values of attributes.

use aws_sdk_dynamodb::types::AttributeValue;

/// A string.
pub(super) fn text(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

/// A number.
pub(super) fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}
