//! Every JSON example of the protocol's covered parts: requests are parsed by the server's own parsers,
//! answers are compared, key by key and type by type, with what the real router answers over real tables.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use deltashare::app::App;
use deltashare::catalog::share_file::{ShareFile, ShareFileCatalog};
use deltashare::http::router;
use deltashare::limits::Limits;
use deltashare::predicate::Predicate;
use deltashare::protocol::actions::{EndStreamAction, EndStreamLine};
use deltashare::protocol::profile::Profile;
use deltashare::protocol::query::{AsOf, Hints, QueryRequest, SinceQuery, SnapshotQuery, TableQuery};
use deltashare::protocol::tokens::TokenKey;
use deltashare::storage::{Gateway, S3Options, Storage, StorageOptions};
use http_body_util::BodyExt as _;
use serde_json::{Map, Value};
use tower::ServiceExt as _;
use url::Url;

const DELTA: &str = "responseformat=delta;readerfeatures=deletionvectors,columnmapping";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(name: &str) -> String {
    std::fs::read_to_string(root().join("tests/protocol_examples").join(name).with_extension("json")).unwrap()
}

/// The values of an example, which may hold several, one after the other.
fn example(name: &str) -> Vec<Value> {
    serde_json::Deserializer::from_str(&text(name)).into_iter().collect::<Result<_, _>>().unwrap()
}

fn one(name: &str) -> Value {
    let [value] = example(name).try_into().unwrap();
    value
}

/// A share file over the example tables, without any token.
fn app() -> Arc<App> {
    let share_file = format!(
        "version: 1\nauthorization: none\nshares:\n- name: vaccine_share\n  schemas:\n  - name: acme_vaccine_data\n    tables:\n    \
         - {{name: orders, location: {0}/orders, historyShared: true}}\n    - {{name: customers, location: {0}/customers}}\n",
        root().join("examples/tables").display()
    );
    let catalog = ShareFile::parse(&share_file, Some(Path::new("/"))).unwrap();
    let gateway = Gateway::new(&Url::parse("http://127.0.0.1:1").unwrap());
    let options = StorageOptions {
        url_ttl: Duration::from_secs(60),
        gateway: Some(gateway),
        s3: S3Options::default(),
        directory_role: None,
    };
    let catalog = Arc::new(ShareFileCatalog::new(catalog));
    Arc::new(App::new(
        catalog,
        Storage::new(options),
        TokenKey::random().unwrap(),
        "/delta-sharing",
        Limits::default(),
    ))
}

