//! Images in registries: every command takes them, nothing is sent twice, and what goes wrong is told apart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::Path;
use std::process::Command;

use common::{
    Registry, Rootfs, fail, has, helper, read_image, repository, run, run_json, scratch, stderr,
    succeed, three_packages,
};
use serde_json::Value;

const PLAIN: &str = "--tls-verify=false";

/// Whether what these tests need is there.
fn ready() -> bool {
    ["skopeo", "docker-registry", "htpasswd", "openssl"]
        .iter()
        .all(|program| has(program))
}

fn build(rootfs: &Rootfs, output: &str, extra: &[&str]) -> Value {
    let base = [
        "build",
        "-q",
        "--rootfs",
        rootfs.str(),
        "-o",
        output,
        PLAIN,
        "--timestamp",
        "1700000000",
    ];
    run_json(&[&base[..], extra].concat())
}

fn skopeo(arguments: &[&str]) -> String {
    succeed(Command::new("skopeo").args(arguments))
}

fn taken(report: &Value) -> Vec<bool> {
    let layers = report["layers"].as_array().unwrap().iter();
    layers
        .map(|layer| layer["taken_over"].as_bool().unwrap())
        .collect()
}

fn old_and_new(dir: &Path) -> (Rootfs, Rootfs) {
    (
        three_packages(dir, "old", "1.0-1", "note"),
        three_packages(dir, "new", "1.0-1+deb13u1", "note"),
    )
}

fn layout_in(dir: &tempfile::TempDir, name: &str) -> String {
    format!("oci:{}", dir.path().join(name).display())
}

fn layer_count(report: &Value) -> usize {
    report["layers"].as_array().unwrap().len()
}

/// How many layers a push or a pull moved.
fn transferred(report: &Value) -> usize {
    let layers = report["layers"].as_array().unwrap().iter();
    layers.filter(|layer| layer["transferred"] == true).count()
}

#[test]
fn every_command_takes_an_image_in_a_registry() {
    if !ready() {
        return;
    }
    let dir = scratch();
    let registry = Registry::start(dir.path());
    let (old, new) = old_and_new(dir.path());
    let layout = dir.path().join("layout");
    let gzip = ["--compression", "gzip"];
    let local = build(&old, &format!("oci:{}", layout.display()), &gzip);
    let (first, second) = (registry.name("a/os:1"), registry.name("a/os:2"));
    let pushed = build(&old, &first, &["--label", "note=first"]);
    let pushed_plainly = build(&old, &registry.name("a/os"), &[]);
    assert_eq!(
        pushed_plainly["digest"], local["digest"],
        "gzip, as in the layout"
    );
    // The registry's own word for it.
    let raw = skopeo(&["inspect", "--raw", PLAIN, &registry.name("a/os:latest")]);
    let image = read_image(&layout);
    assert_eq!(serde_json::from_str::<Value>(&raw).unwrap(), image.manifest);
    assert!(
        raw.contains("ostree.components"),
        "annotations of layers survive"
    );

    let inspected = run_json(&["inspect", &first, PLAIN]);
    assert_eq!(inspected["digest"], pushed["digest"]);
    build(
        &new,
        &second,
        &["--previous", &first, "--config-from", &first],
    );
    let config = skopeo(&["inspect", "--config", PLAIN, &second]);
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["config"]["Labels"]["note"], "first");
    let difference = run_json(&["diff", &first, &second, PLAIN]);
    assert!(
        difference["bytes_fetched"].as_u64().unwrap_or(1) > 0,
        "{difference}"
    );
    let repo = repository(dir.path(), "repo", "archive");
    let commit = run(&["import", "-q", "--repo", &repo, "-b", "os", &first, PLAIN]);
    assert_eq!(commit, pushed["commit"].as_str().unwrap());
    let digest = format!(
        "{}@{}",
        registry.name("a/os"),
        pushed["digest"].as_str().unwrap()
    );
    assert_eq!(
        run_json(&["inspect", &digest, PLAIN])["digest"],
        pushed["digest"]
    );
    let third = registry.name("a/os:3");
    let encapsulated = run(&["encapsulate", "-q", "--repo", &repo, "os", &third, PLAIN]);
    assert_eq!(
        run_json(&["inspect", &third, PLAIN])["digest"],
        encapsulated.as_str()
    );
    let chunked = [
        "compose",
        "build-chunked-oci",
        "--bootc",
        "-q",
        "--rootfs",
        new.str(),
    ];
    let chunked = [
        &chunked[..],
        &["--output", &third, PLAIN, "--previous-build", &second],
    ]
    .concat();
    assert_eq!(
        run_json(&["inspect", &third, PLAIN])["digest"],
        encapsulated.as_str()
    );
    assert_eq!(
        run(&chunked),
        run_json(&["inspect", &third, PLAIN])["digest"]
            .as_str()
            .unwrap()
    );
}

