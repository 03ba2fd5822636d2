//! The plan as a file beside a Containerfile: the first build writes it, each later one follows and
//! writes it, and git merges it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::*;
use serde_json::{Value, json};

/// A system with these packages, each with a file of so many bytes.
fn system(dir: &Path, packages: &[(&str, usize)]) -> Rootfs {
    let path = dir.join("rootfs");
    let _ = fs::remove_dir_all(&path);
    let rootfs = Rootfs::new(path);
    let paths = packages.iter().map(|(name, size)| {
        let path = format!("usr/lib/{name}/data");
        rootfs.file(&path, vec![name.as_bytes()[0]; *size]);
        path
    });
    let paths: Vec<String> = paths.collect();
    let lists: Vec<[&str; 1]> = paths.iter().map(|path| [path.as_str()]).collect();
    let packages: Vec<(&str, &str, &str, &[&str])> = packages
        .iter()
        .zip(&lists)
        .map(|((name, _), list)| (*name, *name, "1-1", &list[..]))
        .collect();
    rootfs.packages(&packages).settle();
    rootfs
}

const BASE: [(&str, usize); 9] = [
    ("ant", 900_000),
    ("bee", 700_000),
    ("cow", 500_000),
    ("dog", 80_000),
    ("elk", 70_000),
    ("fox", 60_000),
    ("gnu", 9_000),
    ("hen", 8_000),
    ("ibex", 7_000),
];

fn with<'a>(more: &[(&'a str, usize)]) -> Vec<(&'a str, usize)> {
    [&BASE[..], more].concat()
}

/// Builds with one file as the plan that is followed and written.
fn build(rootfs: &Rootfs, dir: &Path, lock: &Path) -> Value {
    let lock = lock.to_str().unwrap();
    let output = format!("oci:{}", dir.join("out").display());
    let options = ["--timestamp", "1700000000", "--max-layers", "8"];
    let plan = ["--plan", lock, "--write-plan", lock];
    build_json(rootfs, &output, &[&options[..], &plan].concat())
}

/// The components of each layer that has any.
fn layers(built: &Value) -> Vec<Vec<String>> {
    let layers = built["layers"].as_array().unwrap().iter();
    let names = layers.map(|layer| {
        let names = layer["components"].as_array().unwrap().iter();
        names
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    });
    names
        .filter(|names: &Vec<String>| !names.is_empty())
        .collect()
}

/// Layer by component.
fn homes(built: &Value) -> BTreeMap<String, usize> {
    let layers = layers(built).into_iter().enumerate();
    layers
        .flat_map(|(at, names)| names.into_iter().map(move |name| (name, at)))
        .collect()
}

#[test]
fn the_first_build_writes_the_file_and_the_next_leaves_it_as_it_is() {
    let dir = scratch();
    let lock = dir.path().join("plan.json");
    let first = build(&system(dir.path(), &BASE), dir.path(), &lock);
    let text = fs::read_to_string(&lock).unwrap();
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(told["version"], 1);
    let lines = layers(&first).into_iter().flatten();
    for name in lines {
        let line = format!("\"{name}\"");
        let is_it = |text: &&str| text.trim().trim_end_matches(',') == line;
        assert_eq!(text.lines().filter(is_it).count(), 1, "{name}");
    }
    // What changes from build to build is not in it.
    let mut changed = BASE;
    changed[2].1 = 510_000;
    let second = build(&system(dir.path(), &changed), dir.path(), &lock);
    assert_ne!(first["digest"], second["digest"]);
    assert_eq!(fs::read_to_string(&lock).unwrap(), text);
    // 'plan' writes what 'build' does.
    let planned = dir.path().join("planned.json");
    let rootfs = system(dir.path(), &BASE);
    let arguments = ["plan", "-q", "--rootfs", rootfs.str(), "--max-layers", "8"];
    let written = ["--write-plan", planned.to_str().unwrap()];
    run(&[&arguments[..], &written].concat());
    assert_eq!(fs::read_to_string(&planned).unwrap(), text);
}

