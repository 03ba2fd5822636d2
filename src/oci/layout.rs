//! OCI image layouts (image-spec, image-layout.md): staged out of sight, then published in one
//! step. Until then a reader sees the old layout, or none.

use std::fs::{self, File};
use std::io;

use anyhow::{Context, Result, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::{Value, json};

use super::change::Change;
use super::lock::{LayoutLock, WAIT};
use super::reach::manifest_of;
use super::read::{Blobs, Layout, is_index as is_index_type};
use super::spec::{self, MediaType};
use super::stage::{ABANDONED_AFTER, BLOBS, Stage, is_stage_name, remove_abandoned, write_synced};
use crate::undo::Left;

/// The annotation that names an image in an index.
pub const REF_NAME: &str = oci_spec::image::ANNOTATION_REF_NAME;
/// The file of a layout that names its images.
pub(super) const INDEX: &str = "index.json";
/// The file that makes a directory a layout.
pub(super) const LAYOUT_FILE: &str = "oci-layout";
/// Its content (image-spec, image-layout.md, "oci-layout file").
pub(super) const MARKER: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// Where a layout is to be: checked before any work is done.
///
/// To write to a layout: [`LayoutTarget::new`], then blobs into a [`LayoutTarget::stage`], then
/// [`LayoutTarget::publish`]. Any number of processes may do so at once.
#[derive(Debug)]
pub struct LayoutTarget {
    path: Utf8PathBuf,
    tag: Option<String>,
    is_there: bool,
}

/// What is at the place of a layout.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    /// A directory with nothing in it but what a killed build may have left.
    Empty,
    Layout,
}

impl LayoutTarget {
    /// A layout at `path`, which is made when it is not there.
    ///
    /// # Errors
    /// When something else than a layout that can be read, or an empty directory, is there, or the
    /// parent directory is missing.
    pub fn new(path: &Utf8Path, tag: Option<&str>) -> Result<Self> {
        let found = look(path)?;
        if found == Found::Nothing {
            let parent = parent_directory(path);
            ensure!(
                is_directory(parent).with_context(|| format!("looking at {parent}"))?,
                "cannot write the output {path}: there is no directory {parent}; create it first"
            );
        }
        Ok(Self {
            path: path.to_owned(),
            tag: tag.map(str::to_owned),
            is_there: found != Found::Nothing,
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
        let beside = parent_directory(&self.path);
        let parent = if self.is_there {
            // Also what was killed before there was a layout.
            remove_abandoned(beside, ABANDONED_AFTER);
            &self.path
        } else {
            beside
        };
        let stage = Stage::new_in(parent).map(Stage::durable);
        stage.with_context(|| format!("cannot write the output {}", self.path))
    }

    /// Adds what `descriptor` names (an image or an index), and all blobs of the stage, to the
    /// layout. It takes the place of what has the same tag; without a tag, of an image (or an
    /// index) without one. Readers see the change when `index.json`, or the whole directory, is
    /// renamed into place. What no image has any more is removed.
    ///
    /// # Errors
    /// When others write to the layout for too long, or a file cannot be written or renamed; the
    /// old layout is untouched then, unless the error says that the new image is in place.
    pub fn publish(&self, stage: Stage, descriptor: Value) -> Result<()> {
        let publish = || {
            stage.sync()?;
            match look(&self.path)? {
                Found::Nothing if self.publish_new(&stage, &descriptor)? => Ok(()),
                _ => self.publish_into(&stage, &descriptor),
            }
        };
        publish().with_context(|| format!("writing the output {}", self.path))
    }

    /// Gives false when others have made a layout there meanwhile.
    fn publish_new(&self, stage: &Stage, descriptor: &Value) -> Result<bool> {
        let made = stage.layout();
        let index = new_index(descriptor.clone(), self.tag.as_deref());
        for (name, text) in metadata_files(&index) {
            write_synced(&made.join(name), text.as_bytes())?;
        }
        sync_dir(&made.join(BLOBS))?;
        sync_dir(&made)?;
        // A directory replaces another only where that is empty.
        match stage.while_held(|| (fs::rename(&made, &self.path), Left::ToUndo)) {
            Ok(()) => {}
            Err(e) if is_taken(&e) => return Ok(false),
            Err(e) => return Err(e).with_context(|| format!("renaming {made}")),
        }
        sync_dir(parent_directory(&self.path)).context(IN_PLACE)?;
        Ok(true)
    }

    /// An existing layout keeps its directory, which may be a mount point.
    fn publish_into(&self, stage: &Stage, descriptor: &Value) -> Result<()> {
        let lock = LayoutLock::take(&self.path, WAIT)?;
        let mut change = Change::new(&self.path, stage);
        // A signal waits until it is known what the next writer has to remove, if anything.
        stage.while_held(|| {
            let outcome = self.change(&mut change, &lock, descriptor);
            let is_clean = match outcome.is_ok() {
                true => change.clean(),
                false => change.undo(),
            };
            let left = match is_clean {
                true => Left::ToUndo,
                false => Left::ForOthers,
            };
            (outcome, left)
        })
    }

    /// Blobs first, the index last: a reader sees the old image or the new one.
    fn change(&self, change: &mut Change<'_>, lock: &LayoutLock, new: &Value) -> Result<()> {
        change.begin(lock)?;
        let old = read_index(&self.path)?;
        let index = self.with(old.clone(), new)?;
        change.move_blobs(&old)?;
        change.replace_index(&index)?;
        sync_dir(&self.path).context(IN_PLACE)
    }

    /// An index with one more image, or another in the place of one.
    fn with(&self, mut index: Value, new: &Value) -> Result<Value> {
        let mut manifests = match index["manifests"].take() {
            Value::Array(manifests) => manifests,
            _ => bail!(
                "{} has no list of manifests; the layout is damaged: remove it",
                self.path.join(INDEX)
            ),
        };
        match &self.tag {
            Some(tag) => manifests.retain(|m| m["annotations"][REF_NAME] != tag.as_str()),
            None => manifests.retain(|m| !is_replaced_without_a_tag(&self.path, m, new)),
        }
        let name = |m: &Value| m["annotations"][REF_NAME].as_str().map(str::to_owned);
        let names: Vec<String> = manifests.iter().filter_map(name).collect();
        if self.tag.is_none() && !names.is_empty() {
            tracing::warn!(
                "{} has images with tags too ({}): podman and skopeo read one without a tag only where it is alone; give it a tag",
                self.path,
                names.join(", ").escape_debug()
            );
        }
        let mut added = new_index(new.clone(), self.tag.as_deref());
        manifests.push(added["manifests"][0].take());
        index["manifests"] = manifests.into();
        Ok(index)
    }
}

/// What an error after the last rename says.
pub const IN_PLACE: &str = "the new image is in place, but may be lost should the power fail";

fn is_directory(path: &Utf8Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(found) => Ok(found.is_dir()),
        Err(e) if is_nothing(&e) => Ok(false),
        Err(e) => Err(e),
    }
}

fn is_nothing(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Whether a rename has found something at its place (rename(2)).
fn is_taken(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
    )
}

/// What is at `path`.
///
/// # Errors
/// When it is nothing that can become a layout, or that cannot be told.
fn look(path: &Utf8Path) -> Result<Found> {
    let looking = || format!("looking at the output {path}");
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        found => found.with_context(looking)?,
    };
    ensure!(
        is_directory(path).with_context(looking)?,
        "the output {path} is there and is not a directory; choose another path"
    );
    if !has_index(path)? {
        if is_empty(path)? {
            return Ok(Found::Empty);
        }
        // Another writer may have made it a layout between the two looks.
        ensure!(
            has_index(path)?,
            "the output {path} is a directory, but not an OCI layout (it has no {INDEX} file); it is left as it is: choose another path, or remove it"
        );
    }
    read_index(path)?;
    Ok(Found::Layout)
}

