//! Registries on bad days, and secrets: nothing half done counts as done, what is worth another try gets one, errors
//! name the registry, the repository and the cause, and a password is nowhere to be seen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use common::{
    Fault, Faulty, Guard, Held, Registry, Rule, certificates, fail, has, helper, run, scratch,
    stderr, three_packages, tiny_pause,
};

const PLAIN: &str = "--tls-verify=false";
const UPLOADS: &str = "/blobs/uploads/";

fn ready() -> bool {
    ["skopeo", "docker-registry", "htpasswd", "openssl"]
        .iter()
        .all(|program| has(program))
}

/// An image in a layout; gives its name, its digest and how many layers it has.
fn image(dir: &Path) -> (String, String, usize) {
    let rootfs = three_packages(dir, "rootfs", "1", "note");
    let noise: Vec<u8> = (0..300_000_u32)
        .flat_map(|n| common::sha256(&n.to_le_bytes()).into_bytes())
        .take(600_000)
        .collect();
    rootfs.file("usr/bin/a", noise);
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
    let report: serde_json::Value = serde_json::from_str(&run(&base)).unwrap();
    let layers = report["layers"].as_array().unwrap().len();
    (
        layout,
        report["digest"].as_str().unwrap().to_owned(),
        layers,
    )
}

fn rule(method: &'static str, part: &'static str, times: usize, fault: Fault) -> Rule {
    Rule {
        method,
        part,
        spared: 0,
        times,
        fault,
    }
}

fn failed(output: &Output) -> String {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        output.stdout.is_empty(),
        "nothing is done, so there is no digest"
    );
    said
}

#[test]
fn what_passes_is_tried_again_and_what_stays_is_told() {
    if !ready() {
        return;
    }
    let dir = scratch();
    let registry = Registry::start(dir.path());
    let (layout, digest, _) = image(dir.path());
    for (at, rules) in [
        vec![
            rule("PATCH", UPLOADS, 2, Fault::Status(500)),
            rule("GET", "/manifests/", 1, Fault::Status(503)),
        ],
        vec![
            rule("POST", UPLOADS, 1, Fault::Status(429)),
            rule("GET", "/v2/", 1, Fault::Status(429)),
        ],
        vec![
            rule("PATCH", UPLOADS, 1, Fault::Drop),
            rule("PUT", "/manifests/", 1, Fault::Status(502)),
        ],
    ]
    .into_iter()
    .enumerate()
    {
        // skopeo knows which repositories of a host have a blob, and has the registry link it.
        let proxy = Faulty::before(&registry.host);
        let name = proxy.name(&format!("again{at}/os:1"));
        proxy.set(rules);
        let output = helper()
            .args(["push", &layout, &name, PLAIN])
            .output()
            .unwrap();
        let said = stderr(&output);
        assert!(output.status.success(), "{at}: {said}");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), digest);
        assert_eq!(proxy.left(), 0, "{at}: {said}");
        assert!(
            at == 1 || said.contains("trying again in 1 s"),
            "{at}: {said}"
        );
    }
    let proxy = Faulty::before(&registry.host);
    let name = proxy.name("stays/os:1");
    proxy.set(vec![rule("PATCH", UPLOADS, usize::MAX, Fault::Status(500))]);
    let said = failed(
        &helper()
            .args(["push", &layout, &name, PLAIN, "--retry-times", "1"])
            .output()
            .unwrap(),
    );
    for part in [
        proxy.host.as_str(),
        "stays/os",
        "500",
        "given up after 2 attempts",
    ] {
        assert!(said.contains(part), "no {part}: {said}");
    }
    proxy.set(Vec::new());
    let said = fail(1, &["inspect", &name, PLAIN]);
    assert!(
        said.contains("there is no image"),
        "nothing half done has the tag: {said}"
    );
}

