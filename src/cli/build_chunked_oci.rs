//! `compose build-chunked-oci`.

use anyhow::Result;
use clap::Args;

use super::args::{self, CommitArgs, LogArgs};
use super::image::{ImageArgs, Job, Origin, OutputArgs, RootfsOrigin, SystemOrigin};
use super::previous::Earlier;
use super::source::SourceArgs;
use crate::layers::FormatVersion;
use crate::pipeline::Format;
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
    #[arg(long, value_name = "IMGREF", conflicts_with = "previous")]
    previous_build: Option<Reference>,

    /// Name of the image in the layout or archive, where neither the output nor --tag names one
    #[arg(long, value_name = "NAME", default_value = "latest", value_parser = args::tag)]
    reference: String,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    image: ImageArgs,

    #[command(flatten)]
    commit: CommitArgs,
}

impl BuildChunkedOciArgs {
    /// What is logged.
    pub fn log(&self) -> &LogArgs {
        self.image.log()
    }
}

/// Builds and reports.
pub fn run(args: &BuildChunkedOciArgs) -> Result<()> {
    let format = Format::Ostree(args.image.layers.version(FormatVersion::V1));
    let destination = destination(args)?;
    let origin = Origin::Rootfs(Box::new(RootfsOrigin {
        system: SystemOrigin::Source(&args.source),
        finalize: false,
        commit: args.commit.options(None)?,
    }));
    let earlier = match &args.previous_build {
        Some(reference) => Some(Earlier::Image(reference.clone())),
        None => Reference::of_destination(&destination).map(Earlier::AtOutput),
    };
    let command = "compose build-chunked-oci";
    let job = Job {
        bootc: args.bootc,
        earlier,
        ..Job::new(command, origin, destination, format, &args.image)
    };
    job.run()
}

fn destination(args: &BuildChunkedOciArgs) -> Result<Destination> {
    let mut destination = args.image.tagged(&args.output.output)?;
    if let Some(tag) = destination.tag_mut() {
        tag.get_or_insert_with(|| args.reference.clone());
    }
    Ok(destination)
}
