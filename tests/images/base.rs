//! Images above a base image: its layers stay, byte for byte, and with what is put over them they
//! are the root filesystem, whatever was changed in it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::common::fake::*;
use crate::common::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::Value;

fn build(rootfs: &Rootfs, dir: &Path, name: &str, options: &[&str]) -> Value {
    let output = format!("oci:{}", dir.join(name).display());
    let usual = ["--timestamp", "1700000000"];
    build_json(rootfs, &output, &[&usual[..], options].concat())
}

fn layers(built: &Value) -> &[Value] {
    built["layers"].as_array().unwrap()
}

fn digests(layers: &[Value]) -> Vec<&str> {
    layers
        .iter()
        .map(|layer| layer["digest"].as_str().unwrap())
        .collect()
}

/// Builds `new` over a base of `old`, and compares what comes out with `new`.
fn check(dir: &Path, old: &Rootfs, new: &Rootfs, format: &str, options: &[&str]) -> Value {
    let base_options = ["--format", format, "--max-layers", "12"];
    let base = build(old, dir, "base", &base_options);
    let name = format!("oci:{}", dir.join("base").display());
    let more = ["--format", format, "--base", &name];
    let built = build(new, dir, "image", &[&more[..], options].concat());
    let is_encapsulated = format == "ostree";
    let of_commit = usize::from(is_encapsulated);
    let kept = &layers(&base)[of_commit..];
    let found = &layers(&built)[of_commit..];
    assert_eq!(digests(&found[..kept.len()]), digests(kept));
    assert!(
        found[..kept.len()]
            .iter()
            .all(|layer| layer["base"] == true)
    );
    assert!(
        found[kept.len()..]
            .iter()
            .all(|layer| layer["base"] == false)
    );
    // A commit is what it is without a base.
    let alone = build(new, dir, "alone", &["--format", format]);
    assert_eq!(alone["commit"], built["commit"]);
    let image = read_image(&dir.join("image"));
    let (got, wanted) = (apply(&image), wanted(&new.path, is_encapsulated));
    let found = differences(&got, &wanted);
    assert!(found.is_empty(), "{format}: {found}");
    built
}

#[test]
fn the_layers_of_the_base_stay_whatever_has_changed() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let (old, new) = old_and_changed(dir.path());
    for format in ["plain", "ostree"] {
        for compression in ["none", "gzip", "zstd"] {
            let options = ["--compression", compression];
            let built = check(dir.path(), &old, &new, format, &options);
            let above: u64 = layers(&built)
                .iter()
                .filter(|layer| {
                    layer["base"] == false && layer["components"] != serde_json::json!([])
                })
                .map(|layer| layer["uncompressed_size"].as_u64().unwrap())
                .sum();
            // The large file did not change. It is no hard link any more, of which a commit knows
            // nothing.
            let expected = match format {
                "plain" => 300_000..400_000,
                _ => 10_000..100_000,
            };
            assert!(expected.contains(&above), "{format}: {above}");
            let layout = dir.path().join("image").display().to_string();
            if format == "plain" {
                judged(&["same", &layout, new.str()]);
            }
            for tool in ["inspect", "diff"] {
                let name = format!("oci:{layout}");
                let names = [tool, &name, &name];
                run(&names[..if tool == "diff" { 3 } else { 2 }]);
            }
        }
    }
}

#[test]
fn what_has_not_changed_needs_no_layer_of_its_own() {
    let dir = scratch();
    let old = odd_rootfs(dir.path().join("old"));
    let built = check(dir.path(), &old, &old, "plain", &[]);
    assert!(layers(&built).iter().all(|layer| layer["base"] == true));
    let built = check(dir.path(), &old, &old, "ostree", &[]);
    assert!(
        layers(&built)[1..]
            .iter()
            .all(|layer| layer["base"] == true)
    );
}

/// The commit is whole in the image, and read by a program that knows nothing of bases.
#[test]
fn an_encapsulated_image_above_a_base_is_imported() {
    if !has("ostree") || !is_root() {
        return;
    }
    let dir = scratch();
    let old = odd_rootfs(dir.path().join("old"));
    let new = changed(&old, &dir.path().join("new"));
    let built = check(dir.path(), &old, &new, "ostree", &[]);
    let repo = repository(dir.path(), "repo", "bare");
    let image = format!("oci:{}", dir.path().join("image").display());
    let told = run_json(&["import", "-q", "--repo", &repo, "-b", "x", &image]);
    assert_eq!(told["commit"], built["commit"]);
    ostree(&repo, &["fsck", "-q"]);
    let checkout = dir.path().join("checkout");
    ostree(&repo, &["checkout", "x", checkout.to_str().unwrap()]);
    let found = differences(&read_tree(&checkout), &in_a_checkout(&new));
    assert!(found.is_empty(), "{found}");
    // An image above it keeps its layers, but for what was put over those of its base.
    let newest = copy(&new, &dir.path().join("newest"));
    newest.dir("usr/share/odd/owned").settle();
    let again = build(&newest, dir.path(), "again", &["--base", &image]);
    let mended =
        |layer: &&Value| layer["base"] == false && layer["components"] == serde_json::json!([]);
    let mending = layers(&built)[1..].iter().find(mended).unwrap();
    let kept: Vec<Value> = layers(&built)[1..].to_vec();
    let kept: Vec<Value> = kept.into_iter().filter(|layer| layer != mending).collect();
    assert_eq!(digests(&layers(&again)[1..=kept.len()]), digests(&kept));
    let found = differences(
        &apply(&read_image(&dir.path().join("again"))),
        &wanted(&newest.path, true),
    );
    assert!(found.is_empty(), "{found}");
}

