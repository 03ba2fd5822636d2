//! `finalize` and `lint` on real Debian systems, where `AOH_BOOT_ROOTFS_*` name them (see
//! `contrib/test finalize-real`): a second run changes nothing, lint finds what it names before and
//! nothing after, dpkg and apt answer as before, every file is accounted for, and Python takes its
//! byte code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::common::suites::*;
use crate::common::{helper, run, run_json, scratch, sha256, stderr};
use serde_json::Value;

/// Every file of a directory by path: size and content, or the link's target.
fn files(root: &Path, below: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.join(below)];
    while let Some(path) = pending.pop() {
        for entry in fs::read_dir(&path).into_iter().flatten() {
            let path = entry.unwrap().path();
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            if kind.is_dir() {
                pending.push(path);
            } else if kind.is_file() {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                found.insert(name, sha256(&fs::read(&path).unwrap()));
            }
        }
    }
    found
}

/// Everything of a system, times included.
fn listing(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let stat = fs::symlink_metadata(&path).unwrap();
        if stat.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
        // A file that was written anew, or whose attributes were set, has another change time or
        // number.
        let said = format!(
            "{:o} {} {} {} {} {}.{} {}.{}",
            stat.mode(),
            stat.uid(),
            stat.gid(),
            stat.size(),
            stat.ino(),
            stat.mtime(),
            stat.mtime_nsec(),
            stat.ctime(),
            stat.ctime_nsec()
        );
        found.insert(path, said);
    }
    found
}

fn lint(rootfs: &str, arguments: &[&str]) -> (Option<i32>, Vec<String>) {
    let output = helper()
        .args(["lint", "--json", rootfs])
        .args(arguments)
        .output()
        .unwrap();
    let said: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    let names = said["findings"].as_array().unwrap().iter();
    (
        output.status.code(),
        names
            .map(|f| f["name"].as_str().unwrap().to_owned())
            .collect(),
    )
}

const ANSWERS: &str = "dpkg -l | md5sum; dpkg -V; apt list --installed 2>/dev/null | md5sum; apt-mark showauto | md5sum; apt-mark showauto | wc -l";

#[test]
fn real_systems_are_finalized() {
    each_suite(|suite, source| {
        let dir = scratch();
        let path = dir.path().join("r");
        copy(source, &path);
        let rootfs = path.to_str().unwrap();

        let (status, found) = lint(rootfs, &[]);
        assert_eq!(status, Some(3));
        for name in [
            "root-layout",
            "initramfs",
            "package-state",
            "prepare-root",
            "boot-files",
            "var-files",
            "var-tmpfiles",
            "identity",
            "leftovers",
            "byte-code",
            "presets",
        ] {
            assert!(
                found.iter().any(|f| f == name),
                "{suite}: {name} is not in {found:?}"
            );
        }
        let answers = inside(&path, ANSWERS);
        let mut before = files(&path, "var");
        before.extend(files(&path, "boot"));
        before.extend(files(&path, "root"));

        let report = run_json(&["finalize", "--bootable", rootfs]);
        every_file_is_accounted_for(suite, &path, &before, &report);
        assert_eq!(
            lint(rootfs, &["--fatal-warnings"]),
            (Some(0), vec![]),
            "{suite}"
        );
        let left: Vec<_> = files(&path, "var")
            .into_keys()
            .chain(files(&path, "boot").into_keys())
            .collect();
        assert!(left.is_empty(), "{suite}: {left:?}");

        let listed = listing(&path);
        let again = run_json(&["finalize", rootfs]);
        let changed = again["steps"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|s| s["status"] != "unchanged");
        assert_eq!(changed.count(), 0, "{suite}: {again}");
        assert_eq!(listing(&path), listed, "{suite}");

        assert_eq!(inside(&path, ANSWERS), answers, "{suite}");
        python_takes_its_byte_code(&path);
        packages_stay_attributed(suite, rootfs, dir.path());
        if suite == "TRIXIE" {
            packages_come_and_go(&path, rootfs);
            a_package_below_opt_is_the_image_s(&path, rootfs);
            a_kernel_is_upgraded(&path, rootfs);
        }
    });
}

