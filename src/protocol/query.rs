//! What a request asks of a table: "Query Table Version", "Query Table Metadata", "Read Data from a Table".

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::protocol::digest::short_digest;
use crate::protocol::parameters::{QueryParameters, shown, whole_number};
use crate::protocol::timestamp::{parse_start, parse_timestamp};

/// Which version of the table a request is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AsOf {
    /// The newest one.
    Latest,
    /// This one.
    Version(u64),
    /// The newest one at this time or before.
    Timestamp {
        /// The timestamp as the client wrote it. It is parsed only after the check that the table's history is
        /// shared, so that without shared history the answer is the same whatever the client wrote.
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
    let parameters = QueryParameters(parameters);
    let version = parameters.number("version")?;
    let timestamp = parameters.text("timestamp");
    if version.is_some() && timestamp.is_some() {
        return Err(Error::invalid("Please only provide one of: version,timestamp"));
    }
    as_of(version, timestamp, "version cannot be negative.")
}

fn as_of(version: Option<i64>, timestamp: Option<&str>, negative: &'static str) -> Result<AsOf> {
    match (version, timestamp) {
        (Some(version), _) => u64::try_from(version).map(AsOf::Version).map_err(|_| Error::invalid(negative)),
        (None, Some(text)) => Ok(AsOf::Timestamp { text: text.to_owned() }),
        (None, None) => Ok(AsOf::Latest),
    }
}

/// Which part of an answer is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paging {
    /// The most files in a page; never 0. A first page without it is the whole answer.
    pub max_files: Option<u64>,
    /// The `nextPageToken` of the page before.
    pub page_token: Option<String>,
}

impl Paging {
    /// Whether the client takes the answer in pages.
    pub fn is_asked_for(&self) -> bool {
        *self != Self::default()
    }

    fn new(max_files: Option<i64>, page_token: Option<&str>) -> Result<Self> {
        let max_files = match max_files {
            Some(number) if number <= 0 => return Err(Error::invalid("maxFiles must be positive.")),
            number => number.map(i64::unsigned_abs),
        };
        Ok(Self { max_files, page_token: page_token.map(str::to_owned) })
    }
}

/// Tells requests apart by what selects their answer. Pages of one answer have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint(u64);

impl Fingerprint {
    fn of(selecting: &impl Serialize) -> Result<Self> {
        serde_json::to_vec(selecting).map(|text| Self(short_digest(&text))).map_err(Error::internal)
    }
}

/// A validated request: "Read Data from a Table".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryRequest {
    /// What is asked.
    pub query: TableQuery,
    /// Which part of the answer.
    pub paging: Paging,
    /// Tells the query apart from others.
    pub fingerprint: Fingerprint,
    /// What a client sends again when it submits an asynchronous query again.
    pub idempotency_key: Option<String>,
}

/// A validated query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TableQuery {
    /// The files of one version.
    Snapshot(SnapshotQuery),
    /// What changed since a version.
    Since(SinceQuery),
}

/// A query for the files of one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotQuery {
    /// Which version to read.
    pub as_of: AsOf,
    /// Whether the client asked for a refresh token, and so for an `endStreamAction`.
    pub include_refresh_token: bool,
    /// The refresh token of an earlier answer, whose version is asked for again.
    pub refresh_token: Option<String>,
    /// What the client will not read.
    #[serde(default, skip_serializing_if = "Hints::is_empty")]
    pub hints: Hints,
}

/// A query for what changed since a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinceQuery {
    /// The first version, included.
    pub starting_version: u64,
    /// The last version, included; the newest if absent or later than it.
    pub ending_version: Option<u64>,
    /// Whether changes of the protocol are wanted too, in delta format.
    pub include_historical_protocol: bool,
}

impl SnapshotQuery {
    /// Whether the answer has a refresh token.
    pub fn wants_refresh_token(&self) -> bool {
        self.include_refresh_token || self.refresh_token.is_some()
    }
}

/// What a client will not read of a version: the server may leave it out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hints {
    /// `predicateHints`: expressions of SQL, all of which hold for the rows that are read.
    #[serde(rename = "s", default, skip_serializing_if = "Vec::is_empty")]
    pub sql: Vec<String>,
    /// `jsonPredicateHints`: an expression in JSON that holds for the rows that are read.
    #[serde(rename = "j", default, skip_serializing_if = "Option::is_none")]
    pub json: Option<String>,
    /// `limitHint`: how many rows are read; never 0.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

impl Hints {
    /// Whether nothing can be left out.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How many bytes the predicates have.
    pub fn predicate_bytes(&self) -> usize {
        self.sql.iter().chain(&self.json).map(String::len).sum()
    }
}