async fn answer(method: &str, path: &str, capabilities: &str, body: &str) -> Vec<Value> {
    let request = Request::builder()
        .method(method)
        .uri(format!("/delta-sharing{path}"))
        .header("delta-sharing-capabilities", capabilities)
        .body(Body::from(body.to_owned()))
        .unwrap();
    let response = router(app()).oneshot(request).await.unwrap();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn get(path: &str) -> Value {
    answer("GET", path, "", "").await.remove(0)
}

fn table(rest: &str) -> String {
    format!("/shares/vaccine_share/schemas/acme_vaccine_data/tables/{rest}")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Every key of `expected`, but those in `left_out`, is in `ours` with a value of the same type and,
/// where it is an object, of the same shape. `ours` may have more keys.
fn same_shape(expected: &Value, ours: &Value, left_out: &[&str], place: &str) {
    assert_eq!(kind(expected), kind(ours), "{place}");
    match (expected, ours) {
        (Value::Object(expected), Value::Object(ours)) => {
            for (key, value) in expected {
                // Maps from columns to values have the table's own keys.
                if left_out.contains(&key.as_str()) || place.ends_with(".partitionValues") {
                    continue;
                }
                let ours = ours.get(key).unwrap_or_else(|| panic!("{place} has no {key}: {ours:?}"));
                same_shape(value, ours, left_out, &format!("{place}.{key}"));
            }
        }
        (Value::Array(expected), Value::Array(ours)) => {
            if let (Some(expected), false) = (expected.first(), ours.is_empty()) {
                for item in ours {
                    same_shape(expected, item, left_out, &format!("{place}[]"));
                }
            }
        }
        _ => {}
    }
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().map(Map::keys).into_iter().flatten().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lists() {
    // The protocol has these as optional; a share file has no place for them.
    let optional = ["displayName", "comment", "properties", "nextPageToken", "location", "accessModes"];
    for (name, path) in [
        ("list_shares", "/shares"),
        ("get_share", "/shares/vaccine_share"),
        ("list_schemas", "/shares/vaccine_share/schemas"),
        ("list_tables", "/shares/vaccine_share/schemas/acme_vaccine_data/tables"),
        ("list_all_tables", "/shares/vaccine_share/all-tables"),
    ] {
        let ours = get(path).await;
        same_shape(&one(name), &ours, &optional, name);
    }
    let paged = get("/shares/vaccine_share/all-tables?maxResults=1").await;
    assert_eq!(keys(&paged), keys(&one("list_all_tables")));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors() {
    let ours = get("/shares/missing").await;
    same_shape(&one("error"), &ours, &[], "error");
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_and_files_in_parquet_format() {
    // What only tables with directory access have, and what is optional and only told to Spark.
    let directory = ["location", "auxiliaryLocations", "accessModes", "size", "numFiles"];
    let metadata = answer("GET", &table("orders/metadata"), "", "").await;
    let expected = example("query_table_metadata");
    assert_eq!(metadata.len(), expected.len());
    for (expected, ours) in expected.iter().zip(&metadata) {
        same_shape(expected, ours, &directory, "metadata");
    }
    same_shape(&one("metadata"), &metadata[1], &directory, "metaData");
    assert_eq!(metadata[1]["metaData"]["configuration"], one("metadata")["metaData"]["configuration"]);
    assert_eq!(metadata[0], one("protocol"));

    let query = answer("POST", &table("orders/query"), "", "{}").await;
    let expected = example("query_table");
    assert!(query.len() > expected.len());
    for (index, ours) in query.iter().enumerate() {
        same_shape(&expected[index.min(2)], ours, &[], "query");
    }
    same_shape(&one("file"), &query[2], &[], "file");
    let schema: Value = serde_json::from_str(query[1]["metaData"]["schemaString"].as_str().unwrap()).unwrap();
    // The example's columns are of types that this table does not have.
    let expected = one("schema");
    assert_eq!(keys(&schema), keys(&expected));
    assert_eq!(keys(&schema["fields"][0]), keys(&expected["fields"][0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn protocol_metadata_and_files_in_delta_format() {
    let lines = answer("POST", &table("customers/query"), DELTA, "").await;
    // `version` is for changes and streams; a file's `size` is read by no client, and the action has it.
    same_shape(&one("delta_protocol"), &lines[0], &["version"], "protocol");
    let directory = ["location", "auxiliaryLocations", "accessModes", "version"];
    same_shape(
        &one("delta_metadata"),
        &lines[1],
        &[&directory[..], &["enableChangeDataFeed"]].concat(),
        "metaData",
    );
    let mut expected = one("delta_file");
    expected["file"].as_object_mut().unwrap().remove("size");
    for line in &lines[2..] {
        same_shape(&expected, line, &[], "file");
    }
    let vectors = lines[2..].iter().filter(|line| !line["file"]["deletionVectorFileId"].is_null()).count();
    assert!(vectors > 0);
}

#[test]
fn requests() {
    let parse = |body: &str| QueryRequest::parse(body.as_bytes()).unwrap().query;
    let snapshot = |as_of, hints| {
        TableQuery::Snapshot(SnapshotQuery {
            as_of,
            include_refresh_token: false,
            refresh_token: None,
            hints,
        })
    };
    let january = ["date >= '2021-01-01'", "date <= '2021-01-31'"].map(str::to_owned);
    let hints = Hints { sql: january.to_vec(), json: None, limit: Some(1000) };
    assert_eq!(parse(&text("query_table_request")), snapshot(AsOf::Version(123), hints.clone()));
    let since_january = Hints { sql: january[..1].to_vec(), ..hints.clone() };
    assert_eq!(parse(&text("query_asynchronous_request")), snapshot(AsOf::Latest, since_january));
    for sql in &hints.sql {
        assert!(matches!(Predicate::from_sql(sql), Predicate::Compare(..)), "{sql}");
    }
    let since = TableQuery::Since(SinceQuery {
        starting_version: 1,
        ending_version: None,
        include_historical_protocol: false,
    });
    assert_eq!(parse(&text("query_starting_version_request")), since);
    // Hints may be wrong JSON, as one of the protocol's own examples is.
    for name in ["json_predicate_equal", "json_predicate_and", "json_predicate_not"] {
        let body = serde_json::json!({"jsonPredicateHints": text(name)}).to_string();
        let hints = Hints { json: Some(text(name)), ..Hints::default() };
        assert_eq!(parse(&body), snapshot(AsOf::Latest, hints));
        let understood = !matches!(Predicate::from_json(&text(name)), Predicate::Unsupported(_));
        assert_eq!(understood, name != "json_predicate_not", "{name}");
    }
}

#[test]
fn ends_of_streams() {
    let line = EndStreamAction { min_url_expiration_timestamp: Some(1), ..EndStreamAction::default() };
    let ours = serde_json::to_value(EndStreamLine { end_stream_action: line }).unwrap();
    same_shape(&one("end_stream_action"), &ours["endStreamAction"], &["refreshToken"], "endStreamAction");
    let failed =
        EndStreamAction { error_message: Some("There is an server error."), ..EndStreamAction::default() };
    let ours = serde_json::to_value(EndStreamLine { end_stream_action: failed }).unwrap();
    assert_eq!(ours["endStreamAction"], one("end_stream_action_error"));
}

#[test]
fn profiles() {
    let expected = one("profile");
    let expires = chrono::DateTime::from_timestamp(1_636_675_949, 0);
    let ours = Profile::new("https://sharing.delta.io/delta-sharing", "<token>".to_owned(), expires);
    assert_eq!(ours.endpoint, expected["endpoint"].as_str().unwrap());
    same_shape(&expected, &serde_json::to_value(&ours).unwrap(), &[], "profile");
    serde_json::from_value::<Profile>(expected).unwrap();
}

#[test]
fn no_example_is_left_unread() {
    let source = std::fs::read_to_string(root().join("tests/protocol_examples.rs")).unwrap();
    for entry in std::fs::read_dir(root().join("tests/protocol_examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension() == Some("json".as_ref()) {
            let name = Path::new(path.file_stem().unwrap()).display().to_string();
            assert!(source.contains(&format!("\"{name}\"")), "{name} is not used");
        }
    }
}
