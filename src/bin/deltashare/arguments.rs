//! What the commands take that change what is shared.

use std::path::PathBuf;

use chrono::TimeDelta;
use clap::{ArgGroup, Args, Subcommand};
use deltashare::catalog::TableSettings;
use deltashare::catalog::properties::{Properties, check_property};
use deltashare::location::{Location, WrittenLocation};
use deltashare::predicate::PartitionFilter;
use deltashare::role::RoleArn;
use uuid::Uuid;

use super::Failure;
use super::new_token::NewTokenOptions;
use super::oidc_arguments::{OidcPolicyOptions, OidcProfileOptions};
use super::output::Output;
use super::restrictions::{RESTRICTIONS, RestrictionOptions, RestrictionUpdate};
use super::serve::parse_role;

/// The DynamoDB table if none is named.
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

    /// The output format: text for people, or JSON.
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

/// Create, list, change, and delete shares.
#[derive(Subcommand)]
#[command(after_help = "Example:\n  deltashare share create retail --comment 'sales and stock'")]
pub(crate) enum ShareCommand {
    /// Create a share.
    #[command(after_help = "Example:\n  deltashare share create retail")]
    Create {
        /// The name.
        share: String,
        /// A comment, for the people who manage it.
        #[arg(long)]
        comment: Option<String>,
    },
    /// List the shares.
    #[command(after_help = "Example:\n  deltashare share list --output json")]
    List,
    /// Show the schemas and tables of a share, and the recipients that it is granted to.
    #[command(after_help = "Example:\n  deltashare share show retail")]
    Show {
        /// The name.
        share: String,
    },
    /// Change the comment of a share. The name cannot change, because recipients have it in their code.
    #[command(
        group = ArgGroup::new("change").required(true).args(["comment", "no_comment"]),
        after_help = "Example:\n  deltashare share update retail --comment 'sales only'"
    )]
    Update {
        /// The name.
        share: String,
        /// A comment, for the people who manage it.
        #[arg(long)]
        comment: Option<String>,
        /// Remove the comment.
        #[arg(long)]
        no_comment: bool,
    },
    /// Delete a share with its schemas, tables, and grants. The files in S3 stay.
    #[command(after_help = "Example:\n  deltashare share delete retail --yes")]
    Delete {
        /// The name.
        share: String,
        /// Do not ask for confirmation.
        #[arg(long)]
        yes: bool,
    },
}

/// Create, list, and delete schemas.
#[derive(Subcommand)]
#[command(after_help = "Example:\n  deltashare schema create retail.sales")]
pub(crate) enum SchemaCommand {
    /// Create a schema in a share.
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
    /// Show the tables of a schema.
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
        /// Do not ask for confirmation.
        #[arg(long)]
        yes: bool,
    },
}

/// Share tables, list and change shared tables, and stop sharing them.
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
        /// The location of the table: s3://BUCKET/PREFIX
        #[arg(long)]
        location: String,
        /// Let recipients read older versions and change data.
        #[arg(long)]
        history: bool,
        /// The oldest version that recipients can read.
        #[arg(long, default_value_t = 0)]
        start_version: u64,
        /// Another location that the log may name files in, for shallow clones. Repeat the option for several.
        #[arg(long, value_name = "LOCATION")]
        allow: Vec<String>,
        /// Let recipients have temporary credentials for the directory of the table.
        #[arg(long)]
        directory_access: bool,
        /// The role that reads the table and signs its URLs, for a bucket in another account. Default: the role of the server.
        #[arg(long, value_name = "ARN", value_parser = parse_role)]
        signer_role: Option<RoleArn>,
        /// Share only the files whose partition values meet this condition, such as "region = 'EU'". It can read
        /// properties of the recipient: 'region = ${recipient.region}'. Default: share every file.
        #[arg(long, value_name = "SQL", value_parser = parse_filter)]
        filter: Option<PartitionFilter>,
        /// The id of the table, a UUID. Default: a new one.
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
        /// Open each table too, and show its version and the number and size of its files.
        #[arg(long)]
        details: bool,
    },
    /// Show the settings of a table.
    #[command(after_help = "Example:\n  deltashare table show retail.sales.orders")]
    Show {
        /// SHARE.SCHEMA.TABLE
        name: String,
    },
    /// Change the settings of a table. Other settings, the name, and the id stay the same.
    #[command(
        after_help = "Example:\n  deltashare table update retail.sales.orders --location s3://my-bucket/moved/orders --no-history"
    )]
    Update {
        /// SHARE.SCHEMA.TABLE
        name: String,
        #[command(flatten)]
        changes: TableChanges,
    },
    /// Stop sharing a table. The files in S3 stay.
    #[command(after_help = "Example:\n  deltashare table delete retail.sales.orders --yes")]
    Delete {
        /// SHARE.SCHEMA.TABLE
        name: String,
        /// Do not ask for confirmation.
        #[arg(long)]
        yes: bool,
    },
}

