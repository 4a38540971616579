//! What a share file says, and which files are refused.

use uuid::Uuid;

use super::*;
use crate::catalog::{Caller, Catalog as _, PageRequest, expiry};

fn by(recipient: &str) -> Caller {
    Caller::checked(TokenRecord { recipient: recipient.into(), id: "1".into(), expires: None })
}

const FILE: &str = r#"
version: 1
host: "localhost"
port: 8080
refreshTokenTtlMs:
queryTablePageSizeLimit: 10
endpoint: /delta-sharing
preSignedUrlTimeoutSeconds: 900
shares:
- name: Retail
  schemas:
  - name: Sales
    tables:
    - name: Orders
      location: s3a://bucket/orders
      id: 00000000-0000-0000-0000-000000000001
      historyShared: true
      startVersion: 2
    - {name: customers, location: customers}
  - name: empty
- name: HR
  schemas:
  - name: people
    tables:
    - {name: staff, location: /staff}
recipients:
- name: acme
  shares: [RETAIL]
  tokens:
  - {sha256: "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b", expires: 2999-01-01T00:00:00Z}
- {name: nobody, shares: []}
authorization:
  bearerToken: everything-and-more-than-32-characters
"#;

fn parse(text: &str) -> std::result::Result<ShareFile, ShareFileError> {
    ShareFile::parse(text, None)
}

fn catalog() -> ShareFileCatalog {
    ShareFileCatalog::new(parse(FILE).unwrap())
}

#[tokio::test]
async fn a_recipient_sees_what_is_granted_and_nothing_else() {
    let catalog = catalog();
    let token = catalog.caller(TokenHash::of("secret")).await.unwrap().unwrap();
    assert_eq!(token.recipient(), "acme");
    let shares = catalog.shares(&by("acme"), PageRequest::default()).await.unwrap();
    assert_eq!(shares.items.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["Retail"]);
    assert!(catalog.share(&by("acme"), "retail").await.unwrap().is_some());
    for (recipient, share) in [("acme", "hr"), ("acme", "missing"), ("nobody", "retail"), ("x", "retail")] {
        assert!(catalog.share(&by(recipient), share).await.unwrap().is_none());
        assert!(catalog.schemas(&by(recipient), share, PageRequest::default()).await.unwrap().is_none());
        assert!(catalog.tables(&by(recipient), share, None, PageRequest::default()).await.unwrap().is_none());
        assert!(catalog.table(&by(recipient), share, "people", "staff").await.unwrap().is_none());
    }
    let orders = catalog.table(&by("acme"), "RETAIL", "SALES", "ORDERS").await.unwrap().unwrap();
    assert_eq!(
        (orders.name.as_str(), orders.settings.history_shared, orders.settings.start_version),
        ("Orders", true, 2)
    );
    assert_eq!(orders.id, "00000000-0000-0000-0000-000000000001");
}

#[tokio::test]
async fn the_reference_servers_token_sees_every_share() {
    let catalog = catalog();
    let token =
        catalog.caller(TokenHash::of("everything-and-more-than-32-characters")).await.unwrap().unwrap();
    let shares = catalog.shares(&token, PageRequest::default()).await.unwrap();
    assert_eq!(shares.items.len(), 2);
    assert!(catalog.anonymous().await.unwrap().is_none());
    assert!(catalog.caller(TokenHash::of("")).await.unwrap().is_none());
}

#[tokio::test]
async fn pages_cover_everything_once() {
    let catalog = catalog();
    for limit in 1..4 {
        let mut request = PageRequest { after: None, limit: Some(limit) };
        let mut names = Vec::new();
        loop {
            let page = catalog.tables(&by("acme"), "retail", None, request.clone()).await.unwrap().unwrap();
            assert!(page.items.len() <= limit);
            names.extend(page.items.into_iter().map(|table| table.name.as_str().to_owned()));
            match page.more_after {
                Some(key) => request.after = Some(key),
                None => break,
            }
        }
        assert_eq!(names, ["Orders", "customers"]);
    }
    let none = PageRequest { after: None, limit: Some(0) };
    let page = catalog.shares(&by(""), none.clone()).await.unwrap();
    assert!(page.items.is_empty());
    let rest = PageRequest { after: page.more_after, limit: None };
    assert_eq!(catalog.shares(&by(""), rest).await.unwrap().items.len(), 2);
    let page = catalog.tables(&by("acme"), "retail", Some("empty"), none).await.unwrap().unwrap();
    assert!(page.items.is_empty() && page.more_after.is_none());
}