impl QueryRequest {
    /// Reads the body of the request.
    ///
    /// Lenient if that cannot change the rows: an empty body, `null`, unknown fields, numbers
    /// written as strings, and hints of any shape, since hints only allow the server to send less.
    /// Strict about contradictions and about what selects the rows.
    ///
    /// Errors: 400 `MALFORMED_REQUEST` if the body is no JSON object or a field has the wrong
    /// type, `INVALID_PARAMETER_VALUE` for contradictions.
    pub fn parse(body: &[u8]) -> Result<Self> {
        let fields = Fields(object(body)?);
        let version = fields.integer("version")?;
        let timestamp = fields.string("timestamp")?;
        let starting_version = fields.integer("startingVersion")?;
        let max_files = fields.integer("maxFiles")?;
        let page_token = fields.string("pageToken")?;
        let refresh_token = fields.string("refreshToken")?;
        let include_refresh_token = fields.boolean("includeRefreshToken")?;
        let ending_version = fields.integer("endingVersion")?;
        let include_historical_protocol = fields.boolean("includeHistoricalProtocol")?;
        let hints = fields.hints()?;

        let selectors = [version.is_some(), timestamp.is_some(), starting_version.is_some()];
        let selected = selectors.iter().filter(|&&given| given).count();
        let refuse =
            |wrong: bool, message: &'static str| if wrong { Err(Error::invalid(message)) } else { Ok(()) };
        refuse(selected > 1, "Please only provide one of: version,timestamp,startingVersion")?;
        refuse(version.is_some_and(|v| v < 0), "table version cannot be negative.")?;
        refuse(starting_version.is_some_and(|v| v < 0), "startingVersion cannot be negative.")?;
        // Without a start, an end means nothing.
        refuse(
            starting_version.is_some() && ending_version.is_some_and(|v| v < 0),
            "endingVersion cannot be negative.",
        )?;
        let paging = Paging::new(max_files, page_token)?;
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

        let query = match starting_version {
            Some(start) => TableQuery::Since(SinceQuery {
                starting_version: start.unsigned_abs(),
                ending_version: ending_version.map(i64::unsigned_abs),
                include_historical_protocol,
            }),
            None => TableQuery::Snapshot(SnapshotQuery {
                as_of: as_of(version, timestamp, "table version cannot be negative.")?,
                include_refresh_token,
                refresh_token: refresh_token.map(str::to_owned),
                hints,
            }),
        };
        const SELECTING: [&str; 8] = [
            "version",
            "timestamp",
            "startingVersion",
            "endingVersion",
            "includeHistoricalProtocol",
            "predicateHints",
            "jsonPredicateHints",
            "limitHint",
        ];
        let fingerprint = Fingerprint::of(&SELECTING.map(|name| fields.get(name)))?;
        let idempotency_key = fields.string("idempotencyKey")?.map(str::to_owned);
        Ok(Self { query, paging, fingerprint, idempotency_key })
    }

    /// Reads the body of a request for the result of an asynchronous query: "Get Query Info".
    pub fn parse_paging(body: &[u8]) -> Result<Paging> {
        let fields = Fields(object(body)?);
        Paging::new(fields.integer("maxFiles")?, fields.string("pageToken")?)
    }
}

/// Refuses a range of versions that ends before it starts, in a query with `startingVersion`.
pub fn check_range(start: u64, end: Option<u64>) -> Result<()> {
    match end {
        Some(end) if start > end => Err(Error::invalid(format!(
            "startingVersion({start}) must be smaller than or equal to endingVersion({end})."
        ))),
        Some(_) | None => Ok(()),
    }
}

/// One end of a range of versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// This version, included.
    Version(u64),
    /// Milliseconds since the epoch: for a start the first version at or after it, for an end the last one
    /// at or before it.
    Timestamp(i64),
}

/// A validated request for the change data feed: "Read Change Data Feed from a Table".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangesQuery {
    /// Where the range starts.
    pub start: Bound,
    /// Where it ends; at the newest version if absent.
    pub end: Option<Bound>,
    /// Whether changes of the metadata are wanted too, and the metadata of the start in the head.
    pub include_historical_metadata: bool,
    /// Whether changes of the protocol are wanted too, in delta format.
    pub include_historical_protocol: bool,
    /// Which part of the answer.
    pub paging: Paging,
    /// Tells the query apart from others.
    pub fingerprint: Fingerprint,
}

/// A request for the change data feed whose range is not parsed yet: the check that the table's history is
/// shared comes first.
#[derive(Debug)]
pub struct ChangesRequest<'a> {
    parameters: QueryParameters<'a>,
    paging: Paging,
}

