//! A small Debian with some of all that `finalize` treats, and what is in it before and after.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use apt_ostree_helper::finalize::{self, Options, Report};
use camino::Utf8PathBuf;
use tempfile::TempDir;

use super::{MTIME, Rootfs, sha256};

/// The version of its kernel.
pub const KERNEL: &str = "6.1.0-1-amd64";

/// A Debian with a kernel and some of all that `finalize` treats.
pub fn debian(path: PathBuf) -> Rootfs {
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
    code.extend((MTIME as u32).to_le_bytes());
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

/// All but the initramfs: that step runs a program of the system, and this one has none.
pub fn options(rootfs: &Path) -> Options {
    Options {
        root: Utf8PathBuf::from_path_buf(rootfs.to_owned()).unwrap(),
        // It runs a program of the system, and this one has none.
        skip: vec!["initramfs".into()],
        ..Options::default()
    }
}

/// Finalizes it.
pub fn finalized(rootfs: &Path) -> Report {
    finalize::finalize(&options(rootfs), &|_| Ok(())).unwrap()
}

/// Every entry of a tree: type, mode, owner, content, and with `times` when it was changed last.
pub fn listing(root: &Path, times: bool) -> BTreeMap<String, String> {
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
pub fn contents(root: &Path) -> BTreeSet<String> {
    let entries = listing(root, false).into_values();
    let files = entries.filter(|entry| entry.starts_with("100"));
    files
        .map(|entry| entry.split(' ').nth(3).unwrap().to_owned())
        .collect()
}

/// The text of a file.
pub fn text(rootfs: &Rootfs, path: &str) -> String {
    fs::read_to_string(rootfs.at(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A link's target.
pub fn target(rootfs: &Rootfs, path: &str) -> String {
    let target = fs::read_link(rootfs.at(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    target.display().to_string()
}

/// A directory for many small systems: in memory where there is room for it.
pub fn scratch_in_memory() -> TempDir {
    let made = tempfile::Builder::new()
        .prefix("aoh-test-")
        .tempdir_in("/dev/shm");
    made.unwrap_or_else(|_| super::scratch())
}

/// Checks all items, as many at a time as there are processors; `check` has a number of its own
/// then.
pub fn side_by_side<T: Sync>(items: &[T], check: impl Fn(usize, &T) + Sync) {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let check = &check;
            scope.spawn(move || {
                for item in items.iter().skip(worker).step_by(workers) {
                    check(worker, item);
                }
            });
        }
    });
}

/// The checksums of what must not be lost, whatever happens: all but what `finalize` removes or
/// writes anew.
pub fn kept(rootfs: &Rootfs) -> BTreeSet<String> {
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
    let code = "usr/lib/python3/dist-packages/__pycache__/m.cpython-311.pyc";
    let code = sha256(&fs::read(rootfs.at(code)).unwrap());
    let mut kept = contents(&rootfs.path);
    kept.retain(|hash| !dropped.contains(hash) && *hash != code);
    kept
}
