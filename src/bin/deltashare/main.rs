//! The command line of deltashare.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod example;
mod serve;
mod share_file;
mod token_key;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Shares Delta tables with any Delta Sharing client.
///
/// Recipients read live tables from presigned URLs; each has a token of its own, of which only the
/// hash is stored.
#[derive(Parser)]
#[command(
    name = "deltashare",
    version,
    arg_required_else_help = true,
    after_help = "Example:\n  deltashare serve --shares shares.yaml --listen 127.0.0.1:8080\n\nExit codes: 0 done, 1 failed, 2 wrong usage or a share file that is refused."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Options),
}

/// Why a command ends, and with which exit code.
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// Wrong usage, or a file that is refused.
    fn usage(message: impl Into<String>) -> Self {
        Self { code: 2, message: message.into() }
    }

    /// Anything else.
    fn failed(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into() }
    }
}

fn main() -> ExitCode {
    deltashare::memory::use_one_heap();
    let done = match Cli::parse().command {
        Command::Serve(options) => serve::run(options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}
