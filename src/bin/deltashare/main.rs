//! The command line of deltashare.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod activate;
mod activation;
mod admin;
mod arguments;
mod aws;
mod check;
mod checkpoint;
#[cfg(test)]
mod command_line;
mod connections;
mod descriptors;
mod example;
mod expiring;
mod explain;
mod find_table;
mod grants;
mod new_token;
mod next_step;
mod oidc_arguments;
mod output;
mod plan;
mod profile;
mod restrictions;
mod rows;
mod serve;
mod share_file;
mod shell;
mod socket;
mod token_key;
mod usage;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use admin::AdminCommand;
use deltashare::catalog::dynamodb::MissingRecord;

/// Share Delta tables with any Delta Sharing client.
///
/// Recipients read live tables through presigned URLs. Each recipient has its own token, of which only
/// the hash is stored.
#[derive(Parser)]
#[command(
    name = "deltashare",
    version,
    arg_required_else_help = true,
    after_help = "Example:\n  deltashare serve --shares shares.yaml --listen 127.0.0.1:8080\n\nExit codes: 0 success, 1 failure, 2 wrong usage or invalid input, 3 something already exists, does not exist, or was changed by somebody else at the same time."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(Box<serve::Options>),
    /// Create, list, change, and delete shares.
    Share(arguments::Group<arguments::ShareCommand>),
    /// Create, list, and delete schemas.
    Schema(arguments::Group<arguments::SchemaCommand>),
    /// Share tables, list and change shared tables, and stop sharing them.
    Table(arguments::Group<arguments::TableCommand>),
    /// Create, list, change, and delete recipients.
    Recipient(arguments::Group<arguments::RecipientCommand>),
    /// Create, list, rotate, and revoke tokens.
    Token(arguments::Group<arguments::TokenCommand>),
    Profile(arguments::ProfileOptions),
    Activate(activate::Options),
    /// Grant a share, a schema, or some tables to a recipient.
    ///
    /// A grant of a share includes every table of it. With --tables, or with names of tables, the grant includes only the
    /// tables that match. In both cases, tables that are added later and match are shared at once. The recipient sees every
    /// file of the tables, unless the grant or a table has a filter.
    ///
    /// The command replaces the grant of the share, if there is one. If that grant has tables or a filter, the command fails
    /// unless you set --tables or --all-tables, and --filter or --no-filter.
    #[command(
        after_help = "Examples:\n  deltashare grant acme --share retail\n  deltashare grant acme 'retail.sales.*'\n  deltashare grant acme --share retail --tables 'sales.*' --tables 'stock.eu_*'\n  deltashare grant acme --share retail --filter \"region = 'EU'\""
    )]
    Grant(arguments::Grant),
    /// Revoke a share from a recipient.
    #[command(after_help = "Example:\n  deltashare revoke acme --share retail")]
    Revoke(arguments::Revoke),
    Plan(plan::Plan),
    Apply(plan::Apply),
    Export(plan::Export),
    Check(check::Check),
    Explain(explain::Explain),
    Checkpoint(checkpoint::Checkpoint),
    Verify(verify::Options),
    Usage(usage::Options),
}

/// Why a command ends, and with which exit code.
struct Failure {
    code: u8,
    message: String,
    cause: Cause,
}

/// What of a failure can be said more exactly with the options of the command.
enum Cause {
    /// Nothing.
    Said,
    /// Something is not there.
    Missing(MissingRecord),
    /// The DynamoDB table is not there.
    NoTable,
}

impl Failure {
    /// Wrong usage, or a file that is refused.
    fn usage(message: impl Into<String>) -> Self {
        Self { code: 2, message: message.into(), cause: Cause::Said }
    }

    /// Anything else.
    fn failed(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into(), cause: Cause::Said }
    }
}

/// Runs a command on a runtime of its own.
fn blocking(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|error| Failure::failed(error.to_string()))?.block_on(command)
}

fn main() -> ExitCode {
    deltashare::allocator::use_one_heap();
    let done = match Cli::parse().command {
        Command::Serve(options) => serve::run(*options),
        Command::Share(group) => admin::run(&group.common, AdminCommand::Share(group.command)),
        Command::Schema(group) => admin::run(&group.common, AdminCommand::Schema(group.command)),
        Command::Table(group) => admin::run(&group.common, AdminCommand::Table(group.command)),
        Command::Recipient(group) => admin::run(&group.common, AdminCommand::Recipient(group.command)),
        Command::Grant(grant) => admin::run(&grant.common, AdminCommand::Grant(grant.options)),
        Command::Plan(plan) => admin::run(&plan.common.clone(), AdminCommand::Plan(plan)),
        Command::Apply(apply) => admin::run(&apply.common.clone(), AdminCommand::Apply(apply)),
        Command::Check(check) => check::run(&check),
        Command::Explain(options) => explain::run(&options),
        Command::Checkpoint(options) => checkpoint::run(&options),
        Command::Activate(options) => activate::run(&options),
        Command::Verify(options) => verify::run(&options),
        Command::Usage(options) => usage::run(&options),
        Command::Profile(options) => admin::run(&options.common.clone(), AdminCommand::Profile(options)),
        Command::Export(export) => admin::run(&export.common, AdminCommand::Export),
        Command::Revoke(grant) => admin::run(&grant.common, AdminCommand::Revoke(grant.options)),
        Command::Token(arguments::Group { command: arguments::TokenCommand::New(options), common }) => {
            new_token::run(&options, &common)
        }
        Command::Token(group) => admin::run(&group.common, AdminCommand::Token(group.command)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {}", output::printable_lines(&aws::explain(failure.message)));
            ExitCode::from(failure.code)
        }
    }
}
