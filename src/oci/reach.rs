//! Reachability in a layout: which blobs an index refers to, directly or not, and which become
//! garbage when it is replaced.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;

use super::RegularFile;
use super::read::JSON_LIMIT;
use super::stage::BLOBS;

/// A blob that nobody names, and of which nobody knows where it is from, goes after this time:
/// another tool may be about to name it.
pub(super) const UNKNOWN_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// Manifests of attached artifacts are not larger.
const ARTIFACT_LIMIT: u64 = 1024 * 1024;

/// The names of the blobs that an index reaches: through manifests, nested indexes and what they
/// are attached to (image-spec, manifest.md, "subject").
///
/// # Errors
/// When a manifest cannot be read or is none, so that it cannot be told. One that is missing
/// reaches nothing.
pub(super) fn reachable(layout: &Utf8Path, index: &Value) -> Result<HashSet<String>> {
    let mut reached = HashSet::new();
    follow(layout, index, &mut reached)?;
    Ok(reached)
}

fn follow(layout: &Utf8Path, document: &Value, reached: &mut HashSet<String>) -> Result<()> {
    let mut followed = HashSet::new();
    let mut pending = Vec::new();
    note(document, reached, &mut pending);
    while let Some(name) = pending.pop() {
        if !followed.insert(name.clone()) {
            continue;
        }
        if let Some(document) = read_document(layout, &name)? {
            note(&document, reached, &mut pending);
        }
    }
    Ok(())
}

/// Everything that a document names; what of it names more in turn is `pending`.
fn note(document: &Value, reached: &mut HashSet<String>, pending: &mut Vec<String>) {
    let list = |field: &str| document[field].as_array().into_iter().flatten();
    for descriptor in list("manifests").chain([&document["subject"]]) {
        pending.extend(name_of(descriptor));
        reached.extend(name_of(descriptor));
    }
    let content = list("layers").chain(list("blobs"));
    reached.extend(content.chain([&document["config"]]).filter_map(name_of));
}

/// The name of the file that a descriptor means.
fn name_of(descriptor: &Value) -> Option<String> {
    let name = descriptor["digest"].as_str()?.strip_prefix("sha256:")?;
    is_blob_name(name).then(|| name.to_owned())
}

fn is_blob_name(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

/// None when it is not there.
fn read_document(layout: &Utf8Path, name: &str) -> Result<Option<Value>> {
    let path = layout.join(BLOBS).join(name);
    let file = match RegularFile::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("opening the manifest {path}")),
    };
    let bytes = file.read_all(JSON_LIMIT);
    let bytes = bytes.with_context(|| format!("reading the manifest {path}"))?;
    let document = serde_json::from_slice(&bytes);
    document
        .map(Some)
        .with_context(|| format!("the manifest {path} is damaged"))
}

/// The manifest that a descriptor of an index names, where it is there and is one.
pub(super) fn manifest_of(layout: &Utf8Path, descriptor: &Value) -> Option<Value> {
    read_document(layout, &name_of(descriptor)?).ok().flatten()
}

/// Removes the blobs that `index` does not reach, of those that are `known` to be ours, or old
/// enough. What is attached to a blob that stays is kept too.
///
/// # Errors
/// When it cannot be told what is reached, or a blob cannot be removed.
pub(super) fn remove_unreachable(
    layout: &Utf8Path,
    index: &Value,
    known: &HashSet<String>,
    age: Duration,
) -> Result<()> {
    let mut reached = reachable(layout, index)?;
    let blobs = layout.join(BLOBS);
    let mut orphans = Vec::new();
    for blob in fs::read_dir(&blobs).with_context(|| format!("reading {blobs}"))? {
        let blob = blob.with_context(|| format!("reading {blobs}"))?;
        let Ok(name) = blob.file_name().into_string() else {
            continue;
        };
        if is_blob_name(&name) && !reached.contains(&name) {
            orphans.push(name);
        }
    }
    for name in &orphans {
        keep_attached(layout, name, &mut reached)?;
    }
    orphans.retain(|name| !reached.contains(name));
    for name in orphans {
        let path = blobs.join(&name);
        if known.contains(&name) || is_older(&path, age) {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(e).with_context(|| format!("removing {path}"));
                }
                _ => tracing::debug!("removed {path}, which no image has any more"),
            }
        }
    }
    Ok(())
}

