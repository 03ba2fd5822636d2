//! Images that the tests send to registries, and what is read of the reports about them.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use super::{Fault, Rootfs, Rule, build_json, has, run, sha256, stderr, succeed, three_packages};

/// The registries of the tests speak HTTP.
pub const PLAIN: &str = "--tls-verify=false";

/// Whether what the tests with registries need is there.
pub fn has_registry() -> bool {
    ["skopeo", "docker-registry", "htpasswd", "openssl"]
        .iter()
        .all(|program| has(program))
}

/// Builds to `output`, always with the same time, and gives what `--json` says.
pub fn build_to(rootfs: &Rootfs, output: &str, extra: &[&str]) -> Value {
    let base = [PLAIN, "--timestamp", "1700000000"];
    build_json(rootfs, output, &[&base[..], extra].concat())
}

/// Runs skopeo and gives what it prints.
pub fn skopeo(arguments: &[&str]) -> String {
    succeed(Command::new("skopeo").args(arguments))
}

/// Which layers were taken over from the previous image.
pub fn taken(report: &Value) -> Vec<bool> {
    let layers = report["layers"].as_array().unwrap().iter();
    layers
        .map(|layer| layer["taken_over"].as_bool().unwrap())
        .collect()
}

/// A rootfs before and after a security update of one package.
pub fn old_and_new(dir: &Path) -> (Rootfs, Rootfs) {
    (
        three_packages(dir, "old", "1.0-1", "note"),
        three_packages(dir, "new", "1.0-1+deb13u1", "note"),
    )
}

/// A layout of that name in a directory.
pub fn layout_in(dir: &Path, name: &str) -> String {
    format!("oci:{}", dir.join(name).display())
}

/// How many layers an image has.
pub fn layer_count(report: &Value) -> usize {
    report["layers"].as_array().unwrap().len()
}

/// How many layers a push or a pull moved.
pub fn transferred(report: &Value) -> usize {
    let layers = report["layers"].as_array().unwrap().iter();
    layers.filter(|layer| layer["transferred"] == true).count()
}

/// An image of some size in a layout; gives its name, its digest and how many layers it has.
pub fn large_image(dir: &Path) -> (String, String, usize) {
    let rootfs = three_packages(dir, "rootfs", "1", "note");
    rootfs.file("usr/bin/a", noise("large", 300_000));
    rootfs.settle();
    let layout = format!("oci:{}", dir.join("layout").display());
    let base = [
        "build",
        "-q",
        "--rootfs",
        rootfs.str(),
        "-o",
        &layout,
        "--compression",
        "gzip",
        "--json",
    ];
    let report: Value = serde_json::from_str(&run(&base)).unwrap();
    let layers = report["layers"].as_array().unwrap().len();
    (
        layout,
        report["digest"].as_str().unwrap().to_owned(),
        layers,
    )
}

/// Bytes that nothing makes smaller, always the same for a seed.
pub fn noise(seed: &str, size: usize) -> Vec<u8> {
    let word = sha256(seed.as_bytes());
    let mut state = u64::from_str_radix(&word[..16], 16).unwrap() | 1;
    let next = || {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes()
    };
    let words = std::iter::repeat_with(next).take(size.div_ceil(8));
    let mut bytes = words.collect::<Vec<_>>().concat();
    bytes.truncate(size);
    bytes
}

/// A fault that begins with the next request of that kind.
pub fn rule(method: &'static str, part: &'static str, times: usize, fault: Fault) -> Rule {
    Rule {
        method,
        part,
        spared: 0,
        times,
        fault,
    }
}

/// Gives the messages of a command that must have failed, and told no digest.
pub fn told_no_digest(output: &Output) -> String {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        output.stdout.is_empty(),
        "nothing is done, so there is no digest"
    );
    said
}
