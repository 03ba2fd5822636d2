//! Every command that takes an image takes it from every transport, and every command that makes
//! one writes it to each.

use std::fs;
use std::path::Path;

use crate::common::fake::*;
use crate::common::*;
use serde_json::Value;

/// The storage of podman that is used here, apart from the machine's.
fn storage(dir: &Path) -> String {
    let at = |name: &str| dir.join(name).display().to_string();
    let conf = format!(
        "[storage]\ndriver = \"vfs\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
        at("storage-root"),
        at("storage-run")
    );
    let file = at("storage.conf");
    fs::write(&file, conf).unwrap();
    file
}

#[test]
fn every_command_takes_and_makes_images_of_every_transport() {
    if !has_registry() || !has("podman") || !has("ostree") || !is_root() {
        return;
    }
    let dir = scratch();
    let registry = Registry::start(dir.path());
    let storage = storage(dir.path());
    let run = |arguments: &[&str]| {
        let mut command = helper();
        command.args(arguments);
        succeed(command.env("CONTAINERS_STORAGE_CONF", &storage))
    };
    let json = |arguments: &[&str]| -> Value {
        serde_json::from_str(&run(&[arguments, &["--json"]].concat())).unwrap()
    };
    let rootfs = three_packages(dir.path(), "rootfs", "1", "note");
    let archive = dir.path().join("a.tar").display().to_string();
    let images = [
        layout_in(dir.path(), "layout"),
        layout_in(dir.path(), "named") + ":name",
        format!("oci-archive:{archive}:name"),
        registry.name("os:1"),
        registry.name("os:2").replace("docker://", "registry:"),
        "containers-storage:localhost/os:1".to_owned(),
    ];
    let repo = repository(dir.path(), "repo", "bare-user");
    let common = ["build", "-q", PLAIN, "--timestamp", "1700000000"];
    for (at, image) in images.iter().enumerate() {
        let made = json(&[&common[..], &["--rootfs", rootfs.str(), "-o", image]].concat());
        let commit = made["commit"].as_str().unwrap();
        let seen = json(&["inspect", image, PLAIN]);
        assert_eq!(seen["packages"].as_array().unwrap().len(), 3, "{image}");
        let branch = format!("b{at}");
        let import = ["import", "-q", "--repo", &repo, "-b", &branch, image, PLAIN];
        assert_eq!(run(&import), commit, "{image}");
        run(&["diff", "-q", &images[0], image, PLAIN]);
        let out = layout_in(dir.path(), "out");
        let more = ["--previous", image, "--previous-required"];
        let more = [&more[..], &["--config-from", image, "-o", &out]].concat();
        let again = json(&[&common[..], &["--rootfs", rootfs.str()], &more].concat());
        assert_eq!(again["commit"], commit, "{image}");
        // The files of its commit are what counts; the commit layer has /sysroot.
        let from = json(&[&common[..], &["--from", image, "-o", &out]].concat());
        assert!(from["entries"].as_u64() > Some(10), "{image}");
        let planned = run(&["plan", "-q", PLAIN, "--json", "--from", image]);
        assert!(planned.contains("source-b"), "{image}: {planned}");
        let copy = registry.name(&format!("copy:{at}"));
        run(&["push", "-q", image, &copy, PLAIN]);
        run(&["pull", "-q", &copy, &layout_in(dir.path(), "pulled"), PLAIN]);
        let index = registry.name(&format!("index:{at}"));
        run(&["index", "-q", "-o", &index, image, PLAIN]);
        assert_eq!(json(&["inspect", &index, PLAIN])["commit"], seen["commit"]);
        // What else makes an image.
        let to = match at {
            2 => format!("oci-archive:{archive}-2:name"),
            _ => image.clone(),
        };
        run(&["encapsulate", "-q", "--repo", &repo, &branch, &to, PLAIN]);
        let compose = ["compose", "container-encapsulate", "-q", "--repo", &repo];
        run(&[&compose[..], &[&branch, &to, PLAIN]].concat());
        let compose = ["compose", "build-chunked-oci", "--bootc", "-q", "--rootfs"];
        run(&[&compose[..], &[rootfs.str(), "--output", &to, PLAIN]].concat());
        let seen = json(&["inspect", &to, PLAIN]);
        assert_eq!(seen["packages"].as_array().unwrap().len(), 3, "{to}");
    }
}

/// `compose build-image` writes to every transport that needs no storage of its own, and follows
/// what it wrote. The backend is a fake one: what builds is not what is tested.
#[test]
fn an_image_of_a_containerfile_goes_to_every_transport() {
    if !has_registry() {
        return;
    }
    let fake = Fake::new(&["podman"]);
    let registry = Registry::start(&fake.at(""));
    let context = fake.at("context");
    fs::create_dir_all(&context).unwrap();
    fs::write(context.join("Containerfile"), "FROM nothing").unwrap();
    let context = context.to_str().unwrap();
    let path = format!(
        "{}:{}",
        fake.at("bin").display(),
        std::env::var("PATH").unwrap()
    );
    let build = |image: &str, more: &[&str]| -> Value {
        let arguments = ["compose", "build-image", context, "-o", image, "-q", PLAIN];
        let usual = ["--json", "--backend", "podman", "--timestamp", "1700000000"];
        let mut command = fake.command(&[&arguments[..], &usual, more].concat());
        serde_json::from_str(&succeed(command.env("PATH", &path))).unwrap()
    };
    let mut commits = Vec::new();
    for image in [
        fake.layout(),
        format!("oci-archive:{}:name", fake.at("a.tar").display()),
        registry.name("os:built"),
        registry.name("os:again").replace("docker://", "registry:"),
    ] {
        let made = build(&image, &[]);
        let seen = run_json(&["inspect", &image, PLAIN]);
        assert_eq!(seen["commit"], made["commit"], "{image}");
        assert_eq!(seen["digest"], made["digest"], "{image}");
        registry.forget();
        let again = build(&image, &["--previous", &image, "--previous-required"]);
        assert_eq!(again["digest"], made["digest"], "{image}");
        assert_eq!(registry.uploads(), 0, "{image}");
        commits.push(made["commit"].clone());
    }
    commits.dedup();
    assert_eq!(commits.len(), 1);
}
