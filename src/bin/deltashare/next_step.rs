//! What to do where something is not there: the end of an error's sentence.

use std::time::Duration;

use aws_config::SdkConfig;
use deltashare::catalog::writer::Missing;

use super::arguments::{Common, DEFAULT_TABLE, TABLE_VARIABLE};
use super::{Cause, Failure};

/// How long the account may take to be found out, which only helps.
const PATIENCE: Duration = Duration::from_secs(5);

/// A command as it is typed, for the same DynamoDB table.
pub(crate) fn command(common: &Common, words: &str) -> String {
    let table = &common.dynamodb_table;
    let usual = std::env::var(TABLE_VARIABLE).unwrap_or_else(|_| DEFAULT_TABLE.to_owned());
    if *table == usual {
        format!("deltashare {words}")
    } else {
        format!("deltashare {words} --table {}", quoted(table))
    }
}

/// A word as a shell takes it.
pub(crate) fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@=+".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
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
fn for_missing(common: &Common, missing: &Missing) -> String {
    let command = |words: String| command(common, &words);
    match missing {
        Missing::Share(share) => format!(
            "create it with: {}; to see which there are: {}",
            command(format!("share create {}", quoted(share))),
            command("share list".to_owned())
        ),
        Missing::Schema(share, schema) => {
            let name = quoted(&format!("{share}.{schema}"));
            format!("create it with: {}", command(format!("schema create {name}")))
        }
        Missing::Table(share, schema, table) => format!(
            "share it with: {}; to see which there are: {}",
            command(format!(
                "table create {} --location s3://BUCKET/PREFIX",
                quoted(&format!("{share}.{schema}.{table}"))
            )),
            command(format!("table list {}", quoted(share)))
        ),
        Missing::Recipient(recipient) => format!(
            "create it with: {}; to see which there are: {}",
            command(format!("recipient create {}", quoted(recipient))),
            command("recipient list".to_owned())
        ),
        Missing::Grant(recipient, _) => {
            format!("to see what is granted: {}", command(format!("recipient show {}", quoted(recipient))))
        }
        Missing::Token(recipient, _) => {
            format!("to see its tokens: {}", command(format!("token list {}", quoted(recipient))))
        }
    }
}

/// That there is no DynamoDB table of this name: where it was looked for, and how to name another.
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
    use super::quoted;

    #[test]
    fn words_are_quoted_where_a_shell_would_split_or_change_them() {
        for (word, typed) in [
            ("retail.sales", "retail.sales"),
            ("Retail Data", "'Retail Data'"),
            ("it's", r"'it'\''s'"),
            ("a$b", "'a$b'"),
            ("", "''"),
            ("日本", "'日本'"),
        ] {
            assert_eq!(quoted(word), typed);
        }
    }
}
