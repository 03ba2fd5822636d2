//! `plan`.

use anyhow::{Context, Result};
use clap::Args;

use super::access::AccessArgs;
use super::args::{CommitArgs, LayerArgs, LogArgs, usage};
use super::image::FormatArgs;
use super::previous::PlanArgs;
use super::source::{BackendArgs, SourceArgs};
use super::{print_result, print_text};
use crate::pipeline;
use crate::registry::Reference;
use crate::report::dry_run_text;

/// Show the layers that 'build' would make, without making them.
///
/// For each layer its bytes before compression, its share, the chance that it changes until a
/// client's next pull, and its components. The layer of the commit, which always changes, is not
/// shown.
#[derive(Debug, Args)]
pub struct PlanCommandArgs {
    #[command(flatten)]
    source: SourceArgs,

    /// Say to which component a path or an installed package belongs, by which rule, and where it
    /// is put, or where a component is; may be given several times
    #[arg(long, value_name = "PATH|PACKAGE")]
    explain: Vec<String>,

    /// Plan nothing, but read two or more images of different dates, from any transport, and print
    /// the days from one change to the next of each component that changed, as --intervals reads
    /// them
    #[arg(long, value_name = "IMAGE", num_args = 1.., conflicts_with_all = ["explain", "json"])]
    learn: Vec<Reference>,

    /// Print a JSON description
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    format: FormatArgs,

    #[command(flatten)]
    layers: LayerArgs,

    #[command(flatten)]
    plan: PlanArgs,

    #[command(flatten)]
    commit: CommitArgs,

    #[command(flatten)]
    backend: BackendArgs,

    #[command(flatten)]
    access: AccessArgs,

    #[command(flatten)]
    log: LogArgs,
}

impl PlanCommandArgs {
    /// What is logged.
    pub fn log(&self) -> &LogArgs {
        &self.log
    }
}

/// Plans and prints.
pub fn run(args: &PlanCommandArgs) -> Result<()> {
    if !args.learn.is_empty() {
        return learn(args);
    }
    let plan_file = args.plan.file()?;
    args.layers.warn_of_many();
    let commit = args.commit.options(None)?;
    let mut layers = args
        .layers
        .options(args.format.format(&args.layers, false)?)?;
    let earlier = args.plan.earlier(None);
    let backends = args.source.enter(&args.backend)?;
    let from_host = args.source.host()?;
    let hosts = [earlier.host(), args.plan.base_host(), from_host.as_deref()];
    let access = args.access.access(hosts)?;
    let previous = args.plan.previous(&earlier, &access, None)?;
    let admin_dir = args.layers.admindir.as_ref();
    let opened = args
        .source
        .open(backends.as_ref(), admin_dir, &access, None)?;
    let told = Some(&opened.annotations);
    layers.lower = (args.plan).lower(&earlier, told, &access, None, previous.as_ref())?;
    layers.previous = previous;
    let progress = args.log.progress();
    let plan = pipeline::dry_run(&opened.rootfs, &commit, layers, &args.explain, &progress)?;
    if let Some(file) = plan_file {
        file.write(plan.plan.to_json()?.as_bytes())?;
        file.publish()?;
    }
    match args.json {
        true => print_result(
            &(serde_json::to_string_pretty(&plan).context("describing the plan")? + "\n"),
        ),
        false => print_text(&dry_run_text(&plan)),
    }
}

fn learn(args: &PlanCommandArgs) -> Result<()> {
    if args.learn.len() < 2 {
        return Err(usage(
            "--learn: name two or more images of different dates".into(),
        ));
    }
    let access = args.access.access(args.learn.iter().map(Reference::host))?;
    let learned = pipeline::learn(&args.learn, &access)?;
    print_text(&learned.to_lines())
}
