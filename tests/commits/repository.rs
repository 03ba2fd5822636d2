//! Commits in repositories: what `commit` writes is what libostree would have written, and what
//! `build --repo` stores is what the image carries.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{
    Rootfs, build_json, differences, fail, has, helper, in_a_checkout, is_root, odd, ostree,
    read_tree, repository, run, scratch, stderr, succeed, tiny,
};
use serde_json::Value;

/// What `commit --json` says.
fn commit(repo: &str, rootfs: &Rootfs, extra: &[&str]) -> Value {
    let base = [
        "commit",
        "-q",
        "--json",
        "--repo",
        repo,
        "--rootfs",
        rootfs.str(),
    ];
    serde_json::from_str(&run(&[&base[..], extra].concat())).unwrap()
}

fn commit_of_build(dir: &Path, rootfs: &Rootfs) -> String {
    let output = format!("oci:{}", dir.join("built").display());
    let said = build_json(rootfs, &output, &[]);
    said["commit"].as_str().unwrap().to_owned()
}

#[test]
fn a_commit_is_the_same_in_every_repository_and_is_the_rootfs_again() {
    if !has("ostree") || !is_root() {
        return;
    }
    let (dir, rootfs) = odd();
    let large: Vec<u8> = (0..900_000u32).map(|n| (n % 251) as u8).collect();
    rootfs.file("usr/share/large", large).settle();
    let wanted = commit_of_build(dir.path(), &rootfs);
    for mode in ["bare", "bare-user", "archive"] {
        let repo = repository(dir.path(), mode, mode);
        let said = commit(&repo, &rootfs, &["-b", "debian/test", "--threads", "2"]);
        assert_eq!(said["commit"], wanted, "{mode}");
        assert_eq!(ostree(&repo, &["rev-parse", "debian/test"]), wanted);
        ostree(&repo, &["fsck", "-q"]);
        let checkout = dir.path().join(format!("checkout-{mode}"));
        ostree(&repo, &["checkout", &wanted, checkout.to_str().unwrap()]);
        assert_eq!(
            differences(&read_tree(&checkout), &in_a_checkout(&rootfs)),
            "",
            "{mode}"
        );

        let again = commit(&repo, &rootfs, &["--orphan"]);
        assert_eq!(
            (&again["commit"], &again["objects_written"]),
            (&said["commit"], &Value::from(0))
        );
    }
}

/// A repository of mode `bare-user-only` cannot hold owners, special bits and attributes.
#[test]
fn permissions_become_canonical_as_libostree_makes_them() {
    if !has("ostree") {
        return;
    }
    let (dir, rootfs) = odd();
    let copy = dir.path().join("copy");
    succeed(Command::new("cp").arg("-a").arg(&rootfs.path).arg(&copy));
    for emptied in ["run", "tmp", "sysroot"] {
        succeed(
            Command::new("find")
                .arg(copy.join(emptied))
                .args(["-mindepth", "1", "-delete"]),
        );
    }
    fs::rename(copy.join("etc"), copy.join("usr/etc")).unwrap();
    let peer = repository(dir.path(), "peer", "bare-user-only");
    let tree = format!("--tree=dir={}", copy.display());
    let kernel = [
        "--add-metadata=ostree.bootable=true",
        "--add-metadata=ostree.linux='6.1'",
    ];
    let base = [
        "commit",
        "--no-bindings",
        "--orphan",
        "-s",
        "",
        "--timestamp=@7",
        &tree,
    ];
    let wanted = ostree(&peer, &[&base[..], &kernel].concat());
    let repo = repository(dir.path(), "repo", "bare-user-only");
    let said = commit(&repo, &rootfs, &["-b", "b", "--timestamp", "7"]);
    assert_eq!(said["commit"], wanted);
    ostree(&repo, &["fsck", "-q"]);
    let asked = repository(dir.path(), "asked", "bare-user");
    let flags = ["-b", "b", "--timestamp", "7", "--canonical-permissions"];
    assert_eq!(commit(&asked, &rootfs, &flags)["commit"], wanted);

    let image = format!("oci:{}", dir.path().join("out").display());
    let build = [
        "build",
        "--rootfs",
        rootfs.str(),
        "-o",
        &image,
        "--repo",
        &repo,
    ];
    assert!(fail(1, &build).contains("bare-user-only"));
    assert!(!dir.path().join("out").exists());
}

