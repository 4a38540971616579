//! Filters of tables and grants, and the properties that they read, in every catalog.

use deltashare::catalog::diff::CatalogChange;
use deltashare::catalog::dynamodb::{
    CatalogContents, GrantBefore, GrantChanges, GrantFilter, GrantTables, RecipientChanges, WriteError,
};
use deltashare::catalog::grant::GrantState;
use deltashare::catalog::properties::Properties;
use deltashare::catalog::restrictions::Restrictions;
use deltashare::protocol::names::Name;

use super::*;

const FILE: &str = "version: 1
shares:
- name: Retail
  schemas:
  - name: s
    tables:
    - name: all
      location: s3://lake/all
    - name: some
      location: s3://lake/some
      filter: region = ${recipient.region}
recipients:
- name: everything
  shares: [retail]
- name: EU
  properties: {region: EU, year: 2024, unread: secret}
  shares:
  - {name: retail, filter: \"year = ${recipient.year}\"}
- name: lacks
  properties:
    year: '2024'
  shares:
  - name: RETAIL
    filter: year = 2024 OR region IS NULL
";

/// What each recipient of the file may read of `all` and of `some`.
fn expected() -> [(&'static str, FileAccess, FileAccess); 3] {
    let by_region = "region = ${recipient.region}";
    [
        ("everything", FileAccess::everything(), access(&[by_region], &[])),
        (
            "EU",
            access(&["year = ${recipient.year}"], &[("year", "2024")]),
            access(&[by_region, "year = ${recipient.year}"], &[("region", "EU"), ("year", "2024")]),
        ),
        (
            "lacks",
            access(&["year = 2024 OR region IS NULL"], &[]),
            access(&[by_region, "year = 2024 OR region IS NULL"], &[]),
        ),
    ]
}

async fn gives_access(catalog: &dyn Catalog) {
    for (recipient, all_files, some_files) in expected() {
        let recipient = by(recipient);
        let table =
            async |name| catalog.table(&recipient, "retail", "s", name).await.unwrap().unwrap().access;
        assert_eq!(table("ALL").await, all_files, "{recipient:?}");
        assert_eq!(table("some").await, some_files, "{recipient:?}");
        for schema in [None, Some("S")] {
            let page = catalog.tables(&recipient, "RETAIL", schema, all()).await.unwrap().unwrap();
            let listed: Vec<_> =
                page.items.iter().map(|table| (table.name.as_str(), &table.access)).collect();
            assert_eq!(listed, [("all", &all_files), ("some", &some_files)], "{recipient:?}");
        }
    }
}

pub(super) async fn applied(engine: &Engine, text: &str) -> Vec<String> {
    let writer = engine.writer();
    let now = writer.read().await.unwrap().state;
    let changes = now.changes_to(&ShareFile::parse(text, None).unwrap().state(&now));
    for change in &changes {
        writer.apply(change).await.unwrap_or_else(|error| panic!("{change}: {error}"));
    }
    changes.iter().map(ToString::to_string).collect()
}

/// A change of the filter of a grant, which leaves its tables out.
fn only(filter: GrantFilter) -> GrantChanges {
    GrantChanges { tables: GrantTables::Unspecified, filter }
}

pub(super) async fn item(engine: &Engine, key: &Key) -> HashMap<String, AttributeValue> {
    let text = |text: &String| AttributeValue::S(text.clone());
    let get = engine.client.get_item().table_name(&engine.table).consistent_read(true);
    get.key(PARTITION, text(&key.partition)).key(SORT, text(&key.sort)).send().await.unwrap().item.unwrap()
}

#[tokio::test]
async fn the_share_file_gives_the_access_that_it_says() {
    gives_access(&ShareFileCatalog::new(ShareFile::parse(FILE, None).unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dynamodb_gives_the_same_access_with_no_further_request() {
    let engine = Engine::start().await;
    applied(&engine, FILE).await;
    gives_access(&engine.catalog()).await;
    let tap = Tap::default();
    engine.tapped(&tap).table(&by("EU"), "retail", "s", "some").await.unwrap().unwrap();
    assert_eq!(tap.operations(), ["BatchGetItem"]);
}

#[tokio::test]
async fn who_is_no_recipient_has_no_properties() {
    let shares = FILE.split("recipients:").next().unwrap();
    for text in ["authorization: none\n", "authorization:\n  bearerToken: dss_0123456789012345678901234567\n"]
    {
        let catalog = ShareFileCatalog::new(ShareFile::parse(&format!("{shares}{text}"), None).unwrap());
        let table = catalog.table(&by(""), "retail", "s", "some").await.unwrap().unwrap();
        assert_eq!(table.access, access(&["region = ${recipient.region}"], &[]));
    }
    let mut file = ShareFile::parse(FILE, None).unwrap();
    file.add_guest("guest", "token", chrono::Utc::now() + chrono::TimeDelta::hours(1));
    let table =
        ShareFileCatalog::new(file).table(&by("guest"), "retail", "s", "some").await.unwrap().unwrap();
    assert_eq!(table.access, access(&["region = ${recipient.region}"], &[]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_with_a_filter_is_one_that_older_servers_refuse() {
    let engine = Engine::start().await;
    applied(&engine, FILE).await;
    let number = |text: &str| AttributeValue::N(text.to_owned());
    let text = |text: &str| AttributeValue::S(text.to_owned());
    for (key, format, filter) in [
        (Key::table("retail", "s", "all"), "1", None),
        (Key::table("retail", "s", "some"), "2", Some("region = ${recipient.region}")),
        (Key::grant("everything", "retail"), "1", None),
        (Key::grant("eu", "retail"), "2", Some("year = ${recipient.year}")),
        (Key::granted_to("retail", "eu"), "1", None),
        (Key::recipient("eu"), "1", None),
    ] {
        let item = item(&engine, &key).await;
        assert_eq!(
            (&item["format"], item.get("filter")),
            (&number(format), filter.map(text).as_ref()),
            "{key:?}"
        );
    }
    // A filter that goes takes its format with it, and one that comes brings it.
    let writer = engine.writer();
    let retail = Name::share("retail").unwrap();
    let moved = FILE
        .replace("      filter: region = ${recipient.region}\n", "")
        .replace("s3://lake/all\n", "s3://lake/all\n      filter: region = 'EU'\n");
    assert_eq!(
        applied(&engine, &moved).await,
        [
            "~ table Retail.s.all: filter none -> region = 'EU'",
            "~ table Retail.s.some: filter region = ${recipient.region} -> none (shares more rows than before)",
        ]
    );
    writer.grant("EU", &retail, only(GrantFilter::Set(None))).await.unwrap();
    for (key, format) in [
        (Key::table("retail", "s", "all"), "2"),
        (Key::table("retail", "s", "some"), "1"),
        (Key::grant("eu", "retail"), "1"),
    ] {
        let item = item(&engine, &key).await;
        assert_eq!(
            (&item["format"], item.contains_key("filter")),
            (&number(format), format == "2"),
            "{key:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_cannot_be_read_is_never_taken_for_none() {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let number = |text: &str| AttributeValue::N(text.to_owned());
    let format = |format: &str| ("format", number(format));
    let bad: [(&str, &[(&str, AttributeValue)]); 8] = [
        ("an attribute filter that is not a string", &[("filter", AttributeValue::Null(true))]),
        ("an attribute filter that is not a string", &[("filter", AttributeValue::Bool(true))]),
        ("an attribute filter that is not a string", &[("filter", AttributeValue::L(vec![])), format("2")]),
        ("an attribute filter that is not a filter: it is empty", &[("filter", text(""))]),
        ("is not a filter: ", &[("filter", text("region <> 'EU'")), format("2")]),
        ("is not a filter: ", &[("filter", text("region = 'EU' OR"))]),
        ("has format 2, but no attribute filter", &[("Filter", text("region = 'EU'")), format("2")]),
        ("has format 4", &[("filter", text("region = 'EU'")), format("4")]),
    ];
    let engine = Engine::start().await;
    applied(&engine, FILE).await;
    let catalog = engine.catalog();
    let (table, grant) = (Key::table("retail", "s", "some"), Key::grant("everything", "retail"));
    let table_attributes = [
        ("name", text("some")),
        ("schema", text("s")),
        ("id", text("i")),
        ("location", text("s3://lake/some")),
    ];
    let grant_attributes = [("share", text("Retail")), ("recipient", text("everything"))];
    let bad_records = async || {
        let bad = engine.writer().read().await.unwrap().bad;
        bad.into_iter().map(|record| record.to_string()).collect::<Vec<_>>()
    };
    let caller = by("everything");
    for (reason, attributes) in bad {
        engine.put(&table, &[&table_attributes[..], attributes].concat()).await;
        let error = catalog.table(&caller, "retail", "s", "some").await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::UnsupportedOperation, "{attributes:?}");
        assert!(!error.message().contains("filter"), "{error}");
        assert!(std::error::Error::source(&error).unwrap().to_string().contains(reason), "{error:?}");
        let listed = catalog.tables(&caller, "retail", None, all()).await.unwrap().unwrap().items;
        assert_eq!(listed.iter().map(|table| table.name.as_str()).collect::<Vec<_>>(), ["all"]);
        let found = bad_records().await;
        assert!(found.len() == 1 && found[0].contains(reason), "{found:?}");
        engine.put(&table, &table_attributes).await;

        engine.put(&grant, &[&grant_attributes[..], attributes].concat()).await;
        for refused in [
            catalog.share(&caller, "retail").await.unwrap_err(),
            catalog.schemas(&caller, "retail", all()).await.unwrap_err(),
            catalog.tables(&caller, "retail", None, all()).await.unwrap_err(),
            catalog.table(&caller, "retail", "s", "all").await.unwrap_err(),
        ] {
            assert_eq!(refused.code(), ErrorCode::PermissionDenied, "{attributes:?}");
            assert!(!refused.message().contains("filter"), "{refused}");
        }
        assert!(catalog.shares(&caller, all()).await.unwrap().items.is_empty());
        let found = bad_records().await;
        assert!(found.len() == 1 && found[0].contains(reason), "{found:?}");
        engine.put(&grant, &grant_attributes).await;
    }
    // Whatever the format, a filter that can be read applies.
    for attributes in
        [vec![("filter", text("year = 2024"))], vec![("filter", text("year = 2024")), format("2")]]
    {
        engine.put(&grant, &[&grant_attributes[..], &attributes].concat()).await;
        let found = catalog.table(&caller, "retail", "s", "all").await.unwrap().unwrap();
        assert_eq!(found.access, access(&["year = 2024"], &[]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_that_cannot_be_read_let_nobody_in_and_are_not_repeated() {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let map =
        |name: &str, value: AttributeValue| AttributeValue::M(HashMap::from([(name.to_owned(), value)]));
    let many = (0..51).map(|number| (format!("p{number}"), text("secret"))).collect();
    let bad = [
        (text("secret"), "an attribute properties that is not a map of strings"),
        (
            AttributeValue::Ss(vec!["secret".to_owned()]),
            "an attribute properties that is not a map of strings",
        ),
        (
            map("year", AttributeValue::N("2024".to_owned())),
            "an attribute properties that is not a map of strings",
        ),
        (map("region", AttributeValue::Null(true)), "an attribute properties that is not a map of strings"),
        (map("region", text("")), "has invalid properties: property region has no value"),
        (map("region", text(&"secret".repeat(200))), "property region has more than 1024 bytes"),
        (map("the region", text("secret")), "has invalid properties: the name of a property"),
        (AttributeValue::M(many), "a recipient has at most 50 properties"),
    ];
    let engine = Engine::start().await;
    applied(&engine, FILE).await;
    let catalog = engine.catalog();
    let recipient = Key::recipient("EU");
    for (properties, reason) in bad {
        let status = ("status", text("active"));
        engine.put(&recipient, &[status, ("properties", properties.clone())]).await;
        for refused in [
            catalog.shares(&by("EU"), all()).await.unwrap_err(),
            catalog.share(&by("EU"), "retail").await.unwrap_err(),
            catalog.table(&by("EU"), "retail", "s", "all").await.unwrap_err(),
        ] {
            assert_eq!(refused.code(), ErrorCode::PermissionDenied, "{properties:?}");
            let source = std::error::Error::source(&refused).unwrap().to_string();
            assert!(source.contains(reason) && !source.contains("secret"), "{source}");
            assert!(!refused.message().contains("propert"), "{refused}");
        }
        let CatalogContents { bad, .. } = engine.writer().read().await.unwrap();
        assert!(bad.len() == 1 && bad[0].reason.contains(reason), "{bad:?}");
    }
    engine.put(&recipient, &[("status", text("active")), ("properties", AttributeValue::Null(true))]).await;
    let found = catalog.table(&by("EU"), "retail", "s", "some").await.unwrap().unwrap();
    assert_eq!(found.access, access(&["region = ${recipient.region}", "year = ${recipient.year}"], &[]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_in_the_wrong_item_of_a_grant_is_named() {
    let engine = Engine::start().await;
    applied(&engine, FILE).await;
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let key = Key::granted_to("retail", "everything");
    let attributes =
        [("share", text("Retail")), ("recipient", text("everything")), ("filter", text("year = 2024"))];
    engine.put(&key, &attributes).await;
    let found = engine.writer().read().await.unwrap().unpaired;
    assert!(found.len() == 1 && found[0].reason.contains("has a filter that does not apply"), "{found:?}");
    engine.put(&Key::grant("everything", "retail"), &attributes).await;
    assert_eq!(engine.writer().read().await.unwrap().unpaired, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_loses_its_filter_only_if_the_command_says_so() {
    let engine = Engine::start().await;
    applied(&engine, FILE).await;
    let writer = engine.writer();
    let retail = Name::share("retail").unwrap();
    let filter = |text: &str| GrantFilter::Set(Some(PartitionFilter::parse(text).unwrap()));
    let stored = async || {
        let state = writer.read().await.unwrap().state;
        state.recipients["eu"].shares["retail"].filter.as_ref().map(|filter| filter.text().to_owned())
    };
    let before = |text: Option<&str>| {
        let filter = text.map(|text| PartitionFilter::parse(text).unwrap());
        Some(GrantBefore { state: GrantState { tables: None, filter }, readable: true })
    };
    let refused = writer.grant("eu", &retail, only(GrantFilter::Unspecified)).await.unwrap_err();
    assert!(matches!(refused, WriteError::Refused(_)), "{refused}");
    assert!(
        refused.to_string().contains("year = ${recipient.year}")
            && refused.to_string().contains("--no-filter")
    );
    assert_eq!(stored().await.as_deref(), Some("year = ${recipient.year}"));

    let said = writer.grant("eu", &retail, only(filter("year = 2025"))).await.unwrap();
    assert_eq!(said, before(Some("year = ${recipient.year}")));
    assert_eq!(stored().await.as_deref(), Some("year = 2025"));
    assert_eq!(
        writer.grant("eu", &retail, only(GrantFilter::Set(None))).await.unwrap(),
        before(Some("year = 2025"))
    );
    assert_eq!(stored().await, None);
    assert_eq!(writer.grant("eu", &retail, only(GrantFilter::Unspecified)).await.unwrap(), before(None));
    writer.revoke("eu", "retail").await.unwrap();
    assert_eq!(writer.grant("eu", &retail, only(filter("year = 2026"))).await.unwrap(), None);
    assert_eq!(stored().await.as_deref(), Some("year = 2026"));

    // One that cannot be read is replaced only if the command says with what.
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let key = Key::grant("eu", "retail");
    let unreadable =
        [("share", text("Retail")), ("filter", AttributeValue::Null(true)), ("colour", text("blue"))];
    engine.put(&key, &unreadable).await;
    let refused = writer.grant("eu", &retail, only(GrantFilter::Unspecified)).await.unwrap_err();
    assert!(matches!(refused, WriteError::Unreadable(_)), "{refused}");
    let said = writer.grant("eu", &retail, only(filter("year = 2024"))).await.unwrap();
    assert_eq!(said, Some(GrantBefore { state: GrantState::default(), readable: false }));
    assert_eq!(stored().await.as_deref(), Some("year = 2024"));
    assert_eq!(item(&engine, &key).await["colour"], text("blue"), "what a script added is kept");

    // One that a newer version wrote is never replaced: its other attributes may restrict what is shared.
    let newer = [("share", text("Retail")), ("format", AttributeValue::N("4".to_owned()))];
    engine.put(&key, &newer).await;
    for filter in [filter("year = 2024"), GrantFilter::Set(None), GrantFilter::Unspecified] {
        let refused = writer.grant("eu", &retail, only(filter)).await.unwrap_err();
        assert!(matches!(refused, WriteError::Unreadable(_)), "{refused}");
    }
    assert_eq!(item(&engine, &key).await["format"], AttributeValue::N("4".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_is_there_before_its_recipient_keeps_its_filter() {
    let engine = Engine::start().await;
    applied(&engine, FILE).await;
    let writer = engine.writer();
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let key = Key::grant("new", "retail");
    let token = new_token();
    let shares = [Name::share("retail").unwrap()];
    let create = async || {
        let name = Name::share("new").unwrap();
        writer
            .create_recipient(&name, None, &Properties::new(), &Restrictions::default(), &shares, &token)
            .await
    };
    for (filter, refused) in
        [(text("year = 2024"), "with the filter year = 2024"), (text("year"), "is not a filter")]
    {
        engine.put(&key, &[("share", text("Retail")), ("filter", filter.clone())]).await;
        let error = create().await.unwrap_err().to_string();
        assert!(error.contains(refused), "{error}");
        assert_eq!(item(&engine, &key).await["filter"], filter);
        assert!(!writer.has_recipient("new").await.unwrap());
    }
    engine.put(&key, &[("share", text("Retail"))]).await;
    create().await.unwrap();
    assert!(
        !engine
            .catalog()
            .table(&by("new"), "retail", "s", "all")
            .await
            .unwrap()
            .unwrap()
            .access
            .is_filtered()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_filter_or_of_properties_begins_from_what_the_plan_saw() {
    let engine = Engine::start().await;
    applied(&engine, FILE).await;
    let writer = engine.writer();
    let (recipient, share) = ("eu".to_owned(), "retail".to_owned());
    let filter = |text: &str| Some(PartitionFilter::parse(text).unwrap());
    let grant = |filter| GrantState { tables: None, filter };
    let properties = |region: &str| [("region".to_owned(), region.to_owned())].into();
    for change in [
        CatalogChange::UpdateGrant {
            recipient: recipient.clone(),
            share: share.clone(),
            before: grant(filter("year = 2023")),
            after: grant(None),
        },
        CatalogChange::UpdateGrant {
            recipient: "lacks".to_owned(),
            share: "gone".to_owned(),
            before: grant(None),
            after: grant(filter("year = 2023")),
        },
        CatalogChange::Grant { recipient: recipient.clone(), share, grant: grant(None) },
        CatalogChange::RecipientProperties { recipient, before: properties("US"), after: properties("CA") },
    ] {
        let error = writer.apply(&change).await.unwrap_err();
        assert!(matches!(error, WriteError::Conflict(_)), "{change}: {error}");
    }
    gives_access(&engine.catalog()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_and_properties_are_what_the_file_says() {
    let engine = Engine::start().await;
    assert_eq!(
        applied(&engine, FILE).await.split_off(2),
        [
            "+ table Retail.s.all: s3://lake/all",
            "+ table Retail.s.some: s3://lake/some, filter region = ${recipient.region}",
            "+ recipient EU, property region none -> EU, property unread none -> secret, property year none -> 2024",
            "+ grant of retail to EU, filter year = ${recipient.year}",
            "+ recipient everything",
            "+ grant of retail to everything",
            "+ recipient lacks, property year none -> 2024",
            "+ grant of retail to lacks, filter year = 2024 OR region IS NULL",
        ]
    );
    assert_eq!(applied(&engine, FILE).await, Vec::<String>::new());
    // Filters that come are first, and filters that go are last: a recipient never sees more in between.
    let other = FILE
        .replace(
            "- name: everything\n  shares: [retail]",
            "- name: everything\n  shares: [{name: retail, filter: a = 'b'}]",
        )
        .replace("      filter: region = ${recipient.region}\n", "")
        .replace("{region: EU, year: 2024, unread: secret}", "{region: the US, other: none}")
        .replace("retail, filter: \"year = ${recipient.year}\"", "retail, filter: \"year =\\n 2025\"")
        .replace("\n    filter: year = 2024 OR region IS NULL", "");
    assert_eq!(
        applied(&engine, &other).await,
        [
            "~ grant of retail to everything: filter none -> a = 'b'",
            "~ recipient EU: property other none -> \"none\", property region EU -> \"the US\", property unread secret -> none, \
             property year 2024 -> none (filters that read them can share other rows than before)",
            "~ grant of retail to EU: filter year = ${recipient.year} -> \"year =\\n 2025\" (can share other rows than before)",
            "~ table Retail.s.some: filter region = ${recipient.region} -> none (shares more rows than before)",
            "~ grant of retail to lacks: filter year = 2024 OR region IS NULL -> none (shares more rows than before)",
        ]
    );
    assert_eq!(applied(&engine, &other).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_are_set_and_removed() {
    let engine = Engine::start().await;
    applied(&engine, FILE).await;
    let writer = engine.writer();
    let update = async |set: &[(&str, &str)], no_properties: &[&str]| {
        let properties = set.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let no_properties = no_properties.iter().map(|&name| name.to_owned()).collect();
        let changes = RecipientChanges { properties, no_properties, ..RecipientChanges::default() };
        writer.update_recipient("eu", changes).await
    };
    let stored = async || {
        let properties = writer.read().await.unwrap().state.recipients["eu"].properties.clone();
        properties.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    };
    update(&[("region", "US"), ("tier", "gold")], &["unread"]).await.unwrap();
    assert_eq!(stored().await, "region=US tier=gold year=2024");
    let error = update(&[("region", "CA")], &["Tier"]).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no property 'Tier' of recipient 'eu'");
    assert!(matches!(update(&[("region", "")], &[]).await.unwrap_err(), WriteError::Refused(_)));
    assert_eq!(stored().await, "region=US tier=gold year=2024");
    update(&[], &["region", "tier", "year"]).await.unwrap();
    assert_eq!(stored().await, "");
    assert!(!item(&engine, &Key::recipient("eu")).await.contains_key("properties"));
}

#[test]
fn recipients_without_the_properties_that_filters_read_are_named() {
    let missing = |text: &str| {
        let file = ShareFile::parse(text, None).unwrap();
        file.missing_properties().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        missing(FILE),
        [
            "recipient everything has no property region, so it sees no rows of Retail.s.some",
            "recipient lacks has no property region, so it sees no rows of Retail.s.some",
        ]
    );
    let grant = FILE.replace("{region: EU, year: 2024, unread: secret}", "{unread: secret}");
    let grant = grant.replace("year = ${recipient.year}", "year = ${recipient.year} OR b = ${recipient.a}");
    assert_eq!(missing(&grant)[0], "recipient EU has no property a and year, so it sees no rows of Retail");
    let disabled = FILE.replace("name: lacks", "name: lacks\n  status: disabled");
    assert_eq!(missing(&disabled).len(), 1);
    let none = FILE.split("recipients:").next().unwrap();
    assert_eq!(
        missing(none),
        ["a reader who is not a recipient has no property region, so it sees no rows of Retail.s.some"]
    );
    assert_eq!(
        missing(&FILE.replace("${recipient.region}", "'EU'").replace("${recipient.year}", "2024")),
        Vec::<String>::new()
    );
}
