//! How often files are read: once for a layer, and before it only where the plan or the beginning
//! of the layer needs what is in them; and the image is the same whenever that is.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::*;
use serde_json::Value;

const LARGE: &str = "usr/lib/large";

/// `twin`, `other` and `same` are of one component and one size; all else has a size of its own.
fn rootfs(dir: &Path) -> Rootfs {
    let rootfs = three_packages(dir, "rootfs", "1", "note");
    rootfs.file("usr/share/twin", vec![b'1'; 30_000]);
    rootfs.file("usr/share/other", vec![b'2'; 30_000]);
    rootfs.file("usr/share/same", vec![b'2'; 30_000]);
    // More than a thread holds.
    rootfs.file(LARGE, vec![b'l'; 5 << 20]);
    fs::hard_link(rootfs.at("opt/note"), rootfs.at("opt/again")).unwrap();
    rootfs.settle();
    rootfs
}

/// Builds, and gives the names of the files in the rootfs that were opened.
fn opened(rootfs: &Rootfs, dir: &Path, options: &[&str]) -> Vec<String> {
    let trace = dir.join("trace");
    let output = format!("oci:{}", dir.join("traced").display());
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-s", "200", "-e", "trace=openat,openat2", "-o"]);
    traced.arg(&trace);
    traced.arg(env!("CARGO_BIN_EXE_apt-ostree-helper"));
    traced.args(["build", "-q", "--rootfs", rootfs.str(), "-o", &output]);
    succeed(traced.args(options));
    let calls = fs::read_to_string(&trace).unwrap();
    let names = calls.lines().filter_map(|call| call.split('"').nth(1));
    // The program opens them below the handle of their root.
    let below = names.filter(|name| !name.starts_with('/'));
    below.map(str::to_owned).collect()
}

#[test]
fn a_build_reads_each_file_once() {
    if !has("strace") {
        return;
    }
    let dir = scratch();
    let rootfs = rootfs(dir.path());
    let count = |opened: &[String], names: [&str; 2]| {
        let is_meant = |name: &&String| names.contains(&name.as_str());
        opened.iter().filter(is_meant).count()
    };
    let plain = opened(&rootfs, dir.path(), &["--format", "plain"]);
    for name in ["usr/bin/c", "usr/share/twin", "usr/share/other", LARGE] {
        assert_eq!(count(&plain, [name, ""]), 1, "{name}: {plain:?}");
    }
    assert_eq!(count(&plain, ["opt/note", "opt/again"]), 1, "{plain:?}");

    let ostree = opened(&rootfs, dir.path(), &[]);
    assert_eq!(count(&ostree, ["usr/bin/c", ""]), 1, "{ostree:?}");
    assert_eq!(count(&ostree, ["opt/note", "opt/again"]), 1, "{ostree:?}");
    // Are they one object? Which one decides about what the component weighs.
    assert_eq!(count(&ostree, ["usr/share/twin", ""]), 2, "{ostree:?}");
    // `other` and `same` are one object, which is written once.
    assert_eq!(
        count(&ostree, ["usr/share/other", "usr/share/same"]),
        3,
        "{ostree:?}"
    );
    // The name of the object stands before its content, which is too much to hold.
    assert_eq!(count(&ostree, [LARGE, ""]), 2, "{ostree:?}");
}

#[test]
fn when_files_are_read_decides_nothing() {
    let dir = scratch();
    let rootfs = rootfs(dir.path());
    let cache = dir.path().join("cache");
    let cache = cache.to_str().unwrap();
    for format in ["ostree", "plain"] {
        let build = |options: &[&str]| {
            let same = ["--format", format, "--timestamp", "1700000000"];
            let image = build_image(dir.path(), &rootfs, &[&same, options].concat());
            (image.digest, image.manifest, image.config)
        };
        let image = build(&["-j", "1"]);
        assert_eq!(build(&["-j", "4"]), image);
        // With a cache, files are read first; the second time none is.
        assert_eq!(build(&["--cache", cache]), image);
        assert_eq!(build(&["--cache", cache]), image);
        // One layer begins with the names of all that is in it.
        let alone = build(&["--max-layers", "1"]);
        assert_eq!(build(&["--max-layers", "1", "--cache", cache]), alone);
    }
}

#[test]
fn a_plain_image_can_leave_the_checksum_of_its_commit_out() {
    let dir = scratch();
    let rootfs = rootfs(dir.path());
    let at = |name: &str| format!("oci:{}", dir.path().join(name).display());
    let named = build_json(&rootfs, &at("named"), &["--format", "plain"]);
    let options = ["--format", "plain", "--no-commit-checksum"];
    let unnamed = build_json(&rootfs, &at("unnamed"), &options);
    let digests = |report: &Value| -> Vec<Value> {
        let layers = report["layers"].as_array().unwrap().iter();
        layers.map(|layer| layer["digest"].clone()).collect()
    };
    assert_eq!(digests(&unnamed), digests(&named));
    assert!(named["commit"].is_string() && unnamed["commit"].is_null());
    assert!(named["digest"] != unnamed["digest"]);
    let inspected = succeed(helper().args(["inspect", &at("unnamed"), "--json"]));
    assert!(!inspected.contains(named["commit"].as_str().unwrap()));
    let said = succeed(
        helper()
            .args(["plan", "--rootfs", rootfs.str()])
            .args(options),
    );
    assert!(said.ends_with("packages"), "{said}");
    // It can be followed; its layers are made again, and are the same.
    let previous = ["--format", "plain", "--previous", &at("unnamed")];
    let next = build_json(&rootfs, &at("next"), &previous);
    assert_eq!(next["digest"], named["digest"]);
    assert!(!next.to_string().contains(r#""taken_over":true"#), "{next}");

    let (rootfs, out) = (rootfs.str(), at("refused"));
    let base = [
        "build",
        "--rootfs",
        rootfs,
        "-o",
        &out,
        "--no-commit-checksum",
    ];
    let refused = |more: &[&str]| fail(2, &[&base, more].concat());
    assert!(refused(&["--format", "ostree"]).contains("--format plain"));
    for option in ["--previous", "--base", "--repo"] {
        let said = refused(&["--format", "plain", option, "x"]);
        assert!(said.contains(option), "{said}");
    }
}