/// With the previous image in the same repository, layers that stay are not fetched, compressed or sent; without
/// it they are compressed, and not sent.
#[test]
fn what_the_repository_has_is_neither_fetched_nor_sent() {
    if !ready() {
        return;
    }
    let dir = scratch();
    let registry = Registry::start(dir.path());
    let (old, new) = old_and_new(dir.path());
    let name = registry.name("os:1");
    let first = build(&old, &name, &[]);
    let layers = first["layers"].as_array().unwrap().len();
    assert_eq!(registry.uploads(), layers + 1, "the layers and the config");
    registry.forget();
    let again = build(&old, &name, &["--previous", &name]);
    assert_eq!(again["digest"], first["digest"]);
    assert!(!taken(&again).contains(&false), "{again}");
    assert_eq!(registry.uploads(), 0);
    // The config alone is read.
    assert_eq!(registry.downloads(), 1, "{:?}", registry.requests());
    registry.forget();
    build(&old, &name, &[]);
    assert_eq!((registry.uploads(), registry.downloads()), (0, 0));
    registry.forget();
    let updated = build(&new, &registry.name("os:2"), &["--previous", &name]);
    let made = taken(&updated).iter().filter(|taken| !**taken).count();
    assert!(made < layers, "{updated}");
    assert_eq!(
        registry.uploads(),
        made + 1,
        "the layers made anew, and the config"
    );
    // What is left in the registry is whole: every layer is read.
    let whole = run_json(&["inspect", &registry.name("os:2"), PLAIN]);
    assert_eq!(whole["digest"], updated["digest"]);
    // In another repository they are made anew, and are the same.
    let elsewhere = build(&new, &registry.name("other"), &["--previous", &name]);
    assert!(!taken(&elsewhere).contains(&true), "{elsewhere}");
    assert_eq!(elsewhere["digest"], updated["digest"]);
}

#[test]
fn a_previous_image_that_cannot_be_followed_is_told_apart_from_a_registry_that_cannot_be_read() {
    if !ready() {
        return;
    }
    let dir = scratch();
    let mut registry = Registry::start(dir.path());
    let rootfs = three_packages(dir.path(), "rootfs", "1", "note");
    let layout = format!("oci:{}", dir.path().join("out").display());
    let missing = registry.name("none/yet:1");
    let foreign = registry.name("os:arm64");
    build(&rootfs, &foreign, &["--arch", "arm64"]);
    let plain = dir.path().join("plain");
    common::ImageWriter::plain(vec![
        common::Tar::default()
            .add("a", common::What::File(b"x"))
            .end(),
    ])
    .write(&plain);
    let plain = format!("oci:{}", plain.display());
    let base = [
        "build",
        "--rootfs",
        rootfs.str(),
        "-o",
        &layout,
        PLAIN,
        "--retry-times",
        "0",
        "--arch",
        "amd64",
    ];
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let empty = format!("oci:{}", empty.display());
    for (previous, why) in [
        (missing.as_str(), "manifest unknown"),
        (&foreign, "arm64"),
        (&plain, "not chunked"),
        ("oci:/no/such/layout", "No such file or directory"),
        (&empty, "no OCI layout yet"),
    ] {
        let arguments = [&base[..], &["--previous", previous]].concat();
        let output = helper().args(&arguments).output().unwrap();
        assert!(output.status.success(), "{previous}: {}", stderr(&output));
        assert!(
            stderr(&output).contains("made anew"),
            "{previous}: {}",
            stderr(&output)
        );
        let said = fail(1, &[&arguments[..], &["--previous-required"]].concat());
        assert!(
            said.contains("required") && said.contains(why),
            "{previous}: {said}"
        );
    }
    let said = fail(2, &[&base[..], &["--previous-required"]].concat());
    assert!(said.contains("--previous IMAGE"), "{said}");
    registry.kill();
    let said = fail(1, &[&base[..], &["--previous", &missing]].concat());
    for part in [
        registry.host.as_str(),
        "none/yet",
        "cannot be reached",
        "connection refused",
    ] {
        assert!(said.contains(part), "no {part}: {said}");
    }
}