/// The settings of a table to change.
#[derive(Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true).args([
    "location", "history", "no_history", "start_version", "allow", "no_allow", "directory_access",
    "no_directory_access", "signer_role", "no_signer_role", "filter", "no_filter",
]))]
pub(crate) struct TableChanges {
    /// The location of the table: s3://BUCKET/PREFIX
    #[arg(long)]
    location: Option<String>,
    /// Let recipients read older versions and change data.
    #[arg(long, conflicts_with = "no_history")]
    history: bool,
    /// Let recipients read the newest version only.
    #[arg(long)]
    no_history: bool,
    /// The oldest version that recipients can read.
    #[arg(long)]
    start_version: Option<u64>,
    /// Another location that the log may name files in; replaces the current ones. Repeat the option for several.
    #[arg(long, value_name = "LOCATION", conflicts_with = "no_allow")]
    allow: Vec<String>,
    /// Remove the other locations.
    #[arg(long)]
    no_allow: bool,
    /// Let recipients have temporary credentials for the directory of the table.
    #[arg(long, conflicts_with = "no_directory_access")]
    directory_access: bool,
    /// Do not let recipients have such credentials.
    #[arg(long)]
    no_directory_access: bool,
    /// The role that reads the table and signs its URLs, for a bucket in another account.
    #[arg(long, value_name = "ARN", value_parser = parse_role, conflicts_with = "no_signer_role")]
    signer_role: Option<RoleArn>,
    /// Use the role of the server again.
    #[arg(long)]
    no_signer_role: bool,
    /// Share only the files whose partition values meet this condition, such as "region = 'EU'". It can read
    /// properties of the recipient: 'region = ${recipient.region}'.
    #[arg(long, value_name = "SQL", value_parser = parse_filter, conflicts_with = "no_filter")]
    filter: Option<PartitionFilter>,
    /// Share every file again.
    #[arg(long)]
    no_filter: bool,
}

impl TableChanges {
    /// Applies these changes.
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
        if self.no_filter || self.filter.is_some() {
            settings.filter = self.filter;
        }
        settings.start_version = self.start_version.unwrap_or(settings.start_version);
        settings.history_shared = flag(self.history, self.no_history, settings.history_shared);
        settings.directory_access =
            flag(self.directory_access, self.no_directory_access, settings.directory_access);
        Ok(())
    }
}

