//! The commands that change shares and recipients: records in DynamoDB.

use std::collections::HashMap;
use std::io::IsTerminal as _;

use chrono::{TimeDelta, Utc};
use deltashare::catalog::TableSettings;
use deltashare::catalog::diff::{CatalogChange, until};
use deltashare::catalog::dynamodb::keys::Key;
use deltashare::catalog::dynamodb::{
    Credential, FoundPolicy, FoundToken, ListedGrant, ListedRecipient, ListedTable, MissingRecord,
    RecipientChanges, ReplacedToken, SeenTables, WriteError, Writer, WrittenValue,
};
use deltashare::catalog::state::{CatalogState, TableState};
use deltashare::check::{self, TableCheck, TableChecker};
use deltashare::location::WrittenLocation;
use deltashare::protocol::names::{InvalidName, Name};
use uuid::Uuid;

use super::arguments::{
    Common, GrantOptions, ProfileOptions, RecipientCommand, RevokeOptions, SchemaCommand, ShareCommand,
    TableCommand, TokenCommand, TokenOptions, properties, s3_location, s3_locations,
};
use super::aws::Aws;
use super::expiring::expires_within;
use super::grants::{self, Access, MOST_SEEN, SEEN};
use super::new_token;
use super::next_step;
use super::output::{Output, Row, confirm, printable};
use super::plan::{self, Apply, Plan};
use super::profile::{self, CreatedToken};
use super::{Cause, Failure, blocking, rows};

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

impl From<MissingRecord> for Failure {
    fn from(missing: MissingRecord) -> Self {
        WriteError::Missing(missing).into()
    }
}

/// What recipients keep of what was revoked.
const URLS_LIVE_ON: &str = "URLs that were issued before stay valid until they expire, for at most one hour.";

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
    Revoke(RevokeOptions),
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

/// Says which grants are not in force although they are listed.
fn warn_of_grants(grants: &[ListedGrant]) {
    for bad in grants.iter().filter_map(|grant| grant.fault.as_ref()) {
        eprintln!("warning: servers refuse requests for a share, because {}", printable(&bad.to_string()));
    }
}

/// Says which OIDC policies are not in force.
fn warn_of_policies(policies: &[FoundPolicy]) {
    for found in policies {
        if let Some(fault) = &found.fault {
            eprintln!("warning: the record of OIDC policy '{}' {}", found.policy.id(), printable(fault));
        }
    }
}

/// Whether one location lies in the other.
pub(crate) fn overlap(a: &str, b: &str) -> bool {
    let slashed = |text: &str| format!("{}/", text.trim_end_matches('/'));
    let (a, b) = (slashed(a), slashed(b));
    a.starts_with(&b) || b.starts_with(&a)
}

impl Admin {
    async fn run(&self, command: AdminCommand) -> Result<(), Failure> {
        match command {
            AdminCommand::Share(command) => self.share(command).await,
            AdminCommand::Schema(command) => self.schema(command).await,
            AdminCommand::Table(command) => self.table(command).await,
            AdminCommand::Recipient(command) => self.recipient(command).await,
            AdminCommand::Token(command) => self.token(command).await,
            AdminCommand::Grant(options) => self.grant(options).await,
            AdminCommand::Plan(options) => plan::plan(&self.writer, &options).await,
            AdminCommand::Apply(options) => plan::apply(&self.writer, &options).await,
            AdminCommand::Export => plan::export(&self.writer).await,
            AdminCommand::Profile(options) => {
                let said = profile::write(&self.writer, &options).await?;
                self.output.note(&format!("{said}."));
                Ok(())
            }
            AdminCommand::Revoke(RevokeOptions { recipient, share }) => {
                self.writer.revoke(&recipient, &share).await?;
                self.done(&format!("Share '{share}' is no longer granted to '{recipient}'. {URLS_LIVE_ON}"));
                Ok(())
            }
        }
    }