/// Two variants share the base's layers, and an update of one of them takes over its own.
#[test]
fn variants_of_one_base_share_its_layers() {
    let dir = scratch();
    let base = three_packages(dir.path(), "base-rootfs", "1", "x");
    let name = format!("oci:{}", dir.path().join("base").display());
    for format in ["plain", "ostree"] {
        let format = ["--format", format];
        let built = build(&base, dir.path(), "base", &format);
        let of_base: BTreeSet<&str> = digests(layers(&built)).into_iter().collect();
        let mut shared = Vec::new();
        for variant in ["red", "blue"] {
            let rootfs = copy(&base, &dir.path().join(format!("{variant}{}", format[1])));
            rootfs
                .file(&format!("opt/{variant}/x"), variant.repeat(100_000))
                .file(&format!("srv/{variant}"), "1")
                .settle();
            let options = [&format[..], &["--base", &name]].concat();
            let first = build(&rootfs, dir.path(), variant, &options);
            let all: BTreeSet<&str> = digests(layers(&first)).into_iter().collect();
            shared.push(all.intersection(&of_base).count());
            rootfs.file(&format!("srv/{variant}"), "2").settle();
            let previous = format!("oci:{}", dir.path().join(variant).display());
            let options = [&options[..], &["--previous", &previous]].concat();
            let second = build(&rootfs, dir.path(), "second", &options);
            let is_kept = |layer: &&Value| layer["components"].to_string().contains("opt/");
            let opt = |built: &Value| layers(built).iter().find(is_kept).unwrap().clone();
            assert_eq!(opt(&second)["taken_over"], true);
            assert_eq!(opt(&second)["digest"], opt(&first)["digest"]);
            // The components of the base are planned by nobody here.
            assert_eq!(layers(&first).len(), layers(&second).len());
        }
        let expected = of_base.len() - usize::from(format[1] == "ostree");
        assert_eq!(shared, [expected, expected], "{format:?}");
    }
}

#[test]
fn layers_of_a_base_in_the_same_repository_are_not_sent() {
    if !has_registry() {
        return;
    }
    let dir = scratch();
    let registry = Registry::start(dir.path());
    let old = three_packages(dir.path(), "old", "1", "x");
    let new = three_packages(dir.path(), "new", "2", "x");
    let (base, image) = (registry.name("os:base"), registry.name("os:image"));
    build_to(&old, &base, &["--format", "plain"]);
    registry.forget();
    let built = build_to(&new, &image, &["--format", "plain", "--base", &base]);
    let made = layers(&built).iter().filter(|layer| layer["base"] == false);
    assert_eq!(registry.uploads(), made.count() + 1, "and the config");
    // The whole image is there, and the same as one that was made in a layout.
    let local = build_to(
        &new,
        &layout_in(dir.path(), "local"),
        &[
            "--format",
            "plain",
            "--compression",
            "gzip",
            "--base",
            &base,
        ],
    );
    assert_eq!(local["digest"], built["digest"]);
    run_json(&["inspect", &image, PLAIN]);
}

#[test]
fn what_cannot_be_a_base_is_refused() {
    let dir = scratch();
    let rootfs = three_packages(dir.path(), "rootfs", "1", "x");
    let at = |name: &str| format!("oci:{}", dir.path().join(name).display());
    build(&rootfs, dir.path(), "plain", &["--format", "plain"]);
    build(&rootfs, dir.path(), "one", &["--max-layers", "1"]);
    build(&rootfs, dir.path(), "arm", &["--arch", "arm64"]);
    rootfs.file("opt/new", "new").settle();
    let refused = |status: i32, options: &[&str]| {
        let base = ["build", "-q", "--rootfs", rootfs.str(), "-o"];
        let out = at("out");
        let said = fail(status, &[&base[..], &[&out], options].concat());
        assert!(!dir.path().join("out").exists());
        said
    };
    for (options, why) in [
        (
            &["--base", &at("plain")][..],
            "is not an encapsulated commit",
        ),
        (&["--base", &at("one")], "only one layer"),
        (&["--base", &at("arm")], "is for arm64"),
        (&["--base", &at("none")], "is not there"),
        (
            &[
                "--base",
                &at("plain"),
                "--format",
                "plain",
                "--max-layers",
                "2",
            ],
            "only 2 are allowed; allow more with --max-layers",
        ),
    ] {
        let said = refused(1, options);
        assert!(said.contains(why), "{options:?}: {said}");
    }
    let said = refused(2, &["--base", "auto"]);
    assert!(said.contains("name it with --base IMAGE"), "{said}");
    // A base whose blob is damaged.
    let base = build(&rootfs, dir.path(), "plain", &["--format", "plain"]);
    let digest = digests(layers(&base))[0].replace("sha256:", "blobs/sha256/");
    fs::write(dir.path().join("plain").join(digest), "damaged").unwrap();
    let said = refused(1, &["--base", &at("plain"), "--format", "plain"]);
    assert!(said.contains("missing or damaged"), "{said}");
}

