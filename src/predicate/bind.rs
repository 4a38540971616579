//! A predicate over the columns of one table.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::schema::{Column, Columns, DataType};
use super::value::{Domain, Interval, Origin, Value};
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
    /// How many values lists have so far.
    values: usize,
}

/// The most values of all lists, which are kept until the answer is over.
const MOST_VALUES: usize = 10_000;

impl<'a> Binder<'a> {
    pub(super) fn new(schema: Columns<'a>) -> Self {
        Self { schema, columns: Vec::new(), ignored: Vec::new(), values: 0 }
    }

    pub(super) fn bind(&mut self, predicate: Predicate) -> Bound {
        let bound = match predicate {
            Predicate::And(children) => return Bound::And(self.bind_all(children)),
            Predicate::Or(children) => return Bound::Or(self.bind_all(children)),
            Predicate::Not(child) => return Bound::Not(Box::new(self.bind(*child))),
            Predicate::Compare(left, comparison, right) => self.compare(&left, comparison, &right),
            Predicate::In(operand, list) => self.is_in(&operand, &list),
            Predicate::Like { operand, prefix, rest } => self.like(&operand, prefix, rest),
            Predicate::NullSafeEqual(left, right) => self.null_safe_equal(&left, &right),
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
        self.values = self.values.saturating_add(list.len());
        if self.values > MOST_VALUES {
            return Err(format!("lists have more than {MOST_VALUES} values"));
        }
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
        if literals.iter().any(|literal| !literal.is_exact()) {
            return any_of(column, domain, literals, has_null);
        }
        // Any two of them can be compared, as sorting needs it.
        if !literals.iter().all(|literal| literal.low.as_ref().is_some_and(Value::is_common)) {
            return Err("a value of a list has too many digits".to_owned());
        }
        literals.sort_by(|left, right| match (&left.low, &right.low) {
            (Some(left), Some(right)) => left.compare(right).unwrap_or(Ordering::Equal),
            _ => Ordering::Equal,
        });
        literals.dedup();
        Ok(Bound::In { column, domain, literals, has_null })
    }

    fn like(&mut self, operand: &Operand, prefix: String, rest: bool) -> Result<Bound, String> {
        let Term::Column(parts) = &operand.term else {
            return Err("only a column can be LIKE a pattern".to_owned());
        };
        let column = self.column(parts)?;
        match (self.columns.get(column).map(|column| column.data_type), operand.cast) {
            (Some(DataType::Text), None | Some(ValueType::Text)) if rest => {
                Ok(Bound::StartsWith { column, prefix })
            }
            (Some(DataType::Text), None | Some(ValueType::Text)) => Ok(Bound::Compare {
                column,
                domain: Domain::Text,
                comparison: Comparison::Equal,
                literal: Interval::exactly(Value::Text(Cow::Owned(prefix))),
            }),
            _ => Err("LIKE is evaluated for strings only".to_owned()),
        }
    }

    /// The operator is never null. If its comparison is not evaluated, the literal may be null for some clients.
    fn null_safe_equal(&mut self, left: &Operand, right: &Operand) -> Result<Bound, String> {
        match (&left.term, &right.term) {
            (_, Term::Literal(Literal::Null)) => self.is_null(left),
            (Term::Literal(Literal::Null), _) => self.is_null(right),
            _ => {
                let column = if matches!(left.term, Term::Column(_)) { left } else { right };
                let is_value = Bound::Not(Box::new(self.is_null(column)?));
                Ok(Bound::And(vec![self.compare(left, Comparison::Equal, right)?, is_value]))
            }
        }
    }

    fn is_null(&mut self, operand: &Operand) -> Result<Bound, String> {
        match &operand.term {
            Term::Literal(Literal::Null) => Ok(Bound::Constant(true)),
            Term::Literal(Literal::Number(_) | Literal::Text(_) | Literal::Boolean(_))
                if operand.cast.is_none() =>
            {
                Ok(Bound::Constant(false))
            }
            Term::Literal(_) => Err("a literal that is cast may be null".to_owned()),
            // A cast may fail, and is null then.
            Term::Column(parts) => {
                let column = self.column(parts)?;
                let own = self.columns.get(column).map(|column| column.data_type);
                match operand.cast {
                    Some(cast) if !own.is_some_and(|own| keeps_nulls(own, cast)) => {
                        Err("a column is cast to another type before it is compared with null".to_owned())
                    }
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
        let interval = domain.read(text.clone(), Origin::Literal).ok_or_else(unreadable)?;
        Ok((domain, interval))
    }
}

/// A list of literals that are not exact, compared one by one.
fn any_of(
    column: usize,
    domain: Domain,
    literals: Vec<Interval<'static>>,
    has_null: bool,
) -> Result<Bound, String> {
    /// Each is a comparison for each file.
    const MOST: usize = 100;
    if literals.len() > MOST {
        return Err(format!("a list has more than {MOST} values of a type that is not exact"));
    }
    let compare = |literal| Bound::Compare { column, domain, comparison: Comparison::Equal, literal };
    let null = has_null.then_some(Bound::Null);
    Ok(Bound::Or(literals.into_iter().map(compare).chain(null).collect()))
}

/// Whether a cast of a column to this type is null for its nulls only.
fn keeps_nulls(own: DataType, cast: ValueType) -> bool {
    let is_numeric = matches!(
        own,
        DataType::Integer
            | DataType::Long
            | DataType::Decimal
            | DataType::LongDecimal
            | DataType::Float
            | DataType::Double
    );
    match cast {
        ValueType::Boolean => own == DataType::Boolean,
        ValueType::Int => own == DataType::Integer,
        ValueType::Long => matches!(own, DataType::Integer | DataType::Long),
        ValueType::Text => true,
        ValueType::Date => matches!(own, DataType::Date),
        ValueType::Float | ValueType::Double => is_numeric,
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
    use ValueType::{Boolean, Date, Text, Timestamp};
    let casts = [cast, literal_cast];
    let only = |allowed: &[ValueType]| casts.iter().flatten().all(|cast| allowed.contains(cast));
    match own {
        DataType::Integer
        | DataType::Long
        | DataType::Decimal
        | DataType::LongDecimal
        | DataType::Float
        | DataType::Double => {
            let Literal::Number(text) = literal else { return None };
            number_domain(own, cast, text, literal_cast)
        }
        DataType::Text if matches!(literal, Literal::Text(_)) && only(&[Text]) => Some(Domain::Text),
        DataType::Date if matches!(literal, Literal::Date(_) | Literal::Text(_)) && only(&[Date]) => {
            Some(Domain::Date)
        }
        DataType::Timestamp if is_time(literal) && only(&[Timestamp]) => Some(Domain::Timestamp),
        DataType::TimestampNtz if is_time(literal) && only(&[Timestamp]) => {
            let is_zoned = matches!(literal, Literal::Timestamp(_)) || casts != [None, None];
            Some(if is_zoned { Domain::ZonedNtz } else { Domain::TimestampNtz })
        }
        DataType::Boolean if matches!(literal, Literal::Boolean(_)) && only(&[Boolean]) => {
            Some(Domain::Boolean)
        }
        DataType::Text
        | DataType::Date
        | DataType::Timestamp
        | DataType::TimestampNtz
        | DataType::Boolean
        | DataType::Other => None,
    }
}

fn number_domain(
    own: DataType,
    cast: Option<ValueType>,
    literal: &str,
    literal_cast: Option<ValueType>,
) -> Option<Domain> {
    use ValueType::{Double, Float, Int, Long};
    let is_whole =
        literal.bytes().enumerate().all(|(at, byte)| byte.is_ascii_digit() || (at == 0 && byte == b'-'));
    let has_exponent = literal.contains(['e', 'E']);
    // A cast must not change the literal.
    match literal_cast {
        None | Some(Float | Double) => {}
        Some(Int) if is_whole && literal.parse::<i32>().is_ok() => {}
        Some(Long) if is_whole && literal.parse::<i64>().is_ok() => {}
        Some(_) => return None,
    }
    let as_float = [cast, literal_cast].contains(&Some(Float));
    let is_integral = |cast| matches!(cast, Some(Int | Long));
    let is_floating = |cast| matches!(cast, Some(Float | Double));
    match own {
        DataType::Integer | DataType::Long => match (cast, literal_cast) {
            (None, None) if !has_exponent => Some(Domain::Integer { as_int: false }),
            (column, value)
                if is_whole
                    && (column.is_none() || is_integral(column))
                    && (value.is_none() || is_integral(value)) =>
            {
                Some(Domain::Integer { as_int: own == DataType::Long && column == Some(Int) })
            }
            (column, _) if column.is_none() || is_floating(column) => {
                Some(Domain::Double { single: as_float })
            }
            _ => None,
        },
        DataType::Decimal if cast.is_none() && literal_cast.is_none() && !has_exponent => {
            Some(Domain::Decimal)
        }
        DataType::Decimal | DataType::LongDecimal if cast.is_none() || is_floating(cast) => {
            Some(Domain::Rounded)
        }
        DataType::Float | DataType::Double if cast.is_none() || is_floating(cast) => {
            Some(Domain::Double { single: own == DataType::Float || as_float })
        }
        _ => None,
    }
}

fn is_time(literal: &Literal) -> bool {
    matches!(literal, Literal::Date(_) | Literal::Text(_) | Literal::Timestamp(_))
}
