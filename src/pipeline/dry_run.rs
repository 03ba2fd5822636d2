//! What a build would do, without doing it.

use anyhow::{Result, bail};
use camino::Utf8Path;
use serde::Serialize;

use super::layer_plan::PlannedLayer;
use super::planned::Planned;
use super::system::{Packages, System};
use super::{CommitOptions, ImageOptions, LayerPlan, RootfsOptions};
use crate::plan::Item;
use crate::progress::Progress;
use crate::tree::{EntryId, Kind};

/// What an image would be.
#[derive(Debug, Serialize)]
pub struct DryRun {
    /// The commit.
    pub commit: String,
    /// Entries of the rootfs.
    pub entries: usize,
    /// Packages found.
    pub packages: usize,
    /// Bytes that a client is expected to fetch for the next update.
    pub expected_bytes: f64,
    /// The layers but for that of the commit.
    pub layers: Vec<DryLayer>,
    /// What was planned, by name.
    pub components: Vec<DryComponent>,
    /// The plan, for a file.
    #[serde(skip)]
    pub plan: LayerPlan,
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

/// Why something is where it is.
#[derive(Debug, Serialize)]
pub struct Explained {
    /// What is asked about.
    pub what: String,
    /// The component that it belongs to.
    pub component: String,
    /// The rule or package that makes it so.
    pub rule: String,
    /// Its layer, counted as in `layers`; none for what weighs nothing.
    pub layer: Option<usize>,
    /// Bytes of the component.
    pub size: u64,
    /// The chance that the component changes until the next pull.
    pub chance: f64,
    /// What makes it change together with others.
    pub cause: Option<String>,
    /// What it shares its layer with.
    pub with: Vec<String>,
}

/// Plans the image of a root filesystem and explains what `explain` names: paths or components.
///
/// # Errors
/// When the rootfs cannot be read or cannot be an image, or there is nothing of that name in it.
pub fn dry_run(
    rootfs: &RootfsOptions,
    commit: &CommitOptions,
    image: &ImageOptions,
    explain: &[String],
    progress: &dyn Progress,
) -> Result<DryRun> {
    let system = System::of_rootfs(rootfs, commit, image.threads, progress)?;
    let packages = Packages::of(&system, rootfs.admin_dir.as_deref(), &rootfs.rootfs)?;
    let planned = Planned::new(&system, &packages.ownership, image);
    let layers = || planned.plan.layers.iter().zip(&planned.components);
    Ok(DryRun {
        commit: system.commit.checksum.to_string(),
        entries: system.tree.len(),
        packages: packages.count,
        expected_bytes: planned.plan.expected_bytes(),
        layers: layers()
            .map(|(layer, components)| DryLayer {
                size: layer.size,
                chance: layer.chance,
                components: components.clone(),
            })
            .collect(),
        components: components(&planned),
        plan: LayerPlan::new(
            layers()
                .map(|(layer, components)| PlannedLayer {
                    components: components.clone(),
                    chance: Some((layer.chance * 1e4).round() / 1e4),
                    ..PlannedLayer::default()
                })
                .collect(),
        ),
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

fn explained(
    what: &str,
    system: &System,
    packages: &Packages,
    planned: &Planned,
) -> Result<Explained> {
    let ownership = &packages.ownership;
    let path = what.trim_start_matches('/');
    let entry = match what.starts_with('/') || what.contains('/') {
        true => find(system, path),
        false => None,
    };
    let (name, rule) = match entry {
        Some(id) => {
            let component = &ownership.components()[ownership.owner(id).index()];
            (
                component.name.clone(),
                rule(&component.name, system.tree.entry(id).kind),
            )
        }
        None => {
            let known = planned.items.iter().find(|item| item.name == what);
            match known {
                Some(item) => (item.name.clone(), rule(&item.name, Kind::Regular)),
                None => bail!(
                    "--explain {what}: there is no such path in the rootfs and no such component (a source package, or a name that the plan shows)"
                ),
            }
        }
    };
    let layer = planned
        .components
        .iter()
        .position(|names| names.contains(&name));
    let item = planned.items.iter().find(|item| item.name == name);
    let with = layer
        .map(|at| planned.components[at].clone())
        .unwrap_or_default();
    Ok(Explained {
        what: what.to_owned(),
        rule,
        layer,
        size: item.map_or(0, |item| item.size),
        chance: item.map_or(0.0, |item| item.chance),
        cause: item.and_then(|item| item.cause.clone()),
        with: with.into_iter().filter(|other| *other != name).collect(),
        component: name,
    })
}

fn find(system: &System, path: &str) -> Option<EntryId> {
    let mut at = EntryId::ROOT;
    for name in Utf8Path::new(path).components() {
        at = system.tree.child(at, name.as_str())?;
    }
    Some(at)
}

/// What makes a component one, by its name: packages have no slash in theirs, and hints say so.
fn rule(component: &str, kind: Kind) -> String {
    let of_directory = match kind {
        Kind::Directory => "; a directory is written with what is in it",
        _ => "",
    };
    let rule = match component.split_once('/') {
        None => "the source package whose files dpkg lists".to_owned(),
        Some((source, _)) if source.contains(':') => {
            "a part of a source package that updates mostly leave alone".to_owned()
        }
        Some(("user", _)) => "the attribute user.component".to_owned(),
        Some((group, rule)) => format!("the rule '{group}/{rule}' for files that no package owns"),
    };
    rule + of_directory
}