fn has_index(path: &Utf8Path) -> Result<bool> {
    let index = path.join(INDEX);
    match index.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).with_context(|| format!("looking at {index}")),
    }
}

/// The index of the layout at `path`: what cannot be read is not written to.
pub(super) fn read_index(path: &Utf8Path) -> Result<Value> {
    let read = || Layout::for_writer(path)?.index_json();
    read().with_context(|| {
        format!("the output {path} is not an OCI layout that can be written to; choose another path, or remove it")
    })
}

/// Whether a directory holds nothing but what a killed build may have left: stages, the file
/// that it has locked, directories for blobs.
fn is_empty(path: &Utf8Path) -> Result<bool> {
    for name in names(path)? {
        let is_leftover = match name.as_str() {
            LAYOUT_FILE => true,
            "blobs" => {
                let below = names(&path.join("blobs"))?;
                below.iter().all(|name| name == "sha256")
                    && (below.is_empty() || names(&path.join(BLOBS))?.is_empty())
            }
            other => is_stage_name(other),
        };
        if !is_leftover {
            return Ok(false);
        }
    }
    Ok(true)
}

fn names(directory: &Utf8Path) -> Result<Vec<String>> {
    let read = || -> io::Result<Vec<String>> {
        let entries = fs::read_dir(directory)?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    };
    read().with_context(|| format!("reading {directory}"))
}

/// Without a tag an image takes the place of an image, and an index that of an index; not that of
/// what is attached to one (a signature, say), which is not an image.
fn is_replaced_without_a_tag(layout: &Utf8Path, old: &Value, new: &Value) -> bool {
    let is_index = |d: &Value| d["mediaType"].as_str().is_some_and(is_index_type);
    if old["annotations"][REF_NAME].is_string()
        || old["artifactType"].is_string()
        || is_index(old) != is_index(new)
    {
        return false;
    }
    let Some(manifest) = manifest_of(layout, old) else {
        return true;
    };
    let config = manifest["config"]["mediaType"].as_str();
    let is_image = config.is_none_or(|kind| spec::is_either(kind, &MediaType::ImageConfig));
    manifest["subject"].is_null()
        && manifest["artifactType"].is_null()
        && (is_index(old) || is_image)
}

/// An index with one image.
pub(super) fn new_index(mut descriptor: Value, tag: Option<&str>) -> Value {
    if let Some(tag) = tag {
        descriptor["annotations"][REF_NAME] = tag.into();
    }
    json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageIndex,
        "manifests": [descriptor],
    })
}

/// The files of a layout but for the blobs, by name.
pub(super) fn metadata_files(index: &Value) -> [(&'static str, String); 2] {
    [(LAYOUT_FILE, MARKER.to_owned()), (INDEX, index.to_string())]
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

pub(super) fn sync_dir(path: &Utf8Path) -> Result<()> {
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
