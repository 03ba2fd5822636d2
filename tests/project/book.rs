//! The book in contrib/docs is whole: its summary names each page once, and each link leads
//! somewhere.

use std::collections::{BTreeMap, BTreeSet};
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

/// The commands of this program in the blocks of shell code of a text, as words.
fn commands(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut in_shell = false;
    let mut whole = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            let info = line.trim_start().trim_start_matches('`');
            in_shell = !in_shell && info.split(' ').next() == Some("sh");
            continue;
        }
        if !in_shell {
            continue;
        }
        whole.push_str(line.split(" #").next().unwrap());
        if let Some(begun) = whole.strip_suffix('\\') {
            whole = begun.to_owned();
            continue;
        }
        for command in std::mem::take(&mut whole).split(['|', ';', '&', '>']) {
            let mut words = command
                .split_whitespace()
                .map(|word| word.trim_matches(['"', '\'']).to_owned());
            if words.next().as_deref() == Some("apt-ostree-helper") {
                found.push(words.collect());
            }
        }
    }
    found
}

/// Every command in the README and the book is one that the program understands: its words are read
/// as far as `--help`, which stops it before it does anything.
#[test]
fn commands_in_the_book_are_understood() {
    let mut texts = markdown(&pages());
    let readme = top().join("README.md");
    texts.insert(readme.clone(), fs::read_to_string(readme).unwrap());
    let mut count = 0;
    for (path, text) in &texts {
        for mut words in commands(text) {
            words.push("--help".to_owned());
            let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_apt-ostree-helper"));
            let output = program.args(&words).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success(),
                "{}: {words:?}: {said}",
                path.display()
            );
            count += 1;
        }
    }
    assert!(count >= 20, "{count}");
}

/// The Rust files of a directory and below, one after another.
fn sources(directory: &Path) -> String {
    let mut found = String::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found += &sources(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found += &fs::read_to_string(&path).unwrap();
        }
    }
    found
}

/// The headings of the page on messages are words of messages.
#[test]
fn each_message_in_the_book_is_one_of_the_program() {
    let page = fs::read_to_string(pages().join("troubleshooting.md")).unwrap();
    let sources = sources(&top().join("src"));
    let messages = page.lines().filter_map(|line| line.strip_prefix("## `"));
    let mut count = 0;
    for message in messages {
        let message = message.trim_end_matches('`');
        assert!(sources.contains(message), "no message says: {message}");
        count += 1;
    }
    assert!(count >= 10, "{count}");
}

/// The README is short; the book has the rest.
/// The page says of each crate what it is for, and of no other.
#[test]
fn the_page_on_dependencies_has_each_crate() {
    let manifest = fs::read_to_string(top().join("Cargo.toml")).unwrap();
    let (_, section) = manifest.split_once("\n[dependencies]\n").unwrap();
    let section = section.split("\n[").next().unwrap();
    let names = section.lines().filter_map(|line| line.split_once(" = "));
    let direct: BTreeSet<&str> = names.map(|(name, _)| name).collect();
    assert!(direct.len() > 20, "{direct:?}");
    let page = fs::read_to_string(pages().join("dependencies.md")).unwrap();
    let (_, crates) = page
        .split_once("| crate | for what |\n|---|---|\n")
        .unwrap();
    let rows = crates.lines().take_while(|line| line.starts_with('|'));
    let told: BTreeSet<&str> = rows
        .flat_map(|row| row.split('|').nth(1).unwrap().split(','))
        .map(str::trim)
        .collect();
    assert_eq!(direct, told);
}

#[test]
fn the_readme_has_at_most_1200_words() {
    let words = fs::read_to_string(top().join("README.md"))
        .unwrap()
        .split_whitespace()
        .count();
    assert!(words <= 1200, "{words}");
}
