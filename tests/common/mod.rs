//! What the integration suites share: root filesystems made by code, and the program under test.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod browser;
mod changes;
pub mod debian;
pub mod fake;
mod faulty;
mod image;
mod objects;
mod place;
mod registry;
mod rootfs;
mod sent;
pub mod suites;
mod writer;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
#[allow(unused_imports)]
pub use changes::*;
use ed25519_dalek::SigningKey;
#[allow(unused_imports)]
pub use faulty::*;
#[allow(unused_imports)]
pub use image::*;
#[allow(unused_imports)]
pub use objects::*;
#[allow(unused_imports)]
pub use place::*;
#[allow(unused_imports)]
pub use registry::*;
#[allow(unused_imports)]
pub use rootfs::*;
#[allow(unused_imports)]
pub use sent::*;
use tempfile::TempDir;
#[allow(unused_imports)]
pub use writer::*;

/// A directory of its own for one test, removed afterwards; on a disk, since tmpfs has no user
/// attributes on older kernels.
pub fn scratch() -> TempDir {
    let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tempfile::Builder::new()
        .prefix("t")
        .tempdir_in(base)
        .unwrap()
}

/// The program, ready for arguments. What the caller's environment says is kept out.
pub fn helper() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_apt-ostree-helper"));
    command.env_remove("SOURCE_DATE_EPOCH");
    command
}

/// Starts the program by env(1), so that no signal is ignored because the tests' own parent ignores
/// it (a shell does so for what it starts in the background).
pub const BY_ENV: [&str; 3] = [
    "/usr/bin/env",
    "--default-signal=HUP,INT,TERM",
    env!("CARGO_BIN_EXE_apt-ostree-helper"),
];

/// [`helper`] for tests that send it signals.
pub fn interruptible() -> Command {
    let mut command = Command::new(BY_ENV[0]);
    command.args(&BY_ENV[1..]).env_remove("SOURCE_DATE_EPOCH");
    command
}

/// Runs the program; panics with its messages unless it succeeds. Gives standard output, trimmed.
pub fn run(arguments: &[&str]) -> String {
    succeed(helper().args(arguments))
}

/// Runs a command; panics with its messages unless it succeeds. Gives standard output, trimmed.
pub fn succeed(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}:\n{}", stderr(&output));
    String::from_utf8(output.stdout)
        .unwrap()
        .trim_end()
        .to_owned()
}

/// Runs the program, which must fail with exit status `status`; gives its messages.
pub fn fail(status: i32, arguments: &[&str]) -> String {
    let output = helper().args(arguments).output().unwrap();
    let messages = stderr(&output);
    assert_eq!(
        output.status.code(),
        Some(status),
        "{arguments:?}: {messages}"
    );
    messages
}

/// What a command wrote to standard error.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Whether a program can be started: tests against other tools need it. `contrib/test`, which
/// installs them all, sets `AOH_REQUIRE_TOOLS`: then a missing one is a failure.
pub fn has(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output()
        .is_ok_and(|o| o.status.success());
    let required = std::env::var_os("AOH_REQUIRE_TOOLS").is_some();
    assert!(found || !required, "{program} is not installed");
    found
}

/// The program with no more address space than that many KiB.
pub fn in_memory(limit: u32, arguments: &[&str]) -> Output {
    let script = format!("ulimit -v {limit}; exec \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_apt-ostree-helper")]);
    command.args(arguments).env_remove("SOURCE_DATE_EPOCH");
    command.output().unwrap()
}

/// A moment, for loops that wait for something.
pub fn tiny_pause() {
    std::thread::sleep(std::time::Duration::from_millis(10));
}

/// Whether the tests run as root, as owners and device nodes ask for.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The architecture of this machine, as OCI names it.
pub fn machine() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A repository at `dir/name` that does not sync; gives its path.
pub fn repository(dir: &Path, name: &str, mode: &str) -> String {
    let path = dir.join(name).display().to_string();
    succeed(Command::new("ostree").args(["init", "--mode", mode, "--repo", &path]));
    succeed(Command::new("ostree").args(["config", "--repo", &path, "set", "core.fsync", "false"]));
    path
}

/// Runs a command of the `ostree` program on a repository; gives what it prints.
pub fn ostree(repo: &str, arguments: &[&str]) -> String {
    let mut command = Command::new("ostree");
    succeed(command.arg(format!("--repo={repo}")).args(arguments))
}

/// A rootfs as a checkout of its commit has it.
pub fn in_a_checkout(rootfs: &Rootfs) -> Nodes {
    let nodes = read_rootfs(&rootfs.path).into_iter();
    let moved = nodes.map(
        |(path, node)| match path == "etc" || path.starts_with("etc/") {
            true => (format!("usr/{path}"), node),
            false => (path, node),
        },
    );
    moved.collect()
}