/// Refusals are not tried again.
#[test]
fn what_does_not_pass_is_not_tried_again() {
    if !ready() {
        return;
    }
    let dir = scratch();
    let registry = Registry::start(dir.path());
    let proxy = Faulty::before(&registry.host);
    let (layout, ..) = image(dir.path());
    let start = Instant::now();
    for status in [401, 403] {
        proxy.set(vec![rule("GET", "/v2/", usize::MAX, Fault::Status(status))]);
        let said = fail(1, &["push", &layout, &proxy.name("os:1"), PLAIN]);
        assert!(!said.contains("trying again"), "{status}: {said}");
        for part in [&proxy.host, "os", "--authfile"] {
            assert!(said.contains(part), "{status}: no {part} in {said}");
        }
    }
    proxy.set(Vec::new());
    let said = fail(1, &["inspect", &proxy.name("none:1"), PLAIN]);
    assert!(
        said.contains("none") && !said.contains("trying again"),
        "{said}"
    );
    let said = fail(1, &["inspect", "docker://registry.invalid/os:1"]);
    assert!(
        said.contains("registry.invalid") && said.contains("cannot be reached"),
        "{said}"
    );
    assert!(start.elapsed().as_secs() < 60);
}

#[test]
fn blobs_that_are_cut_short_are_read_again_and_altered_ones_refused() {
    if !ready() {
        return;
    }
    let dir = scratch();
    let registry = Registry::start(dir.path());
    let proxy = Faulty::before(&registry.host);
    let (layout, digest, _) = image(dir.path());
    let name = proxy.name("os:1");
    run(&["push", "-q", &layout, &name, PLAIN]);
    // The config is read first, and is small.
    let cut = Rule {
        spared: 1,
        ..rule("GET", "/blobs/sha256", 2, Fault::Cut(2000))
    };
    proxy.set(vec![cut]);
    let copy = format!("oci:{}", dir.path().join("copy").display());
    let output = helper()
        .args(["pull", &name, &copy, PLAIN])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), digest);
    assert_eq!(proxy.left(), 0);
    common::read_image(&dir.path().join("copy"));

    let fresh = dir.path().join("fresh");
    let to_fresh = format!("oci:{}", fresh.display());
    proxy.set(vec![Rule {
        spared: 1,
        ..rule("GET", "/blobs/sha256", usize::MAX, Fault::Alter)
    }]);
    let said = failed(
        &helper()
            .args(["pull", &name, &to_fresh, PLAIN])
            .output()
            .unwrap(),
    );
    assert!(
        said.contains(&proxy.host) || said.contains("digest"),
        "{said}"
    );
    assert!(!fresh.exists(), "nothing half done is left");
    // A registry that has another manifest afterwards than the one that was sent.
    proxy.set(vec![Rule {
        spared: 1,
        ..rule("GET", "/manifests/", usize::MAX, Fault::Alter)
    }]);
    let said = failed(
        &helper()
            .args(["push", &layout, &name, PLAIN])
            .output()
            .unwrap(),
    );
    assert!(
        said.contains("has the digest") && said.contains(&digest) && said.contains(&proxy.host),
        "{said}"
    );
    // A layer of the layout itself.
    let proxy = Faulty::before(&registry.host);
    let manifest = common::read_image(&dir.path().join("layout")).manifest;
    let layer = manifest["layers"][1]["digest"]
        .as_str()
        .unwrap()
        .replace("sha256:", "");
    let file = dir.path().join("layout/blobs/sha256").join(&layer);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let said = failed(
        &helper()
            .args(["push", &layout, &proxy.name("damaged:1"), PLAIN])
            .output()
            .unwrap(),
    );
    assert!(said.contains("igest"), "{said}");
    assert!(fail(1, &["inspect", &proxy.name("damaged:1"), PLAIN]).contains("there is no image"));
}

