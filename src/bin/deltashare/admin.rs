//! The commands that change what is shared, and with whom: records in DynamoDB.

use std::fs::OpenOptions;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use aws_config::BehaviorVersion;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use clap::{Args, Subcommand, ValueEnum};
use deltashare::catalog::TokenHash;
use deltashare::catalog::keys::{self, Key};
use deltashare::catalog::records::Item;
use deltashare::catalog::writer::{NewTable, NewToken, WriteError, Writer};
use deltashare::protocol::names::{InvalidName, Name};
use deltashare::protocol::profile::Profile;
use deltashare::storage::Location;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::check::{self, Check};
use super::plan::{self, Apply, Plan};
use super::{Failure, example};

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

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Make, list and delete shares.
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

/// Share tables, list them and take them back.
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

/// Make, list and delete recipients.
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

#[derive(Args)]
pub(crate) struct TokenOptions {
    /// When the token ends: after a time such as 90d or 12h, or never, which must be said.
    #[arg(long, value_name = "TIME", value_parser = parse_expires, default_value = "90d")]
    expires: Expires,
    /// The URL of the server, with its prefix; it goes into the profile.
    #[arg(long, value_name = "URL", env = "DELTASHARE_ENDPOINT")]
    endpoint: url::Url,
    /// Where the profile is written; to standard output where this is left out.
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
}

#[derive(Clone, Copy)]
pub(crate) struct Expires(Option<TimeDelta>);

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

/// Whether one location lies in the other.
fn overlap(a: &str, b: &str) -> bool {
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
                if of("SHARE").is_empty() {
                    return Err(WriteError::Missing(format!("share '{share}'")).into());
                }
                self.list(&["name", "id", "comment", "deleting"], &of("SHARE"));
                self.list(&["schema", "name", "location"], &of(keys::TABLES));
                self.list(&["recipient"], &of(keys::GRANTED_TO));
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
            TableCommand::Create { name, location, history, start_version, allow, directory_access, id } => {
                let (share, schema, table) = split_table(&name)?;
                let table = checked(table, Name::schema_or_table)?;
                let location = s3_location(&location)?;
                let allowed_locations =
                    allow.iter().map(|text| s3_location(text)).collect::<Result<Vec<_>, _>>()?;
                if directory_access && (!history || start_version > 0 || !allowed_locations.is_empty()) {
                    return Err(Failure::usage(
                        "--directory-access shows every version of one directory, so it needs --history, and neither \
                         --start-version nor --allow",
                    ));
                }
                for other in self.writer.query(&keys::share_partition(share), keys::TABLES).await? {
                    let (theirs, ours) = (plain(&other, "location"), &location);
                    if theirs != ours && overlap(theirs, ours) {
                        return Err(Failure::usage(format!(
                            "location {location} overlaps that of table '{}.{}': {theirs}",
                            plain(&other, "schema"),
                            plain(&other, "name")
                        )));
                    }
                }
                let new = NewTable {
                    id: id.unwrap_or_else(Uuid::new_v4).to_string(),
                    location,
                    allowed_locations,
                    history_shared: history,
                    start_version,
                    directory_access,
                    signer_role: None,
                };
                self.writer.create_table(share, schema, &table, &new).await?;
                self.done(&format!("table '{name}' is shared"));
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
                if of("RECIPIENT").is_empty() {
                    return Err(WriteError::Missing(format!("recipient '{recipient}'")).into());
                }
                self.list(&["name", "status", "comment"], &of("RECIPIENT"));
                self.list(&["share"], &of(keys::GRANTS));
                self.list(&["id", "expires", "created"], &of(keys::TOKENS));
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

    /// Says what was done. Standard output is kept for what scripts read.
    fn done(&self, what: &str) {
        match self.output {
            Output::Text => eprintln!("{what}"),
            Output::Json => println!("{}", json!({"done": what})),
        }
    }

    /// Prints these attributes of some records: in columns, or as a JSON array.
    fn list(&self, columns: &[&str], items: &[Item]) {
        let mut rows: Vec<Vec<String>> =
            items.iter().map(|item| columns.iter().map(|column| shown(item, column)).collect()).collect();
        rows.sort();
        if self.output == Output::Json {
            let records: Vec<Value> = rows
                .into_iter()
                .map(|row| {
                    let filled = columns.iter().zip(row).filter(|(_, value)| !value.is_empty());
                    Value::Object(
                        filled.map(|(name, value)| ((*name).to_owned(), value.into())).collect::<Map<_, _>>(),
                    )
                })
                .collect();
            println!("{}", Value::Array(records));
            return;
        }
        let used: Vec<usize> = (0..columns.len())
            .filter(|&at| at == 0 || rows.iter().any(|row| row.get(at).is_some_and(|cell| !cell.is_empty())))
            .collect();
        let width = |at: usize| {
            let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
            cells.chain(columns.get(at).map(|name| name.len())).max().unwrap_or(0)
        };
        let line = |cells: Vec<&str>| {
            let padded: Vec<_> =
                used.iter().zip(cells).map(|(&at, cell)| format!("{cell:<0$}", width(at))).collect();
            padded.join("  ").trim_end().to_owned()
        };
        println!("{}", line(used.iter().filter_map(|&at| columns.get(at).copied()).collect()));
        for row in &rows {
            println!("{}", line(used.iter().filter_map(|&at| row.get(at).map(String::as_str)).collect()));
        }
    }
}

fn plain<'a>(item: &'a Item, name: &str) -> &'a str {
    item.get(name).and_then(|value| value.as_s().ok()).map_or("", String::as_str)
}

