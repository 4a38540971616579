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
                write!(f, "{operand} IN (")?;
                for (number, value) in list.iter().enumerate() {
                    write!(f, "{}{value}", if number == 0 { "" } else { ", " })?;
                }
                f.write_str(")")
            }
            Self::StartsWith(operand, prefix) => {
                write!(f, "{operand} LIKE {}", quoted(&format!("{prefix}%")))
            }
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
            // JSON predicates give every value its type.
            (Term::Literal(literal), _) => write!(f, "{literal}"),
            (Term::Column(parts), None) => f.write_str(&parts.join(".")),
            (Term::Column(parts), Some(cast)) => write!(f, "CAST({} AS {cast})", parts.join(".")),
        }
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
