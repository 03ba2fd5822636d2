//! `inspect` and `diff`.

use anyhow::Result;
use clap::Args;

use super::args::{AccessArgs, LogArgs};
use super::{EndsWith, print_result};
use crate::pipeline::{self, Difference};
use crate::registry::Reference;
use crate::report::{difference_text, inspected_text};

/// The status of `diff --exit-code` for images that are not the same.
const DIFFERENT: u8 = 3;

/// Show an image's layers, their sizes and components, and its packages.
///
/// The image is read whole, and every layer checked. Chances to change, and the bytes that an update is expected to
/// cost, are those of the build that made it.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The image: oci:PATH[:TAG], oci-archive:PATH[:TAG], a path, or through skopeo docker://NAME,
    /// containers-storage:NAME and others
    #[arg(value_name = "IMAGE")]
    image: Reference,

    /// List the packages too
    #[arg(long)]
    packages: bool,

    /// Print a JSON description, packages included
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    access: AccessArgs,

    #[command(flatten)]
    log: LogArgs,
}

/// Compare two images: packages, layers, and the bytes that a client fetches which has the first.
///
/// For each layer that is fetched: which of its components were updated, how much comes along unchanged or with
/// another time only, and where no package has changed, which files have.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The image that a client has
    #[arg(value_name = "OLD")]
    old: Reference,

    /// The image that it updates to
    #[arg(value_name = "NEW")]
    new: Reference,

    /// End with status 3 when the images are not the same
    #[arg(long)]
    exit_code: bool,

    /// Print a JSON description
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    access: AccessArgs,

    #[command(flatten)]
    log: LogArgs,
}

impl InspectArgs {
    /// What is logged.
    pub fn log(&self) -> &LogArgs {
        &self.log
    }
}

impl DiffArgs {
    /// What is logged.
    pub fn log(&self) -> &LogArgs {
        &self.log
    }
}

/// Inspects and prints.
pub fn inspect(args: &InspectArgs) -> Result<()> {
    let image = pipeline::inspect(&args.image, &args.access.access())?.summary;
    print_result(&match args.json {
        true => serde_json::to_string_pretty(&image)? + "\n",
        false => inspected_text(&image, args.packages),
    })
}

/// Compares and prints.
pub fn diff(args: &DiffArgs) -> Result<()> {
    let access = args.access.access();
    let old = pipeline::inspect(&args.old, &access)?;
    let new = pipeline::inspect(&args.new, &access)?;
    let difference = Difference::of(&old, &new);
    print_result(&match args.json {
        true => serde_json::to_string_pretty(&difference)? + "\n",
        false => difference_text(&difference),
    })?;
    match args.exit_code && !difference.is_none() {
        true => Err(EndsWith(DIFFERENT).into()),
        false => Ok(()),
    }
}
