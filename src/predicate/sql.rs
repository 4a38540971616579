//! "SQL Expressions for Filtering", and what clients send beyond them.
//!
//! The tokens are those of `sqlparser`. Its parser is not used, because what recipients send must be parsed in bounded time
//! and stack, and it takes exponential time for some nested expressions and recurses without a limit for some types. What
//! is evaluated is a small part of SQL anyway.

use sqlparser::dialect::GenericDialect;
use sqlparser::tokenizer::{Token, Tokenizer, Word};

use super::{Comparison, Literal, Operand, Predicate, Term, ValueType};

/// The most levels of parentheses.
const DEEPEST: usize = 100;

/// Words that are no names, unless they are quoted. An expression with another one of them than those that are parsed is
/// not understood.
const RESERVED: [&str; 31] = [
    "ALL", "AND", "ANY", "ARRAY", "AS", "BETWEEN", "CASE", "CAST", "COLLATE", "DISTINCT", "ELSE", "END",
    "ESCAPE", "EXISTS", "FROM", "ILIKE", "IN", "INTERVAL", "IS", "LIKE", "NOT", "OR", "RLIKE", "SELECT",
    "SIMILAR", "SOME", "STRUCT", "THEN", "UNKNOWN", "WHEN", "WHERE",
];

type Parsed<T> = Result<T, String>;

/// Parses an expression. The error says what is wrong with the whole; a part in parentheses or a call of a function that is
/// not understood is [`Predicate::Unsupported`] in its place.
pub(super) fn parse(text: &str) -> Parsed<Predicate> {
    // Spark takes it for an escape, standard SQL for a character of the text.
    if text.contains('\\') {
        return Err("a backslash means different things in different dialects of SQL".to_owned());
    }
    // So do comments: where they end, and whether some are read.
    if text.contains("--") || text.contains("/*") {
        return Err("comments are not supported".to_owned());
    }
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize().map_err(|_| not_sql())?;
    let tokens: Vec<Token> =
        tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect();
    let mut parser = Parser { tokens: &tokens, at: 0, depth: 0 };
    let found = parser.disjunction()?;
    if parser.at < tokens.len() { Err(not_sql()) } else { found.into_condition() }
}

/// The sentences of this file are for the log too, where the values of a request do not belong.
fn not_sql() -> String {
    "the text is not an expression of SQL that this server evaluates".to_owned()
}

/// What a part of an expression is.
enum Part {
    Condition(Predicate),
    Value(Operand),
    /// A value that is not evaluated, with the reason.
    Opaque(String),
}

impl Part {
    fn into_condition(self) -> Parsed<Predicate> {
        Ok(match self {
            Self::Condition(predicate) => predicate,
            Self::Opaque(reason) => Predicate::Unsupported(reason),
            // A boolean column.
            Self::Value(operand @ Operand { term: Term::Column(_), cast: None }) => {
                let yes = Operand { term: Term::Literal(Literal::Boolean(true)), cast: None };
                Predicate::Compare(operand, Comparison::Equal, yes)
            }
            Self::Value(_) => Predicate::Unsupported("a value is no condition".to_owned()),
        })
    }

    fn into_operand(self) -> Parsed<Operand> {
        match self {
            Self::Value(operand) => Ok(operand),
            Self::Opaque(reason) => Err(reason),
            Self::Condition(_) => Err("a condition in place of a value is not supported".to_owned()),
        }
    }
}

