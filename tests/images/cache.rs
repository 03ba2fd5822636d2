//! `--cache DIR`: files that have not changed are not read again, files that have are, whatever
//! their names, sizes and times say; and what is wrong with a cache is never believed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use crate::common::*;

/// After that a change of a file shows in its times, and it is recorded.
fn settle() {
    sleep(Duration::from_secs(4));
}

/// Builds, and gives the digest and what was said.
fn told(rootfs: &Rootfs, dir: &Path, cache: &Path) -> (String, String) {
    let out = format!("oci:{}", dir.join("out").display());
    let output = helper()
        .args(["build", "-v", "--timestamp", "1700000000", "-o", &out])
        .args(["--rootfs", rootfs.str(), "--cache"])
        .arg(cache)
        .output()
        .unwrap();
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    (String::from_utf8(output.stdout).unwrap(), said)
}

/// Builds, and gives the digest and how many files the cache knew.
fn build(rootfs: &Rootfs, dir: &Path, cache: &Path) -> (String, usize) {
    let (digest, said) = told(rootfs, dir, cache);
    let known = said
        .split_once("the cache knows ")
        .and_then(|(_, rest)| rest.split_once(' '))
        .unwrap_or_else(|| panic!("{said}"))
        .0
        .parse()
        .unwrap();
    (digest, known)
}

fn uncached(rootfs: &Rootfs, dir: &Path) -> String {
    build_layout(dir, rootfs, &["--timestamp", "1700000000"])
}

#[test]
fn only_what_has_changed_is_read_again() {
    let dir = scratch();
    let rootfs = three_packages(dir.path(), "rootfs", "1", "note");
    let cache = dir.path().join("cache");
    settle();
    let expected = uncached(&rootfs, dir.path());
    let (first, known) = build(&rootfs, dir.path(), &cache);
    assert_eq!((first.trim(), known), (expected.trim(), 0));
    let (second, all) = build(&rootfs, dir.path(), &cache);
    assert_eq!(second.trim(), expected.trim());
    assert!(all > 3, "{all}");

    // The same size and the same time: what no program can set tells it.
    let changed = rootfs.at("usr/bin/a");
    let before = fs::metadata(&changed).unwrap();
    fs::write(&changed, vec![b'A'; before.len() as usize]).unwrap();
    succeed(
        std::process::Command::new("touch")
            .arg("-d")
            .arg(format!("@{}.{:09}", before.mtime(), before.mtime_nsec()))
            .arg(&changed),
    );
    settle();
    let expected = uncached(&rootfs, dir.path());
    let (third, known) = build(&rootfs, dir.path(), &cache);
    assert_eq!((third.trim(), known), (expected.trim(), all - 1));

    // Another name for the same content: the inode is the same, and so is what is known.
    fs::rename(&changed, rootfs.at("usr/bin/other")).unwrap();
    // Another mode: it is in the object.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o4755);
    fs::set_permissions(rootfs.at("usr/bin/b"), mode).unwrap();
    let expected = uncached(&rootfs, dir.path());
    assert_eq!(build(&rootfs, dir.path(), &cache).0.trim(), expected.trim());
}

/// A file that has just changed may change again at the same time, as clocks of file systems go.
#[test]
fn a_file_that_has_just_changed_is_not_recorded() {
    let dir = scratch();
    let rootfs = three_packages(dir.path(), "rootfs", "1", "note");
    let cache = dir.path().join("cache");
    settle();
    fs::write(rootfs.at("usr/bin/a"), "new").unwrap();
    build(&rootfs, dir.path(), &cache);
    let (_, known) = build(&rootfs, dir.path(), &cache);
    settle();
    build(&rootfs, dir.path(), &cache);
    assert_eq!(build(&rootfs, dir.path(), &cache).1, known + 1);
}

#[test]
fn a_cache_that_is_damaged_or_cannot_be_written_fails_no_build() {
    let dir = scratch();
    let rootfs = three_packages(dir.path(), "rootfs", "1", "note");
    let cache = dir.path().join("cache");
    settle();
    let (expected, _) = build(&rootfs, dir.path(), &cache);
    let file = cache.join("content-checksums");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    assert_eq!(build(&rootfs, dir.path(), &cache), (expected.clone(), 0));
    assert!(build(&rootfs, dir.path(), &cache).1 > 0, "it was replaced");

    fs::remove_file(&file).unwrap();
    fs::create_dir_all(file.join("in the way")).unwrap();
    let (digest, said) = told(&rootfs, dir.path(), &cache);
    assert!(said.contains("is not written"), "{said}");
    assert_eq!(digest, expected);
    assert_eq!(names(&cache), ["content-checksums"], "nothing half written");
}

#[test]
fn a_cache_is_no_part_of_the_image_and_is_a_directory() {
    let dir = scratch();
    let rootfs = three_packages(dir.path(), "rootfs", "1", "note");
    let out = format!("oci:{}", dir.path().join("out").display());
    let refused = |cache: &Path, extra: &[&str]| {
        let cache = cache.to_str().unwrap();
        let base = [
            "build",
            "--rootfs",
            rootfs.str(),
            "-o",
            &out,
            "--cache",
            cache,
        ];
        fail(1, &[&base[..], extra].concat())
    };
    let inside = rootfs.at("var/cache");
    let said = refused(&inside, &[]);
    assert!(
        said.contains("the cache") && said.contains("inside the rootfs"),
        "{said}"
    );
    assert!(!inside.exists(), "it was not made");
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let said = refused(&file, &[]);
    assert!(said.contains(file.to_str().unwrap()), "{said}");
    assert!(!dir.path().join("out").exists());
    // Layers have no files to find again.
    run(&["build", "-q", "--rootfs", rootfs.str(), "-o", &out]);
    let from = ["build", "--from", &out, "-o", "-", "--cache", "unused"];
    let output = helper().args(from).output().unwrap();
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("the cache is not used"), "{said}");
    // What is left out may have it.
    let left_out = rootfs.at("var/cache");
    fs::create_dir_all(&left_out).unwrap();
    let cache = left_out.to_str().unwrap();
    let base = ["build", "-q", "--rootfs", rootfs.str(), "-o", &out];
    run(&[&base[..], &["--cache", cache, "--prune", "/var/cache/"]].concat());
    assert_eq!(names(&left_out), ["content-checksums"]);
}
