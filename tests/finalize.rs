//! `finalize` and `lint` on small systems made by code: a second run changes nothing, one that is stopped anywhere is
//! completed by the next and loses nothing, and nothing outside a hostile system is reached.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use apt_ostree_helper::finalize::{self, Options, Report};
use camino::Utf8PathBuf;
use common::{Rootfs, fail, has, in_a_mount_namespace, is_root, run, scratch, sha256, succeed};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;

const KERNEL: &str = "6.1.0-1-amd64";

/// A Debian with a kernel and some of all that `finalize` treats.
fn debian(path: PathBuf) -> Rootfs {
    let rootfs = Rootfs::new(path);
    for dir in [
        "boot",
        "dev",
        "home/me",
        "media",
        "mnt",
        "opt",
        "proc",
        "root",
        "run/lock",
        "srv",
        "sys",
        "tmp",
        "usr/share",
        "usr/lib/tmpfiles.d",
        "usr/lib/sysusers.d",
        "usr/lib/systemd/system-preset",
        "etc/apt/apt.conf.d",
        "var/lib/empty",
        "var/log/apt",
        "var/tmp",
        "var/cache/apt/archives",
    ] {
        rootfs.dir(dir);
    }
    rootfs
        .link("lib", "usr/lib")
        .link("var/run", "/run")
        .link("vmlinuz", "boot/vmlinuz");
    let list = ["boot/vmlinuz-6.1.0-1-amd64", "boot/config-6.1.0-1-amd64"];
    let shipped = ["var/lib/shipped/data"];
    rootfs.packages(&[
        (
            "linux-image-6.1.0-1-amd64",
            "linux-signed-amd64",
            "6.1-1",
            &list,
        ),
        ("shipped", "shipped", "1", &shipped),
        ("ssh", "openssh", "1", &["usr/sbin/sshd"]),
        (
            "apt",
            "apt",
            "1",
            &["var/lib/apt/lists", "var/lib/apt/lists/partial"],
        ),
    ]);
    let module = "def one():\n    return 1\n";
    let mut code = 3495u32.to_le_bytes().to_vec();
    code[2..4].copy_from_slice(b"\r\n");
    code.extend([0; 4]);
    code.extend((common::MTIME as u32).to_le_bytes());
    code.extend((module.len() as u32).to_le_bytes());
    code.extend(b"code");
    for (path, content) in [
        ("boot/vmlinuz-6.1.0-1-amd64", "kernel"),
        ("boot/config-6.1.0-1-amd64", "config"),
        ("boot/initrd.img-6.1.0-1-amd64", "made by a package script"),
        ("usr/lib/modules/6.1.0-1-amd64/kernel/a.ko", "module"),
        ("usr/lib/systemd/systemd", "systemd"),
        ("usr/sbin/sshd", "sshd"),
        ("usr/bin/dracut", "#!/bin/sh\n"),
        ("usr/bin/podman", "podman"),
        ("usr/lib/podman/netavark", "netavark"),
        ("usr/lib/python3/dist-packages/m.py", module),
        ("etc/machine-id", ""),
        ("etc/hostname", "builder\n"),
        ("etc/resolv.conf", "nameserver 192.0.2.1\n"),
        ("etc/ssh/ssh_host_ed25519_key", "secret"),
        (
            "etc/passwd",
            "root:x:0:0::/root:/bin/sh\n_ssh:x:101:65534:ssh, agent:/run/sshd:/usr/sbin/nologin\n",
        ),
        ("etc/passwd-", "old"),
        ("etc/group", "root:x:0:\nnogroup:x:65534:\nnetdev:x:102:\n"),
        ("etc/shadow", "root:*:20000:0:99999:7:::\n"),
        (
            "usr/lib/tmpfiles.d/debian.conf",
            "L+ /var/run - - - - ../run\nd /var/log 0755\n",
        ),
        ("root/.bashrc", "of root"),
        ("home/me/notes", "of a user"),
        ("var/lib/shipped/data", "data of a package"),
        ("var/lib/other/private/secret", "data of nobody"),
        (
            "var/lib/apt/extended_states",
            "Package: a\nArchitecture: amd64\nAuto-Installed: 1\n\n",
        ),
        ("var/lib/shells.state", "/bin/sh\n"),
        ("var/lib/pam/auth", "pam"),
        ("var/lib/dpkg/status-old", "old"),
        ("var/lib/dpkg/lock", ""),
        ("var/cache/debconf/config.dat", "Name: a/b\n"),
        ("var/cache/debconf/config.dat-old", "Name: a/b\n"),
        ("var/cache/apt/pkgcache.bin", "cache"),
        ("var/log/dpkg.log", "log"),
        (
            "var/lib/systemd/deb-systemd-helper-enabled/ssh.service.dsh-also",
            "/etc\n",
        ),
        (
            "usr/lib/systemd/system/ssh.service",
            "[Install]\nWantedBy=multi-user.target\n",
        ),
        (
            "usr/lib/systemd/system/off.service",
            "[Install]\nWantedBy=multi-user.target\n",
        ),
        ("usr/lib/systemd/system/static.service", "[Service]\n"),
    ] {
        rootfs.file(path, content);
    }
    rootfs
        .file(
            "usr/lib/python3/dist-packages/__pycache__/m.cpython-311.pyc",
            code,
        )
        .file(
            "usr/lib/python3/dist-packages/__pycache__/gone.cpython-311.pyc",
            "stale",
        )
        .mode("var/lib/other/private", 0o700)
        .mode("etc/shadow", 0o640)
        .link(
            "etc/systemd/system/multi-user.target.wants/ssh.service",
            "/usr/lib/systemd/system/ssh.service",
        );
    rootfs.settle();
    rootfs
}

