//! The content of chosen files of an image, read in a second pass over the layers that have them.
//!
//! The first pass tells where a file is and what its object is called; most uses need no content,
//! so it is not kept.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use anyhow::{Context, Result, ensure};

use super::inspect::InspectedImage;
use crate::oci::read::{EntryKind, TarReader, clean_path};
use crate::registry::{Access, Image, Reference};

/// More than any changelog or licence has: the rest of a larger file is left out.
pub(super) const LIMIT: u64 = 8 << 20;
/// Bytes of all files together.
const TOTAL_LIMIT: usize = 256 << 20;

/// Reads the files `paths` of `image`, which `reference` names; those that the image does not have
/// are left out.
///
/// # Errors
/// When the image is no longer there, is another now, or a layer is damaged.
pub fn read_files(
    reference: &Reference,
    access: &Access,
    image: &InspectedImage,
    paths: &BTreeSet<String>,
) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let wanted: Vec<_> = paths
        .iter()
        .filter_map(|path| image.files.get_key_value(path))
        .collect();
    if wanted.is_empty() {
        return Ok(found);
    }
    let opened = Image::open(reference, access)?;
    ensure!(
        opened.manifest.digest.to_digest() == image.summary.digest,
        "the image {reference} was replaced while it was read; try again"
    );
    let layers: BTreeSet<usize> = wanted.iter().map(|(_, file)| file.layer).collect();
    let mut total = 0;
    for at in layers {
        let mut names: BTreeMap<String, Vec<&String>> = BTreeMap::new();
        for (path, _) in wanted.iter().filter(|(_, file)| file.layer == at) {
            let seen = path
                .strip_prefix("etc/")
                .map(|rest| format!("usr/etc/{rest}"));
            for name in [Some((*path).clone()), seen].into_iter().flatten() {
                names.entry(name).or_default().push(path);
            }
        }
        let read = || -> Result<Vec<(String, Vec<u8>)>> {
            let (mut contents, linked) = read_members(&opened, at, &names)?;
            // An encapsulated image has objects, and a path is a link to one: only its second
            // reading knows which.
            if !linked.is_empty() {
                contents.extend(read_members(&opened, at, &linked)?.0);
            }
            Ok(contents)
        };
        for (path, content) in read().with_context(|| format!("reading layer {at} again"))? {
            total += content.len();
            ensure!(
                total <= TOTAL_LIMIT,
                "the files to be read have more than {TOTAL_LIMIT} bytes; no image's changelogs or licences do"
            );
            found.insert(path, content);
        }
    }
    Ok(found)
}

/// Files by path, with their content.
type Contents = Vec<(String, Vec<u8>)>;

/// Reads the members of layer `at` that `names` names, for those who want them; gives their
/// contents, and of those that are links to other members the names of these.
fn read_members<'a>(
    image: &Image,
    at: usize,
    names: &BTreeMap<String, Vec<&'a String>>,
) -> Result<(Contents, BTreeMap<String, Vec<&'a String>>)> {
    let mut contents = Vec::new();
    let mut linked: BTreeMap<String, Vec<&String>> = BTreeMap::new();
    let mut layer = image.open_layer(at)?;
    let mut tar = TarReader::new(&mut layer);
    while let Some(entry) = tar.next_entry()? {
        let path = clean_path(&entry.path)?;
        let Some(meant) = names.get(path.trim_end_matches('/')) else {
            continue;
        };
        match &entry.kind {
            EntryKind::Regular => {
                let mut content = Vec::new();
                (&mut tar).take(LIMIT).read_to_end(&mut content)?;
                contents.extend(meant.iter().map(|path| ((*path).clone(), content.clone())));
            }
            EntryKind::HardLink(target) => {
                let target = clean_path(target)?;
                linked.entry(target).or_default().extend(meant);
            }
            _ => {}
        }
    }
    layer.finish()?;
    Ok((contents, linked))
}
