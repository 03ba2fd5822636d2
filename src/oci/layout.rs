//! OCI image layouts (image-spec, image-layout.md): staged out of sight, then published in one
//! step. Until then a reader sees the old layout, or none.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;

use anyhow::{Context, Result, anyhow, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::{Value, json};

use super::stage::{BLOBS, STAGE_PREFIX, Stage, rename, write_synced};
use crate::undo::remove_tree;

/// The annotation that names an image in an index.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The file of a layout that names its images.
pub(super) const INDEX: &str = "index.json";
/// The file that makes a directory a layout.
pub(super) const LAYOUT_FILE: &str = "oci-layout";
/// The media type of an image index.
pub(super) const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// Where a layout is to be: checked before any work is done.
#[derive(Debug)]
pub struct LayoutTarget {
    path: Utf8PathBuf,
    tag: Option<String>,
    exists: bool,
}

impl LayoutTarget {
    /// A layout at `path`, which is made when it is not there.
    ///
    /// # Errors
    /// When something else than a layout, or an empty directory, is there, or the parent
    /// directory is missing.
    pub fn new(path: &Utf8Path, tag: Option<&str>) -> Result<Self> {
        let exists = match fs::symlink_metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(e) => return Err(e).with_context(|| format!("looking at the output {path}")),
            Ok(_) => true,
        };
        if exists {
            let is_dir = fs::metadata(path).is_ok_and(|m| m.is_dir());
            ensure!(
                is_dir,
                "the output {path} is there and is no directory; choose another path"
            );
            let is_layout = path.join(LAYOUT_FILE).exists() && path.join(INDEX).exists();
            ensure!(
                is_layout || is_empty(path)?,
                "the output {path} is a directory but no OCI layout (it has no {LAYOUT_FILE} file); it is left as it is: choose another path, or remove it"
            );
            if is_layout && tag.is_some() {
                read_index(path)?;
            }
        } else {
            let parent = parent_directory(path);
            ensure!(
                fs::metadata(parent).is_ok_and(|m| m.is_dir()),
                "cannot write the output {path}: there is no directory {parent}; create it first"
            );
        }
        Ok(Self {
            path: path.to_owned(),
            tag: tag.map(str::to_owned),
            exists,
        })
    }

    /// The layout's directory.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// A staging directory on the same file system, even where the layout is a mount point.
    ///
    /// # Errors
    /// As [`Stage::new_in`].
    pub fn stage(&self) -> Result<Stage> {
        let parent = if self.exists {
            &self.path
        } else {
            parent_directory(&self.path)
        };
        Stage::new_in(parent).with_context(|| format!("cannot write the output {}", self.path))
    }

    /// Makes the manifest that `descriptor` names, and all blobs of the stage, the layout (with a
    /// tag: that tag of it, next to what is there). Readers see the change when `index.json`, or
    /// the whole directory, is renamed into place.
    ///
    /// # Errors
    /// When a file cannot be written or renamed; the old layout is untouched then.
    pub fn publish(&self, stage: Stage, descriptor: Value) -> Result<()> {
        let index = match (&self.tag, self.exists && self.path.join(INDEX).exists()) {
            (Some(tag), true) => with_tagged(read_index(&self.path)?, descriptor, tag),
            (tag, _) => new_index(descriptor, tag.as_deref()),
        };
        let result = if self.exists {
            self.publish_into(stage, &index)
        } else {
            self.publish_new(stage, &index)
        };
        result.with_context(|| format!("writing the output {}", self.path))
    }

    fn publish_new(&self, stage: Stage, index: &Value) -> Result<()> {
        write_metadata(stage.path(), index)?;
        sync_dir(&stage.path().join(BLOBS))?;
        sync_dir(stage.path())?;
        let (path, undo, _lock) = stage.into_parts();
        undo.disarm_with(|| fs::rename(&path, &self.path))?;
        sync_dir(parent_directory(&self.path))
    }

    /// An existing layout keeps its directory, which may be a mount point.
    fn publish_into(&self, stage: Stage, index: &Value) -> Result<()> {
        write_metadata(stage.path(), index)?;
        let (path, undo, _lock) = stage.into_parts();
        // A signal in the middle waits: it would leave blobs that no index names.
        undo.disarm_with(|| self.move_in(&path))?;
        remove_tree(&path);
        if self.tag.is_none() {
            remove_unreferenced(&self.path, index);
        }
        Ok(())
    }

    /// Blobs first, the index last: a reader sees the old image or the new one.
    fn move_in(&self, stage: &Utf8Path) -> Result<()> {
        let blobs = self.path.join(BLOBS);
        fs::create_dir_all(&blobs).with_context(|| format!("creating {blobs}"))?;
        let mut added = Added::default();
        for blob in fs::read_dir(stage.join(BLOBS))? {
            let blob = Utf8PathBuf::try_from(blob?.path())?;
            let to = blobs.join(blob.file_name().unwrap_or_default());
            // A blob of that name has the same bytes, unless it was damaged.
            let is_new = !to.exists();
            rename(&blob, &to)?;
            if is_new {
                added.0.push(to);
            }
        }
        sync_dir(&blobs)?;
        for name in [LAYOUT_FILE, INDEX] {
            rename(&stage.join(name), &self.path.join(name))?;
        }
        added.0.clear();
        sync_dir(&self.path)
    }
}

