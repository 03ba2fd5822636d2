//! `push` and `pull`: images stay what they are.

use crate::common::*;
use serde_json::Value;

/// Manifests and layers, annotations too, are the same in the layout, the registry and the copy
/// pulled from it; what is there is neither sent nor fetched again.
#[test]
fn an_image_is_the_same_pushed_and_pulled() {
    if !has_registry() {
        return;
    }
    let dir = scratch();
    let registry = Registry::start(dir.path());
    let (old, new) = old_and_new(dir.path());
    let (layout, name) = (layout_in(dir.path(), "layout"), registry.name("os:1"));
    let built = build_to(&old, &layout, &["--compression", "zstd"]);
    let file = dir.path().join("digest");
    let digest = run(&[
        "push",
        "-q",
        &layout,
        &name,
        PLAIN,
        "--digestfile",
        file.to_str().unwrap(),
    ]);
    assert_eq!(built["digest"], digest.as_str());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), digest);
    assert_eq!(
        skopeo(&["inspect", "--format", "{{.Digest}}", PLAIN, &name]),
        digest
    );
    registry.forget();
    let again = run_json(&["push", &layout, &name, PLAIN]);
    assert_eq!((registry.uploads(), transferred(&again)), (0, 0));
    let copy = layout_in(dir.path(), "copy");
    let pulled = run_json(&["pull", &name, &copy, PLAIN]);
    assert_eq!(
        (pulled["digest"].as_str(), transferred(&pulled)),
        (Some(digest.as_str()), layer_count(&built))
    );
    let (there, here) = (dir.path().join("layout"), dir.path().join("copy"));
    assert_eq!(read_image(&there).manifest, read_image(&here).manifest);
    judged(&["verify", here.to_str().unwrap(), "--ostree"]);
    // An update sends and fetches what differs.
    let updated = build_to(
        &new,
        &layout,
        &["--compression", "zstd", "--previous", &layout],
    );
    let changed = taken(&updated).iter().filter(|taken| !**taken).count();
    let sent = run_json(&["push", &layout, &name, PLAIN]);
    assert_eq!(transferred(&sent), changed, "{sent}");
    registry.forget();
    let fetched = run_json(&["pull", &name, &copy, PLAIN]);
    assert_eq!(
        (transferred(&fetched), registry.downloads()),
        (changed, changed + 2),
        "and the config, to be read and to be kept"
    );
    let archive = dir.path().join("a.tar").display().to_string();
    run(&["pull", "-q", &name, &archive, PLAIN]);
    assert_eq!(
        run(&[
            "push",
            "-q",
            &archive,
            &registry.name("from/archive"),
            PLAIN
        ]),
        updated["digest"].as_str().unwrap()
    );
    registry.forget();
    // To another repository of the registry, and by its digest.
    let by_digest = format!(
        "{}@{}",
        registry.name("os"),
        updated["digest"].as_str().unwrap()
    );
    assert_eq!(
        run(&["push", "-q", &by_digest, &registry.name("other:x"), PLAIN]),
        updated["digest"].as_str().unwrap()
    );
    let said = fail(2, &["push", &layout, &by_digest, PLAIN]);
    assert!(said.contains("names one image for ever"), "{said}");
}

#[test]
fn an_uncompressed_image_is_compressed_and_keeps_its_id() {
    if !has_registry() {
        return;
    }
    let dir = scratch();
    let registry = Registry::start(dir.path());
    let (old, _) = old_and_new(dir.path());
    let (layout, name) = (layout_in(dir.path(), "layout"), registry.name("os"));
    let built = build_to(&old, &layout, &[]);
    let digest = run(&["push", "-q", &layout, &name, PLAIN]);
    let raw: Value = serde_json::from_str(&skopeo(&["inspect", "--raw", PLAIN, &name])).unwrap();
    assert_eq!(raw["config"]["digest"], built["image_id"]);
    let image = read_image(&dir.path().join("layout"));
    for (sent, made) in raw["layers"]
        .as_array()
        .unwrap()
        .iter()
        .zip(image.manifest["layers"].as_array().unwrap())
    {
        assert_eq!(
            sent["mediaType"],
            "application/vnd.oci.image.layer.v1.tar+gzip"
        );
        assert_eq!(sent["annotations"], made["annotations"]);
    }
    registry.forget();
    assert_eq!(
        run(&["push", "-q", &layout, &name, PLAIN]),
        digest,
        "the same bytes again"
    );
    assert_eq!(registry.uploads(), 0);
    assert_eq!(
        run_json(&["inspect", &name, PLAIN])["digest"],
        digest.as_str()
    );
}
