//! Layers of an earlier image that stay although some of their files have changed: what comes out
//! is the root filesystem, clients fetch little more than what changed, and dead weight is bounded.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::common::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};

fn name(dir: &Path, image: &str) -> String {
    format!("oci:{}", dir.join(image).display())
}

fn build(rootfs: &Rootfs, dir: &Path, image: &str, options: &[&str]) -> Value {
    let usual = ["--timestamp", "1700000000"];
    build_json(rootfs, &name(dir, image), &[&usual[..], options].concat())
}

fn layers(built: &Value) -> &[Value] {
    built["layers"].as_array().unwrap()
}

fn sum(layers: &[Value], field: &str) -> u64 {
    layers
        .iter()
        .map(|layer| layer[field].as_u64().unwrap())
        .sum()
}

fn digests(built: &Value) -> BTreeSet<&str> {
    let layers = layers(built).iter();
    layers
        .map(|layer| layer["digest"].as_str().unwrap())
        .collect()
}

/// Bytes that who has `old` fetches for `new`, uncompressed, the commit apart.
fn fetched(old: &Value, new: &Value) -> u64 {
    let old = digests(old);
    let is_new = |layer: &&Value| !old.contains(layer["digest"].as_str().unwrap());
    let new = layers(new).iter().filter(is_new);
    let of_content = new.filter(|layer| layer["components"] != json!([]));
    of_content
        .map(|layer| layer["uncompressed_size"].as_u64().unwrap())
        .sum()
}

/// Builds `new` with layers of the image `old`, and compares what comes out with `new`.
fn follow(dir: &Path, new: &Rootfs, [old, image]: [&str; 2], options: &[&str]) -> Value {
    let old = name(dir, old);
    let built = build(new, dir, image, &[options, &["--previous", &old]].concat());
    let is_encapsulated = !options.contains(&"plain");
    let got = apply(&read_image(&dir.join(image)));
    let found = differences(&got, &wanted(&new.path, is_encapsulated));
    assert!(found.is_empty(), "{options:?}: {found}");
    let dead = sum(layers(&built), "dead_size");
    let all = sum(layers(&built), "uncompressed_size");
    assert!(dead * 10 <= all, "{dead} of {all} bytes are dead");
    built
}

#[test]
fn what_comes_out_is_the_rootfs_whatever_has_changed() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let (old, new) = old_and_changed(dir.path());
    for format in ["plain", "ostree"] {
        for compression in ["none", "gzip", "zstd"] {
            let options = ["--format", format, "--compression", compression];
            build(&old, dir.path(), "old-image", &options);
            let options = [&options[..], &["--max-waste", "10%"]].concat();
            follow(dir.path(), &new, ["old-image", "image"], &options);
            // And the way back, above what is above.
            follow(dir.path(), &old, ["image", "back"], &options);
            let (layout, dir) = (dir.path().join("back"), dir.path());
            if format == "plain" {
                judged(&["same", &layout.display().to_string(), old.str()]);
            }
            run(&["inspect", &name(dir, "back")]);
            run(&["diff", &name(dir, "image"), &name(dir, "back")]);
        }
    }
}

/// A package of a hundred files, of which one changes.
fn many_files(dir: &Path, name: &str, changed: &[usize]) -> Rootfs {
    let rootfs = Rootfs::new(dir.join(name));
    let paths: Vec<String> = (0..100).map(|n| format!("usr/share/many/{n}")).collect();
    for (n, path) in paths.iter().enumerate() {
        let version = changed.iter().filter(|other| **other == n).count();
        rootfs.file(path, format!("{n} {version} ").repeat(2000));
    }
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    rootfs.file("usr/bin/a", vec![b'a'; 50_000]);
    rootfs.packages(&[
        ("many", "many", &format!("1.{}", changed.len()), &paths),
        ("a", "a", "1", &["usr/bin/a"]),
    ]);
    rootfs.settle();
    rootfs
}

