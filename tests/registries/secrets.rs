//! Credentials: found where others keep them, and nowhere to be seen.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

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

/// The processes whose arguments or environment tell the secret, and the open files of any that do,
/// by name.
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

/// Runs the program with the secret on standard input, everything temporary in `dir`, and looks
/// meanwhile.
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

/// A registry that wants the password and has a certificate of its own, and the directory that
/// clients trust it by.
fn guarded_registry(dir: &Path) -> (Registry, PathBuf) {
    let (cert_dir, certificate, key) = certificates(dir);
    let guard = Guard {
        user: Some((USER, PASSWORD)),
        tls: Some((&certificate, &key)),
    };
    (Registry::guarded(dir, &guard), cert_dir)
}

#[test]
fn a_password_is_nowhere_to_be_seen() {
    if !has_registry() {
        return;
    }
    let dir = scratch();
    let (registry, cert_dir) = guarded_registry(dir.path());
    let (layout, digest, _) = large_image(dir.path());
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
    let said = told_no_digest(&output);
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
    let is_seen = || {
        let seen = processes_that_tell();
        seen.iter().any(|path| path.ends_with("environ"))
    };
    // A process that begins has an empty environment for a moment.
    let found = (0..100).any(|_| {
        is_seen() || {
            tiny_pause();
            false
        }
    });
    control.kill().unwrap();
    control.wait().unwrap();
    assert!(found, "the search does not find what is there");
}

/// Where podman, skopeo and docker keep credentials they are found, an authority's certificate is
/// needed, and what is missing is told.
#[test]
fn credentials_are_found_where_others_keep_them() {
    if !has_registry() {
        return;
    }
    let dir = scratch();
    let (registry, cert_dir) = guarded_registry(dir.path());
    let (layout, ..) = large_image(dir.path());
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
    let said = told_no_digest(&push(&["--authfile", &right], None));
    assert!(
        said.contains("not to be trusted") && said.contains("--cert-dir"),
        "{said}"
    );
    for authfile in [&[][..], &["--authfile", &other]] {
        let said = told_no_digest(&push(&[&trusted[..], authfile].concat(), None));
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
    succeed(
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
