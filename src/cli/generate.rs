//! `schema`, `completions` and `man`: the last two made from the definition of the command line
//! itself.

use std::fs;

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;

use super::args::usage;
use super::{definition, print_result};
use crate::report;

/// Print a completion script for a shell.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    shell: clap_complete::Shell,
}

/// Print the manual page, or write the pages of all commands to a directory.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write apt-ostree-helper.1 and a page for each command to this directory.
    #[arg(value_name = "DIRECTORY")]
    directory: Option<Utf8PathBuf>,
}

/// Print the JSON Schema of what --json prints or of a plan as a file, or the names of all schemas.
///
/// Fields may be added in any release; one is removed, renamed, or given another type only with a
/// new major version.
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// Whose output: a command's name, 'build' for all that make an image; or 'plan-file', what
    /// --write-plan writes.
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// Prints the completion script.
pub fn completions(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut definition(),
        "apt-ostree-helper",
        &mut script,
    );
    // clap_complete 4.6 for bash writes a dash of the program's name as the border of a subcommand
    // in one place and as a sign in another, so that no option would be found: the border is made
    // the sign.
    print_result(&String::from_utf8_lossy(&script).replace("__subcmd__", "__"))
}

/// The day that the manual pages carry: that of the last change to the command line.
const DATE: &str = "2026-11-26";

/// Prints the schema, or the names of all.
pub fn schema(args: &SchemaArgs) -> Result<()> {
    match &args.name {
        Some(name) => match report::schema(name) {
            Some(schema) => print_result(schema),
            None => {
                let names: Vec<&str> = report::schemas().collect();
                Err(usage(format!(
                    "there is no schema '{name}'; there are {}",
                    names.join(", ")
                )))
            }
        },
        None => {
            let names: Vec<String> = report::schemas().map(|name| format!("{name}\n")).collect();
            print_result(&names.concat())
        }
    }
}

/// Prints or writes the manual.
pub fn man(args: &ManArgs) -> Result<()> {
    let mut definition = definition().disable_help_subcommand(true);
    definition.build();
    let Some(directory) = &args.directory else {
        return print_result(&page(&definition)?);
    };
    fs::create_dir_all(directory).with_context(|| format!("creating {directory}"))?;
    write_pages(&definition, directory)
        .with_context(|| format!("writing manual pages to {directory}"))
}

/// Writes the page of `command`, and those of the commands below it.
fn write_pages(command: &clap::Command, directory: &Utf8Path) -> Result<()> {
    for below in command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
    {
        write_pages(below, directory)?;
    }
    fs::write(
        directory.join(format!("{}.1", full_name(command))),
        page(command)?,
    )?;
    Ok(())
}

fn page(command: &clap::Command) -> Result<String> {
    let mut page = Vec::new();
    let manual = clap_mangen::Man::new(command.clone())
        .title(full_name(command))
        .date(DATE);
    manual.render(&mut page)?;
    // A break next to a space does nothing, and mandoc says so.
    let page = String::from_utf8_lossy(&page).into_owned();
    let mut lines: Vec<&str> = Vec::new();
    for line in page.lines() {
        match (lines.last(), line) {
            (Some(&".sp"), ".br") => {}
            (Some(&".br"), ".sp" | "") => {
                lines.pop();
                lines.push(".sp");
            }
            _ => lines.push(line),
        }
    }
    Ok(lines.join("\n") + "\n")
}

fn full_name(command: &clap::Command) -> &str {
    command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
}
