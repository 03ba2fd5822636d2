//! `encapsulate`, and the same under rpm-ostree's names.

use anyhow::Result;
use camino::Utf8PathBuf;
use clap::Args;

use super::args::LogArgs;
use super::image::{ImageArgs, Job, Origin};
use super::previous::Earlier;
use crate::layers::FormatVersion;
use crate::pipeline::Format;
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

    #[command(flatten)]
    image: ImageArgs,

    /// What containers run with, as the 'config' object of an OCI config (or a whole one), in a
    /// JSON file; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "config_from"])]
    image_config: Option<Utf8PathBuf>,

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
    #[arg(long, value_name = "FILE", conflicts_with = "previous")]
    previous_build_manifest: Option<Utf8PathBuf>,
}

impl EncapsulateArgs {
    /// What is logged.
    pub fn log(&self) -> &LogArgs {
        self.image.log()
    }
}

/// Encapsulates and reports. `usual` is the version of the format where none is given.
pub fn run(args: &EncapsulateArgs, usual: FormatVersion) -> Result<()> {
    let format = Format::Ostree(args.image.layers.version(usual));
    let destination = args.image.tagged(&args.destination)?;
    let origin = Origin::Commit(&args.repo, &args.commit);
    let manifest = args.previous_build_manifest.clone();
    let job = Job {
        earlier: manifest.map(Earlier::Manifest),
        container_config: args.image_config.as_ref(),
        copied_metadata: &args.copied_metadata,
        optional_metadata: &args.optional_metadata,
        content_metadata: args.write_contentmeta_json.as_ref(),
        compared: args.compare_with_build.as_ref(),
        ..Job::new("encapsulate", origin, destination, format, &args.image)
    };
    job.run()
}
