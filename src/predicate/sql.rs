//! "SQL Expressions for Filtering", and what clients send beyond them.

use sqlparser::ast::{
    BinaryOperator, CastKind, DataType, Expr, Ident, TimezoneInfo, UnaryOperator, Value, ValueWithSpan,
};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, Tokenizer};

use super::{Comparison, Literal, Operand, Predicate, Term, ValueType};

/// The most levels of parentheses and other nesting.
const DEEPEST: usize = 100;
/// The most names, keywords and operators. A chain of operators is as deep as it is long, and dropping it recurses.
const MOST_WORDS: usize = 3_000;

type Parsed<T> = Result<T, String>;

/// Parses an expression. The error says what is wrong with the whole; a part that is not understood is
/// [`Predicate::Unsupported`] in its place.
pub(super) fn parse(text: &str) -> Parsed<Predicate> {
    // Spark takes it for an escape, standard SQL for a character of the text.
    if text.contains('\\') {
        return Err("a backslash means different things in different dialects of SQL".to_owned());
    }
    let dialect = GenericDialect {};
    let tokens = Tokenizer::new(&dialect, text).tokenize().map_err(|_| not_sql())?;
    let is_word = |token: &&Token| {
        let plain = matches!(token, Token::Number(..) | Token::SingleQuotedString(_) | Token::Whitespace(_));
        !plain && !matches!(token, Token::Comma | Token::LParen | Token::RParen)
    };
    if tokens.iter().filter(is_word).count() > MOST_WORDS {
        return Err(format!("the expression has more than {MOST_WORDS} names and operators"));
    }
    let mut parser = Parser::new(&dialect).with_recursion_limit(DEEPEST).with_tokens(tokens);
    let expression = parser.parse_expr().map_err(|_| not_sql())?;
    if parser.peek_token().token != Token::EOF {
        return Err(not_sql());
    }
    Ok(predicate(&expression))
}

fn predicate(expression: &Expr) -> Predicate {
    condition(expression).unwrap_or_else(Predicate::Unsupported)
}

fn condition(expression: &Expr) -> Parsed<Predicate> {
    Ok(match expression {
        Expr::Nested(inner) => predicate(inner),
        Expr::BinaryOp { op: op @ (BinaryOperator::And | BinaryOperator::Or), .. } => {
            let children = chain(expression, op).into_iter().map(predicate).collect();
            if *op == BinaryOperator::And { Predicate::And(children) } else { Predicate::Or(children) }
        }
        Expr::BinaryOp { left, op, right } => compare(operand(left)?, op, operand(right)?)?,
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => predicate(expr).not(),
        Expr::IsNull(inner) => Predicate::IsNull(operand(inner)?),
        Expr::IsNotNull(inner) => Predicate::IsNull(operand(inner)?).not(),
        Expr::InList { expr, list, negated } => {
            let list = list.iter().map(operand).collect::<Parsed<_>>()?;
            negate(Predicate::In(operand(expr)?, list), *negated)
        }
        Expr::Between { expr, negated, low, high } => {
            let low = Predicate::Compare(operand(expr)?, Comparison::GreaterOrEqual, operand(low)?);
            let high = Predicate::Compare(operand(expr)?, Comparison::LessOrEqual, operand(high)?);
            negate(Predicate::And(vec![low, high]), *negated)
        }
        Expr::Like { negated, any: false, expr, pattern, escape_char: None } => {
            negate(like(operand(expr)?, pattern)?, *negated)
        }
        other => return Err(not_supported(other)),
    })
}

/// The operands of a chain of one operator, which the parser nests to the left.
fn chain<'a>(expression: &'a Expr, operator: &BinaryOperator) -> Vec<&'a Expr> {
    let (mut operands, mut rest) = (Vec::new(), expression);
    while let Expr::BinaryOp { left, op, right } = rest
        && op == operator
    {
        operands.push(right.as_ref());
        rest = left;
    }
    operands.push(rest);
    operands.reverse();
    operands
}

