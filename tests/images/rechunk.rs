//! The rootfs of an image that was made from an encapsulated one: it carries a repository, and
//! where that was of format version 1 its directories have lost their metadata.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{MTIME, Rootfs, build_image, build_json, is_root, run, scratch, succeed};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

const OBJECTS: &str = "sysroot/ostree/repo/objects/";

/// A system with directories of unusual owners and modes, with files in them.
fn system(path: &Path) -> Rootfs {
    let rootfs = Rootfs::new(path.to_owned());
    for n in 0..20 {
        rootfs.file(&format!("usr/share/plain/{n}/file"), n.to_string());
    }
    rootfs
        .file("etc/sudoers.d/README", "readme")
        .mode("etc/sudoers.d", 0o750)
        .file("var/mail/root", "mail")
        .mode("var/mail", 0o2775)
        .owner("var/mail", 0, 8)
        .file("usr/libexec/secret/x", "x")
        .mode("usr/libexec/secret", 0o711)
        .xattr("usr/libexec/secret", "user.note", b"on a directory")
        .dir("var/lib/private")
        .mode("var/lib/private", 0o700)
        .settle();
    rootfs
}

/// What podman makes of an image: a copy of the system with the repository of the image in it,
/// directories as `directory` leaves them.
fn unpacked(dir: &Path, system: &Rootfs, version: &str, directory: impl Fn(&Path, bool)) -> Rootfs {
    let image = build_image(dir, system, &["--format-version", version]);
    let copy = Rootfs::new(dir.join(format!("copy-{version}")));
    succeed(
        Command::new("cp")
            .args(["-aT"])
            .arg(&system.path)
            .arg(&copy.path),
    );
    for member in image.layers.iter().flatten() {
        let is_metadata = [".commit", ".dirtree", ".dirmeta"];
        if is_metadata.iter().any(|end| member.path.ends_with(end)) {
            assert!(member.path.starts_with(OBJECTS));
            copy.file(&member.path, &member.content);
        }
    }
    walk(&copy.path, &directory);
    copy
}

/// Calls `directory` for each directory, and says whether anything but empty directories is below
/// it.
fn walk(path: &Path, directory: &impl Fn(&Path, bool)) -> bool {
    let mut holds = false;
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        holds |= !path.is_dir() || walk(&path, directory);
    }
    directory(path, holds);
    holds
}

fn set_mtime(path: &Path, seconds: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::empty()).unwrap();
}

/// In version 1 a runtime makes up every directory in which a content layer has something.
fn made_up(path: &Path, holds: bool) {
    if holds {
        use std::os::unix::fs::{PermissionsExt, chown};
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        chown(path, Some(0), Some(0)).unwrap();
        let _ = rustix::fs::removexattr(path, "user.note");
        set_mtime(path, MTIME + 1000);
    } else {
        set_mtime(path, 0);
    }
}

fn commit_of(dir: &Path, rootfs: &Rootfs) -> String {
    let output = format!("oci:{}", dir.join("out").display());
    let said = build_json(rootfs, &output, &["--timestamp", "1700000000"]);
    fs::remove_dir_all(dir.join("out")).unwrap();
    said["commit"].as_str().unwrap().to_owned()
}

#[test]
fn directories_of_a_version_1_image_get_their_metadata_back() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    // The commit has /sysroot because the copy has.
    let system = system(&dir.path().join("system"));
    system.dir("sysroot").settle();
    let wanted = commit_of(dir.path(), &system);
    let copy = unpacked(dir.path(), &system, "1", made_up);
    assert_eq!(commit_of(dir.path(), &copy), wanted);

    // Without the repository nothing can be told.
    let hidden = dir.path().join("hidden");
    fs::rename(copy.at("sysroot/ostree"), &hidden).unwrap();
    assert_ne!(commit_of(dir.path(), &copy), wanted);
    fs::rename(&hidden, copy.at("sysroot/ostree")).unwrap();

    // What somebody has changed since stays changed.
    system.mode("usr/libexec/secret", 0o700).settle();
    copy.mode("usr/libexec/secret", 0o700);
    rustix::fs::removexattr(system.at("usr/libexec/secret"), "user.note").unwrap();
    assert_eq!(commit_of(dir.path(), &copy), commit_of(dir.path(), &system));
}

/// In version 2 every directory has a header, with the time 0: 0755 is what somebody wanted.
#[test]
fn directories_of_a_version_2_image_stay_as_they_are() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let system = system(&dir.path().join("system"));
    system.dir("sysroot").settle();
    let copy = unpacked(dir.path(), &system, "2", |path, _| set_mtime(path, 0));
    copy.mode("etc/sudoers.d", 0o755).mode("var/mail", 0o755);
    copy.owner("var/mail", 0, 0).file("var/mail/new", "new");
    system.mode("etc/sudoers.d", 0o755).mode("var/mail", 0o755);
    system.owner("var/mail", 0, 0).file("var/mail/new", "new");
    assert_eq!(commit_of(dir.path(), &copy), commit_of(dir.path(), &system));
}

#[test]
fn the_repository_is_left_out_and_a_damaged_one_is_named() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let system = system(&dir.path().join("system"));
    system.dir("sysroot").settle();
    let copy = unpacked(dir.path(), &system, "1", made_up);
    let image = build_image(dir.path(), &copy, &["--format", "plain"]);
    let paths = image
        .layers
        .iter()
        .flatten()
        .map(|member| member.path.as_str());
    assert!(paths.clone().any(|path| path == "sysroot"));
    assert_eq!(paths.filter(|path| path.starts_with("sysroot/")).count(), 0);

    let objects = copy.at(OBJECTS);
    let find = [
        "-name",
        "*.dirmeta",
        "-exec",
        "truncate",
        "-s",
        "3",
        "{}",
        "+",
    ];
    succeed(Command::new("find").arg(objects).args(find));
    let output = format!("oci:{}", dir.path().join("out").display());
    let said = crate::common::fail(1, &["build", "--rootfs", copy.str(), "-o", &output]);
    assert!(said.contains(".dirmeta is damaged"), "{said}");
    assert!(said.contains("--prune /sysroot"), "{said}");
    run(&[
        &["build", "-q", "--rootfs", copy.str(), "-o", &output][..],
        &["--prune", "/sysroot"],
    ]
    .concat());
}
