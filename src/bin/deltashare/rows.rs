//! What is shown of records: their columns, and a row for each record.

use chrono::Utc;
use deltashare::catalog::diff::until;
use deltashare::catalog::dynamodb::{
    FoundPolicy, FoundToken, LIVE_TOKENS, ListedGrant, ListedRecipient, ListedSchema, ListedShare,
    ListedTable, WrittenValue,
};
use deltashare::catalog::expiry;
use deltashare::catalog::oidc::OidcPolicy;
use deltashare::check::TableCheck;

use super::output::Row;

/// What is shown of a share.
pub(crate) const SHARE: [&str; 4] = ["name", "id", "comment", "deleting"];

/// All that a table's record says.
pub(crate) const TABLE: [&str; 10] = [
    "schema",
    "name",
    "id",
    "location",
    "allowedLocations",
    "historyShared",
    "startVersion",
    "directoryAccess",
    "signerRole",
    "filter",
];

/// What is shown of a table in a list.
pub(crate) const LISTED_TABLE: [&str; 8] =
    ["schema", "name", "location", "historyShared", "startVersion", "directoryAccess", "filter", "id"];

/// What is shown of a table that was opened.
pub(crate) const OPENED_TABLE: [&str; 7] =
    ["schema", "name", "location", "version", "files", "bytes", "region"];

/// What is shown of a token.
pub(crate) const TOKEN: [&str; 6] = ["id", "expires", "created", "state", "sha256", "unusedLink"];

/// The same in a list of the tokens of several recipients.
pub(crate) const TOKEN_OF: [&str; 6] = ["recipient", "id", "expires", "created", "state", "sha256"];

/// What is shown of a recipient.
pub(crate) const RECIPIENT: [&str; 7] =
    ["name", "status", "comment", "properties", "allowedIps", "requestsPerMinute", "bytesPerDay"];

/// What is shown of an OIDC policy.
pub(crate) const OIDC_POLICY: [&str; 5] = ["id", "issuer", "subjectClaim", "subject", "audiences"];

/// What is shown of a recipient in a list.
pub(crate) const LISTED_RECIPIENT: [&str; 9] = [
    "name",
    "status",
    "shares",
    "tables",
    "liveTokens",
    "tokenLimit",
    "nextExpiry",
    "oidcPolicies",
    "comment",
];

fn text(text: impl Into<String>) -> WrittenValue {
    WrittenValue::Text(text.into())
}

fn number(number: Option<u64>) -> WrittenValue {
    number.map_or(WrittenValue::Nothing, |number| WrittenValue::Number(number.to_string()))
}

/// A row in the columns of [`SHARE`].
pub(crate) fn share(share: &ListedShare) -> Row {
    let ListedShare { name, id, comment, deleting } = share.clone();
    vec![name, id, comment, deleting]
}

/// The names of schemas.
pub(crate) fn schemas(schemas: Vec<ListedSchema>) -> Vec<Row> {
    schemas.into_iter().map(|schema| vec![schema.name]).collect()
}

/// Names of shares or recipients, and the tables and filters of the grants.
pub(crate) fn grants(grants: Vec<ListedGrant>) -> Vec<Row> {
    grants.into_iter().map(|grant| vec![grant.name, grant.tables, grant.filter]).collect()
}

/// Rows of tables in these columns of [`TABLE`].
pub(crate) fn tables(columns: &[&str], tables: &[ListedTable]) -> Vec<Row> {
    tables.iter().map(|record| table(columns, record)).collect()
}

/// A row in these columns of [`TABLE`].
pub(crate) fn table(columns: &[&str], table: &ListedTable) -> Row {
    let cell = |column: &&str| match *column {
        "schema" => &table.schema,
        "name" => &table.name,
        "id" => &table.id,
        "location" => &table.location,
        "allowedLocations" => &table.allowed_locations,
        "historyShared" => &table.history_shared,
        "startVersion" => &table.start_version,
        "directoryAccess" => &table.directory_access,
        "signerRole" => &table.signer_role,
        "filter" => &table.filter,
        _ => &WrittenValue::Nothing,
    };
    columns.iter().map(cell).cloned().collect()
}