fn negate(predicate: Predicate, negated: bool) -> Predicate {
    if negated { predicate.not() } else { predicate }
}

fn compare(left: Operand, op: &BinaryOperator, right: Operand) -> Parsed<Predicate> {
    let comparison = match op {
        BinaryOperator::Eq => Comparison::Equal,
        BinaryOperator::Lt => Comparison::Less,
        BinaryOperator::LtEq => Comparison::LessOrEqual,
        BinaryOperator::Gt => Comparison::Greater,
        BinaryOperator::GtEq => Comparison::GreaterOrEqual,
        BinaryOperator::NotEq => return Ok(Predicate::Compare(left, Comparison::Equal, right).not()),
        BinaryOperator::Spaceship => return Ok(equal_null_safe(left, right)),
        other => return Err(format!("the operator {other} is not supported")),
    };
    Ok(Predicate::Compare(left, comparison, right))
}

/// `<=>`, which is never null.
fn equal_null_safe(left: Operand, right: Operand) -> Predicate {
    match (&left.term, &right.term) {
        (_, Term::Literal(Literal::Null)) => Predicate::IsNull(left),
        (Term::Literal(Literal::Null), _) => Predicate::IsNull(right),
        _ => {
            let nulls = [left.clone(), right.clone()].map(|side| Predicate::IsNull(side).not());
            let equal = Predicate::Compare(left, Comparison::Equal, right);
            Predicate::And([equal].into_iter().chain(nulls).collect())
        }
    }
}

/// `LIKE`, of which the text before the first wildcard is used.
fn like(operand: Operand, pattern: &Expr) -> Parsed<Predicate> {
    let Term::Literal(Literal::Text(pattern)) = self::operand(pattern)?.term else {
        return Err("the pattern of LIKE is not a text".to_owned());
    };
    let Some(wildcard) = pattern.find(['%', '_']) else {
        let pattern = Operand { term: Term::Literal(Literal::Text(pattern)), cast: None };
        return Ok(Predicate::Compare(operand, Comparison::Equal, pattern));
    };
    let (prefix, rest) = pattern.split_at(wildcard);
    let starts = Predicate::StartsWith(operand, prefix.to_owned());
    if rest == "%" {
        return Ok(starts);
    }
    let rest = Predicate::Unsupported("of LIKE, only the text before the first wildcard is used".to_owned());
    Ok(Predicate::And(vec![starts, rest]))
}

fn operand(expression: &Expr) -> Parsed<Operand> {
    let plain = |term| Operand { term, cast: None };
    let literal = |literal| plain(Term::Literal(literal));
    Ok(match expression {
        Expr::Nested(inner) => operand(inner)?,
        Expr::Identifier(name) => plain(Term::Column(vec![name.value.clone()])),
        Expr::CompoundIdentifier(names) => {
            plain(Term::Column(names.iter().map(|name: &Ident| name.value.clone()).collect()))
        }
        Expr::Value(ValueWithSpan { value, .. }) => literal(match value {
            Value::Number(text, _) => Literal::Number(text.clone()),
            Value::SingleQuotedString(text) => Literal::Text(text.clone()),
            Value::Boolean(value) => Literal::Boolean(*value),
            Value::Null => Literal::Null,
            _ => return Err(not_supported(expression)),
        }),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match operand(expr)? {
            Operand { term: Term::Literal(Literal::Number(text)), cast: None } if !text.starts_with('-') => {
                literal(Literal::Number(format!("-{text}")))
            }
            _ => return Err(not_supported(expression)),
        },
        Expr::TypedString(typed) => {
            let Value::SingleQuotedString(text) = &typed.value.value else {
                return Err(not_supported(expression));
            };
            literal(match value_type(&typed.data_type) {
                Some(ValueType::Date) => Literal::Date(text.clone()),
                Some(ValueType::Timestamp) => Literal::Timestamp(text.clone()),
                _ => return Err(not_supported(expression)),
            })
        }
        Expr::Cast {
            kind: CastKind::Cast | CastKind::DoubleColon,
            expr,
            data_type,
            array: false,
            format: None,
        } => {
            let Operand { term, cast: None } = operand(expr)? else { return Err(not_supported(expression)) };
            let cast = value_type(data_type).ok_or_else(|| not_supported(expression))?;
            match (term, cast) {
                (Term::Literal(Literal::Text(text)), ValueType::Date) => literal(Literal::Date(text)),
                (Term::Literal(Literal::Text(text)), ValueType::Timestamp) => {
                    literal(Literal::Timestamp(text))
                }
                (term, cast) => Operand { term, cast: Some(cast) },
            }
        }
        other => return Err(not_supported(other)),
    })
}

