//! What a build would do, without doing it.

use anyhow::Result;
use serde::Serialize;

use super::below::Below;
use super::explain::{Explained, explained};
use super::planned::Planned;
use super::system::{HashPass, System};
use super::{CommitOptions, LayerOptions, PlanFile, RootfsOptions, write};
use crate::plan::Item;
use crate::progress::Progress;

/// What an image would be.
#[derive(Debug, Serialize)]
pub struct DryRun {
    /// The commit, unless it was not to be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Entries of the rootfs.
    pub entries: usize,
    /// Packages found.
    pub packages: usize,
    /// Bytes that a client is expected to fetch for the next update.
    pub expected_bytes: f64,
    /// The planned layers: those but for that of the commit and those of a base image.
    pub layers: Vec<DryLayer>,
    /// What was planned, by name.
    pub components: Vec<DryComponent>,
    /// The plan, for a file.
    #[serde(skip)]
    pub plan: PlanFile,
    /// What is asked about, explained.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub explained: Vec<Explained>,
}

/// A layer that would be.
#[derive(Debug, Serialize)]
pub struct DryLayer {
    /// Bytes before compression, without directories, about.
    pub size: u64,
    /// The chance that it changes until the next pull.
    pub chance: f64,
    /// Its components, sorted.
    pub components: Vec<String>,
}

/// A component of the plan.
#[derive(Debug, Serialize)]
pub struct DryComponent {
    /// Its name.
    pub name: String,
    /// Bytes before compression, about.
    pub size: u64,
    /// The chance that it changes until the next pull.
    pub chance: f64,
    /// What makes it change together with others.
    pub cause: Option<String>,
}

/// Plans the image of a root filesystem and explains what `explain` names: paths, packages or
/// components.
///
/// # Errors
/// When the rootfs cannot be read or cannot be an image, or there is nothing of that name in it.
pub fn dry_run(
    rootfs: &RootfsOptions,
    commit: &CommitOptions,
    mut layers: LayerOptions,
    explain: &[String],
    progress: &dyn Progress,
) -> Result<DryRun> {
    let hash_pass = match layers.names_commit() {
        true => HashPass::Ahead,
        false => layers.hash_pass(),
    };
    let system = System::of_rootfs(rootfs, commit, hash_pass, layers.threads, progress)?;
    let packages = layers.packages(&system, rootfs.admin_dir.as_deref(), &rootfs.rootfs)?;
    layers.follow_what_fits(&write::platform(None, &packages)?)?;
    let below = Below::of(&system, &packages, &layers, None, progress)?;
    let planned = Planned::new(&system, &packages.ownership, &layers, below.as_ref())?;
    let planned_layers = planned.plan.layers.iter().zip(&planned.components);
    Ok(DryRun {
        commit: write::commit_of(&system, &layers)?.map(|commit| commit.to_string()),
        entries: system.tree.len(),
        packages: packages.installed.len(),
        expected_bytes: planned.plan.expected_bytes(),
        layers: planned_layers
            .map(|(layer, components)| DryLayer {
                size: layer.size,
                chance: layer.chance,
                components: components.clone(),
            })
            .collect(),
        components: components(&planned),
        plan: planned.file(&below.as_ref().map(Below::components).unwrap_or_default()),
        explained: explain
            .iter()
            .map(|what| explained(what, &system, &packages, &planned))
            .collect::<Result<_>>()?,
    })
}

fn components(planned: &Planned) -> Vec<DryComponent> {
    let describe = |item: &Item| DryComponent {
        name: item.name.clone(),
        size: item.size,
        chance: item.chance,
        cause: item.cause.clone(),
    };
    let mut components: Vec<DryComponent> = planned.items.iter().map(describe).collect();
    components.sort_by(|a, b| a.name.cmp(&b.name));
    components
}
