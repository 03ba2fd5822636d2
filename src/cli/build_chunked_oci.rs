//! `compose build-chunked-oci`.

use anyhow::Result;
use clap::Args;

use super::access::OutputAccessArgs;
use super::args::{self, CommitArgs, ConfigArgs, LayerArgs, LogArgs};
use super::image::image_options;
use super::result::ResultArgs;
use super::source::SourceArgs;
use crate::layers::FormatVersion;
use crate::pipeline::{self, CommitOptions, Format, ImageOptions, Previous};
use crate::registry::{Destination, Reference};

/// Make a chunked image for bootc from a root filesystem.
///
/// The entry point of rpm-ostree, with its options and its defaults; 'build' has more. When there
/// is a chunked image at the output already, its plan is kept, so that layers stay that have not
/// changed.
#[derive(Debug, Args)]
pub struct BuildChunkedOciArgs {
    #[command(flatten)]
    source: SourceArgs,

    /// Say in the image that bootc can boot it; required, as in rpm-ostree
    #[arg(long, required = true)]
    bootc: bool,

    /// An earlier image whose plan is kept [default: the one at the output]
    #[arg(long, value_name = "IMGREF")]
    previous_build: Option<Reference>,

    /// Name of the image in the layout or archive, where the output names none
    #[arg(long, value_name = "NAME", default_value = "latest", value_parser = args::tag)]
    reference: String,

    /// Where the image goes: oci:PATH[:TAG], oci-archive:PATH[:TAG], docker://HOST/NAME[:TAG], a
    /// path (an OCI archive), or
    /// - for an OCI archive on standard output
    #[arg(long, value_name = "DEST")]
    output: Destination,

    #[command(flatten)]
    layers: LayerArgs,

    #[command(flatten)]
    image: ConfigArgs,

    #[command(flatten)]
    commit: CommitArgs,

    #[command(flatten)]
    access: OutputAccessArgs,

    #[command(flatten)]
    result: ResultArgs,
}

impl BuildChunkedOciArgs {
    /// What is logged.
    pub fn log(&self) -> &LogArgs {
        &self.result.log
    }
}

/// Builds and reports.
pub fn run(args: &BuildChunkedOciArgs) -> Result<()> {
    let destination = destination(args);
    let files = args.result.side_files(&destination)?;
    args.layers.warn_of_many();
    let timestamp = args.commit.timestamp()?;
    let mut image = image(args, &destination)?;
    let previous_host = args.previous_build.as_ref().and_then(Reference::host);
    let from_host = args.source.host()?;
    let access = || {
        args.access
            .access(&destination, [previous_host, from_host.as_deref()])
    };
    let admin_dir = args.layers.admindir.as_ref();
    let platform = args.image.arch.as_ref();
    let opened = args.source.open(admin_dir, access, platform)?;
    let access = access()?;
    image.access = access.clone();
    image.previous = previous(args, &image)?;
    image.base = opened.config;
    if timestamp.is_some() {
        image.base.forget_created();
    }
    let commit = CommitOptions {
        timestamp,
        sign: args.commit.sign_commits.clone(),
        ..CommitOptions::default()
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

fn destination(args: &BuildChunkedOciArgs) -> Destination {
    let mut destination = args.output.clone();
    if let Some(tag) = destination.tag_mut() {
        tag.get_or_insert_with(|| args.reference.clone());
    }
    destination
}

fn image(args: &BuildChunkedOciArgs, destination: &Destination) -> Result<ImageOptions> {
    let format = Format::Ostree(args.layers.version(FormatVersion::V1));
    let command = "compose build-chunked-oci";
    Ok(ImageOptions {
        bootc: args.bootc,
        ..image_options(
            command,
            destination.clone(),
            format,
            &args.layers,
            &args.image,
            &args.result,
        )?
    })
}

fn previous(args: &BuildChunkedOciArgs, image: &ImageOptions) -> Result<Option<Previous>> {
    let access = image.access.for_platform(args.image.arch.as_ref());
    match (
        &args.previous_build,
        Reference::of_destination(&image.destination),
    ) {
        (Some(reference), _) => Previous::of_image(reference, &access, false),
        (None, Some(there)) => Previous::of_destination(&there, &access),
        (None, None) => Ok(None),
    }
}
