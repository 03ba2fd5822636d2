//! `push` and `pull`.

use anyhow::Result;
use camino::Utf8PathBuf;
use clap::Args;

use super::access::{AccessArgs, ArchitectureArgs, SigningArgs};
use super::args::{LogArgs, usage};
use super::side_file::SideFile;
use super::{print_result, say};
use crate::oci::available_threads;
use crate::pipeline::{self, TransferOptions, Transferred};
use crate::registry::{Access, Destination, Reference};
use crate::report::transferred_line;

/// Send an image to a registry.
///
/// Layers that the repository has are not sent, so the next push completes one that was
/// interrupted. The digest stays that of the source, as do the annotations of layers, unless layers
/// are uncompressed: those are compressed with gzip. Afterwards the registry is asked for the
/// digest, which goes to standard output.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// The image: oci:PATH[:TAG], oci-archive:PATH[:TAG], a path, or through skopeo
    /// containers-storage:NAME, docker://NAME and others
    #[arg(value_name = "SRC")]
    source: Reference,

    /// Where it goes: docker://HOST/NAME[:TAG]
    #[arg(value_name = "DEST")]
    destination: Destination,

    #[command(flatten)]
    signing: SigningArgs,

    #[command(flatten)]
    common: TransferArgs,
}

/// Fetch an image from a registry.
///
/// The image stays as it is, byte for byte. Layers that the layout has already are not fetched. The
/// digest goes to standard output.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// The image: docker://HOST/NAME[:TAG] or docker://HOST/NAME@DIGEST
    #[arg(value_name = "SRC")]
    source: Reference,

    /// Where it goes: oci:PATH[:TAG], oci-archive:PATH[:TAG], containers-storage:NAME, a path (an
    /// OCI archive), or - for an OCI archive on standard output
    #[arg(value_name = "DEST")]
    destination: Destination,

    #[command(flatten)]
    common: TransferArgs,
}

/// What both have.
#[derive(Debug, Args)]
struct TransferArgs {
    /// Copy all images of an index, and the index itself
    #[arg(long, conflicts_with = "arch")]
    all: bool,

    #[command(flatten)]
    architecture: ArchitectureArgs,

    /// Write the digest of the manifest to a file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<Utf8PathBuf>,

    /// Print a JSON description instead of the digest: each layer, and whether it was sent or
    /// fetched
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    access: AccessArgs,

    #[command(flatten)]
    log: LogArgs,
}

impl PushArgs {
    /// What is logged.
    pub fn log(&self) -> &LogArgs {
        &self.common.log
    }
}

impl PullArgs {
    /// What is logged.
    pub fn log(&self) -> &LogArgs {
        &self.common.log
    }
}

/// Pushes and reports.
pub fn push(args: &PushArgs) -> Result<()> {
    if args.destination.host().is_none() {
        return Err(usage(
            "push writes to a registry: name it as docker://HOST/NAME[:TAG]".into(),
        ));
    }
    let access = args.common.access(&args.source, &args.destination)?;
    let access = args.signing.add_to(access, &args.destination)?;
    args.common
        .run(&args.source, &args.destination, access, "sent")
}

/// Pulls and reports.
pub fn pull(args: &PullArgs) -> Result<()> {
    if args.source.host().is_none() {
        return Err(usage(
            "pull reads from a registry: name the image as docker://HOST/NAME[:TAG]".into(),
        ));
    }
    if args.destination.host().is_some() {
        return Err(usage(
            "pull writes to a layout, an archive or the storage; 'push' copies from one registry to another".into(),
        ));
    }
    let access = args.common.access(&args.source, &args.destination)?;
    args.common
        .run(&args.source, &args.destination, access, "fetched")
}

impl TransferArgs {
    fn access(&self, source: &Reference, destination: &Destination) -> Result<Access> {
        self.access.access([destination.host(), source.host()])
    }

    fn run(
        &self,
        source: &Reference,
        destination: &Destination,
        access: Access,
        verb: &str,
    ) -> Result<()> {
        let file = self.digestfile.as_deref().map(SideFile::new).transpose()?;
        let options = TransferOptions {
            source: source.clone(),
            destination: destination.clone(),
            access: access.for_architecture(self.architecture.arch.as_deref()),
            all: self.all,
            threads: available_threads(),
        };
        let done = pipeline::transfer(&options, &self.log.progress())?;
        report(&done, destination, file, self.json, &self.log, verb)
    }
}

/// Writes the file that was asked for, and tells the user.
pub fn report(
    done: &Transferred,
    destination: &Destination,
    digestfile: Option<SideFile>,
    json: bool,
    log: &LogArgs,
    verb: &str,
) -> Result<()> {
    if let Some(file) = digestfile {
        file.write(done.digest.as_bytes())?;
        file.publish()?;
    }
    if !log.quiet {
        say(&transferred_line(done, verb, log.verbose > 0));
    }
    let result = match json {
        true => serde_json::to_string_pretty(done)?,
        false => done.digest.clone(),
    };
    // Standard output has the archive itself.
    if let Destination::Stdout { .. } = destination {
        if !log.quiet {
            say(&result);
        }
        return Ok(());
    }
    print_result(&format!("{result}\n"))
}
