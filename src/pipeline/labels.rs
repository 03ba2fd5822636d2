//! Labels that an image has because of what it is.

use crate::ostree::{Commit, CommitInfo, MetadataValue};
use crate::pipeline::Format;

/// The commit that an encapsulated image carries.
pub const COMMIT: &str = "ostree.commit";
/// The diff id of the last layer that belongs to the commit.
pub const FINAL_DIFF_ID: &str = "ostree.final-diffid";
/// Says that an image can be booted by bootc.
const BOOTC: &str = "containers.bootc";

/// The labels of an image of `commit`. Plain images have none that speak of OSTree: readers would
/// look for a commit in them.
pub fn of_image(
    format: Format,
    commit: &Commit,
    info: &CommitInfo,
    last_diff_id: &str,
) -> Vec<(String, String)> {
    let mut labels = Vec::new();
    if info.metadata.contains_key("ostree.bootable") {
        labels.push((BOOTC.into(), "1".into()));
    }
    if matches!(format, Format::Ostree(_)) {
        labels.push((COMMIT.into(), commit.checksum.to_string()));
        labels.push((FINAL_DIFF_ID.into(), last_diff_id.into()));
        for (key, value) in &info.metadata {
            let text = match value {
                MetadataValue::Bool(b) => b.to_string(),
                MetadataValue::String(s) => s.clone(),
            };
            labels.push((key.clone(), text));
        }
    }
    labels
}
