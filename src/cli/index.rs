//! `index`.

use anyhow::Result;
use camino::Utf8PathBuf;
use clap::Args;

use super::access::OutputAccessArgs;
use super::args::{self, LogArgs};
use super::side_file::SideFile;
use super::transfer::report;
use crate::oci::available_threads;
use crate::pipeline::{self, IndexOptions};
use crate::registry::{Destination, Reference};

/// Make one image of images for several architectures.
///
/// Each part may be in a layout, an archive or a registry, and may have been built on another
/// machine; of an index all images are taken. Platforms are those of the parts' configs. The digest
/// of the index goes to standard output.
#[derive(Debug, Args)]
pub struct IndexArgs {
    /// The images: oci:PATH[:TAG], oci-archive:PATH[:TAG], a path, docker://NAME and others
    #[arg(value_name = "IMAGE", required = true)]
    parts: Vec<Reference>,

    /// Where the index goes, with its images: oci:PATH[:TAG], oci-archive:PATH[:TAG],
    /// docker://HOST/NAME[:TAG], a path (an OCI archive), or - for an OCI archive on standard
    /// output
    #[arg(short, long, value_name = "DEST")]
    output: Destination,

    /// Name of the index in the layout or archive, or its tag in the registry
    #[arg(long, value_name = "NAME", value_parser = args::tag)]
    tag: Option<String>,

    /// Set an annotation of the index
    #[arg(long = "annotation", value_name = "K=V", value_parser = args::annotation)]
    annotations: Vec<(String, String)>,

    /// Write the digest of the index to a file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<Utf8PathBuf>,

    /// Print a JSON description instead of the digest
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    access: OutputAccessArgs,

    #[command(flatten)]
    log: LogArgs,
}

impl IndexArgs {
    /// What is logged.
    pub fn log(&self) -> &LogArgs {
        &self.log
    }
}

/// Makes the index and reports.
pub fn run(args: &IndexArgs) -> Result<()> {
    let file = args.digestfile.as_deref().map(SideFile::new).transpose()?;
    let destination = args::tagged(&args.output, args.tag.as_ref())?;
    if let Destination::Storage { .. } = destination {
        return Err(args::usage(
            "the storage of podman keeps one image of an index; write the index to a layout or a registry".into(),
        ));
    }
    let hosts = args.parts.iter().map(Reference::host);
    let options = IndexOptions {
        parts: args.parts.clone(),
        access: args.access.access(&destination, hosts)?,
        destination: destination.clone(),
        annotations: args.annotations.iter().cloned().collect(),
        threads: available_threads(),
    };
    let done = pipeline::index(&options, &args.log.progress())?;
    report(&done, &destination, file, args.json, &args.log, "copied")
}
