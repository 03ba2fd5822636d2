//! Images in registries: every command takes them, and reads of them what is needed.

use std::process::Command;

use crate::common::*;
use serde_json::Value;

#[test]
fn every_command_takes_an_image_in_a_registry() {
    if !has_registry() {
        return;
    }
    let dir = scratch();
    let registry = Registry::start(dir.path());
    let (old, new) = old_and_new(dir.path());
    let layout = dir.path().join("layout");
    let gzip = ["--compression", "gzip"];
    let local = build_to(&old, &format!("oci:{}", layout.display()), &gzip);
    let (first, second) = (registry.name("a/os:1"), registry.name("a/os:2"));
    let pushed = build_to(&old, &first, &["--label", "note=first"]);
    let pushed_plainly = build_to(&old, &registry.name("a/os"), &[]);
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
    build_to(
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

/// skopeo's proxy turns docker's manifests into OCI's and drops fields of configs: neither may
/// show.
#[test]
fn manifests_and_configs_are_read_as_they_are() {
    if !has_registry() {
        return;
    }
    let dir = scratch();
    let registry = Registry::start(dir.path());
    let (rootfs, _) = old_and_new(dir.path());
    let config = dir.path().join("config.json");
    let odd = serde_json::json!({"architecture": machine(), "os": "linux", "config": {
        "Healthcheck": {"Test": ["CMD", "true"]}, "OnBuild": ["RUN true"], "Shell": ["/bin/bash", "-c"]}});
    std::fs::write(&config, odd.to_string()).unwrap();
    let layout = layout_in(dir.path(), "layout");
    build_to(
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
        format!("sha256:{}", sha256(raw.as_bytes()))
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
    // docker's archive has configs of its own.
    let mut layer = Tar::default();
    let layer = layer.add("a", What::File(b"a")).end();
    let mut of_docker = odd.clone();
    let id = format!("sha256:{}", sha256(&layer));
    of_docker["rootfs"] = serde_json::json!({"type": "layers", "diff_ids": [id]});
    let list = serde_json::json!([{"Config": "config.json", "RepoTags": ["a:1"],
        "Layers": ["layer.tar"]}]);
    let mut archive = Tar::default();
    archive
        .add("config.json", What::File(of_docker.to_string().as_bytes()))
        .add("layer.tar", What::File(&layer))
        .add("manifest.json", What::File(list.to_string().as_bytes()));
    let file = dir.path().join("docker.tar");
    std::fs::write(&file, archive.end()).unwrap();
    let of_docker = format!("docker-archive:{}", file.display());
    for from in [&registry.name("oci:1"), &dir_image, &of_docker] {
        let out = dir.path().join("out");
        build_to(
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
    if !has_registry() {
        return;
    }
    let dir = scratch();
    let registry = Registry::start(dir.path());
    let (rootfs, _) = old_and_new(dir.path());
    let name = registry.name("os");
    build_to(&rootfs, &name, &[]);
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
    let out = layout_in(dir.path(), "out");
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
