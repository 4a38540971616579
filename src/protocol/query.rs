//! What a request asks of a table: "Query Table Version", "Query Table Metadata", "Read Data from a Table".

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::protocol::timestamp::parse_timestamp;

/// Which version of the table a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AsOf {
    /// The newest one.
    Latest,
    /// This one.
    Version(u64),
    /// The newest one that is not younger than `millis`.
    Timestamp {
        /// Milliseconds since the epoch.
        millis: i64,
        /// The timestamp as the client wrote it.
        text: String,
    },
}

impl AsOf {
    /// Whether the request names a version, which only tables that share their history allow.
    pub fn is_historical(&self) -> bool {
        *self != Self::Latest
    }
}

/// The parameters of "Query Table Metadata".
pub fn parse_metadata_parameters(parameters: &[(String, String)]) -> Result<AsOf> {
    let get = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let version = get("version").filter(|text| !text.is_empty());
    let timestamp = get("timestamp").filter(|text| !text.is_empty());
    if version.is_some() && timestamp.is_some() {
        return Err(Error::invalid("Please only provide one of: version,timestamp"));
    }
    let version = version
        .map(|text| {
            text.parse::<i64>().map_err(|_| {
                Error::invalid("version: expected a number but the string didn't have the appropriate format")
            })
        })
        .transpose()?;
    as_of(version, timestamp, "version cannot be negative.")
}

fn as_of(version: Option<i64>, timestamp: Option<&str>, negative: &'static str) -> Result<AsOf> {
    match (version, timestamp) {
        (Some(version), _) => u64::try_from(version).map(AsOf::Version).map_err(|_| Error::invalid(negative)),
        (None, Some(text)) => Ok(AsOf::Timestamp { millis: parse_timestamp(text)?, text: text.to_owned() }),
        (None, None) => Ok(AsOf::Latest),
    }
}

/// A validated snapshot query: "Read Data from a Table".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableQuery {
    /// Which version to read.
    pub as_of: AsOf,
    /// Whether the client asked for a refresh token, and so for an `endStreamAction`.
    pub include_refresh_token: bool,
}

impl TableQuery {
    /// Reads the body of the request.
    ///
    /// Lenient where that cannot change the answer: an empty body, `null`, unknown fields, numbers
    /// written as strings, and hints of any shape, since hints only allow the server to send less.
    /// Strict about contradictions and about what selects the rows.
    ///
    /// Errors: 400 `MALFORMED_REQUEST` where the body is no JSON object or a field has the wrong
    /// type, `INVALID_PARAMETER_VALUE` for contradictions, `UNSUPPORTED_OPERATION` for parts of the
    /// protocol that this server does not have.
    pub fn parse(body: &[u8]) -> Result<Self> {
        let fields = Fields(object(body)?);
        let version = fields.integer("version")?;
        let timestamp = fields.string("timestamp")?;
        let starting_version = fields.integer("startingVersion")?;
        let max_files = fields.integer("maxFiles")?;
        let page_token = fields.string("pageToken")?;
        let refresh_token = fields.string("refreshToken")?;
        let include_refresh_token = fields.boolean("includeRefreshToken")?;
        fields.check_hints()?;

        let selectors = [version.is_some(), timestamp.is_some(), starting_version.is_some()];
        let selected = selectors.iter().filter(|&&given| given).count();
        let refuse =
            |wrong: bool, message: &'static str| if wrong { Err(Error::invalid(message)) } else { Ok(()) };
        refuse(selected > 1, "Please only provide one of: version,timestamp,startingVersion")?;
        refuse(version.is_some_and(|v| v < 0), "table version cannot be negative.")?;
        refuse(starting_version.is_some_and(|v| v < 0), "startingVersion cannot be negative.")?;
        refuse(max_files.is_some_and(|n| n <= 0), "maxFiles must be positive.")?;
        refuse(
            selected > 0 && include_refresh_token,
            "includeRefreshToken cannot be used when querying a specific version.",
        )?;
        refuse(
            page_token.is_some() && include_refresh_token,
            "includeRefreshToken must be used in the first page request.",
        )?;
        refuse(
            selected > 0 && refresh_token.is_some(),
            "refreshToken cannot be used when querying a specific version.",
        )?;
        refuse(
            page_token.is_some() && refresh_token.is_some(),
            "refreshToken must be used in the first page request.",
        )?;

        let missing =
            |given: bool, what: &'static str| if given { Err(Error::unsupported(what)) } else { Ok(()) };
        missing(
            starting_version.is_some(),
            "Queries with startingVersion are not supported by this server.",
        )?;
        missing(
            max_files.is_some() || page_token.is_some(),
            "Paging of queries (maxFiles, pageToken) is not supported by this server; ask without it.",
        )?;
        missing(refresh_token.is_some(), "Refresh tokens are not supported by this server; query again.")?;
        let as_of = as_of(version, timestamp, "table version cannot be negative.")?;
        Ok(Self { as_of, include_refresh_token })
    }
}