/// Blobs moved into a layout that does not name them yet.
#[derive(Default)]
struct Added(Vec<Utf8PathBuf>);

impl Drop for Added {
    fn drop(&mut self) {
        for blob in &self.0 {
            if let Err(e) = fs::remove_file(blob) {
                tracing::warn!("removing {blob}: {e}");
            }
        }
    }
}

/// An index with one image.
pub(super) fn new_index(mut descriptor: Value, tag: Option<&str>) -> Value {
    if let Some(tag) = tag {
        descriptor["annotations"][REF_NAME] = tag.into();
    }
    json!({
        "schemaVersion": 2,
        "mediaType": INDEX_TYPE,
        "manifests": [descriptor],
    })
}

/// The files of a layout but for the blobs, by name.
pub(super) fn metadata_files(index: &Value) -> [(&'static str, String); 2] {
    let layout = json!({"imageLayoutVersion": "1.0.0"});
    [
        (LAYOUT_FILE, layout.to_string()),
        (INDEX, index.to_string()),
    ]
}

/// Whether `tag` can name an image in an index (image-spec, annotations.md, "ref.name").
///
/// # Errors
/// When it cannot.
pub fn check_tag(tag: &str) -> Result<()> {
    let parts = tag.split(|c: char| "-._:@+/".contains(c));
    let mut words =
        parts.map(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric()));
    ensure!(
        words.all(|good| good),
        "'{tag}' cannot name an image: use letters and digits, with single - . _ : @ + / between them"
    );
    Ok(())
}

fn with_tagged(mut index: Value, descriptor: Value, tag: &str) -> Value {
    let new = new_index(descriptor, Some(tag));
    let mut manifests = index["manifests"].as_array().cloned().unwrap_or_default();
    manifests.retain(|m| m["annotations"][REF_NAME] != tag);
    manifests.extend(new["manifests"].as_array().cloned().unwrap_or_default());
    index["manifests"] = manifests.into();
    index
}

fn read_index(path: &Utf8Path) -> Result<Value> {
    let file = path.join(INDEX);
    let text = fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
    let index: Value = serde_json::from_str(&text)
        .map_err(|e| anyhow!("{file} is not valid JSON ({e}); the layout is damaged: remove it"))?;
    if !index["manifests"].is_array() {
        bail!("{file} has no list of manifests; the layout is damaged: remove it");
    }
    Ok(index)
}

fn write_metadata(path: &Utf8Path, index: &Value) -> Result<()> {
    for (name, text) in metadata_files(index) {
        write_synced(&path.join(name), text.as_bytes())?;
    }
    Ok(())
}

/// Removes blobs that nothing in a layout of a single image needs any more. It is in place
/// already, so a failure only leaves garbage.
fn remove_unreferenced(path: &Utf8Path, index: &Value) {
    let mut needed = HashSet::new();
    let digest = |v: &Value| {
        v["digest"]
            .as_str()
            .map(|d| d.trim_start_matches("sha256:").to_owned())
    };
    for manifest in index["manifests"].as_array().into_iter().flatten() {
        let Some(name) = digest(manifest) else { return };
        let Ok(text) = fs::read(path.join(BLOBS).join(&name)) else {
            return;
        };
        let Ok(manifest) = serde_json::from_slice::<Value>(&text) else {
            return;
        };
        needed.insert(name);
        needed.extend(digest(&manifest["config"]));
        needed.extend(
            manifest["layers"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(digest),
        );
    }
    for blob in fs::read_dir(path.join(BLOBS))
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = blob.file_name();
        if !name.to_str().is_some_and(|name| needed.contains(name)) {
            if let Err(e) = fs::remove_file(blob.path()) {
                tracing::warn!("removing the old blob {}: {e}", blob.path().display());
            }
        }
    }
}

fn sync_dir(path: &Utf8Path) -> Result<()> {
    let synced = File::open(path).and_then(|dir| dir.sync_all());
    synced.with_context(|| format!("writing the directory {path} to the disk"))
}

/// The directory that `path` is in, `.` for a name alone.
pub fn parent_directory(path: &Utf8Path) -> &Utf8Path {
    match path.parent() {
        Some(parent) if !parent.as_str().is_empty() => parent,
        _ => Utf8Path::new("."),
    }
}

/// Whether a directory holds nothing but what a killed build may have left.
fn is_empty(path: &Utf8Path) -> Result<bool> {
    for entry in fs::read_dir(path).with_context(|| format!("reading {path}"))? {
        let name = entry
            .with_context(|| format!("reading {path}"))?
            .file_name();
        if !name.to_string_lossy().starts_with(STAGE_PREFIX) {
            return Ok(false);
        }
    }
    Ok(true)
}
