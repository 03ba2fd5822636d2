//! Bills of materials. `contrib/test sbom` has the formats' own programs read those of a real
//! system.

use std::fs;
use std::path::Path;

use crate::common::*;
use serde_json::Value;

const MACHINE_READABLE: &str = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n\
     Files: *\nLicense: GPL-2+ or Artistic\n\nFiles: x\nLicense: odd words\n text\n";

/// An image of three packages, of which one says in its copyright file what it is under.
fn image(dir: &Path, more: &[&str]) -> String {
    let rootfs = three_packages(dir, "rootfs", "2+really1-1", "x");
    rootfs.file("usr/lib/os-release", "ID=debian\nVERSION_ID=\"13\"\n");
    rootfs.file("usr/share/doc/a/copyright", MACHINE_READABLE);
    rootfs.file("usr/share/doc/c/copyright", "It is free.\nLicense: GPL-2\n");
    rootfs.settle();
    build_layout(dir, &rootfs, more);
    format!("oci:{}", dir.join("out").display())
}

fn bill(image: &str, format: &str, file: &Path) -> Value {
    run(&["inspect", image, "--sbom", format, file.to_str().unwrap()]);
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    let mut list = list.as_array().unwrap().iter();
    list.find(|entry| entry["name"] == name).unwrap()
}

#[test]
fn spdx_tells_packages_sources_licences_and_layers() {
    let dir = scratch();
    let image = image(dir.path(), &["--timestamp", "1700000000"]);
    let file = dir.path().join("spdx.json");
    let told = bill(&image, "spdx", &file);
    assert_eq!(told["spdxVersion"], "SPDX-2.3");
    assert_eq!(told["creationInfo"]["created"], "2023-11-14T22:13:20Z");
    let inspected = run_json(&["inspect", &image]);
    assert_eq!(told["packages"][0]["versionInfo"], inspected["digest"]);
    assert_eq!(told["packages"].as_array().unwrap().len(), 4);
    let a = named(&told["packages"], "a");
    assert_eq!(
        a["licenseDeclared"],
        "(GPL-2.0-or-later OR Artistic-1.0-Perl) AND LicenseRef-odd-words"
    );
    assert_eq!(
        named(&told["hasExtractedLicensingInfos"], "odd words")["licenseId"],
        "LicenseRef-odd-words"
    );
    let b = named(&told["packages"], "b");
    assert_eq!(b["sourceInfo"], "built from source-b 2+really1-1");
    let url = b["externalRefs"][0]["referenceLocator"].as_str().unwrap();
    assert!(
        url.starts_with("pkg:deb/debian/b@2%2Breally1-1?arch="),
        "{url}"
    );
    assert!(url.ends_with("&distro=debian-13"), "{url}");
    // What is not machine-readable is not guessed at.
    let c = named(&told["packages"], "c");
    assert_eq!(c["licenseDeclared"], "NOASSERTION");
    let layers = inspected["layers"].as_array().unwrap();
    let layer_of_c = c["comment"]
        .as_str()
        .unwrap()
        .strip_prefix("layers: ")
        .unwrap();
    let known = layers
        .iter()
        .find(|layer| layer["digest"] == layer_of_c)
        .unwrap();
    assert!(
        known["components"]
            .as_array()
            .unwrap()
            .contains(&Value::from("c"))
    );
    // The same again, to the byte.
    let before = fs::read(&file).unwrap();
    bill(&image, "spdx", &file);
    assert_eq!(fs::read(&file).unwrap(), before);
}

#[test]
fn cyclonedx_tells_the_same_of_a_plain_image_too() {
    let dir = scratch();
    let image = image(dir.path(), &["--format", "plain", "--compression", "gzip"]);
    let told = bill(&image, "cyclonedx", &dir.path().join("bom.json"));
    assert_eq!(told["specVersion"], "1.5");
    let a = named(&told["components"], "a");
    let licences = a["licenses"].as_array().unwrap();
    let names: Vec<&str> = licences
        .iter()
        .map(|licence| licence["license"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["GPL-2+ or Artistic", "odd words"]);
    let c = named(&told["components"], "c");
    assert!(
        c["purl"].as_str().unwrap().contains("/c@3%3A2-1%2Bb1?"),
        "{c}"
    );
    let properties = c["properties"].as_array().unwrap();
    let layers = properties
        .iter()
        .filter(|p| p["name"] == "apt-ostree-helper:layer");
    assert!(layers.count() >= 1);
}

#[test]
fn what_cannot_be_written_is_refused_before_the_image_is_read() {
    let error = fail(2, &["inspect", "oci:/none", "--sbom", "xml", "file"]);
    assert!(error.contains("spdx and cyclonedx"), "{error}");
    let error = fail(2, &["inspect", "oci:/none", "--sbom", "spdx"]);
    assert!(error.contains("2 values"), "{error}");
    let error = fail(2, &["inspect", "oci:/none", "--sbom", "spdx", "/none/file"]);
    assert!(error.contains("/none/file"), "{error}");
}
