//! The command line: arguments become library calls, and results become reports. Each subcommand
//! has one file, without logic.

mod access;
mod args;
mod build;
mod build_chunked_oci;
mod build_image;
mod commit;
mod encapsulate;
mod examples;
mod finalize;
mod generate;
mod image;
mod import;
mod index;
mod inspect;
mod lint;
mod mount;
mod plan;
mod previous;
mod remedy;
mod result;
mod sbom;
mod seal;
mod side_file;
mod source;
mod transfer;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format;

use args::LogArgs;

use crate::layers::FormatVersion;
use crate::process::Failed;
use crate::report::{EscapedStderr, remove_bars, shown, shown_lines};
use crate::tree::Unrepresentable;
use crate::undo::{self, Notice};

const EXIT_STATUS: &str = "Exit status: 0 done, 1 failed, 2 wrong usage, 3 'lint' or 'diff --exit-code' found something, 128 and the number of a signal that ended it.";

/// Turns a Debian root filesystem into an OSTree commit and a chunked OCI image whose layers
/// follow packages, so that an update costs a client only the layers that changed.
#[derive(Debug, Parser)]
#[command(name = "apt-ostree-helper", version, max_term_width = 100, after_help = EXIT_STATUS)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Build(Box<build::BuildArgs>),
    Commit(Box<commit::CommitCommandArgs>),
    Encapsulate(Box<encapsulate::EncapsulateArgs>),
    Import(Box<import::ImportArgs>),
    Finalize(Box<finalize::FinalizeArgs>),
    Lint(Box<lint::LintArgs>),
    Seal(Box<seal::SealArgs>),
    Plan(Box<plan::PlanCommandArgs>),
    Inspect(Box<inspect::InspectArgs>),
    Diff(Box<inspect::DiffArgs>),
    Push(Box<transfer::PushArgs>),
    Pull(Box<transfer::PullArgs>),
    Index(Box<index::IndexArgs>),
    Mount(Box<mount::MountArgs>),
    Umount(Box<mount::UmountArgs>),
    #[command(subcommand)]
    Compose(Compose),
    /// Deprecated name of 'compose container-encapsulate'
    #[command(hide = true)]
    ContainerEncapsulate(Box<encapsulate::EncapsulateArgs>),
    Schema(generate::SchemaArgs),
    Completions(generate::CompletionsArgs),
    Man(generate::ManArgs),
}

/// The entry points of rpm-ostree, with its options and its defaults.
#[derive(Debug, Subcommand)]
enum Compose {
    ContainerEncapsulate(Box<encapsulate::EncapsulateArgs>),
    #[command(name = "build-chunked-oci")]
    BuildChunkedOci(Box<build_chunked_oci::BuildChunkedOciArgs>),
    #[command(name = "build-image")]
    BuildImage(Box<build_image::BuildImageArgs>),
}

/// The command line's definition, for whatever is generated from it.
fn definition() -> clap::Command {
    examples::with_examples(Cli::command())
}

/// Runs the program with the arguments of the process.
///
/// Exit status: 0 done, 1 failed, 2 usage, 128 and the signal's number when interrupted.
pub fn run() -> ExitCode {
    run_with(std::env::args_os())
}

