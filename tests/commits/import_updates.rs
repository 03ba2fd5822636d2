//! The import of an update reads the layers that changed, and no commit is ever less whole by it.

use std::fs;
use std::path::Path;

use crate::common::{
    Registry, Rootfs, build_json, fail, has, has_registry, is_root, ostree, read_tree, repository,
    run, run_json, scratch, three_packages,
};
use serde_json::Value;

fn can_run() -> bool {
    has("ostree") && is_root()
}

/// Builds to `oci:dir/name`, with components in the layers of `previous`; gives what is said and
/// the image.
fn build(dir: &Path, name: &str, rootfs: &Rootfs, previous: &str) -> (Value, String) {
    let image = format!("oci:{}", dir.join(name).display());
    let said = build_json(rootfs, &image, &["--previous", previous]);
    (said, image)
}

fn import(repo: &str, image: &str, extra: &[&str]) -> Value {
    let base = ["import", "-q", "--repo", repo, "-b", "os", image];
    let said = run_json(&[&base[..], extra].concat());
    assert_eq!(ostree(repo, &["rev-parse", "os"]), said["commit"]);
    ostree(repo, &["fsck", "-q"]);
    said
}

fn digests(said: &Value) -> Vec<&str> {
    let layers = said["layers"].as_array().unwrap();
    layers
        .iter()
        .map(|layer| layer["digest"].as_str().unwrap())
        .collect()
}

fn blob(dir: &Path, name: &str, digest: &str) -> std::path::PathBuf {
    dir.join(name)
        .join("blobs/sha256")
        .join(digest.trim_start_matches("sha256:"))
}

/// Two images: one package has changed.
fn pair(dir: &Path) -> [(Value, String); 2] {
    let old = three_packages(dir, "old-rootfs", "1", "note");
    let new = three_packages(dir, "new-rootfs", "2", "note");
    let first = build(dir, "old", &old, "none");
    let second = build(dir, "new", &new, &first.1);
    [first, second]
}

#[test]
fn an_update_is_read_where_it_differs() {
    if !can_run() {
        return;
    }
    for mode in ["bare", "bare-user", "archive"] {
        let dir = scratch();
        let [(old, first), (new, second)] = pair(dir.path());
        let repo = repository(dir.path(), "repo", mode);
        let said = import(&repo, &first, &[]);
        assert_eq!(said["layers_read"], said["layers"], "{mode}");

        // What is not read need not even be there.
        let (old, new) = (digests(&old), digests(&new));
        let kept = new.iter().filter(|digest| old.contains(digest));
        for digest in kept.clone() {
            fs::remove_file(blob(dir.path(), "new", digest)).unwrap();
        }
        let said = import(&repo, &second, &[]);
        let changed = new.len() - kept.count();
        assert!(changed < new.len(), "{old:?} {new:?}");
        assert_eq!(said["layers"], new.len(), "{mode}");
        assert_eq!(said["layers_read"], changed, "{mode}");

        // The same files come of it as of a repository that knew nothing.
        let fresh = repository(dir.path(), "fresh", mode);
        let rootfs = three_packages(dir.path(), "again", "2", "note");
        let (_, again) = build(dir.path(), "whole", &rootfs, &first);
        assert_eq!(said["commit"], import(&fresh, &again, &[])["commit"]);
        let trees = ["repo", "fresh"].map(|name| {
            let to = dir.path().join(format!("{name}-checkout"));
            let from = dir.path().join(name).display().to_string();
            ostree(&from, &["checkout", "-U", "os", to.to_str().unwrap()]);
            read_tree(&to)
        });
        assert_eq!(trees[0], trees[1], "{mode}");
    }
}

#[test]
fn what_was_pruned_is_read_again() {
    if !can_run() {
        return;
    }
    let dir = scratch();
    let [(_, first), (new, second)] = pair(dir.path());
    let repo = repository(dir.path(), "repo", "bare-user");
    import(&repo, &first, &[]);
    ostree(&repo, &["refs", "--delete", "os"]);
    ostree(&repo, &["prune", "--refs-only"]);

    let said = import(&repo, &second, &[]);
    assert_eq!(said["layers_read"], said["layers"]);

    // A layer that is needed and not there is an error that names it, and nothing is written.
    ostree(&repo, &["refs", "--delete", "os"]);
    ostree(&repo, &["prune", "--refs-only"]);
    let digests = digests(&new);
    fs::remove_file(blob(dir.path(), "new", digests[1])).unwrap();
    let said = fail(1, &["import", "--repo", &repo, "-b", "os", &second]);
    assert!(said.contains(digests[1]), "{said}");
    assert_eq!(ostree(&repo, &["refs"]), "");
    ostree(&repo, &["fsck", "-q"]);
}

/// A layer in which an earlier commit had no use for an object.
#[test]
fn what_an_earlier_commit_left_out_is_read_again() {
    if !can_run() {
        return;
    }
    let dir = scratch();
    let [(_, first), _] = pair(dir.path());
    // Its layers are those of the first, and one more; the old b is of no use in it.
    let second = format!("oci:{}", dir.path().join("wasteful").display());
    let rootfs = three_packages(dir.path(), "newer", "2", "note");
    build_json(
        &rootfs,
        &second,
        &["--previous", &first, "--max-waste", "90%"],
    );
    let repo = repository(dir.path(), "repo", "bare-user");
    import(&repo, &second, &[]);
    let said = import(&repo, &first, &[]);
    assert_eq!(said["layers_read"], said["layers"], "{said}");
}

#[test]
fn only_what_changed_is_fetched_from_a_registry() {
    if !can_run() || !has_registry() {
        return;
    }
    let dir = scratch();
    let [(_, first), (_, second)] = pair(dir.path());
    let registry = Registry::start(dir.path());
    let plain = "--tls-verify=false";
    let names = ["first", "second"].map(|tag| registry.name(&format!("os:{tag}")));
    run(&["push", "-q", &first, &names[0], plain]);
    run(&["push", "-q", &second, &names[1], plain]);
    let repo = repository(dir.path(), "repo", "bare-user");
    import(&repo, &names[0], &[plain]);
    registry.forget();
    let said = import(&repo, &names[1], &[plain]);
    let read = said["layers_read"].as_u64().unwrap();
    assert!(read < said["layers"].as_u64().unwrap(), "{said}");
    // And the config.
    assert_eq!(registry.downloads() as u64, read + 1);
}
