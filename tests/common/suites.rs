//! Bootable systems of several suites, where `AOH_BOOT_ROOTFS_*` name them (see `contrib/test
//! finalize-real`).

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{is_root, succeed};

const SUITES: [&str; 3] = ["BOOKWORM", "TRIXIE", "SID"];

pub fn each_suite(test: impl Fn(&str, &Path)) {
    for suite in SUITES {
        if let Some(path) = std::env::var_os(format!("AOH_BOOT_ROOTFS_{suite}")) {
            let path = PathBuf::from(path);
            assert!(path.is_dir(), "{suite}: there is no {}", path.display());
            assert!(is_root(), "the systems have root's owners");
            test(suite, &path);
        }
    }
}

pub fn copy(from: &Path, to: &Path) {
    succeed(
        Command::new("cp")
            .args(["-a", "--reflink=auto"])
            .arg(from)
            .arg(to),
    );
}

/// Runs a script in the system, with what apt and dpkg need; its mounts end with it.
pub fn inside(rootfs: &Path, script: &str) -> String {
    const ENTER: &str = r#"cd "$1"
        mount -t tmpfs tmpfs dev
        for device in null zero random urandom; do : >dev/$device; mount --bind /dev/$device dev/$device; done
        ln -s /proc/self/fd dev/fd
        mount -t proc proc proc
        mount -t tmpfs tmpfs tmp
        mount -t tmpfs tmpfs run
        exec chroot . env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive sh -euc "$2""#;
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-euc", ENTER, "sh"]);
    succeed(command.arg(rootfs).arg(script))
}