/// Create, list, change, and delete recipients.
#[derive(Subcommand)]
#[command(
    after_help = "Example:\n  deltashare recipient create acme --share retail --endpoint https://sharing.example.com/delta-sharing/ --profile acme.share"
)]
pub(crate) enum RecipientCommand {
    /// Create a recipient with a token, and write its profile or an activation link. The token is not shown again.
    ///
    /// With --oidc-issuer, the recipient has an OIDC policy instead: it sends tokens of its own OpenID provider, and no secret
    /// needs to be sent to it.
    #[command(
        mut_arg("endpoint", |endpoint| endpoint.required(false).required_unless_present("oidc_issuer")),
        mut_arg("profile", |profile| profile.conflicts_with("oidc_issuer")),
        mut_arg("expires", |expires| expires.conflicts_with("oidc_issuer")),
        mut_arg("activation", |activation| activation.conflicts_with("oidc_issuer")),
        after_help = "Examples:\n  deltashare recipient create acme --share retail --expires 90d --endpoint https://sharing.example.com/delta-sharing/ --profile acme.share\n  deltashare recipient create acme --share retail --endpoint https://sharing.example.com/delta-sharing/ --activation\n  deltashare recipient create acme --share retail --oidc-issuer https://idp.example.com --oidc-subject-claim azp --oidc-subject acme-reader --oidc-audience delta-sharing"
    )]
    Create {
        /// The name.
        recipient: String,
        /// A share to grant, without a filter. Repeat the option for several.
        #[arg(long, value_name = "SHARE")]
        share: Vec<String>,
        /// A comment, for the people who manage it.
        #[arg(long)]
        comment: Option<String>,
        /// A property that filters can read as ${recipient.NAME}. Repeat the option for several.
        #[arg(long, value_name = "NAME=VALUE", value_parser = parse_property)]
        property: Vec<Property>,
        #[command(flatten)]
        restrictions: RestrictionOptions,
        #[command(flatten)]
        oidc: OidcPolicyOptions,
        #[command(flatten)]
        token: TokenOptions,
    },
    /// List the recipients with their grants, the number of their tokens, and when the first token expires.
    #[command(after_help = "Example:\n  deltashare recipient list")]
    List,
    /// Show the properties, restrictions, grants, tokens, and OIDC policies of a recipient, the tables that it sees now, and
    /// until when.
    #[command(after_help = "Example:\n  deltashare recipient show acme")]
    Show {
        /// The name.
        recipient: String,
    },
    /// Change the comment, properties, restrictions, or OIDC policies of a recipient, or disable or enable it.
    #[command(
        group = ArgGroup::new("change").required(true).multiple(true)
            .args(["comment", "no_comment", "property", "no_property", "disable", "enable", "oidc_issuer", "no_oidc"])
            .args(RESTRICTIONS),
        after_help = "Examples:\n  deltashare recipient update acme --disable\n  deltashare recipient update acme --property region=EU\n  deltashare recipient update acme --allowed-ip 203.0.113.0/24 --allowed-ip 198.51.100.7\n  deltashare recipient update acme --oidc-issuer https://idp.example.com --oidc-subject acme-reader --oidc-audience delta-sharing\n  deltashare recipient update acme --no-oidc 1f0c7a92"
    )]
    Update {
        /// The name.
        recipient: String,
        /// A comment, for the people who manage it.
        #[arg(long, conflicts_with = "no_comment")]
        comment: Option<String>,
        /// Remove the comment.
        #[arg(long)]
        no_comment: bool,
        /// A property that filters can read as ${recipient.NAME}. Other properties stay the same. Repeat the option for
        /// several.
        #[arg(long, value_name = "NAME=VALUE", value_parser = parse_property)]
        property: Vec<Property>,
        /// Remove a property. Repeat the option for several.
        #[arg(long, value_name = "NAME")]
        no_property: Vec<String>,
        #[command(flatten)]
        restrictions: RestrictionUpdate,
        /// Disable the recipient from the next request. Its tokens and grants are kept.
        #[arg(long, conflicts_with = "enable")]
        disable: bool,
        /// Enable the recipient again.
        #[arg(long)]
        enable: bool,
        #[command(flatten)]
        oidc: OidcPolicyOptions,
        /// Remove the OIDC policy with this ID, as `recipient show` lists it. Repeat the option for several.
        #[arg(long, value_name = "ID", help_heading = "OIDC options")]
        no_oidc: Vec<String>,
    },
    /// Delete a recipient with its tokens and grants.
    #[command(after_help = "Example:\n  deltashare recipient delete acme --yes")]
    Delete {
        /// The name.
        recipient: String,
        /// Do not ask for confirmation.
        #[arg(long)]
        yes: bool,
    },
}

