//! `finalize` where something is in its way: one that is stopped anywhere is completed by the next
//! and loses nothing, and nothing outside a hostile system is reached.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::debian::{
    KERNEL, contents, debian, finalized, kept, listing, options, scratch_in_memory, side_by_side,
};
use crate::common::{Rootfs, fail, has, in_a_mount_namespace, is_root, run, scratch};
use apt_ostree_helper::finalize;
use rustix::fs::{CWD, FileType, Mode, mknodat};

/// Nothing is lost wherever it is stopped, and the next run makes the same as if nothing had been.
#[test]
fn what_is_stopped_is_completed_by_the_next_run() {
    let dir = scratch_in_memory();
    let whole = debian(dir.path().join("whole"));
    let kept = kept(&whole);
    let changes = Cell::new(0);
    let count = |_: &str| {
        changes.set(changes.get() + 1);
        Ok(())
    };
    finalize::finalize(&options(&whole.path), &count).unwrap();
    let wanted = listing(&whole.path, false);
    assert!(changes.get() > 60, "{}", changes.get());
    let stops: Vec<usize> = (0..changes.get()).collect();
    side_by_side(&stops, |worker, &stop| {
        let rootfs = debian(dir.path().join(format!("r{worker}")));
        let left = Cell::new(stop);
        let stopping = |what: &str| match left.get() {
            0 => Err(anyhow::anyhow!("stopped before: {what}")),
            more => {
                left.set(more - 1);
                Ok(())
            }
        };
        let stopped = finalize::finalize(&options(&rootfs.path), &stopping).unwrap_err();
        let there = contents(&rootfs.path);
        let lost: Vec<_> = kept.difference(&there).collect();
        assert!(lost.is_empty(), "{stop}: {stopped:#}: lost {lost:?}");
        finalized(&rootfs.path);
        assert_eq!(listing(&rootfs.path, false), wanted, "{stop}: {stopped:#}");
        fs::remove_dir_all(&rootfs.path).unwrap();
    });
}

/// Another file system below, as the layers of an overlay are: what is moved is copied, then
/// removed.
#[test]
fn files_move_between_file_systems() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let (plain, other) = (
        debian(dir.path().join("plain")),
        debian(dir.path().join("other")),
    );
    finalized(&plain.path);
    in_a_mount_namespace(
        r#"mkdir "$2/upper" "$2/work" "$2/merged"
        mount -t overlay overlay -o "lowerdir=$3,upperdir=$2/upper,workdir=$2/work,redirect_dir=off" "$2/merged"
        "$1" finalize -q --skip initramfs "$2/merged"
        "$1" finalize --skip initramfs "$2/merged" 2>&1 | grep -q 'finalized already'
        cp -a "$2/merged" "$2/result""#,
        &[&dir.path().to_owned(), &other.path],
    );
    let result = dir.path().join("result");
    assert_eq!(listing(&result, false), listing(&plain.path, false));
}

#[test]
fn initramfs_tools_with_a_hook_will_do() {
    let dir = scratch();
    let rootfs = debian(dir.path().join("r"));
    fs::rename(
        rootfs.at("usr/bin/dracut"),
        rootfs.at("usr/sbin/mkinitramfs"),
    )
    .unwrap();
    let told = |arguments: &[&str]| {
        run(&[
            &["finalize", "--dry-run", "--json", rootfs.str()],
            arguments,
        ]
        .concat())
    };
    let said = told(&[]);
    assert!(
        said.contains("initramfs-tools, which has no hook"),
        "{said}"
    );
    rootfs.file("etc/initramfs-tools/hooks/our-ostree", "#!/bin/sh\n");
    let said = told(&["--bootable"]);
    assert!(!said.contains("has no hook"), "{said}");
    assert!(said.contains("/usr/sbin/mkinitramfs"), "{said}");
}

/// initramfs-tools has it while it works, and may be killed.
#[test]
fn a_link_to_the_configuration_of_the_kernel_does_not_replace_it() {
    let dir = scratch();
    let rootfs = debian(dir.path().join("r"));
    finalized(&rootfs.path);
    let config = format!("usr/lib/modules/{KERNEL}/config");
    rootfs.link(&format!("boot/config-{KERNEL}"), &format!("../{config}"));
    assert_eq!(finalized(&rootfs.path).changes(), 1);
    let link = rootfs.at(&format!("boot/config-{KERNEL}"));
    assert!(!link.is_symlink(), "it is gone");
    assert_eq!(fs::read(rootfs.at(&config)).unwrap(), b"config");
}