fn value_type(data_type: &DataType) -> Option<ValueType> {
    Some(match data_type {
        DataType::Boolean | DataType::Bool => ValueType::Boolean,
        DataType::Int(None) | DataType::Integer(None) => ValueType::Int,
        DataType::BigInt(None) => ValueType::Long,
        DataType::String(None) | DataType::Text => ValueType::Text,
        DataType::Date => ValueType::Date,
        DataType::Double(_) | DataType::DoublePrecision => ValueType::Double,
        DataType::Timestamp(None, TimezoneInfo::None) => ValueType::Timestamp,
        _ => return None,
    })
}

/// The sentences below are for the log too, where the values of a request do not belong.
fn not_sql() -> String {
    "the text is not an expression of SQL".to_owned()
}

fn not_supported(expression: &Expr) -> String {
    const MOST: usize = 100;
    let tokens = Tokenizer::new(&GenericDialect {}, &expression.to_string()).tokenize().unwrap_or_default();
    let text: String = tokens
        .iter()
        .map(|token| match token {
            Token::Word(_)
            | Token::Whitespace(_)
            | Token::Comma
            | Token::LParen
            | Token::RParen
            | Token::Period => token.to_string(),
            Token::Eq | Token::Neq | Token::Lt | Token::Gt | Token::LtEq | Token::GtEq => token.to_string(),
            Token::Plus | Token::Minus | Token::Mul | Token::Div => token.to_string(),
            _ => "?".to_owned(),
        })
        .collect();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}… is not supported", &text[..end]),
        None => format!("{text} is not supported"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(parts: &[&str]) -> Operand {
        Operand { term: Term::Column(parts.iter().map(|&part| part.to_owned()).collect()), cast: None }
    }

    fn literal(literal: Literal) -> Operand {
        Operand { term: Term::Literal(literal), cast: None }
    }

    fn number(text: &str) -> Operand {
        literal(Literal::Number(text.to_owned()))
    }

    fn text(text: &str) -> Operand {
        literal(Literal::Text(text.to_owned()))
    }

    #[test]
    fn the_comparisons_of_the_protocol_are_read() {
        use Comparison::*;
        for (sql, left, comparison, right) in [
            ("col = 123", column(&["col"]), Equal, number("123")),
            ("col > 'foo'", column(&["col"]), Greater, text("foo")),
            ("'foo' < col", text("foo"), Less, column(&["col"])),
            ("col >= 123L", column(&["col"]), GreaterOrEqual, number("123")),
            ("123 <= col", number("123"), LessOrEqual, column(&["col"])),
            ("(`a b`.\"c\" = -1.5)", column(&["a b", "c"]), Equal, number("-1.5")),
        ] {
            assert_eq!(parse(sql), Ok(Predicate::Compare(left, comparison, right)), "{sql}");
        }
        assert_eq!(parse("col <> 'foo'"), Ok(Predicate::Compare(column(&["col"]), Equal, text("foo")).not()));
        assert_eq!(parse("col IS NULL"), Ok(Predicate::IsNull(column(&["col"]))));
        assert_eq!(parse("col is not null"), Ok(Predicate::IsNull(column(&["col"])).not()));
    }

    #[test]
    fn what_clients_send_beyond_the_protocol_is_read() {
        use Comparison::*;
        let date = |text: &str| literal(Literal::Date(text.to_owned()));
        let cast = Operand { cast: Some(ValueType::Date), ..column(&["partitionValues", "date"]) };
        assert_eq!(
            parse("(CAST(partitionValues.date AS DATE) = DATE '2021-04-28')"),
            Ok(Predicate::Compare(cast, Equal, date("2021-04-28")))
        );
        assert_eq!(parse("a IN (1, 2)"), Ok(Predicate::In(column(&["a"]), vec![number("1"), number("2")])));
        assert_eq!(
            parse("NOT (a BETWEEN 1 AND 2)"),
            Ok(Predicate::And(vec![
                Predicate::Compare(column(&["a"]), GreaterOrEqual, number("1")),
                Predicate::Compare(column(&["a"]), LessOrEqual, number("2")),
            ])
            .not())
        );
        assert_eq!(parse("a LIKE 'x%'"), Ok(Predicate::StartsWith(column(&["a"]), "x".to_owned())));
        assert_eq!(parse("a LIKE 'x'"), Ok(Predicate::Compare(column(&["a"]), Equal, text("x"))));
        let Ok(Predicate::And(parts)) = parse("a LIKE 'x_%'") else { panic!() };
        assert_eq!(parts[0], Predicate::StartsWith(column(&["a"]), "x".to_owned()));
        assert!(matches!(parts[1], Predicate::Unsupported(_)));
        assert_eq!(parse("a <=> NULL"), Ok(Predicate::IsNull(column(&["a"]))));
        let Ok(Predicate::And(parts)) = parse("a = 1 AND b = 2 AND (c = 3 OR c = 4)") else { panic!() };
        assert_eq!(parts.len(), 3);
        assert!(matches!(&parts[2], Predicate::Or(children) if children.len() == 2));
    }

    #[test]
    fn what_is_not_understood_is_an_error_or_unsupported_in_its_place() {
        for sql in
            ["", "string", "a =", "a = 1; b", "a = 'x\\' OR b = 'y'", "SELECT 1", "a = 1 b", "((", "a = 'x"]
        {
            assert!(
                !matches!(parse(sql), Ok(Predicate::Compare(..) | Predicate::And(_) | Predicate::Or(_))),
                "{sql}"
            );
        }
        let Ok(Predicate::And(parts)) = parse("f(a) = 1 AND b = 2") else { panic!() };
        assert_eq!(parts[0], Predicate::Unsupported("f(a) is not supported".to_owned()));
        assert!(matches!(parts[1], Predicate::Compare(..)));
    }

    #[test]
    fn reasons_do_not_have_the_values_of_a_request() {
        for sql in [
            "f('secret', 4711) + 4711",
            "x || 'secret'",
            "'secret' secret",
            "a ~ 'secret'",
            "a LIKE 'secret_'",
            "'secret",
        ] {
            let reason = match parse(sql) {
                Err(reason) | Ok(Predicate::Unsupported(reason)) => reason,
                Ok(Predicate::And(parts)) => parts[1].to_string(),
                other => panic!("{other:?}"),
            };
            assert!(!reason.contains("secret") && !reason.contains("4711"), "{reason}");
        }
    }

    #[test]
    fn neither_depth_nor_length_exhausts_the_stack() {
        let chained = |count: usize| vec!["a = 1"; count].join(" AND ");
        assert!(matches!(parse(&chained(700)), Ok(Predicate::And(parts)) if parts.len() == 700));
        for sql in [
            chained(200_000),
            format!("{}a{}", "(".repeat(100_000), ")".repeat(100_000)),
            "NOT ".repeat(100_000),
            "- ".repeat(100_000),
            format!("a{}", " IS NULL".repeat(100_000)),
            format!("a{}", "::int".repeat(100_000)),
            vec!["a"; 100_000].join("."),
        ] {
            assert!(matches!(parse(&sql), Err(_) | Ok(Predicate::Unsupported(_))));
        }
        let values = vec!["1"; 100_000].join(", ");
        assert!(
            matches!(parse(&format!("a IN ({values})")), Ok(Predicate::In(_, list)) if list.len() == 100_000)
        );
    }
}