#[test]
fn a_client_fetches_the_files_that_changed() {
    let dir = scratch();
    let old = many_files(dir.path(), "old", &[]);
    let new = many_files(dir.path(), "new", &[7]);
    for format in ["ostree", "plain"] {
        let format = ["--format", format];
        let first = build(&old, dir.path(), "first", &format);
        let whole = fetched(&first, &build(&new, dir.path(), "whole", &format));
        let options = [&format[..], &["--max-waste", "10%"]].concat();
        let second = follow(dir.path(), &new, ["first", "second"], &options);
        let less = fetched(&first, &second);
        assert!(whole > 900_000 && less < 60_000, "{less} and not {whole}");
        // What is dead is told, by the build and by the image.
        let dead = sum(layers(&second), "dead_size");
        assert!((8_000..30_000).contains(&dead), "{dead}");
        let told = run_json(&["inspect", &name(dir.path(), "second")]);
        let told = told["layers"].as_array().unwrap().iter();
        let told: u64 = told.filter_map(|layer| layer["dead_size"].as_u64()).sum();
        assert_eq!(told, dead);
        let text = run(&["inspect", &name(dir.path(), "second")]);
        assert!(text.contains("\nof no use     "), "{text}");
    }
}

/// Whatever directories it names, and however much waste there may be.
#[test]
fn a_layer_without_anything_of_use_goes_at_once() {
    let dir = scratch();
    let rootfs = |version: &str| {
        let rootfs = Rootfs::new(dir.path().join(version));
        // Another name, so that what dpkg has of the package is another, too.
        let path = format!("usr/share/deep/down/large-{version}");
        rootfs.file(&path, version.repeat(200_000));
        rootfs.packages(&[("large", "large", version, &[&path])]);
        rootfs.settle();
        rootfs
    };
    let (old, new) = (rootfs("1"), rootfs("2"));
    for format in ["ostree", "plain"] {
        let format = ["--format", format];
        build(&old, dir.path(), "first", &format);
        let options = [&format[..], &["--max-waste", "90%"]].concat();
        let second = follow(dir.path(), &new, ["first", "second"], &options);
        assert_eq!(sum(layers(&second), "dead_size"), 0, "{format:?}");
    }
}

/// The commit is what it is without a memory, a repository gets its objects and no dead ones, and
/// layers that other programs know stay those of the commit.
#[test]
fn an_import_leaves_out_what_is_dead() {
    if !has("ostree") || !is_root() {
        return;
    }
    let dir = scratch();
    let (old, new) = (
        many_files(dir.path(), "old", &[]),
        many_files(dir.path(), "new", &[7, 9]),
    );
    build(&old, dir.path(), "first", &[]);
    let alone = build(&new, dir.path(), "alone", &[]);
    let options = ["--max-waste", "10%"];
    let second = follow(dir.path(), &new, ["first", "second"], &options);
    assert_eq!(second["commit"], alone["commit"]);
    let objects = |image: &str| {
        let repo = repository(dir.path(), &format!("repo-{image}"), "bare");
        let image = name(dir.path(), image);
        let told = run_json(&["import", "-q", "--repo", &repo, "-b", "x", &image]);
        assert_eq!(told["commit"], alone["commit"]);
        ostree(&repo, &["fsck", "-q"]);
        ostree(&repo, &["prune", "--no-prune", "--refs-only"])
    };
    assert_eq!(objects("second"), objects("alone"));
    let pruned = objects("second");
    assert!(pruned.contains("No unreachable objects"), "{pruned}");
}

/// Years of updates: neither layers nor dead weight nor costs grow.
#[test]
fn a_year_of_updates_stays_within_its_bounds() {
    let dir = scratch();
    let options = ["--max-waste", "10%", "--max-layers", "6"];
    let mut changed = Vec::new();
    let rootfs = many_files(dir.path(), "rootfs", &changed);
    let mut built = build(&rootfs, dir.path(), "0", &["--max-layers", "6"]);
    let mut costs = Vec::new();
    for week in 1..=30usize {
        fs::remove_dir_all(dir.path().join("rootfs")).unwrap();
        // Two files each week, some of them often.
        changed.extend([week * 7 % 100, week % 5]);
        let rootfs = many_files(dir.path(), "rootfs", &changed);
        let (old, new) = ((week - 1).to_string(), week.to_string());
        let next = follow(dir.path(), &rootfs, [&old, &new], &options);
        assert!(layers(&next).len() <= 6);
        costs.push(fetched(&built, &next));
        fs::remove_dir_all(dir.path().join(old)).unwrap();
        built = next;
    }
    // The package has 1.2 MB.
    let mean = |costs: &[u64]| costs.iter().sum::<u64>() / costs.len() as u64;
    let (early, late) = (mean(&costs[..10]), mean(&costs[20..]));
    assert!(
        early < 400_000 && late < 400_000,
        "{early}, {late}: {costs:?}"
    );
}