/// A condition, or the reason why it is not evaluated.
fn part(condition: Parsed<Predicate>) -> Part {
    Part::Condition(condition.unwrap_or_else(Predicate::Unsupported))
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn takes(&mut self, token: &Token) -> bool {
        let is = self.peek() == Some(token);
        self.at += usize::from(is);
        is
    }

    fn takes_word(&mut self, keyword: &str) -> bool {
        let is = matches!(self.peek(), Some(Token::Word(word)) if is_keyword(word, keyword));
        self.at += usize::from(is);
        is
    }

    fn needs(&mut self, token: &Token) -> Parsed<()> {
        if self.takes(token) { Ok(()) } else { Err(not_sql()) }
    }

    fn disjunction(&mut self) -> Parsed<Part> {
        self.chain("OR", Self::conjunction, Predicate::Or)
    }

    fn conjunction(&mut self) -> Parsed<Part> {
        self.chain("AND", Self::negation, Predicate::And)
    }

    fn chain(
        &mut self,
        keyword: &str,
        operand: fn(&mut Self) -> Parsed<Part>,
        join: fn(Vec<Predicate>) -> Predicate,
    ) -> Parsed<Part> {
        let first = operand(self)?;
        if !self.takes_word(keyword) {
            return Ok(first);
        }
        let mut all = vec![first.into_condition()?];
        loop {
            all.push(operand(self)?.into_condition()?);
            if !self.takes_word(keyword) {
                return Ok(Part::Condition(join(all)));
            }
        }
    }

    fn negation(&mut self) -> Parsed<Part> {
        let mut times = 0_usize;
        while self.takes_word("NOT") {
            times += 1;
        }
        let found = self.comparison()?;
        if times == 0 {
            return Ok(found);
        }
        let predicate = found.into_condition()?;
        Ok(Part::Condition(if times.is_multiple_of(2) { predicate } else { predicate.not() }))
    }

    fn comparison(&mut self) -> Parsed<Part> {
        let left = self.value()?;
        if self.takes_word("IS") {
            let negated = self.takes_word("NOT");
            if !self.takes_word("NULL") {
                return Err(not_sql());
            }
            let is_null = left.into_operand().map(Predicate::IsNull);
            return Ok(part(is_null.map(|predicate| negate(predicate, negated))));
        }
        let negated = self.takes_word("NOT");
        if self.takes_word("IN") {
            let list = self.list()?;
            let found = left.into_operand().and_then(|left| Ok(Predicate::In(left, list?)));
            return Ok(part(found.map(|predicate| negate(predicate, negated))));
        }
        if self.takes_word("BETWEEN") {
            let low = self.value()?;
            if !self.takes_word("AND") {
                return Err(not_sql());
            }
            let high = self.value()?;
            let found = between(left, low, high);
            return Ok(part(found.map(|predicate| negate(predicate, negated))));
        }
        if self.takes_word("LIKE") {
            let pattern = self.value()?;
            return Ok(part(like(left, pattern).map(|predicate| negate(predicate, negated))));
        }
        if negated {
            return Err(not_sql());
        }
        let Some(operator) = self.peek().and_then(Operator::of) else { return Ok(left) };
        self.at += 1;
        let right = self.value()?;
        let found = left.into_operand().and_then(|left| Ok(operator.apply(left, right.into_operand()?)));
        Ok(part(found))
    }

    /// A value, of which arithmetic is not evaluated.
    fn value(&mut self) -> Parsed<Part> {
        let first = self.cast_value()?;
        let mut is_arithmetic = false;
        while self.peek().is_some_and(is_arithmetic_operator) {
            self.at += 1;
            self.cast_value()?;
            is_arithmetic = true;
        }
        Ok(if is_arithmetic { Part::Opaque("arithmetic is not supported".to_owned()) } else { first })
    }

    /// A value with `::` behind it.
    fn cast_value(&mut self) -> Parsed<Part> {
        let mut found = self.single_value()?;
        while self.takes(&Token::DoubleColon) {
            let Some(Token::Word(word)) = self.peek() else { return Err(not_sql()) };
            let data_type = value_type(&word.value);
            self.at += 1;
            found = cast(found, data_type);
        }
        Ok(found)
    }

    fn single_value(&mut self) -> Parsed<Part> {
        let mut negative = false;
        while self.peek() == Some(&Token::Minus) {
            self.at += 1;
            negative = !negative;
        }
        let Some(token) = self.peek().cloned() else { return Err(not_sql()) };
        self.at += 1;
        let found = match token {
            Token::Number(text, _) => {
                let text = if negative { format!("-{text}") } else { text };
                return Ok(literal(Literal::Number(text)));
            }
            Token::SingleQuotedString(text) => text_literal(text, Literal::Text),
            Token::LParen => self.parenthesis()?,
            Token::Word(word) => self.word(&word)?,
            _ => return Err(not_sql()),
        };
        Ok(if negative { Part::Opaque("arithmetic is not supported".to_owned()) } else { found })
    }

    /// What is in parentheses, the first of which was read. What is not understood there is passed over.
    fn parenthesis(&mut self) -> Parsed<Part> {
        let begin = self.at;
        let mut inner = Err(format!("the expression has more than {DEEPEST} levels"));
        if self.depth < DEEPEST {
            self.depth += 1;
            inner = self.disjunction().and_then(|found| self.needs(&Token::RParen).map(|()| found));
            self.depth -= 1;
        }
        inner.or_else(|reason| {
            self.at = begin;
            self.pass_over()?;
            Ok(Part::Opaque(reason))
        })
    }

    /// Passes over everything up to the parenthesis that closes the one that was read.
    fn pass_over(&mut self) -> Parsed<()> {
        let mut open = 1_usize;
        while open > 0 {
            match self.peek() {
                Some(Token::LParen) => open += 1,
                Some(Token::RParen) => open -= 1,
                Some(_) => {}
                None => return Err(not_sql()),
            }
            self.at += 1;
        }
        Ok(())
    }

    /// What a word begins: a literal, a cast, a call of a function or the name of a column.
    fn word(&mut self, word: &Word) -> Parsed<Part> {
        let is = |keyword| is_keyword(word, keyword);
        if is("NULL") {
            return Ok(literal(Literal::Null));
        }
        if is("TRUE") || is("FALSE") {
            return Ok(literal(Literal::Boolean(is("TRUE"))));
        }
        if (is("DATE") || is("TIMESTAMP"))
            && let Some(Token::SingleQuotedString(text)) = self.peek().cloned()
        {
            self.at += 1;
            return Ok(text_literal(text, if is("DATE") { Literal::Date } else { Literal::Timestamp }));
        }
        if self.takes(&Token::LParen) {
            return if is("CAST") { self.cast() } else { self.call() };
        }
        if word.quote_style.is_none() && RESERVED.iter().any(|reserved| is(reserved)) {
            return Err(not_sql());
        }
        let mut parts = vec![word.value.clone()];
        while self.takes(&Token::Period) {
            let Some(Token::Word(part)) = self.peek().cloned() else { return Err(not_sql()) };
            self.at += 1;
            if self.takes(&Token::LParen) {
                return self.call();
            }
            parts.push(part.value);
        }
        Ok(Part::Value(Operand { term: Term::Column(parts), cast: None }))
    }

    /// A call of a function, whose arguments are passed over.
    fn call(&mut self) -> Parsed<Part> {
        self.pass_over()?;
        Ok(Part::Opaque("a function is not supported".to_owned()))
    }

    /// `CAST(value AS type)`, whose first parenthesis was read.
    fn cast(&mut self) -> Parsed<Part> {
        let begin = self.at;
        let parsed = self.cast_in_parentheses();
        parsed.or_else(|reason| {
            self.at = begin;
            self.pass_over()?;
            Ok(Part::Opaque(reason))
        })
    }

    fn cast_in_parentheses(&mut self) -> Parsed<Part> {
        // Levels of casts are levels of parentheses.
        if self.depth >= DEEPEST {
            return Err(format!("the expression has more than {DEEPEST} levels"));
        }
        self.depth += 1;
        let found = self.value();
        self.depth -= 1;
        let found = found?;
        if !self.takes_word("AS") {
            return Err(not_sql());
        }
        let Some(Token::Word(word)) = self.peek() else { return Err(not_sql()) };
        let data_type = value_type(&word.value);
        self.at += 1;
        self.needs(&Token::RParen).map_err(|_| "a cast to another type is not supported".to_owned())?;
        Ok(cast(found, data_type))
    }

    /// The values of `IN`. The inner error is one of the values, the outer one of the whole.
    fn list(&mut self) -> Parsed<Parsed<Vec<Operand>>> {
        self.needs(&Token::LParen)?;
        let begin = self.at;
        let mut values = Vec::new();
        loop {
            match self.value().and_then(Part::into_operand) {
                Ok(value) => values.push(value),
                Err(reason) => {
                    self.at = begin;
                    self.pass_over()?;
                    return Ok(Err(reason));
                }
            }
            if self.takes(&Token::RParen) {
                return Ok(Ok(values));
            }
            if !self.takes(&Token::Comma) {
                self.at = begin;
                self.pass_over()?;
                return Ok(Err(not_sql()));
            }
        }
    }
}