/// Kept, moved, or listed as removed with its reason.
fn every_file_is_accounted_for(
    suite: &str,
    path: &Path,
    before: &BTreeMap<String, String>,
    report: &Value,
) {
    let steps = report["steps"].as_array().unwrap().iter();
    let changes: Vec<&Value> = steps
        .flat_map(|step| step["changes"].as_array().unwrap())
        .collect();
    let removed: BTreeMap<&str, &str> = changes
        .iter()
        .filter(|change| change["action"] == "remove")
        .map(|change| {
            (
                change["path"].as_str().unwrap(),
                change["why"].as_str().unwrap(),
            )
        })
        .collect();
    let there: BTreeSet<String> = files(path, "usr").into_values().collect();
    for (file, hash) in before {
        let name = format!("/{file}");
        let is_removed = removed
            .iter()
            .any(|(at, why)| name.starts_with(at) && why.len() > 5);
        // The only file that is written anew below them.
        let is_written = changes
            .iter()
            .any(|change| change["action"] == "write" && change["path"] == name);
        assert!(
            there.contains(hash) || is_removed || is_written,
            "{suite}: {name} is lost"
        );
    }
}

/// It says so itself, and has not written any anew.
fn python_takes_its_byte_code(path: &Path) {
    let said = inside(path, "python3 -v -c 'import json, email.message' 2>&1");
    assert!(
        said.contains("json/__pycache__/decoder.cpython") && said.contains("code object from"),
        "{said}"
    );
    assert!(
        !said.contains("wrote ") && !said.contains("bytecode is stale"),
        "{said}"
    );
}

/// `build` knows the packages, and what was moved is theirs or in components that are named.
fn packages_stay_attributed(suite: &str, rootfs: &str, dir: &Path) {
    let output = format!("oci:{}", dir.join("img").display());
    let built = run_json(&["build", "-q", "--rootfs", rootfs, "-o", &output]);
    assert!(built["packages"].as_u64().unwrap() > 100, "{suite}");
    let explained = run(&[
        "plan",
        "-q",
        "--rootfs",
        rootfs,
        "--explain",
        "/usr/lib/sysimage/dpkg/status",
    ]);
    assert!(explained.contains("state/packages"), "{explained}");
    let explained = run(&[
        "plan",
        "-q",
        "--rootfs",
        rootfs,
        "--explain",
        "/usr/lib/sysimage/debconf/templates.dat",
    ]);
    assert!(explained.contains("state/debconf"), "{explained}");
    let config = crate::common::read_image(&dir.join("img")).config["config"]["Labels"].clone();
    assert_eq!(config["containers.bootc"], "1");
    assert_eq!(config["ostree.bootable"], "true");
    let version = config["org.opencontainers.image.version"].as_str().unwrap();
    match suite {
        "BOOKWORM" => assert_eq!(version, "12"),
        "TRIXIE" => assert_eq!(version, "13"),
        _ => assert_eq!(version.len(), 8, "{version}"),
    }
    fs::remove_dir_all(dir.join("img")).unwrap();
}

/// A package is installed, removed and purged; finalize finishes what is new; the marks of apt are
/// the same.
fn packages_come_and_go(path: &Path, rootfs: &str) {
    fs::copy("/etc/resolv.conf", path.join("etc/resolv.conf")).unwrap();
    let marks = inside(path, "apt-mark showauto");
    inside(
        path,
        "apt-get -qq update; apt-get -qq install -y --no-install-recommends nginx-light >/dev/null; dpkg -V nginx",
    );
    let report = run_json(&["finalize", rootfs]);
    let steps = report["steps"].as_array().unwrap().iter();
    let changed: BTreeSet<&str> = steps
        .filter(|s| s["status"] == "changed")
        .map(|s| s["name"].as_str().unwrap())
        .collect();
    // The initramfs may be made again: dracut looks for programs that iproute2 and libcap2-bin
    // bring.
    assert!(
        changed.contains("var") && !changed.contains("kernel"),
        "{changed:?}"
    );
    let lines =
        fs::read_to_string(path.join("usr/lib/tmpfiles.d/apt-ostree-helper-var.conf")).unwrap();
    assert!(
        lines.contains("/var/log/nginx ") && lines.contains("/var/lib/nginx "),
        "{lines}"
    );
    assert!(!path.join("var/lib/apt/extended_states").exists());
    assert!(inside(path, "apt-mark showauto").lines().count() > marks.lines().count());
    fs::copy("/etc/resolv.conf", path.join("etc/resolv.conf")).unwrap();
    inside(
        path,
        "apt-get -qq purge -y --autoremove nginx-light >/dev/null; dpkg -V",
    );
    run(&["finalize", "-q", rootfs]);
    assert_eq!(lint(rootfs, &["--fatal-warnings"]), (Some(0), vec![]));
    // Last: apt writes its cache. Of what came as a dependency some stays, because a package that
    // is there suggests it: apt knows that it may go.
    let left = inside(path, "apt-mark showauto");
    let left: BTreeSet<&str> = left.lines().collect();
    let lost: Vec<_> = marks.lines().filter(|mark| !left.contains(mark)).collect();
    assert!(lost.is_empty(), "{lost:?}");
    let installed = inside(path, "dpkg-query -W -f '${Package}\\n'");
    assert!(
        left.iter()
            .all(|name| installed.lines().any(|l| l == *name)),
        "{left:?}"
    );
}