/// A small document that says to be attached to what stays, stays.
fn keep_attached(layout: &Utf8Path, name: &str, reached: &mut HashSet<String>) -> Result<()> {
    let path = layout.join(BLOBS).join(name);
    let Ok(mut file) = RegularFile::open(&path) else {
        return Ok(());
    };
    let mut first = [0];
    if file.len() > ARTIFACT_LIMIT || file.read(&mut first).ok() != Some(1) || first != *b"{" {
        return Ok(());
    }
    let Ok(Some(document)) = read_document(layout, name) else {
        return Ok(());
    };
    if name_of(&document["subject"]).is_some_and(|subject| reached.contains(&subject)) {
        reached.insert(name.to_owned());
        follow(layout, &document, reached)?;
    }
    Ok(())
}

/// By its content and by its place.
fn is_older(path: &Utf8PathBuf, age: Duration) -> bool {
    let Ok(found) = fs::symlink_metadata(path) else {
        return false;
    };
    let changed = u64::try_from(found.ctime()).unwrap_or(0);
    let placed = SystemTime::UNIX_EPOCH + Duration::from_secs(changed);
    let newest = found.modified().map_or(placed, |time| time.max(placed));
    newest.elapsed().is_ok_and(|elapsed| elapsed > age)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::checksum::Checksum;

    struct Blobs(tempfile::TempDir);

    impl Blobs {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join(BLOBS)).unwrap();
            Self(dir)
        }

        fn path(&self) -> &Utf8Path {
            Utf8Path::from_path(self.0.path()).unwrap()
        }

        fn add(&self, content: &str) -> Value {
            let digest = Checksum::of(content.as_bytes());
            fs::write(self.path().join(BLOBS).join(digest.to_string()), content).unwrap();
            json!({"digest": digest.to_digest(), "size": content.len()})
        }

        fn image(&self, name: &str) -> Value {
            let (config, layer) = (self.add(&format!("config {name}")), self.add(name));
            self.add(&json!({"config": config, "layers": [layer]}).to_string())
        }

        fn count(&self) -> usize {
            fs::read_dir(self.path().join(BLOBS)).unwrap().count()
        }

        fn remove(&self, index: &Value, known: &[&Value], age: Duration) -> Result<()> {
            let known = known.iter().filter_map(|d| name_of(d)).collect();
            remove_unreachable(self.path(), index, &known, age)
        }
    }

    #[test]
    fn nested_indexes_signatures_and_artifacts_keep_what_they_name() {
        let blobs = Blobs::new();
        let (one, two, three) = (blobs.image("1"), blobs.image("2"), blobs.image("3"));
        let nested = blobs.add(&json!({"manifests": [two]}).to_string());
        let about = blobs.add("a list of parts");
        let artifact = json!({"subject": three, "blobs": [about]}).to_string();
        let artifact = blobs.add(&artifact);
        let index = json!({"manifests": [one, nested, artifact]});
        let whole = blobs.count();
        let gone = blobs.image("4");
        let unnamed = json!({"subject": one, "layers": [blobs.add("attached")]}).to_string();
        blobs.add(&unnamed);
        blobs.remove(&index, &[], UNKNOWN_AFTER).unwrap();
        assert_eq!(blobs.count(), whole + 2 + 3, "they are new");
        blobs.remove(&index, &[&gone], UNKNOWN_AFTER).unwrap();
        assert_eq!(blobs.count(), whole + 2 + 2);
    }

    #[test]
    fn what_is_old_goes_and_what_cannot_be_told_stays() {
        let blobs = Blobs::new();
        let (one, _) = (blobs.image("1"), blobs.image("2"));
        let missing = json!({"digest": Checksum::of(b"missing").to_digest()});
        let index = json!({"manifests": [one, missing]});
        std::thread::sleep(Duration::from_millis(1100));
        let damaged = blobs.add("{");
        let of_damaged = json!({"manifests": [one, damaged]});
        assert!(blobs.remove(&of_damaged, &[], Duration::ZERO).is_err());
        assert_eq!(blobs.count(), 7);
        blobs.remove(&index, &[], Duration::from_secs(1)).unwrap();
        assert_eq!(blobs.count(), 3 + 1);
    }
}