/// Whether a word is this keyword, and not a name in quotation marks.
pub(super) fn is_keyword(word: &Word, keyword: &str) -> bool {
    word.quote_style.is_none() && word.value.eq_ignore_ascii_case(keyword)
}

fn is_arithmetic_operator(token: &Token) -> bool {
    matches!(
        token,
        Token::Plus
            | Token::Minus
            | Token::Mul
            | Token::Div
            | Token::Mod
            | Token::StringConcat
            | Token::Ampersand
            | Token::Pipe
            | Token::Caret
    )
}

fn literal(literal: Literal) -> Part {
    Part::Value(Operand { term: Term::Literal(literal), cast: None })
}

/// A literal of a text, unless it has a quotation mark in it: two of them are one for standard SQL, and for some versions of
/// Spark the end of one text and the beginning of another.
fn text_literal(text: String, of: fn(String) -> Literal) -> Part {
    if text.contains('\'') {
        return Part::Opaque(
            "a quotation mark in a text means different things in different dialects of SQL".to_owned(),
        );
    }
    literal(of(text))
}

fn cast(value: Part, data_type: Option<ValueType>) -> Part {
    let not_supported = || Part::Opaque("a cast to another type is not supported".to_owned());
    match (value, data_type) {
        (
            Part::Value(Operand { term: Term::Literal(Literal::Text(text)), cast: None }),
            Some(ValueType::Date),
        ) => literal(Literal::Date(text)),
        (
            Part::Value(Operand { term: Term::Literal(Literal::Text(text)), cast: None }),
            Some(ValueType::Timestamp),
        ) => literal(Literal::Timestamp(text)),
        (Part::Value(Operand { term, cast: None }), Some(data_type)) => {
            Part::Value(Operand { term, cast: Some(data_type) })
        }
        (Part::Opaque(reason), _) => Part::Opaque(reason),
        (Part::Value(_) | Part::Condition(_), _) => not_supported(),
    }
}

