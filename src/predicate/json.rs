//! "JSON predicates for Filtering".

use serde_json::{Map, Value};

use super::{Comparison, Literal, Operand, Predicate, Term, ValueType};
use crate::protocol::json::parse_nested;

/// The most levels of a predicate.
const DEEPEST: usize = 100;

/// Parses a predicate. The error says what is wrong with the whole; a part that is not understood is
/// [`Predicate::Unsupported`] in its place.
pub(super) fn parse(text: &str) -> Result<Predicate, String> {
    // An operation is an object in an array, and the last one has a column and a literal in its array.
    let value = parse_nested(text, 2 * DEEPEST + 1)
        .map_err(|error| format!("jsonPredicateHints is not JSON: {error}"))?;
    Ok(predicate(&value, DEEPEST))
}

fn predicate(value: &Value, depth: usize) -> Predicate {
    operation(value, depth).unwrap_or_else(Predicate::Unsupported)
}

fn operation(value: &Value, depth: usize) -> Result<Predicate, String> {
    let Value::Object(fields) = value else {
        return Err("a predicate is a JSON object with \"op\" and \"children\"".to_owned());
    };
    let depth =
        depth.checked_sub(1).ok_or_else(|| format!("the predicate has more than {DEEPEST} levels"))?;
    let op = fields.get("op").and_then(Value::as_str).ok_or("a predicate has no \"op\"")?;
    let children = match fields.get("children") {
        Some(Value::Array(children)) => children.as_slice(),
        Some(_) => return Err("the children of an operation are not an array".to_owned()),
        None => &[],
    };
    let all = || children.iter().map(|child| predicate(child, depth)).collect::<Vec<_>>();
    let comparison = match op {
        "and" if !children.is_empty() => return Ok(Predicate::And(all())),
        "or" if !children.is_empty() => return Ok(Predicate::Or(all())),
        "not" => {
            let [child] = children else { return Err("\"not\" has one child".to_owned()) };
            return Ok(predicate(child, depth).not());
        }
        "isNull" => {
            let [child] = children else { return Err("\"isNull\" has one child".to_owned()) };
            return Ok(Predicate::IsNull(operand(child)?));
        }
        "equal" => Comparison::Equal,
        "lessThan" => Comparison::Less,
        "lessThanOrEqual" => Comparison::LessOrEqual,
        "greaterThan" => Comparison::Greater,
        "greaterThanOrEqual" => Comparison::GreaterOrEqual,
        "and" | "or" => return Err(format!("\"{op}\" has no children")),
        _ => return Err("an operation is not one of the protocol".to_owned()),
    };
    let [left, right] = children else { return Err(format!("\"{op}\" has two children")) };
    Ok(Predicate::Compare(operand(left)?, comparison, operand(right)?))
}

fn operand(value: &Value) -> Result<Operand, String> {
    let Value::Object(fields) = value else { return Err("a child is not a JSON object".to_owned()) };
    let cast = match fields.get("valueType") {
        Some(Value::String(name)) => value_type(name)?,
        _ => return Err("a column or a literal has no \"valueType\"".to_owned()),
    };
    let term = match fields.get("op").and_then(Value::as_str) {
        Some("column") => {
            let name = fields.get("name").and_then(Value::as_str).ok_or("a column has no \"name\"")?;
            Term::Column(vec![name.to_owned()])
        }
        Some("literal") => Term::Literal(literal(fields, cast)?),
        _ => return Err("a child is neither a column nor a literal".to_owned()),
    };
    Ok(Operand { term, cast: Some(cast) })
}

fn value_type(name: &str) -> Result<ValueType, String> {
    Ok(match name {
        "bool" => ValueType::Boolean,
        "int" => ValueType::Int,
        "long" => ValueType::Long,
        "string" => ValueType::Text,
        "date" => ValueType::Date,
        "float" => ValueType::Float,
        "double" => ValueType::Double,
        "timestamp" => ValueType::Timestamp,
        _ => return Err("a value type is not one of the protocol".to_owned()),
    })
}

