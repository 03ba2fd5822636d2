//! Commits whose few objects name each other over and over ("billion laughs"), for every reader of
//! a commit but `import` (tests/commits/import_hostile.rs): the right result or a clear error, in
//! bounded time and memory.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::*;

/// KiB of address space that any of this has to do with.
const MEMORY: u32 = 3 << 20;

/// A commit and its objects.
struct Made {
    commit: String,
    objects: Vec<(&'static str, Vec<u8>)>,
}

impl Made {
    /// Directories of which each names the one before it `width` times, one level for each width,
    /// all with `meta` as their dirmeta.
    fn new(widths: &[usize], meta: Vec<u8>) -> Self {
        let mut objects = vec![("dirtree", dirtree(&[], &[]))];
        for width in widths {
            let last = sha256(&objects[objects.len() - 1].1);
            let names: Vec<String> = (0..*width).map(|n| format!("{n:07}")).collect();
            let sum = sha256(&meta);
            let listed: Vec<_> = names.iter().map(|name| (&**name, &*last, &*sum)).collect();
            objects.push(("dirtree", dirtree(&[], &listed)));
        }
        let root = sha256(&objects[objects.len() - 1].1);
        let commit = commit_object(&root, &sha256(&meta));
        let sum = sha256(&commit);
        objects.extend([("dirmeta", meta), ("commit", commit)]);
        let commit = sum;
        Self { commit, objects }
    }

    fn write(&self, objects: &Path) {
        for (kind, object) in &self.objects {
            let path = objects.join(object_name(kind, object));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, object).unwrap();
        }
    }
}

fn plain_dirmeta() -> Vec<u8> {
    dirmeta(0o40755, &[])
}

/// Encapsulates a commit that is put into a repository by hand; gives the status and what was said.
fn encapsulate(dir: &Path, made: &Made) -> (Option<i32>, String) {
    let repo = repository(dir, &made.commit, "bare-user");
    made.write(&Path::new(&repo).join("objects"));
    let out = format!("oci:{}", dir.join("out").display());
    let done = in_memory(
        MEMORY,
        &["encapsulate", "-q", "--repo", &repo, &made.commit, &out],
    );
    (done.status.code(), stderr(&done))
}

/// A thousand names of one directory with a thousand names are an image of a million directories.
#[test]
fn a_million_directories_of_three_objects() {
    if !has("ostree") {
        return;
    }
    let dir = scratch();
    let made = Made::new(&[1000, 1000], plain_dirmeta());
    let (status, said) = encapsulate(dir.path(), &made);
    assert_eq!(status, Some(0), "{said}");
    let image = format!("oci:{}", dir.path().join("out").display());
    let repo = repository(dir.path(), "again", "bare-user");
    let import = ["import", "-q", "--repo", &repo, "-b", "b", &image];
    let done = in_memory(MEMORY, &import);
    assert!(done.status.success(), "{}", stderr(&done));
    assert_eq!(ostree(&repo, &["rev-parse", "b"]), made.commit);
}

#[test]
fn more_than_a_machine_holds_is_refused_at_once() {
    if !has("ostree") {
        return;
    }
    let dir = scratch();
    for widths in [&[1000, 1000, 1000][..], &[2; 40], &[200_000, 30]] {
        let made = Made::new(widths, plain_dirmeta());
        let start = Instant::now();
        let (status, said) = encapsulate(dir.path(), &made);
        assert_eq!(status, Some(1), "{said}");
        let expected = [&*made.commit, "4194304 files and directories"];
        assert!(expected.iter().all(|part| said.contains(part)), "{said}");
        assert!(start.elapsed() < Duration::from_secs(60), "{widths:?}");
        assert!(!dir.path().join("out").exists());
    }
}

/// Attributes that take little once, and petabytes in the layers of a million directories.
#[test]
fn attributes_that_a_million_directories_share() {
    if !has("ostree") {
        return;
    }
    let dir = scratch();
    let value = vec![b'v'; 60_000];
    let names: Vec<String> = (0..500).map(|n| format!("user.{n:03}")).collect();
    let xattrs: Vec<_> = names.iter().map(|n| (n.as_bytes(), &*value)).collect();
    let made = Made::new(&[1000, 1000], dirmeta(0o40755, &xattrs));
    let start = Instant::now();
    let (status, said) = encapsulate(dir.path(), &made);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("the attributes of all files"), "{said}");
    assert!(start.elapsed() < Duration::from_secs(180), "{said}");
}

/// The commit that a rootfs carries: each of two thousand directories was said to be the same large
/// one, which was read, hashed and taken apart for each.
#[test]
fn an_embedded_commit_that_names_one_directory_for_all() {
    let dir = scratch();
    let rootfs = tiny(dir.path());
    for n in 0..2000 {
        rootfs.dir(&format!("{n:07}"));
    }
    rootfs.settle();
    let made = Made::new(&[200_000, 2000], plain_dirmeta());
    made.write(&rootfs.at("sysroot/ostree/repo/objects"));
    let out = format!("oci:{}", dir.path().join("out").display());
    let start = Instant::now();
    let done = in_memory(
        MEMORY,
        &["build", "-q", "--rootfs", rootfs.str(), "-o", &out],
    );
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(start.elapsed() < Duration::from_secs(90));
}
