//! The commands that change what is shared, and with whom: records in DynamoDB.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use aws_config::BehaviorVersion;
use chrono::TimeDelta;
use clap::{ArgGroup, Args, Subcommand};
use deltashare::catalog::keys::{self, Key};
use deltashare::catalog::records::Item;
use deltashare::catalog::state::{Change, TableState};
use deltashare::catalog::writer::{WriteError, Writer};
use deltashare::protocol::names::{InvalidName, Name};
use deltashare::role::RoleArn;
use deltashare::storage::Location;
use uuid::Uuid;

use super::Failure;
use super::check::{self, Check};
use super::output::{Output, confirm, plain};
use super::plan::{self, Apply, Plan};
use super::profile::{self, Made};
use super::serve::parse_role;

/// What every command of this kind takes.
#[derive(Args, Clone)]
pub(crate) struct Common {
    /// The DynamoDB table with shares and recipients.
    #[arg(
        long = "table",
        value_name = "TABLE",
        env = "DELTASHARE_TABLE",
        global = true,
        default_value = "deltashare"
    )]
    dynamodb_table: String,

    /// How results are printed: for people, or as JSON.
    #[arg(long, value_enum, global = true, default_value = "text")]
    output: Output,
}

impl Common {
    /// Whether results are printed as JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.output == Output::Json
    }
}

