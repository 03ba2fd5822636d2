//! The main job from end to end: a rootfs becomes a commit and a chunked image at its destination.

mod labels;
mod output;
mod write;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use anyhow::{Context, Result};
use camino::Utf8PathBuf;
use serde::Serialize;

use crate::component::{ComponentId, Ownership, TreeFiles};
use crate::dpkg::Database;
use crate::layers::{Assignment, FormatVersion, component_sizes};
use crate::oci::{BaseConfig, Compression, Platform};
use crate::ostree::{Commit, CommitInfo, ContentObjects, MetadataValue};
use crate::plan::{self, Item, Plan};
use crate::progress::Progress;
use crate::registry::Destination;
use crate::tree::{self, Directory, EntryId, Filter, Kind, Tree};

/// What kind of image is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// An encapsulated OSTree commit.
    Ostree(FormatVersion),
    /// An ordinary image.
    Plain,
}

/// What to build, from what, and where to.
#[derive(Debug)]
pub struct BuildOptions {
    /// The root of the Debian system.
    pub rootfs: Utf8PathBuf,
    /// Where the image goes.
    pub destination: Destination,
    /// What kind of image.
    pub format: Format,
    /// At most so many layers in all.
    pub max_layers: NonZeroUsize,
    /// How layers are compressed.
    pub compression: Compression,
    /// The config to begin with.
    pub base: BaseConfig,
    /// Labels to set, or without a value to remove, in this order.
    pub labels: Vec<(String, Option<String>)>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// The command, when not the base config's.
    pub cmd: Option<Vec<String>>,
    /// The platform, when neither the base config nor dpkg is to tell.
    pub platform: Option<Platform>,
    /// What to leave out.
    pub filter: Filter,
    /// Where dpkg's database is, when not where it is looked for.
    pub admin_dir: Option<String>,
    /// The date of image and commit, in seconds since the epoch; without it the time of the newest
    /// file. Later file times are clamped to it.
    pub timestamp: Option<u64>,
    /// How many threads read, hash and compress.
    pub threads: NonZeroUsize,
}

/// What was built.
#[derive(Debug, Serialize)]
pub struct Built {
    /// The digest of the manifest.
    pub digest: String,
    /// The digest of the config.
    pub image_id: String,
    /// The commit; of a plain image, the commit that its tree would be.
    pub commit: String,
    /// Seconds since the epoch: the date of image and commit.
    pub timestamp: u64,
    /// Entries of the rootfs in the image.
    pub entries: usize,
    /// Packages found.
    pub packages: usize,
    /// The layers, bottom first.
    pub layers: Vec<LayerSummary>,
}

/// A layer of what was built.
#[derive(Debug, Serialize)]
pub struct LayerSummary {
    /// Its digest.
    pub digest: String,
    /// Its diff id.
    pub diff_id: String,
    /// Bytes as stored.
    pub size: u64,
    /// Bytes before compression.
    pub uncompressed_size: u64,
    /// The chance that it changes until the next pull.
    pub chance: f64,
    /// Its components, sorted; empty for the commit layer.
    pub components: Vec<String>,
}

impl Built {
    /// Bytes of all layers as stored.
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }
}

/// Builds the image.
///
/// # Errors
/// When the rootfs cannot be read or cannot be an image, or the output cannot be written: then
/// nothing is left at the destination that was not there before.
pub fn build(options: BuildOptions, progress: &dyn Progress) -> Result<Built> {
    let output = output::Output::prepare(&options.destination, &options.rootfs, &options.filter)?;
    let (tree, directory) = tree::scan(&options.rootfs, &options.filter)?;
    let system = System::read(tree, directory, &options, progress)?;
    let info = system.commit_info(&options);
    let commit = Commit::of_tree(&system.tree, &system.objects, &info)
        .with_context(|| format!("making a commit of {}", options.rootfs))?;
    let planned = Planned::new(&system, &options);
    tracing::debug!(
        "planned {} layers, {:.0} bytes expected at the next update",
        planned.plan.layers.len(),
        planned.plan.expected_bytes()
    );
    write::write_image(
        &system, &commit, &info, &planned, options, &output, progress,
    )
}

/// What has been read of the rootfs.
struct System {
    tree: Tree,
    directory: Directory,
    architecture: Option<Platform>,
    packages: usize,
    ownership: Ownership,
    objects: ContentObjects,
}