    async fn grant(&self, options: GrantOptions) -> Result<(), Failure> {
        let (share, changes) = options.changes()?;
        let now = changes.state();
        let before = self.writer.grant(&options.recipient, &share_name(&share)?, changes).await?;
        let is_changed = before.as_ref().is_some_and(|before| !before.readable || before.state != now);
        let said = grants::said(&share, &options.recipient, before.as_ref(), &now);
        self.done(&if is_changed { format!("{said} {URLS_LIVE_ON}") } else { said });
        if let Some(tables) = &now.tables
            // The grant is in force, whether this can be found out or not.
            && let Ok(unmatched) = self.writer.unmatched(&share, tables).await
            && !unmatched.is_empty()
        {
            self.output
                .note(&format!("note: share '{share}' has no table that matches {}", unmatched.join(" or ")));
        }
        Ok(())
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
                self.done(&format!("Share '{share}' was created. Next, create a schema in it: {next}"));
            }
            ShareCommand::List => {
                let shares = self.writer.shares().await?;
                self.list(&rows::SHARE, &shares.iter().map(rows::share).collect::<Vec<_>>());
                if shares.is_empty() {
                    let create = self.command("share create SHARE");
                    self.output.note(&format!("There is no share yet. Create one with: {create}"));
                }
            }
            ShareCommand::Show { share } => {
                const TABLES: [&str; 4] = ["schema", "name", "location", "filter"];
                let found = self.writer.share(&share).await?;
                let found = found.ok_or_else(|| Failure::from(MissingRecord::share(&share)))?;
                warn_of_grants(&found.recipients);
                self.output.record(
                    &rows::SHARE,
                    &rows::share(&found.record),
                    &[
                        ("schemas", &["name"], rows::schemas(found.schemas)),
                        ("tables", &TABLES, rows::tables(&TABLES, &found.tables)),
                        ("recipients", &["recipient", "tables", "filter"], rows::grants(found.recipients)),
                    ],
                );
            }
            ShareCommand::Update { share, comment, no_comment: _ } => {
                self.writer.update_share(&share, comment.as_deref()).await?;
                let comment = comment.map_or_else(|| "none".to_owned(), |comment| format!("'{comment}'"));
                self.done(&format!("Share '{share}' was updated: its comment is now {comment}."));
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
                    "Share '{share}' was deleted, with {deleted} records of its schemas, tables and grants. The \
                     files in S3 were not changed. {URLS_LIVE_ON}"
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
                self.done(&format!("Schema '{schema}' was created. Next, share a table in it: {next}"));
            }
            SchemaCommand::List { share } => {
                let schemas = self.writer.schemas(&share).await?;
                let is_empty = schemas.is_empty();
                self.list(&["name"], &rows::schemas(schemas));
                if is_empty {
                    self.must_have_share(&share).await?;
                    let create = self.command_about("schema create", &format!("{share}.SCHEMA"), "");
                    self.output
                        .note(&format!("Share '{share}' has no schema yet. Create one with: {create}"));
                }
            }
            SchemaCommand::Show { schema } => {
                let (share, name) = split_schema(&schema)?;
                const TABLES: [&str; 3] = ["name", "location", "filter"];
                let found = self.writer.schema(share, name).await?;
                let found = found.ok_or_else(|| Failure::from(MissingRecord::schema(share, name)))?;
                self.output.record(
                    &["name"],
                    &vec![found.record.name],
                    &[("tables", &TABLES, rows::tables(&TABLES, &found.tables))],
                );
            }
            SchemaCommand::Delete { schema, yes } => {
                let (share, name) = split_schema(&schema)?;
                confirm(yes, &format!("Delete schema '{schema}'?"))?;
                self.writer.delete_schema(share, name).await?;
                self.done(&format!("Schema '{schema}' was deleted."));
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
                filter,
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
                        filter,
                    },
                };
                self.check_table(share, schema, &new).await?;
                self.writer.create_table(share, schema, &new).await?;
                let check = self.command("check");
                self.done(&format!(
                    "Table '{name}' is now shared with every recipient of share '{share}'. To check whether it can \
                     be read: {check}"
                ));
            }
            TableCommand::Show { name } => {
                let (share, schema, table) = split_table(&name)?;
                let record = self.writer.listed_table(share, schema, table).await?;
                let record =
                    record.ok_or_else(|| Failure::from(MissingRecord::table(share, schema, table)))?;
                self.output.record(&rows::TABLE, &rows::table(&rows::TABLE, &record), &[]);
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
                    self.done(&format!("Table '{name}' already has these settings; nothing was changed."));
                    return Ok(());
                }
                self.check_table(share, schema, &after).await?;
                let changed = before.changes_to(&after);
                let change = CatalogChange::UpdateTable {
                    share: share.to_owned(),
                    schema: schema.to_owned(),
                    before: Box::new(before),
                    after: Box::new(after),
                };
                self.writer.apply(&change).await?;
                self.done(&format!("Table '{name}' was updated: {changed}{}", change.widening()));
            }
            TableCommand::List { share, details } => {
                let tables = self.writer.tables(&share).await?;
                if tables.is_empty() {
                    self.must_have_share(&share).await?;
                    let name = format!("{share}.SCHEMA.TABLE");
                    let create = self.command_about("table create", &name, "--location s3://BUCKET/PREFIX");
                    self.output.note(&format!("Share '{share}' has no table yet. Share one with: {create}"));
                }
                if !details {
                    self.list(&rows::LISTED_TABLE, &rows::tables(&rows::LISTED_TABLE, &tables));
                    return Ok(());
                }
                let state = self.writer.read().await?.state;
                let (opened, unreadable) = self.opened(&state, &tables).await;
                self.list(&rows::OPENED_TABLE, &opened);
                if unreadable > 0 {
                    let check = self.command("check");
                    self.output.note(&format!(
                        "{unreadable} tables cannot be read with your credentials. To see why: {check}"
                    ));
                }
            }
            TableCommand::Delete { name, yes } => {
                let (share, schema, table) = split_table(&name)?;
                confirm(yes, &format!("Stop sharing table '{name}'?"))?;
                self.writer.delete_table(share, schema, table).await?;
                self.done(&format!(
                    "Table '{name}' is no longer shared; its files in S3 were not changed. {URLS_LIVE_ON}"
                ));
            }
        }
        Ok(())
    }

    async fn recipient(&self, command: RecipientCommand) -> Result<(), Failure> {
        match command {
            RecipientCommand::Create { recipient, share, comment, property, restrictions, oidc, token } => {
                let name = share_name(&recipient)?;
                let shares = share.iter().map(|share| share_name(share)).collect::<Result<Vec<_>, _>>()?;
                let properties = properties(property, &[])?;
                let restrictions = restrictions.read()?;
                let comment = comment.as_deref();
                let policy = oidc.policy()?;
                let made = match &policy {
                    Some(_) => None,
                    None => Some(CreatedToken::new(&token, &recipient, &share)?),
                };
                let credential = match (&policy, &made) {
                    (Some(policy), _) => Some(Credential::Oidc(policy)),
                    (None, made) => made.as_ref().map(|made| Credential::Token(&made.token)),
                };
                if let Some(credential) = credential {
                    self.writer
                        .create_recipient(&name, comment, &properties, &restrictions, &shares, credential)
                        .await?;
                }
                let handover = match &made {
                    Some(made) => made.hand_over(self.output)?,
                    None => {
                        let profile = "--oidc-token-endpoint URL --oidc-client-id ID --endpoint ENDPOINT";
                        let profile = self.command_about("profile", &recipient, profile);
                        format!("It has no token, but an OIDC policy. To write its profile: {profile}")
                    }
                };
                let reads = match share.as_slice() {
                    [] => {
                        let grant = self.command_about("grant", &recipient, "--share SHARE");
                        format!("cannot read anything yet. Grant it a share with: {grant}")
                    }
                    shares => format!("can read {}.", shares.join(", ")),
                };
                self.created(
                    made.as_ref(),
                    &format!("Recipient '{recipient}' was created and {reads}\n{handover}."),
                );
            }
            RecipientCommand::List => {
                let recipients = self.writer.recipients().await?;
                let rows: Vec<_> = recipients.iter().map(rows::listed_recipient).collect();
                self.list(&rows::LISTED_RECIPIENT, &rows);
                for bad in recipients.iter().filter_map(|recipient| recipient.fault.as_ref()) {
                    eprintln!("warning: servers refuse every token of a recipient, because {bad}");
                }
                if rows.is_empty() {
                    let create = self.command("recipient create RECIPIENT --share SHARE");
                    self.output.note(&format!("There is no recipient yet. Create one with: {create}"));
                }
            }
            RecipientCommand::Show { recipient } => {
                let found = self.writer.recipient(&recipient).await?;
                let found = found.ok_or_else(|| Failure::from(MissingRecord::recipient(&recipient)))?;
                warn_of_grants(&found.shares);
                warn_of_policies(&found.oidc_policies);
                let now = Utc::now();
                let access = Access::of(&found, now);
                let until = access.shown(self.output == Output::Json, now);
                let seen = match access {
                    Access::Until(_) | Access::Policy => {
                        self.writer.seen_tables(&recipient, MOST_SEEN).await?
                    }
                    Access::Nothing(_) => SeenTables::default(),
                };
                self.output.record(
                    &[&rows::RECIPIENT[..], &["readsUntil", "moreTables"]].concat(),
                    &rows::recipient(&found)
                        .into_iter()
                        .chain([
                            until,
                            if seen.more { WrittenValue::Flag(true) } else { WrittenValue::Nothing },
                        ])
                        .collect(),
                    &[
                        ("shares", &["share", "tables", "filter"], rows::grants(found.shares)),
                        ("tokens", &rows::TOKEN, found.tokens.iter().map(rows::token).collect()),
                        ("visibleTables", &SEEN, seen.tables.into_iter().map(grants::seen).collect()),
                        (
                            "oidc",
                            &rows::OIDC_POLICY,
                            found.oidc_policies.iter().map(rows::oidc_policy).collect(),
                        ),
                    ],
                );
                if seen.more {
                    self.output.note(&format!(
                        "note: the recipient sees more tables; these are the first {MOST_SEEN}"
                    ));
                }
            }
            RecipientCommand::Update {
                recipient,
                comment,
                no_comment,
                property,
                no_property,
                restrictions,
                disable,
                enable,
                oidc,
                no_oidc,
            } => {
                let comment = (no_comment || comment.is_some()).then_some(comment.as_deref());
                let active = (disable || enable).then_some(enable);
                let properties = properties(property, &no_property)?;
                let restrictions = restrictions.read()?;
                let binds = restrictions.allowed_ips.as_ref().is_some_and(Option::is_some);
                let policy = oidc.policy()?;
                let no_properties = no_property;
                let changes = RecipientChanges { comment, active, properties, no_properties, restrictions };
                // First, because a command that fails must not have widened what the recipient may do.
                for id in &no_oidc {
                    let policy = self.writer.remove_oidc_policy(&recipient, id).await?;
                    self.output.note(&format!(
                        "The OIDC policy {id} was removed, so its tokens are refused from the next request: {policy}."
                    ));
                }
                self.writer.update_recipient(&recipient, changes).await?;
                if let Some(policy) = policy {
                    let before = self.writer.put_oidc_policy(&recipient, &policy).await?;
                    let what = if before.is_some() { "now is" } else { "was added" };
                    self.output.note(&format!("The OIDC policy {} {what}: {policy}.", policy.id()));
                }
                let enable = self.command_about("recipient update", &recipient, "--enable");
                let status = match active {
                    Some(false) => format!(
                        " Its tokens are refused from the next request. {URLS_LIVE_ON} To enable it again: {enable}"
                    ),
                    Some(true) => " Its tokens are accepted again.".to_owned(),
                    None => String::new(),
                };
                let bound = match binds {
                    true => format!(" Other addresses are refused from the next request. {URLS_LIVE_ON}"),
                    false => String::new(),
                };
                self.done(&format!("Recipient '{recipient}' was updated.{bound}{status}"));
            }
            RecipientCommand::Delete { recipient, yes } => {
                confirm(yes, &format!("Delete recipient '{recipient}' with its tokens and grants?"))?;
                self.writer.delete_recipient(&recipient).await?;
                self.done(&format!(
                    "Recipient '{recipient}' was deleted, with its tokens and grants. {URLS_LIVE_ON}"
                ));
            }
        }
        Ok(())
    }

    async fn token(&self, command: TokenCommand) -> Result<(), Failure> {
        match command {
            TokenCommand::Create { recipient, token } => {
                let made = self.new_token(&token, &recipient).await?;
                self.writer.create_token(&recipient, &made.token).await?;
                let handover = made.hand_over(self.output)?;
                let list = self.command_about("token list", &recipient, "");
                let what = format!(
                    "Recipient '{recipient}' has a new token.\n{handover}.\nIts other tokens stay valid; to see them: {list}"
                );
                self.created(Some(&made), &what);
            }
            // `main` runs it without a catalog.
            TokenCommand::New(options) => new_token::run(&options, &self.common)?,
            TokenCommand::List { recipient: None, expiring } => self.list_all_tokens(expiring).await?,
            TokenCommand::List { recipient: Some(recipient), expiring: Some(expiring) } => {
                let tokens = self.writer.tokens(&recipient).await?;
                if tokens.is_empty() && !self.writer.has_recipient(&recipient).await? {
                    return Err(MissingRecord::recipient(&recipient).into());
                }
                let now = Utc::now();
                let soon = tokens.iter().filter(|token| expires_within(token, now, expiring));
                self.list(&rows::TOKEN, &soon.map(rows::token).collect::<Vec<_>>());
            }
            TokenCommand::List { recipient: Some(recipient), expiring: None } => {
                let tokens = self.writer.tokens(&recipient).await?;
                self.list(&rows::TOKEN, &tokens.iter().map(rows::token).collect::<Vec<_>>());
                for token in &tokens {
                    if let Some(fault) = &token.fault {
                        eprintln!("warning: a record of token '{}' {fault}", token.id);
                    } else if token.is_live(Utc::now()) && !token.is_listed {
                        eprintln!(
                            "warning: token '{}' works, but has no record below its recipient",
                            token.id
                        );
                    } else if !token.is_known {
                        eprintln!("note: token '{}' does not work: its TOKEN# record is missing", token.id);
                    }
                }
                if tokens.is_empty() {
                    if !self.writer.has_recipient(&recipient).await? {
                        return Err(MissingRecord::recipient(&recipient).into());
                    }
                    let create = self.command_about("token create", &recipient, "");
                    self.output
                        .note(&format!("Recipient '{recipient}' has no token. Create one with: {create}"));
                }
            }
            TokenCommand::Rotate { recipient, grace, token } => {
                let made = self.new_token(&token, &recipient).await?;
                let ends = self.writer.rotate_token(&recipient, &made.token, grace).await?;
                let handover = made.hand_over(self.output)?;
                let now = Utc::now();
                let ends: Vec<_> = ends
                    .iter()
                    .map(|ReplacedToken { id, end, had_link }| {
                        let link = if *had_link {
                            " Its activation link was not used, and was deleted."
                        } else {
                            ""
                        };
                        match *end > now {
                            true => format!("The old token {id} is valid {}.{link}", until(Some(*end))),
                            false => format!("The old token {id} has expired.{link}"),
                        }
                    })
                    .collect();
                let ends = if ends.is_empty() { "It had no other token.".to_owned() } else { ends.join(" ") };
                let what = format!("Recipient '{recipient}' has a new token.\n{handover}.\n{ends}");
                self.created(Some(&made), &what);
            }
            TokenCommand::Revoke { recipient, token, yes } => {
                confirm(yes, &format!("Revoke token '{token}' of '{recipient}' now?"))?;
                self.writer.revoke_token(&recipient, &token).await?;
                self.done(&format!(
                    "Token '{token}' of '{recipient}' was revoked: requests with it now get 401. {URLS_LIVE_ON}"
                ));
            }
        }
        Ok(())
    }

    /// Lists the tokens of every recipient, or only those that expire within a time.
    async fn list_all_tokens(&self, expiring: Option<TimeDelta>) -> Result<(), Failure> {
        let (recipients, now) = (self.writer.recipients().await?, Utc::now());
        let is_listed =
            |token: &FoundToken| expiring.is_none_or(|expiring| expires_within(token, now, expiring));
        // Tokens of a disabled recipient are not valid.
        let is_asked_for =
            |recipient: &&ListedRecipient| expiring.is_none() || recipient.status.text() == "active";
        let rows = recipients.iter().filter(is_asked_for).flat_map(|recipient| {
            let listed = recipient.tokens.iter().filter(|token| is_listed(token));
            listed.map(|token| rows::token_of(recipient, token))
        });
        let rows: Vec<Row> = rows.collect();
        self.list(&rows::TOKEN_OF, &rows);
        if rows.is_empty() {
            self.output.note(match expiring {
                Some(_) => "No token expires within this time.",
                None => "There is no token yet.",
            });
        }
        Ok(())
    }

    /// Opens the tables that servers can read the records of. Returns a row for each table, and how many cannot be read.
    async fn opened(&self, state: &CatalogState, tables: &[ListedTable]) -> (Vec<Row>, usize) {
        let storage = self.aws.storage(None);
        let mut found: HashMap<Key, TableCheck> = HashMap::new();
        for (key, name, table) in check::named_tables(state) {
            if tables.iter().any(|listed| listed.key == key) {
                let filters = state.filters_of(&name, table);
                let opened = TableChecker::new(&storage, None).open(&name, &table.settings, &filters).await;
                found.insert(key, opened);
            }
        }
        let unreadable = found.values().filter(|found| !found.readable).count();
        let rows = tables
            .iter()
            .map(|table| rows::opened_table(table, found.remove(&table.key).unwrap_or_default()));
        (rows.collect(), unreadable)
    }

    async fn must_have_share(&self, share: &str) -> Result<(), Failure> {
        if self.writer.has_share(share).await? { Ok(()) } else { Err(MissingRecord::share(share).into()) }
    }

    fn done(&self, what: &str) {
        self.output.done(what);
    }

    /// Says that a token was created. Scripts get its activation link with that.
    fn created(&self, made: Option<&CreatedToken>, what: &str) {
        let values = made.and_then(CreatedToken::link).map(|link| link.values()).unwrap_or_default();
        self.output.done_with(what, &values);
    }

    /// A token of a recipient that exists, for what it may read now.
    async fn new_token(&self, options: &TokenOptions, recipient: &str) -> Result<CreatedToken, Failure> {
        // Only the page of an activation link shows the shares.
        let shares = match options.link.activation {
            true => self.writer.granted_shares(recipient).await?,
            false => Vec::new(),
        };
        CreatedToken::new(options, recipient, &shares)
    }

    fn list(&self, columns: &[&str], rows: &[Row]) {
        self.output.list(columns, rows);
    }

    /// Refuses a table that cannot be shared as it is said.
    async fn check_table(&self, share: &str, schema: &str, table: &TableState) -> Result<(), Failure> {
        if table.settings.directory_access && !table.settings.shares_whole_directory() {
            return Err(Failure::usage(
                "--directory-access gives access to every file of every version in one directory: it requires \
                 --history, and cannot be used with --start-version, --allow or --filter",
            ));
        }
        let own = Key::table(share, schema, &table.name);
        let ours = table.settings.location.canonical();
        for other in self.writer.tables(share).await? {
            let theirs = WrittenLocation::parse(other.location.text(), None).canonical();
            if other.key.sort != own.sort && theirs != ours && overlap(theirs.text(), ours.text()) {
                return Err(Failure::usage(format!(
                    "location {ours} overlaps that of table '{}.{}': {theirs}",
                    other.schema.text(),
                    other.name.text()
                )));
            }
        }
        Ok(())
    }
}
