//! The options of an image that is made of a commit: rpm-ostree's, and those that `build` has, too.

use std::fs;
use std::process::Command;

use crate::common::{Image, check_layers, fail, run, succeed};
use crate::encapsulate::{COMPOSE, committed, diff_ids, label};
use serde_json::Value;

#[test]
fn every_option_of_rpm_ostree_works_under_its_name() {
    let metadata = [
        "--version",
        "13.1",
        "-s",
        "Release",
        "--add-metadata-string",
        "org.a=1",
    ];
    let Some(place) = committed(&metadata) else {
        return;
    };
    let config = place.dir.path().join("config.json");
    let text = r#"{"Env": ["A=b"], "Cmd": ["/bin/sh"], "Labels": {"from": "config", "ostree.commit": "old"}}"#;
    fs::write(&config, text).unwrap();
    let sizes = place.dir.path().join("sizes.json");
    let options = [
        "--label",
        "x=y",
        "-l",
        "z=w",
        "--image-config",
        config.to_str().unwrap(),
        "--arch",
        "arm64",
        "--copymeta",
        "org.a",
        "--copymeta-opt",
        "org.none",
        "--cmd",
        "/sbin/init",
        "--max-layers",
        "5",
        "--format-version",
        "2",
        "--write-contentmeta-json",
        sizes.to_str().unwrap(),
    ];
    let image = place.encapsulate(&COMPOSE, "image", &options);
    let expected = [
        ("x", Some("y")),
        ("z", Some("w")),
        ("from", Some("config")),
        ("org.a", Some("1")),
        ("org.none", None),
        ("org.opencontainers.image.version", Some("13.1")),
        ("ostree.linux", Some("6.1")),
    ];
    for (name, value) in expected {
        assert_eq!(label(&image, name), value, "{name}");
    }
    assert_ne!(label(&image, "ostree.commit"), Some("old"));
    let container = &image.config["config"];
    assert_eq!(container["Env"], serde_json::json!(["A=b"]));
    assert_eq!(container["Cmd"], serde_json::json!(["/sbin/init"]));
    assert_eq!(image.config["architecture"], "arm64");
    assert_eq!(image.config["history"][0]["comment"], "Release");
    assert!(image.layers.len() <= 5);
    check_layers(&image, true, 2);
    let sizes: Value = serde_json::from_slice(&fs::read(sizes).unwrap()).unwrap();
    let sizes = sizes.as_array().unwrap();
    let of = |name: &str| sizes.iter().find(|c| c["identifier"] == name).unwrap();
    assert!(of("bar")["size"].as_u64() >= Some(300_000) && of("bar")["change_frequency"].is_u64());

    let (_, output) = place.layout("refused");
    let base = [
        "encapsulate",
        "--repo",
        &place.repo,
        "test",
        &output,
        "--copymeta",
    ];
    let said = fail(1, &[&base[..], &["org.none"]].concat());
    assert!(
        said.contains("no metadata 'org.none'") && said.contains("--copymeta-opt"),
        "{said}"
    );
    assert!(!place.dir.path().join("refused").exists());
}

/// The options of `build` that say which config, plan and earlier layers an image has.
#[test]
fn an_image_of_a_commit_takes_the_options_of_one_of_a_rootfs() {
    let Some(place) = committed(&["--timestamp", "1650000000"]) else {
        return;
    };
    let path = |name: &str| place.dir.path().join(name).display().to_string();
    let layers = |image: &Image| image.manifest["layers"].as_array().unwrap().clone();
    let encapsulate = |name: &str, extra: &[&str]| place.encapsulate(&COMPOSE, name, extra);
    fs::write(
        path("config.json"),
        r#"{"config": {"Env": ["A=b"], "StopSignal": "9"}}"#,
    )
    .unwrap();
    let config = path("config.json");
    let lock = path("plan.json");
    let options = [
        "--config",
        &config,
        "--write-plan",
        &lock,
        "--max-layers",
        "4",
    ];
    let first = encapsulate("first", &options);
    assert_eq!(first.config["config"]["StopSignal"], "9");
    let first_name = place.layout("first").1;
    let inherited = encapsulate("inherited", &["--config-from", &first_name]);
    assert_eq!(
        inherited.config["config"]["Env"],
        serde_json::json!(["A=b"])
    );

    // The same layers by the plan in a file, and by that of an image.
    let by_file = encapsulate("by-file", &["--plan", &lock]);
    let by_image = encapsulate("by-image", &["--previous", &first_name]);
    let free = encapsulate("free", &[]);
    assert_eq!(diff_ids(&by_file), diff_ids(&first));
    assert_eq!(diff_ids(&by_image), diff_ids(&first));
    assert_ne!(diff_ids(&free), diff_ids(&first));

    // Layers that stay below what has changed: of a base, and of an earlier image.
    place.rootfs.file("usr/bin/foo", vec![5; 5000]).settle();
    let commit = ["commit", "-q", "--repo", &place.repo, "-b", "test"];
    run(&[&commit[..], &["--rootfs", place.rootfs.str()]].concat());
    let above = encapsulate("above", &["--base", &first_name]);
    let (old, new) = (layers(&first), layers(&above));
    assert_eq!(new[1..old.len()], old[1..], "all but the commit stay");
    let waste = ["--previous", &first_name, "--max-waste", "40%"];
    encapsulate("waste", &waste);
    for name in ["above", "waste"] {
        let repo = path(&format!("repo-{name}"));
        succeed(Command::new("ostree").args(["init", "--mode=bare-user", "--repo", &repo]));
        let commit = run(&["import", "-q", "--repo", &repo, &place.layout(name).1]);
        let tip = ["rev-parse", "--repo", &place.repo, "test"];
        assert_eq!(commit, succeed(Command::new("ostree").args(tip)), "{name}");
    }

    let (_, output) = place.layout("refused");
    let refused = ["encapsulate", "--repo", &place.repo, "test", &output];
    for (extra, said) in [
        (&["--previous-required"][..], "--previous IMAGE"),
        (&["--max-waste", "10%"], "--previous IMAGE"),
        (&["--base", "auto"], "--base IMAGE"),
        (
            &["--image-config", &config, "--config", &config],
            "--config",
        ),
        (
            &[
                "--previous-build-manifest",
                &config,
                "--previous",
                &first_name,
            ],
            "--previous",
        ),
    ] {
        let message = fail(2, &[&refused[..], extra].concat());
        assert!(message.contains(said), "{extra:?}: {message}");
    }
    let required = ["--previous-build-manifest", &config, "--previous-required"];
    let message = fail(1, &[&refused[..], &required].concat());
    assert!(message.contains("config.json"), "{message}");
    assert!(!place.dir.path().join("refused").exists());
}
