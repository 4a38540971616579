//! One suite for every catalog: the share file, and DynamoDB as an engine answers for it: one in this process, or
//! what listens at `DELTASHARE_TEST_DYNAMODB`, such as `http://127.0.0.1:8000`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "catalog/filters.rs"]
mod filters;
#[path = "catalog/patterns.rs"]
mod patterns;
#[path = "catalog/round_trip.rs"]
mod round_trip;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_dynamodb::config::{
    BehaviorVersion, Builder, ConfigBag, Credentials, Intercept, Region, RuntimeComponents,
};
use aws_sdk_dynamodb::error::BoxError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use deltashare::catalog::dynamodb::keys::{Key, PARTITION, SORT};
use deltashare::catalog::dynamodb::{DynamoDbCatalog, NewToken, Writer};
use deltashare::catalog::share_file::{ShareFile, ShareFileCatalog};
use deltashare::catalog::{Caller, Catalog, PageRequest, TokenHash, TokenRecord};
use deltashare::error::ErrorCode;
use deltashare::location::Location;
use deltashare::predicate::{FileAccess, PartitionFilter};
use deltashare::protocol::activation::ActivationSecret;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// Of a catalog whose DynamoDB does not answer.
const DEADLINE: Duration = Duration::from_secs(2);
/// Of one whose DynamoDB answers, on a machine that may be busy.
const PATIENT: Duration = Duration::from_secs(60);
const MANY: usize = 230;

/// A schema and a table of it; a schema may have none.
type Place = (String, Option<String>);

/// What both catalogs hold.
fn shares() -> Vec<(&'static str, Vec<Place>)> {
    let table = |schema: &str, name: &str| (schema.to_owned(), Some(name.to_owned()));
    let many = (0..MANY).map(|number| table("s", &format!("t{number:03}"))).collect();
    vec![
        (
            "Retail Data",
            vec![
                table("Sales", "Orders"),
                table("Sales", "Ümlaut 日本"),
                table("Sales", "a#b%20c"),
                table("Sales2", "Orders"),
                table("sal", "x"),
                ("Empty".to_owned(), None),
            ],
        ),
        ("many", many),
        ("secret", vec![table("s", "t")]),
    ]
}

const RECIPIENTS: [(&str, &str, &[&str]); 3] = [
    ("Acme Corp", "dss_acme", &["Retail Data", "many"]),
    ("globex", "dss_globex", &["secret"]),
    ("nobody", "dss_nobody", &[]),
];

fn id_of(parts: &[&str]) -> String {
    format!("id-{}", parts.join("-"))
}

/// A location has no fragment.
fn location_of(table: &str) -> String {
    format!("s3://lake/{}", table.replace('#', "-"))
}

fn share_file() -> ShareFileCatalog {
    let shares: Vec<_> = shares()
        .into_iter()
        .map(|(share, tables)| {
            let mut schemas: Vec<(String, Vec<serde_json::Value>)> = Vec::new();
            for (schema, table) in tables {
                if schemas.last().is_none_or(|(last, _)| *last != schema) {
                    schemas.push((schema.clone(), Vec::new()));
                }
                if let Some(table) = table {
                    schemas.last_mut().unwrap().1.push(serde_json::json!({
                        "name": table, "id": id_of(&[share, &schema, &table]), "location": location_of(&table),
                        "historyShared": true, "startVersion": 2, "allowedLocations": ["s3://lake/other"],
                    }));
                }
            }
            let schemas: Vec<_> =
                schemas.iter().map(|(name, tables)| serde_json::json!({"name": name, "tables": tables})).collect();
            serde_json::json!({"name": share, "id": id_of(&[share]), "schemas": schemas})
        })
        .collect();
    let recipients: Vec<_> = RECIPIENTS
        .iter()
        .map(|(name, token, granted)| {
            let tokens = [serde_json::json!({"sha256": TokenHash::of(token).to_hex(), "expires": "2999-01-01T00:00:00Z"})];
            serde_json::json!({"name": name, "shares": granted, "tokens": tokens})
        })
        .collect();
    let text = serde_json::json!({"version": 1, "shares": shares, "recipients": recipients}).to_string();
    ShareFileCatalog::new(ShareFile::parse(&text, None).unwrap())
}

/// A DynamoDB with an empty table.
struct Engine {
    client: Client,
    endpoint: String,
    table: String,
}

impl Engine {
    async fn start() -> Self {
        let endpoint = match std::env::var("DELTASHARE_TEST_DYNAMODB") {
            Ok(endpoint) => endpoint,
            Err(_) => {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let endpoint = format!("http://{}", listener.local_addr().unwrap());
                tokio::spawn(dynoxide::server::serve_on(listener, dynoxide::Database::memory().unwrap()));
                endpoint
            }
        };
        let client = Client::from_conf(config(&endpoint).build());
        let table = format!("deltashare-{}", uuid::Uuid::new_v4());
        let key = |name: &str, kind| {
            KeySchemaElement::builder().attribute_name(name).key_type(kind).build().unwrap()
        };
        let attribute = |name: &str| {
            let text = ScalarAttributeType::S;
            AttributeDefinition::builder().attribute_name(name).attribute_type(text).build().unwrap()
        };
        client
            .create_table()
            .table_name(&table)
            .key_schema(key(PARTITION, KeyType::Hash))
            .key_schema(key(SORT, KeyType::Range))
            .attribute_definitions(attribute(PARTITION))
            .attribute_definitions(attribute(SORT))
            .billing_mode(BillingMode::PayPerRequest)
            .send()
            .await
            .unwrap();
        Self { client, endpoint, table }
    }

