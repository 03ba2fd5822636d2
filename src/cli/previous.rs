//! Earlier images and plans, which the next image follows or is compared with.

use anyhow::{Context, Result};
use camino::Utf8PathBuf;
use clap::Args;

use super::args::usage;
use super::side_file::{SideFile, SideFiles};
use crate::pipeline::Previous;
use crate::registry::{self, Access, Reference};

/// Which plan is followed, and where the plan goes.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// An earlier image, from any transport, or none: components stay in their layers, and layers of a layout
    /// (oci:PATH) that are the same are taken over. One that is not chunked is no error
    #[arg(long, value_name = "IMAGE|none", default_value = "none")]
    previous: String,

    /// Follow the plan in a file, as --write-plan writes it (JSON: version 1, layers with components), instead of an image's
    #[arg(long, value_name = "FILE")]
    plan: Option<Utf8PathBuf>,

    /// Write the plan to a file: which component is in which layer
    #[arg(long, value_name = "FILE")]
    write_plan: Option<Utf8PathBuf>,
}

impl PlanArgs {
    /// The file for the plan of an image, if it is asked for; one that cannot be written is refused before any work.
    pub fn add_to(&self, files: &mut SideFiles) -> Result<()> {
        files.add(self.write_plan.as_ref(), |built| built.plan.to_json())
    }

    /// The same for a plan alone.
    pub fn file(&self) -> Result<Option<SideFile>> {
        self.write_plan.as_deref().map(SideFile::new).transpose()
    }

    /// What there is to follow.
    pub fn previous(&self) -> Result<Option<Previous>> {
        let image = match self.previous.as_str() {
            "none" => None,
            name => Some(
                name.parse::<Reference>()
                    .map_err(|e| usage(format!("--previous {e:#}")))?,
            ),
        };
        match (&self.plan, image) {
            (Some(file), None) => Previous::of_plan_file(file).map(Some),
            (Some(file), Some(image)) => {
                // The layers that are there are taken over whatever the plan.
                let mut previous =
                    Previous::of_image(&image, &Access::default())?.unwrap_or_default();
                previous.plan = Previous::of_plan_file(file)?.plan;
                Ok(Some(previous))
            }
            (None, Some(image)) => Previous::of_image(&image, &Access::default()),
            (None, None) => Ok(None),
        }
    }
}

/// The digests and sizes of an image's layers.
pub fn layer_sizes(reference: &Reference) -> Result<Vec<(String, u64)>> {
    let manifest = registry::read_manifest(reference, &Access::default())
        .with_context(|| format!("reading {reference} to compare with"))?;
    let layers = manifest.layers.iter();
    Ok(layers
        .map(|layer| (layer.digest.to_digest(), layer.size))
        .collect())
}