/// Manifests and layers, annotations too, are the same in the layout, the registry and the copy pulled from it; what
/// is there is neither sent nor fetched again.
#[test]
fn an_image_is_the_same_pushed_and_pulled() {
    if !ready() {
        return;
    }
    let dir = scratch();
    let registry = Registry::start(dir.path());
    let (old, new) = old_and_new(dir.path());
    let (layout, name) = (layout_in(&dir, "layout"), registry.name("os:1"));
    let built = build(&old, &layout, &["--compression", "zstd"]);
    let file = dir.path().join("digest");
    let digest = run(&[
        "push",
        "-q",
        &layout,
        &name,
        PLAIN,
        "--digestfile",
        file.to_str().unwrap(),
    ]);
    assert_eq!(built["digest"], digest.as_str());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), digest);
    assert_eq!(
        skopeo(&["inspect", "--format", "{{.Digest}}", PLAIN, &name]),
        digest
    );
    registry.forget();
    let again = run_json(&["push", &layout, &name, PLAIN]);
    assert_eq!((registry.uploads(), transferred(&again)), (0, 0));
    let copy = layout_in(&dir, "copy");
    let pulled = run_json(&["pull", &name, &copy, PLAIN]);
    assert_eq!(
        (pulled["digest"].as_str(), transferred(&pulled)),
        (Some(digest.as_str()), layer_count(&built))
    );
    let (there, here) = (dir.path().join("layout"), dir.path().join("copy"));
    assert_eq!(read_image(&there).manifest, read_image(&here).manifest);
    common::judged(&["verify", here.to_str().unwrap(), "--ostree"]);
    // An update sends and fetches what differs.
    let updated = build(
        &new,
        &layout,
        &["--compression", "zstd", "--previous", &layout],
    );
    let changed = taken(&updated).iter().filter(|taken| !**taken).count();
    let sent = run_json(&["push", &layout, &name, PLAIN]);
    assert_eq!(transferred(&sent), changed, "{sent}");
    registry.forget();
    let fetched = run_json(&["pull", &name, &copy, PLAIN]);
    assert_eq!(
        (transferred(&fetched), registry.downloads()),
        (changed, changed + 2),
        "and the config, to be read and to be kept"
    );
    let archive = dir.path().join("a.tar").display().to_string();
    run(&["pull", "-q", &name, &archive, PLAIN]);
    assert_eq!(
        run(&[
            "push",
            "-q",
            &archive,
            &registry.name("from/archive"),
            PLAIN
        ]),
        updated["digest"].as_str().unwrap()
    );
    registry.forget();
    // To another repository of the registry, and by its digest.
    let by_digest = format!(
        "{}@{}",
        registry.name("os"),
        updated["digest"].as_str().unwrap()
    );
    assert_eq!(
        run(&["push", "-q", &by_digest, &registry.name("other:x"), PLAIN]),
        updated["digest"].as_str().unwrap()
    );
    let said = fail(2, &["push", &layout, &by_digest, PLAIN]);
    assert!(said.contains("names one image for ever"), "{said}");
}

#[test]
fn an_uncompressed_image_is_compressed_and_keeps_its_id() {
    if !ready() {
        return;
    }
    let dir = scratch();
    let registry = Registry::start(dir.path());
    let (old, _) = old_and_new(dir.path());
    let (layout, name) = (layout_in(&dir, "layout"), registry.name("os"));
    let built = build(&old, &layout, &[]);
    let digest = run(&["push", "-q", &layout, &name, PLAIN]);
    let raw: Value = serde_json::from_str(&skopeo(&["inspect", "--raw", PLAIN, &name])).unwrap();
    assert_eq!(raw["config"]["digest"], built["image_id"]);
    let image = read_image(&dir.path().join("layout"));
    for (sent, made) in raw["layers"]
        .as_array()
        .unwrap()
        .iter()
        .zip(image.manifest["layers"].as_array().unwrap())
    {
        assert_eq!(
            sent["mediaType"],
            "application/vnd.oci.image.layer.v1.tar+gzip"
        );
        assert_eq!(sent["annotations"], made["annotations"]);
    }
    registry.forget();
    assert_eq!(
        run(&["push", "-q", &layout, &name, PLAIN]),
        digest,
        "the same bytes again"
    );
    assert_eq!(registry.uploads(), 0);
    assert_eq!(
        run_json(&["inspect", &name, PLAIN])["digest"],
        digest.as_str()
    );
}

