//! `seal`.

use std::num::NonZeroUsize;

use anyhow::Result;
use camino::Utf8PathBuf;
use clap::Args;

use super::access::{ArchitectureArgs, OutputAccessArgs};
use super::args::{self, LogArgs, usage};
use super::{print_result, say};
use crate::oci::available_threads;
use crate::pipeline::{self, SealOptions};
use crate::registry::{Destination, Reference};
use crate::report::sealed_lines;
use crate::uki::Keys;

/// Make a plain image one whose kernel starts with these files only.
///
/// The composefs digest that bootc will find is computed from the image's layers, before it is
/// pushed, and put on the command line of its kernel; kernel, initramfs and command line become one
/// file (a UKI), signed where a key is given, in one more layer. All other layers stay. Needs
/// ukify (packages systemd-ukify, systemd-boot-efi; to sign, sbsigntool too).
///
/// The image is one of 'build --format plain'. One that is sealed is sealed anew. The digest of the
/// new image goes to standard output, that of composefs with --dry-run.
#[derive(Debug, Args)]
pub struct SealArgs {
    /// The image: oci:PATH[:TAG], oci-archive:PATH[:TAG], a path, or docker://NAME
    #[arg(value_name = "IMAGE")]
    image: Reference,

    /// Where the sealed image goes [default: the image's place, where that is a layout (oci:)]
    #[arg(short, long, value_name = "DEST")]
    output: Option<Destination>,

    /// Directory with vmlinuz and initramfs.img, called as the kernel's version, such as
    /// DIR/usr/lib/modules/VERSION [default: the one in the image]
    #[arg(long, value_name = "DIR")]
    kernel: Option<Utf8PathBuf>,

    /// Add an argument to the kernel's, after those of the image (/usr/lib/bootc/kargs.d)
    #[arg(long = "karg", value_name = "ARG")]
    arguments: Vec<String>,

    /// Let machines boot it whose file system has no fs-verity
    #[arg(long)]
    allow_missing_verity: bool,

    /// Sign the UKI for Secure Boot with a private key (PEM)
    #[arg(long, value_name = "FILE", requires = "secureboot_certificate")]
    secureboot_key: Option<Utf8PathBuf>,

    /// The certificate of that key (PEM)
    #[arg(long, value_name = "FILE", requires = "secureboot_key")]
    secureboot_certificate: Option<Utf8PathBuf>,

    /// Make nothing; print the composefs digest
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Threads that hash [default: as many as there are processors]
    #[arg(short = 'j', long, value_name = "N")]
    threads: Option<NonZeroUsize>,

    /// Print a JSON description instead of the digest
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    architecture: ArchitectureArgs,

    #[command(flatten)]
    access: OutputAccessArgs,

    #[command(flatten)]
    log: LogArgs,
}

impl SealArgs {
    /// What is logged.
    pub fn log(&self) -> &LogArgs {
        &self.log
    }
}

/// Seals and reports.
pub fn run(args: &SealArgs) -> Result<()> {
    let destination = destination(args)?;
    let access = args.access.access(&destination, [args.image.host()])?;
    let keys = args.secureboot_key.clone();
    let keys = keys.zip(args.secureboot_certificate.clone());
    let options = SealOptions {
        image: args.image.clone(),
        destination,
        access: access.for_architecture(args.architecture.arch.as_deref()),
        kernel: args.kernel.clone(),
        arguments: args.arguments.clone(),
        allow_missing_verity: args.allow_missing_verity,
        keys: keys.map(|(key, certificate)| Keys { key, certificate }),
        dry_run: args.dry_run,
        created_by: "apt-ostree-helper seal".to_owned(),
        threads: args.threads.unwrap_or_else(available_threads),
    };
    let sealed = pipeline::seal(&options, &args.log.progress())?;
    if !args.log.quiet {
        say(&sealed_lines(&sealed));
    }
    let result = match args.json {
        true => serde_json::to_string_pretty(&sealed)?,
        false => sealed.digest.unwrap_or(sealed.composefs),
    };
    print_result(&format!("{result}\n"))
}

fn destination(args: &SealArgs) -> Result<Destination> {
    match (&args.output, &args.image) {
        (Some(given), _) => args::tagged(given, None),
        (None, Reference::Layout { path, tag }) => Ok(Destination::Layout {
            path: path.clone(),
            tag: tag.clone(),
        }),
        // Nothing is written.
        (None, _) if args.dry_run => Ok(Destination::Stdout { tag: None }),
        (None, image) => Err(usage(format!(
            "{image} is no layout that could be replaced; say with --output where the sealed image goes"
        ))),
    }
}
