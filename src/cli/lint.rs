//! `lint`.

use anyhow::Result;
use camino::Utf8PathBuf;
use clap::Args;

use super::args::{LogArgs, usage};
use super::{EndsWith, print_result};
use crate::finalize::{self, CHECKS};
use crate::report;

/// The status where something was found.
const FOUND: u8 = 3;

/// Say what would keep a root filesystem from booting or updating well.
///
/// What is fatal ends with status 3; warnings do with --fatal-warnings. Nothing is changed: most of
/// what is found is mended by 'finalize'.
#[derive(Debug, Args)]
pub struct LintArgs {
    /// Root of the Debian system
    #[arg(value_name = "ROOT", default_value = "/")]
    root: Utf8PathBuf,

    /// Let warnings count as what is fatal
    #[arg(long)]
    fatal_warnings: bool,

    /// Leave a check out
    #[arg(long, value_name = "NAME")]
    skip: Vec<String>,

    /// List the checks and do nothing
    #[arg(long)]
    list: bool,

    /// Print what was found as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    log: LogArgs,
}

impl LintArgs {
    /// What is logged.
    pub fn log(&self) -> &LogArgs {
        &self.log
    }
}

/// Looks and reports.
pub fn run(args: &LintArgs) -> Result<()> {
    if args.list {
        let checks = CHECKS.iter().map(|check| (check.name, check.summary));
        return print_result(&report::name_list(checks, args.json)?);
    }
    finalize::check_names(&args.skip).map_err(|e| usage(format!("{e:#}")))?;
    let found = finalize::lint(&args.root, &args.skip)?;
    if args.json {
        print_result(&format!("{}\n", serde_json::to_string_pretty(&found)?))?;
    } else if !args.log.quiet {
        print_result(&report::linted(&found, args.log.verbose > 0))?;
    }
    match found.fatal > 0 || args.fatal_warnings && found.warnings > 0 {
        true => Err(EndsWith(FOUND).into()),
        false => Ok(()),
    }
}