/// Two branches each add packages at the end of the same layers, and their files become one.
#[test]
fn git_merges_what_two_branches_add() {
    if !has("git") {
        return;
    }
    let dir = scratch();
    let repo = dir.path().join("repo");
    fs::create_dir(&repo).unwrap();
    let lock = repo.join("plan.json");
    let git = |arguments: &[&str]| {
        let user = ["-c", "user.name=t", "-c", "user.email=t@example.org"];
        let mut git = Command::new("git");
        git.arg("-C").arg(&repo).args(user).args(arguments);
        git.env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1");
        succeed(&mut git);
    };
    git(&["init", "-q", "-b", "main"]);
    fs::write(repo.join(".gitattributes"), "plan.json merge=union\n").unwrap();
    let base = build(&system(dir.path(), &BASE), dir.path(), &lock);
    git(&["add", "."]);
    git(&["commit", "-q", "-m", "base"]);
    let ours = [("yak", 300_000), ("zebu", 2_000)];
    let theirs = [("yeti", 310_000), ("zebra", 2_100)];
    for (branch, more) in [("ours", &ours), ("theirs", &theirs)] {
        git(&["checkout", "-q", "-b", branch, "main"]);
        build(&system(dir.path(), &with(more)), dir.path(), &lock);
        git(&["commit", "-q", "-a", "-m", branch]);
    }
    git(&["merge", "-q", "-m", "both", "ours"]);
    let all = with(&[ours, theirs].concat());
    let merged = build(&system(dir.path(), &all), dir.path(), &lock);
    let (before, after) = (homes(&base), homes(&merged));
    for (name, _) in BASE {
        assert_eq!(after[name], before[name], "{name}");
    }
    for (name, _) in ours.iter().chain(&theirs) {
        assert!(after.contains_key(*name), "{name}");
    }
    // It is JSON again, and stays as it is.
    let text = fs::read_to_string(&lock).unwrap();
    serde_json::from_str::<Value>(&text).unwrap();
    let again = build(&system(dir.path(), &all), dir.path(), &lock);
    assert_eq!(again["digest"], merged["digest"]);
    assert_eq!(fs::read_to_string(&lock).unwrap(), text);
}

#[test]
fn a_plan_that_is_older_partial_or_of_what_is_gone_is_followed() {
    let dir = scratch();
    let lock = dir.path().join("plan.json");
    // As earlier releases wrote it, about packages of which some are gone; one is there twice.
    let layer = |names: &[&str]| {
        json!({"components": names, "chance": 0.5, "key": "00",
        "diff_id": "sha256:00", "uncompressed_size": 5})
    };
    let plan = json!({"version": 1, "layers": [layer(&[]), layer(&["auk", "fox", "ant"]),
        layer(&["emu"]), layer(&["hen", "ant"])]});
    fs::write(&lock, plan.to_string()).unwrap();
    let built = build(&system(dir.path(), &BASE), dir.path(), &lock);
    let homes = homes(&built);
    assert_eq!((homes["fox"], homes["ant"], homes["hen"]), (0, 0, 1));
    for (name, _) in BASE {
        assert!(homes.contains_key(name), "{name}");
    }
    let text = fs::read_to_string(&lock).unwrap();
    assert!(!text.contains("auk") && !text.contains("chance"), "{text}");
}

#[test]
fn a_file_may_be_missing_only_where_it_is_written() {
    let dir = scratch();
    let rootfs = system(dir.path(), &BASE[..2]);
    let plan = |plan: &str, written: &str| {
        let at = |name: &str| format!("{}/{name}", dir.path().display());
        let (plan, written) = (at(plan), at(written));
        let mut arguments = vec!["plan", "-q", "--rootfs", rootfs.str(), "--plan", &plan];
        if !written.ends_with('/') {
            arguments.extend(["--write-plan", &written]);
        }
        helper().args(arguments).output().unwrap()
    };
    for (read, written) in [("plan.json", ""), ("plan.json", "other.json")] {
        let done = plan(read, written);
        assert_eq!(done.status.code(), Some(1));
        assert!(stderr(&done).contains("plan.json"), "{}", stderr(&done));
    }
    // By another way to the same file.
    assert!(plan("plan.json", "./rootfs/../plan.json").status.success());
    assert!(dir.path().join("plan.json").exists());
    assert!(plan("plan.json", "other.json").status.success());
}