#[test]
fn what_is_refused_is_left_alone() {
    let dir = scratch();
    type Case<'a> = (&'a str, &'a dyn Fn(&Rootfs), &'a [&'a str], &'a str);
    let cases: [Case<'_>; 7] = [
        (
            "two kernels",
            &|r| {
                r.file("usr/lib/modules/6.2/vmlinuz", "k");
            },
            &[],
            "there are 2 kernels (6.1.0-1-amd64, 6.2)",
        ),
        (
            "no kernel",
            &|r| {
                fs::remove_file(r.at("boot/vmlinuz-6.1.0-1-amd64")).unwrap();
            },
            &["--bootable"],
            "there is no kernel",
        ),
        (
            "no dracut",
            &|r| {
                fs::remove_file(r.at("usr/bin/dracut")).unwrap();
            },
            &[],
            "neither dracut nor initramfs-tools",
        ),
        (
            "initramfs-tools",
            &|r| {
                fs::rename(r.at("usr/bin/dracut"), r.at("usr/sbin/mkinitramfs")).unwrap();
            },
            &["--bootable"],
            "initramfs-tools, which has no hook for OSTree or bootc here",
        ),
        (
            "not merged",
            &|r| {
                fs::remove_file(r.at("lib")).unwrap();
                r.dir("lib");
            },
            &[],
            "/usr is not merged",
        ),
        (
            "a checkout",
            &|r| {
                r.dir("usr/etc");
            },
            &[],
            "which only a commit has",
        ),
        (
            "no Debian",
            &|r| {
                fs::remove_dir_all(r.at("var")).unwrap();
            },
            &[],
            "this is not a Debian system",
        ),
    ];
    for (name, change, arguments, expected) in cases {
        let rootfs = debian(dir.path().join(name));
        change(&rootfs);
        let before = listing(&rootfs.path, true);
        let said = fail(1, &[&["finalize", rootfs.str()], arguments].concat());
        assert!(said.contains(expected), "{name}: {said}");
        assert_eq!(listing(&rootfs.path, true), before, "{name}");
    }
    let rootfs = debian(dir.path().join("r"));
    assert!(fail(2, &["finalize", "--skip", "none", rootfs.str()]).contains("no step 'none'"));
    if is_root() {
        in_a_mount_namespace(
            r#"mount --bind "$2" "$2"; mount -o remount,bind,ro "$2"
            "$1" finalize "$2" 2>&1 | grep -q 'mounted read-only'
            mount -o remount,bind,rw "$2"; mount --bind "$2/srv" "$2/boot"
            cp "$2/usr/bin/dracut" "$2/srv/vmlinuz-6.1.0-1-amd64"
            "$1" finalize "$2" 2>&1 | grep -q 'something is mounted at /boot'"#,
            &[&rootfs.path],
        );
    }
}

/// In the place of each path that is written, and of each directory above it: a link out of the
/// system, a pipe, a directory. Whatever comes of it, nothing outside is touched, and nothing
/// hangs.
#[test]
fn nothing_outside_a_hostile_system_is_reached() {
    let dir = scratch_in_memory();
    let model = debian(dir.path().join("model"));
    let report = finalized(&model.path);
    let mut paths = BTreeSet::new();
    for change in report.steps.iter().flat_map(|step| &step.changes) {
        let path = Path::new(change.path.trim_start_matches('/'));
        paths.extend(
            path.ancestors()
                .filter(|p| !p.as_os_str().is_empty())
                .map(Path::to_owned),
        );
        if let finalize::Action::Move { to } = &change.action {
            let to = Path::new(to.trim_start_matches('/'));
            paths.extend(
                to.ancestors()
                    .filter(|p| !p.as_os_str().is_empty())
                    .map(Path::to_owned),
            );
        }
    }
    assert!(paths.len() > 60, "{}", paths.len());
    let outside = Rootfs::new(dir.path().join("outside"));
    outside
        .file("file", "untouched")
        .file("sub/vmlinuz", "untouched");
    for name in ["dpkg", "lib", "status", "modules", "diversions", ".bashrc"] {
        outside.file(&format!("sub/{name}"), "untouched");
    }
    let before = listing(&outside.path, true);
    let paths: Vec<PathBuf> = paths.into_iter().collect();
    side_by_side(&paths, |worker, path| {
        for kind in ["link to a directory", "link to a file", "pipe", "directory"] {
            let rootfs = debian(dir.path().join(format!("r{worker}")));
            let place = rootfs.path.join(path);
            match fs::symlink_metadata(&place) {
                Ok(stat) if stat.is_dir() => fs::remove_dir_all(&place).unwrap(),
                Ok(_) => fs::remove_file(&place).unwrap(),
                Err(_) => {}
            }
            let parent = place.parent().unwrap();
            if fs::create_dir_all(parent).is_err() {
                fs::remove_dir_all(&rootfs.path).unwrap();
                continue;
            }
            match kind {
                "link to a directory" => symlink(outside.at("sub"), &place).unwrap(),
                "link to a file" => symlink(outside.at("file"), &place).unwrap(),
                "pipe" => {
                    mknodat(CWD, &place, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
                }
                _ => {
                    fs::create_dir(&place).unwrap();
                    fs::write(place.join("inside"), "x").unwrap();
                }
            }
            let outcome = finalize::finalize(&options(&rootfs.path), &|_| Ok(()));
            let name = format!("{kind} at {}", path.display());
            assert_eq!(listing(&outside.path, true), before, "{name}");
            if let Err(error) = outcome {
                let said = format!("{error:#}");
                assert!(said.contains(rootfs.str()), "{name}: {said}");
            }
            fs::remove_dir_all(&rootfs.path).unwrap();
        }
    });
}

#[test]
fn an_immutable_file_is_named() {
    let dir = scratch();
    let rootfs = debian(dir.path().join("r"));
    let file = rootfs.at("etc/machine-id");
    let set = |flag: &str| Command::new("chattr").arg(flag).arg(&file).output();
    if !is_root() || !has("chattr") || !set("+i").is_ok_and(|output| output.status.success()) {
        return;
    }
    let said = fail(1, &["finalize", "--skip", "initramfs", rootfs.str()]);
    set("-i").unwrap();
    assert!(
        said.contains("etc/machine-id") && said.contains("immutable"),
        "{said}"
    );
    finalized(&rootfs.path);
    assert_eq!(finalized(&rootfs.path).changes(), 0);
}
