//! `compose build-image`.

use anyhow::Result;
use camino::Utf8PathBuf;
use clap::Args;

use super::access::OutputAccessArgs;
use super::args::{self, CommitArgs, ConfigArgs, FilterArgs, LayerArgs, LogArgs};
use super::build::FormatName;
use super::image::image_options;
use super::previous::PlanArgs;
use super::result::ResultArgs;
use super::source::BackendArgs;
use crate::layers::FormatVersion;
use crate::pipeline::{self, CommitOptions, ImageOptions};
use crate::registry::Destination;
use crate::source::{self, BuildOptions, Source};

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

    /// Where the image goes: oci:PATH[:TAG], oci-archive:PATH[:TAG], docker://HOST/NAME[:TAG],
    /// containers-storage:NAME, a path (an OCI archive), or - for an OCI archive on standard output
    #[arg(short, long, value_name = "DEST")]
    output: Destination,

    /// Name of the image in the layout or archive, or its tag in the registry
    #[arg(long, value_name = "NAME", value_parser = args::tag)]
    tag: Option<String>,

    /// Kind of image: an encapsulated OSTree commit, or an ordinary image
    #[arg(long, value_enum, default_value = "ostree")]
    format: FormatName,

    #[command(flatten)]
    filter: FilterArgs,

    /// Make the system first what bootc and OSTree expect, as 'finalize' does, in a view of it:
    /// what is read stays as it is
    #[arg(long)]
    finalize: bool,

    /// Say in the image that bootc can boot it, even if it holds no kernel where bootc looks
    #[arg(long)]
    bootc: bool,

    #[command(flatten)]
    layers: LayerArgs,

    #[command(flatten)]
    image: ConfigArgs,

    #[command(flatten)]
    plan: PlanArgs,

    #[command(flatten)]
    commit: CommitArgs,

    #[command(flatten)]
    backend: BackendArgs,

    #[command(flatten)]
    access: OutputAccessArgs,

    #[command(flatten)]
    result: ResultArgs,
}

impl BuildImageArgs {
    /// What is logged.
    pub fn log(&self) -> &LogArgs {
        &self.result.log
    }
}

/// Builds and reports.
pub fn run(args: &BuildImageArgs) -> Result<()> {
    let destination = args::tagged(&args.output, args.tag.as_ref())?;
    let mut files = args.result.side_files(&destination)?;
    args.plan.add_to(&mut files)?;
    args.layers.warn_of_many();
    let is_signed = !args.commit.sign_commits.is_empty();
    let format = args
        .format
        .format(&args.layers, FormatVersion::V2, is_signed)?;
    let command = "compose build-image";
    let image = image_options(
        command,
        destination.clone(),
        format,
        &args.layers,
        &args.image,
        &args.result,
    )?;
    let timestamp = args.commit.timestamp()?;
    let backends = args.backend.enter()?;
    let hosts = [args.plan.host(), args.plan.base_host()];
    let access = args.access.access(&destination, hosts)?;
    let platform = args.image.arch.as_ref();
    let previous = args.plan.previous(&access, platform)?;
    let id = source::build(
        &backends,
        &BuildOptions {
            context: args.context.clone(),
            file: args.file.clone(),
            build_args: args.build_args.clone(),
            target: args.target.clone(),
            platform: args.platform.clone(),
            more: args.more.clone(),
        },
    )?;
    let source = Source::image(&backends, &id)?;
    let mut opened = args
        .filter
        .of_source(source, args.layers.admindir.as_ref())?;
    if args.finalize {
        opened.finalize()?;
    }
    let mut base = opened.config;
    if timestamp.is_some() {
        base.forget_created();
    }
    let commit = CommitOptions {
        timestamp,
        sign: args.commit.sign_commits.clone(),
        ..CommitOptions::default()
    };
    let told = &opened.annotations;
    let lower = args
        .plan
        .lower(told, &access, platform, previous.as_ref())?;
    let image = ImageOptions {
        previous,
        lower,
        access: access.clone(),
        base,
        bootc: args.bootc,
        ..image
    };
    let built = pipeline::build(
        &opened.rootfs,
        &commit,
        image,
        &|built| files.write(built),
        &args.result.log.progress(),
    )?;
    args.result.finish(files, &built, &destination, &access)?;
    args.result.report(&built, &destination)
}
