//! Labels that describe the image itself: its version, its commit, and whether it boots.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use super::os_release::field;
use super::system::{BOOTABLE, LINUX, System, VERSION};
use super::{Format, ImageOptions};
use crate::checksum::Checksum;
use crate::component::TreeFiles;
use crate::dpkg::Files;
use crate::oci::BaseConfig;
use crate::ostree::MetadataValue;
use crate::registry::Image;
use crate::remedy::{Advised, Remedy};
use crate::tree::Tree;

/// The commit that an encapsulated image carries.
pub const COMMIT: &str = "ostree.commit";
/// The diff id of the last layer that belongs to the commit.
pub const FINAL_DIFF_ID: &str = "ostree.final-diffid";
/// Says that an image can be booted by bootc.
pub const BOOTC: &str = "containers.bootc";
/// The version of what is in an image (image-spec, annotations.md).
pub const IMAGE_VERSION: &str = oci_spec::image::ANNOTATION_VERSION;
/// Where bootc looks for unified kernel images, without a leading slash.
pub const UNIFIED_KERNELS: &str = "boot/EFI/Linux";
/// What rpm-ostree copies when it is there: the hash of what a compose was made from.
const INPUT_HASH: &str = "rpmostree.inputhash";

/// How many layers of an image belong to an encapsulated commit, the lowest ones; none when the
/// image carries no commit, or no more: one that was squashed, or exported and imported, has other
/// layers.
///
/// # Errors
/// When its label is no diff id.
pub fn encapsulated_layers(image: &Image) -> Result<Option<usize>> {
    let last = image.config.labels.get(FINAL_DIFF_ID);
    let Some(last) = last.filter(|last| !last.is_empty()) else {
        return Ok(None);
    };
    let wanted = Checksum::from_digest(last)
        .with_context(|| format!("its label {FINAL_DIFF_ID} is '{}'", last.escape_debug()))?;
    let mut diff_ids = image.layers().iter().map(|(_, diff_id)| *diff_id);
    let at = diff_ids.position(|diff_id| diff_id == wanted);
    if at.is_none() {
        tracing::warn!(
            "its label {FINAL_DIFF_ID} names {last}, which is none of its {} layers: it has been squashed or exported since it was built, and is read as an ordinary image",
            image.layers().len()
        );
    }
    Ok(at.map(|at| at + 1))
}

/// The labels of an image of `system`. Plain images have none that speak of OSTree: readers would
/// look for a commit in them.
///
/// # Errors
/// When metadata of the commit is to be copied that is not there, or is not text.
pub fn of_image(
    options: &ImageOptions,
    system: &System,
    last_diff_id: &str,
) -> Result<Vec<(String, String)>> {
    let metadata = &system.info.metadata;
    let mut labels = Vec::new();
    let is_bootable = system.is_bootable() || has_unified_kernel(&system.tree);
    if is_bootable || options.bootc {
        labels.push((BOOTC.into(), "1".into()));
    }
    match metadata.get(VERSION) {
        Some(MetadataValue::String(version)) => {
            labels.push((IMAGE_VERSION.into(), version.clone()));
        }
        _ if is_bootable && !options.base.has_label(IMAGE_VERSION) => {
            let version = version(&os_release(system)?, system.timestamp());
            labels.push((IMAGE_VERSION.into(), version));
        }
        _ => {}
    }
    if matches!(options.layers.format, Format::Ostree(_)) {
        labels.push((COMMIT.into(), system.commit()?.checksum.to_string()));
        labels.push((FINAL_DIFF_ID.into(), last_diff_id.into()));
        for key in [BOOTABLE, LINUX, INPUT_HASH] {
            labels.extend(metadata.get(key).map(|value| (key.into(), text(value))));
        }
    }
    for key in &options.copied_metadata {
        let value = copied(system, key)?.with_context(|| {
            Advised::new(
                Remedy::CopyIfPresent,
                format!("the commit has no metadata '{key}' to copy; leave it out"),
            )
        })?;
        labels.push((key.clone(), value));
    }
    for key in &options.optional_metadata {
        labels.extend(copied(system, key)?.map(|value| (key.clone(), value)));
    }
    Ok(labels)
}

/// Repeats the version of a bootable image as an annotation of its manifest, where it has none:
/// bootc's OSTree backend reads the label, its composefs backend the annotation.
pub fn annotate_version(config: &BaseConfig, annotations: &mut BTreeMap<String, String>) {
    if let Some(version) = config
        .label(IMAGE_VERSION)
        .filter(|_| config.has_label(BOOTC))
    {
        let annotation = annotations.entry(IMAGE_VERSION.into());
        annotation.or_insert_with(|| version.to_owned());
    }
}

/// Whether there is a kernel with all that it needs in one file, where bootc looks for it
/// (bootc-image-layout, "UKI").
pub fn has_unified_kernel(tree: &Tree) -> bool {
    let below = tree.locate(UNIFIED_KERNELS).into_iter();
    let mut files = below.flat_map(|id| tree.children(id));
    files.any(|id| tree.name(*id).ends_with(".efi"))
}

fn os_release(system: &System) -> Result<Vec<u8>> {
    let files = TreeFiles {
        tree: &system.tree,
        contents: system.contents.as_ref(),
    };
    Ok(files.read("/etc/os-release")?.unwrap_or_default())
}

/// What os-release(5) says of the system's version; the date of the image where it says nothing, as
/// Debian's testing and unstable do.
pub fn version(release: &[u8], timestamp: u64) -> String {
    let release = String::from_utf8_lossy(release);
    let date = || {
        let seconds = i64::try_from(timestamp).unwrap_or_default();
        let time = jiff::Timestamp::from_second(seconds).unwrap_or_default();
        time.strftime("%Y%m%d").to_string()
    };
    field(&release, "IMAGE_VERSION")
        .or_else(|| field(&release, "VERSION_ID"))
        .unwrap_or_else(date)
}

fn copied(system: &System, key: &str) -> Result<Option<String>> {
    if let Some(kind) = system.other_metadata.get(key) {
        bail!("the commit's metadata '{key}' has the type '{kind}'; only text can become a label");
    }
    Ok(system.info.metadata.get(key).map(text))
}

fn text(value: &MetadataValue) -> String {
    match value {
        MetadataValue::Bool(b) => b.to_string(),
        MetadataValue::String(s) => s.clone(),
    }
}
