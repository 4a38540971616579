//! A predicate over the columns of one table.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::schema::{Column, Columns, DataType};
use super::value::{Domain, Interval, Origin};
use super::{Comparison, Literal, Operand, Predicate, Term, ValueType};

/// A predicate whose columns are found and whose literals are read. Columns are numbers in the list of the binder.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Bound {
    And(Vec<Self>),
    Or(Vec<Self>),
    Not(Box<Self>),
    Compare {
        column: usize,
        domain: Domain,
        comparison: Comparison,
        literal: Interval<'static>,
    },
    /// The literals are in the order of their lower ends.
    In {
        column: usize,
        domain: Domain,
        literals: Vec<Interval<'static>>,
        has_null: bool,
    },
    StartsWith {
        column: usize,
        prefix: String,
    },
    IsNull {
        column: usize,
    },
    /// Whether it holds is the same for every row.
    Constant(bool),
    /// Never true and never false.
    Null,
    /// Nothing is known of it.
    Unknown,
}

/// Binds predicates to a table.
pub(super) struct Binder<'a> {
    schema: Columns<'a>,
    /// The columns that predicates name, each once.
    pub(super) columns: Vec<Column>,
    /// Why parts are [`Bound::Unknown`].
    pub(super) ignored: Vec<String>,
}

impl<'a> Binder<'a> {
    pub(super) fn new(schema: Columns<'a>) -> Self {
        Self { schema, columns: Vec::new(), ignored: Vec::new() }
    }

    pub(super) fn bind(&mut self, predicate: Predicate) -> Bound {
        let bound = match predicate {
            Predicate::And(children) => return Bound::And(self.bind_all(children)),
            Predicate::Or(children) => return Bound::Or(self.bind_all(children)),
            Predicate::Not(child) => return Bound::Not(Box::new(self.bind(*child))),
            Predicate::Compare(left, comparison, right) => self.compare(&left, comparison, &right),
            Predicate::In(operand, list) => self.is_in(&operand, &list),
            Predicate::StartsWith(operand, prefix) => self.starts_with(&operand, prefix),
            Predicate::IsNull(operand) => self.is_null(&operand),
            Predicate::Unsupported(reason) => Err(reason),
        };
        bound.unwrap_or_else(|reason| {
            self.ignored.push(reason);
            Bound::Unknown
        })
    }

    fn bind_all(&mut self, predicates: Vec<Predicate>) -> Vec<Bound> {
        predicates.into_iter().map(|predicate| self.bind(predicate)).collect()
    }

    fn column(&mut self, parts: &[String]) -> Result<usize, String> {
        let column = self.schema.find(parts)?;
        Ok(self.columns.iter().position(|known| *known == column).unwrap_or_else(|| {
            self.columns.push(column);
            self.columns.len() - 1
        }))
    }

    fn compare(&mut self, left: &Operand, comparison: Comparison, right: &Operand) -> Result<Bound, String> {
        let (parts, cast, literal, comparison) = match (&left.term, &right.term) {
            (Term::Column(parts), Term::Literal(_)) => (parts, left.cast, right, comparison),
            (Term::Literal(_), Term::Column(parts)) => (parts, right.cast, left, comparison.flipped()),
            _ => return Err("only comparisons of a column with a literal are evaluated".to_owned()),
        };
        let column = self.column(parts)?;
        if literal.term == Term::Literal(Literal::Null) {
            return Ok(Bound::Null);
        }
        let (domain, literal) = self.read(column, cast, literal)?;
        Ok(Bound::Compare { column, domain, comparison, literal })
    }

    fn is_in(&mut self, operand: &Operand, list: &[Operand]) -> Result<Bound, String> {
        let Term::Column(parts) = &operand.term else {
            return Err("only a column can be IN a list".to_owned());
        };
        let column = self.column(parts)?;
        let (mut common, mut literals, mut has_null) = (None, Vec::with_capacity(list.len()), false);
        for literal in list {
            if literal.term == Term::Literal(Literal::Null) {
                has_null = true;
                continue;
            }
            let (domain, literal) = self.read(column, operand.cast, literal)?;
            if *common.get_or_insert(domain) != domain {
                return Err("the values of a list have different types".to_owned());
            }
            literals.push(literal);
        }
        let Some(domain) = common else { return Ok(Bound::Null) };
        literals.sort_by(|left, right| match (&left.low, &right.low) {
            (Some(left), Some(right)) => left.compare(right).unwrap_or(Ordering::Equal),
            _ => Ordering::Equal,
        });
        let comparable = literals.windows(2).all(|pair| match pair {
            [Interval { low: Some(left), .. }, Interval { low: Some(right), .. }] => {
                left.compare(right).is_some()
            }
            _ => false,
        });
        if !comparable {
            return Err("the values of a list cannot be compared with each other".to_owned());
        }
        Ok(Bound::In { column, domain, literals, has_null })
    }

    fn starts_with(&mut self, operand: &Operand, prefix: String) -> Result<Bound, String> {
        let Term::Column(parts) = &operand.term else {
            return Err("only a column can be LIKE a pattern".to_owned());
        };
        let column = self.column(parts)?;
        match (self.columns.get(column).map(|column| column.data_type), operand.cast) {
            (Some(DataType::Text), None | Some(ValueType::Text)) => Ok(Bound::StartsWith { column, prefix }),
            _ => Err(format!("LIKE is evaluated for strings only, which {} is not", parts.join("."))),
        }
    }

