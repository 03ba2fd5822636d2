//! The jobs from end to end: a rootfs or a commit becomes a chunked image at its destination, a
//! rootfs a commit in a repository, an image a commit in a repository.

mod base;
mod below;
mod bill;
mod byte_code;
mod changelog;
mod component_changes;
mod contents;
mod diff;
mod dry_run;
mod embedded;
mod explain;
mod find;
mod image_components;
mod image_files;
mod image_root;
mod import;
mod inside;
mod inspect;
mod jobs;
mod labels;
mod layer_plan;
mod learn;
mod lower_image;
mod options;
mod os_release;
mod output;
mod plan_file;
mod planned;
mod previous;
mod read_ahead;
mod seal;
mod sealed_kernel;
mod store;
mod summary;
mod system;
mod times;
mod transfer;
mod verified;
mod write;

use std::num::NonZeroUsize;

use anyhow::{Context, Result, ensure};
use camino::Utf8Path;

pub use base::base_of;
use below::Below;
pub use below::Lower;
pub use bill::{Bill, BilledPackage};
pub use changelog::{ChangedSource, ChangelogEntry};
pub use component_changes::{Change, ComponentChange, Cost};
pub use diff::{ChangedPackage, Difference, FetchedLayer};
pub use dry_run::{DryRun, dry_run};
pub use explain::Explained;
pub use find::FoundFile;
pub use image_components::{FileOwners, ImageComponent, Owner};
pub use import::{ImportOptions, Imported, import};
pub use inspect::{
    ImageFile, Inspected, InspectedImage, InspectedLayer, InspectedPackage, inspect,
};
pub use layer_plan::{LABEL as PLAN_LABEL, LayerPlan};
pub use learn::learn;
pub use lower_image::LowerImage;
pub use options::{
    CommitOptions, Format, ImageOptions, LayerOptions, Parent, Place, RootfsOptions,
};
pub use plan_file::PlanFile;
use planned::Planned;
pub use previous::Previous;
pub use seal::{SealOptions, Sealed, seal};
pub use store::{Committed, StoreOptions};
pub use summary::{Built, ContentMetadata, LayerSummary};
use system::{HashPass, Packages, System};
pub use times::FileTimes;
pub use transfer::{IndexOptions, TransferOptions, Transferred, index, transfer};

use crate::oci::Platform;
use crate::ostree::Repository;
use crate::progress::Progress;

/// What the caller does between the last byte of an image and its publication, as its last chance
/// to fail.
pub type Ready<'a> = &'a dyn Fn(&Built) -> Result<()>;

/// Builds an image of a root filesystem, and stores its commit where that is asked for. The branch
/// moves when the image is in its place.
///
/// # Errors
/// When the rootfs cannot be read or cannot be an image, or the output cannot be written: then
/// nothing is left at the destination that was not there before, and no branch has moved.
pub fn build(
    rootfs: &RootfsOptions,
    commit: &CommitOptions,
    image: ImageOptions,
    ready: Ready<'_>,
    progress: &dyn Progress,
) -> Result<Built> {
    let output = output::Output::prepare(&image.destination, &image.access)?;
    if let Place::Directory(path) = &rootfs.rootfs {
        output.refuse_inside(path, &rootfs.filter)?;
    }
    if let Some(store) = &commit.store {
        ensure!(
            !store.open()?.is_canonical_only(),
            "the repository {} has the mode bare-user-only, which cannot hold the owners and attributes of the image's files; use one of mode bare, bare-user or archive",
            store.repo
        );
    }
    ensure!(
        commit.store.is_none() || image.layers.names_commit(),
        "an image without the checksum of its commit cannot be stored as a commit too"
    );
    let (hash_pass, threads) = (image.layers.hash_pass(), image.layers.threads);
    let system = System::of_rootfs(rootfs, commit, hash_pass, threads, progress)?;
    let packages = image
        .layers
        .packages(&system, rootfs.admin_dir.as_deref(), &rootfs.rootfs)?;
    let built = image_of(&system, &packages, image, &output, progress)?;
    ready(built.built())?;
    let Some(store) = &commit.store else {
        return built.publish(&output, progress);
    };
    store::store(&system, &store.without_branch(), progress)?;
    let name = system.commit()?.checksum;
    let built = built.publish(&output, progress).with_context(|| {
        let repo = &store.repo;
        format!(
            "commit {name} is in {repo}, where no branch points at it, but the image is not made"
        )
    })?;
    store.set_branch(name).context("the image is in place")?;
    Ok(built)
}

