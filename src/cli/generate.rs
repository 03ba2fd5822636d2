//! `completions` and `man`: made from the definition of the command line itself.

use std::fs;

use anyhow::{Context, Result};
use camino::Utf8PathBuf;
use clap::Args;

use super::{definition, print_result};

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

/// Prints the completion script.
pub fn completions(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut definition(),
        "apt-ostree-helper",
        &mut script,
    );
    print_result(&String::from_utf8_lossy(&script))
}

/// Prints or writes the manual.
pub fn man(args: &ManArgs) -> Result<()> {
    let Some(directory) = &args.directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(definition()).render(&mut page)?;
        return print_result(&String::from_utf8_lossy(&page));
    };
    fs::create_dir_all(directory).with_context(|| format!("creating {directory}"))?;
    clap_mangen::generate_to(definition(), directory)
        .with_context(|| format!("writing manual pages to {directory}"))
}
