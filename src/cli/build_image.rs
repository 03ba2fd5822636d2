//! `compose build-image`.

use anyhow::Result;
use camino::Utf8PathBuf;
use clap::Args;

use super::args::{CommitArgs, FilterArgs, LogArgs};
use super::image::{
    FinalizeBeforeArgs, FormatArgs, ImageArgs, Job, Origin, OutputArgs, RootfsOrigin, SystemOrigin,
};
use crate::source::BuildOptions;

/// Build a Containerfile with podman or buildah and make a chunked image of the result.
///
/// The backend's output is shown on standard error as it comes; the image that it builds stays in
/// its storage, as its cache. The chunked image has that one's config.
#[derive(Debug, Args)]
pub struct BuildImageArgs {
    /// Directory of the build's context
    #[arg(value_name = "CONTEXT", default_value = ".")]
    context: Utf8PathBuf,

    /// The Containerfile [default: the context's]
    #[arg(short, long, value_name = "FILE")]
    file: Option<Utf8PathBuf>,

    /// Set a variable of the build
    #[arg(long = "build-arg", value_name = "NAME=VALUE")]
    build_args: Vec<String>,

    /// Build this stage of the Containerfile
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,

    /// Build for another platform than this machine's
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,

    /// Options for the backend's build command, after --, such as -- --network=host
    #[arg(last = true, value_name = "OPTION")]
    more: Vec<String>,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    format: FormatArgs,

    #[command(flatten)]
    filter: FilterArgs,

    #[command(flatten)]
    finalize: FinalizeBeforeArgs,

    /// Say in the image that bootc can boot it, even if it holds no kernel where bootc looks
    #[arg(long)]
    bootc: bool,

    #[command(flatten)]
    image: ImageArgs,

    #[command(flatten)]
    commit: CommitArgs,
}

impl BuildImageArgs {
    /// What is logged.
    pub fn log(&self) -> &LogArgs {
        self.image.log()
    }
}

/// Builds and reports.
pub fn run(args: &BuildImageArgs) -> Result<()> {
    let is_signed = !args.commit.sign_commits.is_empty();
    let format = args.format.format(&args.image.layers, is_signed)?;
    let build = BuildOptions {
        context: args.context.clone(),
        file: args.file.clone(),
        build_args: args.build_args.clone(),
        target: args.target.clone(),
        platform: args.platform.clone(),
        more: args.more.clone(),
    };
    let origin = Origin::Rootfs(Box::new(RootfsOrigin {
        system: SystemOrigin::Containerfile(build, &args.filter),
        finalize: args.finalize.finalize,
        commit: args.commit.options(None)?,
    }));
    let destination = args.image.tagged(&args.output.output)?;
    let command = "compose build-image";
    let job = Job {
        bootc: args.bootc,
        ..Job::new(command, origin, destination, format, &args.image)
    };
    job.run()
}
