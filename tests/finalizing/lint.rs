//! `lint` on small systems made by code: it finds what `finalize` mends, and what it cannot.

use std::fs;
use std::process::Command;

use crate::common::debian::{KERNEL, debian, finalized};
use crate::common::{Rootfs, fail, run, scratch, succeed};
use serde_json::Value;

fn lint(rootfs: &Rootfs, status: i32, arguments: &[&str]) -> Vec<String> {
    let arguments = [&["lint", "--json", rootfs.str()], arguments].concat();
    let output = crate::common::helper().args(&arguments).output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(status),
        "{}",
        crate::common::stderr(&output)
    );
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = said["findings"].as_array().unwrap().iter();
    for finding in findings.clone() {
        assert!(
            finding["why"].as_str().unwrap().len() > 10
                && finding["advice"].as_str().unwrap().len() > 10
        );
        assert!(!finding["paths"].as_array().unwrap().is_empty());
    }
    findings
        .map(|finding| finding["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn lint_finds_what_finalize_mends() {
    let dir = scratch();
    let rootfs = debian(dir.path().join("r"));
    let found = lint(&rootfs, 3, &[]);
    let wanted = [
        "root-layout",
        "kernel-place",
        "initramfs",
        "package-state",
        "prepare-root",
        "boot-files",
        "run-tmp",
        "var-files",
        "var-log",
        "var-tmpfiles",
        "sysusers",
        "identity",
        "leftovers",
        "byte-code",
        "presets",
    ];
    assert_eq!(found, wanted);
    finalized(&rootfs.path);
    // Its initramfs is made by a program of the system.
    assert_eq!(lint(&rootfs, 3, &[]), ["initramfs", "boot-files"]);
    fs::remove_file(rootfs.at("boot/initrd.img-6.1.0-1-amd64")).unwrap();
    // As a sealed image has it.
    rootfs.file("boot/EFI/Linux/6.1.0-1-amd64.efi", "unified kernel");
    assert_eq!(
        lint(&rootfs, 0, &["--skip", "initramfs", "--fatal-warnings"]),
        [""; 0]
    );
    for (name, change) in [
        (
            "usr-etc",
            &(|r: &Rootfs| {
                r.dir("usr/etc");
            }) as &dyn Fn(&Rootfs),
        ),
        ("kernels", &|r: &Rootfs| {
            r.file("usr/lib/modules/6.2/vmlinuz", "k");
        }),
        ("var-run", &|r: &Rootfs| {
            fs::remove_file(r.at("var/run")).unwrap();
            r.dir("var/run");
        }),
        ("base-directories", &|r: &Rootfs| {
            fs::remove_dir(r.at("dev")).unwrap()
        }),
        ("kernel-arguments", &|r: &Rootfs| {
            r.file("usr/lib/bootc/kargs.d/a.conf", "x");
        }),
        ("names", &|r: &Rootfs| {
            r.file("usr/share/.wh.a", "x");
        }),
        ("podman", &|r: &Rootfs| {
            fs::remove_file(r.at("usr/bin/podman")).unwrap()
        }),
        ("usr-writable", &|r: &Rootfs| {
            r.dir("usr/share/all").mode("usr/share/all", 0o777);
        }),
        ("container-stubs", &|r: &Rootfs| {
            r.file("etc/hosts", "").mode("etc/hosts", 0o755);
        }),
        ("initramfs-ostree", &|r: &Rootfs| {
            r.file(
                &format!("usr/lib/modules/{KERNEL}/initramfs.img"),
                empty_archive(),
            );
        }),
        ("initramfs-config", &|r: &Rootfs| {
            r.file(
                &format!("usr/lib/modules/{KERNEL}/initramfs.img"),
                empty_archive(),
            );
        }),
    ] {
        let copy = dir.path().join(name);
        succeed(Command::new("cp").arg("-a").arg(&rootfs.path).arg(&copy));
        let changed = Rootfs::new(copy);
        change(&changed);
        let arguments = ["lint", "--json", "--fatal-warnings", changed.str()];
        let output = crate::common::helper().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{name}");
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = said["findings"].as_array().unwrap();
        assert!(findings.iter().any(|f| f["name"] == name), "{name}: {said}");
    }
    assert!(fail(2, &["lint", "--skip", "none", rootfs.str()]).contains("no check 'none'"));
    let list: Value = serde_json::from_str(&run(&["lint", "--list", "--json"])).unwrap();
    assert!(list.as_array().unwrap().len() > 20);
}

/// An archive of the format "newc" without files.
fn empty_archive() -> String {
    let fields = ["00000000"; 11].concat();
    format!("070701{fields}0000000b00000000TRAILER!!!\0\0\0\0")
}