#[test]
fn several_architectures_become_one_name() {
    if !ready() {
        return;
    }
    let dir = scratch();
    let registry = Registry::start(dir.path());
    let (rootfs, new) = old_and_new(dir.path());
    let gzip = |arch| ["--compression", "gzip", "--arch", arch];
    let amd64 = layout_in(&dir, "amd64");
    let arm64 = dir.path().join("arm64.tar").display().to_string();
    let armhf = registry.name("parts:armhf");
    let of_amd64 = build(&rootfs, &amd64, &gzip("amd64"));
    let of_arm64 = build(&new, &arm64, &gzip("arm64"));
    let of_armhf = build(&rootfs, &armhf, &gzip("armhf"));
    let name = registry.name("os:all");
    let layout = layout_in(&dir, "index");
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
    assert_eq!(
        format!("sha256:{}", common::sha256(index.as_bytes())),
        digest
    );
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
            format!("sha256:{}", common::sha256(config.as_bytes())),
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
    let next = build(
        &new,
        &layout_in(&dir, "next"),
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
    let pulled = layout_in(&dir, "pulled");
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
        &layout_in(&dir, "one"),
        PLAIN,
    ]);
    assert_eq!(one, of_arm64["digest"].as_str().unwrap());
    let said = fail(1, &["index", "-o", &layout, &amd64, &arm64, &amd64]);
    assert!(said.contains("two parts are for linux/amd64"), "{said}");
    if has("podman") && common::is_root() {
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

/// skopeo's proxy turns docker's manifests into OCI's and drops fields of configs: neither may show.
#[test]
fn manifests_and_configs_are_read_as_they_are() {
    if !ready() {
        return;
    }
    let dir = scratch();
    let registry = Registry::start(dir.path());
    let (rootfs, _) = old_and_new(dir.path());
    let config = dir.path().join("config.json");
    let odd = serde_json::json!({"architecture": common::machine(), "os": "linux", "config": {
        "Healthcheck": {"Test": ["CMD", "true"]}, "OnBuild": ["RUN true"], "Shell": ["/bin/bash", "-c"]}});
    std::fs::write(&config, odd.to_string()).unwrap();
    let layout = layout_in(&dir, "layout");
    build(
        &rootfs,
        &layout,
        &[
            "--config",
            config.to_str().unwrap(),
            "--compression",
            "gzip",
        ],
    );
    let name = registry.name("docker:v2");
    skopeo(&[
        "copy",
        "-q",
        "--format",
        "v2s2",
        "--dest-tls-verify=false",
        &layout,
        &name,
    ]);
    let raw = skopeo(&["inspect", "--raw", PLAIN, &name]);
    assert!(raw.contains("vnd.docker.distribution.manifest.v2"), "{raw}");
    let inspected = run_json(&["inspect", &name, PLAIN]);
    assert_eq!(
        inspected["digest"],
        format!("sha256:{}", common::sha256(raw.as_bytes()))
    );
    let dir_image = format!("dir:{}", dir.path().join("dir").display());
    skopeo(&["copy", "-q", &layout, &dir_image]);
    skopeo(&[
        "copy",
        "-q",
        "--preserve-digests",
        "--dest-tls-verify=false",
        &layout,
        &registry.name("oci:1"),
    ]);
    for from in [&registry.name("oci:1"), &dir_image] {
        let out = dir.path().join("out");
        build(
            &rootfs,
            &format!("oci:{}", out.display()),
            &["--config-from", from],
        );
        let made = read_image(&out).config;
        for field in ["Healthcheck", "OnBuild", "Shell"] {
            assert_eq!(
                made["config"][field], odd["config"][field],
                "{from} {field}"
            );
        }
    }
}

/// One process reads the manifest, the config and every layer.
#[test]
fn one_skopeo_reads_a_source() {
    if !ready() {
        return;
    }
    let dir = scratch();
    let registry = Registry::start(dir.path());
    let (rootfs, _) = old_and_new(dir.path());
    let name = registry.name("os");
    build(&rootfs, &name, &[]);
    let bin = dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let calls = dir.path().join("calls");
    let real = succeed(Command::new("sh").args(["-c", "command -v skopeo"]));
    let script = format!(
        "#!/bin/sh\necho \"$*\" >> {}\nexec {real} \"$@\"\n",
        calls.display()
    );
    std::fs::write(bin.join("skopeo"), script).unwrap();
    succeed(Command::new("chmod").arg("755").arg(bin.join("skopeo")));
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let out = layout_in(&dir, "out");
    let previous = [
        "build",
        "-q",
        "--rootfs",
        rootfs.str(),
        "-o",
        &out,
        "--previous",
        &name,
        PLAIN,
    ];
    for arguments in [&previous[..], &["inspect", &name, PLAIN]] {
        succeed(helper().args(arguments).env("PATH", &path));
        let said = std::fs::read_to_string(&calls).unwrap();
        assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
        std::fs::remove_file(&calls).unwrap();
    }
    // Without it: what to install.
    let output = helper()
        .args(["inspect", &name])
        .env("PATH", "/none")
        .output()
        .unwrap();
    let said = stderr(&output);
    assert!(
        said.contains("skopeo") && said.contains("install") && said.contains("1.9"),
        "{said}"
    );
}
