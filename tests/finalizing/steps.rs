//! `finalize` on small systems made by code: everything gets its place, and a second run changes
//! nothing.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::common::debian::{KERNEL, debian, finalized, listing, target, text};
use crate::common::{helper, is_root, names, run, scratch, stderr};
use serde_json::Value;

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

/// A package below `/opt` that is installed when that is a link: dpkg follows it.
#[test]
fn packages_below_opt_belong_to_the_image() {
    let dir = scratch();
    let rootfs = debian(dir.path().join("r"));
    finalized(&rootfs.path);
    assert_eq!(target(&rootfs, "opt"), "var/opt");
    let list = "/.\n/opt\n/opt/browser\n/opt/browser/program\n/opt/both\n/opt/both/program\n\
        /var/opt/both\n/var/opt/both/data\n/var/opt/data\n/var/opt/data/file\n";
    let stanza =
        "Package: browser\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\n";
    let status = text(&rootfs, "var/lib/dpkg/status") + stanza;
    rootfs
        .file("var/lib/dpkg/info/browser.list", list)
        .file("var/lib/dpkg/status", status)
        .file("var/opt/browser/program", "a program")
        .file("var/opt/browser/made-by-its-script", "made")
        .file("var/opt/both/program", "another program")
        .file("var/opt/both/data", "data")
        .file("var/opt/data/file", "more data")
        .file("var/opt/by-hand/program", "put there by a COPY to /opt");
    let said = run(&[
        "finalize",
        "--dry-run",
        "-v",
        "--skip",
        "initramfs",
        rootfs.str(),
    ]);
    assert!(!said.contains("factory/var/opt/browser"), "{said}");
    let report = finalized(&rootfs.path);
    let changed = report.steps.iter().filter(|step| !step.changes.is_empty());
    let names: Vec<_> = changed.map(|step| step.name).collect();
    assert_eq!(names, ["opt", "var"]);
    for (path, content) in [
        ("opt/browser/program", "a program"),
        ("opt/browser/made-by-its-script", "made"),
        ("opt/both/program", "another program"),
        ("opt/by-hand/program", "put there by a COPY to /opt"),
        ("usr/share/factory/var/opt/both/data", "data"),
        ("usr/share/factory/var/opt/data/file", "more data"),
    ] {
        assert_eq!(text(&rootfs, path), content, "{path}");
    }
    assert!(rootfs.at("opt").is_dir() && !rootfs.at("opt").is_symlink());
    let lines = text(&rootfs, "usr/lib/tmpfiles.d/apt-ostree-helper-var.conf");
    assert!(!lines.contains("/var/opt/browser"), "{lines}");
    assert_eq!(finalized(&rootfs.path).changes(), 0);
    // It is removed: nothing is there any more, and /opt is the machine's.
    rootfs.file("var/lib/dpkg/info/browser.list", "/.\n");
    for name in ["browser", "both", "by-hand"] {
        fs::remove_dir_all(rootfs.at("opt").join(name)).unwrap();
    }
    finalized(&rootfs.path);
    assert_eq!(target(&rootfs, "opt"), "var/opt");
}

/// Where no overlay can be mounted, as its directory has a comma in its name, the view is a copy.
#[test]
fn a_build_finalizes_an_overlay_or_a_copy() {
    let dir = scratch();
    let rootfs = debian(dir.path().join("r"));
    // The fixture has no program that makes an initramfs, which then is not asked for.
    for path in ["boot", "usr/lib/modules"] {
        fs::remove_dir_all(rootfs.at(path)).unwrap();
    }
    fs::create_dir(rootfs.at("boot")).unwrap();
    let before = listing(&rootfs.path, true);
    let mut images = Vec::new();
    for place in ["overlay", "copy,"] {
        let place = dir.path().join(place);
        fs::create_dir(&place).unwrap();
        let layout = place.join("image");
        let mut command = helper();
        command
            .args(["build", "-v", "--finalize", "--timestamp", "1700000000"])
            .args(["--rootfs", rootfs.str()])
            .arg("-o")
            .arg(format!("oci:{}", layout.display()))
            .env("TMPDIR", &place);
        let output = command.output().unwrap();
        let messages = stderr(&output);
        assert!(output.status.success(), "{messages}");
        let is_copied = messages.contains("no overlay can be mounted");
        assert!(
            is_copied || is_root() && !place.ends_with("copy,"),
            "{messages}"
        );
        assert_eq!(listing(&rootfs.path, true), before);
        assert_eq!(names(&place), ["image"], "the view is gone");
        images.push(fs::read(layout.join("index.json")).unwrap());
    }
    assert_eq!(images[0], images[1]);
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
