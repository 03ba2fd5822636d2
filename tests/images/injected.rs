//! What container runtimes leave in a root filesystem is not part of it; what merely looks like it
//! is.

use crate::common::*;

fn paths(rootfs: &Rootfs, dir: &std::path::Path) -> Vec<String> {
    let out = dir.join("out");
    let layout = format!("oci:{}", out.display());
    run(&[
        "build",
        "-q",
        "--format",
        "plain",
        "--rootfs",
        rootfs.str(),
        "-o",
        &layout,
    ]);
    let members = read_image(&out).layers.into_iter().flatten();
    members.map(|member| member.path).collect()
}

#[test]
fn stubs_of_runtimes_are_left_out() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let rootfs = Rootfs::new(dir.path().join("rootfs"));
    for stub in [
        "etc/hosts",
        "etc/hostname",
        "etc/resolv.conf",
        "usr/bin/empty",
    ] {
        rootfs.file(stub, "").mode(stub, 0o755);
    }
    rootfs
        .file(".dockerenv", "")
        .file("usr/.dockerenv", "")
        .settle();
    let found = paths(&rootfs, dir.path());
    for gone in ["etc/hosts", "etc/hostname", "etc/resolv.conf", ".dockerenv"] {
        assert!(
            !found.iter().any(|path| path == gone),
            "{gone} is in the image"
        );
    }
    for kept in ["usr/bin/empty", "usr/.dockerenv", "etc"] {
        assert!(
            found.iter().any(|path| path == kept),
            "{kept} is not in the image"
        );
    }
}

#[test]
fn files_that_somebody_made_are_kept() {
    let dir = scratch();
    let rootfs = Rootfs::new(dir.path().join("rootfs"));
    rootfs.file("etc/hosts", "").mode("etc/hosts", 0o644);
    rootfs
        .file("etc/hostname", "debian\n")
        .mode("etc/hostname", 0o755);
    rootfs.link("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf");
    rootfs.file(".dockerenv", "mine").settle();
    let found = paths(&rootfs, dir.path());
    for kept in ["etc/hosts", "etc/hostname", "etc/resolv.conf", ".dockerenv"] {
        assert!(
            found.iter().any(|path| path == kept),
            "{kept} is not in the image"
        );
    }
}