/// Create, list, rotate, and revoke tokens.
#[derive(Subcommand)]
#[command(
    after_help = "Example:\n  deltashare token rotate acme --grace 24h --endpoint https://sharing.example.com/delta-sharing/ --profile acme.share"
)]
pub(crate) enum TokenCommand {
    /// Create another token. A recipient has at most two tokens that have not expired.
    #[command(
        after_help = "Examples:\n  deltashare token create acme --expires 30d --endpoint https://sharing.example.com/delta-sharing/ --profile acme.share\n  deltashare token create acme --endpoint https://sharing.example.com/delta-sharing/ --activation"
    )]
    Create {
        /// The recipient.
        recipient: String,
        #[command(flatten)]
        token: TokenOptions,
    },
    /// Create a token for a share file, and print its hash. Nothing is stored.
    #[command(
        after_help = "Examples:\n  deltashare token new\n  deltashare token new --expires 30d --endpoint https://sharing.example.com/delta-sharing/ --profile acme.share"
    )]
    New(NewTokenOptions),
    /// List the tokens of one recipient or of all, including those that only one of the two records has.
    #[command(after_help = "Examples:\n  deltashare token list acme\n  deltashare token list --expiring 14d")]
    List {
        /// The recipient. Default: all recipients.
        recipient: Option<String>,
        /// List only valid tokens that expire within this time, such as 14d or 48h.
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        expiring: Option<TimeDelta>,
    },
    /// Replace the current token with a new one. Unused activation links of the recipient stop working.
    #[command(
        after_help = "Examples:\n  deltashare token rotate acme --grace 24h --endpoint https://sharing.example.com/delta-sharing/ --profile acme.share\n  deltashare token rotate acme --endpoint https://sharing.example.com/delta-sharing/ --activation --activation-expires 7d"
    )]
    Rotate {
        /// The recipient.
        recipient: String,
        /// How long the old token stays valid, such as 30m or 24h; 0 revokes it now. It never expires later than before.
        #[arg(long, value_name = "TIME", value_parser = parse_time, default_value = "24h")]
        grace: TimeDelta,
        #[command(flatten)]
        token: TokenOptions,
    },
    /// Revoke a token now. Its records are deleted.
    #[command(after_help = "Example:\n  deltashare token revoke acme 5f3a9c1e --yes")]
    Revoke {
        /// The recipient.
        recipient: String,
        /// The id of the token, as the list shows it, or at least eight of the first digits of its hash.
        token: String,
        /// Do not ask for confirmation.
        #[arg(long)]
        yes: bool,
    },
}

/// A grant: a share and a recipient.
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
    /// The tables to grant, in which * stands for any characters of a name, such as 'retail.sales.*' for a schema. Short for
    /// --share and --tables.
    #[arg(value_name = "SHARE.SCHEMA.TABLE", conflicts_with_all = ["share", "tables", "all_tables"])]
    pub(crate) granted: Vec<String>,
    /// The share.
    #[arg(long, required_unless_present = "granted")]
    pub(crate) share: Option<String>,
    /// The tables of the share to grant, in which * stands for any characters of a name, such as 'sales.*' for a schema.
    /// Repeat the option for several. Default: every table.
    #[arg(long, value_name = "SCHEMA.TABLE", conflicts_with = "all_tables")]
    pub(crate) tables: Vec<String>,
    /// Grant every table of the share again.
    #[arg(long)]
    pub(crate) all_tables: bool,
    /// Share only the files whose partition values meet this condition, in every table that is granted, such
    /// as "region = 'EU'". It can read properties of the recipient: 'region = ${recipient.region}'.
    #[arg(long, value_name = "SQL", value_parser = parse_filter, conflicts_with = "no_filter")]
    pub(crate) filter: Option<PartitionFilter>,
    /// Remove the filter of the grant.
    #[arg(long)]
    pub(crate) no_filter: bool,
}

/// A grant that ends.
#[derive(Args)]
pub(crate) struct Revoke {
    #[command(flatten)]
    pub(crate) options: RevokeOptions,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Args)]
pub(crate) struct RevokeOptions {
    /// The recipient.
    pub(crate) recipient: String,
    /// The share.
    #[arg(long)]
    pub(crate) share: String,
}

/// Write the profile of a token that you have, or of a recipient with an OIDC policy.
///
/// Tokens are not stored, so a lost token cannot be looked up. Rotate it instead.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  deltashare profile acme --token-file token.txt --endpoint https://sharing.example.com/delta-sharing/ --profile acme.share\n  deltashare profile acme --oidc-token-endpoint https://idp.example.com/oauth2/token --oidc-client-id acme-reader --endpoint https://sharing.example.com/delta-sharing/ --profile acme.share"
)]
pub(crate) struct ProfileOptions {
    /// The recipient.
    pub(crate) recipient: String,
    /// The file with the token, or - for standard input.
    #[arg(long, value_name = "FILE", required_unless_present = "oidc_token_endpoint")]
    pub(crate) token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) oidc: OidcProfileOptions,
    #[command(flatten)]
    pub(crate) to: ProfileTarget,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// The URL in a profile, and the file that it is written to.