/// A file whose share `s` has these tables in schema `c`.
fn file_of(tables: &[&str]) -> ShareFile {
    let tables: Vec<String> =
        tables.iter().map(|name| format!("    - {{name: {name}, location: x}}\n")).collect();
    let tables = tables.concat();
    parse(&format!("version: 1\nshares:\n- name: s\n  schemas:\n  - name: c\n    tables:\n{tables}")).unwrap()
}

#[tokio::test]
async fn pages_go_on_where_they_ended_when_the_file_is_edited() {
    for (before, limit, after, expected) in [
        (&["d", "a", "c", "b"][..], 2, &["d", "a", "c", "b"][..], &["c", "b"][..]),
        // Removed: an item before, the last one, the next one, these two, all that were listed.
        (&["d", "a", "c", "b"], 2, &["a", "c", "b"], &["c", "b"]),
        (&["d", "a", "c", "b"], 2, &["d", "c", "b"], &["c", "b"]),
        (&["d", "a", "c", "b"], 2, &["d", "a", "b"], &["b"]),
        (&["d", "a", "c", "b"], 1, &["a", "c", "b"], &["a", "c", "b"]),
        (&["d", "a", "c", "b"], 2, &["c", "b"], &["c", "b"]),
        (&["d", "a", "c", "b", "e"], 2, &["d", "b", "e"], &["b", "e"]),
        // Added before the cut, and after it.
        (&["d", "a", "c", "b"], 2, &["x", "d", "a", "y", "c", "b"], &["y", "c", "b"]),
        // Nothing is left.
        (&["d", "a", "c"], 2, &["d"], &[]),
    ] {
        let catalog = ShareFileCatalog::new(file_of(before));
        let list = async |request| catalog.tables(&by(""), "s", None, request).await.unwrap().unwrap();
        let first = list(PageRequest { after: None, limit: Some(limit) }).await;
        assert_eq!(first.items.len(), limit);
        let cut = first.more_after;
        catalog.replace(file_of(after));
        let rest = list(PageRequest { after: cut, limit: None }).await;
        let names: Vec<_> = rest.items.iter().map(|table| table.name.as_str()).collect();
        assert_eq!(names, expected, "{before:?} after {limit}, then {after:?}");
    }
    let catalog = ShareFileCatalog::new(file_of(&["a"]));
    for bad in ["", "a", "1", "1.2", "1.2.3.4", "-1.2.3", "1.x.3", "c/a"] {
        let request = PageRequest { after: Some(bad.to_owned()), limit: None };
        let error = catalog.tables(&by(""), "s", None, request).await.unwrap_err();
        assert_eq!(error.message(), "invalid 'nextPageToken'", "{bad}");
    }
}

