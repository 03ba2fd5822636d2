//! What `build` says of the image: its config, labels, annotations, history and date.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use crate::common::*;
use serde_json::{Value, json};

#[test]
fn labels_annotations_and_history_say_what_is_in_it() {
    let (dir, rootfs) = odd();
    let flags = ["--json", "--max-layers", "3"];
    let said: Value = serde_json::from_str(&build_layout(dir.path(), &rootfs, &flags)).unwrap();
    let image = read_image(&dir.path().join("out"));
    let labels = &without_plan(&image.config)["Labels"];
    let diff_ids = image.config["rootfs"]["diff_ids"].as_array().unwrap();
    assert_eq!(
        labels,
        &json!({"containers.bootc": "1", "ostree.bootable": "true", "ostree.linux": "6.1",
            "org.opencontainers.image.version": "20231114",
            "ostree.commit": said["commit"], "ostree.final-diffid": diff_ids.last()})
    );
    assert_eq!(image.config["architecture"], "amd64");
    assert_eq!(image.config["created"], "2023-11-14T22:13:20Z");
    assert_eq!(said["digest"], image.digest.as_str());
    assert_eq!(said["image_id"], image.manifest["config"]["digest"]);
    assert_eq!(said["timestamp"], MTIME);
    assert_eq!(said["packages"], 4);
    let entries = wanted(&rootfs.path, false).len();
    assert_eq!(
        said["entries"], entries,
        "all but the root, which is one too"
    );
    let layers = image.manifest["layers"].as_array().unwrap();
    assert_eq!(said["layers"].as_array().unwrap().len(), layers.len());
    let mut components = Vec::new();
    for (at, layer) in layers.iter().enumerate() {
        let told = &said["layers"][at];
        assert_eq!(told["digest"], layer["digest"]);
        assert_eq!(told["size"], layer["size"]);
        assert_eq!(told["diff_id"], diff_ids[at]);
        assert_eq!(
            image.config["history"][at]["created"],
            image.config["created"]
        );
        let names: Vec<&str> = told["components"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_str().unwrap())
            .collect();
        if at == 0 {
            assert!(layer.get("annotations").is_none() && names.is_empty());
            continue;
        }
        let joined = names.join(",");
        assert_eq!(layer["annotations"]["ostree.components"], joined);
        assert_eq!(layer["annotations"]["org.chunkah.component"], joined);
        assert_eq!(image.config["history"][at]["comment"], joined);
        let chance = 1.0 - told["chance"].as_f64().unwrap();
        assert_eq!(
            layer["annotations"]["org.chunkah.stability"],
            format!("{chance:.3}")
        );
        components.extend(names);
    }
    for wanted in ["foo", "bar"] {
        assert!(components.contains(&wanted), "{wanted}: {components:?}");
    }

    fs::remove_dir_all(dir.path().join("out")).unwrap();
    build_layout(dir.path(), &rootfs, &["--format", "plain"]);
    let plain = read_image(&dir.path().join("out"));
    assert_eq!(
        without_plan(&plain.config)["Labels"],
        json!({"containers.bootc": "1", "org.opencontainers.image.version": "20231114"})
    );
    let annotations = &plain.manifest["annotations"];
    assert_eq!(annotations["apt-ostree-helper.commit"], said["commit"]);
    let version = "org.opencontainers.image.version";
    assert_eq!(annotations[version], "20231114", "as bootc reads it");

    // One of the user's stays, and the annotation is that of the label as it is in the end.
    let annotated = |options: &[&str]| {
        fs::remove_dir_all(dir.path().join("out")).unwrap();
        build_layout(dir.path(), &rootfs, options);
        let mut image = read_image(&dir.path().join("out"));
        image.manifest["annotations"][version].take()
    };
    let label = format!("{version}=7");
    assert_eq!(annotated(&["--label", &label]), "7");
    assert_eq!(annotated(&["--annotation", &label]), "7");
    assert_eq!(annotated(&["--label", &format!("{version}-")]), Value::Null);
}

const BASE: &str = r#"{"architecture": "arm64", "variant": "v8", "os": "linux", "x-unknown": [1],
    "config": {"Env": ["A=b"], "Cmd": ["old"], "Healthcheck": {"Test": ["NONE"]}, "X-Unknown": {"a": 1},
      "Labels": {"keep": "1", "drop": "2", "ostree.commit": "stale", "ostree.linux": "5.0"}},
    "rootfs": {"type": "layers", "diff_ids": ["sha256:00"]}, "history": [{}, {}]}"#;

