//! The next image in a registry: what is there is neither fetched nor sent again, and a previous
//! image may be missing.

use crate::common::*;

/// With the previous image in the same repository, layers that stay are not fetched, compressed or
/// sent; without it they are compressed, and not sent.
#[test]
fn what_the_repository_has_is_neither_fetched_nor_sent() {
    if !has_registry() {
        return;
    }
    let dir = scratch();
    let registry = Registry::start(dir.path());
    let (old, new) = old_and_new(dir.path());
    let name = registry.name("os:1");
    let first = build_to(&old, &name, &[]);
    let layers = first["layers"].as_array().unwrap().len();
    assert_eq!(registry.uploads(), layers + 1, "the layers and the config");
    registry.forget();
    let again = build_to(&old, &name, &["--previous", &name]);
    assert_eq!(again["digest"], first["digest"]);
    assert!(!taken(&again).contains(&false), "{again}");
    assert_eq!(registry.uploads(), 0);
    // The config alone is read.
    assert_eq!(registry.downloads(), 1, "{:?}", registry.requests());
    registry.forget();
    build_to(&old, &name, &[]);
    assert_eq!((registry.uploads(), registry.downloads()), (0, 0));
    registry.forget();
    let updated = build_to(&new, &registry.name("os:2"), &["--previous", &name]);
    let made = taken(&updated).iter().filter(|taken| !**taken).count();
    assert!(made < layers, "{updated}");
    assert_eq!(
        registry.uploads(),
        made + 1,
        "the layers made anew, and the config"
    );
    // What is left in the registry is whole: every layer is read.
    let whole = run_json(&["inspect", &registry.name("os:2"), PLAIN]);
    assert_eq!(whole["digest"], updated["digest"]);
    // In another repository they are made anew, and are the same.
    let elsewhere = build_to(&new, &registry.name("other"), &["--previous", &name]);
    assert!(!taken(&elsewhere).contains(&true), "{elsewhere}");
    assert_eq!(elsewhere["digest"], updated["digest"]);
}

#[test]
fn a_previous_image_that_cannot_be_followed_is_told_apart_from_a_registry_that_cannot_be_read() {
    if !has_registry() {
        return;
    }
    let dir = scratch();
    let mut registry = Registry::start(dir.path());
    let rootfs = three_packages(dir.path(), "rootfs", "1", "note");
    let layout = format!("oci:{}", dir.path().join("out").display());
    let missing = registry.name("none/yet:1");
    let foreign = registry.name("os:arm64");
    build_to(&rootfs, &foreign, &["--arch", "arm64"]);
    let plain = dir.path().join("plain");
    ImageWriter::plain(vec![Tar::default().add("a", What::File(b"x")).end()]).write(&plain);
    let plain = format!("oci:{}", plain.display());
    let base = [
        "build",
        "--rootfs",
        rootfs.str(),
        "-o",
        &layout,
        PLAIN,
        "--retry-times",
        "0",
        "--arch",
        "amd64",
    ];
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let empty = format!("oci:{}", empty.display());
    for (previous, why) in [
        (missing.as_str(), "manifest unknown"),
        (&foreign, "arm64"),
        (&plain, "not chunked"),
        ("oci:/no/such/layout", "No such file or directory"),
        (&empty, "not an OCI layout yet"),
    ] {
        let arguments = [&base[..], &["--previous", previous]].concat();
        let output = helper().args(&arguments).output().unwrap();
        assert!(output.status.success(), "{previous}: {}", stderr(&output));
        assert!(
            stderr(&output).contains("made anew"),
            "{previous}: {}",
            stderr(&output)
        );
        let said = fail(1, &[&arguments[..], &["--previous-required"]].concat());
        assert!(
            said.contains("required") && said.contains(why),
            "{previous}: {said}"
        );
    }
    let said = fail(2, &[&base[..], &["--previous-required"]].concat());
    assert!(said.contains("--previous IMAGE"), "{said}");
    let proxy = Faulty::before(&registry.host);
    proxy.set(vec![rule("GET", "/v2/", usize::MAX, Fault::Status(401))]);
    let refusing = proxy.name("os:1");
    let said = fail(1, &[&base[..], &["--previous", &refusing]].concat());
    for part in [proxy.host.as_str(), "os", "refuses access"] {
        assert!(said.contains(part), "no {part}: {said}");
    }
    registry.kill();
    let said = fail(1, &[&base[..], &["--previous", &missing]].concat());
    for part in [
        registry.host.as_str(),
        "none/yet",
        "cannot be reached",
        "connection refused",
    ] {
        assert!(said.contains(part), "no {part}: {said}");
    }
}

/// The proxy counts what is sent: a push after a security update sends what `diff` says.
#[test]
fn an_update_sends_what_diff_says() {
    if !has_registry() {
        return;
    }
    let dir = scratch();
    let registry = Registry::start(dir.path());
    let proxy = Faulty::before(&registry.host);
    let rootfs = Rootfs::new(dir.path().join("rootfs"));
    let files = ["usr/bin/a", "usr/bin/b", "usr/bin/c"];
    let at = |version: &str| {
        for (seed, file) in files.iter().enumerate() {
            let version = if seed == 1 { version } else { "1" };
            rootfs.file(file, noise(&format!("{seed} {version}"), 4_000_000));
        }
        rootfs.packages(&[
            ("a", "a", "1", &files[..1]),
            ("b", "b", version, &files[1..2]),
            ("c", "c", "1", &files[2..]),
        ]);
        rootfs.settle();
    };
    let (old, new) = (layout_in(dir.path(), "old"), layout_in(dir.path(), "new"));
    let gzip = ["--compression", "gzip"];
    let name = proxy.name("os:13");
    at("1");
    build_to(&rootfs, &old, &gzip);
    at("1+deb13u1");
    build_to(&rootfs, &new, &[&gzip[..], &["--previous", &old]].concat());
    let said = run_json(&["diff", &old, &new])["bytes_fetched"]
        .as_u64()
        .unwrap();
    assert!(said > 4_000_000, "{said}");
    let is_near = |sent: u64| sent.abs_diff(said) * 100 <= said;

    run(&["push", "-q", &old, &name, PLAIN]);
    let whole = proxy.uploaded();
    assert!(whole > 12_000_000, "{whole}");
    let pushed = run_json(&["push", &new, &name, PLAIN]);
    let sent = proxy.uploaded();
    assert!(is_near(sent), "{sent} bytes sent, {said} by diff: {pushed}");
    let again = run_json(&["push", &new, &name, PLAIN]);
    assert_eq!((transferred(&again), proxy.uploaded()), (0, 0));

    // The same straight from a build, with the previous image in the registry.
    // skopeo remembers what a host has; this is another one.
    let proxy = Faulty::before(&registry.host);
    let built = proxy.name("built:13");
    let previous = ["--previous", built.as_str()];
    at("1");
    build_to(&rootfs, &built, &[]);
    let whole = proxy.uploaded();
    assert!(whole > 12_000_000, "{whole}");
    at("1+deb13u1");
    build_to(&rootfs, &built, &previous);
    let sent = proxy.uploaded();
    assert!(is_near(sent), "{sent} bytes sent, {said} by diff");
    let again = build_to(&rootfs, &built, &previous);
    assert!(!taken(&again).contains(&false), "{again}");
    assert_eq!(proxy.uploaded(), 0);
}
