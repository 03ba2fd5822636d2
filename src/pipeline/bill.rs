//! What a bill of materials says of an image: its packages, the layers that each is in, and the
//! licences that its copyright file names.
//!
//! Copyright files are read where they are machine-readable (the format of
//! `https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/`): there a line `License:`
//! has a short name, or several with `and` and `or` between them. What another file says in prose
//! is not guessed at.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use anyhow::{Context, Result};

use super::below::Below;
use super::contents::{LIMIT, read_files};
use super::inspect::{self, InspectedImage, InspectedPackage};
use super::jobs::Job;
use super::os_release::field;
use super::system::{Packages, System};
use crate::registry::{Access, Reference};
use crate::tree::{EntryId, Kind};

/// Where the system says what it is (os-release(5)).
const RELEASE: &str = "usr/lib/os-release";
/// What a machine-readable copyright file begins with, in lower case.
const FORMAT: &str = "format:";
/// Its format's address, without the scheme, has this.
const SPECIFICATION: &str = "/packaging-manuals/copyright-format/1.0";
/// Licences of one package that are told. Those of whole vendored trees are more than anyone reads.
const MAX_LICENCES: usize = 200;

/// A bill of materials.
#[derive(Debug)]
pub struct Bill {
    /// The digest of the image.
    pub digest: String,
    /// When it was made.
    pub created: Option<String>,
    /// What kind of system it has, as `ID` in os-release(5): `debian`, `ubuntu`.
    pub system: String,
    /// Which release of it, as `VERSION_ID`, where it has a number.
    pub release: Option<String>,
    /// The packages, by name.
    pub packages: Vec<BilledPackage>,
}

/// A package in a bill.
#[derive(Debug)]
pub struct BilledPackage {
    /// What dpkg knows of it.
    pub package: InspectedPackage,
    /// The digests of the layers that have files of it, the lowest first.
    pub layers: Vec<String>,
    /// The licences that its copyright file names, in its words, sorted; none where that is not
    /// machine-readable.
    pub licences: Vec<String>,
}

/// The positions of the layers that have files of a package, by its name.
type LayersByPackage<'a> = BTreeMap<&'a str, BTreeSet<usize>>;

/// What is known of an image without looking into its files.
pub(super) struct BilledImage<'a> {
    /// The digest of its manifest.
    pub digest: String,
    /// When it was made.
    pub created: Option<String>,
    /// The digests of its layers, the lowest first.
    pub layers: Vec<String>,
    /// The layers of each package.
    pub by_package: LayersByPackage<'a>,
}

impl Bill {
    /// Makes the bill of `image`, which `reference` names.
    ///
    /// # Errors
    /// When the image cannot be read again.
    pub fn of(image: &InspectedImage, reference: &Reference, access: &Access) -> Result<Self> {
        let summary = &image.summary;
        let copyrights = summary.packages.iter().map(copyright);
        let paths = copyrights.chain([RELEASE.to_owned()]);
        let wanted: BTreeSet<String> = paths.map(|path| image.followed(&path)).collect();
        let files = read_files(reference, access, image, &wanted)?;
        let read = |path: &str| Ok(files.get(&image.followed(path)).cloned());
        let billed = BilledImage {
            digest: summary.digest.clone(),
            created: summary.created.clone(),
            layers: summary.layers.iter().map(|l| l.digest.clone()).collect(),
            by_package: layers_by_package(image),
        };
        Self::new(billed, summary.packages.clone(), &read)
    }

    /// Makes the bill of an image of `system` that is being built: the same as [`Bill::of`] makes
    /// of it later, without reading it again.
    ///
    /// # Errors
    /// When a file of the system cannot be read.
    pub(super) fn of_system(
        image: BilledImage<'_>,
        system: &System,
        packages: &Packages,
    ) -> Result<Self> {
        let read = |path: &str| {
            let tree = &system.tree;
            let found = tree.resolve(path);
            let Some(id) = found.filter(|id| tree.entry(*id).kind == Kind::Regular) else {
                return Ok(None);
            };
            let mut content = Vec::new();
            let opened = system.contents.open(tree, id)?;
            let read = opened.take(LIMIT).read_to_end(&mut content);
            read.with_context(|| format!("reading /{path}"))?;
            Ok(Some(content))
        };
        Self::new(image, inspect::packages(&packages.installed), &read)
    }

