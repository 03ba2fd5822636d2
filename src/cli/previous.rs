//! Options for earlier images and plans, which the next image follows or is compared with.

use std::collections::BTreeMap;
use std::{fs, io};

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;

use super::args::usage;
use super::side_file::{SideFile, SideFiles};
use crate::oci::Platform;
use crate::pipeline::{self, Lower, LowerImage, Previous};
use crate::registry::{self, Access, Reference};

/// Which layers stay, which plan is followed, and where the plan goes.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The image that the rootfs was built from, from any transport, or auto: the one that the
    /// image of --from or of a Containerfile says it was built from. Its layers stay as they are,
    /// digests and all, below those of what was added or changed since, which alone is planned;
    /// what is gone is hidden by whiteouts. With --format ostree an image of that format
    #[arg(long, value_name = "IMAGE|auto", value_parser = base)]
    base: Option<Base>,

    /// An earlier image, from any transport, or none: components stay in their layers, and layers
    /// of a layout (oci:PATH), or of the repository that the image goes to (docker://), that are
    /// the same are taken over. One that is missing, not chunked or for another architecture is no
    /// error, but a registry out of reach is [default: none; for compose build-chunked-oci the one
    /// at the output]
    #[arg(long, value_name = "IMAGE|none", value_parser = previous)]
    previous: Option<PreviousArg>,

    /// Fail when there is no previous image that can be followed
    #[arg(long)]
    previous_required: bool,

    /// Look into each layer of the previous image before it is taken over, for an image that others
    /// can write to: it must hold what the rootfs has, else it is made anew with a warning. Layers
    /// in a registry are made anew
    #[arg(long)]
    previous_verify: bool,

    /// Let layers of the previous image stay although some of their files have changed, and put
    /// what changed into a layer above them: clients then fetch little more than the files that
    /// changed. At most this share of the image's bytes, uncompressed, is of no use then (10%); a
    /// layer is written anew when it must be. Reads all layers of the previous image
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    #[arg(conflicts_with_all = ["base", "plan"])]
    max_waste: Option<f64>,

    /// Follow the plan in a file, as --write-plan writes it ('schema plan-file'), instead of an
    /// image's. It may know more components than there are, or less. The file may be missing where
    /// --write-plan names it too: the first build then writes it
    #[arg(long, value_name = "FILE")]
    plan: Option<Utf8PathBuf>,

    /// Write the plan to a file: which component is in which layer, one a line, for version control
    /// beside the Containerfile. May be the file of --plan
    #[arg(long, value_name = "FILE")]
    write_plan: Option<Utf8PathBuf>,
}

impl PlanArgs {
    /// The file for the plan of an image, if it is asked for; one that cannot be written is refused
    /// before any work.
    pub fn add_to(&self, files: &mut SideFiles) -> Result<()> {
        files.add(self.write_plan.as_ref(), |built| built.plan.to_json())
    }

    /// The same for a plan alone.
    pub fn file(&self) -> Result<Option<SideFile>> {
        self.write_plan.as_deref().map(SideFile::new).transpose()
    }

    /// The registry that has the base image, if one does that is named.
    pub fn base_host(&self) -> Option<&str> {
        match &self.base {
            Some(Base::Named(reference)) => reference.host(),
            Some(Base::Auto) | None => None,
        }
    }

    /// The earlier image: the one that is named, else `usual`.
    pub fn earlier(&self, usual: Option<Earlier>) -> Earlier {
        match &self.previous {
            Some(PreviousArg(Some(reference))) => Earlier::Image(reference.clone()),
            Some(PreviousArg(None)) => Earlier::None,
            None => usual.unwrap_or(Earlier::None),
        }
    }

    /// The image whose layers stay, or may stay; `annotations` are those of the image that is read,
    /// and `previous` is what there is to follow.
    pub fn lower(
        &self,
        earlier: &Earlier,
        annotations: Option<&BTreeMap<String, String>>,
        access: &Access,
        platform: Option<&Platform>,
        previous: Option<&Previous>,
    ) -> Result<Option<Lower>> {
        let access = access.for_platform(platform);
        if let (Some(max_waste), Some(_)) = (self.max_waste, previous) {
            let Some(reference) = earlier.image() else {
                return Ok(None);
            };
            let image = LowerImage::open(reference, &access)
                .with_context(|| format!("opening the previous image {reference}"))?;
            return Ok(Some(Lower::Previous { image, max_waste }));
        }
        Ok(self.base(annotations, &access)?.map(Lower::Base))
    }

    fn base(
        &self,
        annotations: Option<&BTreeMap<String, String>>,
        access: &Access,
    ) -> Result<Option<LowerImage>> {
        let open =
            |reference| LowerImage::open(reference, access).context("opening the base image");
        match &self.base {
            None => Ok(None),
            Some(Base::Named(reference)) => open(reference).map(Some),
            Some(Base::Auto) => {
                let base = annotations.map(pipeline::base_of).transpose();
                let base = base.context("--base auto")?.flatten().ok_or_else(|| {
                    usage("--base auto: what is read does not say from which image it was built (podman and buildah write that into images of the OCI format, unless they are built FROM scratch); name it with --base IMAGE".into())
                })?;
                tracing::info!("the base image is {base}");
                open(&base)
                    .context("--base auto; name another with --base IMAGE")
                    .map(Some)
            }
        }
    }

