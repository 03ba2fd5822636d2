//! A build that follows an earlier image: its plan stays, what has not changed is taken over, and
//! the bytes are those that a build without it makes of the same plan.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::common::*;
use serde_json::{Value, json};

/// Twelve packages of different sizes; `changed` has other content.
fn system(dir: &Path, changed: Option<usize>, packages: usize) -> Rootfs {
    let rootfs = Rootfs::new(dir.join(format!("rootfs-{changed:?}-{packages}")));
    let mut owned: Vec<(String, String)> = Vec::new();
    for at in 0..packages {
        let path = format!("usr/lib/p{at}/data");
        let byte = if Some(at) == changed {
            b'x'
        } else {
            b'a' + at as u8
        };
        rootfs.file(&path, vec![byte; 40_000 * (at + 1)]);
        owned.push((format!("p{at}"), path));
    }
    let lists: Vec<[&str; 1]> = owned.iter().map(|(_, path)| [path.as_str()]).collect();
    let packages: Vec<(&str, &str, &str, &[&str])> = owned
        .iter()
        .zip(&lists)
        .map(|((name, _), list)| (name.as_str(), name.as_str(), "1-1", &list[..]))
        .collect();
    rootfs.packages(&packages).settle();
    rootfs
}

fn build(rootfs: &Rootfs, out: &Path, more: &[&str]) -> Value {
    let layout = format!("oci:{}", out.display());
    let mut arguments = vec!["--timestamp", "1700000000"];
    if !more.contains(&"--max-layers") {
        arguments.extend(["--max-layers", "8"]);
    }
    build_json(rootfs, &layout, &[&arguments[..], more].concat())
}

fn components(report: &Value) -> Vec<Value> {
    let layers = report["layers"].as_array().unwrap().iter();
    layers.map(|layer| layer["components"].clone()).collect()
}

fn taken(report: &Value) -> Vec<bool> {
    let layers = report["layers"].as_array().unwrap().iter();
    layers
        .map(|layer| layer["taken_over"].as_bool().unwrap())
        .collect()
}

#[test]
fn what_has_not_changed_is_taken_over_and_the_bytes_are_the_same() {
    let dir = scratch();
    let (old, new) = (
        system(dir.path(), None, 12),
        system(dir.path(), Some(3), 12),
    );
    for format in [
        &["--format", "ostree"][..],
        &["--format", "plain"],
        &["--format-version", "1"],
    ] {
        for compression in ["none", "gzip", "zstd"] {
            let at = |name: &str| dir.path().join(name);
            let options = [format, &["--compression", compression]].concat();
            let plan = at("plan.json");
            let write = [&options[..], &["--write-plan", plan.to_str().unwrap()]].concat();
            let first = build(&old, &at("first"), &write);
            assert!(!taken(&first).contains(&true));
            let previous = format!("oci:{}", at("first").display());
            let second = build(
                &new,
                &at("second"),
                &[&options[..], &["--previous", &previous]].concat(),
            );
            assert_eq!(components(&second), components(&first));
            let written = taken(&second).iter().filter(|taken| !**taken).count();
            // The layer of the package that changed, and with a commit that one's.
            assert_eq!(
                written,
                if format[1] == "plain" { 1 } else { 2 },
                "{format:?} {compression}: {second}"
            );
            let alone = build(
                &new,
                &at("alone"),
                &[&options[..], &["--plan", plan.to_str().unwrap()]].concat(),
            );
            assert!(!taken(&alone).contains(&true));
            assert_eq!(
                alone["digest"], second["digest"],
                "{format:?} {compression}"
            );
            read_image(&at("second"));
            let layers = second["layers"].as_array().unwrap();
            for (layer, taken) in layers.iter().zip(taken(&second)) {
                let blob = layer["digest"]
                    .as_str()
                    .unwrap()
                    .replace("sha256:", "blobs/sha256/");
                let inode = |name: &str| {
                    fs::metadata(at(name).join(&blob))
                        .ok()
                        .map(|found| found.ino())
                };
                assert_eq!(inode("first") == inode("second"), taken, "{blob}");
            }
            for name in ["first", "second", "alone"] {
                fs::remove_dir_all(at(name)).unwrap();
            }
        }
    }
}

#[test]
fn a_layer_is_not_taken_over_when_anything_about_it_is_different() {
    let dir = scratch();
    let rootfs = system(dir.path(), None, 6);
    let first = dir.path().join("first");
    let previous = format!("oci:{}", first.display());
    build(&rootfs, &first, &["--compression", "zstd"]);
    let second = dir.path().join("second");
    for options in [
        &["--compression", "gzip"][..],
        &["--compression", "zstd", "--compression-level", "7"],
        &["--compression", "zstd", "--format", "plain"],
        &["--compression", "zstd", "--format-version", "1"],
    ] {
        let report = build(
            &rootfs,
            &second,
            &[options, &["--previous", &previous]].concat(),
        );
        // The commit's own layer is the same in both versions of the format.
        let content = &taken(&report)[1..];
        assert!(!content.contains(&true), "{options:?}: {report}");
    }
    let report = build(
        &rootfs,
        &second,
        &["--compression", "zstd", "--previous", &previous],
    );
    assert!(!taken(&report).contains(&false));
    rootfs.mode("usr/lib/p2/data", 0o600);
    let report = build(
        &rootfs,
        &second,
        &["--compression", "zstd", "--previous", &previous],
    );
    assert!(taken(&report).contains(&false));
}