#[test]
fn a_plan_above_a_base_has_what_a_build_puts_there() {
    let dir = scratch();
    let old = three_packages(dir.path(), "old", "1", "x");
    let new = three_packages(dir.path(), "new", "2", "x");
    build(&old, dir.path(), "base", &[]);
    let base = format!("oci:{}", dir.path().join("base").display());
    let built = build(&new, dir.path(), "image", &["--base", &base]);
    let planned = run_json(&["plan", "-q", "--rootfs", new.str(), "--base", &base]);
    let above: Vec<&Value> = layers(&built)
        .iter()
        .filter(|layer| layer["base"] == false && layer["components"] != serde_json::json!([]))
        .map(|layer| &layer["components"])
        .collect();
    let planned = planned["layers"].as_array().unwrap().iter();
    let planned: Vec<&Value> = planned.map(|layer| &layer["components"]).collect();
    assert_eq!(planned, above);
}

/// podman and buildah say in an image what it was built from.
#[test]
fn the_base_is_found_in_the_annotations_of_what_is_read() {
    let dir = scratch();
    let old = three_packages(dir.path(), "old", "1", "x");
    let new = three_packages(dir.path(), "new", "2", "x");
    let base = build(&old, dir.path(), "base", &["--format", "plain"]);
    let name = format!("oci:{}", dir.path().join("base").display());
    let annotation = format!("org.opencontainers.image.base.name={name}");
    let plain = ["--format", "plain"];
    let said = [&plain[..], &["--annotation", &annotation]].concat();
    build(&new, dir.path(), "built", &said);
    let built = format!("oci:{}", dir.path().join("built").display());
    let out = format!("oci:{}", dir.path().join("out").display());
    let arguments = [
        "build", "-q", "--from", &built, "-o", &out, "--base", "auto",
    ];
    let report = run_json(&[&arguments[..], &plain].concat());
    let kept = layers(&base).len();
    assert_eq!(digests(&layers(&report)[..kept]), digests(layers(&base)));
    // The same of an image in the storage of podman, or buildah.
    for (backend, pointer) in [
        ("podman", "/0/Annotations"),
        ("buildah", "/ImageAnnotations"),
    ] {
        let fake = Fake::new(&[backend]);
        let file = if backend == "podman" {
            "config"
        } else {
            "buildah-config"
        };
        let mut config: Value =
            serde_json::from_str(&fs::read_to_string(fake.at(file)).unwrap()).unwrap();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[field] =
            serde_json::json!({"org.opencontainers.image.base.name": name});
        fake.write(file, &config.to_string());
        fake.write("rootfs-path", new.str());
        let mut arguments = arguments.to_vec();
        arguments[3] = "image";
        let arguments = [&arguments[..], &plain, &["--json"]].concat();
        let done = fake.run(&arguments);
        assert!(done.status.success(), "{}", stderr(&done));
        let report: Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!(digests(&layers(&report)[..kept]), digests(layers(&base)));
    }
}

/// Other programs fill an archive up to a whole record of 10 KiB.
#[test]
fn what_follows_the_end_of_an_archive_counts() {
    let dir = scratch();
    let rootfs = tiny(dir.path());
    let mut layer = Tar::default().add("usr/bin/foo", What::File(b"foo")).end();
    layer.resize(10_240, 0);
    let base = ImageWriter::plain(vec![layer]).write(&dir.path().join("base"));
    let built = build(
        &rootfs,
        dir.path(),
        "out",
        &["--format", "plain", "--base", &base],
    );
    assert_eq!(layers(&built)[0]["uncompressed_size"], 10_240);
}

/// Any two trees, one above the other.
#[test]
fn any_tree_comes_out_above_any_other() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let config = Config {
        cases: 25,
        failure_persistence: None,
        ..Config::default()
    };
    let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, random);
    let trees = (things(), things());
    let outcome = runner.run(&trees, |(old, new)| {
        let old = make(&dir.path().join("old"), &old);
        let new = make(&dir.path().join("new"), &new);
        for format in ["plain", "ostree"] {
            check(dir.path(), &old, &new, format, &[]);
        }
        Ok(())
    });
    outcome.unwrap();
}
