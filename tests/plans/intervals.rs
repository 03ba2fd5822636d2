//! How often components change: told by attributes and by a file, and learned from images.

use std::fs;

use crate::common::*;
use serde_json::Value;

fn explained(rootfs: &Rootfs, more: &[&str], what: &str) -> Value {
    let plan = ["plan", "--rootfs", rootfs.str(), "--explain", what];
    run_json(&[&plan[..], more].concat())["explained"][0].clone()
}

fn near(found: &Value, expected: f64) -> bool {
    (found.as_f64().unwrap() - expected).abs() < 0.001
}

#[test]
fn intervals_that_are_told_make_the_chance() {
    let dir = scratch();
    let rootfs = three_packages(dir.path(), "rootfs", "1", "x");
    rootfs.file("opt/app/x", "x");
    let table = dir.path().join("components");
    fs::write(&table, "/opt/app app\n").unwrap();
    let file = dir.path().join("intervals");
    fs::write(&file, "a 60\nuser/app weekly\ngone 3\n").unwrap();
    let [table, file] = [&table, &file].map(|path| path.to_str().unwrap());
    let told = ["--components", table, "--intervals", file];
    let (before, after) = (
        explained(&rootfs, &[], "/usr/bin/a"),
        explained(&rootfs, &told, "/usr/bin/a"),
    );
    assert!(before["interval"].is_null(), "{before}");
    let name = after["component"].as_str().unwrap();
    assert_eq!((name, &after["interval"]), ("a", &Value::from(60.0)));
    assert!(near(&after["chance"], 1.0 - (-0.5f64).exp()), "{after}");
    let app = explained(&rootfs, &told, "/opt/app/x");
    assert!(near(&app["chance"], 1.0 - (-30.0 / 7.0f64).exp()), "{app}");
    let untold = explained(&rootfs, &told[..2], "/opt/app/x");
    assert!(near(&untold["chance"], 0.2), "{untold}");
    let plan = ["plan", "--rootfs", rootfs.str(), "--explain", "a"];
    let text = run(&[&plan[..], &told].concat());
    assert!(text.contains("interval   60 days"), "{text}");
    fs::write(file, "a sometimes\n").unwrap();
    let said = fail(1, &[&plan[..], &told].concat());
    assert!(said.contains(&format!("{file}, line 1")), "{said}");
}

#[test]
fn intervals_are_learned_from_images() {
    const DAY: u64 = 86_400;
    let dir = scratch();
    let layout = dir.path().join("out");
    let image = |at: usize, version: &str, day: u64| {
        let rootfs = three_packages(dir.path(), &format!("r{at}"), version, "x");
        let name = format!("oci:{}:t{at}", layout.display());
        let date = (1_700_000_000 + day * DAY).to_string();
        build_layout_at(&rootfs, &name, &date);
        name
    };
    // The package 'b', of 'source-b', changes twice in sixty days; named in another order.
    let images = [
        image(2, "2", 40),
        image(0, "1", 0),
        image(3, "3", 60),
        image(1, "1", 20),
    ];
    let names: Vec<&str> = images.iter().map(String::as_str).collect();
    let learned = run(&[&["plan", "--learn"][..], &names].concat());
    let days = |name: &str| -> Option<f64> {
        let lines = learned.lines().filter(|line| line.starts_with('{'));
        let lines = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut found = lines.filter(|line| line["component"] == name);
        found.next().and_then(|line| line["interval"].as_f64())
    };
    assert!(
        learned.starts_with("# Learned from 4 images, 2023-11-14"),
        "{learned}"
    );
    assert_eq!(
        (days("source-b"), days("a")),
        (Some(30.0), None),
        "{learned}"
    );
    // What is learned is read.
    let file = dir.path().join("learned");
    fs::write(&file, &learned).unwrap();
    let rootfs = three_packages(dir.path(), "last", "3", "x");
    let b = explained(
        &rootfs,
        &["--intervals", file.to_str().unwrap()],
        "source-b",
    );
    assert_eq!(b["interval"], 30.0);
    let said = fail(1, &["plan", "--learn", names[0], names[0]]);
    assert!(said.contains("images of different dates"), "{said}");
    let said = fail(2, &["plan", "--learn", names[0]]);
    assert!(said.contains("two or more images"), "{said}");
}

fn build_layout_at(rootfs: &Rootfs, output: &str, date: &str) {
    let build = ["build", "-q", "--rootfs", rootfs.str(), "-o", output];
    run(&[&build[..], &["--timestamp", date]].concat());
}