impl<'a> ChangesRequest<'a> {
    /// Takes the query parameters, already decoded.
    pub fn parse(parameters: &'a [(String, String)]) -> Result<Self> {
        let parameters = QueryParameters(parameters);
        let paging = Paging::new(parameters.number("maxFiles")?, parameters.text("pageToken"))?;
        Ok(Self { parameters, paging })
    }

    /// Reads the rest. The messages are those that clients match on.
    pub fn query(self) -> Result<ChangesQuery> {
        let Self { parameters, paging } = self;
        let get = |name: &str| parameters.text(name);
        let both = |version: &str, timestamp: &str| get(version).is_some() && get(timestamp).is_some();
        if both("startingVersion", "startingTimestamp") {
            return Err(Error::invalid(
                "Multiple starting arguments provided for CDF read. Please provide one of either startingTimestamp \
                 or startingVersion.",
            ));
        }
        if both("endingVersion", "endingTimestamp") {
            return Err(Error::invalid(
                "Multiple ending arguments provided for CDF read. Please provide one of either endingTimestamp or \
                 endingVersion.",
            ));
        }
        if get("startingVersion").or_else(|| get("startingTimestamp")).is_none() {
            return Err(Error::invalid("No startingVersion or startingTimestamp provided for CDF read."));
        }
        let versions = [version(parameters, "startingVersion")?, version(parameters, "endingVersion")?];
        let [start, end] = versions.map(|version| version.map(Bound::Version));
        let starting = get("startingTimestamp").map(parse_start).transpose()?.map(Bound::Timestamp);
        let ending = get("endingTimestamp").map(parse_timestamp).transpose()?.map(Bound::Timestamp);
        let (start, end) = (start.or(starting), end.or(ending));
        const SELECTING: [&str; 6] = [
            "startingVersion",
            "startingTimestamp",
            "endingVersion",
            "endingTimestamp",
            "includeHistoricalMetadata",
            "includeHistoricalProtocol",
        ];
        Ok(ChangesQuery {
            start: start.ok_or_else(|| Error::internal("a change data feed without a start"))?,
            end,
            include_historical_metadata: parameters.flag("includeHistoricalMetadata"),
            include_historical_protocol: parameters.flag("includeHistoricalProtocol"),
            paging,
            fingerprint: Fingerprint::of(&SELECTING.map(get))?,
        })
    }
}

/// The version in a parameter of the change data feed.
fn version(parameters: QueryParameters<'_>, name: &str) -> Result<Option<u64>> {
    let number = parameters.version(name)?;
    let version = number.map(u64::try_from).transpose();
    version.map_err(|_| Error::invalid(format!("{name} cannot be negative.")))
}

/// Reads the body of a request for temporary credentials: the location that it names, if it names one.
pub fn parse_location(body: &[u8]) -> Result<Option<String>> {
    Ok(Fields(object(body)?).string("location")?.map(str::to_owned))
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
            Value::String(text) if text.is_empty() => return Ok(None),
            Value::String(text) => whole_number(text),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        number.map(Some).ok_or_else(|| {
            let sent = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            Error::malformed(format!("{name} is not a valid number. Not a numeric value: {}", shown(&sent)))
        })
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

    /// `predicateHints` must be an array, as it must be at the reference server; `jsonPredicateHints` may be a string or
    /// an object; `limitHint` may be anything, of which a positive number, or one in a string, is a limit.
    fn hints(&self) -> Result<Hints> {
        let sql = match self.get("predicateHints") {
            None => Vec::new(),
            Some(Value::Array(hints)) => hints.iter().map(text_of).collect(),
            Some(_) => {
                return Err(Error::malformed(
                    "Expected an array for repeated field predicateHints of QueryTableRequest",
                ));
            }
        };
        let json = self.get("jsonPredicateHints").map(text_of);
        let limit = self.integer("limitHint").ok().flatten().filter(|&limit| limit > 0);
        // Clients without hints send empty ones.
        let sql: Vec<String> = sql.into_iter().filter(|sql: &String| !sql.trim().is_empty()).collect();
        let json = json.filter(|json| !json.trim().is_empty());
        // A limit counts rows that meet every predicate, so that none may be overlooked.
        let is_ambiguous = ["predicateHints", "jsonPredicateHints", "limitHint"]
            .iter()
            .any(|name| self.0.contains_key(*name) && self.0.contains_key(&snake_case(name)));
        Ok(Hints { sql, json, limit: limit.map(i64::unsigned_abs).filter(|_| !is_ambiguous) })
    }
}

