//! The commands that change what is shared, and with whom: records in DynamoDB.

use std::io::IsTerminal as _;

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::Utc;
use deltashare::catalog::TableSettings;
use deltashare::catalog::expiry;
use deltashare::catalog::keys::{self, Key};
use deltashare::catalog::records::Item;
use deltashare::catalog::state::{Change, State, TableState, until};
use deltashare::catalog::writer::{FoundToken, LIVE_TOKENS, ListedRecipient, Missing, WriteError, Writer};
use deltashare::check::{self, Reader};
use deltashare::location::WrittenLocation;
use deltashare::protocol::names::{InvalidName, Name};
use uuid::Uuid;

use super::arguments::{
    Common, GrantOptions, ProfileOptions, RecipientCommand, SchemaCommand, ShareCommand, TableCommand,
    TokenCommand, s3_location, s3_locations,
};
use super::aws::Aws;
use super::next_step;
use super::output::{Output, confirm, plain};
use super::plan::{self, Apply, Plan};
use super::profile::{self, Made};
use super::{Cause, Failure, blocking};

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        let code = match error {
            WriteError::Refused(_) => 2,
            WriteError::Exists(_) | WriteError::Missing(_) | WriteError::Conflict(_) => 3,
            WriteError::Unreadable(_) | WriteError::NoTable | WriteError::Failed(_) => 1,
        };
        let message = error.to_string();
        let cause = match error {
            WriteError::Missing(missing) => Cause::Missing(missing),
            WriteError::NoTable => Cause::NoTable,
            _ => Cause::Said,
        };
        Self { code, message, cause }
    }
}

impl From<Missing> for Failure {
    fn from(missing: Missing) -> Self {
        WriteError::Missing(missing).into()
    }
}

/// What is shown of a table.
const TABLE_ATTRIBUTES: [&str; 9] = [
    "schema",
    "name",
    "id",
    "location",
    "allowedLocations",
    "historyShared",
    "startVersion",
    "directoryAccess",
    "signerRole",
];

/// What is shown of a token.
const TOKEN_COLUMNS: [&str; 5] = ["id", "expires", "created", "state", "sha256"];

/// What is shown of a recipient in a list.
const RECIPIENT_COLUMNS: [&str; 7] =
    ["name", "status", "shares", "liveTokens", "tokenLimit", "nextExpiry", "comment"];

/// What recipients keep of what was revoked.
const URLS_LIVE_ON: &str = "URLs that were handed out before work until they expire, for an hour at most.";

/// A command, put to work.
struct Admin {
    aws: Aws,
    writer: Writer,
    output: Output,
    common: Common,
}

/// Runs a command on a runtime of its own.
pub(crate) fn run(common: &Common, command: AdminCommand) -> Result<(), Failure> {
    blocking(async {
        let aws = Aws::signed_in().await?;
        let writer = aws.writer(common);
        let admin = Admin { aws, writer, output: common.output, common: common.clone() };
        match admin.run(command).await {
            Ok(()) => Ok(()),
            Err(failure) => Err(next_step::explain(failure, common, &admin.aws.sdk).await),
        }
    })
}

/// One of the commands.
pub(crate) enum AdminCommand {
    Share(ShareCommand),
    Schema(SchemaCommand),
    Table(TableCommand),
    Recipient(RecipientCommand),
    Token(TokenCommand),
    Grant(GrantOptions),
    Revoke(GrantOptions),
    Plan(Plan),
    Apply(Apply),
    Export,
    Profile(ProfileOptions),
}

fn checked(name: &str, check: fn(&str) -> Result<Name, InvalidName>) -> Result<Name, Failure> {
    check(name).map_err(|error| Failure::usage(error.to_string()))
}

fn share_name(name: &str) -> Result<Name, Failure> {
    checked(name, Name::share)
}

/// `SHARE.SCHEMA`; a share's name may have periods.
fn split_schema(name: &str) -> Result<(&str, &str), Failure> {
    name.rsplit_once('.').ok_or_else(|| Failure::usage(format!("'{name}' is not SHARE.SCHEMA")))
}