/// A package that has files in `/opt`, installed on the finalized system.
fn a_package_below_opt_is_the_image_s(path: &Path, rootfs: &str) {
    inside(
        path,
        "mkdir -p /tmp/p/DEBIAN /tmp/p/opt/browser && echo program >/tmp/p/opt/browser/program
        printf 'Package: browser\\nVersion: 1\\nArchitecture: all\\nMaintainer: a\\nDescription: a\\n' >/tmp/p/DEBIAN/control
        dpkg-deb -b /tmp/p /tmp/p.deb >/dev/null; dpkg -i /tmp/p.deb >/dev/null; test -e /var/opt/browser/program",
    );
    run(&["finalize", "-q", rootfs]);
    assert!(path.join("opt/browser/program").exists());
    assert_eq!(inside(path, "dpkg -V; dpkg -V browser"), "");
    assert_eq!(lint(rootfs, &["--fatal-warnings"]), (Some(0), vec![]));
    inside(path, "dpkg -P browser >/dev/null");
    run(&["finalize", "-q", rootfs]);
    assert!(path.join("opt").is_symlink());
}

/// By apt, in a derived layer: the old kernel is purged in the same step.
fn a_kernel_is_upgraded(path: &Path, rootfs: &str) {
    let kernel =
        || run_json(&["finalize", "--dry-run", "--only", "kernel", rootfs])["kernel"].clone();
    let old = kernel();
    let old = old.as_str().unwrap();
    fs::copy("/etc/resolv.conf", path.join("etc/resolv.conf")).unwrap();
    let script = format!(
        "apt-get -qq update; INITRD=No apt-get -qq install -y --no-install-recommends linux-image-cloud-amd64 >/dev/null
        INITRD=No apt-get -qq purge -y linux-image-amd64 linux-image-{old} >/dev/null; apt-get clean"
    );
    inside(path, &script);
    let report = run_json(&["finalize", "--bootable", rootfs]);
    let new = report["kernel"].as_str().unwrap();
    assert!(new.contains("cloud"), "{new}");
    assert_eq!(crate::common::names(&path.join("usr/lib/modules")), [new]);
    assert_eq!(files(path, "boot"), BTreeMap::new());
    assert_eq!(lint(rootfs, &["--fatal-warnings"]), (Some(0), vec![]));
    assert_eq!(inside(path, "dpkg -V"), "");
    let diversions = inside(path, "dpkg-divert --list '/boot/*'");
    assert!(
        diversions.contains(new) && !diversions.contains(&format!("-{old} ")),
        "{diversions}"
    );
    let again = run_json(&["finalize", rootfs]);
    let steps = again["steps"].as_array().unwrap().iter();
    let changed: Vec<_> = steps
        .filter(|step| step["status"] == "changed" && step["name"] != "var")
        .collect();
    assert!(changed.is_empty(), "{changed:?}");
}

/// `build --finalize` makes the same image as of the finalized system, and leaves what it reads as
/// it is.
#[test]
fn a_build_finalizes_a_view() {
    let Some(source) = std::env::var_os("AOH_BOOT_ROOTFS_TRIXIE").map(PathBuf::from) else {
        return;
    };
    let dir = scratch();
    let finalized = dir.path().join("r");
    copy(&source, &finalized);
    run(&["finalize", "-q", finalized.to_str().unwrap()]);
    let before = listing(&source);
    let output = |name: &str| format!("oci:{}", dir.path().join(name).display());
    let build = |rootfs: &Path, name: &str, more: &[&str]| {
        let options = [
            "build",
            "-q",
            "--timestamp",
            "1700000000",
            "--rootfs",
            rootfs.to_str().unwrap(),
        ];
        run(&[&options[..], &["-o", &output(name)], more].concat())
    };
    let of_view = build(&source, "view", &["--finalize"]);
    assert_eq!(listing(&source), before);
    assert_eq!(build(&finalized, "copy", &[]), of_view);
}
