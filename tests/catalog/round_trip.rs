//! `export` and then `apply` into an empty table, for catalogs at random as scripts may write them: the same catalog, for
//! its administrator and for every token, or a refusal that names the record.

use aws_sdk_dynamodb::primitives::Blob;
use deltashare::catalog::TableRecord;
use deltashare::catalog::dynamodb::CatalogContents;
use deltashare::catalog::expiry;
use deltashare::catalog::state::CatalogState;

use super::*;

/// A source of catalogs: SplitMix64. `ROUND_TRIP_SEED` repeats a run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((bits ^ (bits >> 31)) % end.max(1) as u64).unwrap()
    }

    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// A few of them, in another order.
    fn some<'a, T>(&mut self, items: &'a [T], most: usize) -> Vec<&'a T> {
        let mut left: Vec<&T> = items.iter().collect();
        (0..self.below(most + 1).min(items.len())).map(|_| left.remove(self.below(left.len()))).collect()
    }
}

/// Texts that YAML, keys or shells could take for something else.
const TEXTS: [&str; 22] = [
    "Retail Data",
    "日本 Ümlaut",
    "a#b%20c",
    "null",
    "~",
    "1e3",
    "0x1F",
    "it's",
    "\"quoted\"",
    "yes",
    "a: b",
    "- x",
    "# c",
    "{a}",
    "[b]",
    "2027-01-01",
    "&anchor",
    "*alias",
    "!tag",
    "%25",
    "|",
    "İstanbul",
];

const ENDS: [&str; 9] = [
    "never",
    "2999-01-31T12:00:00Z",
    "2999-01-31",
    "2999-01-31T12:00:00.123456789+01:00",
    "2999-01-31 12:00",
    "2999-01-31T12:00:00+0200",
    "2001-01-31",
    "2001-01-31T12:00:00.5Z",
    "2001-01-31T12:00Z",
];

/// Filters with whatever YAML could take for something else.
const FILTERS: [&str; 9] = [
    "region = 'EU'",
    "region = ${recipient.region}",
    "  `a: b` LIKE '%# c'  ",
    "\"- x\" IS NULL OR year IN (2024, ${recipient.year})",
    "region = 'O''Brien: \"x\"' AND day = DATE '2024-05-01'",
    "region =\n  'EU'\n  OR region = '日本 {a} [b]'",
    "(open = TRUE)",
    "x = 'y'",
    "price = -1.50\tOR region = '\t'",
];

type Record = (Key, HashMap<String, AttributeValue>);