#[test]
fn the_previous_image_may_be_what_is_replaced() {
    let dir = scratch();
    let (old, new) = (system(dir.path(), None, 6), system(dir.path(), Some(3), 6));
    let out = dir.path().join("out");
    let previous = format!("oci:{}", out.display());
    build(&old, &out, &[]);
    let report = build(&new, &out, &["--previous", &previous]);
    assert!(taken(&report).contains(&true) && taken(&report).contains(&false));
    // Every blob is there, and those of the old image are not.
    let image = read_image(&out);
    let blobs = image.manifest["layers"].as_array().unwrap().len() + 2;
    assert_eq!(names(&out.join("blobs/sha256")).len(), blobs);
    let tagged = format!("{}:new", previous);
    let flags = [
        "--previous",
        &previous,
        "--max-layers",
        "8",
        "--timestamp",
        "1700000000",
    ];
    let again = build_json(&new, &tagged, &flags);
    assert_eq!(again["digest"], report["digest"]);
}

#[test]
fn a_damaged_or_exchanged_layer_is_written_anew() {
    let dir = scratch();
    let rootfs = system(dir.path(), None, 6);
    let first = dir.path().join("first");
    let previous = format!("oci:{}", first.display());
    let report = build(&rootfs, &first, &[]);
    let digest = |at: usize| {
        report["layers"][at]["digest"]
            .as_str()
            .unwrap()
            .replace("sha256:", "")
    };
    let blob = |digest: String| first.join("blobs/sha256").join(digest);
    // One is cut short, one is gone.
    let content = fs::read(blob(digest(1))).unwrap();
    fs::write(blob(digest(1)), &content[..content.len() - 512]).unwrap();
    fs::remove_file(blob(digest(2))).unwrap();
    let second = dir.path().join("second");
    let again = build(&rootfs, &second, &["--previous", &previous]);
    assert_eq!(again["digest"], report["digest"]);
    assert_eq!(&taken(&again)[..3], [true, false, false]);
    read_image(&second);
}

/// Writes `old` anew in a layout, with other text in the place of some; gives its new digest.
fn forge(layout: &Path, old: &str, changes: &[(&str, &str)]) -> String {
    let blobs = layout.join("blobs/sha256");
    let mut text = fs::read_to_string(blobs.join(old)).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    let digest = sha256(text.as_bytes());
    fs::write(blobs.join(&digest), text).unwrap();
    digest
}

/// A consistent image with honest layer keys and other content behind one of them: that went into
/// the new image.
#[test]
fn an_image_that_lies_about_a_layer() {
    let dir = scratch();
    let rootfs = system(dir.path(), None, 6);
    let first = dir.path().join("first");
    let previous = format!("oci:{}", first.display());
    for also_the_diff_id in [true, false] {
        let honest = build(&rootfs, &first, &[]);
        let digest = |of: &Value| of.as_str().unwrap().replace("sha256:", "");
        let layer = digest(&honest["layers"][2]["digest"]);
        let blobs = first.join("blobs/sha256");
        let mut content = fs::read(blobs.join(&layer)).unwrap();
        let middle = content.len() / 2;
        content[middle..middle + 6].copy_from_slice(b"FORGED");
        let other = sha256(&content);
        fs::write(blobs.join(&other), &content).unwrap();
        fs::remove_file(blobs.join(&layer)).unwrap();
        let (config, manifest) = (digest(&honest["image_id"]), digest(&honest["digest"]));
        let size = |name: &str| fs::metadata(blobs.join(name)).unwrap().len();
        // The diff id is in the config twice: in the plan, too.
        let forged_config = match also_the_diff_id {
            true => forge(&first, &config, &[(&layer, &other)]),
            false => config.clone(),
        };
        let forged = forge(
            &first,
            &manifest,
            &[(&layer, &other), (&config, &forged_config)],
        );
        assert_eq!(size(&config), size(&forged_config));
        let index = fs::read_to_string(first.join("index.json")).unwrap();
        fs::write(first.join("index.json"), index.replace(&manifest, &forged)).unwrap();
        let (believed, verified) = (dir.path().join("believed"), dir.path().join("verified"));
        let with_previous = ["--previous", &previous];
        let again = build(&rootfs, &believed, &with_previous);
        assert_eq!(again["layers"][2]["digest"], format!("sha256:{other}"));
        assert!(!taken(&again).contains(&false));
        let layout = format!("oci:{}", verified.display());
        let mut command = helper();
        command.args(["build", "--json", "--rootfs", rootfs.str(), "-o", &layout]);
        command.args(["--timestamp", "1700000000", "--max-layers", "8"]);
        command.args(with_previous).arg("--previous-verify");
        let done = command.output().unwrap();
        assert!(stderr(&done).contains("is made anew"), "{}", stderr(&done));
        let again: Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!(again["digest"], honest["digest"]);
        let made = taken(&again).iter().filter(|taken| !**taken).count();
        assert_eq!(made, 1);
        assert!(!names(&verified.join("blobs/sha256")).contains(&other));
        for layout in [first.clone(), believed, verified] {
            fs::remove_dir_all(layout).unwrap();
        }
    }
}