/// A registry dies while it is sent an image. The next push sends what is missing.
#[test]
fn a_registry_killed_in_the_middle_is_completed_by_the_next_push() {
    if !ready() {
        return;
    }
    let dir = scratch();
    let mut registry = Registry::start(dir.path());
    let proxy = Faulty::before(&registry.host);
    let (layout, digest, layers) = image(dir.path());
    let name = proxy.name("os:1");
    let held = Arc::new(Held::default());
    // Some blobs have arrived when one is held.
    let hold = Rule {
        spared: 2,
        ..rule("PATCH", UPLOADS, usize::MAX, Fault::Hold(held.clone()))
    };
    proxy.set(vec![hold]);
    let mut command = helper();
    command.args(["push", &layout, &name, PLAIN, "--retry-times", "1"]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !held.waits.load(Ordering::Acquire) || registry.uploads() < 1 {
        tiny_pause();
    }
    let arrived = registry.uploads();
    registry.kill();
    held.let_go.store(true, Ordering::Release);
    let said = failed(&child.wait_with_output().unwrap());
    for part in [proxy.host.as_str(), "os", "given up"] {
        assert!(said.contains(part), "no {part}: {said}");
    }
    proxy.set(Vec::new());
    registry.again();
    assert!(fail(1, &["inspect", &name, PLAIN]).contains("there is no image"));
    registry.forget();
    assert_eq!(run(&["push", "-q", &layout, &name, PLAIN]), digest);
    assert_eq!(registry.uploads(), layers + 1 - arrived);
}

const USER: &str = "tester";
const PASSWORD: &str = "pa55:word-of-the-tests";

/// A secret in every form that it could be seen in.
fn forms() -> [String; 2] {
    [
        PASSWORD.to_owned(),
        BASE64.encode(format!("{USER}:{PASSWORD}")),
    ]
}

fn tells(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    forms().iter().any(|form| text.contains(form.as_str()))
}

/// The processes whose arguments or environment tell the secret, and the open files of any that do, by name.
fn processes_that_tell() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        for file in ["cmdline", "environ"] {
            let path = process.path().join(file);
            if fs::read(&path).is_ok_and(|bytes| tells(&bytes)) {
                found.insert(path.display().to_string());
            }
        }
    }
    found
}

fn files_that_tell(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files_that_tell(&path));
        } else if fs::read(&path).is_ok_and(|bytes| tells(&bytes)) {
            found.push(path.display().to_string());
        }
    }
    found
}

/// Runs the program with the secret on standard input, everything temporary in `dir`, and looks meanwhile.
fn run_with_secret(dir: &Path, arguments: &[&str], secret: &str) -> (Output, BTreeSet<String>) {
    let mut command = helper();
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for variable in ["TMPDIR", "HOME", "XDG_RUNTIME_DIR"] {
        command.env(variable, dir);
    }
    let mut child = command.env_remove("REGISTRY_AUTH_FILE").spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(secret.as_bytes())
        .unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let look = || {
            let mut found = BTreeSet::new();
            while !done.load(Ordering::Acquire) {
                found.extend(processes_that_tell());
                for file in files_that_tell(dir) {
                    found.insert(file);
                }
            }
            found
        };
        let looking = scope.spawn(look);
        let output = child.wait_with_output().unwrap();
        done.store(true, Ordering::Release);
        (output, looking.join().unwrap())
    })
}

#[test]
fn a_password_is_nowhere_to_be_seen() {
    if !ready() {
        return;
    }
    let dir = scratch();
    let (cert_dir, certificate, key) = certificates(dir.path());
    let guard = Guard {
        user: Some((USER, PASSWORD)),
        tls: Some((&certificate, &key)),
    };
    let registry = Registry::guarded(dir.path(), &guard);
    let (layout, digest, _) = image(dir.path());
    let name = registry.name("os:1");
    let private = dir.path().join("private");
    fs::create_dir(&private).unwrap();
    let cert_dir = cert_dir.to_str().unwrap();
    let push = ["push", "-vv", &layout, &name, "--cert-dir", cert_dir];
    let with_stdin = [&push[..], &["--creds-stdin"]].concat();
    let secret = format!("{USER}:{PASSWORD}\n");
    let (output, seen) = run_with_secret(&private, &with_stdin, &secret);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), digest);
    assert_eq!(seen, BTreeSet::new());
    assert!(!tells(&output.stderr), "{}", stderr(&output));
    assert_eq!(files_that_tell(&private), Vec::<String>::new());
    assert!(!tells(&fs::read(registry.log_file()).unwrap()));
    // Every command takes it, and reads back what was pushed.
    let pull = [
        "pull",
        "-vv",
        &name,
        &format!("oci:{}", dir.path().join("copy").display()),
        "--cert-dir",
        cert_dir,
        "--creds-stdin",
    ];
    let (output, seen) = run_with_secret(&private, &pull, &secret);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(seen.is_empty() && !tells(&output.stderr), "{seen:?}");

    // A wrong one is refused, without being told.
    let (output, seen) = run_with_secret(&private, &with_stdin, &format!("nobody:{PASSWORD}"));
    let said = failed(&output);
    assert!(seen.is_empty() && !tells(&output.stderr), "{seen:?} {said}");
    for part in [registry.host.as_str(), "os", "refuses", "--creds-stdin"] {
        assert!(said.contains(part), "no {part}: {said}");
    }
    // The search finds what is there to be found.
    let mut control = Command::new("sleep")
        .arg("30")
        .env("CONTROL", PASSWORD)
        .spawn()
        .unwrap();
    let seen = processes_that_tell();
    control.kill().unwrap();
    control.wait().unwrap();
    assert!(
        seen.iter().any(|path| path.ends_with("environ")),
        "{seen:?}"
    );
}

