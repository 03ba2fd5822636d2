//! `plan`.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use clap::Args;

use super::access::AccessArgs;
use super::args::{CommitArgs, LayerArgs, LogArgs, usage};
use super::build::FormatName;
use super::previous::PlanArgs;
use super::source::SourceArgs;
use super::{print_result, print_text};
use crate::layers::FormatVersion;
use crate::oci::{BaseConfig, Compression};
use crate::pipeline::{self, CommitOptions, ImageOptions};
use crate::registry::{Access, Destination, Reference};
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

    /// Kind of image: an encapsulated OSTree commit, or an ordinary image
    #[arg(long, value_enum, default_value = "ostree")]
    format: FormatName,

    #[command(flatten)]
    layers: LayerArgs,

    #[command(flatten)]
    plan: PlanArgs,

    #[command(flatten)]
    commit: CommitArgs,

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
    let commit = CommitOptions {
        timestamp: args.commit.timestamp()?,
        ..CommitOptions::default()
    };
    let image = ImageOptions {
        destination: Destination::Stdout { tag: None },
        format: args.format.format(&args.layers, FormatVersion::V2, false)?,
        max_layers: args.layers.max_layers,
        times: args.layers.mtime,
        previous: None,
        lower: None,
        access: Access::default(),
        compression: Compression::None,
        base: BaseConfig::default(),
        labels: Vec::new(),
        copied_metadata: Vec::new(),
        optional_metadata: Vec::new(),
        annotations: BTreeMap::new(),
        cmd: None,
        platform: None,
        bootc: false,
        admin_dir: args.layers.admindir.clone(),
        components: args.layers.component_table()?,
        intervals: args.layers.intervals()?,
        bill: false,
        created_by: String::new(),
        threads: args.layers.threads(),
    };
    let from_host = args.source.host()?;
    let (previous_host, base_host) = (args.plan.host(), args.plan.base_host());
    let access = || {
        args.access
            .access([previous_host, base_host, from_host.as_deref()])
    };
    let admin_dir = args.layers.admindir.as_ref();
    let opened = args.source.open(admin_dir, access, None)?;
    let access = access()?;
    let previous = args.plan.previous(&access, None)?;
    let told = &opened.annotations;
    let lower = args.plan.lower(told, &access, None, previous.as_ref())?;
    let image = ImageOptions {
        previous,
        lower,
        ..image
    };
    let progress = args.log.progress();
    let plan = pipeline::dry_run(&opened.rootfs, &commit, image, &args.explain, &progress)?;
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
