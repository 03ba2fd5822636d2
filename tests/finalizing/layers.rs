//! The layers of finalized systems, on real Debians (see `contrib/test finalize-layers`): two
//! builds of one package set, and one on another day, have the same.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::suites::*;
use crate::common::{helper, run, scratch, stderr, succeed};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

/// The same packages, installed twice, with other clocks: locale archives, caches of fonts, icons,
/// types and schemas, byte code, accounts and keys among what their scripts make.
#[test]
fn two_builds_of_one_package_set_have_equal_layers() {
    if std::env::var_os("AOH_BOOT_ROOTFS_TRIXIE").is_none() {
        return;
    }
    let dir = scratch();
    let mut images = Vec::new();
    for day in [0u64, 3] {
        let path = dir.path().join(format!("day{day}"));
        let mut install = Command::new("mmdebstrap");
        install
            .args(["--mode=root", "--variant=minbase", "--quiet"])
            .arg("--aptopt=APT::Install-Recommends \"false\"")
            .arg("--include=systemd-sysv,openssh-server,python3-minimal,locales,fontconfig,fonts-dejavu-core")
            .arg("--include=hicolor-icon-theme,gtk-update-icon-cache,shared-mime-info,libglib2.0-bin,man-db,ssl-cert")
            .arg("--customize-hook=chroot \"$1\" localedef -i en_US -c -f UTF-8 en_US.UTF-8")
            // There is no cache of a theme without icons.
            .arg("--customize-hook=mkdir -p \"$1/usr/share/icons/hicolor/48x48/apps\"")
            .arg("--customize-hook=touch \"$1/usr/share/icons/hicolor/48x48/apps/an.png\"")
            .arg("--customize-hook=chroot \"$1\" gtk-update-icon-cache -q -f /usr/share/icons/hicolor")
            .arg("trixie")
            .arg(&path)
            // Accounts are as old as it says.
            .env("SOURCE_DATE_EPOCH", (1_700_000_000 + day * 86400).to_string());
        succeed(&mut install);
        for device in fs::read_dir(path.join("dev")).unwrap() {
            let device = device.unwrap().path();
            match device.is_dir() && !device.is_symlink() {
                true => fs::remove_dir_all(device).unwrap(),
                false => fs::remove_file(device).unwrap(),
            }
        }
        for made in [
            "usr/lib/locale/locale-archive",
            "usr/share/icons/hicolor/icon-theme.cache",
            "var/cache/fontconfig",
        ] {
            assert!(path.join(made).exists(), "{made}");
        }
        later(&path, i64::try_from(day * 86400).unwrap());
        run(&["finalize", "-q", path.to_str().unwrap()]);
        let image = format!("oci:{}", dir.path().join(format!("img{day}")).display());
        let rootfs = path.to_str().unwrap();
        run(&[
            "build",
            "-q",
            "--timestamp",
            "1900000000",
            "--rootfs",
            rootfs,
            "-o",
            &image,
        ]);
        images.push(image);
    }
    let output = helper()
        .args(["diff", "--exit-code", &images[0], &images[1]])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", stderr(&output));
}

/// What another day changes, where nothing else does: times, logs, keys, the days of accounts,
/// caches, byte code.
#[test]
fn another_day_changes_no_layer() {
    let Some(source) = std::env::var_os("AOH_BOOT_ROOTFS_BOOKWORM").map(PathBuf::from) else {
        return;
    };
    let dir = scratch();
    let mut layers = Vec::new();
    for day in [0i64, 1] {
        let path = dir.path().join(format!("day{day}"));
        copy(&source, &path);
        let shadow = fs::read_to_string(path.join("etc/shadow")).unwrap();
        let days: String = shadow
            .lines()
            .map(|line| {
                let mut fields: Vec<String> = line.split(':').map(str::to_owned).collect();
                fields[2] = (20000 + day).to_string();
                fields.join(":") + "\n"
            })
            .collect();
        fs::write(path.join("etc/shadow"), days).unwrap();
        for file in [
            "var/log/dpkg.log",
            "var/log/apt/history.log",
            "var/log/btmp",
            "var/cache/ldconfig/aux-cache",
            "var/cache/debconf/config.dat-old",
            "var/lib/dpkg/status-old",
            "etc/passwd-",
            "etc/hostname",
            "etc/resolv.conf",
            "etc/ssh/ssh_host_rsa_key",
            "var/lib/systemd/random-seed",
            "var/cache/apt/pkgcache.bin",
            "etc/machine-id",
            "boot/initrd.img-of-today",
        ] {
            fs::write(path.join(file), format!("of day {day}")).unwrap();
        }
        later(&path, day * 86400);
        run(&["finalize", "-q", path.to_str().unwrap()]);
        let output = dir.path().join(format!("img{day}"));
        // A plain image keeps the times of files that no package owns.
        let output_name = format!("oci:{}", output.display());
        let rootfs = path.to_str().unwrap();
        let options = ["--timestamp", "1900000000"];
        run(&[
            &["build", "-q", "--rootfs", rootfs, "-o", &output_name][..],
            &options,
        ]
        .concat());
        let index = fs::read_to_string(output.join("index.json")).unwrap();
        layers.push(index);
        fs::remove_dir_all(&path).unwrap();
    }
    assert_eq!(layers[0], layers[1]);
}

/// Directories, and files of no package's, have the time of the installation.
fn later(root: &Path, seconds: i64) {
    let mut owned = BTreeSet::new();
    for list in fs::read_dir(root.join("var/lib/dpkg/info")).unwrap() {
        let list = list.unwrap().path();
        if list.extension().is_some_and(|e| e == "list") {
            let text = fs::read_to_string(list).unwrap();
            owned.extend(
                text.lines()
                    .map(|line| line.trim_start_matches('/').to_owned()),
            );
        }
    }
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let stat = fs::symlink_metadata(&path).unwrap();
        if stat.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let old_name = name.strip_prefix("usr/").unwrap_or(&name);
        if stat.is_file() && (owned.contains(&name) || owned.contains(old_name)) {
            continue;
        }
        let time = Timespec {
            tv_sec: stat.mtime() + seconds,
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}