#[derive(Args)]
pub(crate) struct ProfileTarget {
    /// The URL of the server, with its prefix; it goes into the profile.
    #[arg(long, value_name = "URL", env = "DELTASHARE_ENDPOINT", required = true)]
    pub(crate) endpoint: Option<url::Url>,
    /// The file to write the profile to. Default: standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) profile: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct TokenOptions {
    /// When the token expires: after a time such as 90d or 12h, or never.
    #[arg(long, value_name = "TIME", value_parser = parse_expires, default_value = "90d")]
    pub(crate) expires: Expires,
    #[command(flatten)]
    pub(crate) to: ProfileTarget,
    #[command(flatten)]
    pub(crate) link: ActivationOptions,
}

/// A link that hands the profile over.
#[derive(Args)]
pub(crate) struct ActivationOptions {
    /// Print a link instead of the profile. The recipient opens it in a browser, and downloads the profile once. The profile
    /// is stored in the DynamoDB table, encrypted with a key that only the link has.
    #[arg(long, conflicts_with = "profile")]
    pub(crate) activation: bool,
    /// How long the link is valid, such as 12h or 7d; 30d at most. It never outlives the token.
    #[arg(
        long,
        value_name = "TIME",
        value_parser = parse_link_expires,
        default_value = "72h",
        requires = "activation"
    )]
    pub(crate) activation_expires: TimeDelta,
    /// Who invites, such as the name of your company; the page of the link shows it. Default: the host of the endpoint.
    #[arg(long, value_name = "NAME", value_parser = parse_provider, requires = "activation")]
    pub(crate) activation_from: Option<String>,
}

#[derive(Clone, Copy)]
pub(crate) struct Expires(pub(crate) Option<TimeDelta>);

/// A property of a recipient: its name and its value.
#[derive(Clone)]
pub(crate) struct Property {
    name: String,
    value: String,
}

fn parse_property(text: &str) -> Result<Property, String> {
    let (name, value) = text.split_once('=').ok_or("it is not NAME=VALUE")?;
    check_property(name, value)?;
    Ok(Property { name: name.to_owned(), value: value.to_owned() })
}

/// Properties by their names, of which each is set once and not removed too.
pub(crate) fn properties(set: Vec<Property>, removed: &[String]) -> Result<Properties, Failure> {
    let mut properties = Properties::new();
    for Property { name, value } in set {
        if removed.contains(&name) {
            return Err(Failure::usage(format!("property {name} is both set and removed")));
        }
        if properties.insert(name.clone(), value).is_some() {
            return Err(Failure::usage(format!("property {name} is set twice")));
        }
    }
    Ok(properties)
}

fn parse_filter(text: &str) -> Result<PartitionFilter, String> {
    PartitionFilter::parse(text)
}

pub(crate) fn parse_time(text: &str) -> Result<TimeDelta, String> {
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

pub(crate) fn parse_expires(text: &str) -> Result<Expires, String> {
    if text == "never" {
        return Ok(Expires(None));
    }
    let time = parse_time(text)?;
    if time <= TimeDelta::zero() {
        return Err("the token would already have expired".to_owned());
    }
    Ok(Expires(Some(time)))
}

/// The longest life of an activation link.
const MAX_LINK: TimeDelta = TimeDelta::days(30);

fn parse_link_expires(text: &str) -> Result<TimeDelta, String> {
    let time = parse_time(text)?;
    if time <= TimeDelta::zero() {
        return Err("the link would already have expired".to_owned());
    }
    if time > MAX_LINK { Err("must be at most 30d".to_owned()) } else { Ok(time) }
}

fn parse_provider(text: &str) -> Result<String, String> {
    let text = text.trim();
    match text.chars().count() {
        1..=100 if !text.chars().any(char::is_control) => Ok(text.to_owned()),
        _ => Err("not a name of 1 to 100 characters".to_owned()),
    }
}

/// A location in S3, as it is written in a record.
pub(crate) fn s3_location(text: &str) -> Result<WrittenLocation, Failure> {
    let lies = text.split_once("://").is_some_and(|(scheme, _)| ["s3", "s3a", "s3n"].contains(&scheme));
    if !lies {
        return Err(Failure::usage(format!(
            "location {text}: a table in a DynamoDB catalog must be in s3://"
        )));
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
        assert_eq!(parse_link_expires("30d"), Ok(TimeDelta::days(30)));
        assert!(parse_link_expires("0").is_err() && parse_link_expires("721h").is_err());
        for text in ["", "d", "90 d", "90days", "-1d", "1.5h", "99999999999999999999d", "36601d", "９d"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }
}
