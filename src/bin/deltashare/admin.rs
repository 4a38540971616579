//! The commands that change what is shared, and with whom: records in DynamoDB.

use std::io::IsTerminal as _;

use aws_sdk_dynamodb::types::AttributeValue;
use deltashare::catalog::keys::{self, Key};
use deltashare::catalog::records::Item;
use deltashare::catalog::state::{Change, State, TableState};
use deltashare::catalog::writer::{WriteError, Writer};
use deltashare::check::{self, Reader};
use deltashare::protocol::names::{InvalidName, Name};
use uuid::Uuid;

use super::Failure;
use super::arguments::{
    Common, GrantOptions, ProfileOptions, RecipientCommand, SchemaCommand, ShareCommand, TableCommand,
    TokenCommand, s3_location, s3_locations,
};
use super::aws::Aws;
use super::output::{Output, confirm, plain};
use super::plan::{self, Apply, Plan};
use super::profile::{self, Made};

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        let code = match error {
            WriteError::Refused(_) => 2,
            WriteError::Exists(_) | WriteError::Missing(_) | WriteError::Conflict(_) => 3,
            WriteError::Failed(_) => 1,
        };
        Self { code, message: error.to_string() }
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

/// A command, put to work.
struct Admin {
    aws: Aws,
    writer: Writer,
    output: Output,
}

