//! What `plan` says that `build` then does, and how it explains that.

use crate::common::*;
use serde_json::Value;

#[test]
fn a_plan_is_what_the_build_then_does() {
    let dir = scratch();
    let rootfs = three_packages(dir.path(), "rootfs", "1", "x");
    let formats: [&[&str]; 4] = [
        &["--format", "ostree"],
        &["--format", "ostree", "--format-version", "1"],
        &["--format", "plain"],
        &["--format", "ostree", "--max-layers", "1"],
    ];
    let output = format!("oci:{}", dir.path().join("out").display());
    for format in formats {
        let planned = run_json(&[&["plan", "--rootfs", rootfs.str()], format].concat());
        let built = build_json(&rootfs, &output, format);
        assert_eq!(planned["commit"], built["commit"]);
        let components = |report: &Value| -> Vec<Value> {
            let layers = report["layers"].as_array().unwrap().iter();
            layers
                .map(|layer| layer["components"].clone())
                .filter(|names| names != &serde_json::json!([]))
                .collect()
        };
        if format.contains(&"1") && format.contains(&"--max-layers") {
            // All is in the layer of the commit.
            assert_eq!(built["layers"].as_array().unwrap().len(), 1);
        } else {
            assert_eq!(components(&planned), components(&built), "{format:?}");
        }
    }
}

#[test]
fn a_plan_explains() {
    let dir = scratch();
    let rootfs = three_packages(dir.path(), "rootfs", "1", "x");
    rootfs.link("bin", "usr/bin");
    let explain = |what: &str| {
        run_json(&["plan", "--rootfs", rootfs.str(), "--explain", what])["explained"][0].clone()
    };
    let path = explain("/usr/bin/b");
    assert_eq!(path["component"], "source-b");
    // Through the links of a merged /usr, as people name it.
    assert_eq!(explain("/bin/b")["component"], "source-b");
    assert!(
        path["rule"].as_str().unwrap().contains("source package"),
        "{path}"
    );
    // A package, a package of an architecture, and a source.
    for what in ["b", "b:amd64", "source-b"] {
        assert_eq!(explain(what)["component"], "source-b", "{what}");
        assert_eq!(explain(what)["layer"], path["layer"], "{what}");
    }
    let state = explain("/var/lib/dpkg/status");
    assert!(
        state["rule"].as_str().unwrap().contains("state/packages"),
        "{state}"
    );
    rootfs
        .file("opt/app/lib/x", "x")
        .file("usr/local/lib/node_modules/@a/b/index.js", "b");
    assert_eq!(explain("/opt/app/lib/x")["component"], "local/opt/app");
    assert_eq!(
        explain("/usr/local/lib/node_modules/@a/b/index.js")["component"],
        "npm/@a/b"
    );
    let text = run(&["plan", "--rootfs", rootfs.str(), "--explain", "/opt/note"]);
    assert!(
        text.contains("rest/files") && text.contains("chance"),
        "{text}"
    );
    for what in ["/no/such", "no-such", "b:arm64"] {
        let said = fail(1, &["plan", "--rootfs", rootfs.str(), "--explain", what]);
        assert!(said.contains(what), "{said}");
    }
    let plan = dir.path().join("plan.json");
    run(&[
        "plan",
        "--rootfs",
        rootfs.str(),
        "--write-plan",
        plan.to_str().unwrap(),
    ]);
    let again = run_json(&[
        "plan",
        "--rootfs",
        rootfs.str(),
        "--plan",
        plan.to_str().unwrap(),
    ]);
    assert_eq!(
        again["layers"],
        run_json(&["plan", "--rootfs", rootfs.str()])["layers"]
    );
}

#[test]
fn a_plan_tells_where_the_parts_of_a_source_are() {
    let dir = scratch();
    let rootfs = Rootfs::new(dir.path().join("rootfs"));
    rootfs
        .file("usr/bin/openssl", vec![1; 3 << 20])
        .file("usr/share/openssl/data", vec![2; 3 << 20])
        .packages(&[(
            "openssl",
            "openssl",
            "3.5.1-1",
            &["usr/bin/openssl", "usr/share/openssl/data"],
        )])
        .settle();
    let explain = |what: &str| {
        run_json(&["plan", "--rootfs", rootfs.str(), "--explain", what])["explained"][0].clone()
    };
    let (source, part) = (explain("openssl"), explain("/usr/share/openssl/data"));
    assert_eq!(part["component"], "openssl:usr/share/openssl/data");
    assert_ne!(part["layer"], source["layer"]);
    assert_eq!(
        source["part_layers"],
        Value::Array(vec![part["layer"].clone()])
    );
    assert_eq!(part["part_layers"], Value::Array(Vec::new()));
    // In one layer they are in no other.
    let plan = ["plan", "--rootfs", rootfs.str(), "--explain", "openssl"];
    let told = run_json(&[&plan[..], &["--max-layers", "1"]].concat());
    assert_eq!(
        told["explained"][0]["part_layers"],
        Value::Array(Vec::new())
    );
    let text = run(&plan);
    let told = format!("in other layers, too: {}", part["layer"]);
    assert!(text.contains(&told), "{text}");
}
