//! System calls that fail, one in each run, by `strace -e inject`: the result is right, or an error
//! says where, what was there is untouched, and nothing is left.
//!
//! A sample of all calls in the normal run; every call of every kind with
//!
//! ```sh
//! AOH_FAULTS=all cargo test --test endurance faults:: -- --nocapture
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::*;
use serde_json::Value;

/// The kinds of calls that fail, and how.
const CALLS: [(&str, &str); 21] = [
    ("openat", "EIO"),
    ("close", "EIO"),
    ("read", "EIO"),
    ("pread64", "EIO"),
    ("write", "ENOSPC"),
    ("pwrite64", "ENOSPC"),
    ("fsync", "EIO"),
    ("fdatasync", "EIO"),
    ("syncfs", "EIO"),
    ("rename", "EIO"),
    ("renameat", "EIO"),
    ("linkat", "EIO"),
    ("mkdir", "ENOSPC"),
    ("mkdirat", "ENOSPC"),
    ("statx", "EIO"),
    ("newfstatat", "EIO"),
    ("getdents64", "EIO"),
    ("fchmod", "EIO"),
    ("fsetxattr", "ENOSPC"),
    ("ftruncate", "EIO"),
    ("flock", "EINTR"),
];
/// How many calls of one kind fail in the normal run, one by one.
const SAMPLE: usize = 3;

fn is_all() -> bool {
    std::env::var("AOH_FAULTS").is_ok_and(|value| value == "all")
}

fn traced(options: &[&str], arguments: &[&str]) -> Output {
    let mut command = Command::new("strace");
    // What is not traced runs at its own speed.
    command.args(["-f", "--seccomp-bpf", "-qq"]).args(options);
    command.arg(env!("CARGO_BIN_EXE_apt-ostree-helper"));
    command.args(arguments).env_remove("SOURCE_DATE_EPOCH");
    command.output().unwrap()
}

/// How often each kind of call is made by the thread that makes most.
fn count(dir: &Path, arguments: &[&str]) -> BTreeMap<String, usize> {
    let log = dir.join("log");
    let kinds: Vec<&str> = CALLS.iter().map(|(name, _)| *name).collect();
    let trace = format!("trace={}", kinds.join(","));
    let done = traced(&["-o", log.to_str().unwrap(), "-e", &trace], arguments);
    assert!(done.status.success(), "{}", stderr(&done));
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for line in fs::read_to_string(&log).unwrap().lines() {
        let Some((thread, rest)) = line.split_once(' ') else {
            continue;
        };
        if let Some((call, _)) = rest.trim_start().split_once('(') {
            *counts
                .entry((call.to_owned(), thread.to_owned()))
                .or_default() += 1;
        }
    }
    let mut most = BTreeMap::new();
    for ((call, _), count) in counts {
        let known: &mut usize = most.entry(call).or_default();
        *known = count.max(*known);
    }
    most
}

/// Lets calls fail; `prepare` makes the place anew, `check` looks at it with the status and the
/// messages.
fn inject(dir: &Path, arguments: &[&str], prepare: &dyn Fn(), check: &dyn Fn(i32, &str)) {
    prepare();
    let counts = count(dir, arguments);
    for (call, error) in CALLS {
        let total = counts.get(call).copied().unwrap_or(0);
        let step = match is_all() {
            true => 1,
            false => total.div_ceil(SAMPLE).max(1),
        };
        // The last ones, where a job becomes final, are in every sample.
        for n in (1..=total).rev().step_by(step) {
            prepare();
            let fault = format!("inject={call}:error={error}:when={n}");
            let trace = format!("trace={call}");
            let done = traced(&["-o", "/dev/null", "-e", &trace, "-e", &fault], arguments);
            let said = stderr(&done);
            let status = done.status.code().unwrap_or(-1);
            let named = format!("{call} {n} of {total}: status {status}: {said}");
            // The standard library insists that a directory can be closed, and Linux always does
            // close one: only files have something to write by then (`flush` in vfs.rst).
            if said.contains("unexpected error during closedir") {
                continue;
            }
            assert!(!said.contains("panicked"), "{named}");
            // 127: the program itself could not be loaded.
            assert!([0, 1, 2, 127].contains(&status), "{named}");
            if status == 1 {
                let says_where = said.contains('/') || said.contains("standard output");
                assert!(said.contains("error: ") && says_where, "{named}");
            }
            check(status, &named);
        }
    }
}

fn tags(layout: &Path) -> BTreeMap<String, Value> {
    let index: Value =
        serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let manifests = index["manifests"].as_array().unwrap().iter();
    let name = |m: &Value| m["annotations"]["org.opencontainers.image.ref.name"].to_string();
    manifests.map(|m| (name(m), m["digest"].clone())).collect()
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    succeed(Command::new("cp").arg("-a").args([from, to]));
}

/// Hidden directories of ours.
fn left(place: &Path) -> Vec<PathBuf> {
    let found = succeed(Command::new("find").arg(place).args([
        "-name",
        ".apt-ostree-helper-*",
        "-o",
        "-name",
        "staging-*",
    ]));
    found.lines().map(PathBuf::from).collect()
}