/// Commands of one kind.
#[derive(Args)]
pub(crate) struct Group<C: Subcommand> {
    #[command(subcommand)]
    pub(crate) command: C,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Make, list, change and delete shares.
#[derive(Subcommand)]
#[command(after_help = "Example:\n  deltashare share create retail --comment 'sales and stock'")]
pub(crate) enum ShareCommand {
    /// Make a share.
    #[command(after_help = "Example:\n  deltashare share create retail")]
    Create {
        /// Its name.
        share: String,
        /// What it is, for the people who look after it.
        #[arg(long)]
        comment: Option<String>,
    },
    /// List the shares.
    #[command(after_help = "Example:\n  deltashare share list --output json")]
    List,
    /// Show what is in a share and who sees it.
    #[command(after_help = "Example:\n  deltashare share show retail")]
    Show {
        /// Its name.
        share: String,
    },
    /// Change the comment of a share. Its name stays: recipients have it in their code.
    #[command(
        group = ArgGroup::new("change").required(true).args(["comment", "no_comment"]),
        after_help = "Example:\n  deltashare share update retail --comment 'sales only'"
    )]
    Update {
        /// Its name.
        share: String,
        /// What it is, for the people who look after it.
        #[arg(long)]
        comment: Option<String>,
        /// Take the comment away.
        #[arg(long)]
        no_comment: bool,
    },
    /// Delete a share with its schemas, tables and grants; tables in S3 are not touched.
    #[command(after_help = "Example:\n  deltashare share delete retail --yes")]
    Delete {
        /// Its name.
        share: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// Make, list and delete schemas.
#[derive(Subcommand)]
#[command(after_help = "Example:\n  deltashare schema create retail.sales")]
pub(crate) enum SchemaCommand {
    /// Make a schema in a share.
    #[command(after_help = "Example:\n  deltashare schema create retail.sales")]
    Create {
        /// SHARE.SCHEMA
        schema: String,
    },
    /// List the schemas of a share.
    #[command(after_help = "Example:\n  deltashare schema list retail")]
    List {
        /// The share.
        share: String,
    },
    /// Show the tables of a schema. A schema has nothing but its name, so there is nothing to update.
    #[command(after_help = "Example:\n  deltashare schema show retail.sales")]
    Show {
        /// SHARE.SCHEMA
        schema: String,
    },
    /// Delete a schema that has no table.
    #[command(after_help = "Example:\n  deltashare schema delete retail.sales --yes")]
    Delete {
        /// SHARE.SCHEMA
        schema: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// Share tables, list and change them, and take them back.
#[derive(Subcommand)]
#[command(
    after_help = "Example:\n  deltashare table create retail.sales.orders --location s3://my-bucket/tables/orders"
)]
pub(crate) enum TableCommand {
    /// Share a table.
    #[command(
        after_help = "Example:\n  deltashare table create retail.sales.orders --location s3://my-bucket/tables/orders --history"
    )]
    Create {
        /// SHARE.SCHEMA.TABLE
        name: String,
        /// Where it lies: s3://BUCKET/PREFIX
        #[arg(long)]
        location: String,
        /// Recipients may read older versions and change data.
        #[arg(long)]
        history: bool,
        /// The oldest version that recipients may see.
        #[arg(long, default_value_t = 0)]
        start_version: u64,
        /// Another place that the table's log may point into, for shallow clones. May be given several times.
        #[arg(long, value_name = "LOCATION")]
        allow: Vec<String>,
        /// Recipients may have credentials for the table's directory.
        #[arg(long)]
        directory_access: bool,
        /// The role that reads the table and signs its URLs, for a bucket in another account. Default: the server's.
        #[arg(long, value_name = "ARN", value_parser = parse_role)]
        signer_role: Option<RoleArn>,
        /// A UUID that stays with the table. Default: a new one.
        #[arg(long)]
        id: Option<Uuid>,
    },
    /// List the tables of a share.
    #[command(after_help = "Example:\n  deltashare table list retail")]
    List {
        /// The share.
        share: String,
    },
    /// Show all that is written down of a table.
    #[command(after_help = "Example:\n  deltashare table show retail.sales.orders")]
    Show {
        /// SHARE.SCHEMA.TABLE
        name: String,
    },
    /// Change how a table is shared. What is not named stays; so do its name and its id.
    #[command(
        after_help = "Example:\n  deltashare table update retail.sales.orders --location s3://my-bucket/moved/orders --no-history"
    )]
    Update {
        /// SHARE.SCHEMA.TABLE
        name: String,
        #[command(flatten)]
        changes: TableChanges,
    },
    /// Take a table out of its share; the table in S3 is not touched.
    #[command(after_help = "Example:\n  deltashare table delete retail.sales.orders --yes")]
    Delete {
        /// SHARE.SCHEMA.TABLE
        name: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// What changes about a table.
#[derive(Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true).args([
    "location", "history", "no_history", "start_version", "allow", "no_allow", "directory_access",
    "no_directory_access", "signer_role", "no_signer_role",
]))]
pub(crate) struct TableChanges {
    /// Where it lies: s3://BUCKET/PREFIX
    #[arg(long)]
    location: Option<String>,
    /// Recipients may read older versions and change data.
    #[arg(long, conflicts_with = "no_history")]
    history: bool,
    /// They may not.
    #[arg(long)]
    no_history: bool,
    /// The oldest version that recipients may see.
    #[arg(long)]
    start_version: Option<u64>,
    /// Another place that the table's log may point into, in place of those before. May be given several times.
    #[arg(long, value_name = "LOCATION", conflicts_with = "no_allow")]
    allow: Vec<String>,
    /// The log may point into no other place.
    #[arg(long)]
    no_allow: bool,
    /// Recipients may have credentials for the table's directory.
    #[arg(long, conflicts_with = "no_directory_access")]
    directory_access: bool,
    /// They may not.
    #[arg(long)]
    no_directory_access: bool,
    /// The role that reads the table and signs its URLs, for a bucket in another account.
    #[arg(long, value_name = "ARN", value_parser = parse_role, conflicts_with = "no_signer_role")]
    signer_role: Option<RoleArn>,
    /// The server's role does.
    #[arg(long)]
    no_signer_role: bool,
}

impl TableChanges {
    fn make(self, table: &mut TableState) -> Result<(), Failure> {
        let flag = |on: bool, off: bool, before: bool| on || (before && !off);
        if let Some(location) = self.location {
            table.location = s3_location(&location)?;
        }
        if self.no_allow || !self.allow.is_empty() {
            table.allowed_locations = s3_locations(&self.allow)?;
        }
        if self.no_signer_role || self.signer_role.is_some() {
            table.signer_role = self.signer_role;
        }
        table.start_version = self.start_version.unwrap_or(table.start_version);
        table.history_shared = flag(self.history, self.no_history, table.history_shared);
        table.directory_access =
            flag(self.directory_access, self.no_directory_access, table.directory_access);
        Ok(())
    }
}

