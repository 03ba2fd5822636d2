//! An import that is ended at any moment: the repository stays whole, names no commit that is not,
//! and the next import completes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{
    Rootfs, build_json, fail, has, is_root, names, ostree, repository, run, scratch, tiny,
};
use rustix::process::{Pid, Signal, kill_process};

/// An image of many files, 16 MB.
fn image(dir: &Path) -> (String, String) {
    let rootfs = Rootfs::new(dir.join("rootfs"));
    for n in 0..400u32 {
        let content: Vec<u8> = (0..10_000u32)
            .flat_map(|at| (at * (n + 1)).to_le_bytes())
            .collect();
        rootfs.file(&format!("usr/share/{}/{n}", n % 20), content);
    }
    rootfs.settle();
    let image = format!("oci:{}", dir.join("image").display());
    let said = build_json(&rootfs, &image, &[]);
    (image, said["commit"].as_str().unwrap().to_owned())
}

fn import(repo: &str, image: &str) -> Command {
    // A shell ignores signals for what it starts in the background.
    let mut command = Command::new("env");
    command
        .args([
            "--default-signal=HUP,INT,TERM",
            env!("CARGO_BIN_EXE_apt-ostree-helper"),
        ])
        .args(["import", "-q", "--repo", repo, "-b", "test", image])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

#[test]
fn an_interrupted_import_harms_nothing_and_the_next_completes() {
    if !has("ostree") || !is_root() {
        return;
    }
    let dir = scratch();
    let (image, commit) = image(dir.path());
    let repo = repository(dir.path(), "measured", "bare-user");
    let start = Instant::now();
    assert!(import(&repo, &image).status().unwrap().success());
    let whole = start.elapsed();
    // The same moments in every run, in parts of a whole import.
    for (n, permille) in [3, 120, 250, 380, 500, 610, 720, 810, 900, 960]
        .into_iter()
        .enumerate()
    {
        for (signal, name) in [(Signal::TERM, "term"), (Signal::KILL, "kill")] {
            let repo = repository(dir.path(), &format!("{name}-{n}"), "bare-user");
            let mut child = import(&repo, &image).spawn().unwrap();
            std::thread::sleep(whole * permille / 1000);
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
            kill_process(pid, signal).unwrap();
            child.wait().unwrap();
            ostree(&repo, &["fsck", "-q"]);
            let refs = ostree(&repo, &["refs"]);
            assert!(
                refs.is_empty() || ostree(&repo, &["rev-parse", "test"]) == commit,
                "{refs}"
            );
            // fsck passes over commits that are marked as partial.
            let partial = Path::new(&repo).join(format!("state/{commit}.commitpartial"));
            assert!(refs.is_empty() || !partial.exists(), "at {permille}");
            if signal == Signal::TERM && refs.is_empty() {
                let find = ["-path", "*/objects/*", "-type", "f"];
                let left = crate::common::succeed(Command::new("find").arg(&repo).args(find));
                let staged = crate::common::succeed(Command::new("find").arg(&repo).args([
                    "-name",
                    "staging-*",
                    "-type",
                    "d",
                ]));
                let left = left.lines().count();
                assert_eq!((left, staged.as_str()), (0, ""), "at {permille}");
            }
            assert!(import(&repo, &image).status().unwrap().success());
            assert_eq!(ostree(&repo, &["rev-parse", "test"]), commit);
            assert!(!partial.exists(), "at {permille}");
            ostree(&repo, &["fsck", "-q"]);
            fs::remove_dir_all(&repo).unwrap();
        }
    }
    assert!(
        whole > Duration::from_millis(20),
        "{whole:?} is too short to be interrupted"
    );
}

/// Objects come to their place one by one. Whichever of them cannot, a commit that is there before
/// the others is marked as partial.
#[test]
fn a_commit_that_came_before_its_objects_is_partial() {
    if !has("ostree") || !is_root() {
        return;
    }
    let dir = scratch();
    let rootfs = tiny(dir.path());
    let image = format!("oci:{}", dir.path().join("image").display());
    run(&["build", "-q", "--rootfs", rootfs.str(), "-o", &image]);
    let whole = repository(dir.path(), "whole", "bare-user");
    run(&["import", "-q", "--repo", &whole, "-b", "test", &image]);
    let commit = ostree(&whole, &["rev-parse", "test"]);
    for prefix in names(&Path::new(&whole).join("objects")) {
        let repo = repository(dir.path(), "repo", "bare-user");
        let objects = Path::new(&repo).join("objects");
        // What only shows when an object is moved to its place.
        symlink("nowhere", objects.join(&prefix)).unwrap();
        let arguments = ["import", "-q", "--repo", &repo, "-b", "test", &image];
        let said = fail(1, &arguments);
        assert!(said.contains("writing to the repository"), "{said}");
        fs::remove_file(objects.join(&prefix)).unwrap();
        ostree(&repo, &["fsck", "-q"]);
        assert_eq!(ostree(&repo, &["refs"]), "");
        let (first, rest) = commit.split_at(2);
        let is_there = objects.join(format!("{first}/{rest}.commit")).exists();
        let mark = Path::new(&repo).join(format!("state/{commit}.commitpartial"));
        assert_eq!(mark.exists(), is_there, "{prefix}");
        assert_eq!(run(&arguments), commit);
        assert!(!mark.exists());
        ostree(&repo, &["fsck", "-q"]);
        fs::remove_dir_all(&repo).unwrap();
    }
}