    fn is_null(&mut self, operand: &Operand) -> Result<Bound, String> {
        match &operand.term {
            Term::Literal(literal) => Ok(Bound::Constant(*literal == Literal::Null)),
            // A cast may fail, and is null then.
            Term::Column(parts) => {
                let column = self.column(parts)?;
                let own = self.columns.get(column).map(|column| column.data_type);
                match operand.cast {
                    Some(cast) if !own.is_some_and(|own| keeps_nulls(own, cast)) => Err(format!(
                        "{} is cast to another type before it is compared with null",
                        parts.join(".")
                    )),
                    _ => Ok(Bound::IsNull { column }),
                }
            }
        }
    }

    /// How a column and a literal are compared, and the literal.
    fn read(
        &self,
        column: usize,
        cast: Option<ValueType>,
        literal: &Operand,
    ) -> Result<(Domain, Interval<'static>), String> {
        let Some(column) = self.columns.get(column) else { return Err("a column is not known".to_owned()) };
        let mismatch = || format!("{} is compared with a value of another type", column.name);
        let Term::Literal(value) = &literal.term else { return Err(mismatch()) };
        let domain = domain(column.data_type, cast, value, literal.cast).ok_or_else(mismatch)?;
        let text: Cow<'static, str> = match value {
            Literal::Null => return Err(mismatch()),
            Literal::Boolean(value) => value.to_string().into(),
            Literal::Number(text) | Literal::Text(text) | Literal::Date(text) | Literal::Timestamp(text) => {
                text.clone().into()
            }
        };
        let unreadable = || format!("{} is compared with a value that is not one of its type", column.name);
        // Where dates are compared as text, only the whole form compares like a date.
        let is_whole = domain != Domain::Date || text.len() == 10;
        let interval =
            domain.read(text.clone(), Origin::Whole).filter(|_| is_whole).ok_or_else(unreadable)?;
        Ok((domain, interval))
    }
}

/// Whether a cast of a column to this type is null for its nulls only.
fn keeps_nulls(own: DataType, cast: ValueType) -> bool {
    let numeric = matches!(
        own,
        DataType::Integer | DataType::Long | DataType::Decimal | DataType::Float | DataType::Double
    );
    match cast {
        ValueType::Boolean => own == DataType::Boolean,
        ValueType::Int => own == DataType::Integer,
        ValueType::Long => matches!(own, DataType::Integer | DataType::Long),
        ValueType::Text => true,
        ValueType::Date => matches!(own, DataType::Date),
        ValueType::Float | ValueType::Double => numeric,
        ValueType::Timestamp => matches!(own, DataType::Timestamp | DataType::TimestampNtz),
    }
}

/// As what a column is compared with a literal, each with the type that it is cast to. `None` if clients may compare
/// them in different ways.
fn domain(
    own: DataType,
    cast: Option<ValueType>,
    literal: &Literal,
    literal_cast: Option<ValueType>,
) -> Option<Domain> {
    use ValueType::{Boolean, Date, Double, Float, Int, Long, Text, Timestamp};
    let is_number = matches!(literal, Literal::Number(_));
    let is_whole = matches!(literal, Literal::Number(text) if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-'));
    let has_exponent = matches!(literal, Literal::Number(text) if text.contains(['e', 'E']));
    let casts = [cast, literal_cast];
    let only = |allowed: &[ValueType]| casts.iter().flatten().all(|cast| allowed.contains(cast));
    let as_float = casts.contains(&Some(Float));
    match own {
        DataType::Integer | DataType::Long if is_whole && only(&[Int, Long]) => {
            Some(Domain::Integer { as_int: own == DataType::Long && casts.contains(&Some(Int)) })
        }
        DataType::Integer | DataType::Long if is_number && casts == [None, None] && !has_exponent => {
            Some(Domain::Integer { as_int: false })
        }
        DataType::Integer | DataType::Long if is_number && matches!(cast, None | Some(Float | Double)) => {
            Some(Domain::Double { single: as_float })
        }
        DataType::Decimal if is_number && casts == [None, None] && !has_exponent => Some(Domain::Decimal),
        DataType::Decimal if is_number && matches!(cast, None | Some(Double)) && only(&[Double]) => {
            Some(Domain::Double { single: true })
        }
        DataType::Float | DataType::Double if is_number && matches!(cast, None | Some(Float | Double)) => {
            Some(Domain::Double { single: own == DataType::Float || as_float })
        }
        DataType::Text if matches!(literal, Literal::Text(_)) && only(&[Text]) => Some(Domain::Text),
        DataType::Date if matches!(literal, Literal::Date(_) | Literal::Text(_)) && only(&[Date]) => {
            Some(Domain::Date)
        }
        DataType::Timestamp if is_time(literal) && only(&[Timestamp]) => Some(Domain::Timestamp),
        DataType::TimestampNtz if is_time(literal) && only(&[Timestamp]) => Some(Domain::TimestampNtz),
        DataType::Boolean if matches!(literal, Literal::Boolean(_)) && only(&[Boolean]) => {
            Some(Domain::Boolean)
        }
        _ => None,
    }
}

fn is_time(literal: &Literal) -> bool {
    matches!(literal, Literal::Date(_) | Literal::Text(_) | Literal::Timestamp(_))
}