/// Makes the commit of a root filesystem in the repository that `commit` names.
///
/// # Errors
/// When the rootfs cannot be read or cannot be a commit, or the repository cannot be written: then
/// that is as it was.
pub fn commit(
    rootfs: RootfsOptions,
    commit: CommitOptions,
    threads: NonZeroUsize,
    progress: &dyn Progress,
) -> Result<Committed> {
    let mut rootfs = rootfs;
    let store = commit.store.as_ref();
    let store = store.context("no repository is named to commit to")?;
    rootfs.canonical_permissions |= store.open()?.is_canonical_only();
    let hash_pass = HashPass::Ahead;
    let system = System::of_rootfs(&rootfs, &commit, hash_pass, threads, progress)?;
    store::store(&system, store, progress)
}

/// Builds an image of the commit that `name` stands for in the repository at `repo`.
///
/// # Errors
/// As [`build`].
pub fn encapsulate(
    repo: &Utf8Path,
    name: &str,
    image: ImageOptions,
    ready: Ready<'_>,
    progress: &dyn Progress,
) -> Result<Built> {
    let output = output::Output::prepare(&image.destination, &image.access)?;
    let repository = Repository::open(repo)?;
    let system = System::of_commit(&repository, name)?;
    let what = format!("commit {}", system.commit()?.checksum);
    let admin_dir = image.layers.admin_dir.as_deref();
    let packages = image.layers.packages(&system, admin_dir, &what)?;
    let built = image_of(&system, &packages, image, &output, progress)?;
    ready(built.built())?;
    built.publish(&output, progress)
}

impl LayerOptions {
    /// What dpkg and the user say of `system`, which the user calls `name`.
    fn packages(
        &self,
        system: &System,
        admin_dir: Option<&str>,
        name: &dyn std::fmt::Display,
    ) -> Result<Packages> {
        let mut packages = Packages::of(system, admin_dir, self.components.as_ref(), name)?;
        if let Some(intervals) = &self.intervals {
            packages.ownership.follow(intervals);
        }
        Ok(packages)
    }

    /// What an earlier image has is compared with the files, and the one layer of an encapsulated
    /// commit begins with all their names.
    fn hash_pass(&self) -> HashPass {
        let is_alone = self.format != Format::Plain && self.max_layers.get() == 1;
        match self.previous.is_some() || self.lower.is_some() || is_alone {
            true => HashPass::Ahead,
            false if self.names_commit() => HashPass::WhileWriting,
            false => HashPass::Never,
        }
    }

    /// Whether the image names its commit.
    fn names_commit(&self) -> bool {
        self.commit_checksum || self.format != Format::Plain
    }

    /// Forgets a previous image for another platform.
    ///
    /// # Errors
    /// When that one is required, or the base image is for another platform.
    fn follow_what_fits(&mut self, platform: &Platform) -> Result<()> {
        if let Some(Lower::Base(image)) = &self.lower {
            let checked = image.check_platform(platform);
            checked.with_context(|| format!("keeping the layers of the base image {image}"))?;
        }
        let Some(previous) = &self.previous else {
            return Ok(());
        };
        if !previous.is_for(platform)? {
            self.previous = None;
            if let Some(Lower::Previous { .. }) = self.lower {
                self.lower = None;
            }
        }
        Ok(())
    }
}

fn image_of(
    system: &System,
    packages: &Packages,
    mut image: ImageOptions,
    output: &output::Output,
    progress: &dyn Progress,
) -> Result<write::Written> {
    let platform = write::platform(image.platform(), packages)?;
    let layers = &mut image.layers;
    layers.follow_what_fits(&platform)?;
    if let Some(previous) = &mut layers.previous {
        previous.goes_to(&image.destination);
    }
    let stage = output.stage()?;
    // Layers that are at the destination stay there.
    let is_there = |lower: &Lower| lower.image().is_at(&image.destination);
    let brought = (!layers.lower.as_ref().is_some_and(is_there)).then_some(&stage);
    let below = Below::of(system, packages, layers, brought, progress)?;
    let sharing = layers.format.sharing();
    system.hash_possible_duplicates(&packages.ownership, sharing, layers.threads, progress)?;
    let planned = Planned::new(system, &packages.ownership, layers, below.as_ref())?;
    tracing::debug!(
        "planned {} layers, {:.0} bytes expected at the next update",
        planned.plan.layers.len(),
        planned.plan.expected_bytes()
    );
    write::write_image(system, packages, &planned, below, image, stage, progress)
}
