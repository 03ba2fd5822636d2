//! `finalize`.

use anyhow::Result;
use camino::Utf8PathBuf;
use clap::Args;

use super::args::{LogArgs, usage};
use super::{print_result, say};
use crate::finalize::{self, Options, STEPS};
use crate::report;

/// Make a Debian root filesystem what bootc and OSTree expect, in place.
///
/// In a build step on the system itself (RUN apt-ostree-helper finalize), or on a root filesystem
/// that is mounted. A second run changes nothing; run it again after packages were installed. No
/// package state is lost: dpkg and apt work as before, in a container and on the booted system.
/// 'build --finalize' does it on the way, and leaves what it reads as it is.
#[derive(Debug, Args)]
pub struct FinalizeArgs {
    /// Root of the Debian system
    #[arg(value_name = "ROOT", default_value = "/")]
    root: Utf8PathBuf,

    /// Change nothing; say what would be changed
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Fail where there is no kernel to boot
    #[arg(long)]
    bootable: bool,

    /// Leave a step out
    #[arg(long, value_name = "STEP")]
    skip: Vec<String>,

    /// Do this step only
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,

    /// List the steps and do nothing
    #[arg(long)]
    list: bool,

    /// Print what was done as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    log: LogArgs,
}

impl FinalizeArgs {
    /// What is logged.
    pub fn log(&self) -> &LogArgs {
        &self.log
    }
}

/// Finalizes and reports.
pub fn run(args: &FinalizeArgs) -> Result<()> {
    if args.list {
        let steps = STEPS.iter().map(|step| (step.name, step.summary));
        return print_result(&report::name_list(steps, args.json)?);
    }
    let options = Options {
        root: args.root.clone(),
        dry_run: args.dry_run,
        bootable: args.bootable,
        skip: args.skip.clone(),
        only: args.only.clone(),
    };
    finalize::check_steps(&options).map_err(|e| usage(format!("{e:#}")))?;
    let done = finalize::finalize(&options, &|_| Ok(()))?;
    if args.json {
        return print_result(&format!("{}\n", serde_json::to_string_pretty(&done)?));
    }
    if !args.log.quiet {
        say(&report::finalized(
            &done,
            args.log.verbose > 0 || args.dry_run,
        ));
    }
    Ok(())
}