fn value_type(name: &str) -> Option<ValueType> {
    Some(match name.to_ascii_uppercase().as_str() {
        "BOOLEAN" | "BOOL" => ValueType::Boolean,
        "INT" | "INTEGER" => ValueType::Int,
        "BIGINT" | "LONG" => ValueType::Long,
        "STRING" | "TEXT" => ValueType::Text,
        "DATE" => ValueType::Date,
        "DOUBLE" => ValueType::Double,
        "TIMESTAMP" => ValueType::Timestamp,
        _ => return None,
    })
}

fn negate(predicate: Predicate, negated: bool) -> Predicate {
    if negated { predicate.not() } else { predicate }
}

/// An operator of comparisons.
enum Operator {
    Compare(Comparison),
    NotEqual,
    NullSafeEqual,
}

impl Operator {
    fn of(token: &Token) -> Option<Self> {
        Some(match token {
            Token::Eq | Token::DoubleEq => Self::Compare(Comparison::Equal),
            Token::Lt => Self::Compare(Comparison::Less),
            Token::LtEq => Self::Compare(Comparison::LessOrEqual),
            Token::Gt => Self::Compare(Comparison::Greater),
            Token::GtEq => Self::Compare(Comparison::GreaterOrEqual),
            Token::Neq => Self::NotEqual,
            Token::Spaceship => Self::NullSafeEqual,
            _ => return None,
        })
    }

    fn apply(self, left: Operand, right: Operand) -> Predicate {
        match self {
            Self::Compare(comparison) => Predicate::Compare(left, comparison, right),
            Self::NotEqual => Predicate::Compare(left, Comparison::Equal, right).not(),
            Self::NullSafeEqual => Predicate::NullSafeEqual(left, right),
        }
    }
}

fn between(value: Part, low: Part, high: Part) -> Parsed<Predicate> {
    let (value, low, high) = (value.into_operand()?, low.into_operand()?, high.into_operand()?);
    Ok(Predicate::And(vec![
        Predicate::Compare(value.clone(), Comparison::GreaterOrEqual, low),
        Predicate::Compare(value, Comparison::LessOrEqual, high),
    ]))
}