/// Where podman, skopeo and docker keep credentials they are found, an authority's certificate is needed, and what is
/// missing is told.
#[test]
fn credentials_are_found_where_others_keep_them() {
    if !ready() {
        return;
    }
    let dir = scratch();
    let (cert_dir, certificate, key) = certificates(dir.path());
    let guard = Guard {
        user: Some((USER, PASSWORD)),
        tls: Some((&certificate, &key)),
    };
    let registry = Registry::guarded(dir.path(), &guard);
    let (layout, ..) = image(dir.path());
    let name = registry.name("os:1");
    let home = dir.path().join("home");
    fs::create_dir_all(home.join(".docker")).unwrap();
    let auth = |host: &str| {
        let entry = BASE64.encode(format!("{USER}:{PASSWORD}"));
        format!(r#"{{"auths":{{"{host}":{{"auth":"{entry}"}}}}}}"#)
    };
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (right, other) = (
        file("right.json", &auth(&registry.host)),
        file("other.json", &auth("elsewhere.example")),
    );
    let cert_dir = cert_dir.to_str().unwrap();
    let push = |extra: &[&str], variable: Option<(&str, &str)>| {
        let mut command = helper();
        command
            .args(["push", "-q", &layout, &name, "--retry-times", "0"])
            .args(extra);
        command
            .env("HOME", &home)
            .env("XDG_RUNTIME_DIR", &home)
            .env_remove("REGISTRY_AUTH_FILE");
        command.envs(variable).output().unwrap()
    };
    let trusted = ["--cert-dir", cert_dir];
    let said = failed(&push(&["--authfile", &right], None));
    assert!(
        said.contains("not to be trusted") && said.contains("--cert-dir"),
        "{said}"
    );
    for authfile in [&[][..], &["--authfile", &other]] {
        let said = failed(&push(&[&trusted[..], authfile].concat(), None));
        assert!(
            said.contains("refuses access") && said.contains(&registry.host),
            "{said}"
        );
    }
    for (extra, variable) in [
        (&["--authfile", right.as_str()][..], None),
        (&[], Some(("REGISTRY_AUTH_FILE", right.as_str()))),
    ] {
        let output = push(&[&trusted[..], extra].concat(), variable);
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let docker = home.join(".docker/config.json");
    fs::write(&docker, auth(&registry.host)).unwrap();
    assert!(push(&trusted, None).status.success());
    // A credential helper of docker's.
    let bin = dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let script = format!(
        "#!/bin/sh\necho '{{\"ServerURL\":\"{}\",\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}'\n",
        registry.host
    );
    fs::write(bin.join("docker-credential-tests"), script).unwrap();
    common::succeed(
        Command::new("chmod")
            .arg("755")
            .arg(bin.join("docker-credential-tests")),
    );
    fs::write(
        &docker,
        format!(r#"{{"credHelpers":{{"{}":"tests"}}}}"#, registry.host),
    )
    .unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let output = push(&trusted, Some(("PATH", &path)));
    assert!(output.status.success(), "{}", stderr(&output));
    // What is no pair is refused without being told.
    let mut command = helper();
    command
        .args(["push", &layout, &name, "--creds-stdin"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(PASSWORD.replace(':', "-").as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = stderr(&output);
    assert!(
        said.contains("USER:PASSWORD") && !said.contains("word-of-the-tests"),
        "{said}"
    );
}