/// Runs a command on a runtime of its own.
pub(crate) fn run(common: &Common, command: AdminCommand) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(error.to_string()))?;
    runtime.block_on(async {
        let aws = Aws::signed_in().await?;
        let config = aws_sdk_dynamodb::config::Builder::from(&aws.sdk);
        let writer = Writer::new(config, &common.dynamodb_table);
        let admin = Admin { aws, writer, output: common.output };
        match command {
            AdminCommand::Share(command) => admin.share(command).await,
            AdminCommand::Schema(command) => admin.schema(command).await,
            AdminCommand::Table(command) => admin.table(command).await,
            AdminCommand::Recipient(command) => admin.recipient(command).await,
            AdminCommand::Token(command) => admin.token(command).await,
            AdminCommand::Grant(GrantOptions { recipient, share }) => {
                admin.writer.grant(&recipient, &share_name(&share)?).await?;
                admin.done(&format!("share '{share}' is granted to '{recipient}'"));
                Ok(())
            }
            AdminCommand::Plan(options) => plan::plan(&admin.writer, &options).await,
            AdminCommand::Apply(options) => plan::apply(&admin.writer, &options).await,
            AdminCommand::Export => plan::export(&admin.writer).await,
            AdminCommand::Profile(options) => profile::write(&admin.writer, &options).await,
            AdminCommand::Revoke(GrantOptions { recipient, share }) => {
                admin.writer.revoke(&recipient, &share).await?;
                admin.done(&format!("share '{share}' is no longer granted to '{recipient}'"));
                Ok(())
            }
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

impl Admin {
    async fn share(&self, command: ShareCommand) -> Result<(), Failure> {
        match command {
            ShareCommand::Create { share, comment } => {
                let name = share_name(&share)?;
                self.writer.create_share(&name, &Uuid::new_v4().to_string(), comment.as_deref()).await?;
                self.done(&format!("share '{share}' is made"));
            }
            ShareCommand::List => {
                let items = self.writer.scan("SHARE").await?;
                self.list(&["name", "id", "comment", "deleting"], &items);
            }
            ShareCommand::Show { share } => {
                let items = self.writer.query(&keys::share_partition(&share), "").await?;
                let of = |prefix: &str| {
                    let sort = |item: &&Item| plain(item, keys::SORT).starts_with(prefix);
                    items.iter().filter(sort).cloned().collect::<Vec<_>>()
                };
                let [record] = &*of("SHARE") else {
                    return Err(WriteError::Missing(format!("share '{share}'")).into());
                };
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
                self.done(&format!("share '{share}' is changed"));
            }
            ShareCommand::Delete { share, yes } => {
                confirm(yes, &format!("Delete share '{share}' with its schemas, tables and grants?"))?;
                let shown = std::io::stderr().is_terminal();
                self.writer
                    .delete_share(&share, |gone| {
                        if shown {
                            eprint!("\r{gone} records deleted");
                        }
                    })
                    .await?;
                if shown {
                    eprintln!();
                }
                self.done(&format!("share '{share}' is deleted"));
            }
        }
        Ok(())
    }

    async fn schema(&self, command: SchemaCommand) -> Result<(), Failure> {
        match command {
            SchemaCommand::Create { schema } => {
                let (share, name) = split_schema(&schema)?;
                self.writer.create_schema(share, &checked(name, Name::schema_or_table)?).await?;
                self.done(&format!("schema '{schema}' is made"));
            }
            SchemaCommand::List { share } => {
                let items = self.writer.query(&keys::share_partition(&share), keys::SCHEMAS).await?;
                self.list(&["name"], &items);
            }
            SchemaCommand::Show { schema } => {
                let (share, name) = split_schema(&schema)?;
                let key = Key::schema(share, name);
                let missing = || WriteError::Missing(format!("schema '{name}' in share '{share}'"));
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
                self.done(&format!("schema '{schema}' is deleted"));
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
                    location: s3_location(&location)?,
                    allowed_locations: s3_locations(&allow)?,
                    history_shared: history,
                    start_version,
                    directory_access,
                    signer_role,
                };
                self.check_table(share, schema, &new).await?;
                self.writer.create_table(share, schema, &new).await?;
                self.done(&format!("table '{name}' is shared"));
            }
            TableCommand::Show { name } => {
                let (share, schema, table) = split_table(&name)?;
                let key = Key::table(share, schema, table);
                let found = self.writer.query(&key.partition, &key.sort).await?;
                let record = found.iter().find(|item| plain(item, keys::SORT) == key.sort);
                let record = record.ok_or_else(|| WriteError::Missing(format!("table '{name}'")))?;
                self.output.record(&TABLE_ATTRIBUTES, record, &[]);
            }
            TableCommand::Update { name, changes } => {
                let (share, schema, table) = split_table(&name)?;
                let before = self.writer.table(share, schema, table).await?;
                let mut after = before.clone();
                changes.make(&mut after)?;
                if after == before {
                    self.done(&format!("table '{name}' is that already"));
                    return Ok(());
                }
                self.check_table(share, schema, &after).await?;
                let change =
                    Change::UpdateTable(share.to_owned(), schema.to_owned(), Box::new((before, after)));
                self.writer.apply(&change).await?;
                self.done(&change.to_string());
            }
            TableCommand::List { share, details } => {
                let mut items = self.writer.query(&keys::share_partition(&share), keys::TABLES).await?;
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
                let state = self.writer.state().await?;
                let unreadable = self.add_details(&share, &state, &mut items).await;
                self.list(&["schema", "name", "location", "version", "files", "bytes", "region"], &items);
                if unreadable > 0 {
                    eprintln!(
                        "{unreadable} tables cannot be read with your credentials; deltashare check says why"
                    );
                }
            }
            TableCommand::Delete { name, yes } => {
                let (share, schema, table) = split_table(&name)?;
                confirm(yes, &format!("Take table '{name}' out of its share?"))?;
                self.writer.delete_table(share, schema, table).await?;
                self.done(&format!("table '{name}' is no longer shared"));
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
                made.hand_over()?;
                self.done(&format!(
                    "recipient '{recipient}' is made; its token has the id {}",
                    made.token.id
                ));
            }
            RecipientCommand::List => {
                let items = self.writer.scan("RECIPIENT").await?;
                self.list(&["name", "status", "comment"], &items);
            }
            RecipientCommand::Show { recipient } => {
                let key = Key::recipient(&recipient);
                let items = self.writer.query(&key.partition, "").await?;
                let of = |prefix: &str| {
                    let sort = |item: &&Item| plain(item, keys::SORT).starts_with(prefix);
                    items.iter().filter(sort).cloned().collect::<Vec<_>>()
                };
                let [record] = &*of("RECIPIENT") else {
                    return Err(WriteError::Missing(format!("recipient '{recipient}'")).into());
                };
                self.output.record(
                    &["name", "status", "comment"],
                    record,
                    &[
                        ("shares", &["share"], of(keys::GRANTS)),
                        ("tokens", &["id", "expires", "created"], of(keys::TOKENS)),
                    ],
                );
            }
            RecipientCommand::Update { recipient, comment, no_comment, disable, enable } => {
                let comment = (no_comment || comment.is_some()).then_some(comment.as_deref());
                let active = (disable || enable).then_some(enable);
                self.writer.update_recipient(&recipient, comment, active).await?;
                self.done(&format!("recipient '{recipient}' is changed"));
            }
            RecipientCommand::Delete { recipient, yes } => {
                confirm(yes, &format!("Delete recipient '{recipient}' with its tokens and grants?"))?;
                self.writer.delete_recipient(&recipient).await?;
                self.done(&format!("recipient '{recipient}' is deleted"));
            }
        }
        Ok(())
    }

    async fn token(&self, command: TokenCommand) -> Result<(), Failure> {
        match command {
            TokenCommand::Create { recipient, token } => {
                let made = Made::new(&token)?;
                self.writer.create_token(&recipient, &made.token).await?;
                made.hand_over()?;
                self.done(&format!("the new token of '{recipient}' has the id {}", made.token.id));
            }
            TokenCommand::List { recipient } => {
                let items = self.writer.query(&keys::recipient_partition(&recipient), keys::TOKENS).await?;
                self.list(&["id", "expires", "created"], &items);
            }
            TokenCommand::Rotate { recipient, grace, token } => {
                let made = Made::new(&token)?;
                self.writer.rotate_token(&recipient, &made.token, grace).await?;
                made.hand_over()?;
                self.done(&format!("the new token of '{recipient}' has the id {}", made.token.id));
            }
            TokenCommand::Revoke { recipient, token, yes } => {
                confirm(yes, &format!("End token '{token}' of '{recipient}' now?"))?;
                self.writer.revoke_token(&recipient, &token).await?;
                self.done(&format!("token '{token}' of '{recipient}' is ended"));
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
            let found = Reader::new(&storage, None).open(&name, table).await;
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

    fn done(&self, what: &str) {
        self.output.done(what);
    }

    fn list(&self, columns: &[&str], items: &[Item]) {
        self.output.list(columns, items);
    }

    /// Refuses a table that cannot be shared as it is said.
    async fn check_table(&self, share: &str, schema: &str, table: &TableState) -> Result<(), Failure> {
        if table.directory_access
            && (!table.history_shared || table.start_version > 0 || !table.allowed_locations.is_empty())
        {
            return Err(Failure::usage(
                "--directory-access shows every version of one directory, so it needs --history, and neither \
                 --start-version nor --allow",
            ));
        }
        let own = Key::table(share, schema, &table.name);
        for other in self.writer.query(&own.partition, keys::TABLES).await? {
            let (theirs, ours) = (plain(&other, "location"), &table.location);
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
