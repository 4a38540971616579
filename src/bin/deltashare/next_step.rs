//! What to do when something does not exist: the end of an error's sentence.

use std::time::Duration;

use aws_config::SdkConfig;
use deltashare::catalog::dynamodb::MissingRecord;

use super::arguments::{Common, DEFAULT_TABLE, TABLE_VARIABLE};
use super::shell::{option, quoted};
use super::{Cause, Failure};

/// How long the account may take to be found out, which only helps.
const PATIENCE: Duration = Duration::from_secs(5);

/// A command as it is typed, for the same DynamoDB table: its words, what it is about, and its options. A name that begins
/// with a hyphen comes last, where it is not taken for an option.
pub(crate) fn command(common: &Common, words: &str, name: Option<&str>, options: &str) -> String {
    let table = &common.dynamodb_table;
    let usual = std::env::var(TABLE_VARIABLE).unwrap_or_else(|_| DEFAULT_TABLE.to_owned());
    let mut parts = vec![format!("deltashare {words}")];
    let (first, last) = match name {
        Some(name) if name.starts_with('-') => (None, Some(format!("-- {}", quoted(name)))),
        name => (name.map(quoted), None),
    };
    parts.extend(first);
    parts.extend((!options.is_empty()).then(|| options.to_owned()));
    parts.extend((*table != usual).then(|| option("--table", "--table", table)));
    parts.extend(last);
    parts.join(" ")
}

/// The failure of a command, with what to do next if something is not there.
pub(crate) async fn explain(mut failure: Failure, common: &Common, config: &SdkConfig) -> Failure {
    match &failure.cause {
        Cause::Said => {}
        Cause::Missing(missing) => {
            failure.message = format!("{}; {}", failure.message, for_missing(common, missing));
        }
        Cause::NoTable => {
            failure.message = no_table(config, &common.dynamodb_table, "--table or DELTASHARE_TABLE").await;
        }
    }
    failure
}

/// How to create what is missing, or to find what is there.
fn for_missing(common: &Common, missing: &MissingRecord) -> String {
    let about = |words: &str, name: &str, options: &str| command(common, words, Some(name), options);
    let list = |words: &str| command(common, words, None, "");
    match missing {
        MissingRecord::Share { share } => format!(
            "create it with: {}; to see which there are: {}",
            about("share create", share, ""),
            list("share list")
        ),
        MissingRecord::Schema { share, schema } => {
            format!("create it with: {}", about("schema create", &format!("{share}.{schema}"), ""))
        }
        MissingRecord::Table { share, schema, table } => format!(
            "share it with: {}; to see which there are: {}",
            about("table create", &format!("{share}.{schema}.{table}"), "--location s3://BUCKET/PREFIX"),
            about("table list", share, "")
        ),
        MissingRecord::Recipient { recipient } => format!(
            "create it with: {}; to see which there are: {}",
            about("recipient create", recipient, ""),
            list("recipient list")
        ),
        MissingRecord::Grant { recipient, .. } => {
            format!("to see what is granted: {}", about("recipient show", recipient, ""))
        }
        MissingRecord::Property { recipient, .. } => {
            format!("to see its properties: {}", about("recipient show", recipient, ""))
        }
        MissingRecord::OidcPolicy { recipient, .. } => {
            format!("to see its policies: {}", about("recipient show", recipient, ""))
        }
        MissingRecord::Token { recipient, .. } => {
            format!("to see its tokens: {}", about("token list", recipient, ""))
        }
    }
}

/// Says that there is no DynamoDB table of this name: where it was looked for, and how to name another.
pub(crate) async fn no_table(config: &SdkConfig, table: &str, how_to_name: &str) -> String {
    let region = config.region().map_or_else(String::new, |region| format!(" in region {region}"));
    let sts = aws_sdk_sts::Client::new(config);
    let identity = tokio::time::timeout(PATIENCE, sts.get_caller_identity().send()).await;
    let account = identity.ok().and_then(Result::ok).and_then(|identity| identity.account);
    let account = account.map_or_else(String::new, |account| format!(" of account {account}"));
    format!(
        "there is no DynamoDB table '{table}'{region}{account}. Name the table with {how_to_name}, the region with \
         AWS_REGION, and the account by its credentials, for example with AWS_PROFILE"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Output;

    #[test]
    fn a_name_that_begins_with_a_hyphen_comes_behind_the_options() {
        let common = Common { dynamodb_table: "-catalog".to_owned(), output: Output::Text };
        let location = "--location s3://BUCKET/PREFIX";
        assert_eq!(
            command(&common, "table create", Some("a b.c.d"), location),
            "deltashare table create 'a b.c.d' --location s3://BUCKET/PREFIX --table=-catalog"
        );
        assert_eq!(
            command(&common, "table create", Some("-a b.c.d"), location),
            "deltashare table create --location s3://BUCKET/PREFIX --table=-catalog -- '-a b.c.d'"
        );
        assert_eq!(command(&common, "share list", None, ""), "deltashare share list --table=-catalog");
    }
}
