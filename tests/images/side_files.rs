//! What is written beside an image, and what becomes of a branch when the image cannot be written.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use crate::common::*;

/// A FIFO blocked, a link was followed, and with a directory the image was published, then exit 1.
#[test]
fn what_cannot_be_written_is_refused_first() {
    let dir = scratch();
    let rootfs = tiny(dir.path());
    let at = |name: &str| dir.path().join(name).display().to_string();
    fs::create_dir(at("directory")).unwrap();
    fs::write(at("target"), "kept").unwrap();
    symlink("target", at("link")).unwrap();
    succeed(Command::new("mkfifo").arg(at("fifo")));
    let output = format!("oci:{}", at("out"));
    for option in ["--iidfile", "--digestfile", "--write-plan"] {
        for file in ["directory", "link", "fifo", "none/file", "/dev/full"] {
            let path = match file.starts_with('/') {
                true => file.to_owned(),
                false => at(file),
            };
            let base = ["build", "-q", "--rootfs", rootfs.str(), "-o", &output];
            let said = fail(2, &[&base[..], &[option, &path]].concat());
            assert!(said.contains(&format!("cannot write {path}")), "{said}");
        }
    }
    assert!(!dir.path().join("out").exists());
    assert_eq!(fs::read_to_string(at("target")).unwrap(), "kept");
    let files = ["iid", "digest", "plan"].map(&at);
    fs::write(
        &files[0],
        "old, and longer than what will be there ".repeat(9),
    )
    .unwrap();
    let options = [
        "--iidfile",
        &files[0],
        "--digestfile",
        &files[1],
        "--write-plan",
        &files[2],
    ];
    let digest = build_layout(dir.path(), &rootfs, &options);
    assert_eq!(fs::read_to_string(&files[1]).unwrap(), digest);
    assert_eq!(fs::read_to_string(&files[0]).unwrap().len(), digest.len());
    assert!(
        fs::read_to_string(&files[2])
            .unwrap()
            .contains("\"layers\"")
    );
    let hidden = names(dir.path())
        .into_iter()
        .find(|name| name.starts_with('.'));
    assert_eq!(hidden, None);
}

/// The branch had moved, and the build failed.
#[test]
fn a_branch_moves_when_the_image_is_in_place() {
    if !has("ostree") || !is_root() {
        return;
    }
    let dir = scratch();
    let rootfs = tiny(dir.path());
    let repo = repository(dir.path(), "repo", "archive");
    let lock = dir.path().join("out/blobs");
    build_layout(dir.path(), &rootfs, &[]);
    // Where blobs cannot be moved to.
    fs::remove_dir_all(&lock).unwrap();
    fs::write(&lock, "").unwrap();
    let output = format!("oci:{}", dir.path().join("out").display());
    let base = [
        "build",
        "-q",
        "--rootfs",
        rootfs.str(),
        "--repo",
        &repo,
        "--branch",
        "b",
        "-o",
    ];
    let said = fail(1, &[&base[..], &[&output]].concat());
    assert!(said.contains("no branch points at it"), "{said}");
    assert_eq!(ostree(&repo, &["refs"]), "");
    fs::remove_file(&lock).unwrap();
    run(&[&base[..], &[&output]].concat());
    assert_eq!(ostree(&repo, &["refs"]), "b");
    ostree(&repo, &["fsck", "-q"]);
}

/// Exit 0, and nobody had the archive.
#[test]
fn standard_output_that_is_closed() {
    let dir = scratch();
    let rootfs = tiny(dir.path());
    let script = r#""$1" build -q --rootfs "$2" -o - >&-"#;
    let program = env!("CARGO_BIN_EXE_apt-ostree-helper");
    let done = Command::new("sh")
        .args(["-c", script, "sh", program, rootfs.str()])
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(1));
    assert!(
        stderr(&done).contains("standard output, which is closed"),
        "{}",
        stderr(&done)
    );
    let mut null = helper();
    null.args(["build", "-q", "--rootfs", rootfs.str(), "-o", "-"]);
    assert!(null.stdout(Stdio::null()).status().unwrap().success());
}

/// It was killed without a word.
#[test]
fn a_file_that_may_not_grow() {
    let dir = scratch();
    let rootfs = three_packages(dir.path(), "rootfs", "1", "note");
    let script = r#"ulimit -f 8; exec "$1" build -q --rootfs "$2" -o "oci:$3""#;
    let program = env!("CARGO_BIN_EXE_apt-ostree-helper");
    let out = dir.path().join("out");
    let done = Command::new("sh")
        .args([
            "-c",
            script,
            "sh",
            program,
            rootfs.str(),
            out.to_str().unwrap(),
        ])
        .output()
        .unwrap();
    let said = stderr(&done);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(
        said.contains("writing /") && said.contains("File too large"),
        "{said}"
    );
    assert_eq!(names(dir.path()), ["rootfs"]);
}

/// A damaged blob, and one that was swapped for a link, are made anew.
#[test]
fn a_damaged_previous_blob_is_made_anew() {
    let dir = scratch();
    let rootfs = three_packages(dir.path(), "rootfs", "1", "note");
    let digest = build_layout(dir.path(), &rootfs, &[]);
    let out = dir.path().join("out");
    let output = format!("oci:{}", out.display());
    let image = read_image(&out);
    let layers = image.manifest["layers"].as_array().unwrap();
    let path = |layer: &serde_json::Value| {
        let name = layer["digest"]
            .as_str()
            .unwrap()
            .trim_start_matches("sha256:");
        out.join("blobs/sha256").join(name)
    };
    let (first, second) = (path(&layers[1]), path(&layers[2]));
    let mut bytes = fs::read(&first).unwrap();
    bytes[600] ^= 1;
    fs::write(&first, bytes).unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, vec![b's'; fs::read(&second).unwrap().len()]).unwrap();
    fs::remove_file(&second).unwrap();
    symlink(&secret, &second).unwrap();
    let said = helper()
        .args([
            "build",
            "--rootfs",
            rootfs.str(),
            "-o",
            &output,
            "--previous",
            &output,
        ])
        .output()
        .unwrap();
    assert!(said.status.success(), "{}", stderr(&said));
    assert_eq!(
        stderr(&said).matches("is made anew").count(),
        2,
        "{}",
        stderr(&said)
    );
    let again = read_image(&out);
    assert_eq!(again.digest, digest);
    assert!(!fs::symlink_metadata(&second).unwrap().is_symlink());
}

/// `index.json` that never ends, or blocks.
#[test]
fn what_cannot_be_read_is_not_written_to() {
    let dir = scratch();
    let rootfs = tiny(dir.path());
    let out = dir.path().join("out");
    for tag in ["", ":t"] {
        build_layout(dir.path(), &rootfs, &[]);
        let index = out.join("index.json");
        for fifo in [true, false] {
            fs::remove_file(&index).unwrap();
            match fifo {
                true => drop(succeed(Command::new("mkfifo").arg(&index))),
                false => symlink("/dev/zero", &index).unwrap(),
            }
            let output = format!("oci:{}{tag}", out.display());
            let said = fail(1, &["build", "-q", "--rootfs", rootfs.str(), "-o", &output]);
            assert!(
                said.contains("index.json") && said.contains("link") | said.contains("regular"),
                "{said}"
            );
        }
        fs::remove_dir_all(&out).unwrap();
    }
}