/// A row in the columns of [`OPENED_TABLE`].
pub(crate) fn opened_table(table: &ListedTable, found: TableCheck) -> Row {
    vec![
        table.schema.clone(),
        table.name.clone(),
        table.location.clone(),
        number(found.version),
        number(found.files),
        number(found.bytes),
        found.region.map_or(WrittenValue::Nothing, WrittenValue::Text),
    ]
}

/// A row in the columns of [`TOKEN`].
pub(crate) fn token(token: &FoundToken) -> Row {
    let state = match (token.is_known, token.is_live(Utc::now())) {
        (true, true) => "live",
        (true, false) => "ended",
        (false, _) if token.fault.is_some() => "unreadable",
        (false, _) => "not in force",
    };
    let expires = if token.fault.is_some() { String::new() } else { expiry::format(token.expires) };
    let hash = token.hash.map_or_else(String::new, |hash| hash.short().to_string());
    // One that has expired may still have its record.
    let link = token.link.as_ref().and_then(|link| link.expires).filter(|expires| *expires > Utc::now());
    let link = link.map_or(WrittenValue::Nothing, |end| text(until(Some(end))));
    vec![text(&token.id), text(expires), text(&token.created), text(state), text(hash), link]
}

/// A row in the columns of [`TOKEN_OF`].
pub(crate) fn token_of(recipient: &ListedRecipient, of: &FoundToken) -> Row {
    let name = recipient.name.clone().or(|| text(&recipient.name_in_key));
    std::iter::once(name).chain(token(of)).collect()
}

/// The patterns of the grants that are not of a whole share, as `SHARE.SCHEMA.TABLE`.
fn granted_tables(recipient: &ListedRecipient) -> WrittenValue {
    let mut named: Vec<String> = Vec::new();
    for grant in &recipient.shares {
        if let WrittenValue::List(patterns) = &grant.tables {
            named.extend(patterns.iter().map(|pattern| format!("{}.{}", grant.name.text(), pattern.text())));
        }
    }
    named.sort_unstable();
    if named.is_empty() {
        WrittenValue::Nothing
    } else {
        WrittenValue::List(named.into_iter().map(text).collect())
    }
}

/// A row in the columns of [`RECIPIENT`].
pub(crate) fn recipient(recipient: &ListedRecipient) -> Row {
    vec![
        recipient.name.clone(),
        recipient.status.clone(),
        recipient.comment.clone(),
        recipient.properties.clone(),
        recipient.allowed_ips.clone(),
        recipient.requests_per_minute.clone(),
        recipient.bytes_per_day.clone(),
    ]
}

/// A row in the columns of [`OIDC_POLICY`].
pub(crate) fn oidc_policy(found: &FoundPolicy) -> Row {
    let OidcPolicy { issuer, subject_claim, subject, audiences } = &found.policy;
    let audiences = WrittenValue::List(audiences.iter().map(text).collect());
    vec![text(found.policy.id()), text(issuer), text(subject_claim), text(subject), audiences]
}

/// A row in the columns of [`LISTED_RECIPIENT`].
pub(crate) fn listed_recipient(recipient: &ListedRecipient) -> Row {
    let now = Utc::now();
    let live: Vec<_> = recipient.tokens.iter().filter(|token| token.is_live(now)).collect();
    let next = live.iter().filter_map(|token| token.expires).min();
    let next = if live.is_empty() { String::new() } else { expiry::format(next) };
    let mut shares: Vec<&str> = recipient.shares.iter().map(|grant| grant.name.text()).collect();
    shares.sort_unstable();
    vec![
        recipient.name.clone().or(|| text(&recipient.name_in_key)),
        recipient.status.clone(),
        WrittenValue::List(shares.into_iter().map(text).collect()),
        granted_tables(recipient),
        number(Some(live.len() as u64)),
        number(Some(LIVE_TOKENS as u64)),
        text(next),
        number(Some(recipient.oidc_policies.len() as u64).filter(|&count| count > 0)),
        recipient.comment.clone(),
    ]
}
