//! `encapsulate`, and the same under rpm-ostree's names.

use anyhow::Result;
use camino::Utf8PathBuf;
use clap::Args;

use super::access::OutputAccessArgs;
use super::args::{self, ConfigArgs, LayerArgs, LogArgs, read_config};
use super::image::image_options;
use super::result::ResultArgs;
use super::{previous, say};
use crate::layers::FormatVersion;
use crate::oci::BaseConfig;
use crate::pipeline::{self, Built, Format, ImageOptions, Previous};
use crate::registry::{Destination, Reference};

/// Make a chunked image of an OSTree commit.
///
/// The commit is read from its repository, its objects are checked as they are, and its packages
/// are those of the dpkg database in it. The digest of the image's manifest goes to standard
/// output.
#[derive(Debug, Args)]
pub struct EncapsulateArgs {
    /// The repository
    #[arg(long, value_name = "DIR")]
    repo: Utf8PathBuf,

    /// The commit: a branch, or a checksum or its beginning
    #[arg(value_name = "REF")]
    commit: String,

    /// Where the image goes: oci:PATH[:TAG], oci-archive:PATH[:TAG], docker://HOST/NAME[:TAG], a
    /// path (an OCI archive), or
    /// - for an OCI archive on standard output
    #[arg(value_name = "IMGREF")]
    destination: Destination,

    /// Name of the image in the layout or archive, or its tag in the registry
    #[arg(long, value_name = "NAME", value_parser = args::tag)]
    tag: Option<String>,

    #[command(flatten)]
    layers: LayerArgs,

    /// What containers run with, as the 'config' object of an OCI config (or a whole one), in a
    /// JSON file; - for standard input
    #[arg(long, value_name = "FILE")]
    image_config: Option<Utf8PathBuf>,

    #[command(flatten)]
    image: ConfigArgs,

    /// Copy a value of the commit's metadata to a label
    #[arg(long = "copymeta", value_name = "KEY")]
    copied_metadata: Vec<String>,

    /// Copy a value of the commit's metadata to a label where it is there
    #[arg(long = "copymeta-opt", value_name = "KEY")]
    optional_metadata: Vec<String>,

    /// Write what each component weighs and how often it changes to a file, as JSON
    #[arg(long, value_name = "FILE")]
    write_contentmeta_json: Option<Utf8PathBuf>,

    /// Say how many layers, and bytes of them, are not in another image
    #[arg(long, value_name = "IMGREF")]
    compare_with_build: Option<Reference>,

    /// Manifest of an earlier image, in a file: what was in one layer stays in one layer
    #[arg(long, value_name = "FILE")]
    previous_build_manifest: Option<Utf8PathBuf>,

    #[command(flatten)]
    access: OutputAccessArgs,

    #[command(flatten)]
    result: ResultArgs,
}

impl EncapsulateArgs {
    /// What is logged.
    pub fn log(&self) -> &LogArgs {
        &self.result.log
    }
}

/// Encapsulates and reports. `usual` is the version of the format where none is given.
pub fn run(args: &EncapsulateArgs, usual: FormatVersion) -> Result<()> {
    let destination = args::tagged(&args.destination, args.tag.as_ref())?;
    let mut files = args.result.side_files(&destination)?;
    files.add(args.write_contentmeta_json.as_ref(), content_metadata)?;
    args.layers.warn_of_many();
    args.access
        .reading
        .refuse_stdin("--image-config", args.image_config.as_ref())?;
    let mut image = image(args, &destination, usual)?;
    let compared_host = args.compare_with_build.as_ref().and_then(Reference::host);
    let access = args.access.access(&destination, [compared_host])?;
    // Read before the image is written, which may replace it.
    let compared = match &args.compare_with_build {
        Some(reference) => Some(previous::layer_sizes(reference, &access)?),
        None => None,
    };
    image.access = access.clone();
    let progress = args.result.log.progress();
    let ready = |built: &Built| files.write(built);
    let built = pipeline::encapsulate(&args.repo, &args.commit, image, &ready, &progress)?;
    args.result.finish(files, &built, &destination, &access)?;
    if let Some(old) = compared {
        say(&crate::report::comparison(&old, &built.layers));
    }
    args.result.report(&built, &destination)
}

fn image(
    args: &EncapsulateArgs,
    destination: &Destination,
    usual: FormatVersion,
) -> Result<ImageOptions> {
    let format = Format::Ostree(args.layers.version(usual));
    Ok(ImageOptions {
        previous: match &args.previous_build_manifest {
            Some(file) => Previous::of_manifest_file(file)?,
            None => None,
        },
        base: match &args.image_config {
            // The date is the commit's.
            Some(path) => read_config(path, BaseConfig::parse_container).map(|mut base| {
                base.forget_created();
                base
            })?,
            None => BaseConfig::default(),
        },
        copied_metadata: args.copied_metadata.clone(),
        optional_metadata: args.optional_metadata.clone(),
        ..image_options(
            "encapsulate",
            destination.clone(),
            format,
            &args.layers,
            &args.image,
            &args.result,
        )?
    })
}

fn content_metadata(built: &Built) -> Result<String> {
    Ok(serde_json::to_string(&built.content_metadata)?)
}
