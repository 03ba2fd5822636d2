//! Bills of materials of images as they are built: what `inspect` tells of them later, and in a
//! registry attached to them.

use std::fs;
use std::path::Path;

use crate::common::*;
use serde_json::{Value, json};

const COPYRIGHT: &str = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n\
     Files: *\nLicense: GPL-2+\n";
/// The media types of the two formats.
const SPDX: &str = "application/spdx+json";
const CYCLONEDX: &str = "application/vnd.cyclonedx+json";

/// Three packages; one is in several layers, because it has a file of another's size.
fn system(dir: &Path, name: &str, version: &str) -> Rootfs {
    let rootfs = three_packages(dir, name, version, "note");
    rootfs.file("usr/lib/os-release", "ID=debian\nVERSION_ID=\"13\"\n");
    rootfs.file("usr/share/doc/a/copyright", COPYRIGHT);
    rootfs.file("usr/share/doc/c/copyright", "License: none of these\n");
    rootfs.settle();
    rootfs
}

/// Whether the file `bill` has what `inspect` says of the image.
fn is_what_inspect_says(image: &str, format: &str, bill: &Path) {
    let later = bill.with_extension("later");
    run(&[
        "inspect",
        image,
        PLAIN,
        "--sbom",
        format,
        later.to_str().unwrap(),
    ]);
    let (now, later) = (fs::read(bill).unwrap(), fs::read(&later).unwrap());
    let (now, later) = (
        String::from_utf8_lossy(&now),
        String::from_utf8_lossy(&later),
    );
    assert_eq!(now, later, "{image}");
}

#[test]
fn a_bill_is_the_one_that_inspect_makes() {
    let dir = scratch();
    let old = system(dir.path(), "old", "1");
    let new = system(dir.path(), "new", "2");
    let bill = dir.path().join("bill.json");
    let file = bill.to_str().unwrap();
    for format in ["ostree", "plain"] {
        let base = layout_in(dir.path(), &format!("{format}-base"));
        for sbom in ["spdx", "cyclonedx"] {
            let options = ["--format", format, "--sbom", sbom, file];
            for layers in ["1", "3", "64"] {
                let image = layout_in(dir.path(), &format!("{format}-{layers}"));
                build_to(
                    &old,
                    &image,
                    &[&options[..], &["--max-layers", layers]].concat(),
                );
                is_what_inspect_says(&image, sbom, &bill);
            }
            build_to(&old, &base, &["--format", format, "--max-layers", "3"]);
            let above = layout_in(dir.path(), &format!("{format}-above"));
            let built = build_to(&new, &above, &[&options[..], &["--base", &base]].concat());
            let layers = built["layers"].as_array().unwrap();
            let kept = layers.iter().filter(|layer| layer["base"] == true);
            let kept: Vec<&str> = kept
                .map(|layer| layer["digest"].as_str().unwrap())
                .collect();
            let text = fs::read_to_string(&bill).unwrap();
            assert!(kept.iter().any(|digest| text.contains(digest)), "{text}");
            is_what_inspect_says(&above, sbom, &bill);
        }
    }
}

#[test]
fn a_bill_of_other_commands() {
    let dir = scratch();
    let rootfs = system(dir.path(), "rootfs", "1");
    let bill = dir.path().join("bill.json");
    let sbom = ["--sbom", "spdx", bill.to_str().unwrap()];
    let image = layout_in(dir.path(), "chunked");
    let chunked = [
        "compose",
        "build-chunked-oci",
        "--bootc",
        "-q",
        "--rootfs",
        rootfs.str(),
    ];
    run(&[&chunked[..], &["--output", &image], &sbom[..]].concat());
    is_what_inspect_says(&format!("{image}:latest"), "spdx", &bill);
    if has("ostree") && is_root() {
        let repo = repository(dir.path(), "repo", "archive");
        run(&[
            "commit",
            "-q",
            "--repo",
            &repo,
            "-b",
            "os",
            "--rootfs",
            rootfs.str(),
        ]);
        let image = layout_in(dir.path(), "encapsulated");
        run(&[
            &["encapsulate", "-q", "--repo", &repo, "os", &image],
            &sbom[..],
        ]
        .concat());
        is_what_inspect_says(&image, "spdx", &bill);
    }
}

#[test]
fn what_cannot_be_written_is_refused_before_the_rootfs_is_read() {
    let build = [
        "build",
        "--rootfs",
        "/none",
        "-o",
        "oci:/none/out",
        "--sbom",
    ];
    let error = fail(2, &[&build[..], &["xml", "file"]].concat());
    assert!(error.contains("spdx and cyclonedx"), "{error}");
    let error = fail(2, &[&build[..], &["spdx", "/none/file"]].concat());
    assert!(error.contains("/none/file"), "{error}");
}

/// The list of what is attached to the image with that digest.
fn referrers(registry: &Registry, digest: &str) -> Vec<Value> {
    let tag = registry.name(&format!("os:{}", digest.replace(':', "-")));
    let raw: Value = serde_json::from_str(&skopeo(&["inspect", "--raw", PLAIN, &tag])).unwrap();
    assert_eq!(raw["mediaType"], "application/vnd.oci.image.index.v1+json");
    raw["manifests"].as_array().unwrap().clone()
}