/// A tag was dropped when `stat` on `index.json` failed; the old tag lost a blob when `statx` and
/// `rename` did.
#[test]
fn a_build_into_a_layout_with_tags() {
    if !has("strace") {
        return;
    }
    let dir = scratch();
    let rootfs = tiny(dir.path());
    let old = dir.path().join("old");
    let to = |layout: &Path, tag: &str| format!("oci:{}:{tag}", layout.display());
    for tag in ["one", "two"] {
        let label = format!("tag={tag}");
        let output = to(&old, tag);
        run(&[
            "build",
            "-q",
            "--rootfs",
            rootfs.str(),
            "-l",
            &label,
            "-o",
            &output,
        ]);
    }
    let before = tags(&old);
    let place = dir.path().join("place");
    fs::create_dir(&place).unwrap();
    let layout = place.join("layout");
    let output = to(&layout, "two");
    let arguments = [
        "build",
        "-q",
        "-j",
        "1",
        "--rootfs",
        rootfs.str(),
        "-o",
        &output,
    ];
    let prepare = || copy(&old, &layout);
    let check = |status: i32, named: &str| {
        let after = tags(&layout);
        assert_eq!(after["\"one\""], before["\"one\""], "{named}");
        assert_eq!(after.len(), 2, "{named}");
        let is_new = after["\"two\""] != before["\"two\""];
        assert!(status != 0 || is_new, "{named}");
        let is_done = named.contains("in place") || named.contains("standard output");
        assert!(!is_new || status == 0 || is_done, "{named}");
        for digest in after.values() {
            read_manifest(&layout, digest);
        }
        let left = left(&place);
        let is_told = named.contains("cannot be removed") || named.contains("stay in");
        assert!(
            left.is_empty() || is_told || status == 127,
            "{named}: {left:?}"
        );
    };
    inject(dir.path(), &arguments, &prepare, &check);
}

fn into_a_repository(mode: &str, arguments: &dyn Fn(&str, &str) -> Vec<String>) {
    if !has("strace") || !has("ostree") || !is_root() {
        return;
    }
    let dir = scratch();
    let rootfs = tiny(dir.path());
    let image = format!("oci:{}", dir.path().join("image").display());
    run(&["build", "-q", "--rootfs", rootfs.str(), "-o", &image]);
    let empty = repository(dir.path(), "empty", mode);
    let repo = dir.path().join("repo");
    let name = repo.to_str().unwrap();
    let source = match arguments("", "")[0].as_str() {
        "import" => image,
        _ => rootfs.str().to_owned(),
    };
    let arguments = arguments(name, &source);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let prepare = || copy(Path::new(&empty), &repo);
    let check = |status: i32, named: &str| {
        let fsck = Command::new("ostree")
            .args(["fsck", "-q", "--repo", name])
            .output();
        let fsck = fsck.unwrap();
        assert!(fsck.status.success(), "{named}\n{}", stderr(&fsck));
        let refs = ostree(name, &["refs"]);
        let is_done = status == 0 || named.contains("standard output");
        assert_eq!(refs == "b", is_done, "{named}: {refs}");
        let left = left(&repo);
        let is_told = named.contains("cannot be removed") || named.contains("cleaning up");
        assert!(left.is_empty() || is_told, "{named}: {left:?}");
    };
    inject(dir.path(), &arguments, &prepare, &check);
}

fn commit(repo: &str, source: &str) -> Vec<String> {
    [
        "commit", "-q", "--repo", repo, "-b", "b", "--rootfs", source,
    ]
    .map(str::to_owned)
    .to_vec()
}

fn import(repo: &str, source: &str) -> Vec<String> {
    ["import", "-q", "--repo", repo, "-b", "b", source]
        .map(str::to_owned)
        .to_vec()
}

/// The last write of a compressed object failed, the commit ended with 0, and `ostree fsck` was
/// unhappy.
#[test]
fn a_commit_into_an_archive_repository() {
    into_a_repository("archive", &commit);
}

#[test]
fn a_commit_into_a_bare_user_repository() {
    into_a_repository("bare-user", &commit);
}

#[test]
fn a_commit_into_a_bare_user_only_repository() {
    into_a_repository("bare-user-only", &commit);
}

#[test]
fn an_import_into_an_archive_repository() {
    into_a_repository("archive", &import);
}

#[test]
fn an_import_into_a_bare_user_repository() {
    into_a_repository("bare-user", &import);
}

/// EINTR while a staged blob was read for `-o -` failed the build.
#[test]
fn a_call_that_is_interrupted_is_made_again() {
    if !has("strace") {
        return;
    }
    let dir = scratch();
    let rootfs = tiny(dir.path());
    let base = ["build", "-q", "-j", "1", "--rootfs", rootfs.str()];
    let arguments = [&base[..], &["--timestamp", "1700000000", "-o", "-"]].concat();
    let wanted = helper().args(&arguments).output().unwrap().stdout;
    let counts = count(dir.path(), &arguments);
    for call in ["read", "write"] {
        let total = counts[call];
        let step = match is_all() {
            true => 1,
            false => total.div_ceil(8 * SAMPLE).max(1),
        };
        for n in (1..=total).rev().step_by(step) {
            let fault = format!("inject={call}:error=EINTR:when={n}");
            let trace = format!("trace={call}");
            let options = ["-o", "/dev/null", "-e", &trace, "-e", &fault];
            let done = traced(&options, &arguments);
            let named = format!("{call} {n} of {total}: {}", stderr(&done));
            match done.status.code() {
                Some(0) => assert!(done.stdout == wanted, "{named}"),
                // The program itself could not be loaded.
                status => assert_eq!(status, Some(127), "{named}"),
            }
        }
    }
}
