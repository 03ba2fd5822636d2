//! `index`: images for several architectures under one name.

use std::process::Command;

use crate::common::*;
use serde_json::Value;

#[test]
fn several_architectures_become_one_name() {
    if !has_registry() {
        return;
    }
    let dir = scratch();
    let registry = Registry::start(dir.path());
    let (rootfs, new) = old_and_new(dir.path());
    let gzip = |arch| ["--compression", "gzip", "--arch", arch];
    let amd64 = layout_in(dir.path(), "amd64");
    let arm64 = dir.path().join("arm64.tar").display().to_string();
    let armhf = registry.name("parts:armhf");
    let of_amd64 = build_to(&rootfs, &amd64, &gzip("amd64"));
    let of_arm64 = build_to(&new, &arm64, &gzip("arm64"));
    let of_armhf = build_to(&rootfs, &armhf, &gzip("armhf"));
    let name = registry.name("os:all");
    let layout = layout_in(dir.path(), "index");
    let annotation = "org.opencontainers.image.version=13";
    let parts = [amd64.as_str(), &arm64, &armhf];
    let digest = run(&[
        &[
            "index",
            "-q",
            PLAIN,
            "--annotation",
            annotation,
            "-o",
            &name,
        ],
        &parts[..],
    ]
    .concat());
    let same = run(&[
        &[
            "index",
            "-q",
            PLAIN,
            "--annotation",
            annotation,
            "-o",
            &layout,
        ],
        &parts[..],
    ]
    .concat());
    assert_eq!(digest, same);
    let index = skopeo(&["inspect", "--raw", PLAIN, &name]);
    assert_eq!(format!("sha256:{}", sha256(index.as_bytes())), digest);
    let index: Value = serde_json::from_str(&index).unwrap();
    assert_eq!(
        index["annotations"]["org.opencontainers.image.version"],
        "13"
    );
    let platforms: Vec<&Value> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| &m["platform"])
        .collect();
    assert_eq!(
        serde_json::json!(platforms),
        serde_json::json!([
            {"architecture": "amd64", "os": "linux"},
            {"architecture": "arm64", "os": "linux", "variant": "v8"},
            {"architecture": "arm", "os": "linux", "variant": "v7"},
        ])
    );
    // Everybody finds the right one.
    for (arch, built, for_skopeo) in [
        ("amd64", &of_amd64, ["--override-arch", "amd64"]),
        ("arm64", &of_arm64, ["--override-arch", "arm64"]),
        ("armhf", &of_armhf, ["--override-arch", "arm"]),
    ] {
        for image in [&name, &layout] {
            let found = run_json(&["inspect", image, "--arch", arch, PLAIN]);
            assert_eq!(found["digest"], built["digest"], "{image} {arch}");
        }
        let other = [
            &for_skopeo[..],
            &["inspect", "--config", "--raw", PLAIN, &name],
        ]
        .concat();
        let config = skopeo(&other);
        assert_eq!(
            format!("sha256:{}", sha256(config.as_bytes())),
            built["image_id"].as_str().unwrap()
        );
    }
    let said = fail(1, &["inspect", &name, "--arch", "riscv64", PLAIN]);
    assert!(
        said.contains("no image for linux/riscv64") && said.contains("linux/arm64/v8"),
        "{said}"
    );
    let repo = repository(dir.path(), "repo", "archive");
    let commit = run(&[
        "import", "-q", "--repo", &repo, &name, "--arch", "arm64", PLAIN,
    ]);
    assert_eq!(commit, of_arm64["commit"].as_str().unwrap());
    let next = build_to(
        &new,
        &layout_in(dir.path(), "next"),
        &[
            "--previous",
            &name,
            "--previous-required",
            "--arch",
            "arm64",
        ],
    );
    assert_eq!(next["commit"], of_arm64["commit"]);

    // Whole, there and back.
    let pulled = layout_in(dir.path(), "pulled");
    assert_eq!(run(&["pull", "-q", "--all", &name, &pulled, PLAIN]), digest);
    assert_eq!(
        run(&[
            "push",
            "-q",
            "--all",
            &pulled,
            &registry.name("again:all"),
            PLAIN
        ]),
        digest
    );
    assert_eq!(
        run(&[
            "push",
            "-q",
            "--all",
            &name,
            &registry.name("third:all"),
            PLAIN
        ]),
        digest
    );
    registry.forget();
    run(&["push", "-q", "--all", &pulled, &name, PLAIN]);
    assert_eq!(registry.uploads(), 0);
    let one = run(&[
        "pull",
        "-q",
        "--arch",
        "arm64",
        &name,
        &layout_in(dir.path(), "one"),
        PLAIN,
    ]);
    assert_eq!(one, of_arm64["digest"].as_str().unwrap());
    let said = fail(1, &["index", "-o", &layout, &amd64, &arm64, &amd64]);
    assert!(said.contains("two parts are for linux/amd64"), "{said}");
    if has("podman") && is_root() {
        let root = dir.path().join("podman");
        let registries = dir.path().join("registries.conf");
        let insecure = format!(
            "[[registry]]\nlocation = \"{}\"\ninsecure = true\n",
            registry.host
        );
        std::fs::write(&registries, insecure).unwrap();
        let podman = |arguments: &[&str]| {
            let (root, run) = (root.join("root"), root.join("run"));
            let mut command = Command::new("podman");
            command.env("CONTAINERS_REGISTRIES_CONF", &registries);
            command.arg("--root").arg(root).arg("--runroot").arg(run);
            succeed(command.args(["--storage-driver", "vfs"]).args(arguments))
        };
        let plain = name.trim_start_matches("docker://");
        let seen: Value = serde_json::from_str(&podman(&["manifest", "inspect", plain])).unwrap();
        assert_eq!(seen["manifests"][1]["platform"]["variant"], "v8");
        let id = podman(&["pull", "-q", "--arch", "arm64", plain]);
        assert_eq!(
            format!("sha256:{}", id.trim()),
            of_arm64["image_id"].as_str().unwrap()
        );
    }
}

