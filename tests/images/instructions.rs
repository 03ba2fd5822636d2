//! What the work costs in instructions, which is the same on every run, as time is not: a change
//! that makes it dearer by 3 % fails here.
//!
//! The counts depend on the compiler, on the C library, which a release of Debian has with its
//! valgrind, and on what the processor offers. So they are kept with these. With others this test
//! says so and holds nothing, until somebody keeps theirs.
#![allow(clippy::print_stderr)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{Rootfs, has, scratch, succeed};
use serde_json::{Value, json};

/// The counts, and what they were counted with.
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/instructions.json");
/// How much more fails, in per cent. Two runs differ by less than a tenth of it.
const MORE: u64 = 3;

/// Some packages, with files as Debian's are: many small ones, a large one, half of each
/// easily compressed.
fn system(path: &Path, changed: &str) -> Rootfs {
    let rootfs = Rootfs::new(path.to_owned());
    let mut names = Vec::new();
    for package in 0..24u32 {
        let name = format!("package-{package}");
        let version = if name == changed { "2" } else { "1" };
        let files: Vec<String> = (0..20)
            .map(|file| format!("usr/share/{name}/file-{file}"))
            .collect();
        for (file, path) in (0..).zip(&files) {
            let size = match (package, file) {
                (0, 0) => 500_000,
                (_, file) => 300 * (file + 1),
            };
            rootfs.file(path, content(size, &format!("{name} {version} {file}")));
        }
        names.push((name, version, files));
    }
    let packages: Vec<(&str, &str, &str, Vec<&str>)> = names
        .iter()
        .map(|(name, version, files)| {
            let files = files.iter().map(String::as_str).collect();
            (name.as_str(), name.as_str(), *version, files)
        })
        .collect();
    let packages: Vec<(&str, &str, &str, &[&str])> = packages
        .iter()
        .map(|(name, source, version, files)| (*name, *source, *version, files.as_slice()))
        .collect();
    rootfs.packages(&packages).settle();
    rootfs
}

/// That many bytes: numbers that follow from `seed`, and words.
fn content(size: usize, seed: &str) -> Vec<u8> {
    let mut state = seed.bytes().fold(1u64, |state, byte| {
        state.wrapping_mul(6_364_136_223_846_793_005) ^ u64::from(byte)
    });
    let mut bytes = Vec::with_capacity(size + 64);
    while bytes.len() < size {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        bytes.extend((state >> 16).to_le_bytes());
        bytes.extend(format!("{seed} has line {}\n", bytes.len()).bytes());
    }
    bytes.truncate(size);
    bytes
}

/// How many instructions the program takes for that.
fn instructions(arguments: &[&str]) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no"])
        .arg("--cachegrind-out-file=/dev/null")
        .arg(env!("CARGO_BIN_EXE_apt-ostree-helper"))
        .args(arguments)
        .env_remove("SOURCE_DATE_EPOCH")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    let (_, count) = said.rsplit_once("I   refs:").expect("valgrind says it");
    let line = count.lines().next().unwrap_or_default();
    line.trim().replace(',', "").parse().expect("a number")
}

fn counted_with() -> String {
    let rustc = succeed(Command::new("rustc").arg("--version"));
    let valgrind = succeed(Command::new("valgrind").arg("--version"));
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let offers = ["avx2", "bmi2", "pclmulqdq"].map(|flag| match processor.contains(flag) {
        true => format!(" {flag}"),
        false => String::new(),
    });
    format!("{rustc}, {valgrind},{}", offers.concat())
}

#[test]
fn work_takes_no_more_instructions_than_it_did() {
    if !has("valgrind") {
        return;
    }
    let with = counted_with();
    let kept = fs::read_to_string(KEPT).unwrap_or_default();
    let kept: Value = serde_json::from_str(&kept).unwrap_or_default();
    let is_update = std::env::var_os("AOH_KEEP_INSTRUCTIONS").is_some();
    if kept["with"] != with.as_str() && !is_update {
        eprintln!("no counts are kept with {with}: AOH_KEEP_INSTRUCTIONS=1 keeps them");
        return;
    }

    let dir = scratch();
    let old = system(&dir.path().join("old"), "");
    let new = system(&dir.path().join("new"), "package-3");
    let image = |name: &str| format!("oci:{}", dir.path().join(name).display());
    let (plain, ostree, gzip, update) = (
        image("plain"),
        image("ostree"),
        image("gzip"),
        image("update"),
    );
    let build = |rootfs: &Rootfs, to: &str, more: &[&str]| {
        let base = ["build", "-q", "-j", "1", "--timestamp", "1600000000"];
        let paths = ["--rootfs", rootfs.str(), "-o", to];
        instructions(&[&base[..], &paths, more].concat())
    };
    let found = BTreeMap::from([
        ("plan", instructions(&["plan", "--rootfs", old.str()])),
        ("build plain", build(&old, &plain, &["--format", "plain"])),
        (
            "build ostree",
            build(&old, &ostree, &["--format", "ostree"]),
        ),
        ("build gzip", build(&old, &gzip, &["--compression", "gzip"])),
        (
            "build --previous",
            build(&new, &update, &["--previous", &ostree]),
        ),
    ]);
    if is_update {
        let kept = json!({"with": with, "instructions": found});
        fs::write(KEPT, format!("{kept:#}\n")).unwrap();
        return;
    }
    let dearer: Vec<String> = found
        .iter()
        .filter_map(|(work, found)| {
            let kept = kept["instructions"][work].as_u64().unwrap_or(0);
            let is_dearer = *found * 100 > kept * (100 + MORE);
            is_dearer.then(|| format!("{work}: {found}, and it was {kept}"))
        })
        .collect();
    assert!(
        dearer.is_empty(),
        "more instructions: {dearer:#?}; where that is worth it, AOH_KEEP_INSTRUCTIONS=1 keeps them"
    );
}