impl System {
    fn read(
        tree: Tree,
        directory: Directory,
        options: &BuildOptions,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let files = TreeFiles {
            tree: &tree,
            contents: &directory,
        };
        let database = Database::load(&files, options.admin_dir.as_deref())
            .with_context(|| format!("reading dpkg's database in {}", options.rootfs))?;
        match &database {
            Some(database) => tracing::debug!("{} packages", database.packages.len()),
            None => tracing::warn!(
                "{} has no dpkg database (looked in /var/lib/dpkg and /usr/lib/sysimage/dpkg): layers cannot follow packages",
                options.rootfs
            ),
        }
        let ownership = Ownership::of_tree(&tree, database.as_ref(), &files)
            .with_context(|| format!("reading dpkg's file lists in {}", options.rootfs))?;
        let objects = ContentObjects::compute(&tree, &directory, options.threads, progress)?;
        let debian = database.as_ref().and_then(Database::architecture);
        Ok(Self {
            architecture: debian.and_then(|name| Platform::from_name(name).ok()),
            packages: database.map_or(0, |database| database.packages.len()),
            tree,
            directory,
            ownership,
            objects,
        })
    }

    /// The time of the newest file, which a copy of the rootfs has too; times of directories tell
    /// when something was last installed or copied.
    fn newest_mtime(&self) -> u64 {
        let files = self.tree.ids().map(|id| self.tree.entry(id));
        let times = files.filter(|entry| entry.kind == Kind::Regular);
        let newest = times.map(|entry| entry.mtime).max().unwrap_or(0);
        u64::try_from(newest).unwrap_or(0)
    }

    fn commit_info(&self, options: &BuildOptions) -> CommitInfo {
        let mut metadata = BTreeMap::new();
        if let Some(version) = self.kernel_version() {
            metadata.insert("ostree.bootable".into(), MetadataValue::Bool(true));
            metadata.insert("ostree.linux".into(), MetadataValue::String(version));
        }
        CommitInfo {
            timestamp: options.timestamp.unwrap_or_else(|| self.newest_mtime()),
            metadata,
            ..CommitInfo::default()
        }
    }

    /// The version of the kernel that can be booted from the commit: where libostree looks for it
    /// (`ostree_commit_metadata_for_bootable`), `/usr/lib/modules/VERSION/vmlinuz`.
    fn kernel_version(&self) -> Option<String> {
        let modules = self.tree.locate("usr/lib/modules")?;
        let has_kernel = |id: &&EntryId| self.tree.child(**id, "vmlinuz").is_some();
        let kernels: Vec<&str> = (self.tree.children(modules).iter())
            .filter(has_kernel)
            .map(|id| self.tree.name(*id))
            .collect();
        if kernels.len() > 1 {
            tracing::warn!(
                "several kernels in /usr/lib/modules ({}): bootc and OSTree expect one",
                kernels.join(", ")
            );
        }
        kernels.last().map(|version| (*version).to_owned())
    }
}

/// The plan, and the entries of its layers.
struct Planned {
    plan: Plan,
    assignment: Assignment,
    /// The names of the components in each layer.
    components: Vec<Vec<String>>,
}

impl Planned {
    fn new(system: &System, options: &BuildOptions) -> Self {
        let sizes = component_sizes(&system.tree, &system.objects, &system.ownership);
        // In the encapsulated format the first layer is the commit's.
        let budget = match options.format {
            Format::Ostree(_) => NonZeroUsize::new(options.max_layers.get() - 1),
            Format::Plain => Some(options.max_layers),
        };
        let owned = system.tree.ids().map(|id| system.ownership.owner(id));
        let mut items: Vec<ComponentId> = owned.collect();
        items.sort_unstable();
        items.dedup();
        // A component that only has directories with something in them weighs nothing and is in no layer.
        items.retain(|id| sizes[id.index()] > 0);
        let component = |id: &ComponentId| &system.ownership.components()[id.index()];
        let plan_items: Vec<Item> = items
            .iter()
            .map(|id| Item {
                name: component(id).name.clone(),
                size: sizes[id.index()],
                chance: component(id).chance,
                cause: component(id).cause.clone(),
            })
            .collect();
        let plan = plan::plan(&plan_items, budget.unwrap_or(NonZeroUsize::MIN), None);
        let assignment = Assignment::new(
            &system.tree,
            &system.objects,
            &system.ownership,
            &items,
            &plan,
        );
        let components = plan
            .layers
            .iter()
            .map(|layer| {
                let names = layer
                    .items
                    .iter()
                    .map(|item| component(&items[*item]).name.clone());
                let mut names: Vec<String> = names.collect();
                names.sort_unstable();
                names
            })
            .collect();
        Self {
            plan,
            assignment,
            components,
        }
    }
}
