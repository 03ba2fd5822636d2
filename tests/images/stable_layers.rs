//! What stays as it is whenever, and beside whatever else, an image is built: times of files, and
//! the layer of what several packages share.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::common::*;

fn touch(rootfs: &Rootfs, path: &str, seconds: u64) {
    let time = format!("@{seconds}");
    succeed(
        Command::new("touch")
            .args(["-d", &time])
            .arg(rootfs.at(path)),
    );
}

fn times(image: &Image) -> BTreeMap<String, u64> {
    let members = image.layers.iter().flatten();
    members.map(|m| (m.path.clone(), m.mtime)).collect()
}

fn plain(dir: &Path, rootfs: &Rootfs, date: &str, rule: &str) -> Image {
    let options = ["--format", "plain", "--timestamp", date, "--mtime", rule];
    build_image(dir, rootfs, &options)
}

#[test]
fn times_do_not_depend_on_the_date_of_a_plain_image() {
    let dir = scratch();
    let rootfs = Rootfs::new(dir.path().join("rootfs"));
    let paths = ["usr/bin/a", "usr/share/a", "usr/share/old", "etc/a"];
    for path in paths {
        rootfs.file(path, path);
    }
    rootfs.packages(&[("a", "a", "1", &paths)]);
    rootfs
        .file("opt/app/x", "x")
        .file("opt/app/y", "y")
        .settle();
    for (path, time) in [
        ("usr/share/old", 500),
        // As a package's build gives them, and as the system's build gives one that it changes.
        ("usr/bin/a", 9_000),
        ("usr/share/a", 9_000),
        ("etc/a", 9_999),
        ("opt/app/x", 700),
        ("opt/app/y", 9_999),
    ] {
        touch(&rootfs, path, time);
    }
    let of = |date: &str, rule: &str| plain(dir.path(), &rootfs, date, rule);
    let (early, later) = (of("1000", "keep"), of("2000", "keep"));
    let ids = |image: &Image| image.config["rootfs"]["diff_ids"].clone();
    assert_eq!(ids(&early), ids(&later));
    let all = times(&early);
    let named = |all: &BTreeMap<String, u64>| {
        let names = ["usr/share/old", "usr/bin/a", "usr/share/a", "etc/a"];
        let names = names.into_iter().chain(["opt/app/x", "opt/app/y", "usr"]);
        names.map(|name| all[name]).collect::<Vec<u64>>()
    };
    assert_eq!(named(&all), [500, 9_000, 9_000, 0, 700, 0, 0]);
    let clamped = named(&times(&of("1000", "clamp")));
    assert_eq!(clamped, [500, 1_000, 1_000, 1_000, 700, 1_000, 0]);
    assert_ne!(ids(&of("1000", "clamp")), ids(&of("2000", "clamp")));
    let zero = times(&of("1000", "zero"));
    assert!(zero.values().all(|time| *time == 0), "{zero:?}");
    // The date is that of the newest file: all times stay.
    let image = build_image(dir.path(), &rootfs, &["--format", "plain"]);
    assert_eq!(times(&image)["opt/app/y"], 9_999);
}

/// Where a file of `content` is, as its object in the ostree format.
fn layers_of(report: &serde_json::Value, image: &Image, path: &str) -> (Vec<usize>, String) {
    let members = || image.layers.iter().enumerate();
    let link = members()
        .flat_map(|(_, layer)| layer)
        .find(|m| m.path == path)
        .unwrap();
    let object = if link.link.is_empty() {
        path
    } else {
        &link.link
    };
    let has = |layer: &[Member]| layer.iter().any(|m| m.path == object && m.link.is_empty());
    let found: Vec<usize> = members()
        .filter(|(_, layer)| has(layer))
        .map(|(at, _)| at)
        .collect();
    let components = report["layers"][found[0]]["components"].to_string();
    (found, components)
}

#[test]
fn content_of_several_packages_is_with_the_stablest_of_them_once() {
    let dir = scratch();
    let system = |name: &str, packages: &[&str]| {
        let rootfs = Rootfs::new(dir.path().join(name));
        let mut owned: Vec<(String, [String; 2])> = Vec::new();
        for package in packages {
            let path = format!("usr/share/{package}/data");
            let own = format!("usr/share/{package}/own");
            rootfs.file(&path, vec![7; 2 << 20]);
            rootfs.file(&own, package.repeat(100_000));
            owned.push(((*package).to_owned(), [path, own]));
        }
        let lists: Vec<Vec<&str>> = owned
            .iter()
            .map(|(_, paths)| paths.iter().map(String::as_str).collect())
            .collect();
        let rows: Vec<(&str, &str, &str, &[&str])> = owned
            .iter()
            .zip(&lists)
            .map(|((name, _), list)| (name.as_str(), name.as_str(), "1", &list[..]))
            .collect();
        rootfs.packages(&rows).settle();
        rootfs
    };
    // 'linux' changes most often, then 'openssl'; nothing is known of 'yy' and 'zz'.
    let at = |name: &str, packages: &[&str]| {
        let rootfs = system(name, packages);
        let layout = format!("oci:{}", dir.path().join("out").display());
        let options = ["--timestamp", "1700000000", "--max-layers", "64"];
        let report = build_json(&rootfs, &layout, &options);
        let image = read_image(&dir.path().join("out"));
        layers_of(&report, &image, &format!("usr/share/{}/data", packages[0]))
    };
    for (packages, home) in [
        (&["linux", "openssl", "zz"][..], "zz"),
        (&["openssl", "zz"], "zz"),
        (&["linux", "openssl", "yy", "zz"], "yy"),
        (&["linux", "openssl"], "openssl"),
    ] {
        let (layers, components) = at(&packages.join("-"), packages);
        assert_eq!(layers.len(), 1, "{packages:?}");
        assert!(components.contains(home), "{packages:?}: {components}");
    }
    // In an ordinary image they are other files, which stay with their packages.
    let rootfs = system("plain", &["linux", "zz"]);
    let layout = format!("oci:{}", dir.path().join("out").display());
    let report = build_json(&rootfs, &layout, &["--format", "plain"]);
    let image = read_image(&dir.path().join("out"));
    for package in ["linux", "zz"] {
        let path = format!("usr/share/{package}/data");
        let (layers, components) = layers_of(&report, &image, &path);
        assert_eq!(layers.len(), 1);
        assert!(components.contains(package), "{components}");
    }
}
