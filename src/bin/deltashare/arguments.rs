//! What the commands take that change what is shared.

use std::path::PathBuf;

use chrono::TimeDelta;
use clap::{ArgGroup, Args, Subcommand};
use deltashare::catalog::TableSettings;
use deltashare::location::{Location, WrittenLocation};
use deltashare::role::RoleArn;
use uuid::Uuid;

use super::Failure;
use super::output::Output;
use super::serve::parse_role;

/// The DynamoDB table where none is named.
pub(crate) const DEFAULT_TABLE: &str = "deltashare";

/// The environment variable that names the DynamoDB table.
pub(crate) const TABLE_VARIABLE: &str = "DELTASHARE_TABLE";

/// The heading of what every command takes.
const EVERYWHERE: &str = "Options of every command";

/// What every command of this kind takes.
#[derive(Args, Clone)]
pub(crate) struct Common {
    /// The DynamoDB table with shares and recipients.
    #[arg(
        long = "table",
        value_name = "TABLE",
        env = TABLE_VARIABLE,
        global = true,
        help_heading = EVERYWHERE,
        default_value = DEFAULT_TABLE
    )]
    pub(crate) dynamodb_table: String,

    /// How results are printed: for people, or as JSON.
    #[arg(long, value_enum, global = true, help_heading = EVERYWHERE, default_value = "text")]
    pub(crate) output: Output,
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
    #[command(
        after_help = "Examples:\n  deltashare table list retail\n  deltashare table list retail --details"
    )]
    List {
        /// The share.
        share: String,
        /// Also open each table, and show its version and the number and size of its files.
        #[arg(long)]
        details: bool,
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
    /// Makes these changes.
    pub(crate) fn make(self, settings: &mut TableSettings) -> Result<(), Failure> {
        let flag = |on: bool, off: bool, before: bool| on || (before && !off);
        if let Some(location) = self.location {
            settings.location = s3_location(&location)?;
        }
        if self.no_allow || !self.allow.is_empty() {
            settings.allowed_locations = s3_locations(&self.allow)?;
        }
        if self.no_signer_role || self.signer_role.is_some() {
            settings.signer_role = self.signer_role;
        }
        settings.start_version = self.start_version.unwrap_or(settings.start_version);
        settings.history_shared = flag(self.history, self.no_history, settings.history_shared);
        settings.directory_access =
            flag(self.directory_access, self.no_directory_access, settings.directory_access);
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
    /// List the recipients: what each may read, how many live tokens it has, and when the first of them ends.
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
    /// List the tokens of a recipient: all that work, and all that its list has.
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
    /// End a token now, by deleting its records.
    #[command(after_help = "Example:\n  deltashare token revoke acme 5f3a9c1e --yes")]
    Revoke {
        /// The recipient.
        recipient: String,
        /// The token's id, as the list shows it, or eight or more of the first digits of its hash.
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
    pub(crate) recipient: String,
    /// The share.
    #[arg(long)]
    pub(crate) share: String,
}

/// Write the profile of a token that you have.
///
/// A token is stored nowhere, so none can be looked up: where it is lost, rotate.
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
        None if text == "0" => (text, "s"),
        None if text.is_empty() => return Err("not a time such as 30m, 24h or 90d".to_owned()),
        // Whoever leaves the unit out may mean days.
        None => {
            return Err(format!(
                "a time needs a unit: {text}d for days, {text}h for hours, {text}m for minutes, {text}s for seconds"
            ));
        }
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

/// A location in S3, as it is written down.
pub(crate) fn s3_location(text: &str) -> Result<WrittenLocation, Failure> {
    let lies = text.split_once("://").is_some_and(|(scheme, _)| ["s3", "s3a", "s3n"].contains(&scheme));
    if !lies {
        return Err(Failure::usage(format!("location {text}: a table served from DynamoDB lies in s3://")));
    }
    match Location::parse(text, None) {
        Ok(Location::S3 { bucket, prefix, .. }) => {
            Ok(WrittenLocation::parse(&format!("s3://{bucket}/{}", prefix.trim_end_matches('/')), None))
        }
        Ok(Location::Local(_)) => Err(Failure::usage(format!("location {text} is not in S3"))),
        Err(reason) => Err(Failure::usage(format!("location {text}: {reason}"))),
    }
}

pub(crate) fn s3_locations(texts: &[String]) -> Result<Vec<WrittenLocation>, Failure> {
    texts.iter().map(|text| s3_location(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_needs_a_unit() {
        let days = |text| parse_expires(text).map(|expires| expires.0.map(|time| time.num_days()));
        assert_eq!(days("90d"), Ok(Some(90)));
        assert_eq!(days("48h"), Ok(Some(2)));
        assert_eq!(days("never"), Ok(None));
        assert!(days("90").unwrap_err().contains("90d for days"));
        assert_eq!(parse_time("0"), Ok(TimeDelta::zero()));
        for text in ["", "d", "90 d", "90days", "-1d", "1.5h", "99999999999999999999d", "36601d", "９d"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }
}
