//! Grants of some tables of a share, in every catalog: a recipient sees what its patterns match, and nothing shows it that
//! there is more.

use deltashare::catalog::diff::CatalogChange;
use deltashare::catalog::dynamodb::{
    GrantBefore, GrantChanges, GrantFilter, GrantTables, SeenTable, WriteError,
};
use deltashare::catalog::grant::{GrantState, TablePatterns};
use deltashare::catalog::properties::Properties;
use deltashare::catalog::restrictions::Restrictions;
use deltashare::catalog::state::CatalogState;
use deltashare::protocol::names::Name;

use futures::StreamExt as _;

use super::filters::{applied, item};
use super::*;

/// The schemas of the share `Retail`, with their tables, in the order of keys.
const SCHEMAS: [(&str, &[&str]); 6] = [
    ("Empty", &[]),
    ("EU_1", &["orders", "stores"]),
    ("eu_2", &["stores"]),
    ("hidden", &["secret"]),
    ("Sales", &["Ümlaut 日本", "EU_1", "eu_2", "Orders", "us_1"]),
    ("sales2", &["orders"]),
];

/// A recipient with the patterns of its grant, and the schemas and tables that it sees.
type Granted = (&'static str, &'static [&'static str], &'static [&'static str], &'static [&'static str]);

const GRANTS: [Granted; 9] = [
    (
        "schema",
        &["sales.*"],
        &["Sales"],
        &["Sales.Ümlaut 日本", "Sales.EU_1", "Sales.eu_2", "Sales.Orders", "Sales.us_1"],
    ),
    ("table", &["SALES.orders"], &["Sales"], &["Sales.Orders"]),
    ("nothing-yet", &["sales.returns", "hidden.secret2", "new.*", "sal.*"], &[], &[]),
    ("empty-schema", &["empty.*"], &["Empty"], &[]),
    ("empty-table", &["empty.x*"], &[], &[]),
    ("prefix", &["sales.eu_*", "sales.ü*"], &["Sales"], &["Sales.Ümlaut 日本", "Sales.EU_1", "Sales.eu_2"]),
    (
        "across",
        &["*.orders"],
        &["EU_1", "Sales", "sales2"],
        &["EU_1.orders", "Sales.Orders", "sales2.orders"],
    ),
    (
        "mixed",
        &["eu_*.stores", "sales2.*", "Sales.orders", "*den.secret"],
        &["EU_1", "eu_2", "hidden", "Sales", "sales2"],
        &["EU_1.stores", "eu_2.stores", "hidden.secret", "Sales.Orders", "sales2.orders"],
    ),
    (
        "everything",
        &["*.*"],
        &["Empty", "EU_1", "eu_2", "hidden", "Sales", "sales2"],
        &[
            "EU_1.orders",
            "EU_1.stores",
            "eu_2.stores",
            "hidden.secret",
            "Sales.Ümlaut 日本",
            "Sales.EU_1",
            "Sales.eu_2",
            "Sales.Orders",
            "Sales.us_1",
            "sales2.orders",
        ],
    ),
];

fn file_of(schemas: &[(String, Vec<String>)], recipients: &[serde_json::Value]) -> String {
    let schemas: Vec<_> = schemas
        .iter()
        .map(|(schema, tables)| {
            let table = |name: &String| {
                let location = format!("s3://lake/{schema}/{name}").replace(['#', '%', '*'], "-");
                serde_json::json!({"name": name, "location": location})
            };
            serde_json::json!({"name": schema, "tables": tables.iter().map(table).collect::<Vec<_>>()})
        })
        .collect();
    let share = serde_json::json!({"name": "Retail", "schemas": schemas});
    serde_json::json!({"version": 1, "shares": [share], "recipients": recipients}).to_string()
}

fn file() -> String {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let schemas: Vec<_> = SCHEMAS.iter().map(|(name, tables)| ((*name).to_owned(), owned(tables))).collect();
    let recipients: Vec<_> = GRANTS
        .iter()
        .map(|(name, tables, ..)| serde_json::json!({"name": name, "shares": [{"name": "retail", "tables": tables}]}))
        .collect();
    file_of(&schemas, &recipients)
}

async fn schemas_of(
    catalog: &dyn Catalog,
    caller: &Caller,
    page: PageRequest,
) -> (Vec<String>, Option<String>) {
    let page = catalog.schemas(caller, "retail", page).await.unwrap().unwrap().schemas;
    (page.items.iter().map(|name| name.as_str().to_owned()).collect(), page.more_after)
}

/// `None` if the schema is not there.
async fn tables_of(
    catalog: &dyn Catalog,
    caller: &Caller,
    schema: Option<&str>,
    page: PageRequest,
) -> Option<(Vec<String>, Option<String>)> {
    let page = catalog.tables(caller, "RETAIL", schema, page).await.unwrap()?;
    let name = |table: &deltashare::catalog::TableRecord| format!("{}.{}", table.schema, table.name);
    Some((page.items.iter().map(name).collect(), page.more_after))
}

/// The schemas that there are with their tables, and the schemas and tables that a recipient sees of them.
type Seen<'a> = (&'a [(String, Vec<String>)], &'a [String], &'a [String]);

/// A recipient sees exactly these schemas and tables of those that there are, whichever way it asks.
async fn sees(catalog: &dyn Catalog, recipient: &str, (there, schemas, tables): Seen<'_>, limits: &[usize]) {
    let caller = &by(recipient);
    assert_eq!(catalog.shares(caller, all()).await.unwrap().items.len(), 1);
    assert_eq!(schemas_of(catalog, caller, all()).await, (schemas.to_vec(), None), "{recipient}");
    assert_eq!(tables_of(catalog, caller, None, all()).await, Some((tables.to_vec(), None)), "{recipient}");
    for &limit in limits {
        let found = paged(limit, |page| schemas_of(catalog, caller, page)).await;
        assert_eq!(found, schemas, "{recipient} {limit}");
        let read = async |page| {
            let (items, more) = tables_of(catalog, caller, None, page).await.unwrap();
            // Pages are as long as they may be, so their lengths tell nothing.
            assert!(items.len() == limit || more.is_none());
            (items, more)
        };
        assert_eq!(paged(limit, read).await, tables, "{recipient} {limit}");
    }
    // A recipient can read where a page ends, so that must be a table that it sees.
    let first = PageRequest { after: None, limit: Some(1) };
    if let Some((items, Some(after))) = tables_of(catalog, caller, None, first).await
        && !after.starts_with("1.")
    {
        let (schema, table) = items[0].split_once('.').unwrap();
        assert_eq!(format!("TABLE#{after}"), Key::table("", schema, table).sort, "{recipient}");
    }
    for (schema, names) in there {
        let mine: Vec<String> =
            tables.iter().filter(|table| table.rsplit_once('.').unwrap().0 == schema).cloned().collect();
        let expected = schemas.contains(schema).then(|| (mine.clone(), None));
        for spelling in [schema.to_uppercase(), schema.clone()] {
            if Name::key_of(&spelling) == Name::key_of(schema) {
                assert_eq!(
                    tables_of(catalog, caller, Some(&spelling), all()).await,
                    expected,
                    "{recipient} {schema}"
                );
            }
        }
        for &limit in limits.iter().filter(|_| expected.is_some()) {
            let read = async |page| tables_of(catalog, caller, Some(schema), page).await.unwrap();
            assert_eq!(paged(limit, read).await, mine, "{recipient} {schema} {limit}");
        }
        for name in names {
            let found = catalog.table(caller, "retail", schema, name).await.unwrap();
            let is_mine = mine.contains(&format!("{schema}.{name}"));
            assert_eq!(found.is_some(), is_mine, "{recipient} {schema}.{name}");
        }
    }
    assert_eq!(tables_of(catalog, caller, Some("missing"), all()).await, None);
}

async fn gives(catalog: &dyn Catalog) {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let there: Vec<_> = SCHEMAS.iter().map(|(name, tables)| ((*name).to_owned(), owned(tables))).collect();
    for (recipient, _, schemas, tables) in GRANTS {
        sees(catalog, recipient, (&there, &owned(schemas), &owned(tables)), &[1, 2, 3, 100]).await;
    }
    // A limit of nothing gives nothing, and the same place again.
    let none = PageRequest { after: None, limit: Some(0) };
    let (items, more) = tables_of(catalog, &by("table"), None, none.clone()).await.unwrap();
    assert!(items.is_empty() && more.is_some());
    assert_eq!(tables_of(catalog, &by("nothing-yet"), None, none.clone()).await, Some((Vec::new(), None)));
    assert_eq!(tables_of(catalog, &by("nothing-yet"), Some("Sales"), none).await, None);
}

#[tokio::test]
async fn the_share_file_shares_what_the_patterns_match() {
    gives(&ShareFileCatalog::new(ShareFile::parse(&file(), None).unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dynamodb_shares_what_the_patterns_match() {
    let engine = Engine::start().await;
    applied(&engine, &file()).await;
    gives(&engine.catalog()).await;
    assert_eq!(engine.writer().read().await.unwrap().unpaired, []);
    // A request for a table takes no more than one without patterns.
    let tap = Tap::default();
    engine.tapped(&tap).table(&by("schema"), "retail", "sales", "orders").await.unwrap().unwrap();
    assert_eq!(tap.operations(), ["BatchGetItem"]);
}

/// A sequence of numbers that is the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % most
    }

    fn word(&mut self, letters: &[&str], longest: usize) -> String {
        let length = 1 + self.below(longest);
        (0..length).map(|_| letters[self.below(letters.len())]).collect()
    }
}

/// Whether a name matches, by trying everything.
fn obvious(pattern: &[char], name: &[char]) -> bool {
    match pattern {
        [] => name.is_empty(),
        ['*', rest @ ..] => (0..=name.len()).any(|at| obvious(rest, &name[at..])),
        [first, rest @ ..] => name.first() == Some(first) && obvious(rest, &name[1..]),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_catalogs_agree_on_random_patterns_and_names() {
    const LETTERS: [&str; 8] = ["a", "b", "_", "-", "#", "%", " x", "é"];
    let mut numbers = Numbers(11);
    let mut there: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for _ in 0..12 {
        let mut tables: Vec<String> = (0..numbers.below(12)).map(|_| numbers.word(&LETTERS, 3)).collect();
        tables.iter_mut().for_each(|name| *name = name.trim().to_owned());
        tables.sort_by_cached_key(|name| Key::share(name).partition);
        tables.dedup();
        there.insert(numbers.word(&LETTERS, 2).trim().to_owned(), tables);
    }
    let mut there: Vec<_> = there.into_iter().collect();
    there.sort_by_cached_key(|(name, _)| Key::share(name).partition + "#");
    let wild = [&LETTERS[..], &["*", "*"]].concat();
    let grants: Vec<(String, Vec<String>)> = (0..16)
        .map(|number| {
            let patterns = (0..=numbers.below(4)).map(|_| {
                let (schema, table) = (numbers.word(&wild, 2), numbers.word(&wild, 3));
                format!("{}.{}", schema.trim(), table.trim())
            });
            (format!("r{number}"), patterns.collect())
        })
        .collect();
    let recipients: Vec<_> = grants
        .iter()
        .map(|(name, tables)| serde_json::json!({"name": name, "shares": [{"name": "Retail", "tables": tables}]}))
        .collect();
    let text = file_of(&there, &recipients);
    let engine = Engine::start().await;
    applied(&engine, &text).await;
    let catalogs: [&dyn Catalog; 2] =
        [&engine.catalog(), &ShareFileCatalog::new(ShareFile::parse(&text, None).unwrap())];
    let (mut some, mut all_of_them) = (0, 0);
    for (recipient, patterns) in &grants {
        let split: Vec<(Vec<char>, Vec<char>)> = patterns
            .iter()
            .map(|pattern| pattern.split_once('.').unwrap())
            .map(|(schema, table)| (schema.chars().collect(), table.chars().collect()))
            .collect();
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        let (mut schemas, mut tables) = (Vec::new(), Vec::new());
        for (schema, names) in &there {
            let of: Vec<_> = split.iter().filter(|(pattern, _)| obvious(pattern, &chars(schema))).collect();
            let mine =
                names.iter().filter(|name| of.iter().any(|(_, pattern)| obvious(pattern, &chars(name))));
            let mine: Vec<_> = mine.map(|name| format!("{schema}.{name}")).collect();
            if !mine.is_empty() || of.iter().any(|(_, pattern)| *pattern == ['*']) {
                schemas.push(schema.clone());
            }
            (some, all_of_them) = (some + mine.len(), all_of_them + names.len());
            tables.extend(mine);
        }
        for catalog in catalogs {
            sees(catalog, recipient, (&there, &schemas, &tables), &[3]).await;
        }
    }
    assert!(some > 40 && some < all_of_them / 2, "{some} of {all_of_them}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_few_granted_tables_among_many_take_few_requests() {
    let engine = Engine::start().await;
    let many: Vec<String> = (0..700).map(|number| format!("t{number:04}")).collect();
    let there = [("a".to_owned(), many.clone()), ("b".to_owned(), many)];
    let recipients = [
        serde_json::json!({"name": "few", "shares": [{"name": "Retail", "tables": ["a.*99", "b.t0001"]}]}),
        serde_json::json!({"name": "none", "shares": [{"name": "Retail", "tables": ["*.x*", "c.*"]}]}),
    ];
    let text = file_of(&there, &recipients);
    let file = ShareFile::parse(&text, None).unwrap().state(&CatalogState::default());
    // Applied without its tables, which are put at once.
    let mut without = file.clone();
    let share = without.shares.get_mut("retail").unwrap();
    share.schemas.values_mut().for_each(|schema| schema.tables.clear());
    for change in CatalogState::default().changes_to(&without) {
        engine.writer().apply(&change).await.unwrap();
    }
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let put = there.iter().flat_map(|(schema, names)| names.iter().map(move |name| (schema, name)));
    futures::stream::iter(put)
        .for_each_concurrent(16, async |(schema, name)| {
            let location = format!("s3://lake/{schema}/{name}");
            let attributes = [
                ("name", text(name)),
                ("schema", text(schema)),
                ("id", text(name)),
                ("location", text(&location)),
            ];
            engine.put(&Key::table("retail", schema, name), &attributes).await;
        })
        .await;
    let tap = Tap::default();
    let catalog = engine.tapped(&tap);
    let page = PageRequest { after: None, limit: Some(5) };
    let (items, more) = tables_of(&catalog, &by("few"), None, page).await.unwrap();
    assert_eq!((items.len(), items[4].as_str(), more.as_deref()), (5, "a.t0499", Some("a#t0499")));
    let (items, more) =
        tables_of(&catalog, &by("few"), None, PageRequest { after: more, limit: Some(5) }).await.unwrap();
    assert_eq!((items.len(), items[2].as_str(), more), (3, "b.t0001", None));
    let first = PageRequest { after: None, limit: Some(1) };
    assert_eq!(tables_of(&catalog, &by("none"), None, first).await, Some((Vec::new(), None)));
    let requests = tap.operations().len();
    assert!(requests < 40, "{requests}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hidden_record_that_cannot_be_read_is_hidden_too() {
    let engine = Engine::start().await;
    applied(&engine, &file()).await;
    engine.put(&Key::table("retail", "hidden", "secret"), &[("name", AttributeValue::Bool(true))]).await;
    let catalog = engine.catalog();
    assert!(catalog.table(&by("schema"), "retail", "hidden", "secret").await.unwrap().is_none());
    assert!(catalog.table(&by("mixed"), "retail", "hidden", "secret").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_cannot_be_read_are_never_taken_for_every_table() {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let list = |texts: &[&str]| AttributeValue::L(texts.iter().map(|one| text(one)).collect());
    let format = |format: &str| ("format", AttributeValue::N(format.to_owned()));
    let filter = ("filter", text("year = 2024"));
    let bad: [(&str, Vec<(&str, AttributeValue)>); 14] = [
        ("names no tables: the list is empty", vec![("tables", AttributeValue::Null(true)), format("3")]),
        ("names no tables: the list is empty", vec![("tables", AttributeValue::Null(true))]),
        ("names no tables: the list is empty", vec![("tables", list(&[])), format("3")]),
        ("names no tables: the list is empty", vec![("tables", list(&[]))]),
        ("tables that is not a list of strings", vec![("tables", text("sales.*")), format("3")]),
        ("tables that is not a list of strings", vec![("tables", AttributeValue::Bool(true))]),
        (
            "tables that is not a list of strings",
            vec![
                ("tables", AttributeValue::L(vec![text("a.b"), AttributeValue::N("1".to_owned())])),
                format("3"),
            ],
        ),
        ("'sales' is not SCHEMA.TABLE", vec![("tables", list(&["sales"])), format("3")]),
        (
            "'retail.sales.*' is not SCHEMA.TABLE",
            vec![("tables", list(&["a.b", "retail.sales.*"])), format("3")],
        ),
        ("has format 3, but no attribute tables", vec![("Tables", list(&["sales.*"])), format("3")]),
        ("has format 3, but no attribute tables", vec![filter.clone(), format("3")]),
        ("has format 2, but no attribute filter", vec![("tables", list(&["sales.*"])), format("2")]),
        ("is not a filter", vec![("tables", list(&["sales.*"])), ("filter", text("year")), format("3")]),
        ("has format 4", vec![("tables", list(&["sales.*"])), format("4")]),
    ];
    let engine = Engine::start().await;
    applied(&engine, &file()).await;
    let catalog = engine.catalog();
    let (grant, caller) = (Key::grant("schema", "retail"), by("schema"));
    let attributes = |more: &[(&'static str, AttributeValue)]| {
        [&[("share", text("Retail")), ("recipient", text("schema"))][..], more].concat()
    };
    for (reason, more) in bad {
        engine.put(&grant, &attributes(&more)).await;
        for refused in [
            catalog.share(&caller, "retail").await.unwrap_err(),
            catalog.schemas(&caller, "retail", all()).await.unwrap_err(),
            catalog.tables(&caller, "retail", None, all()).await.unwrap_err(),
            catalog.tables(&caller, "retail", Some("sales"), all()).await.unwrap_err(),
            catalog.table(&caller, "retail", "sales", "orders").await.unwrap_err(),
        ] {
            assert_eq!(refused.code(), ErrorCode::PermissionDenied, "{more:?}");
            assert!(!refused.message().contains("tables"), "{refused}");
        }
        assert!(catalog.shares(&caller, all()).await.unwrap().items.is_empty());
        let found = engine.writer().read().await.unwrap().bad;
        assert!(found.len() == 1 && found[0].to_string().contains(reason), "{found:?} {reason}");
        assert_eq!(engine.writer().seen_tables("schema", 10).await.unwrap().tables, []);
    }
    // Whatever the format, tables that can be read apply.
    let set = AttributeValue::Ss(vec!["sales.or*".to_owned()]);
    for more in [
        vec![("tables", list(&["sales.or*"]))],
        vec![("tables", set), format("3")],
        vec![("tables", list(&["sales.or*"])), filter.clone(), format("2")],
        vec![("tables", list(&["sales.or*"])), filter.clone(), format("3")],
    ] {
        engine.put(&grant, &attributes(&more)).await;
        assert!(catalog.table(&caller, "retail", "sales", "us_1").await.unwrap().is_none());
        let table = catalog.table(&caller, "retail", "sales", "orders").await.unwrap().unwrap();
        assert_eq!(table.access.is_filtered(), more.iter().any(|(name, _)| *name == "filter"));
    }
    // A script may write them into the wrong one of the two items.
    engine.put(&grant, &attributes(&[])).await;
    engine.put(&Key::granted_to("retail", "schema"), &attributes(&[("tables", list(&["sales.*"]))])).await;
    let found = engine.writer().read().await.unwrap().unpaired;
    assert!(found.len() == 1 && found[0].reason.contains("has tables that do not apply"), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_gets_more_tables_only_if_the_command_says_so() {
    let engine = Engine::start().await;
    applied(&engine, &file()).await;
    let writer = engine.writer();
    let retail = Name::share("retail").unwrap();
    let patterns = |texts: &[&str]| Some(TablePatterns::parse(texts).unwrap());
    let set = |texts: &[&str]| GrantTables::Set(patterns(texts));
    let filter = |text: &str| GrantFilter::Set(Some(PartitionFilter::parse(text).unwrap()));
    let grant = async |tables, filter| writer.grant("schema", &retail, GrantChanges { tables, filter }).await;
    let stored = async || writer.read().await.unwrap().state.recipients["schema"].shares["retail"].clone();
    let key = Key::grant("schema", "retail");
    let format = async || item(&engine, &key).await["format"].clone();
    let number = |text: &str| AttributeValue::N(text.to_owned());

    assert_eq!(format().await, number("3"), "older servers refuse it");
    for filter in [GrantFilter::Unspecified, GrantFilter::Set(None), filter("a = 1")] {
        let refused = grant(GrantTables::Unspecified, filter).await.unwrap_err();
        assert!(matches!(refused, WriteError::Refused(_)), "{refused}");
        assert!(refused.to_string().contains("sales.*") && refused.to_string().contains("--all-tables"));
    }
    assert_eq!(stored().await, GrantState { tables: patterns(&["sales.*"]), filter: None });

    let before = grant(set(&["sales.or*"]), filter("a = 1")).await.unwrap();
    let state = GrantState { tables: patterns(&["sales.*"]), filter: None };
    assert_eq!(before, Some(GrantBefore { state, readable: true }));
    let both = GrantState {
        tables: patterns(&["sales.or*"]),
        filter: Some(PartitionFilter::parse("a = 1").unwrap()),
    };
    assert_eq!((stored().await, format().await), (both.clone(), number("3")));
    // Neither is left out by accident.
    for (tables, filter) in [
        (GrantTables::Unspecified, GrantFilter::Unspecified),
        (GrantTables::Set(None), GrantFilter::Unspecified),
        (GrantTables::Unspecified, GrantFilter::Set(None)),
        (set(&["sales.x"]), GrantFilter::Unspecified),
    ] {
        assert!(matches!(grant(tables, filter).await.unwrap_err(), WriteError::Refused(_)));
    }
    assert_eq!(stored().await, both);

    grant(GrantTables::Set(None), filter("a = 1")).await.unwrap();
    assert_eq!((stored().await.tables, format().await), (None, number("2")));
    assert!(!item(&engine, &key).await.contains_key("tables"));
    grant(set(&["sales.*"]), GrantFilter::Set(None)).await.unwrap();
    assert_eq!(
        (stored().await, format().await),
        (GrantState { tables: patterns(&["sales.*"]), filter: None }, number("3"))
    );
    grant(GrantTables::Set(None), GrantFilter::Unspecified).await.unwrap();
    assert_eq!((stored().await, format().await), (GrantState::default(), number("1")));
    let listed = item(&engine, &Key::granted_to("retail", "schema")).await;
    assert!(!listed.contains_key("tables") && listed["format"] == number("1"));

    // What cannot be read is replaced only if the command says with what.
    let text = |text: &str| AttributeValue::S(text.to_owned());
    for unreadable in [
        vec![("share", text("Retail")), ("tables", AttributeValue::Null(true))],
        vec![("share", text("Retail")), ("format", number("3"))],
        vec![
            ("share", text("Retail")),
            ("tables", text("sales.*")),
            ("filter", text("a")),
            ("format", number("3")),
        ],
    ] {
        engine.put(&key, &unreadable).await;
        for (tables, filter) in [
            (GrantTables::Unspecified, GrantFilter::Unspecified),
            (GrantTables::Unspecified, GrantFilter::Set(None)),
            (set(&["sales.*"]), GrantFilter::Unspecified),
        ] {
            let refused = grant(tables, filter).await.unwrap_err();
            assert!(matches!(refused, WriteError::Unreadable(_)), "{refused}");
        }
        let before = grant(set(&["sales.*"]), GrantFilter::Set(None)).await.unwrap().unwrap();
        assert!(!before.readable);
        assert_eq!(stored().await, GrantState { tables: patterns(&["sales.*"]), filter: None });
    }
    // A grant of some tables that is there before its recipient is not replaced by one of the share.
    let token = new_token();
    let attributes = [
        ("share", text("Retail")),
        ("tables", AttributeValue::L(vec![text("sales.*")])),
        ("format", number("3")),
    ];
    engine.put(&Key::grant("new", "retail"), &attributes).await;
    let name = Name::share("new").unwrap();
    let error = writer
        .create_recipient(&name, None, &Properties::new(), &Restrictions::default(), &[retail], &token)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("with the tables sales.*"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_tables_come_where_nobody_sees_more_in_between() {
    let one = "version: 1
shares:
- name: r
  schemas:
  - {name: a, tables: [{name: x, location: 's3://lake/x'}]}
  - {name: b, tables: [{name: secret, location: 's3://lake/secret'}]}
recipients:
- {name: narrower, shares: [{name: r, tables: [a.*, b.y]}]}
- {name: wider, shares: [{name: r, tables: [a.x]}]}
- {name: other, shares: [{name: r, tables: [a.*]}]}
- {name: swapped, shares: [{name: r, filter: c = 1}]}
- {name: spelled, shares: [{name: r, tables: [a.*, a.X]}]}
";
    let engine = Engine::start().await;
    assert_eq!(applied(&engine, one).await.last().unwrap(), "+ grant of r to wider, tables [a.x]");
    let two = one
        .replace("{name: secret, location: 's3://lake/secret'}", "")
        .replace(
            "{name: x, location: 's3://lake/x'}",
            "{name: x, location: 's3://lake/x'}, {name: new, location: 's3://lake/new'}",
        )
        .replace("tables: [a.*, b.y]", "tables: [a.x, b.y]")
        .replace(
            "- {name: wider, shares: [{name: r, tables: [a.x]}]}",
            "- {name: wider, shares: [{name: r, tables: ['*.*']}]}",
        )
        .replace(
            "- {name: other, shares: [{name: r, tables: [a.*]}]}",
            "- {name: other, shares: [{name: r, tables: [a.x, b.*]}]}",
        )
        .replace("filter: c = 1", "tables: [a.x]")
        .replace("[a.*, a.X]", "[A.x, A.*]");
    assert_eq!(
        applied(&engine, &two).await,
        [
            "~ grant of r to narrower: tables [a.*, b.y] -> [a.x, b.y]",
            "~ grant of r to other: tables [a.*] -> [a.x, b.*] (can share other tables than before)",
            "~ grant of r to swapped: tables all -> [a.x]",
            "+ table r.a.new: s3://lake/new",
            "- table r.b.secret",
            "~ grant of r to swapped: filter c = 1 -> none (shares more rows than before)",
            "~ grant of r to wider: tables [a.x] -> [*.*] (shares more tables than before)",
        ]
    );
    // Both at once, and back to the whole share.
    let three = two
        .replace(
            "{name: swapped, shares: [{name: r, tables: [a.x]}]}",
            "{name: swapped, shares: [{name: r, filter: c = 2}]}",
        )
        .replace(
            "{name: other, shares: [{name: r, tables: [a.x, b.*]}]}",
            "{name: other, shares: [{name: r, tables: [b.*], filter: c = 2}]}",
        )
        .replace("tables: ['*.*']", "filter: c = 3");
    assert_eq!(
        applied(&engine, &three).await,
        [
            "~ grant of r to other: tables [a.x, b.*] -> [b.*], filter none -> c = 2",
            "~ grant of r to swapped: filter none -> c = 2",
            "~ grant of r to wider: filter none -> c = 3",
            "~ grant of r to swapped: tables [a.x] -> all (shares more tables than before)",
            "~ grant of r to wider: tables [*.*] -> all (shares more tables than before)",
        ]
    );
    assert_eq!(applied(&engine, &three).await, Vec::<String>::new());
    // A share file says the same, and a change begins from what was read.
    let state = engine.writer().read().await.unwrap().state;
    let exported = serde_json::to_string(&state.to_share_file()).unwrap();
    assert!(exported.contains(r#"{"name":"r","tables":["b.*"],"filter":"c = 2"}"#), "{exported}");
    let read = ShareFile::parse(&exported, None).unwrap().state(&CatalogState::default());
    assert_eq!(read.recipients, state.recipients);
    let tables =
        |texts: &[&str]| GrantState { tables: Some(TablePatterns::parse(texts).unwrap()), filter: None };
    for change in [
        CatalogChange::UpdateGrant {
            recipient: "other".to_owned(),
            share: "r".to_owned(),
            before: tables(&["b.*"]),
            after: GrantState::default(),
        },
        CatalogChange::Grant {
            recipient: "narrower".to_owned(),
            share: "r".to_owned(),
            grant: tables(&["b.*"]),
        },
    ] {
        let error = engine.writer().apply(&change).await.unwrap_err();
        assert!(matches!(error, WriteError::Conflict(_)), "{change}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_recipient_sees_is_what_the_command_shows() {
    let engine = Engine::start().await;
    applied(&engine, &file()).await;
    let writer = engine.writer();
    for (recipient, _, _, tables) in GRANTS {
        let expected: Vec<_> = tables
            .iter()
            .map(|name| SeenTable { name: format!("Retail.{name}"), filters: Vec::new() })
            .collect();
        for most in [1, 3, 100] {
            let seen = writer.seen_tables(recipient, most).await.unwrap();
            assert_eq!(seen.tables, expected[..most.min(expected.len())], "{recipient}");
            assert_eq!(seen.more, expected.len() > most);
        }
    }
    let patterns = TablePatterns::parse(&["sales.*", "sales.x", "*.orders", "new.*"]).unwrap();
    assert_eq!(writer.unmatched("retail", &patterns).await.unwrap(), ["new.*", "sales.x"]);
}

#[test]
fn a_filter_concerns_only_the_tables_that_its_grant_shares() {
    let text = "version: 1
shares:
- name: r.x
  schemas:
  - name: a
    tables: [{name: t, location: 's3://lake/t'}, {name: own, location: 's3://lake/own', filter: 'c = ${recipient.own}'}]
recipients:
- {name: some, shares: [{name: r.x, tables: [A.t], filter: c = 1}]}
- {name: all, shares: [{name: r.x, filter: c = 2}]}
- {name: lacks, shares: [{name: r.x, tables: [a.ow*]}]}
- {name: other, shares: [{name: r.x, tables: [a.t]}]}
";
    let file = ShareFile::parse(text, None).unwrap();
    let state = file.state(&CatalogState::default());
    let tables = &state.shares["r.x"].schemas["a"].tables;
    let owners = |name: &str| {
        let filters = state.filters_of(&format!("r.x.a.{name}"), &tables[name]).into_iter();
        filters.map(|(owner, filter)| format!("{owner}: {filter}")).collect::<Vec<_>>()
    };
    assert_eq!(owners("t"), ["the grant to all: c = 2", "the grant to some: c = 1"]);
    assert_eq!(owners("own"), ["the table: c = ${recipient.own}", "the grant to all: c = 2"]);
    let missing: Vec<_> = file.missing_properties().iter().map(|missing| missing.recipient.clone()).collect();
    assert_eq!(missing, ["all", "lacks"]);
}

#[test]
fn tables_of_a_grant_in_a_share_file() {
    let head = "version: 1\nshares: [{name: r}, {name: r.x}]\nrecipients:\n- name: a\n  shares:\n";
    let parse = |grants: &str| ShareFile::parse(&format!("{head}{grants}"), None);
    for (grants, reason) in [
        ("  - {name: r, tables: []}", "line 6: tables: the list is empty"),
        ("  - name: r\n    tables:", "line 7: tables has no value"),
        ("  - name: r\n    tables:\n    - s.*\n    - r.s.*", "line 9: tables: 'r.s.*' is not SCHEMA.TABLE"),
        ("  - {name: r, tables: s.*}", "line 6"),
        ("  - {name: r, table: [s.*]}", "line 6: unknown field"),
        (
            "  - r\n  - {name: R, tables: [s.*]}",
            "line 7: recipient 'a' is granted 'R' twice, with different tables",
        ),
    ] {
        let refused = parse(grants).unwrap_err().to_string();
        assert!(refused.contains(reason), "{refused}");
    }
    for (grants, tables) in [
        ("  - {name: r, tables: ['*.x', S.*, s.*]}", "*.x, S.*"),
        ("  - {name: r, tables: [2024.01]}", "2024.01"),
        ("  - {name: r, tables: [s.*]}\n  - {name: r, tables: [S.*, s.*]}", "s.*"),
    ] {
        let state = parse(grants).unwrap().state(&CatalogState::default());
        assert_eq!(state.recipients["a"].shares["r"].tables.as_ref().unwrap().to_string(), tables);
    }
}
