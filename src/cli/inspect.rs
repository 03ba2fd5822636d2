//! `inspect` and `diff`.

use anyhow::Result;
use camino::Utf8PathBuf;
use clap::{ArgAction, Args};

use super::access::{AccessArgs, ArchitectureArgs};
use super::args::LogArgs;
use super::sbom::Sbom;
use super::side_file::SideFile;
use super::{EndsWith, print_result, print_text};
use crate::pipeline::{self, Bill, Difference};
use crate::registry::Reference;
use crate::report::{
    difference_page, difference_text, found_text, inspected_page, inspected_text, release_notes,
};

/// The status of `diff --exit-code` for images that are not the same.
const DIFFERENT: u8 = 3;

/// Show an image's layers, their sizes and components, and its packages.
///
/// The image is read whole, and every layer checked. Chances to change, and the bytes that an
/// update is expected to cost, are those of the build that made it.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The image: oci:PATH[:TAG], oci-archive:PATH[:TAG], a path, or through skopeo docker://NAME,
    /// containers-storage:NAME and others
    #[arg(value_name = "IMAGE")]
    image: Reference,

    /// List the packages too
    #[arg(long)]
    packages: bool,

    /// Tell the layer, the component and the package of a path in the image, or of what is below
    /// it; may be given several times
    #[arg(long = "path", value_name = "PATH")]
    paths: Vec<String>,

    /// List the files of a component, or of all parts of a source
    #[arg(long = "component", value_name = "NAME", conflicts_with = "paths")]
    components: Vec<String>,

    /// Write a page that shows the image to a file: it needs no network and no other file
    #[arg(long, value_name = "FILE")]
    html: Option<Utf8PathBuf>,

    /// Write a bill of materials to a file, as spdx (2.3) or cyclonedx (1.5): each package with its
    /// source, its layers, and the licences that its copyright file names
    #[arg(long, num_args = 2, value_names = ["FORMAT", "FILE"], action = ArgAction::Set)]
    sbom: Option<Vec<String>>,

    /// Print a JSON description, packages included
    #[arg(long, conflicts_with_all = ["paths", "components"])]
    json: bool,

    #[command(flatten)]
    architecture: ArchitectureArgs,

    #[command(flatten)]
    access: AccessArgs,

    #[command(flatten)]
    log: LogArgs,
}

/// Compare two images: packages, layers, and the bytes that a client fetches which has the first.
///
/// For each layer that is fetched: which of its components were updated, how much comes along
/// unchanged or with another time only, and where no package has changed, which files have.
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

    /// Read the changelogs in the new image: what has changed in each updated package, and which
    /// vulnerabilities are mended
    #[arg(long)]
    changelog: bool,

    /// Print release notes in Markdown
    #[arg(long, conflicts_with = "json")]
    markdown: bool,

    /// Write a page that shows the update to a file: it needs no network and no other file
    #[arg(long, value_name = "FILE")]
    html: Option<Utf8PathBuf>,

    /// Print a JSON description
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    architecture: ArchitectureArgs,

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
    let file = args.html.as_deref().map(SideFile::new).transpose()?;
    let sbom = args.sbom.as_deref().map(Sbom::parse).transpose()?;
    let sbom = sbom.map(|sbom| Ok::<_, anyhow::Error>((SideFile::new(&sbom.path)?, sbom)));
    let sbom = sbom.transpose()?;
    let access = args.access.access([args.image.host()])?;
    let access = access.for_architecture(args.architecture.arch.as_deref());
    let image = pipeline::inspect(&args.image, &access)?;
    if let Some((file, sbom)) = sbom {
        let bill = Bill::of(&image, &args.image, &access)?;
        file.write(sbom.text(&args.image.to_string(), &bill).as_bytes())?;
        file.publish()?;
    }
    if let Some(file) = file {
        let page = inspected_page(&args.image.to_string(), &image);
        file.write(page.as_bytes())?;
        file.publish()?;
    }
    if !args.paths.is_empty() || !args.components.is_empty() {
        let mut text = String::new();
        for path in &args.paths {
            text += &found_text(&image.files_at(path)?, path);
        }
        for name in &args.components {
            text += &found_text(&image.files_of(name)?, name);
        }
        return print_text(&text);
    }
    match args.json {
        true => print_result(&(serde_json::to_string_pretty(&image.summary)? + "\n")),
        false => print_text(&inspected_text(&image.summary, args.packages)),
    }
}

/// Compares and prints.
pub fn diff(args: &DiffArgs) -> Result<()> {
    let file = args.html.as_deref().map(SideFile::new).transpose()?;
    let access = args.access.access([args.old.host(), args.new.host()])?;
    let access = access.for_architecture(args.architecture.arch.as_deref());
    let old = pipeline::inspect(&args.old, &access)?;
    let new = pipeline::inspect(&args.new, &access)?;
    let mut difference = Difference::of(&old, &new);
    if args.changelog {
        difference.read_changelogs(&args.new, &access, &new)?;
    }
    if let Some(file) = file {
        let names = (args.old.to_string(), args.new.to_string());
        let page = difference_page((&names.0, &names.1), &old, &new, &difference);
        file.write(page.as_bytes())?;
        file.publish()?;
    }
    match (args.json, args.markdown) {
        (true, _) => print_result(&(serde_json::to_string_pretty(&difference)? + "\n")),
        (false, true) => print_text(&release_notes(&difference)),
        (false, false) => print_text(&difference_text(&difference)),
    }?;
    match args.exit_code && !difference.is_none() {
        true => Err(EndsWith(DIFFERENT).into()),
        false => Ok(()),
    }
}