/// What an image is made of may be an index: `--arch` says which image of it, and an image alone is
/// taken as it is.
#[test]
fn what_is_built_from_is_chosen_by_its_architecture() {
    if !has_registry() {
        return;
    }
    let dir = scratch();
    let registry = Registry::start(dir.path());
    let (rootfs, new) = old_and_new(dir.path());
    let amd64 = layout_in(dir.path(), "amd64");
    let (armel, armhf) = (registry.name("parts:armel"), registry.name("parts:armhf"));
    let label = |text: &'static str| ["--label", text];
    build_to(
        &rootfs,
        &amd64,
        &[&label("is=x")[..], &["--arch", "amd64"]].concat(),
    );
    build_to(
        &rootfs,
        &armel,
        &[&label("is=v5")[..], &["--arch", "armel"]].concat(),
    );
    let of_armhf = build_to(
        &new,
        &armhf,
        &[&label("is=v7")[..], &["--arch", "armhf"]].concat(),
    );
    let in_registry = registry.name("os:all");
    let in_layout = layout_in(dir.path(), "index");
    for index in [&in_registry, &in_layout] {
        run(&["index", "-q", PLAIN, "-o", index, &amd64, &armel, &armhf]);
        let out = layout_in(dir.path(), "out");
        let base = [
            "build",
            "-q",
            PLAIN,
            "-o",
            &out,
            "--timestamp",
            "1700000000",
        ];
        for (arch, part, is) in [("armhf", &armhf, "v7"), ("amd64", &amd64, "x")] {
            let from = |image: &str| {
                run_json(&[&base[..], &["--from", image, "--arch", arch]].concat())["digest"]
                    .clone()
            };
            assert_eq!(from(index), from(part), "{index} {arch}");
            let config = read_image(&dir.path().join("out")).config;
            assert_eq!(config["config"]["Labels"]["is"], is, "{index} {arch}");
        }
        // So are the config and the plan to follow.
        let more = [
            "--config-from",
            index,
            "--previous",
            index,
            "--previous-required",
        ];
        let again = build_to(&new, &out, &[&more[..], &["--arch", "armhf"]].concat());
        assert_eq!(again["commit"], of_armhf["commit"]);
        let config = read_image(&dir.path().join("out")).config;
        assert_eq!(config["config"]["Labels"]["is"], "v7");
        assert_eq!(config["variant"], "v7");
        let missing = [&base[..], &["--from", index, "--arch", "s390x"]].concat();
        let said = fail(1, &missing);
        assert!(said.contains("no image for linux/s390x"), "{said}");
    }
    // Nothing is to be chosen of an image alone.
    let out = layout_in(dir.path(), "out");
    for image in [&amd64, &armel] {
        let again = [
            "build", "-q", PLAIN, "--from", image, "--arch", "arm64", "-o", &out,
        ];
        run(&again);
        let config = read_image(&dir.path().join("out")).config;
        assert_eq!(config["architecture"], "arm64", "{image}");
    }
}