/// A text, or what stands in its place. What is no text is no predicate either, but is not overlooked.
fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
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
        TableQuery::Snapshot(SnapshotQuery {
            as_of: AsOf::Latest,
            include_refresh_token,
            refresh_token: None,
            hints: Hints::default(),
        })
    }

    fn as_of(body: &str) -> AsOf {
        match QueryRequest::parse(body.as_bytes()).unwrap().query {
            TableQuery::Snapshot(query) => query.as_of,
            TableQuery::Since(_) => panic!("not a snapshot: {body}"),
        }
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
            let TableQuery::Snapshot(mut query) = QueryRequest::parse(body.as_bytes()).unwrap().query else {
                panic!("not a snapshot: {body}")
            };
            query.hints = Hints::default();
            assert_eq!(TableQuery::Snapshot(query), latest(false), "{body}");
        }
        let spark = br#"{"predicateHints":[],"includeRefreshToken":true}"#;
        assert_eq!(QueryRequest::parse(spark).unwrap().query, latest(true));
        for body in [r#"{"version":3}"#, r#"{"version":"3"}"#, r#"{"version":3.0}"#] {
            assert_eq!(as_of(body), AsOf::Version(3), "{body}");
        }
        let at = as_of(r#"{"timestamp":"2022-01-01T00:00:00Z"}"#);
        assert_eq!(at, AsOf::Timestamp { text: "2022-01-01T00:00:00Z".to_owned() });
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
            r#"{"version":" 3"}"#,
            r#"{"version":"1e3"}"#,
            r#"{"version":"3.0"}"#,
            r#"{"startingVersion":0,"endingVersion":"0x1"}"#,
            r#"{"maxFiles":"9223372036854775808"}"#,
            r#"{"timestamp":5}"#,
            r#"{"predicateHints":"date > 1"}"#,
            r#"{"includeRefreshToken":"maybe"}"#,
        ] {
            let error = QueryRequest::parse(body.as_bytes()).unwrap_err();
            assert_eq!(error.code(), ErrorCode::MalformedRequest, "{body}");
        }
        assert!(QueryRequest::parse(b"{\"a\":\"\xff\"}").is_err());
        for (body, value) in
            [(r#"{"version":"x3"}"#, "x3"), (r#"{"version":1.5}"#, "1.5"), (r#"{"version":[1]}"#, "[1]")]
        {
            let error = QueryRequest::parse(body.as_bytes()).unwrap_err();
            let message = format!("version is not a valid number. Not a numeric value: {value}");
            assert_eq!(error.message(), message, "{body}");
        }
        let deep = format!("{{\"predicateHints\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(QueryRequest::parse(deep.as_bytes()).unwrap_err().code(), ErrorCode::MalformedRequest);
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
            (r#"{"startingVersion":0,"endingVersion":-1}"#, "endingVersion cannot be negative."),
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
            let error = QueryRequest::parse(body.as_bytes()).unwrap_err();
            assert_eq!(
                (error.code(), error.message()),
                (ErrorCode::InvalidParameterValue, message),
                "{body}"
            );
        }
    }

    #[test]
    fn pages_of_one_answer_have_one_fingerprint() {
        let parse = |body: &str| QueryRequest::parse(body.as_bytes()).unwrap();
        let first = parse(r#"{"maxFiles":"10","predicateHints":["a = 1"],"includeRefreshToken":true}"#);
        assert_eq!(first.paging, Paging { max_files: Some(10), page_token: None });
        let next = parse(r#"{"predicateHints":["a = 1"],"maxFiles":7,"pageToken":"t"}"#);
        assert_eq!(next.paging, Paging { max_files: Some(7), page_token: Some("t".to_owned()) });
        assert_eq!(first.fingerprint, next.fingerprint);
        for body in [r#"{"predicateHints":["a = 2"]}"#, r#"{"predicateHints":["a = 1"],"version":1}"#, "{}"] {
            assert_ne!(parse(body).fingerprint, first.fingerprint, "{body}");
        }
        let refreshed = parse(r#"{"refreshToken":"t","includeRefreshToken":true}"#).query;
        let TableQuery::Snapshot(refreshed) = refreshed else { panic!("not a snapshot") };
        assert_eq!((refreshed.as_of.clone(), refreshed.refresh_token.as_deref()), (AsOf::Latest, Some("t")));
        assert!(refreshed.wants_refresh_token());
        for key in ["idempotency_key", "idempotencyKey"] {
            let request = parse(&format!(r#"{{"{key}":"k"}}"#));
            assert_eq!(request.idempotency_key.as_deref(), Some("k"));
        }
    }

    #[test]
    fn hints_are_read_in_every_form_that_clients_send() {
        let hints = |body: &str| match QueryRequest::parse(body.as_bytes()).unwrap().query {
            TableQuery::Snapshot(query) => query.hints,
            TableQuery::Since(_) => panic!("not a snapshot: {body}"),
        };
        for body in
            ["{}", r#"{"predicateHints":[""],"limitHint":0,"jsonPredicateHints":""}"#, r#"{"limitHint":"x"}"#]
        {
            assert!(hints(body).is_empty(), "{body}");
        }
        assert_eq!(hints(r#"{"limitHint":"10"}"#).limit, Some(10));
        assert_eq!(hints(r#"{"limitHint":-1}"#).limit, None);
        assert_eq!(
            hints(r#"{"predicateHints":["a = 1",7,"b",{"e":1}]}"#).sql,
            ["a = 1", "7", "b", r#"{"e":1}"#]
        );
        assert_eq!(hints(r#"{"limitHint":1,"predicateHints":[],"predicate_hints":["a = 1"]}"#).limit, None);
        for body in [r#"{"jsonPredicateHints":{"op":"x"}}"#, r#"{"jsonPredicateHints":"{\"op\":\"x\"}"}"#] {
            assert_eq!(hints(body).json.as_deref(), Some(r#"{"op":"x"}"#), "{body}");
        }
    }

    #[test]
    fn what_changed_since_a_version() {
        let since = |starting_version, ending_version, include_historical_protocol| {
            TableQuery::Since(SinceQuery { starting_version, ending_version, include_historical_protocol })
        };
        for (body, query) in [
            (r#"{"predicateHints":[],"startingVersion":1}"#, since(1, None, false)),
            (r#"{"startingVersion":"1","endingVersion":2}"#, since(1, Some(2), false)),
            (
                r#"{"startingVersion":0,"endingVersion":0,"includeHistoricalProtocol":true}"#,
                since(0, Some(0), true),
            ),
        ] {
            assert_eq!(QueryRequest::parse(body.as_bytes()).unwrap().query, query, "{body}");
        }
        assert!(check_range(2, Some(2)).is_ok() && check_range(2, None).is_ok());
        let error = check_range(3, Some(2)).unwrap_err();
        assert_eq!(error.message(), "startingVersion(3) must be smaller than or equal to endingVersion(2).");
    }

    #[test]
    fn change_data_feed_parameters() {
        let parse = |parameters: &[(&str, &str)]| {
            let owned: Vec<_> = parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            ChangesRequest::parse(&owned)?.query()
        };
        let query = parse(&[
            ("startingVersion", "1"),
            ("includeHistoricalMetadata", "True"),
            ("readChangeFeed", "true"),
        ]);
        let query = query.unwrap();
        assert_eq!((query.start, query.end), (Bound::Version(1), None));
        assert!(query.include_historical_metadata && !query.include_historical_protocol);
        let query = parse(&[("startingTimestamp", "2022-01-01T00:00:00Z"), ("endingVersion", "7")]).unwrap();
        assert_eq!((query.start, query.end), (Bound::Timestamp(1_640_995_200_000), Some(Bound::Version(7))));
        for (parameters, message) in [
            (&[][..], "No startingVersion or startingTimestamp provided for CDF read."),
            (&[("startingVersion", "x")], "startingVersion is not a valid number."),
            (&[("startingVersion", "1"), ("endingVersion", "x")], "endingVersion is not a valid number."),
            (&[("startingVersion", "1"), ("startingTimestamp", "x")], "Multiple starting arguments"),
            (
                &[("startingVersion", "1"), ("endingVersion", "2"), ("endingTimestamp", "x")],
                "Multiple ending arguments",
            ),
            (&[("startingVersion", "-1")], "startingVersion cannot be negative."),
            (&[("startingVersion", "0"), ("endingVersion", "-1")], "endingVersion cannot be negative."),
            (
                &[("startingVersion", "1.0")],
                "startingVersion is not a valid number. Not a numeric value: 1.0",
            ),
            (&[("startingVersion", "")], "No startingVersion or startingTimestamp"),
            (&[("endingTimestamp", "x")], "No startingVersion or startingTimestamp"),
            (&[("endingVersion", "x"), ("startingTimestamp", "x")], "endingVersion is not a valid number."),
            (&[("startingTimestamp", "x")], "Invalid startingTimestamp:"),
            (&[("startingVersion", "1"), ("maxFiles", "0")], "maxFiles must be positive."),
            (&[("startingVersion", "1"), ("maxFiles", "x")], "maxFiles: expected a number"),
        ] {
            let error = parse(parameters).unwrap_err();
            assert!(error.message().starts_with(message), "{error}");
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
