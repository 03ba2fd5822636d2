//! One change of a layout that is there, under its lock: blobs moved in, the index replaced, and
//! what nobody names any more removed. A journal in the stage names the blobs that may go, so that
//! the next writer knows them when this one is killed.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::{Value, json};

use super::layout::{INDEX, LAYOUT_FILE, MARKER, parent_directory, read_index, sync_dir};
use super::lock::{LayoutLock, removing};
use super::reach::{UNKNOWN_AFTER, reachable, remove_unreachable};
use super::spec::MediaType;
use super::stage::{
    BLOBS, JOURNAL, Stage, UNNAMED, lock_abandoned, named_as_stages, rename, write_synced,
};
use crate::undo::remove_tree;

/// A change under way.
pub(super) struct Change<'a> {
    layout: &'a Utf8Path,
    stage: &'a Stage,
    /// Whether there was no layout before.
    is_first: bool,
    /// Blobs that may go once the index does not reach them.
    known: HashSet<String>,
    /// Stages of killed writers, whose blobs are known.
    abandoned: Vec<(Utf8PathBuf, File)>,
}

impl<'a> Change<'a> {
    pub(super) fn new(layout: &'a Utf8Path, stage: &'a Stage) -> Self {
        Self {
            layout,
            stage,
            is_first: false,
            known: HashSet::new(),
            abandoned: Vec::new(),
        }
    }

    /// Makes an empty directory a layout without images.
    pub(super) fn begin(&mut self, lock: &LayoutLock) -> Result<()> {
        let index = self.layout.join(INDEX);
        match index.symlink_metadata() {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.is_first = true;
                let marker = self.layout.join(LAYOUT_FILE);
                write_marker(lock.file()).with_context(|| format!("writing {marker}"))?;
            }
            Err(e) => return Err(e).with_context(|| format!("looking at {index}")),
        }
        let blobs = self.layout.join(BLOBS);
        fs::create_dir_all(&blobs).with_context(|| format!("creating {blobs}"))?;
        if self.is_first {
            let empty =
                json!({"schemaVersion": 2, "mediaType": MediaType::ImageIndex, "manifests": []});
            self.replace_index(&empty)?;
        }
        Ok(())
    }

    /// Moves the blobs of the stage to their places. `old` is the index that is about to be
    /// replaced.
    pub(super) fn move_blobs(&mut self, old: &Value) -> Result<()> {
        let from = self.stage.layout().join(BLOBS);
        let ours = blob_names(&from)?;
        self.known.extend(ours.iter().cloned());
        match reachable(self.layout, old) {
            Ok(reached) => self.known.extend(reached),
            Err(e) => tracing::debug!("no old blob is removed: {e:#}"),
        }
        self.write_journal()?;
        let to = self.layout.join(BLOBS);
        for name in ours {
            // What is there has the same bytes, unless it was damaged.
            rename(&from.join(&name), &to.join(&name))?;
        }
        sync_dir(&to)
    }

    fn write_journal(&mut self) -> Result<()> {
        let identity = identity(self.layout)?;
        for beside in [self.layout, parent_directory(self.layout)] {
            for stage in named_as_stages(beside) {
                let Some(lock) = lock_abandoned(&stage) else {
                    continue;
                };
                let journal = fs::read_to_string(stage.join(JOURNAL)).unwrap_or_default();
                let mut lines = journal.lines();
                if lines.next() == Some(&identity) {
                    self.known.extend(lines.map(str::to_owned));
                    self.abandoned.push((stage, lock));
                }
            }
        }
        let mut journal = identity;
        for name in &self.known {
            journal.push('\n');
            journal += name;
        }
        journal.push('\n');
        // It gets its name when it is whole: half a journal would be one of an unknown layout,
        // which nobody takes up, and the stage of a killed process would stay.
        let (made, path) = (
            self.stage.path().join(UNNAMED),
            self.stage.path().join(JOURNAL),
        );
        fs::write(&made, journal).with_context(|| format!("writing {made}"))?;
        fs::rename(&made, &path).with_context(|| format!("renaming {made} to {path}"))
    }

    /// Puts an index in the place of another, in one step.
    pub(super) fn replace_index(&self, index: &Value) -> Result<()> {
        let made = self.stage.path().join(INDEX);
        write_synced(&made, index.to_string().as_bytes())?;
        rename(&made, &self.layout.join(INDEX))
    }

    /// Removes what nobody names any more. Gives false when that is left to the next writer.
    pub(super) fn clean(&self) -> bool {
        let Ok(_alone) = removing(self.layout) else {
            tracing::debug!(
                "others read {}: old blobs are left to the next writer",
                self.layout
            );
            return false;
        };
        let remove = || -> Result<()> {
            let index = read_index(self.layout)?;
            remove_unreachable(self.layout, &index, &self.known, UNKNOWN_AFTER)
        };
        if let Err(e) = remove() {
            tracing::error!(
                "blobs that no image has any more stay in {}: {e:#}",
                self.layout
            );
            return false;
        }
        for (stage, _lock) in &self.abandoned {
            remove_tree(stage);
        }
        true
    }

    /// Leaves the layout, or the empty directory, as it was. Gives false when that is left to the
    /// next writer.
    pub(super) fn undo(&self) -> bool {
        let has_index = self.layout.join(INDEX).symlink_metadata().is_ok();
        let is_clean = !has_index || self.clean();
        if !self.is_first || !is_clean {
            return is_clean;
        }
        let has_images = |index: Value| index["manifests"].as_array().is_none_or(|m| !m.is_empty());
        if read_index(self.layout).is_ok_and(has_images) {
            return true;
        }
        let remove = || -> io::Result<()> {
            remove_if_there(fs::remove_file(self.layout.join(INDEX)))?;
            remove_if_there(fs::remove_dir(self.layout.join(BLOBS)))?;
            remove_if_there(fs::remove_dir(self.layout.join("blobs")))?;
            remove_if_there(fs::remove_file(self.layout.join(LAYOUT_FILE)))
        };
        if let Err(e) = remove() {
            tracing::error!("an empty layout stays in {}: {e}", self.layout);
        }
        true
    }
}

fn remove_if_there(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn write_marker(mut file: &File) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all(MARKER.as_bytes())?;
    file.sync_data()
}

fn blob_names(blobs: &Utf8Path) -> Result<Vec<String>> {
    let read = || -> io::Result<Vec<String>> {
        let entries = fs::read_dir(blobs)?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    };
    read().with_context(|| format!("reading {blobs}"))
}

/// By which a journal knows its layout, under whatever name.
fn identity(layout: &Utf8Path) -> Result<String> {
    let found = fs::metadata(layout).with_context(|| format!("looking at {layout}"))?;
    Ok(format!("{}:{}", found.dev(), found.ino()))
}