    async fn put(&self, key: &Key, attributes: &[(&str, AttributeValue)]) {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let mut item: HashMap<String, AttributeValue> =
            attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        item.insert(PARTITION.to_owned(), text(&key.partition));
        item.insert(SORT.to_owned(), text(&key.sort));
        item.entry("format".to_owned()).or_insert_with(|| AttributeValue::N("1".to_owned()));
        self.client.put_item().table_name(&self.table).set_item(Some(item)).send().await.unwrap();
    }

    async fn fill(&self) {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        for (share, tables) in shares() {
            self.put(&Key::share(share), &[("name", text(share)), ("id", text(&id_of(&[share])))]).await;
            for (schema, table) in tables {
                self.put(&Key::schema(share, &schema), &[("name", text(&schema))]).await;
                let Some(table) = table else { continue };
                let attributes = [
                    ("name", text(&table)),
                    ("schema", text(&schema)),
                    ("id", text(&id_of(&[share, &schema, &table]))),
                    ("location", text(&location_of(&table))),
                    ("historyShared", AttributeValue::Bool(true)),
                    ("startVersion", AttributeValue::N("2".to_owned())),
                    ("allowedLocations", AttributeValue::L(vec![text("s3://lake/other")])),
                    // What a newer writer may add is left alone.
                    ("colour", text("blue")),
                ];
                self.put(&Key::table(share, &schema, &table), &attributes).await;
            }
        }
        for (name, token, granted) in RECIPIENTS {
            self.put(&Key::recipient(name), &[("name", text(name)), ("status", text("active"))]).await;
            let attributes = [("recipient", text(name)), ("expires", text("2999-01-01T00:00:00Z"))];
            self.put(&Key::token(TokenHash::of(token)), &attributes).await;
            let listed =
                [attributes.as_slice(), &[("sha256", text(&TokenHash::of(token).to_hex()))]].concat();
            self.put(&Key::token_of(name, "1"), &listed).await;
            for share in granted {
                self.put(&Key::grant(name, share), &[("share", text(share)), ("recipient", text(name))])
                    .await;
                self.put(&Key::granted_to(share, name), &[("share", text(share)), ("recipient", text(name))])
                    .await;
            }
        }
    }

    async fn delete(&self, key: &Key) {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let key = [(PARTITION, text(&key.partition)), (SORT, text(&key.sort))];
        let key = key.map(|(name, value)| (name.to_owned(), value)).into();
        self.client.delete_item().table_name(&self.table).set_key(Some(key)).send().await.unwrap();
    }

    fn catalog(&self) -> DynamoDbCatalog {
        DynamoDbCatalog::new(config(&self.endpoint), &self.table, PATIENT)
    }

    fn writer(&self) -> Writer {
        Writer::new(config(&self.endpoint), &self.table)
    }

    fn tapped(&self, tap: &Tap) -> DynamoDbCatalog {
        DynamoDbCatalog::new(config(&self.endpoint).interceptor(tap.clone()), &self.table, PATIENT)
    }
}

fn config(endpoint: &str) -> Builder {
    aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .endpoint_url(endpoint)
}

fn all() -> PageRequest {
    PageRequest::default()
}

/// A recipient whose token was checked.
/// A token that never expires.
fn new_token() -> NewToken {
    NewToken {
        id: "1".to_owned(),
        hash: TokenHash::of("dss_new"),
        expires: None,
        created: None,
        activation: None,
    }
}

fn by(recipient: &str) -> Caller {
    Caller::checked(TokenRecord { recipient: recipient.into(), id: "1".into(), expires: None })
}

/// Every item of a listing, in pages of `limit`; `read` gives the items of a page and where the next one begins.
async fn paged<T, F>(limit: usize, read: impl Fn(PageRequest) -> F) -> Vec<T>
where
    F: Future<Output = (Vec<T>, Option<String>)>,
{
    let (mut items, mut after) = (Vec::new(), None);
    loop {
        let (page, more_after) = read(PageRequest { after, limit: Some(limit) }).await;
        assert!(page.len() <= limit);
        items.extend(page);
        after = more_after;
        if after.is_none() {
            return items;
        }
    }
}

async fn conforms(catalog: &dyn Catalog) {
    tokens(catalog).await;
    granted(catalog).await;
    listings(catalog).await;
    pages(catalog).await;
}

async fn tokens(catalog: &dyn Catalog) {
    let acme = catalog.caller(TokenHash::of("dss_acme")).await.unwrap().unwrap();
    assert_eq!(acme.recipient(), "Acme Corp");
    assert_eq!(acme.token.expires.unwrap().to_rfc3339(), "2999-01-01T00:00:00+00:00");
    assert!(catalog.caller(TokenHash::of("dss_unknown")).await.unwrap().is_none());
    assert!(catalog.anonymous().await.unwrap().is_none());
}