/// A secret and a public key in files, as options take them.
pub fn keys(dir: &Path, seed: u8) -> (String, String) {
    let key = SigningKey::from_bytes(&[seed; 32]);
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.join(format!("{name}-{seed}"));
        fs::write(&path, BASE64.encode(bytes)).unwrap();
        format!("ed25519={}", path.display())
    };
    (
        write("secret", &key.to_keypair_bytes()),
        write("public", key.verifying_key().as_bytes()),
    )
}

/// The independent judge of layouts (`oci-judge`), where it is at hand.
pub fn judge() -> Option<PathBuf> {
    std::env::var_os("AOH_OCI_JUDGE").map(PathBuf::from)
}

/// Runs the judge with `arguments`, where it is at hand.
pub fn judged(arguments: &[&str]) {
    if let Some(judge) = judge() {
        let output = Command::new(judge).args(arguments).output().unwrap();
        let faults = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{arguments:?}:\n{faults}{}",
            stderr(&output)
        );
    }
}

/// A directory with the odd rootfs in it, and in that a kernel.
pub fn odd() -> (TempDir, Rootfs) {
    let dir = scratch();
    let rootfs = odd_rootfs(dir.path().join("rootfs"));
    rootfs
        .file("usr/lib/modules/6.1/vmlinuz", "kernel")
        .xattr("usr/share/odd", "user.dir", b"of a directory")
        .dir("usr/share/odd/default-acl")
        .xattr(
            "usr/share/odd/default-acl",
            "system.posix_acl_default",
            &DEFAULT_ACL,
        )
        .settle();
    (dir, rootfs)
}

/// A rootfs with one package, for what does not depend on the rest.
pub fn tiny(dir: &Path) -> Rootfs {
    let rootfs = Rootfs::new(dir.join("rootfs"));
    rootfs
        .packages(&[("foo", "foo", "1", &["usr/bin/foo"])])
        .file("usr/bin/foo", "foo")
        .settle();
    rootfs
}

/// Three packages, and files that nobody owns; `version` is that of one package and its files.
pub fn three_packages(dir: &Path, name: &str, version: &str, note: &str) -> Rootfs {
    let rootfs = Rootfs::new(dir.join(name));
    rootfs.file("usr/bin/a", vec![b'a'; 90_000]);
    rootfs.file("usr/bin/b", format!("b {version}").repeat(9_000));
    rootfs.file("usr/bin/c", vec![b'c'; 50_000]);
    rootfs.file("opt/note", note.repeat(4000));
    rootfs.packages(&[
        ("a", "a", "1.0-1", &["usr/bin/a"]),
        ("b", "source-b", version, &["usr/bin/b"]),
        ("c", "c", "3:2-1+b1", &["usr/bin/c"]),
    ]);
    rootfs.settle();
    rootfs
}

/// Builds to a layout called `out` and gives the digest.
pub fn build_layout(dir: &Path, rootfs: &Rootfs, extra: &[&str]) -> String {
    let output = format!("oci:{}", dir.join("out").display());
    let base = ["build", "-q", "--rootfs", rootfs.str(), "-o", &output];
    run(&[&base[..], extra].concat())
}

/// Runs the program with `--json` and gives what it says.
pub fn run_json(arguments: &[&str]) -> serde_json::Value {
    serde_json::from_str(&run(&[arguments, &["--json"]].concat())).unwrap()
}

/// Builds to `output` and gives what `--json` says.
pub fn build_json(rootfs: &Rootfs, output: &str, extra: &[&str]) -> serde_json::Value {
    let base = ["build", "-q", "--rootfs", rootfs.str(), "-o", output];
    run_json(&[&base[..], extra].concat())
}

/// Builds, reads the image back and leaves nothing.
pub fn build_image(dir: &Path, rootfs: &Rootfs, extra: &[&str]) -> Image {
    let digest = build_layout(dir, rootfs, extra);
    let image = read_image(&dir.join("out"));
    assert_eq!(image.digest, digest);
    fs::remove_dir_all(dir.join("out")).unwrap();
    image
}

/// The names in a directory, sorted.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Runs a shell script whose mounts end with it, as root.
pub fn in_a_mount_namespace(script: &str, arguments: &[&PathBuf]) {
    let mut command = Command::new("unshare");
    command
        .args(["-m", "--propagation", "private", "sh", "-euc", script, "sh"])
        .arg(env!("CARGO_BIN_EXE_apt-ostree-helper"))
        .args(arguments);
    succeed(&mut command);
}