#[test]
fn what_cannot_be_followed_is_no_failure() {
    let dir = scratch();
    let rootfs = three_packages(dir.path(), "rootfs", "1", "x");
    rootfs.dir("srv/nothing/here").settle();
    build(&rootfs, dir.path(), "plain", &["--format", "plain"]);
    let ostree = build(&rootfs, dir.path(), "ostree", &[]);
    build(&rootfs, dir.path(), "arm", &["--arch", "arm64"]);
    let say = |previous: &str, format: &str| {
        let previous = name(dir.path(), previous);
        let out = name(dir.path(), "out");
        let command = ["build", "--rootfs", rootfs.str(), "-o", &out, "--format"];
        let more = [format, "--previous", &previous, "--max-waste", "5"];
        let done = helper()
            .args([&command[..], &more].concat())
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", stderr(&done));
        stderr(&done)
    };
    for (previous, format, why) in [
        ("none", "ostree", "no previous image is followed"),
        ("arm", "ostree", "is for arm64"),
        ("plain", "ostree", "is not an encapsulated commit"),
        ("ostree", "plain", "it is an encapsulated commit"),
    ] {
        let said = say(previous, format);
        assert!(said.contains(why), "{previous}: {said}");
    }
    // What has not changed is the same image.
    let options = ["--max-waste", "10%"];
    let again = follow(dir.path(), &rootfs, ["ostree", "again"], &options);
    assert_eq!(again["digest"], ostree["digest"]);
    assert!(
        layers(&again)[1..]
            .iter()
            .all(|layer| layer["taken_over"] == json!(true))
    );
}

#[test]
fn a_share_without_an_image_is_refused() {
    let dir = scratch();
    let rootfs = three_packages(dir.path(), "rootfs", "1", "x");
    let out = name(dir.path(), "out");
    let refused = |options: &[&str]| {
        let command = ["build", "-q", "--rootfs", rootfs.str(), "-o", &out];
        fail(2, &[&command[..], options].concat())
    };
    let said = refused(&["--max-waste", "10%"]);
    assert!(said.contains("--previous IMAGE"), "{said}");
    for share in ["", "x", "-1", "91%", "NaN"] {
        let said = refused(&["--previous", "oci:x", &format!("--max-waste={share}")]);
        assert!(
            said.contains("percentage from 0% to 90%"),
            "{share}: {said}"
        );
    }
    let said = refused(&["--previous", "oci:x", "--max-waste", "1", "--base", "oci:y"]);
    assert!(said.contains("cannot be used with"), "{said}");
}

/// Blobs stay in the repository that the image goes to.
#[test]
fn layers_that_stay_are_not_sent() {
    if !has_registry() {
        return;
    }
    let dir = scratch();
    let registry = Registry::start(dir.path());
    let (old, new) = (
        many_files(dir.path(), "old", &[]),
        many_files(dir.path(), "new", &[7]),
    );
    let image = registry.name("os:latest");
    build_to(&old, &image, &[]);
    registry.forget();
    let options = ["--previous", &image, "--max-waste", "10%"];
    let built = build_to(&new, &image, &options);
    let made = layers(&built)
        .iter()
        .filter(|layer| layer["taken_over"] == false);
    assert_eq!(registry.uploads(), made.count() + 1, "and the config");
    run_json(&["inspect", &image, PLAIN]);
    let local = layout_in(dir.path(), "local");
    run(&["pull", "-q", PLAIN, &image, &local]);
    let got = apply(&read_image(&dir.path().join("local")));
    let found = differences(&got, &wanted(&new.path, true));
    assert!(found.is_empty(), "{found}");
}

/// Any three trees, each above what came before.
#[test]
fn any_tree_follows_any_other() {
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
    let trees = (things(), things(), things());
    let outcome = runner.run(&trees, |(first, second, third)| {
        for format in ["plain", "ostree"] {
            let options = ["--format", format];
            let first = make(&dir.path().join("first"), &first);
            build(&first, dir.path(), "image-1", &options);
            let second = make(&dir.path().join("second"), &second);
            let share = [&options[..], &["--max-waste", "10%"]].concat();
            follow(dir.path(), &second, ["image-1", "image-2"], &share);
            let third = make(&dir.path().join("third"), &third);
            follow(dir.path(), &third, ["image-2", "image-3"], &share);
        }
        Ok(())
    });
    outcome.unwrap();
}