#[tokio::test]
async fn a_table_that_is_not_supported_is_listed_and_the_others_stay() {
    let file = "version: 1
shares:
- name: s
  schemas:
  - name: c
    tables:
    - name: azure
      location: wasbs://c@a.blob.core.windows.net/t
      historyShared: true
      directoryAccess: true
    - {name: fine, location: s3://lake/x}
    - {name: clone, location: s3://lake/x, allowedLocations: [s3://lake/y, wasbs://c/z]}
";
    let file = parse(file).unwrap();
    let unreadable: Vec<_> = file.unreadable.iter().map(ToString::to_string).collect();
    let reason = "the scheme wasbs:// is not supported; use s3://, s3a://, file:// or a directory";
    assert_eq!(
        unreadable,
        [
            format!("line 8: table s.c.azure cannot be read: {reason}"),
            format!("line 12: table s.c.clone cannot be read: {reason}"),
        ]
    );
    let catalog = ShareFileCatalog::new(file);
    let tables = catalog.tables(&by(""), "s", None, PageRequest::default()).await.unwrap().unwrap();
    let listed: Vec<_> =
        tables.items.iter().map(|table| (table.name.as_str(), table.settings.directory())).collect();
    assert_eq!(listed, [("azure", None), ("fine", None), ("clone", None)]);
}

#[test]
fn ids_are_uuids_that_stay() {
    let ids = |text: &str| parse(text).unwrap().tables().map(|table| table.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(FILE), ids(FILE));
    assert!(ids(FILE).iter().all(|id| Uuid::parse_str(id).is_ok()));
}

#[test]
fn settings_of_the_reference_server() {
    let file = parse(FILE).unwrap();
    assert_eq!((file.endpoint.as_deref(), file.url_ttl_seconds), (Some("/delta-sharing"), Some(900)));
    assert_eq!(file.without_effect, ["host", "port", "queryTablePageSizeLimit"]);
    assert!(parse("version: 1\nrefreshTokenTtlMs:\n").unwrap().without_effect.is_empty());
    let every = "version: 1
temporaryCredentialValiditySeconds: 1
deltaTableCacheSize: 1
stalenessAcceptable: false
evaluatePredicateHints: true
evaluateJsonPredicateHints: true
evaluateJsonPredicateHintsV2: true
requestTimeoutSeconds: 1
queryTablePageTokenTtlMs: 1
refreshTokenTtlMs: 1
";
    assert_eq!(parse(every).unwrap().without_effect.len(), 9);
}

#[tokio::test]
async fn a_file_is_public_only_if_it_says_so_or_says_nothing() {
    for (text, access) in [
        ("", Access::Unsaid),
        ("authorization: none\n", Access::Everyone),
        ("authorization: 'none'\n", Access::Everyone),
        ("recipients: []\n", Access::Tokens),
        ("recipients:\n", Access::Tokens),
        ("recipients: ~\n", Access::Tokens),
        ("recipients:\n# - name: acme\n#   shares: [s]\n", Access::Tokens),
        ("authorization:\n", Access::Tokens),
        ("authorization: null\n", Access::Tokens),
        ("authorization:\n#  bearerToken: x\n", Access::Tokens),
        ("authorization:\nrecipients:\n", Access::Tokens),
        ("recipients:\n- {name: r, shares: , tokens: }\n", Access::Tokens),
    ] {
        let file = parse(&format!("version: 1\nshares:\n- name: s\n{text}")).unwrap();
        assert_eq!(file.access(), access, "{text}");
        let catalog = ShareFileCatalog::new(file);
        assert_eq!(catalog.anonymous().await.unwrap().is_some(), access != Access::Tokens, "{text}");
    }
}

#[test]
fn an_empty_key_never_gives_more_than_a_missing_one() {
    let table = |line: &str| {
        format!(
            "recipients: []\nshares:\n- name: s\n  schemas:\n  - name: c\n    tables:\n    - name: t\n      location: x\n      {line}\n"
        )
    };
    let recipient = |lines: &str| format!("shares: []\nrecipients:\n- name: r\n  tokens:\n  - {{{lines}}}\n");
    for (text, reason) in [
        ("authorization:\n  bearerToken:\n".to_owned(), "bearerToken has no value"),
        ("authorization:\n  bearerToken: ''\n".to_owned(), "fewer than 32"),
        ("authorization: {}\n".to_owned(), "must have the key bearerToken"),
        ("authorization: everyone\n".to_owned(), "the word none"),
        ("authorization: []\n".to_owned(), ""),
        ("authorization: true\n".to_owned(), ""),
        ("authorization: none\nrecipients: []\n".to_owned(), "Remove one of the two"),
        ("authorization: none\nrecipients:\n".to_owned(), "Remove one of the two"),
        ("recipients: []\nssl:\n".to_owned(), "plain HTTP"),
        ("recipients: []\npreSignedUrlTimeoutSeconds:\n".to_owned(), "has no value"),
        (table("startVersion:"), "startVersion has no value"),
        (table("signerRole:"), "signerRole has no value"),
        (table("historyShared:"), ""),
        (table("location:"), ""),
        (recipient("sha256: , expires: never"), "null"),
        (recipient(&format!("sha256: {}, expires: ", "a".repeat(64))), "null"),
        (recipient(&format!("sha256: {}", "a".repeat(64))), "expires"),
        (recipient(&format!("sha256: {}, expires: never", TokenHash::of("").to_hex())), "empty text"),
    ] {
        let error = parse(&format!("version: 1\n{text}")).err();
        let error = error.unwrap_or_else(|| panic!("taken: {text}"));
        assert!(error.to_string().contains(reason), "{error}\n{text}");
    }
}

#[tokio::test]
async fn the_tokens_of_a_disabled_recipient_are_as_good_as_none() {
    let hash = TokenHash::of("secret");
    let file = |status: &str| {
        let token = format!("{{sha256: {}, id: laptop, expires: 2999-01-31}}", hash.to_hex());
        format!(
            "version: 1\nshares:\n- name: s\nrecipients:\n- name: r\n  shares: [s]\n{status}  tokens:\n  - {token}\n"
        )
    };
    for (status, known) in [("", true), ("  status: active\n", true), ("  status: disabled\n", false)] {
        let catalog = ShareFileCatalog::new(parse(&file(status)).unwrap());
        let caller = catalog.caller(hash).await.unwrap();
        assert_eq!(caller.is_some(), known, "{status}");
        if let Some(caller) = caller {
            assert_eq!(&*caller.token.id, "laptop");
            assert_eq!(caller.token.expires, expiry::parse("2999-01-31T00:00:00Z").unwrap());
        }
    }
    for (status, reason) in [("  status:\n", "has no value"), ("  status: off\n", "active or disabled")] {
        let error = parse(&file(status)).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn ids_of_tokens_are_unlike_each_other() {
    let token = |secret: &str, id: &str| {
        format!("  - {{sha256: {}, id: {id}, expires: never}}\n", TokenHash::of(secret).to_hex())
    };
    let file = |tokens: &str| format!("version: 1\nrecipients:\n- name: r\n  tokens:\n{tokens}");
    assert!(parse(&file(&(token("a", "x") + &token("b", "y")))).is_ok());
    let error = parse(&file(&(token("a", "laptop") + &token("b", "Laptop")))).unwrap_err().to_string();
    assert!(error.contains("two tokens of recipient 'r' have the id 'Laptop'"), "{error}");
}

#[test]
fn a_token_that_can_be_guessed_is_refused_and_not_repeated() {
    for length in [1, 31, 32, 64] {
        let token = "7".repeat(length);
        let parsed = parse(&format!("version: 1\nauthorization:\n  bearerToken: {token}\n"));
        match parsed {
            Ok(_) => assert!(length >= 32),
            Err(error) => {
                assert!(length < 32 && error.line == Some(3));
                assert!(error.to_string().contains("openssl rand") && !error.to_string().contains(&token));
            }
        }
    }
    let error = parse("version: 1\nauthorization: hunter2\n").unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[test]
fn a_bad_file_is_refused_with_line_and_reason() {
    let table = |lines: &str| {
        format!("version: 1\nshares:\n- name: s\n  schemas:\n  - name: c\n    tables:\n{lines}")
    };
    for (text, line, reason) in [
        ("version: 2\nshares: []\n".to_owned(), 1, "version must be 1"),
        ("version: 1\nrecipents: []\n".to_owned(), 2, "recipents"),
        ("version: 1\nssl:\n  selfSigned: true\n".to_owned(), 3, "plain HTTP"),
        ("version: 1\nshares:\n- name: a/b\n".to_owned(), 3, "slash"),
        ("version: 1\nshares:\n- name: a\n- name: A\n".to_owned(), 4, "twice"),
        (table("    - {name: t, location: s3://Lake/x}\n"), 7, "the bucket's name"),
        (table("    - {name: t.u, location: x}\n"), 7, "period"),
        (table("    - {name: t, location: x}\n    - {name: T, location: x}\n"), 8, "twice"),
        (table("    - {name: t, location: x, histryShared: true}\n"), 7, "histryShared"),
        (table("    - {name: t, location: x, startVersion: -1}\n"), 7, "negative"),
        ("version: 1\nrecipients:\n- name: r\n  shares: [missing]\n".to_owned(), 4, "not a share"),
        (
            "version: 1\nrecipients:\n- name: r\n  tokens:\n  - {sha256: x, expires: never}\n".to_owned(),
            5,
            "64 hexadecimal",
        ),
        (
            format!(
                "version: 1\nrecipients:\n- name: r\n  tokens:\n  - {{sha256: {}, expires: soon}}\n",
                "a".repeat(64)
            ),
            5,
            "never",
        ),
        ("version: 1\nshares: [\n".to_owned(), 3, ""),
    ] {
        let error = parse(&text).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}\n{text}");
        assert!(error.line.is_some_and(|at| at.abs_diff(line) <= 1), "{error} should be line {line}\n{text}");
    }
}

/// A file with a recipient of these lines, who can be granted the shares `s`, `2024` and `1e3`.
fn file_with_recipient(lines: &str) -> String {
    let schema = "schemas: [{name: c, tables: [{name: t, location: s3://lake/t}]}]";
    format!(
        "version: 1\nshares:\n- {{name: s, {schema}}}\n- name: 2024\n- name: '1e3'\nrecipients:\n- name: r\n{lines}"
    )
}

/// What a file says of its only recipient.
fn recipient_of(lines: &str) -> std::result::Result<RecipientState, ShareFileError> {
    let state = parse(&file_with_recipient(lines))?.state(&CatalogState::default());
    Ok(state.recipients["r"].clone())
}

#[test]
fn a_grant_is_a_name_or_a_name_with_a_filter() {
    let filtered = |text: &str| Some(PartitionFilter::parse(text).unwrap());
    for (lines, granted) in [
        ("  shares: [s, 2024, 1e3]\n", vec![("s", None), ("2024", None), ("1e3", None)]),
        ("  shares:\n  - name: S\n  - 1E3\n", vec![("s", None), ("1e3", None)]),
        ("  shares: [{name: s, filter: region = 'EU'}]\n", vec![("s", filtered("region = 'EU'"))]),
        (
            "  shares:\n  - name: 2024\n    filter: region = ${recipient.region}\n  - s\n",
            vec![("2024", filtered("region = ${recipient.region}")), ("s", None)],
        ),
        ("  shares: [&one 2024, *one]\n", vec![("2024", None)]),
        (
            "  shares:\n  - name: s\n    filter: >-\n      a = 'b'\n      OR c IS NULL\n",
            vec![("s", filtered("a = 'b' OR c IS NULL"))],
        ),
    ] {
        let granted = granted
            .into_iter()
            .map(|(name, filter)| (name.to_owned(), GrantState { tables: None, filter }))
            .collect();
        assert_eq!(recipient_of(lines).unwrap().shares, granted, "{lines}");
    }
}

#[test]
fn properties_are_texts_that_every_yaml_library_writes_the_same() {
    for (written, value) in [
        ("EU", "EU"),
        ("'07'", "07"),
        ("\"yes\"", "yes"),
        ("2024", "2024"),
        ("-1", "-1"),
        ("0", "0"),
        ("1.5", "1.5"),
        ("1.0", "1.0"),
        ("true", "true"),
        ("false", "false"),
        ("2024-05-01", "2024-05-01"),
        ("déjà vu", "déjà vu"),
        ("'null'", "null"),
        ("18446744073709551615", "18446744073709551615"),
    ] {
        let properties = recipient_of(&format!("  comment: déjà\n  properties: {{region: {written}}}\n"))
            .unwrap()
            .properties;
        assert_eq!(properties, [("region".to_owned(), value.to_owned())].into(), "{written}");
    }
    for written in [
        "yes",
        "No",
        "True",
        "07",
        "0x1F",
        "0o17",
        "1e3",
        "1_000",
        "1.10",
        ".5",
        "+1",
        "1.",
        "-0",
        "99999999999999999999",
    ] {
        let error = recipient_of(&format!("  properties:\n    a: b\n    region: {written}\n")).unwrap_err();
        assert_eq!(error.line, Some(10), "{error}");
        assert!(error.to_string().contains("put it in quotes"), "{written}: {error}");
    }
}

#[test]
fn a_filter_or_property_that_cannot_be_taken_is_refused_with_its_line() {
    let table = |lines: &str| {
        format!(
            "version: 1\nshares:\n- name: s\n  schemas:\n  - name: c\n    tables:\n    - name: t\n      location: s3://lake/t\n{lines}"
        )
    };
    for (text, line, reason) in [
        (table("      filter:\n"), 9, "filter has no value"),
        (table("      filter: ''\n"), 9, "filter: it is empty"),
        (table("      filter: ~\n"), 9, "filter has no value"),
        (table("      filter: region <> 'EU'\n"), 9, "'<>' is not allowed at this place"),
        (table("      filter: [region]\n"), 9, ""),
        (table("      filter: true\n"), 9, "filter: "),
        (table("      filters: region = 'EU'\n"), 9, "filters"),
        (
            table("      filter: region = 'EU'\n      historyShared: true\n      directoryAccess: true\n"),
            11,
            "the filter of the table leaves some out",
        ),
        (file_with_recipient("  shares: [{name: s, filter: }]\n"), 8, "filter has no value"),
        (file_with_recipient("  shares:\n  - name: s\n    filter: upper(a) = 'B'\n"), 10, "filter: "),
        (file_with_recipient("  shares:\n  - name: s\n    fliter: a = 'B'\n"), 10, "fliter"),
        (file_with_recipient("  shares: [{filter: a = 'B'}]\n"), 8, "name"),
        (
            file_with_recipient("  shares:\n  - name: x\n    filter: a = 'B'\n"),
            9,
            "which is not a share of this file",
        ),
        (
            file_with_recipient("  shares:\n  - s\n  - {name: S, filter: a = 'B'}\n"),
            10,
            "twice, with different filters",
        ),
        (file_with_recipient("  shares: [~]\n"), 8, "has no name"),
        (file_with_recipient("  shares: [[s]]\n"), 8, ""),
        (file_with_recipient("  properties:\n"), 8, "properties has no value"),
        (file_with_recipient("  properties: {region: }\n"), 8, "property region has no value"),
        (file_with_recipient("  properties: {region: ~}\n"), 8, "property region has no value"),
        (file_with_recipient("  properties:\n    region: ''\n"), 9, "property region has no value"),
        (file_with_recipient("  properties:\n    2nd: x\n"), 9, "the name of a property"),
        (file_with_recipient("  properties:\n    region: [EU, US]\n"), 9, ""),
        (file_with_recipient("  properties:\n    region: {a: b}\n"), 9, "property region is not a text"),
        (file_with_recipient("  properties: [region]\n"), 8, ""),
        (file_with_recipient("  properties:\n    region: EU\n    region: US\n"), 10, "region"),
        (
            file_with_recipient(&format!("  properties:\n    region: {}\n", "x".repeat(1025))),
            9,
            "more than 1024 bytes",
        ),
    ] {
        let error = parse(&text).err().unwrap_or_else(|| panic!("taken: {text}"));
        assert!(error.to_string().contains(reason), "{error}\n{text}");
        assert!(error.line.is_some_and(|at| at.abs_diff(line) <= 1), "{error} should be line {line}\n{text}");
    }
}

#[tokio::test]
async fn the_documented_file_with_filters_is_read() {
    let page = include_str!("../../../docs/share-file.md");
    let blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let files: Vec<_> = blocks.filter(|block| block.starts_with("version: 1")).collect();
    assert!(files.len() >= 2, "{files:?}");
    for file in &files {
        assert_eq!(parse(file).unwrap().missing_properties(), [], "{file}");
    }
    let file = files.iter().find(|file| file.contains("${recipient.region}")).unwrap();
    let catalog = ShareFileCatalog::new(parse(file).unwrap());
    for (recipient, table, filters) in [
        ("acme", "orders", vec!["region = ${recipient.region}"]),
        ("acme", "products", vec![]),
        ("globex", "orders", vec!["region = ${recipient.region}", "year IN (2025, 2026)"]),
        ("globex", "products", vec!["year IN (2025, 2026)"]),
    ] {
        let found = catalog.table(&by(recipient), "retail", "sales", table).await.unwrap().unwrap();
        let found: Vec<_> = found.access.filters().iter().map(PartitionFilter::text).collect();
        assert_eq!(found, filters, "{recipient} {table}");
    }
}