/// `LIKE`, of which the text before the first wildcard is used.
fn like(value: Part, pattern: Part) -> Parsed<Predicate> {
    let (value, pattern) = (value.into_operand()?, pattern.into_operand()?);
    let Operand { term: Term::Literal(Literal::Text(pattern)), cast: None } = pattern else {
        return Err("the pattern of LIKE is not a text".to_owned());
    };
    let (prefix, rest) = pattern.split_at(pattern.find(['%', '_']).unwrap_or(pattern.len()));
    let like = |rest| Predicate::Like { operand: value.clone(), prefix: prefix.to_owned(), rest };
    Ok(match rest {
        "" => like(false),
        "%" => like(true),
        _ => {
            let not_used = "of LIKE, only the text before the first wildcard is used".to_owned();
            Predicate::And(vec![like(true), Predicate::Unsupported(not_used)])
        }
    })
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

    fn is_unsupported(parsed: &Parsed<Predicate>) -> bool {
        matches!(parsed, Err(_) | Ok(Predicate::Unsupported(_)))
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
            ("((col)) == ((1))", column(&["col"]), Equal, number("1")),
            ("flag", column(&["flag"]), Equal, literal(Literal::Boolean(true))),
        ] {
            assert_eq!(parse(sql), Ok(Predicate::Compare(left, comparison, right)), "{sql}");
        }
        for sql in ["col <> 'foo'", "col != 'foo'", "NOT col = 'foo'", "NOT NOT NOT (col = 'foo')"] {
            assert_eq!(
                parse(sql),
                Ok(Predicate::Compare(column(&["col"]), Equal, text("foo")).not()),
                "{sql}"
            );
        }
        assert_eq!(parse("col IS NULL"), Ok(Predicate::IsNull(column(&["col"]))));
        assert_eq!(parse("col is not null"), Ok(Predicate::IsNull(column(&["col"])).not()));
    }

    #[test]
    fn what_clients_send_beyond_the_protocol_is_read() {
        use Comparison::*;
        let date = |text: &str| literal(Literal::Date(text.to_owned()));
        let cast = Operand { cast: Some(ValueType::Date), ..column(&["partitionValues", "date"]) };
        for sql in [
            "(CAST(partitionValues.date AS DATE) = DATE '2021-04-28')",
            "partitionValues.`date`::date = cast('2021-04-28' as date)",
        ] {
            assert_eq!(parse(sql), Ok(Predicate::Compare(cast.clone(), Equal, date("2021-04-28"))), "{sql}");
        }
        assert_eq!(parse("a IN (1, 2)"), Ok(Predicate::In(column(&["a"]), vec![number("1"), number("2")])));
        let between = Predicate::And(vec![
            Predicate::Compare(column(&["a"]), GreaterOrEqual, number("1")),
            Predicate::Compare(column(&["a"]), LessOrEqual, number("2")),
        ]);
        for sql in ["NOT (a BETWEEN 1 AND 2)", "a NOT BETWEEN 1 AND 2", "NOT a BETWEEN 1 AND 2"] {
            assert_eq!(parse(sql), Ok(between.clone().not()), "{sql}");
        }
        let like =
            |prefix: &str, rest| Predicate::Like { operand: column(&["a"]), prefix: prefix.to_owned(), rest };
        assert_eq!(parse("a LIKE 'x%'"), Ok(like("x", true)));
        assert_eq!(parse("a NOT LIKE 'x'"), Ok(like("x", false).not()));
        let Ok(Predicate::And(parts)) = parse("a LIKE 'x_%'") else { panic!() };
        assert_eq!(parts[0], like("x", true));
        assert!(matches!(parts[1], Predicate::Unsupported(_)));
        assert_eq!(parse("a <=> 1"), Ok(Predicate::NullSafeEqual(column(&["a"]), number("1"))));
        let Ok(Predicate::Or(parts)) = parse("a = 1 AND b = 2 OR c BETWEEN 3 AND 4 AND (d = 3 OR d = 4)")
        else {
            panic!()
        };
        assert!(
            matches!(&parts[..], [Predicate::And(left), Predicate::And(right)] if left.len() == 2 && right.len() == 2)
        );
    }

    #[test]
    fn a_part_that_is_delimited_and_not_understood_is_unsupported_in_its_place() {
        for sql in [
            "f(a, (b AND c), CASE WHEN x THEN y END) = 1 AND b = 2",
            "a + 1 = 2 AND b = 2",
            "(CASE WHEN a = 1 AND c = 2 THEN d ELSE e END) = 1 AND b = 2",
            "a IN (SELECT x FROM y WHERE z = 1 AND w = 2) AND b = 2",
            "CAST(a AS DECIMAL(10, 2)) = 1 AND b = 2",
            "a BETWEEN f(1) AND 2 AND b = 2",
            "a = 'it''s' AND b = 2",
            "s.f(x) AND b = 2",
        ] {
            let Ok(Predicate::And(parts)) = parse(sql) else { panic!("{sql}: {:?}", parse(sql)) };
            assert!(
                matches!(&parts[..], [Predicate::Unsupported(_), Predicate::Compare(..)]),
                "{sql}: {parts:?}"
            );
        }
    }

    #[test]
    fn nothing_is_taken_from_the_middle_of_what_is_not_understood() {
        for sql in [
            "",
            "a =",
            "a = 1; b",
            "a = 5 /*! AND b = 2 */",
            "a = 5 -- x\r OR a = 9",
            "a = 5--1",
            "a = 'x\\' OR b = 'y'",
            "SELECT 1",
            "a = 1 b",
            "((",
            "a = 'x",
            "a = 1)",
            "CASE WHEN x AND b = 2 AND c THEN d END = 1",
            "b = 2 AND CASE WHEN x AND b = 2 AND c THEN d END = 1",
            "b = 2 AND x COLLATE y = 'a'",
            "b = 2 AND a BETWEEN 1",
            "b = 2 AND a LIKE 'x' ESCAPE 'y'",
            "b = 2 AND d = DATE '2024-01-01' + INTERVAL 1 DAY",
            "b = 2 AND a IS TRUE",
            "b = 2 AND a = 1 = 1",
            "b = 2 AND a[1] = 1",
            "b = 2 AND EXISTS",
            "1.5D = a AND b = 2",
        ] {
            assert!(is_unsupported(&parse(sql)), "{sql}: {:?}", parse(sql));
        }
    }

    #[test]
    fn reasons_do_not_have_the_values_of_a_request() {
        for sql in [
            "f('secret', 4711) + 4711",
            "secret(4711) = 1",
            "x || 'secret' = 4711",
            "'secret' secret",
            "a ~ 'secret'",
            "a LIKE 'secret_'",
            "'secret",
            "\"secret\"(1) = 4711",
            "n COLLATE secret",
            "a = :secret",
            "CAST(a AS secret) = 4711",
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
    fn any_text_is_parsed_in_little_time_and_stack() {
        let chained = |count: usize| vec!["a = 1"; count].join(" AND ");
        assert!(matches!(parse(&chained(100_000)), Ok(Predicate::And(parts)) if parts.len() == 100_000));
        let mut texts = vec![
            "NOT ".repeat(100_000),
            "- ".repeat(100_000),
            format!("a{}", " IS NULL".repeat(100_000)),
            format!("a{}", "::int".repeat(100_000)),
            vec!["a"; 100_000].join("."),
            vec!["a"; 100_000].join(" = "),
            vec!["a"; 100_000].join(" + "),
        ];
        for word in [
            "(",
            "f(",
            "CAST(",
            "POSITION(",
            "OVERLAY(",
            "ARRAY[",
            "SUBSTRING(",
            "CEIL(",
            "CONVERT(",
            "NULLABLE(",
            "TUPLE(",
            "STRUCT<a ",
            "INTERVAL ",
            "(SELECT 1 FROM (",
            "NOT (",
            "a IN (",
            "CASE WHEN ",
            "a BETWEEN ",
            "{d ",
            "[",
        ] {
            for times in [17, 99, 10_000] {
                let open = word.repeat(times);
                texts.push(open.clone());
                texts.push(format!("{open}n{}", ")".repeat(open.matches('(').count())));
                texts.push(format!("{open}n{} = 1 AND b = 2", ")".repeat(open.matches('(').count())));
            }
        }
        for text in texts {
            _ = parse(&text);
        }
        let values = vec!["1"; 100_000].join(", ");
        assert!(
            matches!(parse(&format!("a IN ({values})")), Ok(Predicate::In(_, list)) if list.len() == 100_000)
        );
    }
}