/// `SHARE.SCHEMA.TABLE`
pub(crate) fn split_table(name: &str) -> Result<(&str, &str, &str), Failure> {
    let parts = name.rsplit_once('.').and_then(|(schema, table)| {
        let (share, schema) = schema.rsplit_once('.')?;
        Some((share, schema, table))
    });
    parts.ok_or_else(|| Failure::usage(format!("'{name}' is not SHARE.SCHEMA.TABLE")))
}

/// Whether one location lies in the other.
pub(crate) fn overlap(a: &str, b: &str) -> bool {
    let slashed = |text: &str| format!("{}/", text.trim_end_matches('/'));
    let (a, b) = (slashed(a), slashed(b));
    a.starts_with(&b) || b.starts_with(&a)
}

/// An item of text attributes, to be shown.
fn row<const N: usize>(attributes: [(&str, AttributeValue); N]) -> Item {
    attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn text(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

fn token_row(token: &FoundToken) -> Item {
    let state = match (token.is_known, token.is_live(Utc::now())) {
        (true, true) => "live",
        (true, false) => "ended",
        (false, _) if token.fault.is_some() => "unreadable",
        (false, _) => "not in force",
    };
    let expires = if token.fault.is_some() { String::new() } else { expiry::format(token.expires) };
    row([
        ("id", text(&token.id)),
        ("expires", text(expires)),
        ("created", text(&token.created)),
        ("state", text(state)),
        ("sha256", text(token.hash.map_or_else(String::new, |hash| hash.short().to_string()))),
    ])
}

fn recipient_row(recipient: &ListedRecipient) -> Item {
    let now = Utc::now();
    let live: Vec<_> = recipient.tokens.iter().filter(|token| token.is_live(now)).collect();
    let next = live.iter().filter_map(|token| token.expires).min();
    let next = if live.is_empty() { String::new() } else { expiry::format(next) };
    let mut shares = recipient.shares.clone();
    shares.sort_unstable();
    let mut row = row([
        ("shares", AttributeValue::L(shares.into_iter().map(AttributeValue::S).collect())),
        ("liveTokens", AttributeValue::N(live.len().to_string())),
        ("tokenLimit", AttributeValue::N(LIVE_TOKENS.to_string())),
        ("nextExpiry", text(next)),
    ]);
    let in_key = plain(&recipient.record, keys::PARTITION).trim_start_matches("RECIPIENT#");
    row.insert("name".to_owned(), text(keys::decoded(in_key).unwrap_or_default()));
    for name in ["name", "status", "comment"] {
        row.extend(recipient.record.get(name).map(|value| (name.to_owned(), value.clone())));
    }
    row
}

impl Admin {
    async fn run(&self, command: AdminCommand) -> Result<(), Failure> {
        match command {
            AdminCommand::Share(command) => self.share(command).await,
            AdminCommand::Schema(command) => self.schema(command).await,
            AdminCommand::Table(command) => self.table(command).await,
            AdminCommand::Recipient(command) => self.recipient(command).await,
            AdminCommand::Token(command) => self.token(command).await,
            AdminCommand::Grant(GrantOptions { recipient, share }) => {
                self.writer.grant(&recipient, &share_name(&share)?).await?;
                self.done(&format!(
                    "Share '{share}' is granted to '{recipient}', which sees it with its next request."
                ));
                Ok(())
            }
            AdminCommand::Plan(options) => plan::plan(&self.writer, &options).await,
            AdminCommand::Apply(options) => plan::apply(&self.writer, &options).await,
            AdminCommand::Export => plan::export(&self.writer).await,
            AdminCommand::Profile(options) => {
                let said = profile::write(&self.writer, &options).await?;
                self.output.note(&format!("{said}."));
                Ok(())
            }
            AdminCommand::Revoke(GrantOptions { recipient, share }) => {
                self.writer.revoke(&recipient, &share).await?;
                self.done(&format!("Share '{share}' is no longer granted to '{recipient}'. {URLS_LIVE_ON}"));
                Ok(())
            }
        }
    }

    /// A command that comes next, as it is typed.
    fn command(&self, words: &str) -> String {
        next_step::command(&self.common, words, None, "")
    }

    /// The same for a command about `name`.
    fn command_about(&self, words: &str, name: &str, options: &str) -> String {
        next_step::command(&self.common, words, Some(name), options)
    }

    async fn share(&self, command: ShareCommand) -> Result<(), Failure> {
        match command {
            ShareCommand::Create { share, comment } => {
                let name = share_name(&share)?;
                self.writer.create_share(&name, &Uuid::new_v4().to_string(), comment.as_deref()).await?;
                let next = self.command_about("schema create", &format!("{share}.SCHEMA"), "");
                self.done(&format!("Share '{share}' is created. Next, create a schema in it: {next}"));
            }
            ShareCommand::List => {
                let items = self.writer.scan("SHARE").await?;
                self.list(&["name", "id", "comment", "deleting"], &items);
                if items.is_empty() {
                    let create = self.command("share create SHARE");
                    self.output.note(&format!("There is no share yet. Create one with: {create}"));
                }
            }
            ShareCommand::Show { share } => {
                let items = self.writer.query(&keys::share_partition(&share), "").await?;
                let of = |prefix: &str| {
                    let sort = |item: &&Item| plain(item, keys::SORT).starts_with(prefix);
                    items.iter().filter(sort).cloned().collect::<Vec<_>>()
                };
                let [record] = &*of("SHARE") else { return Err(Missing::Share(share).into()) };
                self.output.record(
                    &["name", "id", "comment", "deleting"],
                    record,
                    &[
                        ("schemas", &["name"], of(keys::SCHEMAS)),
                        ("tables", &["schema", "name", "location"], of(keys::TABLES)),
                        ("recipients", &["recipient"], of(keys::GRANTED_TO)),
                    ],
                );
            }
            ShareCommand::Update { share, comment, no_comment: _ } => {
                self.writer.update_share(&share, comment.as_deref()).await?;
                let comment = comment.map_or_else(|| "none".to_owned(), |comment| format!("'{comment}'"));
                self.done(&format!("Share '{share}' is changed: its comment is {comment} now."));
            }
            ShareCommand::Delete { share, yes } => {
                confirm(yes, &format!("Delete share '{share}' with its schemas, tables and grants?"))?;
                let shown = std::io::stderr().is_terminal();
                let mut deleted = 0;
                self.writer
                    .delete_share(&share, |gone| {
                        deleted = gone;
                        if shown {
                            eprint!("\r{gone} records deleted");
                        }
                    })
                    .await?;
                if shown {
                    eprintln!();
                }
                self.done(&format!(
                    "Share '{share}' is deleted, with {deleted} records of its schemas, tables and grants. \
                     The tables in S3 are untouched. {URLS_LIVE_ON}"
                ));
            }
        }
        Ok(())
    }

    async fn schema(&self, command: SchemaCommand) -> Result<(), Failure> {
        match command {
            SchemaCommand::Create { schema } => {
                let (share, name) = split_schema(&schema)?;
                self.writer.create_schema(share, &checked(name, Name::schema_or_table)?).await?;
                let name = format!("{schema}.TABLE");
                let next = self.command_about("table create", &name, "--location s3://BUCKET/PREFIX");
                self.done(&format!("Schema '{schema}' is created. Next, share a table in it: {next}"));
            }
            SchemaCommand::List { share } => {
                let items = self.writer.query(&keys::share_partition(&share), keys::SCHEMAS).await?;
                self.list(&["name"], &items);
                if items.is_empty() {
                    self.must_have(Key::share(&share), Missing::Share(share.clone())).await?;
                    let create = self.command_about("schema create", &format!("{share}.SCHEMA"), "");
                    self.output
                        .note(&format!("Share '{share}' has no schema yet. Create one with: {create}"));
                }
            }
            SchemaCommand::Show { schema } => {
                let (share, name) = split_schema(&schema)?;
                let key = Key::schema(share, name);
                let missing = || Failure::from(Missing::Schema(share.to_owned(), name.to_owned()));
                let found = self.writer.query(&key.partition, &key.sort).await?;
                let record = found.iter().find(|item| plain(item, keys::SORT) == key.sort);
                let tables = self.writer.query(&key.partition, &keys::tables_of(name)).await?;
                self.output.record(
                    &["name"],
                    record.ok_or_else(missing)?,
                    &[("tables", &["name", "location"], tables)],
                );
            }
            SchemaCommand::Delete { schema, yes } => {
                let (share, name) = split_schema(&schema)?;
                confirm(yes, &format!("Delete schema '{schema}'?"))?;
                self.writer.delete_schema(share, name).await?;
                self.done(&format!("Schema '{schema}' is deleted."));
            }
        }
        Ok(())
    }

    async fn table(&self, command: TableCommand) -> Result<(), Failure> {
        match command {
            TableCommand::Create {
                name,
                location,
                history,
                start_version,
                allow,
                directory_access,
                signer_role,
                id,
            } => {
                let (share, schema, table) = split_table(&name)?;
                let new = TableState {
                    name: checked(table, Name::schema_or_table)?.as_str().to_owned(),
                    id: id.unwrap_or_else(Uuid::new_v4).to_string(),
                    settings: TableSettings {
                        location: s3_location(&location)?,
                        allowed_locations: s3_locations(&allow)?,
                        history_shared: history,
                        start_version,
                        directory_access,
                        signer_role,
                    },
                };
                self.check_table(share, schema, &new).await?;
                self.writer.create_table(share, schema, &new).await?;
                let check = self.command("check");
                self.done(&format!(
                    "Table '{name}' is shared with every recipient that share '{share}' is granted to. To see whether \
                     it can be read: {check}"
                ));
            }
            TableCommand::Show { name } => {
                let (share, schema, table) = split_table(&name)?;
                let key = Key::table(share, schema, table);
                let found = self.writer.query(&key.partition, &key.sort).await?;
                let record = found.iter().find(|item| plain(item, keys::SORT) == key.sort);
                let missing = || Missing::Table(share.to_owned(), schema.to_owned(), table.to_owned());
                let record = record.ok_or_else(|| Failure::from(missing()))?;
                self.output.record(&TABLE_ATTRIBUTES, record, &[]);
                if let Err(WriteError::Unreadable(bad)) = self.writer.table(share, schema, table).await {
                    eprintln!("warning: servers refuse requests for this table, because {bad}");
                }
            }
            TableCommand::Update { name, changes } => {
                let (share, schema, table) = split_table(&name)?;
                let before = self.writer.table(share, schema, table).await?;
                let mut after = before.clone();
                changes.make(&mut after.settings)?;
                if after == before {
                    self.done(&format!("Table '{name}' has these settings already; nothing was changed."));
                    return Ok(());
                }
                self.check_table(share, schema, &after).await?;
                let changed = before.changes_to(&after);
                let both = Box::new((before, after));
                self.writer.apply(&Change::UpdateTable(share.to_owned(), schema.to_owned(), both)).await?;
                self.done(&format!("Table '{name}' is changed: {changed}"));
            }
            TableCommand::List { share, details } => {
                let mut items = self.writer.query(&keys::share_partition(&share), keys::TABLES).await?;
                if items.is_empty() {
                    self.must_have(Key::share(&share), Missing::Share(share.clone())).await?;
                    let name = format!("{share}.SCHEMA.TABLE");
                    let create = self.command_about("table create", &name, "--location s3://BUCKET/PREFIX");
                    self.output.note(&format!("Share '{share}' has no table yet. Share one with: {create}"));
                }
                if !details {
                    self.list(
                        &[
                            "schema",
                            "name",
                            "location",
                            "historyShared",
                            "startVersion",
                            "directoryAccess",
                            "id",
                        ],
                        &items,
                    );
                    return Ok(());
                }
                let state = self.writer.read().await?.state;
                let unreadable = self.add_details(&share, &state, &mut items).await;
                self.list(&["schema", "name", "location", "version", "files", "bytes", "region"], &items);
                if unreadable > 0 {
                    let check = self.command("check");
                    self.output.note(&format!(
                        "{unreadable} tables cannot be read with your credentials. To see why: {check}"
                    ));
                }
            }
            TableCommand::Delete { name, yes } => {
                let (share, schema, table) = split_table(&name)?;
                confirm(yes, &format!("Take table '{name}' out of its share?"))?;
                self.writer.delete_table(share, schema, table).await?;
                self.done(&format!(
                    "Table '{name}' is no longer shared; its files in S3 are untouched. {URLS_LIVE_ON}"
                ));
            }
        }
        Ok(())
    }

    async fn recipient(&self, command: RecipientCommand) -> Result<(), Failure> {
        match command {
            RecipientCommand::Create { recipient, share, comment, token } => {
                let name = share_name(&recipient)?;
                let shares = share.iter().map(|share| share_name(share)).collect::<Result<Vec<_>, _>>()?;
                let made = Made::new(&token)?;
                self.writer.create_recipient(&name, comment.as_deref(), &shares, &made.token).await?;
                let profile = made.hand_over()?;
                let reads = match share.as_slice() {
                    [] => {
                        let grant = self.command_about("grant", &recipient, "--share SHARE");
                        format!("may read nothing yet. Grant it a share with: {grant}")
                    }
                    shares => format!("may read {}.", shares.join(", ")),
                };
                self.done(&format!("Recipient '{recipient}' is created and {reads}\n{profile}."));
            }
            RecipientCommand::List => {
                let recipients = self.writer.recipients().await?;
                let rows: Vec<_> = recipients.iter().map(recipient_row).collect();
                self.list(&RECIPIENT_COLUMNS, &rows);
                for bad in recipients.iter().filter_map(|recipient| recipient.fault.as_ref()) {
                    eprintln!("warning: servers refuse every token of a recipient, because {bad}");
                }
                if rows.is_empty() {
                    let create = self.command("recipient create RECIPIENT --share SHARE");
                    self.output.note(&format!("There is no recipient yet. Create one with: {create}"));
                }
            }
            RecipientCommand::Show { recipient } => {
                let key = Key::recipient(&recipient);
                let items = self.writer.query(&key.partition, "").await?;
                let of = |prefix: &str| {
                    let sort = |item: &&Item| plain(item, keys::SORT).starts_with(prefix);
                    items.iter().filter(sort).cloned().collect::<Vec<_>>()
                };
                let [record] = &*of("RECIPIENT") else { return Err(Missing::Recipient(recipient).into()) };
                let tokens = self.writer.tokens(&recipient).await?;
                self.output.record(
                    &["name", "status", "comment"],
                    record,
                    &[
                        ("shares", &["share"], of(keys::GRANTS)),
                        ("tokens", &TOKEN_COLUMNS, tokens.iter().map(token_row).collect()),
                    ],
                );
            }
            RecipientCommand::Update { recipient, comment, no_comment, disable, enable } => {
                let comment = (no_comment || comment.is_some()).then_some(comment.as_deref());
                let active = (disable || enable).then_some(enable);
                self.writer.update_recipient(&recipient, comment, active).await?;
                let enable = self.command_about("recipient update", &recipient, "--enable");
                let status = match active {
                    Some(false) => format!(
                        " Its tokens are refused from the next request on. {URLS_LIVE_ON} To take its tokens again: {enable}"
                    ),
                    Some(true) => " Its tokens are taken again.".to_owned(),
                    None => String::new(),
                };
                self.done(&format!("Recipient '{recipient}' is changed.{status}"));
            }
            RecipientCommand::Delete { recipient, yes } => {
                confirm(yes, &format!("Delete recipient '{recipient}' with its tokens and grants?"))?;
                self.writer.delete_recipient(&recipient).await?;
                self.done(&format!(
                    "Recipient '{recipient}' is deleted, with its tokens and grants. {URLS_LIVE_ON}"
                ));
            }
        }
        Ok(())
    }

    async fn token(&self, command: TokenCommand) -> Result<(), Failure> {
        match command {
            TokenCommand::Create { recipient, token } => {
                let made = Made::new(&token)?;
                self.writer.create_token(&recipient, &made.token).await?;
                let profile = made.hand_over()?;
                let list = self.command_about("token list", &recipient, "");
                self.done(&format!(
                    "Recipient '{recipient}' has a new token.\n{profile}.\nOther tokens of it work as before; to see \
                     them: {list}"
                ));
            }
            TokenCommand::List { recipient } => {
                let tokens = self.writer.tokens(&recipient).await?;
                let rows: Vec<_> = tokens.iter().map(token_row).collect();
                self.list(&TOKEN_COLUMNS, &rows);
                for token in &tokens {
                    if let Some(fault) = &token.fault {
                        eprintln!("warning: a record of token '{}' {fault}", token.id);
                    } else if token.is_live(Utc::now()) && !token.is_listed {
                        eprintln!(
                            "warning: token '{}' works, but has no record below its recipient",
                            token.id
                        );
                    } else if !token.is_known {
                        eprintln!(
                            "note: token '{}' does not work: its record below TOKEN# is not there",
                            token.id
                        );
                    }
                }
                if tokens.is_empty() {
                    self.must_have(Key::recipient(&recipient), Missing::Recipient(recipient.clone())).await?;
                    let create = self.command_about("token create", &recipient, "");
                    self.output
                        .note(&format!("Recipient '{recipient}' has no token. Create one with: {create}"));
                }
            }
            TokenCommand::Rotate { recipient, grace, token } => {
                let made = Made::new(&token)?;
                let ends = self.writer.rotate_token(&recipient, &made.token, grace).await?;
                let profile = made.hand_over()?;
                let now = Utc::now();
                let ends: Vec<_> = ends
                    .iter()
                    .map(|(id, end)| match *end > now {
                        true => format!("The old token {id} works {}.", until(Some(*end))),
                        false => format!("The old token {id} has ended."),
                    })
                    .collect();
                let ends = if ends.is_empty() { "It had no other token.".to_owned() } else { ends.join(" ") };
                self.done(&format!("Recipient '{recipient}' has a new token.\n{profile}.\n{ends}"));
            }
            TokenCommand::Revoke { recipient, token, yes } => {
                confirm(yes, &format!("End token '{token}' of '{recipient}' now?"))?;
                self.writer.revoke_token(&recipient, &token).await?;
                self.done(&format!(
                    "Token '{token}' of '{recipient}' is revoked: requests with it get 401 from now on. {URLS_LIVE_ON}"
                ));
            }
        }
        Ok(())
    }

    /// Opens every table of a share and adds what was found to its record; how many cannot be read.
    async fn add_details(&self, share: &str, state: &State, items: &mut [Item]) -> usize {
        let storage = self.aws.storage(None);
        let number = |value: Option<u64>| value.map(|value| AttributeValue::N(value.to_string()));
        let mut unreadable = 0;
        for (key, name, table) in check::named(state) {
            let of_share = key.partition == keys::share_partition(share);
            let Some(item) = items.iter_mut().find(|item| of_share && plain(item, keys::SORT) == key.sort)
            else {
                continue;
            };
            let found = Reader::new(&storage, None).open(&name, &table.settings).await;
            unreadable += usize::from(!found.readable);
            let region = found.region.map(AttributeValue::S);
            for (name, value) in [
                ("version", number(found.version)),
                ("files", number(found.files)),
                ("bytes", number(found.bytes)),
                ("region", region),
            ] {
                item.extend(value.map(|value| (name.to_owned(), value)));
            }
        }
        unreadable
    }

    /// Fails with `missing` if there is no record under `key`.
    async fn must_have(&self, key: Key, missing: Missing) -> Result<(), Failure> {
        let found = self.writer.query(&key.partition, &key.sort).await?;
        if found.is_empty() { Err(missing.into()) } else { Ok(()) }
    }

    fn done(&self, what: &str) {
        self.output.done(what);
    }

    fn list(&self, columns: &[&str], items: &[Item]) {
        self.output.list(columns, items);
    }

    /// Refuses a table that cannot be shared as it is said.
    async fn check_table(&self, share: &str, schema: &str, table: &TableState) -> Result<(), Failure> {
        if table.settings.directory_access && !table.settings.shares_whole_directory() {
            return Err(Failure::usage(
                "--directory-access shows every version of one directory, so it needs --history, and neither \
                 --start-version nor --allow",
            ));
        }
        let own = Key::table(share, schema, &table.name);
        for other in self.writer.query(&own.partition, keys::TABLES).await? {
            let theirs = WrittenLocation::parse(plain(&other, "location"), None).canonical();
            let ours = table.settings.location.canonical();
            let (theirs, ours) = (theirs.text(), ours.text());
            if plain(&other, keys::SORT) != own.sort && theirs != ours && overlap(theirs, ours) {
                return Err(Failure::usage(format!(
                    "location {ours} overlaps that of table '{}.{}': {theirs}",
                    plain(&other, "schema"),
                    plain(&other, "name")
                )));
            }
        }
        Ok(())
    }
}
