//! Real root filesystems, where `AOH_ROOTFS_TRIXIE` and `AOH_ROOTFS_BOOKWORM` name them (see
//! `contrib/test`): whole images that an independent judge reads, the commit that libostree makes,
//! memory that does not grow with the rootfs, and layers that follow packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{EMPTIED, has, helper, judged, scratch, stderr, succeed};
use serde_json::Value;

const SUITES: [&str; 2] = ["AOH_ROOTFS_TRIXIE", "AOH_ROOTFS_BOOKWORM"];

fn rootfs(suite: &str) -> Option<PathBuf> {
    let path = std::env::var_os(suite).map(PathBuf::from)?;
    assert!(path.is_dir(), "{suite}: there is no {}", path.display());
    Some(path)
}

/// What a build says, and the most memory it had, in KiB.
fn build(rootfs: &Path, output: &str, extra: &[&str]) -> (Value, Option<u64>) {
    let mut command = helper();
    let measured = has("/usr/bin/time");
    if measured {
        let program = command.get_program().to_owned();
        command = Command::new("/usr/bin/time");
        command.args(["-f", "%M"]).arg(program);
        command.env_remove("SOURCE_DATE_EPOCH");
    }
    command.args(["build", "--json", "-q", "-o", output]);
    command.arg("--rootfs").arg(rootfs).args(extra);
    let done = command.output().unwrap();
    let messages = stderr(&done);
    assert!(done.status.success(), "{command:?}: {messages}");
    let said = serde_json::from_slice(&done.stdout).unwrap();
    let memory = messages.trim().lines().last();
    let memory = memory.filter(|_| measured).map(|kib| kib.parse().unwrap());
    (said, memory)
}

#[test]
fn images_of_debian_are_whole_and_like_the_rootfs() {
    for rootfs in SUITES.into_iter().filter_map(rootfs) {
        for (format, compression) in [("ostree", "none"), ("plain", "zstd")] {
            let dir = scratch();
            let output = format!("oci:{}", dir.path().join("out").display());
            let flags = ["--format", format, "--compression", compression];
            let (said, memory) = build(&rootfs, &output, &flags);
            match format {
                "ostree" => judged(&["verify", &output, "--ostree"]),
                _ => judged(&["verify", &output]),
            }
            judged(&["same", &output, rootfs.to_str().unwrap()]);
            if let Some(memory) = memory {
                assert!(memory < 128 << 10, "{memory} KiB for {format}");
            }
            layers_follow_packages(&said);
        }
    }
}

fn layers_follow_packages(said: &Value) {
    let layers = said["layers"].as_array().unwrap();
    assert!((40..=64).contains(&layers.len()), "{} layers", layers.len());
    let size = |layer: &Value| layer["uncompressed_size"].as_u64().unwrap();
    let total: u64 = layers.iter().map(size).sum();
    let unowned = layers.iter().filter(|layer| {
        let components = layer["components"].as_array().unwrap();
        components.iter().any(|name| name == "rest/files")
    });
    let unowned: u64 = unowned.map(size).sum();
    assert!(
        unowned * 10 <= total,
        "{unowned} of {total} bytes are nobody's"
    );
    assert!(said["packages"].as_u64().unwrap() > 50);
}

#[test]
fn commits_of_debian_are_those_that_libostree_makes() {
    if !has("ostree") {
        return;
    }
    for rootfs in SUITES.into_iter().filter_map(rootfs) {
        let dir = scratch();
        let out = dir.path().join("out");
        let output = format!("oci:{}", out.display());
        let (said, _) = build(&rootfs, &output, &["--timestamp", "1600000000"]);
        fs::remove_dir_all(out).unwrap();
        let copy = dir.path().join("copy");
        succeed(
            Command::new("cp")
                .args(["-a", "--reflink=auto"])
                .arg(&rootfs)
                .arg(&copy),
        );
        for name in EMPTIED {
            let emptied = copy.join(name);
            if emptied.is_dir() {
                let find = ["-mindepth", "1", "-delete"];
                succeed(Command::new("find").arg(emptied).args(find));
            }
        }
        fs::rename(copy.join("etc"), copy.join("usr/etc")).unwrap();
        let repo = format!("--repo={}", dir.path().join("repo").display());
        succeed(Command::new("ostree").args(["init", "--mode=bare-user", &repo]));
        succeed(Command::new("ostree").args(["config", &repo, "set", "core.fsync", "false"]));
        let mut commit = Command::new("ostree");
        commit
            .args(["commit", &repo, "-b", "main", "--no-bindings", "-s", ""])
            .args(["--timestamp=@1600000000", "--consume"])
            .arg(format!("--tree=dir={}", copy.display()));
        if let Some(version) = kernel(&rootfs) {
            commit.arg("--add-metadata=ostree.bootable=true");
            commit.arg(format!("--add-metadata=ostree.linux='{version}'"));
        }
        assert_eq!(said["commit"], succeed(&mut commit), "{}", rootfs.display());
    }
}

/// The version of the kernel where OSTree looks for one; Debian has its own in `/boot`.
fn kernel(rootfs: &Path) -> Option<String> {
    let modules = fs::read_dir(rootfs.join("usr/lib/modules")).into_iter();
    let versions = modules.flatten().flatten().map(|entry| entry.path());
    let versions = versions.filter(|path| path.join("vmlinuz").exists());
    let names = versions.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
    names.max()
}
