//! `docs/command-line.md`: the help of every command, as one page. `UPDATE_DOCS=1 cargo test --bin deltashare command_line`
//! writes it.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;

use clap::{Command, CommandFactory as _};

use super::Cli;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/command-line.md");

/// The width of the help, in columns, whatever terminal the test runs on.
const WIDTH: usize = 100;

const INTRODUCTION: &str = "# Command line

This page shows the help of every command, as `--help` prints it. [Deploy on AWS](aws.md#manage-shares-and-recipients) and
[Run `deltashare serve`](serve.md) show the commands in use.

| command | description |
|---|---|
";

/// The command and all below it, with help that does not depend on the terminal or the environment.
fn fixed(command: Command) -> Command {
    command.term_width(WIDTH).mut_args(|argument| argument.hide_env_values(true)).mut_subcommands(fixed)
}

/// The command and all below it, in the order of the help, without those that clap adds.
fn every(command: &Command, depth: usize, found: &mut Vec<(usize, Command)>) {
    found.push((depth, command.clone()));
    for command in command.get_subcommands() {
        if command.get_name() != "help" && !command.is_hide_set() {
            every(command, depth + 1, found);
        }
    }
}

fn page() -> String {
    let mut root = fixed(Cli::command().bin_name("deltashare"));
    root.build();
    let mut commands = Vec::new();
    every(&root, 0, &mut commands);
    let mut page = INTRODUCTION.to_owned();
    for (_, command) in &commands {
        let name = command.get_bin_name().unwrap();
        let about = command.get_about().unwrap().to_string();
        let anchor = name.replace(' ', "-");
        writeln!(page, "| [`{name}`](#{anchor}) | {} |", about.replace('|', r"\|").replace('\n', " "))
            .unwrap();
    }
    for (depth, command) in &mut commands {
        let level = "#".repeat(2 + depth.saturating_sub(1));
        let help = command.render_long_help().to_string();
        let help: Vec<&str> = help.trim().lines().map(str::trim_end).collect();
        let name = command.get_bin_name().unwrap();
        write!(page, "\n{level} {name}\n\n```text\n{}\n```\n", help.join("\n")).unwrap();
    }
    page
}

#[test]
fn the_page_of_the_command_line_is_what_the_commands_say() {
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(PAGE, &page).unwrap();
    }
    let written = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(
        written == page,
        "docs/command-line.md differs from the help; write it with: \
         UPDATE_DOCS=1 cargo test --bin deltashare command_line"
    );
}
