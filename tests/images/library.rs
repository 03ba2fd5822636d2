//! The examples of the library, as another program would call it: `contrib/examples`.

#[path = "../../contrib/examples/build.rs"]
mod build;
#[path = "../../contrib/examples/inspect.rs"]
mod inspect;

use std::path::Path;

use crate::common::*;

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn the_examples_do_what_they_say() {
    let dir = scratch();
    let rootfs = three_packages(dir.path(), "rootfs", "1-1", "a note");
    let layout = dir.path().join("image").display().to_string();
    let digest = build::run(&words(&[rootfs.str(), &layout])).unwrap();
    assert_eq!(digest, read_image(Path::new(&layout)).digest);
    let image = format!("oci:{layout}");
    let layers = inspect::run(&words(&[&image])).unwrap();
    let sizes = layers.lines().map(|line| {
        let size = line.split_whitespace().next().unwrap();
        size.parse::<u64>().unwrap()
    });
    let sizes: Vec<u64> = sizes.collect();
    assert!(
        sizes.len() > 1 && sizes.is_sorted_by(|a, b| a >= b),
        "{layers}"
    );
    let missing = inspect::run(&words(&["oci:/no/such/layout"])).unwrap();
    assert_eq!(missing, "there is no such image");
}

#[test]
fn a_caller_that_cancels_leaves_nothing() {
    let dir = scratch();
    let rootfs = three_packages(dir.path(), "rootfs", "1-1", "a note");
    rootfs.file("usr/share/large", vec![1; 3_000_000]).settle();
    let layout = dir.path().join("image").display().to_string();
    let before = names(dir.path());
    let said = build::run(&words(&[rootfs.str(), &layout, "1000"])).unwrap();
    assert_eq!(said, "given up");
    assert_eq!(names(dir.path()), before);
}
