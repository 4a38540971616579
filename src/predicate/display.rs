//! Predicates as SQL, for people.

use std::fmt::{self, Display, Formatter};

use super::{Comparison, Literal, Operand, Predicate, Term, ValueType};

impl Display for Predicate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::And(children) => joined(children, " AND ", f),
            Self::Or(children) => joined(children, " OR ", f),
            Self::Not(child) => match child.as_ref() {
                Self::IsNull(operand) => write!(f, "{operand} IS NOT NULL"),
                Self::Compare(left, Comparison::Equal, right) => write!(f, "{left} <> {right}"),
                other => write!(f, "NOT ({other})"),
            },
            Self::Compare(left, comparison, right) => write!(f, "{left} {comparison} {right}"),
            Self::In(operand, list) => {
                /// More of a list do not help a reader.
                const SHOWN: usize = 5;
                write!(f, "{operand} IN (")?;
                for (number, value) in list.iter().take(SHOWN).enumerate() {
                    write!(f, "{}{value}", if number == 0 { "" } else { ", " })?;
                }
                match list.len().checked_sub(SHOWN) {
                    None | Some(0) => f.write_str(")"),
                    Some(more) => write!(f, " and {more} more)"),
                }
            }
            Self::Like { operand, prefix, rest } => {
                write!(f, "{operand} LIKE {}", quoted(&format!("{prefix}{}", if *rest { "%" } else { "" })))
            }
            Self::NullSafeEqual(left, right) => write!(f, "{left} <=> {right}"),
            Self::IsNull(operand) => write!(f, "{operand} IS NULL"),
            Self::Unsupported(reason) => f.write_str(reason),
        }
    }
}

fn joined(children: &[Predicate], between: &str, f: &mut Formatter<'_>) -> fmt::Result {
    for (number, child) in children.iter().enumerate() {
        f.write_str(if number == 0 { "" } else { between })?;
        match child {
            Predicate::And(_) | Predicate::Or(_) => write!(f, "({child})")?,
            _ => write!(f, "{child}")?,
        }
    }
    Ok(())
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

impl Display for Comparison {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        })
    }
}

impl Display for Operand {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match (&self.term, self.cast) {
            (Term::Literal(literal), None) => write!(f, "{literal}"),
            (Term::Literal(literal), Some(cast)) if is_natural(literal, cast) => write!(f, "{literal}"),
            (Term::Literal(literal), Some(cast)) => write!(f, "CAST({literal} AS {cast})"),
            (Term::Column(parts), None) => f.write_str(&parts.join(".")),
            (Term::Column(parts), Some(cast)) => write!(f, "CAST({} AS {cast})", parts.join(".")),
        }
    }
}

/// Whether a literal has this type without being cast. JSON predicates give every literal its type.
fn is_natural(literal: &Literal, cast: ValueType) -> bool {
    match literal {
        Literal::Null => true,
        Literal::Number(_) => {
            matches!(cast, ValueType::Int | ValueType::Long | ValueType::Float | ValueType::Double)
        }
        Literal::Text(_) => cast == ValueType::Text,
        Literal::Boolean(_) => cast == ValueType::Boolean,
        Literal::Date(_) => cast == ValueType::Date,
        Literal::Timestamp(_) => cast == ValueType::Timestamp,
    }
}

impl Display for Literal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Number(text) => f.write_str(text),
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::Boolean(value) => f.write_str(if *value { "TRUE" } else { "FALSE" }),
            Self::Date(text) => write!(f, "DATE {}", quoted(text)),
            Self::Timestamp(text) => write!(f, "TIMESTAMP {}", quoted(text)),
        }
    }
}

impl Display for ValueType {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boolean => "BOOLEAN",
            Self::Int => "INT",
            Self::Long => "BIGINT",
            Self::Text => "STRING",
            Self::Date => "DATE",
            Self::Float => "FLOAT",
            Self::Double => "DOUBLE",
            Self::Timestamp => "TIMESTAMP",
        })
    }
}
