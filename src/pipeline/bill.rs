//! What a bill of materials says of an image: its packages, the layers that each is in, and the
//! licences that its copyright file names.
//!
//! Copyright files are read where they are machine-readable (the format of
//! `https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/`): there a line `License:`
//! has a short name, or several with `and` and `or` between them. What another file says in prose
//! is not guessed at.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::contents::read_files;
use super::inspect::{InspectedImage, InspectedPackage};
use super::os_release::field;
use crate::registry::{Access, Reference};

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

impl Bill {
    /// Makes the bill of `image`, which `reference` names.
    ///
    /// # Errors
    /// When the image cannot be read again.
    pub fn of(image: &InspectedImage, reference: &Reference, access: &Access) -> Result<Self> {
        let packages = &image.summary.packages;
        let copyright = |package: &InspectedPackage| {
            image.followed(&format!("usr/share/doc/{}/copyright", package.name))
        };
        let mut wanted: BTreeSet<String> = packages.iter().map(copyright).collect();
        wanted.insert(RELEASE.to_owned());
        let files = read_files(reference, access, image, &wanted)?;
        let release = files.get(RELEASE).map(|text| String::from_utf8_lossy(text));
        let release = release.unwrap_or_default();
        let layers = layers_by_package(image);
        let digests = &image.summary.layers;
        let billed = packages.iter().map(|package| BilledPackage {
            package: package.clone(),
            layers: layers
                .get(package.name.as_str())
                .into_iter()
                .flatten()
                .filter_map(|at| Some(digests.get(*at)?.digest.clone()))
                .collect(),
            licences: files
                .get(&copyright(package))
                .map(|text| licences(&String::from_utf8_lossy(text)))
                .unwrap_or_default(),
        });
        Ok(Self {
            digest: image.summary.digest.clone(),
            created: image.summary.created.clone(),
            system: field(&release, "ID").unwrap_or_else(|| "debian".to_owned()),
            release: field(&release, "VERSION_ID"),
            packages: billed.collect(),
        })
    }
}

fn layers_by_package(image: &InspectedImage) -> BTreeMap<&str, BTreeSet<usize>> {
    let mut layers: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for (path, file) in &image.files {
        let owner = image.owners.owner(path).and_then(|owner| owner.package);
        if let Some(package) = owner {
            layers.entry(package).or_default().insert(file.layer);
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
