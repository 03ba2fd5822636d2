//! Where `build` writes: layouts with and without tags, archives, standard output, and what it
//! says where.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::*;
use serde_json::Value;

fn index(layout: &Path) -> Vec<(Option<String>, Value)> {
    let index = fs::read(layout.join("index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    let manifests = index["manifests"].as_array().unwrap().iter();
    let name = |m: &Value| {
        m["annotations"]["org.opencontainers.image.ref.name"]
            .as_str()
            .map(str::to_owned)
    };
    manifests.map(|m| (name(m), m["digest"].clone())).collect()
}

#[test]
fn a_tag_joins_others_and_no_tag_replaces_what_has_none() {
    let dir = scratch();
    let rootfs = tiny(dir.path());
    let layout = dir.path().join("layout");
    let build = |rootfs: &Rootfs, tag: &str, extra: &[&str]| {
        let output = format!("oci:{}{tag}", layout.display());
        let base = ["build", "-q", "--rootfs", rootfs.str(), "-o", &output];
        Value::from(run(&[&base[..], extra].concat()))
    };
    let name = |tag: &str| Some(tag.to_owned());
    let one = build(&rootfs, ":one", &[]);
    assert_eq!(index(&layout), [(name("one"), one.clone())]);
    rootfs.file("usr/bin/bar", "bar").settle();
    let two = build(&rootfs, "", &["--tag", "two"]);
    assert_ne!(one, two);
    assert_eq!(
        index(&layout),
        [(name("one"), one.clone()), (name("two"), two.clone())]
    );
    for digest in [&one, &two] {
        check_layers(&read_manifest(&layout, digest), true, 2);
    }
    let three = build(&rootfs, ":one", &["--timestamp", "3"]);
    assert_eq!(
        index(&layout),
        [(name("two"), two.clone()), (name("one"), three)]
    );
    read_manifest(&layout, &two);

    // An image without a tag takes the place of one without a tag, and of no other.
    let tagged = index(&layout);
    for timestamp in ["4", "5"] {
        let alone = build(&rootfs, "", &["--timestamp", timestamp]);
        let all = [&tagged[..], &[(None, alone.clone())]].concat();
        assert_eq!(index(&layout), all);
        read_manifest(&layout, &alone);
    }
    assert_eq!(names(&layout), ["blobs", "index.json", "oci-layout"]);
    assert_eq!(names(dir.path()), ["layout", "rootfs"]);
}

#[test]
fn an_empty_directory_or_a_mount_point_becomes_the_layout() {
    let dir = scratch();
    let rootfs = tiny(dir.path());
    fs::create_dir(dir.path().join("out")).unwrap();
    let image = build_image(dir.path(), &rootfs, &[]);
    if !is_root() {
        return;
    }
    fs::create_dir(dir.path().join("mounted")).unwrap();
    in_a_mount_namespace(
        r#"mount -t tmpfs tmpfs "$3"
           "$1" build -q --rootfs "$2" -o "oci:$3" --timestamp 1 > /dev/null
           "$1" build -q --rootfs "$2" -o "oci:$3" > /dev/null
           cp -r "$3" "$4""#,
        &[
            &rootfs.path,
            &dir.path().join("mounted"),
            &dir.path().join("copy"),
        ],
    );
    let copy = dir.path().join("copy");
    assert_eq!(read_image(&copy).digest, image.digest);
    assert_eq!(names(&copy), ["blobs", "index.json", "oci-layout"]);
    assert_eq!(
        names(&copy.join("blobs/sha256")).len(),
        image.layers.len() + 2
    );
}

#[test]
fn archives_are_layouts_in_a_tar_file() {
    let dir = scratch();
    let rootfs = tiny(dir.path());
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let flags = [
        "build",
        "-q",
        "--rootfs",
        rootfs.str(),
        "--iidfile",
        &at("iid"),
        "--digestfile",
        &at("digest"),
    ];
    let mut digests = Vec::new();
    let tagged = format!("oci-archive:{}:a/b:1", at("tagged.tar"));
    for (output, file) in [
        (&*at("plain.tar"), "plain.tar"),
        (&tagged, "tagged.tar"),
        ("-", "stdout.tar"),
    ] {
        // An archive that is there is replaced.
        for _ in 0..2 {
            let mut command = helper();
            let done = command.args(flags).args(["-o", output]).output().unwrap();
            assert!(done.status.success(), "{}", stderr(&done));
            match output {
                "-" => fs::write(at(file), done.stdout).unwrap(),
                _ => digests.push(String::from_utf8(done.stdout).unwrap().trim().to_owned()),
            }
        }
        let layout = dir.path().join("layout");
        fs::create_dir(&layout).unwrap();
        succeed(
            Command::new("tar")
                .args(["-xf", &at(file), "-C"])
                .arg(&layout),
        );
        let image = read_image(&layout);
        digests.push(image.digest);
        let id = fs::read_to_string(at("iid")).unwrap();
        assert_eq!(image.manifest["config"]["digest"], id);
        digests.push(fs::read_to_string(at("digest")).unwrap());
        assert_eq!(
            image.manifest["layers"][0]["mediaType"],
            "application/vnd.oci.image.layer.v1.tar+gzip"
        );
        let tag = (file == "tagged.tar").then(|| "a/b:1".to_owned());
        assert_eq!(index(&layout)[0].0, tag);
        fs::remove_dir_all(layout).unwrap();
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "{digests:?}");
    assert_eq!(
        names(dir.path()),
        [
            "digest",
            "iid",
            "plain.tar",
            "rootfs",
            "stdout.tar",
            "tagged.tar"
        ]
    );
}

#[test]
fn what_is_said_goes_where_it_belongs() {
    let dir = scratch();
    let rootfs = tiny(dir.path());
    let output = format!("oci:{}", dir.path().join("out").display());
    let said = |extra: &[&str]| {
        let mut command = helper();
        let done = command
            .args(["build", "--rootfs", rootfs.str(), "-o", &output])
            .args(extra)
            .output()
            .unwrap();
        assert!(done.status.success());
        (
            String::from_utf8(done.stdout.clone()).unwrap(),
            stderr(&done),
        )
    };
    let digest = format!("{}\n", build_layout(dir.path(), &rootfs, &[]));
    assert_eq!(said(&["-q"]), (digest.clone(), String::new()));
    let (result, messages) = said(&[]);
    assert_eq!(result, digest);
    assert!(
        messages.contains(" 1 packages, ") && messages.contains(", commit "),
        "{messages}"
    );
    let (result, messages) = said(&["-v", "--json"]);
    assert_eq!(
        serde_json::from_str::<Value>(&result).unwrap()["digest"],
        digest.trim()
    );
    assert!(messages.contains("(the commit)"), "{messages}");
}

#[test]
fn skopeo_reads_the_layout_and_keeps_the_digest() {
    if !has("skopeo") {
        return;
    }
    let (dir, rootfs) = odd();
    let digest = build_layout(
        dir.path(),
        &rootfs,
        &["--compression", "zstd", "--tag", "v1"],
    );
    let layout = format!("oci:{}:v1", dir.path().join("out").display());
    let inspected = succeed(Command::new("skopeo").args(["inspect", &layout]));
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected["Digest"], digest);
    let copy = dir.path().join("copy");
    let to = format!("dir:{}", copy.display());
    let copied = [
        "--insecure-policy",
        "copy",
        "--preserve-digests",
        &layout,
        &to,
    ];
    succeed(Command::new("skopeo").args(copied));
    let manifest = fs::read(copy.join("manifest.json")).unwrap();
    assert_eq!(
        format!("sha256:{}", crate::common::sha256(&manifest)),
        digest
    );
}