/// Make, list, change and delete recipients.
#[derive(Subcommand)]
#[command(
    after_help = "Example:\n  deltashare recipient create acme --share retail --endpoint https://sharing.example.com/delta-sharing/ --profile acme.share"
)]
pub(crate) enum RecipientCommand {
    /// Make a recipient with a token, and write its profile: the only time that the token is shown.
    #[command(
        after_help = "Example:\n  deltashare recipient create acme --share retail --expires 90d --endpoint https://sharing.example.com/delta-sharing/ --profile acme.share"
    )]
    Create {
        /// Its name.
        recipient: String,
        /// A share that it may read. May be given several times.
        #[arg(long, value_name = "SHARE")]
        share: Vec<String>,
        /// What it is, for the people who look after it.
        #[arg(long)]
        comment: Option<String>,
        #[command(flatten)]
        token: TokenOptions,
    },
    /// List the recipients.
    #[command(after_help = "Example:\n  deltashare recipient list")]
    List,
    /// Show what a recipient may read, and its tokens.
    #[command(after_help = "Example:\n  deltashare recipient show acme")]
    Show {
        /// Its name.
        recipient: String,
    },
    /// Change a recipient's comment, or whether it may read at all.
    #[command(
        group = ArgGroup::new("change").required(true).multiple(true)
            .args(["comment", "no_comment", "disable", "enable"]),
        after_help = "Example:\n  deltashare recipient update acme --disable"
    )]
    Update {
        /// Its name.
        recipient: String,
        /// What it is, for the people who look after it.
        #[arg(long, conflicts_with = "no_comment")]
        comment: Option<String>,
        /// Take the comment away.
        #[arg(long)]
        no_comment: bool,
        /// Refuse its tokens from the next request on; they and its grants are kept.
        #[arg(long, conflicts_with = "enable")]
        disable: bool,
        /// Take its tokens again.
        #[arg(long)]
        enable: bool,
    },
    /// Delete a recipient with its tokens and grants.
    #[command(after_help = "Example:\n  deltashare recipient delete acme --yes")]
    Delete {
        /// Its name.
        recipient: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// Make, list, replace and end tokens.
#[derive(Subcommand)]
#[command(
    after_help = "Example:\n  deltashare token rotate acme --grace 24h --endpoint https://sharing.example.com/delta-sharing/ --profile acme.share"
)]
pub(crate) enum TokenCommand {
    /// Make a token more; a recipient has two live ones at most.
    #[command(
        after_help = "Example:\n  deltashare token create acme --expires 30d --endpoint https://sharing.example.com/delta-sharing/ --profile acme.share"
    )]
    Create {
        /// The recipient.
        recipient: String,
        #[command(flatten)]
        token: TokenOptions,
    },
    /// List the tokens of a recipient.
    #[command(after_help = "Example:\n  deltashare token list acme")]
    List {
        /// The recipient.
        recipient: String,
    },
    /// Replace a recipient's token.
    #[command(
        after_help = "Example:\n  deltashare token rotate acme --grace 24h --endpoint https://sharing.example.com/delta-sharing/ --profile acme.share"
    )]
    Rotate {
        /// The recipient.
        recipient: String,
        /// How long the old token stays good, such as 30m or 24h; 0 ends it now. Its own end is never put off.
        #[arg(long, value_name = "TIME", value_parser = parse_time, default_value = "24h")]
        grace: TimeDelta,
        #[command(flatten)]
        token: TokenOptions,
    },
    /// End a token now.
    #[command(after_help = "Example:\n  deltashare token revoke acme 5f3a9c1e --yes")]
    Revoke {
        /// The recipient.
        recipient: String,
        /// The token's id, as the list shows it.
        token: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// A share that a recipient is given, or is no longer.
#[derive(Args)]
pub(crate) struct Grant {
    #[command(flatten)]
    pub(crate) options: GrantOptions,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Args)]
pub(crate) struct GrantOptions {
    /// The recipient.
    recipient: String,
    /// The share.
    #[arg(long)]
    share: String,
}