/// The value of a literal is text by the protocol; clients send numbers and booleans too.
fn literal(fields: &Map<String, Value>, value_type: ValueType) -> Result<Literal, String> {
    let text = match fields.get("value") {
        None => return Err("a literal has no \"value\"".to_owned()),
        Some(Value::Null) => return Ok(Literal::Null),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(value)) => value.to_string(),
        Some(_) => return Err("the value of a literal is not text".to_owned()),
    };
    Ok(match value_type {
        ValueType::Boolean => match text.as_str() {
            _ if text.eq_ignore_ascii_case("true") => Literal::Boolean(true),
            _ if text.eq_ignore_ascii_case("false") => Literal::Boolean(false),
            _ => return Err("the value of a literal is not a bool".to_owned()),
        },
        ValueType::Int | ValueType::Long | ValueType::Float | ValueType::Double => Literal::Number(text),
        ValueType::Text => Literal::Text(text),
        ValueType::Date => Literal::Date(text),
        ValueType::Timestamp => Literal::Timestamp(text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(op: &str) -> String {
        format!(
            r#"{{"op":"{op}","children":[{{"op":"column","name":"a","valueType":"int"}},{{"op":"literal","value":"1","valueType":"int"}}]}}"#
        )
    }

    #[test]
    fn every_operation_and_type_of_the_protocol_is_read() {
        let a = Operand { term: Term::Column(vec!["a".to_owned()]), cast: Some(ValueType::Int) };
        let one =
            Operand { term: Term::Literal(Literal::Number("1".to_owned())), cast: Some(ValueType::Int) };
        for (op, comparison) in [
            ("equal", Comparison::Equal),
            ("lessThan", Comparison::Less),
            ("lessThanOrEqual", Comparison::LessOrEqual),
            ("greaterThan", Comparison::Greater),
            ("greaterThanOrEqual", Comparison::GreaterOrEqual),
        ] {
            assert_eq!(parse(&leaf(op)), Ok(Predicate::Compare(a.clone(), comparison, one.clone())));
        }
        let text = r#"{"op":"not","children":[{"op":"isNull","children":[{"op":"column","name":"a","valueType":"int"}]}]}"#;
        assert_eq!(parse(text), Ok(Predicate::IsNull(a).not()));
        for name in ["bool", "int", "long", "string", "date", "float", "double", "timestamp"] {
            assert!(value_type(name).is_ok());
        }
    }

    #[test]
    fn a_part_that_is_not_understood_is_unsupported_in_its_place() {
        let text = format!(r#"{{"op":"and","children":[{},{{"op":"=","children":[]}}]}}"#, leaf("equal"));
        let Ok(Predicate::And(children)) = parse(&text) else { panic!() };
        assert!(matches!(children[0], Predicate::Compare(..)));
        assert_eq!(children[1], Predicate::Unsupported("an operation is not one of the protocol".to_owned()));
        for text in [
            "[]",
            "1",
            r#"{"op":"and"}"#,
            r#"{"op":"equal","children":[1,2]}"#,
            r#"{"jsonPredicateHints":{}}"#,
        ] {
            assert!(matches!(parse(text), Ok(Predicate::Unsupported(_))), "{text}");
        }
        assert!(parse("{").is_err());
    }

    #[test]
    fn a_predicate_has_at_most_100_levels() {
        let nested = |levels: usize| {
            let open = r#"{"op":"not","children":["#.repeat(levels);
            format!("{open}{}{}", leaf("equal"), "]}".repeat(levels))
        };
        let mut found = &parse(&nested(99)).unwrap();
        while let Predicate::Not(child) = found {
            found = child;
        }
        assert!(matches!(found, Predicate::Compare(..)), "{found:?}");
        assert!(parse(&nested(100_000)).is_err());
    }
}
