//! `--components FILE`: who owns a path is what a user says, after attributes and before dpkg.

use std::fs;

use crate::common::*;
use serde_json::Value;

fn rootfs(dir: &std::path::Path) -> Rootfs {
    let rootfs = Rootfs::new(dir.join("rootfs"));
    rootfs
        .packages(&[(
            "foo",
            "foo",
            "1.0-1",
            &["usr/bin/foo", "usr/share/foo/data"],
        )])
        .file("usr/bin/foo", "foo")
        .file("usr/share/foo/data", "data")
        .file("opt/app/bin/x", "x")
        .file("opt/app/models/big", "model")
        .file("opt/hinted/y", "y")
        .xattr("opt/hinted", "user.component", b"hinted")
        .file("srv/vendor/a/b.js", "b")
        .settle();
    rootfs
}

const TABLE: &str = r#"# what no package owns
opt/app/models  models  monthly
/opt/**         app
{"path": "**/vendor", "component": "vendored code", "interval": "90"}
usr/share/foo/* data
"#;

fn explain(rootfs: &Rootfs, table: &str, path: &str) -> Value {
    let plan = [
        "plan",
        "--json",
        "--rootfs",
        rootfs.str(),
        "--components",
        table,
        "--explain",
        path,
    ];
    let plan: Value = serde_json::from_str(&run(&plan)).unwrap();
    plan["explained"][0].clone()
}

#[test]
fn a_table_stands_between_attributes_and_dpkg() {
    let dir = scratch();
    let rootfs = rootfs(dir.path());
    let table = dir.path().join("table");
    fs::write(&table, TABLE).unwrap();
    let table = table.to_str().unwrap();
    for (path, component, rule) in [
        ("/opt/app/bin/x", "user/app", "line 3 of "),
        ("/opt/app/models/big", "user/models", "line 2 of "),
        (
            "/opt/hinted/y",
            "user/hinted",
            "the attribute user.component",
        ),
        ("/srv/vendor/a/b.js", "user/vendored code", "line 4 of "),
        ("/usr/share/foo/data", "user/data", "line 5 of "),
        ("/usr/bin/foo", "foo", "the source package"),
    ] {
        let explained = explain(&rootfs, table, path);
        assert_eq!(explained["component"], component, "{path}");
        let said = explained["rule"].as_str().unwrap();
        assert!(said.contains(rule), "{path}: {said}");
    }
    // What a month brings, with a month or a quarter between two changes.
    let chance = |path: &str| explain(&rootfs, table, path)["chance"].as_f64().unwrap();
    assert!((chance("/opt/app/models/big") - 0.632).abs() < 0.001);
    assert!((chance("/srv/vendor/a/b.js") - 0.283).abs() < 0.001);
}

#[test]
fn every_command_that_plans_takes_it() {
    let dir = scratch();
    let rootfs = rootfs(dir.path());
    let table = dir.path().join("table");
    fs::write(&table, TABLE).unwrap();
    let table = table.to_str().unwrap();
    let out = dir.path().join("out");
    let layout = format!("oci:{}", out.display());
    let has_vendored = || {
        let image = read_image(&out);
        image.manifest["layers"]
            .to_string()
            .contains("user/vendored code")
    };
    let source = ["--rootfs", rootfs.str(), "--components", table];
    for command in [
        &["build", "-q", "-o", &layout][..],
        &[
            "compose",
            "build-chunked-oci",
            "-q",
            "--bootc",
            "--output",
            &layout,
        ],
    ] {
        run(&[command, &source].concat());
        assert!(has_vendored(), "{command:?}");
        fs::remove_dir_all(&out).unwrap();
    }
    if !has("ostree") || !is_root() {
        return;
    }
    let repo = repository(dir.path(), "repo", "archive");
    run(&[
        "commit",
        "-q",
        "--rootfs",
        rootfs.str(),
        "--repo",
        &repo,
        "-b",
        "b",
    ]);
    for command in [&["encapsulate"][..], &["compose", "container-encapsulate"]] {
        let rest = ["-q", "--components", table, "--repo", &repo, "b", &layout];
        run(&[command, &rest].concat());
        assert!(has_vendored(), "{command:?}");
        fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn errors_name_the_file_and_the_line() {
    let dir = scratch();
    let rootfs = rootfs(dir.path());
    let table = dir.path().join("table");
    let out = format!("oci:{}", dir.path().join("out").display());
    let at = table.to_str().unwrap();
    let build = [
        "build",
        "--rootfs",
        rootfs.str(),
        "--components",
        at,
        "-o",
        &out,
    ];
    for (text, why) in [
        (
            "# x\nopt/[a app\n",
            "table, line 2: the pattern 'opt/[a': has a '[' without its ']'",
        ),
        (
            "opt app sometimes\n",
            "table, line 1: the interval 'sometimes'",
        ),
        (
            "{\"path\": 1}\n",
            "table, line 1: it is not JSON of the form",
        ),
    ] {
        fs::write(&table, text).unwrap();
        let said = fail(1, &build);
        assert!(said.contains(why), "{said}");
    }
    fs::remove_file(&table).unwrap();
    assert!(fail(1, &build).contains("reading the components from"));
    fs::write(&table, "usr/nothing nobody\n").unwrap();
    let said = stderr(&helper().args(build).output().unwrap());
    assert!(
        said.contains("table, line 1: nothing in the rootfs is for 'usr/nothing nobody' alone"),
        "{said}"
    );
}