/// Whether this skopeo knows the type of an artifact in an index.
fn knows_artifact_types() -> bool {
    let version = skopeo(&["--version"]);
    let version = version.rsplit(' ').next().unwrap();
    let mut numbers = version
        .trim()
        .split(['.', '-'])
        .map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap(), numbers.next().unwrap()) >= (1, 14)
}

#[test]
fn a_registry_has_the_bill_attached_to_the_image() {
    if !has_registry() {
        return;
    }
    let dir = scratch();
    let registry = Registry::start(dir.path());
    let rootfs = system(dir.path(), "rootfs", "1");
    let image = registry.name("os:1");
    let bill = dir.path().join("bill.json");
    let build =
        |format: &str| build_to(&rootfs, &image, &["--sbom", format, bill.to_str().unwrap()]);
    let digest = build("spdx")["digest"].as_str().unwrap().to_owned();
    is_what_inspect_says(&image, "spdx", &bill);
    let listed = referrers(&registry, &digest);
    assert_eq!(listed.len(), 1, "{listed:?}");
    let manifest = fs::read(registry.blob(listed[0]["digest"].as_str().unwrap())).unwrap();
    assert_eq!(listed[0]["size"], manifest.len());
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["artifactType"], SPDX);
    let subject = fs::read(registry.blob(&digest)).unwrap();
    let subject_type = "application/vnd.oci.image.manifest.v1+json";
    let wanted = json!({"mediaType": subject_type, "digest": digest, "size": subject.len()});
    assert_eq!(manifest["subject"], wanted);
    assert_eq!(
        manifest["config"]["mediaType"],
        "application/vnd.oci.empty.v1+json"
    );
    let empty = registry.blob(manifest["config"]["digest"].as_str().unwrap());
    assert_eq!(fs::read(empty).unwrap(), b"{}");
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(
        (layers.len(), &layers[0]["mediaType"]),
        (1, &Value::from(SPDX))
    );
    let content = registry.blob(layers[0]["digest"].as_str().unwrap());
    assert_eq!(fs::read(content).unwrap(), fs::read(&bill).unwrap());

    // The same again is attached once, and another one beside it.
    build("spdx");
    assert_eq!(referrers(&registry, &digest), listed);
    build("cyclonedx");
    let both = referrers(&registry, &digest);
    assert_eq!(both[..1], listed);
    let second = fs::read(registry.blob(both[1]["digest"].as_str().unwrap())).unwrap();
    let second: Value = serde_json::from_slice(&second).unwrap();
    assert_eq!(second["artifactType"], CYCLONEDX);
    if knows_artifact_types() {
        assert_eq!(both[0]["artifactType"], SPDX);
        assert_eq!(both[1]["artifactType"], CYCLONEDX);
    }
    // What is attached is no image of ours, and does not get in the way of one.
    assert_eq!(
        run_json(&["inspect", &image, PLAIN])["digest"],
        digest.as_str()
    );
}

#[test]
fn a_registry_that_does_not_take_artifacts() {
    if !has_registry() {
        return;
    }
    let dir = scratch();
    let registry = Registry::start(dir.path());
    let proxy = Faulty::before(&registry.host);
    let rootfs = system(dir.path(), "rootfs", "1");
    let (image, bill) = (proxy.name("os:1"), dir.path().join("bill.json"));
    let (file, digests) = (bill.to_str().unwrap(), dir.path().join("digest"));
    let build = || {
        let arguments = [
            "build",
            "--rootfs",
            rootfs.str(),
            "-o",
            &image,
            PLAIN,
            "--sbom",
            "spdx",
        ];
        let more = [file, "--digestfile", digests.to_str().unwrap()];
        helper()
            .args([&arguments[..], &more].concat())
            .output()
            .unwrap()
    };
    let refuse = |status| {
        proxy.set(vec![rule(
            "PUT",
            "/manifests/sha256",
            9,
            Fault::Status(status),
        )]);
        fs::remove_file(&bill).ok();
        let output = build();
        assert!(bill.exists() && digests.exists());
        assert!(run_json(&["inspect", &image, PLAIN])["digest"].is_string());
        (output.status.code(), stderr(&output))
    };
    let (status, said) = refuse(400);
    assert_eq!(status, Some(0), "{said}");
    assert!(
        said.contains("bill of materials") && said.contains(file),
        "{said}"
    );
    let (status, said) = refuse(503);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("the image is in place, but"), "{said}");
    // What else is under the tag of the list stays.
    proxy.set(Vec::new());
    let digest = fs::read_to_string(&digests).unwrap();
    let tag = registry.name(&format!("os:{}", digest.replace(':', "-")));
    let plain = ["copy", "--src-tls-verify=false", "--dest-tls-verify=false"];
    skopeo(&[&plain[..], &[&registry.name("os:1"), &tag]].concat());
    let output = build();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("is no list of what is attached"), "{said}");
}