/// Write the profile of a token that is at hand: a token is stored nowhere, so none can be looked up.
#[derive(Args)]
#[command(
    after_help = "Example:\n  deltashare profile acme --token-file token.txt --endpoint https://sharing.example.com/delta-sharing/ --profile acme.share"
)]
pub(crate) struct ProfileOptions {
    /// The recipient.
    pub(crate) recipient: String,
    /// The file with the token; - for standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: PathBuf,
    #[command(flatten)]
    pub(crate) to: ProfileTarget,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Where a profile leads, and where it is written.
#[derive(Args)]
pub(crate) struct ProfileTarget {
    /// The URL of the server, with its prefix; it goes into the profile.
    #[arg(long, value_name = "URL", env = "DELTASHARE_ENDPOINT")]
    pub(crate) endpoint: url::Url,
    /// Where the profile is written; to standard output where this is left out.
    #[arg(long, value_name = "FILE")]
    pub(crate) profile: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct TokenOptions {
    /// When the token ends: after a time such as 90d or 12h, or never, which must be said.
    #[arg(long, value_name = "TIME", value_parser = parse_expires, default_value = "90d")]
    pub(crate) expires: Expires,
    #[command(flatten)]
    pub(crate) to: ProfileTarget,
}

#[derive(Clone, Copy)]
pub(crate) struct Expires(pub(crate) Option<TimeDelta>);

fn parse_time(text: &str) -> Result<TimeDelta, String> {
    let (number, unit) = match text.find(|character: char| !character.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err("not a time such as 30m, 24h or 90d".to_owned()),
    };
    let total = number.parse::<i64>().ok().and_then(|number| number.checked_mul(seconds));
    total
        .filter(|total| *total <= 100 * 366 * 24 * 3600)
        .and_then(TimeDelta::try_seconds)
        .ok_or_else(|| "not a time such as 30m, 24h or 90d".to_owned())
}

fn parse_expires(text: &str) -> Result<Expires, String> {
    if text == "never" {
        return Ok(Expires(None));
    }
    let time = parse_time(text)?;
    if time <= TimeDelta::zero() {
        return Err("the token would have ended already".to_owned());
    }
    Ok(Expires(Some(time)))
}

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
    writer: Writer,
    output: Output,
}

/// Runs a command on a runtime of its own.
pub(crate) fn run(common: &Common, command: AdminCommand) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(error.to_string()))?;
    runtime.block_on(async {
        let config = aws_config::load_defaults(BehaviorVersion::v2026_01_12()).await;
        let config = aws_sdk_dynamodb::config::Builder::from(&config);
        let admin = Admin { writer: Writer::new(config, &common.dynamodb_table), output: common.output };
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
            AdminCommand::Check(options) => check::check(&admin.writer, &options).await,
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
    Check(Check),
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
fn split_table(name: &str) -> Result<(&str, &str, &str), Failure> {
    let parts = name.rsplit_once('.').and_then(|(schema, table)| {
        let (share, schema) = schema.rsplit_once('.')?;
        Some((share, schema, table))
    });
    parts.ok_or_else(|| Failure::usage(format!("'{name}' is not SHARE.SCHEMA.TABLE")))
}

fn s3_location(text: &str) -> Result<String, Failure> {
    let lies = text.split_once("://").is_some_and(|(scheme, _)| ["s3", "s3a", "s3n"].contains(&scheme));
    if !lies {
        return Err(Failure::usage(format!("location {text}: a table served from DynamoDB lies in s3://")));
    }
    match Location::parse(text, Path::new("/")) {
        Ok(Location::S3 { bucket, prefix, .. }) => {
            Ok(format!("s3://{bucket}/{}", prefix.trim_end_matches('/')))
        }
        Ok(Location::Local(_)) => Err(Failure::usage(format!("location {text} is not in S3"))),
        Err(reason) => Err(Failure::usage(format!("location {text}: {reason}"))),
    }
}

fn s3_locations(texts: &[String]) -> Result<Vec<String>, Failure> {
    texts.iter().map(|text| s3_location(text)).collect()
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
            TableCommand::List { share } => {
                let items = self.writer.query(&keys::share_partition(&share), keys::TABLES).await?;
                self.list(
                    &["schema", "name", "location", "historyShared", "startVersion", "directoryAccess", "id"],
                    &items,
                );
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