    /// What there is to follow; of an index, the image for `platform`, or for this machine.
    pub fn previous(
        &self,
        earlier: &Earlier,
        access: &Access,
        platform: Option<&Platform>,
    ) -> Result<Option<Previous>> {
        if self.max_waste.is_some() && earlier.image().is_none() {
            return Err(usage(
                "--max-waste: name the image whose layers may stay with --previous IMAGE".into(),
            ));
        }
        if self.previous_required && self.plan.is_none() && matches!(earlier, Earlier::None) {
            return Err(usage(
                "--previous-required: name the previous image with --previous IMAGE".into(),
            ));
        }
        let of_image = earlier.read(&access.for_platform(platform), self.previous_required)?;
        let of_image = match self.previous_verify {
            true => of_image.map(Previous::verified),
            false => of_image,
        };
        let Some(of_file) = self.plan_file()? else {
            return Ok(of_image);
        };
        // The layers that are there are taken over whatever the plan.
        let mut previous = of_image.unwrap_or_default();
        previous.plan = of_file.plan;
        Ok(Some(previous))
    }

    /// The plan in the file that is named, if one is; none where that is still to be written.
    fn plan_file(&self) -> Result<Option<Previous>> {
        let Some(file) = &self.plan else {
            return Ok(None);
        };
        let is_written = |written: &Utf8PathBuf| is_same_file(file, written);
        if self.write_plan.as_ref().is_some_and(is_written) && is_missing(file) {
            tracing::info!("there is no {file} yet: the plan follows none");
            return Ok(None);
        }
        Previous::of_plan_file(file).map(Some)
    }
}

/// The image that the next one follows.
#[derive(Debug, Clone)]
pub enum Earlier {
    /// None.
    None,
    /// This one.
    Image(Reference),
    /// What is at the output, if it can be followed.
    AtOutput(Reference),
    /// The one whose manifest is in a file: only its plan is known.
    Manifest(Utf8PathBuf),
}

impl Earlier {
    /// The image, where there is one to read.
    fn image(&self) -> Option<&Reference> {
        match self {
            Self::Image(reference) | Self::AtOutput(reference) => Some(reference),
            Self::None | Self::Manifest(_) => None,
        }
    }

    /// The registry that has it, if one does.
    pub fn host(&self) -> Option<&str> {
        self.image().and_then(Reference::host)
    }

    fn read(&self, access: &Access, is_required: bool) -> Result<Option<Previous>> {
        match self {
            Self::None => Ok(None),
            Self::AtOutput(reference) if !is_required => {
                Previous::of_destination(reference, access)
            }
            Self::Image(reference) | Self::AtOutput(reference) => {
                Previous::of_image(reference, access, is_required)
            }
            Self::Manifest(file) => Previous::of_manifest_file(file, is_required),
        }
    }
}

/// Whether two paths name one file, which need not be there.
fn is_same_file(one: &Utf8Path, other: &Utf8Path) -> bool {
    let directory = |path: &Utf8Path| crate::oci::parent_directory(path).canonicalize().ok();
    one == other
        || one.file_name() == other.file_name()
            && directory(one).is_some_and(|one| directory(other) == Some(one))
}

fn is_missing(file: &Utf8Path) -> bool {
    fs::symlink_metadata(file).is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
}

/// The image that another one was built from.
#[derive(Debug, Clone)]
enum Base {
    /// This one.
    Named(Reference),
    /// The one that it names itself.
    Auto,
}

fn base(text: &str) -> Result<Base> {
    match text {
        "auto" => Ok(Base::Auto),
        name => name.parse().map(Base::Named),
    }
}

/// A share, as a percentage: "10%" or "10".
fn percent(text: &str) -> Result<f64> {
    let number = text.strip_suffix('%').unwrap_or(text);
    let percent: f64 = number
        .trim()
        .parse()
        .ok()
        .filter(|percent| (0.0..=90.0).contains(percent))
        .with_context(|| format!("'{text}' is not a percentage from 0% to 90%"))?;
    Ok(percent / 100.0)
}

/// What --previous names: an image, or none.
#[derive(Debug, Clone)]
struct PreviousArg(Option<Reference>);

fn previous(text: &str) -> Result<PreviousArg> {
    match text {
        "none" => Ok(PreviousArg(None)),
        name => name.parse().map(|reference| PreviousArg(Some(reference))),
    }
}

/// The digests and sizes of an image's layers.
pub fn layer_sizes(reference: &Reference, access: &Access) -> Result<Vec<(String, u64)>> {
    let manifest = registry::read_manifest(reference, access)
        .with_context(|| format!("reading {reference} to compare with"))?;
    let layers = manifest.layers.iter();
    Ok(layers
        .map(|layer| (layer.digest.to_digest(), layer.size))
        .collect())
}