async fn granted(catalog: &dyn Catalog) {
    for (share, schema, table) in [
        ("Retail Data", "Sales", "Orders"),
        ("RETAIL data", "sALES", "ORDERS"),
        ("retail data", "SALES", "ümlaut 日本"),
    ] {
        let found = catalog.table(&by("Acme Corp"), share, schema, table).await.unwrap().unwrap();
        assert_eq!((found.share.as_str(), found.schema.as_str()), ("Retail Data", "Sales"));
        assert_eq!(found.share_id, id_of(&["Retail Data"]));
        assert_eq!(found.id, id_of(&["Retail Data", "Sales", found.name.as_str()]));
        let settings = found.settings.canonical();
        assert_eq!(settings.location.text(), location_of(found.name.as_str()));
        assert_eq!(
            (settings.history_shared, settings.start_version, settings.directory_access),
            (true, 2, false)
        );
        assert_eq!(settings.allowed_locations[0].text(), "s3://lake/other");
        let place = Location::S3 { bucket: "lake".to_owned(), prefix: "other/".to_owned(), role: None };
        assert_eq!(settings.resolve(&settings.allowed_locations[0]), Ok(place));
    }
    let found = catalog.table(&by("Acme Corp"), "Retail Data", "Sales", "A#B%20C").await.unwrap().unwrap();
    assert_eq!(found.name.as_str(), "a#b%20c");
    for (recipient, share, schema, table) in [
        ("globex", "Retail Data", "Sales", "Orders"),
        ("nobody", "secret", "s", "t"),
        ("Acme Corp", "secret", "s", "t"),
        ("Acme Corp", "Retail Data", "Sales", "missing"),
        ("Acme Corp", "Retail Data", "missing", "Orders"),
        ("Acme Corp", "missing", "Sales", "Orders"),
        ("Acme Corp", "Retail Data", "Sales#Orders", ""),
        ("Acme Corp", "", "", ""),
    ] {
        assert!(
            catalog.table(&by(recipient), share, schema, table).await.unwrap().is_none(),
            "{recipient} {share}"
        );
    }
    let share = catalog.share(&by("Acme Corp"), "retail DATA").await.unwrap().unwrap();
    assert_eq!((share.name.as_str(), share.id), ("Retail Data", id_of(&["Retail Data"])));
    assert!(catalog.share(&by("Acme Corp"), "secret").await.unwrap().is_none());
    assert!(catalog.schemas(&by("globex"), "many", all()).await.unwrap().is_none());
    assert!(catalog.tables(&by("globex"), "many", None, all()).await.unwrap().is_none());
    assert!(catalog.tables(&by("Acme Corp"), "Retail Data", Some("missing"), all()).await.unwrap().is_none());
}