#[test]
fn a_base_config_survives_with_what_nobody_knows_in_it() {
    let dir = scratch();
    let rootfs = tiny(dir.path());
    let file = dir.path().join("config.json");
    fs::write(&file, BASE).unwrap();
    let config = |extra: &[&str]| {
        let from_file = ["--format", "plain", "--config", file.to_str().unwrap()];
        build_image(dir.path(), &rootfs, &[&from_file[..], extra].concat()).config
    };
    let base: Value = serde_json::from_str(BASE).unwrap();
    let got = config(&[]);
    for field in ["architecture", "variant", "os", "x-unknown"] {
        assert_eq!(got[field], base[field]);
    }
    let mut container = base["config"].clone();
    container["Labels"] = json!({"keep": "1", "drop": "2"});
    assert_eq!(without_plan(&got), container);
    assert_eq!(
        got["history"].as_array().unwrap().len(),
        got["rootfs"]["diff_ids"].as_array().unwrap().len()
    );

    let flags =
        "--label drop- --label a=1 -l a- -l a=2=3 -l keep=4 --cmd /sbin/init --cmd -x --arch armhf";
    let got = config(&flags.split(' ').collect::<Vec<_>>());
    assert_eq!(
        without_plan(&got)["Labels"],
        json!({"keep": "4", "a": "2=3"})
    );
    assert_eq!(got["config"]["Cmd"], json!(["/sbin/init", "-x"]));
    assert_eq!([&got["architecture"], &got["variant"]], ["arm", "v7"]);

    let inspected = r#"[{"Id": "0", "Architecture": "arm64", "Os": "linux", "RootFS": {},
        "Config": {"Cmd": ["old"], "Labels": {"keep": "1", "ostree.final-diffid": "stale"}}}]"#;
    let output = format!("oci:{}", dir.path().join("out").display());
    let mut command = helper();
    command
        .args(["build", "-q", "--rootfs", rootfs.str(), "-o", &output])
        .args(["--format", "plain", "--config", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(inspected.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
    let got = read_image(&dir.path().join("out")).config;
    assert_eq!(
        without_plan(&got),
        json!({"Cmd": ["old"], "Labels": {"keep": "1"}})
    );
    assert_eq!(got["architecture"], "arm64");
}

#[test]
fn the_date_comes_from_the_option_then_the_environment() {
    let dir = scratch();
    let rootfs = tiny(dir.path());
    let output = format!("oci:{}", dir.path().join("out").display());
    for (option, variable, created) in [
        (None, None, "2023-11-14T22:13:20Z"),
        (None, Some(""), "2023-11-14T22:13:20Z"),
        (None, Some("86400"), "1970-01-02T00:00:00Z"),
        (Some("1"), Some("86400"), "1970-01-01T00:00:01Z"),
        (
            Some("2001-02-03T04:05:06+01:00"),
            None,
            "2001-02-03T03:05:06Z",
        ),
    ] {
        let mut command = helper();
        command.args([
            "build",
            "--rootfs",
            rootfs.str(),
            "-o",
            &output,
            "--annotation",
            "a=b=c",
        ]);
        command.args(option.iter().flat_map(|time| ["--timestamp", time]));
        command.envs(variable.map(|value| ("SOURCE_DATE_EPOCH", value)));
        succeed(&mut command);
        let image = read_image(&dir.path().join("out"));
        assert_eq!(image.config["created"], created);
        let annotations = json!({"org.opencontainers.image.created": created, "a": "b=c"});
        assert_eq!(image.manifest["annotations"], annotations);
    }
}

#[test]
fn a_config_brings_its_date_unless_another_is_given() {
    let (dir, rootfs) = odd();
    let config = dir.path().join("config.json");
    let created = "2024-05-06T07:08:09.123456789Z";
    let text = json!({"created": created, "architecture": "amd64", "os": "linux", "config": {}});
    fs::write(&config, text.to_string()).unwrap();
    let config = config.to_str().unwrap();
    let date = |flags: &[&str]| {
        build_layout(
            dir.path(),
            &rootfs,
            &[&["--config", config], flags].concat(),
        );
        let image = read_image(&dir.path().join("out"));
        let annotation = &image.manifest["annotations"]["org.opencontainers.image.created"];
        assert_eq!(annotation, &image.config["created"]);
        image.config["created"].as_str().unwrap().to_owned()
    };
    assert_eq!(date(&[]), created);
    assert_eq!(date(&["--timestamp", "1000"]), "1970-01-01T00:16:40Z");
    fs::write(config, json!({"created": "", "config": {}}).to_string()).unwrap();
    assert_eq!(date(&[]), "2023-11-14T22:13:20Z");
}

#[test]
fn the_image_does_not_depend_on_who_told_the_config() {
    let (dir, rootfs) = odd();
    // The same image as docker writes its config, as OCI has it, and as podman inspects it.
    let docker = json!({"os": "linux", "created": "2024-05-06T07:08:09Z", "architecture": "amd64", "container": "x",
        "config": {"Hostname": "h", "Domainname": "", "Tty": false, "Env": ["A=b"], "Cmd": ["sh"], "Image": "",
            "Entrypoint": [], "Volumes": null, "Healthcheck": {"Test": ["NONE"]}, "Labels": {"k": "v"}}});
    let oci = json!({"architecture": "amd64", "config": {"Labels": {"k": "v"}, "Cmd": ["sh"], "Env": ["A=b"],
        "Healthcheck": {"Test": ["NONE"]}}, "os": "linux", "created": "2024-05-06T07:08:09Z"});
    let inspected = json!([{"Id": "x", "Created": "2024-05-06T07:08:09Z", "Architecture": "amd64", "Os": "linux",
        "Author": "", "Config": {"Env": ["A=b"], "Cmd": ["sh"], "Labels": {"k": "v"}}, "Healthcheck": {"Test": ["NONE"]}}]);
    let digests: Vec<String> = [docker, oci, inspected]
        .iter()
        .map(|config| {
            let file = dir.path().join("config.json");
            fs::write(&file, config.to_string()).unwrap();
            build_layout(dir.path(), &rootfs, &["--config", file.to_str().unwrap()])
        })
        .collect();
    assert!(
        digests.iter().all(|digest| *digest == digests[0]),
        "{digests:?}"
    );
}

/// The container config but for the label with the plan, which tests/images/previous.rs reads.
fn without_plan(config: &Value) -> Value {
    let mut container = config["config"].clone();
    let labels = container["Labels"].as_object_mut().unwrap();
    assert!(labels.remove("apt-ostree-helper.plan").is_some());
    container
}