fn text(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

fn record<const N: usize>(key: Key, attributes: [(&str, AttributeValue); N]) -> Record {
    (key, attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Adds an attribute that may be left out, be there with nothing, or be there.
fn maybe(random: &mut Random, record: &mut Record, name: &str, value: AttributeValue) {
    match random.below(3) {
        0 => {}
        1 if name != "comment" => _ = record.1.insert(name.to_owned(), AttributeValue::Null(true)),
        _ => _ = record.1.insert(name.to_owned(), value),
    }
}

/// The records of a catalog, and the tokens that are in it.
fn catalog(random: &mut Random) -> (Vec<Record>, Vec<String>) {
    let mut records = Vec::new();
    let mut shares = Vec::new();
    for name in random.some(&TEXTS, 3) {
        shares.push(*name);
        let mut share = record(Key::share(name), [("name", text(*name)), ("id", text(*random.of(&TEXTS)))]);
        let comment =
            *random.of(&["several\nlines\n", "  spaces ", "", "null", "déjà vu", "tab\t: and # more"]);
        maybe(random, &mut share, "comment", text(comment));
        if random.once_in(8) {
            share.1.insert("deleting".to_owned(), AttributeValue::Bool(true));
        }
        records.push(share);
        for schema in random.some(&TEXTS, 3) {
            records.push(record(Key::schema(name, schema), [("name", text(*schema))]));
            for table in random.some(&TEXTS, 3) {
                let made = table_record(random, name, schema, table);
                records.push(made);
            }
        }
    }
    let mut tokens = Vec::new();
    for (number, name) in random.some(&TEXTS, 3).into_iter().enumerate() {
        let status = *random.of(&["active", "active", "disabled"]);
        let mut recipient = record(Key::recipient(name), [("name", text(*name)), ("status", text(status))]);
        let comment = *random.of(&TEXTS);
        maybe(random, &mut recipient, "comment", text(comment));
        let names = random.some(&["region", "year", "_x1"], 3).into_iter();
        let properties = names.map(|name| ((*name).to_owned(), text(*random.of(&TEXTS)))).collect();
        maybe(random, &mut recipient, "properties", AttributeValue::M(properties));
        restricted(random, &mut recipient);
        records.push(recipient);
        for share in random.some(&[shares.as_slice(), &["a share that is not there"]].concat(), 3) {
            let attributes = || [("share", text(*share)), ("recipient", text(*name))];
            let mut grant = record(Key::grant(name, share), attributes());
            filtered(random, &mut grant);
            records.push(grant);
            if !random.once_in(4) {
                records.push(record(Key::granted_to(share, name), attributes()));
            }
        }
        token_records(random, name, number, &mut tokens, &mut records);
    }
    (records, tokens)
}

/// The address that requests come from.
const ALLOWED: &str = "203.0.113.200";

/// Gives a recipient restrictions, or none. A script may have left the format as it was.
fn restricted(random: &mut Random, record: &mut Record) {
    let before = record.1.len();
    if random.once_in(3) {
        let ranges = ["203.0.113.0/24", "198.51.100.7", "::ffff:192.0.2.1", "2001:db8::/32", "0.0.0.0/0"];
        let mut ranges: Vec<_> =
            random.some(&ranges, 4).into_iter().map(|range| (*range).to_owned()).collect();
        ranges.push(ALLOWED.to_owned());
        let value = match random.once_in(2) {
            true => AttributeValue::Ss(ranges),
            false => AttributeValue::L(ranges.into_iter().map(AttributeValue::S).collect()),
        };
        record.1.insert("allowedIps".to_owned(), value);
    }
    for (name, numbers) in
        [("requestsPerMinute", ["60", "600", "60000"]), ("bytesPerDay", ["1", "10000000000", "1073741825"])]
    {
        if random.once_in(3) {
            record.1.insert(name.to_owned(), AttributeValue::N((*random.of(&numbers)).to_owned()));
        }
    }
    if record.1.len() > before && random.once_in(2) {
        record.1.insert("format".to_owned(), AttributeValue::N("2".to_owned()));
    }
}

/// Gives a record a filter, or none. A script may have left the format as it was.
fn filtered(random: &mut Random, record: &mut Record) {
    if random.once_in(2) {
        record.1.insert("filter".to_owned(), text(*random.of(&FILTERS)));
        if random.once_in(2) {
            record.1.insert("format".to_owned(), AttributeValue::N("2".to_owned()));
        }
    }
}

fn table_record(random: &mut Random, share: &str, schema: &str, table: &str) -> Record {
    let location = format!("{}lake/{}", random.of(&["s3://", "s3a://", "S3N://"]), random.below(1000));
    let location = location + *random.of(&["", "/", "//"]);
    let attributes = [
        ("name", text(table)),
        ("schema", text(schema)),
        ("id", text(*random.of(&TEXTS))),
        ("location", text(location)),
    ];
    let mut made = record(Key::table(share, schema, table), attributes);
    if random.once_in(4) {
        made.1.insert("historyShared".to_owned(), AttributeValue::Bool(true));
        made.1.insert("directoryAccess".to_owned(), AttributeValue::Bool(true));
    } else {
        let places = || vec!["s3://lake/b".to_owned(), "s3a://lake/a/".to_owned()];
        let set = AttributeValue::Ss(places());
        let list = AttributeValue::L(places().into_iter().map(AttributeValue::S).collect());
        let places = random.of(&[set, list, AttributeValue::L(Vec::new())]).clone();
        maybe(random, &mut made, "allowedLocations", places);
        let shared = random.once_in(2);
        maybe(random, &mut made, "historyShared", AttributeValue::Bool(shared));
        let start = random.below(1000).to_string();
        maybe(random, &mut made, "startVersion", AttributeValue::N(start));
        maybe(random, &mut made, "directoryAccess", AttributeValue::Bool(false));
        filtered(random, &mut made);
    }
    maybe(random, &mut made, "signerRole", text("arn:aws:iam::123456789012:role/path/reader"));
    made
}

/// Tokens of a recipient, two of them live at most, with both of their records or one.
fn token_records(
    random: &mut Random,
    recipient: &str,
    number: usize,
    tokens: &mut Vec<String>,
    records: &mut Vec<Record>,
) {
    let mut live = 0;
    for at in 0..random.below(4) {
        let ends = if live < 2 { &ENDS[..] } else { &ENDS[6..] };
        let end = *random.of(ends);
        live += usize::from(end.starts_with('n') || end.starts_with("29"));
        let token = format!("dss_{number}_{at}");
        let id = format!("{}-{at}", random.of(&TEXTS));
        let owner = if random.once_in(8) { recipient.to_uppercase() } else { recipient.to_owned() };
        let mut own = record(
            Key::token(TokenHash::of(&token)),
            [("recipient", text(owner)), ("expires", text(end)), ("id", text(&id))],
        );
        if random.once_in(4) {
            own.1.remove("id");
        }
        if !random.once_in(4) {
            own.1.insert("created".to_owned(), text(format!("2026-01-0{}T00:00:00Z", at + 1)));
        }
        let key = match random.below(3) {
            // As a script writes it that does not know of keys.
            0 => Key { sort: format!("TOKEN#{id}"), ..Key::token_of(recipient, &id) },
            _ => Key::token_of(recipient, &id),
        };
        let hash = TokenHash::of(&token).to_hex();
        let hash = if random.once_in(3) { hash.to_uppercase() } else { hash };
        let mut listed = own.1.clone();
        listed.insert("sha256".to_owned(), text(hash));
        let left_out = random.below(8);
        if left_out != 0 {
            records.push(own);
        }
        if left_out != 1 {
            records.push((key, listed));
        }
        tokens.push(token);
    }
}

/// Makes one record unreadable.
fn spoil(random: &mut Random, records: &mut [Record]) -> Option<String> {
    let readable: Vec<usize> =
        (0..records.len()).filter(|at| !records[*at].0.sort.starts_with("GRANT#")).collect();
    let (key, attributes) = &mut records[*readable.get(random.below(readable.len()))?];
    let wrong = AttributeValue::B(Blob::new([1]));
    let (name, value) = match key.sort.split('#').next()? {
        "TABLE" => random
            .of(&[
                ("signerRole", text("me")),
                ("startVersion", text("1")),
                ("historyShared", text("true")),
                ("allowedLocations", AttributeValue::L(vec![AttributeValue::N("1".to_owned())])),
                ("location", wrong.clone()),
                ("name", text("other")),
                ("filter", text("")),
                ("filter", AttributeValue::Null(true)),
                ("filter", text("region <> 'EU'")),
            ])
            .clone(),
        "TOKEN" => random
            .of(&[("expires", text("soon")), ("expires", wrong.clone()), ("recipient", text(""))])
            .clone(),
        "RECIPIENT" => random
            .of(&[
                ("status", text("Active")),
                ("name", text("other")),
                ("properties", text("region=EU")),
                ("allowedIps", AttributeValue::L(Vec::new())),
                ("allowedIps", AttributeValue::Ss(vec!["203.0.113.7/24".to_owned()])),
                ("requestsPerMinute", AttributeValue::N("0".to_owned())),
                ("bytesPerDay", text("10GB")),
            ])
            .clone(),
        _ => ("format", AttributeValue::N("3".to_owned())),
    };
    // The list of a recipient's tokens has the recipient in its key.
    let (name, value) = if key.partition.starts_with("RECIPIENT") && name == "recipient" {
        ("sha256", wrong)
    } else {
        (name, value)
    };
    attributes.insert(name.to_owned(), value);
    Some(key.sort.clone())
}

async fn fill(engine: &Engine, records: &[Record]) {
    for (key, attributes) in records {
        let attributes: Vec<_> =
            attributes.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        engine.put(key, &attributes).await;
    }
}

/// What a share file says of a catalog, read back.
fn exported(state: &CatalogState) -> CatalogState {
    let text = serde_saphyr::to_string(&state.to_share_file()).unwrap();
    let file = ShareFile::parse(&text, None);
    file.unwrap_or_else(|error| panic!("{error}\n{text}")).state(&CatalogState::default())
}

/// Everything that a token shows its holder; `None` if it is refused.
async fn view(catalog: &DynamoDbCatalog, token: &str) -> Option<String> {
    let caller = catalog.caller(TokenHash::of(token)).await.unwrap()?;
    // One of an address that every list has.
    let caller = caller.at_address(ALLOWED.parse().ok());
    let shares = match catalog.shares(&caller, all()).await {
        Ok(page) => page.items,
        Err(error) => {
            assert_eq!(error.code(), ErrorCode::Unauthenticated);
            return None;
        }
    };
    let mut seen = format!("{} {} {:?}\n", caller.recipient(), caller.token.id, caller.token.expires);
    for share in shares {
        let schemas =
            catalog.schemas(&caller, share.name.as_str(), all()).await.unwrap().unwrap().schemas.items;
        let tables = catalog.tables(&caller, share.name.as_str(), None, all()).await.unwrap().unwrap().items;
        let tables: Vec<_> = tables
            .into_iter()
            .map(|table| TableRecord { settings: table.settings.canonical(), ..table })
            .collect();
        seen.push_str(&format!("{share:?} {schemas:?} {tables:?}\n"));
    }
    Some(seen.to_lowercase())
}

/// Leaves out when tokens were made, where the first catalog does not say it: `apply` then says when it was.
fn comparable(state: &CatalogState, first: &CatalogState) -> CatalogState {
    let mut state = state.clone();
    for (name, recipient) in &mut state.recipients {
        for (hash, token) in &mut recipient.tokens {
            let first = first.recipients.get(name).and_then(|recipient| recipient.tokens.get(hash));
            if first.is_some_and(|first| first.created.is_none()) {
                token.created = None;
            }
        }
    }
    state
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_is_applied_to_an_empty_table_gives_the_same_catalog_or_is_refused() {
    let seed = std::env::var("ROUND_TRIP_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = seed.map_or(0..60, |seed| seed..seed + 1);
    let (mut refused, mut copied, mut tokens_seen) = (0, 0, 0);
    for seed in seeds {
        let mut random = Random(seed);
        let (mut records, tokens) = catalog(&mut random);
        let spoiled = if random.once_in(4) { spoil(&mut random, &mut records) } else { None };
        let original = Engine::start().await;
        fill(&original, &records).await;
        let CatalogContents { state, bad, unwritable, .. } = original.writer().read().await.unwrap();
        if let Some(spoiled) = spoiled {
            assert!(
                bad.iter().any(|bad| bad.sort == spoiled),
                "seed {seed}: {spoiled} is taken for good, {bad:?}"
            );
            refused += 1;
            continue;
        }
        assert!(bad.is_empty() && unwritable.is_empty(), "seed {seed}: {bad:?} {unwritable:?}");

        let file = exported(&state);
        assert_eq!(file, state, "seed {seed}");
        let copy = Engine::start().await;
        for change in CatalogState::default().changes_to(&file) {
            let applied = copy.writer().apply(&change).await;
            applied.unwrap_or_else(|error| panic!("seed {seed}: {change}: {error}"));
        }
        let after = copy.writer().read().await.unwrap();
        assert_eq!(comparable(&after.state, &state), state, "seed {seed}");
        assert!(
            after.bad.is_empty() && after.unwritable.is_empty() && after.unpaired.is_empty(),
            "seed {seed}"
        );
        assert_eq!(after.state.changes_to(&file), [], "seed {seed}");
        for token in tokens {
            let seen = view(&original.catalog(), &token).await;
            tokens_seen += usize::from(seen.is_some());
            assert_eq!(view(&copy.catalog(), &token).await, seen, "seed {seed}, {token}");
        }
        copied += 1;
    }
    assert!(
        seed.is_some() || (refused > 5 && copied > 30 && tokens_seen > 30),
        "{refused} {copied} {tokens_seen}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_script_left_half_done_is_named_and_never_becomes_a_permission() {
    let engine = Engine::start().await;
    let share = |name: &str| record(Key::share(name), [("name", text(name)), ("id", text("i"))]);
    let token = |of: &str, token: &str, end: &str| {
        record(
            Key::token(TokenHash::of(token)),
            [("recipient", text(of)), ("id", text(token)), ("expires", text(end))],
        )
    };
    let listed = |of: &str, token: &str, end: &str| {
        let sha256 = TokenHash::of(token).to_hex();
        record(
            Key::token_of(of, token),
            [("id", text(token)), ("expires", text(end)), ("sha256", text(sha256))],
        )
    };
    let mut early = token("acme", "early", "2999-01-31");
    early.1.insert(expiry::DELETE_AFTER.to_owned(), AttributeValue::N("1".to_owned()));
    let records = [
        share("retail"),
        record(Key::recipient("acme"), [("name", text("acme")), ("status", text("active"))]),
        record(Key::grant("acme", "retail"), [("share", text("retail")), ("recipient", text("acme"))]),
        record(Key::grant("acme", "gone"), [("share", text("gone")), ("recipient", text("acme"))]),
        record(
            Key::granted_to("retail", "globex"),
            [("share", text("retail")), ("recipient", text("globex"))],
        ),
        record(Key::schema("nowhere", "s"), [("name", text("s"))]),
        token("acme", "unlisted", "never"),
        token("nobody", "lost", "never"),
        listed("acme", "revoked", "never"),
        listed("acme", "past", "2001-01-31"),
        token("acme", "two ends", "2999-01-31"),
        listed("acme", "two ends", "2999-02-01"),
        early,
        listed("acme", "early", "2999-01-31"),
    ];
    fill(&engine, &records).await;
    let CatalogContents { state, bad, unwritable, unpaired } = engine.writer().read().await.unwrap();
    assert!(bad.is_empty() && unwritable.is_empty(), "{bad:?} {unwritable:?}");
    let acme = &state.recipients["acme"];
    assert_eq!(
        acme.shares,
        [("retail".to_owned(), deltashare::catalog::grant::GrantState::default())].into()
    );
    let mut tokens: Vec<_> = acme.tokens.values().map(|token| token.id.as_str()).collect();
    tokens.sort_unstable();
    assert_eq!(tokens, ["early", "two ends", "unlisted"]);
    let unpaired: Vec<_> = unpaired.iter().map(ToString::to_string).collect();
    for reason in [
        "the grant record RECIPIENT#acme SHARE#gone belongs to a share that has no record",
        "the grant record RECIPIENT#acme SHARE#retail is in force, but its share does not list it",
        "the listed grant record SHARE#retail GRANT#globex lists a grant that is not in force",
        "the schema record SHARE#nowhere SCHEMA#s belongs to a share that has no record",
        "works, but is not in the list of its recipient's tokens",
        "belongs to a recipient that has no record, so it does not work",
        "the listed token record RECIPIENT#acme TOKEN#revoked lists a token that does not work",
        "expires at another time than the list of its recipient's tokens says",
        "has a deleteAfter before it expires, so DynamoDB deletes it while it is valid",
    ] {
        assert_eq!(
            unpaired.iter().filter(|found| found.contains(reason)).count(),
            1,
            "{reason}: {unpaired:#?}"
        );
    }
    assert_eq!(unpaired.len(), 9, "{unpaired:#?}");

    // What a file cannot say is refused rather than changed.
    let table =
        [("name", text("t")), ("schema", text("none")), ("id", text("i")), ("location", text("s3://lake/t"))];
    fill(&engine, &[record(Key::table("retail", "none", "t"), table)]).await;
    fill(&engine, &[token("acme", "EARLY", "never")]).await;
    let unwritable = engine.writer().read().await.unwrap().unwritable;
    let unwritable: Vec<_> = unwritable.iter().map(|record| record.reason.as_str()).collect();
    assert_eq!(unwritable.len(), 2, "{unwritable:?}");
    assert!(unwritable.iter().any(|reason| reason.contains("is in a schema that has no record")));
    assert!(unwritable.iter().any(|reason| reason.contains("as another token of its recipient has")));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_token_is_found_ended_and_deleted_however_a_script_wrote_it() {
    let engine = Engine::start().await;
    let writer = engine.writer();
    let recipient = record(Key::recipient("acme"), [("name", text("acme")), ("status", text("active"))]);
    fill(&engine, &[recipient]).await;
    let hash = |token: &str| TokenHash::of(token);
    let own = |token: &str, id: &str| {
        record(
            Key::token(hash(token)),
            [("recipient", text("ACME")), ("id", text(id)), ("expires", text("2999-01-31"))],
        )
    };
    let listed = |id: &str, sort: &str, sha256: String| {
        let key = Key { sort: format!("TOKEN#{sort}"), ..Key::recipient("acme") };
        record(key, [("id", text(id)), ("expires", text("2999-01-31")), ("sha256", text(sha256))])
    };
    let records = [
        own("dss_a", "Laptop"),
        listed("Laptop", "Laptop", hash("dss_a").to_hex().to_uppercase()),
        own("dss_b", "unlisted"),
        own("dss_c", "same"),
        own("dss_d", "same"),
    ];
    fill(&engine, &records).await;
    let ids = async || {
        let tokens = engine.writer().tokens("Acme").await.unwrap();
        let mut ids: Vec<_> = tokens.into_iter().map(|token| token.id).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids().await, ["Laptop", "same", "same", "unlisted"]);
    for id in ["Laptop", "unlisted"] {
        writer.revoke_token("acme", id).await.unwrap();
    }
    let refused = writer.revoke_token("acme", "same").await.unwrap_err().to_string();
    assert!(refused.contains(&hash("dss_c").to_hex()[..8]) && refused.contains("2 tokens"), "{refused}");
    writer.revoke_token("acme", &hash("dss_c").to_hex()[..10]).await.unwrap();
    for (token, known) in [("dss_a", false), ("dss_b", false), ("dss_c", false), ("dss_d", true)] {
        assert_eq!(engine.catalog().caller(hash(token)).await.unwrap().is_some(), known, "{token}");
    }
    assert_eq!(ids().await, ["same"]);

    // A rotation ends it although no list has it, and says when DynamoDB may delete it.
    let new = deltashare::catalog::dynamodb::NewToken {
        id: "new".to_owned(),
        hash: hash("dss_new"),
        expires: None,
        created: None,
        activation: None,
    };
    let ends = writer.rotate_token("acme", &new, chrono::TimeDelta::hours(1)).await.unwrap();
    assert_eq!(ends.len(), 1);
    let item = |key: Key| async {
        let text = |text: String| AttributeValue::S(text);
        let get = engine.client.get_item().table_name(&engine.table);
        let get = get.key(PARTITION, text(key.partition)).key(SORT, text(key.sort));
        get.send().await.unwrap().item
    };
    let old = item(Key::token(hash("dss_d"))).await.unwrap();
    assert_eq!(old["expires"], text(expiry::format(Some(ends[0].end))));
    let deleted = ends[0].end.timestamp() + 90 * 24 * 3600;
    assert_eq!(old[expiry::DELETE_AFTER], AttributeValue::N(deleted.to_string()));
    for key in [Key::token(hash("dss_new")), Key::token_of("acme", "new")] {
        assert!(
            !item(key).await.unwrap().contains_key(expiry::DELETE_AFTER),
            "a token without an end would be deleted"
        );
    }

    writer.delete_recipient("acme").await.unwrap();
    for token in ["dss_d", "dss_new"] {
        assert!(engine.catalog().caller(hash(token)).await.unwrap().is_none(), "{token}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_to_live_longer_is_not_deleted_before() {
    let engine = Engine::start().await;
    let writer = engine.writer();
    let file = |expires: &str| {
        let hash = TokenHash::of("dss_a").to_hex();
        let text = format!(
            "version: 1\nrecipients:\n- name: acme\n  tokens:\n  - {{sha256: {hash}, expires: {expires}}}\n"
        );
        ShareFile::parse(&text, None).unwrap()
    };
    for (expires, deleted) in [
        ("2999-01-31", Some(expiry::delete_after(expiry::parse("2999-01-31").unwrap()).unwrap())),
        ("never", None),
        ("2998-01-31", Some(expiry::delete_after(expiry::parse("2998-01-31").unwrap()).unwrap())),
    ] {
        let now = writer.read().await.unwrap().state;
        for change in now.changes_to(&file(expires).state(&now)) {
            writer.apply(&change).await.unwrap();
        }
        let after = writer.read().await.unwrap();
        assert!(after.unpaired.is_empty(), "{:?}", after.unpaired);
        let items = engine.client.scan().table_name(&engine.table).send().await.unwrap().items.unwrap();
        let tokens: Vec<_> = items.iter().filter(|item| item.contains_key("expires")).collect();
        assert_eq!(tokens.len(), 2);
        for token in tokens {
            let found =
                token.get(expiry::DELETE_AFTER).map(|value| value.as_n().unwrap().parse::<i64>().unwrap());
            assert_eq!(found, deleted, "{expires}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_file_leaves_out_stays_as_it_is() {
    let engine = Engine::start().await;
    let writer = engine.writer();
    let records = [
        record(
            Key::share("Retail"),
            [("name", text("Retail")), ("id", text("share-id")), ("comment", text("kept"))],
        ),
        record(Key::schema("Retail", "s"), [("name", text("s"))]),
        record(
            Key::table("Retail", "s", "t"),
            [
                ("name", text("t")),
                ("schema", text("s")),
                ("id", text("table-id")),
                ("location", text("s3a://lake/t/")),
            ],
        ),
        record(
            Key::recipient("acme"),
            [("name", text("acme")), ("status", text("disabled")), ("comment", text("left us"))],
        ),
    ];
    fill(&engine, &records).await;
    let changes = async |text: &str| {
        let now = writer.read().await.unwrap().state;
        let file = ShareFile::parse(text, None).unwrap();
        let changes = now.changes_to(&file.state(&now));
        changes.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let file = |share: &str, table: &str, recipient: &str| {
        format!(
            "version: 1\nshares:\n- name: retail\n{share}  schemas:\n  - name: s\n    tables:\n    - name: t\n      location: s3://lake/t\n\
             {table}recipients:\n- name: acme\n{recipient}"
        )
    };
    assert_eq!(changes(&file("", "", "")).await, Vec::<String>::new());
    assert_eq!(
        changes(&file(
            "  id: other\n  comment: new\n",
            "      id: other\n",
            "  status: active\n  comment: ''\n"
        ))
        .await,
        [
            "~ share retail: id share-id -> other",
            "~ share retail: comment \"kept\" -> \"new\"",
            "~ table retail.s.t: id table-id -> other",
            "~ recipient acme: comment \"left us\" -> none",
            "~ recipient acme: status disabled -> active",
        ]
    );
}
