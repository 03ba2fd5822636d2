//! Images that skopeo signs with a sigstore key. The key in tests/data is of these tests, and its
//! passphrase is known.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::common::*;

const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/sigstore.key");
const PUBLIC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/sigstore.pub");
const PASSPHRASE: &str = "of the tests";

/// A place with a registry, an image, and a passphrase right and wrong.
struct Signer {
    dir: tempfile::TempDir,
    registry: Registry,
    layout: String,
    right: String,
    wrong: String,
}

impl Signer {
    fn new() -> Self {
        let dir = scratch();
        let registry = Registry::start(dir.path());
        let (old, _) = old_and_new(dir.path());
        let layout = layout_in(dir.path(), "layout");
        build_to(&old, &layout, &["--compression", "gzip"]);
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let (right, wrong) = (file("right", PASSPHRASE), file("wrong", "another"));
        Self {
            dir,
            registry,
            layout,
            right,
            wrong,
        }
    }

    /// Where containers-registries.d(5) is found, which has signatures beside the images.
    fn home(&self) -> std::path::PathBuf {
        let home = self.dir.path().join("home");
        let configs = home.join(".config/containers/registries.d");
        fs::create_dir_all(&configs).unwrap();
        let host = &self.registry.host;
        let config = format!("docker:\n  {host}:\n    use-sigstore-attachments: true\n");
        fs::write(configs.join("tests.yaml"), config).unwrap();
        home
    }

    fn push(&self, tag: &str, home: &Path, key: &str, passphrase: &[&str]) -> Output {
        let name = self.registry.name(&format!("os:{tag}"));
        let push = ["push", "-q", &self.layout, &name, PLAIN];
        let mut command = helper();
        command
            .args(push)
            .args(["--sign-by-sigstore-private-key", key]);
        command.args(passphrase).env("HOME", home).output().unwrap()
    }

    /// A failure that a user can mend, after which the tag names nothing.
    fn fails(&self, output: &Output, tag: &str, parts: &[&str]) {
        let said = told_no_digest(output);
        for part in parts {
            assert!(said.contains(part), "no {part}: {said}");
        }
        let name = self.registry.name(&format!("os:{tag}"));
        let there = fail(1, &["inspect", &name, PLAIN]);
        assert!(there.contains("there is no image"), "{there}");
    }

    /// Whether the signature of an image is right for containers-policy.json(5).
    fn is_signed(&self, name: &str, home: &Path) -> bool {
        let policy =
            serde_json::json!({"default": [{"type": "sigstoreSigned", "keyPath": PUBLIC}]});
        let file = self.dir.path().join("policy.json");
        fs::write(&file, policy.to_string()).unwrap();
        let copy = self.dir.path().join("copy");
        let mut command = Command::new("skopeo");
        command
            .arg("--policy")
            .arg(file)
            .args(["copy", "-q", "--all"]);
        command.args(["--src-tls-verify=false", name]);
        command
            .arg(format!("dir:{}", copy.display()))
            .env("HOME", home);
        let output = command.output().unwrap();
        let _ = fs::remove_dir_all(copy);
        output.status.success()
    }
}

/// Whether this skopeo signs: that of Debian 12 has it left out. `AOH_REQUIRE_SIGSTORE` says that
/// it must, as `contrib/test skopeo-trixie` does, which takes the one of Debian 13.
fn skopeo_signs(signer: &Signer) -> bool {
    let copy = format!("dir:{}", signer.dir.path().join("signed").display());
    let mut command = Command::new("skopeo");
    command.args([
        "--insecure-policy",
        "copy",
        "--sign-identity",
        "h.example/a:1",
    ]);
    command.args(["--sign-by-sigstore-private-key", KEY]);
    command.args([
        "--sign-passphrase-file",
        &signer.right,
        &signer.layout,
        &copy,
    ]);
    let output = command.output().unwrap();
    let signs = output.status.success();
    let required = std::env::var_os("AOH_REQUIRE_SIGSTORE").is_some();
    assert!(signs || !required, "{}", stderr(&output));
    if !signs {
        eprintln!(
            "skipped: this skopeo does not sign; contrib/test skopeo-trixie takes one that does"
        );
    }
    signs
}

#[test]
fn an_image_that_cannot_be_signed_does_not_get_the_tag() {
    if !has_registry() {
        return;
    }
    let signer = Signer::new();
    let home = signer.home();
    let right = ["--sign-passphrase-file", &signer.right];
    if !skopeo_signs(&signer) {
        let output = signer.push("unable", &home, KEY, &right);
        let parts = ["cannot sign with sigstore keys", "Debian 13", "cosign"];
        signer.fails(&output, "unable", &parts);
        return;
    }
    let wrong = ["--sign-passphrase-file", &signer.wrong];
    let output = signer.push("wrong", &home, KEY, &wrong);
    let parts = [
        "the passphrase in",
        &signer.wrong,
        "is not that of the key",
        KEY,
    ];
    signer.fails(&output, "wrong", &parts);
    let output = signer.push("none", &home, KEY, &[]);
    signer.fails(
        &output,
        "none",
        &["has a passphrase", "--sign-passphrase-file"],
    );
    let output = signer.push("no-key", &home, PUBLIC, &right);
    signer.fails(&output, "no-key", &[PUBLIC, "is no sigstore private key"]);
    let output = signer.push("unconfigured", signer.dir.path(), KEY, &right);
    let parts = ["use-sigstore-attachments", &signer.registry.host];
    signer.fails(&output, "unconfigured", &parts);
    // Files that are not there are told before any work.
    let output = signer.push("missing", &home, "/no/such/key", &right);
    signer.fails(&output, "missing", &["opening /no/such/key"]);
}

#[test]
fn a_policy_that_asks_for_signatures_takes_what_was_signed() {
    if !has_registry() {
        return;
    }
    let signer = Signer::new();
    if !skopeo_signs(&signer) {
        return;
    }
    let home = signer.home();
    let sign = ["--sign-by-sigstore-private-key", KEY];
    let sign = [&sign[..], &["--sign-passphrase-file", &signer.right]].concat();
    let signed = |arguments: &[&str]| {
        let all = [arguments, &sign, &["-q", PLAIN]].concat();
        succeed(helper().args(all).env("HOME", &home))
    };
    let name = |rest: &str| signer.registry.name(rest);
    run(&["push", "-q", &signer.layout, &name("plain:1"), PLAIN]);
    assert!(!signer.is_signed(&name("plain:1"), &home));
    let digest = signed(&["push", &signer.layout, &name("os:1")]);
    assert!(signer.is_signed(&name("os:1"), &home));
    assert_eq!(
        digest,
        run_json(&["inspect", &name("os:1"), PLAIN])["digest"]
    );
    // From registry to registry, built there, and as an index.
    signed(&["push", &name("plain:1"), &name("copied:1")]);
    let (_, new) = old_and_new(&signer.dir.path().join("again"));
    signed(&["build", "--rootfs", new.str(), "-o", &name("built:1")]);
    signed(&["index", "-o", &name("index:1"), &signer.layout]);
    for image in ["copied:1", "built:1", "index:1"] {
        assert!(signer.is_signed(&name(image), &home), "{image}");
    }
}
