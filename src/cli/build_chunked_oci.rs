//! `compose build-chunked-oci`.

use anyhow::Result;
use clap::Args;

use super::args::{
    self, CommitArgs, ConfigArgs, LayerArgs, LogArgs, ResultArgs, RootfsArgs, usage,
};
use super::previous;
use crate::layers::FormatVersion;
use crate::oci::BaseConfig;
use crate::pipeline::{self, CommitOptions, Format, ImageOptions};
use crate::registry::{Destination, Reference};

/// Make a chunked image that bootc boots of a root filesystem.
///
/// The entry point of rpm-ostree, with its options and its defaults; 'build' has more. When there is a chunked
/// image at the output already, its plan is kept, so that layers stay that have not changed.
#[derive(Debug, Args)]
pub struct BuildChunkedOciArgs {
    #[command(flatten)]
    rootfs: RootfsArgs,

    /// An image in the storage of podman or buildah instead of a rootfs; not supported yet: mount it,
    /// and give --rootfs
    #[arg(long, value_name = "IMAGE", conflicts_with = "rootfs")]
    from: Option<String>,

    /// Say in the image that bootc can boot it; required, as in rpm-ostree
    #[arg(long, required = true)]
    bootc: bool,

    /// An earlier image whose plan is kept [default: the one at the output]
    #[arg(long, value_name = "IMGREF")]
    previous_build: Option<Reference>,

    /// Name of the image in the layout or archive, where the output names none
    #[arg(long, value_name = "NAME", default_value = "latest", value_parser = args::tag)]
    reference: String,

    /// Where the image goes: oci:PATH[:TAG], oci-archive:PATH[:TAG], a path (an OCI archive), or
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
    if let Some(image) = &args.from {
        return Err(usage(format!(
            "--from {image}: images of podman and buildah cannot be read yet; mount it ('podman image mount {image}') and give --rootfs"
        )));
    }
    args.result.check()?;
    args.layers.warn_of_many();
    let rootfs = args.rootfs.options(args.layers.admindir.as_ref())?;
    let commit = CommitOptions {
        timestamp: args.commit.timestamp()?,
        sign: args.commit.sign_commits.clone(),
        ..CommitOptions::default()
    };
    let image = image(args)?;
    let destination = image.destination.clone();
    let built = pipeline::build(&rootfs, &commit, image, &args.result.log.progress())?;
    args.result.report(&built, &destination)
}

fn image(args: &BuildChunkedOciArgs) -> Result<ImageOptions> {
    let mut destination = args.output.clone();
    destination
        .tag_mut()
        .get_or_insert_with(|| args.reference.clone());
    let previous = match &args.previous_build {
        Some(reference) => previous::of_image(reference)?,
        None => previous::of_destination(&destination),
    };
    Ok(ImageOptions {
        compression: args.layers.compression(&destination)?,
        destination,
        format: Format::Ostree(args.layers.version(FormatVersion::V1)),
        max_layers: args.layers.max_layers,
        previous,
        base: BaseConfig::default(),
        labels: args.image.labels.clone(),
        copied_metadata: Vec::new(),
        optional_metadata: Vec::new(),
        annotations: args.image.annotations(),
        cmd: args.image.cmd(),
        platform: args.image.arch.clone(),
        bootc: args.bootc,
        admin_dir: args.layers.admindir.clone(),
        created_by: "apt-ostree-helper compose build-chunked-oci".into(),
        threads: args.layers.threads(),
    })
}
