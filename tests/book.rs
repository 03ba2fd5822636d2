//! The book in contrib/docs is whole: its summary names each page once, and each link leads somewhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn pages() -> PathBuf {
    top().join("contrib/docs/src")
}

/// The Markdown files of a directory and below, by path.
fn markdown(directory: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.append(&mut markdown(&path));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            let text = fs::read_to_string(&path).unwrap();
            found.insert(path, text);
        }
    }
    found
}

/// The text without its blocks of code.
fn prose(text: &str) -> String {
    let mut in_code = false;
    let lines = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The targets of the links `[text](target)` in a text.
fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let targets = prose.split("](").skip(1);
    let targets = targets.filter_map(|rest| rest.split([')', ' ']).next());
    targets.map(str::to_owned).collect()
}

/// The anchors that mdBook and forges give to the headings of a text.
fn anchors(text: &str) -> Vec<String> {
    let prose = prose(text);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| -> String {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let is_part = |c: &char| c.is_alphanumeric() || "-_ ".contains(*c);
        heading
            .chars()
            .filter(is_part)
            .collect::<String>()
            .replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn the_summary_names_each_page_once() {
    let mut texts = markdown(&pages());
    let summary = texts.remove(&pages().join("SUMMARY.md")).unwrap();
    let mut named = links(&summary);
    named.sort();
    let name = |path: &PathBuf| {
        path.strip_prefix(pages())
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    let there: Vec<String> = texts.keys().map(name).collect();
    assert_eq!(named, there, "SUMMARY.md, and the pages beside it");
}

#[test]
fn each_link_leads_somewhere() {
    let mut texts = markdown(&top().join("contrib"));
    texts.append(&mut markdown(&top().join("containerfiles")));
    for file in fs::read_dir(top()).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            texts.insert(path.clone(), fs::read_to_string(&path).unwrap());
        }
    }
    for (path, text) in &texts {
        for link in links(text) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => path.clone(),
                file => path.parent().unwrap().join(file),
            };
            assert!(target.exists(), "{}: there is no {link}", path.display());
            let is_there =
                || anchors(&fs::read_to_string(&target).unwrap()).contains(&anchor.to_owned());
            assert!(
                anchor.is_empty() || is_there(),
                "{}: no heading for {link}",
                path.display()
            );
        }
    }
}