fn options(rootfs: &Path) -> Options {
    Options {
        root: Utf8PathBuf::from_path_buf(rootfs.to_owned()).unwrap(),
        // It runs a program of the system, and this one has none.
        skip: vec!["initramfs".into()],
        ..Options::default()
    }
}

fn finalized(rootfs: &Path) -> Report {
    finalize::finalize(&options(rootfs), &|_| Ok(())).unwrap()
}

/// Every entry of a tree: type, mode, owner, content, and with `times` when it was changed last.
fn listing(root: &Path, times: bool) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let stat = fs::symlink_metadata(&path).unwrap();
        let content = match stat.file_type() {
            kind if kind.is_dir() => {
                pending.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
                String::new()
            }
            kind if kind.is_symlink() => fs::read_link(&path).unwrap().display().to_string(),
            kind if kind.is_file() => sha256(&fs::read(&path).unwrap()),
            _ => "special".into(),
        };
        let time = match times {
            true => format!(
                "{}.{} {}",
                stat.mtime(),
                stat.mtime_nsec(),
                stat.ctime_nsec()
            ),
            false => String::new(),
        };
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let (mode, uid, gid) = (stat.mode(), stat.uid(), stat.gid());
        found.insert(name, format!("{mode:o} {uid} {gid} {content} {time}"));
    }
    found
}

/// The checksums of all files.
fn contents(root: &Path) -> BTreeSet<String> {
    let entries = listing(root, false).into_values();
    let files = entries.filter(|entry| entry.starts_with("100"));
    files
        .map(|entry| entry.split(' ').nth(3).unwrap().to_owned())
        .collect()
}

