//! `compose build-chunked-oci`: what rpm-ostree documents of its own, on Debian.

use std::fs;

use crate::common::*;
use serde_json::Value;

fn label<'a>(image: &'a Image, name: &str) -> Option<&'a str> {
    image.config["config"]["Labels"][name].as_str()
}

fn diff_ids(image: &Image) -> &Value {
    &image.config["rootfs"]["diff_ids"]
}

#[test]
fn build_chunked_oci_does_what_its_documentation_promises() {
    // No kernel: nothing but the option can say that bootc boots it.
    let dir = scratch();
    let rootfs = odd_rootfs(dir.path().join("rootfs"));
    let layout = dir.path().join("out");
    let output = format!("oci:{}", layout.display());
    let base = [
        "compose",
        "build-chunked-oci",
        "--rootfs",
        rootfs.str(),
        "--output",
        &output,
    ];
    assert!(fail(2, &base).contains("--bootc"));
    let both = [&base[..], &["--bootc", "--from", "x"]].concat();
    assert!(fail(2, &both).contains("--from"));
    let chunked = |extra: &[&str]| run(&[&base[..], &["--bootc", "-q"], extra].concat());

    chunked(&["--label", "a=b"]);
    let first = read_image(&layout);
    check_layers(&first, true, 1);
    assert_eq!(label(&first, "containers.bootc"), Some("1"));
    assert_eq!(label(&first, "a"), Some("b"));
    let index: Value =
        serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let tag = &index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"];
    assert_eq!(tag, "latest");

    // The image at the output is the previous build, unless another is named: what shared a layer
    // there still does, where a plan without memory sets it apart.
    let share_a_layer = || {
        let image = read_image(&layout);
        let layers = image.manifest["layers"].as_array().unwrap().iter();
        let mut names = layers.map(|l| &l["annotations"]["ostree.components"]);
        names.any(|names| {
            let names: Vec<&str> = names.as_str().unwrap_or_default().split(',').collect();
            names.contains(&"bar") && names.contains(&"foo")
        })
    };
    assert!(!share_a_layer());
    fs::remove_dir_all(&layout).unwrap();
    chunked(&["--max-layers", "3"]);
    assert!(share_a_layer());
    chunked(&[]);
    assert!(share_a_layer());
    chunked(&["--previous", "none"]);
    assert!(
        !share_a_layer(),
        "what is asked for goes before the default"
    );
    fs::remove_dir_all(&layout).unwrap();
    chunked(&[]);
    rootfs.file("usr/bin/foo", vec![5; 5000]).settle();
    chunked(&["--format-version", "1"]);
    let second = read_image(&layout);
    let (a, b) = (
        diff_ids(&first).as_array().unwrap(),
        diff_ids(&second).as_array().unwrap(),
    );
    assert_eq!(
        a.iter().zip(b).filter(|(a, b)| a != b).count(),
        2,
        "the commit and foo"
    );
    chunked(&[
        "--previous-build",
        &format!("{output}:latest"),
        "--reference",
        "other",
        "--format-version",
        "2",
    ]);
    let with_missing = [&base[..], &["--bootc", "--previous-build", "oci:/no/such"]].concat();
    let told = helper().args(with_missing).output().unwrap();
    let said = stderr(&told);
    assert!(told.status.success(), "{said}");
    assert!(said.contains("no previous image is followed"), "{said}");
    assert!(said.contains("/no/such"), "{said}");
    let two = ["--bootc", "--previous-build", &output, "--previous", "none"];
    assert!(fail(2, &[&base[..], &two].concat()).contains("--previous"));
}

/// Layers of the image at the output stay with changes above them, as those of any earlier image.
#[test]
fn the_image_at_the_output_may_keep_its_layers() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let rootfs = odd_rootfs(dir.path().join("rootfs"));
    let output = format!("oci:{}", dir.path().join("out").display());
    let chunked = |extra: &[&str]| {
        let base = ["compose", "build-chunked-oci", "--bootc", "-q"];
        let in_and_out = ["--rootfs", rootfs.str(), "--output", &output];
        run_json(&[&base[..], &in_and_out, extra].concat())
    };
    chunked(&["--max-layers", "4"]);
    rootfs.file("usr/bin/foo", vec![5; 500]).settle();
    let built = chunked(&["--max-waste", "60%"]);
    let layers = built["layers"].as_array().unwrap();
    let dead = layers.iter().map(|layer| layer["dead_size"].as_u64());
    assert!(dead.flatten().sum::<u64>() > 0, "{built}");
}
