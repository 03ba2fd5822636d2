//! What users read is true: the options that the README and the Containerfiles name exist, the
//! manual and the completions are made of the same definitions and have them all.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::common::{run, scratch};

/// Options of other programs in the texts: podman, buildah, apt-get, cargo.
const OTHERS: [&str; 29] = [
    "--build-arg",
    "--config",
    "--features",
    "--from",
    "--ignorefile",
    "--isolation",
    "--jobs",
    "--layers",
    "--locked",
    "--manifest-path",
    "--mode",
    "--mount",
    "--network",
    "--no-bindings",
    "--no-cache",
    "--no-default-features",
    "--no-install-recommends",
    "--offline",
    "--preserve-digests",
    "--release",
    "--secret",
    "--skip-unused-stages",
    "--target",
    "--versioned-dirs",
    "--help",
    "--rm",
    "--cap-add",
    "--privileged",
    "--security-opt",
];

/// Every `--option` in a text.
fn options(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("--") {
        let starts = text[..at].chars().next_back().is_none_or(|c| !is_part(c));
        let word: String = text[at..].chars().take_while(|c| is_part(*c)).collect();
        if starts && word.len() > 3 && !word.starts_with("---") {
            found.insert(word.trim_end_matches('-').to_owned());
        }
    }
    found
}

/// Every command that writes something.
const COMMANDS: [&[&str]; 18] = [
    &["build"],
    &["finalize"],
    &["commit"],
    &["encapsulate"],
    &["import"],
    &["lint"],
    &["compose", "container-encapsulate"],
    &["compose", "build-chunked-oci"],
    &["compose", "build-image"],
    &["plan"],
    &["inspect"],
    &["diff"],
    &["push"],
    &["pull"],
    &["seal"],
    &["index"],
    &["mount"],
    &["umount"],
];

fn help_of(command: &[&str]) -> String {
    run(&[command, &["--help"]].concat())
}

#[test]
fn the_options_that_texts_name_exist() {
    let help: BTreeSet<String> = COMMANDS.iter().flat_map(|c| options(&help_of(c))).collect();
    assert!(help.len() > 40, "{help:?}");
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = vec![top.join("README.md"), top.join("CHANGELOG.md")];
    for dir in ["containerfiles", "containerfiles/bootable"] {
        for entry in fs::read_dir(top.join(dir)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                texts.push(path);
            }
        }
    }
    for path in texts {
        for option in options(&fs::read_to_string(&path).unwrap()) {
            let known = help.contains(&option) || OTHERS.contains(&option.as_str());
            assert!(known, "{} names {option}", path.display());
        }
    }
}

#[test]
fn the_manual_has_every_option() {
    let dir = scratch();
    run(&["man", dir.path().to_str().unwrap()]);
    for command in COMMANDS {
        let help = options(&help_of(command));
        let page = format!("apt-ostree-helper-{}.1", command.join("-"));
        let page = fs::read_to_string(dir.path().join(page)).unwrap();
        let page = options(&page.replace("\\-", "-"));
        assert_eq!(help.difference(&page).next(), None, "{command:?}");
    }
    assert!(run(&["man"]).contains("apt\\-ostree\\-helper"));
}

#[test]
fn completions_know_the_options() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]);
        assert!(
            script.contains("max-layers") && script.contains("skip-special-files"),
            "{shell}"
        );
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    assert!(run(&["--help"]).contains("build"));
    assert!(run(&["--version"]).contains(env!("CARGO_PKG_VERSION")));
}