#[test]
fn the_plan_is_read_from_the_config_where_annotations_are_lost() {
    let dir = scratch();
    let rootfs = system(dir.path(), None, 12);
    let first = dir.path().join("first");
    let report = build(&rootfs, &first, &["--max-layers", "5"]);
    let mut image = read_image(&first);
    for layer in image.manifest["layers"].as_array_mut().unwrap() {
        layer.as_object_mut().unwrap().remove("annotations");
    }
    // As a tool that rewrites manifests leaves it.
    let manifest = image.manifest.to_string();
    let digest = sha256(manifest.as_bytes());
    fs::write(first.join("blobs/sha256").join(&digest), &manifest).unwrap();
    let index = json!({"schemaVersion": 2, "manifests": [{"mediaType": image.manifest["mediaType"],
        "digest": format!("sha256:{digest}"), "size": manifest.len()}]});
    fs::write(first.join("index.json"), index.to_string()).unwrap();
    let previous = format!("oci:{}", first.display());
    let again = build(
        &rootfs,
        &dir.path().join("second"),
        &["--previous", &previous],
    );
    assert_eq!(
        components(&again),
        components(&report),
        "not eight layers, but the five of before"
    );
    let label = image.config["config"]["Labels"]["apt-ostree-helper.plan"]
        .as_str()
        .unwrap();
    assert!(label.starts_with("{\"version\":1"), "{label}");
}

#[test]
fn another_image_is_no_error_and_a_damaged_plan_is_one() {
    let dir = scratch();
    let rootfs = system(dir.path(), None, 3);
    let other = dir.path().join("other");
    ImageWriter::plain(vec![Tar::default().add("a", What::File(b"x")).end()]).write(&other);
    let previous = format!("oci:{}", other.display());
    build(&rootfs, &dir.path().join("out"), &["--previous", &previous]);
    build(&rootfs, &dir.path().join("out"), &["--previous", "none"]);
    let plan = dir.path().join("plan.json");
    let plan = plan.to_str().unwrap();
    for (text, why) in [
        ("{", "not a plan"),
        (r#"{"version": 9, "layers": []}"#, "version 9"),
    ] {
        fs::write(plan, text).unwrap();
        let layout = format!("oci:{}", dir.path().join("new").display());
        let said = fail(
            1,
            &[
                "build",
                "--rootfs",
                rootfs.str(),
                "-o",
                &layout,
                "--plan",
                plan,
            ],
        );
        assert!(said.contains(plan) && said.contains(why), "{said}");
        assert!(!dir.path().join("new").exists());
    }
    let layout = format!("oci:{}", dir.path().join("new").display());
    let said = fail(
        1,
        &[
            "build",
            "--rootfs",
            rootfs.str(),
            "-o",
            &layout,
            "--previous",
            "oci:/no/such",
            "--previous-required",
        ],
    );
    assert!(said.contains("/no/such"), "{said}");
    let said = fail(
        2,
        &[
            "build",
            "--rootfs",
            rootfs.str(),
            "-o",
            &layout,
            "--write-plan",
            "/no/such/file",
        ],
    );
    assert!(said.contains("/no/such"), "{said}");
}

/// It cannot be followed, whether its layout or its config says what it is for.
#[test]
fn an_image_for_another_architecture_is_no_error_either() {
    let dir = scratch();
    let rootfs = system(dir.path(), None, 3);
    build(&rootfs, &dir.path().join("old"), &[]);
    let old = format!("oci:{}", dir.path().join("old").display());
    let new = format!("oci:{}", dir.path().join("new").display());
    let arguments = ["build", "--rootfs", rootfs.str(), "-o", &new];
    let arguments = [&arguments[..], &["--arch", "arm64", "--previous", &old]].concat();
    let done = helper().args(&arguments).output().unwrap();
    let said = stderr(&done);
    assert!(done.status.success(), "{said}");
    assert!(said.contains("no previous image is followed"), "{said}");
    assert!(said.contains("there are: linux/amd64"), "{said}");
    let said = fail(1, &[&arguments[..], &["--previous-required"]].concat());
    assert!(
        said.contains("is required") && said.contains("--arch"),
        "{said}"
    );
}