fn text(rootfs: &Rootfs, path: &str) -> String {
    fs::read_to_string(rootfs.at(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn target(rootfs: &Rootfs, path: &str) -> String {
    let target = fs::read_link(rootfs.at(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    target.display().to_string()
}

#[test]
fn everything_is_where_bootc_and_dpkg_look_for_it() {
    let dir = scratch();
    let rootfs = debian(dir.path().join("r"));
    let report = finalized(&rootfs.path);
    assert_eq!(report.kernel.as_deref(), Some(KERNEL));
    assert_eq!(
        text(&rootfs, &format!("usr/lib/modules/{KERNEL}/vmlinuz")),
        "kernel"
    );
    assert_eq!(
        text(&rootfs, "usr/lib/sysimage/dpkg/diversions"),
        format!(
            "/boot/vmlinuz-{KERNEL}\n/usr/lib/modules/{KERNEL}/vmlinuz\n:\n\
             /boot/config-{KERNEL}\n/usr/lib/modules/{KERNEL}/config\n:\n\
             /var/lib/shipped/data\n/usr/share/factory/var/lib/shipped/data\n:\n"
        )
    );
    assert_eq!(text(&rootfs, "etc/machine-id"), "uninitialized\n");
    assert_eq!(
        text(&rootfs, "var/lib/dpkg/status"),
        text(&rootfs, "usr/lib/sysimage/dpkg/status")
    );
    for (link, to) in [
        ("home", "var/home"),
        ("root", "var/roothome"),
        ("ostree", "sysroot/ostree"),
        ("var/lib/dpkg", "../../usr/lib/sysimage/dpkg"),
        (
            "var/lib/shells.state",
            "../../usr/lib/sysimage/shells.state",
        ),
    ] {
        assert_eq!(target(&rootfs, link), to);
    }
    assert!(text(&rootfs, "usr/lib/sysimage/apt/extended_states").contains("Auto-Installed: 1"));
    assert!(
        text(&rootfs, "etc/apt/apt.conf.d/50sysimage")
            .contains("/usr/lib/sysimage/apt/extended_states")
    );
    assert_eq!(
        text(&rootfs, "usr/share/factory/var/roothome/.bashrc"),
        "of root"
    );
    assert_eq!(
        text(&rootfs, "usr/share/factory/var/home/me/notes"),
        "of a user"
    );
    let private = fs::metadata(rootfs.at("usr/share/factory/var/lib/other/private")).unwrap();
    assert_eq!(
        private.mode() & 0o7777,
        0o700,
        "others must not see what they did not"
    );
    let lines = text(&rootfs, "usr/lib/tmpfiles.d/apt-ostree-helper-var.conf");
    for line in [
        "L /var/lib/dpkg - - - - ../../usr/lib/sysimage/dpkg\n",
        "d /var/lib/other/private 0700 root root -\n",
        "C /var/lib/shipped/data - - - - /usr/share/factory/var/lib/shipped/data\n",
        "C /var/home/me/notes - - - - /usr/share/factory/var/home/me/notes\n",
        "d /var/log/apt 0755 root root -\n",
        "d /var/lib/apt/lists/partial 0755 root root -\n",
    ] {
        assert!(lines.contains(line), "{line}: {lines}");
    }
    assert!(
        !lines.contains("/var/run") && !lines.contains("d /var/log 0755"),
        "{lines}"
    );
    let presets = text(
        &rootfs,
        "usr/lib/systemd/system-preset/85-apt-ostree-helper.preset",
    );
    // A unit that a later package brings is in no line, and Debian's default holds for it.
    assert!(
        presets.ends_with("enable ssh.service\ndisable off.service\n"),
        "{presets}"
    );
    let users = text(&rootfs, "usr/lib/sysusers.d/apt-ostree-helper.conf");
    assert!(
        users.contains("u _ssh 101:65534 \"ssh, agent\" /run/sshd /usr/sbin/nologin\n"),
        "{users}"
    );
    assert_eq!(text(&rootfs, "etc/shadow"), "root:*::0:99999:7:::\n");
    assert_eq!(
        fs::metadata(rootfs.at("etc/shadow")).unwrap().mode() & 0o7777,
        0o640
    );
    let code =
        fs::read(rootfs.at("usr/lib/python3/dist-packages/__pycache__/m.cpython-311.pyc")).unwrap();
    assert_eq!(
        (&code[4..8], &code[16..]),
        (&[3, 0, 0, 0][..], &b"code"[..])
    );
    for gone in [
        "vmlinuz",
        "etc/hostname",
        "etc/resolv.conf",
        "etc/ssh/ssh_host_ed25519_key",
        "etc/passwd-",
        "var/log/dpkg.log",
        "var/cache/apt/pkgcache.bin",
        "usr/lib/sysimage/dpkg/status-old",
        "run/lock",
    ] {
        assert!(fs::symlink_metadata(rootfs.at(gone)).is_err(), "{gone}");
    }
}

#[test]
fn a_second_run_changes_nothing() {
    let dir = scratch();
    let rootfs = debian(dir.path().join("r"));
    assert!(finalized(&rootfs.path).changes() > 40);
    let before = listing(&rootfs.path, true);
    assert_eq!(finalized(&rootfs.path).changes(), 0);
    assert_eq!(listing(&rootfs.path, true), before);
}

#[test]
fn a_dry_run_changes_nothing_and_tells_all() {
    let dir = scratch();
    let rootfs = debian(dir.path().join("r"));
    let before = listing(&rootfs.path, true);
    let told: Value =
        serde_json::from_str(&run(&["finalize", "--dry-run", "--json", rootfs.str()])).unwrap();
    assert_eq!(listing(&rootfs.path, true), before);
    let changes = |steps: &Value| {
        let steps = steps.as_array().unwrap().iter();
        let changes = steps
            .filter(|step| step["name"] != "initramfs")
            .flat_map(|step| {
                let changes = step["changes"].as_array().unwrap().iter();
                changes
                    .map(|change| {
                        // The same file, which a link leads to when the directory has moved.
                        let path = change["path"].as_str().unwrap();
                        let path = path.replace("/usr/lib/sysimage/dpkg/", "/var/lib/dpkg/");
                        (path, change["action"].to_string())
                    })
                    .collect::<Vec<_>>()
            });
        changes.collect::<BTreeSet<_>>()
    };
    let made = serde_json::to_value(finalized(&rootfs.path)).unwrap();
    let (told, made) = (changes(&told["steps"]), changes(&made["steps"]));
    let untold: Vec<_> = made.difference(&told).collect();
    assert!(untold.is_empty(), "{untold:?}");
}

/// Nothing is lost wherever it is stopped, and the next run makes the same as if nothing had been.
#[test]
fn what_is_stopped_is_completed_by_the_next_run() {
    let dir = scratch();
    let whole = debian(dir.path().join("whole"));
    let dropped = [
        "made by a package script",
        "builder\n",
        "nameserver 192.0.2.1\n",
        "secret",
        "old",
        "",
        "cache",
        "log",
        "stale",
        "Name: a/b\n",
        "root:*:20000:0:99999:7:::\n",
    ];
    let dropped: BTreeSet<String> = dropped.iter().map(|text| sha256(text.as_bytes())).collect();
    let code = sha256(
        &fs::read(whole.at("usr/lib/python3/dist-packages/__pycache__/m.cpython-311.pyc")).unwrap(),
    );
    let kept: BTreeSet<String> = contents(&whole.path)
        .into_iter()
        .filter(|hash| !dropped.contains(hash) && *hash != code)
        .collect();
    let changes = Cell::new(0);
    let count = |_: &str| {
        changes.set(changes.get() + 1);
        Ok(())
    };
    finalize::finalize(&options(&whole.path), &count).unwrap();
    let wanted = listing(&whole.path, false);
    assert!(changes.get() > 60, "{}", changes.get());
    for stop in 0..changes.get() {
        let rootfs = debian(dir.path().join("r"));
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
    }
}

/// Another file system below, as the layers of an overlay are: what is moved is copied, then removed.
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
fn what_is_refused_is_left_alone() {
    let dir = scratch();
    type Case<'a> = (&'a str, &'a dyn Fn(&Rootfs), &'a [&'a str], &'a str);
    let cases: [Case<'_>; 6] = [
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
            "this is no Debian system",
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

/// In the place of each path that is written, and of each directory above it: a link out of the system, a pipe, a
/// directory. Whatever comes of it, nothing outside is touched, and nothing hangs.
#[test]
fn nothing_outside_a_hostile_system_is_reached() {
    let dir = scratch();
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
    for path in &paths {
        for kind in ["link to a directory", "link to a file", "pipe", "directory"] {
            let rootfs = debian(dir.path().join("r"));
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
    }
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

/// What an installation adds is finished; what programs replace by rename is taken in again.
#[test]
fn a_later_run_finishes_what_is_new() {
    let dir = scratch();
    let rootfs = debian(dir.path().join("r"));
    finalized(&rootfs.path);
    // As update-shells does it.
    fs::write(rootfs.at("var/lib/shells.state.tmp"), "/bin/sh\n/bin/new\n").unwrap();
    fs::rename(
        rootfs.at("var/lib/shells.state.tmp"),
        rootfs.at("var/lib/shells.state"),
    )
    .unwrap();
    rootfs
        .file("var/log/nginx/access.log", "log")
        .file("var/lib/nginx/state", "state");
    rootfs.file("var/lib/dpkg/info/nginx.list", "/.\n");
    let report = finalized(&rootfs.path);
    let names: Vec<_> = report
        .steps
        .iter()
        .filter(|step| !step.changes.is_empty())
        .map(|step| step.name)
        .collect();
    assert_eq!(names, ["package-state", "var"]);
    assert_eq!(
        text(&rootfs, "usr/lib/sysimage/shells.state"),
        "/bin/sh\n/bin/new\n"
    );
    assert_eq!(
        target(&rootfs, "var/lib/shells.state"),
        "../../usr/lib/sysimage/shells.state"
    );
    let lines = text(&rootfs, "usr/lib/tmpfiles.d/apt-ostree-helper-var.conf");
    assert!(
        lines.contains("d /var/log/nginx 0755 root root -\n")
            && lines.contains("C /var/lib/nginx/state "),
        "{lines}"
    );
    assert_eq!(finalized(&rootfs.path).changes(), 0);
    // The kernel is upgraded: the old one is purged, and leaves what others made.
    rootfs
        .file("boot/vmlinuz-6.2", "new kernel")
        .file("usr/lib/modules/6.2/kernel/a.ko", "module");
    let old = rootfs.at(&format!("usr/lib/modules/{KERNEL}"));
    fs::remove_file(old.join("vmlinuz")).unwrap();
    fs::remove_file(old.join("config")).unwrap();
    fs::remove_dir_all(old.join("kernel")).unwrap();
    fs::write(old.join("initramfs.img"), "old").unwrap();
    let report = finalized(&rootfs.path);
    assert_eq!(report.kernel.as_deref(), Some("6.2"));
    assert!(!old.exists());
    let diversions = text(&rootfs, "usr/lib/sysimage/dpkg/diversions");
    assert!(
        !diversions.contains(KERNEL) && diversions.contains("shipped"),
        "{diversions}"
    );
}

#[test]
fn steps_are_listed_left_out_and_chosen() {
    let dir = scratch();
    let rootfs = debian(dir.path().join("r"));
    let list: Value = serde_json::from_str(&run(&["finalize", "--list", "--json"])).unwrap();
    let names: Vec<&str> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["name"].as_str().unwrap())
        .collect();
    assert!(
        names.contains(&"kernel") && names.last() == Some(&"initramfs"),
        "{names:?}"
    );
    run(&["finalize", "-q", "--only", "identity", rootfs.str()]);
    assert_eq!(text(&rootfs, "etc/machine-id"), "uninitialized\n");
    assert!(rootfs.at("boot/vmlinuz-6.1.0-1-amd64").exists());
    run(&[
        "finalize",
        "-q",
        "--skip",
        "initramfs",
        "--skip",
        "layout",
        rootfs.str(),
    ]);
    assert!(rootfs.at("root/.bashrc").exists());
    assert!(!rootfs.at("boot/vmlinuz-6.1.0-1-amd64").exists());
}

fn lint(rootfs: &Rootfs, status: i32, arguments: &[&str]) -> Vec<String> {
    let arguments = [&["lint", "--json", rootfs.str()], arguments].concat();
    let output = common::helper().args(&arguments).output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(status),
        "{}",
        common::stderr(&output)
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
        let output = common::helper().args(arguments).output().unwrap();
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