#[test]
fn a_commit_says_what_it_was_told_and_follows_its_branch() {
    if !has("ostree") {
        return;
    }
    let (dir, rootfs) = odd();
    let repo = repository(dir.path(), "repo", "bare-user");
    let words = ["-s", "First line", "-m", "The rest.", "--version", "13.1"];
    let metadata = [
        "--add-metadata-string",
        "org.example=a=b",
        "--add-metadata",
        "org.flag=true",
        "--add-metadata",
        "org.text='it is'",
    ];
    let first = commit(
        &repo,
        &rootfs,
        &[&["-b", "b"][..], &words, &metadata].concat(),
    );
    let shown = ostree(&repo, &["show", "b"]);
    for part in ["First line", "The rest.", "Version: 13.1"] {
        assert!(shown.contains(part), "no '{part}' in: {shown}");
    }
    for (key, value) in [
        ("version", "'13.1'"),
        ("org.example", "'a=b'"),
        ("org.flag", "true"),
        ("org.text", "'it is'"),
        ("ostree.bootable", "true"),
        ("ostree.linux", "'6.1'"),
    ] {
        let key = format!("--print-metadata-key={key}");
        assert_eq!(ostree(&repo, &["show", &key, "b"]), value);
    }

    rootfs.file("usr/bin/new", "new").settle();
    let second = commit(&repo, &rootfs, &["-b", "b"]);
    assert_eq!(second["objects_written"], 1, "only the new file");
    let parent = ostree(&repo, &["rev-parse", "b^"]);
    assert_eq!(first["commit"], parent);
    let third = commit(&repo, &rootfs, &["-b", "b", "--parent", "none"]);
    let shown = ostree(&repo, &["show", third["commit"].as_str().unwrap()]);
    assert!(!shown.contains("Parent:"), "{shown}");
    let named = commit(&repo, &rootfs, &["--orphan", "--parent", &parent]);
    let shown = ostree(&repo, &["show", named["commit"].as_str().unwrap()]);
    assert!(shown.contains(&format!("Parent:  {parent}")), "{shown}");
}

#[test]
fn what_cannot_be_meant_is_refused() {
    if !has("ostree") {
        return;
    }
    let dir = scratch();
    let rootfs = tiny(dir.path());
    let repo = repository(dir.path(), "repo", "bare-user");
    let at = |repo: &str, extra: &[&str]| -> Vec<String> {
        let base = ["commit", "--repo", repo, "--rootfs", rootfs.str()];
        [&base[..], extra]
            .concat()
            .iter()
            .map(|s| (*s).to_owned())
            .collect()
    };
    let refused = |status, arguments: Vec<String>, why: &str| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let said = fail(status, &arguments);
        assert!(said.contains(why), "no '{why}' in: {said}");
    };
    refused(2, at(&repo, &[]), "--branch");
    refused(
        2,
        at(&repo, &["-b", "b", "--add-metadata", "k=12"]),
        "neither true, false nor text",
    );
    refused(2, at(&repo, &["-b", "b", "--parent", "abc"]), "64 digits");
    refused(1, at("/no/such/repo", &["-b", "b"]), "/no/such/repo");
    refused(
        1,
        at(rootfs.str(), &["-b", "b"]),
        "not an OSTree repository",
    );
    refused(
        1,
        at(&repo, &["-b", "b", "--sign-commit", "ed25519=/no/key"]),
        "/no/key",
    );
    refused(
        2,
        at(&repo, &["-b", "b", "--sign-commit", "rsa=key"]),
        "unknown type of key",
    );
    refused(1, at(&repo, &["-b", "not..a ref"]), "not..a ref");
    assert_eq!(ostree(&repo, &["refs"]), "");
    let objects = Command::new("find")
        .arg(dir.path().join("repo/objects"))
        .args(["-type", "f"])
        .output();
    assert!(
        objects.unwrap().stdout.is_empty(),
        "nothing is stored under a name that is none"
    );
}

#[test]
fn the_stored_commit_is_the_one_in_the_image() {
    if !has("ostree") {
        return;
    }
    let (dir, rootfs) = odd();
    let repo = repository(dir.path(), "repo", "bare-user");
    let image = format!("oci:{}", dir.path().join("out").display());
    let store = ["--repo", &repo, "--branch", "b"];
    let said = build_json(&rootfs, &image, &store);
    assert_eq!(said["commit"], ostree(&repo, &["rev-parse", "b"]));
    ostree(&repo, &["fsck", "-q"]);
    let again = build_json(&rootfs, &image, &store);
    assert_ne!(said["commit"], again["commit"], "it follows the first");
    assert_eq!(said["commit"], ostree(&repo, &["rev-parse", "b^"]));
}

/// A repository that cannot be written to costs the image too: nothing half done is left.
#[test]
fn a_commit_that_cannot_be_stored_leaves_no_image() {
    if !has("ostree") {
        return;
    }
    let (dir, rootfs) = odd();
    let repo = repository(dir.path(), "repo", "bare-user");
    fs::remove_dir_all(dir.path().join("repo/tmp")).unwrap();
    fs::write(dir.path().join("repo/tmp"), "").unwrap();
    let image = format!("oci:{}", dir.path().join("out").display());
    let build = [
        "build",
        "--rootfs",
        rootfs.str(),
        "-o",
        &image,
        "--repo",
        &repo,
    ];
    assert!(fail(1, &build).contains(&repo));
    let left = crate::common::names(dir.path());
    assert_eq!(left, ["repo", "rootfs"]);
}

/// Without libostree the same program says so instead of failing oddly.
#[test]
fn a_wrong_repository_is_found_before_the_rootfs_is_read() {
    let (dir, rootfs) = odd();
    let repo = dir.path().join("none").display().to_string();
    let output = helper()
        .args([
            "commit",
            "--repo",
            &repo,
            "-b",
            "b",
            "--rootfs",
            rootfs.str(),
            "--progress",
            "plain",
        ])
        .output()
        .unwrap();
    let messages = stderr(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        messages.contains(&repo) && !messages.contains("hashing files"),
        "{messages}"
    );
}
