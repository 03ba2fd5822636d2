//! Registries on bad days: nothing half done counts as done, what is worth another try gets one,
//! errors name the registry, the repository and the cause.

use std::fs;
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::common::*;
use apt_ostree_helper::image::{Access, RegistryName, check_writable, describe};

const UPLOADS: &str = "/blobs/uploads/";

#[test]
fn what_passes_is_tried_again_and_what_stays_is_told() {
    if !has_registry() {
        return;
    }
    let dir = scratch();
    let registry = Registry::start(dir.path());
    let (layout, digest, _) = large_image(dir.path());
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
    let said = told_no_digest(
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
    if !has_registry() {
        return;
    }
    let dir = scratch();
    let registry = Registry::start(dir.path());
    let proxy = Faulty::before(&registry.host);
    let (layout, ..) = large_image(dir.path());
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

/// One that takes the connection and says nothing more had the program wait for ever.
#[test]
fn a_host_that_does_not_answer_is_given_up() {
    if !has_registry() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let held: Vec<_> = listener.incoming().collect();
        drop(held);
    });
    let access = Access {
        tls_verify: Some(false),
        answer_within: 2,
        ..Access::default()
    };
    let start = Instant::now();
    let text = format!("docker://{host}/os:1");
    let reading = describe(&text.parse().unwrap(), &access).map(drop);
    let name = RegistryName::parse(&format!("{host}/os:1")).unwrap();
    for error in [reading, check_writable(&name, &access)] {
        let said = format!("{:#}", error.unwrap_err());
        for part in [&host, "os", "cannot be reached", "within 2 s"] {
            assert!(said.contains(part), "no {part}: {said}");
        }
    }
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[test]
fn blobs_that_are_cut_short_are_read_again_and_altered_ones_refused() {
    if !has_registry() {
        return;
    }
    let dir = scratch();
    let registry = Registry::start(dir.path());
    let proxy = Faulty::before(&registry.host);
    let (layout, digest, _) = large_image(dir.path());
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
    read_image(&dir.path().join("copy"));

    let fresh = dir.path().join("fresh");
    let to_fresh = format!("oci:{}", fresh.display());
    proxy.set(vec![Rule {
        spared: 1,
        ..rule("GET", "/blobs/sha256", usize::MAX, Fault::Alter)
    }]);
    let said = told_no_digest(
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
    let said = told_no_digest(
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
    let manifest = read_image(&dir.path().join("layout")).manifest;
    let layer = manifest["layers"][1]["digest"]
        .as_str()
        .unwrap()
        .replace("sha256:", "");
    let file = dir.path().join("layout/blobs/sha256").join(&layer);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let said = told_no_digest(
        &helper()
            .args(["push", &layout, &proxy.name("damaged:1"), PLAIN])
            .output()
            .unwrap(),
    );
    assert!(said.contains("igest"), "{said}");
    assert!(fail(1, &["inspect", &proxy.name("damaged:1"), PLAIN]).contains("there is no image"));
}

/// While a layer is read the next one is on its way already: when the first breaks off, it is asked
/// for again, and nobody waits for the other.
#[test]
fn a_layer_that_is_cut_short_is_read_again_while_the_next_one_is_on_its_way() {
    if !has_registry() {
        return;
    }
    let dir = scratch();
    let registry = Registry::start(dir.path());
    let proxy = Faulty::before(&registry.host);
    // More than is fetched ahead, in each layer of a package.
    let rootfs = three_packages(dir.path(), "rootfs", "1", "note");
    for package in ["a", "b", "c"] {
        rootfs.file(&format!("usr/bin/{package}"), noise(package, 4_000_000));
    }
    rootfs.settle();
    build_layout(dir.path(), &rootfs, &["--compression", "gzip"]);
    let layout = format!("oci:{}", dir.path().join("out").display());
    let name = proxy.name("os:1");
    run(&["push", "-q", &layout, &name, PLAIN]);
    let build = |from: &str, to: &str| {
        let to = format!("oci:{}", dir.path().join(to).display());
        run(&["build", "-q", "--from", from, "-o", &to, PLAIN])
    };
    // The config is read first; the layer that is cut is not the last.
    proxy.set(vec![Rule {
        spared: 2,
        ..rule("GET", "/blobs/sha256", 1, Fault::Cut(2000))
    }]);
    let through_the_fault = build(&name, "faulty");
    assert_eq!(proxy.left(), 0);
    assert_eq!(through_the_fault, build(&layout, "direct"));
}

/// A registry dies while it is sent an image. The next push sends what is missing.
#[test]
fn a_registry_killed_in_the_middle_is_completed_by_the_next_push() {
    if !has_registry() {
        return;
    }
    let dir = scratch();
    let mut registry = Registry::start(dir.path());
    let proxy = Faulty::before(&registry.host);
    let (layout, digest, layers) = large_image(dir.path());
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
    let said = told_no_digest(&child.wait_with_output().unwrap());
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