    /// `read` gives the content of a file; none where there is no such file.
    fn new(
        image: BilledImage<'_>,
        packages: Vec<InspectedPackage>,
        read: &dyn Fn(&str) -> Result<Option<Vec<u8>>>,
    ) -> Result<Self> {
        let text = |path: &str| -> Result<String> {
            let content = read(path).context("reading what a bill of materials tells")?;
            Ok(String::from_utf8_lossy(&content.unwrap_or_default()).into_owned())
        };
        let release = text(RELEASE)?;
        let billed = packages.into_iter().map(|package| {
            let layers = image.by_package.get(package.name.as_str());
            Ok(BilledPackage {
                layers: layers
                    .into_iter()
                    .flatten()
                    .filter_map(|at| image.layers.get(*at).cloned())
                    .collect(),
                licences: licences(&text(&copyright(&package))?),
                package,
            })
        });
        Ok(Self {
            packages: billed.collect::<Result<_>>()?,
            digest: image.digest,
            created: image.created,
            system: field(&release, "ID").unwrap_or_else(|| "debian".to_owned()),
            release: field(&release, "VERSION_ID"),
        })
    }
}

/// Where a package tells its licences (Debian policy, 12.5).
fn copyright(package: &InspectedPackage) -> String {
    format!("usr/share/doc/{}/copyright", package.name)
}

fn layers_by_package(image: &InspectedImage) -> LayersByPackage<'_> {
    let mut layers = LayersByPackage::new();
    for (path, file) in &image.files {
        let owner = image.owners.owner(path).and_then(|owner| owner.package);
        if let Some(package) = owner {
            layers.entry(package).or_default().insert(file.layer);
        }
    }
    layers
}

/// The layers of each package in an image that is being built of `jobs` and the layers of a base,
/// which follow the first `before` ones.
pub(super) fn layers_being_built<'a>(
    system: &System,
    packages: &'a Packages,
    jobs: &[Job<'_>],
    below: Option<&Below>,
    before: usize,
) -> LayersByPackage<'a> {
    let tree = &system.tree;
    let mut layers = LayersByPackage::new();
    let mut add = |id: EntryId, layer: usize| {
        let package = packages.ownership.package(id);
        let package = package.and_then(|at| packages.installed.get(at));
        if let Some(package) = package.filter(|_| !tree.entry(id).is_dir()) {
            layers.entry(package.name()).or_default().insert(layer);
        }
    };
    let kept = below.map_or(0, |below| below.kept.len());
    for job in jobs {
        let layer = job.at + if job.at < before { 0 } else { kept };
        for id in job.entries {
            add(*id, layer);
        }
    }
    if let Some(below) = below {
        for id in tree.ids() {
            if let Some(at) = below.overlay.layer_below(id) {
                add(id, before + at);
            }
        }
    }
    layers
}

/// The licences that a copyright file names.
fn licences(text: &str) -> Vec<String> {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default().to_ascii_lowercase();
    if !first.starts_with(FORMAT) || !first.contains(SPECIFICATION) {
        return Vec::new();
    }
    let named = lines.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_licence = name.eq_ignore_ascii_case("license");
        let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
        (is_licence && !value.is_empty()).then_some(value)
    });
    let named: BTreeSet<String> = named.collect();
    named.into_iter().take(MAX_LICENCES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_are_those_that_a_machine_can_read() {
        let text = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
            Files: *\nCopyright: x\nLicense: GPL-2+  or Artistic\n\n\
            Files: a\nlicense: Expat\n License: of the text\n\nLicense: Expat\n long text\n";
        assert_eq!(licences(text), ["Expat", "GPL-2+ or Artistic"]);
        assert!(licences("This is free.\nLicense: GPL\n").is_empty());
        assert!(licences("").is_empty());
    }
}