async fn listings(catalog: &dyn Catalog) {
    let names = |page: deltashare::catalog::ListPage<deltashare::catalog::ShareRecord>| {
        assert!(page.more_after.is_none());
        page.items.iter().map(|share| share.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(catalog.shares(&by("nobody"), all()).await.unwrap()), Vec::<String>::new());
    let mut shares = names(catalog.shares(&by("Acme Corp"), all()).await.unwrap());
    shares.sort();
    assert_eq!(shares, ["Retail Data", "many"]);
    let found = catalog.schemas(&by("Acme Corp"), "Retail Data", all()).await.unwrap().unwrap();
    let mut schemas: Vec<_> = found.schemas.items.iter().map(|name| name.as_str()).collect();
    schemas.sort_unstable();
    assert_eq!(
        (found.share.name.as_str(), schemas),
        ("Retail Data", vec!["Empty", "Sales", "Sales2", "sal"])
    );
    for (schema, expected) in [
        (Some("sales"), vec!["Sales.Orders", "Sales.a#b%20c", "Sales.Ümlaut 日本"]),
        (Some("SALES2"), vec!["Sales2.Orders"]),
        (Some("empty"), vec![]),
        (None, vec!["Sales.Orders", "Sales.a#b%20c", "Sales.Ümlaut 日本", "Sales2.Orders", "sal.x"]),
    ] {
        let page = catalog.tables(&by("Acme Corp"), "retail data", schema, all()).await.unwrap().unwrap();
        let mut tables: Vec<_> =
            page.items.iter().map(|table| format!("{}.{}", table.schema, table.name)).collect();
        tables.sort();
        assert_eq!(tables, expected, "{schema:?}");
        assert!(page.more_after.is_none());
    }
    let many = catalog.tables(&by("Acme Corp"), "many", None, all()).await.unwrap().unwrap();
    assert_eq!(many.items.len(), MANY);
}

async fn pages(catalog: &dyn Catalog) {
    for limit in [1, 2, 3, 100, 230, 231] {
        if limit > 3 {
            let tables = paged(limit, |page| async {
                let page = catalog.tables(&by("Acme Corp"), "many", Some("s"), page).await.unwrap().unwrap();
                (page.items.iter().map(|table| table.name.to_string()).collect(), page.more_after)
            });
            let expected: Vec<_> = (0..MANY).map(|number| format!("t{number:03}")).collect();
            assert_eq!(tables.await, expected);
        }
        let mut tables = paged(limit, |page| async {
            let page = catalog.tables(&by("Acme Corp"), "Retail Data", None, page).await.unwrap().unwrap();
            (page.items.iter().map(|table| table.id.clone()).collect(), page.more_after)
        })
        .await;
        tables.sort();
        tables.dedup();
        assert_eq!(tables.len(), 5);
        let schemas = paged(limit, |page| async {
            let page = catalog.schemas(&by("Acme Corp"), "Retail Data", page).await.unwrap().unwrap().schemas;
            (page.items.iter().map(ToString::to_string).collect::<Vec<_>>(), page.more_after)
        });
        assert_eq!(schemas.await.len(), 4);
        let shares = paged(limit, |page| async {
            let page = catalog.shares(&by("Acme Corp"), page).await.unwrap();
            (page.items.iter().map(|share| share.id.clone()).collect::<Vec<_>>(), page.more_after)
        });
        assert_eq!(shares.await.len(), 2);
    }
    // A page of none goes on where it stood: at the beginning, and in the middle.
    for taken in [0, 1] {
        stands(2, taken, async |page| {
            let page = catalog.shares(&by("Acme Corp"), page).await.unwrap();
            (page.items.len(), page.more_after)
        })
        .await;
        stands(4, taken, async |page| {
            let page = catalog.schemas(&by("Acme Corp"), "Retail Data", page).await.unwrap().unwrap().schemas;
            (page.items.len(), page.more_after)
        })
        .await;
        for (schema, all) in [(None, 5), (Some("sales"), 3)] {
            stands(all, taken, async |page| {
                let page =
                    catalog.tables(&by("Acme Corp"), "Retail Data", schema, page).await.unwrap().unwrap();
                (page.items.len(), page.more_after)
            })
            .await;
        }
    }
}

/// After `taken` of `all` items, pages of none lose no item and repeat none.
async fn stands(all: usize, taken: usize, read: impl AsyncFn(PageRequest) -> (usize, Option<String>)) {
    let mut after = None;
    for limit in [taken, 0, 0] {
        let (items, more_after) = read(PageRequest { after, limit: Some(limit) }).await;
        assert_eq!(items, limit);
        after = Some(more_after.expect("more to read"));
    }
    assert_eq!(read(PageRequest { after, limit: None }).await, (all - taken, None));
}

#[tokio::test]
async fn the_share_file_conforms() {
    conforms(&share_file()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dynamodb_conforms() {
    let engine = Engine::start().await;
    engine.fill().await;
    conforms(&engine.catalog()).await;
}

/// Listens to what is sent to DynamoDB.
#[derive(Debug, Clone, Default)]
struct Tap {
    requests: Arc<Mutex<Vec<(String, serde_json::Value)>>>,
}

impl Tap {
    /// The operations since the last call, with their parameters.
    fn take(&self) -> Vec<(String, serde_json::Value)> {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }

    fn operations(&self) -> Vec<String> {
        self.take().into_iter().map(|(operation, _)| operation).collect()
    }
}

impl Intercept for Tap {
    fn name(&self) -> &'static str {
        "tap"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request();
        let target = request.headers().get("x-amz-target").unwrap().rsplit('.').next().unwrap().to_owned();
        let body = serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
        self.requests.lock().unwrap().push((target, body));
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_takes_two_round_trips_and_then_one() {
    let engine = Engine::start().await;
    engine.fill().await;
    let tap = Tap::default();
    let catalog = engine.tapped(&tap);
    let hash = TokenHash::of("dss_acme");
    for expected in [&["GetItem", "BatchGetItem"][..], &["BatchGetItem"], &["BatchGetItem"]] {
        let caller = catalog.caller(hash).await.unwrap().unwrap();
        catalog.table(&caller, "many", "s", "t007").await.unwrap().unwrap();
        let requests = tap.take();
        let operations: Vec<_> = requests.iter().map(|(operation, _)| operation.as_str()).collect();
        assert_eq!(operations, expected);
        for (_, parameters) in requests {
            let request = parameters["RequestItems"].get(&engine.table).unwrap_or(&parameters);
            assert_eq!(request["ConsistentRead"], true, "{parameters}");
        }
    }
    // Nothing is ever scanned, filtered, or read from an index or without consistency.
    let caller = catalog.caller(hash).await.unwrap().unwrap();
    catalog.shares(&caller, all()).await.unwrap();
    catalog.share(&caller, "many").await.unwrap();
    catalog.schemas(&caller, "Retail Data", all()).await.unwrap();
    catalog.tables(&caller, "Retail Data", None, all()).await.unwrap();
    catalog.tables(&caller, "Retail Data", Some("sales"), all()).await.unwrap();
    for (operation, parameters) in tap.take() {
        assert!(["GetItem", "BatchGetItem", "Query"].contains(&operation.as_str()), "{operation}");
        assert!(parameters.get("FilterExpression").is_none() && parameters.get("IndexName").is_none());
        let request = parameters["RequestItems"].get(&engine.table).unwrap_or(&parameters);
        assert_eq!(request["ConsistentRead"], true, "{parameters}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_remembered_of_a_token_is_never_believed() {
    let engine = Engine::start().await;
    engine.fill().await;
    let (tap, hash) = (Tap::default(), TokenHash::of("dss_acme"));
    let catalog = engine.tapped(&tap);
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let token = |recipient: &str, expires: &str| [("recipient", text(recipient)), ("expires", text(expires))];
    let key = Key::token(hash);
    let forever = token("Acme Corp", "never");
    // Each method refuses what the token no longer stands for.
    type Change<'a> = (Option<&'a [(&'a str, AttributeValue)]>, ErrorCode);
    let ended = token("Acme Corp", "2020-01-01T00:00:00Z");
    let moved = token("globex", "never");
    let changes: [Change<'_>; 3] = [
        (None, ErrorCode::Unauthenticated),
        (Some(&ended), ErrorCode::Unauthenticated),
        // Whoever asks again is the other recipient.
        (Some(&moved), ErrorCode::TemporarilyUnavailable),
    ];
    for (change, code) in changes {
        for method in 0..5 {
            engine.put(&key, &forever).await;
            let caller = catalog.caller(hash).await.unwrap().unwrap();
            catalog.share(&caller, "many").await.unwrap().unwrap();
            let caller = catalog.caller(hash).await.unwrap().unwrap();
            match change {
                None => engine.delete(&key).await,
                Some(attributes) => engine.put(&key, attributes).await,
            }
            let refused = match method {
                0 => catalog.shares(&caller, all()).await.err(),
                1 => catalog.share(&caller, "many").await.err(),
                2 => catalog.schemas(&caller, "many", all()).await.err(),
                3 => catalog.tables(&caller, "many", None, all()).await.err(),
                _ => catalog.table(&caller, "many", "s", "t000").await.err(),
            };
            assert_eq!(refused.map(|error| error.code()), Some(code), "method {method}");
        }
    }
    assert_eq!(catalog.caller(hash).await.unwrap().unwrap().recipient(), "globex");
    // A life that was made longer counts at once.
    engine.put(&key, &ended).await;
    let caller = catalog.caller(hash).await.unwrap().unwrap();
    assert!(catalog.share(&caller, "many").await.is_err());
    assert!(catalog.caller(hash).await.unwrap().unwrap().token.check_expiry().is_err());
    engine.put(&key, &forever).await;
    let caller = catalog.caller(hash).await.unwrap().unwrap();
    assert!(caller.token.expires.is_none());
    assert!(catalog.share(&caller, "many").await.unwrap().is_some());
    // Tokens that stand for nobody are not remembered.
    tap.take();
    for _ in 0..2 {
        assert!(catalog.caller(TokenHash::of("dss_unknown")).await.unwrap().is_none());
    }
    assert_eq!(tap.operations(), ["GetItem", "GetItem"]);
}

/// DynamoDB answers with 16 MB of items and 1 MB of a query at most, and tells what it left out.
#[tokio::test(flavor = "multi_thread")]
async fn partial_answers_are_completed() {
    const SHARES: usize = 60;
    const TABLES: usize = 9;
    let engine = Engine::start().await;
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let filler = ("filler", text(&"x".repeat(390_000)));
    let name = |number: usize| format!("s{number:02}");
    engine.put(&Key::recipient("acme"), &[("status", text("active"))]).await;
    for share in (0..SHARES).map(name) {
        let attributes = [("name", text(&share)), ("id", text(&share)), filler.clone()];
        engine.put(&Key::share(&share), &attributes).await;
        engine.put(&Key::grant("acme", &share), &[("share", text(&share))]).await;
    }
    for table in (0..TABLES).map(name) {
        let (location, schema) = (("location", text("s3://lake/t")), ("schema", text("s")));
        let attributes = [("name", text(&table)), ("id", text(&table)), location, schema, filler.clone()];
        engine.put(&Key::table("s00", "s", &table), &attributes).await;
    }
    let tap = Tap::default();
    let catalog = engine.tapped(&tap);
    let shares = catalog.shares(&by("acme"), all()).await.unwrap().items;
    let shares: Vec<_> = shares.iter().map(|share| share.id.clone()).collect();
    assert_eq!(shares, (0..SHARES).map(name).collect::<Vec<_>>());
    let batches = tap.operations().iter().filter(|operation| *operation == "BatchGetItem").count();
    assert!(batches > 2, "the engine left nothing out");
    let tables = catalog.tables(&by("acme"), "s00", None, all()).await.unwrap().unwrap().items;
    let tables: Vec<_> = tables.iter().map(|table| table.id.clone()).collect();
    assert_eq!(tables, (0..TABLES).map(name).collect::<Vec<_>>());
    let queries = tap.operations().iter().filter(|operation| *operation == "Query").count();
    assert!(queries > 2, "the engine left nothing out");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_that_is_disabled_or_gone_is_not_let_in() {
    let engine = Engine::start().await;
    engine.fill().await;
    let catalog = engine.catalog();
    let text = |text: &str| AttributeValue::S(text.to_owned());
    engine
        .put(&Key::recipient("acme corp"), &[("name", text("Acme Corp")), ("status", text("disabled"))])
        .await;
    for recipient in ["Acme Corp", "gone"] {
        let code = |error: deltashare::error::Error| error.code();
        let table = catalog.table(&by(recipient), "many", "s", "t000").await.unwrap_err();
        assert_eq!(code(table), ErrorCode::Unauthenticated);
        assert_eq!(
            code(catalog.shares(&by(recipient), all()).await.unwrap_err()),
            ErrorCode::Unauthenticated
        );
        assert_eq!(
            code(catalog.share(&by(recipient), "many").await.unwrap_err()),
            ErrorCode::Unauthenticated
        );
        assert_eq!(
            code(catalog.schemas(&by(recipient), "many", all()).await.unwrap_err()),
            ErrorCode::Unauthenticated
        );
        let tables = catalog.tables(&by(recipient), "many", None, all()).await.unwrap_err();
        assert_eq!(code(tables), ErrorCode::Unauthenticated);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_that_is_gone_is_not_listed() {
    let engine = Engine::start().await;
    engine.fill().await;
    let text = |text: &str| AttributeValue::S(text.to_owned());
    engine
        .put(&Key::grant("globex", "gone"), &[("share", text("gone")), ("recipient", text("globex"))])
        .await;
    let catalog = engine.catalog();
    assert_eq!(catalog.shares(&by("globex"), all()).await.unwrap().items.len(), 1);
    assert!(catalog.share(&by("globex"), "gone").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_record_cannot_be_read_is_left_out_of_lists_and_refused_by_name() {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let number = |text: &str| AttributeValue::N(text.to_owned());
    let bad: [(&str, &[(&str, AttributeValue)]); 6] = [
        ("has format 2", &[("format", number("2")), ("name", text("t"))]),
        ("an attribute format that is not a whole number", &[("format", text("1"))]),
        (
            "has no attribute id",
            &[("name", text("t")), ("schema", text("s")), ("location", text("s3://a/b"))],
        ),
        ("has an invalid name", &[("name", text("a/b")), ("schema", text("s"))]),
        (
            "an attribute historyShared that is not a boolean",
            &[
                ("name", text("t")),
                ("schema", text("s")),
                ("id", text("i")),
                ("location", text("s3://a/b")),
                ("historyShared", text("true")),
            ],
        ),
        (
            "an attribute allowedLocations that is not a list of strings",
            &[
                ("name", text("t")),
                ("schema", text("s")),
                ("id", text("i")),
                ("location", text("s3://a/b")),
                ("allowedLocations", text("s3://a/c")),
            ],
        ),
    ];
    let engine = Engine::start().await;
    engine.fill().await;
    let catalog = engine.catalog();
    let good =
        [("name", text("good")), ("schema", text("s")), ("id", text("i")), ("location", text("s3://a/good"))];
    engine.put(&Key::table("secret", "s", "good"), &good).await;
    for (reason, attributes) in bad {
        engine.put(&Key::table("secret", "s", "t"), attributes).await;
        let error = catalog.table(&by("globex"), "secret", "s", "t").await.unwrap_err();
        // Not 5xx, which clients retry, and not 404, which says that it is gone.
        assert_eq!(error.code(), ErrorCode::UnsupportedOperation);
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(
            source.contains("the table record SHARE#secret TABLE#s#t") && source.contains(reason),
            "{source}"
        );
        assert!(error.message().contains("The record of the table cannot be read"), "{error}");
        assert!(!error.message().contains("secret"), "{error}");
        for schema in [None, Some("s")] {
            let page = catalog.tables(&by("globex"), "secret", schema, all()).await.unwrap().unwrap();
            let listed: Vec<_> = page.items.iter().map(|table| table.name.as_str()).collect();
            assert_eq!(listed, ["good"], "{reason}");
        }
        assert!(catalog.table(&by("globex"), "secret", "s", "good").await.unwrap().is_some());
        let found = engine.writer().read().await.unwrap().bad;
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].sort == "TABLE#s#t" && found[0].reason.contains(reason), "{found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_share_schema_or_grant_costs_the_others_nothing() {
    let engine = Engine::start().await;
    engine.fill().await;
    let catalog = engine.catalog();
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let names = async || {
        let page = catalog.shares(&by("Acme Corp"), all()).await.unwrap();
        page.items.iter().map(|share| share.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["many", "Retail Data"]);

    // A share: without its id, and of a later format.
    for attributes in [&[("name", text("many"))][..], &[("format", AttributeValue::N("2".to_owned()))]] {
        engine.put(&Key::share("many"), attributes).await;
        assert_eq!(names().await, ["Retail Data"]);
        let error = catalog.share(&by("Acme Corp"), "many").await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::UnsupportedOperation);
        let error = catalog.table(&by("Acme Corp"), "many", "s", "t000").await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::UnsupportedOperation);
        // For a recipient without the grant, the table does not exist, good or bad.
        assert!(catalog.share(&by("globex"), "many").await.unwrap().is_none());
    }
    engine.put(&Key::share("many"), &[("name", text("many")), ("id", text("i"))]).await;

    engine.put(&Key::schema("Retail Data", "Sales"), &[("name", AttributeValue::Bool(true))]).await;
    let schemas = catalog.schemas(&by("Acme Corp"), "Retail Data", all()).await.unwrap().unwrap().schemas;
    let schemas: Vec<_> = schemas.items.iter().map(|name| name.as_str()).collect();
    assert_eq!(schemas, ["Empty", "sal", "Sales2"]);

    // Grants: without a name, of a later format, and with the name of a share that the key does not grant.
    let bad: [&[(&str, AttributeValue)]; 3] = [
        &[],
        &[("share", text("many")), ("format", AttributeValue::N("2".to_owned()))],
        &[("share", text("secret"))],
    ];
    for attributes in bad {
        engine.put(&Key::grant("Acme Corp", "many"), attributes).await;
        assert_eq!(names().await, ["Retail Data"], "{attributes:?}");
        for refused in [
            catalog.share(&by("Acme Corp"), "many").await.unwrap_err(),
            catalog.schemas(&by("Acme Corp"), "many", all()).await.unwrap_err(),
            catalog.tables(&by("Acme Corp"), "many", None, all()).await.unwrap_err(),
            catalog.table(&by("Acme Corp"), "many", "s", "t000").await.unwrap_err(),
        ] {
            assert_eq!(refused.code(), ErrorCode::PermissionDenied, "{attributes:?}");
        }
        assert!(catalog.share(&by("Acme Corp"), "secret").await.unwrap().is_none());
    }
    let found = engine.writer().read().await.unwrap().bad;
    let found: Vec<_> = found.iter().map(|bad| format!("{} {}", bad.partition, bad.sort)).collect();
    assert_eq!(found, ["RECIPIENT#acme%20corp SHARE#many", "SHARE#retail%20data SCHEMA#sales"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_token_or_recipient_lets_nobody_in() {
    let engine = Engine::start().await;
    engine.fill().await;
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let newer = ("format", AttributeValue::N("2".to_owned()));
    let hash = TokenHash::of("dss_acme");
    let good = [("recipient", text("Acme Corp")), ("expires", text("never"))];
    let bad_tokens: [&[(&str, AttributeValue)]; 5] = [
        &[("expires", text("never"))],
        &[("recipient", text("Acme Corp"))],
        &[("recipient", text("Acme Corp")), ("expires", text("soon"))],
        &[("recipient", text("Acme Corp")), ("expires", AttributeValue::N("1".to_owned()))],
        &[good[0].clone(), good[1].clone(), newer.clone()],
    ];
    for attributes in bad_tokens {
        // Read as it is, and remembered from when it was good.
        engine.put(&Key::token(hash), &good).await;
        let catalog = engine.catalog();
        let caller = catalog.caller(hash).await.unwrap().unwrap();
        assert!(catalog.share(&caller, "many").await.unwrap().is_some());
        let caller = catalog.caller(hash).await.unwrap().unwrap();
        engine.put(&Key::token(hash), attributes).await;
        let refused = catalog.share(&caller, "many").await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::Unauthenticated, "{attributes:?}");
        assert!(catalog.caller(hash).await.unwrap().is_none(), "{attributes:?}");
        assert!(engine.catalog().caller(hash).await.unwrap().is_none(), "{attributes:?}");
    }
    let found = engine.writer().read().await.unwrap().bad;
    assert!(found.len() == 1 && found[0].partition.len() == "TOKEN#".len() + 8, "{found:?}");
    engine.put(&Key::token(hash), &good).await;

    let bad_recipients: [&[(&str, AttributeValue)]; 4] = [
        &[],
        &[("status", text("Active"))],
        &[("status", AttributeValue::Bool(true))],
        &[("status", text("active")), newer],
    ];
    let catalog = engine.catalog();
    for attributes in bad_recipients {
        engine.put(&Key::recipient("Acme Corp"), attributes).await;
        let caller = by("Acme Corp");
        for refused in [
            catalog.shares(&caller, all()).await.unwrap_err(),
            catalog.share(&caller, "many").await.unwrap_err(),
            catalog.schemas(&caller, "many", all()).await.unwrap_err(),
            catalog.tables(&caller, "many", None, all()).await.unwrap_err(),
            catalog.table(&caller, "many", "s", "t000").await.unwrap_err(),
        ] {
            assert_eq!(refused.code(), ErrorCode::PermissionDenied, "{attributes:?}");
        }
        assert!(catalog.share(&by("globex"), "secret").await.unwrap().is_some());
    }
}

/// DynamoDB refuses to look for keys that it cannot hold.
#[tokio::test(flavor = "multi_thread")]
async fn names_too_long_for_a_key_are_not_there() {
    let engine = Engine::start().await;
    engine.fill().await;
    let tap = Tap::default();
    let catalog = engine.tapped(&tap);
    let acme = by("Acme Corp");
    for name in ["日".repeat(255), "x".repeat(3000), "%".repeat(700)] {
        assert!(catalog.share(&acme, &name).await.unwrap().is_none());
        assert!(catalog.schemas(&acme, &name, all()).await.unwrap().is_none());
        assert!(catalog.tables(&acme, &name, None, all()).await.unwrap().is_none());
        assert!(catalog.table(&acme, &name, "s", "t000").await.unwrap().is_none());
        assert!(catalog.table(&acme, "many", &name, "t000").await.unwrap().is_none());
        assert!(catalog.table(&acme, "many", "s", &name).await.unwrap().is_none());
        assert!(catalog.tables(&acme, "many", Some(&name), all()).await.unwrap().is_none());
        let stranger = by(&name);
        let refused = catalog.shares(&stranger, all()).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::Unauthenticated);
    }
    for (_, parameters) in tap.take() {
        let longest = longest_text(&parameters);
        assert!(longest <= 1024, "{longest}");
    }
}

/// The length of the longest string in a request.
fn longest_text(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::String(text) => text.len(),
        serde_json::Value::Array(items) => items.iter().map(longest_text).max().unwrap_or(0),
        serde_json::Value::Object(fields) => fields.values().map(longest_text).max().unwrap_or(0),
        _ => 0,
    }
}

/// The JSON blocks of the page, as items.
fn documented() -> Vec<HashMap<String, AttributeValue>> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/infra/records.md")).unwrap();
    let blocks: Vec<_> =
        page.split("```json").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 8);
    blocks.iter().map(|block| attributes(&serde_json::from_str(block).unwrap())).collect()
}

fn attributes(item: &serde_json::Value) -> HashMap<String, AttributeValue> {
    item.as_object().unwrap().iter().map(|(name, value)| (name.clone(), attribute(value))).collect()
}

fn attribute(value: &serde_json::Value) -> AttributeValue {
    let (kind, value) = value.as_object().unwrap().iter().next().unwrap();
    match kind.as_str() {
        "S" => AttributeValue::S(value.as_str().unwrap().to_owned()),
        "N" => AttributeValue::N(value.as_str().unwrap().to_owned()),
        "BOOL" => AttributeValue::Bool(value.as_bool().unwrap()),
        "B" => {
            let bytes =
                base64::Engine::decode(&base64::engine::general_purpose::STANDARD, value.as_str().unwrap());
            AttributeValue::B(aws_sdk_dynamodb::primitives::Blob::new(bytes.unwrap()))
        }
        "L" => AttributeValue::L(value.as_array().unwrap().iter().map(attribute).collect()),
        "M" => AttributeValue::M(attributes(value)),
        other => panic!("the page has an attribute of type {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn documented_records_make_a_share() {
    let engine = Engine::start().await;
    for item in documented() {
        engine.client.put_item().table_name(&engine.table).set_item(Some(item)).send().await.unwrap();
    }
    let found = engine.writer().read().await.unwrap();
    assert!(found.bad.is_empty() && found.unwritable.is_empty() && found.unpaired.is_empty(), "{found:?}");
    let catalog = engine.catalog();
    let token = catalog.caller(TokenHash::of("dss_example")).await.unwrap().unwrap();
    assert_eq!(token.recipient(), "acme");
    let policies =
        catalog.oidc_policies("https://idp.example.com/realms/acme", TokenHash::of("a JWT")).await.unwrap();
    let [found] = policies.as_slice() else { panic!("{policies:?}") };
    assert_eq!((&*found.recipient, found.policy.subject.as_str()), ("acme", "Acme reader"));
    let shares = catalog.shares(&by("acme"), all()).await.unwrap().items;
    assert_eq!(shares[0].name.as_str(), "Retail");
    let tables =
        catalog.tables(&by("acme"), "retail", Some("sales 2026"), all()).await.unwrap().unwrap().items;
    let table = catalog.table(&by("acme"), "retail", "Sales 2026", "orders").await.unwrap().unwrap();
    assert_eq!((tables.len(), tables[0].id.as_str()), (2, table.id.as_str()));
    assert!(!table.access.is_filtered());
    let settings = &table.settings;
    assert_eq!((settings.location.text(), settings.start_version), ("s3://my-bucket/tables/orders", 3));
    assert_eq!(settings.allowed_locations[0].text(), "s3://my-bucket/tables/archive");
    let some = catalog.tables(&by("initech"), "retail", None, all()).await.unwrap().unwrap().items;
    assert_eq!(some.iter().map(|table| table.name.as_str()).collect::<Vec<_>>(), ["Orders"]);
    let stores = catalog.table(&by("globex"), "retail", "Sales 2026", "stores").await.unwrap().unwrap();
    assert_eq!(
        stores.access,
        access(&["region = ${recipient.region}", "year IN (2025, 2026)"], &[("region", "EU")])
    );
    let secret = ActivationSecret::parse("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8").unwrap();
    let invitation = catalog.invitation(secret.id()).await.unwrap().unwrap();
    let profile = catalog.activate(secret.id()).await.unwrap().unwrap();
    assert_eq!((&*profile.recipient, &*profile.token_id), ("acme", "5f3a9c1e"));
    assert_ne!(profile.ciphertext, invitation.ciphertext);
    assert!(catalog.invitation(secret.id()).await.unwrap().is_none());
    assert!(catalog.activate(secret.id()).await.unwrap().is_none());
}

/// What stands at the endpoint instead of DynamoDB.
#[derive(Clone, Copy)]
enum Broken {
    Throttles,
    Fails,
    Resets,
    Hangs,
    Refuses,
}

async fn broken(kind: Broken) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = [0; 16 * 1024];
                while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    let (status, error) = match kind {
                        Broken::Throttles => (400, "ProvisionedThroughputExceededException"),
                        Broken::Fails => (500, "InternalServerError"),
                        Broken::Refuses => (400, "AccessDeniedException"),
                        Broken::Resets => return,
                        Broken::Hangs => return std::future::pending().await,
                    };
                    let body =
                        format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{error}","message":"no"}}"#);
                    let head = format!(
                        "HTTP/1.1 {status} x\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: {}\r\n\r\n",
                        body.len()
                    );
                    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
                }
            });
        }
    });
    endpoint
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dynamodb_that_does_not_answer_is_503_within_the_deadline() {
    for (kind, code) in [
        (Broken::Throttles, ErrorCode::TemporarilyUnavailable),
        (Broken::Fails, ErrorCode::TemporarilyUnavailable),
        (Broken::Resets, ErrorCode::TemporarilyUnavailable),
        (Broken::Hangs, ErrorCode::TemporarilyUnavailable),
        (Broken::Refuses, ErrorCode::InternalError),
    ] {
        let endpoint = broken(kind).await;
        let catalog = DynamoDbCatalog::new(config(&endpoint), "deltashare", DEADLINE);
        let began = Instant::now();
        let acme = by("Acme Corp");
        let (token, shares, table) = tokio::join!(
            catalog.caller(TokenHash::of("dss_acme")),
            catalog.shares(&acme, all()),
            catalog.table(&acme, "many", "s", "t000")
        );
        assert_eq!(token.unwrap_err().code(), code);
        assert_eq!(shares.unwrap_err().code(), code);
        let error = table.unwrap_err();
        assert_eq!(error.code(), code);
        assert!(!error.message().contains("DynamoDB") && !error.message().contains("127.0.0.1"));
        assert_eq!(error.retry_after().is_some(), code == ErrorCode::TemporarilyUnavailable);
        // The deadline is two seconds; a busy machine gets more.
        assert!(began.elapsed() < DEADLINE * 10);
    }
}

/// The access that these filters give a recipient with these properties.
fn access(filters: &[&str], properties: &[(&str, &str)]) -> FileAccess {
    let filters = filters.iter().map(|text| PartitionFilter::parse(text).unwrap());
    let properties = properties.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    FileAccess::filtered(filters, &properties)
}
