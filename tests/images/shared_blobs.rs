//! Blobs that are taken over from another layout, and blobs that two builds share.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::*;

/// A layer of the previous image became a link to a file of the host of the same size while it was
/// taken over: that file's bytes, or the link itself, were in the new image, with exit 0.
#[test]
fn a_host_file_does_not_get_into_an_image() {
    let dir = scratch();
    let rootfs = three_packages(dir.path(), "rootfs", "1", "note");
    let honest = build_layout(dir.path(), &rootfs, &["--timestamp", "1700000000"]);
    let before = dir.path().join("out");
    let image = read_image(&before);
    let layers = image.manifest["layers"].as_array().unwrap();
    let largest = layers.iter().max_by_key(|layer| layer["size"].as_u64());
    let name = largest.unwrap()["digest"].as_str().unwrap();
    let blob = before
        .join("blobs/sha256")
        .join(name.trim_start_matches("sha256:"));
    let content = fs::read(&blob).unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, vec![b'S'; content.len()]).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| swap(&blob, &content, &secret, &stop));
        let _stop = Stop(&stop);
        let previous = format!("oci:{}", before.display());
        // On the same file system, and on another one.
        for place in [dir.path(), Path::new("/dev/shm")] {
            let to = tempfile::Builder::new().tempdir_in(place).unwrap();
            let out = to.path().join("new");
            let output = format!("oci:{}", out.display());
            for _ in 0..40 {
                let base = ["build", "-q", "--rootfs", rootfs.str(), "-o", &output];
                let more = ["--previous", &previous, "--timestamp", "1700000000"];
                assert_eq!(run(&[&base[..], &more].concat()), honest);
                // Each blob is hashed as it is read.
                read_image(&out);
                for name in names(&out.join("blobs/sha256")) {
                    let found = fs::symlink_metadata(out.join("blobs/sha256").join(&name));
                    assert!(found.unwrap().is_file(), "{name}");
                }
                fs::remove_dir_all(&out).unwrap();
            }
        }
    });
}

/// Puts links and the file itself in each other's place.
fn swap(blob: &Path, content: &[u8], secret: &Path, stop: &AtomicBool) {
    let link = blob.with_file_name("link");
    for turn in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        match turn % 2 {
            0 => symlink(secret, &link).unwrap(),
            _ => fs::write(&link, content).unwrap(),
        }
        fs::rename(&link, blob).unwrap();
        std::thread::sleep(Duration::from_micros(turn % 11 * 300));
    }
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Two builds share a new blob, and the first fails after the second has published: its clean-up
/// took the blob away from the second.
#[test]
fn a_build_that_fails_removes_no_blob_that_another_needs() {
    if !has("strace") {
        return;
    }
    let dir = scratch();
    let rootfs = tiny(dir.path());
    let layout = dir.path().join("out");
    let to = |tag: &str| format!("oci:{}:{tag}", layout.display());
    let build = |tag: &str| {
        let label = format!("tag={tag}");
        let base = ["build", "-q", "-j", "1", "--rootfs", rootfs.str()];
        let more = ["-l", &label, "-o", &to(tag)].map(str::to_owned);
        base.map(str::to_owned).into_iter().chain(more)
    };
    run(&["build", "-q", "--rootfs", rootfs.str(), "-o", &to("old")]);
    for call in ["fsync", "rename", "renameat", "syncfs", "unlink"] {
        for when in 1..=4 {
            let content = format!("new for both: {call} {when}");
            rootfs.file("usr/bin/foo", content).settle();
            let fault = format!("inject={call}:error=EIO:delay_enter=300000:when={when}");
            let mut first = Command::new("strace");
            first.args(["-f", "-qq", "-o", "/dev/null", "-e"]);
            first.args([&format!("trace={call}"), "-e", &fault]);
            first.arg(env!("CARGO_BIN_EXE_apt-ostree-helper"));
            first.args(build("first")).env_remove("SOURCE_DATE_EPOCH");
            first.stdout(Stdio::null()).stderr(Stdio::null());
            let mut first = first.spawn().unwrap();
            std::thread::sleep(Duration::from_millis(when * 60));
            let digest = succeed(helper().args(build("second")));
            first.wait().unwrap();
            let image = read_manifest(&layout, &digest.clone().into());
            assert_eq!(image.digest, digest, "{call} {when}");
            // Each blob of every image is there, and what it is said to be.
            let index = fs::read_to_string(layout.join("index.json")).unwrap();
            assert!(index.contains(&digest), "{call} {when}: {index}");
        }
    }
}