fn object(body: &[u8]) -> Result<Map<String, Value>> {
    if body.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) => Err(Error::malformed("Expected a JSON object in the body of the request.")),
        Err(error) => Err(Error::malformed(format!(
            "The body of the request is not JSON: line {}, column {}.",
            error.line(),
            error.column()
        ))
        .with_source(error)),
    }
}

/// The fields of a body, with the leniency of protobuf's JSON: numbers may be strings, names may be
/// in snake case, `null` is the same as absent.
struct Fields(Map<String, Value>);

impl Fields {
    fn get(&self, name: &str) -> Option<&Value> {
        let found = self.0.get(name).or_else(|| self.0.get(&snake_case(name)));
        found.filter(|value| !value.is_null())
    }

    fn integer(&self, name: &str) -> Result<Option<i64>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = match value {
            Value::Number(number) => number.as_i64().or_else(|| integral(number.as_f64()?)),
            Value::String(text) if text.trim().is_empty() => return Ok(None),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        number.map(Some).ok_or_else(|| Error::malformed(format!("Not a numeric value: {name}")))
    }

    fn string(&self, name: &str) -> Result<Option<&str>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Error::malformed(format!("Expected a string for {name}"))),
        }
    }

    fn boolean(&self, name: &str) -> Result<bool> {
        match self.get(name) {
            None => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(Value::String(text)) if text.is_empty() || text.eq_ignore_ascii_case("false") => Ok(false),
            Some(_) => Err(Error::malformed(format!("Expected true or false for {name}"))),
        }
    }

    /// Hints are not used yet. `predicateHints` must be an array, as it must be at the reference
    /// server; `jsonPredicateHints` may be a string or an object; `limitHint` may be anything.
    fn check_hints(&self) -> Result<()> {
        match self.get("predicateHints") {
            None | Some(Value::Array(_)) => Ok(()),
            Some(_) => Err(Error::malformed(
                "Expected an array for repeated field predicateHints of QueryTableRequest",
            )),
        }
    }
}

fn integral(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() < 9.0e15).then_some(number as i64)
}

fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for character in name.chars() {
        if character.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(character.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    fn latest(include_refresh_token: bool) -> TableQuery {
        TableQuery { as_of: AsOf::Latest, include_refresh_token }
    }

    #[test]
    fn bodies_that_clients_send() {
        for body in [
            "",
            "  \n",
            "null",
            "{}",
            r#"{"params":{"x":1}}"#,
            r#"{"predicateHints":[""],"limitHint":0}"#,
            r#"{"predicateHints":["string"],"limitHint":"-5","responseFormat":"delta"}"#,
            r#"{"predicateHints":null,"version":null,"timestamp":null,"jsonPredicateHints":{"op":"equal"}}"#,
            r#"{"jsonPredicateHints":"not json","limitHint":99999999999}"#,
            r#"{"version":"","timestamp":""}"#,
            r#"{"idempotency_key":"x","idempotencyKey":"x","endingVersion":3}"#,
        ] {
            assert_eq!(TableQuery::parse(body.as_bytes()).unwrap(), latest(false), "{body}");
        }
        let spark = br#"{"predicateHints":[],"includeRefreshToken":true}"#;
        assert_eq!(TableQuery::parse(spark).unwrap(), latest(true));
        for body in [r#"{"version":3}"#, r#"{"version":"3"}"#, r#"{"version":3.0}"#] {
            assert_eq!(TableQuery::parse(body.as_bytes()).unwrap().as_of, AsOf::Version(3), "{body}");
        }
        let at = TableQuery::parse(br#"{"timestamp":"2022-01-01T00:00:00Z"}"#).unwrap().as_of;
        assert!(matches!(at, AsOf::Timestamp { millis: 1_640_995_200_000, .. }));
    }

    #[test]
    fn what_cannot_be_read_is_malformed() {
        for body in [
            "[]",
            "7",
            "{",
            "{\"a\":1e400}",
            "\u{feff}{}",
            r#"{"version":"x3"}"#,
            r#"{"version":1.5}"#,
            r#"{"version":9223372036854775808}"#,
            r#"{"version":true}"#,
            r#"{"timestamp":5}"#,
            r#"{"predicateHints":"date > 1"}"#,
            r#"{"includeRefreshToken":"maybe"}"#,
        ] {
            let error = TableQuery::parse(body.as_bytes()).unwrap_err();
            assert_eq!(error.code(), ErrorCode::MalformedRequest, "{body}");
        }
        assert!(TableQuery::parse(b"{\"a\":\"\xff\"}").is_err());
        let deep = format!("{{\"predicateHints\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(TableQuery::parse(deep.as_bytes()).unwrap_err().code(), ErrorCode::MalformedRequest);
    }

    #[test]
    fn contradictions_are_refused_in_the_words_clients_match() {
        for (body, message) in [
            (
                r#"{"version":1,"timestamp":"x"}"#,
                "Please only provide one of: version,timestamp,startingVersion",
            ),
            (r#"{"version":-1}"#, "table version cannot be negative."),
            (r#"{"startingVersion":-1}"#, "startingVersion cannot be negative."),
            (r#"{"maxFiles":0}"#, "maxFiles must be positive."),
            (
                r#"{"version":1,"includeRefreshToken":true}"#,
                "includeRefreshToken cannot be used when querying a specific version.",
            ),
            (
                r#"{"pageToken":"t","includeRefreshToken":true}"#,
                "includeRefreshToken must be used in the first page request.",
            ),
            (
                r#"{"version":1,"refreshToken":"t"}"#,
                "refreshToken cannot be used when querying a specific version.",
            ),
            (
                r#"{"pageToken":"t","refreshToken":"t"}"#,
                "refreshToken must be used in the first page request.",
            ),
        ] {
            let error = TableQuery::parse(body.as_bytes()).unwrap_err();
            assert_eq!(
                (error.code(), error.message()),
                (ErrorCode::InvalidParameterValue, message),
                "{body}"
            );
        }
    }

    #[test]
    fn what_is_not_there_yet_says_so() {
        for body in [
            r#"{"startingVersion":1}"#,
            r#"{"maxFiles":10}"#,
            r#"{"pageToken":"t"}"#,
            r#"{"refreshToken":"t"}"#,
        ] {
            let error = TableQuery::parse(body.as_bytes()).unwrap_err();
            assert_eq!(error.code(), ErrorCode::UnsupportedOperation, "{body}");
        }
    }

    #[test]
    fn metadata_parameters() {
        let parse = |parameters: &[(&str, &str)]| {
            let owned: Vec<_> = parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            parse_metadata_parameters(&owned)
        };
        assert_eq!(parse(&[]).unwrap(), AsOf::Latest);
        assert_eq!(parse(&[("version", "2")]).unwrap(), AsOf::Version(2));
        assert_eq!(parse(&[("version", "-2")]).unwrap_err().message(), "version cannot be negative.");
        assert!(parse(&[("version", "x")]).is_err());
        let both = parse(&[("version", "2"), ("timestamp", "2022-01-01T00:00:00Z")]).unwrap_err();
        assert_eq!(both.message(), "Please only provide one of: version,timestamp");
    }
}