fn run_with(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = definition().try_get_matches_from(arguments);
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(usage) => {
            let status = if usage.use_stderr() { 2 } else { 0 };
            // Nobody to tell when this fails.
            let _ = usage.print();
            return ExitCode::from(status);
        }
    };
    let outcome = match &cli.command {
        Command::Build(args) => job(args.log(), || build::run(args)),
        Command::Commit(args) => job(args.log(), || commit::run(args)),
        Command::Encapsulate(args) => job(args.log(), || encapsulate::run(args, FormatVersion::V2)),
        Command::Import(args) => job(args.log(), || import::run(args)),
        Command::Finalize(args) => job(args.log(), || finalize::run(args)),
        Command::Lint(args) => job(args.log(), || lint::run(args)),
        Command::Seal(args) => job(args.log(), || seal::run(args)),
        Command::Plan(args) => job(args.log(), || plan::run(args)),
        Command::Inspect(args) => job(args.log(), || inspect::inspect(args)),
        Command::Diff(args) => job(args.log(), || inspect::diff(args)),
        Command::Push(args) => job(args.log(), || transfer::push(args)),
        Command::Pull(args) => job(args.log(), || transfer::pull(args)),
        Command::Index(args) => job(args.log(), || index::run(args)),
        Command::Mount(args) => job(args.log(), || mount::mount(args)),
        Command::Umount(args) => job(args.log(), || mount::umount(args)),
        Command::Compose(Compose::BuildImage(args)) => job(args.log(), || build_image::run(args)),
        Command::Compose(Compose::ContainerEncapsulate(args)) => {
            job(args.log(), || encapsulate::run(args, FormatVersion::V1))
        }
        Command::Compose(Compose::BuildChunkedOci(args)) => {
            job(args.log(), || build_chunked_oci::run(args))
        }
        Command::ContainerEncapsulate(args) => job(args.log(), || {
            say(
                "warning: 'container-encapsulate' is deprecated; use 'compose container-encapsulate'",
            );
            encapsulate::run(args, FormatVersion::V1)
        }),
        Command::Schema(args) => generate::schema(args),
        Command::Completions(args) => generate::completions(args),
        Command::Man(args) => generate::man(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(EndsWith(status)) = error.downcast_ref() {
                return ExitCode::from(*status);
            }
            say(&format!("error: {}{}", told(&error), remedy::hint(&error)));
            match error.is::<UsageError>() {
                true => ExitCode::from(2),
                false => ExitCode::FAILURE,
            }
        }
    }
}

/// Runs what writes: logs as asked for, and undoes everything on a signal.
fn job(log: &LogArgs, run: impl FnOnce() -> Result<()>) -> Result<()> {
    log_to_stderr(log.verbosity());
    undo::on_signals(tell_of_end()).context("installing signal handlers")?;
    run()
}

/// Tells how the end by a signal goes.
fn tell_of_end() -> undo::Teller {
    const REMOVES: &str = "'apt-ostree-helper umount --leftovers', or the next run, removes it";
    std::sync::Arc::new(|notice| match notice {
        Notice::Begins(why) => {
            remove_bars();
            say(&format!("{why}: cleaning up"));
        }
        Notice::Slow(left) => say(&format!(
            "still cleaning up: {}; another signal (Ctrl-C) ends this at once and leaves that behind",
            left.join(", ")
        )),
        Notice::Leaves(why, left) if left.is_empty() => say(&format!("{why}: ending at once")),
        Notice::Leaves(why, left) => say(&format!(
            "{why}: ending at once; left behind: {}; {REMOVES}",
            left.join(", ")
        )),
    })
}

/// A job that another process has done, and reported, ends with that one's status.
#[derive(Debug)]
struct EndsWith(u8);

impl EndsWith {
    fn status(status: std::process::ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let code = status.code().or_else(|| Some(128 + status.signal()?));
        Self(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
    }
}

impl std::fmt::Display for EndsWith {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "it ended with status {}", self.0)
    }
}

impl std::error::Error for EndsWith {}

/// Arguments that each are right but cannot be meant together.
#[derive(Debug)]
struct UsageError(String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

fn log_to_stderr(level: LevelFilter) {
    let log = tracing_subscriber::fmt()
        .with_writer(EscapedStderr::of_lines)
        .fmt_fields(format::debug_fn(remedy::log_field))
        .with_ansi(false)
        .with_max_level(level)
        .without_time()
        .with_target(false);
    // A second logger in one process (a test) is not a failure.
    let _ = log.try_init();
}

/// An error with its causes. Only those that are of several lines by themselves are shown as such:
/// a line end in a name that is in any other breaks no line.
fn told(error: &anyhow::Error) -> String {
    let texts = error.chain().map(|cause| {
        let text = cause.to_string();
        match cause.is::<Failed>() || cause.is::<Unrepresentable>() {
            true => text,
            false => shown(&text).into_owned(),
        }
    });
    texts.collect::<Vec<_>>().join(": ")
}

/// A line on standard error, as a terminal may see it; that it is closed is not a failure.
fn say(line: &str) {
    let _ = EscapedStderr::default().write_all(format!("{}\n", line.trim_end()).as_bytes());
}

/// Lines for a person on standard output, as a terminal may see them.
fn print_text(text: &str) -> Result<()> {
    print_result(&shown_lines(text))
}

/// What a script reads on standard output, exact.
fn print_result(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.context("writing to standard output")
}