fn shown(item: &Item, name: &str) -> String {
    use aws_sdk_dynamodb::types::AttributeValue;

    match item.get(name) {
        Some(AttributeValue::S(text) | AttributeValue::N(text)) => text.clone(),
        Some(AttributeValue::Bool(flag)) => flag.to_string(),
        Some(_) | None => String::new(),
    }
}

/// Asks before what cannot be undone. Without a terminal to ask on, `--yes` must have been said.
fn confirm(yes: bool, question: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(format!("{question} Say so with --yes.")));
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|error| Failure::failed(error.to_string()))?;
    if ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) {
        Ok(())
    } else {
        Err(Failure::failed("nothing was changed"))
    }
}

/// A token that was made, and the profile that hands it over.
struct Made {
    token: NewToken,
    profile: String,
    path: Option<PathBuf>,
}

impl Made {
    fn new(options: &TokenOptions) -> Result<Self, Failure> {
        if let Some(path) = options.profile.as_ref().filter(|path| path.exists()) {
            return Err(Failure::usage(format!("{} is there already; name another file", path.display())));
        }
        let now = Utc::now();
        let expires: Option<DateTime<Utc>> = options.expires.0.map(|life| now + life);
        let token = example::Token::random()?.text;
        let endpoint = format!("{}/", options.endpoint.as_str().trim_end_matches('/'));
        let profile = Profile::new(&endpoint, token.clone(), expires);
        let profile =
            serde_json::to_string_pretty(&profile).map_err(|error| Failure::failed(error.to_string()))?;
        let id = Uuid::new_v4().simple().to_string().chars().take(8).collect();
        let token = NewToken { id, hash: TokenHash::of(&token), expires };
        Ok(Self { token, profile: profile + "\n", path: options.profile.clone() })
    }

    /// Writes the profile where only its owner can read it, or to standard output.
    fn hand_over(&self) -> Result<(), Failure> {
        let Some(path) = &self.path else {
            print!("{}", self.profile);
            return Ok(());
        };
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let written = options.open(path).and_then(|mut file| file.write_all(self.profile.as_bytes()));
        written.map_err(|error| {
            let ends = self.token.expires.map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true));
            Failure::failed(format!(
                "the token {} was made, good until {}, but its profile {} cannot be written: {error}; revoke the token and \
                 make another",
                self.token.id,
                ends.as_deref().unwrap_or("it is revoked"),
                path.display()
            ))
        })
    }
}
